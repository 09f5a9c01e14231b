//! The table of error bounds that are not derived from the rule.
//!
//! An optimizer's values are held to the tolerance that `derived` computes from the rule itself. This is the only
//! table of all other bounds: of schedules and gradients, and of what error analysis can't track, which is codes
//! and everything after them in a free run, the correction stored beside a 16-bit parameter, matrix products, and
//! per-step scalars.
//!
//! * `step` and `values`: [`DEFAULT`] ULP at scale; integers and codes must be equal.
//! * `free`: every step may add that much, at the largest scale that the element has had: after step t (from 1)
//!   the bound is t times [`DEFAULT`] times the largest spacing so far. (An error made while a value was large
//!   does not shrink when the value does.)
//!
//! Low-bit state ([`is_low_bit`]): scales may be off by 1 ULP; a code may be off by one (as on a tie; that the
//! reference is on one is not checked), which is counted and printed, and allowed for 1 % of a case's codes; a parameter's scale is at least 8
//! learning rates. Codes are compared on their own grid, whatever type a backend returns them in.
//!
//! A free run of low-bit state is compared like any other until a code diverges from the reference's, which must
//! look like a tie too. From then on every step of that parameter must be the one that the core makes from the
//! backend's own state before it (`backend/diverged.rs`). Where that is impossible, because the state is hidden or
//! the core lacks the optimizer, the parameter may differ from the reference by what diverged codes can cause,
//! [`CARRIED`]. NaN and infinity are never accepted where the reference is finite.
//!
//! An error common to all elements may be within every element's bound, so each tensor's update is also compared
//! as a whole: [`SYSTEMATIC`].
//!
//! Looser bounds that are not derived are in [`EXEMPTIONS`], each with its reason. An exemption that no committed
//! case needs fails the run over the committed suite.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use globset::{Glob, GlobMatcher};

use crate::tensor::Dtype;

/// The bound of a single step, in ULP at scale.
pub const DEFAULT: f64 = 4.0;

/// How a case is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// One step at a time, each from the reference's own state.
    Step,
    /// The whole run from the initial parameters.
    Free,
    /// Schedules and gradients.
    Values,
}

impl Mode {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Step => "step",
            Mode::Free => "free",
            Mode::Values => "values",
        }
    }
}

/// A bound other than the default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemption {
    /// The cases, as a glob over `KIND/NAME/CASE`.
    pub case: &'static str,
    /// The values' type; `None` for any.
    pub dtype: Option<Dtype>,
    /// The quantity, as a glob: `value`, `eval`, a state slot, `lr`, `out`, `norm`.
    pub what: &'static str,
    /// How the case is checked.
    pub mode: Mode,
    /// The bound.
    pub allow: Tolerance,
    /// Why the default bound can't hold.
    pub reason: &'static str,
}

/// A bound that replaces the default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// This many ULP at scale per step.
    Ulp(f64),
    /// This many times the sum of the spacing and the core's sensitivity to one ULP in each input (the
    /// parameter, the gradient, every slot). For differences that nearly cancel.
    Conditioned(f64),
    /// This many ULP at scale, with no more than this share of a case's values (or one) beyond the default.
    #[allow(missing_docs)]
    Outliers { ulp: f64, share: f64 },
    /// The default plus this share of the largest change that the step makes in the tensor. For a reference that
    /// computes its update in lower precision.
    RelativeToUpdate(f64),
}

/// Slots that hold the rounding error of a sum (Kahan compensation). Their own last bits mean little: they are
/// compared as if the value beside them were the reference's, at the scale of what was added to both.
pub const COMPENSATIONS: &[&str] = &["compensation", "kahan_comp"];

