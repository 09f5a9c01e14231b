//! [`Scheduler`]: a schedule for all groups of an optimizer, built from a name and arguments, stepped, checkpointed and
//! resumed.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::arguments::{Groups, bad, suggest};
use super::entry::{BuildContext, OwnFields, of_name};
use super::group_scheduler::PAST_THE_END;
use super::named::SCHEDULES;
use super::*;
use crate::Error;
use crate::error::ensure_range;
use crate::hyper::{ArgError, Args, FieldVisitor, Value};

/// Builds the schedule of a name, for all groups of an optimizer, at the start of training.
///
/// `args` are the reference's arguments, and these of the optimizer: `lr` (default: torch's 1e-3), `groups` (a list of
/// dictionaries, each with a `lr` if the group has its own) and `initial_lr`. `adafactor_schedule` also uses Adafactor's
/// other arguments, which a group may override; all other schedules refuse groups with arguments other than rates.
/// Where the reference accepts a list with one value per group, so does this. `last_epoch` resumes training after that
/// step. The `schedulers` of `torch_sequential` and `torch_chained` are dictionaries of a `name` and arguments, as is
/// the `decay_schedule_fn` of `warm_up`; the name may be that of the reference's class, and the arguments may be in a
/// dictionary of their own.
///
/// # Errors
/// An unknown name or argument (with the nearest known one), a missing argument, or a refused value.
///
/// ```
/// use bitstep::{hyper::Args, schedule::build};
/// let args = Args::parse("lr=0.5, num_warmup_steps=4, num_training_steps=8")?;
/// let mut scheduler = build("linear", &args)?;
/// assert_eq!(scheduler.lrs(), [0.0]);
/// assert_eq!(scheduler.step(&[])?, [0.125]);
///
/// let error = build("cosin", &args).unwrap_err();
/// assert_eq!(error.to_string(), "unknown schedule `cosin`; did you mean `cosine`?");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline]
pub fn build(name: &str, args: &Args) -> Result<Scheduler, ArgError> {
    let entry = of_name(SCHEDULES, name)?;
    build_entry(entry, args).map_err(|error| match &error {
        ArgError::UnknownArgument { of, .. } if of == name => {
            suggest(error, &["lr", "groups", "initial_lr", "last_epoch"])
        }
        _ => error,
    })
}

/// Passes every argument of the schedule of a name to `f`, with its default, and returns the names of those without one.
/// Not among them is what [`build`] takes of the optimizer.
///
/// # Errors
/// An unknown name, with the nearest known one.
///
/// ```
/// use bitstep::hyper::{FieldMut, FieldVisitor};
/// use bitstep::schedule::visit_arguments;
/// struct Names(Vec<&'static str>);
/// impl FieldVisitor for Names {
///     fn field(&mut self, name: &'static str, _: FieldMut<'_>) {
///         self.0.push(name);
///     }
/// }
/// let mut names = Names(Vec::new());
/// assert_eq!(visit_arguments("torch_multi_step", &mut names)?, ["milestones"]);
/// assert_eq!(names.0, ["milestones", "gamma", "verbose"]);
/// # Ok::<(), bitstep::hyper::ArgError>(())
/// ```
#[inline]
pub fn visit_arguments(
    name: &str,
    f: &mut dyn FieldVisitor,
) -> Result<Vec<&'static str>, ArgError> {
    let entry = of_name(SCHEDULES, name)?;
    let mut fields = (entry.fields)();
    for argument in entry.non_fields {
        f.value(argument, &mut Value::None);
    }
    fields.fields(&mut OwnFields(f));
    Ok(entry.non_fields.iter().chain(fields.required()).copied().collect())
}

