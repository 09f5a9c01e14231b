//! Without std: memory and the end of the program are the caller's.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;

unsafe extern "C" {
    /// To be defined by the caller: `size` bytes at a multiple of `align`, or NULL.
    fn bitstep_allocate(size: usize, align: usize) -> *mut c_void;
    /// To be defined by the caller: gives back what `bitstep_allocate` gave.
    fn bitstep_release(memory: *mut c_void, size: usize, align: usize);
    /// To be defined by the caller: no memory even for something small, or a defect. Must not return.
    fn bitstep_abort() -> !;
}

struct CallerAllocator;

// SAFETY: the caller promises what an allocator must.
unsafe impl GlobalAlloc for CallerAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and alignment may be asked for.
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
