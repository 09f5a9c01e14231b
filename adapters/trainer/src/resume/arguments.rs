//! What the reference calls a group's arguments, and what a rule calls them.

use bitstep::hyper::{Args, HyperParams, Value, names};

/// The arguments of a rule that one of the reference's `param_groups` holds.
pub(super) fn of_group(rule: &mut dyn HyperParams, saved: &Args) -> Args {
    let known = names(rule);
    let mut all: Args = saved
        .iter()
        .filter(|(name, _)| *name != "lr" && known.contains(name))
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    // bitsandbytes keeps two arguments of whatever name under `betas`.
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
