//! Limits on what a file can make a reader allocate or compute, in proportion to its size.

use serde_json::{Map, Value};

use super::{OptimizerCase, Problem};

/// The most bytes of a file.
pub const LARGEST: u64 = 1 << 28;

/// The most bytes of its safetensors header, which takes some ten times as much in memory.
const HEADER: u64 = 1 << 24;

/// The most steps of a run.
const STEPS: usize = 1 << 16;

/// The most characters of `hyper`: every group has a copy of the common arguments.
const HYPER: usize = 1 << 14;

/// Arguments that decide how much memory or time a rule takes, with their maxima: far beyond any real use, and
/// small enough that no rule runs out of either.
const SIZES: [(&str, f64); 3] = [("rank", 4096.0), ("window_size", 4096.0), ("ns_steps", 100.0)];

/// The most elements of a projection, whatever the size of the file.
const PROJECTION: usize = 1 << 22;

pub(super) fn header(bytes: &[u8]) -> Result<(), Problem> {
    let length = bytes.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
    if length > HEADER {
        return Err(Problem::Damaged(format!(
            "its head has {length} bytes, at most {HEADER} are read"
        )));
    }
    Ok(())
}

pub(super) fn steps(steps: usize, bytes: usize) -> Result<(), Problem> {
    let most = bytes.min(STEPS);
    if steps > most {
        let expected = format!("at most {most}: {STEPS}, and no more than the file has bytes");
        return Err(Problem::key("steps", &steps.to_string(), &expected));
    }
    Ok(())
}

/// Bounds the product of the dimensions without zeros, which an empty tensor could make huge.
pub(super) fn shape(name: &str, shape: &[usize], bytes: usize) -> Result<(), Problem> {
    let product = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
    if product.is_none_or(|n| n > bytes) {
        let expected = format!(
            "dimensions, but for zeros, of a product of at most {bytes}, the bytes of the file"
        );
        return Err(Problem::Dimensions { tensor: name.to_owned(), got: shape.to_vec(), expected });
    }
    Ok(())
}

pub(super) fn length(key: &str, text: &str) -> Result<(), Problem> {
    if text.len() > HYPER {
        let (value, expected) =
            (format!("{} characters long", text.len()), format!("at most {HYPER}"));
        return Err(Problem::key(key, &value, &expected));
    }
    Ok(())
}

/// Checks all size arguments, including those of groups and of nested schedules.
pub(super) fn sizes(hyper: &Map<String, Value>) -> Result<(), Problem> {
    hyper.iter().try_for_each(|(key, value)| {
        let most = SIZES.iter().find(|(name, _)| name == key).map(|&(_, most)| most);
        if let (Some(most), Some(size)) = (most, value.as_f64())
            && size > most
        {
            let expected = format!("at most {most}");
            return Err(Problem::key(&format!("hyper.{key}"), &value.to_string(), &expected));
        }
        within(value)
    })
}

/// Bounds a rank by the parameters: a projection has as many rows or columns as their larger
/// dimension, even if the tensor has no elements.
pub(super) fn rank(data: &OptimizerCase, bytes: usize) -> Result<(), Problem> {
    let dims = data.params.iter().flat_map(|p| &p.init.shape);
    let largest = dims.max().copied().unwrap_or(0);
    let most = bytes.max(PROJECTION);
    for group in &data.groups {
        let Some(rank) = group.hyper.get("rank").and_then(Value::as_u64) else { continue };
        if rank.saturating_mul(largest as u64) > most as u64 {
            let expected = format!("at most {most} numbers of a projection to or from {largest}");
            return Err(Problem::key("hyper.rank", &rank.to_string(), &expected));
        }
    }
    Ok(())
}

fn within(value: &Value) -> Result<(), Problem> {
    match value {
        Value::Object(map) => sizes(map),
        Value::Array(list) => list.iter().try_for_each(within),
        _ => Ok(()),
    }
}
