//! Optimizers written down plainly, each with bugs that a name switches on: what a stranger's code may look like.
//!
//! Nothing of the library computes here, and nothing of the suite's mutations.

use std::collections::BTreeMap;

use bitstep_conformance::backend::{
    Backend, BackendError, Counts, GradientAnswer, GradientSpec, Inputs, OptimizerSpec, Run,
    ScheduleSpec,
};
use bitstep_conformance::tensor::{Dtype, Tensor};
use num_traits::Float;
use serde_json::{Map, Value};

/// The optimizers, with a bug; none if the name is empty.
pub(crate) struct Planted(pub(crate) &'static str);

type Arguments = Map<String, Value>;
type State = BTreeMap<String, Vec<f64>>;

struct Param {
    dtype: Dtype,
    shape: Vec<usize>,
    arguments: Arguments,
    value: Vec<f64>,
    state: State,
    updates: u64,
    /// Whether it has been without a gradient.
    missed: bool,
}

struct PlantedRun {
    bug: &'static str,
    name: String,
    params: Vec<Param>,
}

fn refuse<T>(why: &str) -> Result<T, BackendError> {
    Err(BackendError::Unsupported(why.to_owned()))
}

impl Backend for Planted {
    fn name(&self) -> &str {
        "planted"
    }

    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        let names = ["adam", "adamw_torch", "sgd", "rmsprop", "adafactor", "adafactor_torch"];
        if !names.contains(&spec.name) {
            return refuse("not written down");
        }
        let param = |(i, init): (usize, &&Tensor)| {
            if !matches!(init.dtype, Dtype::F32 | Dtype::F64) {
                return refuse("f32 and f64 only");
            }
            let group = spec.groups.iter().find(|g| g.params.contains(&i));
            Ok(Param {
                dtype: init.dtype,
                shape: init.shape.clone(),
                arguments: group.map_or_else(Map::new, |g| g.hyper.clone()),
                value: init.to_f64s(),
                state: State::new(),
                updates: 0,
                missed: false,
            })
        };
        let params = spec.params.iter().enumerate().map(param).collect::<Result<_, _>>()?;
        Ok(Box::new(PlantedRun { bug: self.0, name: spec.name.to_owned(), params }))
    }

    fn schedule(&self, _: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        refuse("no schedules")
    }

    fn gradient(&self, _: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        refuse("no gradients")
    }
}

impl Run for PlantedRun {
    fn load(
        &mut self,
        i: usize,
        value: &Tensor,
        state: &BTreeMap<String, Tensor>,
        counts: Counts,
    ) -> Result<(), BackendError> {
        let p = &mut self.params[i];
        p.value = value.to_f64s();
        p.state = state.iter().map(|(slot, x)| (slot.clone(), x.to_f64s())).collect();
        p.updates = counts.updates;
        p.missed = counts.updates < counts.steps;
        let needs = match self.name.as_str() {
            "sgd" if number(&p.arguments, "momentum") == 0.0 => return Ok(()),
            "sgd" => "momentum_buffer",
            "rmsprop" => "square_avg",
            "adafactor" => "RMS",
            "adafactor_torch" => "variance",
            _ => "exp_avg",
        };
        match state.is_empty() && counts.updates > 0 {
            true => Err(BackendError::NeedsState(needs.to_owned())),
            false => Ok(()),
        }
    }

    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError> {
        let first = self.params[0].arguments.clone();
        for (p, g) in self.params.iter_mut().zip(&inputs.grads) {
            let Some(mut g) = g.as_ref().map(Tensor::to_f64s) else {
                p.missed = true;
                if self.bug == "missing_is_zero" {
                    let zeros = vec![0.0; p.value.len()];
                    one_step(&self.name, p, &zeros, inputs.lr, self.bug);
                }
                continue;
            };
            if self.bug == "first_group" {
                p.arguments = first.clone();
            }
            let is_here = match self.bug {
                "one_element" => p.value.len() == 1,
                "after_missing" => p.missed,
                "first_step" => inputs.t == 0,
                _ => false,
            };
            if is_here {
                g.iter_mut().for_each(|g| *g *= 1.5);
            }
            let lr = inputs.lr.filter(|_| self.bug != "first_rate");
            one_step(&self.name, p, &g, lr, self.bug);
        }
        Ok(())
    }

