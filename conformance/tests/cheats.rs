//! Backends that cheat: none may pass.
//!
//! Each is the core with some of its answers altered, wherever that might go unnoticed. Another test checks that the
//! core itself passes these cases.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use bitstep_conformance::Core;
use bitstep_conformance::backend::{
    Backend, BackendError, Counts, GradientAnswer, GradientSpec, Inputs, OptimizerSpec, Run,
    ScheduleSpec,
};
use bitstep_conformance::golden::{Case, Data, OptimizerCase};
use bitstep_conformance::judge::bounds::{Bounds, Mode, is_low_bit};
use bitstep_conformance::judge::check::{Basis, Outcome, Report};
use bitstep_conformance::suite::{self, CaseFilter};
use bitstep_conformance::tensor::{Dtype, Tensor};
use rayon::prelude::*;

static BOUNDS: LazyLock<Bounds> = LazyLock::new(Bounds::default);

const BOTH: &[Mode] = &[Mode::Step, Mode::Free];

/// The position of a run when it is asked for an answer.
#[derive(Clone, Copy)]
struct Now {
    /// The latest step, from 0.
    t: usize,
    /// Steps made since its construction.
    made: usize,
    /// Whether it was loaded in the middle of a run.
    loaded: bool,
}

impl Now {
    /// Whether it is in a free run, beyond the first step.
    fn free(self) -> bool {
        !self.loaded && self.made > 1
    }
}

type State = BTreeMap<String, Tensor>;
type OfValues = Arc<dyn Fn(Now, &[Tensor]) -> Tensor + Send + Sync>;

/// The core with tampered answers.
#[derive(Clone)]
struct Cheat {
    value: OfValues,
    state: Arc<dyn Fn(Now, State) -> State + Send + Sync>,
    lacks: Arc<dyn Fn(Now) -> Option<String> + Send + Sync>,
    needs: Arc<dyn Fn(Counts) -> Option<String> + Send + Sync>,
    /// The optimizer that it runs, whatever the case's name.
    really: Option<&'static str>,
    /// The step of a free run after which one code of the first parameter is changed by one.
    part: Option<usize>,
    /// After this step of a free run, by how much more than the core's the first parameter moves.
    moves: Option<(usize, f64)>,
    /// Whether it hides its state.
    hides: bool,
}

impl Default for Cheat {
    fn default() -> Self {
        Cheat {
            value: Arc::new(|_, values| values[values.len() - 1].clone()),
            state: Arc::new(|_, state| state),
            lacks: Arc::new(|_| None),
            needs: Arc::new(|_| None),
            really: None,
            part: None,
            moves: None,
            hides: false,
        }
    }
}

struct CheatRun {
    inner: Box<dyn Run>,
    cheat: Cheat,
    now: Now,
    /// For each parameter, all its values so far.
    values: Vec<Vec<Tensor>>,
}

impl Backend for Cheat {
    fn name(&self) -> &str {
        "cheat"
    }
    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        let core: &'static Core = &Core;
        let spec = OptimizerSpec { name: self.really.unwrap_or(spec.name), ..spec.clone() };
        let now = Now { t: 0, made: 0, loaded: false };
        let values = spec.params.iter().map(|&p| vec![p.clone()]).collect();
        Ok(Box::new(CheatRun { inner: core.optimizer(&spec)?, cheat: self.clone(), now, values }))
    }
    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        Core.schedule(spec)
    }
    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        Core.gradient(spec)
    }
}

impl Run for CheatRun {
    fn load(
        &mut self,
        i: usize,
        value: &Tensor,
        state: &State,
        counts: Counts,
    ) -> Result<(), BackendError> {
        self.now.loaded |= counts.steps > 0;
        if let Some(slot) = (self.cheat.needs)(counts) {
            return Err(BackendError::NeedsState(slot));
        }
        self.values[i] = vec![value.clone()];
        self.inner.load(i, value, state, counts)
    }
    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError> {
        (self.now.t, self.now.made) = (inputs.t, self.now.made + 1);
        self.inner.step(inputs)?;
        if self.cheat.part == Some(inputs.t) && !self.now.loaded {
            let steps = inputs.t as u64 + 1;
            let (value, state) = (self.inner.value(0), parted(self.inner.state(0)));
            self.inner.load(0, &value, &state, Counts { updates: steps, steps })?;
        }
        if let Some((since, factor)) = self.cheat.moves
            && inputs.t > since
            && !self.now.loaded
        {
            let steps = inputs.t as u64 + 1;
            let (from, to) = (&self.values[0][inputs.t], self.inner.value(0));
            let moved = |k, x: f64| from.get(k) + factor * (x - from.get(k));
            let (value, state) = (numbers(&to, to.dtype, moved), self.inner.state(0));
            self.inner.load(0, &value, &state, Counts { updates: steps, steps })?;
        }
        for (i, values) in self.values.iter_mut().enumerate() {
            values.push(self.inner.value(i));
        }
        Ok(())
    }
    fn value(&self, i: usize) -> Tensor {
        (self.cheat.value)(self.now, &self.values[i])
    }
    fn state(&self, i: usize) -> State {
        (self.cheat.state)(self.now, self.inner.state(i))
    }
    fn eval(&self, i: usize) -> Option<Tensor> {
        self.inner.eval(i)
    }
    fn shows_state(&self) -> bool {
        !self.cheat.hides
    }
    fn lacks(&self, _: usize) -> Option<String> {
        (self.cheat.lacks)(self.now)
    }
}

