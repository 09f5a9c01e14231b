//! From a name and arguments to a running schedule. How each is made of arguments stands in its own file.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::arguments::{Groups, Made, Told, bad, nearer, read};
use super::scheduler::Kind;
use super::*;
use crate::args::{ArgError, Args, nearest};

/// Every schedule.
const LIST: &[Entry] = &[
    Entry::with("adafactor_schedule", "AdafactorSchedule", &[], adafactor_schedule::MAKE),
    Entry::of::<Constant>("constant", "get_constant_schedule"),
    Entry::of::<ConstantWithWarmup>("constant_with_warmup", "get_constant_schedule_with_warmup"),
    Entry::of::<Cosine>("cosine", "get_cosine_schedule_with_warmup"),
    Entry::of::<CosineWarmupWithMinLr>(
        "cosine_warmup_with_min_lr",
        "get_cosine_with_min_lr_schedule_with_warmup_lr_rate",
    ),
    Entry::of::<CosineWithMinLr>(
        "cosine_with_min_lr",
        "get_cosine_with_min_lr_schedule_with_warmup",
    ),
    Entry::of::<CosineWithRestarts>(
        "cosine_with_restarts",
        "get_cosine_with_hard_restarts_schedule_with_warmup",
    ),
    Entry::of::<CreateOptimizer>("create_optimizer", "create_optimizer"),
    Entry::with("greedy", "get_greedy_schedule", &[], greedy::MAKE),
    Entry::of::<InverseSqrt>("inverse_sqrt", "get_inverse_sqrt_schedule"),
    Entry::of::<Linear>("linear", "get_linear_schedule_with_warmup"),
    Entry::of::<Polynomial>("polynomial", "get_polynomial_decay_schedule_with_warmup"),
    Entry::with("reduce_lr_on_plateau", "ReduceLROnPlateau", &[], reduce_lr_on_plateau::MAKE),
    Entry::with("torch_chained", "ChainedScheduler", &["schedulers"], torch_chained::MAKE),
    Entry::of::<TorchConstant>("torch_constant", "ConstantLR"),
    Entry::of::<TorchCosineAnnealing>("torch_cosine_annealing", "CosineAnnealingLR"),
    Entry::of::<TorchCosineAnnealingWarmRestarts>(
        "torch_cosine_annealing_warm_restarts",
        "CosineAnnealingWarmRestarts",
    ),
    Entry::of::<TorchCyclic>("torch_cyclic", "CyclicLR"),
    Entry::of::<TorchExponential>("torch_exponential", "ExponentialLR"),
    Entry::of::<TorchLinear>("torch_linear", "LinearLR"),
    Entry::with("torch_multi_step", "MultiStepLR", &["milestones"], torch_multi_step::MAKE),
    Entry::of::<TorchOneCycle>("torch_one_cycle", "OneCycleLR"),
    Entry::of::<TorchPolynomial>("torch_polynomial", "PolynomialLR"),
    Entry::with(
        "torch_sequential",
        "SequentialLR",
        &["schedulers", "milestones"],
        torch_sequential::MAKE,
    ),
    Entry::of::<TorchStep>("torch_step", "StepLR"),
    Entry::with("warm_up", "WarmUp", &["decay_schedule_fn"], warm_up::MAKE),
    Entry::of::<WarmupStableDecay>("warmup_stable_decay", "get_wsd_schedule"),
];

/// The names that [`build`] knows.
pub const NAMES: &[&str] = &{
    let mut names = [""; LIST.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = LIST[i].name;
        i += 1;
    }
    names
};

/// A name, and how arguments make its schedule.
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// The reference's class or function.
    class: &'static str,
    /// Arguments that no field stands for.
    apart: &'static [&'static str],
    make: Make,
}

