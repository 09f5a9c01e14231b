//! Decodes trials from plain bytes.

use arbitrary::{Result, Unstructured};
use bitstep::float::{Dtype, StoredFloat};
use bitstep::hyper::{Args, Value, names};
use bitstep::optimizer::{OptimizerSpec, ParamStorage, StorageConfig};
use bitstep::registry;
use bitstep::registry::OPTIMIZERS;
use bitstep::storage::{
    BlockFp8, BlockQuant4, BlockQuant8, Companded, DynamicQuant8, StorageFormat,
};
use half::{bf16, f16};

use crate::run::{EXTRA_ARGS, Run, Trial};

/// Every kind of storage, in each of its variants.
pub const FORMATS: [StorageFormat; 14] = [
    StorageFormat::Plain(Dtype::F32),
    StorageFormat::Companded(Companded::Momentum),
    StorageFormat::Companded(Companded::Variance),
    StorageFormat::DynamicQuant8(DynamicQuant8 { signed: true, cpu_grid: false }),
    StorageFormat::DynamicQuant8(DynamicQuant8 { signed: false, cpu_grid: true }),
    StorageFormat::BlockQuant8(BlockQuant8 { signed: true, block: 64 }),
    StorageFormat::BlockQuant8(BlockQuant8 { signed: false, block: 100 }),
    StorageFormat::BlockQuant4(BlockQuant4 { signed: true, block: 128 }),
    StorageFormat::BlockQuant4(BlockQuant4 { signed: false, block: 128 }),
    StorageFormat::BlockFp8(BlockFp8 { block: 512 }),
    StorageFormat::SplitFloat(Dtype::Bf16, 8),
    StorageFormat::SplitFloat(Dtype::F16, 16),
    StorageFormat::KahanPair(Dtype::Bf16),
    StorageFormat::KahanPair(Dtype::F16),
];

/// Every kind of storage for a parameter.
pub const WEIGHTS: [ParamStorage; 5] = [
    ParamStorage::Plain,
    ParamStorage::Split(8),
    ParamStorage::Split(16),
    ParamStorage::Kahan,
    ParamStorage::Stochastic(7),
];

/// Values at which arithmetic changes.
const SPECIAL: [f64; 24] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.0,
    1e-3,
    1e-8,
    1e-30,
    1e30,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    f64::MAX,
    f64::MIN_POSITIVE,
    5e-324,
    1.3e154, // its square is just below the largest f64
    1.9e19,  // the square root of the largest f32
    1e-23,   // its square underflows to 0 in f32
    3.4e38,  // the largest f32
    1.2e-38, // the smallest normal f32
    65504.0, // the largest f16
    6e-8,    // the smallest f16 (subnormal)
    9007199254740992.0,
];

/// Any value: special ones, small round ones, and any bits.
pub(crate) fn number(u: &mut Unstructured<'_>) -> Result<f64> {
    Ok(match u.arbitrary::<u8>()? % 8 {
        0..=2 => f64::from(u.arbitrary::<i16>()?) / 8192.0,
        3 | 4 => SPECIAL[usize::from(u.arbitrary::<u8>()?) % SPECIAL.len()],
        5 => f64::from(u.arbitrary::<i8>()?),
        _ => f64::from_bits(u.arbitrary()?),
    })
}

/// The bits of any value of a type.
fn element(u: &mut Unstructured<'_>, dtype: Dtype) -> Result<u64> {
    if u.ratio(1u8, 8u8)? {
        return u.arbitrary();
    }
    Ok(encode(number(u)?, dtype))
}

/// The bits of a value rounded to a type.
pub(crate) fn encode(x: f64, dtype: Dtype) -> u64 {
    match dtype {
        Dtype::F64 => x.to_bits(),
        Dtype::F32 => (x as f32).to_bits().into(),
        Dtype::Bf16 => <bf16 as StoredFloat>::from_f64(x).to_bits().into(),
        Dtype::F16 => <f16 as StoredFloat>::from_f64(x).to_bits().into(),
    }
}

