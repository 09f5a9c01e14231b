//! Elementwise operations on gradients, by the core's functions.

use core::slice;

use bitstep::gradient::{GradientAccumulator, Neftune, clip_grad_value, scale_in_place};
use bitstep::storage::Plain;
use half::{bf16, f16};

use crate::grid::{for_each_chunk_per_block, part};
use crate::table::GradientDesc;

/// Runs `f` on every element, with one-element slices of the gradient and of the second operand.
///
/// # Safety
/// The table has `count` valid descriptors.
#[inline(always)]
unsafe fn each<T: Plain, U: Plain>(
    table: *const GradientDesc,
    count: u64,
    chunks: u64,
    f: impl Fn(&GradientDesc, &mut [T], &[U]),
) {
    // SAFETY: guaranteed by the caller; a chunk's elements belong to this block, and each of them
    // to one thread.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |desc: &GradientDesc, chunk, at, step| {
            let (start, end) = part(desc.len, chunk);
            let mut i = start + at;
            while i < end {
                let x = slice::from_raw_parts_mut((desc.to as *mut T).add(i as usize), 1);
                let y: &[U] = match desc.from {
                    0 => &[],
                    from => slice::from_raw_parts((from as *const U).add(i as usize), 1),
                };
                f(desc, x, y);
                i += step;
            }
        });
    }
}

// Slices of one element have no length errors to report.

#[inline(always)]
fn scale<T: Plain, U: Plain>(desc: &GradientDesc, x: &mut [T], _: &[U]) {
    scale_in_place(&mut T::data_mut(x), f64::from_bits(desc.number));
}

/// Multiplication by an `f64` in device memory.
#[inline(always)]
fn scale_by<T: Plain, U: Plain>(desc: &GradientDesc, x: &mut [T], _: &[U]) {
    // SAFETY: the host's descriptor has its address.
    scale_in_place(&mut T::data_mut(x), unsafe { *(desc.number as *const f64) });
}

#[inline(always)]
fn clip_value<T: Plain, U: Plain>(desc: &GradientDesc, x: &mut [T], _: &[U]) {
    let _ = clip_grad_value(&mut [T::data_mut(x)], f64::from_bits(desc.number));
}

/// `counts`: micro-batches of a window, those seen, and whether to compute their mean.
#[inline(always)]
fn accumulate<T: Plain, U: Plain>(desc: &GradientDesc, x: &mut [T], y: &[U]) {
    let [window, seen, mean] = desc.counts;
    let new = if mean == 1 {
        GradientAccumulator::mean(window)
    } else {
        GradientAccumulator::sum(window)
    };
    if let Ok(mut accumulation) = new {
        // It only matters whether any was seen.
        if seen > 0 {
            accumulation.advance();
        }
        let _ = accumulation.add(T::data_mut(x), U::data(y));
    }
}

/// `counts`: length and width of a sequence.
#[inline(always)]
fn unit<T: Plain, U: Plain>(desc: &GradientDesc, x: &mut [T], y: &[U]) {
    let [length, width, _] = desc.counts;
    let neftune = Neftune { alpha: f64::from_bits(desc.number) };
    let _ = neftune.add_from_uniform(T::data_mut(x), U::data(y), length, width);
}

#[inline(always)]
fn noise<T: Plain, U: Plain>(_: &GradientDesc, x: &mut [T], y: &[U]) {
    let _ = Neftune::add_noise(T::data_mut(x), U::data(y));
}

macro_rules! entries {
    ($($name:literal, $f:ident, $t:ty, $u:ty;)*) => {$(
        const _: () = {
            #[unsafe(export_name = concat!("gradient_", $name))]
            unsafe extern "ptx-kernel" fn entry(table: *const GradientDesc, count: u64, chunks: u64) {
                // SAFETY: the host's tables have this kernel's descriptors.
                unsafe { each::<$t, $u>(table, count, chunks, $f::<$t, $u>) }
            }
        };
    )*};
}

entries! {
    "scale_f64", scale, f64, f64;
    "scale_f32", scale, f32, f32;
    "scale_bf16", scale, bf16, bf16;
    "scale_f16", scale, f16, f16;
    "scale_by_f64", scale_by, f64, f64;
    "scale_by_f32", scale_by, f32, f32;
    "scale_by_bf16", scale_by, bf16, bf16;
    "scale_by_f16", scale_by, f16, f16;
    "clip_value_f64", clip_value, f64, f64;
    "clip_value_f32", clip_value, f32, f32;
    "clip_value_bf16", clip_value, bf16, bf16;
    "clip_value_f16", clip_value, f16, f16;
    "accumulate_f64", accumulate, f64, f64;
    "accumulate_f32", accumulate, f32, f32;
    "accumulate_bf16", accumulate, bf16, bf16;
    "accumulate_f16", accumulate, f16, f16;
    "unit_f64", unit, f64, f64;
    "unit_f32", unit, f32, f32;
    "unit_bf16", unit, bf16, bf16;
    "unit_f16", unit, f16, f16;
    "unit_bf16_f32", unit, bf16, f32;
    "unit_f16_f32", unit, f16, f32;
    "noise_f64", noise, f64, f64;
    "noise_f32", noise, f32, f32;
    "noise_bf16", noise, bf16, bf16;
    "noise_f16", noise, f16, f16;
}
