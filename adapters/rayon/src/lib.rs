//! bitstep's tasks on rayon's threads. The bits do not depend on the number of threads.

use bitstep::Error;
use bitstep::optimizer::Task;
use rayon::iter::{IndexedParallelIterator as _, IntoParallelIterator as _, ParallelIterator as _};

#[cfg(feature = "faer")]
mod algebra;
#[cfg(feature = "faer")]
pub use algebra::Faer;

/// The [work](Task::work) that is not cut further: some 10 µs of it, several times what a spawn takes.
pub const GRAIN: usize = 1 << 16;

/// Runs the tasks of a step: small tensors are dealt out whole, a large one is
/// cut where its rule allows it. A step of less than two [`GRAIN`]s stays on the caller's thread,
/// which has made it before another one would be awake.
///
/// # Errors
/// Those of [`Task::run`].
pub fn run(tasks: Vec<Task<'_>>) -> Result<(), Error> {
    run_in_grains(tasks, GRAIN)
}

/// The same with another grain.
///
/// # Errors
/// Those of [`Task::run`].
pub fn run_in_grains(tasks: Vec<Task<'_>>, grain: usize) -> Result<(), Error> {
    let total: usize = tasks.iter().map(Task::work).sum();
    let threads = rayon::current_num_threads();
    if threads == 1 || total / 2 < grain {
        return tasks.into_iter().try_for_each(Task::run);
    }
    // A few parts for each thread, so that none is left with a large one at the end.
    let part = (total / (4 * threads)).max(grain).max(1);
    let tasks = if tasks.iter().any(|task| task.work() > part) {
        tasks.into_iter().flat_map(|task| in_parts(task, part)).collect()
    } else {
        tasks
    };
    let few = tasks.len().saturating_mul(grain) / total.max(1);
    tasks.into_par_iter().with_min_len(few).try_for_each(Task::run)
}

fn in_parts(task: Task<'_>, part: usize) -> Vec<Task<'_>> {
    let len = task.len().div_ceil(task.work().div_ceil(part).max(1));
    task.cut(len)
}
