//! From a name and arguments to a running schedule.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::keras::{
    CosineDecay, CosineDecayRestarts, Decay, ExponentialDecay, InverseTimeDecay,
    PiecewiseConstantDecay, PolynomialDecay,
};
use super::*;
use crate::args::{ArgError, Args, Hyper, Value, nearest};

/// The names that [`build`] knows.
pub const NAMES: &[&str] = &[
    "adafactor_schedule",
    "constant",
    "constant_with_warmup",
    "cosine",
    "cosine_warmup_with_min_lr",
    "cosine_with_min_lr",
    "cosine_with_restarts",
    "create_optimizer",
    "greedy",
    "inverse_sqrt",
    "linear",
    "polynomial",
    "reduce_lr_on_plateau",
    "torch_chained",
    "torch_constant",
    "torch_cosine_annealing",
    "torch_cosine_annealing_warm_restarts",
    "torch_cyclic",
    "torch_exponential",
    "torch_linear",
    "torch_multi_step",
    "torch_one_cycle",
    "torch_polynomial",
    "torch_sequential",
    "torch_step",
    "warm_up",
    "warmup_stable_decay",
];

type AnySchedule = Box<dyn Schedule + Send + Sync>;
type AnyDecay = Box<dyn KerasDecay + Send + Sync>;

/// A decay that can be shown.
trait KerasDecay: Decay + core::fmt::Debug {}
impl<D: Decay + core::fmt::Debug> KerasDecay for D {}

/// The schedule of a name, for all groups of an optimizer, at the start of training.
///
/// `args` are the reference's, and of the optimizer `lr` (or torch's default of 1e-3), `groups` (a list of
/// dictionaries, each with a `lr` if it has its own) and `initial_lr`. `adafactor_schedule` reads Adafactor's other
/// arguments too, and of each group those that are its own; all others refuse a group with more than rates. Where the
/// reference takes a list with a number for each group, so does this. `last_epoch` resumes training after that step. The
/// schedules of `torch_sequential` and `torch_chained` are dictionaries of a `name` and arguments, and so is `warm_up`'s
/// `decay_schedule_fn`; the names of the references' classes will do, and the arguments may stand in a dictionary of
/// their own.
///
/// # Errors
/// An unknown name or argument (with the nearest known one), a missing argument, or a refused value.
///
/// ```
/// use bitstep::{args::Args, schedule::build};
/// let args = Args::parse("lr=0.5, num_warmup_steps=4, num_training_steps=8")?;
/// let mut scheduler = build("linear", &args)?;
/// assert_eq!(scheduler.lrs(), [0.0]);
/// assert_eq!(scheduler.step(&[])?, [0.125]);
///
/// let error = build("cosin", &args).unwrap_err();
/// assert_eq!(error.to_string(), "unknown schedule `cosin`; did you mean `cosine`?");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn build(name: &str, args: &Args) -> Result<Scheduler, ArgError> {
    if !NAMES.contains(&name) {
        return Err(unknown_name(name));
    }
    known(name, args).map_err(|error| nearer(error, name))
}

/// [`build`] for a name that is known.
fn known(name: &str, made_of: &Args) -> Result<Scheduler, ArgError> {
    let mut args = made_of.clone();
    let groups = Groups::take(name, &mut args)?;
    let count = groups.lrs.len();
    let last_epoch = match args.get("last_epoch") {
        None => -1,
        Some(v) => v.as_i64().ok_or_else(|| bad("last_epoch", v, "a whole number"))?,
    };
    if name != "torch_cosine_annealing_warm_restarts" {
        args.take("last_epoch");
    }
    // Of the optimizer's arguments, most schedules know the rates alone.
    let refused = groups.changes.iter().flat_map(Args::iter).next();
    if let Some((argument, value)) = refused.filter(|_| name != "adafactor_schedule") {
        return Err(bad(argument, value, "left out of `groups`, where rates are all that counts"));
    }
    // Each group has arguments of its own.
    let values: usize = args.iter().map(|(_, v)| size(v)).fold(0, usize::saturating_add);
    if count.saturating_mul(values) > MOST_VALUES {
        let wanted = "at most 1048576 values of arguments, of all groups together";
        return Err(Error::Range { argument: "groups", value: count as f64, wanted }.into());
    }
    let each = |args: &Args| {
        (0..count).map(|g| for_group(args, g, count)).collect::<Result<Vec<_>, ArgError>>()
    };

    let kind = match name {
        "reduce_lr_on_plateau" => {
            let mut all = Vec::new();
            for args in each(&args)? {
                let mut schedule = ReduceLrOnPlateau::default();
                args.apply(name, &mut schedule)?;
                all.push(schedule);
            }
            let min_lr: Vec<f64> = all.iter().map(|s| s.min_lr).collect();
            let s = all.first().copied().unwrap_or_default();
            let schedule = ReduceLrOnPlateau {
                mode: s.mode,
                factor: s.factor,
                patience: s.patience,
                threshold: s.threshold,
                threshold_mode: s.threshold_mode,
                cooldown: s.cooldown,
                min_lr,
                eps: s.eps,
            };
            schedule.check(count)?;
            Kind::Plateau(schedule)
        }
        "greedy" => {
            let mut all = Vec::new();
            for args in each(&args)? {
                let mut schedule = Greedy::default();
                args.apply(name, &mut schedule)?;
                all.push(schedule);
            }
            let min_lr: Vec<f64> = all.iter().map(|s| s.min_lr).collect();
            let max_lr: Vec<f64> = all.iter().map(|s| s.max_lr).collect();
            let s = all.first().copied().unwrap_or_default();
            let schedule = Greedy {
                mode: s.mode,
                factor: s.factor,
                patience: s.patience,
                threshold: s.threshold,
                threshold_mode: s.threshold_mode,
                cooldown: s.cooldown,
                warmup: s.warmup,
                min_lr,
                max_lr,
                eps: s.eps,
                smooth: s.smooth,
                window_size: s.window_size,
                reset_start: s.reset_start,
            };
            schedule.check(count)?;
            Kind::Greedy(schedule)
        }
        "adafactor_schedule" => {
            let mut all = AdafactorSchedule::default();
            args.apply(name, &mut all)?;
            let own = groups.changes.iter().map(|changes| {
                let mut own = all;
                changes.apply(name, &mut own).map(|()| own)
            });
            Kind::Adafactor(own.collect::<Result<_, _>>()?)
        }
        _ => {
            let schedules = each(&args)?.into_iter();
            let schedules = schedules.map(|args| pure(name, args, groups.default_lr));
            Kind::Pure(schedules.collect::<Result<_, _>>()?)
        }
    };
    Scheduler::new(name, made_of, kind, groups, last_epoch)
}

