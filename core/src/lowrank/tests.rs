//! Low-rank projections of any rule.

use super::*;
extern crate std;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use half::bf16;

use crate::each_rule;
use crate::error::Error;
use crate::float::Dtype;
use crate::hyper::Args;
use crate::optim::*;
use crate::optimizer::{Optimizer, OptimizerSpec, Param};
use crate::registry::entries;
use crate::rule::factored::{self, FactoredRule, FactoredUpdate, MatrixLayout};
use crate::rule::{ComputePolicy, DynRule, UpdateBuffers};
use crate::rule::{Rule, ScalarState, SlotInit, StepContext};
use crate::storage::{Data, DataMut};

const SHAPE: [usize; 2] = [3, 3];
const INIT: [f64; 9] = [0.5, -0.25, 1.0, -2.0, 0.125, 0.75, -1.5, 0.3, -0.6];

fn grad(t: u64) -> [f64; 9] {
    core::array::from_fn(|i| libm::sin(i as f64 * 1.3 + t as f64) * (1 + i % 3) as f64)
}

/// Four steps of a rule whose projectors are the identity. `update` makes a step in `f64`, so that no other type is
/// compiled for fifty rules.
fn run<R: DynRule>(
    rule: &R,
    update: impl Fn(&StepContext, &mut ScalarState, UpdateBuffers<'_, '_>) -> Result<(), Error>,
) -> Vec<f64> {
    let mut param = INIT.to_vec();
    let mut slots: Vec<Vec<f64>> = (0..rule.info().slots.len())
        .map(|k| {
            let len = rule.slot_len(k, &SHAPE, Dtype::F64);
            match rule.slot_init(k) {
                _ if rule.info().slots[k].starts_with("projector") => {
                    (0..len).map(|i| f64::from(u8::from(i / 3 == i % 3))).collect()
                }
                SlotInit::CopyParam => param.iter().copied().take(len).collect(),
                SlotInit::Constant(x) => vec![x; len],
            }
        })
        .collect();
    let mut work = vec![0.0; rule.scratch_len(&SHAPE)];
    let mut scalars = rule.initial_scalars(0);
    for t in 1..=4 {
        let grad = grad(t);
        let given = [("projector", 1.0), ("train_loss", 1.0), ("eval_loss", 1.5)];
        let mut step = StepContext::new(t, 0.01);
        (step.shape, step.dtype, step.extra) = (&SHAPE, Some(Dtype::F64), &given);
        let data = [Data::F64(&grad)];
        step.grad_norm = rule.grad_norm_divisor(&given).map(|scale| rule.grad_norm(&data, scale));
        rule.advance_scalars(&step, &mut scalars);
        let mut slots: Vec<_> = slots.iter_mut().map(|s| DataMut::F64(s)).collect();
        let tensor = UpdateBuffers {
            shape: &SHAPE,
            param: DataMut::F64(&mut param),
            grad: Data::F64(&grad),
            slots: &mut slots,
            scratch: DataMut::F64(&mut work),
        };
        update(&step, &mut scalars, tensor).unwrap();
    }
    param
}

/// A rule that is stepped in `f64`.
trait Alone: SplitRule + Default {
    fn step(
        &self,
        step: &StepContext,
        scalars: &mut ScalarState,
        t: UpdateBuffers<'_, '_>,
    ) -> Result<(), Error>;
}

impl<R: Rule + Default> Alone for R {
    fn step(
        &self,
        step: &StepContext,
        scalars: &mut ScalarState,
        mut t: UpdateBuffers<'_, '_>,
    ) -> Result<(), Error> {
        crate::rule::dynamic::update::<R, f64>(self, step, scalars, &mut t);
        Ok(())
    }
}

impl<R: FactoredUpdate + Default> Alone for FactoredRule<R> {
    fn step(
        &self,
        step: &StepContext,
        scalars: &mut ScalarState,
        t: UpdateBuffers<'_, '_>,
    ) -> Result<(), Error> {
        let layout = MatrixLayout::of(t.shape).unwrap();
        factored::update::<R, f64>(&self.0, step, scalars, layout, t, None).map(drop)
    }
}

fn whole_space<R: SplitRule>(rule: R) -> Projected<R, GaLore> {
    let mut projected = Projected::<R, GaLore>::new(rule);
    projected.projection.rank = Some(3);
    projected.projection.scale = 1.0;
    projected
}

