//! Where a tensor is and how it rests there; its way to plain numbers and back.

use bitstep::float::Dtype;
use bitstep::storage::{Codec, Companded, StorageFormat};

use crate::Error;
use crate::plan::{LaunchPlan, name, phase, wide};
use crate::table::{CodecDesc, MAX_SLOTS};

/// How numbers rest in the device's memory, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DeviceStorage {
    /// In a format: its numbers or codes, and what stands beside them (0 for plain numbers).
    At(StorageFormat, u64, u64),
    /// As 16-bit numbers that are rounded at random.
    Dithered {
        /// Their type.
        dtype: Dtype,
        /// Where they are.
        at: u64,
        /// 16 random bits for each; 0 to count them from seed and step.
        bits: u64,
        /// The seed, and the number of the step.
        counter: [u64; 2],
    },
}

impl DeviceStorage {
    /// Plain numbers.
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

/// Launches that move tensors: phase, kernel, items and line.
pub(crate) type Moves = Vec<(u32, String, u64, CodecDesc)>;

impl LaunchPlan {
    /// Copies a parameter into a slot, by way of `f64` if it is of that type, else of `f32`.
    pub(crate) fn copy<E>(
        &mut self,
        from: &DeviceStorage,
        to: &DeviceStorage,
        len: u64,
    ) -> Result<(), Error<E>> {
        let by = wide(from.dtype().unwrap_or(Dtype::F32));
        let plain = self.alloc_scratch(len, by);
        for (phase, verb, place) in
            [(phase::FROM_PARAM, "load", from), (phase::TO_SLOT, "store", to)]
        {
            let Some((kernel, items, line)) = storage(place, by, len) else {
                return Err(Error::NoKernel(format!("{place:?} to start from")));
            };
            self.launch_per_block(
                phase,
                format!("{verb}_{kernel}"),
                items,
                CodecDesc { plain, ..line },
            );
        }
        Ok(())
    }

    /// Makes sure that a tensor is there in the type to compute in; returns where.
    pub(crate) fn open<E>(
        &mut self,
        moves: &mut Moves,
        compute: Dtype,
        place: &DeviceStorage,
        len: u64,
        written: bool,
    ) -> Result<u64, Error<E>> {
        if place.dtype() == Some(compute) {
            return Ok(place.address());
        }
        let Some((kernel, items, line)) = storage(place, compute, len) else {
            return Err(Error::NoKernel(format!("{place:?}")));
        };
        let mut go = |inner: bool, kernel: &str, items, line| {
            let (load, store) =
                if inner { (phase::WIDEN, phase::NARROW) } else { (phase::LOAD, phase::STORE) };
            moves.push((load, format!("load_{kernel}"), items, line));
            if written {
                moves.push((store, format!("store_{kernel}"), items, line));
            }
        };
        let plain = match place.dtype() {
            Some(_) => {
                let plain = self.alloc_scratch(len, compute);
                go(false, &kernel, items, CodecDesc { plain, ..line });
                return Ok(plain);
            }
            None => self.alloc_scratch(len, Dtype::F32),
        };
        go(false, &kernel, items, CodecDesc { plain, ..line });
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

    /// Adds the launches that move tensors.
    pub(crate) fn moved(&mut self, moves: Moves) {
        for (phase, kernel, items, line) in moves {
            self.launch_per_block(phase, kernel, items, line);
        }
    }
}

/// The kernels' suffix for tensors of these types, if there are such kernels.
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

/// The kernels between a storage and plain numbers (of `plain` type if it is plain itself, else
/// `f32`), its number of items, and its line.
fn storage(place: &DeviceStorage, plain: Dtype, len: u64) -> Option<(String, u64, CodecDesc)> {
    let base = CodecDesc { items: len, len, ..CodecDesc::default() };
    let (format, main, side) = match *place {
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
