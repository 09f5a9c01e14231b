#ifndef BITSTEP_H
#define BITSTEP_H

#include <stddef.h>
#include <stdint.h>

/*
 The version of this header; bitstep_version() is that of the library. Before 1.0 a minor version may change
 the interface, and the shared library's SONAME with it.
 */
#define BITSTEP_VERSION "0.1.0"
#define BITSTEP_VERSION_MAJOR 0
#define BITSTEP_VERSION_MINOR 1
#define BITSTEP_VERSION_PATCH 0

/*
 Define BITSTEP_BARE for a library that was built without an operating system: the program then defines
 bitstep_allocate, bitstep_release and bitstep_abort. Define BITSTEP_SMALL for one without
 bitstep_training_new; the installed pkg-config and CMake files of such a library do.
 */
#ifndef BITSTEP_BARE
#define BITSTEP_STD
#ifndef BITSTEP_SMALL
#define BITSTEP_TRAINER
#endif
#endif


/*
 Success.
 */
#define BITSTEP_OK 0

/*
 A pointer is NULL or misaligned, or memory that is written to overlaps other memory of the call.
 */
#define BITSTEP_POINTER 1

/*
 An argument is unknown or its value is refused.
 */
#define BITSTEP_ARGUMENT 2

/*
 A buffer has the wrong length, or the number of buffers is wrong.
 */
#define BITSTEP_LENGTH 3

/*
 Saved state is damaged or belongs to another optimizer.
 */
#define BITSTEP_STATE 4

/*
 A bug in this library. The handle must not be used any more, except to free it.
 */
#define BITSTEP_PANIC 5

/*
 Out of memory.
 */
#define BITSTEP_MEMORY 6

/*
 Parameters have the values to train.
 */
#define BITSTEP_TRAIN 0

/*
 Parameters have the values to evaluate.
 */
#define BITSTEP_EVAL 1

/*
 IEEE binary64: `double`.
 */
#define BITSTEP_F64 0

/*
 IEEE binary32: `float`.
 */
#define BITSTEP_F32 1

/*
 The upper half of a binary32.
 */
#define BITSTEP_BF16 2

/*
 IEEE binary16.
 */
#define BITSTEP_F16 3

/*
 A 16-bit integer, in entries of state only.
 */
#define BITSTEP_I16 4

/*
 An 8-bit integer, in entries of state only.
 */
#define BITSTEP_I8 5

/*
 A byte: an 8-bit code, or two of 4 bits; in entries of state only.
 */
#define BITSTEP_U8 6

/*
 An 8-bit float with 4 exponent bits, in entries of state only.
 */
#define BITSTEP_F8E4M3 7

#if defined(BITSTEP_TRAINER)
/*
 The type of a layer is guessed from the parameter's name and shape.
 */
#define BITSTEP_LAYER_GUESSED 0
#endif

#if defined(BITSTEP_TRAINER)
/*
 `torch.nn.Linear`.
 */
#define BITSTEP_LAYER_LINEAR 1
#endif

#if defined(BITSTEP_TRAINER)
/*
 `torch.nn.Embedding`.
 */
#define BITSTEP_LAYER_EMBEDDING 2
#endif

#if defined(BITSTEP_TRAINER)
/*
 `torch.nn.LayerNorm`.
 */
#define BITSTEP_LAYER_LAYER_NORM 3
#endif

#if defined(BITSTEP_TRAINER)
/*
 A norm of the list that Transformers had up to 4.52, such as `LlamaRMSNorm`.
 */
#define BITSTEP_LAYER_NORM 4
#endif

#if defined(BITSTEP_TRAINER)
/*
 Any other layer.
 */
#define BITSTEP_LAYER_OTHER 5
#endif

/*
 The sum or mean of gradients over windows of micro-batches.
 */
typedef struct bitstep_accumulator bitstep_accumulator;

/*
 Groups of parameters and their state.
 */
typedef struct bitstep_optimizer bitstep_optimizer;

/*
 A rule with its hyper-parameters. It is immutable and independent of parameters: threads may share it.
 */
typedef struct bitstep_rule bitstep_rule;

/*
 A schedule with its state, for all groups of an optimizer.
 */
typedef struct bitstep_schedule bitstep_schedule;

/*
 A parameter with its gradient. The caller owns both.
 */
typedef struct bitstep_tensor {
  /*
   The elements, contiguous, in native byte order, aligned to their size.
   */
  void *data;
  /*
   The number of elements of the parameter, and of the gradient.
   */
  size_t len;
  /*
   The parameter's type: `BITSTEP_F32`, …
   */
  uint32_t dtype;
  /*
   The gradient's type.
   */
  uint32_t grad_dtype;
  /*
   The gradient, or NULL: the parameter and its state then stay unchanged.
   */
  const void *grad;
} bitstep_tensor;

