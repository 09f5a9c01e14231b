//! What is kept of a group and of a parameter.

use alloc::vec::Vec;

use super::buffer::Buffer;
use super::spec::OptimizerSpec;
use crate::float::Dtype;
use crate::rule::{DecayPowers, ScalarState};
use crate::storage::{Data, DataMut, RawBuffer};

/// The number of a group of an [`Optimizer`](super::Optimizer), from 0 in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub usize);

/// The number of a parameter of an [`Optimizer`](super::Optimizer), from 0 in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub usize);

/// One tensor handed to [`Optimizer::step`](super::Optimizer::step).
pub struct Param<'a> {
    /// The parameter.
    pub value: DataMut<'a>,
    /// Its gradient; `None` leaves the parameter and its state alone.
    pub grad: Option<Data<'a>>,
}

/// Parameters that share a recipe and a learning rate.
#[derive(Clone, Debug)]
pub struct Group {
    /// What moves the parameters. A schedule may write its momentum, and a resumed run all of its arguments.
    pub spec: OptimizerSpec,
    /// The recipe that the group was added with.
    pub original_spec: OptimizerSpec,
    /// The learning rate in force; a schedule writes it.
    pub lr: f64,
    /// Calls of `step` so far.
    pub steps: u64,
    /// The rule's carried numbers, if the group owns them.
    pub scalars: ScalarState,
    /// The type of the first parameter with a gradient, at the latest [`Optimizer::tasks`](super::Optimizer::tasks).
    pub(super) group_dtype: Option<Dtype>,
    /// For parameters that have made as many steps as the group.
    pub(super) decay_powers: DecayPowers,
    /// The norm over all gradients, for rules that ask for it: found by
    /// [`Optimizer::tasks`](super::Optimizer::tasks); before [`Optimizer::step_param`](super::Optimizer::step_param), the caller's to set.
    pub grad_norm: Option<f64>,
}

/// What is kept of one parameter.
#[derive(Clone, Debug)]
pub struct ParamState {
    /// Its group.
    pub group: GroupId,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its number type. A value of another one is refused; one in a storage of the caller's is taken.
    pub dtype: Dtype,
    /// Updates so far.
    pub steps: u64,
    /// The rule's carried numbers, if the parameter owns them.
    pub scalars: ScalarState,
    /// One buffer a slot, empty for a slot that is not in use.
    pub slots: Vec<Buffer>,
    /// Whether the slots are plain numbers whatever the recipe says
    /// ([`Optimizer::add_plain_param`](super::Optimizer::add_plain_param)).
    pub has_plain_state: bool,
    /// What is kept beside a 16-bit parameter ([`StorageConfig::param`](super::StorageConfig::param)): FlashOptim's `error_bits`.
    pub correction: Option<RawBuffer>,
    /// Seed of the bits that round it ([`ParamStorage::Stochastic`](super::ParamStorage::Stochastic)).
    pub seed: u64,
    /// Bits to use instead, one number an element, for as long as they are here.
    pub rounding_bits: Option<Vec<u16>>,
    /// Whether the slots that start as the parameter have been filled.
    pub is_initialized: bool,
}