#[inline]
fn build_entry(entry: &Entry, given_args: &Args) -> Result<Scheduler, ArgError> {
    let mut args = given_args.clone();
    let follows = matches!(entry.make, Make::Adafactor);
    // For AdafactorSchedule an argument of the schedule itself, for all others one of the optimizer's groups.
    let initial_lr = if follows { None } else { args.take("initial_lr") };
    let groups = Groups::take(&mut args, initial_lr)?;
    let last_epoch = match args.take("last_epoch") {
        None => -1,
        Some(v) => v.as_i64().ok_or_else(|| bad("last_epoch", &v, "a whole number"))?,
    };
    if !follows {
        groups.have_rates_alone()?;
    }
    let kind = match entry.make {
        Make::Pure(make) => {
            let (lr, decays) = (groups.default_lr, keras::named::DECAYS);
            let context = BuildContext { lr, last_epoch, schedules: SCHEDULES, decays };
            let each = groups.each(&args)?.into_iter().map(|args| make(entry, args, context));
            SchedulerKind::Pure(each.collect::<Result<_, _>>()?)
        }
        Make::Plateau => SchedulerKind::Plateau(reduce_lr_on_plateau::for_all(
            &entry.parse_each(&groups.each(&args)?)?,
        )?),
        Make::Greedy => {
            SchedulerKind::Greedy(greedy::for_all(&entry.parse_each(&groups.each(&args)?)?)?)
        }
        Make::Adafactor => {
            SchedulerKind::Adafactor(adafactor_schedule::for_each(entry, &args, &groups.changes)?)
        }
    };
    Ok(Scheduler::new(entry.name, given_args, kind, groups, last_epoch))
}

/// A schedule running for all groups of an optimizer.
///
/// It keeps the name and arguments that it was built from, so that a checkpoint can be compared with it.
#[derive(Clone, Debug)]
pub struct Scheduler {
    name: String,
    args: Args,
    /// Arguments that have [replaced](Scheduler::resume) some of `args`.
    replaced: Args,
    /// The caller's own schedule, if it was not built from a name.
    own: Option<Box<dyn AnySchedule>>,
    kind: SchedulerKind,
    /// The groups' `initial_lr`.
    base_lrs: Vec<f64>,
    /// The groups' rates when the schedule was built.
    first_lrs: Vec<f64>,
    /// Whether rates are rounded to `f32`.
    single: bool,
    state: SchedulerState,
}

/// The state of a [`Scheduler`], complete for a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerState {
    /// Scheduler steps made.
    pub step: u64,
    /// The rate of each group.
    pub lrs: Vec<f64>,
    /// State of [`ReduceLrOnPlateau`].
    pub plateau: Option<PlateauState>,
    /// State of [`GreedyLr`], and the part of its window of metrics that has been in use.
    pub greedy: Option<(GreedyState, Vec<f64>)>,
    /// State of [`AdafactorSchedule`], for each group.
    pub adafactor: Vec<AdafactorScheduleState>,
}

/// What a [`Scheduler`] runs.
#[derive(Clone, Debug)]
pub enum SchedulerKind {
    /// One schedule per group.
    Pure(Vec<Box<dyn AnySchedule>>),
    /// One for all groups, driven by a metric.
    Plateau(ReduceLrOnPlateau<Vec<f64>>),
    /// One for all groups, driven by a metric.
    Greedy(GreedyLr<Vec<f64>, Vec<f64>>),
    /// One schedule per group, driven by its optimizer.
    Adafactor(Vec<AdafactorSchedule>),
}

