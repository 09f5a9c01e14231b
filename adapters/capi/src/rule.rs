//! A rule whose state is in the caller's memory: an optimizer of one tensor whose state is plain bytes.
//!
//! The memory holds the step counter, the rule's per-step scalars and the slots. Its owner may copy it,
//! move it and write it to a file.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::ffi::{c_char, c_void};

use bitstep::float::Dtype;
use bitstep::optimizer::{Buffer, OptimizerSpec};
use bitstep::rule::mode::Mode;
use bitstep::rule::{Scope, SlotInit, StepContext};
use bitstep::rule::{UpdateBuffers as CoreTensor, begin_single};
use bitstep::storage::{DataMut, RawDtype, StorageFormat};
use half::{bf16, f16};

use crate::args::{NamedNumber, args, check_rate, extra, name, spec};
use crate::error::{BITSTEP_ARGUMENT, BITSTEP_LENGTH, BITSTEP_MEMORY, ErrorMessage, Status, err};
use crate::places::{Places, ffi_call};
use crate::tensor::{Tensor, data_mut, dtype, grad, note, slice_mut};

/// A rule with its hyper-parameters. It is immutable and independent of parameters: threads may share it.
pub struct Rule(OptimizerSpec);

/// Precedes the slots. All zeros before the first step.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Header {
    steps: u64,
    /// [`STARTED`], [`EVALUATES`].
    flags: u64,
    scalars: bitstep::rule::ScalarState,
}

/// The parameter has been stepped.
const STARTED: u64 = 1;
/// The parameter has its evaluation values.
const EVALUATES: u64 = 2;

/// Creates a rule from `name` and `arguments`, which are those of `bitstep_optimizer_add_group`. Free it
/// with `bitstep_rule_free`.
///
/// Refuses rules that depend on more than one parameter: on the norm over all gradients, on the
/// parameter's index in its group, or on a seed per parameter. Names that store correction bits beside
/// 16-bit parameters are refused for parameters of those types. Use an optimizer for all of them.
///
/// # Safety
/// Pointers are valid or NULL, strings end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_rule_new(
    name: *const c_char,
    arguments: *const c_char,
    rule: *mut *mut Rule,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let out = places.out("rule", rule)?;
            let name = self::name(places, "name", name)?;
            let arguments = args(places, arguments)?;
            places.check()?;
            let spec = spec(name, &arguments)?;
            check_alone(&spec, &[])?;
            out.set(Box::into_raw(Box::new(Rule(spec))));
            Ok(())
        })
    }
}

/// Refuses a rule whose update of one parameter depends on other parameters.
fn check_alone(spec: &OptimizerSpec, extra: &[(&str, f64)]) -> Result<(), Status> {
    let rule = &*spec.rule;
    let [first, second] = [0, 1].map(|index| rule.initial_scalars(index).map(f64::to_bits));
    if rule.grad_norm_divisor(extra).is_some()
        || rule.info().needs_index_in_group
        || first != second
    {
        let message = "rule: needs to know of all parameters; take an optimizer for it";
        return err(BITSTEP_ARGUMENT, message);
    }
    Ok(())
}

/// Frees a rule. NULL is ignored.
///
/// # Safety
/// It is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_rule_free(rule: *mut Rule) {
    if !rule.is_null() {
        // SAFETY: it came from `Box::into_raw` and is not used afterwards.
        drop(unsafe { Box::from_raw(rule) });
    }
}

/// A slot: its format, its length, and the offsets of its parts in the memory.
struct Slot {
    format: StorageFormat,
    len: usize,
    parts: [usize; 2],
}

fn numel(shape: &[usize]) -> Option<usize> {
    let zero = shape.contains(&0);
    let all = || shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if zero { Some(0) } else { all() }
}

fn too_large() -> Status {
    Status(BITSTEP_MEMORY, "shape: too large".into())
}