/// Changes a code of the first encoded slot by one.
fn parted(mut state: State) -> State {
    let codes = state
        .iter_mut()
        .find(|(slot, x)| matches!(x.dtype, Dtype::I8 | Dtype::U8) && *slot != "error_bits");
    if let Some((_, x)) = codes {
        // Neither the largest codes nor those near zero.
        let fits = |k: &usize| (16..112).contains(&(x.bytes[*k] & 0x7f));
        if let Some(k) = (x.len() / 2..x.len()).chain(0..x.len() / 2).find(fits) {
            x.bytes[k] ^= 1;
        }
    }
    state
}

fn value(f: impl Fn(Now, &[Tensor]) -> Tensor + Send + Sync + 'static) -> Cheat {
    Cheat { value: Arc::new(f), ..Cheat::default() }
}

fn state(f: impl Fn(Now, State) -> State + Send + Sync + 'static) -> Cheat {
    Cheat { state: Arc::new(f), ..Cheat::default() }
}

/// Maps a tensor's elements, and converts it to a type.
fn numbers(x: &Tensor, dtype: Dtype, f: impl Fn(usize, f64) -> f64) -> Tensor {
    let all = x.to_f64s().into_iter().enumerate().map(|(k, x)| f(k, x));
    let all: Vec<f64> = all.collect();
    let bytes = match dtype {
        Dtype::I32 => all.iter().flat_map(|&x| (x as i32).to_le_bytes()).collect(),
        Dtype::I64 => all.iter().flat_map(|&x| (x as i64).to_le_bytes()).collect(),
        _ => return Tensor::round(dtype, &x.shape, &all).unwrap(),
    };
    Tensor { dtype, shape: x.shape.clone(), bytes }
}

static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let entries =
        suite::read(&[suite::committed()], &CaseFilter::new(Some("optimizer/*")).unwrap());
    entries.unwrap().into_iter().filter_map(|e| e.case.ok()).collect()
});

/// The committed cases, whose tolerances are kept: each is checked dozens of times.
static CHECKED: LazyLock<Vec<Basis<'static>>> =
    LazyLock::new(|| CASES.iter().map(Basis::of).collect());

type Checked = &'static Basis<'static>;

fn data(case: &Case) -> &OptimizerCase {
    let Data::Optimizer(data) = &case.data else { panic!("no optimizer") };
    data
}

/// The most elements times steps of a case here, as each is checked dozens of times.
const MODERATE: usize = 20_000;

/// Cases of moderate size with several steps, in which parameters change.
fn cases(which: impl Fn(&Case) -> bool) -> Vec<Checked> {
    let moves = |case: &Case| {
        let p = &data(case).params;
        let size: usize = p.iter().map(|p| p.init.len()).sum();
        let moved = |t: usize| p.iter().any(|p| p.value.row(t).bytes != p.value_before(t).bytes);
        case.steps > 1 && size * case.steps < MODERATE && (1..case.steps).any(moved)
    };
    let cases: Vec<_> = CHECKED.iter().filter(|c| moves(c.case) && which(c.case)).collect();
    assert!(!cases.is_empty(), "the committed goldens are there");
    cases
}

/// At most three of each optimizer.
fn few(mut cases: Vec<Checked>) -> Vec<Checked> {
    let mut seen = BTreeMap::<String, usize>::new();
    cases.retain(|c| {
        let n = seen.entry(c.case.name.clone()).or_default();
        *n += 1;
        *n <= 3
    });
    cases
}

