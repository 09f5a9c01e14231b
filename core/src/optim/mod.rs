//! The rules, one a file.

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
pub(crate) mod bnb;
mod bnb_adagrad;
mod bnb_adam;
mod bnb_lamb;
mod bnb_lars;
mod bnb_rmsprop;
mod bnb_sgd;
pub(crate) mod flash;
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
pub(crate) mod torchao_adam;

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
                AdamWHf, GaLore; FactoredRule<Adafactor>, GaLore; ForceF32<BnbLamb>, GaLore; AdamWHf, Apollo;
            }
            directed { adamw_hf: AdamWHf, bnb_lamb: BnbLamb, }
            directed_factored { adafactor: Adafactor, }
        }
    };
}
