//! An optimizer that owns its state.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::c_char;

use bitstep::args::Args;
use bitstep::mode::Mode;
use bitstep::named;
use bitstep::optimizer::{Buffer, Param};
use bitstep::storage::Part;
use half::{bf16, f16};

use crate::args::{Number, args, from_numbers, given, list, text};
use crate::bytes::{Reader, Writer};
use crate::error::{BITSTEP_LENGTH, BITSTEP_POINTER, BITSTEP_STATE, Failure, Fault, answer, fault};
use crate::tensor::{Tensor, check_overlap, data_mut, grad, ranges, slice_mut};

/// Groups of parameters and their state.
pub struct Optimizer(pub(crate) bitstep::optimizer::Optimizer);

/// What a pointer of the caller's points to.
///
/// # Safety
/// `pointer` is NULL or a live handle or a place for an answer, used by nobody else meanwhile.
pub(crate) unsafe fn at<'a, T>(what: &str, pointer: *mut T) -> Result<&'a mut T, Fault> {
    // SAFETY: the caller's promise; NULL becomes `None`.
    match unsafe { pointer.as_mut() } {
        Some(x) => Ok(x),
        None => fault(BITSTEP_POINTER, format!("{what} is NULL")),
    }
}

/// Makes an optimizer without parameters. To be freed with `bitstep_optimizer_free`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_new(
    optimizer: *mut *mut Optimizer,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let out = unsafe { at("optimizer", optimizer) }?;
        *out = Box::into_raw(Box::new(Optimizer(bitstep::optimizer::Optimizer::new())));
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// Frees an optimizer; NULL is left alone.
///
/// # Safety
/// It is used no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_free(optimizer: *mut Optimizer) {
    if !optimizer.is_null() {
        // SAFETY: it came out of `Box::into_raw`, and is used no more.
        drop(unsafe { Box::from_raw(optimizer) });
    }
}

fn add_group(
    optimizer: &mut Optimizer,
    name: &str,
    args: &Args,
    group: &mut usize,
) -> Result<(), Fault> {
    *group = optimizer.0.add_group(named::optimizer(name, args)?)?;
    Ok(())
}

/// Adds a group of parameters that share `name`, one of Transformers' `optim=` strings, and
/// `arguments`, under the reference's names: `{"lr": 1e-3}` or `lr=1e-3, weight_decay=0.1`; NULL
/// for the defaults. Its number is written to `group`.
///
/// # Safety
/// Pointers are valid or NULL, strings end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_add_group(
    optimizer: *mut Optimizer,
    name: *const c_char,
    arguments: *const c_char,
    group: *mut usize,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let (optimizer, group) = unsafe { (at("optimizer", optimizer)?, at("group", group)?) };
        // SAFETY: the caller's promise.
        let (name, arguments) = unsafe { (text("name", name)?, args(arguments)?) };
        add_group(optimizer, name, &arguments, group)
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// The same with arguments as plain numbers, without a string to be read.
///
/// # Safety
/// Pointers are valid or NULL, strings end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_add_group_of(
    optimizer: *mut Optimizer,
    name: *const c_char,
    arguments: *const Number,
    count: usize,
    group: *mut usize,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let (optimizer, group) = unsafe { (at("optimizer", optimizer)?, at("group", group)?) };
        // SAFETY: the caller's promise.
        let arguments = unsafe { from_numbers(list("arguments", arguments, count)?)? };
        // SAFETY: the caller's promise.
        add_group(optimizer, unsafe { text("name", name)? }, &arguments, group)
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// Adds a parameter of `dimensions` dimensions to a group. Steps get the parameters in this order.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_add_param(
    optimizer: *mut Optimizer,
    group: usize,
    shape: *const usize,
    dimensions: usize,
    dtype: u32,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let optimizer = unsafe { at("optimizer", optimizer)? };
        // SAFETY: the caller's promise.
        let shape = unsafe { list("shape", shape, dimensions)? };
        optimizer.0.add_param(group, shape, crate::tensor::dtype(dtype)?)?;
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

