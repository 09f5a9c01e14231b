/* Any optimizer of bitstep through its C interface, as a backend of the suite:
 *
 *     cargo build --release -p bitstep-capi
 *     cc -O1 -Iadapters/capi/include capi.c target/release/libbitstep_capi.a -o capi -lm -lpthread -ldl
 *     bitstep-conformance verify --only adamw_torch --backend exec-loop:./capi
 */
#include "bitstep.h"
#include "request.h"

#include <math.h>
#include <setjmp.h>

static bitstep_optimizer *optimizer;
static bitstep_error error;
static jmp_buf failed;

/* In place of a status: what the interface has not got. */
enum { UNSUPPORTED = -1 };

/* Ends the request if a call fails. */
static void check(int status) {
    if (status != BITSTEP_OK) longjmp(failed, status);
}

/* All memory of a request, which is freed at its end. */
static void *kept[1 << 16];
static size_t count_of_kept;

static void *keep(void *memory) {
    if (!memory || count_of_kept == sizeof kept / sizeof *kept) exit(3);
    return kept[count_of_kept++] = memory;
}

static char *copy(const char *from, size_t len) {
    return memcpy(keep(calloc(len + 1, 1)), from, len);
}

/* A string of the metadata without its escapes. */
static char *text(File f, const char *key) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":\"", key);
    char *at = strstr(f.header, quoted);
    if (!at) longjmp(failed, BITSTEP_ARGUMENT);
    at += strlen(quoted);
    char *out = copy(at, strlen(at)), *to = out;
    for (; *at && *at != '"'; at++) {
        at += *at == '\\' && at[1];
        *to++ = *at;
    }
    *to = 0;
    return out;
}

/* JSON: the entries of an object, with their values as they are written. */
typedef struct { char *key, *value; } Entry;
typedef struct { Entry entries[128]; size_t count; } Object;

/* The end of the value that begins here. */
static char *value_end(char *at) {
    for (int depth = 0, quoted = 0; *at; at++) {
        if (*at == '"') quoted = !quoted;
        if (quoted) continue;
        if (!depth && strchr(",}]", *at)) break;
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
    }
    return at;
}

/* Reads an object; `at` is at its brace, and behind it afterwards. */
static Object object(char **at) {
    Object o = {0};
    char *c = *at + 1;
    while (*c == '"' && o.count < 128) {
        char *key = c + 1, *key_end = strchr(key, '"'), *end = value_end(key_end + 2);
        o.entries[o.count++] = (Entry){copy(key, (size_t)(key_end - key)), copy(key_end + 2, (size_t)(end - key_end - 2))};
        c = end + (*end == ',');
    }
    *at = c + (*c == '}');
    return o;
}

static char **find(Object *o, const char *key) {
    for (size_t i = 0; i < o->count; i++)
        if (!strcmp(o->entries[i].key, key)) return &o->entries[i].value;
    return 0;
}

static void set(Object *o, char *key, char *value) {
    char **at = find(o, key);
    if (at) *at = value;
    else if (o->count < 128) o->entries[o->count++] = (Entry){key, value};
}

static char *written(Object o) {
    Bytes out = {0};
    add(&out, "{", 1);
    for (size_t i = 0; i < o.count; i++) {
        add(&out, i ? ",\"" : "\"", i ? 2 : 1);
        add(&out, o.entries[i].key, strlen(o.entries[i].key));
        add(&out, "\":", 2);
        add(&out, o.entries[i].value, strlen(o.entries[i].value));
    }
    add(&out, "}", 1);
    return keep(out.at);
}

/* Arguments with those added that tell the library which implementation to follow. */
static char *completed(Object arguments, const char *name, const char *reference) {
    int eight_bit = strstr(reference, "bitsandbytes.optim.") == reference ||
                    strstr(reference, "galore_torch.GaLoreAdamW8bit") == reference;
    /* The goldens come from bitsandbytes' CPU kernels, which encode 8-bit state in their own way. */
    if (eight_bit && !find(&arguments, "quantizer")) set(&arguments, "quantizer", "\"cpu\"");
    size_t size = 0;
    if (bitstep_optimizer_defaults(name, NULL, 0, &size, NULL) == BITSTEP_OK) {
        char *defaults = keep(malloc(size)), *quoted = keep(malloc(strlen(reference) + 3));
        check(bitstep_optimizer_defaults(name, defaults, size, &size, &error));
        sprintf(quoted, "\"%s\"", reference);
        if (strstr(defaults, "\"reference\": ")) set(&arguments, "reference", quoted);
    }
    return written(arguments);
}

