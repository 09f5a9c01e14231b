//! What a step is of: its number and rate, and the tensor with its state.

use crate::error::Error;
use crate::float::Dtype;
use crate::math;
use crate::storage::{Data, DataMut, numel};

/// One step, as its caller describes it.
#[derive(Clone, Copy, Debug)]
pub struct StepContext<'a> {
    /// The number of this update, from 1. Whose number: [`Rule::step_scope`](super::Rule::step_scope).
    pub t: u64,
    /// The learning rate in force.
    pub lr: f64,
    /// Whether it is this tensor's first update. Where the group counts the steps, t alone doesn't say.
    pub is_first: bool,
    /// The parameter's position among those of its group that have a gradient.
    pub index_in_group: u32,
    /// The dimensions of the whole parameter, also where only a part of it is stepped.
    pub shape: &'a [usize],
    /// The number of elements of the parameter of which `shape` is a projection, if it is one.
    pub projected: Option<usize>,
    /// The parameter's type in memory; `None` if it is not a plain number, or that of the arithmetic.
    pub dtype: Option<Dtype>,
    /// Whether its state is plain numbers, though that of others of its group may be coded.
    pub has_plain_state: bool,
    /// The type in memory of the first parameter of the group that has a gradient, if known.
    pub group_dtype: Option<Dtype>,
    /// The norm over all gradients of the step, for rules that [ask for it](super::Rule::grad_norm_divisor).
    pub grad_norm: Option<f64>,
    /// Numbers from outside that some rules listen to, by name: `train_loss`,
    /// `eval_loss`, `loss_scale`, …
    pub extra: &'a [(&'a str, f64)],
    /// What [`StepContext::beta_power`] need not find again.
    pub decay_powers: Option<&'a DecayPowers>,
}

/// Powers of [`Rule::decay_bases`](super::Rule::decay_bases), found once for all parameters of a group.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecayPowers {
    t: u64,
    entries: [(f64, f64); 2],
}

impl DecayPowers {
    /// Those of these bases with the exponent t.
    #[must_use]
    pub fn new(bases: [f64; 2], t: u64) -> Self {
        DecayPowers { t, entries: bases.map(|base| (base, math::pow(base, t as f64))) }
    }
}

impl StepContext<'_> {
    /// Step number t at learning rate `lr`, with nothing else given.
    pub const fn new(t: u64, lr: f64) -> Self {
        StepContext {
            t,
            lr,
            is_first: t == 1,
            index_in_group: 0,
            shape: &[],
            projected: None,
            dtype: None,
            has_plain_state: false,
            group_dtype: None,
            grad_norm: None,
            extra: &[],
            decay_powers: None,
        }
    }

    /// `base` to the power t.
    #[must_use]
    pub fn beta_power(&self, base: f64) -> f64 {
        // Only an `Optimizer` knows any, and it needs the heap: firmware without is spared the search.
        if cfg!(feature = "alloc")
            && let Some(powers) = self.decay_powers
            && powers.t == self.t
        {
            let same = |&&(known, _): &&(f64, f64)| known.to_bits() == base.to_bits();
            if let Some(&(_, power)) = powers.entries.iter().find(same) {
                return power;
            }
        }
        math::pow(base, self.t_f64())
    }

    /// The given number of that name.
    pub fn extra(&self, name: &str) -> Option<f64> {
        self.extra.iter().find(|(n, _)| *n == name).map(|&(_, x)| x)
    }

    /// The number of elements of the whole parameter.
    pub fn numel(&self) -> usize {
        numel(self.shape)
    }

    /// The same step; of a parameter of this shape, if it did not say of which.
    pub(crate) fn of<'a>(&'a self, shape: &'a [usize]) -> StepContext<'a> {
        StepContext { shape: if self.shape.is_empty() { shape } else { self.shape }, ..*self }
    }

    /// Whether the parameter is a single number, whose [norm](crate::math::reduce::square) is that number's size.
    pub fn is_single(&self) -> bool {
        self.projected.unwrap_or(self.numel()) == 1
    }

    /// t as a float; exact up to 2⁵³.
    pub const fn t_f64(&self) -> f64 {
        self.t as f64
    }
}

/// One tensor with all that a step needs of it.
pub struct UpdateBuffers<'a, 'b> {
    /// Its dimensions; their product is the number of elements.
    pub shape: &'a [usize],
    /// The parameter.
    pub param: DataMut<'a>,
    /// Its gradient.
    pub grad: Data<'a>,
    /// One buffer for each slot, [`DynRule::slot_len`](crate::rule::DynRule::slot_len) elements long.
    pub slots: &'a mut [DataMut<'b>],
    /// At least [`DynRule::scratch_len`](crate::rule::DynRule::scratch_len) numbers; `f64` where [`ComputePolicy::compute`](crate::rule::ComputePolicy::compute) is, else `f32`.
    pub scratch: DataMut<'a>,
}

/// Refuses a step without the norm that its rule asks for.
pub(crate) fn check_norm(scale: Option<f64>, step: &StepContext) -> Result<(), Error> {
    if scale.is_some() && step.grad_norm.is_none() {
        return Err(Error::InvalidArgument {
            argument: "grad_norm",
            expected: "the norm of all gradients",
        });
    }
    Ok(())
}
