//! Wrappers (projection, factored, forced f32) report the inner rule's properties, except for those they change.

use bitstep::Error;
use bitstep::lowrank::{Apollo, ForceF32, GaLore, Projected, Projection, SplitRule};
use bitstep::optim::{
    AdaLomo, Adafactor, AdafactorTorch, AdamW, AdamWHf, AdamWeightDecay, BnbAdam, BnbLamb,
    FlashAdam, FlashLion, FlashSgd, GrokAdamW, KerasAdam, KerasClip, Lion, Lomo, ScheduleFreeSgd,
    StableAdamW,
};
use bitstep::optimizer::{Optimizer, OptimizerSpec};
use bitstep::rule::factored::{FactoredRule, FactoredUpdate};
use bitstep::rule::{ComputePolicy, DynRule, RuleInfo, UpdateBuffers};
use bitstep::rule::{Rule, StepContext};
use bitstep::storage::{Data, DataMut};
use half::bf16;

/// The divisor and the norm that a rule reports for these gradients, as bits.
fn norm(rule: &(impl DynRule + ?Sized), grads: &[Data<'_>]) -> (Option<u64>, u64) {
    let extra = [("loss_scale", 4.0)];
    (rule.grad_norm_divisor(&extra).map(f64::to_bits), rule.grad_norm(grads, 2.0).to_bits())
}

/// Asserts that a wrapper reports what its inner rule does, after `but` has changed that.
// No trait objects: they would compile the steps of hundreds of wrapped rules.
fn keeps(
    name: &str,
    whole: &impl DynRule,
    rule: &impl DynRule,
    but: impl Fn(RuleInfo) -> RuleInfo,
) {
    assert_eq!(whole.info(), but(rule.info()), "{name}");
    assert_eq!(whole.lr().to_bits(), rule.lr().to_bits(), "{name}");
    let own = rule.info().scalar_names.len();
    assert_eq!(whole.initial_scalars(3)[..own], rule.initial_scalars(3)[..own], "{name}");
    let grads = [Data::F64(&[3.0, -4.0]), Data::F32(&[1e-3, 2.0, 0.5]), Data::F32(&[])];
    assert_eq!(norm(whole, &grads), norm(rule, &grads), "{name}");
}

const PROJECTORS: [&str; 3] = ["projector", "projector_0", "projector_1"];

fn leaked(parts: [&[&'static str]; 2]) -> &'static [&'static str] {
    parts.concat().leak()
}

/// The changes that a projection makes.
fn more(info: RuleInfo) -> RuleInfo {
    RuleInfo {
        slots: leaked([info.slots, &PROJECTORS]),
        extra_args: leaked([info.extra_args, &PROJECTORS]),
        is_elementwise: false,
        ..info
    }
}

fn galore<R: SplitRule>(rule: R) {
    let name = format!("{rule:?}");
    let plain = Projected::<R, GaLore>::new(rule);
    keeps(&name, &plain, &rule, |info| info);
    let projection = Projection { rank: Some(2), ..plain.projection };
    keeps(&name, &Projected { projection, ..plain }, &rule, more);
}

/// Both projection methods, for rules that leave room for APOLLO's scalars.
fn projected<R: SplitRule>(rule: R) {
    galore(rule);
    let name = format!("{rule:?}");
    let plain = Projected::<R, Apollo>::new(rule);
    let projection = Projection { rank: Some(2), ..plain.projection };
    let apollo = Projected { projection, ..plain };
    let scalars = apollo.info().scalar_names;
    assert!(
        scalars.len() > R::SCALAR_NAMES.len() && scalars.starts_with(R::SCALAR_NAMES),
        "{name}"
    );
    keeps(&name, &apollo, &rule, |info| RuleInfo { scalar_names: scalars, ..more(info) });
}

fn single<R: Rule + SplitRule>(rule: R) {
    let eager = |info| RuleInfo { is_eager: true, ..info };
    keeps(&format!("{rule:?}"), &ForceF32(rule), &rule, eager);
    projected(ForceF32(rule));
}

fn matrix<R: FactoredUpdate>(rule: R) {
    let slots = FactoredRule(rule).info().slots;
    assert_eq!(slots.len(), R::SLOTS.len() + 2);
    keeps(&format!("{rule:?}"), &FactoredRule(rule), &rule, |info| RuleInfo {
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
    // FlashOptim does not count the steps of parameters without elements.
    projected(FlashAdam::default());
    projected(FlashLion::default());
    projected(FlashSgd::default());
    assert!(!Projected::<FlashLion, GaLore>::default().info().counts_empty_params);
    single(BnbLamb::default());
    single(BnbAdam::default());
    projected(FactoredRule(Adafactor::default()));
}

#[test]
fn norm_over_all_gradients_is_that_of_the_rule_within() {
    // TensorFlow computes the norm in the gradients' own type, so it differs from the default.
    let clip = KerasClip { global_clipnorm: Some(1.0), ..KerasClip::default() };
    let keras = KerasAdam { clip, ..KerasAdam::default() };
    let decay = AdamWeightDecay { clip, ..AdamWeightDecay::default() };
    let big = [Data::F32(&[1e30, 1e30]), Data::F32(&[1.0])];
    assert_ne!(norm(&keras, &big), norm(&AdamW::default(), &big));
    for (whole, rule) in [
        (&Projected::<_, GaLore>::new(keras) as &dyn DynRule, &keras as &dyn DynRule),
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
    let eager = |rule: Box<dyn DynRule>| OptimizerSpec {
        rule,
        ..OptimizerSpec::new(Lion::default(), ComputePolicy::Eager)
    };
    let refused = Error::InvalidArgument {
        argument: "policy",
        expected: "a policy that the rule's reference supports",
    };
    for rule in [
        Box::new(Lion::default()) as Box<dyn DynRule>,
        Box::new(FactoredRule(Adafactor::default())),
    ] {
        assert_eq!(Optimizer::empty().add_group(eager(rule)).unwrap_err(), refused);
    }
    let fits =
        [Box::new(AdamW::default()) as Box<dyn DynRule>, Box::new(ForceF32(BnbLamb::default()))];
    for rule in fits {
        assert!(Optimizer::empty().add_group(eager(rule)).is_ok());
    }
    // `update` refuses it too, before anything is written.
    let (mut param, mut slot) = ([bf16::ONE], [0.0f32]);
    let tensor = UpdateBuffers {
        shape: &[1],
        param: DataMut::Bf16(&mut param),
        grad: Data::Bf16(&[bf16::ONE]),
        slots: &mut [DataMut::F32(&mut slot)],
        scratch: DataMut::F32(&mut []),
    };
    let rule = Lion::default();
    let got = rule.update(
        ComputePolicy::Eager,
        &StepContext::new(1, 0.5),
        &mut rule.initial_scalars(0),
        tensor,
    );
    assert_eq!((got, param, slot), (Err(refused), [bf16::ONE], [0.0]));
}
