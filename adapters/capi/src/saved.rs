//! Saving an optimizer's state to bytes, and loading it.

use crate::error::ErrorMessage;
use crate::optimizer::Optimizer;
use crate::places::ffi_call;
use crate::tensor::slice_mut;

/// Writes the number of bytes that `bitstep_optimizer_save` needs to `size`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_save_size(
    optimizer: *const Optimizer,
    size: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let size = places.out("size", size)?;
            places.check()?;
            size.set(optimizer.inner.saved_len());
            Ok(())
        })
    }
}

/// Saves all state, counters and learning rates to `memory`, which is `size` bytes long. The bytes are
/// the same on every machine, and those of `Optimizer::save` in Rust. They begin with `bitstep`, a 0 and
/// the format version as a little-endian 64-bit integer, and end with a checksum. Later versions of this
/// interface read what this one writes, and this one reads what versions 2 and 3 wrote.
///
/// # Safety
/// Pointers are valid or NULL, and there are `size` bytes at `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_save(
    optimizer: *const Optimizer,
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
            Ok(optimizer.inner.save_into(slice_mut(memory, size))?)
        })
    }
}

/// Loads saved state into an optimizer whose groups have the same rules, compute policy and storage, and
/// whose parameters have the same shapes and types. Any other is refused, and so are damaged bytes and an
/// unknown version. Learning rates are loaded; all other hyper-parameters stay as they are.
///
/// # Safety
/// Pointers are valid or NULL, and there are `size` bytes at `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_load(
    optimizer: *mut Optimizer,
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
            Ok(optimizer.inner.load_named(bytes, &optimizer.names)?)
        })
    }
}
