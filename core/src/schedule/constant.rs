use super::Schedule;
use crate::args::{Fields, Hyper};

/// The group's own rate, always.
///
/// # Source
/// `transformers.get_constant_schedule`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Constant;

impl Hyper for Constant {
    fn fields(&mut self, _: &mut dyn Fields) {}
}

impl Schedule for Constant {
    fn lr(&self, base_lr: f64, _: u64) -> f64 {
        base_lr
    }
}
