//! What an optimizer knows of a group and of a parameter: arguments, counts, and the state, slot by slot.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::{c_char, c_void};

use bitstep::hyper::Args;
use bitstep::optimizer::{Buffer, Group, GroupId, ParamState};
use bitstep::rule::Scope;
use bitstep::rule::mode::Mode;
use bitstep::storage::memory::collected;
use bitstep::storage::{RawBuffer, RawDtype, StorageFormat};

use crate::args::{args, check_rate, name};
use crate::error::{BITSTEP_ARGUMENT, BITSTEP_LENGTH, ErrorMessage, Status, err};
use crate::optimizer::{NO_GROUP, Optimizer};
use crate::places::ffi_call;
use crate::tensor::{self, Tensor, data_mut, dtype, slice, slice_mut};
use crate::text::{fixed, json};

/// Parameters have the values to train.
pub const BITSTEP_TRAIN: u32 = 0;
/// Parameters have the values to evaluate.
pub const BITSTEP_EVAL: u32 = 1;

/// A slot of a parameter's state.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slot {
    /// Its name, the key in the reference's `state_dict`: `exp_avg`.
    pub name: [c_char; 64],
    /// How it is stored, by the name that saved files have: `f32`, `companded:momentum`.
    pub format: [c_char; 64],
    /// The number of elements; 0 if the arguments leave it unused.
    pub len: usize,
    /// The number of dimensions in the reference.
    pub dimensions: usize,
}

/// A tensor of a parameter's state as the reference's `state_dict` has it: a slot that is stored as plain
/// numbers; codes or scales of one that is not; the correction of 16-bit weights; a number; the step count.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StateEntry {
    /// The reference's key: `exp_avg`, `exp_avg::scales`, `step`. Slots of one name have one key.
    pub key: [c_char; 64],
    /// The type of the elements: `BITSTEP_F32`, …, `BITSTEP_U8`, …
    pub dtype: u32,
    /// Always 0.
    pub reserved: u32,
    /// The number of the slot that it belongs to; `SIZE_MAX` if to none.
    pub slot: usize,
    /// The number of elements.
    pub len: usize,
    /// The number of bytes.
    pub size: usize,
    /// The number of dimensions; 0 for a number.
    pub dimensions: usize,
}

/// A parameter of an optimizer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ParamInfo {
    /// The index of its group.
    pub group: usize,
    /// The number of elements.
    pub len: usize,
    /// The number of dimensions.
    pub dimensions: usize,
    /// The number of slots.
    pub slots: usize,
    /// The number of `bitstep_state_entry` that its state has.
    pub entries: usize,
    /// Its own steps: those with a gradient.
    pub steps: u64,
    /// Its type.
    pub dtype: u32,
    /// Whether it has been stepped: slots that start as a copy of the parameter have been filled.
    pub started: u32,
}

/// The group, or an error with its number.
fn group(optimizer: &Optimizer, index: usize) -> Result<&Group, Status> {
    Ok(optimizer.inner.groups().get(index).ok_or(NO_GROUP)?)
}

fn no_param(index: usize, count: usize) -> Status {
    Status(BITSTEP_ARGUMENT, format!("param: {index}, but there are {count} parameters"))
}

fn param(optimizer: &Optimizer, index: usize) -> Result<(&ParamState, &Group), Status> {
    let all = optimizer.inner.params();
    let param = all.get(index).ok_or_else(|| no_param(index, all.len()))?;
    Ok((param, group(optimizer, param.group.0)?))
}

fn param_mut(optimizer: &mut Optimizer, index: usize) -> Result<&mut ParamState, Status> {
    let count = optimizer.inner.params().len();
    optimizer.inner.params_mut().get_mut(index).ok_or_else(|| no_param(index, count))
}

fn no_slot(param: &ParamState, index: usize) -> Status {
    Status(BITSTEP_ARGUMENT, format!("slot: {index}, but there are {} slots", param.slots.len()))
}

/// An entry of a parameter's state, of which nothing but its place is known yet.
#[derive(Clone, Copy)]
enum Entry {
    Plain(usize),
    Part(usize, usize),
    Correction,
    Scalar(usize),
    Steps,
}

fn slot_shape(param: &ParamState, group: &Group, slot: usize) -> Vec<usize> {
    let mut shape = Vec::new();
    group.spec.rule.slot_shape(slot, &param.shape, &mut |d| shape.push(d));
    shape
}