/// The slots with their offsets, and the total size.
fn layout(
    spec: &OptimizerSpec,
    shape: &[usize],
    dtype: Dtype,
) -> Result<(Vec<Slot>, usize), Status> {
    if spec.storage.param != bitstep::optimizer::ParamStorage::Plain
        && !matches!(dtype, Dtype::F64 | Dtype::F32)
    {
        return err(BITSTEP_ARGUMENT, "rule: keeps something beside parameters of this type");
    }
    // Refused whatever the slots are: no parameter can be this large.
    numel(shape).and_then(|n| n.checked_mul(dtype.size())).ok_or_else(too_large)?;
    spec.rule.check_shape(shape)?;
    let mut end = size_of::<Header>();
    let mut part = |element: RawDtype, len: usize| {
        let start = end;
        let bytes = len.checked_mul(element.size())?.checked_next_multiple_of(8)?;
        end = end.checked_add(bytes).filter(|&e| e <= isize::MAX as usize)?;
        Some(start)
    };
    let mut slots = Vec::new();
    for k in 0..spec.rule.info().slots.len() {
        let format = spec.slot_format(k, shape, dtype);
        let len = spec.slot_len(k, shape, dtype);
        let parts = match (format, format.layout(len)) {
            (StorageFormat::Plain(dtype), _) => part(dtype.into(), len).map(|a| [a, a]),
            (_, Some([(a, n), (b, m)])) => part(a, n).zip(part(b, m)).map(|(a, b)| [a, b]),
            (_, None) => None,
        };
        let parts = parts.ok_or_else(too_large)?;
        slots.push(Slot { format, len, parts });
    }
    Ok((slots, end))
}

/// Writes the size of the state of a parameter of this shape and type, in bytes, to `size`.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_rule_state_size(
    rule: *const Rule,
    shape: *const usize,
    dimensions: usize,
    dtype: u32,
    size: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let rule = places.handle("rule", rule)?;
            let size = places.out("size", size)?;
            let shape = places.list("shape", shape, dimensions)?;
            places.check()?;
            size.set(layout(&rule.0, shape, self::dtype(dtype)?)?.1);
            Ok(())
        })
    }
}

/// Elements at an offset of the state.
///
/// # Safety
/// `start` is the offset of a part with that many elements of that type, in memory that no one else accesses.
unsafe fn numbers<'a>(memory: *mut u8, start: usize, element: RawDtype, len: usize) -> DataMut<'a> {
    // SAFETY: guaranteed by the caller. The parts and the memory itself are aligned to 8.
    unsafe {
        let at = memory.add(start);
        match element {
            RawDtype::F64 => DataMut::F64(slice_mut(at.cast::<f64>(), len)),
            RawDtype::Bf16 => DataMut::Bf16(slice_mut(at.cast::<bf16>(), len)),
            RawDtype::F16 => DataMut::F16(slice_mut(at.cast::<f16>(), len)),
            _ => DataMut::F32(slice_mut(at.cast::<f32>(), len)),
        }
    }
}

/// Steps one parameter at learning rate `lr`, which must not be negative or NaN. Its state is in
/// `memory`: `size` bytes, as `bitstep_rule_state_size` gives them, aligned to 8 and all 0 before the
/// first step. The bytes are in native order: restore them on the same kind of machine only.
///
/// The result has the same bits as a `bitstep_optimizer` of that one parameter. `given_numbers` are extra
/// arguments; a name that the rule does not use is refused.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_rule_step(
    rule: *const Rule,
    lr: f64,
    tensor: *const Tensor,
    shape: *const usize,
    dimensions: usize,
    memory: *mut c_void,
    size: usize,
    given_numbers: *const NamedNumber,
    given_count: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let rule = places.handle("rule", rule)?;
            let shape = places.list("shape", shape, dimensions)?;
            let tensors = places.list("tensor", tensor, 1)?;
            let known = |name: &str| rule.0.rule.info().extra_args.contains(&name);
            let extra = extra(places, given_numbers, given_count, known)?;
            note(places, "tensor", tensors, true)?;
            // At least one byte, so that NULL is refused as a pointer even if `size` is wrongly 0.
            places.written("memory", memory, size.max(1), 8)?;
            places.check()?;
            check_rate(lr)?;
            let [tensor] = tensors else { return Ok(()) };
            step(&rule.0, lr, tensor, shape, memory.cast(), size, &extra)
        })
    }
}

