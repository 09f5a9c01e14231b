//! The fuzz target `goldens`: golden files, many of them well-formed, with huge counts, zero dimensions and any
//! arguments.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use bitstep::hyper::{Args, names};
use bitstep::registry;
use bitstep::registry::OPTIMIZERS;
use bitstep::schedule::NAMES;
use bitstep_conformance::Core;
use bitstep_conformance::golden::{Case, FORMAT};
use bitstep_conformance::judge::bounds::Bounds;
use bitstep_conformance::judge::check;
use serde_json::{Map, Value, json};

/// Reads any bytes as a golden file, and a file generated from them. If one is a case, checks the core on it.
///
/// # Panics
/// If reading or checking it panics.
pub fn goldens(data: &[u8]) {
    // Shared, as it does not depend on the case.
    static BOUNDS: LazyLock<Bounds> = LazyLock::new(Bounds::default);
    let drawn = drawn(&mut Unstructured::new(data)).unwrap_or_default();
    for case in [data, &drawn].into_iter().filter_map(|file| Case::parse(file).ok()) {
        for report in check::case(&case, &Core, &BOUNDS) {
            assert!(!report.detail.contains("panicked"), "{}: {}", case.name, report.detail);
        }
    }
}

/// Whether the file that [`goldens`] generates from bytes is a case.
#[must_use]
pub fn is_golden(data: &[u8]) -> bool {
    drawn(&mut Unstructured::new(data)).is_ok_and(|file| Case::parse(&file).is_ok())
}

/// A count, small more often than not.
fn count(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.arbitrary::<u8>()? {
        0..=63 => 0,
        64..=191 => u64::from(u.arbitrary::<u8>()? % 6),
        192..=207 => u64::from(u.arbitrary::<u16>()?),
        208..=231 => (1 << (u.arbitrary::<u8>()? % 64)) - u64::from(u.arbitrary::<bool>()?),
        232..=239 => u64::MAX,
        240..=247 => 1 << 62,
        _ => u.arbitrary()?,
    })
}

/// The type and shape of a tensor to be generated.
struct Drawn {
    dtype: &'static str,
    size: u64,
    shape: Vec<u64>,
}

impl Drawn {
    fn bytes(&self) -> Option<u64> {
        let n = self.shape.iter().try_fold(self.size, |n, &d| n.checked_mul(d));
        // A tensor with a zero dimension is empty even where the other dimensions overflow.
        let n = n.or_else(|| self.shape.contains(&0).then_some(0))?;
        (n <= 1 << 12).then_some(n)
    }
}

const TYPES: [(&str, u64); 7] =
    [("F32", 4), ("F32", 4), ("BF16", 2), ("F16", 2), ("F64", 8), ("I64", 8), ("U8", 1)];

fn file(
    metadata: &Value,
    tensors: &[(String, Drawn)],
    u: &mut Unstructured<'_>,
) -> Result<Vec<u8>> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), metadata.clone());
    let mut data = Vec::new();
    for (name, t) in tensors {
        let start = data.len();
        // A tensor too large for a file is declared, but has no data.
        for _ in 0..t.bytes().unwrap_or(0) / t.size {
            let x = f64::from(u.arbitrary::<i8>()?) / 16.0;
            match t.dtype {
                "F64" => data.extend(x.to_le_bytes()),
                "F32" => data.extend((x as f32).to_le_bytes()),
                "I64" => data.extend(u.arbitrary::<u8>()?.to_le_bytes().into_iter().chain([0; 7])),
                "U8" => data.push(u.arbitrary::<u8>()? % 3),
                _ => data.extend([0, u.arbitrary::<u8>()?]),
            }
        }
        let offsets = [start, data.len()];
        let entry = json!({"dtype": t.dtype, "shape": t.shape, "data_offsets": offsets});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.bytes());
    out.extend(data);
    Ok(out)
}

/// A few known arguments and sizes, with any values.
fn hyper(u: &mut Unstructured<'_>, known: &[&'static str]) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    out.insert("lr".to_owned(), json!(0.125));
    for _ in 0..u.int_in_range(0..=3)? {
        let sizes = ["rank", "ns_steps", "window_size", "block_size", "num_cycles", "last_epoch"];
        let more = ["update_proj_gap", "num_training_steps", "T_0", "T_mult", "k", "milestones"];
        let all: Vec<_> = known.iter().copied().chain(sizes).chain(more).collect();
        let value = match u.arbitrary::<u8>()? % 8 {
            0..=3 => json!(count(u)?),
            4 => json!(f64::from(u.arbitrary::<i16>()?) / 256.0),
            5 => json!(u.arbitrary::<f64>()?.min(1e300)),
            6 => json!(u.arbitrary::<bool>()?),
            _ => json!([count(u)?, count(u)?]),
        };
        out.insert((*u.choose(&all)?).to_owned(), value);
    }
    Ok(out)
}