    fn value(&self, i: usize) -> Tensor {
        let p = &self.params[i];
        Tensor::round(p.dtype, &p.shape, &p.value).unwrap()
    }

    fn state(&self, i: usize) -> BTreeMap<String, Tensor> {
        let p = &self.params[i];
        let (last, rest) = p.shape.split_last().map_or((1, &[][..]), |(n, rest)| (*n, rest));
        let tensor = |(slot, x): (&String, &Vec<f64>)| {
            let shape = match slot.as_str() {
                "step" | "RMS" => vec![],
                "exp_avg_sq_row" => rest.to_vec(),
                "row_var" => [rest, &[1]].concat(),
                "exp_avg_sq_col" => [&rest[..rest.len() - 1], &[last]].concat(),
                "col_var" => [&rest[..rest.len() - 1], &[1, last]].concat(),
                _ => p.shape.clone(),
            };
            let dtype = if slot == "step" { Dtype::F64 } else { p.dtype };
            (slot.clone(), Tensor::round(dtype, &shape, x).unwrap())
        };
        p.state.iter().map(tensor).collect()
    }
}

/// JSON has no infinite numbers: they are words.
fn value(x: f64) -> Value {
    if x.is_finite() { x.into() } else { x.to_string().into() }
}

fn number(arguments: &Arguments, key: &str) -> f64 {
    match arguments.get(key) {
        Some(Value::String(word)) => word.parse().unwrap(),
        x => x.and_then(Value::as_f64).unwrap_or(0.0),
    }
}

fn is(arguments: &Arguments, key: &str) -> bool {
    arguments.get(key) == Some(&Value::Bool(true))
}

fn pair(arguments: &Arguments, key: &str) -> (f64, f64) {
    let at = |i| arguments[key][i].as_f64().unwrap_or(0.0);
    (at(0), at(1))
}

fn one_step(name: &str, p: &mut Param, g: &[f64], lr: Option<f64>, bug: &str) {
    let mut arguments = p.arguments.clone();
    if let Some(lr) = lr {
        arguments.insert("lr".to_owned(), value(lr));
    }
    if bug == "rate_f32" {
        let lr = number(&arguments, "lr") as f32;
        arguments.insert("lr".to_owned(), value(f64::from(lr)));
    }
    if p.dtype == Dtype::F64 && bug != "compute_f32" {
        typed::<f64>(name, p, g, &arguments, bug);
    } else {
        typed::<f32>(name, p, g, &arguments, bug);
    }
    p.updates += 1;
}

/// Converts to the type, steps, and converts back.
fn typed<T: Float>(name: &str, p: &mut Param, g: &[f64], arguments: &Arguments, bug: &str) {
    let narrow = |x: &[f64]| -> Vec<T> { x.iter().map(|&x| t(x)).collect() };
    let mut value = narrow(&p.value);
    let g: Vec<T> = narrow(g);
    let g = if is(arguments, "maximize") && bug != "maximize_ignored" { negated(&g) } else { g };
    let g = if bug == "negated" { negated(&g) } else { g };
    let mut s = Slots { state: &mut p.state, n: value.len(), of: std::marker::PhantomData };
    match name {
        "sgd" => sgd(&mut value, &g, &mut s, arguments, bug),
        "rmsprop" => rmsprop(&mut value, &g, &mut s, arguments, bug),
        "adafactor" => adafactor(&mut value, &g, &mut s, arguments, bug, &p.shape),
        "adafactor_torch" => adafactor_torch(&mut value, &g, &mut s, arguments, bug, &p.shape),
        _ => adam(&mut value, &g, &mut s, arguments, bug, name == "adamw_torch"),
    }
    p.value = value.iter().map(|&x| wide(x)).collect();
}

fn negated<T: Float>(x: &[T]) -> Vec<T> {
    x.iter().map(|&x| -x).collect()
}

fn t<T: Float>(x: f64) -> T {
    T::from(x).unwrap()
}

fn wide<T: Float>(x: T) -> f64 {
    x.to_f64().unwrap()
}

/// The state in the type.
struct Slots<'a, T> {
    state: &'a mut State,
    n: usize,
    of: std::marker::PhantomData<T>,
}