/// # Safety
/// The tensor and the memory have been checked; no one else accesses them meanwhile.
unsafe fn step(
    spec: &OptimizerSpec,
    lr: f64,
    tensor: &Tensor,
    shape: &[usize],
    memory: *mut u8,
    size: usize,
    extra: &[(&str, f64)],
) -> Result<(), Status> {
    let dtype = dtype(tensor.dtype)?;
    let places = checked_layout(spec, tensor, shape, size)?;
    // SAFETY: guaranteed by the caller.
    let (mut param, grad) = unsafe { (data_mut(tensor), grad(tensor)) };
    let rule = &*spec.rule;
    rule.check()?;
    check_alone(spec, extra)?;
    // SAFETY: the memory begins with it and is aligned to 8.
    let header = unsafe { &mut *memory.cast::<Header>() };
    let Header { mut steps, flags, mut scalars } = *header;
    if flags & EVALUATES != 0 {
        return err(BITSTEP_ARGUMENT, "mode: training is wanted, call bitstep_rule_train first");
    }
    let first = flags & STARTED == 0;
    if first && steps == 0 {
        scalars = rule.initial_scalars(0);
    }
    let (dtype_of, group_dtype) = (Some(dtype), grad.map(|grad| grad.dtype()));
    let mut at = StepContext {
        is_first: first,
        shape,
        dtype: dtype_of,
        group_dtype,
        extra,
        ..StepContext::new(0, lr)
    };
    begin_single(rule, &mut at, grad.is_some(), &mut steps, &mut scalars);
    let Some(grad) = grad else {
        *header = Header { steps, flags, scalars };
        return Ok(());
    };
    let double = spec.policy.compute(Some(dtype)) == Dtype::F64;
    let compute = if double { Dtype::F64 } else { Dtype::F32 };
    // Only this allocation can still fail: lengths come from the layout, and the rule has been checked.
    let mut scratch = Buffer::zeros(compute, rule.scratch_len(shape))?;
    // As in an optimizer, an update changes the scalars only if the parameter owns them.
    let mut own = scalars;
    // SAFETY: the memory has the layout's slots after its header, and is the caller's alone.
    unsafe {
        with_slots(&places, memory, |slots| {
            if first {
                for (k, slot) in slots.iter_mut().enumerate() {
                    match rule.slot_init(k) {
                        SlotInit::CopyParam => slot.copy_from_mut(&param),
                        SlotInit::Constant(x) => slot.fill(x),
                    }
                }
            }
            let (param, scratch) = (param.reborrow(), scratch.data_mut());
            let tensor = CoreTensor { shape, param, grad, slots, scratch };
            Ok(rule.update(spec.policy, &at, &mut own, tensor)?)
        })?;
    }
    if rule.info().scalar_scope == Scope::Parameter {
        scalars = own;
    }
    *header = Header { steps, flags: STARTED, scalars };
    Ok(())
}

/// Calls `f` with the slots that lie in the memory.
///
/// # Safety
/// The memory has these slots at their offsets, is aligned to 8, and no one else accesses it meanwhile.
unsafe fn with_slots<T>(
    places: &[Slot],
    memory: *mut u8,
    f: impl FnOnce(&mut [DataMut<'_>]) -> Result<T, Status>,
) -> Result<T, Status> {
    let firsts = places.iter().map(|slot| {
        // SAFETY: the parts lie at the offsets of `layout`, after the header and disjoint.
        unsafe { first_part(memory, slot) }
    });
    let mut firsts: Vec<DataMut<'_>> = firsts.collect();
    let seconds = places.iter().map(|slot| match slot.format.layout(slot.len) {
        // SAFETY: as above.
        Some([_, (element, len)]) => unsafe { numbers(memory, slot.parts[1], element, len) },
        None => DataMut::F32(&mut []),
    });
    let mut seconds: Vec<DataMut<'_>> = seconds.collect();
    let mut encoded = Vec::new();
    for (slot, scales) in places.iter().zip(&mut seconds) {
        encoded.push(match slot.format.layout(slot.len) {
            Some([(_, len), _]) => {
                // SAFETY: as above; the first part of an encoded slot is bytes.
                let codes = unsafe { slice_mut(memory.add(slot.parts[0]), len) };
                Some(slot.format.view(slot.len, codes, scales)?)
            }
            None => None,
        });
    }
    let mut slots: Vec<DataMut<'_>> = firsts
        .iter_mut()
        .zip(&mut encoded)
        .map(|(plain, encoded)| match encoded {
            Some(storage) => DataMut::Encoded(&mut **storage),
            None => plain.reborrow(),
        })
        .collect();
    f(&mut slots)
}

/// Converts a parameter to its evaluation values, in place, as `bitstep_optimizer_eval` does. Steps are refused
/// until `bitstep_rule_train`. `memory` is its state; the gradient is ignored.
///
/// # Safety
/// As `bitstep_rule_step`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_rule_eval(
    rule: *const Rule,
    tensor: *const Tensor,
    shape: *const usize,
    dimensions: usize,
    memory: *mut c_void,
    size: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        ffi_call(error, |places| {
            switch(places, rule, tensor, (shape, dimensions), (memory, size), Mode::Eval)
        })
    }
}

