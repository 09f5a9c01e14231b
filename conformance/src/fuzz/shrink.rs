//! Makes a failing run as small as it can be while it still fails.
//!
//! Greedy and without randomness: one change after the other is tried, and kept if the run still fails in the same
//! way. Fewer steps and parameters come first, then arguments toward their defaults, then fewer elements, simpler
//! numbers, `f32`.

use serde_json::{Map, Value};

use super::edit;
use super::template::number;
use crate::golden::{Case, Data, Group};
use crate::tensor::{Dtype, Tensor};

/// The most runs that are tried.
const TRIES: usize = 4000;

/// A failing run, shrunk.
#[derive(Clone, Debug)]
pub(crate) struct Shrunk {
    /// The smallest run that still fails.
    pub(crate) case: Case,
    /// How many runs were tried.
    pub(crate) tries: usize,
}

/// Shrinks a run. `still` fills in the answers of a run and tells whether it fails as the first one did.
pub(crate) fn shrink(
    first: &Case,
    defaults: &Map<String, Value>,
    mut still: impl FnMut(&Case) -> Option<Case>,
) -> Shrunk {
    let mut best = first.clone();
    let mut tries = 0;
    loop {
        let before = tries;
        let mut any = false;
        for pass in PASSES {
            // A pass proposes changes of the best run so far until none of them holds.
            let mut from = 0;
            loop {
                let next = pass(&best, defaults).into_iter().enumerate().skip(from).find_map(
                    |(k, candidate)| {
                        if tries >= TRIES {
                            return None;
                        }
                        tries += 1;
                        still(&candidate).map(|case| (k, case))
                    },
                );
                let Some((k, case)) = next else { break };
                best = case;
                any = true;
                // The changes before this one did not hold a moment ago.
                from = k;
            }
        }
        if !any || tries >= TRIES || tries == before {
            return Shrunk { case: best, tries };
        }
    }
}

type Pass = fn(&Case, &Map<String, Value>) -> Vec<Case>;

const PASSES: &[Pass] = &[
    |case, _| params(case),
    |case, _| steps(case),
    |case, _| simpler_structure(case),
    arguments,
    |case, _| elements(case),
    |case, _| types(case),
    |case, _| numbers(case),
    |case, _| other_kinds(case),
];

fn params(case: &Case) -> Vec<Case> {
    let Some(data) = edit::optimizer(case) else { return Vec::new() };
    let n = data.params.len();
    if n < 2 {
        return Vec::new();
    }
    let single = (0..n).filter_map(|i| edit::with_params(case, &[i]));
    let fewer = (0..n).filter_map(|out| {
        let keep: Vec<usize> = (0..n).filter(|&i| i != out).collect();
        edit::with_params(case, &keep)
    });
    single.chain(fewer).collect()
}

fn steps(case: &Case) -> Vec<Case> {
    let n = case.steps;
    let mut all = Vec::new();
    let mut keep = |keep: Vec<usize>| {
        if keep.len() < n && !keep.is_empty() {
            all.extend(edit::with_steps(case, &keep));
        }
    };
    for first in [1, 2, 3, n / 2] {
        keep((0..first.min(n)).collect());
    }
    for last in [1, 2, 3] {
        keep((n.saturating_sub(last)..n).collect());
    }
    for out in (0..n).rev() {
        keep((0..n).filter(|&t| t != out).collect());
    }
    all
}

