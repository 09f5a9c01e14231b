//! The widest vector unit that this processor has, chosen at run time.
//!
//! A [`Kernel`] is a loop. [`dispatch`] runs it as compiled for AVX-512, AVX2 or
//! the target's baseline (which includes NEON on 64-bit Arm). The bits do not
//! depend on the choice: no operation of ours is fused or reassociated. Where a unit is
//! chosen at run time, loops over elements are not compiled to vectors for the baseline:
//! processors without AVX2 are from before 2013.
//!
//! This file holds the crate's only `unsafe` on processors with run-time
//! detection: Rust asks for it where a function compiled for a wider unit is
//! called. Without the feature `std` there is none.

use crate::float::{Dtype, StoredFloat};

/// A loop with its operands.
pub(crate) trait Kernel {
    type Output;
    /// Must be `#[inline(always)]`, so that it is compiled for the caller's unit.
    fn run(self) -> Self::Output;
    /// The same bits without vectors, in less code, for processors that hardly anybody has. Must be
    /// `#[inline(always)]`, too.
    #[inline(always)]
    #[cfg_attr(not(all(feature = "std", target_arch = "x86_64")), allow(dead_code))]
    fn run_scalar(self) -> Self::Output
    where
        Self: Sized,
    {
        self.run()
    }
}

/// Keeps the loop that it is called in from being compiled to vectors.
#[inline(always)]
pub(crate) fn one_by_one() {
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
}

/// Runs a kernel on the widest unit.
#[inline(always)]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    run::<true, K>(kernel)
}

/// Runs a kernel that computes in C on parameters of type P. `f64` and `f16` are not compiled for AVX-512, where divisions
/// and roots of `f64` are no faster; few use `f16`, and code of three units has its price.
#[inline(always)]
pub(crate) fn dispatch_in<C: StoredFloat, P: StoredFloat, K: Kernel>(kernel: K) -> K::Output {
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
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run()
    }
    #[target_feature(enable = "avx2")]
    fn avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run()
    }
    #[inline(never)]
    fn scalar<K: Kernel>(kernel: K) -> K::Output {
        kernel.run_scalar()
    }

    let unit = detected();
    if WIDEST {
        if unit == Unit::Avx512 {
            // SAFETY: `detected` found the features that `avx512` is compiled for.
            return unsafe { avx512(kernel) };
        }
    }
    if unit == Unit::Scalar {
        scalar(kernel)
    } else {
        // SAFETY: `detected` found the feature that `avx2` is compiled for, which comes with AVX-512, too.
        unsafe { avx2(kernel) }
    }
}

/// What is chosen between at run time.
#[cfg(all(feature = "std", target_arch = "x86_64"))]
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Avx512,
    Avx2,
    Scalar,
}

/// The widest unit there is: AVX-512 only together with AVX2.
#[cfg(all(feature = "std", target_arch = "x86_64"))]
#[inline(never)]
fn detected() -> Unit {
    use std::is_x86_feature_detected as has;
    if !has!("avx2") {
        Unit::Scalar
    } else if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
        Unit::Avx512
    } else {
        Unit::Avx2
    }
}

/// As compiled for every processor of the target: once for all who run it, but where code has to be small,
/// and on a GPU.
#[cfg(not(all(feature = "std", target_arch = "x86_64")))]
#[cfg_attr(any(target_os = "none", target_os = "cuda"), inline(always))]
#[cfg_attr(not(any(target_os = "none", target_os = "cuda")), inline(never))]
fn baseline<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}
