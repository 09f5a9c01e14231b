//! The square root, correctly rounded, by the processor's instruction.
//!
//! `libm::sqrtf` is inline assembly on x86-64, which keeps a loop from being vectorised; the vector intrinsics and std's
//! function do not. On a Cortex-M4F `libm::sqrtf` computes with integers, though the processor has an instruction.
//! Intrinsics and assembly need `unsafe`, even for instructions that every processor of the target has.

#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn f32(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(all(not(feature = "std"), target_arch = "x86_64"))]
    return {
        use core::arch::x86_64::{_mm_cvtss_f32, _mm_set_ss, _mm_sqrt_ss};
        // SAFETY: SSE is part of x86-64.
        unsafe { _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))) }
    };
    #[cfg(all(not(feature = "std"), target_arch = "aarch64"))]
    return {
        use core::arch::aarch64::{vdup_n_f32, vget_lane_f32, vsqrt_f32};
        // SAFETY: NEON is part of the 64-bit Arm targets that have hardware floats.
        unsafe { vget_lane_f32::<0>(vsqrt_f32(vdup_n_f32(x))) }
    };
    #[cfg(all(not(feature = "std"), target_arch = "wasm32", target_feature = "simd128"))]
    return {
        use core::arch::wasm32::{f32x4_extract_lane, f32x4_splat, f32x4_sqrt};
        f32x4_extract_lane::<0>(f32x4_sqrt(f32x4_splat(x)))
    };
    #[cfg(all(not(feature = "std"), target_arch = "nvptx64"))]
    return core::f32::math::sqrt(x);
    #[cfg(all(not(feature = "std"), target_arch = "arm", target_abi = "eabihf"))]
    return {
        let mut bits = x.to_bits();
        // Through an integer register: stable Rust can't pass float registers to assembly here.
        // SAFETY: targets with the hard-float ABI have these registers and VSQRT.F32. Nothing but the two registers is
        // touched.
        unsafe {
            core::arch::asm!(
                "vmov s15, {bits}", "vsqrt.f32 s15, s15", "vmov {bits}, s15",
                bits = inout(reg) bits, out("s15") _,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        f32::from_bits(bits)
    };
    #[cfg(not(any(
        feature = "std",
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "nvptx64",
        all(target_arch = "wasm32", target_feature = "simd128"),
        all(target_arch = "arm", target_abi = "eabihf")
    )))]
    libm::sqrtf(x)
}

/// On 32-bit Arm through libm: not every processor with the hard-float ABI has an `f64` square root.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn f64(x: f64) -> f64 {
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(all(not(feature = "std"), target_arch = "x86_64"))]
    return {
        use core::arch::x86_64::{_mm_cvtsd_f64, _mm_set_sd, _mm_setzero_pd, _mm_sqrt_sd};
        // SAFETY: SSE2 is part of x86-64.
        unsafe { _mm_cvtsd_f64(_mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(x))) }
    };
    #[cfg(all(not(feature = "std"), target_arch = "aarch64"))]
    return {
        use core::arch::aarch64::{vdup_n_f64, vget_lane_f64, vsqrt_f64};
        // SAFETY: NEON is part of the 64-bit Arm targets that have hardware floats.
        unsafe { vget_lane_f64::<0>(vsqrt_f64(vdup_n_f64(x))) }
    };
    #[cfg(all(not(feature = "std"), target_arch = "wasm32", target_feature = "simd128"))]
    return {
        use core::arch::wasm32::{f64x2_extract_lane, f64x2_splat, f64x2_sqrt};
        f64x2_extract_lane::<0>(f64x2_sqrt(f64x2_splat(x)))
    };
    #[cfg(all(not(feature = "std"), target_arch = "nvptx64"))]
    return core::f64::math::sqrt(x);
    #[cfg(not(any(
        feature = "std",
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "nvptx64",
        all(target_arch = "wasm32", target_feature = "simd128")
    )))]
    libm::sqrt(x)
}

#[cfg(test)]
mod tests {
    #[test]
    fn root_agrees_with_libm_over_all_exponents() {
        for bits in (0..=u32::MAX).step_by(65_521) {
            let x = f32::from_bits(bits);
            let (a, b) = (super::f32(x), libm::sqrtf(x));
            assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{x}");
            let x = f64::from_bits(u64::from(bits) << 32 | u64::from(bits));
            let (a, b) = (super::f64(x), libm::sqrt(x));
            assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{x}");
        }
    }
}
