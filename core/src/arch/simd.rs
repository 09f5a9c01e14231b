//! Runs loops on the widest vector unit of the processor, chosen at run time.
//!
//! A [`Kernel`] is a loop. [`dispatch`] runs it as compiled for AVX-512, AVX2 or the target's baseline (which includes
//! NEON on 64-bit Arm). The choice does not affect the bits, because no operation is fused or reassociated. Where the unit
//! is chosen at run time, loops over elements are not vectorised for the baseline: processors without AVX2 date from
//! before 2013.
//!
//! `unsafe` is needed to call a function that is compiled for a wider unit than the caller. Without the feature `std`
//! there is none.

use crate::float::{Dtype, StoredFloat};

/// A loop with its operands.
pub(crate) trait Kernel {
    type Output;
    /// Runs the loop. Must be `#[inline(always)]`, so that it is compiled for the caller's unit.
    fn run(self) -> Self::Output;
    /// Runs the loop without vectors, with the same bits and less code, for rare old processors. Must be
    /// `#[inline(always)]` too.
    #[inline(always)]
    #[cfg_attr(not(all(feature = "std", target_arch = "x86_64")), allow(dead_code))]
    fn run_scalar(self) -> Self::Output
    where
        Self: Sized,
    {
        self.run()
    }
}

/// Prevents the vectorisation of the loop in which it is called.
#[inline(always)]
pub(crate) fn prevent_vectorization() {
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
}

/// Runs a kernel on the widest unit.
#[inline(always)]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    run::<true, K>(kernel)
}

/// Runs a kernel that computes in C on parameters of type P. Kernels for `f16` are not compiled for AVX-512, to save code:
/// that type is rare. Divisions and roots of `f64` are no faster there, but more numbers are on their way from memory.
#[inline(always)]
pub(crate) fn dispatch_in<C: StoredFloat, P: StoredFloat, K: Kernel>(kernel: K) -> K::Output {
    use Dtype::{Bf16, F32, F64};
    if const { matches!((C::DTYPE, P::DTYPE), (F32 | Bf16, F32 | Bf16) | (F64, F64)) } {
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
    reason = "with the constant guard outside, the branch is not compiled where it is not wanted"
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
        // SAFETY: `detected` found the feature that `avx2` is compiled for; it requires AVX2 for `Unit::Avx512` too.
        unsafe { avx2(kernel) }
    }
}

/// The units between which `run` chooses.
#[cfg(all(feature = "std", target_arch = "x86_64"))]
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Avx512,
    Avx2,
    Scalar,
}

/// The widest unit of the processor; AVX-512 only together with AVX2.
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

/// Runs a kernel as compiled for the target's baseline: in one copy for all callers, except inlined on bare metal and on
/// a GPU.
#[cfg(not(all(feature = "std", target_arch = "x86_64")))]
#[cfg_attr(any(target_os = "none", target_os = "cuda"), inline(always))]
#[cfg_attr(not(any(target_os = "none", target_os = "cuda")), inline(never))]
fn baseline<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}
