//! A rule within another keeps what it says of itself: nothing is lost on the way.

use bitstep::Error;
use bitstep::any::{AnyRule, Arithmetic, RuleInfo, Tensor};
use bitstep::factored::{Factored, Matrix};
use bitstep::lowrank::{Apollo, Directed, GaLore, Projected, Projection, Single};
use bitstep::optim::{
    AdaLomo, Adafactor, AdafactorTorch, AdamW, AdamWHf, AdamWeightDecay, BnbAdam, BnbLamb,
    FlashAdam, FlashLion, FlashSgd, GrokAdamW, KerasAdam, KerasClip, Lion, Lomo, ScheduleFreeSgd,
    StableAdamW,
};
use bitstep::optimizer::{Optimizer, Recipe};
use bitstep::rule::{Rule, Step};
use bitstep::storage::{Data, DataMut};
use half::bf16;

/// What a rule says of the norm over these gradients.
fn norm(rule: &(impl AnyRule + ?Sized), grads: &[Data<'_>]) -> (Option<u64>, u64) {
    let given = [("loss_scale", 4.0)];
    (rule.norm_scale(&given).map(f64::to_bits), rule.grad_norm(grads, 2.0).to_bits())
}

/// That a wrapper says what the rule in it says, but for what `but` changes.
// No trait objects: nothing of a step is compiled here, for hundreds of wrapped rules.
fn keeps(
    name: &str,
    whole: &impl AnyRule,
    rule: &impl AnyRule,
    but: impl Fn(RuleInfo) -> RuleInfo,
) {
    assert_eq!(whole.info(), but(rule.info()), "{name}");
    assert_eq!(whole.lr().to_bits(), rule.lr().to_bits(), "{name}");
    let own = rule.info().scalars.len();
    assert_eq!(whole.scalars_of(3)[..own], rule.scalars_of(3)[..own], "{name}");
    let grads = [Data::F64(&[3.0, -4.0]), Data::F32(&[1e-3, 2.0, 0.5]), Data::F32(&[])];
    assert_eq!(norm(whole, &grads), norm(rule, &grads), "{name}");
}

const PROJECTORS: [&str; 3] = ["projector", "projector_0", "projector_1"];

fn leaked(parts: [&[&'static str]; 2]) -> &'static [&'static str] {
    parts.concat().leak()
}

/// What a projection changes.
fn more(info: RuleInfo) -> RuleInfo {
    RuleInfo {
        slots: leaked([info.slots, &PROJECTORS]),
        given: leaked([info.given, &PROJECTORS]),
        is_elementwise: false,
        ..info
    }
}

fn galore<R: Directed>(rule: R) {
    let name = format!("{rule:?}");
    let plain = Projected::<R, GaLore>::new(rule);
    keeps(&name, &plain, &rule, |info| info);
    let projection = Projection { rank: Some(2), ..plain.projection };
    keeps(&name, &Projected { projection, ..plain }, &rule, more);
}

/// Both ways, for rules that leave room for APOLLO's numbers.
fn projected<R: Directed>(rule: R) {
    galore(rule);
    let name = format!("{rule:?}");
    let plain = Projected::<R, Apollo>::new(rule);
    let projection = Projection { rank: Some(2), ..plain.projection };
    let apollo = Projected { projection, ..plain };
    let scalars = apollo.info().scalars;
    assert!(scalars.len() > R::NUMBERS.len() && scalars.starts_with(R::NUMBERS), "{name}");
    keeps(&name, &apollo, &rule, |info| RuleInfo { scalars, ..more(info) });
}

fn single<R: Rule + Directed>(rule: R) {
    let eager = |info| RuleInfo { is_eager: true, ..info };
    keeps(&format!("{rule:?}"), &Single(rule), &rule, eager);
    projected(Single(rule));
}

fn matrix<R: Factored>(rule: R) {
    let slots = Matrix(rule).info().slots;
    assert_eq!(slots.len(), R::SLOTS.len() + 2);
    keeps(&format!("{rule:?}"), &Matrix(rule), &rule, |info| RuleInfo {
        slots,
        is_elementwise: false,
        ..info
    });
}

#[test]
fn rules_within_projections_keep_what_they_say() {
    projected(AdamW::default());
    projected(AdamWHf::default());
    projected(Lion::default());
    projected(GrokAdamW::default());
    projected(Lomo::default());
    projected(StableAdamW::default());
    galore(ScheduleFreeSgd::default());
    // Steps of parameters without elements do not count for FlashOptim.
    projected(FlashAdam::default());
    projected(FlashLion::default());
    projected(FlashSgd::default());
    assert!(!Projected::<FlashLion, GaLore>::default().info().counts_empty);
    single(BnbLamb::default());
    single(BnbAdam::default());
    projected(Matrix(Adafactor::default()));
}

#[test]
fn norm_over_all_gradients_is_that_of_the_rule_within() {
    // TensorFlow's is taken in the gradients' own type, and so is another number than the default.
    let clip = KerasClip { global_clipnorm: Some(1.0), ..KerasClip::default() };
    let keras = KerasAdam { clip, ..KerasAdam::default() };
    let decay = AdamWeightDecay { clip, ..AdamWeightDecay::default() };
    let big = [Data::F32(&[1e30, 1e30]), Data::F32(&[1.0])];
    assert_ne!(norm(&keras, &big), norm(&AdamW::default(), &big));
    for (whole, rule) in [
        (&Projected::<_, GaLore>::new(keras) as &dyn AnyRule, &keras as &dyn AnyRule),
        (&Projected::<_, GaLore>::new(decay), &decay),
    ] {
        assert_eq!(norm(whole, &big), norm(rule, &big));
        assert!(norm(whole, &big).0.is_some());
    }
    projected(keras);
    projected(decay);
}

#[test]
fn factored_rules_keep_what_they_say() {
    matrix(Adafactor::default());
    matrix(AdafactorTorch::default());
    matrix(AdaLomo::default());
}

#[test]
fn eager_arithmetic_is_refused_where_the_reference_has_none() {
    let eager =
        |rule: Box<dyn AnyRule>| Recipe { rule, ..Recipe::new(Lion::default(), Arithmetic::Eager) };
    let refused = Error::Invalid {
        argument: "arithmetic",
        wanted: "one in which the rule's reference computes",
    };
    for rule in
        [Box::new(Lion::default()) as Box<dyn AnyRule>, Box::new(Matrix(Adafactor::default()))]
    {
        assert_eq!(Optimizer::new().add_group(eager(rule)).unwrap_err(), refused);
    }
    let fits =
        [Box::new(AdamW::default()) as Box<dyn AnyRule>, Box::new(Single(BnbLamb::default()))];
    for rule in fits {
        assert!(Optimizer::new().add_group(eager(rule)).is_ok());
    }
    // Without an optimizer around it, nothing is written.
    let (mut param, mut slot) = ([bf16::ONE], [0.0f32]);
    let tensor = Tensor {
        shape: &[1],
        param: DataMut::Bf16(&mut param),
        grad: Data::Bf16(&[bf16::ONE]),
        slots: &mut [DataMut::F32(&mut slot)],
        work: DataMut::F32(&mut []),
    };
    let rule = Lion::default();
    let got = rule.update(Arithmetic::Eager, &Step::new(1, 0.5), &mut rule.scalars_of(0), tensor);
    assert_eq!((got, param, slot), (Err(refused), [bf16::ONE], [0.0]));
}
