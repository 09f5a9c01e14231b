use core::fmt::Debug;
use core::ops::Deref;

#[cfg(feature = "alloc")]
use super::Make;
use super::{Schedule, ScheduleFacts, ScheduleFloat, iterate};
use crate::Error;
use crate::hyper::{FieldVisitor, HyperParams};

/// Applies several schedules to the same rate, in order, at every step.
///
/// # Order of operations
/// Recursive: each schedule modifies the rate that the one before it left. A schedule in closed form discards that rate.
///
/// # Source
/// `torch.optim.lr_scheduler.ChainedScheduler`, its schedules constructed in their order.
///
/// # Errors
/// No schedules, or one that refuses its arguments.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, TorchChained, TorchConstant, TorchExponential};
/// let (warm, cool) = (TorchConstant { factor: 0.5, total_iters: 2 }, TorchExponential { gamma: 0.5 });
/// let schedulers: [&dyn Schedule; 2] = [&warm, &cool];
/// let s = TorchChained { schedulers: &schedulers[..] };
/// assert_eq!([0, 1, 2].map(|t| s.lr(1.0, t)), [0.5, 0.25, 0.25]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchChained<S> {
    /// The schedules, in order.
    pub schedulers: S,
}

#[cfg(feature = "alloc")]
pub(super) const MAKE: Make = Make::Pure(|entry, mut args, context| {
    let nested = schedulers(entry.name, &mut args, context)?;
    entry.parse(TorchChained { schedulers: schedules(nested, context)? }, args, context)
});

#[cfg(feature = "alloc")]
pub(super) use nested::{schedulers, schedules};

/// Builds the schedules nested in another, with the settings that they share through their group.
#[cfg(feature = "alloc")]
mod nested {
    use alloc::borrow::ToOwned;
    use alloc::boxed::Box;
    use alloc::string::String;
    use alloc::vec::Vec;

    use crate::Error;
    use crate::hyper::{ArgError, Args, Value};
    use crate::schedule::arguments::{name_and_args, take_list};
    use crate::schedule::entry::{BuildContext, Make, of_class, of_name};
    use crate::schedule::group_scheduler::AnySchedule;

    /// The names (classes of the references replaced by their names) and arguments of the nested schedules.
    #[inline]
    pub(in crate::schedule) fn schedulers(
        of: &str,
        args: &mut Args,
        context: BuildContext,
    ) -> Result<Vec<(String, Args)>, ArgError> {
        let list =
            take_list(of, "schedulers", args, "a list of dictionaries", |v| Some(v.clone()))?;
        let within = list.iter().map(|value| {
            let (name, args) = name_and_args("schedulers", value)?;
            let known = of_class(context.schedules, &name);
            Ok((known.map_or(name, |entry| entry.name.to_owned()), args))
        });
        let mut within = within.collect::<Result<Vec<(String, Args)>, ArgError>>()?;

        share_momenta(&mut within);
        // OneCycleLR stores its rates in the group: those of the last one constructed apply to all.
        let mut cycles = within.iter_mut().filter(|(w, _)| w == "torch_one_cycle").map(|(_, a)| a);
        if let Some(last) = cycles.next_back() {
            for cycle in cycles {
                for argument in ["max_lr", "div_factor", "final_div_factor"] {
                    cycle.take(argument);
                    if let Some(value) = last.get(argument) {
                        cycle.set(argument, value.clone());
                    }
                }
            }
        }
        Ok(within)
    }

    /// Builds the nested schedules.
    #[inline]
    pub(in crate::schedule) fn schedules(
        within: Vec<(String, Args)>,
        context: BuildContext,
    ) -> Result<Vec<Box<dyn AnySchedule>>, ArgError> {
        let make = |(name, mut args): (String, Args)| {
            if !matches!(args.take("last_epoch").map(|v| v.as_i64()), None | Some(Some(-1))) {
                return Err(Error::InvalidArgument {
                    argument: "last_epoch",
                    expected: "-1 within others",
                }
                .into());
            }
            let entry = of_name(context.schedules, &name)?;
            match entry.make {
                Make::Pure(make) => make(entry, args, BuildContext { last_epoch: -1, ..context }),
                _ => {
                    let expected = "schedules that depend on the step alone";
                    Err(Error::InvalidArgument { argument: "schedulers", expected }.into())
                }
            }
        };
        within.into_iter().map(make).collect()
    }

