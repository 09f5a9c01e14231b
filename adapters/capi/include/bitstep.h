#ifndef BITSTEP_H
#define BITSTEP_H

#include <stddef.h>
#include <stdint.h>

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

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Clips gradients to a total norm of at most `max_norm`, as torch's `clip_grad_norm_` does, and writes
 the norm before clipping to `norm`. `norm_type` is its order: 2, 1, infinity, … The gradients are the
 tensors' `data`; their `grad` is ignored.

 # Safety
 Pointers are valid or NULL and point to as many elements as stated.
 */
int32_t bitstep_clip_grad_norm(const struct bitstep_tensor *gradients,
                               size_t count,
                               double max_norm,
                               double norm_type,
                               double *norm,
                               struct bitstep_error *error);

/*
 Defined by the caller: allocates `size` bytes aligned to `align`, or returns NULL.
 */
extern void *bitstep_allocate(size_t size, size_t align);

/*
 Defined by the caller: frees memory from `bitstep_allocate`.
 */
extern void bitstep_release(void *memory, size_t size, size_t align);

/*
 Defined by the caller: ends the program after a failed small allocation or a bug. Must not return.
 */
extern void bitstep_abort(void);

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
 65536 bytes: `{"lr": 1e-3}` or `lr=1e-3, weight_decay=0.1`; NULL for the defaults.

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

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BITSTEP_H */