impl<T: Float> Slots<'_, T> {
    fn has(&self, slot: &str) -> bool {
        self.state.contains_key(slot)
    }
    fn get(&self, slot: &str) -> Vec<T> {
        self.sized(slot, self.n)
    }
    fn sized(&self, slot: &str, n: usize) -> Vec<T> {
        let zeros = || vec![T::zero(); n];
        self.state.get(slot).map_or_else(zeros, |x| x.iter().map(|&x| t(x)).collect())
    }
    fn put(&mut self, slot: &str, x: &[T]) {
        self.state.insert(slot.to_owned(), x.iter().map(|&x| wide(x)).collect());
    }
    fn count(&mut self) -> f64 {
        let step = self.state.entry("step".to_owned()).or_insert_with(|| vec![0.0]);
        step[0] += 1.0;
        step[0]
    }
}

/// PyTorch's lerp.
fn lerp<T: Float>(a: T, b: T, weight: T) -> T {
    if weight < t(0.5) { a + weight * (b - a) } else { b - (b - a) * (T::one() - weight) }
}

fn adam<T: Float>(
    p: &mut [T],
    g: &[T],
    s: &mut Slots<'_, T>,
    a: &Arguments,
    bug: &str,
    decoupled: bool,
) {
    let (mut beta1, mut beta2) = pair(a, "betas");
    if bug == "betas_swapped" {
        (beta1, beta2) = (beta2, beta1);
    }
    let (lr, mut decay) = (number(a, "lr"), number(a, "weight_decay"));
    let mut eps = number(a, "eps");
    match bug {
        "decay_ignored" => decay = 0.0,
        "eps_ignored" => eps = 0.0,
        "f32" => {
            (beta1, beta2) = (f64::from(beta1 as f32), f64::from(beta2 as f32));
            (eps, decay) = (f64::from(eps as f32), f64::from(decay as f32));
        }
        _ => {}
    }
    let lr = if bug == "f32" { f64::from(lr as f32) } else { lr };
    let (mut m, mut v) = (s.get("exp_avg"), s.get("exp_avg_sq"));
    let is_first = !s.has("exp_avg");
    let amsgrad = is(a, "amsgrad") && bug != "amsgrad_ignored";
    let mut top = s.get("max_exp_avg_sq");
    let step = s.count();
    let decoupled = decoupled || is(a, "decoupled_weight_decay");
    let decoupled = match bug {
        "decay_coupled" => false,
        "decay_decoupled" => true,
        _ => decoupled,
    };
    let mut now = step;
    match bug {
        "correction_late" => now += 1.0,
        "correction_early" => now -= 1.0,
        _ => {}
    }
    let b1 = if bug == "m_by_beta2" { beta2 } else { beta1 };
    let b2 = if bug == "v_by_beta1" { beta1 } else { beta2 };
    let (mut c1, mut c2) = (1.0 - beta1.powf(now), 1.0 - beta2.powf(now));
    match bug {
        "uncorrected" => (c1, c2) = (1.0, 1.0),
        "first_uncorrected" => c1 = 1.0,
        "second_uncorrected" => c2 = 1.0,
        "both_by_beta2" => c1 = c2,
        _ => {}
    }
    let b1 = if bug == "both_by_beta2" { beta2 } else { b1 };
    for i in 0..p.len() {
        let mut g = g[i];
        if decay != 0.0 && decoupled && bug != "decay_late" {
            let shrink = if bug == "decay_without_rate" { decay } else { lr * decay };
            p[i] = p[i] * t(1.0 - shrink);
        } else if decay != 0.0 && !decoupled {
            g = g + t::<T>(decay) * p[i];
        }
        m[i] =
            if is_first && bug == "m_starts_at_gradient" { g } else { lerp(m[i], g, t(1.0 - b1)) };
        v[i] = v[i] * t(b2) + t::<T>(1.0 - b2) * g * g;
        let mut under = v[i];
        if amsgrad {
            let corrected = v[i] / t(c2);
            match bug {
                "max_not_kept" => top[i] = v[i],
                "max_not_stored" => under = top[i].max(v[i]),
                "max_of_corrected" => {
                    top[i] = top[i].max(corrected);
                    under = top[i];
                }
                _ => top[i] = if top[i] > v[i] || top[i].is_nan() { top[i] } else { v[i] },
            }
            if !matches!(bug, "max_not_stored" | "max_not_used" | "max_of_corrected") {
                under = top[i];
            }
        }
        let correction: T =
            if amsgrad && bug == "max_of_corrected" { T::one() } else { t(c2.sqrt()) };
        let eps = t::<T>(eps);
        let denominator = match bug {
            "eps_inside" => (under / t(c2) + eps).sqrt(),
            "eps_inside_uncorrected" => (under + eps).sqrt() / correction,
            "eps_early" => (under.sqrt() + eps) / correction,
            "eps_not_added" => (under.sqrt() / correction).max(eps),
            "correction_without_root" => under.sqrt() / t(c2) + eps,
            "no_root" => under / t(c2) + eps,
            _ => under.sqrt() / correction + eps,
        };
        let rate: T = t(-lr / c1);
        let before = p[i];
        p[i] = p[i] + rate * m[i] / denominator;
        if bug == "update_added" {
            p[i] = before - rate * m[i] / denominator;
        }
        if decay != 0.0 && decoupled && bug == "decay_late" {
            p[i] = p[i] * t(1.0 - lr * decay);
        }
    }
    s.put("exp_avg", &m);
    s.put("exp_avg_sq", &v);
    if amsgrad {
        s.put("max_exp_avg_sq", &top);
    }
}

