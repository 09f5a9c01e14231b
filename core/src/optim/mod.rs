//! Every optimizer: one rule per file, under the reference's name.
//!
//! [`AdamW`] is in [`adamw`], [`Adafactor`] in [`adafactor`], and so on; families are in folders: [`bnb`] for
//! bitsandbytes, [`flash`] for FlashOptim, [`keras`], [`optimi`], [`schedule_free`]. A file holds a rule's
//! documentation, defaults, ranges, formula and unit tests. [`crate::rule`] runs a rule, [`crate::storage`] stores its
//! state, and [`crate::registry`] maps the names that the references use to rules.

pub mod adadelta;
pub mod adafactor;
pub mod adafactor_torch;
pub mod adagrad;
pub mod adalomo;
pub mod adam;
pub mod adam_weight_decay;
pub mod adamax;
pub mod adamw;
pub mod adamw_anyprecision;
pub mod adamw_hf;
pub mod ademamix;
pub mod asgd;
pub mod bnb;
pub mod flash;
pub mod grokadamw;
pub mod keras;
pub mod lion;
pub mod lomo;
pub mod muon;
pub mod nadam;
pub mod optimi;
pub mod radam;
pub mod rmsprop;
pub mod rprop;
pub mod schedule_free;
pub mod sgd;
pub mod stable_adamw;
pub mod torchao_adam;

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
pub use bnb::{BnbAdagrad, BnbAdam, BnbLamb, BnbLars, BnbRmsprop, BnbSgd, BnbState};
pub use flash::{
    FlashAdam, FlashAdamRule, FlashAdamW, FlashLion, FlashSgd, FlashSgdRule, FlashSgdW,
};
pub use grokadamw::GrokAdamW;
pub use keras::{KerasAdam, KerasClip};
pub use lion::Lion;
pub use lomo::Lomo;
pub use muon::{AdjustLr, Muon};
pub use nadam::NAdam;
pub use optimi::{OptimiAdam, OptimiAdan, OptimiLion, OptimiRAdam, OptimiRanger, OptimiSgd};
pub use radam::RAdam;
pub use rmsprop::RmsProp;
pub use rprop::Rprop;
pub use schedule_free::{ScheduleFreeAdamW, ScheduleFreeRAdam, ScheduleFreeSgd};
pub use sgd::Sgd;
pub use stable_adamw::StableAdamW;
pub use torchao_adam::{TorchaoAdam, TorchaoAdamRule, TorchaoAdamW};

/// Passes every rule, with the stem that its files and kernels are named after, to a macro: for backends that need code
/// for each type of rule. The rules are grouped by [kind](crate::rule):
///
/// * `elementwise`, `tensorwise` and `factored`;
/// * `orthogonal`: the Newton–Schulz rules;
/// * `projected`: pairs of an inner rule and its projection;
/// * `directed` and `directed_factored`: the inner rules of `projected` again, for which computing a direction and
///   applying it are separate loops; the second key has the factored ones.
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
                AdamWHf, GaLore; FactoredRule<Adafactor>, GaLore; ForceF32<BnbLamb>, GaLore; AdamWHf, Apollo;
            }
            directed { adamw_hf: AdamWHf, bnb_lamb: BnbLamb, }
            directed_factored { adafactor: Adafactor, }
        }
    };
}
