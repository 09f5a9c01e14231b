#![doc = include_str!("../README.md")]
//!
//! The calling thread should be one of the pool's (`rayon::ThreadPoolBuilder::use_current_thread`).
//! It then starts at once; otherwise it waits for other threads to wake up, which takes as long as a
//! step of a hundred thousand parameters.
//!
//! It computes no gradients and shards nothing over processes or machines. The feature `faer` adds
//! `Faer`, whose bits do depend on the machine.
// docs.rs marks what a feature brings.
#![cfg_attr(docsrs, feature(doc_cfg))]

use bitstep::Error;
use bitstep::optimizer::{Optimizer, Param, Task};
use rayon::iter::{IndexedParallelIterator as _, IntoParallelIterator as _, ParallelIterator as _};

#[cfg(feature = "faer")]
mod algebra;
#[cfg(feature = "faer")]
pub use algebra::Faer;

/// The [cost](Task::cost) from which work is worth another thread: about 10 µs, several times what
/// waking a thread takes. Threads that are awake share work in quarters of it.
pub const GRAIN: usize = 1 << 16;

/// [`Optimizer::step_all`] on all threads.
///
/// # Errors
/// Those of [`Optimizer::step_all`].
pub fn step(
    optimizer: &mut Optimizer,
    params: &mut [Param<'_>],
    extra: &[(&str, f64)],
) -> Result<(), Error> {
    run(optimizer.tasks_batched(params, extra, GRAIN)?)
}

/// Runs the tasks of a step. Small tensors are distributed whole; a large one is split where its rule
/// allows it. A step of less than two [`GRAIN`]s stays on the calling thread, which finishes it before
/// another would be awake.
///
/// # Errors
/// Those of [`Task::run`].
pub fn run(tasks: Vec<Task<'_>>) -> Result<(), Error> {
    run_with_grain(tasks, GRAIN)
}

/// [`run`] with another grain.
///
/// # Errors
/// Those of [`Task::run`].
pub fn run_with_grain(tasks: Vec<Task<'_>>, grain: usize) -> Result<(), Error> {
    let total: usize = tasks.iter().map(Task::cost).sum();
    let threads = rayon::current_num_threads();
    if threads == 1 || total / 2 < grain {
        return tasks.into_iter().try_for_each(Task::run);
    }
    // Several parts per thread, so that a thread that starts late takes fewer of them.
    let part = (total / (8 * threads)).max(grain / 4).max(1);
    let tasks = if tasks.iter().any(|task| task.cost() > part) {
        tasks.into_iter().flat_map(|task| in_parts(task, part)).collect()
    } else {
        tasks
    };
    let few = tasks.len().saturating_mul(grain / 4) / total.max(1);
    tasks.into_par_iter().with_min_len(few).try_for_each(Task::run)
}

fn in_parts(task: Task<'_>, part: usize) -> Vec<Task<'_>> {
    let len = task.len().div_ceil(task.cost().div_ceil(part).max(1));
    task.split(len)
}
