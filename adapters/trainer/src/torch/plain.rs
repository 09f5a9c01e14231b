//! Conversion of a pickle's graph to plain values. A value that is referenced several times is copied,
//! so the size of the whole is computed before anything is built.

use std::collections::HashMap;
use std::sync::Arc;

use safetensors::tensor::Dtype;

use super::error::TorchError;
use super::pickle::{Graph, Id, Node, OBJECTS, PICKLE, run};
use super::tensor::{Tensor, number, numel, width};

/// The maximum nesting depth of values.
pub const DEPTH: u32 = 100;
/// The size in bytes that tensors sharing storages may have in any case.
pub const SHARED: u64 = 64 << 20;

/// A Python value as plain data.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`, also numpy's.
    Bool(bool),
    /// An integer of up to 64 bits, also numpy's.
    Int(i64),
    /// Any other number, also numpy's.
    Float(f64),
    /// A string.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list, tuple or set.
    List(Vec<Value>),
    /// A dictionary in its order. Of two entries with one key, the later one counts.
    Dict(Vec<(Value, Value)>),
    /// A tensor or parameter.
    Tensor(Tensor),
    /// Anything else: the name of its class, or of the function that would create it. Arguments are dropped.
    Opaque(String),
}

/// Reads a pickle alone: `data.pkl` of an archive of `archive` bytes. `storage` is called once for each
/// storage, and returns its bytes for its key.
///
/// # Errors
/// [`TorchError`], including those of `storage`.
pub fn unpickle(
    pickle: &[u8],
    archive: u64,
    storage: &mut dyn FnMut(&str) -> Result<Vec<u8>, TorchError>,
) -> Result<Value, TorchError> {
    let graph = &run(pickle)?;
    let mut sizes = vec![None; graph.nodes.len()];
    let size = measure(graph, graph.top, 0, &mut sizes)?;
    let most = SHARED.max(archive.saturating_mul(2));
    for (what, count, limit) in [
        ("objects", size.objects, OBJECTS),
        ("bytes of strings", size.text, PICKLE),
        ("bytes of tensors", size.tensors, most),
    ] {
        if count > limit {
            return Err(TorchError::Limit { what, limit });
        }
    }
    Plain { graph, storage, storages: HashMap::new() }.value(graph.top)
}

/// The size of a value with everything in it.
#[derive(Clone, Copy, Default)]
struct Size {
    objects: u64,
    text: u64,
    tensors: u64,
    depth: u32,
}

impl Size {
    fn add(&mut self, part: Size) {
        self.objects = self.objects.saturating_add(part.objects);
        self.text = self.text.saturating_add(part.text);
        self.tensors = self.tensors.saturating_add(part.tensors);
        self.depth = self.depth.max(part.depth.saturating_add(1));
    }
}

/// Each value is measured once. Values that nest too deeply, or in themselves, end the recursion.
fn measure(
    graph: &Graph<'_>,
    id: Id,
    depth: u32,
    sizes: &mut [Option<Size>],
) -> Result<Size, TorchError> {
    let known = sizes.get(id as usize).copied().flatten();
    if depth + known.map_or(0, |size| size.depth) > DEPTH {
        return Err(TorchError::Limit { what: "levels of nesting", limit: DEPTH.into() });
    }
    if let Some(size) = known {
        return Ok(size);
    }
    let mut size = Size { objects: 1, ..Size::default() };
    match graph.node(id) {
        Node::Str(s) => size.text = s.len() as u64,
        Node::Bytes(bytes) => size.text = bytes.len() as u64,
        Node::Global(module, name) => size.text = (module.len() + name.len()) as u64,
        Node::List(items) | Node::Dict(items) => {
            for &item in items {
                size.add(measure(graph, item, depth + 1, sizes)?);
            }
        }
        Node::Call { callee, .. } => match made(graph, id)? {
            Made::Tensor(parts) => {
                size.objects += parts.shape.len() as u64;
                size.tensors = parts.bytes()?;
            }
            Made::Same(of) => size.add(measure(graph, of, depth + 1, sizes)?),
            Made::Latin1(text) => size.text = text.len() as u64,
            Made::Number(_) => {}
            Made::Other => {
                let (module, name) = graph.global(*callee).unwrap_or_default();
                size.text = (module.len() + name.len()) as u64;
            }
        },
        _ => {}
    }
    if let Some(known) = sizes.get_mut(id as usize) {
        *known = Some(size);
    }
    Ok(size)
}

/// The result of a call.
enum Made<'a> {
    Tensor(Parts<'a>),
    /// A wrapper of that value with the same data.
    Same(Id),
    Latin1(&'a str),
    Number(Value),
    Other,
}

/// The parts of a tensor.
struct Parts<'a> {
    dtype: Dtype,
    key: &'a str,
    /// The declared number of elements or, for an untyped storage, of bytes.
    declared: (usize, usize),
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Parts<'_> {
    fn bytes(&self) -> Result<u64, TorchError> {
        let bytes = numel(&self.shape).and_then(|n| n.checked_mul(width(self.dtype)));
        let bytes = bytes.ok_or_else(|| wrong(format!("a tensor of shape {:?}", self.shape)))?;
        Ok(bytes as u64)
    }
}