/// One group; a gradient at every step; one rate; no state before the first step.
fn simpler_structure(case: &Case) -> Vec<Case> {
    let Some(data) = edit::optimizer(case) else { return Vec::new() };
    let mut all = Vec::new();
    let everything: Vec<usize> = (0..data.params.len()).collect();
    let plain = |hyper: &Map<String, Value>| {
        let mut data = data.clone();
        data.groups = vec![Group { params: everything.clone(), hyper: hyper.clone() }];
        Case { hyper: hyper.clone(), ..edit::with_data(case, data) }
    };
    let is_plain = matches!(&data.groups[..], [only] if only.hyper == case.hyper);
    if !is_plain {
        all.push(plain(&case.hyper));
        all.extend(data.groups.iter().map(|g| plain(&g.hyper)));
    }
    if data.params.iter().any(|p| !p.state0.is_empty()) {
        let mut fresh = data.clone();
        fresh.params.iter_mut().for_each(|p| p.state0.clear());
        all.push(edit::with_data(case, fresh));
    }
    if data.params.iter().any(|p| p.has_grad.contains(&false)) {
        let mut full = data.clone();
        full.params.iter_mut().for_each(|p| p.has_grad.fill(true));
        all.push(edit::with_data(case, full));
        for (i, p) in data.params.iter().enumerate() {
            for t in (0..case.steps).filter(|&t| !p.has_grad[t]) {
                all.extend(edit::with_param(case, i, |p| {
                    p.has_grad[t] = true;
                    Some(())
                }));
            }
        }
    }
    if let Some(lr) = &data.lr {
        let mut constant = data.clone();
        constant.lr = None;
        all.push(edit::with_data(case, constant));
        for &rate in lr.iter().filter(|&&rate| lr.iter().any(|x| *x != rate)) {
            let mut constant = data.clone();
            constant.lr = Some(vec![rate; lr.len()]);
            all.push(edit::with_data(case, constant));
        }
    }
    all
}

/// How far a number is from being a simple one.
fn complexity(x: f64) -> u32 {
    match x {
        0.0 if x.is_sign_positive() => 0,
        1.0 => 1,
        -1.0 => 2,
        x if x.is_finite() && x.abs().log2().fract() == 0.0 => 3,
        x if format!("{x:e}")
            .trim_start_matches('-')
            .split('e')
            .next()
            .is_some_and(|m| m.len() <= 1) =>
        {
            4
        }
        x if format!("{x:e}")
            .trim_start_matches('-')
            .split('e')
            .next()
            .is_some_and(|m| m.len() <= 3) =>
        {
            5
        }
        _ => 6,
    }
}

/// Simpler numbers near x, the simplest first.
fn simpler(x: f64) -> Vec<f64> {
    let mut near = vec![0.0, 1.0, -1.0];
    if x.is_finite() && x != 0.0 {
        near.push(x.signum() * x.abs().log2().round().exp2());
        for digits in [0, 1] {
            near.extend(format!("{x:.digits$e}").parse::<f64>().ok());
        }
    }
    near.retain(|y| complexity(*y) < complexity(x));
    near.dedup();
    near
}

/// Arguments at their defaults, all at once and one by one, then at simpler numbers.
fn arguments(case: &Case, defaults: &Map<String, Value>) -> Vec<Case> {
    let mut all = Vec::new();
    let differs = |(key, x): &(&String, &Value)| defaults.get(*key).is_some_and(|d| d != *x);
    let open: Vec<(&String, &Value)> = case.hyper.iter().filter(differs).collect();
    if open.len() > 1 {
        let reset = |case: Case, (key, _): &(&String, &Value)| {
            edit::with_argument(&case, key, &defaults[*key])
        };
        all.push(open.iter().fold(case.clone(), reset));
        for half in [&open[..open.len() / 2], &open[open.len() / 2..]] {
            all.push(half.iter().fold(case.clone(), reset));
        }
    }
    all.extend(open.iter().map(|(key, _)| edit::with_argument(case, key, &defaults[*key])));
    for (key, x) in open {
        match x {
            Value::Array(list) => {
                let default = defaults.get(key).and_then(Value::as_array);
                for (i, x) in list.iter().enumerate() {
                    let mut with = |y: &Value| {
                        let mut list = list.clone();
                        list[i] = y.clone();
                        all.push(edit::with_argument(case, key, &Value::Array(list)));
                    };
                    match default.and_then(|d| d.get(i)) {
                        Some(d) if d == x => continue,
                        Some(d) => with(d),
                        None => {}
                    }
                    if let Some(x) = x.as_f64() {
                        simpler(x).into_iter().for_each(|y| with(&number(y)));
                    }
                }
            }
            Value::Number(n) => {
                let simpler = n.as_f64().map(simpler).unwrap_or_default();
                let whole = n.is_i64() || n.is_u64();
                let simpler = simpler.into_iter().filter(|y| !whole || y.fract() == 0.0);
                all.extend(simpler.map(|y| {
                    let y = if whole { Value::from(y as i64) } else { number(y) };
                    edit::with_argument(case, key, &y)
                }));
            }
            _ => {}
        }
    }
    all
}

