//! Exhaustive checks of unary functions, each against a slow implementation.
//!
//! `cargo run --release -p bitstep-exhaustive` runs all 2³² `f32` inputs of each; `cargo test` runs a sample
//! of every exponent, and all 16-bit inputs.

use bitstep::float::{ComputeFloat, RoundNarrow, StoredFloat};
use bitstep::storage::{
    BlockFp8, BlockQuant4, BlockQuant8, Codec, Companded, DynamicQuant8, KahanPair, SplitFloat,
    StochasticRound, Storage,
};
use half::{bf16, f16};

/// Checks a chunk of inputs in ascending order; `Err` describes the first wrong one.
pub type Check = fn(&[f32]) -> Result<(), String>;

/// Every check, by name. A check skips inputs that are not in its domain.
pub const CHECKS: &[(&str, Check)] = &[
    ("sqrt", sqrt),
    ("bf16", |x| narrow::<bf16>(x, 0x7f80)),
    ("f16", |x| narrow::<f16>(x, 0x7c00)),
    ("eager_bf16", eager::<bf16>),
    ("eager_f16", eager::<f16>),
    ("fp8", fp8),
    ("dynamic_signed", |x| dynamic(x, true)),
    ("dynamic_unsigned", |x| dynamic(x, false)),
    ("dynamic_grid_signed", |x| grid(x, true)),
    ("dynamic_grid_unsigned", |x| grid(x, false)),
    ("scaled8_signed", |x| scaled(BlockQuant8 { signed: true, block: BLOCK }, x, true)),
    ("scaled8_unsigned", |x| scaled(BlockQuant8 { signed: false, block: BLOCK }, x, false)),
    ("scaled4_signed", |x| scaled(BlockQuant4 { signed: true, block: BLOCK }, x, true)),
    ("scaled4_unsigned", |x| scaled(BlockQuant4 { signed: false, block: BLOCK }, x, false)),
    ("companded_momentum", |x| companded(Companded::Momentum, x)),
    ("companded_variance", |x| companded(Companded::Variance, x)),
    ("split_bf16_8", |x| split::<bf16, i8>(x, 127.0, 7, 127)),
    ("split_bf16_16", |x| split::<bf16, i16>(x, 32767.0, 7, 127)),
    ("split_f16_8", |x| split::<f16, i8>(x, 127.0, 10, 15)),
    ("split_f16_16", |x| split::<f16, i16>(x, 32767.0, 10, 15)),
    ("kahan_bf16", kahan),
    ("stochastic_bf16", stochastic),
];

/// Runs `check` on chunks of the inputs with ranks from `first` to `last`, where ranks are in ascending order of
/// values, and returns their number.
///
/// # Errors
/// The first wrong input.
pub fn over(first: u32, last: u32, step: u32, check: Check) -> Result<u64, String> {
    let mut stretch = Vec::with_capacity(STRETCH);
    let (mut bits, mut count) = (u64::from(first), 0);
    while bits <= last.into() {
        stretch.clear();
        while stretch.len() < STRETCH && bits <= last.into() {
            // Ascending: the bits of negative values run backwards.
            let rank = bits as u32;
            let x = if rank >= 1 << 31 { rank ^ 1 << 31 } else { !rank };
            stretch.push(f32::from_bits(x));
            bits += u64::from(step);
        }
        check(&stretch)?;
        count += stretch.len() as u64;
    }
    Ok(count)
}

const STRETCH: usize = 1 << 14;

fn wrong<T: core::fmt::Debug>(x: f32, got: T, want: T) -> Result<(), String> {
    Err(format!("{x:e} ({:#010x}): {got:?}, wanted {want:?}", x.to_bits()))
}

