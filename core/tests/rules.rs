//! Properties that rules report by name: learning rate, defaults, decay bases, accepted arguments and shapes.

use bitstep::float::Dtype;
use bitstep::hyper::{Args, Value};
use bitstep::optimizer::{Optimizer, OptimizerSpec, Param, StorageConfig};
use bitstep::registry::OPTIMIZERS;
use bitstep::registry::optimizer;
use bitstep::rule::Rule;
use bitstep::storage::{Data, DataMut};

fn parsed(name: &str, args: &str) -> OptimizerSpec {
    optimizer(name, Args::parse(args).expect("name=value")).expect(args)
}

fn hyper(spec: &mut OptimizerSpec) -> Args {
    Args::of(spec.rule.hyper_params())
}

#[test]
fn list_of_names_is_sorted_without_a_name_twice() {
    assert!(OPTIMIZERS.is_sorted_by(|a, b| a.name < b.name));
    assert!(OPTIMIZERS.len() > 70 && OPTIMIZERS.iter().all(|entry| !entry.name.is_empty()));
}

#[test]
fn every_rule_hands_out_the_rate_that_it_was_given() {
    for entry in OPTIMIZERS {
        let mut plain = parsed(entry.name, "");
        match hyper(&mut plain).get("lr") {
            // Adafactor computes its rate from the step unless `relative_step` is off.
            Some(Value::None) => {
                let told = parsed(entry.name, "lr=0.375, relative_step=False, warmup_init=False");
                assert_eq!((told.rule.lr(), plain.rule.lr()), (0.375, 0.0), "{}", entry.name);
            }
            Some(_) => {
                assert_eq!(parsed(entry.name, "lr=0.375").rule.lr(), 0.375, "{}", entry.name)
            }
            None => panic!("{}", entry.name),
        }
    }
}

#[test]
fn a_rate_that_others_are_measured_by_stays_the_first() {
    let mut seen = 0;
    for entry in OPTIMIZERS {
        if hyper(&mut parsed(entry.name, "")).get("max_lr").is_none() {
            continue;
        }
        seen += 1;
        let max_lr = |args: &str| hyper(&mut parsed(entry.name, args)).get("max_lr").cloned();
        assert_eq!(max_lr("lr=0.25, decouple_lr=True"), Some(Value::Float(0.25)), "{}", entry.name);
        assert_eq!(max_lr("lr=0.25"), Some(Value::None), "{}", entry.name);
        let own = max_lr("lr=0.25, decouple_lr=True, max_lr=0.5");
        assert_eq!(own, Some(Value::Float(0.5)), "{}", entry.name);
    }
    assert!(seen > 6);
}

/// [`RuleInfo::decay_bases`](bitstep::rule::RuleInfo::decay_bases): bias-correcting rules name their betas, so that a
/// group computes the powers once.
#[test]
fn powers_are_found_once_for_the_rules_that_correct_their_bias() {
    const BETAS: &[&str] = &[
        "adam",
        "adamw_hf",
        "adamw_torch",
        "adamw_torch_fused",
        "ademamix",
        "bnb_adam_32bit",
        "bnb_adam_8bit",
        "bnb_adamw_32bit",
        "bnb_lamb_32bit",
        "grokadamw",
    ];
    for name in BETAS {
        let betas = [0.75, 0.625, 0.5];
        let betas = if *name == "ademamix" { &betas[..] } else { &betas[..2] };
        let spec = optimizer(name, Args::new().with("betas", betas.to_vec())).expect(name);
        assert_eq!(spec.rule.info().decay_bases, [0.75, 0.625], "{name}");
    }
    assert_eq!(parsed("sgd", "").rule.info().decay_bases, [1.0; 2]);
}

#[test]
fn bitsandbytes_adamw_decays_by_default_and_its_adam_does_not() {
    for (name, decay) in [("bnb_adamw_32bit", 0.01), ("bnb_adam_32bit", 0.0)] {
        let got = hyper(&mut parsed(name, "")).get("weight_decay").and_then(Value::as_f64);
        assert_eq!(got, Some(decay), "{name}");
    }
}

