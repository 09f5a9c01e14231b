//! How Keras' optimizers clip gradients before they use them.

use crate::error::{Error, ensure_not_negative};
use crate::float::ComputeFloat;
use crate::gradient::{ClipByGlobalNorm, global_norm};
use crate::hyper::FieldVisitor;
use crate::rule::StepContext;
use crate::storage::Data;

/// Limits on gradients, in the order in which Keras applies them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KerasClip {
    /// The largest absolute value of an element.
    pub clipvalue: Option<f64>,
    /// The largest norm of one gradient.
    pub clipnorm: Option<f64>,
    /// The largest norm of all gradients together.
    pub global_clipnorm: Option<f64>,
}

impl Default for KerasClip {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The limits in the type that a step is computed in.
    pub(crate) struct Clip<C> {
        by_value: bool,
        by_norm: bool,
        by_all: bool,
        limit: C,
        norm: C,
        divisor: C,
        factor: C,
    }
}

impl KerasClip {
    /// No limits.
    pub const DEFAULT: Self = KerasClip { clipvalue: None, clipnorm: None, global_clipnorm: None };

    /// Visits the arguments under the names of Keras' constructors.
    pub(crate) fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.opt_f64("clipnorm", &mut self.clipnorm);
        f.opt_f64("clipvalue", &mut self.clipvalue);
        f.opt_f64("global_clipnorm", &mut self.global_clipnorm);
    }

    /// Visits the arguments under the names of `create_optimizer`.
    pub(crate) fn created_fields(&mut self, f: &mut dyn FieldVisitor) {
        f.opt_f64("adam_clipnorm", &mut self.clipnorm);
        f.opt_f64("adam_global_clipnorm", &mut self.global_clipnorm);
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        for (name, limit) in [("clipvalue", self.clipvalue), ("clipnorm", self.clipnorm)] {
            ensure_not_negative(name, limit.unwrap_or(0.0))?;
        }
        ensure_not_negative("global_clipnorm", self.global_clipnorm.unwrap_or(0.0))?;
        if self.clipnorm.is_some() && self.global_clipnorm.is_some() {
            let expected = "no clipnorm beside it";
            return Err(Error::InvalidArgument { argument: "global_clipnorm", expected });
        }
        Ok(())
    }

    /// The norm over all gradients.
    pub(crate) fn grad_norm(&self, grads: &[Data<'_>]) -> f64 {
        let limit = self.clipvalue.unwrap_or(f64::INFINITY);
        global_norm(grads.len(), |i| grads.get(i).copied(), limit).0
    }

    pub(crate) fn coefs<C: ComputeFloat>(&self, step: &StepContext) -> Clip<C> {
        let narrow = |x: Option<f64>| C::round_from(C::scalar(x.unwrap_or(0.0)));
        let all = ClipByGlobalNorm { clip_norm: self.global_clipnorm.unwrap_or(0.0) };
        Clip {
            by_value: self.clipvalue.is_some(),
            by_norm: self.clipnorm.is_some(),
            by_all: self.global_clipnorm.is_some(),
            limit: narrow(self.clipvalue),
            norm: narrow(self.clipnorm),
            divisor: C::ONE,
            factor: all.coefficient(narrow(step.grad_norm)),
        }
    }
}

impl<C: ComputeFloat> Clip<C> {
    #[inline(always)]
    fn limited(&self, g: C) -> C {
        if self.by_value { g.maximum(-self.limit).minimum(self.limit) } else { g }
    }

    /// An element's term in the squared norm of its gradient.
    #[inline(always)]
    pub(crate) fn square(&self, g: C) -> C::Scalar {
        let g = self.limited(g);
        (g * g).widen()
    }

    /// Completes the limits with the squared norm.
    pub(crate) fn finish(&mut self, squares: C::Scalar) {
        let squares = C::round_from(squares);
        let norm = if squares > C::ZERO { squares.sqrt() } else { squares };
        self.divisor = norm.maximum(self.norm);
    }

    /// The clipped gradient.
    #[inline(always)]
    pub(crate) fn apply(&self, g: C) -> C {
        let g = self.limited(g);
        let g = if self.by_norm { g * self.norm / self.divisor } else { g };
        if self.by_all { g * self.factor } else { g }
    }
}
