//! Conversion from a storage to unquantized elements and back. A rule whose tensors have no kernels that
//! read them directly runs between the two, as in the core.

use core::slice;

use bitstep::float::EagerFloat;
use bitstep::float::{ComputeFloat, StoredFloat};
use bitstep::storage::{
    BlockFp8, BlockQuant4, BlockQuant8, BlockQuantized, Codec, Companded, CorrectionInt,
    DynamicQuant8, HalfPrecision, KahanPair, RoundingBits, SplitFloat, StochasticRound,
    StochasticRounded, Storage,
};
use half::{bf16, f16};

use crate::grid::{for_each_chunk_per_block, part};
use crate::rules::{factor, load, scaled_grad, store};
use crate::table::CodecDesc;

/// Runs `f` on every item of a table.
///
/// # Safety
/// The table has `count` valid descriptors.
#[inline(always)]
unsafe fn each(table: *const CodecDesc, count: u64, chunks: u64, f: impl Fn(&CodecDesc, usize)) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |desc: &CodecDesc, chunk, at, step| {
            let (start, end) = part(desc.items, chunk);
            let mut i = start + at;
            while i < end {
                f(desc, i as usize);
                i += step;
            }
        });
    }
}

/// The conversion of an item of a storage.
trait Converted {
    /// # Safety
    /// The descriptor is valid, and no other thread accesses this item.
    unsafe fn load(desc: &CodecDesc, i: usize);
    /// # Safety
    /// As [`Converted::load`].
    unsafe fn store(desc: &CodecDesc, i: usize);
}

/// Elements of type T, converted to N.
struct Plain<T, N>(T, N);

/// `with[0]` is the address of a scale for gradients, or 0.
impl<T: EagerFloat, N: EagerFloat> Converted for Plain<T, N> {
    #[inline(always)]
    unsafe fn load(desc: &CodecDesc, i: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let x = scaled_grad(*(desc.main as *const T).add(i), factor::<T>(desc.with[0]));
            store(desc.plain, i, N::Compute::load(x));
        }
    }
    #[inline(always)]
    unsafe fn store(desc: &CodecDesc, i: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { *(desc.main as *mut T).add(i) = load::<N::Compute>(desc.plain, i).store() }
    }
}

/// One element of an array, as a slice.
///
/// # Safety
/// It exists, and no other thread accesses it.
#[inline(always)]
unsafe fn one<'a, T>(array: u64, i: usize) -> &'a mut [T] {
    // SAFETY: guaranteed by the caller.
    unsafe { slice::from_raw_parts_mut((array as *mut T).add(i), 1) }
}

/// A storage whose elements are converted one at a time.
trait OpenStorage {
    /// # Safety
    /// As [`Converted::load`].
    unsafe fn open(desc: &CodecDesc, i: usize, f: impl FnOnce(&mut dyn Storage));
}

struct Splits<N, E>(N, E);
impl<N: HalfPrecision, E: CorrectionInt> OpenStorage for Splits<N, E> {
    #[inline(always)]
    unsafe fn open(desc: &CodecDesc, i: usize, f: impl FnOnce(&mut dyn Storage)) {
        // SAFETY: guaranteed by the caller.
        let (narrow, error) = unsafe { (one::<N>(desc.main, i), one::<E>(desc.side, i)) };
        if let Ok(mut split) = SplitFloat::new(narrow, error) {
            f(&mut split);
        }
    }
}

struct Kahans<N>(N);
impl<N: StoredFloat> OpenStorage for Kahans<N> {
    #[inline(always)]
    unsafe fn open(desc: &CodecDesc, i: usize, f: impl FnOnce(&mut dyn Storage)) {
        // SAFETY: guaranteed by the caller.
        let (value, compensation) = unsafe { (one::<N>(desc.main, i), one::<N>(desc.side, i)) };
        if let Ok(mut kahan) = KahanPair::new(value, compensation) {
            f(&mut kahan);
        }
    }
}

struct Dithers<N>(N);
impl<N: StochasticRound> OpenStorage for Dithers<N> {
    #[inline(always)]
    unsafe fn open(desc: &CodecDesc, i: usize, f: impl FnOnce(&mut dyn Storage)) {
        // SAFETY: guaranteed by the caller.
        let values = unsafe { one::<N>(desc.main, i) };
        let noise = if desc.side == 0 {
            let [seed, step] = desc.with;
            RoundingBits::Counter { seed, step, first: i as u64 }
        } else {
            // SAFETY: guaranteed by the caller.
            RoundingBits::Provided(unsafe { one::<u16>(desc.side, i) })
        };
        f(&mut StochasticRounded::new(values, noise));
    }
}

struct PerElement<S>(S);
impl<S: OpenStorage> Converted for PerElement<S> {
    #[inline(always)]
    unsafe fn load(desc: &CodecDesc, i: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { S::open(desc, i, |s| s.load(0, one(desc.plain, i))) }
    }
    #[inline(always)]
    unsafe fn store(desc: &CodecDesc, i: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { S::open(desc, i, |s| s.store(0, one(desc.plain, i))) }
    }
}

/// A codec from the host's parameters: whether it is signed, and its block size. For [`DynamicQuant8`] the
/// first has bit 0 for signed, bit 1 for the CPU's grid.
pub(crate) trait CodecSource: Codec {
    fn new(with: [u64; 2]) -> Self;
}

