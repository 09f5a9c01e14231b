//! The pointers of one call. Each is checked, and its memory range is recorded, so that no range that is
//! written to overlaps another.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_void};
use core::fmt::Display;

use bitstep::float::Dtype;

use crate::error::{
    BITSTEP_ARGUMENT, BITSTEP_MEMORY, BITSTEP_OK, BITSTEP_POINTER, ErrorMessage, Status, err,
};

/// Runs the body of a function of the interface.
///
/// # Safety
/// `error` is NULL or points to an [`ErrorMessage`].
pub(crate) unsafe fn ffi_call(
    error: *mut ErrorMessage,
    body: impl FnOnce(&mut Places) -> Result<(), Status>,
) -> i32 {
    let mut places = Places::default();
    let run = || body(&mut places);
    #[cfg(feature = "std")]
    let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(run))
        .unwrap_or_else(|_| err(crate::error::BITSTEP_PANIC, "a defect of bitstep: it panicked"));
    #[cfg(not(feature = "std"))]
    let result = run();
    let Err(Status(status, message)) = result else { return BITSTEP_OK };
    if error.is_null() || places.meet(error as usize, size_of::<ErrorMessage>()) {
        return status;
    }
    // SAFETY: not NULL, and bytes are always aligned; the rest is guaranteed by the caller.
    let room = unsafe { &mut (*error).message };
    room.fill(0);
    // The last byte stays 0. Truncation may split a UTF-8 character.
    let most = room.len() - 1;
    for (to, byte) in room.iter_mut().zip(message.bytes().take(most)) {
        *to = byte as c_char;
    }
    status
}

/// The memory ranges of everything passed to a call.
#[derive(Default)]
pub(crate) struct Places(Vec<Place>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    start: usize,
    end: usize,
    written: bool,
}

/// An output pointer.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes the output, once nothing can fail any more.
    pub(crate) fn set(self, value: T) {
        // SAFETY: `Places::out` has checked what can be checked; the rest is guaranteed by its caller.
        unsafe { self.0.write(value) }
    }
}

impl Places {
    /// Checks and records a range of `size` bytes, without accessing it.
    fn note(
        &mut self,
        what: &dyn Display,
        pointer: *const c_void,
        size: Option<usize>,
        align: usize,
        written: bool,
    ) -> Result<(), Status> {
        let start = pointer as usize;
        let size = size.filter(|&size| size <= isize::MAX as usize);
        match size.and_then(|size| start.checked_add(size)) {
            // An empty range may have any pointer, even NULL.
            Some(end) if end == start => Ok(()),
            Some(end) if start != 0 && start.is_multiple_of(align) => {
                if self.0.try_reserve(1).is_err() {
                    return err(BITSTEP_MEMORY, "no memory to look for overlaps");
                }
                self.0.push(Place { start, end, written });
                Ok(())
            }
            _ => err(BITSTEP_POINTER, format!("{what}: NULL, not aligned, or too long")),
        }
    }

    /// Records `len` elements of a type.
    pub(crate) fn numbers(
        &mut self,
        what: &dyn Display,
        pointer: *const c_void,
        len: usize,
        dtype: Dtype,
        written: bool,
    ) -> Result<(), Status> {
        self.note(what, pointer, len.checked_mul(dtype.size()), dtype.size(), written)
    }

    /// Records bytes that are written to, aligned to `align`.
    pub(crate) fn written(
        &mut self,
        what: &str,
        pointer: *const c_void,
        size: usize,
        align: usize,
    ) -> Result<(), Status> {
        self.note(&what, pointer, Some(size), align, true)
    }

    fn one<T>(&mut self, what: &str, pointer: *const T, written: bool) -> Result<(), Status> {
        self.note(&what, pointer.cast(), Some(size_of::<T>()), align_of::<T>(), written)
    }

    /// The object behind a handle.
    ///
    /// # Safety
    /// `pointer` is NULL or a live handle that no one modifies meanwhile.
    pub(crate) unsafe fn handle<'a, T>(
        &mut self,
        what: &str,
        pointer: *const T,
    ) -> Result<&'a T, Status> {
        self.one(what, pointer, false)?;
        // SAFETY: not NULL and aligned; the rest is guaranteed by the caller.
        Ok(unsafe { &*pointer })
    }

    /// The object behind a handle, mutably.
    ///
    /// # Safety
    /// `pointer` is NULL or a live handle that no one else uses meanwhile.
    pub(crate) unsafe fn handle_mut<'a, T>(
        &mut self,
        what: &str,
        pointer: *mut T,
    ) -> Result<&'a mut T, Status> {
        self.one(what, pointer, true)?;
        // SAFETY: not NULL and aligned; the rest is guaranteed by the caller.
        Ok(unsafe { &mut *pointer })
    }

    /// An output pointer.
    ///
    /// # Safety
    /// `pointer` is NULL, or a `T` may be written there.
    pub(crate) unsafe fn out<T>(&mut self, what: &str, pointer: *mut T) -> Result<Out<T>, Status> {
        self.one(what, pointer, true)?;
        Ok(Out(pointer))
    }

    /// `count` elements at `pointer`, which may be NULL if `count` is 0.
    ///
    /// # Safety
    /// There are that many, and they stay valid and unchanged for `'a`.
    pub(crate) unsafe fn list<'a, T>(
        &mut self,
        what: &str,
        pointer: *const T,
        count: usize,
    ) -> Result<&'a [T], Status> {
        self.note(
            &what,
            pointer.cast(),
            count.checked_mul(size_of::<T>()),
            align_of::<T>(),
            false,
        )?;
        if count == 0 {
            return Ok(&[]);
        }
        // SAFETY: not NULL, aligned, at most `isize::MAX` bytes; the rest is guaranteed by the caller.
        Ok(unsafe { core::slice::from_raw_parts(pointer, count) })
    }

    /// A string of at most `longest` bytes.
    ///
    /// # Safety
    /// `text` is NULL or a NUL-terminated string that stays valid for `'a`.
    pub(crate) unsafe fn text<'a>(
        &mut self,
        what: &str,
        text: *const c_char,
        longest: usize,
    ) -> Result<&'a str, Status> {
        if text.is_null() {
            return err(BITSTEP_POINTER, format!("{what} is NULL"));
        }
        // SAFETY: guaranteed by the caller.
        let found = unsafe { CStr::from_ptr(text) };
        let len = found.count_bytes();
        self.note(&what, text.cast(), len.checked_add(1), 1, false)?;
        if len > longest {
            let head = String::from_utf8_lossy(found.to_bytes().get(..40).unwrap_or_default());
            let message = format!("{what} is too long: {len} bytes, beginning with `{head}`");
            return err(BITSTEP_ARGUMENT, message);
        }
        found.to_str().or_else(|_| err(BITSTEP_ARGUMENT, format!("{what} is not UTF-8")))
    }

    /// Refuses a written range that overlaps any other. Must be called before the first write.
    pub(crate) fn check(&mut self) -> Result<(), Status> {
        self.0.sort_unstable();
        // The furthest end so far, of all ranges and of the written ones.
        let (mut end, mut end_written) = (0, 0);
        for place in &self.0 {
            if place.start < end_written || place.written && place.start < end {
                return err(BITSTEP_POINTER, "what is written to overlaps something else");
            }
            end = end.max(place.end);
            if place.written {
                end_written = end_written.max(place.end);
            }
        }
        Ok(())
    }

    /// Whether any recorded range overlaps these bytes.
    pub(crate) fn meet(&self, start: usize, size: usize) -> bool {
        let end = start.saturating_add(size);
        self.0.iter().any(|place| place.start < end && start < place.end)
    }
}
