//! `cos` and `pow` rounded as the reference's are.
//!
//! libm's results are within 1 ULP, but on a schedule's inputs 2.8 % of its cosines and 6.3 % of its powers differ
//! from those of glibc, which Python calls. Near the end of a cosine schedule `1 + cos(x)` cancels, and one differing
//! bit becomes thousands of ULP; in a recursive schedule the differences pile up over the steps. An optimizer's bias
//! correction `1 − βᵗ` cancels too, and RAdam's ρ once more.
//! glibc is correctly rounded in all but about one case in a thousand, so being correctly rounded is the best aim.
//!
//! Here the function is evaluated in double-double numbers (pairs whose sum has about 106 bits) by its Taylor series,
//! and rounded once at the end. A schedule needs this once a step, so a short series loop serves better than tables.

/// A sum `hi + lo` with `|lo|` at most half an ulp of `hi`.
#[derive(Clone, Copy)]
struct Dd {
    hi: f64,
    lo: f64,
}

/// π/2, ln 2: the first 53 bits, the next 53, the next 53.
const HALF_PI: [f64; 3] =
    [core::f64::consts::FRAC_PI_2, 6.123233995736766e-17, -1.4973849048591698e-33];
const LN_2: [f64; 3] = [core::f64::consts::LN_2, 2.3190468138462996e-17, 5.707708438416212e-34];

const ONE: Dd = Dd { hi: 1.0, lo: 0.0 };

/// The exact sum of two numbers (Knuth).
fn two_sum(a: f64, b: f64) -> Dd {
    let hi = a + b;
    let c = hi - a;
    Dd { hi, lo: (a - (hi - c)) + (b - c) }
}

/// The exact product of two numbers (Dekker): halves of 26 bits, because there is no fused multiply-add.
fn two_product(a: f64, b: f64) -> Dd {
    fn halves(x: f64) -> (f64, f64) {
        let c = 134_217_729.0 * x; // 2²⁷ + 1
        let high = c - (c - x);
        (high, x - high)
    }
    let hi = a * b;
    let (a1, a2) = halves(a);
    let (b1, b2) = halves(b);
    Dd { hi, lo: ((a1 * b1 - hi) + a1 * b2 + a2 * b1) + a2 * b2 }
}

impl Dd {
    fn add(self, b: Dd) -> Dd {
        let s = two_sum(self.hi, b.hi);
        let t = two_sum(self.lo, b.lo);
        let u = two_sum(s.hi, s.lo + t.hi);
        two_sum(u.hi, u.lo + t.lo)
    }

    fn mul(self, b: Dd) -> Dd {
        let p = two_product(self.hi, b.hi);
        two_sum(p.hi, p.lo + (self.hi * b.lo + self.lo * b.hi))
    }

    fn div(self, b: f64) -> Dd {
        let q = self.hi / b;
        let p = two_product(q, b);
        two_sum(q, ((self.hi - p.hi) - p.lo + self.lo) / b)
    }

    fn neg(self) -> Dd {
        Dd { hi: -self.hi, lo: -self.lo }
    }

    /// `self − n·c`, for a constant of three parts.
    fn minus_multiple(self, n: f64, c: [f64; 3]) -> Dd {
        let [c0, c1, c2] = c;
        self.add(two_product(n, c0).neg())
            .add(two_product(n, c1).neg())
            .add(Dd { hi: -(n * c2), lo: 0.0 })
    }
}

/// Σ (−r²)ᵏ / ((first+1)(first+2)…(first+2k)): the cosine of `r` for `first` 0, its sine over `r` for 1.
fn alternating_series(r: Dd, first: f64) -> Dd {
    let square = r.mul(r).neg();
    let mut sum = ONE;
    let mut n = first + 28.0; // |r| ≤ π/4, so the next term is below 2⁻¹⁰⁷
    while n > first {
        sum = ONE.add(square.mul(sum).div(n * (n - 1.0)));
        n -= 2.0;
    }
    sum
}

