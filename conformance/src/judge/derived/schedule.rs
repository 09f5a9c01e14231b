//! Schedules in bounded arithmetic: how far apart two correct rates may be.
//!
//! The rates of Python and of TensorFlow are `f64` and `f32`, each operation rounded once; powers, cosines and logarithms
//! are the platform's, within 1 ULP. What a schedule computes from its own rate before carries the errors on.

use std::any::Any;

use bitstep::float::ComputeFloat;
use bitstep::schedule::keras::{
    AnyDecay, CosineDecay, CosineDecayRestarts, Decay, ExponentialDecay, InverseTimeDecay,
    PiecewiseConstantDecay, PolynomialDecay,
};
use bitstep::schedule::{
    AdafactorScheduleState, AnySchedule, Constant, ConstantWithWarmup, Cosine,
    CosineWarmupWithMinLr, CosineWithMinLr, CosineWithRestarts, CreateOptimizerSchedule,
    InverseSqrt, Linear, Polynomial, Schedule, ScheduleFloat, Scheduler, SchedulerKind,
    TorchChained, TorchConstant, TorchCosineAnnealing, TorchCosineAnnealingWarmRestarts,
    TorchCyclic, TorchExponential, TorchLinear, TorchMultiStep, TorchOneCycle, TorchPolynomial,
    TorchSequential, TorchStep, WarmUp, WarmupStableDecay,
};

use super::choice;
use super::follow::Answer;
use super::number::{Bounded, Source, added, half_ulp, on_grid};
use crate::backend::ScheduleSpec;
use crate::backend::core_schedule;

type Rate = Bounded<f64>;

/// The result of a function of the platform's, which is within 1 ULP; `ends` are the exact function's at the ends of
/// the arguments' bounds.
fn function<T: ComputeFloat>(value: T, ends: &[f64], is_exact: bool) -> Bounded<T> {
    let x = value.to_f64();
    let inherited = ends.iter().map(|end| (end - x).abs());
    let inherited =
        inherited.fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
    let rounding = added(Source::Function, 2.0 * half_ulp(T::DTYPE, x));
    let error = if is_exact && inherited == 0.0 { 0.0 } else { inherited + rounding };
    Bounded { value, error: if x.is_nan() { 0.0 } else { error } }
}

impl<T: ComputeFloat + ScheduleFloat> Bounded<T> {
    /// The two ends of the bound.
    fn ends(self) -> [f64; 2] {
        [self.value.to_f64() - self.error, self.value.to_f64() + self.error]
    }

    /// A whole number near the value: either of two where the bound leaves that open.
    fn whole(self, value: T, function: fn(f64) -> f64) -> Self {
        let (x, width) = (self.value.to_f64(), 2.0 * self.error);
        let [low, high] = [x - width, x + width].map(function);
        let other = if value.to_f64() == low { high } else { low };
        let natural = choice::answer(true, || low != high);
        Bounded::exact(if natural { value } else { <T as ScheduleFloat>::of(other) })
    }
}

