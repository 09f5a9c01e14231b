//! Every backend of this library gives the bits of the core on every committed case: in free
//! run and from each of the reference's own states, in any memory order, on any number of threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitstep_conformance::backend::{Backend, BackendError, Counts, Inputs, OptimizerSpec, Run};
use bitstep_conformance::golden::{Case, Data, OptimizerCase};
use bitstep_conformance::suite::{self, CaseFilter, Entry};
use bitstep_conformance::tensor::Tensor;
use bitstep_conformance::{Core, Ndarray};

/// A grain so fine that the small tensors of the cases are cut, too.
const GRAIN: usize = 2;

/// What stands there after a step, as bits; any NaN equals any NaN.
type Bits = Vec<(String, Vec<u64>)>;

fn bits(run: &dyn Run, params: usize) -> Bits {
    let of = |t: &Tensor| -> Vec<u64> {
        (0..t.len()).map(|k| if t.get(k).is_nan() { u64::MAX } else { t.bits(k) }).collect()
    };
    let one = |i| {
        let state: BTreeMap<String, Tensor> = run.state(i);
        let eval = run.eval(i).map(|t| (format!("p{i}.eval"), of(&t)));
        let state = state.into_iter().map(move |(k, t)| (format!("p{i}.state.{k}"), of(&t)));
        state.chain([(format!("p{i}.value"), of(&run.value(i)))]).chain(eval).collect::<Bits>()
    };
    (0..params).flat_map(one).collect()
}

/// The answers to a case: of the free run's steps, then of a step from each state of the reference.
fn answers(
    case: &Case,
    data: &OptimizerCase,
    backend: &dyn Backend,
) -> Result<Vec<Bits>, BackendError> {
    let spec = OptimizerSpec::new(case, data);
    let mut all = Vec::new();
    let mut run = backend.optimizer(&spec)?;
    for (i, p) in data.params.iter().enumerate().filter(|(_, p)| !p.state0.is_empty()) {
        run.load(i, &p.init, &p.state0, Counts::default())?;
    }
    for t in 0..case.steps {
        run.step(&Inputs::new(data, t))?;
        all.push(bits(&*run, data.params.len()));
    }
    'steps: for t in 1..case.steps {
        let mut run = backend.optimizer(&spec)?;
        for (i, p) in data.params.iter().enumerate() {
            let counts = Counts { updates: p.updates_before(t) as u64, steps: t as u64 };
            match run.load(i, &p.value_before(t), &p.state_before(t), counts) {
                // The file lacks what the next step depends on, for any backend.
                Err(BackendError::NeedsState(_)) => continue 'steps,
                other => other?,
            }
        }
        run.step(&Inputs::new(data, t))?;
        all.push(bits(&*run, data.params.len()));
    }
    Ok(all)
}

/// Compares a backend with the core over all cases, each on up to so many threads.
fn same_bits_as_core(backend: &(dyn Backend + Sync), threads: usize) {
    let entries = suite::read(&[suite::committed()], &CaseFilter::new(None).unwrap()).unwrap();
    let pools: Vec<_> = (1..=threads)
        .map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap())
        .collect();
    let of_entry = |entry: &Entry| {
        let case = entry.case.as_ref().unwrap();
        let Data::Optimizer(data) = &case.data else { return 0 };
        let want = answers(case, data, &Core).unwrap_or_else(|e| panic!("{}: {e:?}", case.id));
        for pool in &pools {
            let got = pool.install(|| answers(case, data, backend));
            let got = got.unwrap_or_else(|e| panic!("{}: {e:?}", case.id));
            assert_eq!(got.len(), want.len());
            for (t, (got, want)) in got.iter().zip(&want).enumerate() {
                for (got, want) in got.iter().zip(want) {
                    let threads = pool.current_num_threads();
                    assert!(got == want, "{} {} answer {t}, {threads} threads", case.id, want.0);
                }
            }
        }
        want.len()
    };
    // Plain threads: one of rayon's, while it waits for another pool, begins case after case on
    // top of the one it waits for, until its stack is full.
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = 0;
        while let Some(entry) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
            done += of_entry(entry);
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let done: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert!(done > 10_000, "too few answers to mean anything");
}

#[test]
fn ndarray_in_c_order_has_the_bits_of_core() {
    same_bits_as_core(&Ndarray { fortran: false, grain: GRAIN }, 3);
}

#[test]
fn ndarray_in_fortran_order_has_the_bits_of_core() {
    same_bits_as_core(&Ndarray { fortran: true, grain: GRAIN }, 3);
}

#[cfg(feature = "candle")]
#[test]
fn candle_has_the_bits_of_core() {
    same_bits_as_core(&bitstep_conformance::Candle { grain: GRAIN }, 3);
}

#[cfg(feature = "ptx")]
#[test]
fn ptx_has_the_bits_of_core() {
    same_bits_as_core(&bitstep_conformance::Ptx, 1);
}

/// Gradient cases, too; what the core refuses, the kernels refuse.
#[cfg(feature = "ptx")]
#[test]
fn ptx_has_the_bits_of_core_in_gradients() {
    use bitstep_conformance::backend::{GradientAnswer, GradientSpec};
    let entries = suite::read(&[suite::committed()], &CaseFilter::new(None).unwrap()).unwrap();
    let bits = |answer: GradientAnswer| {
        let of = |t: &Tensor| -> Vec<u64> {
            (0..t.len()).map(|k| if t.get(k).is_nan() { u64::MAX } else { t.bits(k) }).collect()
        };
        let norm = answer.norm.map(|n| if n.is_nan() { u64::MAX } else { n.to_bits() });
        (answer.outputs.iter().map(of).collect::<Vec<_>>(), norm)
    };
    let mut compared = 0;
    for case in entries.iter().map(|e| e.case.as_ref().unwrap()) {
        let Data::Gradient(data) = &case.data else { continue };
        let spec = GradientSpec::new(case, data);
        let [got, want] = [bitstep_conformance::Ptx.gradient(&spec), Core.gradient(&spec)];
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(bits(got), bits(want), "{}", case.id),
            (got, want) => assert!(got.is_err() && want.is_err(), "{}", case.id),
        }
        compared += 1;
    }
    assert!(compared > 100, "too few cases to mean anything");
}
