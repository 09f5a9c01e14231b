//! Long free runs of every optimizer, each with a hash of the final parameters and state.

use alloc::vec::Vec;

use bitstep::float::{Dtype, StoredFloat};
use bitstep::hyper::Args;
use bitstep::optimizer::{Buffer, Optimizer, Param};
use bitstep::registry;
use bitstep::registry::OPTIMIZERS;
use half::{bf16, f16};

/// Steps of a run.
const STEPS: u32 = 1000;
const SHAPE: [usize; 2] = [6, 10];

/// FNV-1a.
struct Hash(u64);

impl Hash {
    fn bytes(&mut self, bytes: impl IntoIterator<Item = u8>) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Any NaN equals any NaN.
    fn number(&mut self, x: f64) {
        self.bytes(if x.is_nan() { f64::NAN } else { x }.to_bits().to_le_bytes());
    }

    fn buffer(&mut self, buffer: &Buffer) {
        match buffer {
            Buffer::F64(x) => x.iter().for_each(|&x| self.number(x)),
            Buffer::F32(x) => x.iter().for_each(|&x| self.number(x.into())),
            Buffer::Bf16(x) => x.iter().for_each(|&x| self.number(StoredFloat::to_f64(x))),
            Buffer::F16(x) => x.iter().for_each(|&x| self.number(StoredFloat::to_f64(x))),
            Buffer::Encoded(x) => x.parts("").into_iter().for_each(|p| self.bytes(p.bytes)),
        }
    }
}

/// Values from −2 to 2, exact in every type.
struct Draw(u32);

impl Draw {
    fn buffer(&mut self, dtype: Dtype, n: usize) -> Buffer {
        let mut next = || {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(self.0 >> 25) / 32.0 - 2.0
        };
        match dtype {
            Dtype::F64 => Buffer::F64((0..n).map(|_| next()).collect()),
            Dtype::F32 => Buffer::F32((0..n).map(|_| next() as f32).collect()),
            Dtype::Bf16 => {
                Buffer::Bf16((0..n).map(|_| <bf16 as StoredFloat>::from_f64(next())).collect())
            }
            Dtype::F16 => {
                Buffer::F16((0..n).map(|_| <f16 as StoredFloat>::from_f64(next())).collect())
            }
        }
    }
}

fn run(name: &str, dtype: Dtype) -> Option<u64> {
    let spec = registry::optimizer(name, &Args::new()).ok()?;
    // With a projection where that is possible.
    let ranked = Args::new().with("rank", 2i64).with("update_proj_gap", 100i64);
    let spec = spec.with_args(&ranked).unwrap_or(spec);
    // With state of 8 or 4 bits, although the matrix is small.
    let any_size = Args::new().with("min_8bit_size", 0i64);
    let mut spec = spec.with_args(&any_size).unwrap_or(spec);
    (spec.storage.min_len, spec.storage.len_multiple) = (0, 0);
    let mut optimizer = Optimizer::empty();
    let group = optimizer.add_group(spec).ok()?;
    optimizer.add_param_to(group, &SHAPE, dtype).ok()?;
    let (mut draw, n) = (Draw(1), SHAPE.iter().product());
    let mut value = draw.buffer(dtype, n);
    for t in 0..STEPS {
        let grad = draw.buffer(dtype, n);
        let lr = f64::from(1 + t % 7) / 512.0;
        optimizer.groups_mut().iter_mut().for_each(|g| g.lr = lr);
        let param = Param { value: value.data_mut(), grad: grad.data() };
        optimizer.step_all(&mut [param], &[("train_loss", 1.5), ("eval_loss", 2.0)]).ok()?;
    }
    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    hash.buffer(&value);
    let (group, param) = (optimizer.groups().first()?, optimizer.params().first()?);
    group.scalars.iter().chain(&param.scalars).for_each(|&x| hash.number(x));
    param.slots.iter().for_each(|slot| hash.buffer(slot));
    param.correction.iter().for_each(|raw| hash.bytes(raw.bytes()));
    Some(hash.0)
}

/// Reports the hash of each optimizer in each type; false if one was refused.
pub fn all(mut report: impl FnMut(&str, [u64; 4])) -> bool {
    OPTIMIZERS.iter().all(|entry| {
        let types = [Dtype::F64, Dtype::F32, Dtype::Bf16, Dtype::F16];
        let hashes: Vec<u64> = types.into_iter().filter_map(|d| run(entry.name, d)).collect();
        let hashes: Option<[u64; 4]> = hashes.try_into().ok();
        hashes.map(|h| report(entry.name, h)).is_some()
    })
}