impl<T: ComputeFloat + ScheduleFloat> ScheduleFloat for Bounded<T> {
    type Single = Bounded<f32>;
    const ZERO: Self = <Self as ComputeFloat>::ZERO;
    const ONE: Self = <Self as ComputeFloat>::ONE;
    fn of(x: f64) -> Self {
        Bounded::exact(<T as ScheduleFloat>::of(x))
    }
    fn count(n: u64) -> Self {
        Bounded::exact(<T as ScheduleFloat>::count(n))
    }
    fn from_single(x: Bounded<f32>) -> Self {
        Bounded { value: <T as ScheduleFloat>::of(x.value.into()), error: x.error }
    }
    fn single(self) -> Self {
        let (value, x) = (self.value.single(), self.value.to_f64());
        let error =
            if self.error > 0.0 { on_grid(value.to_f64() as f32, x, self.error) } else { 0.0 };
        Bounded { value, error }
    }
    fn pow(self, y: Self) -> Self {
        let value = self.value.pow(y.value);
        let base = |x: f64| if self.value.to_f64() >= 0.0 { x.max(0.0) } else { x };
        let ends = self.ends().map(|x| y.ends().map(|y| ScheduleFloat::pow(base(x), y)));
        let bounded = self.error + y.error > 0.0;
        let ends = if bounded { ends.concat() } else { Vec::new() };
        let trivial = |x: f64| x == 0.0 || x == 1.0;
        function(value, &ends, trivial(y.value.to_f64()) || trivial(self.value.to_f64()))
    }
    fn log(self) -> Self {
        let ends = self.ends().map(ScheduleFloat::log);
        let ends = if self.error > 0.0 { &ends[..] } else { &[] };
        function(ScheduleFloat::log(self.value), ends, self.value.to_f64() == 1.0)
    }
    fn cos(self) -> Self {
        let (value, x) = (ScheduleFloat::cos(self.value), self.value.to_f64());
        // |cos'| = |sin|, whose own slope is at most 1.
        let width = self.error * (x.sin().abs() + self.error).min(1.0);
        function(value, &[value.to_f64() + width], x == 0.0)
    }
    fn sqrt(self) -> Self {
        ComputeFloat::sqrt(self)
    }
    fn floor(self) -> Self {
        self.whole(ScheduleFloat::floor(self.value), f64::floor)
    }
    fn ceil(self) -> Self {
        self.whole(ScheduleFloat::ceil(self.value), f64::ceil)
    }
    fn trunc(self) -> Self {
        self.whole(ScheduleFloat::trunc(self.value), f64::trunc)
    }
}

fn schedule_as<S: Schedule<Rate> + 'static>(any: &dyn Any) -> Option<&dyn Schedule<Rate>> {
    any.downcast_ref::<S>().map(|schedule| schedule as &dyn Schedule<Rate>)
}

type AsSchedule = fn(&dyn Any) -> Option<&dyn Schedule<Rate>>;

/// Every type of schedule that a name builds.
const SCHEDULES: &[AsSchedule] = &[
    schedule_as::<Constant>,
    schedule_as::<ConstantWithWarmup>,
    schedule_as::<Cosine>,
    schedule_as::<CosineWarmupWithMinLr>,
    schedule_as::<CosineWithMinLr>,
    schedule_as::<CosineWithRestarts>,
    schedule_as::<CreateOptimizerSchedule>,
    schedule_as::<InverseSqrt>,
    schedule_as::<Linear>,
    schedule_as::<Polynomial>,
    schedule_as::<TorchChained<Vec<Box<dyn AnySchedule>>>>,
    schedule_as::<TorchConstant>,
    schedule_as::<TorchCosineAnnealing>,
    schedule_as::<TorchCosineAnnealingWarmRestarts>,
    schedule_as::<TorchCyclic>,
    schedule_as::<TorchExponential>,
    schedule_as::<TorchLinear>,
    schedule_as::<TorchMultiStep<Vec<u64>>>,
    schedule_as::<TorchOneCycle>,
    schedule_as::<TorchPolynomial>,
    schedule_as::<TorchSequential<Vec<Box<dyn AnySchedule>>, Vec<u64>>>,
    schedule_as::<TorchStep>,
    schedule_as::<WarmUp<Box<dyn AnyDecay>>>,
    schedule_as::<WarmupStableDecay>,
];

/// A schedule over bounded numbers.
struct Followed<'a>(&'a dyn AnySchedule);

impl Followed<'_> {
    /// A rate; without a bound where the type is unknown.
    fn rate(
        &self,
        bounded: impl FnOnce(&dyn Schedule<Rate>) -> Rate,
        plain: impl FnOnce(&dyn AnySchedule) -> f64,
    ) -> Rate {
        let any: &dyn Any = self.0;
        match SCHEDULES.iter().find_map(|of| of(any)) {
            Some(schedule) => bounded(schedule),
            None => Bounded { value: plain(self.0), error: f64::INFINITY },
        }
    }
}

