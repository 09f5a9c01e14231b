//! `cos` and `pow`, correctly rounded in practice, and so nearly always equal to the reference's.
//!
//! libm's results are within 1 ULP, but on a schedule's inputs 2.8 % of its cosines and 6.3 % of its powers differ
//! from those of glibc, which Python calls. Near the end of a cosine schedule `1 + cos(x)` cancels, and one differing
//! bit becomes thousands of ULP; in a recursive schedule the differences accumulate over the steps. An optimizer's bias
//! correction `1 − βᵗ` cancels too, and RAdam's ρ again.
//! glibc is correctly rounded in all but about one case in a thousand, so correct rounding is the best available target.
//!
//! The functions are evaluated in double-double arithmetic (unevaluated sums of two `f64`, about 106 bits) and rounded
//! once at the end: a result is wrong only if the exact value is within the small evaluation error of the midpoint of
//! two `f64`. They are needed about once a step, so short Taylor series serve better than tables:
//!
//! * cos x: x = n · π/2 + r with π/2 in three parts (Cody and Waite), |r| ≤ π/4; the series of cos r or sin r, by n mod 4.
//! * eᶻ: z = k · ln 2 + r with ln 2 in three parts, |r| ≤ ½ ln 2; the series of eʳ, times 2ᵏ.
//! * ln x: x = m · 2ᵉ with m within √½ and √2; one Newton step from libm's g ≈ ln m: ln m = g + ln(m · e⁻ᵍ), and with
//!   ρ = m · e⁻ᵍ − 1, |ρ| < 2⁻⁵², ln(1 + ρ) = ρ − ½ ρ² up to 2⁻¹⁵⁷.
//! * xʸ = exp(y · ln x); for an integer y, as in a bias correction, by repeated squaring, which needs no logarithm.
//!
//! The exact sum of two floats is Knuth's (The Art of Computer Programming 2, §4.2.2), the exact product Dekker's ("A
//! floating-point technique for extending the available precision", 1971), because there is no fused multiply-add.
//!
//! A rule or schedule of your own that calls these has the same bits on every machine; `f64::powf` and `f64::cos`
//! depend on the platform. (In a rule, βᵗ for the step t is [`StepContext::beta_power`](crate::rule::StepContext::beta_power).)
//!
//! ```
//! use bitstep::math::{cos, pow};
//! assert_eq!(pow(0.9, 3.0), 0.729_000_000_000_000_1);
//! assert_eq!(cos(1.0).to_bits(), 0x3fe1_4a28_0fb5_068c);
//! ```

/// The unevaluated sum `hi + lo` with `|lo|` at most half an ulp of `hi`.
#[derive(Clone, Copy)]
struct DoubleDouble {
    hi: f64,
    lo: f64,
}

/// π/2 and ln 2: rounded to `f64`, the remainder rounded to `f64`, and its remainder.
const HALF_PI: [f64; 3] =
    [core::f64::consts::FRAC_PI_2, 6.123233995736766e-17, -1.4973849048591698e-33];
const LN_2: [f64; 3] = [core::f64::consts::LN_2, 2.3190468138462996e-17, 5.707708438416212e-34];

const ONE: DoubleDouble = DoubleDouble { hi: 1.0, lo: 0.0 };

/// The exact sum of two floats (Knuth).
fn two_sum(a: f64, b: f64) -> DoubleDouble {
    let hi = a + b;
    let c = hi - a;
    DoubleDouble { hi, lo: (a - (hi - c)) + (b - c) }
}

/// The exact product of two floats (Dekker), by splitting each into halves of 26 bits.
fn two_product(a: f64, b: f64) -> DoubleDouble {
    fn halves(x: f64) -> (f64, f64) {
        let c = 134_217_729.0 * x; // 2²⁷ + 1
        let high = c - (c - x);
        (high, x - high)
    }
    let hi = a * b;
    let (a1, a2) = halves(a);
    let (b1, b2) = halves(b);
    DoubleDouble { hi, lo: ((a1 * b1 - hi) + a1 * b2 + a2 * b1) + a2 * b2 }
}

impl DoubleDouble {
    fn add(self, b: DoubleDouble) -> DoubleDouble {
        let s = two_sum(self.hi, b.hi);
        let t = two_sum(self.lo, b.lo);
        let u = two_sum(s.hi, s.lo + t.hi);
        two_sum(u.hi, u.lo + t.lo)
    }

    fn mul(self, b: DoubleDouble) -> DoubleDouble {
        let p = two_product(self.hi, b.hi);
        two_sum(p.hi, p.lo + (self.hi * b.lo + self.lo * b.hi))
    }