/// The outcome of a rule in a projection by the identity: the same parameters, or an error.
fn outcome<R: Alone>(decay: f64) -> String {
    let mut rule = R::default();
    let names = ["weight_decay", "weight_decay_rate"];
    let value = std::format!("{decay}");
    let set = |rule: &mut R, name: &&str| {
        Args::parse(&std::format!("{name}={value}")).unwrap().apply("", rule.hyper_params()).is_ok()
    };
    if !names.iter().any(|name| set(&mut rule, name)) || rule.check().is_err() {
        if decay != 0.0 {
            return "has no decay".to_string();
        }
        rule = R::default();
    }
    let projected = whole_space(rule);
    match projected.check() {
        Ok(()) => {}
        Err(Error::OutOfRange { argument, .. } | Error::InvalidArgument { argument, .. }) => {
            // Without a rank it is the rule itself.
            let alone = Projected::<R, GaLore>::new(rule);
            assert_eq!(alone.check(), Ok(()));
            return argument.to_string();
        }
        Err(other) => return std::format!("{other}"),
    }
    let got = run(&projected, |step, scalars, t| projected.project::<f64>(step, scalars, t));
    let want = run(&rule, |step, scalars, t| rule.step(step, scalars, t));
    let close = |(x, y): (&f64, &f64)| (x - y).abs() <= 1e-12 * (1.0 + x.abs());
    assert!(want.iter().zip(&INIT).any(|(x, y)| x != y), "the rule moves nothing");
    let same = got.iter().zip(&want).all(close);
    if same { "the same".to_string() } else { std::format!("differs: {got:?} {want:?}") }
}

#[test]
fn every_rule_in_the_whole_space_is_itself_or_refused() {
    let mut seen = Vec::new();
    macro_rules! go {
        (elementwise { $($a:ident: $A:ident,)* } tensorwise { $($b:ident: $B:ident,)* }
         factored { $($c:ident: $C:ident,)* } $($rest:tt)*) => {
            $(seen.push((stringify!($a), outcome::<$A>(0.0), outcome::<$A>(0.1)));)*
            $(seen.push((stringify!($b), outcome::<$B>(0.0), outcome::<$B>(0.1)));)*
            $(seen.push((stringify!($c), outcome::<FactoredRule<$C>>(0.0), outcome::<FactoredRule<$C>>(0.1)));)*
        };
    }
    each_rule!(go);
    assert!(seen.len() > 40);
    for (rule, plain, decaying) in seen {
        let want = match rule {
            "asgd"
            | "optimi_ranger"
            | "schedule_free_adamw"
            | "schedule_free_radam"
            | "schedule_free_sgd" => ["rank", "rank"],
            "bnb_lars" => ["max_unorm", "max_unorm"],
            // As in galore_torch: the update is limited by the norm of the projected parameter, which is zeros.
            "bnb_lamb" => ["differs", "differs"],
            "rprop" | "keras_adam" => ["the same", "has no decay"],
            "adam_weight_decay" => ["the same", "weight_decay_rate"],
            "adamw" | "adamw_hf" | "ademamix" | "bnb_adam" | "flash_adamw" | "flash_lion"
            | "flash_sgdw" | "lion" | "adafactor" | "adafactor_torch" | "adalomo" => {
                ["the same", "the same"]
            }
            _ => ["the same", "weight_decay"],
        };
        let got = [plain, decaying];
        assert!(
            got.iter().zip(want).all(|(g, w)| g.starts_with(w)),
            "{rule}: {got:?}, not {want:?}"
        );
    }
}

/// Three steps of a matrix of ones with a constant gradient, by a full optimizer.
fn train(
    recipe: &OptimizerSpec,
    dtype: Dtype,
    shape: [usize; 2],
    grad: &dyn Fn(usize) -> f32,
) -> Vec<f32> {
    let mut optimizer = Optimizer::empty();
    let group = optimizer.add_group(recipe.clone()).unwrap();
    optimizer.add_param_to(group, &shape, dtype).unwrap();
    let n = shape[0] * shape[1];
    let grad: Vec<f32> = (0..n).map(grad).collect();
    let mut wide = vec![1.0f32; n];
    let mut narrow = vec![half::bf16::ONE; n];
    for _ in 0..3 {
        let value =
            if dtype == Dtype::F32 { DataMut::F32(&mut wide) } else { DataMut::Bf16(&mut narrow) };
        optimizer.step_all(&mut [Param { value, grad: Some(Data::F32(&grad)) }], &[]).unwrap();
    }
    if dtype == Dtype::F32 { wide } else { narrow.iter().map(|x| x.to_f32()).collect() }
}