fn group_of(
    optimizer: &mut Optimizer,
    group: usize,
) -> Result<&mut bitstep::optimizer::Group, Fault> {
    let wanted = "the number of a group";
    let groups = optimizer.0.groups_mut().get_mut(group);
    Ok(groups.ok_or(bitstep::Error::Invalid { argument: "group", wanted })?)
}

/// Sets a group's learning rate, as a schedule does.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_set_lr(
    optimizer: *mut Optimizer,
    group: usize,
    lr: f64,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        group_of(unsafe { at("optimizer", optimizer)? }, group)?.lr = lr;
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// Writes a group's learning rate to `lr`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_lr(
    optimizer: *mut Optimizer,
    group: usize,
    lr: *mut f64,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let (optimizer, lr) = unsafe { (at("optimizer", optimizer)?, at("lr", lr)?) };
        *lr = group_of(optimizer, group)?.lr;
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

fn check_count(optimizer: &Optimizer, tensors: &[Tensor]) -> Result<(), Fault> {
    let wanted = optimizer.0.params().len();
    if tensors.len() != wanted {
        let got = tensors.len();
        return fault(BITSTEP_LENGTH, format!("{got} tensors, but {wanted} parameters"));
    }
    Ok(())
}

/// One step of all parameters, in the order in which they were added. `given` are numbers that
/// some rules listen to, `train_loss` for one; mostly there are none.
///
/// # Safety
/// Pointers are valid or NULL, and there is as much behind them as is said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_step(
    optimizer: *mut Optimizer,
    tensors: *const Tensor,
    count: usize,
    given_numbers: *const Number,
    given_count: usize,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let optimizer = unsafe { at("optimizer", optimizer)? };
        // SAFETY: the caller's promise.
        let tensors = unsafe { list("tensors", tensors, count)? };
        // SAFETY: the caller's promise.
        let given = unsafe { given(list("given", given_numbers, given_count)?)? };
        check_count(optimizer, tensors)?;
        let (data, grads) = ranges(tensors)?;
        check_overlap(&data, &grads)?;
        let one = |t: &Tensor| {
            // SAFETY: checked just above; the rest is the caller's promise.
            Ok(unsafe { Param { value: data_mut(t)?, grad: grad(t)? } })
        };
        let mut params = tensors.iter().map(one).collect::<Result<Vec<_>, Fault>>()?;
        Ok(optimizer.0.step(&mut params, &given)?)
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// # Safety
/// As [`bitstep_optimizer_step`].
unsafe fn switch(
    optimizer: *mut Optimizer,
    tensors: *const Tensor,
    count: usize,
    to: Mode,
) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    let optimizer = unsafe { at("optimizer", optimizer)? };
    // SAFETY: the caller's promise.
    let tensors = unsafe { list("tensors", tensors, count)? };
    check_count(optimizer, tensors)?;
    let (data, _) = ranges(tensors)?;
    check_overlap(&data, &[])?;
    let params = tensors.iter().map(|t| {
        // SAFETY: checked just above; the rest is the caller's promise.
        unsafe { data_mut(t) }
    });
    let mut params = params.collect::<Result<Vec<_>, _>>()?;
    match to {
        Mode::Eval => optimizer.0.eval(&mut params)?,
        Mode::Train => optimizer.0.train(&mut params)?,
    }
    Ok(())
}

/// Turns parameters into those to evaluate, in place: schedule-free optimizers have others than
/// those that they train. Until `bitstep_optimizer_train`, steps are refused.
///
/// # Safety
/// As `bitstep_optimizer_step`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_eval(
    optimizer: *mut Optimizer,
    tensors: *const Tensor,
    count: usize,
    error: *mut Failure,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { answer(error, || switch(optimizer, tensors, count, Mode::Eval)) }
}