/// What is within another schedule.
impl Schedule<Rate> for Box<dyn AnySchedule> {
    fn lr(&self, base: Rate, step: u64) -> Rate {
        Followed(&**self).rate(|s| s.lr(base, step), |s| s.lr(base.value, step))
    }
    fn start(&self, base: Rate) -> Rate {
        Followed(&**self).rate(|s| s.start(base), |s| s.start(base.value))
    }
    fn attach(&self, base: Rate, lr: Rate, step: u64) -> Rate {
        let plain = |s: &dyn AnySchedule| s.attach(base.value, lr.value, step);
        Followed(&**self).rate(|s| s.attach(base, lr, step), plain)
    }
    fn next(&self, base: Rate, lr: Rate, step: u64) -> Rate {
        let plain = |s: &dyn AnySchedule| s.next(base.value, lr.value, step);
        Followed(&**self).rate(|s| s.next(base, lr, step), plain)
    }
    fn restart_in_sequence(&self, base: Rate) -> Rate {
        let plain = |s: &dyn AnySchedule| s.restart_in_sequence(base.value);
        Followed(&**self).rate(|s| s.restart_in_sequence(base), plain)
    }
    fn begin_in_sequence(&self, base: Rate, lr: Rate) -> Rate {
        let plain = |s: &dyn AnySchedule| s.begin_in_sequence(base.value, lr.value);
        Followed(&**self).rate(|s| s.begin_in_sequence(base, lr), plain)
    }
    fn initial_lr(&self, base: Rate, first: bool) -> Rate {
        let plain = |s: &dyn AnySchedule| s.initial_lr(base.value, first);
        Followed(&**self).rate(|s| s.initial_lr(base, first), plain)
    }
}

type AsDecay = fn(&dyn Any) -> Option<&dyn Decay<Bounded<f32>>>;

fn decay_as<D: Decay<Bounded<f32>> + 'static>(any: &dyn Any) -> Option<&dyn Decay<Bounded<f32>>> {
    any.downcast_ref::<D>().map(|decay| decay as &dyn Decay<Bounded<f32>>)
}

/// Every type of decay that a class of Keras builds.
const DECAYS: &[AsDecay] = &[
    decay_as::<f32>,
    decay_as::<CosineDecay>,
    decay_as::<CosineDecayRestarts>,
    decay_as::<ExponentialDecay>,
    decay_as::<InverseTimeDecay>,
    decay_as::<PiecewiseConstantDecay<Vec<f64>, Vec<f64>>>,
    decay_as::<PolynomialDecay>,
    decay_as::<WarmUp<Box<dyn AnyDecay>>>,
];

impl Decay<Bounded<f32>> for Box<dyn AnyDecay> {
    fn rate(&self, step: u64) -> Bounded<f32> {
        let any: &dyn Any = &**self;
        match DECAYS.iter().find_map(|of| of(any)) {
            Some(decay) => decay.rate(step),
            None => Bounded { value: Decay::<f32>::rate(&**self, step), error: f64::INFINITY },
        }
    }
}

/// A rate over all outcomes of its open comparisons.
fn outcome(compute: impl FnMut() -> Rate) -> Rate {
    outcomes(compute, |rate| std::slice::from_mut(rate))
}

/// [`outcome`] of something with several rates, of which the natural one is returned.
fn outcomes<X>(compute: impl FnMut() -> X, mut rates: impl FnMut(&mut X) -> &mut [Rate]) -> X {
    let mut all: Option<(X, Vec<Answer>)> = None;
    choice::each(compute, |mut x| {
        let answers: Vec<_> = rates(&mut x).iter().map(|rate| Answer::of(*rate)).collect();
        match &mut all {
            None => all = Some((x, answers)),
            Some((_, all)) => all.iter_mut().zip(answers).for_each(|(x, y)| x.admit(y)),
        }
    });
    let Some((mut x, answers)) = all else { unreachable!("each computes at least once") };
    for (rate, answer) in rates(&mut x).iter_mut().zip(answers) {
        *rate = Bounded { error: answer.tolerance / 2.0, ..*rate };
    }
    x
}

