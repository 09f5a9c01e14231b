/* PyTorch's AdamW in plain C, as a backend of the suite:
 *
 *     cc -O1 -ffp-contract=off adamw.c -o adamw -lm
 *     bitstep-conformance verify --only adamw_torch --backend exec-loop:./adamw
 *
 * An argument makes it wrong: coupled, eps_inside, f16, f32 or off_by_one. The suite says which. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char *header; uint8_t *data; } File;
typedef struct { uint8_t *at; size_t bytes, count; int is32; char shape[160]; } Tensor;
typedef struct { char *at; size_t len; } Bytes;

static int refuse(const char *why) { printf("unsupported %s\n", why); return 0; }

static void add(Bytes *to, const void *from, size_t len) {
    to->at = realloc(to->at, to->len + len + 1);
    memcpy(to->at + to->len, from, len);
    to->at[to->len += len] = 0;
}

static File load(const char *path) {
    File f = {0};
    FILE *in = fopen(path, "rb");
    uint64_t len;
    if (!in || fread(&len, 8, 1, in) != 1) return f;
    f.header = calloc(len + 1, 1);
    long rest = 0;
    if (fread(f.header, 1, len, in) == len && !fseek(in, 0, SEEK_END)) rest = ftell(in) - 8 - (long)len;
    f.data = calloc(rest + 1, 1);
    if (fseek(in, 8 + (long)len, SEEK_SET) || fread(f.data, 1, rest, in) != (size_t)rest) f.header = 0;
    fclose(in);
    return f;
}

/* The tensor of a name such as p0.init; its count is 0 and `at` null if there is none. */
static Tensor tensor(File f, const char *format, int i) {
    Tensor t = {0};
    char name[64], key[80];
    snprintf(name, sizeof name, format, i);
    snprintf(key, sizeof key, "\"%s\":{", name);
    char *entry = strstr(f.header, key);
    if (!entry) return t;
    t.is32 = !strncmp(strstr(entry, "\"dtype\":") + 9, "F32", 3);
    char *shape = strstr(entry, "\"shape\":[") + 9;
    snprintf(t.shape, sizeof t.shape, "%.*s", (int)strcspn(shape, "]"), shape);
    t.count = 1;
    for (char *d = t.shape; *d; d += strcspn(d, ","), d += *d == ',') t.count *= strtoull(d, 0, 10);
    char *offsets = strstr(entry, "\"data_offsets\":[") + 16, *end;
    size_t from = strtoull(offsets, &end, 10);
    t.bytes = strtoull(end + 1, 0, 10) - from;
    t.at = f.data + from;
    return t;
}

static double get(Tensor t, size_t i) {
    return t.is32 ? ((float *)t.at)[i] : ((double *)t.at)[i];
}

/* What follows a key in a JSON object that is itself a string: \"lr\":0.001 */
static char *value(File f, const char *object, const char *key) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":\"", object);
    char *at = strstr(f.header, quoted);
    snprintf(quoted, sizeof quoted, "\\\"%s\\\":", key);
    at = at ? strstr(at, quoted) : 0;
    return at ? at + strlen(quoted) : "";
}

/* The nearest f16, or f32. */
static double narrow(double x, int f16) {
    int e;
    if (!f16) return (float)x;
    frexp(x, &e);
    double unit = ldexp(1, (e < -13 ? -13 : e) - 11);
    return nearbyint(x / unit) * unit;
}

static int is32;
/* Every operation is rounded to the parameter's type: float's are exact in double before that. */
static double r(double x) { return is32 ? (float)x : x; }

static Bytes header, data;

static void put(const char *name, int i, const char *dtype, int rows, const char *shape, const void *from, size_t bytes) {
    char text[512];
    size_t at = data.len;
    add(&data, from, bytes);
    snprintf(text, sizeof text, ",\"p%d.%s\":{\"dtype\":\"%s\",\"shape\":[%d%s%s],\"data_offsets\":[%zu,%zu]}", i, name,
             dtype, rows, *shape ? "," : "", shape, at, data.len);
    add(&header, text, strlen(text));
}

/* Appends a number in the parameter's type. */
static void row(Bytes *to, double x) {
    float f = (float)x;
    if (is32) add(to, &f, 4);
    else add(to, &x, 8);
}

