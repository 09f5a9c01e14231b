/* A training as Transformers' Trainer makes it of its arguments: groups with and without weight decay, micro-batches,
 * clipping, a schedule. The model is y = w x + b, for points on a line; prints what it has learned. */
#include <bitstep.h>

#include <stdio.h>
#include <stdlib.h>

static bitstep_error error;

static void check(int32_t status) {
    if (status == BITSTEP_OK) return;
    fprintf(stderr, "bitstep %s: %d: %s\n", bitstep_version(), (int)status, error.message);
    exit(1);
}

int main(void) {
    const char *arguments =
        "{\"optim\": \"adamw_torch\", \"learning_rate\": 0.1, \"weight_decay\": 0.001, \"max_steps\": 200,"
        " \"lr_scheduler_type\": \"cosine\", \"gradient_accumulation_steps\": 2, \"max_grad_norm\": 1.0}";
    const size_t one[] = {1};
    const bitstep_parameter parameters[] = {
        {"line.weight", one, 1, BITSTEP_F32, BITSTEP_LAYER_LINEAR},
        {"line.bias", one, 1, BITSTEP_F32, BITSTEP_LAYER_LINEAR},
    };
    bitstep_optimizer *optimizer = NULL;
    bitstep_schedule *schedule = NULL;
    bitstep_accumulator *accumulator = NULL;
    bitstep_training setup;
    check(bitstep_training_new(arguments, parameters, 2, 0, &optimizer, &schedule, &setup, &error));
    check(bitstep_accumulator_new(setup.gradient_accumulation_steps, 1, &accumulator, &error));

    float w = 0, b = 0, grad[2], total[2];
    uint64_t steps = 0;
    for (int batch = 0; steps < setup.num_training_steps; batch++) {
        const float x = (float)(batch % 5) - 2, y = 2 * x + 1, off = w * x + b - y; /* the loss is off^2 / 2 */
        grad[0] = off * x, grad[1] = off;
        const bitstep_tensor sums[] = {{&total[0], 1, BITSTEP_F32, BITSTEP_F32, &grad[0]},
                                       {&total[1], 1, BITSTEP_F32, BITSTEP_F32, &grad[1]}};
        int32_t complete = 0;
        check(bitstep_accumulator_add(accumulator, sums, 2, &complete, &error));
        if (!complete) continue;
        double norm = 0;
        check(bitstep_clip_grad_norm(sums, 2, setup.max_grad_norm, 2, 1, &norm, &error));
        const bitstep_tensor tensors[] = {{&w, 1, BITSTEP_F32, BITSTEP_F32, &total[0]},
                                          {&b, 1, BITSTEP_F32, BITSTEP_F32, &total[1]}};
        check(bitstep_optimizer_step(optimizer, tensors, 2, NULL, 0, &error));
        check(bitstep_schedule_step(schedule, NULL, 0, &error));
        check(bitstep_schedule_apply(schedule, optimizer, &error));
        steps++;
    }
    printf("y = %.2f x + %.2f\n", (double)w, (double)b);
    bitstep_accumulator_free(accumulator);
    bitstep_schedule_free(schedule);
    bitstep_optimizer_free(optimizer);
    return w > 1.9f && w < 2.1f && b > 0.9f && b < 1.1f ? 0 : 1;
}
