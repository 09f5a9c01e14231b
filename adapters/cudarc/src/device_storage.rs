//! The storage of a tensor in device memory, and its conversion to the compute type and back.

use bitstep::float::Dtype;
use bitstep::storage::{Codec, Companded, StorageFormat};

use crate::Error;
use crate::plan::{LaunchPlan, name, phase, wide};
use crate::table::{CodecDesc, MAX_SLOTS, Place, UNIT, kind};

/// How a tensor is stored in device memory, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DeviceStorage {
    /// In a format: the addresses of its elements or codes, and of its scales or corrections (0 for a
    /// plain format).
    At(StorageFormat, u64, u64),
    /// As 16-bit elements that are rounded stochastically.
    Dithered {
        /// Their type.
        dtype: Dtype,
        /// Their address.
        at: u64,
        /// The address of 16 random bits for each element; 0 to derive them from seed and step.
        bits: u64,
        /// The seed and the step number.
        counter: [u64; 2],
    },
}

impl DeviceStorage {
    /// An unquantized tensor.
    #[must_use]
    pub fn plain(dtype: Dtype, at: u64) -> DeviceStorage {
        DeviceStorage::At(StorageFormat::Plain(dtype), at, 0)
    }

    pub(crate) fn dtype(&self) -> Option<Dtype> {
        match self {
            DeviceStorage::At(StorageFormat::Plain(dtype), ..) => Some(*dtype),
            _ => None,
        }
    }

    pub(crate) fn address(&self) -> u64 {
        match *self {
            DeviceStorage::At(_, at, _) | DeviceStorage::Dithered { at, .. } => at,
        }
    }
}

/// Launches that convert tensors: phase, kernel, items and descriptor.
pub(crate) type Conversions = Vec<(u32, String, u64, CodecDesc)>;

impl LaunchPlan {
    /// Copies a parameter to a slot, through `f64` if it is of that type, otherwise through `f32`.
    pub(crate) fn copy<E>(
        &mut self,
        from: &DeviceStorage,
        to: &DeviceStorage,
        len: u64,
    ) -> Result<(), Error<E>> {
        let via = wide(from.dtype().unwrap_or(Dtype::F32));
        let plain = self.alloc_scratch(len, via);
        for (phase, verb, storage) in
            [(phase::FROM_PARAM, "load", from), (phase::TO_SLOT, "store", to)]
        {
            let Some((kernel, items, desc)) = codec(storage, via, len) else {
                return Err(Error::NoKernel(format!("{storage:?} to start from")));
            };
            self.launch_per_block(
                phase,
                format!("{verb}_{kernel}"),
                items,
                CodecDesc { plain, ..desc },
            );
        }
        Ok(())
    }

    /// The address of a tensor in the compute type. Adds the conversions unless it has that type; `written`
    /// adds the ones back too.
    pub(crate) fn open<E>(
        &mut self,
        conversions: &mut Conversions,
        compute: Dtype,
        storage: &DeviceStorage,
        len: u64,
        written: bool,
    ) -> Result<u64, Error<E>> {
        if storage.dtype() == Some(compute) {
            return Ok(storage.address());
        }
        let Some((kernel, items, desc)) = codec(storage, compute, len) else {
            return Err(Error::NoKernel(format!("{storage:?}")));
        };
        let mut go = |inner: bool, kernel: &str, items, desc| {
            let (load, store) =
                if inner { (phase::WIDEN, phase::NARROW) } else { (phase::LOAD, phase::STORE) };
            conversions.push((load, format!("load_{kernel}"), items, desc));
            if written {
                conversions.push((store, format!("store_{kernel}"), items, desc));
            }
        };
        let plain = match storage.dtype() {
            Some(_) => {
                let plain = self.alloc_scratch(len, compute);
                go(false, &kernel, items, CodecDesc { plain, ..desc });
                return Ok(plain);
            }
            None => self.alloc_scratch(len, Dtype::F32),
        };
        go(false, &kernel, items, CodecDesc { plain, ..desc });
        if compute == Dtype::F32 {
            return Ok(plain);
        }
        let to = self.alloc_scratch(len, compute);
        let kernel = format!("f32_{}", name(compute));
        go(
            true,
            &kernel,
            len,
            CodecDesc { items: len, len, main: plain, plain: to, ..CodecDesc::default() },
        );
        Ok(to)
    }

    /// Adds the launches of conversions.
    pub(crate) fn add_conversions(&mut self, conversions: Conversions) {
        for (phase, kernel, items, desc) in conversions {
            self.launch_per_block(phase, kernel, items, desc);
        }
    }
}

/// The suffix of the kernels that read tensors of these types directly, if they exist.
pub(crate) fn direct(
    compute: Dtype,
    param: &DeviceStorage,
    grad: Dtype,
    slots: &[Option<DeviceStorage>],
) -> Option<&'static str> {
    use Dtype::{Bf16, F16, F32};
    let fits = |p: Dtype, g: Dtype, s: Dtype| {
        param.dtype() == Some(p)
            && grad == g
            && slots.iter().flatten().all(|slot| slot.dtype() == Some(s))
    };
    if slots.len() > MAX_SLOTS {
        return None;
    }
    if fits(compute, compute, compute) {
        return Some(name(compute));
    }
    let mixed = [
        (Bf16, Bf16, Bf16, "f32_bf16"),
        (Bf16, Bf16, F32, "f32_bf16_f32"),
        (F16, F16, F16, "f32_f16"),
    ];
    let found = mixed.into_iter().find(|&(p, g, s, _)| compute == F32 && fits(p, g, s));
    found.map(|(.., suffix)| suffix)
}

