//! The widest vector unit that this processor has, chosen at run time.
//!
//! A [`Kernel`] is a loop. [`dispatch`] runs it as compiled for AVX-512, AVX2 or
//! the target's baseline (which includes NEON on 64-bit Arm). The bits do not
//! depend on the choice: no operation of ours is fused or reassociated.
//!
//! This file holds the crate's only `unsafe` on processors with run-time
//! detection: Rust asks for it where a function compiled for a wider unit is
//! called. Without the feature `std` there is none.

use crate::real::{Dtype, Real};

/// A loop with its operands.
pub(crate) trait Kernel {
    type Output;
    /// Must be `#[inline(always)]`, so that it is compiled for the caller's unit.
    fn run(self) -> Self::Output;
}

#[inline(always)]
#[cfg(not(all(feature = "std", target_arch = "x86_64")))]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    baseline(kernel)
}

#[inline(always)]
#[cfg(all(feature = "std", target_arch = "x86_64"))]
#[allow(unsafe_code)]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    use std::is_x86_feature_detected as has;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run()
    }
    #[target_feature(enable = "avx2")]
    fn avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run()
    }

    if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
        // SAFETY: the features that `avx512` is compiled for were detected just above.
        unsafe { avx512(kernel) }
    } else if has!("avx2") {
        // SAFETY: the feature that `avx2` is compiled for was detected just above.
        unsafe { avx2(kernel) }
    } else {
        baseline(kernel)
    }
}

/// As compiled for every processor of the target: once for all who run it, but where code has to be small,
/// and on a GPU.
#[cfg_attr(any(target_os = "none", target_os = "cuda"), inline(always))]
#[cfg_attr(not(any(target_os = "none", target_os = "cuda")), inline(never))]
fn baseline<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

/// Runs a kernel that computes in C: on the widest unit for `f32`, on the target's
/// baseline for the others, where the code of three units would not pay.
#[inline(always)]
pub(crate) fn dispatch_in<C: Real, K: Kernel>(kernel: K) -> K::Output {
    if const { matches!(C::DTYPE, Dtype::F32) } { dispatch(kernel) } else { baseline(kernel) }
}
