//! Systematic errors: deviations of an update that all elements of a tensor share.
//!
//! A bound per element says nothing about an error that all elements share: Muon's elements may be off by 6 % of
//! the largest change, and a learning rate that is 5 % too large stays within. Over many elements such errors do
//! not average out, while rounding errors do. So two statistics of the whole tensor are held to
//! [`SYSTEMATIC`](crate::judge::bounds::SYSTEMATIC): the scale Σ g·u / Σ u² for the reference's update u and the
//! backend's g, and the mean error in the direction of u relative to the mean magnitude, Σ (g − u)·sign u / Σ |u|.
//! Rounding is allowed on top: independent errors of size e change the first by √Σ (e·u)² / Σ u² and the second
//! by √Σ e² / Σ |u|.
//!
//! In 16 bits not all are independent: an implementation in vectors rounds the parts of an operation only in what fills
//! no vector, and in all of a short tensor. Those elements may all be off the same way, so their errors are added as
//! they are.

/// The most elements of 16 bits that fill no vector of 512 bits.
const NO_VECTOR: usize = 31;

/// Sums over elements, in units of the largest change of each tensor and step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystematicError {
    along: f64,
    square: f64,
    excess: f64,
    length: f64,
    noise_along: f64,
    noise: f64,
}

/// The change of one element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// In the backend.
    pub(crate) got: f64,
    /// In the reference.
    pub(crate) want: f64,
    /// The size of its rounding error.
    pub(crate) noise: f64,
}

impl SystematicError {
    /// The sums of one tensor. Changes that are not finite are left out: the comparison per element covers them.
    /// `is_narrow`: the tensor has 16 bits.
    pub(crate) fn of(changes: &[Change], is_narrow: bool) -> SystematicError {
        let finite = |e: &&Change| e.got.is_finite() && e.want.is_finite() && e.noise.is_finite();
        let changes = || changes.iter().filter(finite);
        let largest = changes().map(|e| e.want.abs()).fold(0.0, f64::max);
        let mut sum = SystematicError::default();
        let mut alike = Vec::new();
        if largest == 0.0 {
            return sum;
        }
        for e in changes() {
            let [got, want, noise] = [e.got, e.want, e.noise].map(|x| x / largest);
            let direction = if want == 0.0 { 0.0 } else { want.signum() };
            sum.along += got * want;
            sum.square += want * want;
            sum.excess += (got - want) * direction;
            sum.length += want.abs();
            alike.push([(noise * want).abs(), (noise * direction).abs()]);
        }
        let count = if is_narrow { NO_VECTOR } else { 0 };
        [sum.noise_along, sum.noise] = [0, 1].map(|k| {
            alike.sort_by(|a, b| b[k].total_cmp(&a[k]));
            let (together, alone) = alike.split_at(count.min(alike.len()));
            let together: f64 = together.iter().map(|x| x[k]).sum();
            together.powi(2) + alone.iter().map(|x| x[k].powi(2)).sum::<f64>()
        });
        sum
    }

    pub(crate) fn add(&mut self, other: &SystematicError) {
        self.along += other.along;
        self.square += other.square;
        self.excess += other.excess;
        self.length += other.length;
        self.noise_along += other.noise_along;
        self.noise += other.noise;
    }

    /// Describes a systematic error beyond the tolerance, if there is one.
    pub(crate) fn off(&self, tolerance: f64) -> Option<String> {
        if self.square <= 0.0 {
            return None;
        }
        let scale = self.along / self.square;
        let allowed = tolerance + self.noise_along.sqrt() / self.square;
        if (scale - 1.0).abs() > allowed {
            return Some(format!(
                "moves {scale:.5} times as far as the reference, allowed within {allowed:.5} of 1"
            ));
        }
        let mean = self.excess / self.length;
        let allowed = tolerance + self.noise.sqrt() / self.length;
        (mean.abs() > allowed)
            .then(|| format!("moves {mean:.5} too far in the mean of all, allowed {allowed:.5}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off(changes: &[(f64, f64, f64)]) -> bool {
        let change = |&(got, want, noise): &(f64, f64, f64)| Change { got, want, noise };
        let changes: Vec<_> = changes.iter().map(change).collect();
        SystematicError::of(&changes, false).off(0.005).is_some()
    }

    #[test]
    fn elements_of_16_bits_that_fill_no_vector_may_be_off_alike() {
        let off = |count: usize, is_narrow| {
            let changes = vec![Change { got: 1.02, want: 1.0, noise: 0.02 }; count];
            SystematicError::of(&changes, is_narrow).off(0.005).is_some()
        };
        assert!(off(31, false) && !off(31, true), "a short tensor");
        assert!(off(1000, true), "a long one");
    }

    #[test]
    fn a_common_factor_is_seen_and_errors_of_both_signs_are_not() {
        assert!(!off(&[(1.0, 1.0, 0.0), (-2.0, -2.0, 0.0)]));
        assert!(off(&[(1.01, 1.0, 0.0), (-2.02, -2.0, 0.0)]));
        assert!(off(&[(0.99, 1.0, 0.0), (-1.98, -2.0, 0.0)]));
        assert!(!off(&[(1.05, 1.0, 0.0), (-0.95, -1.0, 0.0)]));
        // The largest element does not hide an error of many small ones.
        let mut some = vec![(1.0, 1.0, 0.0)];
        some.extend([(0.0104, 0.01, 0.0); 100]);
        assert!(off(&some));
    }

    #[test]
    fn last_bits_excuse_what_they_account_for_and_no_more() {
        assert!(!off(&[(1.01, 1.0, 0.01), (-2.02, -2.0, 0.02)]));
        assert!(off(&[(1.05, 1.0, 0.01), (-2.1, -2.0, 0.02)]));
        assert!(!off(&[(f64::NAN, 1.0, 0.0), (1.0, 1.0, 0.0)]), "judged element by element");
        assert!(!off(&[(1e-9, 0.0, 0.0)]), "nothing moves");
        assert!(off(&[(1.01e-200, 1e-200, 0.0)]), "no square underflows");
    }
}