/*
 A buffer for an error message, owned by the caller. Functions take NULL where no message is wanted.
 */
typedef struct bitstep_error {
  /*
   The message, NUL-terminated and truncated to fit. Written on an error only, and not if the buffer
   is found to overlap other memory passed to the call.
   */
  char message[256];
} bitstep_error;

/*
 A dynamic loss scale, as `torch.amp.GradScaler` keeps it. The caller may read and set its fields.
 */
typedef struct bitstep_loss_scale {
  /*
   The current factor of the loss.
   */
  double scale;
  /*
   The factor by which it grows, above 1.
   */
  double growth_factor;
  /*
   The factor by which it shrinks, below 1.
   */
  double backoff_factor;
  /*
   Good steps in a row after which it grows.
   */
  uint64_t growth_interval;
  /*
   Good steps since it last changed.
   */
  uint64_t good_steps;
} bitstep_loss_scale;

/*
 The name of an optimizer, a schedule or a slot, NUL-terminated.
 */
typedef struct bitstep_name {
  /*
   At most 63 bytes, and zeros.
   */
  char text[64];
} bitstep_name;

/*
 A named number: a hyper-parameter, or an extra argument of a step (`train_loss`).
 */
typedef struct bitstep_number {
  /*
   Its name, at most 64 bytes. A hyper-parameter that is a list repeats its name: `betas`, `betas`.
   */
  const char *name;
  /*
   Its value; 0 and 1 stand for false and true.
   */
  double value;
} bitstep_number;

/*
 A parameter of an optimizer.
 */
typedef struct bitstep_param_info {
  /*
   The index of its group.
   */
  size_t group;
  /*
   The number of elements.
   */
  size_t len;
  /*
   The number of dimensions.
   */
  size_t dimensions;
  /*
   The number of slots.
   */
  size_t slots;
  /*
   The number of `bitstep_state_entry` that its state has.
   */
  size_t entries;
  /*
   Its own steps: those with a gradient.
   */
  uint64_t steps;
  /*
   Its type.
   */
  uint32_t dtype;
  /*
   Whether it has been stepped: slots that start as a copy of the parameter have been filled.
   */
  uint32_t started;
} bitstep_param_info;

/*
 A slot of a parameter's state.
 */
typedef struct bitstep_slot {
  /*
   Its name, the key in the reference's `state_dict`: `exp_avg`.
   */
  char name[64];
  /*
   How it is stored, by the name that saved files have: `f32`, `companded:momentum`.
   */
  char format[64];
  /*
   The number of elements; 0 if the arguments leave it unused.
   */
  size_t len;
  /*
   The number of dimensions in the reference.
   */
  size_t dimensions;
} bitstep_slot;

/*
 A tensor of a parameter's state as the reference's `state_dict` has it: a slot that is stored as plain
 numbers; codes or scales of one that is not; the correction of 16-bit weights; a number; the step count.
 */
typedef struct bitstep_state_entry {
  /*
   The reference's key: `exp_avg`, `exp_avg::scales`, `step`. Slots of one name have one key.
   */
  char key[64];
  /*
   The type of the elements: `BITSTEP_F32`, …, `BITSTEP_U8`, …
   */
  uint32_t dtype;
  /*
   Always 0.
   */
  uint32_t reserved;
  /*
   The number of the slot that it belongs to; `SIZE_MAX` if to none.
   */
  size_t slot;
  /*
   The number of elements.
   */
  size_t len;
  /*
   The number of bytes.
   */
  size_t size;
  /*
   The number of dimensions; 0 for a number.
   */
  size_t dimensions;
} bitstep_state_entry;

#if defined(BITSTEP_TRAINER)
/*
 A parameter of a model that is to be trained.
 */
typedef struct bitstep_parameter {
  /*
   Its name in the model, which decides whether it decays: `model.layers.0.mlp.up_proj.weight`.
   */
  const char *name;
  /*
   Its dimensions.
   */
  const size_t *shape;
  /*
   How many these are.
   */
  size_t dimensions;
  /*
   Its type: `BITSTEP_F32`, …
   */
  uint32_t dtype;
  /*
   The type of its layer: `BITSTEP_LAYER_LINEAR`, …; 0 to guess it.
   */
  uint32_t layer;
} bitstep_parameter;
#endif

#if defined(BITSTEP_TRAINER)
/*
 What a training does besides stepping its optimizer and its schedule.
 */