    fn div(self, b: f64) -> DoubleDouble {
        let q = self.hi / b;
        let p = two_product(q, b);
        two_sum(q, ((self.hi - p.hi) - p.lo + self.lo) / b)
    }

    fn neg(self) -> DoubleDouble {
        DoubleDouble { hi: -self.hi, lo: -self.lo }
    }

    /// `self − n·c` for a constant in three parts.
    fn minus_multiple(self, n: f64, c: [f64; 3]) -> DoubleDouble {
        let [c0, c1, c2] = c;
        self.add(two_product(n, c0).neg())
            .add(two_product(n, c1).neg())
            .add(DoubleDouble { hi: -(n * c2), lo: 0.0 })
    }
}

/// Σ (−r²)ᵏ / ((first+1)(first+2)…(first+2k)), by Horner's scheme: cos r for `first` 0, sin r / r for `first` 1.
fn alternating_series(r: DoubleDouble, first: f64) -> DoubleDouble {
    let square = r.mul(r).neg();
    let mut sum = ONE;
    let mut n = first + 28.0; // |r| ≤ π/4, so the next term is below 2⁻¹⁰⁷
    while n > first {
        sum = ONE.add(square.mul(sum).div(n * (n - 1.0)));
        n -= 2.0;
    }
    sum
}

/// The cosine of `x`, in radians; libm's, within 1 ULP, for |x| ≥ 2³⁰.
#[must_use]
pub fn cos(x: f64) -> f64 {
    if x.is_nan() || x.abs() >= 1_073_741_824.0 {
        return libm::cos(x); // the three parts of π/2 no longer suffice
    }
    let quarter_turns = libm::rint(x / HALF_PI[0]);
    let r = DoubleDouble { hi: x, lo: 0.0 }.minus_multiple(quarter_turns, HALF_PI);
    match quarter_turns as i64 & 3 {
        0 => alternating_series(r, 0.0).hi,
        1 => -r.mul(alternating_series(r, 1.0)).hi,
        2 => -alternating_series(r, 0.0).hi,
        _ => r.mul(alternating_series(r, 1.0)).hi,
    }
}

/// e to the power `z`, as a mantissa within √½ and √2, and the exponent of a power of two.
fn exp(z: DoubleDouble) -> (DoubleDouble, i32) {
    let k = libm::rint(z.hi / LN_2[0]);
    let r = z.minus_multiple(k, LN_2);
    let mut sum = ONE;
    let mut n = 25.0; // |r| ≤ ½ ln 2, so the next term is below 2⁻¹²⁰
    while n > 0.0 {
        sum = ONE.add(r.mul(sum).div(n));
        n -= 1.0;
    }
    (sum, k as i32)
}

/// The natural logarithm of a positive `x`.
fn log(x: f64) -> DoubleDouble {
    let (m, e) = libm::frexp(x);
    let (m, e) = if m < core::f64::consts::FRAC_1_SQRT_2 { (2.0 * m, e - 1) } else { (m, e) };
    // One Newton step from libm's logarithm.
    let guess = libm::log(m);
    let (ratio, k) = exp(DoubleDouble { hi: -guess, lo: 0.0 });
    let ratio = ratio.mul(DoubleDouble { hi: libm::scalbn(m, k), lo: 0.0 });
    let rest = ratio.add(ONE.neg());
    let rest = rest.add(DoubleDouble { hi: -0.5 * rest.hi * rest.hi, lo: 0.0 });
    DoubleDouble { hi: guess, lo: 0.0 }.add(rest).minus_multiple(-f64::from(e), LN_2)
}

/// `x` to the power `y`.
// Large, and needed once a step: one copy is enough.
#[inline(never)]
#[must_use]
pub fn pow(x: f64, y: f64) -> f64 {
    let p = libm::pow(x, y);
    // libm's for special values, bases that are not positive, and results near the limits, where scaling by 2ᵏ would
    // round again or overflow.
    let normal = x > 0.0 && x < f64::INFINITY && p > 1e-307 && p < 1e308;
    if !normal || p == 1.0 {
        return p;
    }
    // In a bias correction the exponent is a number of steps. Without an f64 unit, squaring takes a tenth of the time.
    if (1.0..=MOST_STEPS).contains(&y) && libm::floor(y) == y && p > 1e-250 && p < 1e250 {
        return count_pow(x, y as u32);
    }
    let product = log(x).mul(DoubleDouble { hi: y, lo: 0.0 });
    let (sum, k) = exp(product);
    libm::scalbn(sum.hi, k)
}