impl CodecSource for Companded {
    #[inline(always)]
    fn new([signed, _]: [u64; 2]) -> Self {
        if signed == 1 { Companded::Momentum } else { Companded::Variance }
    }
}
impl CodecSource for DynamicQuant8 {
    #[inline(always)]
    fn new([bits, _]: [u64; 2]) -> Self {
        DynamicQuant8 { signed: bits & 1 == 1, cpu_grid: bits >> 1 == 1 }
    }
}
impl CodecSource for BlockQuant8 {
    #[inline(always)]
    fn new([signed, block]: [u64; 2]) -> Self {
        BlockQuant8 { signed: signed == 1, block: block as usize }
    }
}
impl CodecSource for BlockQuant4 {
    #[inline(always)]
    fn new([signed, block]: [u64; 2]) -> Self {
        BlockQuant4 { signed: signed == 1, block: block as usize }
    }
}
impl CodecSource for BlockFp8 {
    #[inline(always)]
    fn new([_, block]: [u64; 2]) -> Self {
        BlockFp8 { block: block as usize }
    }
}

/// A storage whose blocks share a scale, one block per thread.
struct PerBlock<D>(D);

impl<D: CodecSource> PerBlock<D> {
    /// # Safety
    /// As [`Converted::load`].
    #[inline(always)]
    unsafe fn open(desc: &CodecDesc, i: usize, f: impl FnOnce(&mut dyn Storage, &mut [f32])) {
        let codec = D::new(desc.with);
        let (start, len) = (i * codec.block(), desc.len as usize);
        let n = if len - start < codec.block() { len - start } else { codec.block() };
        let bytes = |x: usize| if D::BITS == 4 { x.div_ceil(2) } else { x };
        // SAFETY: guaranteed by the caller.
        unsafe {
            let codes = (desc.main as *mut u8).add(bytes(start));
            let codes = slice::from_raw_parts_mut(codes, bytes(n));
            let plain = slice::from_raw_parts_mut((desc.plain as *mut f32).add(start), n);
            if let Ok(mut blocks) = BlockQuantized::new(codec, n, codes, one(desc.side, i)) {
                f(&mut blocks, plain);
            }
        }
    }
}

impl<D: CodecSource> Converted for PerBlock<D> {
    #[inline(always)]
    unsafe fn load(desc: &CodecDesc, i: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { Self::open(desc, i, |s, plain| s.load(0, plain)) }
    }
    #[inline(always)]
    unsafe fn store(desc: &CodecDesc, i: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { Self::open(desc, i, |s, plain| s.store(0, plain)) }
    }
}

macro_rules! entries {
    ($($name:literal => $moved:ty;)*) => {$(
        const _: () = {
            #[unsafe(export_name = concat!("load_", $name))]
            unsafe extern "ptx-kernel" fn load(table: *const CodecDesc, count: u64, chunks: u64) {
                // SAFETY: the host's tables have this kernel's descriptors.
                unsafe { each(table, count, chunks, |desc, i| <$moved>::load(desc, i)) }
            }
            #[unsafe(export_name = concat!("store_", $name))]
            unsafe extern "ptx-kernel" fn store(table: *const CodecDesc, count: u64, chunks: u64) {
                // SAFETY: the host's tables have this kernel's descriptors.
                unsafe { each(table, count, chunks, |desc, i| <$moved>::store(desc, i)) }
            }
        };
    )*};
}

entries! {
    "f32_f32" => Plain<f32, f32>;
    "f64_f64" => Plain<f64, f64>;
    "bf16_bf16" => Plain<bf16, bf16>;
    "f16_f16" => Plain<f16, f16>;
    "f64_f32" => Plain<f64, f32>;
    "bf16_f32" => Plain<bf16, f32>;
    "f16_f32" => Plain<f16, f32>;
    "f32_f64" => Plain<f32, f64>;
    "bf16_f64" => Plain<bf16, f64>;
    "f16_f64" => Plain<f16, f64>;
    "f64_bf16" => Plain<f64, bf16>;
    "f32_bf16" => Plain<f32, bf16>;
    "f16_bf16" => Plain<f16, bf16>;
    "f64_f16" => Plain<f64, f16>;
    "f32_f16" => Plain<f32, f16>;
    "bf16_f16" => Plain<bf16, f16>;
    "split_bf16_8" => PerElement<Splits<bf16, i8>>;
    "split_bf16_16" => PerElement<Splits<bf16, i16>>;
    "split_f16_8" => PerElement<Splits<f16, i8>>;
    "split_f16_16" => PerElement<Splits<f16, i16>>;
    "kahan_bf16" => PerElement<Kahans<bf16>>;
    "kahan_f16" => PerElement<Kahans<f16>>;
    "dithered_bf16" => PerElement<Dithers<bf16>>;
    "dithered_f16" => PerElement<Dithers<f16>>;
    "companded" => PerBlock<Companded>;
    "dynamic" => PerBlock<DynamicQuant8>;
    "scaled8" => PerBlock<BlockQuant8>;
    "scaled4" => PerBlock<BlockQuant4>;
    "fp8" => PerBlock<BlockFp8>;
}