/// A gradient of rank 1: rows 1, -1, 1, …; columns 3, 4, 0, …
fn rank_one(cols: usize) -> impl Fn(usize) -> f32 {
    move |i| if (i / cols).is_multiple_of(2) { 1.0 } else { -1.0 } * [3.0, 4.0, 0.0][i % cols % 3]
}

#[test]
fn galore_with_lion_moves_along_the_singular_vector() {
    let mut rule = Projected::<Lion, GaLore>::new(Lion { lr: 0.1, ..Lion::default() });
    (rule.projection.rank, rule.projection.scale) = (Some(1), 1.0);
    let got =
        train(&OptimizerSpec::new(rule, ComputePolicy::Fused), Dtype::F32, [4, 3], &rank_one(3));
    // The vector is (0.6, 0.8, 0); Lion's direction of ±5 is ±1: three steps of 0.1.
    for (i, p) in got.iter().enumerate() {
        let sign = if (i / 3).is_multiple_of(2) { -1.0 } else { 1.0 };
        let want = 1.0 + sign * 0.3 * [0.6, 0.8, 0.0][i % 3];
        assert!((p - want).abs() < 1e-5, "{i}: {p} {want}");
    }
}

#[test]
fn apollo_over_flash_storage_moves_as_over_plain_numbers() {
    let flash = entries::flash::<FlashAdamW>("flash_adamw");
    let args = Args::parse("lr=0.1, weight_decay=0").unwrap();
    let flash = (flash.build)(flash.name, &args).unwrap();
    for proj in [ProjectorKind::Random, ProjectorKind::Svd, ProjectorKind::Rademacher] {
        let rule = FlashAdamW { lr: 0.1, weight_decay: 0.0, ..FlashAdamW::default() };
        let mut rule = Projected::<_, Apollo>::new(rule);
        (rule.projection.rank, rule.projection.proj) = (Some(2), proj);
        let plain = OptimizerSpec::new(rule, ComputePolicy::Fused);
        let coded = OptimizerSpec { storage: flash.storage.clone(), ..plain.clone() };
        let shape = [32, 64];
        let bytes = |r: &OptimizerSpec, dtype| r.bytes_per_parameter(&shape, dtype);
        assert!(bytes(&coded, Dtype::Bf16) < 0.7 * bytes(&plain, Dtype::F32));
        let (want, got) = (
            train(&plain, Dtype::F32, shape, &|i| ((i * i * 7 + i * 3) % 11) as f32 - 4.7),
            train(&coded, Dtype::Bf16, shape, &|i| ((i * i * 7 + i * 3) % 11) as f32 - 4.7),
        );
        // Weights of 24 bits have the dtype bf16; the projector is bf16, the moments have 8-bit codes.
        for (i, (x, y)) in want.iter().zip(&got).enumerate() {
            let bound = 4e-3 + 0.05 * (x - 1.0).abs();
            assert!((x - y).abs() < bound, "{proj:?}, {i}: {x} {y}");
        }
        assert!(want.iter().any(|x| (x - 1.0).abs() > 0.01), "{proj:?}: nothing moved");
    }
}

#[test]
fn apollo_goes_down_along_the_gradient_whatever_the_rule() {
    let grad = |i: usize| (i % 7) as f32 - 2.5;
    fn down<R: SplitRule + Default>(name: &str, grad: &dyn Fn(usize) -> f32, sign: f32) {
        let mut rule = Projected::<R, Apollo>::default();
        (rule.projection.rank, rule.projection.scale) = (Some(4), 1.0);
        let args = ["weight_decay=0", "maximize=true"].map(|args| Args::parse(args).unwrap());
        let _ = args[0].apply("", rule.hyper_params());
        assert!(sign > 0.0 || args[1].apply("", rule.hyper_params()).is_ok());
        let moved =
            train(&OptimizerSpec::new(rule, ComputePolicy::Fused), Dtype::F32, [6, 5], grad);
        for (i, p) in moved.iter().enumerate() {
            assert!((p - 1.0) * grad(i) * sign < 0.0, "{name}, {i}: {p} for {}", grad(i));
        }
    }
    down::<AdamWHf>("adamw_hf", &grad, 1.0);
    down::<AdamW>("adamw", &grad, 1.0);
    down::<AdamW>("adamw, maximize", &grad, -1.0);
    down::<Lion>("lion", &grad, 1.0);
    down::<Sgd>("sgd", &grad, 1.0);
    down::<FlashAdamW>("flash_adamw", &grad, 1.0);
    down::<FactoredRule<Adafactor>>("adafactor", &grad, 1.0);
}