    /// OneCycleLR reads its momenta from the group, where the constructors of OneCycleLR and CyclicLR write theirs: those
    /// of the last one constructed apply to all.
    #[inline]
    fn share_momenta(within: &mut [(String, Args)]) {
        let momenta = |(name, args): &(String, Args)| {
            let [low, high] = match name.as_str() {
                "torch_one_cycle" => [0.85, 0.95],
                "torch_cyclic" => [0.8, 0.9],
                _ => return None,
            };
            let cycles = args.get("cycle_momentum").is_none_or(|v| v.as_bool() != Some(false));
            let of = |name, default: f64| args.get(name).cloned().unwrap_or_else(|| default.into());
            cycles.then(|| {
                [
                    ("base_momentum", of("base_momentum", low)),
                    ("max_momentum", of("max_momentum", high)),
                ]
            })
        };
        let Some(last) = within.iter().rev().find_map(momenta) else { return };
        for (_, args) in within.iter_mut().filter(|(name, _)| name == "torch_one_cycle") {
            last.iter().for_each(|(name, value): &(&str, Value)| args.set(name, value.clone()));
        }
    }
}

impl<S> HyperParams for TorchChained<S> {
    /// There is no argument but `schedulers`, which is set before.
    fn fields(&mut self, _: &mut dyn FieldVisitor) {}
}

impl<T, S: Deref<Target = [T]>> TorchChained<S> {
    /// Applies `f` to every schedule in order, with the `initial_lr` that its constructor found.
    fn fold<F: ScheduleFloat>(&self, base_lr: F, lr: F, f: impl Fn(usize, &T, F, F) -> F) -> F
    where
        T: Schedule<F>,
    {
        let mut base = base_lr;
        self.schedulers.iter().enumerate().fold(lr, |lr, (i, s)| {
            let lr = f(i, s, base, lr);
            base = s.initial_lr(base, i == 0);
            lr
        })
    }
}

impl<F: ScheduleFloat, T: Schedule<F>, S: Deref<Target = [T]> + Debug> Schedule<F>
    for TorchChained<S>
{
    fn lr(&self, base_lr: F, step: u64) -> F {
        iterate(self, base_lr, step)
    }

    fn start(&self, base_lr: F) -> F {
        self.fold(base_lr, base_lr, |i, s, base, lr| match i {
            0 => s.start(base),
            _ => s.attach(base, lr, 0),
        })
    }

    fn attach(&self, base_lr: F, lr: F, step: u64) -> F {
        self.fold(base_lr, lr, |_, s, base, lr| s.attach(base, lr, step))
    }

    fn next(&self, base_lr: F, lr: F, step: u64) -> F {
        self.fold(base_lr, lr, |_, s, base, lr| s.next(base, lr, step))
    }

    /// The reference makes step 0 here instead of a construction: a schedule that multiplies at every step does so here.
    fn begin_in_sequence(&self, base_lr: F, lr: F) -> F {
        self.next(base_lr, lr, 0)
    }

    fn initial_lr(&self, base_lr: F, first: bool) -> F {
        let schedulers = self.schedulers.iter().enumerate();
        schedulers.fold(base_lr, |base, (i, s)| s.initial_lr(base, first && i == 0))
    }
}

impl<T: ScheduleFacts, S: Deref<Target = [T]> + Debug> ScheduleFacts for TorchChained<S> {
    fn check(&self) -> Result<(), Error> {
        if self.schedulers.is_empty() {
            return Err(Error::LengthMismatch { argument: "schedulers", got: 0, expected: 1 });
        }
        self.schedulers.iter().try_for_each(T::check)
    }

    fn last_step(&self) -> Option<u64> {
        self.schedulers.iter().filter_map(T::last_step).min()
    }

    fn has_step(&self, step: u64) -> bool {
        self.schedulers.iter().all(|s| s.has_step(step))
    }

    fn momentum(&self, step: u64) -> Option<f64> {
        self.schedulers.iter().rev().find_map(|s| s.momentum(step))
    }