static int answer(const char *from, const char *to, const char *fault) {
    File f = load(from);
    if (!f.header) return printf("error no request at %s\n", from), 0;
    if (!strstr(f.header, "\"name\":\"adamw_torch\"")) return refuse("only adamw_torch");
    if (!strncmp(value(f, "hyper", "amsgrad"), "true", 4)) return refuse("no amsgrad");
    if (strstr(value(f, "groups", "params"), "\\\"params\\\"")) return refuse("one group only");
    double lr0 = strtod(value(f, "hyper", "lr"), 0), wd = strtod(value(f, "hyper", "weight_decay"), 0);
    double eps = strtod(value(f, "hyper", "eps"), 0);
    char *betas = value(f, "hyper", "betas"), *second;
    double beta1 = strtod(betas + 1, &second), beta2 = strtod(second + 1, 0);
    double sign = strncmp(value(f, "hyper", "maximize"), "true", 4) ? 1 : -1;
    int coupled = !strcmp(fault, "coupled"), inside = !strcmp(fault, "eps_inside");
    int f16 = !strcmp(fault, "f16"), f32 = !strcmp(fault, "f32"), off = !strcmp(fault, "off_by_one");
    if (f16 || f32)
        beta1 = narrow(beta1, f16), beta2 = narrow(beta2, f16), eps = narrow(eps, f16), wd = narrow(wd, f16);
    char *steps_text = strstr(f.header, "\"steps\":\"");
    int steps = steps_text ? atoi(steps_text + 9) : 0;
    Tensor rates = tensor(f, "lr", 0), updates = tensor(f, "updates", 0);

    header.len = data.len = 0;
    const char *start = "{\"__metadata__\":{\"format\":\"bitstep-answer/1\"";
    add(&header, start, strlen(start));
    for (size_t i = 0; i < updates.count; i++) {
        char text[64];
        snprintf(text, sizeof text, ",\"p%zu.lacks\":\"exp_avg\"", i);
        if (((int64_t *)updates.at)[i] > 0 && !tensor(f, "p%d.state0.exp_avg", i).at) add(&header, text, strlen(text));
    }
    add(&header, "}", 1);
    for (size_t i = 0; i < updates.count; i++) {
        Tensor init = tensor(f, "p%d.init", i), grad = tensor(f, "p%d.grad", i), has = tensor(f, "p%d.has_grad", i);
        Tensor m0 = tensor(f, "p%d.state0.exp_avg", i), v0 = tensor(f, "p%d.state0.exp_avg_sq", i);
        Tensor t0 = tensor(f, "p%d.state0.step", i);
        if (init.bytes != init.count * 8 && !(init.is32 && init.bytes == init.count * 4)) return refuse("f32 and f64 only");
        is32 = init.is32;
        size_t n = init.count;
        double *p = calloc(3 * n + 1, sizeof *p), *m = p + n, *v = m + n, t = t0.at ? get(t0, 0) : 0;
        for (size_t k = 0; k < n; k++) p[k] = get(init, k), m[k] = m0.at ? get(m0, k) : 0, v[k] = v0.at ? get(v0, k) : 0;
        Bytes ps = {0}, ms = {0}, vs = {0}, ts = {0};
        for (int s = 0; s < steps; s++) {
            double lr = rates.at ? get(rates, s) : lr0;
            if (f16 || f32) lr = narrow(lr, f16);
            int moves = !has.at || has.at[s];
            t += moves;
            double c1 = 1 - pow(beta1, t + off), c2 = sqrt(1 - pow(beta2, t + off));
            double w1 = r(1 - beta1), w2 = r(1 - beta2), rate = r(-lr / c1);
            for (size_t k = 0; k < n; k++) {
                double g = sign * get(grad, s * n + k);
                if (moves) {
                    if (coupled) g = r(g + r(r(wd) * p[k]));
                    else p[k] = r(p[k] * r(1 - lr * wd));
                    double step = r(g - m[k]); /* torch's lerp */
                    m[k] = w1 < 0.5 ? r(m[k] + r(w1 * step)) : r(g - r(step * r(1 - w1)));
                    v[k] = r(r(v[k] * r(beta2)) + r(r(w2 * g) * g));
                    double root = r(r(sqrt(v[k])) / r(c2)), inner = r(v[k] / r(c2 * c2));
                    double denominator = inside ? r(sqrt(r(inner + r(eps)))) : r(root + r(eps));
                    p[k] = r(p[k] + r(r(rate * m[k]) / denominator));
                }
                row(&ps, p[k]), row(&ms, m[k]), row(&vs, v[k]);
            }
            add(&ts, &t, 8);
        }
        const char *type = is32 ? "F32" : "F64";
        put("value", i, type, steps, init.shape, ps.at, ps.len);
        put("state.exp_avg", i, type, steps, init.shape, ms.at, ms.len);
        put("state.exp_avg_sq", i, type, steps, init.shape, vs.at, vs.len);
        put("state.step", i, "F64", steps, "", ts.at, ts.len);
        free(p), free(ps.at), free(ms.at), free(vs.at), free(ts.at);
    }
    add(&header, "}", 1);
    while (header.len % 8) add(&header, " ", 1);
    uint64_t len = header.len;
    FILE *out = fopen(to, "wb");
    int ok = out && fwrite(&len, 8, 1, out) == 1 && fwrite(header.at, 1, len, out) == len &&
             fwrite(data.at, 1, data.len, out) == data.len;
    ok = out && !fclose(out) && ok;
    printf(ok ? "done\n" : "error can't write %s\n", to);
    free(f.header), free(f.data);
    return 0;
}

int main(int argc, char **argv) {
    const char *fault = argc == 2 || argc == 4 ? argv[1] : "";
    if (argc > 2) return answer(argv[argc - 2], argv[argc - 1], fault);
    static char line[8192];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        char *tab = strchr(line, '\t');
        if (!tab) return 2;
        *tab = 0;
        answer(line, tab + 1, fault);
        fflush(stdout);
    }
}
