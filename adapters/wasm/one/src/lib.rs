//! One rule over one array of numbers, as a module of a few kilobytes: no heap, no bindings, nothing formatted.
//!
//! An instance of the module is one optimizer, in a memory of its own: parameter, gradient and state, one after the
//! other. `npm/one.js` is its other half. It answers for arguments and throws, so a call that was refused does not
//! return here, and its instance is not used again.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![cfg(target_arch = "wasm32")]

use core::arch::wasm32::{memory_grow, memory_size, unreachable};
use core::cell::UnsafeCell;

use bitstep::Error;
use bitstep::hyper::{FieldMut, FieldVisitor, HyperParams};
use bitstep::rule::Rule as _;
use bitstep::state::{Optimize, State};

include!(concat!(env!("OUT_DIR"), "/rule.rs"));

#[link(wasm_import_module = "bitstep")]
unsafe extern "C" {
    /// The caller's argument of this name, or element `at`, counted from 1, of a list of `of`; else the default.
    /// JavaScript throws if it is not of this kind.
    fn argument(name: *const u8, len: usize, at: usize, of: usize, kind: u32, default: f64) -> f64;
    /// Whether the argument is null; it is told whether its default is.
    fn is_none(name: *const u8, len: usize, default: bool) -> bool;
    /// Whether the argument is this string. Without a string, JavaScript throws if it was none of those before.
    fn is_choice(name: *const u8, len: usize, choice: *const u8, choice_len: usize) -> bool;
    /// Throws: an argument with its value, NaN if there is none, and what was expected.
    fn refuse(name: *const u8, len: usize, value: f64, expected: *const u8, expected_len: usize);
    /// Throws: a field of saved state with its value and the one that was expected.
    fn refuse_saved(name: *const u8, len: usize, got: f64, expected: f64);
}

unsafe extern "C" {
    /// The linker's: the first byte behind tables and stack.
    static __heap_base: u8;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unreachable()
}

struct Optimizer {
    rule: Rule,
    param: &'static mut [f32],
    grad: &'static mut [f32],
    state: State<Rule, &'static mut [f32]>,
    /// Where saved bytes are exchanged; 0 until they are asked for.
    saved: usize,
}

/// The instance's optimizer.
struct Own(UnsafeCell<Option<Optimizer>>);

// SAFETY: the module is built without threads: its memory is not shared.
unsafe impl Sync for Own {}

static OWN: Own = Own(UnsafeCell::new(None));

fn own() -> &'static mut Optimizer {
    // SAFETY: each export takes the reference once, and no import calls an export: JavaScript's half does not.
    match unsafe { &mut *OWN.0.get() } {
        Some(own) => own,
        None => unreachable(),
    }
}

/// Makes room for so many bytes at this address; false if there is no memory.
fn reserve(start: usize, bytes: usize) -> bool {
    const PAGE: usize = 1 << 16;
    let Some(end) = start.checked_add(bytes) else { return false };
    let more = end.div_ceil(PAGE).saturating_sub(memory_size(0));
    more == 0 || memory_grow(0, more) != usize::MAX
}

fn refused(error: Error) -> ! {
    // SAFETY: the strings are static; JavaScript reads them and throws.
    unsafe {
        match error {
            Error::OutOfRange { argument: a, value, expected: e } => {
                refuse(a.as_ptr(), a.len(), value, e.as_ptr(), e.len());
            }
            Error::InvalidArgument { argument: a, expected: e } => {
                refuse(a.as_ptr(), a.len(), f64::NAN, e.as_ptr(), e.len());
            }
            Error::SavedState { what: w, got, expected } => {
                refuse_saved(w.as_ptr(), w.len(), got as f64, expected as f64);
            }
            Error::LengthMismatch { argument: a, got, expected } => {
                refuse_saved(a.as_ptr(), a.len(), got as f64, expected as f64);
            }
            _ => {}
        }
    }
    unreachable()
}

/// Sets a rule's fields to the caller's arguments.
struct Arguments;

impl FieldVisitor for Arguments {
    fn field(&mut self, name: &'static str, mut slot: FieldMut<'_>) {
        assign(name, [0, 0], &mut slot);
    }
}

