#ifndef BITSTEP_H
#define BITSTEP_H

#include <stddef.h>
#include <stdint.h>

/*
 All is well.
 */
#define BITSTEP_OK 0

/*
 A pointer is NULL, not aligned, or overlaps another that is written to.
 */
#define BITSTEP_POINTER 1

/*
 An argument is unknown, or has a value that is refused.
 */
#define BITSTEP_ARGUMENT 2

/*
 A buffer has the wrong length, or there is the wrong number of them.
 */
#define BITSTEP_LENGTH 3

/*
 Saved state is damaged, or of another optimizer.
 */
#define BITSTEP_STATE 4

/*
 A defect of this library; the handle must only be freed.
 */
#define BITSTEP_PANIC 5

/*
 There is no memory for what was asked for.
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
 A rule with its arguments. It does not change, and knows nothing of parameters: threads may share it.
 */
typedef struct bitstep_rule bitstep_rule;

/*
 A schedule at work for all groups of an optimizer.
 */
typedef struct bitstep_schedule bitstep_schedule;

/*
 A parameter with its gradient. The caller owns both.
 */
typedef struct bitstep_tensor {
  /*
   The numbers, one after the other, in native byte order, beginning at a multiple of their size.
   */
  void *data;
  /*
   How many; of the gradient as many.
   */
  size_t len;
  /*
   `BITSTEP_F32`, …
   */
  uint32_t dtype;
  /*
   The gradient's type.
   */
  uint32_t grad_dtype;
  /*
   The gradient; NULL for none: the parameter and its state then stay as they are.
   */
  const void *grad;
} bitstep_tensor;

/*
 Room for a message. The caller owns it; NULL in its place for none.
 */
typedef struct bitstep_error {
  /*
   What went wrong, ended by a 0, cut off if it is longer. Only written on an error, and not
   where it is seen to overlap anything else that the call got.
   */
  char message[256];
} bitstep_error;

/*
 A number with a name: an argument, or what a rule listens to (`train_loss`).
 */
typedef struct bitstep_number {
  /*
   Its name, at most 64 bytes. As an argument it may come several times: `betas`, `betas`.
   */
  const char *name;
  /*
   Its value; 0 and 1 for false and true.
   */
  double value;
} bitstep_number;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Clips gradients to a norm of that order (2, 1, infinity, …), as torch's `clip_grad_norm_`, and
 writes the norm before to `norm`. The gradients are the tensors' `data`; their `grad` is ignored.

 # Safety
 Pointers are valid or NULL, and there is as much behind them as is said.
 */
int32_t bitstep_clip_grad_norm(const struct bitstep_tensor *gradients,
                               size_t count,
                               double max_norm,
                               double norm_type,
                               double *norm,
                               struct bitstep_error *error);

/*
 To be defined by the caller: `size` bytes at a multiple of `align`, or NULL.
 */
extern void *bitstep_allocate(size_t size, size_t align);

/*
 To be defined by the caller: gives back what `bitstep_allocate` gave.
 */
extern void bitstep_release(void *memory, size_t size, size_t align);

/*
 To be defined by the caller: no memory even for something small, or a defect. Must not return.
 */
extern void bitstep_abort(void);

/*
 Makes an optimizer without parameters. To be freed with `bitstep_optimizer_free`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_new(struct bitstep_optimizer **optimizer, struct bitstep_error *error);

/*
 Frees an optimizer; NULL is left alone.

 # Safety
 It is used no more.
 */
void bitstep_optimizer_free(struct bitstep_optimizer *optimizer);

/*
 Adds a group of parameters that share `name`, one of Transformers' `optim=` strings, and
 `arguments`, under the reference's names: `{"lr": 1e-3}` or `lr=1e-3, weight_decay=0.1`, at most
 65536 bytes; NULL for the defaults. Its number is written to `group`.

 # Safety
 Pointers are valid or NULL, strings end with 0.
 */
