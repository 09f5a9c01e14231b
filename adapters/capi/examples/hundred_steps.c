/* Two groups, a cosine, clipping: 100 steps, saved and resumed halfway; then one rule whose state is
 * in the caller's memory. Prints the bits of the parameters. */
#include "bitstep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bitstep_error error;

static void check(int32_t status) {
    if (status != BITSTEP_OK) {
        fprintf(stderr, "bitstep: %d: %s\n", (int)status, error.message);
        exit(1);
    }
}

static bitstep_optimizer *make(void) {
    bitstep_optimizer *optimizer = NULL;
    check(bitstep_optimizer_new(&optimizer, &error));
    size_t adamw, flash;
    check(bitstep_optimizer_add_group(optimizer, "adamw_torch",
                                      "{\"lr\": 1e-2, \"weight_decay\": 0.1}", &adamw, &error));
    const bitstep_number lr = {"lr", 1e-2};
    check(bitstep_optimizer_add_group_of(optimizer, "flash_adamw", &lr, 1, &flash, &error));
    const size_t shape_a[] = {3, 2}, shape_b[] = {40};
    check(bitstep_optimizer_add_param(optimizer, adamw, shape_a, 2, BITSTEP_F32, &error));
    check(bitstep_optimizer_add_param(optimizer, flash, shape_b, 1, BITSTEP_BF16, &error));
    return optimizer;
}

/* A rule with its state in the caller's memory makes the same steps as an optimizer of that tensor. */
static void own_memory(void) {
    bitstep_rule *rule = NULL;
    check(bitstep_rule_new("adamw_bnb_8bit", "lr=1e-2, min_8bit_size=0", &rule, &error));
    const size_t shape[] = {300};
    size_t size = 0;
    check(bitstep_rule_state_size(rule, shape, 1, BITSTEP_F32, &size, &error));
    void *memory = calloc(1, size);
    bitstep_optimizer *optimizer = NULL;
    size_t group;
    check(bitstep_optimizer_new(&optimizer, &error));
    check(bitstep_optimizer_add_group(optimizer, "adamw_bnb_8bit", "lr=1e-2, min_8bit_size=0", &group,
                                      &error));
    check(bitstep_optimizer_add_param(optimizer, group, shape, 1, BITSTEP_F32, &error));
    float x[300], y[300], grad[300];
    for (int i = 0; i < 300; i++) x[i] = y[i] = (float)(i - 150) / 16;
    for (int t = 0; t < 10; t++) {
        memcpy(grad, x, sizeof x);
        const bitstep_tensor own = {x, 300, BITSTEP_F32, BITSTEP_F32, grad};
        const bitstep_tensor its = {y, 300, BITSTEP_F32, BITSTEP_F32, grad};
        check(bitstep_rule_step(rule, 1e-2, &own, shape, 1, memory, size, NULL, 0, &error));
        check(bitstep_optimizer_step(optimizer, &its, 1, NULL, 0, &error));
    }
    if (memcmp(x, y, sizeof x) != 0) {
        fprintf(stderr, "a rule over memory of our own differs from an optimizer\n");
        exit(1);
    }
    size_t taken = 0;
    check(bitstep_optimizer_state_size(optimizer, &taken, &error));
    if (taken != 2 * (300 + 2 * 4)) { /* two slots: 8-bit codes, and a scale per block of 256 */
        fprintf(stderr, "state takes %zu bytes\n", taken);
        exit(1);
    }
    free(memory);
    bitstep_rule_free(rule);
    bitstep_optimizer_free(optimizer);
}

/* Errors come with a message, and nothing is written. */
static void mistakes(bitstep_optimizer *optimizer) {
    size_t group = 7;
    if (bitstep_optimizer_add_group(optimizer, "adamw_troch", NULL, &group, &error) != BITSTEP_ARGUMENT ||
        !strstr(error.message, "did you mean `adamw_torch`") || group != 7 ||
        bitstep_optimizer_add_group(optimizer, NULL, NULL, &group, NULL) != BITSTEP_POINTER ||
        bitstep_optimizer_step(optimizer, NULL, 0, NULL, 0, &error) != BITSTEP_LENGTH ||
        bitstep_optimizer_load(optimizer, (const uint8_t *)"nonsense", 8, &error) != BITSTEP_STATE) {
        fprintf(stderr, "a mistake was not noticed: %s\n", error.message);
        exit(1);
    }
    float x[6] = {0};
    uint16_t y[40] = {0};
    bitstep_tensor overlap[] = {{x, 6, BITSTEP_F32, BITSTEP_F32, x + 1}, {y, 40, BITSTEP_BF16, 0, NULL}};
    if (bitstep_optimizer_step(optimizer, overlap, 2, NULL, 0, &error) != BITSTEP_POINTER) {
        fprintf(stderr, "an overlap was not noticed\n");
        exit(1);
    }
}

static bitstep_schedule *make_schedule(void) {
    bitstep_schedule *schedule = NULL;
    check(bitstep_schedule_new(
        "cosine", "{\"lr\": 1e-2, \"num_warmup_steps\": 10, \"num_training_steps\": 100, \"groups\": [{}, {}]}",
        &schedule, &error));
    return schedule;
}

int main(void) {
    bitstep_optimizer *optimizer = make();
    mistakes(optimizer);
    bitstep_schedule *schedule = make_schedule();

    float a[6], grad_a[6];
    uint16_t b[40], grad_b[40];
    for (int i = 0; i < 6; i++) a[i] = (float)i - 2.5f;
    for (int i = 0; i < 40; i++) b[i] = (uint16_t)(0x3f80 + i);

    for (int t = 0; t < 100; t++) {
        if (t == 50) {
            size_t size = 0;
            check(bitstep_optimizer_save_size(optimizer, &size, &error));
            uint8_t *memory = malloc(size);
            check(bitstep_optimizer_save(optimizer, memory, size, &error));
            bitstep_optimizer_free(optimizer);
            optimizer = make();
            check(bitstep_optimizer_load(optimizer, memory, size, &error));
            free(memory);

            check(bitstep_schedule_save_size(schedule, &size, &error));
            memory = malloc(size);
            check(bitstep_schedule_save(schedule, memory, size, &error));
            bitstep_schedule_free(schedule);
            schedule = make_schedule();
            check(bitstep_schedule_load(schedule, memory, size, &error));
            free(memory);
        }
        memcpy(grad_a, a, sizeof a);
        memcpy(grad_b, b, sizeof b);
        double norm = 0;
        const bitstep_tensor to_clip = {grad_a, 6, BITSTEP_F32, BITSTEP_F32, NULL};
        check(bitstep_clip_grad_norm(&to_clip, 1, 1.0, 2.0, 0, &norm, &error));
        const bitstep_tensor tensors[] = {
            {a, 6, BITSTEP_F32, BITSTEP_F32, grad_a},
            {b, 40, BITSTEP_BF16, BITSTEP_BF16, grad_b},
        };
        check(bitstep_schedule_apply(schedule, optimizer, &error));
        check(bitstep_optimizer_step(optimizer, tensors, 2, NULL, 0, &error));
        check(bitstep_schedule_step(schedule, NULL, 0, &error));
    }
    own_memory();
    for (int i = 0; i < 6; i++) {
        uint32_t bits;
        memcpy(&bits, &a[i], sizeof bits);
        printf("%08x\n", (unsigned)bits);
    }
    for (int i = 0; i < 40; i++) printf("%04x\n", (unsigned)b[i]);
    bitstep_schedule_free(schedule);
    bitstep_optimizer_free(optimizer);
    return 0;
}