/// The most values that arguments may have, of all groups together.
const MOST_VALUES: usize = 1 << 20;

/// How many values a value consists of; long strings count as several.
fn size(value: &Value) -> usize {
    let list = |sizes: &mut dyn Iterator<Item = usize>| sizes.fold(1, usize::saturating_add);
    match value {
        Value::Str(s) => 1 + s.len() / 16,
        Value::List(l) => list(&mut l.iter().map(size)),
        Value::Map(m) => list(&mut m.iter().map(|(k, v)| size(v).saturating_add(k.len() / 16))),
        _ => 1,
    }
}

/// A schedule at work for all groups of an optimizer.
///
/// It knows what it was made of, so that a checkpoint can tell whether it goes on with the same one.
#[derive(Debug)]
pub struct Scheduler {
    name: String,
    args: Args,
    /// What has [replaced](Scheduler::resume) some of them.
    replaced: Args,
    kind: Kind,
    /// The groups' `initial_lr`.
    base_lrs: Vec<f64>,
    /// Their rates when the schedule was made.
    first_lrs: Vec<f64>,
    /// Rates are numbers of type `f32`.
    single: bool,
    state: SchedulerState,
}

/// What a [`Scheduler`] remembers: all that a checkpoint needs.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerState {
    /// Scheduler steps made.
    pub step: u64,
    /// The rate of each group.
    pub lrs: Vec<f64>,
    /// State of [`ReduceLrOnPlateau`].
    pub plateau: Option<PlateauState>,
    /// State of [`Greedy`], and its window: the numbers that have been in use.
    pub greedy: Option<(GreedyState, Vec<f64>)>,
    /// State of [`AdafactorSchedule`], for each group.
    pub adafactor: Vec<AdafactorScheduleState>,
}

#[derive(Debug)]
enum Kind {
    /// One for each group.
    Pure(Vec<AnySchedule>),
    Plateau(ReduceLrOnPlateau<Vec<f64>>),
    Greedy(Greedy<Vec<f64>, Vec<f64>>),
    /// One for each group.
    Adafactor(Vec<AdafactorSchedule>),
}

impl Scheduler {
    fn new(
        name: &str,
        args: &Args,
        kind: Kind,
        groups: Groups,
        last_epoch: i64,
    ) -> Result<Scheduler, ArgError> {
        let step = u64::try_from(last_epoch.saturating_add(1)).unwrap_or(0);
        let mut state = SchedulerState {
            step,
            lrs: groups.lrs.clone(),
            plateau: None,
            greedy: None,
            adafactor: Vec::new(),
        };
        match &kind {
            Kind::Pure(schedules) => {
                let groups = schedules.iter().zip(&groups.initial_lrs).zip(&mut state.lrs);
                for ((schedule, initial), lr) in groups {
                    *lr = match initial {
                        Some(base) => schedule.join(*base, *lr, step),
                        None if last_epoch >= 0 => schedule.join(*lr, *lr, step),
                        None => schedule.start(*lr),
                    };
                }
            }
            Kind::Plateau(schedule) => state.plateau = Some(schedule.start()),
            Kind::Greedy(schedule) => state.greedy = Some((schedule.start(), Vec::new())),
            Kind::Adafactor(schedules) => {
                state.adafactor = schedules.iter().map(AdafactorSchedule::start).collect();
                state.lrs = state.adafactor.iter().map(|state| state.lr).collect();
            }
        }
        let initial = groups.initial_lrs.iter().zip(&groups.lrs);
        let base_lrs = initial.map(|(initial, &lr)| initial.unwrap_or(lr)).collect();
        let (name, args, replaced) = (name.to_owned(), args.clone(), Args::new());
        let (first_lrs, single) = (groups.lrs, false);
        Ok(Scheduler { name, args, replaced, kind, base_lrs, first_lrs, single, state })
    }