#[test]
fn bitsandbytes_codes_are_found_by_one_of_two_ways() {
    for (how, known) in [("cpu", true), ("nearest", true), ("gpu", false)] {
        assert_eq!(optimizer("bnb_adam_8bit", Args::new().with("quantizer", how)).is_ok(), known);
    }
}

#[test]
fn galores_8_bit_adamw_has_the_defaults_of_its_class() {
    let hyper = hyper(&mut parsed("galore_adamw_8bit", ""));
    let number = |name: &str| hyper.get(name).and_then(Value::as_f64);
    assert_eq!((number("weight_decay"), number("max_unorm")), (Some(0.01), Some(100.0)));
}

#[test]
fn muon_takes_matrices_with_columns() {
    let muon = parsed("muon", "");
    for (shape, fits) in
        [(&[3, 2][..], true), (&[0, 2], true), (&[3, 0], false), (&[3], false), (&[3, 2, 1], false)]
    {
        assert_eq!(muon.rule.check_shape(shape).is_ok(), fits, "{shape:?}");
    }
}

#[test]
fn torchaos_blocks_are_neither_empty_nor_odd_in_4_bits() {
    let taken =
        |name: &str, size: i64| optimizer(name, Args::new().with("block_size", size)).is_ok();
    for (name, size, expected) in [
        ("torchao_adam8bit", 0, false),
        ("torchao_adam8bit", 1, true),
        ("torchao_adam8bit", 2048, true),
        ("torchao_adam8bit", 2050, false),
        ("torchao_adam4bit", 2, true),
        ("torchao_adam4bit", 3, false),
    ] {
        assert_eq!(taken(name, size), expected, "{name}, {size}");
    }
}

