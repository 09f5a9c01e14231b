//! The properties of every rule, with lists of exceptions.

use bitstep::float::Dtype;
use bitstep::hyper::{Args, names};
use bitstep::optimizer::{Buffer, Param, ParamStorage};

use crate::bits::{buffer, eq_ignoring_zero_sign, numbers};
use crate::input::encode;
use crate::run::{Run, Trial};

/// Panics if it does not hold for a trial; returns at once where it does not apply.
pub type Property = fn(&Trial);

/// Every property, by name.
pub const PROPERTIES: &[(&str, Property)] = &[
    ("never_panics", never_panics),
    ("deterministic", deterministic),
    ("restorable", restorable),
    ("splittable", splittable),
    ("error_leaves_everything_untouched", error_leaves_everything_untouched),
    ("odd_symmetry", odd_symmetry),
    ("linear", linear),
    ("gradient_scale_invariant", gradient_scale_invariant),
    ("second_moments_nonnegative", second_moments_nonnegative),
    ("y_between_x_and_z", y_between_x_and_z),
];

/// Any input can be stepped, evaluated and turned back to training.
///
/// # Panics
/// If the core panics, or refuses a valid step.
pub fn never_panics(trial: &Trial) {
    let mut run = Run::whole(trial);
    // A schedule-free rule without momentum has no evaluation value.
    if run.optimizer.eval(&mut [run.value.data_mut()]).is_ok() {
        run.optimizer.train(&mut [run.value.data_mut()]).expect("the way back");
    }
}

/// Equal inputs give equal bits.
///
/// # Panics
/// If it does not.
pub fn deterministic(trial: &Trial) {
    assert_eq!(Run::whole(trial).bits(), Run::whole(trial).bits());
}

/// An optimizer restored from saved state continues with the bits of the original.
///
/// # Panics
/// If it does not.
pub fn restorable(trial: &Trial) {
    let middle = trial.steps() / 2;
    let mut first = Run::new(trial);
    first.steps(trial, 0..middle);
    let mut second = Run::new(trial);
    second.value = first.value.clone();
    let (from, to) = (&first.optimizer, &mut second.optimizer);
    to.groups_mut()[0].steps = from.groups()[0].steps;
    to.groups_mut()[0].scalars = from.groups()[0].scalars;
    let (from, to) = (&from.params()[0], &mut to.params_mut()[0]);
    (to.steps, to.scalars, to.is_initialized) = (from.steps, from.scalars, from.is_initialized);
    for (to, from) in to.slots.iter_mut().zip(&from.slots) {
        match (to, from) {
            (Buffer::Encoded(to), Buffer::Encoded(from)) => {
                for part in from.parts("slot") {
                    to.set_part("slot", &part).expect("a part of the same storage");
                }
            }
            (to, from) => to.clone_from(from),
        }
    }
    if let (Some(to), Some(from)) = (&mut to.correction, &from.correction) {
        to.set_bytes(&from.bytes()).expect("as many bytes");
    }
    second.steps(trial, middle..trial.steps());
    assert_eq!(second.bits(), Run::whole(trial).bits());
}

/// A multiple of every storage's block.
const BLOCKS: usize = 12_800;

/// Splitting a tensor changes no bits, for elementwise rules. State that is stored in blocks is split between
/// blocks.
///
/// # Panics
/// If it does.
pub fn splittable(trial: &Trial) {
    if !trial.spec.rule.info().is_elementwise {
        return;
    }
    let whole = Run::whole(trial).bits();
    for len in [1, 259, BLOCKS] {
        let mut parts = Run::new(trial);
        for t in 0..trial.steps() {
            parts.step_in_parts(trial, t, len).expect("a step that is taken");
        }
        assert_eq!(parts.bits(), whole, "tasks of {len}");
    }
    parts_are_parameters(trial);
}

