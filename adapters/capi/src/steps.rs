//! A step in other ways than all parameters on the calling thread: one parameter at a time, on threads of the
//! library, or as tasks for threads of the caller.

use alloc::format;

use bitstep::optimizer::ParamId;
use bitstep::rule::mode::Mode;
use bitstep::storage::memory::collected;

use crate::args::{NamedNumber, extra};
use crate::error::{BITSTEP_ARGUMENT, ErrorMessage, err};
use crate::optimizer::{Optimizer, check_count, check_tensor, known};
use crate::places::ffi_call;
use crate::tensor::{Tensor, data_mut, dtype, grad, note};

/// Begins a step whose parameters are stepped one at a time, by `bitstep_optimizer_step_param`, such as
/// during the backward pass: advances the groups, and computes what their rules need of all gradients.
/// `gradients` has an entry for each parameter, whose `data` is ignored. For rules that need no norm over all
/// gradients only their types count: `len` may be 0, with `grad` anything but NULL.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_begin(
    optimizer: *mut Optimizer,
    gradients: *const Tensor,
    count: usize,
    given_numbers: *const NamedNumber,
    given_count: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            check_count(optimizer, count)?;
            let gradients = places.list("gradients", gradients, count)?;
            let extra = extra(places, given_numbers, given_count, known(optimizer))?;
            for (i, t) in gradients.iter().enumerate().filter(|(_, t)| !t.grad.is_null()) {
                let what = format_args!("gradients[{i}].grad");
                places.numbers(&what, t.grad, t.len, dtype(t.grad_dtype)?, false)?;
            }
            places.check()?;
            let grads = collected("gradients", gradients.iter().map(|t| grad(t)))?;
            Ok(optimizer.inner.begin_step(&grads, &extra)?)
        })
    }
}

/// Steps one parameter, in a step that has begun with `bitstep_optimizer_begin`. `index_in_group` is the
/// parameter's number, from 0, among those of its group that have a gradient. Without a gradient it stays as
/// it is. Each parameter may be stepped once; `given_numbers` are those of the step.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_step_param(
    optimizer: *mut Optimizer,
    param: usize,
    tensor: *const Tensor,
    index_in_group: u32,
    given_numbers: *const NamedNumber,
    given_count: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            let tensors = places.list("tensor", tensor, 1)?;
            let extra = extra(places, given_numbers, given_count, known(optimizer))?;
            note(places, "tensor", tensors, true)?;
            places.check()?;
            let [tensor] = tensors else { return Ok(()) };
            let Some(state) = optimizer.inner.params().get(param) else {
                let count = optimizer.inner.params().len();
                let message = format!("param: {param}, but there are {count} parameters");
                return err(BITSTEP_ARGUMENT, message);
            };
            check_tensor(&"tensor", tensor, state)?;
            if optimizer.inner.mode() == Mode::Eval {
                return err(
                    BITSTEP_ARGUMENT,
                    "mode: training is wanted, call bitstep_optimizer_train",
                );
            }
            let Some(grad) = grad(tensor) else { return Ok(()) };
            let (id, value) = (ParamId(param), data_mut(tensor));
            Ok(optimizer.inner.step_param(id, value, grad, index_in_group, &extra)?.run()?)
        })
    }
}

#[cfg(feature = "std")]
pub use parallel::*;

#[cfg(feature = "std")]
mod parallel {
    use alloc::format;
    use alloc::vec::Vec;
    use core::ffi::c_void;
    use core::sync::atomic::{AtomicI32, Ordering};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;

    use bitstep::optimizer::{Param, Task};

    use crate::error::{BITSTEP_OK, BITSTEP_PANIC, BITSTEP_POINTER, Status};
    use crate::optimizer::check_tensors;
    use crate::threads::Threads;

    use super::*;

    /// The most threads that one optimizer is stepped on.
    const MOST_THREADS: usize = 1024;

