//! bitstep's tasks on rayon's threads. The bits do not depend on the number of threads.

use bitstep::Error;
use bitstep::optimizer::Task;

#[cfg(feature = "faer")]
mod algebra;
#[cfg(feature = "faer")]
pub use algebra::Faer;

/// Elements below which work is not cut further: some 20 µs of work, against a few for a spawn.
pub const GRAIN: usize = 1 << 15;

/// Runs the tasks of a step: small tensors are dealt out whole, a large one is
/// cut where its rule allows it.
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
pub fn run_in_grains(mut tasks: Vec<Task<'_>>, grain: usize) -> Result<(), Error> {
    let total: usize = tasks.iter().map(Task::len).sum();
    if total <= grain.max(1) {
        return tasks.into_iter().try_for_each(Task::run);
    }
    if let [_] = tasks.as_slice()
        && let Some(task) = tasks.pop()
    {
        return match task.split_at(total / 2) {
            Ok((a, b)) => both(vec![a], vec![b], grain),
            Err(task) => task.run(),
        };
    }
    // Halves of about the same number of elements, tensors kept whole.
    let mut seen = 0;
    let middle = tasks.iter().position(|t| {
        seen += t.len();
        seen > total / 2
    });
    let middle = middle.map_or(1, |m| m.clamp(1, tasks.len() - 1));
    let right = tasks.split_off(middle);
    both(tasks, right, grain)
}

fn both(left: Vec<Task<'_>>, right: Vec<Task<'_>>, grain: usize) -> Result<(), Error> {
    let (a, b) = rayon::join(|| run_in_grains(left, grain), || run_in_grains(right, grain));
    a.and(b)
}
