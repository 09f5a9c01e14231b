//! Entries of a registry: a rule, the policy that its reference computes in, and storage formats.
//!
//! Each function makes an [`OptimizerEntry`] of a kind of reference. Who uses a few names alone makes a list of their
//! own, and compiles no other rule:
//!
//! ```
//! use bitstep::{hyper::Args, registry::{OptimizerEntry, entries, optimizer_of}, optim::{AdamW, Lion}};
//! static MINE: &[OptimizerEntry] = &[entries::fusible::<AdamW>("adamw_torch"), entries::bnb_8bit::<Lion>("lion_8bit")];
//! let spec = optimizer_of(MINE, "adamw_torch", &Args::parse("lr=1e-3")?)?;
//! assert_eq!(spec.rule.lr(), 1e-3);
//! assert!(optimizer_of(MINE, "lion_8bi", &Args::new()).unwrap_err().to_string().contains("`lion_8bit`"));
//! # Ok::<(), bitstep::hyper::ArgError>(())
//! ```

use super::entry::OptimizerEntry;
use crate::error::Error;
use crate::hyper::{ArgError, Args, Value};
use crate::lowrank::{Apollo, ForceF32, GaLore, Projected, ProjectionMethod};
use crate::optim::{
    Adafactor, AdamWAnyPrecision, AdamWHf, AdamWHfReference, AdamWeightDecay, BnbAdam, BnbLamb,
    OptimiAdam, bnb, flash, torchao_adam,
};
use crate::optimizer::OptimizerSpec;
use crate::rule::factored::FactoredRule;
use crate::rule::{ComputePolicy, DynRule};

/// The default rule with these arguments set.
fn rule<R: DynRule + Default + 'static>(
    name: &str,
    args: &Args,
    policy: ComputePolicy,
) -> Result<OptimizerSpec, ArgError> {
    rule_from(R::default(), name, args, policy)
}

/// A rule with defaults of this name.
fn rule_from<R: DynRule + 'static>(
    mut rule: R,
    name: &str,
    args: &Args,
    policy: ComputePolicy,
) -> Result<OptimizerSpec, ArgError> {
    args.apply(name, rule.hyper_params())?;
    rule.resolve_defaults();
    Ok(OptimizerSpec::new(rule, policy))
}

/// A reference that rounds 16-bit numbers after every tensor operation.
#[inline]
#[must_use]
pub const fn eager<R: DynRule + Default + 'static>(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: |name, args| rule::<R>(name, args, ComputePolicy::Eager) }
}

/// A reference that computes in `f32` throughout.
#[inline]
#[must_use]
pub const fn fused<R: DynRule + Default + 'static>(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: |name, args| rule::<R>(name, args, ComputePolicy::Fused) }
}

/// bitsandbytes: in `f32` throughout, `f64` parameters included.
#[inline]
#[must_use]
pub const fn bnb<R: DynRule + Default + 'static>(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: |name, args| bnb::build(R::default(), 32, name, args) }
}

/// With 8-bit state.
#[inline]
#[must_use]
pub const fn bnb_8bit<R: DynRule + Default + 'static>(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: |name, args| bnb::build(R::default(), 8, name, args) }
}

/// bitsandbytes' AdamW.
#[inline]
#[must_use]
pub const fn bnb_adamw(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: |name, args| bnb::build(BnbAdam::adamw(), 32, name, args) }
}

/// With 8-bit state.
#[inline]
#[must_use]
pub const fn bnb_adamw_8bit(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: |name, args| bnb::build(BnbAdam::adamw(), 8, name, args) }
}

/// A reference whose argument `fused` chooses between the two.
#[inline]
#[must_use]
pub const fn fusible<R: DynRule + Default + 'static>(name: &'static str) -> OptimizerEntry {
    OptimizerEntry {
        name,
        build: |name, args| {
            let on = |argument| args.get(argument).and_then(Value::as_bool) == Some(true);
            if on("fused") && on("foreach") {
                let expected = "fused and foreach not both";
                return Err(Error::InvalidArgument { argument: "fused", expected }.into());
            }
            let fused = if on("fused") { ComputePolicy::Fused } else { ComputePolicy::Eager };
            rule::<R>(name, args, fused)
        },
    }
}

/// FlashOptim's: over split weights and companded state.
#[inline]
#[must_use]
pub const fn flash<R: DynRule + Default + 'static>(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: flash::build::<R> }
}

