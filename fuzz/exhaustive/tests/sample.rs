//! A sample of every exponent, all 16-bit inputs, and seeded faults.

use bitstep::float::ComputeFloat;
use bitstep::float::EagerFloat;
use bitstep_exhaustive::{Bits, CHECKS, over};
use half::{bf16, f16};

#[test]
fn sample_of_every_exponent_is_right() {
    for (name, check) in CHECKS {
        // A prime stride, so that every bit of the mantissa changes.
        let count = over(0, u32::MAX, 12_289, *check).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(count, 349_497);
        // Around 0, ±1 and the ends.
        for near in
            [0x7f7f_ffffu32, 0x8000_0000, 0x407f_ffff, 0xbf80_0000, 0x0080_0000, 0xff7f_0000]
        {
            over(near - 3000, near + 3000, 1, *check).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

/// Every value of a 16-bit type survives conversion to `f32` and back, and its root is the nearest value.
fn all_of<N: EagerFloat + Bits>() {
    for bits in 0..=u16::MAX {
        let x = N::of_bits(bits);
        let back = N::from_f32(x.to_f32());
        assert!(
            back.bits_of() == bits || x.to_f32().is_nan() && back.to_f32().is_nan(),
            "{bits:#x}"
        );
        assert!(N::from_f64(x.to_f64()).bits_of() == bits || x.to_f32().is_nan(), "{bits:#x}");
        let root: N = N::Compute::load(x).sqrt().store();
        let want = x.to_f64().sqrt();
        if want.is_nan() {
            assert!(root.to_f32().is_nan(), "{bits:#x}");
        } else if want.is_finite() && want > 0.0 {
            let off = |b: u16| (N::of_bits(b).to_f64() - want).abs();
            let own = root.bits_of();
            assert!(off(own) <= off(own + 1) && off(own) <= off(own - 1), "{bits:#x}");
        }
    }
}

#[test]
fn every_number_of_16_bits_goes_there_and_back_and_has_its_root() {
    all_of::<bf16>();
    all_of::<f16>();
}

#[test]
fn planted_mistakes_are_caught() {
    fn only_small(all: &[f32]) -> Result<(), String> {
        match all.iter().find(|x| x.abs() > 1e38) {
            Some(x) => Err(format!("{x}")),
            None => Ok(()),
        }
    }
    assert!(over(0, u32::MAX, 12_289, only_small).is_err());
    // In ascending order, and every input once.
    fn ascending(all: &[f32]) -> Result<(), String> {
        if all.is_sorted_by(|a, b| a.is_nan() || b.is_nan() || a <= b) {
            Ok(())
        } else {
            Err("no".into())
        }
    }
    assert_eq!(over(0x3f00_0000, 0x4100_0000, 1, ascending), Ok(0x0200_0001));
}
