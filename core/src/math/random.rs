//! Random generators: PyTorch's CPU generator, so that APOLLO's seeds give APOLLO's own projectors, and a counter-based
//! one without state.
//!
//! PyTorch's is the Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998), from which `torch.randn` computes normal
//! values in `f32`; reproduced here as on an x86 processor with AVX2. 16 or more values are drawn in blocks of 16, by the
//! Box–Muller transform with approximations of logarithm, sine and cosine (Cephes' polynomials, in fused
//! multiply-adds: here in software, to reproduce every bit). Fewer than 16 values are drawn in pairs, in `f64`. On other
//! processors PyTorch's own values may differ in the last bits.
//!
//! The counter-based generator, [`rademacher`]'s and that of stochastic rounding, is SplitMix64's finalizer (Steele, Lea
//! and Flood, 2014), applied to a key of seed and step plus a multiple of the index.

use core::f64::consts::TAU;

use crate::float::StoredFloat;

/// The Mersenne Twister MT19937.
#[derive(Clone, Debug)]
pub struct Mt19937 {
    state: [u32; N],
    at: usize,
}

const N: usize = 624;
const M: usize = 397;

impl Mt19937 {
    /// A generator seeded as by `torch.manual_seed`, which uses the lower 32 bits.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut last = seed as u32;
        let mut state = [last; N];
        for (i, x) in state.iter_mut().enumerate().skip(1) {
            last = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
            *x = last;
        }
        Mt19937 { state, at: 0 }
    }

    fn word(&self, i: usize) -> u32 {
        self.state.get(i % N).copied().unwrap_or(0)
    }

    /// The next 32 bits. Each call regenerates one word of the state; the usual formulation regenerates all 624 at once.
    pub fn next_u32(&mut self) -> u32 {
        let i = self.at;
        let y = (self.word(i) & 0x8000_0000) | (self.word(i + 1) & 0x7fff_ffff);
        let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
        let mut y = self.word(i + M) ^ (y >> 1) ^ odd;
        if let Some(x) = self.state.get_mut(i) {
            *x = y;
        }
        self.at = (i + 1) % N;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        high << 32 | u64::from(self.next_u32())
    }

    /// Uniform in [0, 1), with 24 bits.
    fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() & 0xff_ffff) as f32 * f32::from_bits((127 - 24) << 23)
    }

    /// Uniform in [0, 1), with 53 bits.
    fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() & ((1 << 53) - 1)) as f64 * f64::from_bits((1023 - 53) << 52)
    }

    /// Fills `out` as `torch.randn` does in `f32`. Intermediate values are kept in `out`: its type must be able to hold
    /// every `f32`.
    ///
    /// ```
    /// use bitstep::lowrank::Mt19937;
    /// let mut x = [0.0f32; 2];
    /// Mt19937::new(1).normal(&mut x);
    /// assert_eq!(x, [0.66135216, 0.2669241]);
    /// ```
    pub fn normal<A: StoredFloat>(&mut self, out: &mut [A]) {
        if out.len() < 16 {
            for pair in out.chunks_mut(2) {
                let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
                let (radius, theta) = (libm::sqrt(-2.0 * libm::log1p(-u2)), TAU * u1);
                let drawn = [radius * libm::cos(theta), radius * libm::sin(theta)];
                pair.iter_mut().zip(drawn).for_each(|(x, y)| *x = A::from_f32(y as f32));
            }
            return;
        }
        out.iter_mut().for_each(|x| *x = A::from_f32(self.uniform_f32()));
        out.chunks_exact_mut(16).for_each(box_muller::<A>);
        if !out.len().is_multiple_of(16)
            && let Some(tail) = out.last_chunk_mut::<16>()
        {
            tail.iter_mut().for_each(|x| *x = A::from_f32(self.uniform_f32()));
            box_muller(tail);
        }
    }
}

/// The seed after this one: the 15th value below 2⁶³ − 1 that its generator draws, as in APOLLO.
///
/// ```
/// assert_eq!(bitstep::lowrank::next_seed(1), 505211975917066638);
/// ```
#[must_use]
pub fn next_seed(seed: u64) -> u64 {
    let mut generator = Mt19937::new(seed);
    (0..15).fold(0, |_, _| generator.next_u64() % (i64::MAX as u64))
}

/// [`next_seed`] applied `count` times, in bounded time.
///
/// The next seed depends on the lower 32 bits of a seed only, so the sequence soon enters a short cycle: after some
/// 80 000 seeds, or a few times as many at most. Once Brent's cycle detection ("An improved Monte Carlo factorization
/// algorithm", 1980) has found its length, the remaining count is reduced modulo that length.
///
/// ```
/// use bitstep::lowrank::{next_seed, nth_seed};
/// assert_eq!(nth_seed(1, 2), next_seed(next_seed(1)));
/// ```
#[must_use]
pub fn nth_seed(seed: u64, count: u64) -> u64 {
    let (mut seed, mut left) = (seed, count);
    let (mut mark, mut since, mut limit) = (None, 0, 1);
    while left > 0 {
        if since == limit {
            (mark, since, limit) = (Some(seed), 0, limit * 2);
        }
        (seed, since, left) = (next_seed(seed), since + 1, left - 1);
        if mark == Some(seed) {
            left %= since;
            mark = None;
            limit = u64::MAX;
        }
    }
    seed
}

