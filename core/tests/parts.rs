//! Parameters that several optimizers hold in parts: together they have the bits of the whole.

use bitstep::Error;
use bitstep::float::Dtype;
use bitstep::hyper::Args;
use bitstep::optimizer::{GroupId, Optimizer, OptimizerSpec};
use bitstep::registry::{OPTIMIZERS, optimizer};
use bitstep::rule::Mode;
use bitstep::storage::{Data, DataMut};
use half::bf16;

const SHAPE: [usize; 2] = [80, 64];
const LEN: usize = SHAPE[0] * SHAPE[1];

fn spec(name: &str, args: &str) -> OptimizerSpec {
    let given = if name.starts_with("bnb_lars") { "lr=0.01, momentum=0.9" } else { "" };
    optimizer(name, Args::parse(if args.is_empty() { given } else { args }).expect("arguments"))
        .expect(name)
}

fn gradient(step: usize) -> Vec<f32> {
    (0..LEN).map(|i| ((i * 7919 + step * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
}

/// Bits of the parameter and of every slot, decoded, after steps of the parts that are cut at `cuts`.
fn run(spec: &OptimizerSpec, cuts: &[usize], narrow: bool) -> (Vec<f32>, Vec<Vec<f32>>, Vec<u64>) {
    let dtype = if narrow { Dtype::Bf16 } else { Dtype::F32 };
    let (mut values, mut slots, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for bounds in cuts.windows(2) {
        let part = bounds[0]..bounds[1];
        let mut opt = Optimizer::new(spec.clone()).expect("a spec");
        let id = opt.add_part(GroupId(0), &SHAPE, dtype, part.clone()).expect("a part");
        let mut wide: Vec<f32> = gradient(99)[part.clone()].to_vec();
        let mut small: Vec<bf16> = wide.iter().map(|&x| bf16::from_f32(x)).collect();
        for step in 0..7 {
            let grad: Vec<f32> = gradient(step)[part.clone()].to_vec();
            let small_grad: Vec<bf16> = grad.iter().map(|&x| bf16::from_f32(x)).collect();
            opt.groups_mut()[0].given_grad_norm = Some(40.0);
            match narrow {
                true => opt.step([(id, (&mut small[..]).into(), Data::Bf16(&small_grad))]),
                false => opt.step([(id, (&mut wide[..]).into(), Data::F32(&grad))]),
            }
            .expect("a step");
        }
        for to in [Mode::Eval, Mode::Train] {
            let mut value =
                if narrow { DataMut::Bf16(&mut small) } else { DataMut::F32(&mut wide) };
            let values = core::slice::from_mut(&mut value);
            match to {
                Mode::Eval => opt.eval(values),
                Mode::Train => opt.train(values),
            }
            .expect("values to evaluate");
        }
        let state = opt.param(id).expect("the parameter");
        values.extend(if narrow { small.iter().map(|x| x.to_f32()).collect() } else { wide });
        slots.resize(state.slots.len(), Vec::new());
        for (all, slot) in slots.iter_mut().zip(&state.slots) {
            let mut decoded = vec![0.0f32; slot.len()];
            slot.decode(&mut DataMut::F32(&mut decoded)).expect("as long");
            all.extend(decoded);
        }
        steps.push(state.steps);
    }
    (values, slots, steps)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn compare(name: &str, spec: &OptimizerSpec, narrow: bool) -> Option<usize> {
    let dtype = if narrow { Dtype::Bf16 } else { Dtype::F32 };
    let multiple = spec.part_multiple(&SHAPE, dtype);
    let cuts = match multiple {
        // An empty part, one of a single multiple, and a last one.
        Some(m) => vec![0, 0, m, LEN / 2 / m * m, LEN / 2 / m * m, LEN],
        None => vec![0, 0, LEN, LEN],
    };
    let (whole, parts) = (run(spec, &[0, LEN], narrow), run(spec, &cuts, narrow));
    assert_eq!(bits(&whole.0), bits(&parts.0), "{name}: values");
    for (k, (a, b)) in whole.1.iter().zip(&parts.1).enumerate() {
        assert_eq!(bits(a), bits(b), "{name}: slot {k}");
    }
    assert!(parts.2.iter().all(|&steps| steps == whole.2[0]), "{name}: steps");
    multiple
}

#[test]
fn parts_of_every_name_have_the_bits_of_the_whole() {
    let mut kinds = [0; 3];
    for entry in OPTIMIZERS {
        for narrow in [false, true] {
            let spec = spec(entry.name, "");
            kinds[match compare(entry.name, &spec, narrow) {
                None => 0,
                Some(1) => 1,
                Some(_) => 2,
            }] += 1;
        }
    }
    // Of each kind there are many, so each branch above has been compared.
    assert!(kinds.iter().all(|&count| count > 20), "{kinds:?}");
}

#[test]
fn parts_round_at_random_as_the_whole() {
    let plain = spec("torchao_adam8bit", "");
    let random = spec("torchao_adam8bit", "bf16_stochastic_round=True");
    assert_eq!(compare("stochastic", &random, true), Some(256));
    assert_ne!(bits(&run(&plain, &[0, LEN], true).0), bits(&run(&random, &[0, LEN], true).0));
}

#[test]
fn part_that_can_not_be_stepped_alone_is_refused() {
    let add = |name: &str, part| {
        let mut opt = Optimizer::new(spec(name, "")).expect("a spec");
        let added = opt.add_part(GroupId(0), &SHAPE, Dtype::F32, part);
        assert_eq!(opt.params().len(), usize::from(added.is_ok()));
        added.map(|_| ())
    };
    for (name, part) in [
        ("adamw_torch", 3..LEN + 1),
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
        ("adamw_torch", 5..3),
        ("adamw_bnb_8bit", 128..256),
        ("adamw_bnb_8bit", 256..300),
        ("stable_adamw", 0..64),
        ("muon", 0..64),
    ] {
        let refused = add(name, part.clone());
        let argument = matches!(refused, Err(Error::InvalidArgument { argument: "elements", .. }));
        assert!(argument, "{name} {part:?}: {refused:?}");
    }
    for (name, part) in
        [("adamw_torch", 3..LEN), ("adamw_bnb_8bit", 256..512), ("muon", 0..LEN), ("muon", 7..7)]
    {
        assert_eq!(add(name, part), Ok(()), "{name}");
    }
}

#[test]
fn part_of_a_rule_that_becomes_one_with_sums_is_not_stepped() {
    let mut opt = Optimizer::new(spec("grokadamw", "gradient_clipping=0.0")).expect("a spec");
    let id = opt.add_part(GroupId(0), &SHAPE, Dtype::F32, 0..64).expect("a part");
    let (mut value, grad) = ([1.0f32; 64], [1.0f32; 64]);
    opt.step([(id, (&mut value).into(), (&grad).into())]).expect("a step");
    opt.set_args(GroupId(0), &[("gradient_clipping", 1.0)].into()).expect("arguments");
    let before = (value, opt.clone().save());
    assert!(opt.step([(id, (&mut value).into(), (&grad).into())]).is_err());
    assert_eq!((value, opt.save()), before);
}

#[test]
fn norm_over_all_gradients_is_asked_for_where_parts_are_held() {
    let clipped = "lr=0.5, clip_grad_norm=1.0";
    let (mut whole, grad) = ([1.0f32, 2.0, 3.0], [3.0f32, 0.0, 4.0]);
    let mut opt = Optimizer::new(spec("lomo", clipped)).expect("a spec");
    let id = opt.add_param(&[3], Dtype::F32).expect("a parameter");
    assert_eq!(opt.grad_norms(&[Data::F32(&grad)], &[]), [Some(5.0)]);
    opt.step([(id, (&mut whole).into(), (&grad).into())]).expect("a step");

    let mut part = [2.0f32, 3.0];
    let mut opt = Optimizer::new(spec("lomo", clipped)).expect("a spec");
    let id = opt.add_part(GroupId(0), &[3], Dtype::F32, 1..3).expect("a part");
    let refused = opt.step([(id, (&mut part).into(), (&grad[1..]).into())]);
    assert!(matches!(refused, Err(Error::InvalidArgument { argument: "given_grad_norm", .. })));
    assert_eq!(part, [2.0, 3.0]);
    opt.groups_mut()[0].given_grad_norm = Some(5.0);
    opt.step([(id, (&mut part).into(), (&grad[1..]).into())]).expect("a step");
    assert_eq!(part, whole[1..]);
    // A norm is that of one step.
    assert!(opt.step([(id, (&mut part).into(), (&grad[1..]).into())]).is_err());
    let plain = Optimizer::new(spec("adamw_torch", "")).expect("a spec");
    assert_eq!(plain.grad_norms(&[Data::F32(&grad)], &[]), [None]);
}

#[test]
fn saved_state_of_a_part_goes_on_with_the_same_bits() {
    let build = |part| {
        let mut opt = Optimizer::new(spec("adamw_bnb_8bit", "")).expect("a spec");
        opt.add_part(GroupId(0), &SHAPE, Dtype::F32, part).expect("a part");
        opt
    };
    let mut opt = build(256..768);
    let id = bitstep::optimizer::ParamId(0);
    let (mut value, grad) = (vec![1.0f32; 512], gradient(1)[256..768].to_vec());
    opt.step([(id, (&mut value[..]).into(), (&grad[..]).into())]).expect("a step");
    let saved = opt.save().expect("memory");
    let mut resumed = build(256..768);
    resumed.load(&saved).expect("the same part");
    let mut again = value.clone();
    opt.step([(id, (&mut value[..]).into(), (&grad[..]).into())]).expect("a step");
    resumed.step([(id, (&mut again[..]).into(), (&grad[..]).into())]).expect("a step");
    assert_eq!(bits(&value), bits(&again));
    assert!(build(0..256).load(&saved).is_err());
}
