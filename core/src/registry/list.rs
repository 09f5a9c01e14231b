//! Every name.

use super::entries::{
    adam_weight_decay, anyprecision, apollo, bnb, bnb_8bit, bnb_adamw, bnb_adamw_8bit, eager,
    flash, fused, fusible, galore_adafactor, galore_adamw, galore_adamw_8bit, optimi_adamw, single,
    torchao, torchao_fp8,
};
use super::entry::{OptimizerEntry, optimizer_of};
use crate::hyper::{ArgError, Args};
use crate::optim::{
    AdEMAMix, AdaLomo, Adadelta, Adafactor, AdafactorTorch, Adagrad, Adam, AdamW, AdamWHf, Adamax,
    Asgd, BnbAdagrad, BnbAdam, BnbLamb, BnbLars, BnbRmsprop, BnbSgd, FlashAdam, FlashAdamW,
    FlashLion, FlashSgd, FlashSgdW, GrokAdamW, KerasAdam, Lion, Lomo, Muon, NAdam, OptimiAdam,
    OptimiAdan, OptimiLion, OptimiRAdam, OptimiRanger, OptimiSgd, RAdam, RmsProp, Rprop,
    ScheduleFreeAdamW, ScheduleFreeRAdam, ScheduleFreeSgd, Sgd, StableAdamW, TorchaoAdam,
    TorchaoAdamW,
};
use crate::optimizer::OptimizerSpec;
use crate::rule::factored::FactoredRule;

/// The spec of a registry name with these arguments of its reference's constructor: `[("lr", 1e-3)]`, or [`Args`].
///
/// # Errors
/// An unknown name or argument (with the nearest known one), or a refused value.
///
/// ```
/// use bitstep::prelude::*;
/// assert!(registry::optimizer("adamw_torch", [("lr", 1e-3), ("weight_decay", 0.1)]).is_ok());
/// let error = registry::optimizer("adamw_torch", [("weight_decy", 0.1)]).unwrap_err();
/// assert_eq!(error.to_string(), "`adamw_torch` has no argument `weight_decy`; did you mean `weight_decay`?");
/// let error = registry::optimizer("adamw_troch", Args::new()).unwrap_err();
/// assert!(error.to_string().contains("`adamw_torch`"));
/// ```
pub fn optimizer(name: &str, args: impl Into<Args>) -> Result<OptimizerSpec, ArgError> {
    optimizer_of(OPTIMIZERS, name, &args.into())
}

/// Every optimizer. Static, or each crate that names it would compile every rule anew.
pub static OPTIMIZERS: &[OptimizerEntry] = &[
    eager::<Adadelta>("adadelta"),
    fused::<FactoredRule<Adafactor>>("adafactor"),
    eager::<FactoredRule<AdafactorTorch>>("adafactor_torch"),
    fusible::<Adagrad>("adagrad"),
    single::<FactoredRule<AdaLomo>>("adalomo"),
    fusible::<Adam>("adam"),
    adam_weight_decay("adam_weight_decay"),
    eager::<Adamax>("adamax"),
    bnb_adamw_8bit("adamw_8bit"),
    anyprecision("adamw_anyprecision"),
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
    optimi_adamw("optimi_adamw"),
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