/// A golden file whose parts fit together more often than not.
fn drawn(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let steps = count(u)?;
    let mut tensors: Vec<(String, Drawn)> = Vec::new();
    let dims = |u: &mut Unstructured<'_>| -> Result<Vec<u64>> {
        (0..u.int_in_range(0..=3)?).map(|_| count(u)).collect()
    };
    let rows = |n: u64, shape: &[u64]| [&[n], shape].concat();
    let series = |n: u64| Drawn { dtype: "F64", size: 8, shape: vec![n] };
    let (kind, name, mut hyper) = match u.arbitrary::<u8>()? % 4 {
        0 => {
            let groups = count(u)?;
            let lr = rows(steps.wrapping_add(1), &[groups]);
            tensors.push(("lr".to_owned(), Drawn { dtype: "F64", size: 8, shape: lr }));
            if u.arbitrary()? {
                tensors.push(("metric".to_owned(), series(steps)));
            }
            ("schedule", *u.choose(NAMES)?, hyper(u, &[])?)
        }
        1 => {
            let name =
                *u.choose(&["clip_grad_norm", "clip_grad_value", "accumulate", "neftune"])?;
            for i in 0..u.int_in_range(1..=2)? {
                let shape = dims(u)?;
                let &(dtype, size) = u.choose(&TYPES)?;
                let inner =
                    if name == "accumulate" { rows(count(u)?, &shape) } else { shape.clone() };
                tensors.push((format!("g{i}.in"), Drawn { dtype, size, shape: inner }));
                tensors.push((format!("g{i}.out"), Drawn { dtype, size, shape }));
            }
            tensors.push(("norm".to_owned(), Drawn { dtype: "F64", size: 8, shape: vec![] }));
            ("gradient", name, hyper(u, &["max_norm", "norm_type", "clip_value"])?)
        }
        _ => {
            let name = u.choose(OPTIMIZERS)?.name;
            let mut spec = registry::optimizer(name, Args::new()).expect("defaults are valid");
            let (known, slots) = (names(spec.rule.hyper_params()), spec.rule.info().slots);
            for i in 0..u.int_in_range(1..=2)? {
                let shape = dims(u)?;
                let &(dtype, size) = u.choose(&TYPES)?;
                let mut put = |what: &str, shape: Vec<u64>| {
                    tensors.push((format!("p{i}.{what}"), Drawn { dtype, size, shape }));
                };
                put("init", shape.clone());
                put("grad", rows(steps, &shape));
                put("value", rows(steps, &shape));
                for slot in slots {
                    match u.arbitrary::<u8>()? % 4 {
                        0 | 1 => put(&format!("state.{slot}"), rows(steps, &shape)),
                        2 => put(&format!("state.{slot}"), rows(steps, &dims(u)?)),
                        _ => {}
                    }
                }
                match u.arbitrary::<u8>()? % 8 {
                    0 => put("eval", shape),
                    1 => put("given.projector", rows(steps, &dims(u)?)),
                    2 => put("given.projector", rows(count(u)?, &dims(u)?)),
                    3 => put("state0.step", vec![]),
                    _ => {}
                }
                let whole = |dtype, size, n| Drawn { dtype, size, shape: vec![n] };
                match u.arbitrary::<u8>()? % 8 {
                    0 => tensors.push((format!("p{i}.has_grad"), whole("U8", 1, steps))),
                    1 => tensors.push((format!("p{i}.refresh_at"), whole("I64", 8, count(u)?))),
                    _ => {}
                }
            }
            if u.arbitrary()? {
                tensors.push(("lr".to_owned(), series(steps)));
            }
            ("optimizer", name, hyper(u, &known)?)
        }
    };
    if u.ratio(1u8, 8u8)? {
        let group = json!({"params": [0], "rank": count(u)?});
        hyper.insert("groups".to_owned(), json!(vec![group; u.int_in_range(0..=2)?]));
    }
    // Sometimes a shape that does not fit.
    if u.ratio(1u8, 4u8)? && !tensors.is_empty() {
        let at = u.int_in_range(0..=tensors.len() - 1)?;
        tensors[at].1.shape = dims(u)?;
    }
    let metadata = json!({
        "format": FORMAT,
        "kind": kind,
        "name": name,
        "reference": "by.chance",
        "hyper": Value::Object(hyper).to_string(),
        "steps": steps.to_string(),
        "note": "drawn",
    });
    file(&metadata, &tensors, u)
}
