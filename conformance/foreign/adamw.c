/* PyTorch's AdamW in plain C, as a backend of the suite:
 *
 *     cc -O1 -ffp-contract=off adamw.c -o adamw -lm
 *     bitstep-conformance verify --only adamw_torch --backend exec-loop:./adamw
 *
 * An argument makes it wrong: coupled, eps_inside, f16, f32, off_by_one, betas_swapped, eps_before, lr_f32,
 * one_element, denormal or after_missing. The suite says which. */
#include "request.h"

#include <math.h>

static int is32;
static const char *fault = "";

static double get(Tensor t, size_t i) {
    return strcmp(t.dtype, "F32") ? ((double *)t.at)[i] : ((float *)t.at)[i];
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

/* A number of JSON; NaN and infinity come by name, as \"Infinity\". */
static double number(char *at, char **end) {
    while (*at == ' ') at++;
    double x = strtod(at + 2 * (at[0] == '\\'), end);
    if (end && at[0] == '\\') *end += 2;
    return x;
}

/* The nearest f16, or f32. */
static double narrow(double x, int f16) {
    int e;
    if (!f16) return (float)x;
    frexp(x, &e);
    double unit = ldexp(1, (e < -13 ? -13 : e) - 11);
    return nearbyint(x / unit) * unit;
}

/* Every operation is rounded to the parameter's type: float's are exact in double before that. */
static double r(double x) { return is32 ? (float)x : x; }

/* Appends a number in the parameter's type. */
static void row(Bytes *to, double x) {
    float f = (float)x;
    if (is32) add(to, &f, 4);
    else add(to, &x, 8);
}

static int answer(const char *from, const char *to) {
    File f = load(from);
    if (!f.header) return printf("error no request at %s\n", from), 0;
    if (!strstr(f.header, "\"name\":\"adamw_torch\"")) return refuse("only adamw_torch");
    if (!strncmp(value(f, "groups", "amsgrad"), "true", 4)) return refuse("no amsgrad");
    if (strstr(value(f, "groups", "params"), "\\\"params\\\"")) return refuse("one group only");
    double lr0 = number(value(f, "groups", "lr"), 0), wd = number(value(f, "groups", "weight_decay"), 0);
    double eps = number(value(f, "groups", "eps"), 0);
    char *betas = value(f, "groups", "betas"), *second;
    double beta1 = number(betas + 1, &second), beta2 = number(second + 1, 0);
    double sign = strncmp(value(f, "groups", "maximize"), "true", 4) ? 1 : -1;
    int coupled = !strcmp(fault, "coupled"), inside = !strcmp(fault, "eps_inside");
    int swapped = !strcmp(fault, "betas_swapped"), before = !strcmp(fault, "eps_before");
    int lr32 = !strcmp(fault, "lr_f32"), one = !strcmp(fault, "one_element");
    int flush = !strcmp(fault, "denormal"), forgets = !strcmp(fault, "after_missing");
    int f16 = !strcmp(fault, "f16"), f32 = !strcmp(fault, "f32"), off = !strcmp(fault, "off_by_one");
    if (f16 || f32)
        beta1 = narrow(beta1, f16), beta2 = narrow(beta2, f16), eps = narrow(eps, f16), wd = narrow(wd, f16);
    if (swapped) {
        double first = beta1;
        beta1 = beta2, beta2 = first;
    }
    char *steps_text = strstr(f.header, "\"steps\":\"");
    int steps = steps_text ? atoi(steps_text + 9) : 0;
    Tensor rates = tensor(f, "lr", 0), updates = tensor(f, "updates", 0);

    begin();
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
        is32 = !strcmp(init.dtype, "F32");
        if (!is32 && strcmp(init.dtype, "F64")) return refuse("f32 and f64 only");
        size_t n = init.count;
        double *p = calloc(3 * n + 1, sizeof *p), *m = p + n, *v = m + n, t = t0.at ? get(t0, 0) : 0;
        for (size_t k = 0; k < n; k++) p[k] = get(init, k), m[k] = m0.at ? get(m0, k) : 0, v[k] = v0.at ? get(v0, k) : 0;
        Bytes ps = {0}, ms = {0}, vs = {0}, ts = {0};
        int missed = 0;
        for (int s = 0; s < steps; s++) {
            double lr = rates.at ? get(rates, s) : lr0;
            if (f16 || f32) lr = narrow(lr, f16);
            if (lr32) lr = (float)lr;
            if (one && n == 1) lr /= 2;
            int moves = !has.at || has.at[s];
            t += moves;
            double c1 = 1 - pow(beta1, t + off), c2 = sqrt(1 - pow(beta2, t + off));
            double w1 = r(1 - beta1), w2 = r(1 - beta2), rate = r(-lr / c1);
            for (size_t k = 0; k < n; k++) {
                double g = sign * get(grad, s * n + k);
                if (flush && fabs(g) < (is32 ? 0x1p-126 : 0x1p-1022)) g = 0;
                if (moves) {
                    if (forgets && missed) m[k] = 0;
                    if (coupled) g = r(g + r(r(wd) * p[k]));
                    else p[k] = r(p[k] * r(1 - lr * wd));
                    double step = r(g - m[k]); /* torch's lerp */
                    m[k] = w1 < 0.5 ? r(m[k] + r(w1 * step)) : r(g - r(step * r(1 - w1)));
                    v[k] = r(r(v[k] * r(beta2)) + r(r(w2 * g) * g));
                    double root = r(r(sqrt(v[k])) / r(c2)), inner = r(v[k] / r(c2 * c2));
                    double denominator = inside ? r(sqrt(r(inner + r(eps)))) : r(root + r(eps));
                    if (before) denominator = r(r(r(sqrt(v[k])) + r(eps)) / r(c2));
                    p[k] = r(p[k] + r(r(rate * m[k]) / denominator));
                }
                row(&ps, p[k]), row(&ms, m[k]), row(&vs, v[k]);
            }
            missed = !moves;
            add(&ts, &t, 8);
        }
        const char *type = is32 ? "F32" : "F64";
        put("value", i, type, steps, init.shape, ps.at, ps.len);
        put("state.exp_avg", i, type, steps, init.shape, ms.at, ms.len);
        put("state.exp_avg_sq", i, type, steps, init.shape, vs.at, vs.len);
        put("state.step", i, "F64", steps, "", ts.at, ts.len);
        free(p), free(ps.at), free(ms.at), free(vs.at), free(ts.at);
    }
    free(f.header), free(f.data);
    return finish(to);
}

int main(int argc, char **argv) {
    if (argc == 2 || argc == 4) fault = argv[1];
    return argc > 2 ? answer(argv[argc - 2], argv[argc - 1]) : serve(answer);
}
