//! NEFTune: uniform noise on embeddings during training.

use half::{bf16, f16};

use crate::error::{Error, ensure_len, ensure_not_negative};
use crate::float::EagerFloat;
use crate::float::{ComputeFloat, StoredFloat};
use crate::math::random::counter_u64;
use crate::storage::{Data, DataMut, Plain};

/// Uniform noise on the output of an embedding, for training only.
///
/// # Formula
/// ```text
/// magnitude = α / √(L · D)
/// x ← x + magnitude · (2 u − 1),   u uniform in [0, 1)
/// ```
/// L is the padded sequence length (`length`) and D the embedding's width (`width`); the batch size does not matter.
///
/// # Source
/// Jain et al., "NEFTune: Noisy Embeddings Improve Instruction Finetuning", 2023.
/// Reference: `transformers.integrations.neftune.neftune_post_forward_hook`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neftune {
    /// α (`neftune_noise_alpha`), ≥ 0.
    pub alpha: f64,
}

impl Neftune {
    /// α / √(L · D), computed in `f32` as in the reference.
    #[inline]
    #[must_use]
    pub fn magnitude(&self, length: u64, width: u64) -> f32 {
        let root = ComputeFloat::sqrt(length.wrapping_mul(width) as f32);
        (1.0 / root) * self.alpha as f32
    }

    /// Adds noise from the caller's uniform samples u in [0, 1), one per element: for 16-bit numbers in `f32`, as torch
    /// draws them.
    ///
    /// # Errors
    /// α < 0 or NaN; different lengths; an encoded `output`. Nothing is written then.
    #[inline(always)]
    pub fn add_from_uniform(
        &self,
        output: DataMut<'_>,
        unit: Data<'_>,
        length: u64,
        width: u64,
    ) -> Result<(), Error> {
        ensure_len("unit", unit.len(), output.len())?;
        self.run(output, length, width, |i, one| unit.load::<f64>(i, one))
    }

    /// Adds precomputed noise, `magnitude · (2 u − 1)`.
    ///
    /// # Errors
    /// Different lengths; an encoded `output`. Nothing is written then.
    #[inline(always)]
    pub fn add_noise(output: DataMut<'_>, noise: Data<'_>) -> Result<(), Error> {
        ensure_len("noise", noise.len(), output.len())?;
        #[inline(always)]
        fn go<T: EagerFloat + Plain>(x: &mut [T], noise: Data<'_>) {
            for (i, x) in x.iter_mut().enumerate() {
                let mut one = [T::default()];
                noise.load(i, &mut one);
                *x = (T::Compute::load(*x) + T::Compute::load(one[0])).store();
            }
        }
        match output {
            DataMut::F64(x) => go::<f64>(x, noise),
            DataMut::F32(x) => go::<f32>(x, noise),
            DataMut::Bf16(x) => go::<bf16>(x, noise),
            DataMut::F16(x) => go::<f16>(x, noise),
            DataMut::Encoded(_) => return Err(NOT_PLAIN),
        }
        Ok(())
    }

    /// Adds noise from [`uniform`]: element i takes sample i of the stream (seed, step), on
    /// every backend and however the tensor is split.
    ///
    /// # Errors
    /// α < 0 or NaN; an encoded `output`. Nothing is written then.
    ///
    /// ```
    /// use bitstep::gradient::Neftune;
    /// let mut embedding = [0.0f32; 8]; // 2 tokens of width 4
    /// Neftune { alpha: 5.0 }.add((&mut embedding).into(), 2, 4, 42, 0)?;
    /// assert!(embedding.iter().all(|x| x.abs() <= 5.0 / 8f32.sqrt()));
    /// # Ok::<(), bitstep::Error>(())
    /// ```
    #[inline]
    pub fn add(
        &self,
        output: DataMut<'_>,
        length: u64,
        width: u64,
        seed: u64,
        step: u64,
    ) -> Result<(), Error> {
        self.run(output, length, width, |i, one| {
            one[0] = uniform(seed, step, i as u64).into();
        })
    }