int32_t bitstep_optimizer_add_group(struct bitstep_optimizer *optimizer,
                                    const char *name,
                                    const char *arguments,
                                    size_t *group,
                                    struct bitstep_error *error);

/*
 The same with arguments as plain numbers, at most 1024, without a string to be read.

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
 Adds a parameter of `dimensions` dimensions to a group. Steps get the parameters in this order.
 `BITSTEP_MEMORY` if there is none for its state.

 # Safety
 Pointers are valid or NULL, and there is as much behind them as is said.
 */
int32_t bitstep_optimizer_add_param(struct bitstep_optimizer *optimizer,
                                    size_t group,
                                    const size_t *shape,
                                    size_t dimensions,
                                    uint32_t dtype,
                                    struct bitstep_error *error);

/*
 Sets a group's learning rate, as a schedule does. A rate that is negative or NaN is refused, as
 by every reference's constructor.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_set_lr(struct bitstep_optimizer *optimizer,
                                 size_t group,
                                 double lr,
                                 struct bitstep_error *error);

/*
 Writes a group's learning rate to `lr`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_lr(const struct bitstep_optimizer *optimizer,
                             size_t group,
                             double *lr,
                             struct bitstep_error *error);

/*
 One step of all parameters, in the order in which they were added, each with the type that it was
 added with. `given` are numbers that some rules listen to, `train_loss` for one; mostly there are
 none, and those that no rule of the optimizer listens to are refused.

 # Safety
 Pointers are valid or NULL, and there is as much behind them as is said.
 */
int32_t bitstep_optimizer_step(struct bitstep_optimizer *optimizer,
                               const struct bitstep_tensor *tensors,
                               size_t count,
                               const struct bitstep_number *given_numbers,
                               size_t given_count,
                               struct bitstep_error *error);

/*
 Turns parameters into those to evaluate, in place: schedule-free optimizers have others than
 those that they train. Until `bitstep_optimizer_train`, steps are refused. Gradients are not looked
 at.

 # Safety
 As `bitstep_optimizer_step`.
 */
int32_t bitstep_optimizer_eval(struct bitstep_optimizer *optimizer,
                               const struct bitstep_tensor *tensors,
                               size_t count,
                               struct bitstep_error *error);

/*
 Turns them back into those to train.

 # Safety
 As `bitstep_optimizer_step`.
 */
int32_t bitstep_optimizer_train(struct bitstep_optimizer *optimizer,
                                const struct bitstep_tensor *tensors,
                                size_t count,
                                struct bitstep_error *error);

/*
 Writes to `size` how many bytes the numbers of the state take in memory.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_state_size(const struct bitstep_optimizer *optimizer,
                                     size_t *size,
                                     struct bitstep_error *error);

/*
 Makes a rule of `name` and `arguments`, as `bitstep_optimizer_add_group` does. To be freed with
 `bitstep_rule_free`.

 Refused are rules that need to know more than one parameter: a norm over all gradients, a
 parameter's place among the others, a seed of its own. Names that keep something beside 16-bit
 parameters are refused where they do. Take an optimizer for them.

 # Safety
 Pointers are valid or NULL, strings end with 0.
 */
int32_t bitstep_rule_new(const char *name,
                         const char *arguments,
                         struct bitstep_rule **rule,
                         struct bitstep_error *error);

/*
 Frees a rule; NULL is left alone.

 # Safety
 It is used no more.
 */
void bitstep_rule_free(struct bitstep_rule *rule);

/*
 Writes to `size` how many bytes of state a parameter of this shape and type needs.

 # Safety
 Pointers are valid or NULL, and there is as much behind them as is said.
 */
int32_t bitstep_rule_state_size(const struct bitstep_rule *rule,
                                const size_t *shape,
                                size_t dimensions,
                                uint32_t dtype,
                                size_t *size,
                                struct bitstep_error *error);