/// Elements `first`, `first` + 1, … of projector number `number` of a seed: random signs, ±1/√rank with equal
/// probability.
///
/// Drawn by the counter-based generator of stochastic rounding: without state, 64 elements from one draw, independent of
/// how a projector is split, without logarithm or cosine. Random signs serve a projection as well as normal values
/// (Achlioptas, "Database-friendly random projections", 2003): the squared length of a projected vector x has the mean
/// ‖x‖², and the variance 2/r · (‖x‖⁴ − Σ xᵢ⁴) instead of 2/r · ‖x‖⁴.
///
/// ```
/// use bitstep::lowrank::rademacher;
/// let (mut whole, mut part) = ([0.0f32; 100], [0.0f32; 30]);
/// rademacher(7, 0, 0, 4, &mut whole);
/// rademacher(7, 0, 70, 4, &mut part);
/// assert!(whole.iter().all(|x| x.abs() == 0.5) && whole[70..] == part);
/// ```
pub fn rademacher<A: StoredFloat>(seed: u64, number: u64, first: u64, rank: u64, out: &mut [A]) {
    let length = (1.0 / libm::sqrt(rank as f64)) as f32;
    let (mut word, mut bits) = (None, 0);
    for (i, x) in out.iter_mut().enumerate() {
        let at = first.wrapping_add(i as u64);
        if word != Some(at / 64) {
            (word, bits) = (Some(at / 64), counter_u64(seed, number, at / 64));
        }
        *x = A::from_f32(if bits >> (at % 64) & 1 == 1 { -length } else { length });
    }
}

/// Turns 16 uniform values into 16 normal ones (Box and Muller, 1958): the first half give radii, the second angles.
fn box_muller<A: StoredFloat>(x: &mut [A]) {
    let Some((radii, angles)) = x.split_at_mut_checked(8) else { return };
    for (r, a) in radii.iter_mut().zip(angles) {
        let radius = libm::sqrtf(-2.0 * ln(1.0 - r.to_f32()));
        let (sin, cos) = sin_cos(a.to_f32() * TAU as f32);
        (*r, *a) = (A::from_f32(radius * cos), A::from_f32(radius * sin));
    }
}

fn polynomial(x: f32, coefficients: &[f32]) -> f32 {
    let (first, rest) = coefficients.split_first().unwrap_or((&0.0, &[]));
    rest.iter().fold(*first, |y, c| libm::fmaf(y, x, *c))
}

