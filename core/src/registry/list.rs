//! The table of all optimizers by name, by the families that features choose.
#![cfg_attr(not(feature = "names"), allow(unused_imports, reason = "some families are left out"))]

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

/// `torch.optim`.
#[cfg(feature = "names-torch")]
const TORCH: &[OptimizerEntry] = &[
    eager::<Adadelta>("adadelta"),
    eager::<FactoredRule<AdafactorTorch>>("adafactor_torch"),
    fusible::<Adagrad>("adagrad"),
    fusible::<Adam>("adam"),
    eager::<Adamax>("adamax"),
    fusible::<AdamW>("adamw_torch"),
    fused::<AdamW>("adamw_torch_fused"),
    eager::<Asgd>("asgd"),
    eager::<Muon>("muon"),
    eager::<NAdam>("nadam"),
    eager::<RAdam>("radam"),
    eager::<RmsProp>("rmsprop"),
    eager::<Rprop>("rprop"),
    fusible::<Sgd>("sgd"),
];

/// Transformers' own.
#[cfg(feature = "names-transformers")]
const TRANSFORMERS: &[OptimizerEntry] = &[
    fused::<FactoredRule<Adafactor>>("adafactor"),
    adam_weight_decay("adam_weight_decay"),
    eager::<AdamWHf>("adamw_hf"),
];

/// bitsandbytes.
#[cfg(feature = "names-bnb")]
const BNB: &[OptimizerEntry] = &[
    bnb_adamw_8bit("adamw_8bit"),
    bnb_adamw_8bit("adamw_bnb_8bit"),
    bnb::<AdEMAMix>("ademamix"),
    bnb_8bit::<AdEMAMix>("ademamix_8bit"),
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
    bnb::<Lion>("lion_32bit"),
    bnb_8bit::<Lion>("lion_8bit"),
    bnb_adamw("paged_adamw_32bit"),
    bnb_adamw_8bit("paged_adamw_8bit"),
    bnb::<AdEMAMix>("paged_ademamix_32bit"),
    bnb_8bit::<AdEMAMix>("paged_ademamix_8bit"),
    bnb::<Lion>("paged_lion_32bit"),
    bnb_8bit::<Lion>("paged_lion_8bit"),
    bnb::<BnbRmsprop>("rmsprop_bnb"),
    bnb::<BnbRmsprop>("rmsprop_bnb_32bit"),
    bnb_8bit::<BnbRmsprop>("rmsprop_bnb_8bit"),
];

/// torchao.
#[cfg(feature = "names-torchao")]
const TORCHAO: &[OptimizerEntry] = &[
    torchao::<TorchaoAdamW, 4>("adamw_torch_4bit"),
    torchao::<TorchaoAdamW, 8>("adamw_torch_8bit"),
    torchao::<TorchaoAdam, 4>("torchao_adam4bit"),
    torchao::<TorchaoAdam, 8>("torchao_adam8bit"),
    torchao_fp8::<TorchaoAdam>("torchao_adam_fp8"),
    torchao_fp8::<TorchaoAdamW>("torchao_adamw_fp8"),
];

/// FlashOptim.
#[cfg(feature = "names-flash")]
const FLASH: &[OptimizerEntry] = &[
    flash::<FlashAdam>("flash_adam"),
    flash::<FlashAdamW>("flash_adamw"),
    flash::<FlashLion>("flash_lion"),
    flash::<FlashSgd>("flash_sgd"),
    flash::<FlashSgdW>("flash_sgdw"),
];

/// optimi.
#[cfg(feature = "names-optimi")]
const OPTIMI: &[OptimizerEntry] = &[
    eager::<OptimiAdam>("optimi_adam"),
    optimi_adamw("optimi_adamw"),
    eager::<OptimiAdan>("optimi_adan"),
    eager::<OptimiLion>("optimi_lion"),
    eager::<OptimiRAdam>("optimi_radam"),
    eager::<OptimiRanger>("optimi_ranger"),
    eager::<OptimiSgd>("optimi_sgd"),
];

/// schedulefree.
#[cfg(feature = "names-schedule-free")]
const SCHEDULE_FREE: &[OptimizerEntry] = &[
    eager::<ScheduleFreeAdamW>("schedule_free_adamw"),
    eager::<ScheduleFreeRAdam>("schedule_free_radam"),
    eager::<ScheduleFreeSgd>("schedule_free_sgd"),
];

