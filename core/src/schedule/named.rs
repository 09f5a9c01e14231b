//! The table of schedules that are known by a name.

use alloc::boxed::Box;

use super::*;
use crate::hyper::Args;

/// Every named schedule, in alphabetical order.
pub(super) const SCHEDULES: &[Entry] = &[
    Entry::with(
        "adafactor_schedule",
        "AdafactorSchedule",
        &[],
        || Box::new(AdafactorSchedule::default()),
        Make::Adafactor,
    ),
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
    Entry::of::<CreateOptimizerSchedule>("create_optimizer", "create_optimizer"),
    Entry::with(
        "greedy",
        "get_greedy_schedule",
        &[],
        || Box::new(<GreedyLr>::default()),
        Make::Greedy,
    ),
    Entry::of::<InverseSqrt>("inverse_sqrt", "get_inverse_sqrt_schedule"),
    Entry::of::<Linear>("linear", "get_linear_schedule_with_warmup"),
    Entry::of::<Polynomial>("polynomial", "get_polynomial_decay_schedule_with_warmup"),
    Entry::with(
        "reduce_lr_on_plateau",
        "ReduceLROnPlateau",
        &[],
        || Box::new(<ReduceLrOnPlateau>::default()),
        Make::Plateau,
    ),
    Entry::with(
        "torch_chained",
        "ChainedScheduler",
        &["schedulers"],
        || Box::new(TorchChained { schedulers: () }),
        torch_chained::MAKE,
    ),
    Entry::of::<TorchConstant>("torch_constant", "ConstantLR"),
    Entry::of::<TorchCosineAnnealing>("torch_cosine_annealing", "CosineAnnealingLR"),
    Entry::of::<TorchCosineAnnealingWarmRestarts>(
        "torch_cosine_annealing_warm_restarts",
        "CosineAnnealingWarmRestarts",
    ),
    Entry::of::<TorchCyclic>("torch_cyclic", "CyclicLR"),
    Entry::of::<TorchExponential>("torch_exponential", "ExponentialLR"),
    Entry::of::<TorchLinear>("torch_linear", "LinearLR"),
    Entry::with(
        "torch_multi_step",
        "MultiStepLR",
        &["milestones"],
        || Box::new(torch_multi_step::at(())),
        torch_multi_step::MAKE,
    ),
    Entry::of::<TorchOneCycle>("torch_one_cycle", "OneCycleLR"),
    Entry::of::<TorchPolynomial>("torch_polynomial", "PolynomialLR"),
    Entry::with(
        "torch_sequential",
        "SequentialLR",
        &["schedulers", "milestones"],
        || Box::new(TorchSequential { schedulers: (), milestones: (), last_epoch: -1 }),
        torch_sequential::MAKE,
    ),
    Entry::of::<TorchStep>("torch_step", "StepLR"),
    Entry::with(
        "warm_up",
        "WarmUp",
        &["decay_schedule_fn"],
        || Box::new(warm_up::with(())),
        warm_up::MAKE,
    ),
    Entry::of::<WarmupStableDecay>("warmup_stable_decay", "get_wsd_schedule"),
];

/// The names that [`build`](super::build) knows.
pub const NAMES: &[&str] = &{
    let mut names = [""; SCHEDULES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = SCHEDULES[i].name;
        i += 1;
    }
    names
};

/// The arguments of a named schedule with their defaults, `None` for those that must be given. All take the optimizer's
/// `lr`, or its `groups`, besides.
#[inline]
#[must_use]
pub fn defaults(name: &str) -> Option<Args> {
    SCHEDULES.iter().find(|entry| entry.name == name).map(Entry::defaults)
}

#[cfg(test)]
mod tests {
    use super::entry::of_class;
    use super::*;

    #[test]
    fn defaults_are_those_of_the_schedule_and_what_has_none_is_none() {
        let text = |name| {
            defaults(name).map(|args| {
                let all = args.iter().map(|(name, value)| alloc::format!("{name}={value}"));
                all.collect::<alloc::vec::Vec<_>>().join(" ")
            })
        };
        let cosine = "num_warmup_steps=None num_training_steps=None num_cycles=0.5";
        assert_eq!(text("cosine").as_deref(), Some(cosine));
        assert_eq!(text("torch_multi_step").as_deref(), Some("milestones=None gamma=0.1"));
        assert_eq!(text("constant").as_deref(), Some(""));
        assert_eq!(text("cosin"), None);
        // Whatever has no default can't be left out, and whatever has one can.
        for name in NAMES {
            let needed = defaults(name).unwrap();
            let needed = needed.iter().any(|(_, value)| *value == crate::hyper::Value::None);
            let built = build(name, &Args::new());
            assert!(built.is_ok() || needed, "{name}: {built:?}");
        }
    }

    #[test]
    fn class_is_known_with_and_without_its_module() {
        let name = |class| of_class(SCHEDULES, class).map(|entry| entry.name);
        assert_eq!(name("StepLR"), Some("torch_step"));
        assert_eq!(name("torch.optim.lr_scheduler.StepLR"), Some("torch_step"));
        assert_eq!(name("transformers.get_wsd_schedule"), Some("warmup_stable_decay"));
        assert_eq!(name("StepLr"), None);
    }
}
