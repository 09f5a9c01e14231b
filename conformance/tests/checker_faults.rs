//! Every checker has a seeded fault that it must catch.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bitstep_conformance::Core;
use bitstep_conformance::backend::{
    Backend, BackendError, Counts, GradientAnswer, GradientSpec, Inputs, OptimizerSpec, Run,
    ScheduleSpec,
};
use bitstep_conformance::golden::Case;
use bitstep_conformance::judge::bounds::{Bounds, Exemption, Mode, Tolerance};
use bitstep_conformance::judge::check::{self, Outcome, Report};
use bitstep_conformance::tensor::{Dtype, Tensor};
use common::Draft;

type Spoil<T> = Arc<dyn Fn(usize, usize, T) -> T + Send + Sync>;

/// The core with altered answers: (step, parameter, answer) → answer.
#[derive(Clone)]
struct Wrong {
    value: Spoil<Tensor>,
    state: Spoil<BTreeMap<String, Tensor>>,
    refuse: Option<BackendError>,
}

impl Default for Wrong {
    fn default() -> Self {
        Wrong { value: Arc::new(|_, _, x| x), state: Arc::new(|_, _, x| x), refuse: None }
    }
}

struct WrongRun {
    inner: Box<dyn Run>,
    wrong: Wrong,
    t: usize,
}

impl Backend for Wrong {
    fn name(&self) -> &str {
        "wrong"
    }
    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        if let Some(why) = &self.refuse {
            return Err(why.clone());
        }
        let inner = Core.optimizer(spec)?;
        Ok(Box::new(WrongRun { inner, wrong: self.clone(), t: 0 }))
    }
    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        let mut lr = Core.schedule(spec)?;
        lr.pop();
        Ok(lr)
    }
    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        let mut answer = Core.gradient(spec)?;
        answer.norm = answer.norm.map(|n| n * (1.0 + 1e-6));
        Ok(answer)
    }
}

impl Run for WrongRun {
    fn load(
        &mut self,
        i: usize,
        value: &Tensor,
        state: &BTreeMap<String, Tensor>,
        counts: Counts,
    ) -> Result<(), BackendError> {
        self.inner.load(i, value, state, counts)
    }
    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError> {
        self.t = inputs.t;
        self.inner.step(inputs)
    }
    fn value(&self, i: usize) -> Tensor {
        (self.wrong.value)(self.t, i, self.inner.value(i))
    }
    fn state(&self, i: usize) -> BTreeMap<String, Tensor> {
        (self.wrong.state)(self.t, i, self.inner.state(i))
    }
}

fn committed(id: &str) -> Case {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    Case::read(&root.join(id).with_extension("safetensors"), &root).unwrap()
}

fn with(case: &Case, wrong: &Wrong, table: &[Exemption]) -> (Vec<Report>, usize) {
    let bounds = Bounds::new(table);
    let reports = check::case(case, wrong, &bounds);
    (reports, bounds.stale().len())
}

/// Requires this outcome and detail in both modes.
fn caught(wrong: &Wrong, outcome: Outcome, says: &str) {
    let case = committed("optimizer/adamw_torch/default_f32");
    let (right, _) = with(&case, &Wrong::default(), &[]);
    assert!(right.iter().all(|r| r.outcome == Outcome::Pass), "the core itself is right");
    let (reports, _) = with(&case, wrong, &[]);
    assert_eq!(reports.len(), 2);
    for r in reports {
        assert_eq!(r.outcome, outcome, "{}", r.mode.name());
        assert!(r.detail.contains(says), "{says:?} in {:?}", r.detail);
    }
}

/// Changes element `i` by `n` units in the last place.
fn off(x: &Tensor, i: usize, n: u64) -> Tensor {
    let mut x = x.clone();
    let size = x.dtype.size();
    let bits = (x.bits(i) + n).to_le_bytes();
    x.bytes[i * size..(i + 1) * size].copy_from_slice(&bits[..size]);
    x
}

fn value(f: impl Fn(usize, usize, Tensor) -> Tensor + Send + Sync + 'static) -> Wrong {
    Wrong { value: Arc::new(f), ..Wrong::default() }
}