#[test]
fn schedule_free_refuses_what_would_divide_by_nothing() {
    for name in ["schedule_free_adamw", "schedule_free_radam"] {
        for wrong in ["lr=-1.0", "eps=-1e-8", "weight_decay=-0.1"] {
            assert!(optimizer(name, Args::parse(wrong).expect("args")).is_err(), "{name}: {wrong}");
        }
        for betas in [[1.0, 0.9], [0.9, 1.0]] {
            assert!(optimizer(name, Args::new().with("betas", betas)).is_err(), "{name}");
        }
    }
    for wrong in ["lr=-1.0", "momentum=1.0", "momentum=0.0", "weight_decay=-0.1"] {
        assert!(
            optimizer("schedule_free_sgd", Args::parse(wrong).expect("args")).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn numbers_are_carried_by_whoever_limits_a_norm() {
    for name in ["bnb_lars_32bit", "bnb_lamb_32bit"] {
        let carried = |args: &str| parsed(name, args).rule.info().scalar_names.len();
        assert_eq!((carried("max_unorm=0.5"), carried("max_unorm=0.0")), (1, 0), "{name}");
    }
}

#[test]
fn keras_clips_by_a_norm_of_all_where_it_is_told_to() {
    let scale = |args: &str| parsed("keras_adam", args).rule.grad_norm_divisor(&[]);
    assert_eq!((scale(""), scale("adam_global_clipnorm=2.0")), (None, Some(1.0)));
    for (name, limit) in
        [("keras_adam", "adam_clipnorm=1.0"), ("adam_weight_decay", "clipnorm=1.0")]
    {
        let whole = |args: &str| parsed(name, args).rule.info().is_elementwise;
        assert!(whole("") && !whole(limit), "{name}");
    }
    // A limit of 0 means none, and a limit per gradient takes precedence.
    assert_eq!((scale("adam_global_clipnorm=0.0"), scale("adam_clipnorm=1.0")), (None, None));
}

#[test]
fn adam_weight_decay_of_create_optimizer_has_its_epsilon() {
    let eps = |args: &str| {
        hyper(&mut parsed("adam_weight_decay", args)).get("epsilon").and_then(Value::as_f64)
    };
    let created =
        optimizer("adam_weight_decay", Args::new().with("init_lr", 0.1)).expect("created");
    assert_eq!(eps(""), Some(1e-7));
    let text = format!("{:?}", created.rule);
    assert!(text.contains("epsilon: 1e-8"), "{text}");
}

#[test]
fn names_that_decay_are_told_by_their_pieces() {
    use bitstep::optim::AdamWeightDecay;
    let decays =
        |name, include: &[&str]| AdamWeightDecay::decays(name, include, AdamWeightDecay::EXCLUDED);
    assert!(
        decays("dense/kernel", &[])
            && !decays("dense/bias", &[])
            && decays("dense/bias", &["dense"])
    );
}

#[test]
fn schedule_free_rules_begin_alike() {
    let start = |name| parsed(name, "").rule.initial_scalars(0);
    assert_eq!(start("schedule_free_sgd"), [0.0, -1.0, 0.0, 0.0]);
    assert_eq!(start("schedule_free_adamw"), start("schedule_free_sgd"));
    assert_eq!(start("schedule_free_radam"), start("schedule_free_sgd"));
}

#[test]
fn muon_is_told_how_many_rounds_and_counts_its_steps() {
    let rule: bitstep::optim::Muon = bitstep::optim::Muon { ns_steps: 3, ..Default::default() };
    assert_eq!(bitstep::rule::newton_schulz::NewtonSchulz::iterations(&rule), 3);
    let muon = parsed("muon", "").rule;
    assert!(muon.info().step_key == "step" && !muon.info().is_elementwise);
}

#[test]
fn apollos_parameters_have_a_seed_each_unless_each_has_its_optimizer() {
    let seeds = |name| [0, 1].map(|index| parsed(name, "rank=2").rule.initial_scalars(index));
    let [first, second] = seeds("apollo_adamw");
    assert_ne!(first, second);
    assert_eq!(seeds("apollo_adamw_layerwise"), [first, first]);
}

#[test]
fn galore_and_apollo_decay_as_their_own_classes_do() {
    for (name, reference) in [("galore_adamw", "Galore"), ("apollo_adamw", "Galore")] {
        let text = format!("{:?}", parsed(name, "").rule);
        assert!(text.contains(reference), "{text}");
    }
}

#[test]
fn ademamix_without_a_warm_up_has_its_third_beta_at_once() {
    use bitstep::optimizer::{Buffer, Optimizer, Param};
    let run = |args: &str| {
        let mut optimizer = Optimizer::empty();
        let group = optimizer.add_group(parsed("ademamix", args)).expect("a group");
        optimizer.add_param_to(group, &[2], bitstep::float::Dtype::F32).expect("a parameter");
        let (mut value, grad) = (Buffer::F32(vec![1.0, 2.0]), Buffer::F32(vec![0.5, -0.25]));
        for _ in 0..3 {
            let param = Param { value: value.data_mut(), grad: grad.data() };
            optimizer.step_all(&mut [param], &[]).expect("a step");
        }
        format!("{value:?}")
    };
    assert_eq!(run("t_beta3=0, t_alpha=0"), run(""));
    assert_ne!(run("t_beta3=100"), run(""));
}

#[test]
fn what_lies_on_the_edge_of_a_range_is_taken_or_refused() {
    let taken = |name, args: &str| optimizer(name, Args::parse(args).expect("args")).is_ok();
    assert!(taken("muon", "ns_steps=99") && !taken("muon", "ns_steps=100"));
    assert!(taken("bnb_adam_32bit", "optim_bits=8") && !taken("bnb_adam_32bit", "optim_bits=16"));
    let ademamix = |betas: [f64; 3], t_beta3: Option<i64>| {
        let args = Args::new().with("betas", betas);
        optimizer("ademamix", t_beta3.map_or(args.clone(), |t| args.with("t_beta3", t))).is_ok()
    };
    assert!(ademamix([0.0, 0.9, 0.0], None) && ademamix([0.0, 0.9, 0.0], Some(0)));
    assert!(!ademamix([0.0, 0.9, 0.9], Some(5)) && !ademamix([0.9, 0.9, 0.0], Some(5)));
}

#[test]
fn torchaos_blocks_are_of_256_and_of_128_in_4_bits() {
    for (name, block) in
        [("torchao_adam8bit", 256), ("torchao_adam4bit", 128), ("torchao_adam_fp8", 256)]
    {
        assert_eq!(parsed(name, "").storage.len_multiple, block, "{name}");
    }
}

#[test]
fn adafactors_rate_in_force_goes_with_the_parameters_size() {
    use bitstep::optim::Adafactor;
    use bitstep::rule::StepContext;
    let rate = |rms, scale_parameter| {
        let rule = Adafactor { scale_parameter, ..Adafactor::default() };
        rule.effective_lr(&StepContext::new(1, 0.0), rms)
    };
    // 10⁻² times the parameter's RMS, which counts as at least ε₂ = 10⁻³.
    assert_eq!([rate(2.0, true), rate(0.0, true)], [0.02, 1e-5]);
    assert_eq!([rate(2.0, false), rate(0.0, false)], [0.01; 2]);
}

#[test]
fn muon_steps_a_tall_matrix_of_several_stretches_as_its_transpose() {
    use bitstep::optimizer::{Buffer, Optimizer, Param};
    const LONG: usize = 300;
    const SHORT: usize = 9;
    let step = |shape: [usize; 2], number: fn(usize, usize) -> f32| {
        let mut optimizer = Optimizer::empty();
        let spec = parsed("muon", "lr=0.5, adjust_lr_fn=match_rms_adamw");
        let group = optimizer.add_group(spec).expect("a group");
        optimizer.add_param_to(group, &shape, bitstep::float::Dtype::F32).expect("a parameter");
        let cells = (0..shape[0]).flat_map(|i| (0..shape[1]).map(move |j| number(i, j)));
        let (mut value, grad) = (vec![1.0f32; LONG * SHORT], Buffer::F32(cells.collect()));
        let data = bitstep::storage::DataMut::F32(&mut value);
        optimizer.step_all(&mut [Param { value: data, grad: grad.data() }], &[]).expect("a step");
        value
    };
    fn tall(i: usize, j: usize) -> f32 {
        ((i * 37 + j * 101) % 64) as f32 - 31.5
    }
    let (a, b) = (step([LONG, SHORT], tall), step([SHORT, LONG], |i, j| tall(j, i)));
    for i in 0..LONG {
        for j in 0..SHORT {
            assert_eq!(a[i * SHORT + j], b[j * LONG + i], "{i}, {j}");
        }
    }
    assert_ne!(a[0], 1.0);
}

/// Slices shorter than two vectors take a path of their own, through arrays.
#[test]
fn an_element_moves_alike_in_tensors_of_any_length() {
    /// The first `n` elements after three steps of a tensor of `len`.
    fn stepped(spec: &OptimizerSpec, len: usize, n: usize) -> Vec<u32> {
        let mut optimizer = Optimizer::empty();
        let group = optimizer.add_group(spec.clone()).expect("valid");
        optimizer.add_param_to(group, &[len], Dtype::F32).expect("a shape");
        let wave = |scale: f32| move |i: usize| ((i * 37 + 11) % 101) as f32 * scale - 0.3;
        let mut param: Vec<f32> = (0..len).map(wave(0.01)).collect();
        for t in 1..=3 {
            let grad: Vec<f32> = (0..len).map(wave(0.007 * t as f32)).collect();
            let (value, grad) = (DataMut::F32(&mut param), Some(Data::F32(&grad)));
            optimizer.step_all(&mut [Param { value, grad }], &[]).expect("a step");
        }
        param[..n].iter().map(|x| x.to_bits()).collect()
    }
    let mut seen = 0;
    for entry in OPTIMIZERS {
        let spec = parsed(entry.name, "");
        let alone = spec.rule.info().is_elementwise && spec.rule.grad_norm_divisor(&[]).is_none();
        if !alone
            || spec.storage != StorageConfig::default()
            || spec.rule.check_shape(&[1]).is_err()
        {
            continue;
        }
        seen += 1;
        for n in [0, 1, 7, 15, 16, 17, 31, 32, 33, 47] {
            assert_eq!(stepped(&spec, n, n), stepped(&spec, 100, n), "{} of {n}", entry.name);
        }
    }
    assert!(seen > 30, "{seen}");
}

/// The results of torch 2.15 for a group `{"params": [p], "weight_decay": -0.5}`: the constructor
/// refuses a decay below 0, but groups do not.
#[test]
fn decay_below_0_of_a_group_is_stepped_with_as_by_torch() {
    for (name, want) in [("sgd", [1.0, -2.20625]), ("adamw_torch", [0.897_499_9, -2.304_736_6])] {
        let args = Args::new().with("lr", 0.1);
        let spec = optimizer(name, &args).unwrap();
        assert!(optimizer(name, args.with("weight_decay", -0.5)).is_err());
        let spec = spec.with_args(&Args::new().with("weight_decay", -0.5)).unwrap();
        let mut optimizer = Optimizer::empty();
        let group = optimizer.add_group(spec).unwrap();
        optimizer.add_param_to(group, &[2], Dtype::F32).unwrap();
        let mut p = [1.0f32, -2.0];
        for g in [[0.5f32, 0.25], [0.5, -0.25]] {
            let param = Param { value: DataMut::F32(&mut p), grad: Some(Data::F32(&g)) };
            optimizer.step_all(&mut [param], &[]).unwrap();
        }
        for (p, want) in p.into_iter().zip(want) {
            assert!(
                (p - want).abs() <= 2.0 * f32::EPSILON * want.abs(),
                "{name}: {p}, wanted {want}"
            );
        }
    }
}

/// Ids are part of saved files: each is the unique stem of a rule in `each_rule!`.
#[test]
fn ids_are_the_stems_of_the_rules() {
    macro_rules! ids {
        (
            elementwise { $($a:ident: $at:ident,)* } tensorwise { $($b:ident: $bt:ident,)* }
            factored { $($c:ident: $ct:ident,)* } orthogonal { $($d:ident: $dt:ident,)* } $($rest:tt)*
        ) => {
            [
                $((stringify!($a), <bitstep::optim::$at as Rule>::ID),)*
                $((stringify!($b), <bitstep::optim::$bt as Rule>::ID),)*
                $((stringify!($c), <bitstep::optim::$ct as Rule>::ID),)*
                $((stringify!($d), stringify!($d)),)*
            ]
        };
    }
    let stems = bitstep::each_rule!(ids);
    for (i, (stem, id)) in stems.into_iter().enumerate() {
        assert_eq!(stem, id);
        assert!(stems[..i].iter().all(|(other, _)| *other != stem), "{stem} twice");
    }
    for entry in OPTIMIZERS {
        let mut id = Vec::new();
        parsed(entry.name, "").rule.id(&mut |part| id.push(part));
        let rule = id.pop().unwrap();
        assert!(stems.iter().any(|(stem, _)| *stem == rule), "{}: {rule}", entry.name);
        let wrappers: &[&str] = match entry.name {
            name if name.starts_with("galore_adamw_8bit") => &["galore", "f32"],
            name if name.starts_with("galore") => &["galore"],
            name if name.starts_with("apollo") => &["apollo"],
            _ => &[],
        };
        assert_eq!(id, wrappers, "{}", entry.name);
    }
}