typedef struct bitstep_training {
  /*
   Gradients are clipped to this norm by `bitstep_clip_grad_norm`, of order 2; 0 if they are not.
   */
  double max_grad_norm;
  /*
   The magnitude of `bitstep_neftune`'s noise; below 0 if there is none.
   */
  double neftune_noise_alpha;
  /*
   Micro-batches whose mean `bitstep_accumulator_new` takes.
   */
  uint64_t gradient_accumulation_steps;
  /*
   The number of steps, 0 if it is not known.
   */
  uint64_t num_training_steps;
  /*
   The loss scale, if `scales_loss` is not 0.
   */
  struct bitstep_loss_scale loss_scale;
  /*
   Whether the loss is scaled (`fp16`).
   */
  uint32_t scales_loss;
  /*
   Whether the optimizer is stepped with each micro-batch rather than at the end of a window.
   */
  uint32_t every_micro_batch;
  /*
   Whether the schedule is stepped with a metric after each evaluation rather than after each step.
   */
  uint32_t follows_metric;
  /*
   Always 0.
   */
  uint32_t reserved;
} bitstep_training;
#endif

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Clips gradients to a total norm of at most `max_norm`, as torch's `clip_grad_norm_` does, and writes
 the norm before clipping to `norm`. `norm_type` is its order: 2, 1, infinity, … Unless
 `error_if_nonfinite` is 0, a norm that is not finite is refused. The gradients are the tensors' `data`;
 their `grad` is ignored.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_clip_grad_norm(const struct bitstep_tensor *gradients,
                               size_t count,
                               double max_norm,
                               double norm_type,
                               int32_t error_if_nonfinite,
                               double *norm,
                               struct bitstep_error *error);

/*
 Limits each number of the gradients to `clip_value` and its negative, as torch's `clip_grad_value_` does.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_clip_grad_value(const struct bitstep_tensor *gradients,
                                size_t count,
                                double clip_value,
                                struct bitstep_error *error);

/*
 Clips gradients to a total norm of at most `clip_norm`, as TensorFlow's `clip_by_global_norm` does, and
 writes the norm before clipping to `norm`.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_clip_by_global_norm(const struct bitstep_tensor *gradients,
                                    size_t count,
                                    double clip_norm,
                                    double *norm,
                                    struct bitstep_error *error);

/*
 Writes the norm of order `norm_type` over all gradients, as torch's `get_total_norm` gives it, to `norm`.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_total_norm(const struct bitstep_tensor *gradients,
                           size_t count,
                           double norm_type,
                           double *norm,
                           struct bitstep_error *error);

/*
 Writes 1 to `finite` if no gradient holds an infinity or NaN, else 0.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_is_finite(const struct bitstep_tensor *gradients,
                          size_t count,
                          int32_t *finite,
                          struct bitstep_error *error);

/*
 Writes the reference's defaults to `scale`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_loss_scale_default(struct bitstep_loss_scale *scale, struct bitstep_error *error);

/*
 Divides all gradients by the scale, and writes 1 to `finite` if they held no infinity or NaN before, else
 0: then the step is to be left out.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_unscale(const struct bitstep_loss_scale *scale,
                        const struct bitstep_tensor *gradients,
                        size_t count,
                        int32_t *finite,
                        struct bitstep_error *error);

/*
 Grows or shrinks the scale after a step that was made, or left out because its gradients were not finite.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_loss_scale_update(struct bitstep_loss_scale *scale,
                                  int32_t finite,
                                  struct bitstep_error *error);

/*
 Creates an accumulator of windows of so many micro-batches: their sum, or their mean unless `mean` is 0.
 Free it with `bitstep_accumulator_free`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_accumulator_new(uint64_t window,
                                int32_t mean,
                                struct bitstep_accumulator **accumulator,
                                struct bitstep_error *error);

/*
 Frees an accumulator. NULL is ignored.

 # Safety
 It is not used afterwards.
 */
void bitstep_accumulator_free(struct bitstep_accumulator *accumulator);

/*
 Adds a micro-batch: the `grad` of each tensor to its `data`, which the first of a window replaces. Both
 have one type, and no `grad` is NULL. Writes 1 to `complete` if the window is full, so that it is time for
 a step, else 0.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_accumulator_add(struct bitstep_accumulator *accumulator,
                                const struct bitstep_tensor *totals,
                                size_t count,
                                int32_t *complete,
                                struct bitstep_error *error);

/*
 Adds a micro-batch as `bitstep_accumulator_add` does, with a weight of its own, such as its share of the
 window's labels.

 # Safety
 As `bitstep_accumulator_add`.
 */
int32_t bitstep_accumulator_add_weighted(struct bitstep_accumulator *accumulator,
                                         const struct bitstep_tensor *totals,
                                         size_t count,
                                         double weight,
                                         int32_t *complete,
                                         struct bitstep_error *error);