/// Fewer elements: one, two, three, or one row or column less.
fn elements(case: &Case) -> Vec<Case> {
    let Some(data) = edit::optimizer(case) else { return Vec::new() };
    let mut all = Vec::new();
    for (i, p) in data.params.iter().enumerate() {
        let (n, shape) = (p.init.len(), &p.init.shape);
        let mut with = |keep: &[usize], shape: &[usize]| {
            all.extend(edit::with_elements(case, i, keep, shape));
        };
        if n > 1 {
            (0..n.min(16)).for_each(|k| with(&[k], &[1]));
            if n > 16 {
                // One of so many elements: by halves.
                let half: Vec<usize> = (0..n / 2).collect();
                with(&half, &[half.len()]);
                let half: Vec<usize> = (n / 2..n).collect();
                with(&half, &[half.len()]);
            }
        }
        if n > 2 {
            (0..n.min(8) - 1).for_each(|k| with(&[k, k + 1], &[2]));
        }
        if n > 3 {
            with(&[0, 1, 2], &[3]);
        }
        if n > 1 && shape.len() > 1 {
            with(&(0..n).collect::<Vec<_>>(), &[n]);
        }
        if n > 1 && shape.len() == 1 {
            for out in 0..n.min(16) {
                let keep: Vec<usize> = (0..n).filter(|&k| k != out).collect();
                with(&keep, &[n - 1]);
            }
        }
        if n == 1 && *shape != [1] {
            with(&[0], &[1]);
        }
        // Half of a dimension, or one less.
        let smaller = |d: usize, size: usize| {
            let stride: usize = shape[d + 1..].iter().product();
            let kept = |k: &usize| k / stride.max(1) % shape[d] < size;
            let keep: Vec<usize> = (0..n).filter(kept).collect();
            let mut shape = shape.clone();
            shape[d] = size;
            (keep, shape)
        };
        for d in 0..if shape.len() > 1 { shape.len() } else { 0 } {
            for size in [1, shape[d] / 2, shape[d].saturating_sub(1)] {
                if size > 0 && size < shape[d] {
                    let (keep, shape) = smaller(d, size);
                    with(&keep, &shape);
                }
            }
        }
    }
    all
}

fn types(case: &Case) -> Vec<Case> {
    let Some(data) = edit::optimizer(case) else { return Vec::new() };
    let rank = |dtype: Dtype| match dtype {
        Dtype::F32 => 0,
        Dtype::F64 => 1,
        Dtype::Bf16 => 2,
        _ => 3,
    };
    let worst = data.params.iter().map(|p| rank(p.init.dtype)).max().unwrap_or(0);
    let simpler = [Dtype::F32, Dtype::F64, Dtype::Bf16].into_iter().filter(|&d| rank(d) < worst);
    simpler.filter_map(|d| edit::with_dtype(case, d)).collect()
}