/// The cosine of `x`.
pub(crate) fn cos(x: f64) -> f64 {
    if x.is_nan() || x.abs() >= 1_073_741_824.0 {
        return libm::cos(x); // beyond 2³⁰ the three parts of π/2 no longer suffice
    }
    let quarter_turns = libm::rint(x / HALF_PI[0]);
    let r = Dd { hi: x, lo: 0.0 }.minus_multiple(quarter_turns, HALF_PI);
    match quarter_turns as i64 & 3 {
        0 => alternating_series(r, 0.0).hi,
        1 => -r.mul(alternating_series(r, 1.0)).hi,
        2 => -alternating_series(r, 0.0).hi,
        _ => r.mul(alternating_series(r, 1.0)).hi,
    }
}

/// e to the power `z`, as a number near 1 and a power of two.
fn exp(z: Dd) -> (Dd, i32) {
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
fn log(x: f64) -> Dd {
    let (m, e) = libm::frexp(x);
    let (m, e) = if m < core::f64::consts::FRAC_1_SQRT_2 { (2.0 * m, e - 1) } else { (m, e) };
    // One step of Newton's method in double-double, from libm's logarithm. m lies within √½ and √2.
    let guess = libm::log(m);
    let (ratio, k) = exp(Dd { hi: -guess, lo: 0.0 });
    let ratio = ratio.mul(Dd { hi: libm::scalbn(m, k), lo: 0.0 });
    let rest = ratio.add(ONE.neg());
    let rest = rest.add(Dd { hi: -0.5 * rest.hi * rest.hi, lo: 0.0 });
    Dd { hi: guess, lo: 0.0 }.add(rest).minus_multiple(-f64::from(e), LN_2)
}

/// `x` to the power `y`. Large and needed once a step: one copy is enough.
#[inline(never)]
pub(crate) fn pow(x: f64, y: f64) -> f64 {
    let p = libm::pow(x, y);
    // Special values and signs are libm's; so are results so small or large that scaling would round or overflow.
    let normal = x > 0.0 && x < f64::INFINITY && p > 1e-307 && p < 1e308;
    if !normal || p == 1.0 {
        return p;
    }
    // A bias correction's exponent counts steps. Without a unit for f64, multiplying takes a tenth of the time.
    if (1.0..=MOST_STEPS).contains(&y) && libm::floor(y) == y && p > 1e-250 && p < 1e250 {
        return count_pow(x, y as u32);
    }
    let product = log(x).mul(Dd { hi: y, lo: 0.0 });
    let (sum, k) = exp(product);
    libm::scalbn(sum.hi, k)
}

/// The largest exponent for [`count_pow`]: its error, some 2⁻¹⁰² times the exponent, then stays below 2⁻⁷⁸.
const MOST_STEPS: f64 = 16_777_216.0;

/// `x` to the power `n`, by squaring. No intermediate result is further from 1 than the last one.
fn count_pow(x: f64, mut n: u32) -> f64 {
    let (mut power, mut square) = (ONE, Dd { hi: x, lo: 0.0 });
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
        // Not of 3, whose power 34 lies in the middle between two numbers: only squaring sees that.
        assert_eq!(count_pow(3.0, 34), 16_677_181_699_666_568.0);
        for x in [0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9995, 0.9999, 0.999_999, 1.000_1, 3.1] {
            let logarithm = log(x);
            for n in (1..2000).chain((2000..16_777_216).step_by(65_537)) {
                let y = f64::from(n);
                let (sum, k) = exp(logarithm.mul(Dd { hi: y, lo: 0.0 }));
                let want = libm::scalbn(sum.hi, k);
                if want > 1e-250 && want < 1e250 {
                    assert_eq!(count_pow(x, n).to_bits(), want.to_bits(), "{x} to the power {n}");
                }
            }
        }
    }
}