fn sgd<T: Float>(p: &mut [T], g: &[T], s: &mut Slots<'_, T>, a: &Arguments, bug: &str) {
    let (lr, decay) = (number(a, "lr"), number(a, "weight_decay"));
    let (momentum, mut dampening) = (number(a, "momentum"), number(a, "dampening"));
    match bug {
        "dampening_ignored" => dampening = 0.0,
        "momentum_averages" => dampening = momentum,
        _ => {}
    }
    let nesterov = is(a, "nesterov");
    let is_first = !s.has("momentum_buffer");
    let mut buffer = s.get("momentum_buffer");
    let (mu, kept): (T, T) = (t(momentum), t(1.0 - dampening));
    let rate: T = t(-lr);
    for i in 0..p.len() {
        let mut g = g[i];
        if decay != 0.0 && bug == "decay_decoupled" {
            p[i] = p[i] * t(1.0 - lr * decay);
        } else if decay != 0.0 && bug != "decay_after_momentum" && bug != "decay_ignored" {
            g = g + t::<T>(decay) * p[i];
        }
        if momentum == 0.0 {
            let g = if bug == "decay_after_momentum" { g + t::<T>(decay) * p[i] } else { g };
            p[i] = p[i] + rate * g;
            continue;
        }
        let old = buffer[i];
        buffer[i] = match (is_first, bug) {
            (_, "rate_in_buffer") => {
                let g = if is_first { t::<T>(lr) * g } else { t::<T>(lr) * kept * g };
                buffer[i] * mu + g
            }
            (true, "dampened_first") => kept * g,
            (true, _) => g,
            (false, "momentum_dampened") => (buffer[i] + g * kept) * mu,
            (false, _) => buffer[i] * mu + kept * g,
        };
        let mut d = if nesterov || bug == "nesterov_always" {
            match bug {
                "nesterov_ignored" => buffer[i],
                "nesterov_of_old" => g + mu * old,
                "nesterov_other_way" => buffer[i] + mu * g,
                "nesterov_without_gradient" => mu * buffer[i],
                "nesterov_twice" => buffer[i] + mu * buffer[i],
                "nesterov_stored" => {
                    buffer[i] = g + mu * buffer[i];
                    buffer[i]
                }
                "rate_in_buffer" => t::<T>(lr) * g + mu * buffer[i],
                _ => g + mu * buffer[i],
            }
        } else {
            buffer[i]
        };
        if bug == "decay_after_momentum" && decay != 0.0 {
            d = d + t::<T>(decay) * p[i];
        }
        p[i] = match bug {
            "rate_in_buffer" => p[i] - d,
            "update_added" => p[i] - rate * d,
            _ => p[i] + rate * d,
        };
    }
    if momentum != 0.0 {
        s.put("momentum_buffer", &buffer);
    }
}

