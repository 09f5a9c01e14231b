//! The facts of a rule.

use super::contract::{Rule, Scope};

/// What there is to know of a rule, under its configuration, beside its arithmetic. A rule made of another
/// changes what differs, and keeps all else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RuleInfo {
    /// The slots' names: [`Rule::SLOTS`].
    pub slots: &'static [&'static str],
    /// Names of the carried numbers, as many as this configuration carries: [`Rule::SCALAR_NAMES`].
    pub scalar_names: &'static [&'static str],
    /// The numbers from outside that the rule listens to: [`Rule::EXTRA_ARGS`].
    pub extra_args: &'static [&'static str],
    /// The reference's state key of the number of steps: [`Rule::STEP_KEY`].
    pub step_key: &'static str,
    /// Whose steps are counted: [`Rule::step_scope`].
    pub step_scope: Scope,
    /// Who owns the carried numbers: [`Rule::scalar_scope`].
    pub scalar_scope: Scope,
    /// Whether it may be computed in [`ComputePolicy::Eager`](super::ComputePolicy::Eager): [`Rule::EAGER`].
    pub is_eager: bool,
    /// Whether a step of a parameter without elements counts: [`Rule::COUNTS_EMPTY_PARAMS`].
    pub counts_empty_params: bool,
    /// Whether the step depends on the parameter's place among the others: [`Rule::needs_index_in_group`].
    pub needs_index_in_group: bool,
    /// Whether each element moves on its own, so that a tensor may be cut anywhere.
    pub is_elementwise: bool,
    /// Whether it goes up along gradients: [`Rule::maximizes`].
    pub maximizes: bool,
    /// Of which numbers powers are needed: [`Rule::decay_bases`].
    pub decay_bases: [f64; 2],
}

impl RuleInfo {
    /// That of a rule as it stands.
    pub fn of<R: Rule>(rule: &R) -> Self {
        RuleInfo {
            slots: R::SLOTS,
            scalar_names: if rule.uses_scalars() { R::SCALAR_NAMES } else { &[] },
            extra_args: R::EXTRA_ARGS,
            step_key: R::STEP_KEY,
            step_scope: rule.step_scope(),
            scalar_scope: rule.scalar_scope(),
            is_eager: R::EAGER,
            counts_empty_params: R::COUNTS_EMPTY_PARAMS,
            needs_index_in_group: rule.needs_index_in_group(),
            is_elementwise: R::NUM_SUMS == 0 || !rule.needs_sums(),
            maximizes: rule.maximizes(),
            decay_bases: rule.decay_bases(),
        }
    }
}
