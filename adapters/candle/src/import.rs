//! Reading what PyTorch saved of an optimizer and a schedule.
//!
//! A `.pt` file is a pickle, a program for a small machine that may call anything. Here it is
//! only parsed (by candle): classes stay names, calls stay data, and all that is understood of
//! them is the one that stands for a tensor. Nothing is executed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use bitstep::args::{Args, Value};
use bitstep_training::resume::State;
use candle_core::pickle::{Object, Stack};
use candle_core::{Error, Result};
use half::{bf16, f16};
use zip::ZipArchive;

/// What `torch.save(optimizer.state_dict(), …)` wrote.
///
/// # Errors
/// A file that can't be read, or is something else.
pub fn optimizer(path: impl AsRef<Path>) -> Result<State> {
    let mut file = Saved::open(path.as_ref())?;
    let mut top = entries(file.object()?, "a state dictionary")?;
    let mut take = |key: &str| {
        let at = top.iter().position(|(k, _)| matches!(k, Object::Unicode(k) if k == key));
        at.map(|at| top.swap_remove(at).1).ok_or_else(|| wrong(format!("no `{key}`")))
    };
    let (states, groups) = (take("state")?, take("param_groups")?);
    let mut out = State::default();
    let mut numbers = Vec::new();
    for group in items(groups, "a list of groups")? {
        let mut args = Args::new();
        for (key, value) in entries(group, "a group")? {
            let key = text(key)?;
            if key == "params" {
                let own = items(value, "a list of parameters")?;
                out.groups.push((own.len(), Args::new()));
                numbers.extend(own.into_iter().map(whole).collect::<Result<Vec<_>>>()?);
            } else if let Some(value) = file.value(value)? {
                args.set(&key, value);
            }
        }
        let group = out.groups.last_mut().ok_or_else(|| wrong("a group without `params`"))?;
        group.1 = args;
    }
    let mut states = entries(states, "a dictionary of states")?
        .into_iter()
        .map(|(number, state)| Ok((whole(number)?, state)))
        .collect::<Result<BTreeMap<i64, Object>>>()?;
    for number in numbers {
        let mut slots = BTreeMap::new();
        let state = states.remove(&number).map(|s| entries(s, "a state")).transpose()?;
        for (key, value) in state.into_iter().flatten() {
            if let Some(numbers) = file.numbers(value)? {
                slots.insert(text(key)?, numbers);
            }
        }
        out.params.push(slots);
    }
    match states.keys().next() {
        Some(number) => Err(wrong(format!("a state for parameter {number}, which is in no group"))),
        None => Ok(out),
    }
}

/// What `torch.save(scheduler.state_dict(), …)` wrote.
///
/// # Errors
/// A file that can't be read, or is something else.
pub fn scheduler(path: impl AsRef<Path>) -> Result<Args> {
    let mut file = Saved::open(path.as_ref())?;
    let mut args = Args::new();
    for (key, value) in entries(file.object()?, "a state dictionary")? {
        if let Some(value) = file.value(value)? {
            args.set(&text(key)?, value);
        }
    }
    Ok(args)
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::msg(format!("not what torch.save writes: {what}"))
}

fn entries(object: Object, wanted: &str) -> Result<Vec<(Object, Object)>> {
    object.dict().map_err(|_| wrong(format!("wanted {wanted}")))
}

fn items(object: Object, wanted: &str) -> Result<Vec<Object>> {
    match object {
        Object::List(list) | Object::Tuple(list) => Ok(list),
        _ => Err(wrong(format!("wanted {wanted}"))),
    }
}

fn text(object: Object) -> Result<String> {
    object.unicode().map_err(|_| wrong("wanted a string"))
}

fn whole(object: Object) -> Result<i64> {
    object.int_or_long().map_err(|_| wrong("wanted a whole number"))
}

/// An archive that `torch.save` wrote.
struct Saved {
    archive: ZipArchive<BufReader<File>>,
    folder: String,
}

impl Saved {
    fn open(path: &Path) -> Result<Saved> {
        let file = File::open(path).map_err(|e| Error::from(e).with_path(path))?;
        let archive = ZipArchive::new(BufReader::new(file)).map_err(wrong)?;
        let names: Vec<String> = (0..archive.len())
            .filter_map(|i| Some(archive.name_for_index(i)?.ok()?.into_owned()))
            .collect();
        let pickle = names.iter().find_map(|name| name.strip_suffix("data.pkl"));
        let folder = pickle.ok_or_else(|| wrong("no `data.pkl`"))?.to_owned();
        Ok(Saved { archive, folder })
    }

    fn object(&mut self) -> Result<Object> {
        let name = format!("{}data.pkl", self.folder);
        let mut reader = BufReader::new(self.archive.by_name(&name).map_err(wrong)?);
        let mut stack = Stack::empty();
        stack.read_loop(&mut reader)?;
        stack.finalize()
    }