/// Made by its constructor or by `create_optimizer`, as the arguments' names tell.
#[inline]
fn build_adam_weight_decay(name: &str, args: &Args) -> Result<OptimizerSpec, ArgError> {
    let created = args.get("init_lr").is_some();
    let mut rule = if created { AdamWeightDecay::created() } else { AdamWeightDecay::default() };
    args.apply(name, &mut rule)?;
    Ok(OptimizerSpec::new(rule, ComputePolicy::Eager))
}

/// Transformers' AdamW for TensorFlow.
#[inline]
#[must_use]
pub const fn adam_weight_decay(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: build_adam_weight_decay }
}

#[inline]
fn build_anyprecision(name: &str, args: &Args) -> Result<OptimizerSpec, ArgError> {
    let mut rule = AdamWAnyPrecision::default();
    args.apply(name, &mut rule)?;
    let double = rule.has_double();
    Ok(OptimizerSpec::new(rule, if double { ComputePolicy::Double } else { ComputePolicy::Fused }))
}

/// AdamW of number types of one's choice; in `f64` where one of them is.
#[inline]
#[must_use]
pub const fn anyprecision(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: build_anyprecision }
}

/// A reference that computes in `f32` even where parameters are `f64`.
#[inline]
#[must_use]
pub const fn single<R: DynRule + Default + 'static>(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: |name, args| rule::<R>(name, args, ComputePolicy::Single) }
}

/// AdamW in the way of galore_torch and apollo_torch, with whatever is done with its direction.
#[inline]
fn projected_adamw<W: ProjectionMethod>(
    name: &str,
    args: &Args,
    way: W,
) -> Result<OptimizerSpec, ArgError> {
    let rule = AdamWHf { reference: AdamWHfReference::Galore, ..AdamWHf::default() };
    let mut rule = Projected::<_, W> { method: way, ..Projected::new(rule) };
    args.apply(name, rule.hyper_params())?;
    Ok(OptimizerSpec::new(rule, ComputePolicy::Eager))
}

/// galore_torch's AdamW.
#[inline]
#[must_use]
pub const fn galore_adamw(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: |name, args| projected_adamw(name, args, GaLore) }
}

/// galore_torch's Adafactor.
#[inline]
#[must_use]
pub const fn galore_adafactor(name: &'static str) -> OptimizerEntry {
    fused::<Projected<FactoredRule<Adafactor>, GaLore>>(name)
}

/// galore_torch's AdamW over bitsandbytes' Adam of 8 bits, whatever `optim_bits` says, between products that are rounded.
#[inline]
#[must_use]
pub const fn galore_adamw_8bit(name: &'static str) -> OptimizerEntry {
    OptimizerEntry {
        name,
        build: |name, args| {
            let mut args = args.clone();
            for ignored in ["optim_bits", "block_wise"] {
                args.take(ignored);
            }
            if let Some(limit) = args.take("percentile_clipping") {
                args = args.with("max_unorm", limit);
            }
            let rule = BnbLamb { weight_decay: 1e-2, max_unorm: 100.0, ..BnbLamb::default() };
            let rule = Projected::<_, GaLore>::new(ForceF32(rule));
            Ok(OptimizerSpec { policy: ComputePolicy::Eager, ..bnb::build(rule, 8, name, &args)? })
        },
    }
}

/// apollo_torch's AdamW. Layerwise, each parameter has an optimizer of its own, and so the first seed.
#[inline]
#[must_use]
pub const fn apollo(name: &'static str) -> OptimizerEntry {
    OptimizerEntry {
        name,
        build: |name, args| {
            let layerwise = name.ends_with("_layerwise");
            projected_adamw(name, args, Apollo { layerwise, ..Apollo::default() })
        },
    }
}

/// torchao's: over state of 8 or 4 bits.
#[inline]
#[must_use]
pub const fn torchao<R: DynRule + Default + 'static, const BITS: u32>(
    name: &'static str,
) -> OptimizerEntry {
    OptimizerEntry { name, build: |name, args| torchao_adam::build::<R>(Some(BITS), name, args) }
}

/// torchao's: over state of floating-point 8 bits.
#[inline]
#[must_use]
pub const fn torchao_fp8<R: DynRule + Default + 'static>(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: |name, args| torchao_adam::build::<R>(None, name, args) }
}

#[inline]
fn build_optimi_adamw(name: &str, args: &Args) -> Result<OptimizerSpec, ArgError> {
    let adamw = OptimiAdam { weight_decay: 1e-2, decouple_wd: true, ..OptimiAdam::default() };
    rule_from(adamw, name, args, ComputePolicy::Eager)
}

/// optimi's AdamW.
#[inline]
#[must_use]
pub const fn optimi_adamw(name: &'static str) -> OptimizerEntry {
    OptimizerEntry { name, build: build_optimi_adamw }
}
