//! PyTorch's generator on a CPU: APOLLO's seeds give APOLLO's own matrices.
//!
//! The Mersenne Twister MT19937, and the normal numbers that `torch.randn` makes
//! of it in `f32` on an x86 processor with AVX2: in blocks of 16, by approximations
//! of logarithm, sine and cosine whose multiplications and additions are fused
//! (here by software: the numbers must come out to the last bit). Fewer than 16
//! numbers are drawn one by one, in `f64`. On other processors PyTorch's own numbers
//! may differ in the last bits.

use core::f64::consts::TAU;

use crate::real::Number;

/// The Mersenne Twister.
#[derive(Clone, Debug)]
pub struct Mt19937 {
    state: [u32; N],
    at: usize,
}

const N: usize = 624;
const M: usize = 397;

impl Mt19937 {
    /// PyTorch's `manual_seed`; the generator takes the lower 32 bits.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut last = seed as u32;
        let mut state = [last; N];
        for (i, x) in state.iter_mut().enumerate().skip(1) {
            last = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
            *x = last;
        }
        Mt19937 { state, at: N }
    }

    fn word(&self, i: usize) -> u32 {
        self.state.get(i % N).copied().unwrap_or(0)
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = (self.word(i) & 0x8000_0000) | (self.word(i + 1) & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            let next = self.word(i + M) ^ (y >> 1) ^ odd;
            if let Some(x) = self.state.get_mut(i) {
                *x = next;
            }
        }
        self.at = 0;
    }

    /// 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.at >= N {
            self.twist();
        }
        let mut y = self.word(self.at);
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        high << 32 | u64::from(self.next_u32())
    }

    /// In [0, 1), 24 bits.
    fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() & 0xff_ffff) as f32 * f32::from_bits((127 - 24) << 23)
    }

    /// In [0, 1), 53 bits.
    fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() & ((1 << 53) - 1)) as f64 * f64::from_bits((1023 - 53) << 52)
    }

    /// `torch.randn` in `f32`; the type must hold those.
    ///
    /// ```
    /// use bitstep::lowrank::Mt19937;
    /// let mut x = [0.0f32; 2];
    /// Mt19937::new(1).normal(&mut x);
    /// assert_eq!(x, [0.66135216, 0.2669241]);
    /// ```
    pub fn normal<A: Number>(&mut self, out: &mut [A]) {
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

/// The seed after this one: the 15th number below 2⁶³ − 1 that it draws.
///
/// ```
/// assert_eq!(bitstep::lowrank::next_seed(1), 505211975917066638);
/// ```
#[must_use]
pub fn next_seed(seed: u64) -> u64 {
    let mut generator = Mt19937::new(seed);
    (0..15).fold(0, |_, _| generator.next_u64() % (i64::MAX as u64))
}

/// 16 uniform numbers into 16 normal ones: the first half are radii, the second angles.
fn box_muller<A: Number>(x: &mut [A]) {
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

/// Natural logarithm of a normal positive number, by Cephes' polynomial.
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

/// Sine and cosine of a number in [0, 2π), by Cephes' polynomials.
fn sin_cos(x: f32) -> (f32, f32) {
    let octant = ((x * 1.273_239_5) as i32 + 1) & !1;
    let y = octant as f32;
    // π/4 in three parts, each times y exact or fused.
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