/// Turns them back into those to train.
///
/// # Safety
/// As `bitstep_optimizer_step`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_train(
    optimizer: *mut Optimizer,
    tensors: *const Tensor,
    count: usize,
    error: *mut Failure,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { answer(error, || switch(optimizer, tensors, count, Mode::Train)) }
}

/// Writes to `size` how many bytes the numbers of the state take in memory.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_state_size(
    optimizer: *mut Optimizer,
    size: *mut usize,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let (optimizer, size) = unsafe { (at("optimizer", optimizer)?, at("size", size)?) };
        let bytes = |p: &bitstep::optimizer::ParamState| {
            let slots = p.slots.iter().flat_map(parts).map(|part| part.len());
            slots.sum::<usize>() + p.companion.as_ref().map_or(0, |c| c.bytes().len())
        };
        *size = optimizer.0.params().iter().map(bytes).sum();
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// The first number of saved state: "bitstep1".
const MAGIC: u64 = u64::from_le_bytes(*b"bitstep1");

/// The bytes of a slot: one part if its numbers are plain, else two.
fn parts(buffer: &Buffer) -> Vec<Vec<u8>> {
    match buffer {
        Buffer::F64(x) => alloc::vec![x.iter().flat_map(|x| x.to_le_bytes()).collect()],
        Buffer::F32(x) => alloc::vec![x.iter().flat_map(|x| x.to_le_bytes()).collect()],
        Buffer::Bf16(x) => alloc::vec![x.iter().flat_map(|x| x.to_le_bytes()).collect()],
        Buffer::F16(x) => alloc::vec![x.iter().flat_map(|x| x.to_le_bytes()).collect()],
        Buffer::Coded(coded) => coded.parts("").into_iter().map(|p| p.bytes).collect(),
    }
}

fn restore(buffer: &mut Buffer, from: &mut Reader<'_>) -> Result<(), Fault> {
    fn plain<const N: usize, T>(
        to: &mut [T],
        bytes: &[u8],
        of: fn([u8; N]) -> T,
    ) -> Result<(), Fault> {
        let (chunks, rest) = bytes.as_chunks();
        if chunks.len() != to.len() || !rest.is_empty() {
            return fault(BITSTEP_STATE, "saved state: a slot of another size");
        }
        to.iter_mut().zip(chunks).for_each(|(t, b)| *t = of(*b));
        Ok(())
    }
    match buffer {
        Buffer::F64(x) => plain(x, from.bytes()?, f64::from_le_bytes),
        Buffer::F32(x) => plain(x, from.bytes()?, f32::from_le_bytes),
        Buffer::Bf16(x) => plain(x, from.bytes()?, bf16::from_le_bytes),
        Buffer::F16(x) => plain(x, from.bytes()?, f16::from_le_bytes),
        Buffer::Coded(coded) => coded.parts("").into_iter().try_for_each(|part| {
            let part = Part { bytes: from.bytes()?.to_vec(), ..part };
            coded.set_part("", &part).map_err(|e| Fault(BITSTEP_STATE, format!("saved state: {e}")))
        }),
    }
}

/// What tells one rule's state from another's.
fn kind(optimizer: &bitstep::optimizer::Optimizer, group: usize) -> String {
    let rule = optimizer.groups().get(group).map(|g| &g.recipe.rule);
    rule.map_or_else(String::new, |r| {
        format!("{:?} {:?} {}", r.slot_names(), r.scalar_names(), r.step_key())
    })
}

fn saved(optimizer: &Optimizer) -> Vec<u8> {
    let o = &optimizer.0;
    let mut to = Writer::default();
    to.number(MAGIC);
    to.number(u64::from(o.mode() == Mode::Eval));
    to.number(o.groups().len() as u64);
    for (i, g) in o.groups().iter().enumerate() {
        to.bytes(kind(o, i).as_bytes());
        to.number(g.steps);
        to.floats(&[g.lr]);
        to.floats(&g.scalars);
    }
    to.number(o.params().len() as u64);
    for p in o.params() {
        to.number(p.group as u64);
        to.number(p.steps);
        to.number(u64::from(p.started));
        to.floats(&p.scalars);
        to.number(p.seed);
        p.slots.iter().flat_map(parts).for_each(|part| to.bytes(&part));
        to.bytes(&p.companion.as_ref().map_or_else(Vec::new, |c| c.bytes()));
    }
    to.0
}