/// n values: a few, repeated, or ordinary ones with a few special ones among them.
fn elements(u: &mut Unstructured<'_>, dtype: Dtype, n: usize) -> Result<Vec<u64>> {
    if n <= 8 || u.arbitrary()? {
        let few = (0..n.min(8)).map(|_| element(u, dtype)).collect::<Result<Vec<_>>>()?;
        return Ok(few.into_iter().cycle().take(n).collect());
    }
    let mut seed = u64::from(u.arbitrary::<u32>()?);
    let mut all: Vec<u64> = (0..n)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            encode((seed >> 40) as f64 / 2_097_152.0 - 4.0, dtype)
        })
        .collect();
    for _ in 0..u.int_in_range(0..=3)? {
        all[u.int_in_range(0..=n - 1)?] = element(u, dtype)?;
    }
    Ok(all)
}

fn shape(u: &mut Unstructured<'_>) -> Result<Vec<usize>> {
    Ok(match u.arbitrary::<u8>()? {
        0..=2 => vec![1, 1030],
        3..=5 => vec![270],
        6 | 7 => vec![2100],
        8 => vec![40, 60],
        _ => (0..u.int_in_range(0..=3)?).map(|_| u.int_in_range(0..=6)).collect::<Result<_>>()?,
    })
}

/// A value for an argument: a number, a pair, a bool, none.
pub(crate) fn value(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.arbitrary::<u8>()? % 8 {
        0..=2 => Value::Float(number(u)?),
        3 => Value::Bool(u.arbitrary()?),
        4 => Value::Int(i64::from(u.arbitrary::<u8>()?)),
        5 => Value::List(vec![Value::Float(number(u)?), Value::Float(number(u)?)]),
        6 => Value::Int(u.arbitrary()?),
        _ => Value::None,
    })
}

/// The spec with some arguments changed at random, where it accepts them; whether any was.
fn tuned(u: &mut Unstructured<'_>, mut spec: OptimizerSpec) -> Result<(OptimizerSpec, bool)> {
    let mut any = false;
    for _ in 0..[0, 0, 1, 2, 4][u.int_in_range(0..=4)?] {
        let known = names(spec.rule.hyper_params());
        let name = u.choose(&known)?;
        // A large rank or number of iterations only takes time.
        let value = match (*name, value(u)?) {
            ("ns_steps" | "rank", Value::Int(n)) => Value::Int(n.rem_euclid(8)),
            ("ns_steps" | "rank", Value::Float(_)) => Value::Int(3),
            (_, value) => value,
        };
        let changed = spec.with_args(&Args::new().with(name, value));
        // Only valid configurations: the properties are about those.
        if let Some(changed) = changed.ok().filter(|changed| changed.rule.check().is_ok()) {
            (spec, any) = (changed, true);
        }
    }
    Ok((spec, any))
}

