/* Prints the sizes of all structures and the offsets of their fields, for adapters/capi/abi.txt. */
#include "bitstep.h"

#include <stdio.h>

#define SIZE(type) printf("%s %zu\n", #type, sizeof(type))
#define AT(type, field) printf("  %s %zu\n", #field, offsetof(type, field))

int main(void) {
    SIZE(bitstep_error), AT(bitstep_error, message);
    SIZE(bitstep_name), AT(bitstep_name, text);
    SIZE(bitstep_number), AT(bitstep_number, name), AT(bitstep_number, value);
    SIZE(bitstep_tensor), AT(bitstep_tensor, data), AT(bitstep_tensor, len), AT(bitstep_tensor, dtype);
    AT(bitstep_tensor, grad_dtype), AT(bitstep_tensor, grad);
    SIZE(bitstep_param_info), AT(bitstep_param_info, group), AT(bitstep_param_info, len);
    AT(bitstep_param_info, dimensions), AT(bitstep_param_info, slots), AT(bitstep_param_info, entries);
    AT(bitstep_param_info, steps), AT(bitstep_param_info, dtype), AT(bitstep_param_info, started);
    SIZE(bitstep_slot), AT(bitstep_slot, name), AT(bitstep_slot, format), AT(bitstep_slot, len);
    AT(bitstep_slot, dimensions);
    SIZE(bitstep_state_entry), AT(bitstep_state_entry, key), AT(bitstep_state_entry, dtype);
    AT(bitstep_state_entry, reserved), AT(bitstep_state_entry, slot), AT(bitstep_state_entry, len);
    AT(bitstep_state_entry, size), AT(bitstep_state_entry, dimensions);
    SIZE(bitstep_loss_scale), AT(bitstep_loss_scale, scale), AT(bitstep_loss_scale, growth_factor);
    AT(bitstep_loss_scale, backoff_factor), AT(bitstep_loss_scale, growth_interval);
    AT(bitstep_loss_scale, good_steps);
    SIZE(bitstep_parameter), AT(bitstep_parameter, name), AT(bitstep_parameter, shape);
    AT(bitstep_parameter, dimensions), AT(bitstep_parameter, dtype), AT(bitstep_parameter, layer);
    SIZE(bitstep_training), AT(bitstep_training, max_grad_norm), AT(bitstep_training, neftune_noise_alpha);
    AT(bitstep_training, gradient_accumulation_steps), AT(bitstep_training, num_training_steps);
    AT(bitstep_training, loss_scale), AT(bitstep_training, scales_loss), AT(bitstep_training, every_micro_batch);
    AT(bitstep_training, follows_metric), AT(bitstep_training, reserved);
    return 0;
}