/// Rounding within `f32` and storing equals a conversion.
fn eager<N: RoundNarrow>(all: &[f32]) -> Result<(), String> {
    for &x in all {
        let (rounded, want) = (N::round(x), N::from_f32(x));
        let stored = N::from_exact(rounded);
        let alike = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        if !alike(rounded, want.to_f32()) || !alike(stored.to_f32(), rounded) {
            wrong(x, rounded, want.to_f32())?;
        }
    }
    Ok(())
}

/// The root is correctly rounded: √x is between the midpoints to its neighbours, whose squares are exact in `f64`.
fn sqrt(all: &[f32]) -> Result<(), String> {
    for &x in all {
        let root = ComputeFloat::sqrt(x);
        let right = if x.is_nan() || x < 0.0 {
            root.is_nan()
        } else if x == 0.0 || x == f32::INFINITY {
            root.to_bits() == x.to_bits()
        } else {
            let middle = |a: f32| (f64::from(a) + f64::from(root)) / 2.0;
            let (low, high) = (middle(root.next_down()), middle(root.next_up()));
            low * low < x.into() && f64::from(x) < high * high
        };
        if !right {
            return wrong(x, root, (f64::from(x)).sqrt() as f32);
        }
    }
    Ok(())
}

/// Compares the distances to the two adjacent values in `f64`, with ties to the even code.
fn narrow<N: StoredFloat + Bits>(all: &[f32], infinity: u16) -> Result<(), String> {
    let mut at = 0u16; // the code below the input, which ascends with the inputs
    for &x in all {
        let got = N::from_f32(x);
        if x.is_nan() {
            if !got.to_f64().is_nan() {
                return wrong(x, got, got);
            }
            continue;
        }
        let size = f64::from(x).abs();
        let value = |code: u16| N::of_bits(code).to_f64();
        while at < infinity && value(at + 1) <= size {
            at += 1;
        }
        while at > 0 && value(at) > size {
            at -= 1;
        }
        // Infinity begins half-way to the next value that an unbounded exponent would have.
        let next = match at + 1 {
            code if code == infinity => 2.0 * value(infinity - 1) - value(infinity - 2),
            code => value(code),
        };
        let (below, above) = (size - value(at), next - size);
        let up = above < below || above == below && at % 2 == 1;
        let want = if at == infinity { infinity } else { at + u16::from(up) };
        let want = want | if x.is_sign_negative() { 0x8000 } else { 0 };
        if got.bits_of() != want {
            return wrong(x, got.bits_of(), want);
        }
    }
    Ok(())
}

/// Conversion of a 16-bit float from and to its bits.
pub trait Bits {
    /// From bits.
    fn of_bits(bits: u16) -> Self;
    /// To bits.
    fn bits_of(self) -> u16;
}

impl Bits for bf16 {
    fn of_bits(bits: u16) -> Self {
        bf16::from_bits(bits)
    }
    fn bits_of(self) -> u16 {
        self.to_bits()
    }
}

impl Bits for f16 {
    fn of_bits(bits: u16) -> Self {
        f16::from_bits(bits)
    }
    fn bits_of(self) -> u16 {
        self.to_bits()
    }
}

const BLOCK: usize = 256;

/// Encodes inputs in blocks whose first element sets the scale.
fn encode<C: Codec>(
    codec: C,
    first: f32,
    inputs: &[f32],
    each: &mut impl FnMut(f32, u8) -> Result<(), String>,
) -> Result<(), String>
where
    C::Scale: StoredFloat,
{
    let size = codec.block();
    for part in inputs.chunks(size - 1) {
        let mut block = vec![first];
        block.extend(part);
        let mut codes = vec![0u8; if C::BITS == 4 { block.len().div_ceil(2) } else { block.len() }];
        codec.encode(&block, &mut codes);
        for (i, &x) in part.iter().enumerate() {
            let code = match C::BITS {
                4 => codes[i.div_ceil(2)] >> if i % 2 == 0 { 0 } else { 4 } & 15,
                _ => codes[i + 1],
            };
            each(x, code)?;
        }
    }
    Ok(())
}

