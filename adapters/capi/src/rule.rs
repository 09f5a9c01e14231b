//! A rule over state in the caller's memory: an optimizer of one tensor that is nothing but bytes.
//!
//! The memory holds a counter, the rule's carried numbers and the slots. It may be copied, moved
//! and written to a file by its owner.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::ffi::{c_char, c_void};

use bitstep::any::Tensor as CoreTensor;
use bitstep::named;
use bitstep::optimizer::{Buffer, Recipe};
use bitstep::real::Dtype;
use bitstep::rule::{Start, Step};
use bitstep::storage::{DataMut, Element, Format};
use half::{bf16, f16};

use crate::args::{Number, args, given, list, text};
use crate::error::{
    BITSTEP_ARGUMENT, BITSTEP_LENGTH, BITSTEP_POINTER, Failure, Fault, answer, fault,
};
use crate::optimizer::at;
use crate::tensor::{Tensor, check_overlap, data_mut, dtype, grad, ranges, slice_mut};

/// A rule with its arguments. It does not change, and knows nothing of parameters.
pub struct Rule(Recipe);

/// What stands before the slots. All zeros: no step yet.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Header {
    steps: u64,
    started: u64,
    scalars: bitstep::rule::Scalars,
}

/// Makes a rule of `name` and `arguments`, as `bitstep_optimizer_add_group` does. Names that keep
/// something beside 16-bit parameters are refused where they do: take an optimizer for them. To be
/// freed with `bitstep_rule_free`.
///
/// # Safety
/// Pointers are valid or NULL, strings end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_rule_new(
    name: *const c_char,
    arguments: *const c_char,
    rule: *mut *mut Rule,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let (out, name) = unsafe { (at("rule", rule)?, text("name", name)?) };
        // SAFETY: the caller's promise.
        let recipe = named::optimizer(name, &unsafe { args(arguments)? })?;
        *out = Box::into_raw(Box::new(Rule(recipe)));
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// Frees a rule; NULL is left alone.
///
/// # Safety
/// It is used no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_rule_free(rule: *mut Rule) {
    if !rule.is_null() {
        // SAFETY: it came out of `Box::into_raw`, and is used no more.
        drop(unsafe { Box::from_raw(rule) });
    }
}

/// A slot in memory: its format, its length, and where its parts begin.
struct Slot {
    format: Format,
    len: usize,
    parts: [usize; 2],
}

/// Where everything lies, and the size of all.
fn layout(recipe: &Recipe, shape: &[usize], dtype: Dtype) -> Result<(Vec<Slot>, usize), Fault> {
    if recipe.coding.weights != bitstep::optimizer::Weights::Plain
        && !matches!(dtype, Dtype::F64 | Dtype::F32)
    {
        return fault(BITSTEP_ARGUMENT, "rule: keeps something beside parameters of this type");
    }
    recipe.rule.check_shape(shape)?;
    let mut end = size_of::<Header>();
    let mut part = |element: Element, len: usize| {
        let start = end;
        let bytes = len.checked_mul(element.size())?.checked_next_multiple_of(8)?;
        end = end.checked_add(bytes).filter(|&e| e <= isize::MAX as usize)?;
        Some(start)
    };
    let mut slots = Vec::new();
    for k in 0..recipe.rule.slot_names().len() {
        let format = recipe.slot_format(k, shape, dtype);
        let len = recipe.slot_len(k, shape, dtype);
        let parts = match (format, format.layout(len)) {
            (Format::Plain(dtype), _) => part(dtype.into(), len).map(|a| [a, a]),
            (_, Some([(a, n), (b, m)])) => part(a, n).zip(part(b, m)).map(|(a, b)| [a, b]),
            (_, None) => None,
        };
        let Some(parts) = parts else { return fault(BITSTEP_LENGTH, "shape: too large") };
        slots.push(Slot { format, len, parts });
    }
    Ok((slots, end))
}

/// Writes to `size` how many bytes of state a parameter of this shape and type needs.
///
/// # Safety
/// Pointers are valid or NULL, and there is as much behind them as is said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_rule_state_size(
    rule: *mut Rule,
    shape: *const usize,
    dimensions: usize,
    dtype: u32,
    size: *mut usize,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let (rule, size) = unsafe { (at("rule", rule)?, at("size", size)?) };
        // SAFETY: the caller's promise.
        let shape = unsafe { list("shape", shape, dimensions)? };
        *size = layout(&rule.0, shape, crate::tensor::dtype(dtype)?)?.1;
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// Numbers at a place in the state.
///
/// # Safety
/// `start` is a part's with that many numbers of that type, in memory that nobody else touches.
unsafe fn numbers<'a>(memory: *mut u8, start: usize, element: Element, len: usize) -> DataMut<'a> {
    // SAFETY: the caller's promise. Parts begin at multiples of 8, and so does the memory.
    unsafe {
        let at = memory.add(start);
        match element {
            Element::F64 => DataMut::F64(slice_mut(at.cast::<f64>(), len)),
            Element::Bf16 => DataMut::Bf16(slice_mut(at.cast::<bf16>(), len)),
            Element::F16 => DataMut::F16(slice_mut(at.cast::<f16>(), len)),
            _ => DataMut::F32(slice_mut(at.cast::<f32>(), len)),
        }
    }
}