fn entries(param: &ParamState, group: &Group) -> Vec<Entry> {
    let mut all = Vec::new();
    for (k, slot) in param.slots.iter().enumerate() {
        match slot {
            Buffer::Encoded(_) => all.extend([Entry::Part(k, 0), Entry::Part(k, 1)]),
            // An unused slot is empty although its shape is not.
            plain if plain.is_empty() && !slot_shape(param, group, k).contains(&0) => {}
            _ => all.push(Entry::Plain(k)),
        }
    }
    let info = group.spec.rule.info();
    all.extend(param.correction.iter().map(|_| Entry::Correction));
    all.extend((0..info.scalar_names.len()).map(Entry::Scalar));
    all.push(Entry::Steps);
    all
}

fn entry(param: &ParamState, group: &Group, index: usize) -> Result<Entry, Status> {
    let all = entries(param, group);
    let found = all.get(index).copied();
    found.ok_or_else(|| {
        Status(BITSTEP_ARGUMENT, format!("entry: {index}, but there are {} entries", all.len()))
    })
}

fn raw_number(element: RawDtype) -> u32 {
    match element {
        RawDtype::F64 => tensor::BITSTEP_F64,
        RawDtype::F32 => tensor::BITSTEP_F32,
        RawDtype::Bf16 => tensor::BITSTEP_BF16,
        RawDtype::F16 => tensor::BITSTEP_F16,
        RawDtype::I16 => tensor::BITSTEP_I16,
        RawDtype::I8 => tensor::BITSTEP_I8,
        RawDtype::U8 => tensor::BITSTEP_U8,
        RawDtype::F8E4M3 => tensor::BITSTEP_F8E4M3,
    }
}

/// The key, the type and the shape of an entry.
fn describe(param: &ParamState, group: &Group, entry: Entry) -> (String, RawDtype, Vec<usize>) {
    let info = group.spec.rule.info();
    let slot_name = |k: usize| info.slots.get(k).copied().unwrap_or("slot");
    match entry {
        Entry::Plain(k) => {
            let dtype = param.slots.get(k).and_then(Buffer::data).map(|data| data.dtype());
            let dtype = dtype.map_or(RawDtype::F32, RawDtype::from);
            (slot_name(k).to_string(), dtype, slot_shape(param, group, k))
        }
        Entry::Part(k, part) => {
            let Some(Buffer::Encoded(encoded)) = param.slots.get(k) else {
                return (String::new(), RawDtype::U8, Vec::new());
            };
            let format = encoded.format();
            let layout = format.layout(param.slots.get(k).map_or(0, Buffer::len));
            let (element, len) =
                layout.and_then(|l| l.get(part).copied()).unwrap_or((RawDtype::U8, 0));
            let [first, second] = format.keys(slot_name(k));
            (if part == 0 { first } else { second }, element, alloc::vec![len])
        }
        Entry::Correction => match &param.correction {
            Some(raw @ (RawBuffer::I8(_) | RawBuffer::I16(_))) => {
                ("error_bits".to_string(), raw.element(), param.shape.clone())
            }
            raw => {
                let element = raw.as_ref().map_or(RawDtype::Bf16, RawBuffer::element);
                ("compensation".to_string(), element, param.shape.clone())
            }
        },
        Entry::Scalar(j) => {
            let name = info.scalar_names.get(j).copied().unwrap_or("scalar");
            (name.to_string(), RawDtype::F64, Vec::new())
        }
        Entry::Steps => (info.step_key.to_string(), RawDtype::F64, Vec::new()),
    }
}

fn len_of(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Writes how many groups and parameters there are to `groups` and `params`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_sizes(
    optimizer: *const Optimizer,
    groups: *mut usize,
    params: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let (groups, params) = (places.out("groups", groups)?, places.out("params", params)?);
            places.check()?;
            groups.set(optimizer.inner.groups().len());
            params.set(optimizer.inner.params().len());
            Ok(())
        })
    }
}

/// Copies an optimizer with all its state. Free the copy with `bitstep_optimizer_free`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_clone(
    optimizer: *const Optimizer,
    copy: *mut *mut Optimizer,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let copy = places.out("copy", copy)?;
            places.check()?;
            let (inner, names) = (optimizer.inner.try_clone()?, optimizer.names.clone());
            copy.set(Box::into_raw(Box::new(Optimizer { inner, names, ..Optimizer::default() })));
            Ok(())
        })
    }
}

/// Writes whether parameters have their training or their evaluation values, `BITSTEP_TRAIN` or
/// `BITSTEP_EVAL`, to `mode`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_mode(
    optimizer: *const Optimizer,
    mode: *mut u32,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let mode = places.out("mode", mode)?;
            places.check()?;
            mode.set(match optimizer.inner.mode() {
                Mode::Train => BITSTEP_TRAIN,
                Mode::Eval => BITSTEP_EVAL,
            });
            Ok(())
        })
    }
}

