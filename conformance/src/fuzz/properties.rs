//! What holds for every backend, whatever its numbers are: no oracle is needed.
//!
//! * The same input gives the same answer, also a second time from the same process.
//! * A run that is restored from the state it shows goes on with the same bits.
//! * Two parts of a tensor, as parameters of their own, have the bits of the whole, where the rule is elementwise.
//! * A step that is refused has written nothing. (What a program has written before it refuses can't be seen from
//!   outside: this is asked of backends in Rust alone.)

use bitstep::registry;

use super::edit;
use super::oracle::{self, Shown};
use crate::backend::{Backend, BackendError, Counts, Inputs, OptimizerSpec};
use crate::convert;
use crate::golden::{Case, Group, Kind, OptimizerCase, ParamCase};
use crate::judge::bounds::{Mode, is_low_bit};
use crate::judge::check::{Outcome, Report};
use crate::judge::compare::same_bits;
use crate::tensor::Tensor;

/// The property that does not hold, as a report; none if all hold.
pub(crate) fn check(case: &Case, backend: &dyn Backend) -> Vec<Report> {
    let Some(data) = edit::optimizer(case) else { return Vec::new() };
    let Ok(whole) = oracle::run(case, data, backend) else { return Vec::new() };
    let all: [(&str, Property); 4] = [
        ("the same input gives another answer the second time", repeated),
        ("restored from the state it shows, the run goes on in another way", restored),
        ("two parts of a tensor, as two parameters, have other bits than the whole", parts),
        ("a step that was refused has written", refused),
    ];
    let broken = all.into_iter().filter_map(|(what, property)| {
        let found = property(case, data, backend, &whole.0).ok()??;
        Some(report(case, backend, format!("{what}: {found}")))
    });
    broken.collect()
}

/// What differs; nothing if the property holds or does not apply.
type Property =
    fn(&Case, &OptimizerCase, &dyn Backend, &[Vec<Shown>]) -> Result<Option<String>, BackendError>;

fn report(case: &Case, backend: &dyn Backend, detail: String) -> Report {
    Report {
        kind: Kind::Optimizer.name().to_owned(),
        name: case.name.clone(),
        dtype: case.dtype().name().to_owned(),
        mode: Mode::Free,
        outcome: Outcome::Fail,
        compared: 1,
        off: 1,
        ..Report::unreadable(&case.id, backend.name(), &detail)
    }
}

/// The first number that differs.
fn difference(what: &str, a: &Tensor, b: &Tensor) -> Option<String> {
    if a.dtype != b.dtype || a.shape != b.shape {
        return Some(format!(
            "{what} is {} {:?}, then {} {:?}",
            a.dtype, a.shape, b.dtype, b.shape
        ));
    }
    let at = (0..a.len()).find(|&k| !same_bits(a, b, k))?;
    Some(format!("{what}, index {at}: {:?}, then {:?}", a.get(at), b.get(at)))
}

/// The first difference between two runs.
fn differs(a: &[Vec<Shown>], b: &[Vec<Shown>]) -> Option<String> {
    for (t, (a, b)) in a.iter().zip(b).enumerate() {
        for (i, ((value, state), (other, others))) in a.iter().zip(b).enumerate() {
            let found = difference(&format!("p{i}.value, step {t}"), value, other);
            if found.is_some() {
                return found;
            }
            for (slot, x) in state {
                let Some(y) = others.get(slot) else { continue };
                let found = difference(&format!("p{i}.state.{slot}, step {t}"), x, y);
                if found.is_some() {
                    return found;
                }
            }
        }
    }
    None
}

fn repeated(
    case: &Case,
    data: &OptimizerCase,
    backend: &dyn Backend,
    whole: &[Vec<Shown>],
) -> Result<Option<String>, BackendError> {
    Ok(differs(whole, &oracle::run(case, data, backend)?.0))
}

fn restored(
    case: &Case,
    data: &OptimizerCase,
    backend: &dyn Backend,
    whole: &[Vec<Shown>],
) -> Result<Option<String>, BackendError> {
    let middle = case.steps / 2;
    let Some(before) = middle.checked_sub(1).and_then(|t| whole.get(t)) else { return Ok(None) };
    // What is shown of a parameter before its first gradient is no state of it, but may count the group's steps.
    if data.params.iter().any(|p| p.state0.is_empty() && p.updates_before(middle) == 0) {
        return Ok(None);
    }
    let spec = OptimizerSpec::new(case, data);
    let mut run = backend.optimizer(&spec)?;
    if !run.shows_state() {
        return Ok(None);
    }
    for (i, (p, (value, state))) in data.params.iter().zip(before).enumerate() {
        let updates = p.updates_before(middle) as u64;
        run.load(i, value, state, Counts { updates, steps: middle as u64 })?;
    }
    let inputs: Vec<Inputs> = (middle..case.steps).map(|t| Inputs::new(data, t)).collect();
    run.plan(&inputs);
    let mut rest = Vec::new();
    for inputs in &inputs {
        run.step(inputs)?;
        if (0..data.params.len()).any(|i| run.lacks(i).is_some()) || !run.shows_state() {
            return Ok(None);
        }
        rest.push((0..data.params.len()).map(|i| (run.value(i), run.state(i))).collect());
    }
    Ok(differs(whole.get(middle..).unwrap_or_default(), &rest))
}

