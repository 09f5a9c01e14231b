/* usage: random_calls SECONDS SEED NAMES
 *
 * Calls the C interface at random: with arguments that are right, and with NULL, odd, overlapping, huge,
 * unknown and damaged ones. After each call it looks at all memory that the call could reach: on an error
 * nothing may have changed, else only what the call is to write to, and that only if it lies apart from all
 * else. What no library can find is left out: freed handles, pointers behind which there is less than is said.
 *
 * NAMES is a file of names, a line each: optimizers, an empty line, schedules. Rounds of 200 calls follow
 * each other; each begins without handles, and with a seed of its own, which is printed with the number of
 * the call if anything is wrong. SECONDS are the processor's; 0 repeats the one round of SEED. */
#define _GNU_SOURCE
#include "bitstep.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { ARENA = 1 << 14, CALLS = 200, HANDLES = 4, PARAMS = 5, PIECES = 96, STATUSES = 7, MOST = 64 };

/* Random values. */

static uint64_t seed, state;
static unsigned call_number;
static const char *call_name = "nothing";

static uint64_t next(void) { /* splitmix64 */
    uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static size_t below(size_t n) { return (size_t)(next() % n); }
static int one_in(size_t n) { return below(n) == 0; }

/* A size, usually a small one. */
static size_t any_size(void) {
    switch (below(12)) {
        case 0: return (size_t)(next() >> below(64));
        case 1: return (size_t)1 << below(64);
        case 2: return SIZE_MAX - below(3);
        default: return below(9);
    }
}

static double any_number(void) {
    static const double some[] = {0, 1, -1, 0.5, 1e-3, 1e-8, 1e30, -1e30, 1e-310, 3, 7};
    double x;
    uint64_t bits = next();
    switch (below(8)) {
        case 0: memcpy(&x, &bits, sizeof x); return x; /* NaN and infinity among them */
        case 1: return (double)any_size();
        default: return some[below(sizeof some / sizeof *some)];
    }
}

/* Reporting of failures. */

static uint64_t calls, by_status[STATUSES];
static struct { const char *name; uint64_t calls, well; } functions[96];
static bitstep_error *error;

static void where(void) {
    char text[200];
    int n = snprintf(text, sizeof text, "\nrandom_calls: seed %" PRIu64 ", call %u: %s\n", seed, call_number, call_name);
    if (write(2, text, (size_t)n) < 0) _exit(3);
}

/* A few calls on small tensors that use half a minute of CPU time, or wait for ten, are taken to hang. */
static void on_alarm(int number) {
    (void)number;
    const char text[] = "\nrandom_calls: a call that does not end";
    if (write(2, text, sizeof text - 1) < 0) _exit(3);
    where();
    _exit(1);
}

static void on_signal(int number) {
    where();
    signal(number, SIG_DFL);
    raise(number);
}

static void wrong(const char *what) {
    fprintf(stderr, "random_calls: %s\n", what);
    where();
    fflush(NULL);
    _exit(1);
}

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

/* All memory passed to calls: pieces of one arena, which ends at an unmapped page. */

static unsigned char *arena, *before;
static size_t used;
static struct piece { size_t start, end; int written; } pieces[PIECES];
static size_t count_of_pieces;
static int spoilt; /* whether any argument of the call is invalid */

static void note(const void *pointer, size_t size, int written) {
    const unsigned char *p = pointer;
    if (p == NULL || size == 0 || p < arena || p >= arena + ARENA) return;
    if (count_of_pieces == PIECES) wrong("too many pieces for this program");
    size_t start = (size_t)(p - arena);
    pieces[count_of_pieces++] = (struct piece){start, start + size, written};
}

static int overlap(void) {
    for (size_t i = 0; i < count_of_pieces; i++)
        for (size_t j = 0; j < i; j++)
            if ((pieces[i].written || pieces[j].written) && pieces[i].start < pieces[j].end &&
                pieces[j].start < pieces[i].end)
                return 1;
    return 0;
}

/* Memory for something that the library only reads: its contents stay unchanged. */
static void *place(size_t size, size_t align) {
    used = (used + align - 1) / align * align;
    if (size > ARENA - used) wrong("too small an arena for this program");
    void *p = arena + used;
    used += size;
    return p;
}

/* Memory for data and outputs: sometimes NULL, misaligned, or overlapping something else. */
static void *data(size_t size, size_t align, int written) {
    void *p;
    if (size > ARENA / 2) size = ARENA / 2;
    switch (below(40)) {
        case 0: spoilt = 1; return NULL;
        case 1: /* anywhere, up to the very end */
            spoilt = 1;
            p = arena + below(ARENA - size + 1) / align * align;
            break;
        case 2:
            p = arena + (ARENA - size) / align * align;
            spoilt = 1;
            break;
        case 3:
            if (align > 1 && ARENA - used > size + 2 * align) {
                spoilt = 1;
                p = (unsigned char *)place(size + align, align) + 1 + below(align - 1);
                break;
            } /* fallthrough */
        default:
            if (ARENA - used < size + align) {
                spoilt = 1;
                p = arena;
            } else {
                p = place(size, align);
            }
    }
    note(p, size, written);
    return p;
}

/* Names and arguments. */

static char *optimizers[128], *schedules[64];
static size_t count_of_optimizers, count_of_schedules;

static const char *string(const char *text, size_t len) {
    if (one_in(80)) {
        spoilt = 1;
        return NULL;
    }
    char *p = place(len + 1, 1);
    memcpy(p, text, len);
    p[len] = 0;
    if (len > 0 && one_in(60)) {
        spoilt = 1;
        p[below(len)] = (char)(1 + below(255));
    }
    note(p, strlen(p) + 1, 0);
    return p;
}

static const char *name_of(char **names, size_t count) {
    char text[MOST * 4];
    if (one_in(40)) {
        spoilt = 1;
        size_t len = one_in(2) ? below(12) : below(sizeof text);
        for (size_t i = 0; i < len; i++) text[i] = (char)('a' + below(26));
        return string(text, len);
    }
    const char *name = names[below(count)];
    return string(name, strlen(name));
}

/* Arguments that some names accept; most names refuse most of them. */
static size_t arguments(char *text, size_t room, int of_schedule) {
    static const char *const of_optimizers[] = {"lr", "weight_decay", "momentum", "rank", "amsgrad", "eps",
        "min_8bit_size", "block_size", "betas", "nesterov", "scale", "update_proj_gap", "clip_grad_norm", "centered"};
    static const char *const of_schedules[] = {"lr", "num_warmup_steps", "num_training_steps", "window_size",
        "smooth", "patience", "factor", "gamma", "step_size", "T_max", "T_0", "milestones", "groups", "max_lr",
        "base_lr", "total_steps", "min_lr", "num_decay_steps", "num_stable_steps", "initial_lr"};
    size_t len = 0, n = of_schedule ? 1 + below(4) : below(3);
    int json = one_in(2);
    if (n == 0) return 0;
    spoilt = 1; /* it is not known here whether they are accepted */
    if (json) len += (size_t)snprintf(text + len, room - len, "{");
    for (size_t i = 0; i < n; i++) {
        const char *name = of_schedule ? of_schedules[below(sizeof of_schedules / sizeof *of_schedules)]
                                       : of_optimizers[below(sizeof of_optimizers / sizeof *of_optimizers)];
        len += (size_t)snprintf(text + len, room - len, json ? "%s\"%s\": " : "%s%s=", i ? ", " : "", name);
        switch (below(json ? 8 : 4)) {
            case 0: len += (size_t)snprintf(text + len, room - len, "%zu", any_size()); break;
            case 1: len += (size_t)snprintf(text + len, room - len, json ? "true" : "True"); break;
            case 2: len += (size_t)snprintf(text + len, room - len, "%zu", 1 + below(20)); break;
            case 3: len += (size_t)snprintf(text + len, room - len, "0.%zu", below(1000)); break;
            case 4: len += (size_t)snprintf(text + len, room - len, "[%zu, %zu]", below(9), any_size()); break;
            case 5: len += (size_t)snprintf(text + len, room - len, "[{}, {\"lr\": 0.5}]"); break;
            case 6: len += (size_t)snprintf(text + len, room - len, "[[[{\"a\": null}]]]"); break;
            default: len += (size_t)snprintf(text + len, room - len, "\"x\"");
        }
    }
    if (json && !one_in(50)) len += (size_t)snprintf(text + len, room - len, "}");
    return len;
}

static const char *arguments_for(int of_schedule) {
    char text[600];
    if (one_in(60)) return NULL;
    return string(text, arguments(text, sizeof text, of_schedule));
}

static const bitstep_number *numbers(const char *const *names, size_t kinds, size_t *count, size_t most) {
    *count = one_in(3) ? 0 : below(most + 1);
    if (one_in(80)) {
        spoilt = 1;
        *count = 1025 + any_size() % ((size_t)1 << 62);
    }
    size_t real = *count > most ? 0 : *count;
    if (real > 0) spoilt = 1;
    bitstep_number *list = place(real * sizeof *list, 8);
    for (size_t i = 0; i < real; i++) {
        const char *name = names[below(kinds)];
        list[i].name = string(name, strlen(name));
        list[i].value = any_number();
    }
    note(list, real * sizeof *list, 0);
    if (one_in(60)) {
        spoilt |= *count > 0;
        return NULL;
    }
    if (one_in(60) && *count > 0) {
        spoilt = 1;
        return (const bitstep_number *)((const char *)list + 1);
    }
    return list;
}

static const bitstep_number *given(size_t *count) {
    static const char *const names[] = {"train_loss", "eval_loss", "loss_scale", "grokking_signal", "projector",
        "loss", ""};
    if (!one_in(5)) {
        *count = 0;
        return NULL;
    }
    return numbers(names, sizeof names / sizeof *names, count, 3);
}

/* Handles, and what the test knows about them. */

struct optimizer {
    bitstep_optimizer *handle;
    size_t groups, params, numel[PARAMS];
    uint32_t dtype[PARAMS];
    int evaluates;
};

static struct optimizer opt[HANDLES];
static bitstep_rule *rules[HANDLES];
static bitstep_schedule *sched[HANDLES];
static bitstep_accumulator *sums[HANDLES];
static unsigned char saved[1 << 13], saved_schedule[1 << 12];
static size_t saved_size, saved_schedule_size;

#define PICK(list) (&(list)[below(HANDLES)])

/* A handle, or NULL, or a handle plus one byte. */
static void *handle(void *h) {
    if (one_in(60)) {
        spoilt = 1;
        return h ? (void *)((char *)h + (one_in(2) ? 1 : 4)) : NULL;
    }
    if (one_in(60)) h = NULL;
    if (h == NULL) spoilt = 1;
    return h;
}

static size_t size_of(uint32_t dtype) { return dtype == BITSTEP_F64 ? 8 : dtype == BITSTEP_F32 ? 4 : 2; }

static void fill(unsigned char *p, size_t size) {
    for (size_t i = 0; p != NULL && i < size; i++) p[i] = (unsigned char)next();
    /* Usually ordinary floats. */
    for (size_t i = 0; p != NULL && i + 4 <= size && !one_in(9); i += 4) {
        float x = (float)((double)below(2000) / 250.0 - 4.0);
        memcpy(p + i, &x, 4);
    }
}

/* A tensor of so many numbers. Its data may be anywhere; that there are as many as it says is true, unless
 * so many are refused unread for being too many, or not the `wanted` ones of the parameter. */
static bitstep_tensor tensor(size_t numel, size_t wanted, uint32_t dtype, int wants_grad) {
    bitstep_tensor t = {0};
    t.len = numel;
    t.dtype = dtype;
    t.grad_dtype = dtype;
    if (one_in(80)) {
        spoilt = 1;
        t.dtype = (uint32_t)(one_in(2) ? below(6) : next());
    }
    if (one_in(40)) {
        t.grad_dtype = (uint32_t)below(4);
        if (one_in(8)) spoilt = 1, t.grad_dtype = (uint32_t)next();
    }
    if (one_in(80)) {
        size_t len = any_size();
        if (len != wanted) spoilt = 1, t.len = len;
    }
    size_t bytes = t.len > MOST ? 8 : t.len * size_of(t.dtype), grads = t.len > MOST ? 8 : t.len * size_of(t.grad_dtype);
    t.data = data(bytes, size_of(t.dtype), 1);
    fill(t.data, bytes);
    if (wants_grad && !one_in(10)) {
        t.grad = data(grads, size_of(t.grad_dtype), 0);
        fill((unsigned char *)t.grad, grads);
    }
    return t;
}

/* The tensors of an optimizer, as a list that is written last: nothing else may lie over it but data. */
static const bitstep_tensor *tensors(struct optimizer *o, size_t *count, int with_grads) {
    bitstep_tensor list[PARAMS + 2];
    *count = o->params;
    if (one_in(60)) {
        spoilt = 1;
        *count = one_in(2) ? below(PARAMS + 2) : any_size();
    }
    size_t real = *count > PARAMS + 1 ? 0 : *count;
    if (*count == o->params) real = o->params;
    bitstep_tensor *p = place(real * sizeof *p, 8);
    for (size_t i = 0; i < real; i++) {
        size_t wanted = i < o->params ? o->numel[i] : 1, numel = wanted;
        if (numel > MOST) spoilt = 1, numel = 1;
        list[i] = tensor(numel, wanted, i < o->params ? o->dtype[i] : BITSTEP_F32, with_grads);
        if (!with_grads) list[i].grad = (const void *)(uintptr_t)next(); /* ignored */
    }
    memcpy(p, list, real * sizeof *p);
    note(p, real * sizeof *p, 0);
    if (one_in(60) && *count > 0) {
        spoilt = 1;
        return one_in(2) ? NULL : (const bitstep_tensor *)((const char *)p + 2);
    }
    return p;
}

static const size_t *shape_of(size_t *dimensions, size_t *numel) {
    size_t dims[4];
    *dimensions = 1 + below(2);
    if (one_in(12)) *dimensions = below(5);
    *numel = 1;
    for (size_t i = 0; i < *dimensions; i++) {
        dims[i] = 1 + below(7);
        if (one_in(10)) dims[i] = any_size();
        size_t n;
        *numel = __builtin_mul_overflow(*numel, dims[i], &n) ? SIZE_MAX : n;
    }
    for (size_t i = 0; i < *dimensions; i++)
        if (dims[i] == 0) *numel = 0;
    size_t *p = place(*dimensions * sizeof *p, 8);
    memcpy(p, dims, *dimensions * sizeof *p);
    note(p, *dimensions * sizeof *p, 0);
    if (one_in(60) && *dimensions > 0) {
        spoilt = 1;
        return one_in(2) ? NULL : (const size_t *)((const char *)p + 4);
    }
    if (one_in(60)) {
        spoilt = 1;
        *dimensions = (size_t)1 << 61 | next();
    }
    return p;
}

/* One call: memory is copied to `before`, the call is made, and all memory is compared. */

static int check(int status, int must) {
    calls++;
    if (status < 0 || status >= STATUSES) wrong("a status that there is not");
    if (status == BITSTEP_PANIC) wrong(error ? error->message : "a panic");
    by_status[status]++;
    size_t f = 0;
    while (functions[f].name && strcmp(functions[f].name, call_name) != 0) f++;
    functions[f].name = call_name;
    functions[f].calls++;
    functions[f].well += status == BITSTEP_OK;
    if (status == BITSTEP_OK && overlap()) wrong("an overlap was not noticed");
    /* A rank of 2^21 is an argument like another, and asks for more than the checker's allocator gives. */
    if (status != BITSTEP_OK && status != BITSTEP_MEMORY && must && !spoilt)
        wrong(error ? error->message : "refused without need");
    if (status != BITSTEP_OK && error && (error->message[0] == 0 || memchr(error->message, 0, 256) == NULL))
        wrong("an error without a message that ends");
    for (size_t k = 0; status == BITSTEP_OK && k < count_of_pieces; k++)
        if (pieces[k].written)
            memcpy(before + pieces[k].start, arena + pieces[k].start, pieces[k].end - pieces[k].start);
    if (memcmp(before, arena, ARENA) != 0)
        wrong(status == BITSTEP_OK ? "something was written where nothing was to be" : "an error, and something was written");
    return status == BITSTEP_OK;
}

#define CALL(must, function, ...) \
    (call_name = #function, memcpy(before, arena, ARENA), check(function(__VA_ARGS__, error), must))

static void keep_optimizer(struct optimizer *o, bitstep_optimizer *h) {
    bitstep_optimizer_free(o->handle);
    *o = (struct optimizer){0};
    o->handle = h;
}

/* Memory for a text: none, to ask for its size; too little; or enough. */
static char *text_for(size_t *size) {
    *size = one_in(3) ? 0 : one_in(8) ? below(40) : 2000;
    return *size ? data(*size, 1, 1) : NULL;
}

/* What has been placed so far is read alone. */
static void only_read(void) {
    for (size_t i = 0; i < count_of_pieces; i++) pieces[i].written = 0;
}

/* What has been placed last at `pointer`, to be read, is not looked at by the calls that follow: it may lie over anything. */
static void ignored(const void *pointer) {
    for (size_t i = count_of_pieces; i-- > 0;)
        if (!pieces[i].written && arena + pieces[i].start == (const unsigned char *)pointer) {
            pieces[i] = pieces[--count_of_pieces];
            return;
        }
}

/* A list of gradients alone. */
static const bitstep_tensor *gradients(size_t *count) {
    bitstep_tensor list[3];
    *count = below(4);
    bitstep_tensor *p = place(*count * sizeof *p, 8);
    for (size_t i = 0; i < *count; i++) {
        list[i] = tensor(below(20), SIZE_MAX, (uint32_t)below(4), 0);
        if (list[i].len > MOST) list[i].len = one_in(2) ? SIZE_MAX - below(20) : 8 / size_of(list[i].dtype);
    }
    memcpy(p, list, *count * sizeof *p);
    note(p, *count * sizeof *p, 0);
    return p;
}

/* Runs the tasks backwards, some of them twice, some not at all, and some that there are not. */
static void run_tasks(void *context, size_t count, void (*task)(const void *, size_t), const void *tasks) {
    (void)context;
    for (size_t i = count; i-- > 0;)
        for (size_t k = below(3); k > 0; k--) task(tasks, i);
    task(tasks, count);
}

static void other_call(struct optimizer *o, bitstep_rule **r, bitstep_schedule **s) {
    size_t count = 0, dimensions, numel, given_count, size;
    size_t param = o->params && !one_in(20) ? below(o->params) : any_size();
    bitstep_accumulator **sum = PICK(sums);
    switch (below(22)) {
        case 0: {
            bitstep_name *at = data(sizeof *at, 1, 1);
            if (one_in(2)) CALL(0, bitstep_optimizer_name_at, one_in(2) ? below(60) : any_size(), at);
            else CALL(0, bitstep_schedule_name_at, one_in(2) ? below(20) : any_size(), at);
            break;
        }
        case 1: {
            int which = one_in(2);
            const char *name = which ? name_of(optimizers, count_of_optimizers) : name_of(schedules, count_of_schedules);
            char *text = text_for(&size);
            size_t *at = data(8, 8, 1);
            if (which) CALL(0, bitstep_optimizer_defaults, name, text, size, at);
            else CALL(0, bitstep_schedule_defaults, name, text, size, at);
            break;
        }
        case 2: {
            void *h = handle(o->handle);
            if (one_in(2)) {
                CALL(1, bitstep_optimizer_mode, h, (uint32_t *)data(4, 4, 1));
                break;
            }
            size_t *at = data(8, 8, 1), *more = data(8, 8, 1);
            CALL(1, bitstep_optimizer_sizes, h, at, more);
            break;
        }
        case 3: {
            void *h = handle(o->handle);
            char *text = text_for(&size);
            size_t *at = data(8, 8, 1);
            CALL(0, bitstep_optimizer_arguments, h, o->groups && !one_in(20) ? below(o->groups) : any_size(), text, size, at);
            break;
        }
        case 4: {
            void *h = handle(o->handle);
            const char *text = arguments_for(0);
            CALL(0, bitstep_optimizer_set_arguments, h, o->groups ? below(o->groups) : any_size(), text);
            break;
        }
        case 5: {
            void *h = handle(o->handle);
            size_t group = o->groups && !one_in(20) ? below(o->groups) : any_size();
            if (one_in(2)) CALL(0, bitstep_optimizer_group_steps, h, group, (uint64_t *)data(8, 8, 1));
            else CALL(0, bitstep_optimizer_set_group_steps, h, group, any_size());
            break;
        }
        case 6: {
            void *h = handle(o->handle);
            if (one_in(2)) CALL(0, bitstep_optimizer_param, h, param, (bitstep_param_info *)data(sizeof(bitstep_param_info), 8, 1));
            else CALL(0, bitstep_optimizer_set_param_steps, h, param, any_size(), (uint32_t)below(2));
            break;
        }
        case 7: {
            static const char *const names[] = {"exp_avg", "state1", "momentum_buffer", "exp_avg_sq", "z", "x"};
            void *h = handle(o->handle);
            const char *name = names[below(6)];
            name = string(name, strlen(name));
            CALL(0, bitstep_optimizer_find_slot, h, param, name, (size_t *)data(8, 8, 1));
            break;
        }
        case 8:
        case 9: { /* a slot: its description, its values */
            bitstep_slot slot = {{0}, {0}, 0, 0};
            size_t which = one_in(12) ? any_size() : below(3);
            if (o->handle) bitstep_optimizer_slot(o->handle, param, which, &slot, NULL);
            void *h = handle(o->handle);
            uint32_t dtype = (uint32_t)below(one_in(20) ? 9 : 4);
            if (one_in(3)) {
                CALL(0, bitstep_optimizer_slot, h, param, which, (bitstep_slot *)data(sizeof slot, 8, 1));
            } else if (one_in(2)) {
                bitstep_tensor *t = place(sizeof *t, 8), its = tensor(slot.len > MOST ? 1 : slot.len, slot.len, dtype % 4, 0);
                *t = its;
                note(t, sizeof *t, 0);
                CALL(0, bitstep_optimizer_slot_read, h, param, which, t);
            } else {
                size_t len = slot.len > MOST ? 1 : slot.len;
                void *values = data(len * size_of(dtype), size_of(dtype), 0);
                fill(values, len * size_of(dtype));
                CALL(0, bitstep_optimizer_slot_write, h, param, which, values, one_in(30) ? SIZE_MAX - below(9) : len, dtype);
            }
            break;
        }
        case 10:
        case 11: { /* an entry of the state: its description, its bytes */
            bitstep_state_entry entry = {{0}, 0, 0, 0, 0, 0, 0};
            size_t which = one_in(12) ? any_size() : below(6);
            if (o->handle) bitstep_optimizer_entry(o->handle, param, which, &entry, NULL);
            void *h = handle(o->handle);
            size = one_in(20) ? below(9) : entry.size;
            if (size > ARENA / 4) break;
            switch (below(4)) {
                case 0: CALL(0, bitstep_optimizer_entry, h, param, which, (bitstep_state_entry *)data(sizeof entry, 8, 1)); break;
                case 1: {
                    dimensions = one_in(20) ? any_size() : entry.dimensions;
                    size_t room = dimensions > MOST ? 8 : dimensions * sizeof(size_t);
                    if (dimensions > MOST) spoilt = 1;
                    CALL(0, bitstep_optimizer_entry_shape, h, param, which, (size_t *)data(room, 8, 1), dimensions > MOST ? SIZE_MAX : dimensions);
                    break;
                }
                case 2: CALL(0, bitstep_optimizer_entry_read, h, param, which, (uint8_t *)data(size, 1, 1), size); break;
                default: {
                    unsigned char *memory = data(size, 1, 0);
                    double steps = (double)below(9);
                    fill(memory, size);
                    if (memory && size == 8 && one_in(2)) memcpy(memory, &steps, 8);
                    CALL(0, bitstep_optimizer_entry_write, h, param, which, memory, size);
                }
            }
            break;
        }
        case 12: {
            void *h = handle(o->handle);
            count = param < o->params && o->numel[param] <= MOST && !one_in(4) ? o->numel[param] : 0;
            uint16_t *bits = count || one_in(2) ? data(count * 2, 2, 0) : NULL;
            fill((unsigned char *)bits, count * 2);
            CALL(0, bitstep_optimizer_set_rounding_bits, h, param, bits, one_in(30) ? SIZE_MAX - below(9) : count);
            break;
        }
        case 13: {
            void *h = handle(o->handle);
            const bitstep_tensor *list = tensors(o, &count, 1);
            only_read();
            const bitstep_number *g = given(&given_count);
            CALL(0, bitstep_optimizer_begin, h, list, count, g, given_count);
            break;
        }
        case 14: {
            void *h = handle(o->handle);
            size_t wanted = param < o->params ? o->numel[param] : 1;
            bitstep_tensor *t = place(sizeof *t, 8), its;
            its = tensor(wanted > MOST ? 1 : wanted, wanted, param < o->params ? o->dtype[param] : BITSTEP_F32, 1);
            *t = its;
            note(t, sizeof *t, 0);
            const bitstep_number *g = given(&given_count);
            CALL(0, bitstep_optimizer_step_param, h, param, t, (uint32_t)any_size(), g, given_count);
            break;
        }
        case 15: {
            void *h = handle(o->handle);
            const bitstep_tensor *list = tensors(o, &count, 1);
            const bitstep_number *g = given(&given_count);
            /* Threads take long to start where all is watched. */
            size_t threads = one_in(20) ? 1025 + any_size() % 1000 : 1;
            if (one_in(4)) CALL(0, bitstep_optimizer_step_threads, h, list, count, g, given_count, threads);
            else CALL(0, bitstep_optimizer_step_tasks, h, list, count, g, given_count, any_size(), one_in(20) ? NULL : run_tasks, NULL);
            break;
        }
        case 16: {
            const bitstep_tensor *list = gradients(&count);
            if (one_in(4)) {
                CALL(0, bitstep_clip_grad_value, list, count, any_number());
                break;
            }
            size = below(3);
            if (size) only_read();
            switch (size) {
                case 0: CALL(0, bitstep_clip_by_global_norm, list, count, any_number(), (double *)data(8, 8, 1)); break;
                case 1: CALL(0, bitstep_total_norm, list, count, any_number(), (double *)data(8, 8, 1)); break;
                default: CALL(0, bitstep_is_finite, list, count, (int32_t *)data(4, 4, 1));
            }
            break;
        }
        case 17: {
            bitstep_loss_scale *scale = data(sizeof *scale, 8, 1), some = {any_number(), 2, 0.5, any_size(), any_size()};
            if (one_in(4)) some.growth_factor = any_number(), some.backoff_factor = any_number();
            if (scale && !((uintptr_t)scale % 8)) *scale = some;
            switch (below(3)) {
                case 0: CALL(1, bitstep_loss_scale_default, scale); break;
                case 1: CALL(0, bitstep_loss_scale_update, scale, (int32_t)below(2)); break;
                default: {
                    const bitstep_tensor *list = gradients(&count);
                    CALL(0, bitstep_unscale, scale, list, count, (int32_t *)data(4, 4, 1));
                }
            }
            break;
        }
        case 18: { /* accumulation */
            if (!*sum || one_in(8)) {
                bitstep_accumulator **at = data(8, 8, 1);
                if (CALL(0, bitstep_accumulator_new, one_in(8) ? any_size() : below(4), (int32_t)below(2), at)) {
                    bitstep_accumulator_free(*sum);
                    *sum = *at;
                }
                break;
            }
            void *h = handle(*sum);
            bitstep_tensor *t = place(sizeof *t, 8), its;
            numel = below(20);
            switch (below(4)) {
                case 0: CALL(0, bitstep_accumulator_window, h, any_size()); break;
                case 1: CALL(1, bitstep_accumulator_restart, h); break;
                default:
                    its = tensor(numel, SIZE_MAX, (uint32_t)below(4), 1);
                    if (its.len > MOST) its.len = SIZE_MAX - below(20);
                    *t = its;
                    note(t, sizeof *t, 0);
                    if (one_in(2)) CALL(0, bitstep_accumulator_add, h, t, 1, (int32_t *)data(4, 4, 1));
                    else CALL(0, bitstep_accumulator_add_weighted, h, t, 1, any_number(), (int32_t *)data(4, 4, 1));
            }
            break;
        }
        case 19: {
            bitstep_tensor *t = place(sizeof *t, 8), its = tensor(below(20), SIZE_MAX, (uint32_t)below(4), one_in(2));
            if (its.len > MOST) its.len = SIZE_MAX - below(20);
            *t = its;
            note(t, sizeof *t, 0);
            CALL(0, bitstep_neftune, t, any_number(), any_size(), any_size(), next(), next());
            break;
        }
        case 20: {
            void *h = handle(*s);
            switch (below(3)) {
                case 0: CALL(0, bitstep_schedule_lr_at, h, one_in(4) ? any_size() : below(2), one_in(8) ? any_size() : below(99), (double *)data(8, 8, 1)); break;
                case 1: {
                    size_t *at = data(8, 8, 1);
                    CALL(1, bitstep_schedule_sizes, h, at, (uint64_t *)data(8, 8, 1));
                    break;
                }
                default: {
                    bitstep_schedule **at = data(8, 8, 1), **to = PICK(sched);
                    if (CALL(0, bitstep_schedule_clone, h, at)) {
                        bitstep_schedule_free(*to);
                        *to = *at;
                    }
                }
            }
            break;
        }
        default: {
            if (one_in(3)) { /* a copy of an optimizer */
                struct optimizer *to = PICK(opt), same = *o;
                void *h = handle(o->handle);
                bitstep_optimizer **at = data(8, 8, 1);
                if (CALL(0, bitstep_optimizer_clone, h, at)) {
                    same.handle = *at;
                    keep_optimizer(to, NULL);
                    *to = same;
                }
            } else if (one_in(2) && *r) { /* evaluation under a rule */
                const size_t *shape = shape_of(&dimensions, &numel);
                uint32_t dtype = (uint32_t)below(4);
                if (numel > MOST || bitstep_rule_state_size(*r, shape, dimensions, dtype, &size, NULL) != BITSTEP_OK ||
                    size > ARENA / 4)
                    break;
                void *h = handle(*r);
                bitstep_tensor *t = place(sizeof *t, 8), its;
                unsigned char *memory = data(size, 8, 1);
                if (memory) memset(memory, 0, size);
                its = tensor(numel, numel, dtype, 1);
                *t = its;
                note(t, sizeof *t, 0);
                if (CALL(0, bitstep_rule_step, h, 1e-2, t, shape, dimensions, memory, size, NULL, 0) &&
                    CALL(0, bitstep_rule_eval, h, t, shape, dimensions, memory, size)) {
                    if (CALL(0, bitstep_rule_step, h, 1e-2, t, shape, dimensions, memory, size, NULL, 0)) wrong("a step in evaluation");
                    CALL(0, bitstep_rule_train, h, t, shape, dimensions, memory, size);
                } else if (one_in(4)) {
                    ignored(its.grad); /* a step refuses one that lies over its memory; a conversion has no use for it */
                    CALL(0, bitstep_rule_train, h, t, shape, dimensions, memory, one_in(2) ? size : size + 8);
                    CALL(0, bitstep_rule_eval, h, t, shape, dimensions, memory, size + 8);
                }
            } else { /* a training */
                static const char *const some[] = {"{\"max_steps\": 9}", "{\"optim\": \"lion_8bit\", \"max_steps\": 3}",
                    "{\"optim\": \"galore_adamw\", \"optim_target_modules\": \"all-linear\", \"max_steps\": 4}",
                    "{\"learning_rate\": -1}", "{}", "[", "{\"fp16\": true, \"max_steps\": 1, \"optim\": \"sgd\"}"};
                const char *json = some[below(sizeof some / sizeof *some)], *path = one_in(2) ? "a.weight" : "b.bias";
                json = string(json, strlen(json));
                bitstep_parameter p = {string(path, strlen(path)), NULL, 0, (uint32_t)below(one_in(20) ? 9 : 4), (uint32_t)below(7)}, *list;
                p.shape = shape_of(&dimensions, &numel);
                p.dimensions = dimensions;
                list = place(sizeof *list, 8);
                *list = p;
                note(list, sizeof *list, 0);
                bitstep_optimizer **at = data(8, 8, 1);
                bitstep_schedule **to = data(8, 8, 1);
                bitstep_training *setup = data(sizeof *setup, 8, 1);
                if (CALL(0, bitstep_training_new, json, list, 1, one_in(2) ? 0 : below(9), at, to, setup)) {
                    bitstep_schedule_free(*s);
                    *s = *to;
                    keep_optimizer(o, *at);
                    bitstep_optimizer_sizes(o->handle, &o->groups, &o->params, NULL);
                    o->numel[0] = numel, o->dtype[0] = p.dtype;
                }
            }
        }
    }
}

static void one_call(void) {
    struct optimizer *o = PICK(opt);
    bitstep_rule **r = PICK(rules);
    bitstep_schedule **s = PICK(sched);
    size_t count = 0, dimensions, numel, given_count;
    used = count_of_pieces = 0;
    spoilt = 0;
    static bitstep_error room;
    error = one_in(8) ? NULL : &room;
    room.message[0] = 0;

    if (one_in(2)) {
        other_call(o, r, s);
        return;
    }
    switch (below(28)) {
        case 0: {
            if (o->handle && !one_in(6)) break;
            bitstep_optimizer **at = data(8, 8, 1);
            if (CALL(1, bitstep_optimizer_new, at)) keep_optimizer(o, *at);
            break;
        }
        case 1:
        case 2: {
            void *h = handle(o->handle);
            const char *name = name_of(optimizers, count_of_optimizers), *text = arguments_for(0);
            size_t *at = data(8, 8, 1);
            if (o->groups < 4 && CALL(1, bitstep_optimizer_add_group, h, name, text, at)) {
                if (*at != o->groups++) wrong("another group's number");
            }
            break;
        }
        case 3: {
            static const char *const names[] = {"lr", "weight_decay", "betas", "betas", "momentum", "nesterov", "x"};
            void *h = handle(o->handle);
            const char *name = name_of(optimizers, count_of_optimizers);
            const bitstep_number *list = numbers(names, 7, &count, 4);
            size_t *at = data(8, 8, 1);
            if (o->groups < 4 && CALL(0, bitstep_optimizer_add_group_of, h, name, list, count, at)) o->groups++;
            break;
        }
        case 4:
        case 5:
        case 6: {
            void *h = handle(o->handle);
            const size_t *shape = shape_of(&dimensions, &numel);
            uint32_t dtype = (uint32_t)(one_in(40) ? next() : below(4));
            size_t group = o->groups && !one_in(30) ? below(o->groups) : any_size();
            if (o->params < PARAMS && CALL(0, bitstep_optimizer_add_param, h, group, shape, dimensions, dtype)) {
                o->numel[o->params] = numel;
                o->dtype[o->params++] = dtype;
            }
            break;
        }
        case 7: {
            double lr = any_number();
            size_t group = o->groups ? below(o->groups) : any_size();
            void *h = handle(o->handle);
            if (!(lr >= 0) || o->groups == 0) spoilt = 1;
            if (CALL(1, bitstep_optimizer_set_lr, h, group, lr) && spoilt) wrong("a rate that means nothing");
            break;
        }
        case 8: {
            void *h = handle(o->handle);
            double *at = data(8, 8, 1);
            size_t group = o->groups ? below(o->groups) : any_size();
            if (o->groups == 0) spoilt = 1;
            CALL(1, bitstep_optimizer_lr, h, group, at);
            break;
        }
        case 9:
        case 10:
        case 11:
        case 12:
        case 13: {
            void *h = handle(o->handle);
            const bitstep_tensor *list = tensors(o, &count, 1);
            const bitstep_number *g = given(&given_count);
            CALL(!o->evaluates, bitstep_optimizer_step, h, list, count, g, given_count);
            break;
        }
        case 14: {
            void *h = handle(o->handle);
            const bitstep_tensor *list = tensors(o, &count, 0);
            if (CALL(0, bitstep_optimizer_eval, h, list, count)) o->evaluates = 1;
            break;
        }
        case 15: {
            void *h = handle(o->handle);
            const bitstep_tensor *list = tensors(o, &count, 0);
            if (CALL(0, bitstep_optimizer_train, h, list, count)) o->evaluates = 0;
            break;
        }
        case 16: {
            void *h = handle(o->handle);
            size_t *at = data(8, 8, 1);
            CALL(1, bitstep_optimizer_state_size, h, at);
            break;
        }
        case 17: { /* save, with the right size or another */
            void *h = handle(o->handle);
            size_t *at = data(8, 8, 1), size;
            if (!CALL(1, bitstep_optimizer_save_size, h, at)) break;
            size = *at;
            if (one_in(20)) spoilt = 1, size = any_size() % (ARENA / 2);
            if (size > ARENA / 2) break;
            used = count_of_pieces = 0;
            unsigned char *memory = data(size, 1, 1);
            if (CALL(1, bitstep_optimizer_save, h, memory, size) && size <= sizeof saved) {
                memcpy(saved, memory, size);
                saved_size = size;
            }
            break;
        }
        case 18: { /* load what was saved, by this optimizer or another, whole or damaged */
            void *h = handle(o->handle);
            size_t size = saved_size;
            if (one_in(8)) size = below(saved_size + 1);
            unsigned char *memory = data(size, 1, 0);
            if (memory) memcpy(memory, saved, size);
            if (memory && size && one_in(4)) memory[below(size)] ^= (unsigned char)(1 << below(8));
            if (CALL(0, bitstep_optimizer_load, h, memory, one_in(60) ? SIZE_MAX - below(9) : size))
                o->evaluates = memory[8];
            break;
        }
        case 19: {
            const char *name = name_of(optimizers, count_of_optimizers), *text = arguments_for(0);
            bitstep_rule **at = data(8, 8, 1);
            if (CALL(0, bitstep_rule_new, name, text, at)) {
                bitstep_rule_free(*r);
                *r = *at;
            }
            break;
        }
        case 20: {
            void *h = handle(*r);
            const size_t *shape = shape_of(&dimensions, &numel);
            size_t *at = data(8, 8, 1);
            CALL(0, bitstep_rule_state_size, h, shape, dimensions, (uint32_t)below(5), at);
            break;
        }
        case 21:
        case 22:
        case 23: { /* a step or two of a rule, if its state fits */
            size_t size = 0;
            if (*r == NULL) break;
            const size_t *shape = shape_of(&dimensions, &numel);
            uint32_t dtype = (uint32_t)below(4);
            if (numel > MOST || bitstep_rule_state_size(*r, shape, dimensions, dtype, &size, NULL) != BITSTEP_OK ||
                size > ARENA / 4)
                break;
            if (one_in(40)) spoilt = 1, size = any_size() % (ARENA / 4);
            void *h = handle(*r);
            bitstep_tensor *t = place(sizeof *t, 8), its;
            unsigned char *memory = data(size ? size : 1, 8, 1);
            if (memory) memset(memory, 0, size);
            its = tensor(numel, numel, dtype, 1);
            double lr = one_in(10) ? any_number() : 1e-2;
            *t = its;
            note(t, sizeof *t, 0);
            const bitstep_number *g = given(&given_count);
            if (!(lr >= 0)) spoilt = 1;
            for (int k = 0; k < 2; k++)
                if (!CALL(1, bitstep_rule_step, h, lr, t, shape, dimensions, memory, size, g, given_count)) break;
            break;
        }
        case 24: {
            if (*s && !one_in(4)) break;
            static const char *const good[][2] = {{"constant", ""}, {"torch_exponential", "gamma=0.9"},
                {"linear", "num_warmup_steps=2, num_training_steps=9"}, {"adafactor_schedule", "initial_lr=0.5"},
                {"greedy", "smooth=True, window_size=3, patience=1"}, {"reduce_lr_on_plateau", "patience=1"},
                {"greedy", "smooth=True, window_size=2147483647"}, {"torch_multi_step", "{\"milestones\": [2, 4]}"},
                {"cosine", "{\"num_warmup_steps\": 1, \"num_training_steps\": 7, \"groups\": [{}, {\"lr\": 0.5}]}"}};
            const char *const *pair = good[below(sizeof good / sizeof *good)];
            int any = one_in(3);
            const char *name = any ? name_of(schedules, count_of_schedules) : string(pair[0], strlen(pair[0]));
            const char *text = any ? arguments_for(1) : string(pair[1], strlen(pair[1]));
            bitstep_schedule **at = data(8, 8, 1);
            if (CALL(!any, bitstep_schedule_new, name, text, at)) {
                bitstep_schedule_free(*s);
                *s = *at;
            }
            break;
        }
        case 25: {
            void *h = handle(*s);
            count = below(3);
            double *list = data(count * 8, 8, 0);
            for (size_t i = 0; list && !((uintptr_t)list % 8) && i < count; i++) list[i] = any_number();
            CALL(0, bitstep_schedule_step, h, list, one_in(40) ? (size_t)-1 - below(9) : count);
            break;
        }
        case 26: {
            void *h = handle(*s);
            if (one_in(2)) {
                double *at = data(8, 8, 1);
                CALL(0, bitstep_schedule_lr, h, one_in(4) ? any_size() : below(2), at);
            } else {
                CALL(0, bitstep_schedule_apply, h, handle(o->handle));
            }
            break;
        }
        default: {
            void *h = handle(*s);
            size_t *at = data(8, 8, 1), size;
            if (one_in(2)) { /* clip */
                bitstep_tensor list[3];
                count = below(4);
                bitstep_tensor *p = place(count * sizeof *p, 8);
                for (size_t i = 0; i < count; i++) {
                    list[i] = tensor(below(20), SIZE_MAX, (uint32_t)below(4), 0);
                    /* Of so many, 8 bytes have been noted. */
                    if (list[i].len > MOST) list[i].len = one_in(2) ? SIZE_MAX - below(20) : 8 / size_of(list[i].dtype);
                }
                memcpy(p, list, count * sizeof *p);
                note(p, count * sizeof *p, 0);
                CALL(0, bitstep_clip_grad_norm, p, count, any_number(), one_in(4) ? any_number() : 2, one_in(2), (double *)at);
                break;
            }
            if (!CALL(1, bitstep_schedule_save_size, h, at)) break;
            size = *at;
            if (size > sizeof saved_schedule) break;
            used = count_of_pieces = 0;
            if (one_in(2)) {
                unsigned char *memory = data(size, 1, 1);
                if (CALL(1, bitstep_schedule_save, h, memory, size)) memcpy(saved_schedule, memory, saved_schedule_size = size);
                break;
            }
            size = one_in(8) ? below(saved_schedule_size + 1) : saved_schedule_size;
            unsigned char *memory = data(size, 1, 0);
            if (memory) memcpy(memory, saved_schedule, size);
            if (memory && size && one_in(4)) memory[below(size)] ^= (unsigned char)(1 << below(8));
            CALL(0, bitstep_schedule_load, h, memory, size);
        }
    }
}

static void one_round(void) {
    state = seed;
    saved_size = saved_schedule_size = 0;
    for (size_t i = 0; i < HANDLES / 2; i++) bitstep_optimizer_new(&opt[i].handle, NULL);
    for (call_number = 0; call_number < CALLS; call_number++) one_call();
    for (size_t i = 0; i < HANDLES; i++) {
        keep_optimizer(&opt[i], NULL);
        bitstep_rule_free(rules[i]);
        bitstep_schedule_free(sched[i]);
        bitstep_accumulator_free(sums[i]);
        rules[i] = NULL, sched[i] = NULL, sums[i] = NULL;
    }
}

/* CPU time in seconds, so that a run does as much whatever else the machine does. */
static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: random_calls SECONDS SEED NAMES\n"), 2;
    double limit = strtod(argv[1], NULL), start = seconds();
    uint64_t first = strtoull(argv[2], NULL, 10);
    FILE *file = fopen(argv[3], "r");
    char line[200];
    int of_schedules = 0;
    if (!file) return perror(argv[3]), 2;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] == 0)
            of_schedules = 1;
        else if (of_schedules && count_of_schedules < 64)
            schedules[count_of_schedules++] = strdup(line);
        else if (!of_schedules && count_of_optimizers < 128)
            optimizers[count_of_optimizers++] = strdup(line);
    }
    fclose(file);
    if (count_of_optimizers == 0 || count_of_schedules == 0) return fprintf(stderr, "no names\n"), 2;

    long page = sysconf(_SC_PAGESIZE);
    arena = mmap(NULL, ARENA + (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    before = malloc(ARENA);
    if (arena == MAP_FAILED || !before || mprotect(arena + ARENA, (size_t)page, PROT_NONE)) return perror("arena"), 2;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_set_death_callback(where);
#else
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
#endif
    signal(SIGABRT, on_signal);
    signal(SIGALRM, on_alarm);
    signal(SIGPROF, on_alarm);

    uint64_t rounds = 0;
    do {
        seed = first + rounds++;
        alarm(600);
        setitimer(ITIMER_PROF, &(struct itimerval){{0, 0}, {30, 0}}, NULL);
        one_round();
    } while (seconds() - start < limit);

    double took = seconds() - start;
    printf("random_calls: seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64 " calls in %.0f s, %.0f a second; by status:", first,
           seed, calls, took, (double)calls / took);
    for (int i = 0; i < STATUSES; i++) printf(" %" PRIu64, by_status[i]);
    printf("\n");
    free(before);
    for (size_t i = 0; i < count_of_optimizers; i++) free(optimizers[i]);
    for (size_t i = 0; i < count_of_schedules; i++) free(schedules[i]);
    /* Whoever finds nothing must have looked: each status but a panic's occurs, each function was called both
     * rightly and wrongly. */
    int vain = 0, different = 0;
    for (int i = 0; i < STATUSES; i++) vain |= (by_status[i] == 0) != (i == BITSTEP_PANIC);
    for (; functions[different].name; different++) {
        uint64_t all = functions[different].calls, well = functions[different].well;
        printf("  %-30s %10" PRIu64 " calls, %10" PRIu64 " well\n", functions[different].name, all, well);
        vain |= well == 0 || well == all;
    }
    if (limit > 5 && (vain || different != 69)) return fprintf(stderr, "something was not tried: %d functions\n", different), 1;
    return 0;
}