/*
 Sets the number of micro-batches of the window about to begin, such as the last of an epoch.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_accumulator_window(struct bitstep_accumulator *accumulator,
                                   uint64_t window,
                                   struct bitstep_error *error);

/*
 Drops the micro-batches of an incomplete window.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_accumulator_restart(struct bitstep_accumulator *accumulator,
                                    struct bitstep_error *error);

/*
 Adds NEFTune's noise to the output of an embedding, the `data` of `output`: sequences of `length` tokens of
 `width` numbers. `seed` and `step` choose the noise, which is the same on every machine. If `output` has a
 `grad`, it holds uniform samples in [0, 1) to be used instead.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_neftune(const struct bitstep_tensor *output,
                        double alpha,
                        uint64_t length,
                        uint64_t width,
                        uint64_t seed,
                        uint64_t step,
                        struct bitstep_error *error);

/*
 The version of the library that runs, such as `0.1.0`, as `BITSTEP_VERSION` is that of the header. It
 lives as long as the program.
 */
const char *bitstep_version(void);

/*
 The number of optimizers that are known by a name.
 */
size_t bitstep_optimizer_count(void);

/*
 Writes the name of an optimizer, from 0 in alphabetical order, to `name`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_name_at(size_t index,
                                  struct bitstep_name *name,
                                  struct bitstep_error *error);

/*
 Writes the arguments of an optimizer with their defaults, as a JSON object in the reference's order, to
 `text`, which has `size` bytes, and the number of bytes that this takes, a 0 at the end included, to
 `needed`. With a `size` of 0 only that is written. `text` may be read by `bitstep_optimizer_add_group`.
 Arguments that change no result, such as `foreach`, are accepted, and not listed.

 # Safety
 Pointers are valid or NULL, strings end with 0, and there are `size` bytes at `text`.
 */
int32_t bitstep_optimizer_defaults(const char *name,
                                   char *text,
                                   size_t size,
                                   size_t *needed,
                                   struct bitstep_error *error);

/*
 The number of schedules that are known by a name.
 */
size_t bitstep_schedule_count(void);

/*
 Writes the name of a schedule, from 0 in alphabetical order, to `name`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_schedule_name_at(size_t index,
                                 struct bitstep_name *name,
                                 struct bitstep_error *error);

/*
 Writes the arguments of a schedule with their defaults, `null` for those that must be given, to `text`,
 as `bitstep_optimizer_defaults` does. Every schedule takes the optimizer's `lr` or `groups` besides.

 # Safety
 Pointers are valid or NULL, strings end with 0, and there are `size` bytes at `text`.
 */
int32_t bitstep_schedule_defaults(const char *name,
                                  char *text,
                                  size_t size,
                                  size_t *needed,
                                  struct bitstep_error *error);

#if !defined(BITSTEP_STD)
/*
 Defined by the caller: allocates `size` bytes aligned to `align`, or returns NULL.
 */
extern void *bitstep_allocate(size_t size, size_t align);
#endif

#if !defined(BITSTEP_STD)
/*
 Defined by the caller: frees memory from `bitstep_allocate`.
 */
extern void bitstep_release(void *memory, size_t size, size_t align);
#endif

#if !defined(BITSTEP_STD)
/*
 Defined by the caller: ends the program after a failed small allocation or a bug. Must not return.
 */
extern void bitstep_abort(void);
#endif

/*
 Creates an optimizer without groups or parameters. Free it with `bitstep_optimizer_free`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_new(struct bitstep_optimizer **optimizer, struct bitstep_error *error);

/*
 Frees an optimizer. NULL is ignored.

 # Safety
 It is not used afterwards.
 */
void bitstep_optimizer_free(struct bitstep_optimizer *optimizer);

/*
 Adds a group of parameters and writes its index to `group`. `name` is one of Transformers' `optim=`
 strings. `arguments` are the hyper-parameters under the reference's names, as JSON or text, at most
 65536 bytes: `{"lr": 1e-3}` or `lr=1e-3, betas=[0.9, 0.95]`; NULL for the defaults.

 Two more arguments say how numbers are kept between steps, by the names that saved files have for it:
 `storage`, that of all slots or of some, `{"exp_avg": "companded:momentum"}`, and `weights`, that of
 16-bit parameters: `plain`, `split:8`, `split:16`, `kahan` or `stochastic:SEED`.

 # Safety
 Pointers are valid or NULL, strings end with 0.
 */
int32_t bitstep_optimizer_add_group(struct bitstep_optimizer *optimizer,
                                    const char *name,
                                    const char *arguments,
                                    size_t *group,
                                    struct bitstep_error *error);

/*
 Adds a group as `bitstep_optimizer_add_group` does, with the hyper-parameters as at most 1024 named
 numbers, so that no string has to be parsed.

 # Safety
 Pointers are valid or NULL, strings end with 0.
 */
int32_t bitstep_optimizer_add_group_of(struct bitstep_optimizer *optimizer,
                                       const char *name,
                                       const struct bitstep_number *arguments,
                                       size_t count,
                                       size_t *group,
                                       struct bitstep_error *error);