/// Converts a parameter back to its training values.
///
/// # Safety
/// As `bitstep_rule_step`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_rule_train(
    rule: *const Rule,
    tensor: *const Tensor,
    shape: *const usize,
    dimensions: usize,
    memory: *mut c_void,
    size: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        ffi_call(error, |places| {
            switch(places, rule, tensor, (shape, dimensions), (memory, size), Mode::Train)
        })
    }
}

/// # Safety
/// As [`bitstep_rule_step`].
unsafe fn switch(
    places: &mut Places,
    rule: *const Rule,
    tensor: *const Tensor,
    (shape, dimensions): (*const usize, usize),
    (memory, size): (*mut c_void, usize),
    to: Mode,
) -> Result<(), Status> {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        let Rule(spec) = places.handle("rule", rule)?;
        let shape = places.list("shape", shape, dimensions)?;
        let tensors = places.list("tensor", tensor, 1)?;
        note(places, "tensor", tensors, false)?;
        places.written("memory", memory, size.max(1), 8)?;
        places.check()?;
        let [tensor] = tensors else { return Ok(()) };
        let slots = checked_layout(spec, tensor, shape, size)?;
        let memory: *mut u8 = memory.cast();
        let header = &mut *memory.cast::<Header>();
        let mut param = data_mut(tensor);
        // Converting nothing reports a configuration that can't be evaluated.
        spec.rule.convert(spec.policy, to, &mut DataMut::F32(&mut []), &mut [])?;
        let evaluates = header.flags & EVALUATES != 0;
        if evaluates != (to == Mode::Eval) {
            if header.flags & STARTED != 0 {
                with_slots(&slots, memory, |slots| {
                    Ok(spec.rule.convert(spec.policy, to, &mut param, slots)?)
                })?;
            }
            header.flags ^= EVALUATES;
        }
        Ok(())
    }
}

/// The slots, if memory and tensor have the length that rule and shape ask for.
fn checked_layout(
    spec: &OptimizerSpec,
    tensor: &Tensor,
    shape: &[usize],
    size: usize,
) -> Result<Vec<Slot>, Status> {
    let (places, expected) = layout(spec, shape, dtype(tensor.dtype)?)?;
    if size != expected {
        return err(BITSTEP_LENGTH, format!("memory has {size} bytes, {expected} are needed"));
    }
    let numel = numel(shape).ok_or_else(too_large)?;
    if tensor.len != numel {
        let got = tensor.len;
        return err(BITSTEP_LENGTH, format!("tensor: {got} numbers, but its shape has {numel}"));
    }
    Ok(places)
}

/// The elements of a plain slot; empty for an encoded one.
///
/// # Safety
/// As [`numbers`].
unsafe fn first_part<'a>(memory: *mut u8, slot: &Slot) -> DataMut<'a> {
    match slot.format {
        // SAFETY: guaranteed by the caller.
        StorageFormat::Plain(dtype) => unsafe {
            numbers(memory, slot.parts[0], dtype.into(), slot.len)
        },
        _ => DataMut::F32(&mut []),
    }
}
