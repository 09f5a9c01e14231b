//! An optimizer that owns its state.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::ffi::c_char;
use core::fmt::Display;

use bitstep::hyper::Args;
use bitstep::optimizer::{Buffer, GroupId, Param, ParamState};
use bitstep::registry::OPTIMIZERS;
use bitstep::rule::mode::Mode;
use bitstep::storage::memory::collected;

use crate::args::{NamedNumber, args, check_rate, extra, from_numbers, name, spec};
use crate::error::{BITSTEP_ARGUMENT, BITSTEP_LENGTH, ErrorMessage, Status, err};
use crate::places::{Places, ffi_call};
use crate::tensor::{Tensor, data_mut, grad, note};

/// Groups of parameters and their state.
#[derive(Default)]
pub struct Optimizer {
    pub(crate) inner: bitstep::optimizer::Optimizer,
    /// The registry names of the groups, which saved state refers to.
    pub(crate) names: Vec<&'static str>,
    /// The threads of `bitstep_optimizer_step_threads`.
    #[cfg(feature = "std")]
    pub(crate) pool: Option<crate::threads::Threads>,
}

/// Creates an optimizer without groups or parameters. Free it with `bitstep_optimizer_free`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_new(
    optimizer: *mut *mut Optimizer,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let out = places.out("optimizer", optimizer)?;
            out.set(Box::into_raw(Box::default()));
            Ok(())
        })
    }
}

/// Frees an optimizer. NULL is ignored.
///
/// # Safety
/// It is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_free(optimizer: *mut Optimizer) {
    if !optimizer.is_null() {
        // SAFETY: it came from `Box::into_raw` and is not used afterwards.
        drop(unsafe { Box::from_raw(optimizer) });
    }
}

fn add_group(optimizer: &mut Optimizer, name: &str, args: &Args) -> Result<usize, Status> {
    let group = optimizer.inner.add_group(spec(name, args)?)?;
    let known = OPTIMIZERS.iter().find(|entry| entry.name == name);
    optimizer.names.push(known.map_or("", |entry| entry.name));
    Ok(group.0)
}

/// Adds a group of parameters and writes its index to `group`. `name` is one of Transformers' `optim=`
/// strings. `arguments` are the hyper-parameters under the reference's names, as JSON or text, at most
/// 65536 bytes: `{"lr": 1e-3}` or `lr=1e-3, betas=[0.9, 0.95]`; NULL for the defaults.
///
/// Two more arguments say how numbers are kept between steps, by the names that saved files have for it:
/// `storage`, that of all slots or of some, `{"exp_avg": "companded:momentum"}`, and `weights`, that of
/// 16-bit parameters: `plain`, `split:8`, `split:16`, `kahan` or `stochastic:SEED`.
///
/// # Safety
/// Pointers are valid or NULL, strings end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_add_group(
    optimizer: *mut Optimizer,
    name: *const c_char,
    arguments: *const c_char,
    group: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            let group = places.out("group", group)?;
            let name = self::name(places, "name", name)?;
            let arguments = args(places, arguments)?;
            places.check()?;
            group.set(add_group(optimizer, name, &arguments)?);
            Ok(())
        })
    }
}

/// Adds a group as `bitstep_optimizer_add_group` does, with the hyper-parameters as at most 1024 named
/// numbers, so that no string has to be parsed.
///
/// # Safety
/// Pointers are valid or NULL, strings end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_add_group_of(
    optimizer: *mut Optimizer,
    name: *const c_char,
    arguments: *const NamedNumber,
    count: usize,
    group: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            let group = places.out("group", group)?;
            let name = self::name(places, "name", name)?;
            let arguments = from_numbers(places, arguments, count)?;
            places.check()?;
            group.set(add_group(optimizer, name, &arguments)?);
            Ok(())
        })
    }
}

/// Adds a parameter of `dimensions` dimensions to a group. Steps take the parameters in the order in
/// which they were added. Returns `BITSTEP_MEMORY` if its state can't be allocated.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_add_param(
    optimizer: *mut Optimizer,
    group: usize,
    shape: *const usize,
    dimensions: usize,
    dtype: u32,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            let shape = places.list("shape", shape, dimensions)?;
            places.check()?;
            optimizer.inner.add_param_to(GroupId(group), shape, crate::tensor::dtype(dtype)?)?;
            Ok(())
        })
    }
}

pub(crate) const NO_GROUP: bitstep::Error =
    bitstep::Error::InvalidArgument { argument: "group", expected: "the id of a group" };

/// Sets a group's learning rate. A negative rate or NaN is refused, as by every reference's constructor.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_set_lr(
    optimizer: *mut Optimizer,
    group: usize,
    lr: f64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            check_rate(lr)?;
            let group = optimizer.inner.groups_mut().get_mut(group);
            group.ok_or(NO_GROUP)?.lr = lr;
            Ok(())
        })
    }
}

/// Writes a group's current learning rate to `lr`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_lr(
    optimizer: *const Optimizer,
    group: usize,
    lr: *mut f64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let lr = places.out("lr", lr)?;
            places.check()?;
            lr.set(optimizer.inner.groups().get(group).ok_or(NO_GROUP)?.lr);
            Ok(())
        })
    }
}