/// How arguments make a schedule.
pub(super) enum Make {
    /// One that is a function of the step: each group's, from its arguments and what the optimizer tells.
    Pure(fn(&Entry, Args, Told) -> Made),
    /// One that is driven by a metric: that of all groups, from the arguments of each.
    Metric(fn(&Entry, &[Args]) -> Result<Kind, ArgError>),
    /// One that follows its optimizer: from the arguments of all groups, and those that are each group's own.
    Optimizer(fn(&Entry, &Args, &[Args]) -> Result<Kind, ArgError>),
}

impl Entry {
    /// A schedule whose fields are its arguments.
    const fn of<S: AnySchedule + Default + 'static>(
        name: &'static str,
        class: &'static str,
    ) -> Entry {
        let make = Make::Pure(|entry, args, told| entry.read(S::default(), args, told));
        Entry::with(name, class, &[], make)
    }

    /// One that is made in its own way.
    const fn with(
        name: &'static str,
        class: &'static str,
        apart: &'static [&'static str],
        make: Make,
    ) -> Entry {
        Entry { name, class, apart, make }
    }

    /// `schedule` with its arguments.
    pub(super) fn read(
        &self,
        schedule: impl AnySchedule + 'static,
        args: Args,
        told: Told,
    ) -> Made {
        read(self.name, Box::new(schedule), args, told, self.apart)
    }

    /// Each group's schedule with its arguments.
    pub(super) fn read_each<S: Hyper + Default>(
        &self,
        groups: &[Args],
    ) -> Result<Vec<S>, ArgError> {
        let read = |args: &Args| {
            let mut schedule = S::default();
            args.apply(self.name, &mut schedule).map(|()| schedule)
        };
        groups.iter().map(read).collect()
    }
}

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
    let entry = entry(name)?;
    made(entry, args).map_err(|error| match &error {
        ArgError::UnknownArgument { of, .. } if of == name => {
            nearer(error, &["lr", "groups", "initial_lr", "last_epoch"])
        }
        _ => error,
    })
}

fn made(entry: &Entry, made_of: &Args) -> Result<Scheduler, ArgError> {
    let mut args = made_of.clone();
    let follows = matches!(entry.make, Make::Optimizer(_));
    // An argument of Adafactor's schedule; of any other optimizer's groups, if at all.
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
            let told = Told { lr: groups.default_lr, last_epoch };
            let each = groups.each(&args)?.into_iter().map(|args| make(entry, args, told));
            Kind::Pure(each.collect::<Result<_, _>>()?)
        }
        Make::Metric(make) => make(entry, &groups.each(&args)?)?,
        Make::Optimizer(make) => make(entry, &args, &groups.changes)?,
    };
    Ok(Scheduler::new(entry.name, made_of, kind, groups, last_epoch))
}

/// The schedules of a container, by their names or those of the references' classes, with their arguments.
pub(super) fn schedules(
    within: Vec<(String, Args)>,
    told: Told,
) -> Result<Vec<Box<dyn AnySchedule>>, ArgError> {
    let make = |(name, mut args): (String, Args)| {
        if !matches!(args.take("last_epoch").map(|v| v.as_i64()), None | Some(Some(-1))) {
            return Err(
                Error::Invalid { argument: "last_epoch", wanted: "-1 within others" }.into()
            );
        }
        let entry = entry(&name)?;
        match entry.make {
            Make::Pure(make) => make(entry, args, Told { last_epoch: -1, ..told }),
            _ => {
                let wanted = "schedules that depend on the step alone";
                Err(Error::Invalid { argument: "schedulers", wanted }.into())
            }
        }
    };
    within.into_iter().map(make).collect()
}

fn entry(name: &str) -> Result<&'static Entry, ArgError> {
    LIST.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let nearest = nearest(name, NAMES.iter().copied());
        ArgError::UnknownName { kind: "schedule", name: name.to_owned(), nearest }
    })
}

/// Our name of a reference's class or function, with or without its module.
pub(super) fn name_of_class(class: &str) -> Option<&'static str> {
    let class = class.rsplit('.').next().unwrap_or(class);
    LIST.iter().find(|entry| entry.class == class).map(|entry| entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Value;
    use alloc::string::ToString;

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