/*
 Adds a parameter of `dimensions` dimensions to a group. Steps take the parameters in the order in
 which they were added. Returns `BITSTEP_MEMORY` if its state can't be allocated.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_optimizer_add_param(struct bitstep_optimizer *optimizer,
                                    size_t group,
                                    const size_t *shape,
                                    size_t dimensions,
                                    uint32_t dtype,
                                    struct bitstep_error *error);

/*
 Sets a group's learning rate. A negative rate or NaN is refused, as by every reference's constructor.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_set_lr(struct bitstep_optimizer *optimizer,
                                 size_t group,
                                 double lr,
                                 struct bitstep_error *error);

/*
 Writes a group's current learning rate to `lr`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_lr(const struct bitstep_optimizer *optimizer,
                             size_t group,
                             double *lr,
                             struct bitstep_error *error);

/*
 Steps all parameters. `tensors` are in the order in which the parameters were added, and of the types
 that they were added with. `given_numbers` are extra arguments that some rules use, such as
 `train_loss`; a name that no rule of the optimizer uses is refused.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_optimizer_step(struct bitstep_optimizer *optimizer,
                               const struct bitstep_tensor *tensors,
                               size_t count,
                               const struct bitstep_number *given_numbers,
                               size_t given_count,
                               struct bitstep_error *error);

/*
 Converts the parameters to their evaluation values, in place. Only schedule-free optimizers evaluate
 other values than they train. Steps are refused until `bitstep_optimizer_train`. Gradients are ignored.

 # Safety
 As `bitstep_optimizer_step`.
 */
int32_t bitstep_optimizer_eval(struct bitstep_optimizer *optimizer,
                               const struct bitstep_tensor *tensors,
                               size_t count,
                               struct bitstep_error *error);

/*
 Converts the parameters back to their training values.

 # Safety
 As `bitstep_optimizer_step`.
 */
int32_t bitstep_optimizer_train(struct bitstep_optimizer *optimizer,
                                const struct bitstep_tensor *tensors,
                                size_t count,
                                struct bitstep_error *error);

/*
 Writes the size of all state buffers, in bytes, to `size`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_state_size(const struct bitstep_optimizer *optimizer,
                                     size_t *size,
                                     struct bitstep_error *error);

/*
 Creates a rule from `name` and `arguments`, which are those of `bitstep_optimizer_add_group`. Free it
 with `bitstep_rule_free`.

 Refuses rules that depend on more than one parameter: on the norm over all gradients, on the
 parameter's index in its group, or on a seed per parameter. Names that store correction bits beside
 16-bit parameters are refused for parameters of those types. Use an optimizer for all of them.

 # Safety
 Pointers are valid or NULL, strings end with 0.
 */
int32_t bitstep_rule_new(const char *name,
                         const char *arguments,
                         struct bitstep_rule **rule,
                         struct bitstep_error *error);

/*
 Frees a rule. NULL is ignored.

 # Safety
 It is not used afterwards.
 */
void bitstep_rule_free(struct bitstep_rule *rule);

/*
 Writes the size of the state of a parameter of this shape and type, in bytes, to `size`.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_rule_state_size(const struct bitstep_rule *rule,
                                const size_t *shape,
                                size_t dimensions,
                                uint32_t dtype,
                                size_t *size,
                                struct bitstep_error *error);

/*
 Steps one parameter at learning rate `lr`, which must not be negative or NaN. Its state is in
 `memory`: `size` bytes, as `bitstep_rule_state_size` gives them, aligned to 8 and all 0 before the
 first step. The bytes are in native order: restore them on the same kind of machine only.

 The result has the same bits as a `bitstep_optimizer` of that one parameter. `given_numbers` are extra
 arguments; a name that the rule does not use is refused.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_rule_step(const struct bitstep_rule *rule,
                          double lr,
                          const struct bitstep_tensor *tensor,
                          const size_t *shape,
                          size_t dimensions,
                          void *memory,
                          size_t size,
                          const struct bitstep_number *given_numbers,
                          size_t given_count,
                          struct bitstep_error *error);

/*
 Converts a parameter to its evaluation values, in place, as `bitstep_optimizer_eval` does. Steps are refused
 until `bitstep_rule_train`. `memory` is its state; the gradient is ignored.

 # Safety
 As `bitstep_rule_step`.
 */
int32_t bitstep_rule_eval(const struct bitstep_rule *rule,
                          const struct bitstep_tensor *tensor,
                          const size_t *shape,
                          size_t dimensions,
                          void *memory,
                          size_t size,
                          struct bitstep_error *error);

/*
 Converts a parameter back to its training values.

 # Safety
 As `bitstep_rule_step`.
 */
int32_t bitstep_rule_train(const struct bitstep_rule *rule,
                           const struct bitstep_tensor *tensor,
                           const size_t *shape,
                           size_t dimensions,
                           void *memory,
                           size_t size,
                           struct bitstep_error *error);

