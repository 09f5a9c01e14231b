//! Properties of a rule of one's own, for a test of its crate.

use std::any::Any;

use bitstep::float::{Dtype, StoredFloat};
use bitstep::hyper::{Args, Value, names};
use bitstep::optimizer::{Buffer, Optimizer, OptimizerSpec, Param};
use bitstep::rule::{ComputePolicy, DynRule, Rule};
use fastrand::Rng;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::values::{Before, Pattern, numbers};
use crate::judge::derived;
use crate::tensor;

/// Fuzzes a rule with its default arguments, and with others that its `check` accepts: see [`RuleFuzz`].
///
/// ```
/// use bitstep::optim::AdamW; // or a rule of your own
/// bitstep_conformance::fuzz_rule::<AdamW>();
/// ```
///
/// # Panics
/// If a property does not hold; the message has the smallest run at which it does not.
pub fn fuzz_rule<R: Rule + Default>() {
    RuleFuzz::new(R::default()).run();
}

/// A symmetry that a rule may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symmetry {
    /// Negated parameter and gradients give the negated result, bit by bit but for the sign of zeros.
    Odd,
    /// Parameter and gradients times a power of two give the result times it, as with SGD.
    Linear,
    /// Gradients times a power of two change no bit of the parameter, as with Lion.
    GradientScaleFree,
}

/// Checks that a rule
///
/// * does not panic on any input;
/// * gives equal bits for equal input;
/// * gives the bits of the whole tensor if it is split, where it is elementwise;
/// * goes on with the same bits after its state was saved and loaded;
/// * leaves everything untouched by a step that is refused;
/// * is in `f32` as near to itself in `f64` as the error analysis of its own arithmetic says;
/// * has the symmetries that it is said to have.
#[derive(Clone, Debug)]
pub struct RuleFuzz<R> {
    rule: R,
    cases: u32,
    seed: u64,
    symmetries: Vec<Symmetry>,
}

/// A run of one parameter.
#[derive(Clone, Debug)]
struct Trial {
    dtype: tensor::Dtype,
    len: usize,
    steps: usize,
    init: Pattern,
    grad: Pattern,
    rate: f64,
    /// Which argument, and which value of [`VALUES`].
    changes: Vec<(usize, usize)>,
    numbers: u64,
}

/// Values of arguments, where the rule accepts them.
const VALUES: &[f64] =
    &[0.0, 0.5, 0.9, 0.99, 0.1, 0.01, 1e-3, 1e-8, 1.0, 2.0, 10.0, 1e-30, f64::INFINITY];

fn trials() -> impl Strategy<Value = Trial> {
    use tensor::Dtype as D;
    let dtype = prop::sample::select(&[D::F32, D::F64, D::Bf16, D::F16][..]);
    let len = prop_oneof![4 => 0usize..=5, 1 => prop::sample::select(&[33usize, 270, 1031][..])];
    let init = prop_oneof![4 => Just(Pattern::Ordinary), 1 => prop::sample::select(Pattern::ALL)];
    let rate = prop::sample::select(&[0.01, 0.0, 0.5, 1.0, 1e-8, 1e10][..]);
    let changes = prop::collection::vec((0usize..64, 0..VALUES.len()), 0..3);
    (dtype, len, 1usize..=4, init, prop::sample::select(Pattern::ALL), rate, changes, any::<u64>())
        .prop_map(|(dtype, len, steps, init, grad, rate, changes, numbers)| Trial {
            dtype,
            len,
            steps,
            init,
            grad,
            rate,
            changes,
            numbers,
        })
}

/// An optimizer with one parameter, and the gradients of its run.
struct Started {
    optimizer: Optimizer,
    value: Buffer,
    grads: Vec<Buffer>,
}

fn core_dtype(dtype: tensor::Dtype) -> Dtype {
    match dtype {
        tensor::Dtype::F64 => Dtype::F64,
        tensor::Dtype::Bf16 => Dtype::Bf16,
        tensor::Dtype::F16 => Dtype::F16,
        _ => Dtype::F32,
    }
}

fn buffer(dtype: Dtype, x: &[f64]) -> Buffer {
    fn all<T: StoredFloat>(x: &[f64]) -> Vec<T> {
        x.iter().map(|&x| T::from_f64(x)).collect()
    }
    match dtype {
        Dtype::F64 => Buffer::F64(all(x)),
        Dtype::F32 => Buffer::F32(all(x)),
        Dtype::Bf16 => Buffer::Bf16(all(x)),
        Dtype::F16 => Buffer::F16(all(x)),
    }
}