/// One step of one parameter at learning rate `lr`, with its state in `memory`: `size` bytes as
/// `bitstep_rule_state_size` says, beginning at a multiple of 8. Before the first step they must be 0.
/// Memory that was saved is to be restored on the same kind of machine.
///
/// # Safety
/// Pointers are valid or NULL, and there is as much behind them as is said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_rule_step(
    rule: *mut Rule,
    lr: f64,
    tensor: *const Tensor,
    shape: *const usize,
    dimensions: usize,
    memory: *mut c_void,
    size: usize,
    given_numbers: *const Number,
    given_count: usize,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let (rule, shape) = unsafe { (at("rule", rule)?, list("shape", shape, dimensions)?) };
        // SAFETY: the caller's promise.
        let tensors = unsafe { list("tensor", tensor, 1)? };
        // SAFETY: the caller's promise.
        let given = unsafe { given(list("given", given_numbers, given_count)?)? };
        let [tensor] = tensors else { return Ok(()) };
        let (mut data, grads) = ranges(tensors)?;
        let start = memory as usize;
        if memory.is_null() || !start.is_multiple_of(8) || start.checked_add(size).is_none() {
            return fault(BITSTEP_POINTER, "memory: NULL, or does not begin at a multiple of 8");
        }
        data.push((start, start + size));
        check_overlap(&data, &grads)?;
        // SAFETY: checked just above; the rest is the caller's promise.
        unsafe { step(&rule.0, lr, tensor, shape, memory.cast(), size, &given) }
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// # Safety
/// The tensor and the memory have been checked; nobody else touches them meanwhile.
unsafe fn step(
    recipe: &Recipe,
    lr: f64,
    tensor: &Tensor,
    shape: &[usize],
    memory: *mut u8,
    size: usize,
    given: &[(&str, f64)],
) -> Result<(), Fault> {
    let dtype = dtype(tensor.dtype)?;
    let (places, wanted) = layout(recipe, shape, dtype)?;
    if size != wanted {
        return fault(BITSTEP_LENGTH, format!("memory has {size} bytes, {wanted} are needed"));
    }
    // SAFETY: the caller's promise.
    let (param, grad) = unsafe { (data_mut(tensor)?, grad(tensor)?) };
    let Some(grad) = grad else { return Ok(()) };
    let numel = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
    if param.len() != numel {
        let got = param.len();
        return fault(BITSTEP_LENGTH, format!("the tensor has {got} numbers, its shape {numel}"));
    }
    let rule = &*recipe.rule;
    rule.check()?;
    // SAFETY: the memory has room for it in front, and begins at a multiple of 8.
    let header = unsafe { &mut *memory.cast::<Header>() };
    let first = header.started == 0;
    let mut scalars = if first { rule.scalars_of(0) } else { header.scalars };

    let firsts = places.iter().map(|slot| {
        // SAFETY: the parts lie where `layout` says, behind the header and apart from each other.
        unsafe { first_part(memory, slot) }
    });
    let mut firsts: Vec<DataMut<'_>> = firsts.collect();
    let seconds = places.iter().map(|slot| match slot.format.layout(slot.len) {
        // SAFETY: as above.
        Some([_, (element, len)]) => unsafe { numbers(memory, slot.parts[1], element, len) },
        None => DataMut::F32(&mut []),
    });
    let mut seconds: Vec<DataMut<'_>> = seconds.collect();
    let mut coded = Vec::new();
    for (slot, scales) in places.iter().zip(&mut seconds) {
        coded.push(match slot.format.layout(slot.len) {
            Some([(_, len), _]) => {
                // SAFETY: as above; the first part of a coded slot is bytes.
                let codes = unsafe { slice_mut(memory.add(slot.parts[0]), len) };
                Some(slot.format.view(slot.len, codes, scales)?)
            }
            None => None,
        });
    }
    let mut slots: Vec<DataMut<'_>> = firsts
        .iter_mut()
        .zip(&mut coded)
        .map(|(plain, coded)| match coded {
            Some(storage) => DataMut::Coded(&mut **storage),
            None => plain.reborrow(),
        })
        .collect();

    let grad_norm = rule.norm_scale(given).map(|scale| rule.grad_norm(&[grad], scale));
    let t = header.steps.saturating_add(u64::from(rule.counts_empty() || numel > 0));
    let at = Step {
        first,
        shape,
        dtype: Some(dtype),
        lead: Some(grad.dtype()),
        grad_norm,
        given,
        ..Step::new(t, lr)
    };
    let double = recipe.arithmetic.compute(Some(dtype)) == Dtype::F64;
    let mut work =
        Buffer::zeros(if double { Dtype::F64 } else { Dtype::F32 }, rule.workspace(shape));
    if first {
        for (k, slot) in slots.iter_mut().enumerate() {
            match rule.slot_start(k) {
                Start::Parameter => slot.copy_from_mut(&param),
                Start::Value(x) => slot.fill(x),
            }
        }
    }
    rule.advance(&at, &mut scalars);
    let tensor = CoreTensor { shape, param, grad, slots: &mut slots, work: work.data_mut() };
    rule.update(recipe.arithmetic, &at, &mut scalars, tensor)?;
    *header = Header { steps: t, started: 1, scalars };
    Ok(())
}

/// The numbers of a plain slot; none of a coded one.
///
/// # Safety
/// As [`numbers`].
unsafe fn first_part<'a>(memory: *mut u8, slot: &Slot) -> DataMut<'a> {
    match slot.format {
        // SAFETY: the caller's promise.
        Format::Plain(dtype) => unsafe { numbers(memory, slot.parts[0], dtype.into(), slot.len) },
        _ => DataMut::F32(&mut []),
    }
}
