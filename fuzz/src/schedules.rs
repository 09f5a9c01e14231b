//! The properties of every schedule, and trials of them.

use arbitrary::{Result, Unstructured};
use bitstep::hyper::{Args, Value};
use bitstep::schedule::{NAMES, Scheduler, SchedulerState, build};

use crate::input::{named, number, value};

/// A run of one schedule.
#[derive(Clone, Debug)]
pub struct ScheduleTrial {
    /// Its name.
    pub name: &'static str,
    /// Its arguments.
    pub args: Args,
    /// Whether every argument is of moderate size.
    pub moderate: bool,
    /// The metric at each step, for schedules that use one.
    pub metrics: Vec<f64>,
    /// Builds it: [`library_schedule`], except for one with a seeded fault.
    pub make: fn(&str, &Args) -> Box<dyn Scheduled>,
}

/// The interface of a schedule under test.
pub trait Scheduled {
    /// [`Scheduler::lrs`].
    fn lrs(&self) -> &[f64];
    /// [`Scheduler::step`]; false if refused.
    fn step(&mut self, metric: &[f64]) -> bool;
    /// [`Scheduler::state`].
    fn state(&self) -> &SchedulerState;
    /// [`Scheduler::restore`]; false if refused.
    fn restore(&mut self, state: SchedulerState) -> bool;
    /// Whether a step takes a metric.
    fn follows_metric(&self) -> bool;
}

impl Scheduled for Scheduler {
    fn lrs(&self) -> &[f64] {
        Scheduler::lrs(self)
    }
    fn step(&mut self, metric: &[f64]) -> bool {
        Scheduler::step(self, metric).is_ok()
    }
    fn state(&self) -> &SchedulerState {
        Scheduler::state(self)
    }
    fn restore(&mut self, state: SchedulerState) -> bool {
        Scheduler::restore(self, state).is_ok()
    }
    fn follows_metric(&self) -> bool {
        bitstep_trainer::follows_metric(self) || !Scheduler::state(self).adafactor.is_empty()
    }
}

/// A schedule of the library.
///
/// # Panics
/// If it refuses its arguments.
#[must_use]
pub fn library_schedule(name: &str, args: &Args) -> Box<dyn Scheduled> {
    Box::new(build(name, args).unwrap_or_else(|e| panic!("{name}: {e}")))
}

type Property = fn(&ScheduleTrial);

/// Every property, by name.
pub const SCHEDULE_PROPERTIES: &[(&str, Property)] = &[
    ("deterministic", deterministic),
    ("restorable", restorable),
    ("error_leaves_everything_untouched", error_leaves_everything_untouched),
    ("finite_and_never_negative", finite_and_never_negative),
];

/// Checks a property of a schedule. An input begins with a line that names the property and one that names the
/// schedule, or with bytes that choose them.
///
/// # Panics
/// If it does not hold.
pub fn schedules(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let names: Vec<&'static str> = SCHEDULE_PROPERTIES.iter().map(|(name, _)| *name).collect();
    let Ok(name) = named(&mut u, &names) else { return };
    let property = SCHEDULE_PROPERTIES.iter().find(|(known, _)| *known == name);
    let trial = named(&mut u, NAMES).and_then(|name| ScheduleTrial::new(&mut u, name));
    if let (Some((_, property)), Ok(trial)) = (property, trial) {
        property(&trial);
    }
}