/* Adds a group: what the constructor made of its arguments, with the group's changes; or, if one is not among the
 * rule's arguments, another optimizer of all that hold for the group. */
static void add_group(const char *name, char *base, Object changes, char *own) {
    size_t group;
    bitstep_optimizer *trial;
    check(bitstep_optimizer_new(&trial, &error));
    int status = bitstep_optimizer_add_group(trial, name, base, &group, &error);
    if (!status && changes.count) status = bitstep_optimizer_set_arguments(trial, group, written(changes), &error);
    bitstep_optimizer_free(trial);
    check(bitstep_optimizer_add_group(optimizer, name, status ? own : base, &group, &error));
    if (!status && changes.count) check(bitstep_optimizer_set_arguments(optimizer, group, written(changes), &error));
}

/* Adds all groups. References number parameters group by group: `order` has them so, `group_of` their groups. */
static size_t add_groups(File f, size_t n, size_t *order, size_t *group_of) {
    char *name = text(f, "name"), *reference = text(f, "reference"), *at = text(f, "hyper"), *list = text(f, "groups");
    Object hyper = object(&at);
    char *base = completed(hyper, name, reference);
    size_t placed = 0, groups = 0;
    for (; (list = strchr(list, '{')); groups++) {
        Object all = object(&list), own = {0}, changes = {0};
        for (size_t i = 0; i < all.count; i++) {
            Entry e = all.entries[i];
            if (!strcmp(e.key, "params")) {
                for (char *p = e.value + 1; *p && *p != ']'; p += *p == ',') {
                    size_t param = strtoul(p, &p, 10);
                    if (param >= n || placed == n) longjmp(failed, BITSTEP_LENGTH);
                    group_of[param] = groups, order[placed++] = param;
                }
                continue;
            }
            char **same = find(&hyper, e.key);
            set(&own, e.key, e.value);
            if (!same || strcmp(*same, e.value)) set(&changes, e.key, e.value);
        }
        add_group(name, base, changes, completed(own, name, reference));
    }
    if (placed != n) longjmp(failed, BITSTEP_LENGTH);
    return groups;
}

static const char *const dtypes[] = {"F64", "F32", "BF16", "F16", "I16", "I8", "U8", "F8_E4M3"};

static uint32_t dtype(const char *name) {
    uint32_t i = 0;
    while (i < 7 && strcmp(dtypes[i], name)) i++;
    return i;
}

/* The number that a tensor holds. */
static double number(Tensor t) {
    int64_t whole = 0;
    double wide;
    float narrow;
    uint32_t bits = 0;
    if (t.bytes > sizeof wide) longjmp(failed, BITSTEP_LENGTH);
    if (!strcmp(t.dtype, "F64")) return memcpy(&wide, t.at, 8), wide;
    if (!strcmp(t.dtype, "F32")) return memcpy(&narrow, t.at, 4), narrow;
    if (!strcmp(t.dtype, "BF16")) return bits = (uint32_t)(t.at[1] << 8 | t.at[0]) << 16, memcpy(&narrow, &bits, 4), narrow;
    if (!strcmp(t.dtype, "F16")) {
        bits = (uint32_t)(t.at[1] << 8 | t.at[0]);
        int exponent = bits >> 10 & 31;
        narrow = exponent == 31 ? (bits & 1023 ? NAN : INFINITY) : ldexpf((float)(bits & 1023) + 1024.0f * (exponent > 0), (exponent ? exponent : 1) - 25);
        return bits >> 15 ? -narrow : narrow;
    }
    memcpy(&whole, t.at, t.bytes); /* a count */
    return (double)whole;
}

/* Row s of so many of a tensor. */
static uint8_t *row(Tensor t, int s, int rows) { return t.at + (size_t)s * (t.bytes / (size_t)rows); }

/* The entry of a parameter's state, and which of how many of its key it is. */
static bitstep_state_entry entry(size_t param, size_t index, size_t *which, size_t *of) {
    bitstep_param_info info;
    bitstep_state_entry wanted, other;
    check(bitstep_optimizer_param(optimizer, param, &info, &error));
    check(bitstep_optimizer_entry(optimizer, param, index, &wanted, &error));
    *which = *of = 0;
    for (size_t k = 0; k < info.entries; k++) {
        check(bitstep_optimizer_entry(optimizer, param, k, &other, &error));
        if (strcmp(other.key, wanted.key)) continue;
        *which += k < index;
        ++*of;
    }
    return wanted;
}