/// Writes a group's arguments with their current values, the learning rate among them, as a JSON object to
/// `text`, as `bitstep_optimizer_defaults` does.
///
/// # Safety
/// Pointers are valid or NULL, and there are `size` bytes at `text`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_arguments(
    optimizer: *const Optimizer,
    group: usize,
    text: *mut c_char,
    size: usize,
    needed: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let out = places.text_out(text, size, needed)?;
            places.check()?;
            let group = self::group(optimizer, group)?;
            let mut args = Args::of(group.spec.rule.clone().hyper_params());
            if args.get("lr").is_some() {
                args.set("lr", group.lr);
            }
            out.set(&json(&args))
        })
    }
}

/// Changes arguments of a group during training, as an assignment to the reference's `param_groups` does.
/// `arguments` are those of `bitstep_optimizer_add_group`, without `storage` and `weights`; the others keep
/// their values. State that becomes active is allocated; an argument that would leave unused what a
/// parameter has already is refused.
///
/// # Safety
/// Pointers are valid or NULL, strings end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_set_arguments(
    optimizer: *mut Optimizer,
    group: usize,
    arguments: *const c_char,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            let arguments = args(places, arguments)?;
            places.check()?;
            let before = self::group(optimizer, group)?;
            let rate = before.spec.with_args(&arguments)?.rule.lr();
            let follows = arguments.get("lr").is_some();
            let changes = follows || rate.to_bits() != before.spec.rule.lr().to_bits();
            if changes {
                check_rate(rate)?;
            }
            optimizer.inner.set_args(GroupId(group), &arguments)?;
            if let Some(group) = optimizer.inner.groups_mut().get_mut(group).filter(|_| changes) {
                group.lr = rate;
            }
            Ok(())
        })
    }
}

/// Writes the number of a group's steps to `steps`: calls of a step, whether or not there were gradients.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_group_steps(
    optimizer: *const Optimizer,
    group: usize,
    steps: *mut u64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let steps = places.out("steps", steps)?;
            places.check()?;
            steps.set(self::group(optimizer, group)?.steps);
            Ok(())
        })
    }
}

/// Sets the number of a group's steps, to continue a run that was begun elsewhere.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_set_group_steps(
    optimizer: *mut Optimizer,
    group: usize,
    steps: u64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            let group = optimizer.inner.groups_mut().get_mut(group);
            group.ok_or(NO_GROUP)?.steps = steps;
            Ok(())
        })
    }
}

/// Writes what is known of a parameter to `info`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_param(
    optimizer: *const Optimizer,
    param: usize,
    info: *mut ParamInfo,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let info = places.out("info", info)?;
            places.check()?;
            let (param, group) = self::param(optimizer, param)?;
            info.set(ParamInfo {
                group: param.group.0,
                len: len_of(&param.shape),
                dimensions: param.shape.len(),
                slots: param.slots.len(),
                entries: entries(param, group).len(),
                steps: param.steps,
                dtype: param.dtype as u32,
                started: param.is_initialized.into(),
            });
            Ok(())
        })
    }
}

/// Sets the number of a parameter's own steps, and whether it has been stepped, to continue a run that was
/// begun elsewhere. Its state is written with `bitstep_optimizer_slot_write` or
/// `bitstep_optimizer_entry_write`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_set_param_steps(
    optimizer: *mut Optimizer,
    param: usize,
    steps: u64,
    started: u32,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            let param = param_mut(optimizer, param)?;
            (param.steps, param.is_initialized) = (steps, started != 0);
            Ok(())
        })
    }
}

/// Writes the number of the slot of that name to `slot`: the first, if there are several.
///
/// # Safety
/// Pointers are valid or NULL, strings end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_find_slot(
    optimizer: *const Optimizer,
    param: usize,
    name: *const c_char,
    slot: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let name = self::name(places, "name", name)?;
            let slot = places.out("slot", slot)?;
            places.check()?;
            let (_, group) = self::param(optimizer, param)?;
            let slots = group.spec.rule.info().slots;
            match slots.iter().position(|other| *other == name) {
                Some(found) => slot.set(found),
                None => {
                    let message = format!("name: no slot `{name}`, but {}", slots.join(", "));
                    return err(BITSTEP_ARGUMENT, message);
                }
            }
            Ok(())
        })
    }
}