/// Parts of a tensor that are parameters of their own have the bits of the whole.
fn parts_are_parameters(trial: &Trial) {
    let mut whole = trial.clone();
    // bitsandbytes has another formula for small tensors; the part must use that of the whole.
    let takes = names(whole.spec.rule.hyper_params()).contains(&"min_8bit_size");
    if takes && let Ok(spec) = whole.spec.with_args(&Args::new().with("min_8bit_size", 0i64)) {
        whole.spec = spec;
        whole.spec.storage.min_len = 0;
    }
    // The rounding bits of a part would depend on its offset in the whole.
    let noisy = matches!(
        whole.spec.storage.param,
        ParamStorage::Stochastic(_) | ParamStorage::StochasticBf16(_)
    );
    let by_size = whole.spec.storage.min_len > 0 || whole.spec.storage.len_multiple > 1;
    // Parts as parameters have norms of their own.
    if noisy || by_size || whole.spec.rule.grad_norm_divisor(&whole.extra()).is_some() {
        return;
    }
    let n = whole.init.len();
    let joined = bits_of(&whole);
    let plain = whole.spec.storage.slot_formats.iter().all(Option::is_none);
    for cut in if plain { [1, 259] } else { [BLOCKS, 2 * BLOCKS] } {
        let cut = cut.min(n);
        let part = |range: std::ops::Range<usize>| {
            let mut part = whole.clone();
            if range.len() < n {
                part.shape = vec![range.len()]; // a scalar has no parts
            }
            part.init = whole.init[range.clone()].to_vec();
            let grads = whole.grads.iter();
            part.grads = grads.map(|g| g.as_ref().map(|g| g[range.clone()].to_vec())).collect();
            bits_of(&part)
        };
        let parts: Vec<u64> = part(0..cut).into_iter().chain(part(cut..n)).collect();
        assert_eq!(parts, joined, "cut at {cut}");
    }
}

fn bits_of(trial: &Trial) -> Vec<u64> {
    crate::bits(&Run::whole(trial).value)
}

/// A refused step leaves parameter and state exactly as they were, whatever the reason.
///
/// # Panics
/// If something was written, or the step was not refused.
pub fn error_leaves_everything_untouched(trial: &Trial) {
    let mut run = Run::whole(trial);
    let n = trial.init.len();
    let ones = |n: usize| buffer(trial.dtype, &vec![encode(1.0, trial.dtype); n]);
    let refused = |run: &mut Run, value: Option<&mut Buffer>, grad: &Buffer, times: usize| {
        let before = run.bits();
        let value = value.unwrap_or(&mut run.value);
        let mut params: Vec<Param<'_>> = Vec::new();
        let mut copy = value.clone();
        if times > 1 {
            params.push(Param { value: copy.data_mut(), grad: grad.data() });
        }
        if times > 0 {
            params.push(Param { value: value.data_mut(), grad: grad.data() });
        }
        assert!(run.optimizer.step_all(&mut params, &[]).is_err(), "a step that does not fit");
        drop(params);
        assert_eq!(run.bits(), before, "written by a refused step");
    };
    refused(&mut run, None, &ones(n + 1), 1);
    if n > 0 {
        refused(&mut run, None, &ones(n - 1), 1);
    }
    let mut long = ones(n + 1);
    let untouched = long.clone();
    refused(&mut run, Some(&mut long), &ones(n), 1);
    assert_eq!(long, untouched);
    refused(&mut run, None, &ones(n), 0);
    refused(&mut run, None, &ones(n), 2);
    let slots = run.optimizer.params()[0].slots.clone();
    for (k, slot) in slots.into_iter().enumerate() {
        let longer = Buffer::zeros(Dtype::F32, slot.len() + 1).expect("memory");
        run.optimizer.params_mut()[0].slots[k] = longer;
        refused(&mut run, None, &ones(n), 1);
        run.optimizer.params_mut()[0].slots[k] = slot;
    }
    // An invalid learning rate, for all rules that check its range.
    let mut rule = run.optimizer.groups()[0].spec.rule.clone();
    if Args::new().with("lr", -1.0).apply("", rule.hyper_params()).is_ok() && rule.check().is_err()
    {
        let valid = std::mem::replace(&mut run.optimizer.groups_mut()[0].spec.rule, rule);
        refused(&mut run, None, &ones(n), 1);
        run.optimizer.groups_mut()[0].spec.rule = valid;
    }
    if run.optimizer.eval(&mut [run.value.data_mut()]).is_ok() {
        refused(&mut run, None, &ones(n), 1);
    }
}

/// Rules that are not odd functions, with the reason.
pub const NOT_ODD: &[(&str, &str)] = &[];

