//! Whether a backend may skip a step because the file lacks state.

use crate::Core;
use crate::backend::{Backend, BackendError, Counts, OptimizerSpec};
use crate::golden::OptimizerCase;

/// Accepts that parameter `i` lacks `slot` before step `t` only if the core lacks that slot there too.
///
/// # Errors
/// Why the skip is not accepted.
pub(crate) fn excused(
    spec: &OptimizerSpec<'_>,
    data: &OptimizerCase,
    (i, t): (usize, usize),
    slot: &str,
) -> Result<(), String> {
    let p = &data.params[i];
    let no = |why: &str| Err(format!("`p{i}` is said to lack `{slot}` before step {t}, {why}"));
    if t == 0 || p.state.contains_key(slot) {
        return no("which there is");
    }
    let Ok(mut run) = Core.optimizer(spec) else {
        return no("but the core has no such optimizer to bear that out");
    };
    let state = p.state_before(t);
    let counts = Counts { updates: p.updates_before(t) as u64, steps: t as u64 };
    match run.load(i, &p.value_before(t), &state, counts) {
        // The core names only the first of the slots that it lacks.
        Err(BackendError::NeedsState(first))
            if first == slot || run.state(i).contains_key(slot) =>
        {
            Ok(())
        }
        Err(BackendError::NeedsState(first)) => no(&format!("where the core lacks `{first}`")),
        _ => no("but the core makes that step from what the file holds"),
    }
}
