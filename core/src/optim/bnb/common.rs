//! Shared by bitsandbytes' optimizers: the width of their state, the trust ratio, the specs.

use crate::error::{Error, ensure_range};
use crate::hyper::FieldVisitor;
use crate::rule::StepContext;

/// The width of the state that bitsandbytes keeps of a parameter.
///
/// Its kernels for 8-bit state differ from those for 32-bit state in more than the storage: where ε is added, the order
/// of two factors, a decay of zero that is not skipped, no trust ratio. So a rule has to know which kernel it follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BnbState {
    /// 32, or 8 for block-wise 8-bit state.
    pub optim_bits: u64,
    /// Parameters with fewer elements always have 32-bit state.
    pub min_8bit_size: u64,
}

impl BnbState {
    /// The reference's defaults.
    pub const DEFAULT: Self = BnbState { optim_bits: 32, min_8bit_size: 4096 };
}

impl Default for BnbState {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl BnbState {
    /// Visits the arguments that every constructor takes.
    pub(crate) fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("optim_bits", &mut self.optim_bits);
        f.must_be_none("args");
        f.u64("min_8bit_size", &mut self.min_8bit_size);
        f.ignored("is_paged");
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let bits = self.optim_bits;
        ensure_range(bits == 8 || bits == 32, "optim_bits", bits as f64, "8 or 32")
    }

    /// Whether the parameter of this step has 8-bit state.
    pub(crate) fn is_8bit(&self, step: &StepContext) -> bool {
        self.optim_bits == 8 && !step.has_plain_state && step.numel() as u64 >= self.min_8bit_size
    }
}

/// The trust ratio: the factor that reduces an update of norm `unorm` to at most `max_unorm` times the parameter's
/// norm.
pub(crate) fn trust_ratio(max_unorm: f64, param_norm: f64, unorm: f64) -> f64 {
    let limit = max_unorm * param_norm;
    if unorm > limit { limit / unorm } else { 1.0 }
}

#[cfg(feature = "alloc")]
pub(crate) use storage::build;

#[cfg(feature = "alloc")]
mod storage {
    use crate::hyper::{ArgError, Args, Value};
    use crate::optimizer::OptimizerSpec;
    use crate::rule::{ComputePolicy, DynRule};
    use crate::storage::{DynamicQuant8, StorageFormat};

    /// The spec of a rule with 32-bit state, or 8-bit state where its arguments say so and the tensor is large enough.
    ///
    /// It takes one argument that the reference does not have: `quantizer`, `"nearest"` as on a GPU (the default), or
    /// `"cpu"` ([`DynamicQuant8`]).
    pub(crate) fn build<R: DynRule + 'static>(
        mut rule: R,
        bits: i64,
        name: &str,
        args: &Args,
    ) -> Result<OptimizerSpec, ArgError> {
        let mut args = args.clone();
        let grid = match args.take("quantizer") {
            None => false,
            Some(Value::Str(s)) if s == "nearest" => false,
            Some(Value::Str(s)) if s == "cpu" => true,
            Some(value) => {
                let expected = "\"nearest\" or \"cpu\"".into();
                return Err(ArgError::Value { argument: "quantizer".into(), value, expected });
            }
        };
        Args::new().with("optim_bits", bits).apply(name, rule.hyper_params())?;
        args.apply(name, rule.hyper_params())?;
        let set = Args::of(rule.hyper_params());
        let count = |name| set.get(name).and_then(Value::as_u64);
        let mut spec = OptimizerSpec::new(rule, ComputePolicy::Single);
        if count("optim_bits") == Some(8) {
            spec.storage.min_len = count("min_8bit_size").unwrap_or(0) as usize;
            let slots = spec.rule.info().slots.iter();
            // Only the average of squares uses the unsigned map; a projector is not quantized.
            let format = |slot: &&str| {
                let dynamic = StorageFormat::DynamicQuant8(DynamicQuant8 {
                    signed: *slot != "state2",
                    cpu_grid: grid,
                });
                slot.starts_with("state").then_some(dynamic)
            };
            spec.storage.slot_formats = slots.map(format).collect();
        }
        Ok(spec)
    }
}
