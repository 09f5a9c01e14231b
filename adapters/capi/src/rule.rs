//! A rule over state in the caller's memory: an optimizer of one tensor that is nothing but bytes.
//!
//! The memory holds a counter, the rule's carried numbers and the slots. It may be copied, moved
//! and written to a file by its owner.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::ffi::{c_char, c_void};

use bitstep::float::Dtype;
use bitstep::optimizer::{Buffer, OptimizerSpec};
use bitstep::registry;
use bitstep::rule::{Scope, SlotInit, StepContext};
use bitstep::rule::{UpdateBuffers as CoreTensor, begin_single};
use bitstep::storage::{DataMut, RawDtype, StorageFormat};
use half::{bf16, f16};

use crate::args::{NamedNumber, args, check_rate, given, name};
use crate::error::{BITSTEP_ARGUMENT, BITSTEP_LENGTH, BITSTEP_MEMORY, ErrorMessage, Fault, fault};
use crate::places::answer;
use crate::tensor::{Tensor, data_mut, dtype, grad, note, slice_mut};

/// A rule with its arguments. It does not change, and knows nothing of parameters: threads may share it.
pub struct Rule(OptimizerSpec);

/// What stands before the slots. All zeros: no step yet.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Header {
    steps: u64,
    started: u64,
    scalars: bitstep::rule::ScalarState,
}

/// Makes a rule of `name` and `arguments`, as `bitstep_optimizer_add_group` does. To be freed with
/// `bitstep_rule_free`.
///
/// Refused are rules that need to know more than one parameter: a norm over all gradients, a
/// parameter's place among the others, a seed of its own. Names that keep something beside 16-bit
/// parameters are refused where they do. Take an optimizer for them.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let out = places.out("rule", rule)?;
            let name = self::name(places, "name", name)?;
            let arguments = args(places, arguments)?;
            places.check()?;
            let recipe = registry::optimizer(name, &arguments)?;
            check_alone(&recipe, &[])?;
            out.set(Box::into_raw(Box::new(Rule(recipe))));
            Ok(())
        })
    }
}

/// Refuses a rule whose step of one parameter is not known from that parameter alone.
fn check_alone(recipe: &OptimizerSpec, given: &[(&str, f64)]) -> Result<(), Fault> {
    let rule = &*recipe.rule;
    let [first, second] = [0, 1].map(|index| rule.initial_scalars(index).map(f64::to_bits));
    if rule.grad_norm_divisor(given).is_some()
        || rule.info().needs_index_in_group
        || first != second
    {
        let message = "rule: needs to know of all parameters; take an optimizer for it";
        return fault(BITSTEP_ARGUMENT, message);
    }
    Ok(())
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
    format: StorageFormat,
    len: usize,
    parts: [usize; 2],
}

fn numel(shape: &[usize]) -> Option<usize> {
    let zero = shape.contains(&0);
    let all = || shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if zero { Some(0) } else { all() }
}

fn too_large() -> Fault {
    Fault(BITSTEP_MEMORY, "shape: too large".into())
}

/// Where everything lies, and the size of all.
fn layout(
    recipe: &OptimizerSpec,
    shape: &[usize],
    dtype: Dtype,
) -> Result<(Vec<Slot>, usize), Fault> {
    if recipe.storage.param != bitstep::optimizer::ParamStorage::Plain
        && !matches!(dtype, Dtype::F64 | Dtype::F32)
    {
        return fault(BITSTEP_ARGUMENT, "rule: keeps something beside parameters of this type");
    }
    // Whatever the slots are: such a parameter can't be.
    numel(shape).and_then(|n| n.checked_mul(dtype.size())).ok_or_else(too_large)?;
    recipe.rule.check_shape(shape)?;
    let mut end = size_of::<Header>();
    let mut part = |element: RawDtype, len: usize| {
        let start = end;
        let bytes = len.checked_mul(element.size())?.checked_next_multiple_of(8)?;
        end = end.checked_add(bytes).filter(|&e| e <= isize::MAX as usize)?;
        Some(start)
    };
    let mut slots = Vec::new();
    for k in 0..recipe.rule.info().slots.len() {
        let format = recipe.slot_format(k, shape, dtype);
        let len = recipe.slot_len(k, shape, dtype);
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

/// Writes to `size` how many bytes of state a parameter of this shape and type needs.
///
/// # Safety
/// Pointers are valid or NULL, and there is as much behind them as is said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_rule_state_size(
    rule: *const Rule,
    shape: *const usize,
    dimensions: usize,
    dtype: u32,
    size: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let rule = places.handle("rule", rule)?;
            let size = places.out("size", size)?;
            let shape = places.list("shape", shape, dimensions)?;
            places.check()?;
            size.set(layout(&rule.0, shape, self::dtype(dtype)?)?.1);
            Ok(())
        })
    }
}