impl Scheduler {
    /// Runs a schedule of the caller's for groups with these rates. Checkpoints identify it by its name and its
    /// arguments, none of which may be called `groups`.
    ///
    /// ```
    /// use bitstep::error::ensure_range;
    /// use bitstep::hyper::{FieldVisitor, HyperParams};
    /// use bitstep::schedule::{Schedule, ScheduleFacts, Scheduler};
    ///
    /// /// Linearly up and down again, repeatedly.
    /// #[derive(Clone, Debug)]
    /// struct Triangle {
    ///     half: u64,
    /// }
    ///
    /// impl HyperParams for Triangle {
    ///     fn fields(&mut self, f: &mut dyn FieldVisitor) {
    ///         f.u64("half", &mut self.half);
    ///     }
    /// }
    ///
    /// impl Schedule for Triangle {
    ///     fn lr(&self, base_lr: f64, step: u64) -> f64 {
    ///         let t = step % (2 * self.half);
    ///         base_lr * t.min(2 * self.half - t) as f64 / self.half as f64
    ///     }
    /// }
    ///
    /// impl ScheduleFacts for Triangle {
    ///     fn check(&self) -> Result<(), bitstep::Error> {
    ///         ensure_range(self.half > 0, "half", self.half as f64, "half >= 1")
    ///     }
    /// }
    ///
    /// let mut scheduler = Scheduler::of("triangle", Triangle { half: 2 }, &[1.0, 0.5])?;
    /// assert_eq!(scheduler.lrs(), [0.0, 0.0]);
    /// assert_eq!(scheduler.step(&[])?, [0.5, 0.25]);
    /// assert_eq!(scheduler.step(&[])?, [1.0, 0.5]);
    /// assert_eq!(scheduler.step(&[])?, [0.5, 0.25]);
    /// assert!(Scheduler::of("triangle", Triangle { half: 0 }, &[1.0]).is_err());
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Arguments that the schedule's [`check`](ScheduleFacts::check) refuses; an argument called `groups`.
    pub fn of(
        name: &str,
        mut schedule: impl AnySchedule + 'static,
        lrs: &[f64],
    ) -> Result<Scheduler, ArgError> {
        let args = Args::of(&mut schedule);
        if args.get("groups").is_some() {
            let expected = "no argument of a schedule: they are the optimizer's";
            return Err(Error::InvalidArgument { argument: "groups", expected }.into());
        }
        let group = |&lr: &f64| Value::Map(alloc::vec![("lr".to_owned(), Value::Float(lr))]);
        let groups: Vec<Value> = lrs.iter().map(group).collect();
        Self::own(name, &args.with("groups", groups), Box::new(schedule))
    }

    #[inline]
    fn own(
        name: &str,
        given_args: &Args,
        mut schedule: Box<dyn AnySchedule>,
    ) -> Result<Scheduler, ArgError> {
        let mut args = given_args.clone();
        let mut groups = Args::new().with("groups", args.take("groups").unwrap_or_default());
        let groups = Groups::take(&mut groups, None)?;
        groups.have_rates_alone()?;
        args.apply(name, &mut *schedule)?;
        schedule.check()?;
        let kind = SchedulerKind::Pure(groups.lrs.iter().map(|_| schedule.clone()).collect());
        Ok(Scheduler { own: Some(schedule), ..Self::new(name, given_args, kind, groups, -1) })
    }

    #[inline]
    fn new(
        name: &str,
        args: &Args,
        kind: SchedulerKind,
        groups: Groups,
        last_epoch: i64,
    ) -> Scheduler {
        let step = u64::try_from(last_epoch.saturating_add(1)).unwrap_or(0);
        let mut state = SchedulerState {
            step,
            lrs: groups.lrs.clone(),
            plateau: None,
            greedy: None,
            adafactor: Vec::new(),
        };
        match &kind {
            SchedulerKind::Pure(schedules) => {
                let groups = schedules.iter().zip(&groups.initial_lrs).zip(&mut state.lrs);
                for ((schedule, initial), lr) in groups {
                    *lr = match initial {
                        Some(base) => schedule.attach(*base, *lr, step),
                        None if last_epoch >= 0 => schedule.attach(*lr, *lr, step),
                        None => schedule.start(*lr),
                    };
                }
            }
            SchedulerKind::Plateau(schedule) => state.plateau = Some(schedule.start()),
            SchedulerKind::Greedy(schedule) => state.greedy = Some((schedule.start(), Vec::new())),
            SchedulerKind::Adafactor(schedules) => {
                state.adafactor = schedules.iter().map(AdafactorSchedule::start).collect();
                state.lrs = state.adafactor.iter().map(|state| state.lr).collect();
            }
        }
        let initial = groups.initial_lrs.iter().zip(&groups.lrs);
        let base_lrs = initial.map(|(initial, &lr)| initial.unwrap_or(lr)).collect();
        let (name, args, replaced) = (name.to_owned(), args.clone(), Args::new());
        let (own, first_lrs, single) = (None, groups.lrs, false);
        Scheduler { name, args, replaced, own, kind, base_lrs, first_lrs, single, state }
    }