fn wrong(what: impl Into<String>) -> TorchError {
    TorchError::Tensor(what.into())
}

fn made<'a>(graph: &Graph<'a>, id: Id) -> Result<Made<'a>, TorchError> {
    let Node::Call { callee, args, .. } = *graph.node(id) else { return Ok(Made::Other) };
    let (Some(callee), Some(args)) = (graph.global(callee), graph.list(args)) else {
        return Ok(Made::Other);
    };
    if let Some(text) = encoded(graph, id) {
        return Ok(Made::Latin1(text));
    }
    Ok(match (callee, args) {
        (("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor"), args) => {
            tensor(graph, args, None)?
        }
        (("torch._utils", "_rebuild_tensor_v3"), args) => {
            let dtype = args.get(6).and_then(|&dtype| graph.global(dtype));
            tensor(graph, args, Some(dtype.unwrap_or_default().1))?
        }
        (("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"), &[data, ..]) => {
            Made::Same(data)
        }
        (("numpy._core.multiarray" | "numpy.core.multiarray", "scalar"), &[dtype, bytes]) => {
            let number = match (graph.node(dtype), few(graph, bytes)) {
                (&Node::Call { args, state, .. }, Some(bytes)) => {
                    let kind = graph.list(args).and_then(|a| graph.str(*a.first()?));
                    let state = state.and_then(|state| graph.list(state));
                    let order = state.and_then(|s| graph.str(*s.get(1)?));
                    numpy(kind.unwrap_or_default(), order == Some(">"), &bytes)
                }
                _ => None,
            };
            number.map_or(Made::Other, Made::Number)
        }
        _ => Made::Other,
    })
}

/// Characters that stand for bytes, as Python 3 writes bytes in protocol 2.
fn encoded<'a>(graph: &Graph<'a>, id: Id) -> Option<&'a str> {
    let Node::Call { callee, args, .. } = *graph.node(id) else { return None };
    match (graph.global(callee)?, graph.list(args)?) {
        (("_codecs", "encode"), &[text, coding]) => {
            let latin1 = matches!(graph.str(coding), Some("latin1" | "latin-1"));
            graph.str(text).filter(|_| latin1)
        }
        _ => None,
    }
}

/// Bytes in any of their encodings.
fn few(graph: &Graph<'_>, id: Id) -> Option<Vec<u8>> {
    match (graph.node(id), encoded(graph, id)) {
        (Node::Bytes(bytes), _) if bytes.len() <= 8 => Some(bytes.to_vec()),
        (_, Some(text)) if text.len() <= 16 => text.chars().map(|c| u8::try_from(c).ok()).collect(),
        _ => None,
    }
}

/// A numpy scalar.
fn numpy(kind: &str, big: bool, bytes: &[u8]) -> Option<Value> {
    let mut word = [0u8; 8];
    let word = word.get_mut(..bytes.len())?;
    word.copy_from_slice(bytes);
    if big {
        word.reverse();
    }
    let dtype = match kind {
        "b1" => Dtype::BOOL,
        "f8" => Dtype::F64,
        "f4" => Dtype::F32,
        "f2" => Dtype::F16,
        "i8" => Dtype::I64,
        "i4" => Dtype::I32,
        "i2" => Dtype::I16,
        "i1" => Dtype::I8,
        "u4" => Dtype::U32,
        "u2" => Dtype::U16,
        "u1" => Dtype::U8,
        "u8" => Dtype::U64,
        _ => return None,
    };
    Some(match dtype {
        Dtype::BOOL => Value::Bool(*word.first().filter(|_| word.len() == 1)? != 0),
        Dtype::U64 => Value::Int(i64::try_from(u64::from_le_bytes(word.try_into().ok()?)).ok()?),
        Dtype::F64 | Dtype::F32 | Dtype::F16 => Value::Float(number(dtype, word)?),
        Dtype::I64 => Value::Int(i64::from_le_bytes(word.try_into().ok()?)),
        // Of at most 32 bits, so exact as f64.
        _ => Value::Int(number(dtype, word)? as i64),
    })
}