/// Writes what is known of a slot of a parameter to `info`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_slot(
    optimizer: *const Optimizer,
    param: usize,
    slot: usize,
    info: *mut Slot,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let info = places.out("info", info)?;
            places.check()?;
            let (param, group) = self::param(optimizer, param)?;
            let buffer = param.slots.get(slot).ok_or_else(|| no_slot(param, slot))?;
            let format = match buffer {
                Buffer::Encoded(encoded) => encoded.format(),
                plain => {
                    StorageFormat::Plain(plain.data().map_or(param.dtype, |data| data.dtype()))
                }
            };
            let name = group.spec.rule.info().slots.get(slot).copied().unwrap_or_default();
            info.set(Slot {
                name: fixed(name),
                format: fixed(&format.to_string()),
                len: buffer.len(),
                dimensions: slot_shape(param, group, slot).len(),
            });
            Ok(())
        })
    }
}

/// Writes the values of a slot, decoded, to the `data` of `values`, which has the slot's length and any
/// type. Its `grad` is ignored.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_slot_read(
    optimizer: *const Optimizer,
    param: usize,
    slot: usize,
    values: *const Tensor,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let values = places.list("values", values, 1)?;
            tensor::note(places, "values", values, false)?;
            places.check()?;
            let (param, _) = self::param(optimizer, param)?;
            let buffer = param.slots.get(slot).ok_or_else(|| no_slot(param, slot))?;
            match values {
                [values] => Ok(buffer.decode(&mut data_mut(values))?),
                _ => Ok(()),
            }
        })
    }
}

/// Sets the values of a slot from `len` numbers of type `dtype` at `values`, encoding them as the slot is
/// stored.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_slot_write(
    optimizer: *mut Optimizer,
    param: usize,
    slot: usize,
    values: *const c_void,
    len: usize,
    dtype: u32,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            places.numbers(&"values", values, len, self::dtype(dtype)?, false)?;
            places.check()?;
            let param = param_mut(optimizer, param)?;
            let none = no_slot(param, slot);
            let buffer = param.slots.get_mut(slot).ok_or(none)?;
            Ok(buffer.encode(tensor::data(values, len, dtype))?)
        })
    }
}

/// Writes what is known of an entry of a parameter's state to `info`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_entry(
    optimizer: *const Optimizer,
    param: usize,
    entry: usize,
    info: *mut StateEntry,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let info = places.out("info", info)?;
            places.check()?;
            let (param, group) = self::param(optimizer, param)?;
            let entry = self::entry(param, group, entry)?;
            let (key, element, shape) = describe(param, group, entry);
            let len = len_of(&shape);
            info.set(StateEntry {
                key: fixed(&key),
                dtype: raw_number(element),
                reserved: 0,
                slot: match entry {
                    Entry::Plain(k) | Entry::Part(k, _) => k,
                    _ => usize::MAX,
                },
                len,
                size: len * element.size(),
                dimensions: shape.len(),
            });
            Ok(())
        })
    }
}

/// Writes the dimensions of an entry of a parameter's state to `shape`, which has room for `dimensions`.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_entry_shape(
    optimizer: *const Optimizer,
    param: usize,
    entry: usize,
    shape: *mut usize,
    dimensions: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let size = dimensions.saturating_mul(size_of::<usize>());
            places.written("shape", shape.cast(), size, align_of::<usize>())?;
            places.check()?;
            let (param, group) = self::param(optimizer, param)?;
            let (_, _, own) = describe(param, group, self::entry(param, group, entry)?);
            if own.len() != dimensions {
                let message = format!("dimensions: {dimensions}, but the entry has {}", own.len());
                return err(BITSTEP_LENGTH, message);
            }
            slice_mut(shape, dimensions).copy_from_slice(&own);
            Ok(())
        })
    }
}

