//! The rules, one a file, and the list of the names that they answer to.

mod adafactor;
mod adamw;
mod ademamix;
mod bnb;
mod bnb_adagrad;
mod bnb_adam;
mod bnb_lamb;
mod bnb_lars;
mod bnb_rmsprop;
mod bnb_sgd;
mod lion;
mod optimi;
mod stable_adamw;

pub use adafactor::Adafactor;
pub use adamw::AdamW;
pub use ademamix::AdEMAMix;
pub use bnb::BnbState;
pub use bnb_adagrad::BnbAdagrad;
pub use bnb_adam::BnbAdam;
pub use bnb_lamb::BnbLamb;
pub use bnb_lars::BnbLars;
pub use bnb_rmsprop::BnbRmsprop;
pub use bnb_sgd::BnbSgd;
pub use lion::Lion;
pub use stable_adamw::StableAdamW;

#[cfg(feature = "alloc")]
pub use list::{Entry, LIST};

#[cfg(feature = "alloc")]
mod list {
    use super::*;
    use crate::any::{AnyRule, Arithmetic};
    use crate::args::{ArgError, Args};
    use crate::factored::Matrix;
    use crate::optimizer::Recipe;

    /// A name and what it stands for.
    pub struct Entry {
        /// Transformers' string, or the reference's class in snake case.
        pub name: &'static str,
        /// From the reference's constructor arguments to a recipe.
        pub build: fn(&str, &Args) -> Result<Recipe, ArgError>,
    }

    /// The default rule with these arguments set.
    fn rule<R: AnyRule + Default + 'static>(
        name: &str,
        args: &Args,
        arithmetic: Arithmetic,
    ) -> Result<Recipe, ArgError> {
        let mut rule = R::default();
        args.apply(name, rule.hyper())?;
        rule.settle();
        Ok(Recipe::new(rule, arithmetic))
    }

    /// A reference that rounds 16-bit numbers after every tensor operation.
    const fn eager<R: AnyRule + Default + 'static>(name: &'static str) -> Entry {
        Entry { name, build: |name, args| rule::<R>(name, args, Arithmetic::Eager) }
    }

    /// A reference that computes in `f32` throughout.
    const fn fused<R: AnyRule + Default + 'static>(name: &'static str) -> Entry {
        Entry { name, build: |name, args| rule::<R>(name, args, Arithmetic::Fused) }
    }

    /// bitsandbytes: in `f32` throughout, `f64` parameters included.
    const fn bnb<R: AnyRule + Default + 'static>(name: &'static str) -> Entry {
        Entry { name, build: |name, args| bnb_from(R::default(), name, args) }
    }

    /// The same, for a name with defaults of its own.
    fn bnb_from<R: AnyRule + 'static>(
        mut rule: R,
        name: &str,
        args: &Args,
    ) -> Result<Recipe, ArgError> {
        args.apply(name, rule.hyper())?;
        // The rules know the formulas for 8-bit state; the storage is still to come.
        if let Some(bits) = args.get("optim_bits").filter(|b| b.as_i64() == Some(8)) {
            let (argument, wanted) = ("optim_bits".into(), "32".into());
            return Err(ArgError::Value { argument, value: bits.clone(), wanted });
        }
        Ok(Recipe::new(rule, Arithmetic::Single))
    }

    const fn bnb_adamw(name: &'static str) -> Entry {
        Entry {
            name,
            build: |name, args| {
                bnb_from(BnbAdam { weight_decay: 1e-2, ..BnbAdam::default() }, name, args)
            },
        }
    }

    /// Every optimizer.
    pub const LIST: &[Entry] = &[
        fused::<Matrix<Adafactor>>("adafactor"),
        eager::<AdamW>("adamw_torch"),
        fused::<AdamW>("adamw_torch_fused"),
        bnb::<AdEMAMix>("ademamix"),
        bnb::<BnbAdagrad>("bnb_adagrad_32bit"),
        bnb::<BnbAdam>("bnb_adam_32bit"),
        bnb_adamw("bnb_adamw_32bit"),
        bnb::<BnbLamb>("bnb_lamb_32bit"),
        bnb::<BnbLars>("bnb_lars_32bit"),
        bnb::<BnbSgd>("bnb_sgd_32bit"),
        bnb::<Lion>("lion_32bit"),
        bnb_adamw("paged_adamw_32bit"),
        bnb::<AdEMAMix>("paged_ademamix_32bit"),
        bnb::<Lion>("paged_lion_32bit"),
        bnb::<BnbRmsprop>("rmsprop_bnb"),
        bnb::<BnbRmsprop>("rmsprop_bnb_32bit"),
        eager::<StableAdamW>("stable_adamw"),
    ];
}
