//! Shared by FlashOptim's optimizers: powers in `f32`, and the arguments that choose storages.

/// βᵗ by squaring, every product rounded to `f32`: CUDA's power with an integer exponent.
pub(crate) fn powi(beta: f32, t: u64) -> f32 {
    let (mut power, mut base, mut t) = (1.0, beta, t);
    while t > 0 {
        if t & 1 == 1 {
            power *= base;
        }
        base *= base;
        t >>= 1;
    }
    power
}

/// βᵗ rounded to `f32` once.
pub(crate) fn powf(beta: f32, t: f64) -> f32 {
    crate::math::pow(beta.into(), t) as f32
}

#[cfg(feature = "alloc")]
pub(crate) use storage::build;

#[cfg(feature = "alloc")]
mod storage {
    use alloc::vec::Vec;

    use crate::error::Error;
    use crate::hyper::{ArgError, Args, FieldVisitor, HyperParams};
    use crate::optimizer::{OptimizerSpec, ParamStorage};
    use crate::rule::{ComputePolicy, DynRule};
    use crate::storage::{Companded, StorageFormat};

    /// The arguments of every FlashOptim constructor that choose storages or have no effect here.
    struct Storages<'a> {
        rule: &'a mut dyn HyperParams,
        quantize: bool,
        master_weight_bits: Option<u64>,
    }

    impl HyperParams for Storages<'_> {
        fn fields(&mut self, f: &mut dyn FieldVisitor) {
            self.rule.fields(f);
            f.bool("quantize", &mut self.quantize);
            f.opt_u64("master_weight_bits", &mut self.master_weight_bits);
            f.ignored("compress_state_dict");
            f.ignored("check_numerics");
        }
    }

    /// The spec of a FlashOptim rule with the storages that its arguments choose.
    pub(crate) fn build<R: DynRule + Default + 'static>(
        name: &str,
        args: &Args,
    ) -> Result<OptimizerSpec, ArgError> {
        let mut rule = R::default();
        let mut storages =
            Storages { rule: rule.hyper_params(), quantize: true, master_weight_bits: Some(24) };
        args.apply(name, &mut storages)?;
        let Storages { quantize, master_weight_bits, .. } = storages;
        let weights = match master_weight_bits {
            None => ParamStorage::Plain,
            Some(24) => ParamStorage::Split(8),
            Some(32) => ParamStorage::Split(16),
            Some(bits) => {
                let (argument, expected) = ("master_weight_bits", "24, 32 or None");
                return Err(Error::OutOfRange { argument, value: bits as f64, expected }.into());
            }
        };
        let mut spec = OptimizerSpec::new(rule, ComputePolicy::Fused);
        spec.storage.param = weights;
        if quantize {
            let slots = spec.rule.info().slots.iter().map(|&slot| {
                let square = slot == "exp_avg_sq";
                let codes = if square { Companded::Variance } else { Companded::Momentum };
                Some(StorageFormat::Companded(codes))
            });
            spec.storage.slot_formats = slots.collect::<Vec<_>>();
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powi_rounds_at_every_product() {
        assert_eq!(powi(0.5, 3), 0.125);
        assert_eq!(powi(0.9, 0), 1.0);
        let beta = 0.9f32;
        assert_eq!(powi(beta, 5), beta * ((beta * beta) * (beta * beta)));
        assert_eq!(powi(0.999, u64::MAX), 0.0);
    }
}
