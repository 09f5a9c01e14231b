//! An optimizer's state as bytes, and back.

use crate::error::ErrorMessage;
use crate::optimizer::Optimizer;
use crate::places::answer;
use crate::tensor::slice_mut;

/// Writes to `size` how many bytes `bitstep_optimizer_save` needs.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_save_size(
    optimizer: *const Optimizer,
    size: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let size = places.out("size", size)?;
            places.check()?;
            size.set(optimizer.inner.saved_len());
            Ok(())
        })
    }
}

/// Writes all state, counters and learning rates to `memory`, `size` bytes long. The same bytes on
/// every machine, and those of `Optimizer::save` in Rust. They begin with `bitstep`, a 0, and the
/// version of what follows, as the 8 bytes of a little-endian number, and end with a checksum. Later
/// versions of this interface read what this one writes, and this one reads what versions 2 and 3
/// wrote.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            places.written("memory", memory.cast(), size, 1)?;
            places.check()?;
            Ok(optimizer.inner.save_into(slice_mut(memory, size))?)
        })
    }
}

/// Goes on from saved state, in an optimizer whose groups have the same rules, arithmetic and storage
/// and whose parameters have the same shapes and types; any other is refused, and so are damaged bytes
/// and a version that is not known. Arguments other than the rate are those of here.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            let bytes = places.list("memory", memory, size)?;
            places.check()?;
            Ok(optimizer.inner.load_named(bytes, &optimizer.names)?)
        })
    }
}