/// How far apart two correct rates may be: for each group, at construction and after each step. `None` for a schedule
/// that the core lacks.
pub(crate) fn of_schedule(spec: &ScheduleSpec<'_>) -> Option<Vec<Vec<f64>>> {
    let (scheduler, metrics) = core_schedule::scheduler(spec).ok()?;
    let rows = rates(&scheduler, &metrics)?;
    let row = |rates: Vec<Rate>| rates.into_iter().map(|rate| 2.0 * rate.error).collect();
    Some(rows.into_iter().map(row).collect())
}

fn rates(scheduler: &Scheduler, metrics: &[Vec<f64>]) -> Option<Vec<Vec<Rate>>> {
    let exact = |lrs: &[f64]| lrs.iter().map(|&lr| Bounded::exact(lr)).collect::<Vec<Rate>>();
    let [base_lrs, first_lrs] = scheduler.first_lrs().map(exact);
    let (made, state) = (scheduler.state().step, scheduler.state());
    let mut rates = exact(scheduler.lrs());
    let mut rows = Vec::new();
    match scheduler.kind() {
        SchedulerKind::Pure(schedules) => {
            let groups = || schedules.iter().zip(&base_lrs);
            for (((schedule, &base), &first), rate) in groups().zip(&first_lrs).zip(&mut rates) {
                // A group that had an `initial_lr` was attached; whichever gives the rate was it.
                let both = [
                    outcome(|| schedule.start(base)),
                    outcome(|| schedule.attach(base, first, made)),
                ];
                let value = rate.value;
                *rate = both.into_iter().find(|x| x.value == value)?;
            }
            rows.push(rates.clone());
            for t in (made..).take(metrics.len()).map(|t| t + 1) {
                for ((schedule, &base), rate) in groups().zip(&mut rates) {
                    *rate = outcome(|| schedule.next(base, *rate, t));
                }
                rows.push(rates.clone());
            }
        }
        SchedulerKind::Plateau(schedule) => {
            let mut now = (state.plateau?, rates);
            rows.push(now.1.clone());
            for metric in metrics {
                let step = || {
                    let mut next = now.clone();
                    schedule.step(&mut next.0, *metric.first()?, &mut next.1).ok()?;
                    Some(next)
                };
                now = outcomes(step, |x| x.as_mut().map_or(&mut [], |x| &mut x.1))?;
                rows.push(now.1.clone());
            }
        }
        SchedulerKind::Greedy(schedule) => {
            let (greedy, window) = state.greedy.clone()?;
            let mut now = (greedy, window, rates);
            rows.push(now.2.clone());
            for metric in metrics {
                let step = || {
                    let (mut greedy, mut window, mut rates) = now.clone();
                    if window.len() < schedule.window_len() && window.len() <= greedy.at {
                        window.push(0.0);
                    }
                    let metric = *metric.first()?;
                    schedule.step(&mut greedy, &mut window, metric, &first_lrs, &mut rates).ok()?;
                    Some((greedy, window, rates))
                };
                now = outcomes(step, |x| x.as_mut().map_or(&mut [], |x| &mut x.2))?;
                rows.push(now.2.clone());
            }
        }
        SchedulerKind::Adafactor(schedules) => {
            let bounded = |x: &AdafactorScheduleState| AdafactorScheduleState {
                lr: Bounded::exact(x.lr),
                step: x.step,
                f32: x.f32,
            };
            let mut states: Vec<_> = state.adafactor.iter().map(bounded).collect();
            rows.push(rates);
            for rms in metrics {
                for ((schedule, state), &rms) in schedules.iter().zip(&mut states).zip(rms) {
                    let step = || {
                        let mut next = *state;
                        schedule.step(&mut next, rms);
                        next
                    };
                    *state = outcomes(step, |x| std::slice::from_mut(&mut x.lr));
                }
                rows.push(states.iter().map(|state| state.lr).collect());
            }
        }
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitstep::hyper::Args;
    use bitstep::schedule::{NAMES, build};

    fn tolerances(name: &str, args: &str, steps: usize) -> Vec<f64> {
        let scheduler = build(name, &Args::parse(args).expect("arguments")).expect("a schedule");
        let rows = rates(&scheduler, &vec![Vec::new(); steps]).expect("rates");
        rows.iter().map(|row| 2.0 * row[0].error).collect()
    }

    #[test]
    fn recursive_rates_carry_their_errors_on() {
        let ulp = f64::EPSILON;
        // Each product adds half an ULP, and the tolerance is twice that.
        let all = tolerances("torch_exponential", "lr=1.5, gamma=0.999999", 100);
        assert_eq!(all[0], 0.0);
        assert!((all[100] / (100.0 * 1.5 * ulp) - 1.0).abs() < 0.4, "{}", all[100] / ulp);
        // A power is 1 ULP more, and its base three roundings.
        let all = tolerances("torch_polynomial", "lr=1.0, total_iters=1000, power=1.5", 900);
        let relative = |t: usize| all[t] / (1.0 - t as f64 / 1000.0).powf(1.5);
        assert!(relative(900) > 5.0 * relative(100), "{:e} {:e}", relative(900), relative(100));
        assert!(relative(900) < 1e-11, "{:e}", relative(900));
    }

    #[test]
    fn what_is_exact_has_no_tolerance() {
        assert_eq!(tolerances("constant", "lr=0.1", 3), [0.0; 4]);
        let halves = "lr=1.0, num_warmup_steps=4, num_training_steps=8";
        assert_eq!(tolerances("linear", halves, 8), [0.0; 9]);
    }

    #[test]
    fn cosine_that_cancels_has_the_error_of_a_cosine() {
        let all = tolerances("cosine", "lr=1.0, num_warmup_steps=0, num_training_steps=1000", 999);
        assert!((1e-16..2e-15).contains(&all[999]), "{:e}", all[999]);
        assert!((1e-16..2e-15).contains(&all[500]), "{:e}", all[500]);
    }

    #[test]
    fn restart_may_fall_to_either_side_of_a_whole_number() {
        // 7 · 3/7 need not be 3 in `f64`, nor 1.1 · 10/11: there two rates are right.
        let args = "lr=1.0, num_warmup_steps=0, num_training_steps=49, num_cycles=49";
        let all = tolerances("cosine_with_restarts", args, 48);
        assert!(all.iter().any(|&x| x > 0.5), "{all:?}");
    }

    #[test]
    fn every_name_that_builds_by_its_defaults_is_derived() {
        for name in NAMES {
            let Ok(scheduler) = build(name, &Args::parse("lr=0.5").expect("arguments")) else {
                continue;
            };
            let rows = rates(&scheduler, &[]).expect(name);
            assert!(rows.concat().iter().all(|x| x.error.is_finite()), "{name}");
        }
    }

    #[test]
    fn single_precision_rounds_at_one_place() {
        let x = Bounded { value: 0.1f64, error: 1e-17 };
        assert_eq!((x.single().value, x.single().error), (f64::from(0.1f32), 0.0));
        // A tie between two `f32` within the bound.
        let tie = 1.0 + f64::from(f32::EPSILON) / 2.0;
        let x = Bounded { value: tie, error: 1e-15 };
        assert_eq!(x.single().error, f64::from(f32::EPSILON) / 2.0);
        assert_eq!(Bounded::exact(0.0f64).cos().error, 0.0);
    }
}