/// The arguments of schedules, each with a range in which the learning rates are finite and not negative.
const ARGUMENTS: &[(&str, f64, f64)] = &[
    ("num_warmup_steps", 0.0, 20.0),
    ("num_training_steps", 21.0, 60.0),
    ("num_cycles", 0.25, 3.0),
    ("lr_end", 0.0, 1e-3),
    ("power", 0.5, 2.0),
    ("min_lr", 0.0, 1e-3),
    ("min_lr_rate", 0.0, 1.0),
    ("warmup_lr_rate", 0.0, 1.0),
    ("timescale", 1.0, 100.0),
    ("num_decay_steps", 1.0, 20.0),
    ("num_stable_steps", 0.0, 20.0),
    ("min_lr_ratio", 0.0, 1.0),
    ("initial_lr", 0.0, 1.0),
    ("factor", 0.1, 0.9),
    ("patience", 0.0, 5.0),
    ("threshold", 0.0, 0.1),
    ("cooldown", 0.0, 5.0),
    ("eps", 0.0, 1e-3),
    ("warmup", 0.0, 5.0),
    ("max_lr", 1e-3, 1.0),
    ("window_size", 1.0, 8.0),
    ("reset_start", 0.0, 8.0),
    ("gamma", 0.1, 1.0),
    ("step_size", 1.0, 10.0),
    ("T_max", 1.0, 40.0),
    ("T_0", 1.0, 10.0),
    ("T_mult", 1.0, 3.0),
    ("eta_min", 0.0, 1e-4),
    ("start_factor", 0.1, 1.0),
    ("end_factor", 0.1, 1.0),
    ("total_iters", 1.0, 20.0),
    ("base_lr", 0.0, 1e-3),
    ("step_size_up", 1.0, 20.0),
    ("step_size_down", 1.0, 20.0),
    ("total_steps", 2.0, 60.0),
    ("pct_start", 0.0, 1.0),
    ("div_factor", 1.0, 100.0),
    ("final_div_factor", 1.0, 1e5),
    ("initial_learning_rate", 0.0, 1.0),
    ("warmup_steps", 1.0, 20.0),
    ("init_lr", 1e-3, 1.0),
    ("num_train_steps", 21.0, 60.0),
];

/// The required arguments of a schedule.
fn required(name: &str) -> &'static [&'static str] {
    match name {
        "constant_with_warmup" | "inverse_sqrt" => &["num_warmup_steps"],
        "linear" | "cosine" | "cosine_with_restarts" | "polynomial" => {
            &["num_warmup_steps", "num_training_steps"]
        }
        "cosine_with_min_lr" | "cosine_warmup_with_min_lr" => {
            &["num_warmup_steps", "num_training_steps", "min_lr_rate"]
        }
        "warmup_stable_decay" => &["num_warmup_steps", "num_decay_steps", "num_stable_steps"],
        "create_optimizer" => &["init_lr", "num_train_steps", "num_warmup_steps"],
        "torch_cosine_annealing" => &["T_max"],
        "torch_cosine_annealing_warm_restarts" => &["T_0"],
        "torch_cyclic" => &["base_lr", "max_lr"],
        "torch_exponential" | "torch_multi_step" => &["gamma"],
        "torch_one_cycle" => &["max_lr", "total_steps"],
        "torch_step" => &["step_size"],
        "warm_up" => &["initial_learning_rate", "warmup_steps"],
        _ => &[],
    }
}

/// Whether an argument is an integer.
fn is_count(name: &str) -> bool {
    let counts = ["patience", "cooldown", "warmup", "T_max", "T_0", "T_mult", "total_iters"];
    name.contains("steps") && name != "steps"
        || name.contains("step_size")
        || counts.contains(&name)
        || ["window_size", "reset_start", "timescale"].contains(&name)
}

impl ScheduleTrial {
    /// A trial of one schedule.
    ///
    /// # Errors
    /// Never for want of bytes: what is missing is zero.
    pub fn new(u: &mut Unstructured<'_>, name: &'static str) -> Result<ScheduleTrial> {
        let (mut args, mut moderate) = (Args::new(), true);
        args.set("lr", f64::from(u.int_in_range(1u16..=1000)?) / 1000.0);
        let fit = |u: &mut Unstructured<'_>, name: &str| -> Result<Value> {
            let (_, low, high) = *ARGUMENTS.iter().find(|a| a.0 == name).expect("an argument");
            let x = low + (high - low) * f64::from(u.arbitrary::<u8>()?) / 255.0;
            Ok(if is_count(name) { Value::Int(x as i64) } else { Value::Float(x) })
        };
        for name in required(name) {
            args.set(name, fit(u, name)?);
        }
        match name {
            "torch_multi_step" => args.set("milestones", vec![3i64, 9, 9]),
            "warm_up" => args.set("decay_schedule_fn", fit(u, "max_lr")?),
            "torch_chained" | "torch_sequential" => {
                let within = ["torch_step", "torch_exponential", "torch_linear", "torch_cyclic"];
                let mut list = Vec::new();
                for _ in 0..2 {
                    let within = *u.choose(&within)?;
                    let mut map = Vec::new();
                    for name in required(within) {
                        map.push(((*name).to_owned(), fit(u, name)?));
                    }
                    list.push(Value::List(vec![Value::Str(within.to_owned()), Value::Map(map)]));
                }
                args.set("schedulers", Value::List(list));
                if name == "torch_sequential" {
                    args.set("milestones", vec![i64::from(u.arbitrary::<u8>()? % 9) + 1]);
                }
            }
            _ => {}
        }
        for _ in 0..u.int_in_range(0..=3)? {
            let argument = u.choose(ARGUMENTS)?.0;
            let value = fit(u, argument)?;
            let with = args.clone().with(argument, value);
            if build(name, &with).is_ok() {
                args = with;
            }
        }
        if u.ratio(1u8, 3u8)? {
            // Any value for any argument.
            moderate = false;
            for _ in 0..u.int_in_range(1..=3)? {
                let argument = u.choose(ARGUMENTS)?.0;
                let value = value(u)?;
                // A large window only takes memory.
                let big = argument == "window_size" && value.as_f64().is_none_or(|x| x > 4096.0);
                let with = args.clone().with(argument, value);
                if !big && build(name, &with).is_ok() {
                    args = with;
                }
            }
            if u.ratio(1u8, 4u8)? {
                let with = args.clone().with("last_epoch", value(u)?);
                if build(name, &with).is_ok() {
                    args = with;
                }
            }
        }
        let steps = u.int_in_range(0..=80)?;
        let metrics = (0..steps)
            .map(|_| if moderate { Ok(f64::from(u.arbitrary::<u8>()?) / 16.0) } else { number(u) });
        let metrics = metrics.collect::<Result<_>>()?;
        Ok(ScheduleTrial { name, args, moderate, metrics, make: library_schedule })
    }

    fn start(&self) -> Box<dyn Scheduled> {
        (self.make)(self.name, &self.args)
    }
}