/*
 One step of one parameter at learning rate `lr`, which is neither negative nor NaN, with its state
 in `memory`: `size` bytes as `bitstep_rule_state_size` says, beginning at a multiple of 8. Before the
 first step they must be 0. Memory that was saved is to be restored on the same kind of machine.

 The bits are those of an optimizer of that one parameter. Numbers in `given_numbers` that the rule
 does not listen to are refused.

 # Safety
 Pointers are valid or NULL, and there is as much behind them as is said.
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
 Writes to `size` how many bytes `bitstep_optimizer_save` needs.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_optimizer_save_size(const struct bitstep_optimizer *optimizer,
                                    size_t *size,
                                    struct bitstep_error *error);

/*
 Writes all state, counters and learning rates to `memory`, `size` bytes long. The same bytes on
 every machine, and those of `Optimizer::save` in Rust. They begin with `bitstep`, a 0, and the
 version of what follows, as the 8 bytes of a little-endian number, and end with a checksum. Later
 versions of this interface read what this one writes, and this one reads what versions 2 and 3
 wrote.

 # Safety
 Pointers are valid or NULL, and there are `size` bytes at `memory`.
 */
int32_t bitstep_optimizer_save(const struct bitstep_optimizer *optimizer,
                               uint8_t *memory,
                               size_t size,
                               struct bitstep_error *error);

/*
 Goes on from saved state, in an optimizer whose groups have the same rules, arithmetic and storage
 and whose parameters have the same shapes and types; any other is refused, and so are damaged bytes
 and a version that is not known. Arguments other than the rate are those of here.

 # Safety
 Pointers are valid or NULL, and there are `size` bytes at `memory`.
 */
int32_t bitstep_optimizer_load(struct bitstep_optimizer *optimizer,
                               const uint8_t *memory,
                               size_t size,
                               struct bitstep_error *error);

/*
 Makes the schedule `name`, one of Transformers' `lr_scheduler_type=` strings. `arguments` are
 the reference's, and of the optimizer `lr`, or `groups` if there are several; at most 65536 bytes.
 To be freed with `bitstep_schedule_free`.

 # Safety
 Pointers are valid or NULL, strings end with 0.
 */
int32_t bitstep_schedule_new(const char *name,
                             const char *arguments,
                             struct bitstep_schedule **schedule,
                             struct bitstep_error *error);

/*
 Frees a schedule; NULL is left alone.

 # Safety
 It is used no more.
 */
void bitstep_schedule_free(struct bitstep_schedule *schedule);

/*
 Makes a scheduler step. `given`: the metric for `reduce_lr_on_plateau` and `greedy`, a number
 for each group for `adafactor_schedule`; for all others none.

 # Safety
 Pointers are valid or NULL, and there is as much behind them as is said.
 */
int32_t bitstep_schedule_step(struct bitstep_schedule *schedule,
                              const double *given,
                              size_t count,
                              struct bitstep_error *error);

/*
 Writes the learning rate in force for a group to `lr`.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_schedule_lr(const struct bitstep_schedule *schedule,
                            size_t group,
                            double *lr,
                            struct bitstep_error *error);

/*
 Sets the learning rates of all groups of an optimizer to those in force, whatever they are, as
 the reference's schedules do, and their momentum if the schedule cycles it: a rule without one is
 refused then.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_schedule_apply(const struct bitstep_schedule *schedule,
                               struct bitstep_optimizer *optimizer,
                               struct bitstep_error *error);

/*
 Writes to `size` how many bytes `bitstep_schedule_save` needs.

 # Safety
 Pointers are valid or NULL.
 */
int32_t bitstep_schedule_save_size(const struct bitstep_schedule *schedule,
                                   size_t *size,
                                   struct bitstep_error *error);

/*
 Writes where the schedule stands to `memory`, `size` bytes long. As with an optimizer's, later
 versions read it.

 # Safety
 Pointers are valid or NULL, and there are `size` bytes at `memory`.
 */
int32_t bitstep_schedule_save(const struct bitstep_schedule *schedule,
                              uint8_t *memory,
                              size_t size,
                              struct bitstep_error *error);

/*
 Goes on from there, in a schedule that was made alike.

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