/* Whether the request names this tensor among those that the reference drew itself, for parameter i. */
static int is_given(File f, int i, const char *what) {
    char *list = text(f, "given") + 1, quoted[80];
    for (; i > 0 && (list = strchr(list, ']')); i--) list++;
    char *found, *end = list ? strchr(list, ']') : 0;
    snprintf(quoted, sizeof quoted, "\"%s\"", what);
    found = end ? strstr(list, quoted) : 0;
    return found && found < end;
}

static Tensor state0(File f, int i, const char *key) {
    char format[96];
    snprintf(format, sizeof format, "p%%d.state0.%s", key);
    return tensor(f, format, i);
}

/* Loads the state before the first step; the name of what is missing, or 0. */
static char *load_state(File f, int i, size_t at, uint64_t done, uint64_t updates, uint64_t *group_steps) {
    char prefix[32];
    snprintf(prefix, sizeof prefix, "\"p%d.state0.", i);
    int any = strstr(f.header, prefix) != 0;
    if (!done && !any) return 0;
    bitstep_param_info info;
    check(bitstep_optimizer_param(optimizer, at, &info, &error));
    size_t which, of, last = info.entries - 1;
    /* The last entry is the number of steps. */
    Tensor step = state0(f, i, entry(at, last, &which, &of).key);
    double steps = step.at ? number(step) : 0;
    int started = updates > 0 || (!done && any) || steps > 0;
    check(bitstep_optimizer_set_group_steps(optimizer, info.group, done, &error));
    check(bitstep_optimizer_set_param_steps(optimizer, at, updates, (uint32_t)started, &error));
    if (step.at) check(bitstep_optimizer_entry_write(optimizer, at, last, (uint8_t *)&steps, 8, &error));
    uint64_t now;
    check(bitstep_optimizer_group_steps(optimizer, info.group, &now, &error));
    if (now > group_steps[info.group]) group_steps[info.group] = now;
    check(bitstep_optimizer_set_group_steps(optimizer, info.group, group_steps[info.group], &error));

    /* Numbers first. */
    for (int numbers = 1; numbers >= 0; numbers--)
        for (size_t k = 0; k < last; k++) {
            bitstep_state_entry e = entry(at, k, &which, &of);
            int is_number = e.slot == SIZE_MAX && !e.dimensions && e.dtype == BITSTEP_F64;
            bitstep_slot slot = {{0}, {0}, 0, 0};
            if (e.slot != SIZE_MAX) check(bitstep_optimizer_slot(optimizer, at, e.slot, &slot, &error));
            if (is_number != numbers || (*slot.name && is_given(f, i, slot.name)) || (*slot.name && !slot.len)) continue;
            Tensor t = state0(f, i, e.key);
            if (!t.at) {
                if (started) return copy(e.key, strlen(e.key));
                continue;
            }
            const uint8_t *from = t.at + which * (t.bytes / of);
            if (is_number) {
                double x = number(t);
                check(bitstep_optimizer_entry_write(optimizer, at, k, (uint8_t *)&x, 8, &error));
            } else if (*slot.name && !strncmp(e.key, slot.name, sizeof e.key) && dtype(t.dtype) <= BITSTEP_F16 &&
                       e.dtype <= BITSTEP_F16) { /* plain numbers, of whatever type */
                check(bitstep_optimizer_slot_write(optimizer, at, e.slot, from, t.count / of, dtype(t.dtype), &error));
            } else {
                check(bitstep_optimizer_entry_write(optimizer, at, k, from, t.bytes / of, &error));
            }
        }
    return 0;
}

/* The rows of one tensor of state, so far. */
typedef struct { char key[64], shape[200]; uint32_t dtype; int rows; Bytes bytes; } Rows;
enum { MOST_ROWS = 64 };

