//! The table of error bounds that are not derived from the rule.
//!
//! Values are held to the tolerance that `derived` computes from the rule, the schedule or the gradient strategy
//! itself. This is the only table of all other bounds: of scalars that no sum goes into, of values whose derived
//! tolerance is infinite, and of all values of what the core lacks.
//!
//! * `step` and `values`: [`DEFAULT`] ULP at scale; integers and codes must be equal.
//! * `free`: every step may add that much, at the largest scale that the element has had: after step t (from 1)
//!   the bound is t times [`DEFAULT`] times the largest spacing so far. (An error made while a value was large
//!   does not shrink when the value does.)
//!
//! Low-bit state ([`is_low_bit`]): which codes an element may have is derived. For an optimizer that the core lacks,
//! scales may be off by 1 ULP, and codes by one, which is counted and printed, and allowed for 1 % of a case's codes; a
//! parameter's scale is at least 8 learning rates. Codes are compared on their own grid, whatever type a backend
//! returns them in.
//!
//! A free run of low-bit state is compared like any other until a code is another than the reference's where both
//! may be. From then on every step of that parameter must be the one that the core makes from the backend's own state
//! before it (`backend/diverged.rs`), to tolerances derived from that. Where that is impossible, because the state is
//! hidden or the core lacks the optimizer, the parameter may differ from the reference by what diverged codes can
//! cause, [`CARRIED`]. NaN and infinity are never accepted where the reference is finite.
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
    /// This many ULP at scale, with no more than this share of a case's values (or one) beyond the default.
    #[allow(missing_docs)]
    Outliers { ulp: f64, share: f64 },
}

/// Slots that hold the rounding error of a sum (Kahan compensation). Their own last bits mean little: they are
/// compared as if the value beside them were the reference's, at the scale of what was added to both.
pub const COMPENSATIONS: &[&str] = &["compensation", "kahan_comp"];

/// All bounds other than [`DEFAULT`] that are not derived.
pub const EXEMPTIONS: &[Exemption] = &[];

/// Optimizers whose state is stored as codes and scales.
const LOW_BIT: &str = "optimizer/{flash_*,*_8bit,*_4bit,torchao_*}/*";

/// Whether a case is of an optimizer whose state is stored as codes and scales.
#[must_use]
pub fn is_low_bit(case: &str) -> bool {
    static GLOB: LazyLock<Option<GlobMatcher>> = LazyLock::new(|| matcher(LOW_BIT));
    GLOB.as_ref().is_some_and(|g| g.is_match(case))
}

/// The share of a case's codes that may be off by one, as on a tie, where the core lacks the optimizer.
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
            Exemption { case: "*", allow: Tolerance::Outliers { ulp: 200.0, share: 0.5 }, ..e },
        ]);
        let subject = |case, what| Subject { case, dtype: Dtype::F32, what, mode: Mode::Step };
        let of = |case, what| bounds.exemption(&subject(case, what));
        assert_eq!(of("optimizer/muon/x", "value"), Some((0, Tolerance::Ulp(100.0))));
        assert_eq!(
            of("optimizer/sgd/x", "value"),
            Some((1, Tolerance::Outliers { ulp: 200.0, share: 0.5 }))
        );
        assert_eq!(of("optimizer/muon/x", "exp_avg"), None);
        bounds.mark_used(0);
        assert_eq!(bounds.stale().len(), 1);
    }
}