/// The parts of a tensor: storage, offset, shape, strides, ….
fn tensor<'a>(graph: &Graph<'a>, args: &[Id], named: Option<&str>) -> Result<Made<'a>, TorchError> {
    let &[storage, offset, shape, strides, ..] = args else {
        return Err(wrong("a tensor without storage, offset, shape and strides"));
    };
    let Node::Persistent(storage) = *graph.node(storage) else {
        return Err(wrong("a tensor without a storage"));
    };
    // ("storage", class, key, device, number of elements)
    let Some(&[kind, class, key, _, count]) = graph.list(storage) else {
        return Err(wrong("a storage of other than five parts"));
    };
    // Numbers in the form of text.
    let key = graph.str(key).filter(|key| key.len() <= 64);
    let (Some("storage"), Some((_, class)), Some(key), Some(count)) =
        (graph.str(kind), graph.global(class), key, graph.count(count))
    else {
        return Err(wrong("a storage without class, key and length"));
    };
    let Some(dtype) = dtype(named.unwrap_or(class)) else { return Ok(Made::Other) };
    let counts = |id: Id, what: &str| {
        let items = graph.list(id).filter(|items| items.len() <= 64);
        let counts = items.and_then(|i| i.iter().map(|&n| graph.count(n)).collect());
        counts.ok_or_else(|| wrong(format!("a tensor of `{key}` whose {what} are not counts")))
    };
    let (shape, strides): (Vec<_>, Vec<_>) =
        (counts(shape, "dimensions")?, counts(strides, "strides")?);
    let offset = graph.count(offset);
    let offset = offset.ok_or_else(|| wrong(format!("a tensor of `{key}` without an offset")))?;
    let unit = if class == "UntypedStorage" { 1 } else { width(dtype) };
    Ok(Made::Tensor(Parts { dtype, key, declared: (count, unit), offset, shape, strides }))
}

/// The type of a storage class, or of a dtype name in `torch`.
fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "DoubleStorage" | "float64" => Dtype::F64,
        "FloatStorage" | "float32" => Dtype::F32,
        "HalfStorage" | "float16" => Dtype::F16,
        "BFloat16Storage" | "bfloat16" => Dtype::BF16,
        "LongStorage" | "int64" => Dtype::I64,
        "IntStorage" | "int32" => Dtype::I32,
        "ShortStorage" | "int16" => Dtype::I16,
        "CharStorage" | "int8" => Dtype::I8,
        "ByteStorage" | "uint8" => Dtype::U8,
        "BoolStorage" | "bool" => Dtype::BOOL,
        "uint16" => Dtype::U16,
        "uint32" => Dtype::U32,
        "uint64" => Dtype::U64,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        _ => return None,
    })
}

struct Plain<'a, 'b> {
    graph: &'a Graph<'a>,
    storage: &'b mut dyn FnMut(&str) -> Result<Vec<u8>, TorchError>,
    storages: HashMap<&'a str, Arc<Vec<u8>>>,
}

impl<'a> Plain<'a, '_> {
    fn value(&mut self, id: Id) -> Result<Value, TorchError> {
        let name = |(module, name): (&str, &str)| Value::Opaque(format!("{module}.{name}"));
        Ok(match self.graph.node(id) {
            Node::None => Value::None,
            Node::Bool(b) => Value::Bool(*b),
            Node::Int(i) => Value::Int(*i),
            Node::Wide => Value::Opaque("a whole number of more than 64 bits".to_owned()),
            Node::Float(x) => Value::Float(*x),
            Node::Str(s) => Value::Str((*s).to_owned()),
            Node::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            Node::List(items) => {
                Value::List(items.iter().map(|&item| self.value(item)).collect::<Result<_, _>>()?)
            }
            Node::Dict(items) => {
                let pairs = items.as_chunks().0.iter();
                let pairs = pairs.map(|&[k, v]| Ok((self.value(k)?, self.value(v)?)));
                Value::Dict(pairs.collect::<Result<_, TorchError>>()?)
            }
            Node::Global(module, class) => name((module, class)),
            Node::Persistent(_) => Value::Opaque("a storage".to_owned()),
            Node::Call { callee, .. } => match made(self.graph, id)? {
                Made::Tensor(parts) => Value::Tensor(self.tensor(parts)?),
                Made::Same(of) => self.value(of)?,
                Made::Latin1(text) => {
                    let bytes: Option<_> = text.chars().map(|c| u8::try_from(c).ok()).collect();
                    Value::Bytes(bytes.ok_or_else(|| wrong("bytes above 255"))?)
                }
                Made::Number(number) => number,
                Made::Other => name(self.graph.global(*callee).unwrap_or(("", "a call"))),
            },
        })
    }

    fn tensor(&mut self, parts: Parts<'a>) -> Result<Tensor, TorchError> {
        let key = parts.key;
        let storage = match self.storages.get(key) {
            Some(storage) => Arc::clone(storage),
            None => {
                let storage = Arc::new((self.storage)(key)?);
                self.storages.insert(key, Arc::clone(&storage));
                storage
            }
        };
        let (count, unit) = parts.declared;
        if count.checked_mul(unit) != Some(storage.len()) {
            let len = storage.len();
            return Err(wrong(format!(
                "storage `{key}` has {len} bytes, for {count} elements of {unit}"
            )));
        }
        Tensor::new(parts.dtype, parts.shape, parts.strides, parts.offset, storage)
            .ok_or_else(|| wrong(format!("a tensor beyond the end of storage `{key}`")))
    }
}