/// Numbers at a place in the state.
///
/// # Safety
/// `start` is a part's with that many numbers of that type, in memory that nobody else touches.
unsafe fn numbers<'a>(memory: *mut u8, start: usize, element: RawDtype, len: usize) -> DataMut<'a> {
    // SAFETY: the caller's promise. Parts begin at multiples of 8, and so does the memory.
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

/// One step of one parameter at learning rate `lr`, which is neither negative nor NaN, with its state
/// in `memory`: `size` bytes as `bitstep_rule_state_size` says, beginning at a multiple of 8. Before the
/// first step they must be 0. Memory that was saved is to be restored on the same kind of machine.
///
/// The bits are those of an optimizer of that one parameter. Numbers in `given_numbers` that the rule
/// does not listen to are refused.
///
/// # Safety
/// Pointers are valid or NULL, and there is as much behind them as is said.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let rule = places.handle("rule", rule)?;
            let shape = places.list("shape", shape, dimensions)?;
            let tensors = places.list("tensor", tensor, 1)?;
            let known = |name: &str| rule.0.rule.info().extra_args.contains(&name);
            let given = given(places, given_numbers, given_count, known)?;
            note(places, tensors, true)?;
            // One byte at least: the memory must be somewhere to be of the right size.
            places.written("memory", memory, size.max(1), 8)?;
            places.check()?;
            check_rate(lr)?;
            let [tensor] = tensors else { return Ok(()) };
            step(&rule.0, lr, tensor, shape, memory.cast(), size, &given)
        })
    }
}

/// # Safety
/// The tensor and the memory have been checked; nobody else touches them meanwhile.
unsafe fn step(
    recipe: &OptimizerSpec,
    lr: f64,
    tensor: &Tensor,
    shape: &[usize],
    memory: *mut u8,
    size: usize,
    given: &[(&str, f64)],
) -> Result<(), Fault> {
    let dtype = dtype(tensor.dtype)?;
    let (places, expected) = layout(recipe, shape, dtype)?;
    if size != expected {
        return fault(BITSTEP_LENGTH, format!("memory has {size} bytes, {expected} are needed"));
    }
    // SAFETY: the caller's promise.
    let (param, grad) = unsafe { (data_mut(tensor), grad(tensor)) };
    let numel = numel(shape).ok_or_else(too_large)?;
    if param.len() != numel {
        let got = param.len();
        return fault(BITSTEP_LENGTH, format!("the tensor has {got} numbers, its shape {numel}"));
    }
    let rule = &*recipe.rule;
    rule.check()?;
    check_alone(recipe, given)?;
    // SAFETY: the memory has room for it in front, and begins at a multiple of 8.
    let header = unsafe { &mut *memory.cast::<Header>() };
    let Header { mut steps, started, mut scalars } = *header;
    let first = started == 0;
    if first && steps == 0 {
        scalars = rule.initial_scalars(0);
    }
    let (dtype_of, lead) = (Some(dtype), grad.map(|grad| grad.dtype()));
    let mut at = StepContext {
        is_first: first,
        shape,
        dtype: dtype_of,
        group_dtype: lead,
        extra: given,
        ..StepContext::new(0, lr)
    };
    begin_single(rule, &mut at, grad.is_some(), &mut steps, &mut scalars);
    let Some(grad) = grad else {
        *header = Header { steps, started, scalars };
        return Ok(());
    };
    let double = recipe.policy.compute(Some(dtype)) == Dtype::F64;
    let compute = if double { Dtype::F64 } else { Dtype::F32 };
    // From here on nothing goes wrong: lengths are the layout's, and the rule has been checked.
    let mut work = Buffer::zeros(compute, rule.scratch_len(shape))?;

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
            Some(storage) => DataMut::Encoded(&mut **storage),
            None => plain.reborrow(),
        })
        .collect();

    if first {
        for (k, slot) in slots.iter_mut().enumerate() {
            match rule.slot_init(k) {
                SlotInit::CopyParam => slot.copy_from_mut(&param),
                SlotInit::Constant(x) => slot.fill(x),
            }
        }
    }
    let tensor = CoreTensor { shape, param, grad, slots: &mut slots, scratch: work.data_mut() };
    // A parameter does not change what is its group's.
    let mut own = scalars;
    rule.update(recipe.policy, &at, &mut own, tensor)?;
    if rule.info().scalar_scope == Scope::Parameter {
        scalars = own;
    }
    *header = Header { steps, started: 1, scalars };
    Ok(())
}

/// The numbers of a plain slot; none of a coded one.
///
/// # Safety
/// As [`numbers`].
unsafe fn first_part<'a>(memory: *mut u8, slot: &Slot) -> DataMut<'a> {
    match slot.format {
        // SAFETY: the caller's promise.
        StorageFormat::Plain(dtype) => unsafe {
            numbers(memory, slot.parts[0], dtype.into(), slot.len)
        },
        _ => DataMut::F32(&mut []),
    }
}