/// The natural logarithm of a positive normal number, by Cephes' polynomial.
fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let mut exponent = (bits >> 23) as i32 - 126;
    let mut m = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000);
    let small = m < core::f32::consts::FRAC_1_SQRT_2;
    exponent -= i32::from(small);
    m = m - 1.0 + if small { m } else { 0.0 };
    let (e, z) = (exponent as f32, m * m);
    let y = m * polynomial(
        m,
        &[
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let y = libm::fmaf(y, z, e * -2.121_944_4e-4);
    let y = libm::fmaf(-z, 0.5, y);
    libm::fmaf(e, 0.693_359_4, m + y)
}

/// Sine and cosine of a value in [0, 2π), by Cephes' polynomials.
fn sin_cos(x: f32) -> (f32, f32) {
    let octant = ((x * 1.273_239_5) as i32 + 1) & !1;
    let y = octant as f32;
    // Minus y · π/4, with π/4 in three parts (Cody and Waite).
    let x = libm::fmaf(y, -0.785_156_25, x);
    let x = libm::fmaf(y, -2.418_756_5e-4, x);
    let x = libm::fmaf(y, -3.774_895e-8, x);
    let z = x * x;
    let cos = z * polynomial(z, &[2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let cos = libm::fmaf(cos, z, z * -0.5) + 1.0;
    let sin = z * polynomial(z, &[-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
    let sin = libm::fmaf(sin, x, x);
    let (sin, cos) = if octant & 2 == 0 { (sin, cos) } else { (cos, sin) };
    (if octant & 4 == 0 { sin } else { -sin }, if (octant - 2) & 4 == 0 { -cos } else { cos })
}

/// 64 random bits for (seed, step, index), by SplitMix64's finalizer.
#[must_use]
pub(crate) fn counter_u64(seed: u64, step: u64, index: u64) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |z: u64| {
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let key = mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(step));
    mix(key.wrapping_add(index.wrapping_mul(GOLDEN)))
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    /// The cycle of the seeds: the first index in it, and its length. By marking every seed, where `nth_seed` keeps one.
    fn ring(seed: u64) -> (Vec<u64>, usize) {
        let (mut seeds, mut seen) = (vec![seed], std::collections::HashMap::from([(seed, 0)]));
        loop {
            let next = next_seed(seeds[seeds.len() - 1]);
            if let Some(start) = seen.insert(next, seeds.len()) {
                return (seeds, start);
            }
            seeds.push(next);
        }
    }

    #[test]
    fn later_seed_of_any_count_is_that_of_the_walk() {
        let (seeds, start) = ring(1);
        let length = (seeds.len() - start) as u64;
        let at = |n: u64| {
            let n = n as usize;
            seeds[if n < seeds.len() { n } else { start + (n - start) % length as usize }]
        };
        let met = seeds.len() as u64;
        for n in (0..40).chain(met - 3..met + 3).chain([1 << 20, (1 << 53) + 1, u64::MAX]) {
            assert_eq!(nth_seed(1, n), at(n), "{n} seeds on");
        }
    }

    /// Signs of a projector, checked within four standard deviations.
    fn tossed(seed: u64, number: u64, n: usize, rank: u64) -> Vec<f64> {
        let mut x = vec![0.0f64; n];
        rademacher(seed, number, 0, rank, &mut x);
        x
    }

    #[test]
    fn signs_are_the_bits_of_the_counter_based_generator() {
        for (i, x) in tossed(3, 5, 130, 1).into_iter().enumerate() {
            let bit = counter_u64(3, 5, i as u64 / 64) >> (i % 64) & 1;
            assert_eq!(x, 1.0 - 2.0 * bit as f64);
        }
    }

    #[test]
    fn signs_of_any_cut_are_those_of_the_whole() {
        let whole = tossed(9, 2, 500, 3);
        for (first, len) in [(0, 500), (0, 1), (63, 2), (64, 64), (1, 499), (437, 63), (250, 0)] {
            let mut part = vec![0.0; len];
            rademacher(9, 2, first as u64, 3, &mut part);
            assert_eq!(part, whole[first..first + len]);
        }
        // The counter may start anywhere, and wraps around.
        rademacher(9, u64::MAX, u64::MAX - 1, 3, &mut [0.0f32; 4]);
    }

    #[test]
    fn signs_have_mean_zero_and_variance_one_over_rank() {
        let n = 100_000;
        for rank in [1, 4, 100] {
            let x = tossed(7, 3, n, rank);
            let mean = x.iter().sum::<f64>() / n as f64;
            assert!(mean.abs() < 4.0 / (rank as f64 * n as f64).sqrt(), "{rank} {mean}");
            // Each square is 1 / rank, up to the rounding of the root.
            assert!(x.iter().all(|x| (x * x * rank as f64 - 1.0).abs() < 2e-7), "{rank}");
        }
    }

    #[test]
    fn signs_of_neighbours_rows_projectors_and_seeds_are_independent() {
        let n = 100_000;
        let x = tossed(7, 3, n, 1);
        let product = |y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        for lag in [1, 2, 31, 32, 63, 64, 65, 128, 4096] {
            let sum = product(&x[lag..]);
            assert!(sum.abs() < 4.0 * (n as f64).sqrt(), "{lag} apart: {sum}");
        }
        for (seed, number) in [(7, 4), (8, 3), (3, 7), (0, 0)] {
            let sum = product(&tossed(seed, number, n, 1));
            assert!(sum.abs() < 4.0 * (n as f64).sqrt(), "seed {seed}, number {number}: {sum}");
        }
    }

    /// The lengths of the projection's channels, which is all that APOLLO uses.
    #[test]
    fn projections_by_signs_keep_lengths_as_those_by_normal_numbers_do() {
        let (rank, len, projectors) = (16, 40, 2000);
        let x: Vec<f64> =
            (0..len).map(|i| libm::sin(i as f64 * 1.7) * (1 + i % 5) as f64).collect();
        let (mut fours, mut square) = (0.0, 0.0);
        for x in &x {
            (fours, square) = (fours + x * x * x * x, square + x * x);
        }
        let moments = |draw: &dyn Fn(u64, &mut [f64])| {
            let (mut mean, mut variance) = (0.0, 0.0);
            for number in 0..projectors {
                let mut p = vec![0.0; rank * len];
                draw(number, &mut p);
                let row = |p: &[f64]| p.iter().zip(&x).map(|(p, x)| p * x).sum::<f64>().powi(2);
                let length = p.chunks(len).map(row).sum::<f64>() / square;
                mean += length / projectors as f64;
                variance += (length - 1.0).powi(2) / projectors as f64;
            }
            (mean, variance)
        };
        let deviation = (2.0 / rank as f64 / projectors as f64).sqrt();
        let by_signs = moments(&|number, p| rademacher(1, number, 0, rank as u64, p));
        let by_normal = moments(&|number, p| {
            Mt19937::new(number).normal(p);
            p.iter_mut().for_each(|x| *x /= (rank as f64).sqrt());
        });
        for ((mean, variance), want) in [
            (by_signs, 2.0 / rank as f64 * (1.0 - fours / square / square)),
            (by_normal, 2.0 / rank as f64),
        ] {
            assert!((mean - 1.0).abs() < 4.0 * deviation, "{mean}");
            // The variance of a variance: 2 σ⁴ / n, and less than as much again for the tails.
            assert!(
                (variance / want - 1.0).abs() < 4.0 * (4.0 / projectors as f64).sqrt(),
                "{variance} {want}"
            );
        }
    }
}
