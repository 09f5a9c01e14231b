//! Products of matrices of bf16 numbers, by the instruction of AVX-512 that adds two products to an `f32`.
//!
//! It adds one product after the other, and rounds after each; a product of two bf16 numbers has at most 16 bits and is
//! exact. So its sums are those of separate multiplications and additions in the same order, as long as nothing is
//! subnormal (it takes subnormal numbers as 0) and nothing overflows: [`are_narrow`] asks for that.
//!
//! `unsafe` is needed to call the function that is compiled for the instruction, and for its loads.

use core::arch::x86_64::*;
use std::sync::OnceLock;

use super::simd::{self, Kernel};
use crate::float::StoredFloat;

/// Rows and columns of a tile, and the most pairs of products for each of its elements.
pub(crate) const ROWS: usize = 12;
pub(crate) const COLS: usize = 32;
pub(crate) const PAIRS: usize = 128;

/// Two bf16 numbers in the order in which their products are added.
#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> u32 {
    (first.to_bits() & 0xffff_0000) | (second.to_bits() >> 16)
}

/// Whether all are bf16 numbers, either 0 or of a magnitude from 2⁻⁵⁶ to 2⁶³.
///
/// A product of two such is below 2¹²⁶ and a multiple of 2⁻¹²⁶, as then is every sum of them, exact or rounded: none
/// of these is subnormal.
pub(crate) fn are_narrow<A: StoredFloat>(numbers: &[A]) -> bool {
    struct Narrow<'a, A>(&'a [A]);
    impl<A: StoredFloat> Kernel for Narrow<'_, A> {
        type Output = bool;
        #[inline(always)]
        fn run(self) -> bool {
            self.0.chunks(1024).all(|numbers| {
                let mut others = 0;
                for x in numbers {
                    let magnitude = x.to_f32().to_bits() & 0x7fff_ffff;
                    let outside = magnitude.wrapping_sub(71 << 23) >= (190 - 71) << 23;
                    let outside = if outside { magnitude } else { 0 };
                    others |= outside | (magnitude & 0xffff);
                }
                others == 0
            })
        }
    }
    simd::dispatch(Narrow(numbers))
}

/// Whether the processor has the instruction, and it adds as described above.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bf16")
            && adds_in_order()
    })
}

/// The sums of a tile: of each row of `strip` times each column of `panel`, over the pairs of the panel.
///
/// Call it only where the instruction [is available](is_available).
#[allow(unsafe_code)]
pub(crate) fn tile(
    strip: &[[u32; PAIRS]; ROWS],
    panel: &[[u32; COLS]],
    sums: &mut [[f32; COLS]; ROWS],
) {
    debug_assert!(std::is_x86_feature_detected!("avx512bf16"));
    // SAFETY: the caller has seen that the features exist that the function is compiled for.
    unsafe { sums_of_pairs(strip, panel, sums) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[allow(unsafe_code)]
fn sums_of_pairs(
    strip: &[[u32; PAIRS]; ROWS],
    panel: &[[u32; COLS]],
    sums: &mut [[f32; COLS]; ROWS],
) {
    let mut all = [[_mm512_setzero_ps(); 2]; ROWS];
    for (k, columns) in panel.iter().enumerate() {
        let (left, right) = columns.split_at(COLS / 2);
        // SAFETY: both halves have 16 numbers of 32 bits; any bits are vectors of bf16 numbers.
        let halves: [__m512bh; 2] = unsafe {
            [left, right].map(|half| core::mem::transmute(_mm512_loadu_si512(half.as_ptr().cast())))
        };
        for (sums, row) in all.iter_mut().zip(strip) {
            let x = _mm512_set1_epi32(row[k % PAIRS] as i32);
            // SAFETY: any bits are a vector of bf16 numbers.
            let x: __m512bh = unsafe { core::mem::transmute(x) };
            sums[0] = _mm512_dpbf16_ps(sums[0], x, halves[0]);
            sums[1] = _mm512_dpbf16_ps(sums[1], x, halves[1]);
        }
    }
    for (to, from) in sums.iter_mut().zip(all) {
        for (to, from) in to.chunks_exact_mut(COLS / 2).zip(from) {
            // SAFETY: a half of the row has 16 numbers.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), from) }
        }
    }
}

/// Whether sums that would differ in another order, or without rounding in between, have the bits of single operations.
fn adds_in_order() -> bool {
    let mut strip = [[0; PAIRS]; ROWS];
    let mut panel = [[0; COLS]; 8];
    let (mut rows, mut columns) = ([[0.0; 16]; ROWS], [[0.0; COLS]; 16]);
    let mut seed = 1u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Either sign, exponents from −6 to 9, any mantissa.
        f32::from_bits((seed & 0x807f_0000) | (121 + (seed >> 24 & 15)) << 23)
    };
    rows.as_flattened_mut().iter_mut().for_each(|x| *x = next());
    columns.as_flattened_mut().iter_mut().for_each(|x| *x = next());
    for k in 0..8 {
        for (to, row) in strip.iter_mut().zip(&rows) {
            to[k] = pair(row[2 * k], row[2 * k + 1]);
        }
        for (j, to) in panel[k].iter_mut().enumerate() {
            *to = pair(columns[2 * k][j], columns[2 * k + 1][j]);
        }
    }
    let mut sums = [[0.0; COLS]; ROWS];
    tile(&strip, &panel, &mut sums);
    sums.iter().zip(&rows).all(|(sums, row)| {
        sums.iter().enumerate().all(|(j, sum)| {
            let one_by_one =
                row.iter().zip(&columns).fold(0.0, |s: f32, (x, column)| s + x * column[j]);
            sum.to_bits() == one_by_one.to_bits()
        })
    })
}
