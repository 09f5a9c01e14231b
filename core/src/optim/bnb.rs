//! What bitsandbytes' optimizers have in common.

use crate::args::Fields;
use crate::error::Error;
use crate::rule::Step;

/// How bitsandbytes keeps a parameter's state.
///
/// Its kernels for 8-bit state differ from those for 32-bit state in more than the
/// storage: elsewhere an ε, the order of two factors, a decay of zero that is not
/// skipped, no trust ratio. So the rules have to know which one is meant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BnbState {
    /// 32, or 8 for block-wise 8-bit state.
    pub optim_bits: u64,
    /// Parameters with fewer elements have 32-bit state all the same.
    pub min_8bit_size: u64,
}

impl Default for BnbState {
    fn default() -> Self {
        BnbState { optim_bits: 32, min_8bit_size: 4096 }
    }
}

impl BnbState {
    /// Shows the arguments that every constructor has.
    pub(super) fn fields(&mut self, f: &mut dyn Fields) {
        f.u64("optim_bits", &mut self.optim_bits);
        f.null("args");
        f.u64("min_8bit_size", &mut self.min_8bit_size);
        f.ignored("is_paged");
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let bits = self.optim_bits;
        Error::range(bits == 8 || bits == 32, "optim_bits", bits as f64, "8 or 32")
    }

    /// Whether the parameter of this step has 8-bit state.
    pub(super) fn is_8bit(&self, step: &Step) -> bool {
        self.optim_bits == 8 && step.numel() as u64 >= self.min_8bit_size
    }
}

/// The trust ratio: the factor that cuts an update of norm `unorm` down to `max_unorm` times the
/// parameter's.
pub(super) fn trust_ratio(max_unorm: f64, param_norm: f64, unorm: f64) -> f64 {
    let limit = max_unorm * param_norm;
    if unorm > limit { limit / unorm } else { 1.0 }
}
