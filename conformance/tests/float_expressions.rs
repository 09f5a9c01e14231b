//! Forbidden compiler transformations of floating-point arithmetic, each with inputs that reveal it.
//!
//! In the manner of WebAssembly's `float_exprs` tests. Inputs pass through `black_box`, so that the compiler has to
//! keep the operations; CI runs this file in the debug profile and, in `.ci/adapters`, in the release profile.

use std::hint::black_box as b;

use bitstep::float::ComputeFloat;
use bitstep::math::reduce;

#[test]
fn product_and_sum_are_not_fused() {
    // (1 + 2⁻¹²)² = 1 + 2⁻¹¹ + 2⁻²⁴: the last term is lost when the product rounds first.
    let x = b(1.0f32 + 2f32.powi(-12));
    let c = b(-(1.0f32 + 2f32.powi(-11)));
    assert_eq!(x * x + c, 0.0);
    assert_eq!(c.addcmul(x, x, b(1.0)), 0.0);
    assert_eq!(c.add_scaled(x, x), 0.0);
    let x = b(1.0f64 + 2f64.powi(-27));
    assert_eq!(b(-(1.0 + 2f64.powi(-26))).add_scaled(x, x), 0.0);
}

#[test]
fn adding_zero_is_not_folded() {
    assert!((b(-0.0f32) + b(0.0)).is_sign_positive());
    assert!(b(-0.0f32).add_scalar(0.0).is_sign_positive());
}

#[test]
fn subtracting_itself_is_not_folded() {
    let x = b(f32::INFINITY);
    assert!((x - x).is_nan());
}

#[test]
fn multiplying_by_zero_is_not_folded() {
    assert!(b(f32::INFINITY).mul_scalar(0.0).is_nan());
    assert!(b(-1.0f32).mul_scalar(0.0).is_sign_negative());
}

#[test]
fn sums_are_not_reassociated() {
    let (big, one) = (b(1e8f32), b(1.0f32));
    assert_eq!((big + one) - big, 0.0);
    assert_eq!(big - big + one, 1.0);
}

#[test]
fn a_division_stays_a_division() {
    // 5 / 49 and 5 · (1/49) differ in the last bit.
    let (x, y) = (b(5.0f32), b(49.0f32));
    assert_ne!((x / y).to_bits(), (x * (b(1.0f32) / y)).to_bits());
    assert_eq!(x.div_scalar(49.0).to_bits(), (x / y).to_bits());
    assert_eq!(ComputeFloat::addcdiv(b(0.0f32), x, y, 1.0).to_bits(), (x / y).to_bits());
}

#[test]
fn products_are_not_reassociated() {
    // 1e30 · 1e30 overflows before 1e-30 can bring it back.
    let (x, y) = (b(1e30f32), b(1e-30f32));
    assert!((x * x * y).is_infinite());
    assert_eq!(x * y * x, x * (y * x));
}

#[test]
fn intermediate_results_have_no_extra_precision_or_range() {
    assert!((b(f32::MAX) * b(2.0f32) * b(0.5)).is_infinite());
    assert!((b(f64::MAX) * b(2.0f64) * b(0.5)).is_infinite());
}

#[test]
fn denormals_are_neither_flushed_nor_read_as_zero() {
    let tiny = b(f32::from_bits(1));
    assert_eq!((tiny + tiny).to_bits(), 2);
    assert!(b(f32::MIN_POSITIVE) * b(0.5) > 0.0);
}

#[test]
fn a_reduction_keeps_its_order() {
    // Lane 0 holds 1e8 and −1e8; the ones of the other lanes are folded in between.
    let x: Vec<f32> = (0..64)
        .map(|i| [1e8, 1.0, -1e8][(i == 32) as usize * 2 + (i % 32 != 0) as usize])
        .collect();
    let mut lanes = [0.0f32; 32];
    for (i, v) in x.iter().enumerate() {
        lanes[i % 32] += v;
    }
    for width in [16, 8, 4, 2, 1] {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
    }
    assert_eq!(reduce::sum(64, |i| b(x[i])).to_bits(), lanes[0].to_bits());
}
