//! The rules, one a file, and the list of the names that they answer to.

mod adadelta;
mod adafactor;
mod adafactor_torch;
mod adagrad;
mod adalomo;
mod adam;
mod adam_weight_decay;
mod adamax;
mod adamw;
mod adamw_anyprecision;
mod adamw_hf;
mod ademamix;
mod asgd;
mod bnb;
mod bnb_adagrad;
mod bnb_adam;
mod bnb_lamb;
mod bnb_lars;
mod bnb_rmsprop;
mod bnb_sgd;
mod flash;
mod flash_adam;
mod flash_lion;
mod flash_sgd;
mod grokadamw;
mod keras;
mod keras_adam;
mod lion;
mod lomo;
mod muon;
mod nadam;
mod optimi;
mod optimi_adam;
mod optimi_adan;
mod optimi_lion;
mod optimi_radam;
mod optimi_ranger;
mod optimi_sgd;
mod radam;
mod rmsprop;
mod rprop;
mod schedule_free;
mod schedule_free_adamw;
mod schedule_free_radam;
mod schedule_free_sgd;
mod sgd;
mod stable_adamw;
mod torchao_adam;

pub use adadelta::Adadelta;
pub use adafactor::Adafactor;
pub use adafactor_torch::AdafactorTorch;
pub use adagrad::Adagrad;
pub use adalomo::AdaLomo;
pub use adam::Adam;
pub use adam_weight_decay::AdamWeightDecay;
pub use adamax::Adamax;
pub use adamw::AdamW;
pub use adamw_anyprecision::AdamWAnyPrecision;
pub use adamw_hf::{AdamWHf, AdamWHfReference};
pub use ademamix::AdEMAMix;
pub use asgd::Asgd;
pub use bnb::BnbState;
pub use bnb_adagrad::BnbAdagrad;
pub use bnb_adam::BnbAdam;
pub use bnb_lamb::BnbLamb;
pub use bnb_lars::BnbLars;
pub use bnb_rmsprop::BnbRmsprop;
pub use bnb_sgd::BnbSgd;
pub use flash_adam::{FlashAdam, FlashAdamRule, FlashAdamW};
pub use flash_lion::FlashLion;
pub use flash_sgd::{FlashSgd, FlashSgdRule, FlashSgdW};
pub use grokadamw::GrokAdamW;
pub use keras::KerasClip;
pub use keras_adam::KerasAdam;
pub use lion::Lion;
pub use lomo::Lomo;
pub use muon::{AdjustLr, Muon};
pub use nadam::NAdam;
pub use optimi_adam::OptimiAdam;
pub use optimi_adan::OptimiAdan;
pub use optimi_lion::OptimiLion;
pub use optimi_radam::OptimiRAdam;
pub use optimi_ranger::OptimiRanger;
pub use optimi_sgd::OptimiSgd;
pub use radam::RAdam;
pub use rmsprop::RmsProp;
pub use rprop::Rprop;
pub use schedule_free_adamw::ScheduleFreeAdamW;
pub use schedule_free_radam::ScheduleFreeRAdam;
pub use schedule_free_sgd::ScheduleFreeSgd;
pub use sgd::Sgd;
pub use stable_adamw::StableAdamW;
pub use torchao_adam::{TorchaoAdam, TorchaoAdamRule, TorchaoAdamW};