fn parts(
    case: &Case,
    data: &OptimizerCase,
    backend: &dyn Backend,
    whole: &[Vec<Shown>],
) -> Result<Option<String>, BackendError> {
    let ([p], [group]) = (&data.params[..], &data.groups[..]) else { return Ok(None) };
    let n = p.init.len();
    let rule = registry::optimizer(&case.name, convert::args(&group.hyper));
    let splits = rule.is_ok_and(|spec| {
        let info = spec.rule.info();
        let extra: Vec<(&str, f64)> = data.given.keys().map(|what| (what.as_str(), 1.0)).collect();
        let whole_norm = spec.rule.grad_norm_divisor(&extra).is_some();
        info.is_elementwise && !info.needs_index_in_group && !whole_norm
    });
    if !splits || n < 2 || is_low_bit(&case.id) || !p.given.is_empty() || !p.state0.is_empty() {
        return Ok(None);
    }
    let cut = n / 2;
    let part = |range: std::ops::Range<usize>| {
        let keep: Vec<usize> = range.collect();
        edit::with_elements(case, 0, &keep, &[keep.len()])
    };
    let (Some(first), Some(second)) = (part(0..cut), part(cut..n)) else { return Ok(None) };
    let parts = [first, second];
    let params = parts.iter().filter_map(|c| edit::optimizer(c)?.params.first().cloned());
    let groups = vec![Group { params: vec![0, 1], ..group.clone() }];
    let two = OptimizerCase { params: params.collect(), groups, ..data.clone() };
    let rows = oracle::run(&edit::with_data(case, two.clone()), &two, backend)?.0;
    for (t, (whole, parts)) in whole.iter().zip(&rows).enumerate() {
        let Some((value, _)) = whole.first() else { continue };
        let bytes = parts.iter().flat_map(|(x, _)| x.bytes.iter().copied()).collect();
        let joined = Tensor { bytes, ..value.clone() };
        let found = difference(&format!("the value at step {t}"), value, &joined);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn refused(
    case: &Case,
    data: &OptimizerCase,
    backend: &dyn Backend,
    _: &[Vec<Shown>],
) -> Result<Option<String>, BackendError> {
    if backend.name().starts_with("exec") {
        return Ok(None);
    }
    let mut run = backend.optimizer(&OptimizerSpec::new(case, data))?;
    let mut wrong = Inputs::new(data, 0);
    // The last gradient is too long: whoever checks as it goes has written the parameters before it.
    let Some(Some(grad)) = wrong.grads.last_mut() else { return Ok(None) };
    let longer = vec![0.0; grad.len() + 1];
    let Some(longer) = Tensor::round(grad.dtype, &[longer.len()], &longer) else { return Ok(None) };
    *grad = longer;
    // What the case supplies, such as a projector, the suite has written there itself.
    let shown = |run: &dyn crate::backend::Run| -> Vec<Shown> {
        let own = |(i, p): (usize, &ParamCase)| {
            let mut state = run.state(i);
            state.retain(|slot, _| !p.given.contains_key(slot));
            (run.value(i), state)
        };
        data.params.iter().enumerate().map(own).collect()
    };
    let before = shown(&*run);
    if run.step(&wrong).is_ok() {
        return Ok(Some("a gradient that is longer than its parameter was taken".to_owned()));
    }
    Ok(differs(&[before], &[shown(&*run)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Core;
    use crate::suite::{self, CaseFilter};

    #[test]
    fn a_projector_of_the_case_is_not_written_by_a_refused_step() {
        let only = CaseFilter::new(Some("optimizer/galore_adamw/std_f32")).unwrap();
        let case = suite::read(&[suite::committed()], &only).unwrap().remove(0).case.unwrap();
        assert!(edit::optimizer(&case).unwrap().params.iter().any(|p| !p.given.is_empty()));
        let broken: Vec<String> = check(&case, &Core).into_iter().map(|r| r.detail).collect();
        assert!(broken.is_empty(), "{broken:?}");
    }
}