    /// A plain value, or a tensor as one; `None` for what is neither.
    fn value(&mut self, object: Object) -> Result<Option<Value>> {
        let list = |saved: &mut Self, list: Vec<Object>| {
            let list = list.into_iter().map(|item| saved.value(item));
            Ok::<_, Error>(list.collect::<Result<Option<Vec<_>>>>()?.map(Value::List))
        };
        Ok(Some(match object {
            Object::None => Value::None,
            Object::Bool(b) => Value::Bool(b),
            Object::Int(i) => Value::Int(i.into()),
            Object::Long(i) => Value::Int(i),
            Object::Float(x) => Value::Float(x),
            Object::Unicode(s) => Value::Str(s),
            Object::List(items) | Object::Tuple(items) => return list(self, items),
            object @ Object::Reduce { .. } => {
                let numbers = self.numbers(object)?;
                return Ok(numbers.and_then(|n| match n.as_slice() {
                    [x] => Some(Value::Float(*x)),
                    _ => None,
                }));
            }
            _ => return Ok(None),
        }))
    }

    /// The numbers of a tensor in row-major order, or one number; `None` for anything else.
    fn numbers(&mut self, object: Object) -> Result<Option<Vec<f64>>> {
        let (callable, args) = match object {
            Object::Int(i) => return Ok(Some(vec![i.into()])),
            Object::Long(i) => return Ok(Some(vec![i as f64])),
            Object::Float(x) => return Ok(Some(vec![x])),
            Object::Bool(b) => return Ok(Some(vec![f64::from(u8::from(b))])),
            Object::Reduce { callable, args } => (*callable, *args),
            _ => return Ok(None),
        };
        let tensor = matches!(&callable, Object::Class { module_name, class_name }
            if module_name == "torch._utils" && class_name == "_rebuild_tensor_v2");
        if !tensor {
            return Ok(None);
        }
        let args = args.tuple().map_err(|_| wrong("wanted a tensor's arguments"))?;
        let [storage, offset, size, stride, ..]: [Object; 6] =
            args.try_into().map_err(|_| wrong("wanted a tensor's six arguments"))?;
        let counts = |object: Object, wanted: &str| {
            let items = items(object, wanted)?.into_iter();
            items.map(|n| usize::try_from(whole(n)?).map_err(wrong)).collect::<Result<Vec<_>>>()
        };
        let (size, stride) = (counts(size, "a size")?, counts(stride, "a stride")?);
        let offset = usize::try_from(whole(offset)?).map_err(wrong)?;
        let all = self.storage(storage)?;
        let count = size.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let count = count.filter(|&n| n <= all.len() && size.len() == stride.len());
        let count = count.ok_or_else(|| wrong(format!("a tensor of size {size:?}")))?;
        let mut index = vec![0usize; size.len()];
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..count {
            let at = index
                .iter()
                .zip(&stride)
                .try_fold(offset, |at, (&i, &s)| at.checked_add(i.checked_mul(s)?));
            let number = at.and_then(|at| all.get(at)).copied();
            numbers.push(number.ok_or_else(|| wrong("a tensor beyond its storage"))?);
            for (i, &d) in index.iter_mut().zip(&size).rev() {
                *i += 1;
                if *i < d {
                    break;
                }
                *i = 0;
            }
        }
        Ok(Some(numbers))
    }

    /// All numbers of a storage: `("storage", class, key, device, count)`.
    fn storage(&mut self, object: Object) -> Result<Vec<f64>> {
        let object = object.persistent_load().map_err(|_| wrong("wanted a storage"))?;
        let parts = object.tuple().map_err(|_| wrong("wanted a storage's parts"))?;
        let [_, class, key, ..]: [Object; 5] =
            parts.try_into().map_err(|_| wrong("wanted a storage's five parts"))?;
        let (_, class) = class.class().map_err(|_| wrong("wanted a storage's class"))?;
        let name = format!("{}data/{}", self.folder, text(key)?);
        let mut bytes = Vec::new();
        self.archive
            .by_name(&name)
            .map_err(wrong)?
            .read_to_end(&mut bytes)
            .map_err(|e| wrong(format!("`{name}`: {e}")))?;
        macro_rules! read {
            ($t:ty, $to:expr) => {
                bytes
                    .chunks_exact(size_of::<$t>())
                    .map(|b| $to(<$t>::from_le_bytes(b.try_into().unwrap_or_default())))
                    .collect()
            };
        }
        Ok(match class.as_str() {
            "DoubleStorage" => read!(f64, f64::from),
            "FloatStorage" => read!(f32, f64::from),
            "HalfStorage" => read!(f16, f64::from),
            "BFloat16Storage" => read!(bf16, f64::from),
            "LongStorage" => read!(i64, |x| x as f64),
            "IntStorage" => read!(i32, f64::from),
            "ShortStorage" => read!(i16, f64::from),
            "CharStorage" => read!(i8, f64::from),
            "ByteStorage" | "BoolStorage" => read!(u8, f64::from),
            other => return Err(wrong(format!("a storage of type {other}"))),
        })
    }
}
