//! The short calls do what the long ones do: one parameter with its state, and an optimizer's step of some parameters.

use bitstep::float::EagerFloat;
use bitstep::optimizer::{Buffer, ParamId};
use bitstep::prelude::*;
use bitstep::rule::mode::Mode;
use bitstep::rule::{UpdateBuffers, step_buffered};
use bitstep::storage::{BlockQuantized, Companded, Plain};
use half::{bf16, f16};

const N: usize = 21;

fn values<S: Plain>(seed: u64) -> [S; N] {
    std::array::from_fn(|i| S::from_f64(((seed + 3) * (i as u64 + 5) % 17) as f64 / 8.0 - 1.0))
}

fn optimizer<R: Rule>(rule: R, policy: ComputePolicy, dtype: Dtype) -> (Optimizer, ParamId) {
    let mut optimizer = Optimizer::new(OptimizerSpec::new(rule, policy)).unwrap();
    let id = optimizer.add_param(&[N], dtype).unwrap();
    (optimizer, id)
}

fn bytes<S: Plain>(x: &[S]) -> Vec<u8> {
    S::data(x).bytes()
}

fn eager_agrees<R: Rule, S: EagerFloat + Plain>(rule: R) {
    let (mut theirs, id) = optimizer(rule, ComputePolicy::Eager, S::DTYPE);
    let mut state = State::allocate(&rule, N).unwrap();
    let (mut ours, mut param) = (values::<S>(0), values::<S>(0));
    let mut fused = values::<S>(0);
    let mut fused_state = State::allocate(&rule, N).unwrap();
    for t in 1..=5 {
        let grad = values::<S>(t);
        let step = StepContext::new(0, 0.01);
        rule.step_in(ComputePolicy::Eager, &mut state, &step, &mut ours, &grad).unwrap();
        rule.step(&mut fused_state, 0.01, &mut fused, &grad).unwrap();
        theirs.groups_mut()[0].lr = 0.01;
        theirs.step([(id, S::data_mut(&mut param), S::data(&grad))]).unwrap();
        assert_eq!(bytes(&ours), bytes(&param), "{}, {t}", R::ID);
    }
    if S::DTYPE.size() == 2 {
        assert_ne!(bytes(&ours), bytes(&fused), "{}: rounded nowhere", R::ID);
    }
}

#[test]
fn step_in_eager_policy_has_the_bits_of_the_optimizer() {
    eager_agrees::<_, bf16>(AdamW::DEFAULT);
    eager_agrees::<_, f16>(AdamW::DEFAULT);
    eager_agrees::<_, f32>(AdamW::DEFAULT);
    eager_agrees::<_, f64>(AdamW::DEFAULT);
    eager_agrees::<_, bf16>(Sgd { momentum: 0.9, ..Sgd::DEFAULT });
}

#[test]
fn step_in_a_policy_that_the_reference_lacks_is_refused_and_writes_nothing() {
    let mut state = State::new(&Lion::DEFAULT, N, [bf16::ZERO; N]).unwrap();
    let (mut param, grad) = (values::<bf16>(0), values::<bf16>(1));
    let step = StepContext::new(0, 0.1);
    let refused = Lion::DEFAULT.step_in(ComputePolicy::Eager, &mut state, &step, &mut param, &grad);
    assert!(matches!(refused, Err(Error::InvalidArgument { argument: "policy", .. })));
    assert_eq!((param, state.steps(), state.slots()[0]), (values(0), 0, &[bf16::ZERO; N][..]));
}

fn evaluates<S: EagerFloat + Plain>() {
    let rule = ScheduleFreeAdamW::DEFAULT;
    let (mut theirs, id) = optimizer(rule, ComputePolicy::Fused, S::DTYPE);
    let mut state = State::allocate(&rule, N).unwrap();
    let (mut ours, mut param) = (values::<S>(0), values::<S>(0));
    let before = rule.evaluate(&state, &mut ours, bytes).unwrap();
    assert_eq!(before, bytes(&values::<S>(0))); // not stepped yet
    for t in 1..=4 {
        let grad = values::<S>(t);
        rule.step(&mut state, rule.lr, &mut ours, &grad).unwrap();
        theirs.step([(id, S::data_mut(&mut param), S::data(&grad))]).unwrap();
    }
    let trained = bytes(&ours);
    let seen = rule.evaluate(&state, &mut ours, bytes).unwrap();
    theirs.eval(&mut [S::data_mut(&mut param)]).unwrap();
    assert_eq!(theirs.mode(), Mode::Eval);
    assert_eq!(seen, bytes(&param));
    assert_ne!(seen, trained);
    theirs.train(&mut [S::data_mut(&mut param)]).unwrap();
    assert_eq!(bytes(&ours), bytes(&param));
    assert!(rule.evaluate(&state, &mut ours[1..], |_| ()).is_err());
}

#[test]
fn evaluate_has_the_bits_of_the_optimizer() {
    evaluates::<f64>();
    evaluates::<f32>();
    evaluates::<bf16>();
    evaluates::<f16>();
}