/// The tensor as a kernel for encoded tensors reads it; `None` if it can't: `f64`, or blocks of another size.
pub(crate) fn place(storage: &DeviceStorage) -> Option<Place> {
    use Dtype::{Bf16, F16, F32};
    let halves = |dtype: Dtype, of_bf16: u64, of_f16: u64| match dtype {
        Bf16 => Some(of_bf16),
        F16 => Some(of_f16),
        _ => None,
    };
    let base = Place { main: storage.address(), main_bits: 16, ..Place::default() };
    let (format, side) = match *storage {
        DeviceStorage::Dithered { dtype, bits, counter, .. } => {
            let kind = halves(dtype, kind::DITHERED_BF16, kind::DITHERED_F16)?;
            return Some(Place { kind, side: bits, with: counter, ..base });
        }
        DeviceStorage::At(format, _, side) => (format, side),
    };
    let base = Place { side, ..base };
    match format {
        StorageFormat::Plain(F32) => Some(Place { kind: kind::F32, main_bits: 32, ..base }),
        StorageFormat::Plain(dtype) => {
            Some(Place { kind: halves(dtype, kind::BF16, kind::F16)?, ..base })
        }
        StorageFormat::SplitFloat(dtype, side_bits) => {
            let kind = match side_bits {
                8 => halves(dtype, kind::SPLIT_BF16_8, kind::SPLIT_F16_8)?,
                16 => halves(dtype, kind::SPLIT_BF16_16, kind::SPLIT_F16_16)?,
                _ => return None,
            };
            Some(Place { kind, side_bits: side_bits.into(), ..base })
        }
        StorageFormat::KahanPair(dtype) => {
            let kind = halves(dtype, kind::KAHAN_BF16, kind::KAHAN_F16)?;
            Some(Place { kind, side_bits: 16, ..base })
        }
        StorageFormat::Companded(c) => coded(kind::COMPANDED, c, base),
        StorageFormat::DynamicQuant8(c) => coded(kind::DYNAMIC, c, base),
        StorageFormat::BlockQuant8(c) => coded(kind::SCALED8, c, base),
        StorageFormat::BlockQuant4(c) => coded(kind::SCALED4, c, base),
        StorageFormat::BlockFp8(c) => coded(kind::FP8, c, base),
        _ => None,
    }
    .and_then(|place| {
        let (_, _, desc) = codec(storage, F32, 0)?;
        Some(Place { with: desc.with, ..place })
    })
}

fn coded<C: Codec>(kind: u64, codec: C, base: Place) -> Option<Place> {
    let block = codec.block() as u64;
    let fits = block.is_power_of_two() && (32..=UNIT).contains(&block);
    fits.then_some(Place { kind, block, main_bits: C::BITS as u64, ..base })
}

/// The kernels that convert a storage to unquantized elements and back, its number of items, and its
/// descriptor. The elements are of type `plain` if the storage is unquantized itself, otherwise `f32`.
fn codec(storage: &DeviceStorage, plain: Dtype, len: u64) -> Option<(String, u64, CodecDesc)> {
    let base = CodecDesc { items: len, len, ..CodecDesc::default() };
    let (format, main, side) = match *storage {
        DeviceStorage::Dithered { dtype, at, bits, counter } => {
            let kernel = format!("dithered_{}", name(dtype));
            return Some((kernel, len, CodecDesc { main: at, side: bits, with: counter, ..base }));
        }
        DeviceStorage::At(format, main, side) => (format, main, side),
    };
    let base = CodecDesc { main, side, ..base };
    let blocks = |kernel: &str, block: usize, with: [u64; 2]| {
        let items = len.div_ceil(block.max(1) as u64);
        Some((kernel.to_owned(), items, CodecDesc { items, with, ..base }))
    };
    match format {
        StorageFormat::Plain(dtype) => {
            Some((format!("{}_{}", name(dtype), name(plain)), len, base))
        }
        // A correction that does not exist.
        StorageFormat::SplitFloat(..) | StorageFormat::KahanPair(_)
            if format.layout(0).is_none() =>
        {
            None
        }
        StorageFormat::SplitFloat(dtype, bits) => {
            Some((format!("split_{}_{bits}", name(dtype)), len, base))
        }
        StorageFormat::KahanPair(dtype) => Some((format!("kahan_{}", name(dtype)), len, base)),
        StorageFormat::Companded(c) => {
            blocks("companded", c.block(), [u64::from(c == Companded::Momentum), 0])
        }
        StorageFormat::DynamicQuant8(c) => {
            blocks("dynamic", c.block(), [u64::from(c.signed) | u64::from(c.cpu_grid) << 1, 0])
        }
        StorageFormat::BlockQuant8(c) => {
            blocks("scaled8", c.block, [c.signed.into(), c.block as u64])
        }
        StorageFormat::BlockQuant4(c) => {
            blocks("scaled4", c.block, [c.signed.into(), c.block as u64])
        }
        StorageFormat::BlockFp8(c) => blocks("fp8", c.block, [0, c.block as u64]),
        _ => None,
    }
}
