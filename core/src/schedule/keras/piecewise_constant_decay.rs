use super::Decay;

/// One value up to and with each boundary, and one after the last.
///
/// Boundaries are whole numbers of steps: the reference cuts off what is behind the point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PiecewiseConstantDecay<B, V> {
    /// The last step of each value but the last.
    pub boundaries: B,
    /// The values: one more.
    pub values: V,
}

impl<B: AsRef<[f64]>, V: AsRef<[f64]>> Decay for PiecewiseConstantDecay<B, V> {
    /// NaN if there are too few values.
    fn rate(&self, step: u64) -> f32 {
        let (boundaries, values) = (self.boundaries.as_ref(), self.values.as_ref());
        let value = |i: usize| values.get(i).map_or(f32::NAN, |&v| v as f32);
        let within = |&b: &f64| step as f64 <= libm::trunc(b);
        match (boundaries.first(), boundaries.last()) {
            (Some(first), _) if within(first) => value(0),
            (_, Some(last)) if within(last) => {
                let next = boundaries.iter().position(within);
                value(next.unwrap_or(0))
            }
            _ => value(values.len().saturating_sub(1)),
        }
    }
}