/// A trial of one optimizer.
///
/// # Errors
/// Never for want of bytes: what is missing is zero.
///
/// # Panics
/// If defaults are refused.
pub fn trial(u: &mut Unstructured<'_>, name: &'static str) -> Result<Trial> {
    let spec = registry::optimizer(name, Args::new()).expect("defaults are valid");
    let (mut spec, mut tuned) = tuned(u, spec)?;
    if u.ratio(1u8, 3u8)? {
        let any_size = Args::new().with("min_8bit_size", 0i64);
        if let Ok(changed) = spec.with_args(&any_size) {
            (spec, tuned) = (changed, true);
        }
        let slots = vec![Some(*u.choose(&FORMATS)?); spec.rule.info().slots.len()];
        spec.storage = StorageConfig {
            slot_formats: slots,
            min_len: 0,
            len_multiple: 0,
            param: *u.choose(&WEIGHTS)?,
        };
    }
    let dtype = *u.choose(&[Dtype::F32, Dtype::Bf16, Dtype::F64, Dtype::F16])?;
    let shape = shape(u)?;
    let n = shape.iter().product();
    let steps = u.int_in_range(1..=4)?;
    let before = match u.arbitrary::<u8>()? {
        0..=191 => 0,
        192..=223 => 1 << u.int_in_range(0..=63)?,
        224..=239 => (1 << 53) - 2,
        _ => u.arbitrary()?,
    };
    let init = elements(u, dtype, n)?;
    let grads = (0..steps).map(|_| {
        let has = u.arbitrary::<u8>()? != 1;
        has.then(|| elements(u, dtype, n)).transpose()
    });
    let grads = grads.collect::<Result<_>>()?;
    let lrs = (0..steps).map(|_| match u.arbitrary::<u8>()? {
        0 => Ok(0.0),
        1 => number(u),
        n => Ok(f64::from(n) / 128.0),
    });
    let lrs = lrs.collect::<Result<_>>()?;
    let extra =
        (0..u.int_in_range(0..=EXTRA_ARGS.len())?).map(|_| number(u)).collect::<Result<_>>()?;
    let mut trial = Trial { name, spec, tuned, dtype, shape, before, init, grads, lrs, extra };
    if Run::try_new(&trial).is_err() {
        // For a rule that takes only matrices: one column.
        trial.shape = vec![n, 1];
        if Run::try_new(&trial).is_err() {
            // Refused whatever the shape, for a rank or a storage.
            trial.spec = registry::optimizer(name, Args::new()).expect("defaults are valid");
            trial.tuned = false;
        }
    }
    Ok(trial)
}

/// Takes a name from an input: one of `known`, if the input goes on with a line of it, so that a kept input means the
/// same whatever names are added; else one that the next two bytes choose, so that any bytes mean something.
///
/// # Errors
/// Never for want of bytes: what is missing is zero.
pub fn named(u: &mut Unstructured<'_>, known: &[&'static str]) -> Result<&'static str> {
    let head = u.peek_bytes(u.len().min(LONGEST_NAME)).unwrap_or_default();
    let line = head.split(|&b| b == b'\n').next().filter(|line| line.len() < head.len());
    if let Some(name) = known.iter().find(|name| line == Some(name.as_bytes())) {
        u.bytes(name.len() + 1)?;
        return Ok(name);
    }
    let key: [u8; 2] = u.arbitrary()?;
    // The name with the largest hash: one more name takes its share, and moves no other.
    let hash = |name: &&&str| {
        let all = key.iter().chain(name.as_bytes());
        let h = all.fold(0xcbf2_9ce4_8422_2325u64, |h, &b| {
            (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
        });
        (h ^ (h >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    known.iter().max_by_key(hash).copied().ok_or(arbitrary::Error::EmptyChoose)
}

/// The most bytes of a name and the end of its line.
const LONGEST_NAME: usize = 64;

/// A trial of any optimizer.
///
/// # Errors
/// Never for want of bytes: what is missing is zero.
pub fn any_trial(u: &mut Unstructured<'_>) -> Result<Trial> {
    let names: Vec<&'static str> = OPTIMIZERS.iter().map(|entry| entry.name).collect();
    let name = named(u, &names)?;
    trial(u, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_moves_no_kept_input_and_few_others() {
        let old = ["adam", "lion", "sgd", "rmsprop", "muon", "lomo", "rprop", "nadam", "asgd"];
        let new = [&["aaa"], &old[..]].concat();
        let of = |bytes: &[u8], known: &[&'static str]| {
            named(&mut Unstructured::new(bytes), known).expect("a name")
        };
        for name in old {
            let kept = format!("{name}\nbytes");
            assert_eq!((of(kept.as_bytes(), &old), of(kept.as_bytes(), &new)), (name, name));
        }
        let keys = || (0..=u16::MAX).map(u16::to_le_bytes);
        let moved = keys().filter(|key| of(key, &old) != of(key, &new)).count();
        assert!((1..65_536 / 7).contains(&moved), "{moved}");
        assert!(keys().all(|key| of(&key, &old) == of(&key, &new) || of(&key, &new) == "aaa"));
        for name in old {
            assert!(keys().any(|key| of(&key, &old) == name), "{name} is never drawn");
        }
    }
}
