//! Any size is an error or there is memory for it: never an abort, never a panic. The allocator of this program
//! fails beyond a limit, as a system's may.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use arbitrary::{Result, Unstructured};
use bitstep::Error;
use bitstep::float::Dtype;
use bitstep::hyper::{Args, Value, names};
use bitstep::optimizer::{
    Buffer, Optimizer, OptimizerSpec, Param, ParamId, ParamState, ParamStorage, StorageConfig,
};
use bitstep::registry;
use bitstep::registry::OPTIMIZERS;
use bitstep::schedule::{NAMES, build};
use bitstep::storage::memory::{collected, filled};
use bitstep::storage::{Data, DataMut, RawBuffer, RawDtype};
use bitstep_fuzz::{FORMATS, WEIGHTS};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Far below the 1 GiB that nothing may exceed, so that a case is quick.
const LIMIT: usize = 64 << 20;

struct Limited;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(LIMIT);
static REFUSED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: forwards to the system's allocator, or returns null.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // Small allocations always succeed.
        let full = live.saturating_add(layout.size()) > MOST.load(Ordering::Relaxed);
        if full && layout.size() > 1 << 16 {
            LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
            REFUSED.fetch_add(1, Ordering::Relaxed);
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract; `memory` came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static MEMORY: Limited = Limited;

const DTYPES: [Dtype; 4] = [Dtype::F64, Dtype::F32, Dtype::Bf16, Dtype::F16];

/// A size: small, a power of two, near the maximum, or any.
fn size(u: &mut Unstructured<'_>) -> Result<usize> {
    Ok(match u.arbitrary::<u8>()? % 8 {
        0..=2 => u.int_in_range(0..=40)?,
        3 | 4 => 1usize << u.int_in_range(0..=63u32)?,
        5 => usize::MAX - u.int_in_range(0..=2)?,
        6 => (u.arbitrary::<u64>()? >> u.int_in_range(0..=63u32)?) as usize,
        _ => u.int_in_range(0..=5000)?,
    })
}

fn shape(u: &mut Unstructured<'_>) -> Result<Vec<usize>> {
    (0..u.int_in_range(1..=3)?).map(|_| size(u)).collect()
}

/// A spec with random sizes for some of its arguments, where it accepts them.
fn random_spec(u: &mut Unstructured<'_>, name: &str) -> Result<OptimizerSpec> {
    let mut spec = registry::optimizer(name, Args::new()).expect("defaults are valid");
    let known = names(spec.rule.hyper_params());
    for _ in 0..u.int_in_range(0..=3)? {
        // Mostly the rank, where there is one: it makes a small matrix take much memory.
        let rank =
            known.iter().find(|known| **known == "rank").filter(|_| u.ratio(2, 3) == Ok(true));
        let argument = rank.copied().map_or_else(|| u.choose(&known).copied(), Ok)?;
        let value = Value::Int(i64::try_from(size(u)?).unwrap_or(i64::MAX));
        if let Ok(changed) = registry::optimizer(name, Args::new().with(argument, value.clone())) {
            spec = changed;
        } else if let Ok(changed) = spec.with_args(&Args::new().with(argument, value)) {
            spec = changed;
        }
    }
    if u.ratio(1, 3)? {
        let slots = vec![Some(*u.choose(&FORMATS)?); spec.rule.info().slots.len()];
        spec.storage = StorageConfig {
            slot_formats: slots,
            min_len: 0,
            len_multiple: 0,
            param: *u.choose(&WEIGHTS)?,
        };
    }
    if u.ratio(1, 8)? {
        spec.storage.param = ParamStorage::Kahan;
    }
    Ok(spec)
}

fn parameter(u: &mut Unstructured<'_>, name: &str) -> Result<()> {
    let (spec, shape, dtype) = (random_spec(u, name)?, shape(u)?, *u.choose(&DTYPES)?);
    let _ = spec.bytes_per_parameter(&shape, dtype);
    let _ = spec.rule.scratch_len(&shape);
    let mut optimizer = Optimizer::empty();
    let Ok(group) = optimizer.add_group(spec) else { return Ok(()) };
    let before = LIVE.load(Ordering::Relaxed);
    match optimizer.add_param_to(group, &shape, dtype) {
        Ok(index) => assert_eq!(index, ParamId(0)),
        Err(_) => assert!(optimizer.params().is_empty()),
    }
    // A refused parameter leaves no memory allocated.
    assert!(!optimizer.params().is_empty() || LIVE.load(Ordering::Relaxed) <= before + 4096);
    Ok(())
}

fn storage(u: &mut Unstructured<'_>) -> Result<()> {
    let (len, dtype) = (size(u)?, *u.choose(&DTYPES)?);
    let format = *u.choose(&FORMATS)?;
    let _ = format.bytes(len);
    if let Ok(buffer) = Buffer::new(format, len) {
        assert_eq!(buffer.len(), len);
    }
    if let Ok(buffer) = Buffer::zeros(dtype, len) {
        assert_eq!(buffer.len(), len);
    }
    let elements =
        [RawDtype::F32, RawDtype::Bf16, RawDtype::F16, RawDtype::I16, RawDtype::I8, RawDtype::U8];
    if let Ok(raw) = RawBuffer::zeros(*u.choose(&elements)?, len) {
        assert_eq!(raw.len(), len);
    }
    let copied = collected("numbers", std::iter::repeat_n(1.0, len)).is_ok();
    assert_eq!(copied, filled("numbers", 1.0, len).is_ok());
    Ok(())
}

fn schedule(u: &mut Unstructured<'_>, name: &str) -> Result<()> {
    const ARGUMENTS: [&str; 16] = [
        "num_warmup_steps",
        "num_training_steps",
        "num_decay_steps",
        "num_stable_steps",
        "window_size",
        "patience",
        "T_max",
        "T_0",
        "T_mult",
        "step_size",
        "total_steps",
        "num_cycles",
        "total_iters",
        "step_size_up",
        "num_train_steps",
        "milestones",
    ];
    let mut args = Args::new().with("lr", 0.5).with("gamma", 0.5).with("max_lr", 1.0);
    for argument in ARGUMENTS {
        if u.ratio(1, 2)? {
            let n = Value::Int(i64::try_from(size(u)?).unwrap_or(i64::MAX));
            let list = argument == "milestones";
            args.set(
                argument,
                if list { Value::List(vec![n; u.int_in_range(0..=2000)?]) } else { n },
            );
        }
    }
    args.set("smooth", u.arbitrary::<bool>()?);
    if u.ratio(1, 4)? {
        args.set("groups", Value::List(vec![Value::Map(Vec::new()); u.int_in_range(0..=2000)?]));
    }
    // Remove the arguments that the schedule does not have.
    for _ in 0..20 {
        match build(name, &args) {
            Ok(mut scheduler) => {
                for _ in 0..3 {
                    let _ = scheduler.step(&[]).is_ok() || scheduler.step(&[1.0]).is_ok();
                }
                return Ok(());
            }
            Err(bitstep::hyper::ArgError::UnknownArgument { argument, .. }) => args.take(&argument),
            Err(_) => return Ok(()),
        };
    }
    Ok(())
}

/// Runs `check` on bytes.
fn on_bytes(cases: u32, what: &str, check: impl Fn(&mut Unstructured<'_>) -> Result<()>) {
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..200);
    let result = TestRunner::new_with_rng(config, rng).run(&bytes, |bytes| {
        // Running out of bytes is no failure.
        let _ = check(&mut Unstructured::new(&bytes));
        Ok(())
    });
    assert!(result.is_ok(), "{what}: {result:?}");
}

/// Everything in the parameters' state that a step may write.
fn states(optimizer: &Optimizer) -> Vec<(u64, bool, [f64; 4], Vec<Buffer>)> {
    let one = |p: &ParamState| (p.steps, p.is_initialized, p.scalars, p.slots.clone());
    optimizer.params().iter().map(one).collect()
}

/// A step without memory for its scratch space writes nothing.
fn step_without_room(name: &str, arguments: &str) {
    const N: usize = 256;
    let spec = registry::optimizer(name, Args::parse(arguments).expect("text")).expect("a spec");
    let mut optimizer = Optimizer::empty();
    let group = optimizer.add_group(spec).expect("a group");
    for _ in 0..2 {
        optimizer.add_param_to(group, &[N, N], Dtype::F32).expect("memory");
    }
    let (mut x, grad) = (vec![[1.0f32; N * N]; 2], vec![0.5f32; N * N]);
    let before = (x.clone(), format!("{:?}", optimizer.groups()), states(&optimizer));
    let mut step = |room: usize| {
        let value = |x| Param { value: DataMut::F32(x), grad: Some(Data::F32(&grad)) };
        let mut params: Vec<Param<'_>> = x.iter_mut().map(|x| value(x)).collect();
        MOST.store(LIVE.load(Ordering::Relaxed) + room, Ordering::Relaxed);
        let result = optimizer.step_all(&mut params, &[]);
        MOST.store(LIMIT, Ordering::Relaxed);
        drop(params);
        let after = (x.clone(), format!("{:?}", optimizer.groups()), states(&optimizer));
        assert_eq!(after == before, result.is_err());
        result
    };
    let refused = step(N * N);
    assert!(
        matches!(refused, Err(Error::OutOfMemory { argument: "scratch", .. })),
        "{name}: {refused:?}"
    );
    step(16 * N * N + (1 << 20)).expect("memory enough");
}

/// A step of an empty matrix ends, whatever the other dimension.
fn empty_of_any_length(name: &str) {
    let rank = if name.starts_with("galore") { "rank=2" } else { "" };
    let spec = registry::optimizer(name, Args::parse(rank).expect("text")).expect("a spec");
    for shape in [[0, 1 << 40], [1 << 40, 0], [usize::MAX, 0], [0, usize::MAX]] {
        let mut optimizer = Optimizer::empty();
        let group = optimizer.add_group(spec.clone()).expect("a group");
        // Row or column state may be too large.
        if optimizer.add_param_to(group, &shape, Dtype::F32).is_ok() {
            let param = Param { value: DataMut::F32(&mut []), grad: Some(Data::F32(&[])) };
            optimizer.step_all(&mut [param], &[]).expect("a step of nothing");
        }
    }
}

// One test, as the allocator's limit is global.
#[test]
fn any_size_is_an_error_or_there() {
    for entry in OPTIMIZERS {
        on_bytes(60, entry.name, |u| parameter(u, entry.name));
    }
    // Arguments of thousands of groups are in memory at once while a schedule is built.
    MOST.store(8 * LIMIT, Ordering::Relaxed);
    for name in NAMES {
        on_bytes(40, name, |u| schedule(u, name));
    }
    MOST.store(LIMIT, Ordering::Relaxed);
    on_bytes(400, "storage", storage);
    assert!(REFUSED.load(Ordering::Relaxed) > 1000, "the limit was hardly ever met");
    for name in ["muon", "galore_adamw", "galore_adafactor"] {
        empty_of_any_length(name);
    }
    step_without_room("galore_adamw", "rank=8");
    step_without_room("muon", "");
}
