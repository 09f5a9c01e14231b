//! The state of a group and of a parameter, and the handles that name them.

use alloc::vec::Vec;

use super::buffer::Buffer;
use super::spec::OptimizerSpec;
use crate::float::Dtype;
use crate::rule::{DecayPowers, DynRule, ScalarState};
use crate::storage::{Data, DataMut, RawBuffer, numel};

/// Index of a group in an [`Optimizer`](super::Optimizer), from 0 in the order in which groups were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub usize);

/// Index of a parameter in an [`Optimizer`](super::Optimizer), from 0 in the order in which parameters were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub usize);

/// One parameter, as [`Optimizer::step_all`](super::Optimizer::step_all) takes it.
pub struct Param<'a> {
    /// The parameter.
    pub value: DataMut<'a>,
    /// Its gradient; with `None` the parameter and its state stay as they are.
    pub grad: Option<Data<'a>>,
}

/// Parameters that share a spec and a learning rate.
#[derive(Clone, Debug)]
pub struct Group {
    /// The rule with its storage. A schedule may change its momentum, and a resumed run all of its arguments.
    pub spec: OptimizerSpec,
    /// The spec that the group was added with.
    pub original_spec: OptimizerSpec,
    /// The current learning rate; a schedule writes it.
    pub lr: f64,
    /// Steps so far: calls of [`Optimizer::step`](super::Optimizer::step) and its variants.
    pub steps: u64,
    /// The rule's scalars, if they belong to the group.
    pub scalars: ScalarState,
    /// The type of the first gradient of the group's parameters in the current step.
    pub(super) group_dtype: Option<Dtype>,
    /// Powers for parameters whose step number equals the group's.
    pub(super) decay_powers: DecayPowers,
    /// The norm over all gradients in the current step, for rules that need it. Every step computes it; a caller may
    /// overwrite it before [`Optimizer::step_param`](super::Optimizer::step_param).
    pub grad_norm: Option<f64>,
    /// That norm for the next step, which then takes it from here and computes none: for who holds
    /// [parts](super::Optimizer::add_part) of parameters, as no norm over whole gradients follows from parts of them.
    pub given_grad_norm: Option<f64>,
}

/// The state of one parameter.
#[derive(Clone, Debug)]
pub struct ParamState {
    /// Its group.
    pub group: GroupId,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The first of its elements that this optimizer holds: 0, unless it is a [part](super::Optimizer::add_part).
    pub first: usize,
    /// How many of its elements this optimizer holds: all, unless it is a [part](super::Optimizer::add_part).
    pub len: usize,
    /// The type it was added with. Plain values of another type are refused; caller-encoded storage is
    /// accepted.
    pub dtype: Dtype,
    /// Its steps so far: only those in which it had a gradient.
    pub steps: u64,
    /// The rule's scalars, if they belong to the parameter.
    pub scalars: ScalarState,
    /// One buffer per slot of the rule, empty for an inactive slot.
    pub slots: Vec<Buffer>,
    /// Whether the slots are stored as plain values regardless of the spec
    /// ([`Optimizer::add_plain_param`](super::Optimizer::add_plain_param)).
    pub has_plain_state: bool,
    /// The correction that is stored beside a 16-bit parameter ([`StorageConfig::param`](super::StorageConfig::param)),
    /// such as FlashOptim's `error_bits`.
    pub correction: Option<RawBuffer>,
    /// Seed of its rounding bits ([`ParamStorage::Stochastic`](super::ParamStorage::Stochastic)).
    pub seed: u64,
    /// Rounding bits to use instead of generated ones while set: 16 per element.
    pub rounding_bits: Option<Vec<u16>>,
    /// Whether it has been stepped: slots that start as a copy of the parameter have been filled.
    pub is_initialized: bool,
}

impl ParamState {
    /// Whether this optimizer holds only some of the parameter's elements, or none of them.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.len != numel(&self.shape)
    }

    /// The most scratch elements that a step of it needs.
    pub(super) fn scratch_len(&self, rule: &dyn DynRule) -> usize {
        if self.is_part() { 0 } else { rule.scratch_len(&self.shape) }
    }

    /// The number of elements of a slot here, for this compute type.
    pub(super) fn slot_len(&self, rule: &dyn DynRule, slot: usize, compute: Dtype) -> usize {
        match (self.is_part(), self.len) {
            (false, _) => rule.slot_len(slot, &self.shape, compute),
            // Nor has a rule that is not elementwise any state then, whatever the shape.
            (true, 0) => 0,
            (true, len) => rule.slot_len(slot, &[len], compute),
        }
    }
}