fn rmsprop<T: Float>(p: &mut [T], g: &[T], s: &mut Slots<'_, T>, a: &Arguments, bug: &str) {
    let (lr, decay) = (number(a, "lr"), number(a, "weight_decay"));
    let (alpha, momentum) = (number(a, "alpha"), number(a, "momentum"));
    let alpha = if bug == "average_other_way" { 1.0 - alpha } else { alpha };
    let centered = is(a, "centered");
    let (mut v, mut mean) = (s.get("square_avg"), s.get("grad_avg"));
    let mut buffer = s.get("momentum_buffer");
    let eps = t::<T>(number(a, "eps"));
    s.count();
    for i in 0..p.len() {
        let mut g = g[i];
        if decay != 0.0 {
            g = g + t::<T>(decay) * p[i];
        }
        v[i] = v[i] * t(alpha) + t::<T>(1.0 - alpha) * g * g;
        let mut under = v[i];
        if centered {
            mean[i] = lerp(mean[i], g, t(1.0 - alpha));
            if bug != "centered_ignored" {
                under = under - mean[i] * mean[i];
            }
        }
        let denominator =
            if bug == "eps_inside" { (under + eps).sqrt() } else { under.sqrt() + eps };
        if momentum > 0.0 {
            buffer[i] = if bug == "rate_in_buffer" {
                buffer[i] * t(momentum) + t::<T>(lr) * g / denominator
            } else {
                buffer[i] * t(momentum) + g / denominator
            };
            let rate = if bug == "rate_in_buffer" { 1.0 } else { lr };
            p[i] = p[i] + t::<T>(-rate) * buffer[i];
        } else {
            p[i] = p[i] + t::<T>(-lr) * g / denominator;
        }
    }
    s.put("square_avg", &v);
    if centered {
        s.put("grad_avg", &mean);
    }
    if momentum > 0.0 {
        s.put("momentum_buffer", &buffer);
    }
}

fn sum<T: Float>(x: impl Iterator<Item = T>) -> T {
    t(x.map(wide).sum::<f64>())
}

fn rms<T: Float>(x: &[T]) -> T {
    if let [one] = x {
        return one.abs();
    }
    sum(x.iter().map(|&x| x * x)).sqrt() / t((x.len() as f64).sqrt())
}

/// The larger one; NaN stays.
fn at_least<T: Float>(x: T, least: T) -> T {
    if x < least { least } else { x }
}

/// Matrices of the last two dimensions: their number, rows and columns.
fn matrices(shape: &[usize]) -> Option<(usize, usize, usize)> {
    let [before @ .., rows, columns] = shape else { return None };
    Some((before.iter().product(), *rows, *columns))
}

fn adafactor<T: Float>(
    p: &mut [T],
    g: &[T],
    s: &mut Slots<'_, T>,
    a: &Arguments,
    bug: &str,
    shape: &[usize],
) {
    let step = s.count();
    let size = rms(p);
    s.put("RMS", &[size]);
    let (eps1, eps2) = pair(a, "eps");
    let mut lr: T = t(number(a, "lr"));
    if is(a, "relative_step") {
        let cap = if is(a, "warmup_init") { 1e-6 * step } else { 1e-2 };
        lr = t(cap.min(1.0 / step.sqrt()));
    }
    if is(a, "scale_parameter") && bug != "unscaled" {
        lr = lr * if size > t(eps2) { size } else { t(eps2) };
    }
    let beta = 1.0 - step.powf(number(a, "decay_rate"));
    let (keep, add): (T, T) = (t(beta), t(1.0 - beta));
    let eps1 = if bug == "eps_ignored" { 0.0 } else { eps1 };
    let x: Vec<T> = g.iter().map(|&g| g * g + t(eps1)).collect();
    let mut u = g.to_vec();
    if let Some((many, rows, columns)) = matrices(shape) {
        let mut row = s.sized("exp_avg_sq_row", many * rows);
        let mut col = s.sized("exp_avg_sq_col", many * columns);
        for k in 0..many {
            let at = |i: usize, j: usize| (k * rows + i) * columns + j;
            for i in 0..rows {
                let mean = sum((0..columns).map(|j| x[at(i, j)])) / t(columns as f64);
                row[k * rows + i] = row[k * rows + i] * keep + add * mean;
            }
            for j in 0..columns {
                let mean = sum((0..rows).map(|i| x[at(i, j)])) / t(rows as f64);
                col[k * columns + j] = col[k * columns + j] * keep + add * mean;
            }
            let mean = sum((0..rows).map(|i| row[k * rows + i])) / t(rows as f64);
            for i in 0..rows {
                let r = (row[k * rows + i] / mean).sqrt().recip();
                for j in 0..columns {
                    u[at(i, j)] = r * col[k * columns + j].sqrt().recip() * u[at(i, j)];
                }
            }
        }
        s.put("exp_avg_sq_row", &row);
        s.put("exp_avg_sq_col", &col);
    } else {
        let mut v = s.get("exp_avg_sq");
        for i in 0..u.len() {
            v[i] = v[i] * keep + add * x[i];
            u[i] = v[i].sqrt().recip() * u[i];
        }
        s.put("exp_avg_sq", &v);
    }
    if bug == "clipped_late" {
        u.iter_mut().for_each(|u| *u = *u * lr);
    }
    let over = rms(&u) / t(number(a, "clip_threshold"));
    let over = if over < T::one() || bug == "unclipped" { T::one() } else { over };
    u.iter_mut().for_each(|u| *u = *u / over);
    if bug != "clipped_late" {
        u.iter_mut().for_each(|u| *u = *u * lr);
    }
    if let Some(beta1) = a.get("beta1").and_then(Value::as_f64) {
        let mut m = s.get("exp_avg");
        for i in 0..u.len() {
            m[i] = m[i] * t(beta1) + t::<T>(1.0 - beta1) * u[i];
            u[i] = m[i];
        }
        s.put("exp_avg", &m);
    }
    let decay = number(a, "weight_decay");
    for i in 0..p.len() {
        if decay != 0.0 {
            let shrink: T = if bug == "decay_without_rate" { t(decay) } else { t::<T>(decay) * lr };
            p[i] = p[i] + -shrink * p[i];
        }
        p[i] = p[i] - u[i];
    }
}