pub(crate) fn check_count(optimizer: &Optimizer, count: usize) -> Result<(), Status> {
    let expected = optimizer.inner.params().len();
    if count != expected {
        return err(BITSTEP_LENGTH, format!("count: {count} tensors, but {expected} parameters"));
    }
    Ok(())
}

/// Names the tensor that is not of its parameter's length or type.
pub(crate) fn check_tensors(optimizer: &Optimizer, tensors: &[Tensor]) -> Result<(), Status> {
    let pairs = tensors.iter().zip(optimizer.inner.params()).enumerate();
    for (i, (tensor, state)) in pairs {
        check_tensor(&format_args!("tensors[{i}]"), tensor, state)?;
    }
    Ok(())
}

pub(crate) fn check_tensor(
    what: &dyn Display,
    tensor: &Tensor,
    state: &ParamState,
) -> Result<(), Status> {
    let len: usize = state.shape.iter().product();
    if tensor.len != len {
        let message = format!("{what}: {} numbers, but the parameter has {len}", tensor.len);
        return err(BITSTEP_LENGTH, message);
    }
    if tensor.dtype != state.dtype as u32 {
        let message = format!("{what}: not {}, the type of the parameter", state.dtype.id());
        return err(BITSTEP_ARGUMENT, message);
    }
    Ok(())
}

/// Whether a rule of the optimizer uses an extra argument of that name.
pub(crate) fn known(optimizer: &Optimizer) -> impl Fn(&str) -> bool {
    let rules = || optimizer.inner.groups().iter().map(|group| &group.spec.rule);
    move |name| rules().any(|rule| rule.info().extra_args.contains(&name))
}

/// Steps all parameters. `tensors` are in the order in which the parameters were added, and of the types
/// that they were added with. `given_numbers` are extra arguments that some rules use, such as
/// `train_loss`; a name that no rule of the optimizer uses is refused.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_step(
    optimizer: *mut Optimizer,
    tensors: *const Tensor,
    count: usize,
    given_numbers: *const NamedNumber,
    given_count: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            check_count(optimizer, count)?;
            let tensors = places.list("tensors", tensors, count)?;
            let extra = extra(places, given_numbers, given_count, known(optimizer))?;
            note(places, "tensors", tensors, true)?;
            places.check()?;
            check_tensors(optimizer, tensors)?;
            let params = tensors.iter().map(|t| Param { value: data_mut(t), grad: grad(t) });
            Ok(optimizer.inner.step_all(&mut collected("tensors", params)?, &extra)?)
        })
    }
}

/// # Safety
/// As [`bitstep_optimizer_step`].
unsafe fn switch(
    places: &mut Places,
    optimizer: *mut Optimizer,
    tensors: *const Tensor,
    count: usize,
    to: Mode,
) -> Result<(), Status> {
    // SAFETY: guaranteed by the caller, here and below.
    let optimizer = unsafe { places.handle_mut("optimizer", optimizer)? };
    check_count(optimizer, count)?;
    // SAFETY: as above.
    let tensors = unsafe { places.list("tensors", tensors, count)? };
    note(places, "tensors", tensors, false)?;
    places.check()?;
    check_tensors(optimizer, tensors)?;
    let params = tensors.iter().map(|t| {
        // SAFETY: as above; the tensors have been checked.
        unsafe { data_mut(t) }
    });
    let mut params = collected("tensors", params)?;
    match to {
        Mode::Eval => optimizer.inner.eval(&mut params)?,
        Mode::Train => optimizer.inner.train(&mut params)?,
    }
    Ok(())
}

/// Converts the parameters to their evaluation values, in place. Only schedule-free optimizers evaluate
/// other values than they train. Steps are refused until `bitstep_optimizer_train`. Gradients are ignored.
///
/// # Safety
/// As `bitstep_optimizer_step`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_eval(
    optimizer: *mut Optimizer,
    tensors: *const Tensor,
    count: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe { ffi_call(error, |places| switch(places, optimizer, tensors, count, Mode::Eval)) }
}

/// Converts the parameters back to their training values.
///
/// # Safety
/// As `bitstep_optimizer_step`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_train(
    optimizer: *mut Optimizer,
    tensors: *const Tensor,
    count: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe { ffi_call(error, |places| switch(places, optimizer, tensors, count, Mode::Train)) }
}

/// Writes the size of all state buffers, in bytes, to `size`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_state_size(
    optimizer: *const Optimizer,
    size: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    let raw = |raw: &bitstep::storage::RawBuffer| raw.len() * raw.element().size();
    let slot = |slot: &Buffer| match slot {
        Buffer::Encoded(coded) => coded.raws().map(raw).iter().sum(),
        plain => plain.len() * plain.data().map_or(0, |data| data.dtype().size()),
    };
    let bytes = |p: &bitstep::optimizer::ParamState| {
        p.slots.iter().map(slot).sum::<usize>() + p.correction.as_ref().map_or(0, raw)
    };
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let size = places.out("size", size)?;
            places.check()?;
            size.set(optimizer.inner.params().iter().map(bytes).sum());
            Ok(())
        })
    }
}