/// Writes an entry of a parameter's state to `memory`, which has the entry's `size` in bytes, in
/// little-endian order. A step count is a double.
///
/// # Safety
/// Pointers are valid or NULL, and there are `size` bytes at `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_entry_read(
    optimizer: *const Optimizer,
    param: usize,
    entry: usize,
    memory: *mut u8,
    size: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            places.written("memory", memory.cast(), size, 1)?;
            places.check()?;
            let (param, group) = self::param(optimizer, param)?;
            let to = slice_mut(memory, size);
            let info = group.spec.rule.info();
            let own = |scope: Scope| scope == Scope::Parameter;
            let number = match self::entry(param, group, entry)? {
                Entry::Plain(k) => {
                    let slot = param.slots.get(k).and_then(Buffer::data);
                    return Ok(slot.map_or(Ok(()), |data| data.write_bytes(to))?);
                }
                Entry::Part(k, part) => {
                    let Some(Buffer::Encoded(encoded)) = param.slots.get(k) else { return Ok(()) };
                    let [first, second] = encoded.raws();
                    return Ok((if part == 0 { first } else { second }).write_bytes(to)?);
                }
                Entry::Correction => {
                    let raw = param.correction.as_ref();
                    return Ok(raw.map_or(Ok(()), |raw| raw.write_bytes(to))?);
                }
                Entry::Scalar(j) => {
                    let own = own(info.scalar_scope);
                    let scalars = if own { &param.scalars } else { &group.scalars };
                    scalars.get(j).copied().unwrap_or_default()
                }
                Entry::Steps => {
                    (if own(info.step_scope) { param.steps } else { group.steps }) as f64
                }
            };
            let number = bitstep::storage::Data::F64(core::slice::from_ref(&number));
            Ok(number.write_bytes(to)?)
        })
    }
}

/// Sets an entry of a parameter's state from the bytes that `bitstep_optimizer_entry_read` writes. A number
/// or step count of a group is set for all its parameters.
///
/// # Safety
/// Pointers are valid or NULL, and there are `size` bytes at `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_entry_write(
    optimizer: *mut Optimizer,
    param: usize,
    entry: usize,
    memory: *const u8,
    size: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            let bytes = places.list("memory", memory, size)?;
            places.check()?;
            let (state, group) = self::param(optimizer, param)?;
            let (group_of, info) = (state.group.0, group.spec.rule.info());
            let entry = self::entry(state, group, entry)?;
            let own = |scope: Scope| scope == Scope::Parameter;
            let number = match entry {
                Entry::Scalar(_) | Entry::Steps => {
                    let Ok(bytes) = <[u8; 8]>::try_from(bytes) else {
                        return err(BITSTEP_LENGTH, format!("memory has {size} bytes, not 8"));
                    };
                    f64::from_le_bytes(bytes)
                }
                _ => 0.0,
            };
            if matches!(entry, Entry::Steps) && !(number >= 0.0 && number == (number as u64) as f64)
            {
                return err(BITSTEP_ARGUMENT, format!("memory: {number} is no number of steps"));
            }
            let (groups_of, params_of) = match entry {
                Entry::Scalar(_) => (!own(info.scalar_scope), own(info.scalar_scope)),
                Entry::Steps => (!own(info.step_scope), own(info.step_scope)),
                _ => (false, true),
            };
            if let Some(group) =
                optimizer.inner.groups_mut().get_mut(group_of).filter(|_| groups_of)
            {
                match entry {
                    Entry::Scalar(j) => {
                        group.scalars.get_mut(j).into_iter().for_each(|x| *x = number);
                    }
                    _ => group.steps = number as u64,
                }
            }
            let state = param_mut(optimizer, param)?;
            if !params_of {
                return Ok(());
            }
            match entry {
                Entry::Plain(k) => {
                    let slot = state.slots.get_mut(k);
                    slot.map_or(Ok(()), |slot| slot.data_mut().set_bytes(bytes))?;
                }
                Entry::Part(k, part) => {
                    let Some(Buffer::Encoded(encoded)) = state.slots.get_mut(k) else {
                        return Ok(());
                    };
                    let [first, second] = encoded.raws_mut();
                    (if part == 0 { first } else { second }).set_bytes(bytes)?;
                }
                Entry::Correction => {
                    state.correction.as_mut().map_or(Ok(()), |raw| raw.set_bytes(bytes))?;
                }
                Entry::Scalar(j) => {
                    state.scalars.get_mut(j).into_iter().for_each(|x| *x = number);
                }
                Entry::Steps => state.steps = number as u64,
            }
            Ok(())
        })
    }
}

/// Sets the 16 random bits of each element that the next steps round a parameter with, where its weights
/// are rounded stochastically; without any (`count` 0) the parameter's own generator gives them.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_set_rounding_bits(
    optimizer: *mut Optimizer,
    param: usize,
    bits: *const u16,
    count: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            places.numbers(&"bits", bits.cast(), count, bitstep::float::Dtype::F16, false)?;
            places.check()?;
            let param = param_mut(optimizer, param)?;
            let expected = len_of(&param.shape);
            if count != 0 && count != expected {
                let message = format!("bits: {count}, but the parameter has {expected} elements");
                return err(BITSTEP_LENGTH, message);
            }
            let bits = collected("bits", slice(bits, count).iter().copied())?;
            param.rounding_bits = Some(bits).filter(|_| count > 0);
            Ok(())
        })
    }
}
