//! Every property has a seeded fault that it must catch.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::LocalKey;

use bitstep::Error;
use bitstep::float::{ComputeFloat, Dtype};
use bitstep::hyper::{Args, FieldVisitor, HyperParams};
use bitstep::optimizer::OptimizerSpec;
use bitstep::rule::mode::Mode;
use bitstep::rule::{Rule, ScalarState, SlotInit, StepContext};
use bitstep::schedule::{Scheduler, SchedulerState, build};
use bitstep_fuzz::{
    PROPERTIES, SCHEDULE_PROPERTIES, ScheduleTrial, Scheduled, Trial, library_schedule,
};

/// A fault of a rule or a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Panics,
    /// Depends on how many steps all instances have made before.
    Remembers,
    /// Counts its steps outside of the saved state.
    Hidden,
    /// Adds the parameter's length.
    Length,
    /// Is refused only after the counters were advanced.
    Late,
    /// Ignores negative gradients.
    OneSided,
    /// Adds a constant of its own.
    Absolute,
    /// Its second moment becomes negative.
    Negative,
    /// Evaluated half-way between the parameter and z.
    HalfWay,
}

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
    static CHECKS: Cell<u32> = const { Cell::new(0) };
    static STEPS: Cell<u32> = const { Cell::new(0) };
}

fn next(count: &'static LocalKey<Cell<u32>>) -> u32 {
    count.replace(count.get() + 1)
}

/// Gradient descent with a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
struct FaultyRule {
    lr: f64,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
struct Coefs<S> {
    lr: S,
    extra: S,
    fault: Fault,
}

impl HyperParams for FaultyRule {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
    }
}

impl Rule for FaultyRule {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "faulty_rule";
    const SLOTS: &'static [&'static str] = &["z", "exp_avg_sq"];
    const SLOT_MASKS: &'static [u32] = &[0b11];

    fn check(&self) -> Result<(), Error> {
        // The second check succeeds.
        let late = self.fault == Fault::Late && self.lr < 0.0 && next(&CHECKS) == 1;
        let refused = Error::OutOfRange { argument: "lr", value: self.lr, expected: "0 or more" };
        if self.lr >= 0.0 || late { Ok(()) } else { Err(refused) }
    }
    fn scalars(&self) -> ScalarState {
        STEPS.set(0);
        ScalarState::default()
    }
    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        0.0
    }
    fn slot_init(&self, slot: usize) -> SlotInit {
        if slot == 0 { SlotInit::CopyParam } else { SlotInit::Constant(0.0) }
    }
    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let extra = match self.fault {
            Fault::Panics => panic!("on purpose"),
            Fault::Remembers => next(&CALLS).into(),
            Fault::Hidden => next(&STEPS).into(),
            Fault::Length => step.numel() as f64,
            Fault::Absolute => 1.0,
            _ => 0.0,
        };
        Coefs { lr: C::scalar(step.lr), extra: C::scalar(extra), fault: self.fault }
    }
    fn update<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        p: C,
        g: C,
        [z, v]: Self::Slots<C>,
    ) -> (C, Self::Slots<C>) {
        let g = if k.fault == Fault::OneSided && g < C::ZERO { C::ZERO } else { g };
        let moved = p - g.mul_scalar(k.lr);
        let v = if k.fault == Fault::Negative { v - C::ONE } else { v + g * g };
        (moved.add_scalar(k.extra), [z, v])
    }
    fn eval_weight(&self, _: Mode) -> Option<f64> {
        Some(if self.fault == Fault::HalfWay { 0.5 } else { 0.0 })
    }
    fn convert_element<C: ComputeFloat>(weight: C::Scalar, p: C, [z, _]: Self::Slots<C>) -> C {
        p + (z - p).mul_scalar(weight)
    }
}

/// A few steps with small gradients, under a name that the properties know.
fn trial(name: &'static str, fault: Fault) -> Trial {
    let bits = |x: f32| u64::from(x.to_bits());
    Trial {
        name,
        spec: OptimizerSpec::new(FaultyRule { lr: 0.25, fault }, Default::default()),
        tuned: false,
        dtype: Dtype::F32,
        shape: vec![3],
        before: 0,
        init: [1.0, -1.0, 0.5].map(bits).to_vec(),
        grads: [1.0, -2.0, 3.0].map(|g| Some([g, -g, g].map(bits).to_vec())).to_vec(),
        lrs: vec![0.25; 3],
        extra: vec![],
    }
}

/// Whether a property fails on a trial.
fn caught(property: &str, trial: &Trial) -> bool {
    let (_, check) = PROPERTIES.iter().find(|(name, _)| *name == property).expect("a property");
    catch_unwind(AssertUnwindSafe(|| check(trial))).is_err()
}