/// A step, with the metric if the schedule uses one; false where the schedule ends.
fn step(scheduler: &mut dyn Scheduled, metric: f64) -> bool {
    let metric: &[f64] = if scheduler.follows_metric() { &[metric] } else { &[] };
    scheduler.step(metric)
}

fn bits(scheduler: &dyn Scheduled) -> (String, Vec<u64>) {
    let bits = |x: &f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
    (format!("{:?}", scheduler.state()), scheduler.lrs().iter().map(bits).collect())
}

/// State and learning rates after each step of a trial.
fn rates(trial: &ScheduleTrial) -> Vec<(String, Vec<u64>)> {
    let mut scheduler = trial.start();
    let mut rates = vec![bits(&*scheduler)];
    for &metric in &trial.metrics {
        if !step(&mut *scheduler, metric) {
            break;
        }
        rates.push(bits(&*scheduler));
    }
    rates
}

fn deterministic(trial: &ScheduleTrial) {
    assert_eq!(rates(trial), rates(trial));
}

/// A schedule restored from saved state continues with the bits of the original.
fn restorable(trial: &ScheduleTrial) {
    let all = rates(trial);
    let middle = all.len() / 2;
    let mut first = trial.start();
    for &metric in &trial.metrics[..middle] {
        step(&mut *first, metric);
    }
    let mut second = trial.start();
    assert!(second.restore(first.state().clone()), "a state of the same schedule");
    let mut rest = vec![bits(&*second)];
    for &metric in &trial.metrics[middle..] {
        if !step(&mut *second, metric) {
            break;
        }
        rest.push(bits(&*second));
    }
    assert_eq!(all[middle..], rest);
}

/// A refused step or state changes nothing.
fn error_leaves_everything_untouched(trial: &ScheduleTrial) {
    let mut scheduler = trial.start();
    for &metric in trial.metrics.iter().take(5) {
        step(&mut *scheduler, metric);
    }
    let before = bits(&*scheduler);
    assert!(!scheduler.step(&[1.0, 2.0, 3.0]), "three numbers for one group");
    assert_eq!(bits(&*scheduler), before);
    let mut other = scheduler.state().clone();
    other.lrs.push(1.0);
    assert!(!scheduler.restore(other), "a state of two groups");
    assert_eq!(bits(&*scheduler), before);
}

/// Arguments of moderate size give learning rates that are finite and not negative.
fn finite_and_never_negative(trial: &ScheduleTrial) {
    if !trial.moderate {
        return;
    }
    let mut scheduler = trial.start();
    for (t, &metric) in trial.metrics.iter().enumerate() {
        let lr = scheduler.lrs()[0];
        assert!(
            lr.is_finite() && lr >= 0.0,
            "{} {:?}: {lr:e} after {t} steps",
            trial.name,
            trial.args
        );
        if !step(&mut *scheduler, metric) {
            return;
        }
    }
}