fn adafactor_torch<T: Float>(
    p: &mut [T],
    g: &[T],
    s: &mut Slots<'_, T>,
    a: &Arguments,
    bug: &str,
    shape: &[usize],
) {
    let step = s.count();
    let one_minus_beta2 = step.powf(number(a, "beta2_decay"));
    let weight: T = t(one_minus_beta2);
    let rho = number(a, "lr").min(1.0 / step.sqrt());
    let rho = if bug == "absolute_rate" { number(a, "lr") } else { rho };
    let eps1 = a["eps"][0].as_f64().unwrap_or_else(|| wide(T::epsilon()));
    let eps2 = a["eps"][1].as_f64().unwrap();
    let size = wide(rms(p));
    let alpha = eps2.max(size) * rho;
    let decay = number(a, "weight_decay");
    if decay != 0.0 {
        p.iter_mut().for_each(|p| *p = *p * t(1.0 - number(a, "lr") * decay));
    }
    let mut u = g.to_vec();
    if let Some((many, rows, columns)) = matrices(shape) {
        let mut row = s.sized("row_var", many * rows);
        let mut col = s.sized("col_var", many * columns);
        for k in 0..many {
            let at = |i: usize, j: usize| (k * rows + i) * columns + j;
            let square = |x: T| x * x;
            for i in 0..rows {
                let norm = sum((0..columns).map(|j| square(g[at(i, j)]))).sqrt();
                let mean = square(norm) / t(columns as f64);
                row[k * rows + i] = lerp(row[k * rows + i], mean, weight);
            }
            for j in 0..columns {
                let norm = sum((0..rows).map(|i| square(g[at(i, j)]))).sqrt();
                let mean = square(norm) / t(rows as f64);
                col[k * columns + j] = lerp(col[k * columns + j], mean, weight);
            }
            let mean = sum((0..rows).map(|i| row[k * rows + i])) / t(rows as f64);
            for i in 0..rows {
                for j in 0..columns {
                    let v = row[k * rows + i] * col[k * columns + j] / at_least(mean, t(eps1));
                    u[at(i, j)] = at_least(v, t(eps1 * eps1)).sqrt().recip() * u[at(i, j)];
                }
            }
        }
        s.put("row_var", &row);
        s.put("col_var", &col);
    } else {
        let mut v = s.get("variance");
        for i in 0..u.len() {
            v[i] = lerp(v[i], g[i] * g[i], weight);
            u[i] = at_least(v[i], t(eps1 * eps1)).sqrt().recip() * u[i];
        }
        s.put("variance", &v);
    }
    let d = number(a, "d");
    let over = match bug {
        "unclipped" => 1.0,
        "clipped_late" => (alpha * wide(rms(&u)) / d).max(1.0),
        _ => (wide(rms(&u)) / d).max(1.0),
    };
    let rate: T = t(-alpha / over);
    for i in 0..p.len() {
        p[i] = p[i] + rate * u[i];
    }
}
