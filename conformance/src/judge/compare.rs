//! Errors in units in the last place *at scale*.
//!
//! |got − want|, divided by the spacing of `want`'s type at max(|want|, |value before the step|): a parameter
//! that passes near zero is then not blamed for cancellation. Any NaN matches any NaN, an infinity only itself;
//! below the smallest normal number the spacing is that of the subnormals; for integers and codes it is 1.

use crate::tensor::{Dtype, Tensor};

/// The distance from |x| to the next larger number of the type; |x| finite.
#[must_use]
pub fn spacing(dtype: Dtype, x: f64) -> f64 {
    let Some((precision, min_exponent)) = dtype.float() else { return 1.0 };
    let exponent = exponent(x).max(min_exponent);
    power_of_two(exponent - (precision - 1))
}

/// floor(log2 |x|); very small for 0.
fn exponent(x: f64) -> i32 {
    let biased = (x.to_bits() >> 52 & 0x7ff) as i32;
    if biased > 0 {
        return biased - 1023;
    }
    // Subnormal: 2^64 makes it normal.
    let scaled = x * power_of_two(64);
    if scaled == 0.0 { i32::MIN / 2 } else { exponent(scaled) - 64 }
}

/// 2^e for −1074 ≤ e ≤ 1023.
fn power_of_two(e: i32) -> f64 {
    if e >= -1022 {
        f64::from_bits(((e + 1023) as u64) << 52)
    } else {
        f64::from_bits(1 << (e + 1074).max(0))
    }
}

/// The error of one value, in ULP at scale; infinite where one is NaN or infinite and the other does not match.
#[must_use]
pub fn ulp(dtype: Dtype, got: f64, want: f64, before: f64) -> f64 {
    error(got, want, spacing(dtype, scale(want, before)))
}

/// |got − want| in units of `unit`.
#[must_use]
pub fn error(got: f64, want: f64, unit: f64) -> f64 {
    if got == want || (got.is_nan() && want.is_nan()) {
        0.0
    } else if got.is_finite() && want.is_finite() {
        (got - want).abs() / unit
    } else {
        f64::INFINITY
    }
}

/// max(|want|, |before|), ignoring the non-finite.
#[must_use]
pub fn scale(want: f64, before: f64) -> f64 {
    let finite = |x: f64| if x.is_finite() { x.abs() } else { 0.0 };
    finite(want).max(finite(before))
}

/// The distance between two codes, for types that hold codes. `packed`: two codes of 4 bits in a byte.
#[must_use]
pub fn codes_apart(dtype: Dtype, got: u64, want: u64, packed: bool) -> Option<u64> {
    match dtype {
        Dtype::I8 => Some((got as i8).abs_diff(want as i8).into()),
        Dtype::U8 if packed => {
            Some((got >> 4).abs_diff(want >> 4).max((got & 15).abs_diff(want & 15)))
        }
        Dtype::U8 => Some(got.abs_diff(want)),
        Dtype::F8E4M3 | Dtype::F8E5M2 => {
            let order = |bits: u64| {
                let magnitude = (bits & 0x7f) as i64;
                let negative = bits & 0x80 != 0 && magnitude != 0x7f; // NaN is NaN
                if negative { -magnitude } else { magnitude }
            };
            Some(order(got).abs_diff(order(want)))
        }
        _ => None,
    }
}

/// Whether a code is one of those from the first to the last of two, in either order.
#[must_use]
pub fn is_between(dtype: Dtype, code: u64, [a, b]: [u64; 2], packed: bool) -> bool {
    if packed && dtype == Dtype::U8 {
        let within = |shift: u32| {
            let [code, a, b] = [code, a, b].map(|x| x >> shift & 15);
            (a.min(b)..=a.max(b)).contains(&code)
        };
        return within(0) && within(4);
    }
    let apart = |a, b| codes_apart(dtype, a, b, false);
    match (apart(a, code), apart(code, b), apart(a, b)) {
        (Some(x), Some(y), Some(all)) => x + y == all,
        _ => false,
    }
}

/// Whether a type holds codes, which [`codes_apart`] measures.
#[must_use]
pub fn is_code(dtype: Dtype) -> bool {
    codes_apart(dtype, 0, 0, false).is_some()
}

/// The values of all codes of a type, indexed by their bits.
#[must_use]
pub fn code_grid(dtype: Dtype) -> Vec<f64> {
    Tensor { dtype, shape: vec![256], bytes: (0..=255).collect() }.to_f64s()
}

/// The code with exactly this value, if there is one; all NaNs are equal.
#[must_use]
pub fn code(grid: &[f64], x: f64) -> Option<u64> {
    let same = |&y: &f64| y == x || (y.is_nan() && x.is_nan());
    grid.iter().position(same).map(|bits| bits as u64)
}