    #[inline(always)]
    fn run(
        &self,
        output: DataMut<'_>,
        length: u64,
        width: u64,
        draw: impl Fn(usize, &mut [f64; 1]),
    ) -> Result<(), Error> {
        ensure_not_negative("neftune_noise_alpha", self.alpha)?;
        let magnitude = self.magnitude(length, width);
        #[inline(always)]
        fn go<T: EagerFloat>(x: &mut [T], magnitude: f32, draw: impl Fn(usize, &mut [f64; 1])) {
            // torch draws 16-bit noise in `f32`, between bounds of `f32`, and rounds what it has drawn.
            let high = T::Compute::scalar(magnitude.to_f64());
            for (i, x) in x.iter_mut().enumerate() {
                let mut unit = [0.0];
                draw(i, &mut unit);
                *x = noisy(T::Compute::load(*x), T::Compute::scalar(unit[0]), high).store();
            }
        }
        match output {
            DataMut::F64(x) => go::<f64>(x, magnitude, draw),
            DataMut::F32(x) => go::<f32>(x, magnitude, draw),
            DataMut::Bf16(x) => go::<bf16>(x, magnitude, draw),
            DataMut::F16(x) => go::<f16>(x, magnitude, draw),
            DataMut::Encoded(_) => return Err(NOT_PLAIN),
        }
        Ok(())
    }
}

const NOT_PLAIN: Error = Error::InvalidArgument { argument: "output", expected: "plain numbers" };

/// Sample `index` of the uniform stream (seed, step): a multiple of 2⁻²⁴ in [0, 1).
///
/// A counter-based generator without state, so samples may be drawn in any order. Three
/// rounds of a 64-bit finalizer (Stafford's mix 13) over seed, step and index.
#[inline]
#[must_use]
pub fn uniform(seed: u64, step: u64, index: u64) -> f32 {
    (counter_u64(seed, step, index) >> 40) as f32 / 16_777_216.0
}

/// One element with noise: u in [0, 1) scaled to [−`high`, `high`).
#[inline(always)]
pub fn noisy<C: ComputeFloat>(x: C, unit: C::Scalar, high: C::Scalar) -> C {
    let low = -high;
    x + C::round_from(unit * (high - low) + low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_has_the_moments_of_the_uniform_distribution() {
        let n = 100_000;
        let (mut mean, mut square) = (0.0, 0.0);
        for i in 0..n {
            let u = f64::from(uniform(7, 3, i));
            assert!((0.0..1.0).contains(&u));
            mean += u / n as f64;
            square += u * u / n as f64;
        }
        // Four standard deviations: √(1/12/n) and √(4/45/n).
        assert!((mean - 0.5).abs() < 0.0037 && (square - 1.0 / 3.0).abs() < 0.0038);
    }

    #[test]
    fn random_mixes_as_splitmix64() {
        // SplitMix64's first output from seed 0; this step and index bring the intermediate states back to 0.
        const FIRST: u64 = 0xe220_a839_7b1d_cdaf;
        assert_eq!(counter_u64(0, 0xbc16_d180_042c_ae66, 0x6183_80db_7ee7_604e), FIRST);
    }

    #[test]
    fn uniform_differs_in_each_coordinate() {
        assert_ne!(uniform(1, 2, 3), uniform(2, 2, 3));
        assert_ne!(uniform(1, 2, 3), uniform(1, 3, 3));
        assert_ne!(uniform(1, 2, 3), uniform(1, 2, 4));
    }

    #[test]
    fn noise_spans_the_magnitude() {
        let neftune = Neftune { alpha: 4.0 };
        let mut x = [1.0f64; 2];
        neftune.add_from_uniform(DataMut::F64(&mut x), Data::F64(&[0.0, 0.75]), 4, 4).unwrap();
        assert_eq!(x, [0.0, 1.5]);
        assert!(Neftune { alpha: -1.0 }.add(DataMut::F64(&mut x), 1, 1, 0, 0).is_err());
    }

    #[test]
    fn noise_from_elsewhere_is_added_to_plain_numbers_of_the_same_length() {
        let mut x = [1.0f32, 2.0];
        assert_eq!(Neftune::add_noise(DataMut::F32(&mut x), Data::F64(&[0.5, -1.0])), Ok(()));
        assert_eq!(x, [1.5, 1.0]);
        let length = Err(Error::LengthMismatch { argument: "noise", got: 1, expected: 2 });
        assert_eq!(Neftune::add_noise(DataMut::F32(&mut x), Data::F64(&[0.5])), length);
        assert_eq!(x, [1.5, 1.0]);
    }
}