/// `at` is the place in a list, from 1, and `of` the list's length; 0 if the argument is no list.
fn assign(name: &'static str, [at, of]: [usize; 2], slot: &mut FieldMut<'_>) {
    const NUMBER: u32 = 0;
    const COUNT: u32 = 1;
    const WHOLE: u32 = 2;
    const TRUTH: u32 = 3;
    // SAFETY: the string is static, and JavaScript only reads it.
    let get = |kind, default| unsafe { argument(name.as_ptr(), name.len(), at, of, kind, default) };
    // SAFETY: as above.
    let none = |default| unsafe { is_none(name.as_ptr(), name.len(), default) };
    let choose = |index: &mut usize, strings: &dyn Fn(usize) -> Option<&'static str>| {
        let strings = (0..).map_while(|i| Some((i, strings(i)?)));
        for (i, s) in strings.chain([(usize::MAX, "")]) {
            // SAFETY: as above.
            if unsafe { is_choice(name.as_ptr(), name.len(), s.as_ptr(), s.len()) } {
                *index = i;
                break;
            }
        }
    };
    match slot {
        FieldMut::F64(x) => **x = get(NUMBER, **x),
        FieldMut::U64(x) => **x = get(COUNT, **x as f64) as u64,
        FieldMut::I64(x) => **x = get(WHOLE, **x as f64) as i64,
        FieldMut::Bool(x) => **x = get(TRUTH, f64::from(u8::from(**x))) != 0.0,
        FieldMut::OptF64(x) => {
            **x = if none(x.is_none()) { None } else { Some(get(NUMBER, x.unwrap_or(0.0))) };
        }
        FieldMut::OptU64(x) => {
            let default = x.unwrap_or(0) as f64;
            **x = if none(x.is_none()) { None } else { Some(get(COUNT, default) as u64) };
        }
        FieldMut::OptBool(x) => {
            let default = f64::from(u8::from(x.unwrap_or(false)));
            **x = if none(x.is_none()) { None } else { Some(get(TRUTH, default) != 0.0) };
        }
        FieldMut::Tuple(items) => {
            let of = items.len();
            for (k, item) in items.iter_mut().enumerate() {
                assign(name, [k + 1, of], item);
            }
        }
        FieldMut::Choice(index, strings) => choose(index, strings),
        FieldMut::OptChoice(index, strings) => {
            if none(index.is_none()) {
                **index = None;
            } else {
                let mut at = index.unwrap_or(0);
                choose(&mut at, strings);
                **index = Some(at);
            }
        }
        FieldMut::Ignored => _ = none(true),
        FieldMut::MustBeNone => {
            if !none(true) {
                refused(Error::InvalidArgument { argument: name, expected: "null" });
            }
        }
    }
}

/// Makes the optimizer of this many numbers. Returns the address of the parameter, which the gradient and the state
/// follow; 0 if there is no memory for them.
#[unsafe(no_mangle)]
extern "C" fn create(len: usize) -> usize {
    let mut rule = Rule::default();
    rule.fields(&mut Arguments);
    rule.resolve_defaults();
    if let Err(error) = rule.check() {
        refused(error);
    }
    let state = State::<Rule, &mut [f32]>::memory_len(&rule, len);
    let start = (&raw const __heap_base as usize).next_multiple_of(16);
    let bytes = len.checked_mul(2).and_then(|n| n.checked_add(state)?.checked_mul(4));
    if !bytes.is_some_and(|bytes| bytes <= isize::MAX as usize && reserve(start, bytes)) {
        return 0;
    }
    // SAFETY: the memory has just been reserved from a multiple of 16, is zeros, and nothing else uses it: there is no
    // heap, and an instance makes one optimizer only.
    let [param, grad, state] = unsafe {
        let start = core::ptr::with_exposed_provenance_mut::<f32>(start);
        let of = |at, len| core::slice::from_raw_parts_mut(start.add(at), len);
        [of(0, len), of(len, len), of(2 * len, state)]
    };
    match State::new(&rule, len, state) {
        Ok(state) => {
            // SAFETY: as in `own`.
            unsafe { *OWN.0.get() = Some(Optimizer { rule, param, grad, state, saved: 0 }) };
        }
        Err(error) => refused(error),
    }
    start
}

/// The learning rate among the arguments.
#[unsafe(no_mangle)]
extern "C" fn lr() -> f64 {
    own().rule.lr()
}

/// Makes a step.
#[unsafe(no_mangle)]
extern "C" fn step(lr: f64) {
    let Optimizer { rule, param, grad, state, .. } = own();
    if let Err(error) = rule.step(state, lr, param, grad) {
        refused(error);
    }
}

/// Steps so far.
#[unsafe(no_mangle)]
extern "C" fn steps() -> f64 {
    own().state.steps() as f64
}

/// The number of bytes of parameter and state, saved.
#[unsafe(no_mangle)]
extern "C" fn saved_len() -> usize {
    own().state.saved_len()
}

/// The address where as many bytes are saved to and loaded from; 0 if there is no memory for them.
#[unsafe(no_mangle)]
extern "C" fn saved() -> usize {
    let own = own();
    if own.saved == 0 {
        let end = memory_size(0) << 16;
        if reserve(end, own.state.saved_len()) {
            own.saved = end;
        }
    }
    own.saved
}

fn saved_bytes(own: &Optimizer) -> &'static mut [u8] {
    // SAFETY: `saved` has reserved them, and nothing else uses them; JavaScript calls it first.
    unsafe {
        let start = core::ptr::with_exposed_provenance_mut(own.saved);
        core::slice::from_raw_parts_mut(start, own.state.saved_len())
    }
}

/// Writes parameter and state.
#[unsafe(no_mangle)]
extern "C" fn save() {
    let own = own();
    if let Err(error) = own.state.save(own.param, saved_bytes(own)) {
        refused(error);
    }
}

/// Reads parameter and state.
#[unsafe(no_mangle)]
extern "C" fn load() {
    let own = own();
    let bytes = saved_bytes(own);
    if let Err(error) = own.state.load(own.param, bytes) {
        refused(error);
    }
}