/// The value of each code at scale 1.
fn map<C: Codec<Scale = f32>>(codec: C) -> Vec<f32> {
    let count = 1usize << C::BITS;
    (0..count)
        .map(|code| {
            let mut value = [0.0; 2];
            let code = if C::BITS == 4 { code << 4 } else { code } as u8;
            codec.decode(&[code], 1.0, &mut value[..1]);
            value[0]
        })
        .collect()
}

/// The inputs in [−1, 1], or in [0, 1] if unsigned.
fn within(all: &[f32], signed: bool) -> Vec<f32> {
    let low = if signed { -1.0 } else { 0.0 };
    all.iter().copied().filter(|x| (low..=1.0).contains(x)).collect()
}

/// The index of the last value of the map that is at most x, found by walking; 0 if none is.
fn walk(map: &[f32], at: &mut usize, x: f32) -> usize {
    while *at + 1 < map.len() && map[*at + 1] <= x {
        *at += 1;
    }
    while *at > 0 && map[*at] > x {
        *at -= 1;
    }
    *at
}

/// The nearest code; ties go to the lower one.
fn dynamic(all: &[f32], signed: bool) -> Result<(), String> {
    let codec = DynamicQuant8 { signed, cpu_grid: false };
    let (map, mut at) = (map(codec), 0);
    encode(codec, 1.0, &within(all, signed), &mut |x, code| {
        let low = walk(&map, &mut at, x);
        let high = (low + 1).min(255);
        let want = if map[high] - x < x - map[low] { high } else { low };
        if usize::from(code) == want { Ok(()) } else { wrong(x, usize::from(code), want) }
    })
}

/// The nearest code to the centre of the input's cell, of 65536.
fn grid(all: &[f32], signed: bool) -> Result<(), String> {
    let codec = DynamicQuant8 { signed, cpu_grid: true };
    let (map, mut at) = (map(codec), 0);
    encode(codec, 1.0, &within(all, signed), &mut |x, code| {
        let cell = ((x + 1.0) * 0.5 * 65535.0 + 0.5).floor();
        let centre = cell / 65535.0 * 2.0 - 1.0;
        let low = walk(&map, &mut at, centre);
        let high = (low + 1).min(255);
        let want = if map[high] - centre < centre - map[low] { high } else { low };
        if usize::from(code) == want { Ok(()) } else { wrong(x, usize::from(code), want) }
    })
}

/// The nearest code; ties go to the upper one.
fn scaled<C: Codec<Scale = f32>>(codec: C, all: &[f32], signed: bool) -> Result<(), String> {
    let (map, mut at) = (map(codec), 0);
    encode(codec, 1.0, &within(all, signed), &mut |x, code| {
        let low = walk(&map, &mut at, x);
        let high = (low + 1).min(map.len() - 1);
        let up = x - map[low] >= (map[high] - map[low]) * 0.5;
        let want = if up { high } else { low };
        if usize::from(code) == want { Ok(()) } else { wrong(x, usize::from(code), want) }
    })
}

/// The nearest value, ties to the even code, for inputs up to 448: that maximum gives the block the scale 1.
fn fp8(all: &[f32]) -> Result<(), String> {
    let codec = BlockFp8 { block: BLOCK };
    let (map, mut at) = (map(codec), 0);
    let inputs: Vec<f32> = all.iter().copied().filter(|x| x.abs() <= 448.0).collect();
    encode(codec, 448.0, &inputs, &mut |x, code| {
        let low = walk(&map[..0x7f], &mut at, x.abs());
        let high = (low + 1).min(0x7e);
        let size = f64::from(x.abs());
        let (below, above) = (size - f64::from(map[low]), f64::from(map[high]) - size);
        let up = above < below || above == below && low % 2 == 1;
        let sign = if x.is_sign_negative() { 0x80 } else { 0 };
        let want = (if up { high } else { low }) | sign;
        if usize::from(code) == want { Ok(()) } else { wrong(x, usize::from(code), want) }
    })
}