    /// The name that it was [built](build) from or [given](Self::of).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it runs, for who computes its rates in [other numbers](ScheduleFloat).
    #[must_use]
    pub fn kind(&self) -> &SchedulerKind {
        &self.kind
    }

    /// The `initial_lr` of each group, and its rate when the schedule was built.
    #[must_use]
    pub fn first_lrs(&self) -> [&[f64]; 2] {
        [&self.base_lrs, &self.first_lrs]
    }

    /// The arguments that it was built from.
    #[must_use]
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// The arguments that override some of [`args`](Self::args) since it was [resumed](Self::resume).
    #[must_use]
    pub fn replaced(&self) -> &Args {
        &self.replaced
    }

    /// Switches to `f32` rates, as torchao's optimizers have: f32(rate) · f32(λ), rounded to `f32`. For the schedules of
    /// Transformers, which multiply a group's own rate by λ or, driven by a metric, the current rate by a factor.
    ///
    /// ```
    /// use bitstep::{hyper::Args, schedule::build};
    /// let args = Args::parse("lr=0.3, num_warmup_steps=0, num_training_steps=3")?;
    /// let mut scheduler = build("linear", &args)?.in_single();
    /// assert_eq!(scheduler.lrs(), [f64::from(0.3f32)]);
    /// assert_eq!(scheduler.step(&[])?, [f64::from(0.3f32 * (2.0 / 3.0) as f32)]);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn in_single(mut self) -> Scheduler {
        self.single = true;
        let (step, state) = (self.state.step, &mut self.state);
        match &self.kind {
            SchedulerKind::Pure(schedules) => {
                for ((schedule, &base), lr) in
                    schedules.iter().zip(&self.base_lrs).zip(&mut state.lrs)
                {
                    *lr = single(base, schedule.lr(1.0, step));
                }
            }
            _ => state.lrs.iter_mut().for_each(|lr| *lr = single(*lr, 1.0)),
        }
        self
    }

    /// The current rate of each group.
    #[must_use]
    pub fn lrs(&self) -> &[f64] {
        &self.state.lrs
    }

    /// Sets the current rates, where they have been changed by hand: schedules that modify the current rate continue
    /// from them, as the reference's do; those in closed form ignore them. See
    /// [`Optimizer::step_schedule`](crate::optimizer::Optimizer::step_schedule).
    ///
    /// # Errors
    /// Not one rate per group; nothing is changed then.
    #[inline]
    pub fn set_lrs(&mut self, lrs: &[f64]) -> Result<(), Error> {
        check_groups("lrs", &lrs, self.state.lrs.len())?;
        self.state.lrs.copy_from_slice(lrs);
        Ok(())
    }

    /// A group's rate after `step` scheduler steps from the start of training, whatever steps have been made. Takes
    /// O(`step`) where the reference is recursive.
    ///
    /// # Errors
    /// An unknown group; a schedule that is driven by a metric or an optimizer, as its rates do not follow from the
    /// number of steps; a step beyond the last, or above 2²⁰.
    ///
    /// ```
    /// use bitstep::{hyper::Args, schedule::build};
    /// let mut linear = build("linear", &Args::parse("lr=0.5, num_warmup_steps=4, num_training_steps=8")?)?;
    /// assert_eq!(linear.lr_at(0, 1)?, 0.125);
    /// assert_eq!(linear.lrs(), [0.0]);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[inline]
    pub fn lr_at(&self, group: usize, step: u64) -> Result<f64, Error> {
        const MOST: u64 = 1 << 20;
        let SchedulerKind::Pure(schedules) = &self.kind else {
            let expected = "a schedule whose rates follow from the number of steps";
            return Err(Error::InvalidArgument { argument: "schedule", expected });
        };
        let (Some(schedule), Some(&base)) = (schedules.get(group), self.base_lrs.get(group)) else {
            let expected = "the number of a group";
            return Err(Error::InvalidArgument { argument: "group", expected });
        };
        if schedule.last_step().is_some_and(|last| step > last) {
            return Err(PAST_THE_END);
        }
        ensure_range(step <= MOST, "step", step as f64, "<= 2^20")?;
        Ok(match step {
            _ if self.single => single(base, schedule.lr(1.0, step)),
            0 => schedule.start(base),
            _ => schedule.lr(base, step),
        })
    }

    /// The momentum (or β₁) that the last step, or before the first step the construction, has set for a group. `None`
    /// if the schedule sets none: only [`TorchOneCycle`] and [`TorchCyclic`] do.
    #[must_use]
    pub fn momentum(&self, group: usize) -> Option<f64> {
        let SchedulerKind::Pure(schedules) = &self.kind else { return None };
        let schedule = schedules.get(group)?;
        match self.state.step {
            0 => schedule.start_momentum(),
            step => schedule.momentum(step),
        }
    }

    /// Makes a scheduler step and returns the new rates.
    ///
    /// `metrics` is the metric for `reduce_lr_on_plateau` and `greedy`, the RMS of each group's first parameter for
    /// `adafactor_schedule`, and empty for all others.
    ///
    /// # Errors
    /// The wrong number of metrics, or a step that the reference refuses; nothing is changed then.
    pub fn step(&mut self, metrics: &[f64]) -> Result<&[f64], Error> {
        let SchedulerState { step, lrs, plateau, greedy, adafactor } = &mut self.state;
        let expected = match &self.kind {
            SchedulerKind::Pure(_) => 0,
            SchedulerKind::Plateau(_) | SchedulerKind::Greedy(_) => 1,
            SchedulerKind::Adafactor(_) => lrs.len(),
        };
        if metrics.len() != expected {
            return Err(Error::LengthMismatch { argument: "given", got: metrics.len(), expected });
        }
        let next = step.saturating_add(1);
        match (&self.kind, metrics) {
            (SchedulerKind::Pure(schedules), _) => {
                if !schedules.iter().all(|s| s.has_step(next)) {
                    return Err(PAST_THE_END);
                }
                for ((schedule, &base), lr) in schedules.iter().zip(&self.base_lrs).zip(lrs) {
                    *lr = match self.single {
                        true => single(base, schedule.lr(1.0, next)),
                        false => schedule.next(base, *lr, next),
                    };
                }
            }
            (SchedulerKind::Plateau(schedule), &[metric]) => {
                if let Some(state) = plateau {
                    schedule.step(state, metric, lrs)?;
                }
            }
            (SchedulerKind::Greedy(schedule), &[metric]) => {
                if let Some((state, window)) = greedy {
                    if window.len() < schedule.window_len() && window.len() <= state.at {
                        let more = window.try_reserve(1);
                        let len = window.len().saturating_add(1);
                        more.map_err(|_| Error::OutOfMemory { argument: "window", len })?;
                        window.push(0.0);
                    }
                    schedule.step(state, window, metric, &self.first_lrs, lrs)?;
                }
            }
            (SchedulerKind::Adafactor(schedules), _) => {
                let states = schedules.iter().zip(adafactor);
                for (((schedule, state), &rms), lr) in states.zip(metrics).zip(lrs) {
                    schedule.step(state, rms);
                    *lr = state.lr;
                }
            }
            _ => {}
        }
        *step = next;
        if self.single {
            self.state.lrs.iter_mut().for_each(|lr| *lr = single(*lr, 1.0));
        }
        Ok(&self.state.lrs)
    }

    /// The state, complete for a checkpoint.
    #[must_use]
    pub fn state(&self) -> &SchedulerState {
        &self.state
    }

    /// `Ok` if this is a state of the same schedule.
    ///
    /// # Errors
    /// A state of another schedule or number of groups.
    #[inline]
    pub fn check_state(&self, state: &SchedulerState) -> Result<(), Error> {
        let size = match &self.kind {
            SchedulerKind::Greedy(schedule) => schedule.window_len(),
            _ => 0,
        };
        // The window is at least as long as its counters say, and not longer than the full window.
        let fits = state.greedy.as_ref().is_none_or(|(g, window)| {
            g.len.max(g.at) <= window.len() && window.len() <= size && g.at < size.max(1)
        });
        let shape = |s: &SchedulerState| {
            (s.lrs.len(), s.plateau.is_some(), s.greedy.is_some(), s.adafactor.len())
        };
        if !fits || shape(state) != shape(&self.state) {
            return Err(Error::InvalidArgument {
                argument: "state",
                expected: "a state of this schedule",
            });
        }
        Ok(())
    }

    /// Restores a state of the same schedule with some arguments replaced by those of the checkpoint, as in the
    /// reference: base rates (`groups`), the patience of [`ReduceLrOnPlateau`].
    ///
    /// # Errors
    /// An argument that [`build`] refuses, or a state of another schedule or number of groups; nothing is changed then.
    #[inline]
    pub fn resume(&mut self, replaced: &Args, state: SchedulerState) -> Result<(), ArgError> {
        *self = self.resumed(replaced, state)?;
        Ok(())
    }

    /// A copy after [`resume`](Self::resume).
    ///
    /// # Errors
    /// Those of [`resume`](Self::resume).
    #[inline]
    pub fn resumed(&self, replaced: &Args, state: SchedulerState) -> Result<Scheduler, ArgError> {
        let mut args = self.args.clone();
        replaced.iter().for_each(|(name, value)| args.set(name, value.clone()));
        let mut next = match &self.own {
            Some(schedule) => Self::own(&self.name, &args, schedule.clone())?,
            None => build(&self.name, &args)?,
        };
        if self.single {
            next = next.in_single();
        }
        next.restore(state)?;
        Ok(Scheduler { args: self.args.clone(), replaced: replaced.clone(), ..next })
    }

    /// Restores a state of the same schedule.
    ///
    /// # Errors
    /// A state of another schedule or number of groups; nothing is changed then.
    #[inline]
    pub fn restore(&mut self, state: SchedulerState) -> Result<(), Error> {
        self.check_state(&state)?;
        self.state = state;
        Ok(())
    }
}