    /// The name that it was [built](build) by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The arguments that it was built with.
    #[must_use]
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// What counts instead of some of them since it was [resumed](Self::resume).
    #[must_use]
    pub fn replaced(&self) -> &Args {
        &self.replaced
    }

    /// The same for an optimizer whose rates are `f32`, as torchao's: f32(rate) · f32(λ), rounded
    /// once more. For the schedules of Transformers, which multiply a group's own rate by λ or,
    /// driven by a metric, the one in force.
    ///
    /// ```
    /// use bitstep::{args::Args, schedule::build};
    /// let args = Args::parse("lr=0.3, num_warmup_steps=0, num_training_steps=3")?;
    /// let mut scheduler = build("linear", &args)?.in_single();
    /// assert_eq!(scheduler.lrs(), [f64::from(0.3f32)]);
    /// assert_eq!(scheduler.step(&[])?, [f64::from(0.3f32 * (2.0 / 3.0) as f32)]);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[must_use]
    pub fn in_single(mut self) -> Scheduler {
        self.single = true;
        let (step, state) = (self.state.step, &mut self.state);
        match &self.kind {
            Kind::Pure(schedules) => {
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

    /// The rates in force.
    #[must_use]
    pub fn lrs(&self) -> &[f64] {
        &self.state.lrs
    }

    /// Takes these for the rates in force, where they have been changed by hand: schedules that multiply the rate in
    /// force go on from them, as the reference's do; those with a closed form don't look. See
    /// [`Optimizer::step_schedule`](crate::optimizer::Optimizer::step_schedule).
    ///
    /// # Errors
    /// Not one for each group; nothing has changed then.
    pub fn set_lrs(&mut self, lrs: &[f64]) -> Result<(), Error> {
        check_groups("lrs", &lrs, self.state.lrs.len())?;
        self.state.lrs.copy_from_slice(lrs);
        Ok(())
    }

    /// The momentum (or β₁) that the last step, or else the construction, has set for a group; `None` if it has left it
    /// alone, as all schedules but [`TorchOneCycle`] and [`TorchCyclic`] do.
    #[must_use]
    pub fn momentum(&self, group: usize) -> Option<f64> {
        let Kind::Pure(schedules) = &self.kind else { return None };
        let schedule = schedules.get(group)?;
        match self.state.step {
            0 => schedule.start_momentum(),
            step => schedule.momentum(step),
        }
    }

    /// Makes a scheduler step and returns the new rates.
    ///
    /// `given` is the metric for `reduce_lr_on_plateau` and `greedy`, the RMS of each group's first parameter for
    /// `adafactor_schedule`, and nothing for all others.
    ///
    /// # Errors
    /// The wrong number of given numbers, or a step that the reference refuses; nothing has changed then.
    pub fn step(&mut self, given: &[f64]) -> Result<&[f64], Error> {
        let SchedulerState { step, lrs, plateau, greedy, adafactor } = &mut self.state;
        let wanted = match &self.kind {
            Kind::Pure(_) => 0,
            Kind::Plateau(_) | Kind::Greedy(_) => 1,
            Kind::Adafactor(_) => lrs.len(),
        };
        if given.len() != wanted {
            return Err(Error::Length { argument: "given", got: given.len(), wanted });
        }
        let next = step.saturating_add(1);
        match (&self.kind, given) {
            (Kind::Pure(schedules), _) => {
                if schedules.iter().filter_map(|s| s.last_step()).any(|last| next > last) {
                    return Err(PAST_THE_END);
                }
                for ((schedule, &base), lr) in schedules.iter().zip(&self.base_lrs).zip(lrs) {
                    *lr = match self.single {
                        true => single(base, schedule.lr(1.0, next)),
                        false => schedule.next(base, *lr, next),
                    };
                }
            }
            (Kind::Plateau(schedule), &[metric]) => {
                if let Some(state) = plateau {
                    schedule.step(state, metric, lrs)?;
                }
            }
            (Kind::Greedy(schedule), &[metric]) => {
                if let Some((state, window)) = greedy {
                    if window.len() < schedule.window_len() && window.len() <= state.at {
                        let more = window.try_reserve(1);
                        let len = window.len().saturating_add(1);
                        more.map_err(|_| Error::Memory { argument: "window", len })?;
                        window.push(0.0);
                    }
                    schedule.step(state, window, metric, &self.first_lrs, lrs)?;
                }
            }
            (Kind::Adafactor(schedules), _) => {
                let states = schedules.iter().zip(adafactor);
                for (((schedule, state), &rms), lr) in states.zip(given).zip(lrs) {
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

    /// All that a checkpoint needs.
    #[must_use]
    pub fn state(&self) -> &SchedulerState {
        &self.state
    }

    /// Whether this is a state of the same schedule.
    ///
    /// # Errors
    /// A state of another schedule or number of groups.
    pub fn check_state(&self, state: &SchedulerState) -> Result<(), Error> {
        let size = match &self.kind {
            Kind::Greedy(schedule) => schedule.window_len(),
            _ => 0,
        };
        // The window has room for what is said to be in it, and no more than it may have.
        let fits = state.greedy.as_ref().is_none_or(|(g, window)| {
            g.len.max(g.at) <= window.len() && window.len() <= size && g.at < size.max(1)
        });
        let shape = |s: &SchedulerState| {
            (s.lrs.len(), s.plateau.is_some(), s.greedy.is_some(), s.adafactor.len())
        };
        if !fits || shape(state) != shape(&self.state) {
            return Err(Error::Invalid { argument: "state", wanted: "a state of this schedule" });
        }
        Ok(())
    }

    /// Goes on from a state of the same schedule that had other arguments, as the reference does where its checkpoint
    /// has them: its base rates (`groups`), the patience of [`ReduceLrOnPlateau`].
    ///
    /// # Errors
    /// An argument that [`build`] refuses, or a state of another schedule or number of groups; nothing has changed then.
    pub fn resume(&mut self, replaced: &Args, state: SchedulerState) -> Result<(), ArgError> {
        *self = self.resumed(replaced, state)?;
        Ok(())
    }

    /// [`resume`](Self::resume), of a copy.
    ///
    /// # Errors
    /// As there.
    pub fn resumed(&self, replaced: &Args, state: SchedulerState) -> Result<Scheduler, ArgError> {
        let mut args = self.args.clone();
        replaced.iter().for_each(|(name, value)| args.set(name, value.clone()));
        let mut next = build(&self.name, &args)?;
        if self.single {
            next = next.in_single();
        }
        next.restore(state)?;
        Ok(Scheduler { args: self.args.clone(), replaced: replaced.clone(), ..next })
    }

    /// Goes on from a state of the same schedule.
    ///
    /// # Errors
    /// A state of another schedule or number of groups; nothing has changed then.
    pub fn restore(&mut self, state: SchedulerState) -> Result<(), Error> {
        self.check_state(&state)?;
        self.state = state;
        Ok(())
    }
}

/// A product of numbers of type `f32`.
fn single(a: f64, b: f64) -> f64 {
    f64::from(a as f32 * b as f32)
}

/// The optimizer's part of the arguments.
struct Groups {
    /// The optimizer's own rate.
    default_lr: f64,
    lrs: Vec<f64>,
    /// Those that were there before the schedule.
    initial_lrs: Vec<Option<f64>>,
    /// What else is each group's own.
    changes: Vec<Args>,
}

impl Groups {
    fn take(name: &str, args: &mut Args) -> Result<Groups, ArgError> {
        let number = |argument: &str, value: Option<&Value>| match value {
            None | Some(Value::None) => Ok(None),
            Some(v) => v.as_f64().map(Some).ok_or_else(|| bad(argument, v, "a number")),
        };
        let lr = args.take("lr");
        // The rates themselves may be a list.
        let list = lr.as_ref().and_then(Value::as_list).map(<[Value]>::to_vec);
        let default_lr = match &list {
            Some(_) => None,
            None => number("lr", lr.as_ref())?,
        };
        let default_lr = default_lr.unwrap_or(1e-3);
        // An argument of Adafactor's schedule; of any other optimizer's groups, if at all.
        let initial = match name {
            "adafactor_schedule" => None,
            _ => number("initial_lr", args.take("initial_lr").as_ref())?,
        };
        let groups = match (args.take("groups"), list) {
            (None | Some(Value::None), None) => {
                alloc::vec![Value::Map(Vec::new())]
            }
            (None | Some(Value::None), Some(lrs)) => {
                lrs.into_iter().map(|lr| Value::Map(alloc::vec![("lr".to_owned(), lr)])).collect()
            }
            (Some(Value::List(groups)), None) => groups,
            (Some(Value::List(_)), Some(_)) => {
                return Err(
                    Error::Invalid { argument: "lr", wanted: "a number, beside groups" }.into()
                );
            }
            (Some(v), _) => return Err(bad("groups", &v, "a list of dictionaries")),
        };
        let (mut lrs, mut initial_lrs, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for group in &groups {
            let Value::Map(group) = group else {
                return Err(bad("groups", group, "a list of dictionaries"));
            };
            let get = |key: &str| group.iter().find(|(k, _)| k == key).map(|(_, v)| v);
            let lr = number("lr", get("lr"))?.unwrap_or(default_lr);
            lrs.push(lr);
            initial_lrs.push(number("initial_lr", get("initial_lr"))?.or(initial));
            let rest =
                group.iter().filter(|(k, _)| !["params", "lr", "initial_lr"].contains(&&**k));
            changes.push(rest.cloned().collect());
        }
        Ok(Groups { default_lr, lrs, initial_lrs, changes })
    }
}

/// Arguments that may be a list with a number for each group.
const PER_GROUP: &[&str] = &["base_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"];

/// The arguments as one group sees them, those of schedules within included.
fn for_group(args: &Args, group: usize, groups: usize) -> Result<Args, ArgError> {
    let resolve = |name: &str, value: &Value| match value.as_list() {
        Some(list) if PER_GROUP.contains(&name) => list.get(group).cloned().ok_or(Error::Length {
            argument: PER_GROUP.iter().find(|n| **n == name).unwrap_or(&"groups"),
            got: list.len(),
            wanted: groups,
        }),
        _ => Ok(value.clone()),
    };
    for &name in PER_GROUP {
        if let Some(list) = args.get(name).and_then(Value::as_list)
            && list.len() != groups
        {
            let (argument, got) = (name, list.len());
            return Err(Error::Length { argument, got, wanted: groups }.into());
        }
    }
    let resolved = args.iter().map(|(n, v)| Ok((n.to_owned(), resolve(n, v)?)));
    let mut resolved: Args = resolved.collect::<Result<Vec<_>, Error>>()?.into_iter().collect();
    if let Some(Value::List(schedulers)) = resolved.get("schedulers") {
        let within = schedulers.iter().map(|s| {
            let (name, args) = name_and_args("schedulers", s)?;
            let args = for_group(&args, group, groups)?;
            let args = args.iter().map(|(n, v)| (n.to_owned(), v.clone())).collect();
            Ok(Value::List(alloc::vec![Value::Str(name), Value::Map(args)]))
        });
        resolved.set("schedulers", Value::List(within.collect::<Result<_, ArgError>>()?));
    }
    Ok(resolved)
}

/// A schedule that is a function of the step, for one group. `lr` is the optimizer's.
fn pure(name: &str, mut args: Args, lr: f64) -> Result<AnySchedule, ArgError> {
    const STEPS: &[&str] = &["num_warmup_steps", "num_training_steps"];
    if matches!(name, "polynomial" | "cosine_with_min_lr" | "cosine_warmup_with_min_lr") {
        args.set("lr_init", lr);
    }
    match name {
        "constant" => read(name, &args, Constant, &[]),
        "constant_with_warmup" => {
            read(name, &args, ConstantWithWarmup::default(), &["num_warmup_steps"])
        }
        "cosine" => read(name, &args, Cosine::default(), STEPS),
        "cosine_warmup_with_min_lr" => read(name, &args, CosineWarmupWithMinLr::default(), STEPS),
        "cosine_with_min_lr" => read(name, &args, CosineWithMinLr::default(), STEPS),
        "cosine_with_restarts" => read(name, &args, CosineWithRestarts::default(), STEPS),
        "create_optimizer" => {
            let required = &["init_lr", "num_train_steps", "num_warmup_steps"];
            read(name, &args, CreateOptimizer::default(), required)
        }
        "inverse_sqrt" => read(name, &args, InverseSqrt::default(), &["num_warmup_steps"]),
        "linear" => read(name, &args, Linear::default(), STEPS),
        "polynomial" => read(name, &args, Polynomial::default(), STEPS),
        "torch_constant" => read(name, &args, TorchConstant::default(), &[]),
        "torch_cosine_annealing" => read(name, &args, TorchCosineAnnealing::default(), &["T_max"]),
        "torch_cosine_annealing_warm_restarts" => {
            read(name, &args, TorchCosineAnnealingWarmRestarts::default(), &["T_0"])
        }
        "torch_cyclic" => read(name, &args, TorchCyclic::default(), &["base_lr", "max_lr"]),
        "torch_exponential" => read(name, &args, TorchExponential::default(), &["gamma"]),
        "torch_linear" => read(name, &args, TorchLinear::default(), &[]),
        "torch_one_cycle" => read(name, &args, TorchOneCycle::default(), &["max_lr"]),
        "torch_polynomial" => read(name, &args, TorchPolynomial::default(), &[]),
        "torch_step" => read(name, &args, TorchStep::default(), &["step_size"]),
        "warmup_stable_decay" => {
            let required = &["num_warmup_steps", "num_decay_steps"];
            read(name, &args, WarmupStableDecay::default(), required)
        }
        "torch_multi_step" => {
            let milestones: Vec<u64> = steps(name, "milestones", &mut args)?;
            read(name, &args, TorchMultiStep { milestones, gamma: 0.1 }, &[])
        }
        "torch_chained" => {
            let schedulers = schedulers(name, &mut args, lr)?;
            nothing_left(name, &args)?;
            checked(TorchChained { schedulers })
        }
        "torch_sequential" => {
            let schedulers = schedulers(name, &mut args, lr)?;
            let milestones: Vec<u64> = steps(name, "milestones", &mut args)?;
            nothing_left(name, &args)?;
            checked(TorchSequential { schedulers, milestones })
        }
        "warm_up" => {
            let required = "decay_schedule_fn";
            let decay = args.take(required).ok_or_else(|| missing(name, required))?;
            let schedule = WarmUp {
                initial_learning_rate: 0.0,
                decay_schedule_fn: decay_of(&decay)?,
                warmup_steps: 0,
                power: 1.0,
            };
            read(name, &args, schedule, &["initial_learning_rate", "warmup_steps"])
        }
        "adafactor_schedule" | "greedy" | "reduce_lr_on_plateau" => {
            let wanted = "schedules that depend on the step alone";
            Err(Error::Invalid { argument: "schedulers", wanted }.into())
        }
        _ => Err(unknown_name(name)),
    }
}

/// `schedule` with its arguments, of which some have no default.
fn read<S: Schedule + Hyper + Send + Sync + 'static>(
    name: &str,
    args: &Args,
    mut schedule: S,
    required: &[&'static str],
) -> Result<AnySchedule, ArgError> {
    args.apply(name, &mut schedule)?;
    match required.iter().find(|r| args.get(r).is_none()) {
        Some(argument) => Err(missing(name, argument)),
        None => checked(schedule),
    }
}

fn checked(schedule: impl Schedule + Send + Sync + 'static) -> Result<AnySchedule, ArgError> {
    schedule.check()?;
    Ok(Box::new(schedule))
}

/// The schedules of a container.
fn schedulers(name: &str, args: &mut Args, lr: f64) -> Result<Vec<AnySchedule>, ArgError> {
    let list = args.take("schedulers").ok_or_else(|| missing(name, "schedulers"))?;
    let wanted = "a list of dictionaries";
    let list = list.as_list().ok_or_else(|| bad("schedulers", &list, wanted))?;
    let within = list.iter().map(|value| {
        let (within, args) = name_and_args("schedulers", value)?;
        Ok((name_of_class(&within).map_or(within, str::to_owned), args))
    });
    let mut within = within.collect::<Result<Vec<(String, Args)>, ArgError>>()?;

    share_momenta(&mut within);
    // OneCycleLR keeps its rates in the group: the last one made decides for all.
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

    let build = |(i, (within, mut args)): (usize, (String, Args))| {
        let within = within.as_str();
        if name == "torch_sequential" {
            // SequentialLR can't begin others again, and counts those within one step off.
            let refused = within == "torch_sequential" || (within == "torch_chained" && i > 0);
            if refused {
                let wanted = "no SequentialLR, and a ChainedScheduler only at the start";
                return Err(Error::Invalid { argument: "schedulers", wanted }.into());
            }
        }
        match args.take("last_epoch").map(|v| v.as_i64()) {
            None | Some(Some(-1)) => pure(within, args, lr),
            _ => Err(Error::Invalid { argument: "last_epoch", wanted: "-1 within others" }.into()),
        }
    };
    within.into_iter().enumerate().map(build).collect()
}

/// OneCycleLR takes its momenta from the group, where each of them and each CyclicLR leaves its own: the last one
/// made decides for all.
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
        last.iter().for_each(|(name, value)| args.set(name, value.clone()));
    }
}

/// A list of steps.
fn steps(name: &str, argument: &'static str, args: &mut Args) -> Result<Vec<u64>, ArgError> {
    let list = args.take(argument).ok_or_else(|| missing(name, argument))?;
    let steps = list.as_list().and_then(|l| l.iter().map(Value::as_u64).collect());
    steps.ok_or_else(|| bad(argument, &list, "a list of whole numbers, at least 0"))
}

fn numbers(name: &str, argument: &'static str, args: &mut Args) -> Result<Vec<f64>, ArgError> {
    let list = args.take(argument).ok_or_else(|| missing(name, argument))?;
    let numbers = list.as_list().and_then(|l| l.iter().map(Value::as_f64).collect());
    numbers.ok_or_else(|| bad(argument, &list, "a list of numbers"))
}

fn nothing_left(name: &str, args: &Args) -> Result<(), ArgError> {
    args.apply(name, &mut Constant)
}

/// An unknown argument of `name` may be meant for one that no field of its schedule stands for.
fn nearer(error: ArgError, name: &str) -> ArgError {
    let ArgError::UnknownArgument { of, argument, nearest: field } = error else { return error };
    let apart: &[&str] = match of.as_str() {
        "torch_chained" => &["schedulers"],
        "torch_multi_step" => &["milestones"],
        "torch_sequential" => &["schedulers", "milestones"],
        "warm_up" => &["decay_schedule_fn"],
        "PiecewiseConstantDecay" => &["boundaries", "values"],
        _ => &[],
    };
    let optimizers: &[&str] =
        if of == name { &["lr", "groups", "initial_lr", "last_epoch"] } else { &[] };
    let known = field.into_iter().chain(apart.iter().chain(optimizers).copied());
    let nearest = nearest(&argument, known);
    ArgError::UnknownArgument { of, argument, nearest }
}

/// What `warm_up` runs after its warm-up: a number, or a class of Keras with its arguments.
fn decay_of(value: &Value) -> Result<AnyDecay, ArgError> {
    if let Some(constant) = value.as_f64() {
        return Ok(Box::new(constant as f32));
    }
    let (class, mut args) = name_and_args("decay_schedule_fn", value)?;
    let class: String = class.rsplit('.').next().unwrap_or("").to_lowercase();
    let class: String = class.replace('_', "").replace("keras", "");
    match class.trim_end_matches("schedule") {
        "polynomialdecay" | "polynomial" => {
            decay(&args, PolynomialDecay::default(), &["initial_learning_rate", "decay_steps"])
        }
        "exponentialdecay" | "exponential" => {
            let required = &["initial_learning_rate", "decay_steps", "decay_rate"];
            decay(&args, ExponentialDecay::default(), required)
        }
        "inversetimedecay" | "inversetime" => {
            let required = &["initial_learning_rate", "decay_steps", "decay_rate"];
            decay(&args, InverseTimeDecay::default(), required)
        }
        "cosinedecay" | "cosine" => {
            decay(&args, CosineDecay::default(), &["initial_learning_rate", "decay_steps"])
        }
        "cosinedecayrestarts" | "cosinerestarts" => {
            let required = &["initial_learning_rate", "first_decay_steps"];
            decay(&args, CosineDecayRestarts::default(), required)
        }
        "piecewiseconstantdecay" | "piecewiseconstant" => {
            let boundaries: Vec<f64> = numbers("piecewise_constant", "boundaries", &mut args)?;
            let values: Vec<f64> = numbers("piecewise_constant", "values", &mut args)?;
            args.take("name");
            nothing_left("PiecewiseConstantDecay", &args)?;
            let (got, wanted) = (values.len(), boundaries.len().saturating_add(1));
            if got != wanted {
                return Err(Error::Length { argument: "values", got, wanted }.into());
            }
            Ok(Box::new(PiecewiseConstantDecay { boundaries, values }))
        }
        "warmup" => {
            let required = "decay_schedule_fn";
            let within = args.take(required).ok_or_else(|| missing("warm_up", required))?;
            let decay_schedule_fn = decay_of(&within)?;
            let warm_up = WarmUp {
                initial_learning_rate: 0.0,
                decay_schedule_fn,
                warmup_steps: 0,
                power: 1.0,
            };
            decay(&args, warm_up, &["initial_learning_rate", "warmup_steps"])
        }
        _ => Err(ArgError::UnknownName {
            kind: "decay",
            name: class.clone(),
            nearest: nearest(
                &class,
                [
                    "PolynomialDecay",
                    "ExponentialDecay",
                    "InverseTimeDecay",
                    "CosineDecay",
                    "CosineDecayRestarts",
                    "PiecewiseConstantDecay",
                ],
            ),
        }),
    }
}

fn decay<D: KerasDecay + Hyper + Send + Sync + 'static>(
    args: &Args,
    mut decay: D,
    required: &[&'static str],
) -> Result<AnyDecay, ArgError> {
    args.apply("decay_schedule_fn", &mut decay)?;
    match required.iter().find(|r| args.get(r).is_none()) {
        Some(argument) => Err(missing("decay_schedule_fn", argument)),
        None => Ok(Box::new(decay)),
    }
}

/// A schedule within another: `[name, {…}]`, or a dictionary with its name and arguments.
fn name_and_args(argument: &'static str, value: &Value) -> Result<(String, Args), ArgError> {
    const NAME: &[&str] =
        &["name", "class_name", "class", "type", "scheduler", "schedule", "reference", "kind"];
    const ARGS: &[&str] = &["hyper", "config", "kwargs", "args", "arguments"];
    let wrong = || bad(argument, value, "a dictionary with a name and arguments");
    match value {
        Value::Str(name) => Ok((name.clone(), Args::new())),
        Value::List(pair) => match pair.as_slice() {
            [Value::Str(name), Value::Map(args)] => {
                Ok((name.clone(), args.iter().cloned().collect()))
            }
            _ => Err(wrong()),
        },
        Value::Map(entries) => {
            let mut args: Args = entries.iter().cloned().collect();
            let key = NAME.iter().find(|key| args.get(key).is_some_and(|v| v.as_str().is_some()));
            let name = key.and_then(|key| args.take(key)).ok_or_else(wrong)?;
            let name = name.as_str().unwrap_or("").to_string();
            let within = ARGS.iter().find_map(|key| match args.get(key) {
                Some(Value::Map(entries)) => Some(entries.iter().cloned().collect()),
                _ => None,
            });
            // What Keras writes beside them.
            for other in ["module", "registered_name", "optimizer"] {
                args.take(other);
            }
            Ok((name, within.unwrap_or(args)))
        }
        _ => Err(wrong()),
    }
}

/// Our name of a reference's class or function, with or without its module.
fn name_of_class(class: &str) -> Option<&'static str> {
    const CLASSES: &[(&str, &str)] = &[
        ("ChainedScheduler", "torch_chained"),
        ("ConstantLR", "torch_constant"),
        ("CosineAnnealingLR", "torch_cosine_annealing"),
        ("CosineAnnealingWarmRestarts", "torch_cosine_annealing_warm_restarts"),
        ("CyclicLR", "torch_cyclic"),
        ("ExponentialLR", "torch_exponential"),
        ("LinearLR", "torch_linear"),
        ("MultiStepLR", "torch_multi_step"),
        ("OneCycleLR", "torch_one_cycle"),
        ("PolynomialLR", "torch_polynomial"),
        ("ReduceLROnPlateau", "reduce_lr_on_plateau"),
        ("SequentialLR", "torch_sequential"),
        ("StepLR", "torch_step"),
        ("get_constant_schedule", "constant"),
        ("get_constant_schedule_with_warmup", "constant_with_warmup"),
        ("get_cosine_schedule_with_warmup", "cosine"),
        ("get_cosine_with_hard_restarts_schedule_with_warmup", "cosine_with_restarts"),
        ("get_cosine_with_min_lr_schedule_with_warmup", "cosine_with_min_lr"),
        ("get_cosine_with_min_lr_schedule_with_warmup_lr_rate", "cosine_warmup_with_min_lr"),
        ("get_inverse_sqrt_schedule", "inverse_sqrt"),
        ("get_linear_schedule_with_warmup", "linear"),
        ("get_polynomial_decay_schedule_with_warmup", "polynomial"),
        ("get_wsd_schedule", "warmup_stable_decay"),
    ];
    let class = class.rsplit('.').next().unwrap_or(class);
    CLASSES.iter().find(|(c, _)| *c == class).map(|&(_, name)| name)
}

fn unknown_name(name: &str) -> ArgError {
    let nearest = nearest(name, NAMES.iter().copied());
    ArgError::UnknownName { kind: "schedule", name: name.to_owned(), nearest }
}

fn missing(of: &str, argument: &'static str) -> ArgError {
    ArgError::Missing { of: of.to_owned(), argument }
}

fn bad(argument: &str, value: &Value, wanted: &str) -> ArgError {
    let (argument, wanted) = (argument.to_owned(), wanted.to_owned());
    ArgError::Value { argument, value: value.clone(), wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(matches!(refused, ArgError::Refused(Error::Range { argument: "groups", .. })));
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
        let wanted = Error::Invalid { argument: "lr", wanted: "a number, beside groups" };
        assert_eq!(build("constant", &both).unwrap_err(), wanted.into());
    }

    #[test]
    fn class_is_known_with_and_without_its_module() {
        assert_eq!(name_of_class("StepLR"), Some("torch_step"));
        assert_eq!(name_of_class("torch.optim.lr_scheduler.StepLR"), Some("torch_step"));
        assert_eq!(name_of_class("transformers.get_wsd_schedule"), Some("warmup_stable_decay"));
        assert_eq!(name_of_class("StepLr"), None);
    }

    #[test]
    fn schedule_within_is_written_in_four_ways() {
        let gamma = Args::new().with("gamma", 0.5);
        let map = |entries: &[(&str, Value)]| {
            Value::Map(entries.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect())
        };
        let args = map(&[("gamma", 0.5.into())]);
        for value in [
            Value::List(alloc::vec!["S".into(), args.clone()]),
            map(&[("class_name", "S".into()), ("config", args.clone()), ("module", "m".into())]),
            map(&[("name", "S".into()), ("gamma", 0.5.into())]),
        ] {
            assert_eq!(name_and_args("schedulers", &value), Ok(("S".to_owned(), gamma.clone())));
        }
        assert_eq!(name_and_args("schedulers", &"S".into()), Ok(("S".to_owned(), Args::new())));

        for value in [Value::Int(1), args, Value::List(alloc::vec!["S".into()])] {
            match name_and_args("schedulers", &value) {
                Err(ArgError::Value { argument, value: got, .. }) => {
                    assert_eq!((argument.as_str(), &got), ("schedulers", &value));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn list_is_cut_to_the_groups_value_also_within_others() {
        let within = Args::new().with("max_lr", [3.0, 5.0]).with("milestones", [1i64, 2]);
        let within = within.iter().map(|(n, v)| (n.to_owned(), v.clone())).collect();
        let pair = Value::List(alloc::vec!["S".into(), Value::Map(within)]);
        let args = Args::new().with("schedulers", Value::List(alloc::vec![pair]));
        let got = for_group(&args, 1, 2).expect("two values for two groups");
        // A list that belongs to no group stays whole.
        let want = "[[\"S\", {\"max_lr\": 5.0, \"milestones\": [1, 2]}]]";
        assert_eq!(got.get("schedulers").map(Value::to_string).as_deref(), Some(want));
        let refused = Error::Length { argument: "max_lr", got: 2, wanted: 3 };
        assert_eq!(for_group(&args, 1, 3), Err(refused.into()));
    }

    #[test]
    fn what_no_field_stands_for_is_found_by_its_nearest_name_too() {
        for (of, wrong, right) in [
            ("torch_chained", "schedulrs", "schedulers"),
            ("torch_multi_step", "milestone", "milestones"),
            ("torch_sequential", "milestone", "milestones"),
            ("torch_sequential", "schedulrs", "schedulers"),
            ("warm_up", "decay_schedule", "decay_schedule_fn"),
            ("PiecewiseConstantDecay", "boundary", "boundaries"),
            ("PiecewiseConstantDecay", "value", "values"),
        ] {
            let unknown = ArgError::UnknownArgument {
                of: of.to_string(),
                argument: wrong.to_string(),
                nearest: None,
            };
            match nearer(unknown, "another") {
                ArgError::UnknownArgument { nearest, .. } => {
                    assert_eq!(nearest, Some(right), "{of}")
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn list_within_another_that_is_too_short_is_named() {
        let within = Value::Map(alloc::vec![("max_lr".to_string(), [3.0].into())]);
        let pair = Value::List(alloc::vec!["S".into(), within]);
        let args = Args::new().with("schedulers", Value::List(alloc::vec![pair]));
        let wanted = Error::Length { argument: "max_lr", got: 1, wanted: 2 };
        assert_eq!(for_group(&args, 1, 2), Err(wanted.into()));
    }
}