/// galore_torch and apollo_torch.
#[cfg(feature = "names-lowrank")]
const LOWRANK: &[OptimizerEntry] = &[
    apollo("apollo_adamw"),
    apollo("apollo_adamw_layerwise"),
    galore_adafactor("galore_adafactor"),
    galore_adafactor("galore_adafactor_layerwise"),
    galore_adamw("galore_adamw"),
    galore_adamw_8bit("galore_adamw_8bit"),
    galore_adamw_8bit("galore_adamw_8bit_layerwise"),
    galore_adamw("galore_adamw_layerwise"),
];

/// Packages with one or two optimizers.
#[cfg(feature = "names-others")]
const OTHERS: &[OptimizerEntry] = &[
    single::<FactoredRule<AdaLomo>>("adalomo"),
    anyprecision("adamw_anyprecision"),
    eager::<GrokAdamW>("grokadamw"),
    eager::<KerasAdam>("keras_adam"),
    single::<Lomo>("lomo"),
    eager::<StableAdamW>("stable_adamw"),
];

/// Every optimizer of the families that are chosen, sorted by name. If `BITSTEP_NAMES` is set where this is compiled,
/// only those that it lists, as in `adamw_torch,lion_8bit`; nothing of the others is in the program then.
// A static: each crate that uses a constant would compile every rule again.
pub static OPTIMIZERS: &[OptimizerEntry] = &SORTED;

const FAMILIES: &[&[OptimizerEntry]] = &[
    #[cfg(feature = "names-torch")]
    TORCH,
    #[cfg(feature = "names-transformers")]
    TRANSFORMERS,
    #[cfg(feature = "names-bnb")]
    BNB,
    #[cfg(feature = "names-torchao")]
    TORCHAO,
    #[cfg(feature = "names-flash")]
    FLASH,
    #[cfg(feature = "names-optimi")]
    OPTIMI,
    #[cfg(feature = "names-schedule-free")]
    SCHEDULE_FREE,
    #[cfg(feature = "names-lowrank")]
    LOWRANK,
    #[cfg(feature = "names-others")]
    OTHERS,
];

const LISTED: Option<&str> = option_env!("BITSTEP_NAMES");

const COUNT: usize = {
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        let mut i = 0;
        while i < FAMILIES[family].len() {
            count += is_listed(FAMILIES[family][i].name) as usize;
            i += 1;
        }
        family += 1;
    }
    assert!(
        count == listed_count(count),
        "BITSTEP_NAMES has a name that is unknown or there twice"
    );
    count
};

const SORTED: [OptimizerEntry; COUNT] = {
    const NONE: OptimizerEntry = OptimizerEntry {
        name: "",
        build: |name, _| {
            let name = name.into();
            Err(ArgError::UnknownName { kind: "optimizer", name, nearest: None })
        },
    };
    let mut sorted = [NONE; COUNT];
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        let mut i = 0;
        while i < FAMILIES[family].len() {
            let entry = FAMILIES[family][i];
            i += 1;
            if !is_listed(entry.name) {
                continue;
            }
            let mut at = count;
            while at > 0 && is_before(entry.name, sorted[at - 1].name) {
                sorted[at] = sorted[at - 1];
                at -= 1;
            }
            sorted[at] = entry;
            count += 1;
        }
        family += 1;
    }
    sorted
};

/// `a < b`, for constants.
const fn is_before(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() {
        if a[i] != b[i] {
            return a[i] < b[i];
        }
        i += 1;
    }
    a.len() < b.len()
}

/// Whether `BITSTEP_NAMES` has this name, or is not set.
const fn is_listed(name: &str) -> bool {
    let Some(listed) = LISTED else { return true };
    let (listed, name) = (listed.as_bytes(), name.as_bytes());
    let mut start = 0;
    while start + name.len() <= listed.len() {
        let mut i = 0;
        while i < name.len() && listed[start + i] == name[i] {
            i += 1;
        }
        let end = start + name.len();
        if i == name.len() && (end == listed.len() || listed[end] == b',') {
            return true;
        }
        // To behind the next comma.
        while start < listed.len() && listed[start] != b',' {
            start += 1;
        }
        start += 1;
    }
    false
}

/// The number of names in `BITSTEP_NAMES`; `all` if it is not set.
const fn listed_count(all: usize) -> usize {
    let Some(listed) = LISTED else { return all };
    let (mut count, mut i) = (1, 0);
    while i < listed.len() {
        count += (listed.as_bytes()[i] == b',') as usize;
        i += 1;
    }
    count
}
