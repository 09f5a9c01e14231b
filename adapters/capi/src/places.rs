//! The pointers of one call: each is checked, and where it points is noted, so that what is written
//! to is known to be apart from all else.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_void};

use bitstep::float::Dtype;

use crate::error::{
    BITSTEP_ARGUMENT, BITSTEP_MEMORY, BITSTEP_OK, BITSTEP_POINTER, ErrorMessage, Fault, fault,
};

/// Runs the body of a function of the interface.
///
/// # Safety
/// `error` is NULL or points to a [`ErrorMessage`].
pub(crate) unsafe fn answer(
    error: *mut ErrorMessage,
    body: impl FnOnce(&mut Places) -> Result<(), Fault>,
) -> i32 {
    let mut places = Places::default();
    let run = || body(&mut places);
    #[cfg(feature = "std")]
    let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(run))
        .unwrap_or_else(|_| fault(crate::error::BITSTEP_PANIC, "a defect of bitstep: it panicked"));
    #[cfg(not(feature = "std"))]
    let result = run();
    let Err(Fault(status, message)) = result else { return BITSTEP_OK };
    if error.is_null() || places.meet(error as usize, size_of::<ErrorMessage>()) {
        return status;
    }
    // SAFETY: not NULL, and aligned as bytes always are; the rest is the caller's promise.
    let room = unsafe { &mut (*error).message };
    room.fill(0);
    // The last byte stays 0. A message cut within a character is still a string of bytes.
    let most = room.len() - 1;
    for (to, byte) in room.iter_mut().zip(message.bytes().take(most)) {
        *to = byte as c_char;
    }
    status
}

/// Where all that a call got lies.
#[derive(Default)]
pub(crate) struct Places(Vec<Place>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    start: usize,
    end: usize,
    written: bool,
}

/// A place for an answer.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes the answer; nothing can go wrong any more.
    pub(crate) fn set(self, value: T) {
        // SAFETY: `Places::out` has checked what can be checked; the rest is its caller's promise.
        unsafe { self.0.write(value) }
    }
}

impl Places {
    /// Notes `size` bytes, of which nothing is written or read here.
    fn note(
        &mut self,
        what: &str,
        pointer: *const c_void,
        size: Option<usize>,
        align: usize,
        written: bool,
    ) -> Result<(), Fault> {
        let start = pointer as usize;
        let size = size.filter(|&size| size <= isize::MAX as usize);
        match size.and_then(|size| start.checked_add(size)) {
            // To nothing at all any pointer will do.
            Some(end) if end == start => Ok(()),
            Some(end) if start != 0 && start.is_multiple_of(align) => {
                if self.0.try_reserve(1).is_err() {
                    return fault(BITSTEP_MEMORY, "no memory to look for overlaps");
                }
                self.0.push(Place { start, end, written });
                Ok(())
            }
            _ => fault(BITSTEP_POINTER, format!("{what}: NULL, not aligned, or too long")),
        }
    }

    /// Notes numbers of a type.
    pub(crate) fn numbers(
        &mut self,
        what: &str,
        pointer: *const c_void,
        len: usize,
        dtype: Dtype,
        written: bool,
    ) -> Result<(), Fault> {
        self.note(what, pointer, len.checked_mul(dtype.size()), dtype.size(), written)
    }

    /// Bytes that are written to, beginning at a multiple of `align`.
    pub(crate) fn written(
        &mut self,
        what: &str,
        pointer: *const c_void,
        size: usize,
        align: usize,
    ) -> Result<(), Fault> {
        self.note(what, pointer, Some(size), align, true)
    }

    fn one<T>(&mut self, what: &str, pointer: *const T, written: bool) -> Result<(), Fault> {
        self.note(what, pointer.cast(), Some(size_of::<T>()), align_of::<T>(), written)
    }

    /// What a handle stands for.
    ///
    /// # Safety
    /// `pointer` is NULL or a live handle that nobody changes meanwhile.
    pub(crate) unsafe fn handle<'a, T>(
        &mut self,
        what: &str,
        pointer: *const T,
    ) -> Result<&'a T, Fault> {
        self.one(what, pointer, false)?;
        // SAFETY: not NULL and aligned; the rest is the caller's promise.
        Ok(unsafe { &*pointer })
    }

    /// The same, to change it.
    ///
    /// # Safety
    /// `pointer` is NULL or a live handle that nobody else uses meanwhile.
    pub(crate) unsafe fn handle_mut<'a, T>(
        &mut self,
        what: &str,
        pointer: *mut T,
    ) -> Result<&'a mut T, Fault> {
        self.one(what, pointer, true)?;
        // SAFETY: not NULL and aligned; the rest is the caller's promise.
        Ok(unsafe { &mut *pointer })
    }

    /// A place for an answer.
    ///
    /// # Safety
    /// `pointer` is NULL, or a `T` may be written there.
    pub(crate) unsafe fn out<T>(&mut self, what: &str, pointer: *mut T) -> Result<Out<T>, Fault> {
        self.one(what, pointer, true)?;
        Ok(Out(pointer))
    }

    /// `count` elements at `pointer`, which may be NULL if there are none.
    ///
    /// # Safety
    /// There are that many, and they live and stay as they are as long as the answer.
    pub(crate) unsafe fn list<'a, T>(
        &mut self,
        what: &str,
        pointer: *const T,
        count: usize,
    ) -> Result<&'a [T], Fault> {
        self.note(what, pointer.cast(), count.checked_mul(size_of::<T>()), align_of::<T>(), false)?;
        if count == 0 {
            return Ok(&[]);
        }
        // SAFETY: not NULL, aligned, no larger than an object may be; the rest is the caller's promise.
        Ok(unsafe { core::slice::from_raw_parts(pointer, count) })
    }

    /// A string of at most `longest` bytes.
    ///
    /// # Safety
    /// `text` is NULL or a string ended by 0, which lives as long as the answer.
    pub(crate) unsafe fn text<'a>(
        &mut self,
        what: &str,
        text: *const c_char,
        longest: usize,
    ) -> Result<&'a str, Fault> {
        if text.is_null() {
            return fault(BITSTEP_POINTER, format!("{what} is NULL"));
        }
        // SAFETY: the caller's promise.
        let found = unsafe { CStr::from_ptr(text) };
        let len = found.count_bytes();
        self.note(what, text.cast(), len.checked_add(1), 1, false)?;
        if len > longest {
            let head = String::from_utf8_lossy(found.to_bytes().get(..40).unwrap_or_default());
            let message = format!("{what} is too long: {len} bytes, beginning with `{head}`");
            return fault(BITSTEP_ARGUMENT, message);
        }
        found.to_str().or_else(|_| fault(BITSTEP_ARGUMENT, format!("{what} is not UTF-8")))
    }

    /// Refuses what is written to where it overlaps anything. To be called before anything is written.
    pub(crate) fn check(&mut self) -> Result<(), Fault> {
        self.0.sort_unstable();
        // The furthest end so far, of all and of what is written.
        let (mut end, mut end_written) = (0, 0);
        for place in &self.0 {
            if place.start < end_written || place.written && place.start < end {
                return fault(BITSTEP_POINTER, "what is written to overlaps something else");
            }
            end = end.max(place.end);
            if place.written {
                end_written = end_written.max(place.end);
            }
        }
        Ok(())
    }

    /// Whether any of them meets these bytes.
    pub(crate) fn meet(&self, start: usize, size: usize) -> bool {
        let end = start.saturating_add(size);
        self.0.iter().any(|place| place.start < end && start < place.end)
    }
}
