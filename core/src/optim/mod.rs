//! The rules, one a file, and the list of the names that they answer to.

mod adafactor;
mod adamw;
mod optimi;
mod stable_adamw;

pub use adafactor::Adafactor;
pub use adamw::AdamW;
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

    /// Every optimizer.
    pub const LIST: &[Entry] = &[
        fused::<Matrix<Adafactor>>("adafactor"),
        eager::<AdamW>("adamw_torch"),
        fused::<AdamW>("adamw_torch_fused"),
        eager::<StableAdamW>("stable_adamw"),
    ];
}