/// Whether two elements are identical in every bit (all NaNs are equal).
#[must_use]
pub fn same_bits(a: &Tensor, b: &Tensor, i: usize) -> bool {
    a.dtype == b.dtype && (a.bits(i) == b.bits(i) || (a.get(i).is_nan() && b.get(i).is_nan()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacing_by_hand() {
        for (dtype, x, want) in [
            (Dtype::F32, 1.0, 2f64.powi(-23)),
            (Dtype::F32, -1.999, 2f64.powi(-23)),
            (Dtype::F32, 2.0, 2f64.powi(-22)),
            (Dtype::F32, 0.0, 2f64.powi(-149)),
            (Dtype::F32, 1e-40, 2f64.powi(-149)),
            (Dtype::F32, 2f64.powi(-126), 2f64.powi(-149)),
            (Dtype::F32, 2f64.powi(-125), 2f64.powi(-148)),
            (Dtype::F64, 1.0, f64::EPSILON),
            (Dtype::F64, 0.0, 5e-324),
            (Dtype::F64, 5e-324, 5e-324),
            (Dtype::F64, 1e-310, 5e-324),
            (Dtype::F64, f64::MIN_POSITIVE, 5e-324),
            (Dtype::F64, f64::MAX, 2f64.powi(971)),
            (Dtype::Bf16, 1.0, 2f64.powi(-7)),
            (Dtype::Bf16, 3e-39, 2f64.powi(-133)),
            (Dtype::F16, 1000.0, 0.5),
            (Dtype::F16, 1e-7, 2f64.powi(-24)),
            (Dtype::F8E4M3, 448.0, 32.0),
            (Dtype::F8E5M2, 0.0, 2f64.powi(-16)),
            (Dtype::I32, 1e6, 1.0),
            (Dtype::U8, 0.0, 1.0),
        ] {
            assert_eq!(spacing(dtype, x), want, "{dtype} {x}");
        }
    }

    #[test]
    fn ulp_by_hand() {
        let next = f64::from(1f32.next_up());
        assert_eq!(ulp(Dtype::F32, next, 1.0, 0.0), 1.0);
        assert_eq!(ulp(Dtype::F32, 1.0, 1.0, 0.0), 0.0);
        // Below a power of two the spacing halves, but the unit is that at `want`.
        assert_eq!(ulp(Dtype::F32, f64::from(1f32.next_down()), 1.0, 0.0), 0.5);
        // The value before the step was 1: an error of 1e-9 near zero is small.
        assert!(ulp(Dtype::F32, 1e-9, 0.0, 1.0) < 0.01);
        assert_eq!(ulp(Dtype::F32, 2f64.powi(-149), 0.0, 0.0), 1.0);
        assert_eq!(ulp(Dtype::Bf16, 1.0, 1.015625, 0.0), 2.0);
        assert_eq!(ulp(Dtype::U8, 7.0, 4.0, 0.0), 3.0);
        assert_eq!(ulp(Dtype::F64, -0.0, 0.0, 0.0), 0.0);
    }

    #[test]
    fn codes_apart_by_hand() {
        assert_eq!(codes_apart(Dtype::I8, 0xff, 0x01, false), Some(2));
        assert_eq!(codes_apart(Dtype::U8, 0x7f, 0x80, false), Some(1));
        assert_eq!(codes_apart(Dtype::U8, 0x7f, 0x80, true), Some(15));
        assert_eq!(codes_apart(Dtype::U8, 0x33, 0x24, true), Some(1));
        assert_eq!(codes_apart(Dtype::F8E4M3, 0x81, 0x01, false), Some(2));
        assert_eq!(codes_apart(Dtype::F8E4M3, 0xff, 0x7f, false), Some(0));
        assert_eq!(codes_apart(Dtype::F32, 0, 1, false), None);
    }

    #[test]
    fn code_of_a_number_in_another_type() {
        for (dtype, x, want) in [
            (Dtype::I8, -127.0, Some(0x81)),
            (Dtype::I8, 128.0, None),
            (Dtype::U8, 255.0, Some(255)),
            (Dtype::U8, 3.5, None),
            (Dtype::F8E4M3, 448.0, Some(0x7e)),
            (Dtype::F8E4M3, -0.0, Some(0)),
            (Dtype::F8E4M3, 1.0 + 1e-9, None),
            (Dtype::F8E4M3, f64::NAN, Some(0x7f)),
            (Dtype::F8E5M2, f64::INFINITY, Some(0x7c)),
        ] {
            assert_eq!(code(&code_grid(dtype), x), want, "{dtype} {x}");
        }
    }

    #[test]
    fn ulp_of_the_non_finite() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        assert_eq!(ulp(Dtype::F32, nan, -nan, 1.0), 0.0);
        assert_eq!(ulp(Dtype::F32, inf, inf, 1.0), 0.0);
        for (got, want) in
            [(inf, -inf), (inf, f64::MAX), (1.0, nan), (nan, 1.0), (nan, inf), (0.0, inf)]
        {
            assert_eq!(ulp(Dtype::F32, got, want, 1.0), inf, "{got} {want}");
        }
        // An infinity before the step must not excuse anything after it.
        assert_eq!(ulp(Dtype::F32, f64::from(1f32.next_up()), 1.0, inf), 1.0);
        assert_eq!(ulp(Dtype::F32, f64::from(1f32.next_up()), 1.0, nan), 1.0);
    }
}