/// Negating parameter and gradients negates the result, bit by bit except for the sign of zeros.
///
/// Does not apply to codes: a map has no −1, and ties go up.
///
/// # Panics
/// If it does not.
pub fn odd_symmetry(trial: &Trial) {
    if NOT_ODD.iter().any(|(name, _)| *name == trial.name) || !trial.is_plain() {
        return;
    }
    let minus = |bits: &[u64]| {
        let sign = encode(-0.0, trial.dtype);
        bits.iter().map(|b| b ^ sign).collect::<Vec<_>>()
    };
    let mut mirrored = trial.clone();
    mirrored.init = minus(&trial.init);
    mirrored.grads = trial.grads.iter().map(|g| g.as_deref().map(minus)).collect();
    let (mut here, mut there) = (Run::new(trial), Run::new(&mirrored));
    for t in 0..trial.steps() {
        here.steps(trial, t..t + 1);
        there.steps(&mirrored, t..t + 1);
        for (i, (a, b)) in here.numbers().into_iter().zip(there.numbers()).enumerate() {
            assert!(eq_ignoring_zero_sign(a, -b), "step {t}, element {i}: {a:e}, mirrored {b:e}");
        }
    }
}

/// The trial with magnitudes from 2⁻² to 4, and the mantissas unchanged.
fn clamp_magnitudes(trial: &Trial) -> Trial {
    let moderate = |bits: &Vec<u64>| -> Vec<u64> {
        let all = numbers(&buffer(trial.dtype, bits));
        let all = all.into_iter().map(|x| {
            let (sign, fraction) = (x.to_bits() & 1 << 63, x.to_bits() & ((1 << 52) - 1));
            let exponent = 1021 + (x.to_bits() >> 52 & 3);
            let x = f64::from_bits(sign | exponent << 52 | fraction);
            encode(if x.is_finite() { x } else { 1.0 }, trial.dtype)
        });
        all.collect()
    };
    let mut clamped = trial.clone();
    clamped.init = moderate(&trial.init);
    clamped.grads = trial.grads.iter().map(|g| g.as_ref().map(moderate)).collect();
    for lr in &mut clamped.lrs {
        *lr = if (1e-3..=1.0).contains(lr) { *lr } else { 0.125 };
    }
    clamped.before = 0;
    clamped
}

/// The trial with parameter and gradients multiplied by powers of 2.
fn scaled(trial: &Trial, parameter: i32, gradient: i32) -> Trial {
    let by = |bits: &Vec<u64>, k: i32| -> Vec<u64> {
        let all = numbers(&buffer(trial.dtype, bits)).into_iter();
        all.map(|x| encode(x * 2f64.powi(k), trial.dtype)).collect()
    };
    let mut scaled = trial.clone();
    scaled.init = by(&trial.init, parameter);
    scaled.grads = trial.grads.iter().map(|g| g.as_ref().map(|g| by(g, gradient))).collect();
    scaled
}

/// Rules that are linear in parameter and gradient.
const LINEAR: &[&str] =
    &["asgd", "bnb_sgd_32bit", "flash_sgd", "optimi_sgd", "schedule_free_sgd", "sgd"];

/// Whether a scale symmetry applies: plain storage, default arguments, and a type whose exponent is wide
/// enough that nothing underflows (`f16` has 5 bits).
fn can_be_scaled(trial: &Trial) -> bool {
    !trial.tuned && trial.is_plain() && trial.dtype != Dtype::F16
}

/// Scaling parameter and gradients by a power of two scales the result by it, bit by bit.
///
/// # Panics
/// If they do not.
pub fn linear(trial: &Trial) {
    if !LINEAR.contains(&trial.name) || !can_be_scaled(trial) {
        return;
    }
    let trial = clamp_magnitudes(trial);
    let here = Run::whole(&trial).numbers();
    for k in [-9, 7] {
        let there = Run::whole(&scaled(&trial, k, k)).numbers();
        let there: Vec<f64> = there.into_iter().map(|x| x * 2f64.powi(-k)).collect();
        assert_eq!(here, there, "times 2^{k}");
    }
}

/// Rules that do not depend on the gradient's scale, with the arguments that must be 0 for that.
const SCALE_FREE: &[(&str, &[&str])] = &[
    ("adagrad", &["eps"]),
    ("adam", &["eps"]),
    ("adamax", &["eps"]),
    ("adamw_torch", &["eps"]),
    ("adamw_torch_fused", &["eps"]),
    ("lion_32bit", &[]),
    ("nadam", &["eps"]),
    ("optimi_lion", &[]),
    ("rmsprop", &["eps"]),
    ("rprop", &[]),
];

