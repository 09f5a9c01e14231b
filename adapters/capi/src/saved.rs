//! An optimizer's state as bytes, and back.

use alloc::format;

use bitstep::mode::Mode;
use bitstep::real::Dtype;

use crate::bytes::{Reader, Writer, copy_out, size};
use crate::error::{BITSTEP_STATE, Failure, Fault, fault};
use crate::optimizer::Optimizer;
use crate::places::answer;
use crate::tensor::{BITSTEP_BF16, BITSTEP_F16, BITSTEP_F32, BITSTEP_F64};

/// What saved state begins with.
const MAGIC: &[u8; 7] = b"bitstep";

fn number_of(dtype: Dtype) -> u64 {
    u64::from(match dtype {
        Dtype::F64 => BITSTEP_F64,
        Dtype::F32 => BITSTEP_F32,
        Dtype::Bf16 => BITSTEP_BF16,
        Dtype::F16 => BITSTEP_F16,
    })
}

fn save(optimizer: &Optimizer, to: &mut Writer<'_>) {
    let o = &optimizer.inner;
    to.beginning(MAGIC);
    to.number(u64::from(o.mode() == Mode::Eval));
    to.number(o.groups().len() as u64);
    for (g, name) in o.groups().iter().zip(&optimizer.names) {
        to.bytes(name.as_bytes());
        to.number(g.steps);
        to.floats(&[g.lr]);
        to.floats(&g.scalars);
    }
    to.number(o.params().len() as u64);
    for p in o.params() {
        to.number(p.group as u64);
        to.number(number_of(p.dtype));
        to.number(p.shape.len() as u64);
        p.shape.iter().for_each(|&d| to.number(d as u64));
        to.number(p.steps);
        to.number(u64::from(p.started));
        to.floats(&p.scalars);
        to.number(p.seed);
        p.slots.iter().for_each(|slot| to.buffer(slot));
        p.companion.iter().for_each(|companion| to.raw(companion));
    }
}

/// Compares everything that says what the state is of, and, if the reader puts, puts all else in its
/// place: once all of it is known to fit, nothing can go wrong any more.
fn load(optimizer: &mut Optimizer, from: &mut Reader<'_>) -> Result<(), Fault> {
    let (o, puts) = (&mut optimizer.inner, from.puts);
    from.beginning(MAGIC)?;
    let mode = if from.truth("its mode")? { Mode::Eval } else { Mode::Train };
    from.expect("the number of groups", o.groups().len() as u64)?;
    for (i, (g, name)) in o.groups_mut().iter_mut().zip(&optimizer.names).enumerate() {
        if from.bytes()? != name.as_bytes() {
            return fault(BITSTEP_STATE, format!("saved state: group {i} is not of `{name}`"));
        }
        let (steps, [lr], scalars) = (from.number()?, from.floats()?, from.floats()?);
        if puts {
            (g.steps, g.lr, g.scalars) = (steps, lr, scalars);
        }
    }
    from.expect("the number of parameters", o.params().len() as u64)?;
    for p in o.params_mut() {
        from.expect("a parameter's group", p.group as u64)?;
        from.expect("a parameter's type", number_of(p.dtype))?;
        from.expect("the number of a parameter's dimensions", p.shape.len() as u64)?;
        p.shape.iter().try_for_each(|&d| from.expect("a parameter's dimension", d as u64))?;
        let (steps, started) = (from.number()?, from.truth("whether a parameter was stepped")?);
        let (scalars, seed) = (from.floats()?, from.number()?);
        if puts {
            (p.steps, p.started, p.scalars, p.seed) = (steps, started, scalars, seed);
        }
        p.slots.iter_mut().try_for_each(|slot| from.buffer(slot))?;
        p.companion.iter_mut().try_for_each(|companion| from.raw(companion))?;
    }
    from.end()?;
    if puts {
        o.restore_mode(mode);
    }
    Ok(())
}

/// Writes to `size` how many bytes `bitstep_optimizer_save` needs.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_save_size(
    optimizer: *const Optimizer,
    size: *mut usize,
    error: *mut Failure,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            let size = places.out("size", size)?;
            places.check()?;
            size.set(self::size(|to| save(optimizer, to)));
            Ok(())
        })
    }
}

/// Writes all state, counters and learning rates to `memory`, `size` bytes long. The same bytes on
/// every machine. They begin with `bitstep`, a 0, and the version of what follows, as the 8 bytes of
/// a little-endian number; they hold the groups' names, shapes and types, no name of anything else.
/// Later versions of this interface read what this one writes, and this one reads what versions 2
/// and 3 wrote.
///
/// # Safety
/// Pointers are valid or NULL, and there are `size` bytes at `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_save(
    optimizer: *const Optimizer,
    memory: *mut u8,
    size: usize,
    error: *mut Failure,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let optimizer = places.handle("optimizer", optimizer)?;
            places.written("memory", memory.cast(), size, 1)?;
            places.check()?;
            copy_out(|to| save(optimizer, to), memory, size)
        })
    }
}

/// Goes on from saved state, in an optimizer with groups of the same names and with parameters of the
/// same shapes and types; any other is refused, and so is a version that is not known. Arguments other than the rate are those of here.
///
/// # Safety
/// Pointers are valid or NULL, and there are `size` bytes at `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_load(
    optimizer: *mut Optimizer,
    memory: *const u8,
    size: usize,
    error: *mut Failure,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            let bytes = places.list("memory", memory, size)?;
            places.check()?;
            load(optimizer, &mut Reader::new(bytes, false))?;
            load(optimizer, &mut Reader::new(bytes, true))
        })
    }
}