/// The product of two values rounded to `f32`, in `f32`.
fn single(a: f64, b: f64) -> f64 {
    f64::from(a as f32 * b as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn window_grows_with_use_and_groups_times_arguments_are_limited() {
        let args = Args::parse("lr=0.5, smooth=True, window_size=2147483647").unwrap();
        let mut greedy = build("greedy", &args).unwrap();
        for metric in [3.0, 2.0, 1.0] {
            greedy.step(&[metric]).unwrap();
        }
        let window = |s: &Scheduler| s.state().greedy.as_ref().map(|(_, w)| w.clone());
        assert_eq!(window(&greedy), Some(alloc::vec![3.0, 2.0, 1.0]));

        let groups = Value::List(alloc::vec![Value::Map(Vec::new()); 20_000]);
        let steps: Vec<i64> = (0..20_000).collect();
        let args = Args::new().with("groups", groups).with("milestones", steps);
        let refused = build("torch_multi_step", &args).unwrap_err();
        assert!(matches!(
            refused,
            ArgError::InvalidConfig(Error::OutOfRange { argument: "groups", .. })
        ));
    }

    #[test]
    fn what_a_group_changes_counts_or_is_refused() {
        let groups = |all: &[&[(&str, Value)]]| {
            let entry = |(name, value): &(&str, Value)| (name.to_string(), value.clone());
            let group = |own: &&[_]| Value::Map(own.iter().map(entry).collect());
            let all = Value::List(all.iter().map(group).collect());
            Args::new().with("initial_lr", 0.0).with("groups", all)
        };
        let mut scheduler = build(
            "adafactor_schedule",
            &groups(&[
                &[("params", [0i64].into()), ("scale_parameter", false.into())],
                &[("scale_parameter", false.into()), ("warmup_init", true.into())],
                &[("eps", [0.0, 4.0].into())],
                &[("dtype", "float64".into())],
            ]),
        )
        .unwrap();
        // ρ alone: min(1e-2, 1/√1), then 1e-6; ρ times max(4, 2); ρ times RMS, in f64
        let rates = scheduler.step(&[3.0, 3.0, 2.0, 0.1]).unwrap();
        assert_eq!(rates, [1e-2, 1e-6, 4e-2, 0.1 * 1e-2]);

        for (name, argument) in [
            ("adafactor_schedule", "momentum"),
            ("linear", "num_warmup_steps"),
            ("torch_one_cycle", "max_lr"),
            ("reduce_lr_on_plateau", "factor"),
        ] {
            let own = [("lr", 1.0.into()), (argument, 3.0.into())];
            let refused = build(name, &groups(&[&[], &own])).unwrap_err().to_string();
            assert!(refused.contains(argument), "{name}: {refused}");
        }
        let both = groups(&[&[], &[]]).with("lr", [0.5, 0.25]);
        let expected =
            Error::InvalidArgument { argument: "lr", expected: "a number, beside groups" };
        assert_eq!(build("constant", &both).unwrap_err(), expected.into());
    }

    #[test]
    fn what_no_field_stands_for_is_found_by_its_nearest_name_within_others_too() {
        let pair = |name: &str, args: &Args| {
            let args = args.iter().map(|(n, v)| (n.to_owned(), v.clone())).collect();
            Value::List(alloc::vec![name.into(), Value::Map(args)])
        };
        let steps = Args::new().with("milestones", Value::List(Vec::new()));
        let chain = Args::new().with("schedulers", Value::List(alloc::vec!["constant".into()]));
        let both = steps.clone().with("schedulers", chain.get("schedulers").cloned().unwrap());
        let pieces = Args::new().with("boundaries", Value::List(Vec::new())).with("values", [1.0]);
        let warm_up = Args::parse("initial_learning_rate=1.0, warmup_steps=0").unwrap();
        for (within, args, wrong, right) in [
            ("torch_chained", chain, "schedulrs", "schedulers"),
            ("torch_multi_step", steps, "milestone", "milestones"),
            ("torch_sequential", both.clone(), "milestone", "milestones"),
            ("torch_sequential", both, "schedulrs", "schedulers"),
            ("PiecewiseConstantDecay", pieces.clone(), "boundary", "boundaries"),
            ("PiecewiseConstantDecay", pieces, "value", "values"),
            (
                "WarmUp",
                warm_up.clone().with("decay_schedule_fn", 1.0),
                "decay_schedule",
                "decay_schedule_fn",
            ),
        ] {
            let pair = pair(within, &args.with(wrong, 1i64));
            let got = match within.starts_with("torch") {
                true => {
                    let schedulers = Value::List(alloc::vec![pair]);
                    build("torch_chained", &Args::new().with("schedulers", schedulers))
                }
                false => build("warm_up", &warm_up.clone().with("decay_schedule_fn", pair)),
            };
            match got {
                Err(ArgError::UnknownArgument { of, nearest, .. }) => {
                    assert_eq!((of.as_str(), nearest), (within, Some(right)));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
