//! Output and exit: by semihosting on a board, on the console on the host.

/// Prints a text.
pub fn print(text: &str) {
    #[cfg(not(target_os = "none"))]
    std::print!("{text}");
    #[cfg(target_os = "none")]
    for byte in text.bytes() {
        semihosting::sys::arm_compat::sys_writec(byte);
    }
}

/// Prints a name and words in hexadecimal. Not with `core::fmt`, which would bring code that can panic.
pub fn print_words(name: &str, words: impl IntoIterator<Item = u32>) {
    print(name);
    for word in words {
        print(" ");
        for digit in (0..8).rev() {
            let digit = (word >> (4 * digit) & 15) as usize;
            print("0123456789abcdef".get(digit..=digit).unwrap_or("?"));
        }
    }
    print("\n");
}

/// Ends the program; its exit status says whether it succeeded.
pub fn exit(ok: bool) -> ! {
    #[cfg(not(target_os = "none"))]
    std::process::exit(i32::from(!ok));
    #[cfg(target_os = "none")]
    semihosting::process::exit(i32::from(!ok));
}

#[cfg(all(target_os = "none", feature = "names"))]
#[global_allocator]
static HEAP: embedded_alloc::LlffHeap = embedded_alloc::LlffHeap::empty();

/// Initializes the heap; to be called once, before anything else.
#[cfg(feature = "names")]
pub fn start_heap() {
    #[cfg(target_os = "none")]
    {
        use core::mem::MaybeUninit;
        const BYTES: usize = 2 << 20;
        static mut MEMORY: MaybeUninit<[u8; BYTES]> = MaybeUninit::uninit();
        // SAFETY: the memory is used for nothing else, and this runs once.
        unsafe { HEAP.init((&raw mut MEMORY) as usize, BYTES) };
    }
}

/// Counts instructions, on a board that QEMU emulates with `-icount shift=6`: 64 ns each.
pub struct Stopwatch(u32);

impl Stopwatch {
    /// Starts counting.
    pub fn start() -> Self {
        Stopwatch(ticks())
    }

    /// The number of instructions since the start.
    pub fn instructions(&self) -> u32 {
        let ticks = ticks().wrapping_sub(self.0) & TICKS;
        // mps2-an386 ticks with 25 MHz, microbit with 16 MHz, virt with every nanosecond.
        let (of, nanoseconds_by) = match () {
            _ if cfg!(target_arch = "riscv32") => (1, 1),
            _ if cfg!(microbit) => (125, 2),
            _ => (40, 1),
        };
        (u64::from(ticks) * of / nanoseconds_by / 64) as u32
    }
}

#[cfg(all(target_os = "none", target_arch = "arm"))]
const TICKS: u32 = 0x00ff_ffff;
#[cfg(not(all(target_os = "none", target_arch = "arm")))]
const TICKS: u32 = u32::MAX;

#[cfg(all(target_os = "none", target_arch = "arm"))]
fn ticks() -> u32 {
    use cortex_m::peripheral::{Peripherals, SYST, syst::SystClkSource};
    // SAFETY: the timer is used only here.
    let mut timer = unsafe { Peripherals::steal() }.SYST;
    if !timer.is_counter_enabled() {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(TICKS);
        timer.clear_current();
        timer.enable_counter();
    }
    TICKS - SYST::get_current() // it counts down
}

#[cfg(all(target_os = "none", target_arch = "riscv32"))]
fn ticks() -> u32 {
    riscv::register::mcycle::read() as u32
}

#[cfg(not(target_os = "none"))]
fn ticks() -> u32 {
    0
}

/// How many bytes of stack `f` uses: those where a pattern that was painted below it is overwritten.
#[inline(never)]
pub fn stack_used(f: impl FnOnce()) -> u32 {
    #[cfg(not(target_os = "none"))]
    {
        f();
        0
    }
    #[cfg(target_os = "none")]
    {
        const WORDS: usize = 1024;
        const PAINT: u32 = 0xa5c3_3c5a;
        let top: *mut u32;
        // SAFETY: reads a register.
        unsafe {
            #[cfg(target_arch = "arm")]
            core::arch::asm!("mov {}, sp", out(reg) top, options(nomem, nostack));
            #[cfg(target_arch = "riscv32")]
            core::arch::asm!("mv {}, sp", out(reg) top, options(nomem, nostack));
        }
        // SAFETY: below the stack pointer is only free stack, of which every board has 4 KiB more. No interrupt is
        // enabled that could use it meanwhile.
        unsafe { (1..=WORDS).for_each(|i| top.sub(i).write_volatile(PAINT)) };
        f();
        // SAFETY: as above.
        let clean =
            (1..=WORDS).rev().take_while(|&i| unsafe { top.sub(i).read_volatile() } == PAINT);
        4 * (WORDS - clean.count()) as u32
    }
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    semihosting::process::exit(101)
}

#[cfg(all(target_os = "none", target_arch = "arm"))]
mod arm {
    /// A fault ends the run instead of halting the processor.
    #[cortex_m_rt::exception]
    unsafe fn HardFault(_: &cortex_m_rt::ExceptionFrame) -> ! {
        semihosting::process::exit(102)
    }
}

/// The entry point, which calls `$main`, a function that returns whether it succeeded.
#[macro_export]
macro_rules! firmware {
    ($main:path) => {
        #[cfg(not(target_os = "none"))]
        fn main() {
            $crate::board::exit($main())
        }
        #[cfg(all(target_os = "none", target_arch = "arm"))]
        #[cortex_m_rt::entry]
        fn entry() -> ! {
            $crate::board::exit($main())
        }
        #[cfg(all(target_os = "none", target_arch = "riscv32"))]
        #[riscv_rt::entry]
        fn entry() -> ! {
            $crate::board::exit($main())
        }
    };
}