/// All bounds other than [`DEFAULT`] that are not derived.
pub const EXEMPTIONS: &[Exemption] = &[
    Exemption { mode: Mode::Step, ..MUON },
    Exemption { mode: Mode::Free, ..MUON },
    Exemption { mode: Mode::Step, ..SINGLE },
    Exemption { mode: Mode::Free, ..SINGLE },
    Exemption { mode: Mode::Step, ..COMPENSATION_F64 },
    Exemption { mode: Mode::Free, ..COMPENSATION_F64 },
    Exemption { mode: Mode::Step, ..COMPENSATION_MIXED },
    Exemption { mode: Mode::Free, ..COMPENSATION_MIXED },
    Exemption { mode: Mode::Step, ..ANYPRECISION_F64 },
    Exemption { mode: Mode::Free, ..ANYPRECISION_F64 },
    Exemption { mode: Mode::Step, ..PRODUCT_F32 },
    Exemption { mode: Mode::Free, ..PRODUCT_F32 },
    Exemption { mode: Mode::Step, ..PRODUCT_F64 },
    Exemption { mode: Mode::Free, ..PRODUCT_F64 },
    Exemption { mode: Mode::Step, ..SCALE },
    Exemption { mode: Mode::Free, ..SCALE },
    Exemption { mode: Mode::Step, ..CANCELLING },
    Exemption { mode: Mode::Free, ..CANCELLING },
    Exemption {
        case: "schedule/{cosine*,torch_cosine_annealing_warm_restarts,torch_one_cycle,\
               warmup_stable_decay}/*",
        dtype: None,
        what: "lr",
        mode: Mode::Values,
        allow: Tolerance::Outliers { ulp: 512.0, share: 0.01 },
        reason: "glibc's cosine, which Python calls, is 1 ULP off the nearest number once in 1300; \
                 ours is not, and where 1 + cos nearly cancels that ULP is hundreds of the rate",
    },
    Exemption {
        case: "schedule/torch_{cosine_annealing,sequential,chained}/*",
        dtype: None,
        what: "lr",
        mode: Mode::Values,
        allow: Tolerance::Ulp(512.0),
        reason: "the same cosine in a recursive schedule, which carries the difference on",
    },
    Exemption {
        case: "schedule/{warm_up,create_optimizer}/*",
        dtype: None,
        what: "lr",
        mode: Mode::Values,
        allow: Tolerance::Outliers { ulp: DEFAULT * F32_ULP, share: 0.1 },
        reason: "TensorFlow's rates are f32: these are 4 ULP of f32. It calls glibc's cosf and powf, \
                 which are 1 ULP off the nearest number once in 140 and in 7000",
    },
];

/// The last resort where no tolerance is derived: see `sensitivity`.
const CANCELLING: Exemption = Exemption {
    case: "optimizer/*",
    dtype: None,
    what: "*",
    mode: Mode::Step,
    allow: Tolerance::Conditioned(DEFAULT),
    reason: "gradient and decay, old and new momentum, parameter and update may nearly cancel, and \
             the reference contracts a product and a sum to one fma where we do not: the default, \
             with what an ULP of each input moves the answer by",
};

const SCALE: Exemption = Exemption {
    case: LOW_BIT,
    dtype: Some(Dtype::F32),
    what: "{*.scale,absmax*}",
    mode: Mode::Step,
    allow: Tolerance::Ulp(2.0),
    reason: "a scale is the largest moment of a block, a sum of two products of which the \
             reference contracts one: two roundings more",
};

const MUON: Exemption = Exemption {
    case: "optimizer/muon/*",
    dtype: None,
    what: "value",
    mode: Mode::Step,
    allow: Tolerance::RelativeToUpdate(0.06),
    reason: "products are rounded to bf16 fifteen times; where their f32 sums, in another order, \
             fall on the other side of a tie, later products move with them: a sixth of 17 x 33 \
             matrices differ from exact sums, by up to 0.04 where the largest element is 1.2",
};

const COMPENSATION_F64: Exemption =
    Exemption { what: "compensation", allow: Tolerance::Ulp(16.0 * F32_ULP), ..ANYPRECISION_F64 };

/// One ULP of `f32`, in ULP of `f64`.
const F32_ULP: f64 = (1u64 << 29) as f64;

const SINGLE: Exemption = Exemption {
    case: "optimizer/galore_adamw_8bit/*",
    dtype: Some(Dtype::F64),
    what: "value",
    mode: Mode::Step,
    allow: Tolerance::Ulp(DEFAULT * F32_ULP),
    reason: "the reference computes f64 parameters in f32: the default, in ULP of f32",
};