/// The cases that pass, for each mode.
fn passed(cases: &[&Basis<'_>], cheat: &dyn Backend) -> Vec<(Mode, String)> {
    let reports = cases.par_iter().map(|c| c.check(cheat, &BOUNDS));
    let reports: Vec<Report> = reports.flatten_iter().collect();
    let passed = reports.into_iter().filter(|r| r.outcome == Outcome::Pass);
    passed.map(|r| (r.mode, r.case)).collect()
}

/// Cheats that passed, to be reported.
#[derive(Default)]
struct Fooled(Vec<String>);

impl Fooled {
    /// Requires that no check in these modes passes.
    fn by(&mut self, what: &str, cases: &[&Basis<'_>], cheat: &dyn Backend, modes: &[Mode]) {
        let passed = passed(cases, cheat);
        for mode in modes {
            let fooled: Vec<_> = passed.iter().filter(|(m, _)| m == mode).collect();
            if let Some((_, first)) = fooled.first() {
                let (n, all) = (fooled.len(), cases.len());
                self.0.push(format!("{what} passes {n} of {all} ({}): {first}", mode.name()));
            }
        }
    }

    #[track_caller]
    fn none(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

#[test]
fn lacking_everything_is_no_excuse() {
    let mut all = Fooled::default();
    let cases = cases(|c| c.id.contains("/default_"));
    let lacks = |slot: &'static str| Cheat {
        lacks: Arc::new(move |now| (now.t > 0).then(|| slot.to_owned())),
        ..Cheat::default()
    };
    all.by("a slot without a name", &cases, &lacks(""), &[Mode::Step]);
    all.by("a slot that nobody has", &cases, &lacks("cache"), &[Mode::Step]);
    let needs = |counts: Counts| (counts.steps > 0).then(|| "cache".to_owned());
    let needs = Cheat { needs: Arc::new(needs), ..Cheat::default() };
    all.by("a load that is refused", &cases, &needs, &[Mode::Step]);
    all.none();
}

/// Low-bit cases whose values are all finite.
fn low_bit() -> Vec<Checked> {
    cases(|c| {
        let finite = |x: &Tensor| x.to_f64s().iter().all(|x| x.is_finite());
        let finite = |p: &bitstep_conformance::golden::ParamCase| {
            finite(&p.value) && p.state.values().all(finite)
        };
        is_low_bit(&c.id) && data(c).params.iter().all(finite)
    })
}

#[test]
fn free_runs_of_low_bit_state_are_judged() {
    let mut all = Fooled::default();
    let cases = few(low_bit());
    assert!(cases.len() > 60, "{}", cases.len());
    let last = |values: &[Tensor]| values[values.len() - 1].clone();
    let put = |x: f64| {
        value(move |now, values| match now.free() {
            true => numbers(&values[0], values[0].dtype, |_, _| x),
            false => last(values),
        })
    };
    for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0] {
        all.by(&format!("{x} everywhere"), &cases, &put(x), &[Mode::Free]);
    }
    let one = value(move |now, values| {
        let x = last(values);
        numbers(&x, x.dtype, |k, x| if now.free() && k == 0 { f64::NAN } else { x })
    });
    all.by("one NaN", &cases, &one, &[Mode::Free]);
    let still = value(move |now, values| match now.free() {
        true => values[1].clone(),
        false => last(values),
    });
    // In 16 bits the smallest learning rates change less than the last bit.
    let wide = |c: &Checked| matches!(c.case.dtype(), Dtype::F32 | Dtype::F64);
    let cases: Vec<_> = cases.into_iter().filter(wide).collect();
    all.by("standing still", &cases, &still, &[Mode::Free]);
    all.none();
}

#[test]
fn free_runs_of_low_bit_state_are_held_to_their_state() {
    let mut all = Fooled::default();
    let scaled =
        |c: &Case| data(c).params.iter().any(|p| p.state.keys().any(|s| s.ends_with("scale")));
    let coded: Vec<_> = low_bit().into_iter().filter(|c| scaled(c.case)).collect();
    assert!(coded.len() > 10, "{}", coded.len());
    let spoil = |f: fn(&str, &Tensor) -> Option<Tensor>| {
        state(move |now, mut state| {
            if now.free() {
                for (slot, x) in &mut state {
                    *x = f(slot, x).unwrap_or_else(|| x.clone());
                }
            }
            state
        })
    };
    let nan =
        spoil(|slot, x| slot.ends_with("scale").then(|| numbers(x, x.dtype, |_, _| f64::NAN)));
    all.by("NaN for scales", &coded, &nan, &[Mode::Free]);
    let larger =
        spoil(|slot, x| slot.ends_with("scale").then(|| numbers(x, x.dtype, |_, x| x * 1.24)));
    all.by("scales that are too large", &coded, &larger, &[Mode::Free]);
    let codes = spoil(|slot, x| {
        slot.ends_with("codes").then(|| Tensor { bytes: vec![0x7f; x.bytes.len()], ..x.clone() })
    });
    all.by("one code throughout", &coded, &codes, &[Mode::Free]);
    all.none();
}

#[test]
fn a_run_whose_codes_have_parted_is_followed() {
    // Types with one code per byte.
    let one = |c: &Case| is_low_bit(&c.id) && !c.id.contains("4bit");
    let plain = |c: &Case| data(c).params.iter().all(|p| p.has_grad.iter().all(|&g| g));
    let finite = |c: &Case| !c.id.contains("nonfinite") && !c.id.contains("extremes");
    let wide = |c: &Case| matches!(c.dtype(), Dtype::F32);
    let which = |c: &Case| one(c) && plain(c) && finite(c) && wide(c) && c.steps > 3;
    let cases = few(cases(|c| which(c) && keeps(c, &[Dtype::I8, Dtype::U8])));
    // A code that is off by one where no boundary is near is wrong.
    let mut all = Fooled::default();
    all.by("a code", &cases, &Cheat { part: Some(1), ..Cheat::default() }, &[Mode::Free]);
    // In these a boundary is, and the core's code is not the reference's.
    let goes_on = ("optimizer/flash_sgd/eager_parted_bf16", 8);
    for (id, after) in [
        ("optimizer/flash_sgd/eager_bf16", 9),
        ("optimizer/flash_sgdw/eager_nesterov_bf16", 7),
        goes_on,
    ] {
        let parts = self::cases(|c| c.id == id);
        let reports = parts.iter().flat_map(|c| c.check(&Cheat::default(), &BOUNDS));
        let free: Vec<Report> = reports.filter(|r| r.mode == Mode::Free).collect();
        assert_eq!(free.len(), 1, "{id}");
        assert_eq!(free[0].outcome, Outcome::Pass, "{id}: {}", free[0].detail);
        let says = format!("judged from its own numbers after step {after}");
        assert!(free[0].detail.contains(&says), "{}", free[0].detail);
    }
    // The steps after that are held to the core's from the program's own numbers.
    let (id, after) = goes_on;
    let parts = self::cases(|c| c.id == id);
    assert!(parts[0].case.steps > after + 8);
    for (what, factor) in [
        ("NaN", f64::NAN),
        ("a sign", -1.0),
        ("nothing", 0.0),
        ("half a rate", 0.5),
        ("a rate", 1.5),
    ] {
        // The first wrong step may be any of those.
        for since in [after, after + 1, after + 4] {
            let wrong = Cheat { moves: Some((since, factor)), ..Cheat::default() };
            let what = format!("{what} after step {since}, where a code has parted at {after}");
            all.by(&what, &parts, &wrong, &[Mode::Free]);
        }
    }
    // A backend that hides its state can't be followed, and has wider bounds.
    assert_eq!(passed(&cases, &Cheat { hides: true, ..Cheat::default() }).len(), 2 * cases.len());
    for (what, factor) in [("NaN", f64::NAN), ("a sign", -1.0), ("nothing", 0.0)] {
        let wrong = value(move |now, values| {
            let (from, to) = (&values[1.min(values.len() - 1)], &values[values.len() - 1]);
            let by = if now.free() { factor } else { 1.0 };
            numbers(to, to.dtype, |k, x| from.get(k) + by * (x - from.get(k)))
        });
        let what = format!("{what}, hidden");
        all.by(&what, &cases, &Cheat { hides: true, ..wrong }, &[Mode::Free]);
    }
    all.none();
}

/// Whether the reference has a slot of this type.
fn keeps(case: &Case, dtypes: &[Dtype]) -> bool {
    let kept = |t: &Tensor| dtypes.contains(&t.dtype) && !t.is_empty();
    data(case).params.iter().any(|p| p.state.values().any(kept))
}

/// Returns state of some types in another type, with other values.
fn retyped(from: Dtype, to: Dtype, f: fn(f64) -> f64) -> Cheat {
    state(move |_, mut state| {
        for x in state.values_mut().filter(|x| x.dtype == from) {
            *x = numbers(x, to, |_, x| f(x));
        }
        state
    })
}

#[test]
fn codes_in_another_type_are_still_codes() {
    let mut all = Fooled::default();
    for (from, to, f) in [
        (Dtype::F8E4M3, Dtype::F32, (|x| x * 1.24) as fn(f64) -> f64),
        (Dtype::F8E4M3, Dtype::F64, |x| x + 0.03 * x.abs()),
        (Dtype::F8E4M3, Dtype::F16, |x| x / 1.24),
        (Dtype::I8, Dtype::F32, |x| x + 3.0),
        (Dtype::I8, Dtype::I32, |x| x - 2.0),
        (Dtype::I8, Dtype::F64, |x| x + 0.25),
        (Dtype::U8, Dtype::I64, |x| x + 3.0),
        (Dtype::U8, Dtype::F32, |x| x + 0.5),
        (Dtype::U8, Dtype::Bf16, |x| 0.98 * x),
    ] {
        let cases = few(cases(|c| is_low_bit(&c.id) && keeps(c, &[from])));
        let honest = retyped(from, Dtype::F64, |x| x);
        assert_eq!(passed(&cases, &honest).len(), 2 * cases.len(), "exact, if wider");
        let what = format!("{from} in {to}, off");
        all.by(&what, &cases, &retyped(from, to, f), BOTH);
    }
    all.none();
}

#[test]
fn counts_are_exact() {
    let mut all = Fooled::default();
    let cases = few(cases(|c| keeps(c, &[Dtype::I32, Dtype::I64])));
    for off in [1.0, 3.0, -2.0] {
        let count = state(move |_, mut state| {
            if let Some(step) = state.get_mut("step") {
                *step = numbers(step, Dtype::F64, |_, x| x + off);
            }
            state
        });
        all.by("a step counter off", &cases, &count, &[Mode::Step]);
    }
    all.none();
}

/// Maps every change of a parameter.
fn stretched(f: impl Fn(f64, f64) -> f64 + Send + Sync + 'static) -> Cheat {
    value(move |now, values| {
        let from = if now.loaded { values.len() - 2 } else { 0 };
        let (from, to) = (&values[from], &values[values.len() - 1]);
        let largest = to.to_f64s().into_iter().zip(from.to_f64s()).map(|(x, y)| (x - y).abs());
        let largest = largest.filter(|x| x.is_finite()).fold(0.0, f64::max);
        let moved = |k: usize, x: f64| from.get(k) + f(x - from.get(k), largest);
        numbers(to, to.dtype, moved)
    })
}

#[test]
fn a_wide_bound_hides_no_systematic_error() {
    let mut all = Fooled::default();
    // In bf16, Muon's smallest learning rates change less than a parameter's last bit.
    let cases = cases(|c| c.name == "muon" && matches!(c.dtype(), Dtype::F32 | Dtype::F64));
    // What has become infinite is it at any rate.
    let is_finite = |c: &Checked| {
        data(c.case).params.iter().any(|p| p.value.to_f64s().iter().any(|x| x.is_finite()))
    };
    let cases: Vec<_> = cases.into_iter().filter(is_finite).collect();
    assert!(cases.len() > 20, "{}", cases.len());
    for factor in [1.01, 1.03, 1.05, 0.99, 0.95] {
        let what = format!("a rate of {factor}");
        all.by(&what, &cases, &stretched(move |x, _| x * factor), BOTH);
    }
    // The largest elements right and all others too short; then a few per cent of the largest added.
    let short = stretched(|x, largest| if x.abs() < 0.8 * largest { 0.96 * x } else { x });
    // In a tensor with a single element, that is the largest.
    let several = |c: &Checked| data(c.case).params.iter().any(|p| p.init.len() > 1);
    let several: Vec<_> = cases.iter().copied().filter(several).collect();
    all.by("small elements short", &several, &short, &[Mode::Free]);
    let longer = stretched(|x, largest| x + 0.02 * largest * x.signum());
    all.by("a constant on top", &cases, &longer, &[Mode::Free]);
    all.none();
}

/// Cases of AdamW under a name that the core lacks.
fn renamed(name: &str) -> Vec<Case> {
    let cases = cases(|c| c.name == "adamw_torch");
    let mut cases: Vec<Case> = cases.into_iter().map(|c| c.case.clone()).collect();
    for case in &mut cases {
        case.id = case.id.replace("adamw_torch", name);
        name.clone_into(&mut case.name);
    }
    cases
}

/// A pseudo-random number from −1 to 1.
fn chance(x: f64, k: usize) -> f64 {
    let mixed = (x.to_bits() ^ k as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 11) as f64 / 2f64.powi(52) - 1.0
}

#[test]
fn nobody_stretches_their_own_bounds() {
    let mut all = Fooled::default();
    let cases = renamed("my_adamw");
    let checked: Vec<_> = cases.iter().map(Basis::of).collect();
    let checked: Vec<_> = checked.iter().collect();
    let really = Some("adamw_torch");
    let last = |values: &[Tensor]| values[values.len() - 1].clone();
    // Random values, different at each draw; the right values times a factor that depends on the inputs' last bits, so
    // that they look sensitive; and values that are off a little here, but far off for other inputs.
    let drawn = AtomicU64::new(0);
    let random = value(move |_, values| {
        let (x, draw) = (last(values), drawn.fetch_add(1, Ordering::Relaxed));
        numbers(&x, x.dtype, |k, _| chance(draw as f64, k))
    });
    let wild = value(move |_, values| {
        let (x, from) = (last(values), values[0].clone());
        numbers(&x, x.dtype, |k, x| x * (1.0 + 0.1 * chance(from.get(k), k)))
    });
    let own: Vec<Tensor> = cases
        .iter()
        .flat_map(|c| data(c).params.iter())
        .flat_map(|p| (0..p.value.shape[0]).map(|t| p.value_before(t)).collect::<Vec<_>>())
        .collect();
    let only_elsewhere = value(move |_, values| {
        let (x, known) = (last(values), own.contains(&values[values.len() - 2]));
        let by = if known { 0.1 } else { 10.0 };
        numbers(&x, x.dtype, |k, x| x + by * (1.0 + chance(x, k)))
    });
    for (what, cheat) in [("random", random), ("wild", wild), ("elsewhere", only_elsewhere)] {
        let cheat = Cheat { really, ..cheat };
        all.by(what, &checked, &cheat, BOTH);
    }
    // The right rule under another name does pass, except where values cancel.
    let honest = Cheat { really, ..Cheat::default() };
    let passed = passed(&checked, &honest).len();
    assert!(passed > cases.len(), "{passed} of {}", 2 * cases.len());
    all.none();
}

/// Cheats through the exec protocol: this test program answers the requests.
#[test]
fn protocol_lets_no_cheat_pass() {
    let program = std::env::current_exe().unwrap();
    let cases = cases(|c| {
        let names = ["adamw_torch/default_f32", "lion_8bit/default_f32", "muon/default_f32"];
        names.iter().any(|name| c.id.contains(name))
    });
    assert_eq!(cases.len(), 3);
    for (cheat, only) in [
        ("none", None),
        ("lacks", Some(Mode::Step)),
        ("nan", Some(Mode::Free)),
        ("rate", Some(Mode::Step)),
    ] {
        let command = format!(
            "exec:CHEAT={cheat} {} as_program --ignored --exact --nocapture",
            program.display()
        );
        let backend = bitstep_conformance::backend::registry::backend(&command, LIMIT).unwrap();
        for report in cases.iter().flat_map(|c| c.check(&*backend, &BOUNDS)) {
            let (case, mode, detail) = (&report.case, report.mode, &report.detail);
            let passes = report.outcome == Outcome::Pass;
            if only.is_none() {
                assert!(passes, "{case} {}: {detail}", mode.name());
            } else if only == Some(mode) {
                assert!(!passes, "{cheat} passes {case} {}", mode.name());
            }
        }
    }
}

const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

#[test]
#[ignore = "answers a request, when started as a program"]
fn as_program() {
    use std::io::Write;
    let paths: Vec<_> = std::env::args().rev().take(2).collect();
    let cheat = match std::env::var("CHEAT").as_deref() {
        Ok("lacks") => {
            let needs = |counts: Counts| (counts.steps > 0).then(String::new);
            Cheat { needs: Arc::new(needs), ..Cheat::default() }
        }
        Ok("nan") => value(|now, values| {
            let x = &values[values.len() - 1];
            numbers(x, x.dtype, |_, x| if now.free() { f64::NAN } else { x })
        }),
        Ok("rate") => stretched(|x, _| 1.01 * x),
        _ => Cheat::default(),
    };
    let (request, answer) = (paths[1].as_ref(), paths[0].as_ref());
    let said = bitstep_conformance::exec::answer(&cheat, request, answer);
    let mut out = std::io::stdout();
    writeln!(out, "\n{said}").and_then(|()| out.flush()).unwrap();
    std::process::exit(0);
}