/*
 Writes the number of bytes that `bitstep_optimizer_save` needs to `size`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_save_size(const struct bitstep_optimizer *optimizer,
                                    size_t *size,
                                    struct bitstep_error *error);

/*
 Saves all state, counters and learning rates to `memory`, which is `size` bytes long. The bytes are
 the same on every machine, and those of `Optimizer::save` in Rust. They begin with `bitstep`, a 0 and
 the format version as a little-endian 64-bit integer, and end with a checksum. Later versions of this
 interface read what this one writes, and this one reads what versions 2 and 3 wrote.

 # Safety
 Pointers are valid or NULL, and there are `size` bytes at `memory`.
 */
int32_t bitstep_optimizer_save(const struct bitstep_optimizer *optimizer,
                               uint8_t *memory,
                               size_t size,
                               struct bitstep_error *error);

/*
 Loads saved state into an optimizer whose groups have the same rules, compute policy and storage, and
 whose parameters have the same shapes and types. Any other is refused, and so are damaged bytes and an
 unknown version. Learning rates are loaded; all other hyper-parameters stay as they are.

 # Safety
 Pointers are valid or NULL, and there are `size` bytes at `memory`.
 */
int32_t bitstep_optimizer_load(struct bitstep_optimizer *optimizer,
                               const uint8_t *memory,
                               size_t size,
                               struct bitstep_error *error);

/*
 Creates the schedule `name`, one of Transformers' `lr_scheduler_type=` strings. `arguments` are the
 reference's, and the optimizer's `lr`, or `groups` if there are several; at most 65536 bytes.
 Free it with `bitstep_schedule_free`.

 # Safety
 Pointers are valid or NULL, strings end with 0.
 */
int32_t bitstep_schedule_new(const char *name,
                             const char *arguments,
                             struct bitstep_schedule **schedule,
                             struct bitstep_error *error);

/*
 Frees a schedule. NULL is ignored.

 # Safety
 It is not used afterwards.
 */
void bitstep_schedule_free(struct bitstep_schedule *schedule);

/*
 Makes a scheduler step. `given` is the metric for `reduce_lr_on_plateau` and `greedy`, one value per
 group for `adafactor_schedule`, and empty for all others.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_schedule_step(struct bitstep_schedule *schedule,
                              const double *given,
                              size_t count,
                              struct bitstep_error *error);

/*
 Writes a group's current learning rate to `lr`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_schedule_lr(const struct bitstep_schedule *schedule,
                            size_t group,
                            double *lr,
                            struct bitstep_error *error);

/*
 Writes a group's learning rate after `steps` scheduler steps from the start of training to `lr`, whatever
 steps have been made: update t of a training loop, counted from 1, has that after t - 1. At most 2^20
 steps; a schedule that is driven by a metric is refused.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_schedule_lr_at(const struct bitstep_schedule *schedule,
                               size_t group,
                               uint64_t steps,
                               double *lr,
                               struct bitstep_error *error);

/*
 Writes the number of groups that the schedule has rates for to `groups`, and that of the scheduler steps
 made to `steps`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_schedule_sizes(const struct bitstep_schedule *schedule,
                               size_t *groups,
                               uint64_t *steps,
                               struct bitstep_error *error);

/*
 Copies a schedule with its state. Free the copy with `bitstep_schedule_free`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_schedule_clone(const struct bitstep_schedule *schedule,
                               struct bitstep_schedule **copy,
                               struct bitstep_error *error);

/*
 Sets the learning rates of all groups of an optimizer to the schedule's current ones, without a range
 check, as the reference's schedules do. A schedule that cycles momentum sets that too; a rule without
 momentum is refused then.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_schedule_apply(const struct bitstep_schedule *schedule,
                               struct bitstep_optimizer *optimizer,
                               struct bitstep_error *error);

/*
 Writes the number of bytes that `bitstep_schedule_save` needs to `size`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_schedule_save_size(const struct bitstep_schedule *schedule,
                                   size_t *size,
                                   struct bitstep_error *error);

/*
 Saves the schedule's state to `memory`, which is `size` bytes long. As with an optimizer's state,
 later versions read it.

 # Safety
 Pointers are valid or NULL, and there are `size` bytes at `memory`.
 */
int32_t bitstep_schedule_save(const struct bitstep_schedule *schedule,
                              uint8_t *memory,
                              size_t size,
                              struct bitstep_error *error);

/*
 Loads saved state into a schedule that was created with the same name and arguments.

 # Safety
 Pointers are valid or NULL, and there are `size` bytes at `memory`.
 */
int32_t bitstep_schedule_load(struct bitstep_schedule *schedule,
                              const uint8_t *memory,
                              size_t size,
                              struct bitstep_error *error);

