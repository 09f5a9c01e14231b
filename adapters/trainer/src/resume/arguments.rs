//! Hyper-parameters of the reference's groups, under a rule's names.

use bitstep::hyper::{Args, HyperParams, Value, names};

/// The rule's arguments that one of the reference's `param_groups` contains.
pub(super) fn of_group(rule: &mut dyn HyperParams, saved: &Args) -> Args {
    let known = names(rule);
    let mut all: Args = saved
        .iter()
        .filter(|(name, _)| *name != "lr" && known.contains(name))
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    // bitsandbytes stores two arguments under `betas`, whatever their names.
    if let Some(Value::List(pair)) = saved.get("betas")
        && !known.contains(&"betas")
    {
        let first = if known.contains(&"alpha") { "alpha" } else { "momentum" };
        let second = if first == "alpha" { "momentum" } else { "dampening" };
        for (name, value) in [first, second].into_iter().zip(pair) {
            if known.contains(&name) {
                all.set(name, value.clone());
            }
        }
    }
    all
}