fn loaded(optimizer: &Optimizer, bytes: &[u8]) -> Result<bitstep::optimizer::Optimizer, Fault> {
    let mut o = optimizer.0.clone();
    let mut from = Reader(bytes);
    from.expect("its beginning", MAGIC)?;
    let mode = from.number()?;
    from.expect("the number of groups", o.groups().len() as u64)?;
    for i in 0..o.groups().len() {
        if from.bytes()? != kind(&o, i).as_bytes() {
            return fault(BITSTEP_STATE, format!("saved state: group {i} has another rule"));
        }
        let (steps, [lr], scalars) = (from.number()?, from.floats()?, from.floats()?);
        if let Some(g) = o.groups_mut().get_mut(i) {
            (g.steps, g.lr, g.scalars) = (steps, lr, scalars);
        }
    }
    from.expect("the number of parameters", o.params().len() as u64)?;
    for p in o.params_mut() {
        from.expect("a parameter's group", p.group as u64)?;
        (p.steps, p.started) = (from.number()?, from.number()? != 0);
        (p.scalars, p.seed) = (from.floats()?, from.number()?);
        p.slots.iter_mut().try_for_each(|slot| restore(slot, &mut from))?;
        let companion = from.bytes()?;
        match &mut p.companion {
            Some(c) => c.set_bytes(companion)?,
            None if companion.is_empty() => {}
            None => return fault(BITSTEP_STATE, "saved state: a parameter of another type"),
        }
    }
    if !from.0.is_empty() {
        return fault(BITSTEP_STATE, "saved state: goes on after its end");
    }
    o.restore_mode(if mode == 0 { Mode::Train } else { Mode::Eval });
    Ok(o)
}

/// Copies saved state to the caller's memory, which must have its size.
///
/// # Safety
/// `memory` is NULL, or there are `size` bytes.
pub(crate) unsafe fn copy_out(bytes: &[u8], memory: *mut u8, size: usize) -> Result<(), Fault> {
    if bytes.len() != size || memory.is_null() {
        let wanted = bytes.len();
        return fault(BITSTEP_LENGTH, format!("memory has {size} bytes, {wanted} are needed"));
    }
    // SAFETY: not NULL; the rest is the caller's promise.
    unsafe { slice_mut(memory, size) }.copy_from_slice(bytes);
    Ok(())
}

/// Writes to `size` how many bytes `bitstep_optimizer_save` needs.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_save_size(
    optimizer: *mut Optimizer,
    size: *mut usize,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let (optimizer, size) = unsafe { (at("optimizer", optimizer)?, at("size", size)?) };
        *size = saved(optimizer).len();
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// Writes all state, counters and learning rates to `memory`, `size` bytes long. The same bytes on
/// every machine, to be read by this interface.
///
/// # Safety
/// Pointers are valid or NULL, and there are `size` bytes at `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_save(
    optimizer: *mut Optimizer,
    memory: *mut u8,
    size: usize,
    error: *mut Failure,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { answer(error, || copy_out(&saved(at("optimizer", optimizer)?), memory, size)) }
}

/// Goes on from saved state, in an optimizer with the same groups and parameters.
///
/// # Safety
/// Pointers are valid or NULL, and there are `size` bytes at `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_load(
    optimizer: *mut Optimizer,
    memory: *const u8,
    size: usize,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let optimizer = unsafe { at("optimizer", optimizer)? };
        // SAFETY: the caller's promise.
        optimizer.0 = loaded(optimizer, unsafe { list("memory", memory, size)? })?;
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}