/* Adds the state after a step; entries of one key are one tensor. */
static void show(size_t at, int s, Rows *rows) {
    bitstep_param_info info;
    check(bitstep_optimizer_param(optimizer, at, &info, &error));
    for (size_t k = 0; k < info.entries; k++) {
        size_t which, of, dims[16], n = 0;
        bitstep_state_entry e = entry(at, k, &which, &of);
        while (n < MOST_ROWS && *rows[n].key && strcmp(rows[n].key, e.key)) n++;
        if (n == MOST_ROWS || e.dimensions > 16) longjmp(failed, BITSTEP_LENGTH);
        Rows *r = &rows[n];
        char shape[200] = "";
        check(bitstep_optimizer_entry_shape(optimizer, at, k, dims, e.dimensions, &error));
        if (of > 1) sprintf(shape, "%zu", of);
        for (size_t d = 0; d < e.dimensions; d++) sprintf(shape + strlen(shape), "%s%zu", *shape ? "," : "", dims[d]);
        if (!*r->key) strcpy(r->key, e.key), strcpy(r->shape, shape), r->dtype = e.dtype;
        /* One that changes its shape, or is not there from the first step on, can't be shown. */
        if (strcmp(r->shape, shape) || r->dtype != e.dtype || r->rows != s + (which > 0)) continue;
        uint8_t *memory = malloc(e.size + 1);
        int status = bitstep_optimizer_entry_read(optimizer, at, k, memory, e.size, &error);
        add(&r->bytes, memory, e.size);
        free(memory);
        check(status);
        if (!which) r->rows = s + 1;
    }
}

/* Hands over what the reference drew itself; the numbers that say so are added to `given`. */
static size_t hand_over(File f, int i, size_t at, int s, int steps, bitstep_number *given, size_t count) {
    bitstep_param_info info;
    check(bitstep_optimizer_param(optimizer, at, &info, &error));
    Tensor bits = tensor(f, "p%d.given.rand16", i), fresh = tensor(f, "p%d.fresh.rand16", i);
    if (bits.at && fresh.at && fresh.at[s]) {
        size_t n = bits.count / (size_t)steps, size = bits.bytes / (bits.count ? bits.count : 1);
        uint16_t *narrow = calloc(n + 1, sizeof *narrow);
        for (size_t k = 0; k < n; k++) memcpy(&narrow[k], row(bits, s, steps) + k * size, 2);
        int status = bitstep_optimizer_set_rounding_bits(optimizer, at, narrow, n, &error);
        free(narrow);
        check(status);
    } else {
        check(bitstep_optimizer_set_rounding_bits(optimizer, at, NULL, 0, &error));
    }
    for (size_t k = 0; k < info.slots; k++) {
        bitstep_slot slot;
        char format[2][96];
        check(bitstep_optimizer_slot(optimizer, at, k, &slot, &error));
        snprintf(format[0], sizeof format[0], "p%%d.given.%s", slot.name);
        snprintf(format[1], sizeof format[1], "p%%d.fresh.%s", slot.name);
        Tensor t = tensor(f, format[0], i), is_fresh = tensor(f, format[1], i);
        if (!t.at || !is_fresh.at || !is_fresh.at[s] || !is_given(f, i, slot.name)) continue;
        check(bitstep_optimizer_slot_write(optimizer, at, k, row(t, s, steps), t.count / (size_t)steps, dtype(t.dtype), &error));
        size_t seen = 0;
        while (seen < count && strcmp(given[seen].name, slot.name)) seen++;
        if (seen == count && count < 16) given[count++] = (bitstep_number){copy(slot.name, strlen(slot.name)), 1};
    }
    return count;
}