#[test]
fn a_rank_with_a_decay_that_would_be_lost_is_refused_before_anything_is_written() {
    let mut rule = Projected::<Sgd, GaLore>::new(Sgd { weight_decay: 0.1, ..Sgd::default() });
    let mut optimizer = Optimizer::empty();
    assert!(optimizer.add_group(OptimizerSpec::new(rule, ComputePolicy::Fused)).is_ok());
    rule.projection.rank = Some(2);
    let refused = optimizer.add_group(OptimizerSpec::new(rule, ComputePolicy::Fused));
    let Err(Error::OutOfRange { argument: "weight_decay", value: 0.1, .. }) = refused else {
        panic!("{refused:?}");
    };
    let (mut param, grad) = ([1.0f32; 4], [1.0f32; 4]);
    let tensor = UpdateBuffers {
        shape: &[2, 2],
        param: DataMut::F32(&mut param),
        grad: Data::F32(&grad),
        slots: &mut [],
        scratch: DataMut::F32(&mut []),
    };
    let got = rule.update(
        ComputePolicy::Fused,
        &StepContext::new(1, 0.1),
        &mut rule.initial_scalars(0),
        tensor,
    );
    assert!(got == Err(refused.unwrap_err()) && param == [1.0; 4]);
}

#[test]
fn a_late_refresh_of_apollo_has_the_seed_of_the_whole_walk() {
    let mut rule = Projected::<AdamW, Apollo>::default();
    (rule.projection.rank, rule.projection.update_proj_gap) = (Some(1), 1);
    let t = 1 << 53;
    let (mut param, grad) = ([1.0f32; 4], [1.0f32; 4]);
    let mut buffers: Vec<Vec<f32>> = (0..rule.info().slots.len())
        .map(|k| vec![0.0; rule.slot_len(k, &[2, 2], Dtype::F32)])
        .collect();
    let mut slots: Vec<_> = buffers.iter_mut().map(|s| DataMut::F32(s)).collect();
    let mut work = vec![0.0f32; rule.scratch_len(&[2, 2])];
    let tensor = UpdateBuffers {
        shape: &[2, 2],
        param: DataMut::F32(&mut param),
        grad: Data::F32(&grad),
        slots: &mut slots,
        scratch: DataMut::F32(&mut work),
    };
    let mut step = StepContext::new(t, 0.1);
    step.shape = &[2, 2];
    rule.update(ComputePolicy::Fused, &step, &mut rule.initial_scalars(0), tensor).unwrap();
    let mut want = [0.0f32; 2];
    Mt19937::new(nth_seed(1, t - 1)).normal(&mut want);
    let place = rule.info().slots.iter().position(|name| *name == "projector").unwrap();
    assert_eq!(buffers[place], want);
}

#[test]
fn matrices_at_the_edges_are_stepped_or_refused() {
    let shapes = [[1, 1], [1, 7], [7, 1], [5, 5], [3, 6], [6, 3], [0, 4], [4, 0]];
    let sides =
        [ProjType::Std, ProjType::ReverseStd, ProjType::Right, ProjType::Left, ProjType::Full];
    let (mut stepped, mut refused) = (0, 0);
    for (shape, rank, side, proj) in shapes.iter().flat_map(|shape| {
        [0, 1, 3, 100].into_iter().flat_map(move |rank| {
            let projs = [ProjectorKind::Svd, ProjectorKind::Random, ProjectorKind::Rademacher];
            sides.into_iter().flat_map(move |side| projs.map(|proj| (*shape, rank, side, proj)))
        })
    }) {
        let note = std::format!("{shape:?}, rank {rank}, {side:?}, {proj:?}");
        let projection =
            Projection { rank: Some(rank), proj_type: side, ..Projection::new(None, proj, 1.0) };
        let inner = AdamW { lr: 0.1, weight_decay: 0.0, ..AdamW::default() };
        let galore = Projected::<_, GaLore> { projection, ..Projected::new(inner) };
        let apollo = Projected::<_, Apollo> { projection, ..Projected::new(inner) };
        for (rule, galore) in [
            (OptimizerSpec::new(galore, ComputePolicy::Fused), true),
            (OptimizerSpec::new(apollo, ComputePolicy::Fused), false),
        ] {
            let mut optimizer = Optimizer::empty();
            let group = optimizer.add_group(rule.clone());
            let added = group.and_then(|group| optimizer.add_param_to(group, &shape, Dtype::F32));
            if added.is_err() {
                refused += 1;
                continue;
            }
            stepped += 1;
            let still = train(&rule, Dtype::F32, shape, &|_| 0.0);
            assert!(still.iter().all(|x| *x == 1.0), "{note}: no gradient, but {still:?}");
            let moved = train(&rule, Dtype::F32, shape, &|i| (i % 5) as f32 - 1.5);
            assert!(moved.iter().all(|x| x.is_finite()), "{note}: {moved:?}");
            let whole = rank > 0 && shape[0] * shape[1] > 0;
            assert!(!whole || moved.iter().any(|x| *x != 1.0), "{note}: nothing moved");
            let broken = train(&rule, Dtype::F32, shape, &|i| if i == 0 { f32::NAN } else { 1.0 });
            assert!(!(whole && galore) || broken.iter().any(|x| x.is_nan()), "{note}: {broken:?}");
        }
    }
    assert!(stepped > 500 && refused > 50, "{stepped} {refused}");
}

