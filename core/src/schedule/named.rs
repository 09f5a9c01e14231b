//! Every schedule that is known by a name.

use super::*;

/// Every schedule.
pub(super) const LIST: &[Entry] = &[
    adafactor_schedule::ENTRY,
    constant::ENTRY,
    constant_with_warmup::ENTRY,
    cosine::ENTRY,
    cosine_warmup_with_min_lr::ENTRY,
    cosine_with_min_lr::ENTRY,
    cosine_with_restarts::ENTRY,
    create_optimizer::ENTRY,
    greedy::ENTRY,
    inverse_sqrt::ENTRY,
    linear::ENTRY,
    polynomial::ENTRY,
    reduce_lr_on_plateau::ENTRY,
    torch_chained::ENTRY,
    torch_constant::ENTRY,
    torch_cosine_annealing::ENTRY,
    torch_cosine_annealing_warm_restarts::ENTRY,
    torch_cyclic::ENTRY,
    torch_exponential::ENTRY,
    torch_linear::ENTRY,
    torch_multi_step::ENTRY,
    torch_one_cycle::ENTRY,
    torch_polynomial::ENTRY,
    torch_sequential::ENTRY,
    torch_step::ENTRY,
    warm_up::ENTRY,
    warmup_stable_decay::ENTRY,
];

/// The names that [`build`](super::build) knows.
pub const NAMES: &[&str] = &{
    let mut names = [""; LIST.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = LIST[i].name;
        i += 1;
    }
    names
};

#[cfg(test)]
mod tests {
    use super::entry::of_class;
    use super::*;

    #[test]
    fn class_is_known_with_and_without_its_module() {
        let name = |class| of_class(LIST, class).map(|entry| entry.name);
        assert_eq!(name("StepLR"), Some("torch_step"));
        assert_eq!(name("torch.optim.lr_scheduler.StepLR"), Some("torch_step"));
        assert_eq!(name("transformers.get_wsd_schedule"), Some("warmup_stable_decay"));
        assert_eq!(name("StepLr"), None);
    }
}