static void run(File f, size_t n) {
    size_t *order = keep(calloc(n + 1, sizeof *order)), *group_of = keep(calloc(n + 1, sizeof *group_of));
    bitstep_tensor *tensors = keep(calloc(n + 1, sizeof *tensors));
    Rows *rows = keep(calloc(n * MOST_ROWS + 1, sizeof *rows));
    Bytes *values = keep(calloc(n + 1, sizeof *values));
    int steps = atoi(text(f, "steps"));
    uint64_t done = strtoull(text(f, "done"), 0, 10);
    check(bitstep_optimizer_new(&optimizer, &error));
    size_t groups = add_groups(f, n, order, group_of);
    uint64_t *group_steps = keep(calloc(groups + 1, sizeof *group_steps));
    for (size_t at = 0; at < n; at++) {
        int i = (int)order[at];
        Tensor init = tensor(f, "p%d.init", i);
        size_t shape[16], dimensions = 0;
        for (char *d = init.shape; *d && dimensions < 16; d += *d == ',') shape[dimensions++] = strtoull(d, &d, 10);
        check(bitstep_optimizer_add_param(optimizer, group_of[i], shape, dimensions, dtype(init.dtype), &error));
        tensors[at] = (bitstep_tensor){init.at, init.count, dtype(init.dtype), dtype(init.dtype), NULL};
    }
    for (size_t at = 0; at < n; at++) {
        int i = (int)order[at];
        uint64_t updates;
        memcpy(&updates, tensor(f, "updates", 0).at + 8 * i, 8);
        char *lacks = load_state(f, i, at, done, updates, group_steps), meta[200];
        if (lacks && !done) {
            snprintf(error.message, sizeof error.message, "the start lacks `%s`", lacks);
            longjmp(failed, BITSTEP_STATE);
        }
        if (lacks) snprintf(meta, sizeof meta, ",\"p%d.lacks\":\"%s\"", i, lacks), add(&header, meta, strlen(meta));
    }
    add(&header, "}", 1);

    Tensor rates = tensor(f, "lr", 0);
    for (int s = 0; s < steps; s++) {
        for (size_t g = 0; rates.at && g < groups; g++) {
            double rate = ((double *)rates.at)[s];
            if (rate < 0) longjmp(failed, UNSUPPORTED);
            check(bitstep_optimizer_set_lr(optimizer, g, rate, &error));
        }
        bitstep_number given[16];
        size_t count = 0;
        for (char *at = f.header; count < 8 && (at = strstr(at, "\"given.")); ) {
            at += strlen("\"given.");
            char key[80], *name = copy(at, strcspn(at, "\""));
            snprintf(key, sizeof key, "given.%s", name);
            given[count++] = (bitstep_number){name, ((double *)tensor(f, key, 0).at)[s]};
        }
        for (size_t at = 0; at < n; at++) {
            int i = (int)order[at];
            Tensor grad = tensor(f, "p%d.grad", i), has = tensor(f, "p%d.has_grad", i);
            tensors[at].grad = has.at && !has.at[s] ? NULL : row(grad, s, steps);
            tensors[at].grad_dtype = dtype(grad.dtype);
            count = hand_over(f, i, at, s, steps, given, count);
        }
        check(bitstep_optimizer_step(optimizer, tensors, n, given, count, &error));
        for (size_t at = 0; at < n; at++) {
            add(&values[at], tensors[at].data, tensor(f, "p%d.init", (int)order[at]).bytes);
            show(at, s, rows + at * MOST_ROWS);
        }
    }
    /* The parameters' own memory may be converted now. A configuration that can't be evaluated has no such value. */
    int evaluates = steps > 0 && bitstep_optimizer_eval(optimizer, tensors, n, &error) == BITSTEP_OK;
    for (size_t at = 0; at < n; at++) {
        int i = (int)order[at];
        Tensor init = tensor(f, "p%d.init", i);
        put("value", i, init.dtype, steps, init.shape, values[at].at, values[at].len);
        if (evaluates) put("eval", i, init.dtype, -1, init.shape, init.at, init.bytes);
        free(values[at].at);
        for (Rows *r = rows + at * MOST_ROWS; r < rows + (at + 1) * MOST_ROWS && *r->key; r++) {
            char name[80];
            snprintf(name, sizeof name, "state.%s", r->key);
            if (r->rows == steps) put(name, i, dtypes[r->dtype], steps, r->shape, r->bytes.at, r->bytes.len);
            free(r->bytes.at);
        }
    }
}

static int answer(const char *from, const char *to) {
    File f = load(from);
    if (!f.header) return printf("error no request at %s\n", from), 0;
    if (!strstr(f.header, "\"kind\":\"optimizer\"")) return refuse("optimizers only");
    begin();
    optimizer = NULL;
    error.message[0] = 0;
    int status = setjmp(failed);
    if (!status) run(f, tensor(f, "updates", 0).count);
    if (status == UNSUPPORTED) puts("unsupported a rate below 0");
    else if (status) printf("error %d: %s\n", status, error.message);
    else finish(to);
    bitstep_optimizer_free(optimizer);
    while (count_of_kept) free(kept[--count_of_kept]);
    free(f.header), free(f.data);
    return 0;
}

int main(int argc, char **argv) {
    return argc > 2 ? answer(argv[1], argv[2]) : serve(answer);
}