/// Hands the rules, each with a stem that names what belongs to it, to a macro: by their shape,
/// as loops over elements, over elements with sums, over matrices with row and column state, and
/// between products of matrices; and those that are projected, by what they are made of.
/// For backends that need code of their own for each type of rule.
#[doc(hidden)]
#[macro_export]
macro_rules! each_rule {
    ($go:ident) => {
        $go! {
            elementwise {
                adadelta: Adadelta, adagrad: Adagrad, adam: Adam, adamax: Adamax, adamw: AdamW,
                adamw_anyprecision: AdamWAnyPrecision, adamw_hf: AdamWHf, ademamix: AdEMAMix, asgd: Asgd,
                bnb_adagrad: BnbAdagrad, bnb_adam: BnbAdam, bnb_rmsprop: BnbRmsprop, bnb_sgd: BnbSgd,
                flash_adam: FlashAdam, flash_adamw: FlashAdamW, flash_lion: FlashLion,
                flash_sgd: FlashSgd, flash_sgdw: FlashSgdW, lion: Lion, lomo: Lomo, nadam: NAdam,
                optimi_adam: OptimiAdam, optimi_adan: OptimiAdan, optimi_lion: OptimiLion,
                optimi_radam: OptimiRAdam, optimi_ranger: OptimiRanger, optimi_sgd: OptimiSgd,
                radam: RAdam, rmsprop: RmsProp, rprop: Rprop, schedule_free_adamw: ScheduleFreeAdamW,
                schedule_free_radam: ScheduleFreeRAdam, schedule_free_sgd: ScheduleFreeSgd, sgd: Sgd,
                torchao_adam: TorchaoAdam, torchao_adamw: TorchaoAdamW,
            }
            tensorwise {
                adam_weight_decay: AdamWeightDecay, bnb_lamb: BnbLamb, bnb_lars: BnbLars,
                grokadamw: GrokAdamW, keras_adam: KerasAdam, stable_adamw: StableAdamW,
            }
            factored { adafactor: Adafactor, adafactor_torch: AdafactorTorch, adalomo: AdaLomo, }
            orthogonal { muon: Muon, }
            projected {
                AdamWHf, GaLore; Matrix<Adafactor>, GaLore; Single<BnbLamb>, GaLore; AdamWHf, Apollo;
            }
            directed { adamw_hf: AdamWHf, bnb_lamb: BnbLamb, }
            directed_factored { adafactor: Adafactor, }
        }
    };
}

#[cfg(feature = "alloc")]
pub use list::{Entry, LIST};