/*
 Writes how many groups and parameters there are to `groups` and `params`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_sizes(const struct bitstep_optimizer *optimizer,
                                size_t *groups,
                                size_t *params,
                                struct bitstep_error *error);

/*
 Copies an optimizer with all its state. Free the copy with `bitstep_optimizer_free`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_clone(const struct bitstep_optimizer *optimizer,
                                struct bitstep_optimizer **copy,
                                struct bitstep_error *error);

/*
 Writes whether parameters have their training or their evaluation values, `BITSTEP_TRAIN` or
 `BITSTEP_EVAL`, to `mode`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_mode(const struct bitstep_optimizer *optimizer,
                               uint32_t *mode,
                               struct bitstep_error *error);

/*
 Writes a group's arguments with their current values, the learning rate among them, as a JSON object to
 `text`, as `bitstep_optimizer_defaults` does.

 # Safety
 Pointers are valid or NULL, and there are `size` bytes at `text`.
 */
int32_t bitstep_optimizer_arguments(const struct bitstep_optimizer *optimizer,
                                    size_t group,
                                    char *text,
                                    size_t size,
                                    size_t *needed,
                                    struct bitstep_error *error);

/*
 Changes arguments of a group during training, as an assignment to the reference's `param_groups` does.
 `arguments` are those of `bitstep_optimizer_add_group`, without `storage` and `weights`; the others keep
 their values. State that becomes active is allocated; an argument that would leave unused what a
 parameter has already is refused.

 # Safety
 Pointers are valid or NULL, strings end with 0.
 */
int32_t bitstep_optimizer_set_arguments(struct bitstep_optimizer *optimizer,
                                        size_t group,
                                        const char *arguments,
                                        struct bitstep_error *error);

/*
 Writes the number of a group's steps to `steps`: calls of a step, whether or not there were gradients.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_group_steps(const struct bitstep_optimizer *optimizer,
                                      size_t group,
                                      uint64_t *steps,
                                      struct bitstep_error *error);

/*
 Sets the number of a group's steps, to continue a run that was begun elsewhere.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_set_group_steps(struct bitstep_optimizer *optimizer,
                                          size_t group,
                                          uint64_t steps,
                                          struct bitstep_error *error);

/*
 Writes what is known of a parameter to `info`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_param(const struct bitstep_optimizer *optimizer,
                                size_t param,
                                struct bitstep_param_info *info,
                                struct bitstep_error *error);

/*
 Sets the number of a parameter's own steps, and whether it has been stepped, to continue a run that was
 begun elsewhere. Its state is written with `bitstep_optimizer_slot_write` or
 `bitstep_optimizer_entry_write`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_set_param_steps(struct bitstep_optimizer *optimizer,
                                          size_t param,
                                          uint64_t steps,
                                          uint32_t started,
                                          struct bitstep_error *error);

/*
 Writes the number of the slot of that name to `slot`: the first, if there are several.

 # Safety
 Pointers are valid or NULL, strings end with 0.
 */
int32_t bitstep_optimizer_find_slot(const struct bitstep_optimizer *optimizer,
                                    size_t param,
                                    const char *name,
                                    size_t *slot,
                                    struct bitstep_error *error);

/*
 Writes what is known of a slot of a parameter to `info`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_slot(const struct bitstep_optimizer *optimizer,
                               size_t param,
                               size_t slot,
                               struct bitstep_slot *info,
                               struct bitstep_error *error);

/*
 Writes the values of a slot, decoded, to the `data` of `values`, which has the slot's length and any
 type. Its `grad` is ignored.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_optimizer_slot_read(const struct bitstep_optimizer *optimizer,
                                    size_t param,
                                    size_t slot,
                                    const struct bitstep_tensor *values,
                                    struct bitstep_error *error);

/*
 Sets the values of a slot from `len` numbers of type `dtype` at `values`, encoding them as the slot is
 stored.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_optimizer_slot_write(struct bitstep_optimizer *optimizer,
                                     size_t param,
                                     size_t slot,
                                     const void *values,
                                     size_t len,
                                     uint32_t dtype,
                                     struct bitstep_error *error);

/*
 Writes what is known of an entry of a parameter's state to `info`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_entry(const struct bitstep_optimizer *optimizer,
                                size_t param,
                                size_t entry,
                                struct bitstep_state_entry *info,
                                struct bitstep_error *error);

/*
 Writes the dimensions of an entry of a parameter's state to `shape`, which has room for `dimensions`.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_optimizer_entry_shape(const struct bitstep_optimizer *optimizer,
                                      size_t param,
                                      size_t entry,
                                      size_t *shape,
                                      size_t dimensions,
                                      struct bitstep_error *error);

/*
 Writes an entry of a parameter's state to `memory`, which has the entry's `size` in bytes, in
 little-endian order. A step count is a double.

 # Safety
 Pointers are valid or NULL, and there are `size` bytes at `memory`.
 */