#[test]
fn slots_and_steps_from_elsewhere_go_on_with_the_same_bits() {
    let rule = AdamW::DEFAULT;
    let mut state = State::new(&rule, N, [0f32; 2 * N]).unwrap();
    let mut param = values::<f32>(0);
    for t in 1..=3 {
        rule.step(&mut state, 0.01, &mut param, &values(t)).unwrap();
    }
    let mut copy = State::new(&rule, N, [0f32; 2 * N]).unwrap();
    for (to, from) in copy.slots_mut().iter_mut().zip(state.slots()) {
        to.copy_from_slice(from);
    }
    copy.set_steps(state.steps());
    let mut other = param;
    rule.step(&mut state, 0.01, &mut param, &values(4)).unwrap();
    rule.step(&mut copy, 0.01, &mut other, &values(4)).unwrap();
    assert_eq!((param, state.slots()), (other, copy.slots()));
}

/// Two parameters in two groups, the second of which counts steps itself.
fn pair() -> (Optimizer, [ParamId; 2]) {
    let spec = OptimizerSpec::new(AdamW::DEFAULT, ComputePolicy::Fused);
    let mut optimizer = Optimizer::new(spec).unwrap();
    let first = optimizer.add_param(&[N], Dtype::F32).unwrap();
    let spec = OptimizerSpec::new(StableAdamW::DEFAULT, ComputePolicy::Fused);
    optimizer.add_group(spec).unwrap();
    let second = optimizer.add_param(&[N], Dtype::F32).unwrap();
    (optimizer, [first, second])
}

#[test]
fn step_of_some_parameters_has_the_bits_of_a_step_of_all() {
    let ((mut some, [a, b]), (mut all, _)) = (pair(), pair());
    let [mut ours, mut theirs] = [(); 2].map(|()| [values::<f32>(0), values::<f32>(7)]);
    for t in 1..=4 {
        let grads = [values::<f32>(t), values::<f32>(t + 9)];
        let [x, y] = &mut ours;
        let last = (b, y.into(), (&grads[1]).into());
        // In the other order; the first has no gradient at t = 2.
        if t == 2 {
            some.step([last]).unwrap();
        } else {
            some.step([last, (a, x.into(), (&grads[0]).into())]).unwrap();
        }
        let mut params: Vec<Param<'_>> = theirs
            .iter_mut()
            .zip(&grads)
            .enumerate()
            .map(|(i, (value, grad))| Param {
                value: value.into(),
                grad: (t != 2 || i == 1).then_some(grad.into()),
            })
            .collect();
        all.step_all(&mut params, &[]).unwrap();
        assert_eq!(ours, theirs, "{t}");
        assert_eq!(some.save().unwrap(), all.save().unwrap(), "{t}");
    }
    assert_eq!([a, b].map(|id| some.param(id).unwrap().steps), [3, 4]);
}

#[test]
fn step_of_an_unknown_or_a_repeated_parameter_is_refused_and_writes_nothing() {
    let (mut optimizer, [a, b]) = pair();
    let before = optimizer.save().unwrap();
    let (mut x, mut y) = (values::<f32>(0), values::<f32>(1));
    let (grad, short) = (values::<f32>(2), [1.0f32; N - 1]);
    let twice = optimizer
        .step([(a, (&mut x).into(), (&grad).into()), (a, (&mut y).into(), (&grad).into())]);
    assert!(matches!(twice, Err(Error::InvalidArgument { argument: "updates", .. })));
    let unknown = optimizer.step([
        (b, (&mut x).into(), (&grad).into()),
        (ParamId(2), (&mut y).into(), (&grad).into()),
    ]);
    assert!(matches!(unknown, Err(Error::InvalidArgument { argument: "param", .. })));
    let length = optimizer
        .step([(a, (&mut x).into(), (&grad).into()), (b, (&mut y).into(), (&short).into())]);
    assert!(matches!(length, Err(Error::LengthMismatch { argument: "grad", .. })));
    assert_eq!((x, y), (values(0), values(1)));
    assert_eq!(optimizer.save().unwrap(), before);
    assert!(optimizer.param(ParamId(2)).is_none());
    assert!(Optimizer::empty().add_param(&[N], Dtype::F32).is_err());
    assert!(matches!(optimizer.param(a).unwrap().slots[0], Buffer::F32(_)));
}

#[test]
fn step_in_too_little_scratch_is_refused_and_writes_nothing() {
    let rule = FlashLion::DEFAULT;
    let (mut codes, mut scales) = ([7u8; N], [half::f16::ONE; 1]);
    let mut param = values::<f32>(0);
    let mut scalars = rule.scalars();
    let mut step = |scratch: &mut dyn FnMut(UpdateBuffers<'_, '_>) -> Result<(), Error>| {
        let momentum = BlockQuantized::new(Companded::Momentum, N, &mut codes, &mut scales);
        let mut momentum = momentum.unwrap();
        scratch(UpdateBuffers {
            shape: &[N],
            param: (&mut param).into(),
            grad: (&values::<f32>(1)).into(),
            slots: &mut [DataMut::Encoded(&mut momentum)],
            scratch: DataMut::F32(&mut []),
        })
    };
    let at = StepContext::new(1, 0.1);
    let few = step(&mut |t| step_buffered(&rule, &at, &mut scalars, t, &mut [[0f32; 32]; 2]));
    let expected = Error::LengthMismatch { argument: "scratch", got: 2, expected: 3 };
    assert_eq!(few, Err(expected));
    let short = step(&mut |t| step_buffered(&rule, &at, &mut scalars, t, &mut [[0f32; 31]; 3]));
    assert!(matches!(short, Err(Error::OutOfRange { argument: "block", .. })));
    assert_eq!((param, codes, scales), (values(0), [7; N], [half::f16::ONE]));
}
