//! All mistakes that are known.

use super::arguments::ignored_arguments;
use super::formulas::FORMULAS;
use super::{MUTATIONS, Mistake, VARIANTS};
use crate::golden::Case;

/// Every known mistake that can be made in a case.
#[must_use]
pub fn mistakes(case: &Case) -> Vec<Mistake> {
    let known = MUTATIONS.iter().chain(VARIANTS).chain(FORMULAS).filter(|m| m.applies(case));
    let known = known.map(|m| Mistake { name: m.name.to_owned(), step: Box::new(m.step) });
    known.chain(ignored_arguments(case)).collect()
}