    fn start_momentum(&self) -> Option<f64> {
        self.schedulers.iter().rev().find_map(T::start_momentum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::schedule::{
        TorchConstant, TorchCosineAnnealingWarmRestarts, TorchExponential, TorchLinear,
        TorchOneCycle, TorchStep,
    };

    #[test]
    fn factors_multiply() {
        let (warm, cool) = (
            TorchConstant { factor: 0.25, total_iters: 2 },
            TorchStep { step_size: 2, gamma: 0.5 },
        );
        let schedulers: [&dyn Schedule; 2] = [&warm, &cool];
        let s = TorchChained { schedulers: &schedulers[..] };
        // 8 · ¼; 2; 2 · 4 · ½; then halved at 4
        assert_eq!([0, 1, 2, 3, 4].map(|t| s.lr(8.0, t)), [2.0, 2.0, 4.0, 4.0, 2.0]);
        assert_eq!(s.check(), Ok(()));
    }

    #[test]
    fn closed_form_undoes_what_came_before_it() {
        let halve = TorchExponential { gamma: 0.5 };
        let wave = TorchCosineAnnealingWarmRestarts { t_0: 4, ..Default::default() };
        let schedulers: [&dyn Schedule; 2] = [&halve, &wave];
        // 8 · ½ (1 + cos ½π), from the base rate
        assert_eq!(TorchChained { schedulers: &schedulers[..] }.lr(8.0, 2), 4.0);
        let schedulers: [&dyn Schedule; 2] = [&wave, &halve];
        // the other way round it is halved
        assert_eq!(TorchChained { schedulers: &schedulers[..] }.lr(8.0, 2), 2.0);
    }

    #[test]
    fn resumed_chain_keeps_the_rate_unless_one_of_it_has_a_closed_form() {
        let halve = TorchExponential { gamma: 0.5 };
        let wave = TorchCosineAnnealingWarmRestarts { t_0: 4, ..Default::default() };
        let schedulers: [&dyn Schedule; 2] = [&halve, &halve];
        assert_eq!(TorchChained { schedulers: &schedulers[..] }.attach(8.0, 3.0, 2), 3.0);
        let schedulers: [&dyn Schedule; 2] = [&halve, &wave];
        // 8 · ½ (1 + cos ½π)
        assert_eq!(TorchChained { schedulers: &schedulers[..] }.attach(8.0, 3.0, 2), 4.0);
    }

    #[test]
    fn wrong_schedulers_are_refused() {
        let none: [TorchExponential; 0] = [];
        let refused = Error::LengthMismatch { argument: "schedulers", got: 0, expected: 1 };
        assert_eq!(TorchChained { schedulers: &none[..] }.check(), Err(refused));

        let grow = [TorchConstant::default(), TorchConstant { factor: 2.0, total_iters: 1 }];
        let got = TorchChained { schedulers: &grow[..] }.check();
        assert!(
            matches!(got, Err(Error::OutOfRange { argument: "factor", value: 2.0, .. })),
            "{got:?}"
        );
    }

    #[test]
    fn last_step_is_the_first_of_theirs() {
        let cycles = [9, 5].map(|n| TorchOneCycle { total_steps: Some(n), ..Default::default() });
        assert_eq!(TorchChained { schedulers: &cycles[..] }.last_step(), Some(5));
    }

    #[test]
    fn initial_rate_is_that_of_the_last_to_set_one() {
        let cycle = |max_lr| TorchOneCycle {
            max_lr,
            div_factor: 4.0,
            total_steps: Some(4),
            ..Default::default()
        };
        let (two, six, halve) = (cycle(8.0), cycle(24.0), TorchExponential { gamma: 0.5 });
        let all: [&dyn Schedule; 3] = [&two, &six, &halve];
        assert_eq!(TorchChained { schedulers: &all[..] }.initial_lr(1.0, true), 6.0);
        assert_eq!(TorchChained { schedulers: &all[2..] }.initial_lr(1.0, true), 1.0);
    }

    #[test]
    fn begun_within_another_it_takes_step_0() {
        let warm = TorchLinear { start_factor: 0.25, end_factor: 1.0, total_iters: 4 };
        let schedulers: [&dyn Schedule; 1] = [&warm];
        assert_eq!(TorchChained { schedulers: &schedulers[..] }.begin_in_sequence(8.0, 8.0), 2.0);
    }
}