/// Scaling the gradients by a power of two changes no bit of the parameter.
///
/// # Panics
/// If they do not.
pub fn gradient_scale_invariant(trial: &Trial) {
    let Some((_, zeros)) = SCALE_FREE.iter().find(|(name, _)| *name == trial.name) else { return };
    if !can_be_scaled(trial) {
        return;
    }
    let mut trial = clamp_magnitudes(trial);
    let zeros: Args = zeros.iter().map(|&name| (name, 0.0.into())).collect();
    trial.spec = trial.spec.with_args(&zeros).expect("0 is in range");
    let here = Run::whole(&trial).numbers();
    for k in [-9, 7] {
        assert_eq!(here, Run::whole(&scaled(&trial, 0, k)).numbers(), "times 2^{k}");
    }
}

/// Slots that hold averages, sums or maxima of squares or magnitudes.
const SQUARES: &[&str] = &[
    "acc_delta",
    "col_var",
    "exp_avg_sq",
    "exp_avg_sq_col",
    "exp_avg_sq_row",
    "exp_inf",
    "max_exp_avg_sq",
    "row_var",
    "square_avg",
    "sum",
    "v",
    "variance",
    "vhat",
];

/// Those of [`SQUARES`] that never decrease.
const GROWING: &[&str] = &["max_exp_avg_sq", "sum", "vhat"];

/// Second moments are never negative, and those that only grow never decrease, except to NaN. With default
/// hyper-parameters, as some references accept a β outside of [0, 1].
///
/// # Panics
/// If they do not.
pub fn second_moments_nonnegative(trial: &Trial) {
    let plain =
        |slot: usize| trial.spec.storage.slot_formats.get(slot).copied().flatten().is_none();
    if trial.tuned {
        return;
    }
    let mut run = Run::new(trial);
    let slots = |run: &Run| {
        let slots =
            run.slots().enumerate().filter(|(k, (name, _))| SQUARES.contains(name) && plain(*k));
        slots.map(|(_, slot)| slot).collect::<Vec<_>>()
    };
    let mut before = slots(&run);
    for t in 0..trial.steps() {
        run.steps(trial, t..t + 1);
        let after = slots(&run);
        for ((name, after), (_, before)) in after.iter().zip(&before) {
            for (i, (&a, &b)) in after.iter().zip(before).enumerate() {
                assert!(a >= 0.0 || a.is_nan(), "step {t}: {name}[{i}] is {a:e}");
                let grows = !GROWING.contains(name) || a >= b || a.is_nan() || b.is_nan();
                assert!(grows, "step {t}: {name}[{i}] fell from {b:e} to {a:e}");
            }
        }
        before = after;
    }
}

/// The training parameter y of a schedule-free rule is between its average x and its base iterate z:
/// y = (1 − β) z + β x.
///
/// # Panics
/// If it does not.
pub fn y_between_x_and_z(trial: &Trial) {
    if !trial.name.starts_with("schedule_free") || trial.tuned || !trial.is_plain() {
        return;
    }
    let trial = clamp_magnitudes(trial);
    let mut run = Run::whole(&trial);
    let y = run.numbers();
    let Some((_, z)) = run.slots().find(|(name, _)| *name == "z") else { unreachable!() };
    run.optimizer.eval(&mut [run.value.data_mut()]).expect("a momentum above 0");
    // Some units in the last place for the rounding of the conversion.
    let eps = match trial.dtype {
        Dtype::F64 => 2f64.powi(-50),
        Dtype::F32 => 2f64.powi(-21),
        Dtype::Bf16 | Dtype::F16 => 2f64.powi(-5),
    };
    let started = trial.grads.iter().any(Option::is_some);
    for (i, ((x, y), z)) in run.numbers().into_iter().zip(y).zip(z).enumerate() {
        let slack = eps * (x.abs() + z.abs());
        let inside = x.min(z) - slack <= y && y <= x.max(z) + slack;
        assert!(inside || !started, "element {i}: y = {y:e}, x = {x:e}, z = {z:e}");
    }
}
