//! The inputs of a step: its number and learning rate, and the buffers of the tensor that is updated.

use crate::error::Error;
use crate::float::Dtype;
use crate::math;
use crate::storage::{Data, DataMut, numel};

/// One step of one parameter, as the caller describes it.
#[derive(Clone, Copy, Debug)]
pub struct StepContext<'a> {
    /// The step number, from 1: of the parameter or of its group, as [`Rule::step_scope`](super::Rule::step_scope) says.
    pub t: u64,
    /// The current learning rate.
    pub lr: f64,
    /// Whether this is the tensor's first update. `t` alone doesn't say where steps are counted by the group.
    pub is_first: bool,
    /// The parameter's position among those of its group that have a gradient.
    pub index_in_group: u32,
    /// The dimensions of the parameter, also where only a part of it is updated; those of its low-rank projection where
    /// that is what a rule updates.
    pub shape: &'a [usize],
    /// If `shape` is that of a low-rank projection: the number of elements of the full parameter, before projection.
    pub projected: Option<usize>,
    /// The type that the parameter is stored in; `None` if it is unknown or encoded.
    pub dtype: Option<Dtype>,
    /// Whether the parameter is excluded from encoded state that others of its group have.
    pub has_plain_state: bool,
    /// The type of the gradient of the group's first parameter that has one, if known.
    pub group_dtype: Option<Dtype>,
    /// The norm over all gradients of the step, for rules that [need it](super::Rule::grad_norm_divisor).
    pub grad_norm: Option<f64>,
    /// Extra named inputs that some rules use: `train_loss`, `eval_loss`, `loss_scale`, …
    pub extra: &'a [(&'a str, f64)],
    /// Powers shared by the group, which [`StepContext::beta_power`] need not compute again.
    pub decay_powers: Option<&'a DecayPowers>,
}

/// Powers of [`Rule::decay_bases`](super::Rule::decay_bases), computed once for all parameters of a group.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecayPowers {
    t: u64,
    entries: [(f64, f64); 2],
}

impl DecayPowers {
    /// The bases to the power t.
    #[must_use]
    pub fn new(bases: [f64; 2], t: u64) -> Self {
        DecayPowers { t, entries: bases.map(|base| (base, math::pow(base, t as f64))) }
    }
}

impl StepContext<'_> {
    /// What decoupled decay leaves of a parameter, where the reference asks whether there is any: without it all,
    /// however large the rate.
    pub fn decay_factor(&self, weight_decay: f64) -> f64 {
        if weight_decay == 0.0 { 1.0 } else { 1.0 - self.lr * weight_decay }
    }

    /// Step number t (from 1) at learning rate `lr`; the first update if t is 1; every other field is empty.
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
        // Only an `Optimizer` fills these in, and it needs the heap: firmware without one skips the search.
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

    /// The extra argument of that name.
    pub fn extra(&self, name: &str) -> Option<f64> {
        self.extra.iter().find(|(n, _)| *n == name).map(|&(_, x)| x)
    }

    /// The number of elements of `shape`, which for a low-rank projection is not the full parameter's.
    pub fn numel(&self) -> usize {
        numel(self.shape)
    }

    /// This step, with `shape` filled in if it is empty.
    pub(crate) fn with_default_shape<'a>(&'a self, shape: &'a [usize]) -> StepContext<'a> {
        StepContext { shape: if self.shape.is_empty() { shape } else { self.shape }, ..*self }
    }

    /// Whether the parameter has one element: its [norm](crate::math::reduce::square) is then that element's magnitude.
    pub fn is_single(&self) -> bool {
        self.projected.unwrap_or(self.numel()) == 1
    }

    /// `t` as a float; exact up to 2⁵³.
    pub const fn t_f64(&self) -> f64 {
        self.t as f64
    }
}

/// A tensor's buffers for one step: parameter, gradient, state and scratch space.
pub struct UpdateBuffers<'a, 'b> {
    /// The parameter's dimensions; their product is the number of elements.
    pub shape: &'a [usize],
    /// The parameter.
    pub param: DataMut<'a>,
    /// Its gradient.
    pub grad: Data<'a>,
    /// One buffer for each slot, [`DynRule::slot_len`](crate::rule::DynRule::slot_len) elements long.
    pub slots: &'a mut [DataMut<'b>],
    /// At least [`DynRule::scratch_len`](crate::rule::DynRule::scratch_len) elements: `f64` if the
    /// [compute type](crate::rule::ComputePolicy::compute) is, else `f32`.
    pub scratch: DataMut<'a>,
}

/// Refuses a step without the gradient norm that its rule needs.
pub(crate) fn check_norm(scale: Option<f64>, step: &StepContext) -> Result<(), Error> {
    if scale.is_some() && step.grad_norm.is_none() {
        return Err(Error::InvalidArgument {
            argument: "grad_norm",
            expected: "the norm of all gradients",
        });
    }
    Ok(())
}