/// Two steps, the second of which keeps the projector, with the scratch memory that each needs and `more` elements.
fn two_steps(
    rule: &dyn DynRule,
    shape: [usize; 2],
    narrow: bool,
    more: usize,
) -> (Vec<f32>, usize) {
    let n = shape[0] * shape[1];
    let values = |factor: f32| -> Vec<bf16> {
        (0..n).map(|i| bf16::from_f32_const(libm::sinf(i as f32 * factor))).collect()
    };
    let (mut param, grad) = (values(0.7), values(1.3));
    let wide = |values: &[bf16]| -> Vec<f32> { values.iter().map(|x| x.to_f32_const()).collect() };
    let (mut wide_param, wide_grad) = (wide(&param), wide(&grad));
    let compute = if narrow { Dtype::Bf16 } else { Dtype::F32 };
    let slot = |k| vec![0.0f32; rule.slot_len(k, &shape, compute)];
    let mut buffers: Vec<_> = (0..rule.info().slots.len()).map(slot).collect();
    let mut scalars = rule.initial_scalars(0);
    let mut least = usize::MAX;
    for t in 1..=2 {
        let mut step = StepContext::new(t, 0.1);
        step.shape = &shape;
        step.is_first = t == 1;
        rule.advance_scalars(&step, &mut scalars);
        let (param, grad) = if narrow {
            (DataMut::Bf16(&mut param), Data::Bf16(&grad))
        } else {
            (DataMut::F32(&mut wide_param), Data::F32(&wide_grad))
        };
        let len = rule.scratch_len_at(compute, &step, &shape, &param, &grad);
        assert!(len <= rule.scratch_len(&shape));
        least = least.min(len);
        let mut work = vec![0.0f32; len + more];
        let mut slots: Vec<_> = buffers.iter_mut().map(|s| DataMut::F32(s)).collect();
        let work = DataMut::F32(&mut work);
        let tensor = UpdateBuffers { shape: &shape, param, grad, slots: &mut slots, scratch: work };
        rule.update(ComputePolicy::Eager, &step, &mut scalars, tensor).unwrap();
    }
    (if narrow { wide(&param) } else { wide_param }, least)
}

#[test]
fn a_step_in_the_memory_that_it_asks_for_has_the_bits_of_one_in_more() {
    let sides =
        [ProjType::Std, ProjType::ReverseStd, ProjType::Right, ProjType::Left, ProjType::Full];
    for (shape, side, narrow) in [[5, 3], [3, 5], [4, 4], [400, 2]].into_iter().flat_map(|shape| {
        sides
            .into_iter()
            .flat_map(move |side| [false, true].map(move |narrow| (shape, side, narrow)))
    }) {
        for proj in [ProjectorKind::Svd, ProjectorKind::Random] {
            if side == ProjType::Full && proj == ProjectorKind::Random {
                continue; // refused
            }
            let projection =
                Projection { rank: Some(2), proj_type: side, ..Projection::new(None, proj, 1.0) };
            let inner = AdamW { lr: 0.1, weight_decay: 0.0, ..AdamW::default() };
            let galore = Projected::<_, GaLore> { projection, ..Projected::new(inner) };
            let way = Apollo { scale_type: ScaleType::Tensor, ..Apollo::default() };
            let apollo =
                Projected::<_, Apollo> { projection, method: way, ..Projected::new(inner) };
            for rule in [&galore as &dyn DynRule, &apollo] {
                let (all, least) = two_steps(rule, shape, narrow, rule.scratch_len(&shape));
                assert_eq!(all, two_steps(rule, shape, narrow, 0).0, "{shape:?} {side:?} {proj:?}");
                assert!(narrow || least < rule.scratch_len(&shape), "{shape:?}");
            }
        }
    }
}