const COMPENSATION_MIXED: Exemption = Exemption {
    case: "optimizer/adamw_anyprecision/types_*_f64",
    dtype: Some(Dtype::F32),
    what: "compensation",
    allow: Tolerance::Outliers { ulp: 128.0, share: 0.02 },
    reason: "the same, and where update and decay nearly cancel, one ULP of the update is many of \
             what is left",
    ..SINGLE
};

const ANYPRECISION_F64: Exemption = Exemption {
    case: "optimizer/adamw_anyprecision/*",
    reason: "the reference's bias correction is an f32, whose root comes from a vector library and \
             is up to one ULP off: the default, in ULP of f32",
    ..SINGLE
};

/// Optimizers whose state is stored as codes and scales.
const LOW_BIT: &str = "optimizer/{flash_*,*_8bit,*_4bit,torchao_*}/*";

/// Whether a case is of an optimizer whose state is stored as codes and scales.
#[must_use]
pub fn is_low_bit(case: &str) -> bool {
    static GLOB: LazyLock<Option<GlobMatcher>> = LazyLock::new(|| matcher(LOW_BIT));
    GLOB.as_ref().is_some_and(|g| g.is_match(case))
}

/// The share of a case's codes that may be off by one, as where the reference is on a tie.
pub const TIES: f64 = 0.01;

/// How far a free run may be from the reference's after codes have diverged, where the core can't follow it: this
/// many times the reference's largest change of an element, summed over the steps since. No element changes by
/// more than that in a step, whatever its code, so two updates differ by at most twice as much; Lion's do when a
/// code flips its sign. Of 12,600 codes changed by one in the committed cases, 240 had a larger effect: those
/// where FlashAdam's second moment has the code 0, and the update is divided by ε alone.
pub const CARRIED: f64 = 2.0;

/// The allowed systematic error of an update, beyond what rounding accounts for: the deviation from 1 of its scale
/// (the least-squares fit to the reference's update), and its mean error in the update's direction relative to
/// the mean magnitude. Over all committed cases the core is within 0.0005; an argument off by one per cent gives
/// 0.01 where the update is proportional to it.
pub const SYSTEMATIC: f64 = 0.005;

/// [`SYSTEMATIC`] after codes have diverged, where the core can't follow. One code changes the whole update by less
/// than 0.009 in 95 of 100 places that were tried.
pub const SYSTEMATIC_DIVERGED: f64 = 0.05;

const PRODUCT_F32: Exemption = Exemption {
    case: "optimizer/{galore,apollo}_*/*",
    dtype: Some(Dtype::F32),
    what: "*",
    mode: Mode::Step,
    allow: Tolerance::Ulp(1000.0),
    reason: "what stands behind a product of matrices: terms that cancel leave the rounding of the \
             larger ones, and the reference fuses each product with its sum. Of four suites the \
             worst is 426, among sums of 37",
};

const PRODUCT_F64: Exemption = Exemption { dtype: Some(Dtype::F64), ..PRODUCT_F32 };

/// A compiled glob; `None` if it is ill-formed. Compiling is slow, so callers keep it.
fn matcher(glob: &str) -> Option<GlobMatcher> {
    Glob::new(glob).ok().map(|glob| glob.compile_matcher())
}

/// The key by which exemptions are looked up.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// `KIND/NAME/CASE`.
    pub case: &'a str,
    /// The values' type.
    pub dtype: Dtype,
    /// The quantity: `value`, a state slot, ….
    pub what: &'a str,
    /// How the case is checked.
    pub mode: Mode,
}

/// The table of exemptions, with a record of which were used.
#[derive(Debug)]
pub struct Bounds {
    table: Vec<(Exemption, Option<[GlobMatcher; 2]>)>,
    needed: Vec<AtomicBool>,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds::new(EXEMPTIONS)
    }
}

