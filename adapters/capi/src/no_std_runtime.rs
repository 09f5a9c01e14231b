//! The allocator and the panic handler without std: both call functions that the caller defines.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;

unsafe extern "C" {
    /// Defined by the caller: allocates `size` bytes aligned to `align`, or returns NULL.
    fn bitstep_allocate(size: usize, align: usize) -> *mut c_void;
    /// Defined by the caller: frees memory from `bitstep_allocate`.
    fn bitstep_release(memory: *mut c_void, size: usize, align: usize);
    /// Defined by the caller: ends the program after a failed small allocation or a bug. Must not return.
    fn bitstep_abort() -> !;
}

struct CallerAllocator;

// SAFETY: the caller's functions meet the requirements of an allocator.
unsafe impl GlobalAlloc for CallerAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and alignment may be requested.
        unsafe { bitstep_allocate(layout.size(), layout.align()) }.cast()
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: it came from `bitstep_allocate` with this layout.
        unsafe { bitstep_release(memory.cast(), layout.size(), layout.align()) }
    }
}

#[global_allocator]
static MEMORY: CallerAllocator = CallerAllocator;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: may be called at any time.
    unsafe { bitstep_abort() }
}
