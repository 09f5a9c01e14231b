//! Distributions of errors relative to their tolerances, and of tolerances in ULP.

use std::collections::BTreeMap;

/// How many bins a factor of 2 is divided into.
const BINS_PER_DOUBLING: f64 = 8.0;
/// Smaller values, 0 among them, share this value's bin.
const SMALLEST_VALUE: f64 = 1e-9;

/// A histogram of non-negative values, with logarithmic bins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    bins: BTreeMap<i32, u64>,
    /// The largest value.
    pub largest: f64,
}

impl Histogram {
    fn add_value(&mut self, x: f64) {
        let bin = (x.clamp(SMALLEST_VALUE, 1e30).log2() * BINS_PER_DOUBLING).ceil() as i32;
        *self.bins.entry(bin).or_default() += 1;
        self.largest = self.largest.max(x);
    }

    fn add(&mut self, other: &Histogram) {
        for (bin, count) in &other.bins {
            *self.bins.entry(*bin).or_default() += count;
        }
        self.largest = self.largest.max(other.largest);
    }

    /// The number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bins.values().sum()
    }

    /// The quantile of this share, within a tenth; 0 if there are no values.
    #[must_use]
    pub fn quantile(&self, part: f64) -> f64 {
        let expected = (self.count() as f64 * part).ceil();
        let mut seen = 0;
        let upto = |(bin, count): (&i32, &u64)| {
            seen += count;
            (seen as f64 >= expected).then_some(*bin)
        };
        let bin = self.bins.iter().find_map(upto);
        let x =
            bin.map_or(0.0, |bin| (f64::from(bin) / BINS_PER_DOUBLING).exp2().min(self.largest));
        if x <= 2.0 * SMALLEST_VALUE { 0.0 } else { x }
    }
}

/// Statistics over values whose tolerances are derived from the rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    /// Errors relative to their tolerances.
    pub shares: Histogram,
    /// Tolerances, in ULP.
    pub ulps: Histogram,
    /// The number of values whose bounds are from the table instead.
    pub by_table: u64,
}

impl Spread {
    pub(crate) fn record(&mut self, error: f64, bound: f64) {
        self.shares.add_value(if error == 0.0 { 0.0 } else { error / bound });
        self.ulps.add_value(bound);
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Spread) {
        self.shares.add(&other.shares);
        self.ulps.add(&other.ulps);
        self.by_table += other.by_table;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near() {
        let mut h = Histogram::default();
        (1..=1000).for_each(|i| h.add_value(f64::from(i)));
        for (part, x) in [(0.5, 500.0), (0.99, 990.0)] {
            assert!((h.quantile(part) / x - 1.0).abs() < 0.1, "{}", h.quantile(part));
        }
        assert_eq!((h.quantile(1.0), h.largest, h.count()), (1000.0, 1000.0, 1000));
        assert_eq!(Histogram::default().quantile(0.5), 0.0);
    }
}