/// Simpler parameters, gradients and rates: tensors as a whole, then rows, then each number.
fn numbers(case: &Case) -> Vec<Case> {
    let Some(data) = edit::optimizer(case) else { return Vec::new() };
    let mut all = Vec::new();
    let total = |t: &Tensor| t.to_f64s().iter().map(|&x| complexity(x)).sum::<u32>();
    for (i, p) in data.params.iter().enumerate() {
        let mut with = |change: &dyn Fn(&mut crate::golden::ParamCase)| {
            all.extend(edit::with_param(case, i, |p| {
                change(p);
                Some(())
            }));
        };
        for y in [0.0, 1.0] {
            let init = edit::map(&p.init, |_, _| y);
            if total(&init) < total(&p.init) {
                with(&|p| p.init = init.clone());
            }
            let grad = edit::map(&p.grad, |_, _| y);
            if total(&grad) < total(&p.grad) {
                with(&|p| p.grad = grad.clone());
            }
        }
        for (slot, t) in &p.state0 {
            for y in [0.0, 1.0] {
                let new = edit::map(t, |_, _| y);
                if total(&new) < total(t) {
                    with(&|p| {
                        p.state0.insert(slot.clone(), new.clone());
                    });
                }
            }
        }
        for (of_grad, t) in [(false, &p.init), (true, &p.grad)] {
            for (k, x) in t.to_f64s().into_iter().enumerate().take(64) {
                for y in simpler(x) {
                    let new = edit::map(t, |j, x| if j == k { y } else { x });
                    if new.get(k) == y {
                        with(&|p| {
                            let to = if of_grad { &mut p.grad } else { &mut p.init };
                            *to = new.clone();
                        });
                    }
                }
            }
        }
    }
    for (t, &x) in data.lr.iter().flatten().enumerate() {
        for y in simpler(x) {
            let mut data = data.clone();
            if let Some(lr) = &mut data.lr {
                lr[t] = y;
            }
            all.push(edit::with_data(case, data));
        }
    }
    for (what, rows) in &data.given {
        if rows.iter().any(|&x| x != 1.0) {
            let mut data = data.clone();
            data.given.insert(what.clone(), vec![1.0; rows.len()]);
            all.push(edit::with_data(case, data));
        }
    }
    all
}

/// Schedules and gradients: fewer steps, tensors, elements; simpler numbers.
fn other_kinds(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    match &case.data {
        Data::Optimizer(_) => {}
        Data::Schedule(data) => {
            let n = case.steps;
            for steps in [0, 1, 2, n / 2, n.saturating_sub(1)] {
                if steps < n {
                    let mut data = data.clone();
                    if let Some(metric) = &mut data.metric {
                        metric.truncate(steps);
                    }
                    let keep: Vec<usize> = (0..steps).collect();
                    data.given.values_mut().for_each(|t| *t = edit::pick_rows(t, &keep));
                    all.push(Case { steps, data: Data::Schedule(data), ..case.clone() });
                }
            }
            for (t, &x) in data.metric.iter().flatten().enumerate() {
                for y in simpler(x) {
                    let mut data = data.clone();
                    if let Some(metric) = &mut data.metric {
                        metric[t] = y;
                    }
                    all.push(Case { data: Data::Schedule(data), ..case.clone() });
                }
            }
        }
        Data::Gradient(data) => {
            let with = |change: &dyn Fn(&mut crate::golden::GradientCase)| {
                let mut data = data.clone();
                change(&mut data);
                Case { data: Data::Gradient(data), ..case.clone() }
            };
            if data.tensors.len() > 1 {
                all.extend(
                    (0..data.tensors.len())
                        .map(|k| with(&|data| data.tensors = vec![data.tensors[k].clone()])),
                );
                all.extend((0..data.tensors.len()).map(|k| {
                    with(&|data| {
                        data.tensors.remove(k);
                    })
                }));
            }
            for (i, g) in data.tensors.iter().enumerate() {
                if g.given.is_empty() && case.name != "accumulate" && g.input.len() > 1 {
                    for keep in (0..g.input.len().min(16))
                        .map(|k| vec![k])
                        .chain([g.input.len() / 2, g.input.len() - 1].map(|n| (0..n).collect()))
                    {
                        all.push(with(&|data| {
                            let flat = [g.input.len()];
                            let input = Tensor { shape: flat.to_vec(), ..g.input.clone() };
                            let input = edit::pick_rows(&input, &keep);
                            data.tensors[i].output = input.clone();
                            data.tensors[i].input = input;
                        }));
                    }
                }
                for (k, x) in g.input.to_f64s().into_iter().enumerate().take(32) {
                    for y in simpler(x) {
                        let new = edit::map(&g.input, |j, x| if j == k { y } else { x });
                        if new.get(k) == y {
                            all.push(with(&|data| data.tensors[i].input = new.clone()));
                        }
                    }
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simpler_numbers_get_simpler() {
        for x in [3.7, -0.123, 1e-40, 0.5, -1.0, 1.0, 0.0, f64::NAN, f64::INFINITY] {
            assert!(simpler(x).into_iter().all(|y| complexity(y) < complexity(x)), "{x}");
        }
        assert_eq!(simpler(1.0), [0.0]);
        assert!(simpler(0.0).is_empty());
    }
}