/// The formula in `f64`; within 5e-5 of a tie either code is right.
fn companded(codec: Companded, all: &[f32]) -> Result<(), String> {
    let signed = codec == Companded::Momentum;
    encode(codec, 1.0, &within(all, signed), &mut |x, code| {
        let x64 = f64::from(x);
        let (real, code) = match codec {
            Companded::Momentum => (127.0 * 2.0 * x64 / (1.0 + x64.abs()), f64::from(code as i8)),
            Companded::Variance => (255.0 * x64.sqrt(), f64::from(code)),
        };
        let off = (real - code).abs();
        if off <= 0.5 + 5e-5 { Ok(()) } else { wrong(x, code, real) }
    })
}

/// The decoded value is off by at most half a unit of the correction's last bit, plus rounding in `f32`.
fn split<N, E>(all: &[f32], steps: f64, mantissa: i32, bias: i32) -> Result<(), String>
where
    N: bitstep::storage::HalfPrecision + Bits,
    E: bitstep::storage::CorrectionInt,
{
    let mut narrow = vec![N::default(); all.len()];
    let mut error = vec![E::default(); all.len()];
    let mut back = vec![0.0; all.len()];
    let mut storage = SplitFloat::new(&mut narrow, &mut error).map_err(|e| e.to_string())?;
    storage.store(0, all);
    storage.load(0, &mut back);
    for ((&x, &n), &y) in all.iter().zip(&narrow).zip(&back) {
        if !n.to_f64().is_finite() {
            let same =
                n.to_f64().is_nan() == y.is_nan() && (y.is_nan() || f64::from(y) == n.to_f64());
            if !same {
                return wrong(x, y, n.to_f32());
            }
            continue;
        }
        let exponent = i32::from((n.bits_of() & 0x7fff) >> mantissa).max(1);
        let half_gap = 2f64.powi(exponent - bias - mantissa - 1);
        let rounding = f64::from(x.abs()) * 2f64.powi(-23) + 2f64.powi(-148);
        let off = (f64::from(y) - f64::from(x)).abs();
        if off > half_gap * 0.5 / steps + rounding {
            return wrong(x, y, x);
        }
    }
    Ok(())
}

/// The two parts hold 16 bits of mantissa: the relative error is at most 2⁻¹⁶.
fn kahan(all: &[f32]) -> Result<(), String> {
    let mut value = vec![bf16::ZERO; all.len()];
    let mut lost = vec![bf16::ZERO; all.len()];
    let mut back = vec![0.0; all.len()];
    let mut storage = KahanPair::new(&mut value, &mut lost).map_err(|e| e.to_string())?;
    storage.store(0, all);
    storage.load(0, &mut back);
    for ((&x, n), &y) in all.iter().zip(&value).zip(&back) {
        let off = (f64::from(y) - f64::from(x)).abs();
        let right = match n.to_f32() {
            n if !n.is_finite() => n.is_nan() == y.is_nan() && (y == n || y.is_nan()),
            _ => off <= f64::from(x.abs()) * 2f64.powi(-16) + 2f64.powi(-134),
        };
        if !right {
            return wrong(x, y, x);
        }
    }
    Ok(())
}

/// The rounding bits 0 round away from zero, unless the input is exact; all ones truncate.
fn stochastic(all: &[f32]) -> Result<(), String> {
    for &x in all.iter().filter(|x| x.is_finite()) {
        let bits = x.to_bits();
        let (down, up) = (
            <bf16 as StochasticRound>::round(x, u16::MAX).to_bits(),
            <bf16 as StochasticRound>::round(x, 0).to_bits(),
        );
        let cut = (bits >> 16) as u16;
        let want = (cut, cut + u16::from(bits & 0xffff != 0));
        if (down, up) != want {
            return wrong(x, (down, up), want);
        }
    }
    Ok(())
}