/// Property, name that it applies to, and the fault that it must catch.
const FAULTS: &[(&str, &str, Fault)] = &[
    ("never_panics", "faulty_rule", Fault::Panics),
    ("deterministic", "faulty_rule", Fault::Remembers),
    ("restorable", "faulty_rule", Fault::Hidden),
    ("splittable", "faulty_rule", Fault::Length),
    ("error_leaves_everything_untouched", "faulty_rule", Fault::Late),
    ("odd_symmetry", "faulty_rule", Fault::OneSided),
    ("linear", "sgd", Fault::Absolute),
    ("gradient_scale_invariant", "rprop", Fault::None),
    ("second_moments_nonnegative", "faulty_rule", Fault::Negative),
    ("y_between_x_and_z", "schedule_free_sgd", Fault::HalfWay),
];

#[test]
fn planted_fault_of_every_property_is_caught() {
    let properties: Vec<&str> = PROPERTIES.iter().map(|p| p.0).collect();
    assert_eq!(properties, FAULTS.iter().map(|f| f.0).collect::<Vec<_>>(), "one fault each");
    for &(property, name, fault) in FAULTS {
        assert!(caught(property, &trial(name, fault)), "{property} misses {fault:?}");
        // Without the fault the property must pass, except that SGD is not invariant to scale like Rprop.
        let right = fault == Fault::None || !caught(property, &trial(name, Fault::None));
        assert!(right, "{property} complains of plain SGD");
    }
}

/// A schedule with a fault.
struct FaultySchedule {
    inner: Scheduler,
    lrs: Vec<f64>,
    fault: Fault,
    steps: u32,
}

impl FaultySchedule {
    fn make(args: &Args, fault: Fault) -> Box<dyn Scheduled> {
        let inner = build("linear", args).expect("arguments of linear");
        Box::new(FaultySchedule { lrs: inner.lrs().to_vec(), inner, fault, steps: 0 })
    }
}

impl Scheduled for FaultySchedule {
    fn lrs(&self) -> &[f64] {
        &self.lrs
    }
    fn step(&mut self, metric: &[f64]) -> bool {
        let refused = self.inner.step(metric).is_err();
        if refused && self.fault == Fault::Late {
            let _ = self.inner.step(&[]);
        }
        self.steps += 1;
        self.lrs = self.inner.lrs().to_vec();
        match self.fault {
            Fault::Remembers => self.lrs[0] += f64::from(next(&CALLS)),
            Fault::Hidden => self.lrs[0] += f64::from(self.steps),
            _ => {}
        }
        !refused
    }
    fn state(&self) -> &SchedulerState {
        self.inner.state()
    }
    fn restore(&mut self, state: SchedulerState) -> bool {
        let taken = self.inner.restore(state).is_ok();
        self.lrs = self.inner.lrs().to_vec();
        taken
    }
    fn follows_metric(&self) -> bool {
        false
    }
}

#[test]
fn planted_fault_of_every_property_of_schedules_is_caught() {
    let args = Args::parse("lr=1, num_warmup_steps=3, num_training_steps=12").unwrap();
    let constant = Args::new().with("lr", f64::NAN);
    type Make = fn(&str, &Args) -> Box<dyn Scheduled>;
    let faults: [(&str, &Args, Make); 4] = [
        ("deterministic", &args, |_, args| FaultySchedule::make(args, Fault::Remembers)),
        ("restorable", &args, |_, args| FaultySchedule::make(args, Fault::Hidden)),
        ("error_leaves_everything_untouched", &args, |_, args| {
            FaultySchedule::make(args, Fault::Late)
        }),
        ("finite_and_never_negative", &constant, |_, args| library_schedule("constant", args)),
    ];
    let caught = |property: &str, args: &Args, make: Make| {
        let trial = ScheduleTrial {
            name: "linear",
            args: args.clone(),
            moderate: true,
            metrics: vec![0.0; 7],
            make,
        };
        let (_, check) = SCHEDULE_PROPERTIES.iter().find(|p| p.0 == property).expect("a property");
        catch_unwind(AssertUnwindSafe(|| check(&trial))).is_err()
    };
    assert_eq!(
        SCHEDULE_PROPERTIES.iter().map(|p| p.0).collect::<Vec<_>>(),
        faults.iter().map(|f| f.0).collect::<Vec<_>>(),
        "one fault each"
    );
    for (property, faulty, make) in faults {
        assert!(caught(property, faulty, make), "{property} misses its fault");
        assert!(
            !caught(property, &args, |_, args| FaultySchedule::make(args, Fault::None)),
            "{property}"
        );
    }
}