/// The largest exponent for [`count_pow`]: its relative error, some 2⁻¹⁰² times the exponent, then stays below 2⁻⁷⁸.
const MOST_STEPS: f64 = 16_777_216.0;

/// `x` to the power `n`, by repeated squaring. No intermediate result is further from 1 than the last one, so none
/// overflows or loses bits if that one doesn't.
fn count_pow(x: f64, mut n: u32) -> f64 {
    let (mut power, mut square) = (ONE, DoubleDouble { hi: x, lo: 0.0 });
    loop {
        if n & 1 == 1 {
            power = power.mul(square);
        }
        n >>= 1;
        if n == 0 {
            return power.hi;
        }
        square = square.mul(square);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pow_by_squaring_is_that_of_logarithms() {
        // Not of 3, whose 34th power is the midpoint between two floats: only squaring is exact there.
        assert_eq!(count_pow(3.0, 34), 16_677_181_699_666_568.0);
        for x in [0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9995, 0.9999, 0.999_999, 1.000_1, 3.1] {
            let logarithm = log(x);
            for n in (1..2000).chain((2000..16_777_216).step_by(65_537)) {
                let y = f64::from(n);
                let (sum, k) = exp(logarithm.mul(DoubleDouble { hi: y, lo: 0.0 }));
                let want = libm::scalbn(sum.hi, k);
                if want > 1e-250 && want < 1e250 {
                    assert_eq!(count_pow(x, n).to_bits(), want.to_bits(), "{x} to the power {n}");
                }
            }
        }
    }

    /// The floats with these bits.
    fn f(bits: u64) -> f64 {
        f64::from_bits(bits)
    }

    // The tables below were made with mpmath 1.3.0: mp.prec = 200, float(mp.cos(mpf(x))) and
    // float(mp.power(mpf(x), mpf(y))), which round the 200 bits to the nearest f64.

    /// x and the float nearest to cos x: ordinary arguments, multiples of π/2 rounded to f64, and the largest arguments.
    const COS: &[(u64, u64)] = &[
        (0x3ff0_0000_0000_0000, 0x3fe1_4a28_0fb5_068c), // 1.0
        (0x4000_0000_0000_0000, 0xbfda_a226_5753_7205), // 2.0
        (0x4008_0000_0000_0000, 0xbfef_ae04_be85_e5d2), // 3.0
        (0x3f1a_36e2_eb1c_432d, 0x3fef_ffff_fd50_ce24), // 0.0001
        (0x412e_8480_0000_0000, 0x3fed_f9df_9906_d32c), // 1000000.0
        (0x3fe9_21fb_5444_2d18, 0x3fe6_a09e_667f_3bcd), // 0.7853981633974483
        (0x3ff0_c152_382d_7365, 0x3fe0_0000_0000_0001), // 1.0471975511965976
        (0x3ff9_21fb_5444_2d18, 0x3c91_a626_3314_5c07), // 1.5707963267948966
        (0x4009_21fb_5444_2d18, 0xbff0_0000_0000_0000), // 3.141592653589793
        (0x4012_d97c_7f33_21d2, 0xbcaa_7939_4c9e_8a0a), // 4.71238898038469
        (0x4009_1b8c_3ad6_8a3c, 0xbfef_fff5_a6a6_81ff), // 3.1384510609362035
        (0x4137_f7ed_e5c8_89d5, 0x3de7_b09c_7038_7ce2), // 1570797.8975912232
        (0x41cf_ffff_ff80_0000, 0xbfb8_2ac4_b53c_de6b), // 1073741823.0
    ];

    /// x and the float nearest to cos x, where libm 0.2's cosine is the float next to it.
    const COS_LIBM_IS_OFF: &[(u64, u64)] = &[
        (0x4002_cbf7_29e9_8d48, 0xbfe6_7a40_06a6_0f65), // 2.3495925211333635
        (0x4003_ed99_fd52_e6d2, 0xbfe9_76a9_0cc9_708e), // 2.4910163680004667
        (0x3fe7_140b_66a0_f03d, 0x3fe8_0852_badb_7afd), // 0.7211968426195267
        (0x3ff2_3e39_10a0_526a, 0x3fda_b705_d0a7_d319), // 1.140191140123671
        (0x401f_77f3_9559_6dfc, 0xbf8a_f2a5_1151_4949), // 7.867140134414054
        (0x4094_ff92_5bd9_1dc6, 0x3fe8_4b4a_b1ab_a0ae), // 1343.8929284977362
        (0x4076_9e7b_a331_13a0, 0xbfea_019e_02b3_6365), // 361.9051849286134
    ];

    /// x, y and the float nearest to xʸ: decay rates, fractions, tiny and subnormal bases, bases next to 1.
    const POW: &[(u64, u64, u64)] = &[
        (0x3fec_cccc_cccc_cccd, 0x401c_0000_0000_0000, 0x3fde_9c6a_99d1_cdbf), // 0.9, 7.0
        (0x3fef_f7ce_d916_872b, 0x4000_0000_0000_0000, 0x3fef_ef9f_cb0c_026d), // 0.999, 2.0
        (0x3fef_f7ce_d916_872b, 0x408f_4000_0000_0000, 0x3fd7_8852_6411_ed72), // 0.999, 1000.0
        (0x3fef_fffd_e721_0be9, 0x412e_846e_0000_0000, 0x3fd7_8b63_53be_8345), // 0.999999, 999991.0
        (0x4008_0000_0000_0000, 0xbfe9_9999_9999_999a, 0x3fda_935a_1670_4c72), // 3.0, -0.8
        (0x3fb9_9999_9999_999a, 0x3fe0_0000_0000_0000, 0x3fd4_3d13_6248_490f), // 0.1, 0.5
        (0x4024_0000_0000_0000, 0x3fd5_5555_5555_5555, 0x4001_3c48_4138_704f), // 10.0, 0.3333333333333333
        (0x01a5_6e1f_c2f8_f359, 0x3fd0_0000_0000_0000, 0x305c_f2b1_970e_7258), // 1e-300, 0.25
        (0x0000_0000_0000_0001, 0x3fe0_0000_0000_0000, 0x1e60_0000_0000_0000), // 5e-324, 0.5
        (0x3fef_ffff_ffff_ffff, 0x3fe8_0000_0000_0000, 0x3fef_ffff_ffff_ffff), // 0.9999999999999999, 0.75
        (0x3fef_ffff_ffff_ffff, 0x433f_f973_cafa_8000, 0x3fd7_9027_fd28_5266), // 0.9999999999999999, 9000000000000000.0
        (0x3ff0_0000_0000_0001, 0x432c_6bf5_2634_0000, 0x4003_7211_be39_582e), // 1.0000000000000002, 4000000000000000.0
        (0x4000_0000_0000_0000, 0x408f_f800_0000_0000, 0x7fe0_0000_0000_0000), // 2.0, 1023.0
        (0x7e37_e43c_8800_759c, 0x01a5_6e1f_c2f8_f359, 0x3ff0_0000_0000_0000), // 1e+300, 1e-300
    ];

    /// x, y and the float nearest to xʸ, where libm 0.2's power is the float next to it.
    const POW_LIBM_IS_OFF: &[(u64, u64, u64)] = &[
        (0x3fef_f7ce_d916_872b, 0x40f7_b8c0_0000_0000, 0x372a_f16e_2dc2_9613), // 0.999, 97164.0
        (0x3fef_ae14_7ae1_47ae, 0x40d7_9f40_0000_0000, 0x2a03_4aad_1660_e8f1), // 0.99, 24189.0
        (0x3fec_cccc_cccc_cccd, 0x40ad_ca00_0000_0000, 0x1bb5_4a9e_c896_7da1), // 0.9, 3813.0
        (0x3fef_ff2e_48e8_a71e, 0x40f1_dd00_0000_0000, 0x3f45_c262_5419_6195), // 0.9999, 73168.0
        (0x3fef_ff2e_48e8_a71e, 0x40d8_a700_0000_0000, 0x3fb4_8130_1b1f_3025), // 0.9999, 25244.0
        (0x3fef_f7ce_d916_872b, 0x40a3_de00_0000_0000, 0x3fb4_1a8d_b043_6a9f), // 0.999, 2543.0
        (0x3fee_6666_6666_6666, 0x40b5_3200_0000_0000, 0x26d6_349b_94f4_5e15), // 0.95, 5426.0
        (0x401e_eaff_0548_8c60, 0x402f_c1cc_a8fd_085c, 0x42dc_ca76_ab3c_3661), // 7.7294884515314095, 15.878514557731414
        (0x406d_e01f_b3e7_8534, 0xc021_1166_b1de_dd70, 0x3bb7_d11b_368f_7a6d), // 239.00386996477903, -8.53398662419815
        (0x4033_4737_516c_eb81, 0xbfc3_6b75_382c_7980, 0x3fe4_6d0f_b774_f44d), // 19.278187836734563, -0.15171685450418337
    ];

    #[test]
    fn cos_is_the_nearest_number() {
        for &(x, want) in COS.iter().chain(COS_LIBM_IS_OFF) {
            assert_eq!(cos(f(x)).to_bits(), want, "cos {:e}", f(x));
            assert_eq!(cos(-f(x)).to_bits(), want, "cos {:e}", -f(x));
        }
    }

    #[test]
    fn pow_is_the_nearest_number() {
        for &(x, y, want) in POW.iter().chain(POW_LIBM_IS_OFF) {
            assert_eq!(pow(f(x), f(y)).to_bits(), want, "{:e} to the power {:e}", f(x), f(y));
        }
    }

    #[test]
    fn cos_of_special_values_is_ieee_s() {
        assert_eq!([0.0, -0.0, 5e-324, -1e-300, 1e-9].map(cos), [1.0; 5]);
        assert!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(cos).iter().all(|c| c.is_nan()));
        // From 2³⁰ on the result is libm's.
        for x in [1_073_741_824.0, 1e22, f64::MAX] {
            assert_eq!(cos(x), libm::cos(x), "{x:e}");
        }
    }

    #[test]
    fn pow_of_special_values_is_ieee_s() {
        const INF: f64 = f64::INFINITY;
        // x, y, x to the power y
        let table = [
            (0.0, 0.0, 1.0),
            (0.0, 3.0, 0.0),
            (-0.0, 3.0, -0.0),
            (-0.0, 2.0, 0.0),
            (0.0, -1.0, INF),
            (-0.0, -1.0, -INF),
            (-0.0, -2.0, INF),
            (INF, 0.5, INF),
            (INF, -0.5, 0.0),
            (-INF, 3.0, -INF),
            (-INF, 2.0, INF),
            (-INF, -3.0, -0.0),
            (0.9, INF, 0.0),
            (0.9, -INF, INF),
            (1.1, INF, INF),
            (-1.0, INF, 1.0),
            (1.0, f64::NAN, 1.0),
            (f64::NAN, 0.0, 1.0),
            (f64::NAN, -0.0, 1.0),
        ];
        for (x, y, want) in table {
            assert_eq!(pow(x, y).to_bits(), f64::to_bits(want), "{x} to the power {y}");
        }
        for (x, y) in [(f64::NAN, 1.0), (2.0, f64::NAN), (-1.0, 0.5), (-8.0, 1.0 / 3.0)] {
            assert!(pow(x, y).is_nan(), "{x} to the power {y}");
        }
    }

    #[test]
    fn pow_of_a_negative_base_takes_its_sign_from_a_whole_exponent() {
        assert_eq!([pow(-2.0, 3.0), pow(-2.0, 2.0), pow(-0.5, -3.0)], [-8.0, 4.0, -8.0]);
        assert_eq!([pow(-1.0, 9_007_199_254_740_991.0), pow(-1.0, 1e300)], [-1.0, 1.0]);
    }

    #[test]
    fn pow_of_huge_exponents_ends_at_the_limits() {
        assert_eq!([pow(1.0, 1e300), pow(1.0, -1e300), pow(0.9, 1e300)], [1.0, 1.0, 0.0]);
        assert_eq!([pow(0.9, -1e300), pow(10.0, 400.0)], [f64::INFINITY; 2]);
        assert_eq!([pow(10.0, -400.0), pow(2.0, -1075.0)], [0.0; 2]);
        // Powers of 2 are exact down to the last subnormal.
        assert_eq!(pow(2.0, -1074.0), 5e-324);
        assert_eq!(pow(0.5, 1022.0), f64::MIN_POSITIVE);
        assert_eq!(pow(2.0, 1023.0), libm::scalbn(1.0, 1023));
    }

    /// Floats of all magnitudes, for properties that can be checked without a reference.
    fn numbers() -> impl Iterator<Item = f64> {
        (0..5000u32).map(|i| {
            let bits = u64::from(i.wrapping_mul(2_654_435_761)) << 20 | u64::from(i);
            libm::scalbn(1.0 + bits as f64 / libm::scalbn(1.0, 52), i as i32 % 200 - 100)
        })
    }

    #[test]
    fn pow_of_2_minus_1_and_one_half_is_rounded_correctly() {
        for x in numbers() {
            assert_eq!(pow(x, 1.0), x, "{x:e}");
            assert_eq!(pow(x, 2.0), x * x, "{x:e}");
            assert_eq!(pow(x, -1.0), 1.0 / x, "{x:e}");
            assert_eq!(pow(x, 0.5), libm::sqrt(x), "{x:e}");
        }
    }
}
