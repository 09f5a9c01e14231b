/* Any optimizer of bitstep through its C interface, as a backend of the suite:
 *
 *     cargo build --release -p bitstep-capi
 *     cc -O1 -Iadapters/capi/include capi.c target/release/libbitstep_capi.a -o capi -lm -lpthread -ldl
 *     bitstep-conformance verify --only adamw_torch --backend exec-loop:./capi
 *
 * The interface keeps state to itself, so there are free runs only. */
#include "bitstep.h"
#include "request.h"

static bitstep_optimizer *optimizer;
static bitstep_error error;

/* A string of the metadata without its escapes; to be freed. */
static char *text(File f, const char *key) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":\"", key);
    char *at = strstr(f.header, quoted), *out = at ? malloc(strlen(at)) : 0, *to = out;
    if (!at) return 0;
    for (at += strlen(quoted); *at && *at != '"'; at++) {
        at += *at == '\\' && at[1];
        *to++ = *at;
    }
    *to = 0;
    return out;
}

/* The end of the object that begins here. */
static char *object_end(char *at) {
    for (int depth = 0, quoted = 0; *at; at++) {
        quoted ^= *at == '"';
        depth += !quoted * ((*at == '{') - (*at == '}'));
        if (!depth) break;
    }
    return at;
}

/* The groups, their arguments as they came, and their parameters. */
static int build(File f, size_t *group_of, size_t *group_count) {
    char *name = text(f, "name"), *groups = text(f, "groups"), *at = groups;
    int status = name && groups ? bitstep_optimizer_new(&optimizer, &error) : BITSTEP_ARGUMENT;
    if (groups && strstr(groups, "},") && strstr(groups, "\"max_lr\"")) status = -1; /* it is the constructor's lr */
    for (*group_count = 0; !status && (at = strchr(at, '{')); ++*group_count) {
        char *end = object_end(at), *params = strstr(at, "\"params\":["), next = end[1];
        end[1] = 0;
        size_t group;
        char *list = params + strlen("\"params\":["), *close = strchr(list, ']');
        for (char *i = list; i < close; i += *i == ',') group_of[strtoul(i, &i, 10)] = *group_count;
        /* Without them, the rest is arguments. */
        close++;
        if (*close == ',') close++;
        else if (params[-1] == ',') params--;
        memmove(params, close, strlen(close) + 1);
        status = bitstep_optimizer_add_group(optimizer, name, at, &group, &error);
        *end = '}', end[1] = next;
        at = end + 1;
    }
    free(name), free(groups);
    return status;
}

static uint32_t dtype(const char *name) {
    return !strcmp(name, "F64") ? BITSTEP_F64 : !strcmp(name, "F32") ? BITSTEP_F32
         : !strcmp(name, "BF16") ? BITSTEP_BF16 : BITSTEP_F16;
}

static int run(File f, size_t n, size_t *group_of, bitstep_tensor *tensors, Bytes *rows) {
    size_t group_count;
    char *steps_text = strstr(f.header, "\"steps\":\"");
    int steps = steps_text ? atoi(steps_text + 9) : 0, status = build(f, group_of, &group_count);
    for (size_t i = 0; i < n && !status; i++) {
        Tensor init = tensor(f, "p%d.init", i);
        size_t shape[16], dimensions = 0;
        for (char *d = init.shape; *d && dimensions < 16; d += *d == ',') shape[dimensions++] = strtoull(d, &d, 10);
        status = bitstep_optimizer_add_param(optimizer, group_of[i], shape, dimensions, dtype(init.dtype), &error);
        tensors[i] = (bitstep_tensor){init.at, init.count, dtype(init.dtype), dtype(init.dtype), NULL};
    }
    Tensor rates = tensor(f, "lr", 0);
    for (int s = 0; s < steps && !status; s++) {
        for (size_t g = 0; rates.at && g < group_count; g++)
            bitstep_optimizer_set_lr(optimizer, g, ((double *)rates.at)[s], NULL);
        bitstep_number given[8];
        char names[8][32];
        size_t count = 0;
        for (char *at = f.header; count < 8 && (at = strstr(at, "\"given.")); count++) {
            at += strlen("\"given.");
            snprintf(names[count], sizeof names[count], "%.*s", (int)strcspn(at, "\""), at);
            char key[40];
            snprintf(key, sizeof key, "given.%s", names[count]);
            given[count] = (bitstep_number){names[count], ((double *)tensor(f, key, 0).at)[s]};
        }
        for (size_t i = 0; i < n; i++) {
            Tensor init = tensor(f, "p%d.init", i), grad = tensor(f, "p%d.grad", i), has = tensor(f, "p%d.has_grad", i);
            tensors[i].grad = has.at && !has.at[s] ? NULL : grad.at + s * init.bytes;
            tensors[i].grad_dtype = dtype(grad.dtype);
        }
        status = bitstep_optimizer_step(optimizer, tensors, n, given, count, &error);
        for (size_t i = 0; i < n; i++) add(&rows[i], tensors[i].data, tensor(f, "p%d.init", i).bytes);
    }
    if (!status) status = bitstep_optimizer_eval(optimizer, tensors, n, &error);
    for (size_t i = 0; i < n && !status; i++) {
        Tensor init = tensor(f, "p%d.init", i);
        put("value", i, init.dtype, steps, init.shape, rows[i].at, rows[i].len);
        put("eval", i, init.dtype, -1, init.shape, init.at, init.bytes);
    }
    return status;
}

static int answer(const char *from, const char *to) {
    File f = load(from);
    if (!f.header) return printf("error no request at %s\n", from), 0;
    if (!strstr(f.header, "\"kind\":\"optimizer\"")) return refuse("optimizers only");
    if (!strstr(f.header, "\"done\":\"0\"") || strstr(f.header, ".state0.")) return refuse("state stays inside");
    if (strstr(f.header, ".given.")) return refuse("nothing drawn elsewhere");
    size_t n = tensor(f, "updates", 0).count, *group_of = calloc(n + 1, sizeof *group_of);
    bitstep_tensor *tensors = calloc(n + 1, sizeof *tensors);
    Bytes *rows = calloc(n + 1, sizeof *rows);
    begin();
    const char *hidden = ",\"state\":\"hidden\"}";
    add(&header, hidden, strlen(hidden));
    int status = run(f, n, group_of, tensors, rows);
    if (status == -1) refuse("a group can't be told what the constructor's lr was");
    else if (status) printf("error %d: %s\n", status, error.message);
    else finish(to);
    bitstep_optimizer_free(optimizer), optimizer = NULL;
    for (size_t i = 0; i < n; i++) free(rows[i].at);
    free(rows), free(tensors), free(group_of), free(f.header), free(f.data);
    return 0;
}

int main(int argc, char **argv) {
    return argc > 2 ? answer(argv[1], argv[2]) : serve(answer);
}