/// The numbers of a plain buffer.
fn shown(x: &Buffer) -> Vec<f64> {
    match x {
        Buffer::F64(x) => x.clone(),
        Buffer::F32(x) => x.iter().map(|&x| x.into()).collect(),
        Buffer::Bf16(x) => x.iter().map(|&x| x.into()).collect(),
        Buffer::F16(x) => x.iter().map(|&x| x.into()).collect(),
        Buffer::Encoded(_) => Vec::new(),
    }
}

/// Bits that are equal for all NaNs.
fn bits(x: &Buffer) -> Vec<u64> {
    shown(x).into_iter().map(|x| if x.is_nan() { u64::MAX } else { x.to_bits() }).collect()
}

impl Started {
    fn step(&mut self, t: usize) {
        let Started { optimizer, value, grads } = self;
        let grad = grads[t].data();
        let params = &mut [Param { value: value.data_mut(), grad }];
        optimizer.step_all(params, &[]).expect("a step that fits");
    }

    fn run(&mut self, steps: std::ops::Range<usize>) -> Vec<Vec<u64>> {
        steps.for_each(|t| self.step(t));
        self.bits()
    }

    /// Everything that a step may write.
    fn bits(&self) -> Vec<Vec<u64>> {
        let (group, param) = (&self.optimizer.groups()[0], &self.optimizer.params()[0]);
        let number = |x: &f64| if x.is_nan() { u64::MAX } else { x.to_bits() };
        let scalars = group.scalars.iter().chain(&param.scalars).map(number).collect();
        let mut all = vec![bits(&self.value), vec![group.steps, param.steps], scalars];
        all.extend(param.slots.iter().map(bits));
        all
    }
}

impl<R: Rule> RuleFuzz<R> {
    /// For a rule with these arguments.
    #[must_use]
    pub fn new(rule: R) -> Self {
        RuleFuzz { rule, cases: 256, seed: 1, symmetries: Vec::new() }
    }

    /// How many runs are drawn; 256 by default.
    #[must_use]
    pub fn cases(mut self, cases: u32) -> Self {
        self.cases = cases;
        self
    }

    /// The seed of the runs; 1 by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Declares a symmetry.
    #[must_use]
    pub fn symmetry(mut self, symmetry: Symmetry) -> Self {
        self.symmetries.push(symmetry);
        self
    }

    /// Checks every property on every run.
    ///
    /// # Panics
    /// If one does not hold; the message has the smallest run at which it does not.
    pub fn run(&self) {
        let config = Config { cases: self.cases, failure_persistence: None, ..Config::default() };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let result = runner.run(&trials(), |trial| {
            self.check(&trial);
            Ok(())
        });
        if let Err(e) = result {
            panic!("{}: {e}", R::ID);
        }
    }

    fn start(&self, trial: &Trial) -> Started {
        let policy = ComputePolicy::Fused;
        let mut spec = OptimizerSpec::new(self.rule, policy);
        let known = names(spec.rule.hyper_params());
        for &(which, value) in trial.changes.iter().filter(|_| !known.is_empty()) {
            let name = known[which % known.len()];
            let args = Args::new().with(name, Value::Float(VALUES[value]));
            if let Ok(changed) = spec.with_args(&args)
                && changed.rule.check().is_ok()
            {
                spec = changed;
            }
        }
        let dtype = core_dtype(trial.dtype);
        let mut optimizer = Optimizer::empty();
        let group = optimizer.add_group(spec).expect("arguments that are in range");
        optimizer.add_param_to(group, &[trial.len], dtype).expect("a vector");
        optimizer.groups_mut()[0].lr = trial.rate;
        let mut rng = Rng::with_seed(trial.numbers);
        let mut draw = |pattern, t, last: &[f64], param: &[f64]| {
            let before = Before { t, last, param, decay: 0.01 };
            numbers(pattern, trial.dtype, trial.len, &mut rng, &before)
        };
        let init = draw(trial.init, 0, &[], &[]);
        let mut grads: Vec<Vec<f64>> = Vec::new();
        for t in 0..trial.steps {
            let last = grads.last().cloned().unwrap_or_default();
            grads.push(draw(trial.grad, t, &last, &init));
        }
        let grads = grads.iter().map(|g| buffer(dtype, g)).collect();
        Started { optimizer, value: buffer(dtype, &init), grads }
    }

    fn check(&self, trial: &Trial) {
        let all = 0..trial.steps;
        let whole = self.start(trial).run(all.clone());
        assert_eq!(self.start(trial).run(all.clone()), whole, "equal input, other bits");
        self.split(trial, &whole);
        self.saved(trial, &whole);
        self.refused(trial);
        if trial.dtype == tensor::Dtype::F32 {
            self.precise(trial);
        }
        for symmetry in &self.symmetries {
            self.symmetric(trial, *symmetry);
        }
    }