#[cfg(feature = "alloc")]
mod list {
    use super::*;
    use crate::any::{AnyRule, Arithmetic};
    use crate::args::{ArgError, Args, Value};
    use crate::error::Error;
    use crate::factored::Matrix;
    use crate::lowrank::{Apollo, GaLore, Projected, Single, Way};
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
        rule_from(R::default(), name, args, arithmetic)
    }

    /// The same, for a name with defaults of its own.
    fn rule_from<R: AnyRule + 'static>(
        mut rule: R,
        name: &str,
        args: &Args,
        arithmetic: Arithmetic,
    ) -> Result<Recipe, ArgError> {
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
        Entry { name, build: |name, args| bnb::build(R::default(), 32, name, args) }
    }

    /// The same with 8-bit state.
    const fn bnb_8bit<R: AnyRule + Default + 'static>(name: &'static str) -> Entry {
        Entry { name, build: |name, args| bnb::build(R::default(), 8, name, args) }
    }

    const fn bnb_adamw(name: &'static str) -> Entry {
        Entry { name, build: |name, args| bnb::build(BnbAdam::adamw(), 32, name, args) }
    }

    const fn bnb_adamw_8bit(name: &'static str) -> Entry {
        Entry { name, build: |name, args| bnb::build(BnbAdam::adamw(), 8, name, args) }
    }

    /// A reference whose argument `fused` chooses between the two.
    const fn fusible<R: AnyRule + Default + 'static>(name: &'static str) -> Entry {
        Entry {
            name,
            build: |name, args| {
                let on = |argument| args.get(argument).and_then(Value::as_bool) == Some(true);
                if on("fused") && on("foreach") {
                    let wanted = "fused and foreach not both";
                    return Err(Error::Invalid { argument: "fused", wanted }.into());
                }
                let fused = if on("fused") { Arithmetic::Fused } else { Arithmetic::Eager };
                rule::<R>(name, args, fused)
            },
        }
    }

    /// FlashOptim's: over split weights and companded state.
    const fn flash<R: AnyRule + Default + 'static>(name: &'static str) -> Entry {
        Entry { name, build: flash::build::<R> }
    }

    /// Made by its constructor or by `create_optimizer`, as the arguments' names tell.
    fn adam_weight_decay(name: &str, args: &Args) -> Result<Recipe, ArgError> {
        let created = args.get("init_lr").is_some();
        let mut rule =
            if created { AdamWeightDecay::created() } else { AdamWeightDecay::default() };
        args.apply(name, &mut rule)?;
        Ok(Recipe::new(rule, Arithmetic::Eager))
    }

    fn anyprecision(name: &str, args: &Args) -> Result<Recipe, ArgError> {
        let mut rule = AdamWAnyPrecision::default();
        args.apply(name, &mut rule)?;
        let double = rule.has_double();
        Ok(Recipe::new(rule, if double { Arithmetic::Double } else { Arithmetic::Fused }))
    }

    /// A reference that computes in `f32` even where parameters are `f64`.
    const fn single<R: AnyRule + Default + 'static>(name: &'static str) -> Entry {
        Entry { name, build: |name, args| rule::<R>(name, args, Arithmetic::Single) }
    }

    /// AdamW in the way of galore_torch and apollo_torch, with whatever is done with its direction.
    fn projected_adamw<W: Way>(name: &str, args: &Args, way: W) -> Result<Recipe, ArgError> {
        let rule = AdamWHf { reference: AdamWHfReference::Galore, ..AdamWHf::default() };
        let mut rule = Projected::<_, W> { way, ..Projected::new(rule) };
        args.apply(name, rule.hyper())?;
        Ok(Recipe::new(rule, Arithmetic::Eager))
    }

    const fn galore_adamw(name: &'static str) -> Entry {
        Entry { name, build: |name, args| projected_adamw(name, args, GaLore) }
    }

    const fn galore_adafactor(name: &'static str) -> Entry {
        fused::<Projected<Matrix<Adafactor>, GaLore>>(name)
    }

    /// bitsandbytes' Adam of 8 bits, whatever `optim_bits` says, between products that are rounded.
    const fn galore_adamw_8bit(name: &'static str) -> Entry {
        Entry {
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
                let rule = Projected::<_, GaLore>::new(Single(rule));
                Ok(Recipe { arithmetic: Arithmetic::Eager, ..bnb::build(rule, 8, name, &args)? })
            },
        }
    }

    /// Layerwise, each parameter has an optimizer of its own, and so the first seed.
    const fn apollo(name: &'static str) -> Entry {
        Entry {
            name,
            build: |name, args| {
                let layerwise = name.ends_with("_layerwise");
                projected_adamw(name, args, Apollo { layerwise, ..Apollo::default() })
            },
        }
    }

    /// torchao's: over state of 8 or 4 bits.
    const fn torchao<R: AnyRule + Default + 'static, const BITS: u32>(name: &'static str) -> Entry {
        Entry { name, build: |name, args| torchao_adam::build::<R>(Some(BITS), name, args) }
    }

    /// torchao's: over state of floating-point 8 bits.
    const fn torchao_fp8<R: AnyRule + Default + 'static>(name: &'static str) -> Entry {
        Entry { name, build: |name, args| torchao_adam::build::<R>(None, name, args) }
    }

    fn optimi_adamw(name: &str, args: &Args) -> Result<Recipe, ArgError> {
        let adamw = OptimiAdam { weight_decay: 1e-2, decouple_wd: true, ..OptimiAdam::default() };
        rule_from(adamw, name, args, Arithmetic::Eager)
    }

    /// Every optimizer. Static, or each crate that names it would compile every rule anew.
    pub static LIST: &[Entry] = &[
        eager::<Adadelta>("adadelta"),
        fused::<Matrix<Adafactor>>("adafactor"),
        eager::<Matrix<AdafactorTorch>>("adafactor_torch"),
        fusible::<Adagrad>("adagrad"),
        single::<Matrix<AdaLomo>>("adalomo"),
        fusible::<Adam>("adam"),
        Entry { name: "adam_weight_decay", build: adam_weight_decay },
        eager::<Adamax>("adamax"),
        bnb_adamw_8bit("adamw_8bit"),
        Entry { name: "adamw_anyprecision", build: anyprecision },
        bnb_adamw_8bit("adamw_bnb_8bit"),
        eager::<AdamWHf>("adamw_hf"),
        fusible::<AdamW>("adamw_torch"),
        torchao::<TorchaoAdamW, 4>("adamw_torch_4bit"),
        torchao::<TorchaoAdamW, 8>("adamw_torch_8bit"),
        fused::<AdamW>("adamw_torch_fused"),
        bnb::<AdEMAMix>("ademamix"),
        bnb_8bit::<AdEMAMix>("ademamix_8bit"),
        apollo("apollo_adamw"),
        apollo("apollo_adamw_layerwise"),
        eager::<Asgd>("asgd"),
        bnb::<BnbAdagrad>("bnb_adagrad_32bit"),
        bnb_8bit::<BnbAdagrad>("bnb_adagrad_8bit"),
        bnb::<BnbAdam>("bnb_adam_32bit"),
        bnb_8bit::<BnbAdam>("bnb_adam_8bit"),
        bnb_adamw("bnb_adamw_32bit"),
        bnb::<BnbLamb>("bnb_lamb_32bit"),
        bnb_8bit::<BnbLamb>("bnb_lamb_8bit"),
        bnb::<BnbLars>("bnb_lars_32bit"),
        bnb_8bit::<BnbLars>("bnb_lars_8bit"),
        bnb::<BnbSgd>("bnb_sgd_32bit"),
        bnb_8bit::<BnbSgd>("bnb_sgd_8bit"),
        flash::<FlashAdam>("flash_adam"),
        flash::<FlashAdamW>("flash_adamw"),
        flash::<FlashLion>("flash_lion"),
        flash::<FlashSgd>("flash_sgd"),
        flash::<FlashSgdW>("flash_sgdw"),
        galore_adafactor("galore_adafactor"),
        galore_adafactor("galore_adafactor_layerwise"),
        galore_adamw("galore_adamw"),
        galore_adamw_8bit("galore_adamw_8bit"),
        galore_adamw_8bit("galore_adamw_8bit_layerwise"),
        galore_adamw("galore_adamw_layerwise"),
        eager::<GrokAdamW>("grokadamw"),
        eager::<KerasAdam>("keras_adam"),
        bnb::<Lion>("lion_32bit"),
        bnb_8bit::<Lion>("lion_8bit"),
        single::<Lomo>("lomo"),
        eager::<Muon>("muon"),
        eager::<NAdam>("nadam"),
        eager::<OptimiAdam>("optimi_adam"),
        Entry { name: "optimi_adamw", build: optimi_adamw },
        eager::<OptimiAdan>("optimi_adan"),
        eager::<OptimiLion>("optimi_lion"),
        eager::<OptimiRAdam>("optimi_radam"),
        eager::<OptimiRanger>("optimi_ranger"),
        eager::<OptimiSgd>("optimi_sgd"),
        bnb_adamw("paged_adamw_32bit"),
        bnb_adamw_8bit("paged_adamw_8bit"),
        bnb::<AdEMAMix>("paged_ademamix_32bit"),
        bnb_8bit::<AdEMAMix>("paged_ademamix_8bit"),
        bnb::<Lion>("paged_lion_32bit"),
        bnb_8bit::<Lion>("paged_lion_8bit"),
        eager::<RAdam>("radam"),
        eager::<RmsProp>("rmsprop"),
        bnb::<BnbRmsprop>("rmsprop_bnb"),
        bnb::<BnbRmsprop>("rmsprop_bnb_32bit"),
        bnb_8bit::<BnbRmsprop>("rmsprop_bnb_8bit"),
        eager::<Rprop>("rprop"),
        eager::<ScheduleFreeAdamW>("schedule_free_adamw"),
        eager::<ScheduleFreeRAdam>("schedule_free_radam"),
        eager::<ScheduleFreeSgd>("schedule_free_sgd"),
        fusible::<Sgd>("sgd"),
        eager::<StableAdamW>("stable_adamw"),
        torchao::<TorchaoAdam, 4>("torchao_adam4bit"),
        torchao::<TorchaoAdam, 8>("torchao_adam8bit"),
        torchao_fp8::<TorchaoAdam>("torchao_adam_fp8"),
        torchao_fp8::<TorchaoAdamW>("torchao_adamw_fp8"),
    ];
}
