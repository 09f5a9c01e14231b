//! The widest vector unit that this processor has, chosen at run time.
//!
//! A [`Kernel`] is a loop. [`dispatch`] runs it as compiled for AVX-512, AVX2 or
//! the target's baseline (which includes NEON on 64-bit Arm). The bits do not
//! depend on the choice: no operation of ours is fused or reassociated.
//!
//! This file holds the crate's only `unsafe` on processors with run-time
//! detection: Rust asks for it where a function compiled for a wider unit is
//! called. Without the feature `std` there is none.

use crate::real::{Dtype, Number, Real};

/// A loop with its operands.
pub(crate) trait Kernel {
    type Output;
    /// Must be `#[inline(always)]`, so that it is compiled for the caller's unit.
    fn run(self) -> Self::Output;
}

/// Runs a kernel on the widest unit.
#[inline(always)]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    run::<true, K>(kernel)
}

/// Runs a kernel that computes in C on parameters of type P. `f64` and `f16` are not compiled for AVX-512, where divisions
/// and roots of `f64` are no faster; few use `f16`, and code of three units has its price.
#[inline(always)]
pub(crate) fn dispatch_in<C: Real, P: Number, K: Kernel>(kernel: K) -> K::Output {
    if const { matches!((C::DTYPE, P::DTYPE), (Dtype::F32 | Dtype::Bf16, Dtype::F32 | Dtype::Bf16)) }
    {
        run::<true, K>(kernel)
    } else {
        run::<false, K>(kernel)
    }
}

#[inline(always)]
#[cfg(not(all(feature = "std", target_arch = "x86_64")))]
fn run<const WIDEST: bool, K: Kernel>(kernel: K) -> K::Output {
    baseline(kernel)
}

#[inline(always)]
#[cfg(all(feature = "std", target_arch = "x86_64"))]
#[allow(unsafe_code)]
#[expect(
    clippy::collapsible_if,
    reason = "a constant guard keeps what is not wanted from being compiled"
)]
fn run<const WIDEST: bool, K: Kernel>(kernel: K) -> K::Output {
    use std::is_x86_feature_detected as has;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run()
    }
    #[target_feature(enable = "avx2")]
    fn avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run()
    }

    if WIDEST {
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            // SAFETY: the features that `avx512` is compiled for were detected just above.
            return unsafe { avx512(kernel) };
        }
    }
    if has!("avx2") {
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
