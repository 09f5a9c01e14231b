//! An optimizer that owns its state.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::ffi::c_char;

use bitstep::hyper::Args;
use bitstep::optimizer::{Buffer, GroupId, Param};
use bitstep::registry;
use bitstep::rule::mode::Mode;
use bitstep::storage::memory::collected;

use crate::args::{NamedNumber, args, check_rate, from_numbers, given, name};
use crate::error::{BITSTEP_LENGTH, ErrorMessage, Fault, fault};
use crate::places::{Places, answer};
use crate::tensor::{Tensor, data_mut, grad, note};

/// Groups of parameters and their state.
#[derive(Default)]
pub struct Optimizer {
    pub(crate) inner: bitstep::optimizer::Optimizer,
    /// The names that the groups were made of.
    pub(crate) names: Vec<&'static str>,
}

/// Makes an optimizer without parameters. To be freed with `bitstep_optimizer_free`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_new(
    optimizer: *mut *mut Optimizer,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let out = places.out("optimizer", optimizer)?;
            out.set(Box::into_raw(Box::default()));
            Ok(())
        })
    }
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

fn add_group(optimizer: &mut Optimizer, name: &str, args: &Args) -> Result<usize, Fault> {
    let recipe = registry::optimizer(name, args)?;
    let group = optimizer.inner.add_group(recipe)?;
    let known = bitstep::registry::OPTIMIZERS.iter().find(|entry| entry.name == name);
    optimizer.names.push(known.map_or("", |entry| entry.name));
    Ok(group.0)
}

/// Adds a group of parameters that share `name`, one of Transformers' `optim=` strings, and
/// `arguments`, under the reference's names: `{"lr": 1e-3}` or `lr=1e-3, weight_decay=0.1`, at most
/// 65536 bytes; NULL for the defaults. Its number is written to `group`.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
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

/// The same with arguments as plain numbers, at most 1024, without a string to be read.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
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

/// Adds a parameter of `dimensions` dimensions to a group. Steps get the parameters in this order.
/// `BITSTEP_MEMORY` if there is none for its state.
///
/// # Safety
/// Pointers are valid or NULL, and there is as much behind them as is said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_add_param(
    optimizer: *mut Optimizer,
    group: usize,
    shape: *const usize,
    dimensions: usize,
    dtype: u32,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            let shape = places.list("shape", shape, dimensions)?;
            places.check()?;
            optimizer.inner.add_param_to(GroupId(group), shape, crate::tensor::dtype(dtype)?)?;
            Ok(())
        })
    }
}

const NO_GROUP: bitstep::Error =
    bitstep::Error::InvalidArgument { argument: "group", expected: "the number of a group" };

/// Sets a group's learning rate, as a schedule does. A rate that is negative or NaN is refused, as
/// by every reference's constructor.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            check_rate(lr)?;
            let group = optimizer.inner.groups_mut().get_mut(group);
            group.ok_or(NO_GROUP)?.lr = lr;
            Ok(())
        })
    }
}

/// Writes a group's learning rate to `lr`.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let lr = places.out("lr", lr)?;
            places.check()?;
            lr.set(optimizer.inner.groups().get(group).ok_or(NO_GROUP)?.lr);
            Ok(())
        })
    }
}

fn check_count(optimizer: &Optimizer, count: usize) -> Result<(), Fault> {
    let expected = optimizer.inner.params().len();
    if count != expected {
        return fault(BITSTEP_LENGTH, format!("{count} tensors, but {expected} parameters"));
    }
    Ok(())
}

/// One step of all parameters, in the order in which they were added, each with the type that it was
/// added with. `given` are numbers that some rules listen to, `train_loss` for one; mostly there are
/// none, and those that no rule of the optimizer listens to are refused.
///
/// # Safety
/// Pointers are valid or NULL, and there is as much behind them as is said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_step(
    optimizer: *mut Optimizer,
    tensors: *const Tensor,
    count: usize,
    given_numbers: *const NamedNumber,
    given_count: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            check_count(optimizer, count)?;
            let tensors = places.list("tensors", tensors, count)?;
            let rules = || optimizer.inner.groups().iter().map(|group| &group.spec.rule);
            let known = |name: &str| rules().any(|rule| rule.info().extra_args.contains(&name));
            let given = given(places, given_numbers, given_count, known)?;
            note(places, tensors, true)?;
            places.check()?;
            let params = tensors.iter().map(|t| Param { value: data_mut(t), grad: grad(t) });
            Ok(optimizer.inner.step_all(&mut collected("tensors", params)?, &given)?)
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
) -> Result<(), Fault> {
    // SAFETY: the caller's promise, here and below.
    let optimizer = unsafe { places.handle_mut("optimizer", optimizer)? };
    check_count(optimizer, count)?;
    // SAFETY: as above.
    let tensors = unsafe { places.list("tensors", tensors, count)? };
    note(places, tensors, false)?;
    places.check()?;
    let params = tensors.iter().map(|t| {
        // SAFETY: as above, and checked.
        unsafe { data_mut(t) }
    });
    let mut params = collected("tensors", params)?;
    match to {
        Mode::Eval => optimizer.inner.eval(&mut params)?,
        Mode::Train => optimizer.inner.train(&mut params)?,
    }
    Ok(())
}

/// Turns parameters into those to evaluate, in place: schedule-free optimizers have others than
/// those that they train. Until `bitstep_optimizer_train`, steps are refused. Gradients are not looked
/// at.
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
    // SAFETY: the caller's promise.
    unsafe { answer(error, |places| switch(places, optimizer, tensors, count, Mode::Eval)) }
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
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { answer(error, |places| switch(places, optimizer, tensors, count, Mode::Train)) }
}

/// Writes to `size` how many bytes the numbers of the state take in memory.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let size = places.out("size", size)?;
            places.check()?;
            size.set(optimizer.inner.params().iter().map(bytes).sum());
            Ok(())
        })
    }
}