impl Bounds {
    /// From a table; an ill-formed glob matches nothing, and so is reported as stale.
    #[must_use]
    pub fn new(table: &[Exemption]) -> Self {
        let globs = |e: &Exemption| Some([matcher(e.case)?, matcher(e.what)?]);
        let table: Vec<_> = table.iter().map(|&e| (e, globs(&e))).collect();
        Bounds { needed: table.iter().map(|_| AtomicBool::new(false)).collect(), table }
    }

    /// The first exemption that matches.
    #[must_use]
    pub fn exemption(&self, s: &Subject<'_>) -> Option<(usize, Tolerance)> {
        let i = self.table.iter().position(|(e, globs)| {
            e.mode == s.mode
                && e.dtype.is_none_or(|d| d == s.dtype)
                && globs
                    .as_ref()
                    .is_some_and(|[case, what]| case.is_match(s.case) && what.is_match(s.what))
        })?;
        Some((i, self.table[i].0.allow))
    }

    /// The reason of an exemption.
    #[must_use]
    pub fn reason(&self, exemption: usize) -> &'static str {
        self.table[exemption].0.reason
    }

    /// The share of outliers that an exemption allows.
    #[must_use]
    pub fn share(&self, exemption: usize) -> f64 {
        match self.table[exemption].0.allow {
            Tolerance::Outliers { share, .. } => share,
            _ => 1.0,
        }
    }

    /// Records that a value needed the exemption.
    pub fn mark_used(&self, exemption: usize) {
        self.needed[exemption].store(true, Ordering::Relaxed);
    }

    /// Exemptions that no value has needed. A free run begins with a step, so one that steps need counts as
    /// needed for free runs too.
    #[must_use]
    pub fn stale(&self) -> Vec<&Exemption> {
        let rows = || self.table.iter().map(|(e, _)| e).zip(&self.needed);
        let is_needed = |n: &AtomicBool| n.load(Ordering::Relaxed);
        let of_step = |e: &Exemption| {
            let step = Exemption { mode: Mode::Step, ..*e };
            e.mode == Mode::Free && rows().any(|(other, n)| *other == step && is_needed(n))
        };
        rows().filter(|(e, n)| !is_needed(n) && !of_step(e)).map(|(e, _)| e).collect()
    }

    /// The default bound of a quantity, in ULP at scale for a single step.
    #[must_use]
    pub fn default_for(dtype: Dtype, what: &str) -> f64 {
        let scale = what.ends_with(".scale") || what.ends_with("::scales");
        if scale || what.starts_with("absmax") {
            1.0
        } else if dtype.float().is_some() || dtype == Dtype::I16 {
            DEFAULT // the last of 16 correction bits is the last bit of an f32
        } else {
            0.0
        }
    }

    /// Whether the slot is one of [`COMPENSATIONS`].
    #[must_use]
    pub fn compensates(slot: &str) -> bool {
        COMPENSATIONS.contains(&slot)
    }
}

impl std::fmt::Display for Exemption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dtype = self.dtype.map_or("any type", Dtype::name);
        let Exemption { case, what, mode, allow, reason, .. } = self;
        write!(f, "{case} {what} {dtype} {}: {allow:?} ({reason})", mode.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemption_first_that_fits_holds_and_unneeded_is_stale() {
        let e = Exemption {
            case: "optimizer/muon/*",
            dtype: Some(Dtype::F32),
            what: "value",
            mode: Mode::Step,
            allow: Tolerance::Ulp(100.0),
            reason: "a seeded one",
        };
        let bounds = Bounds::new(&[
            e,
            Exemption { case: "*", allow: Tolerance::RelativeToUpdate(0.5), ..e },
        ]);
        let subject = |case, what| Subject { case, dtype: Dtype::F32, what, mode: Mode::Step };
        let of = |case, what| bounds.exemption(&subject(case, what));
        assert_eq!(of("optimizer/muon/x", "value"), Some((0, Tolerance::Ulp(100.0))));
        assert_eq!(of("optimizer/sgd/x", "value"), Some((1, Tolerance::RelativeToUpdate(0.5))));
        assert_eq!(of("optimizer/muon/x", "exp_avg"), None);
        bounds.mark_used(0);
        assert_eq!(bounds.stale().len(), 1);
    }
}