    /// Steps all parameters as `bitstep_optimizer_step` does, on `threads` threads of the library, or on one
    /// for each processor if `threads` is 0: the same bits. The optimizer keeps the threads until it is freed
    /// or stepped on another number of them.
    ///
    /// # Safety
    /// As `bitstep_optimizer_step`.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn bitstep_optimizer_step_threads(
        optimizer: *mut Optimizer,
        tensors: *const Tensor,
        count: usize,
        given_numbers: *const NamedNumber,
        given_count: usize,
        threads: usize,
        error: *mut ErrorMessage,
    ) -> i32 {
        // SAFETY: guaranteed by the caller, here and below.
        unsafe {
            ffi_call(error, |places| {
                let optimizer = places.handle_mut("optimizer", optimizer)?;
                check_count(optimizer, count)?;
                let tensors = places.list("tensors", tensors, count)?;
                let extra = extra(places, given_numbers, given_count, known(optimizer))?;
                note(places, "tensors", tensors, true)?;
                places.check()?;
                check_tensors(optimizer, tensors)?;
                if threads > MOST_THREADS {
                    let message = format!("threads: {threads}, but at most {MOST_THREADS}");
                    return err(BITSTEP_ARGUMENT, message);
                }
                if optimizer.pool.as_ref().is_none_or(|pool| pool.wanted() != threads) {
                    optimizer.pool = None;
                    optimizer.pool = Some(Threads::new(threads)?);
                }
                let Optimizer { inner, pool: Some(pool), .. } = optimizer else { return Ok(()) };
                let params = tensors.iter().map(|t| Param { value: data_mut(t), grad: grad(t) });
                let mut params = collected("tensors", params)?;
                Ok(pool.run(|| bitstep_rayon::step(inner, &mut params, &extra))?)
            })
        }
    }

    /// The tasks of one step, each of which is taken once.
    struct Tasks<'a> {
        waiting: Vec<Mutex<Option<Task<'a>>>>,
        /// The first status that is not `BITSTEP_OK`.
        status: AtomicI32,
    }

    impl Tasks<'_> {
        fn run(&self, index: usize) {
            let Some(task) = self.waiting.get(index) else { return };
            // No code that could panic runs while it is locked.
            let Some(task) = task.lock().ok().and_then(|mut task| task.take()) else { return };
            let status = match catch_unwind(AssertUnwindSafe(|| task.run())) {
                Ok(Ok(())) => return,
                Ok(Err(e)) => Status::from(e).0,
                Err(_) => BITSTEP_PANIC,
            };
            let (new, old) = (Ordering::AcqRel, Ordering::Acquire);
            _ = self.status.compare_exchange(BITSTEP_OK, status, new, old);
        }
    }

    /// # Safety
    /// `tasks` is what `bitstep_optimizer_step_tasks` has passed on, which has not returned yet.
    unsafe extern "C" fn run_task(tasks: *const c_void, index: usize) {
        if !tasks.is_null() {
            // SAFETY: it points to the tasks of the step, which are alive and may be shared.
            unsafe { &*tasks.cast::<Tasks<'_>>() }.run(index);
        }
    }

    /// Steps all parameters as `bitstep_optimizer_step` does, as tasks that may run on any threads, in any
    /// order and at the same time: the same bits. `run` is called once; it calls `task(tasks, i)` for each i
    /// below `count`, and returns when all of these have. What it leaves out is done afterwards, on the calling
    /// thread. Each task is of about `task_elements` elements: small parameters are taken together, large ones
    /// divided where their rule allows it.
    ///
    /// # Safety
    /// As `bitstep_optimizer_step`. `run` does not unwind, does not use the optimizer, and calls `task` only
    /// before it returns.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn bitstep_optimizer_step_tasks(
        optimizer: *mut Optimizer,
        tensors: *const Tensor,
        count: usize,
        given_numbers: *const NamedNumber,
        given_count: usize,
        task_elements: usize,
        run: Option<
            unsafe extern "C" fn(
                context: *mut c_void,
                count: usize,
                task: unsafe extern "C" fn(tasks: *const c_void, index: usize),
                tasks: *const c_void,
            ),
        >,
        context: *mut c_void,
        error: *mut ErrorMessage,
    ) -> i32 {
        // SAFETY: guaranteed by the caller, here and below.
        unsafe {
            ffi_call(error, |places| {
                let optimizer = places.handle_mut("optimizer", optimizer)?;
                check_count(optimizer, count)?;
                let tensors = places.list("tensors", tensors, count)?;
                let extra = extra(places, given_numbers, given_count, known(optimizer))?;
                note(places, "tensors", tensors, true)?;
                places.check()?;
                check_tensors(optimizer, tensors)?;
                let Some(run) = run else { return err(BITSTEP_POINTER, "run is NULL") };
                let params = tensors.iter().map(|t| Param { value: data_mut(t), grad: grad(t) });
                let mut params = collected("tensors", params)?;
                let whole = optimizer.inner.tasks_batched(&mut params, &extra, task_elements)?;
                let tasks = whole.into_iter().flat_map(|task| task.split(task_elements.max(1)));
                let waiting = tasks.map(|task| Mutex::new(Some(task))).collect();
                let tasks = Tasks { waiting, status: AtomicI32::new(BITSTEP_OK) };
                let count = tasks.waiting.len();
                run(context, count, run_task, (&raw const tasks).cast());
                (0..count).for_each(|i| tasks.run(i));
                match tasks.status.into_inner() {
                    BITSTEP_OK => Ok(()),
                    BITSTEP_PANIC => err(BITSTEP_PANIC, "a defect of bitstep: a task panicked"),
                    status => err(status, "a task failed: the step is incomplete"),
                }
            })
        }
    }
}