    fn split(&self, trial: &Trial, whole: &[Vec<u64>]) {
        let mut started = self.start(trial);
        if !started.optimizer.groups()[0].spec.rule.info().is_elementwise {
            return;
        }
        for t in 0..trial.steps {
            let Started { optimizer, value, grads } = &mut started;
            let params = &mut [Param { value: value.data_mut(), grad: grads[t].data() }];
            for task in optimizer.tasks(params, &[]).expect("a step that fits") {
                let parts = task.split(1).into_iter().rev();
                parts.for_each(|part| part.run().expect("a part of a step that fits"));
            }
        }
        assert_eq!(started.bits(), whole, "a split tensor has other bits than the whole");
    }

    fn saved(&self, trial: &Trial, whole: &[Vec<u64>]) {
        let middle = trial.steps / 2;
        let mut first = self.start(trial);
        first.run(0..middle);
        let bytes = first.optimizer.save().expect("state can be saved");
        let mut second = self.start(trial);
        second.optimizer.load(&bytes).expect("state of the same optimizer");
        second.optimizer.groups_mut()[0].lr = trial.rate;
        second.value = first.value.clone();
        let rest = second.run(middle..trial.steps);
        assert_eq!(rest, whole, "after save and load the run goes on with other bits");
    }

    fn refused(&self, trial: &Trial) {
        let mut started = self.start(trial);
        started.run(0..trial.steps);
        let before = started.bits();
        let longer = buffer(core_dtype(trial.dtype), &vec![1.0; trial.len + 1]);
        let value = started.value.data_mut();
        let params = &mut [Param { value, grad: longer.data() }];
        assert!(started.optimizer.step_all(params, &[]).is_err(), "a gradient that is too long");
        assert_eq!(started.bits(), before, "a step that was refused has written");
    }

    /// The rule in `f32` against itself in `f64`, one step at a time.
    fn precise(&self, trial: &Trial) {
        let mut started = self.start(trial);
        let rule = started.optimizer.groups()[0].spec.rule.clone();
        let any: &dyn Any = &*rule as &dyn DynRule;
        let Some(own) = any.downcast_ref::<R>() else { return };
        for t in 0..trial.steps {
            let both = derived::of_rule(own, &started.optimizer, &started.value, &started.grads[t]);
            let [single, double] = both.expect("a step that fits");
            started.step(t);
            let slots = &started.optimizer.params()[0].slots;
            let stored = std::iter::once(&started.value).chain(slots);
            for (k, ((single, double), stored)) in
                single.iter().zip(&double).zip(stored).enumerate()
            {
                let stored = shown(stored);
                for (i, (&(x, tolerance), &(y, rest))) in single.iter().zip(double).enumerate() {
                    let Some(&z) = stored.get(i) else { continue };
                    let same = z == x || (z.is_nan() && x.is_nan());
                    assert!(
                        same,
                        "step {t}, buffer {k}, element {i}: {z:e}, in bounded arithmetic {x:e}"
                    );
                    let bound = tolerance / 2.0 + rest;
                    let known = x.is_finite() && y.is_finite() && bound.is_finite();
                    let within = !known || (x - y).abs() <= bound;
                    assert!(
                        within,
                        "step {t}, buffer {k}, element {i}: {x:e} in f32, {y:e} in f64, bound {bound:e}"
                    );
                }
            }
        }
    }

    fn symmetric(&self, trial: &Trial, symmetry: Symmetry) {
        // Scaled numbers must not leave the range of the type.
        let scales = symmetry != Symmetry::Odd;
        let trial = &Trial {
            init: if scales { Pattern::Ordinary } else { trial.init },
            grad: if scales { Pattern::Ordinary } else { trial.grad },
            dtype: if scales { tensor::Dtype::F64 } else { trial.dtype },
            changes: if scales { Vec::new() } else { trial.changes.clone() },
            rate: if scales { 0.125 } else { trial.rate },
            ..trial.clone()
        };
        let (of_value, of_grad, of_result) = match symmetry {
            Symmetry::Odd => (-1.0, -1.0, -1.0),
            Symmetry::Linear => (8.0, 8.0, 8.0),
            Symmetry::GradientScaleFree => (1.0, 8.0, 1.0),
        };
        let times = |x: &Buffer, by: f64| {
            let all: Vec<f64> = shown(x).into_iter().map(|x| x * by).collect();
            buffer(core_dtype(trial.dtype), &all)
        };
        let mut here = self.start(trial);
        let mut there = self.start(trial);
        there.value = times(&there.value, of_value);
        there.grads = there.grads.iter().map(|g| times(g, of_grad)).collect();
        here.run(0..trial.steps);
        there.run(0..trial.steps);
        for (i, (x, y)) in shown(&here.value).into_iter().zip(shown(&there.value)).enumerate() {
            let same = x * of_result == y || (x.is_nan() && y.is_nan());
            assert!(same, "not {symmetry:?}: element {i} is {x:e}, then {y:e}");
        }
    }
}
