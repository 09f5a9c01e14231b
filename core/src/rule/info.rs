//! [`RuleInfo`]: the static properties of a rule.

use super::contract::{Rule, Scope};

/// The properties of a configured rule, apart from its update formula. A wrapper copies those of its inner rule and
/// changes the ones that differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RuleInfo {
    /// The slots' names: [`Rule::SLOTS`].
    pub slots: &'static [&'static str],
    /// Names of the scalars that this configuration uses: [`Rule::SCALAR_NAMES`], or none.
    pub scalar_names: &'static [&'static str],
    /// Names of the extra arguments that the rule uses: [`Rule::EXTRA_ARGS`].
    pub extra_args: &'static [&'static str],
    /// The reference's `state_dict` key of the step count: [`Rule::STEP_KEY`].
    pub step_key: &'static str,
    /// Whether steps are counted by the parameter or the group: [`Rule::step_scope`].
    pub step_scope: Scope,
    /// Whether the scalars belong to the parameter or the group: [`Rule::scalar_scope`].
    pub scalar_scope: Scope,
    /// Whether it may be computed under [`ComputePolicy::Eager`](super::ComputePolicy::Eager): [`Rule::EAGER`].
    pub is_eager: bool,
    /// Whether a parameter without elements still counts its steps: [`Rule::COUNTS_EMPTY_PARAMS`].
    pub counts_empty_params: bool,
    /// Whether the step depends on the parameter's index in its group: [`Rule::needs_index_in_group`].
    pub needs_index_in_group: bool,
    /// Whether each element is updated independently of the others, so that a tensor may be cut anywhere.
    pub is_elementwise: bool,
    /// Whether the step goes up the gradient: [`Rule::maximizes`].
    pub maximizes: bool,
    /// The bases whose powers are needed: [`Rule::decay_bases`].
    pub decay_bases: [f64; 2],
}

impl RuleInfo {
    /// The properties of a rule that is not wrapped.
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