fn state(
    f: impl Fn(usize, usize, BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor>
    + Send
    + Sync
    + 'static,
) -> Wrong {
    Wrong { state: Arc::new(f), ..Wrong::default() }
}

#[test]
fn wrong_value_in_one_element_of_one_step_is_caught() {
    let wrong = value(|t, i, x| if (t, i) == (3, 1) { off(&x, 2, 1000) } else { x });
    caught(&wrong, Outcome::Fail, "p1.value, step 3, index 2");
}

#[test]
fn wrong_state_is_caught() {
    let wrong = state(|t, i, mut s| {
        if (t, i) == (5, 0) {
            s.insert("exp_avg".into(), off(&s["exp_avg"], 7, 1000));
        }
        s
    });
    caught(&wrong, Outcome::Fail, "p0.state.exp_avg, step 5, index 7");
}

#[test]
fn wrong_step_counter_is_caught() {
    let wrong = state(|_, _, mut s| {
        s.insert("step".into(), Tensor::scalar(s["step"].get(0) + 1.0));
        s
    });
    caught(&wrong, Outcome::Fail, "p0.state.step, step 0, index 0: got 2.0");
}

#[test]
fn state_that_is_not_shown_is_caught() {
    let wrong = state(|_, _, mut s| {
        s.remove("exp_avg_sq");
        s
    });
    caught(&wrong, Outcome::Fail, "does not show the state `p0.state.exp_avg_sq`");
}

#[test]
fn nan_infinity_and_wrong_form_are_caught() {
    let put = |x: f64| {
        value(move |t, _, v| {
            let mut numbers = v.to_f64s();
            numbers[0] = if t == 2 { x } else { numbers[0] };
            Tensor::round(v.dtype, &v.shape, &numbers).unwrap()
        })
    };
    caught(&put(f64::NAN), Outcome::Fail, "got NaN");
    caught(&put(f64::INFINITY), Outcome::Fail, "inf ULP at scale");
    let flat = value(|_, _, x| Tensor { shape: vec![x.len()], ..x });
    caught(&flat, Outcome::Fail, "`p0.value` is f32 [12], wanted f32 [4, 3]");
    let wide = value(|_, _, x| Tensor::f64(&x.shape, &x.to_f64s()));
    caught(&wide, Outcome::Fail, "`p0.value` is f64 [4, 3], wanted f32 [4, 3]");
}

#[test]
fn panic_and_refusals_are_outcomes() {
    caught(&value(|_, _, _| panic!("on purpose")), Outcome::Error, "panicked: on purpose");
    let refuse = |why| Wrong { refuse: Some(why), ..Wrong::default() };
    let failed = refuse(BackendError::Failed("out of paper".into()));
    caught(&failed, Outcome::Error, "out of paper");
    let unsupported = refuse(BackendError::Unsupported("not mine".into()));
    caught(&unsupported, Outcome::Unsupported, "not mine");
}

#[test]
fn wrong_norm_is_caught() {
    let case = Case::parse(&Draft::clip().bytes()).unwrap();
    let (reports, _) = with(&case, &Wrong::default(), &[]);
    assert_eq!(reports[0].outcome, Outcome::Fail);
    assert!(reports[0].detail.starts_with("norm, index 0"), "{}", reports[0].detail);
}

const SEEDED: Exemption = Exemption {
    case: "optimizer/adamw_torch/*",
    dtype: Some(Dtype::F32),
    what: "value",
    mode: Mode::Step,
    allow: Tolerance::Ulp(2000.0),
    reason: "seeded fault",
};

#[test]
fn exemption_that_is_not_needed_is_stale() {
    let case = committed("optimizer/adamw_torch/default_f32");
    let elsewhere = Exemption { case: "optimizer/nowhere/*", ..SEEDED };
    let garbled = Exemption { case: "optimizer/{", ..SEEDED };
    assert_eq!(with(&case, &Wrong::default(), &[SEEDED, elsewhere, garbled]).1, 3);
}

#[test]
fn exemption_that_is_needed_is_not_stale_and_holds_only_where_it_says() {
    let case = committed("optimizer/adamw_torch/default_f32");
    let wrong = value(|t, i, x| if (t, i) == (3, 1) { off(&x, 2, 1000) } else { x });
    let (reports, stale) = with(&case, &wrong, &[SEEDED]);
    assert_eq!(stale, 0);
    assert_eq!(reports[0].outcome, Outcome::Pass);
    assert_eq!((reports[0].ulp, reports[0].bound), (Some(1000.0), Some(2000.0)));
    assert_eq!(reports[1].outcome, Outcome::Fail, "the free run has no exemption");
}

#[test]
fn outliers_may_be_few_but_not_many() {
    let case = committed("optimizer/adamw_torch/default_f32");
    let allow = Tolerance::Outliers { ulp: 2000.0, share: 0.1 };
    let table = [Exemption { allow, ..SEEDED }];
    let some = value(|t, i, x| if (t, i) == (3, 1) { off(&x, 2, 1000) } else { x });
    assert_eq!(with(&case, &some, &table).0[0].outcome, Outcome::Pass);
    let many = value(|_, i, x| if i == 1 { off(&x, 2, 1000) } else { x });
    assert_eq!(with(&case, &many, &table).0[0].outcome, Outcome::Pass);
    let all = value(|_, _, x| off(&x, 2, 1000));
    let report = &with(&case, &all, &table).0[0];
    assert_eq!(report.outcome, Outcome::Fail);
    assert!(report.detail.contains("allowed a share of 0.1"), "{}", report.detail);
}

#[test]
fn derived_tolerance_excuses_no_wrong_number_behind_a_product_of_matrices() {
    for id in ["optimizer/galore_adamw/std_f32", "optimizer/apollo_adamw/std_f32"] {
        let case = committed(id);
        assert!(with(&case, &Wrong::default(), &[]).0.iter().all(|r| r.outcome == Outcome::Pass));
        let wrong = value(|t, i, x| if (t, i) == (1, 1) { off(&x, 0, 500) } else { x });
        assert_eq!(with(&case, &wrong, &[]).0[0].outcome, Outcome::Fail, "{id}");
    }
}

#[test]
fn code_is_wrong_unless_its_number_may_have_it() {
    for id in ["optimizer/torchao_adam8bit/strong_f32", "optimizer/bnb_adam_8bit/strong_f32"] {
        let case = committed(id);
        assert!(with(&case, &Wrong::default(), &[]).0.iter().all(|r| r.outcome == Outcome::Pass));
        // Fewer than one in a hundred, and each off by one.
        let wrong = state(|t, i, mut s| {
            let codes = s.values_mut().find(|x| x.dtype == Dtype::U8);
            if let (Some(x), (1, 0)) = (codes, (t, i)) {
                let middle = x.bytes.iter().position(|code| (0x90..0xf0).contains(code));
                middle.into_iter().for_each(|at| x.bytes[at] += 1);
            }
            s
        });
        assert_eq!(with(&case, &wrong, &[]).0[0].outcome, Outcome::Fail, "{id}");
    }
}