int32_t bitstep_optimizer_entry_read(const struct bitstep_optimizer *optimizer,
                                     size_t param,
                                     size_t entry,
                                     uint8_t *memory,
                                     size_t size,
                                     struct bitstep_error *error);

/*
 Sets an entry of a parameter's state from the bytes that `bitstep_optimizer_entry_read` writes. A number
 or step count of a group is set for all its parameters.

 # Safety
 Pointers are valid or NULL, and there are `size` bytes at `memory`.
 */
int32_t bitstep_optimizer_entry_write(struct bitstep_optimizer *optimizer,
                                      size_t param,
                                      size_t entry,
                                      const uint8_t *memory,
                                      size_t size,
                                      struct bitstep_error *error);

/*
 Sets the 16 random bits of each element that the next steps round a parameter with, where its weights
 are rounded stochastically; without any (`count` 0) the parameter's own generator gives them.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_optimizer_set_rounding_bits(struct bitstep_optimizer *optimizer,
                                            size_t param,
                                            const uint16_t *bits,
                                            size_t count,
                                            struct bitstep_error *error);

/*
 Begins a step whose parameters are stepped one at a time, by `bitstep_optimizer_step_param`, such as
 during the backward pass: advances the groups, and computes what their rules need of all gradients.
 `gradients` has an entry for each parameter, whose `data` is ignored. For rules that need no norm over all
 gradients only their types count: `len` may be 0, with `grad` anything but NULL.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_optimizer_begin(struct bitstep_optimizer *optimizer,
                                const struct bitstep_tensor *gradients,
                                size_t count,
                                const struct bitstep_number *given_numbers,
                                size_t given_count,
                                struct bitstep_error *error);

/*
 Steps one parameter, in a step that has begun with `bitstep_optimizer_begin`. `index_in_group` is the
 parameter's number, from 0, among those of its group that have a gradient. Without a gradient it stays as
 it is. Each parameter may be stepped once; `given_numbers` are those of the step.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_optimizer_step_param(struct bitstep_optimizer *optimizer,
                                     size_t param,
                                     const struct bitstep_tensor *tensor,
                                     uint32_t index_in_group,
                                     const struct bitstep_number *given_numbers,
                                     size_t given_count,
                                     struct bitstep_error *error);

#if defined(BITSTEP_STD)
/*
 Steps all parameters as `bitstep_optimizer_step` does, on `threads` threads of the library, or on one
 for each processor if `threads` is 0: the same bits. The optimizer keeps the threads until it is freed
 or stepped on another number of them.

 # Safety
 As `bitstep_optimizer_step`.
 */
int32_t bitstep_optimizer_step_threads(struct bitstep_optimizer *optimizer,
                                       const struct bitstep_tensor *tensors,
                                       size_t count,
                                       const struct bitstep_number *given_numbers,
                                       size_t given_count,
                                       size_t threads,
                                       struct bitstep_error *error);
#endif

#if defined(BITSTEP_STD)
/*
 Steps all parameters as `bitstep_optimizer_step` does, as tasks that may run on any threads, in any
 order and at the same time: the same bits. `run` is called once; it calls `task(tasks, i)` for each i
 below `count`, and returns when all of these have. What it leaves out is done afterwards, on the calling
 thread. Each task is of about `task_elements` elements: small parameters are taken together, large ones
 divided where their rule allows it.

 # Safety
 As `bitstep_optimizer_step`. `run` does not unwind, does not use the optimizer, and calls `task` only
 before it returns.
 */
int32_t bitstep_optimizer_step_tasks(struct bitstep_optimizer *optimizer,
                                     const struct bitstep_tensor *tensors,
                                     size_t count,
                                     const struct bitstep_number *given_numbers,
                                     size_t given_count,
                                     size_t task_elements,
                                     void (*run)(void *context,
                                                 size_t count,
                                                 void (*task)(const void *tasks, size_t index),
                                                 const void *tasks),
                                     void *context,
                                     struct bitstep_error *error);
#endif

#if defined(BITSTEP_TRAINER)
/*
 Sets up a training as Transformers' Trainer does. `json` is the output of
 `TrainingArguments.to_json_string()`, at most 65536 bytes, or some of its keys: `{"optim": "adamw_torch",
 "learning_rate": 1e-3, "max_steps": 100}`. Writes an optimizer with the parameters in the order given,
 divided into Trainer's groups; a schedule, whose first rates are set; and what else the loop has to do.
 `num_training_steps` is for arguments without `max_steps`; 0 if it is not known. Free both handles.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated, strings end with 0.
 */
int32_t bitstep_training_new(const char *json,
                             const struct bitstep_parameter *parameters,
                             size_t count,
                             uint64_t num_training_steps,
                             struct bitstep_optimizer **optimizer,
                             struct bitstep_schedule **schedule,
                             struct bitstep_training *setup,
                             struct bitstep_error *error);
#endif

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BITSTEP_H */
