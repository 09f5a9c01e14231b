//! Schedules by name: the rates that Transformers' strings and arguments give, and the arguments that are refused.

use bitstep::Error;
use bitstep::error::ensure_range;
use bitstep::hyper::{ArgError, Args, FieldVisitor, HyperParams, Value};
use bitstep::optim::Sgd;
use bitstep::optimizer::{GroupId, Optimizer, OptimizerSpec};
use bitstep::rule::ComputePolicy;
use bitstep::schedule::{
    AnySchedule, GroupScheduler, Linear, NAMES, Schedule, ScheduleFacts, Scheduler, TorchChained,
    TorchExponential, TorchOneCycle, TorchSequential, build,
};

fn parse(args: &str) -> Args {
    Args::parse(args).expect("name=value")
}

/// The argument for a schedule within another: its class and arguments, as a dictionary.
fn within(class: &str, args: &str) -> Value {
    let args = parse(args).iter().map(|(n, v)| (n.to_owned(), v.clone())).collect();
    Value::Map(vec![("class".to_owned(), class.into()), ("kwargs".to_owned(), Value::Map(args))])
}

/// A name, its arguments, the metrics of each of two steps, and the rates at steps 0, 1 and 2.
type Row = (&'static str, Args, [&'static [f64]; 2], [f64; 3]);

/// Every name with arguments of the reference, for an optimizer with the rate 8.
fn table() -> Vec<Row> {
    const NONE: [&[f64]; 2] = [&[], &[]];
    let halve = || within("ExponentialLR", "gamma=0.5");
    let polynomial = "initial_learning_rate=1.0, decay_steps=4, end_learning_rate=0.0";
    vec![
        // f32(10⁻²) · 2 for both steps
        (
            "adafactor_schedule",
            parse("initial_lr=0.5"),
            [&[2.0], &[2.0]],
            [0.5, f64::from(0.02_f32), f64::from(0.02_f32)],
        ),
        ("constant", Args::new(), NONE, [8.0, 8.0, 8.0]),
        // 8 · 1/2
        ("constant_with_warmup", parse("num_warmup_steps=2"), NONE, [0.0, 4.0, 8.0]),
        // 8 · ½ (1 + cos ½π)
        ("cosine", parse("num_warmup_steps=0, num_training_steps=2"), NONE, [8.0, 4.0, 0.0]),
        // 8 · 1/2, 8 · 2/2, p = ½: 8 · (½ · ½ + ½)
        (
            "cosine_warmup_with_min_lr",
            parse("num_warmup_steps=2, num_training_steps=4, min_lr_rate=0.5"),
            NONE,
            [4.0, 8.0, 6.0],
        ),
        // 2/8 = ¼: 8 · (½ · ¾ + ¼)
        (
            "cosine_with_min_lr",
            parse("num_warmup_steps=0, num_training_steps=2, min_lr=2.0"),
            NONE,
            [8.0, 5.0, 2.0],
        ),
        // two falling cosines of two steps each
        (
            "cosine_with_restarts",
            parse("num_warmup_steps=0, num_training_steps=4, num_cycles=2"),
            NONE,
            [8.0, 4.0, 8.0],
        ),
        (
            "create_optimizer",
            parse("init_lr=1.0, num_train_steps=4, num_warmup_steps=2"),
            NONE,
            [0.0, 0.5, 1.0],
        ),
        // good: 8/½; bad: 16 · ½
        (
            "greedy",
            parse("patience=0, factor=0.5, min_lr=1.0, max_lr=16.0"),
            [&[3.0], &[4.0]],
            [8.0, 16.0, 8.0],
        ),
        // 8/√1, 8/√2, 8/√3
        (
            "inverse_sqrt",
            parse("num_warmup_steps=0, timescale=1"),
            NONE,
            [8.0, 5.656_854_249_492_38, 4.618_802_153_517_006],
        ),
        ("linear", parse("num_warmup_steps=1, num_training_steps=3"), NONE, [0.0, 8.0, 4.0]),
        // 8 · ½²
        (
            "polynomial",
            parse("num_warmup_steps=0, num_training_steps=2, lr_end=0.0, power=2.0"),
            NONE,
            [8.0, 2.0, 0.0],
        ),
        (
            "reduce_lr_on_plateau",
            parse("patience=0, factor=0.5"),
            [&[3.0], &[4.0]],
            [8.0, 8.0, 4.0],
        ),
        // 8 · ½; · ½; · 2 · ½
        (
            "torch_chained",
            Args::new().with(
                "schedulers",
                Value::List(vec![within("ConstantLR", "factor=0.5, total_iters=2"), halve()]),
            ),
            NONE,
            [4.0, 2.0, 2.0],
        ),
        ("torch_constant", parse("factor=0.5, total_iters=2"), NONE, [4.0, 4.0, 8.0]),
        ("torch_cosine_annealing", parse("T_max=2"), NONE, [8.0, 4.0, 0.0]),
        ("torch_cosine_annealing_warm_restarts", parse("T_0=2"), NONE, [8.0, 4.0, 8.0]),
        ("torch_cyclic", parse("base_lr=1.0, max_lr=3.0, step_size_up=2"), NONE, [1.0, 2.0, 3.0]),
        ("torch_exponential", parse("gamma=0.5"), NONE, [8.0, 4.0, 2.0]),
        ("torch_linear", parse("start_factor=0.5, total_iters=2"), NONE, [4.0, 6.0, 8.0]),
        (
            "torch_multi_step",
            Args::new().with("milestones", [1i64, 2]).with("gamma", 0.5),
            NONE,
            [8.0, 4.0, 2.0],
        ),
        // (1 − ½) · t/4 + ½
        (
            "torch_one_cycle",
            parse(
                "max_lr=1.0, total_steps=10, pct_start=0.5, anneal_strategy=linear, div_factor=2",
            ),
            NONE,
            [0.5, 0.625, 0.75],
        ),
        ("torch_polynomial", parse("total_iters=2"), NONE, [8.0, 4.0, 0.0]),
        // at the milestone 8 · ¼
        (
            "torch_sequential",
            Args::new()
                .with("schedulers", Value::List(vec![halve(), within("ConstantLR", "factor=0.25")]))
                .with("milestones", [2i64]),
            NONE,
            [8.0, 4.0, 2.0],
        ),
        ("torch_step", parse("step_size=2, gamma=0.5"), NONE, [8.0, 8.0, 4.0]),
        (
            "warm_up",
            parse("initial_learning_rate=1.0, warmup_steps=2")
                .with("decay_schedule_fn", within("PolynomialDecay", polynomial)),
            NONE,
            [0.0, 0.5, 1.0],
        ),
        (
            "warmup_stable_decay",
            parse("num_warmup_steps=1, num_decay_steps=2, num_training_steps=3"),
            NONE,
            [0.0, 8.0, 4.0],
        ),
    ]
}

/// The schedule of a name, for an optimizer with the rate 8.
fn of(name: &str, args: &Args) -> Result<Scheduler, ArgError> {
    build(name, &args.clone().with("lr", 8.0))
}

fn error(name: &str, args: &Args) -> ArgError {
    of(name, args).expect_err(name)
}

/// Asserts equality up to the rounding errors of a few operations.
fn assert_near(got: f64, want: f64, of: &str) {
    assert!(
        (got - want).abs() <= 4.0 * f64::EPSILON * want.abs(),
        "{of}: {got:e}, wanted {want:e}"
    );
}

#[test]
fn every_name_builds_and_steps() {
    let table = table();
    assert_eq!(table.iter().map(|row| row.0).collect::<Vec<_>>(), NAMES);
    for (name, args, given, [first, second, third]) in table {
        let mut scheduler = of(name, &args).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_near(scheduler.lrs()[0], first, name);
        for (given, want) in given.into_iter().zip([second, third]) {
            assert_near(scheduler.step(given).expect(name)[0], want, name);
        }
        assert_eq!(scheduler.state().step, 2, "{name}");
    }
}

#[test]
fn transformers_names_are_known() {
    // SchedulerType of Transformers 5.23
    let types = [
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "reduce_lr_on_plateau",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "warmup_stable_decay",
        "greedy",
    ];
    assert!(types.iter().all(|name| NAMES.contains(name)));
}

#[test]
fn unknown_name_is_named_with_the_nearest() {
    for known in NAMES {
        let name = known.replacen('a', "", 1).replacen('r', "rr", 1) + "_";
        match build(&name, &Args::new()) {
            Err(ArgError::UnknownName { kind: "schedule", name: got, nearest }) => {
                assert_eq!((got, nearest), (name, Some(*known)));
            }
            other => panic!("{known}: {other:?}"),
        }
    }
    let error = build("zzz", &Args::new()).expect_err("no such name");
    assert_eq!(error.to_string(), "unknown schedule `zzz`");
}

#[test]
fn unknown_argument_is_named_with_the_nearest() {
    for (name, args, ..) in table() {
        let of_the_optimizer = ["lr", "groups", "initial_lr", "last_epoch"];
        for known in args.iter().map(|(n, _)| n).chain(of_the_optimizer) {
            let argument = format!("{known}x");
            match error(name, &args.clone().with(&argument, 1i64)) {
                ArgError::UnknownArgument { of, argument: got, nearest } => {
                    assert_eq!((of.as_str(), got, nearest), (name, argument, Some(known)));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        let got = error(name, &args.clone().with("qqqqqqqqqqqqqqqq", 1i64));
        assert_eq!(got.to_string(), format!("`{name}` has no argument `qqqqqqqqqqqqqqqq`"));
    }
}

#[test]
fn value_of_the_wrong_type_is_named() {
    let wrong = Value::Map(Vec::new());
    for (name, args, ..) in table() {
        for argument in args.iter().map(|(n, _)| n).chain(["lr", "groups", "last_epoch"]) {
            match build(name, &args.clone().with(argument, wrong.clone())) {
                Err(ArgError::Value { argument: got, value, .. }) => {
                    assert_eq!((got.as_str(), &value), (argument, &wrong), "{name}");
                }
                other => panic!("{name}, {argument}: {other:?}"),
            }
        }
    }
}

#[test]
fn choice_that_does_not_exist_is_named_with_those_that_do() {
    for (name, argument, known) in [
        ("adafactor_schedule", "dtype", "\"float32\""),
        ("greedy", "mode", "one of \"min\", \"max\""),
        ("greedy", "threshold_mode", "one of \"rel\", \"abs\""),
        ("reduce_lr_on_plateau", "mode", "one of \"min\", \"max\""),
        ("reduce_lr_on_plateau", "threshold_mode", "one of \"rel\", \"abs\""),
        ("torch_cyclic", "mode", "one of \"triangular\", \"triangular2\", \"exp_range\""),
        ("torch_one_cycle", "anneal_strategy", "one of \"cos\", \"linear\""),
        ("warmup_stable_decay", "warmup_type", "one of \"linear\", \"cosine\", \"1-sqrt\""),
        ("warmup_stable_decay", "decay_type", "one of \"linear\", \"cosine\", \"1-sqrt\""),
    ] {
        let args = table().into_iter().find(|row| row.0 == name).expect(name).1;
        match error(name, &args.with(argument, "sine")) {
            ArgError::Value { argument: got, value, expected } => {
                assert_eq!((got.as_str(), value), (argument, Value::from("sine")));
                assert!(expected.contains(known), "{name}: {expected}");
            }
            other => panic!("{name}, {argument}: {other:?}"),
        }
    }
}

#[test]
fn missing_argument_is_named() {
    // Required in the reference; for Transformers' schedules, required by get_scheduler.
    const STEPS: &[&str] = &["num_warmup_steps", "num_training_steps"];
    let required: [(&str, &[&str]); 20] = [
        ("constant_with_warmup", &["num_warmup_steps"]),
        ("cosine", STEPS),
        ("cosine_warmup_with_min_lr", STEPS),
        ("cosine_with_min_lr", STEPS),
        ("cosine_with_restarts", STEPS),
        ("create_optimizer", &["init_lr", "num_train_steps", "num_warmup_steps"]),
        ("inverse_sqrt", &["num_warmup_steps"]),
        ("linear", STEPS),
        ("polynomial", STEPS),
        ("torch_chained", &["schedulers"]),
        ("torch_cosine_annealing", &["T_max"]),
        ("torch_cosine_annealing_warm_restarts", &["T_0"]),
        ("torch_cyclic", &["base_lr", "max_lr"]),
        ("torch_exponential", &["gamma"]),
        ("torch_multi_step", &["milestones"]),
        ("torch_one_cycle", &["max_lr"]),
        ("torch_sequential", &["schedulers", "milestones"]),
        ("torch_step", &["step_size"]),
        ("warm_up", &["initial_learning_rate", "decay_schedule_fn", "warmup_steps"]),
        ("warmup_stable_decay", &["num_warmup_steps", "num_decay_steps"]),
    ];
    for (name, args, ..) in table() {
        let required = required.iter().find(|r| r.0 == name).map_or(&[][..], |r| r.1);
        for &argument in required {
            let mut rest = args.clone();
            assert!(rest.take(argument).is_some(), "{name} has {argument}");
            match error(name, &rest) {
                ArgError::Missing { of, argument: got } => {
                    assert_eq!((of.as_str(), got), (name, argument));
                }
                other => panic!("{name}, {argument}: {other:?}"),
            }
        }
        // They suffice, except for what the reference requires by other means.
        if !matches!(
            name,
            "cosine_with_min_lr"
                | "cosine_warmup_with_min_lr"
                | "torch_one_cycle"
                | "warmup_stable_decay"
        ) {
            let only = args.iter().filter(|(n, _)| required.contains(n));
            let only: Args = only.map(|(n, v)| (n, v.clone())).collect();
            assert!(of(name, &only).is_ok(), "{name}");
        }
    }
}

#[test]
fn refused_value_is_named() {
    // Arguments for which the reference raises, in an otherwise valid call.
    for (name, args, argument) in [
        ("cosine_with_min_lr", "num_warmup_steps=0, num_training_steps=2", "min_lr"),
        (
            "cosine_with_min_lr",
            "num_warmup_steps=0, num_training_steps=2, min_lr=0.1, min_lr_rate=0.1",
            "min_lr",
        ),
        ("cosine_warmup_with_min_lr", "num_warmup_steps=0, num_training_steps=2", "min_lr"),
        ("greedy", "factor=1.0", "factor"),
        ("greedy", "smooth=True, window_size=0", "window_size"),
        ("inverse_sqrt", "num_warmup_steps=0, timescale=0", "timescale"),
        ("polynomial", "num_warmup_steps=0, num_training_steps=2, lr_end=8.0", "lr_end"),
        ("reduce_lr_on_plateau", "factor=1.5", "factor"),
        ("torch_constant", "factor=1.5", "factor"),
        ("torch_constant", "factor=-0.5", "factor"),
        ("torch_cosine_annealing", "T_max=0", "T_max"),
        ("torch_cosine_annealing_warm_restarts", "T_0=0", "T_0"),
        ("torch_cosine_annealing_warm_restarts", "T_0=1, T_mult=0", "T_mult"),
        ("torch_cyclic", "base_lr=1.0, max_lr=2.0, step_size_up=0", "step_size_up"),
        ("torch_linear", "start_factor=0.0", "start_factor"),
        ("torch_linear", "end_factor=1.5", "end_factor"),
        ("torch_one_cycle", "max_lr=1.0", "total_steps"),
        ("torch_one_cycle", "max_lr=1.0, total_steps=0", "total_steps"),
        ("torch_one_cycle", "max_lr=1.0, epochs=0, steps_per_epoch=2", "epochs"),
        ("torch_one_cycle", "max_lr=1.0, epochs=2, steps_per_epoch=0", "steps_per_epoch"),
        ("torch_one_cycle", "max_lr=1.0, total_steps=9, pct_start=1.5", "pct_start"),
        ("torch_step", "step_size=0", "step_size"),
        ("warmup_stable_decay", "num_warmup_steps=1, num_decay_steps=1", "num_stable_steps"),
    ] {
        match error(name, &parse(args)) {
            ArgError::InvalidConfig(
                Error::OutOfRange { argument: got, .. }
                | Error::InvalidArgument { argument: got, .. },
            ) => assert_eq!(got, argument, "{name}"),
            other => panic!("{name}, {argument}: {other:?}"),
        }
    }
}

#[test]
fn negative_count_is_refused_by_its_type() {
    for (name, args, argument) in [
        ("torch_step", "step_size=-1", "step_size"),
        ("torch_cosine_annealing_warm_restarts", "T_0=-1", "T_0"),
        ("torch_one_cycle", "max_lr=1.0, total_steps=-1", "total_steps"),
        ("torch_cosine_annealing_warm_restarts", "T_0=2.5", "T_0"),
    ] {
        match error(name, &parse(args)) {
            ArgError::Value { argument: got, expected, .. } => {
                assert_eq!(got, argument);
                assert!(expected.starts_with("a whole number, at least 0"), "{expected}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn schedules_within_others_are_refused_where_the_reference_does() {
    let list = |within| Args::new().with("schedulers", Value::List(within));
    let none = error("torch_chained", &list(vec![]));
    assert_eq!(
        none,
        ArgError::InvalidConfig(Error::LengthMismatch {
            argument: "schedulers",
            got: 0,
            expected: 1
        })
    );
    for plateau in ["ReduceLROnPlateau", "reduce_lr_on_plateau", "greedy", "adafactor_schedule"] {
        let got = error("torch_chained", &list(vec![within(plateau, "")]));
        let invalid = matches!(
            got,
            ArgError::InvalidConfig(Error::InvalidArgument { argument: "schedulers", .. })
        );
        assert!(invalid, "{got:?}");
    }
    // SequentialLR can't contain another SequentialLR, and a ChainedScheduler only as its first element.
    let halve = || within("ExponentialLR", "gamma=0.5");
    let holder = |class: &str| {
        let args = [("schedulers".to_owned(), Value::List(vec![halve()]))];
        let args = if class == "SequentialLR" {
            [args.to_vec(), vec![("milestones".to_owned(), Value::List(vec![]))]].concat()
        } else {
            args.to_vec()
        };
        Value::Map(vec![
            ("class".to_owned(), class.into()),
            ("kwargs".to_owned(), Value::Map(args)),
        ])
    };
    let sequence =
        |first, second| list(vec![first, second]).with("milestones", [1i64]).with("lr", 8.0);
    let taken = |args: &Args| build("torch_sequential", args).is_ok();
    assert!(
        taken(&sequence(halve(), halve())) && taken(&sequence(holder("ChainedScheduler"), halve()))
    );
    for refused in [
        sequence(holder("SequentialLR"), halve()),
        sequence(halve(), holder("SequentialLR")),
        sequence(halve(), holder("ChainedScheduler")),
    ] {
        assert!(!taken(&refused), "{refused:?}");
    }
    let got = error("torch_chained", &list(vec![within("ConstantLr", "")]));
    assert!(matches!(got, ArgError::UnknownName { kind: "schedule", .. }), "{got:?}");
    let got = error("torch_chained", &list(vec![within("ConstantLR", "factors=0.5")]));
    let expected = "`torch_constant` has no argument `factors`; did you mean `factor`?";
    assert_eq!(got.to_string(), expected);
    let got = error("torch_chained", &list(vec![within("ConstantLR", "factor=2.0")]));
    assert!(matches!(
        got,
        ArgError::InvalidConfig(Error::OutOfRange { argument: "factor", value: 2.0, .. })
    ));

    let two = list(vec![within("ExponentialLR", "gamma=0.5"); 2]);
    let got = error("torch_sequential", &two.clone().with("milestones", [1i64, 2]));
    assert_eq!(
        got,
        ArgError::InvalidConfig(Error::LengthMismatch {
            argument: "milestones",
            got: 2,
            expected: 1
        })
    );
    let got = error("torch_sequential", &two.with("milestones", [-1i64]));
    assert!(matches!(got, ArgError::Value { argument, .. } if argument == "milestones"));
}

#[test]
fn decays_of_keras_are_built_by_class() {
    let args = |decay: Value| {
        parse("initial_learning_rate=1.0, warmup_steps=0").with("decay_schedule_fn", decay)
    };
    let halves = [
        // each ½ at step 2 (CosineDecay within the rounding of the f32 next to ½π)
        within(
            "PolynomialDecay",
            "initial_learning_rate=1.0, decay_steps=4, end_learning_rate=0.0",
        ),
        within("ExponentialDecay", "initial_learning_rate=1.0, decay_steps=2, decay_rate=0.5"),
        within("InverseTimeDecay", "initial_learning_rate=1.0, decay_steps=2, decay_rate=1.0"),
        within("CosineDecay", "initial_learning_rate=1.0, decay_steps=4"),
        within("CosineDecayRestarts", "initial_learning_rate=1.0, first_decay_steps=4"),
        within("WarmUp", "initial_learning_rate=1.0, decay_schedule_fn=7.0, warmup_steps=4"),
        Value::Float(0.5),
    ];
    for decay in halves {
        let mut scheduler = of("warm_up", &args(decay.clone())).expect("a decay");
        scheduler.step(&[]).expect("a step");
        let lr = scheduler.step(&[]).expect("a step")[0];
        assert!((lr - 0.5).abs() < 1e-7, "{decay}: {lr}");
    }

    let piecewise = |values: Vec<f64>| {
        let args = Args::new().with("boundaries", [1i64]).with("values", values);
        let args = args.iter().map(|(n, v)| (n.to_owned(), v.clone())).collect();
        Value::List(vec!["PiecewiseConstantDecay".into(), Value::Map(args)])
    };
    let mut scheduler = of("warm_up", &args(piecewise(vec![1.0, 0.5]))).expect("a decay");
    assert_eq!(scheduler.lrs(), [1.0]);
    assert_eq!(scheduler.step(&[]).expect("a step"), [1.0]);
    assert_eq!(scheduler.step(&[]).expect("a step"), [0.5]);
    let got = error("warm_up", &args(piecewise(vec![1.0])));
    assert_eq!(
        got,
        ArgError::InvalidConfig(Error::LengthMismatch { argument: "values", got: 1, expected: 2 })
    );

    let got = error("warm_up", &args(within("CosineDecai", "")));
    assert!(matches!(got, ArgError::UnknownName { kind: "decay", .. }), "{got:?}");
    let got = error("warm_up", &args(within("CosineDecay", "initial_learning_rate=1.0")));
    assert!(matches!(got, ArgError::Missing { argument: "decay_steps", .. }), "{got:?}");
}

/// Groups with these rates.
fn groups(lrs: &[f64]) -> Value {
    let group = |&lr: &f64| Value::Map(vec![("lr".to_owned(), Value::Float(lr))]);
    Value::List(lrs.iter().map(group).collect())
}

#[test]
fn groups_have_rates_of_their_own() {
    let args = parse("num_warmup_steps=1, num_training_steps=3");
    let mut scheduler =
        build("linear", &args.clone().with("groups", groups(&[8.0, 2.0, 0.5]))).expect("groups");
    // 0, 1 and (3 − 2)/2 of each
    assert_eq!(scheduler.lrs(), [0.0, 0.0, 0.0]);
    assert_eq!(scheduler.step(&[]).expect("a step"), [8.0, 2.0, 0.5]);
    assert_eq!(scheduler.step(&[]).expect("a step"), [4.0, 1.0, 0.25]);

    // Equal to a GroupScheduler for each group.
    let linear = Linear { num_warmup_steps: 1, num_training_steps: 3 };
    let mut steppers = [8.0, 2.0, 0.5].map(|lr| GroupScheduler::new(linear, lr));
    let mut scheduler = build("linear", &args.with("lr", [8.0, 2.0, 0.5])).expect("rates");
    for _ in 0..5 {
        let lrs = steppers.each_mut().map(|s| s.step().expect("a step"));
        assert_eq!(scheduler.step(&[]).expect("a step"), lrs);
        assert_eq!(scheduler.lrs(), steppers.map(|s| s.lr()));
    }
}

#[test]
fn every_closed_form_scales_with_its_groups_rate() {
    // All rates are base_lr · λ(t), with λ of the optimizer's rate; powers of two scale exactly.
    for name in [
        "constant",
        "constant_with_warmup",
        "cosine",
        "cosine_warmup_with_min_lr",
        "cosine_with_min_lr",
        "cosine_with_restarts",
        "inverse_sqrt",
        "linear",
        "polynomial",
        "warmup_stable_decay",
    ] {
        let args = table().into_iter().find(|row| row.0 == name).expect(name).1;
        let mut scheduler = of(name, &args.with("groups", groups(&[8.0, 2.0, 0.5]))).expect(name);
        for step in 0..6 {
            let &[a, b, c] = scheduler.lrs() else { panic!("{name}: three groups") };
            assert_eq!([b, c], [a / 4.0, a / 16.0], "{name} at {step}");
            scheduler.step(&[]).expect(name);
        }
    }
}

#[test]
fn minimum_of_a_group_of_its_own_is_a_share_of_the_optimizers_rate() {
    let args = parse("num_warmup_steps=0, num_training_steps=2, min_lr=2.0");
    let mut scheduler =
        of("cosine_with_min_lr", &args.with("groups", groups(&[8.0, 4.0]))).expect("groups");
    scheduler.step(&[]).expect("a step");
    // 2/8 of 8, and of 4
    assert_eq!(scheduler.step(&[]).expect("a step"), [2.0, 1.0]);
}

#[test]
fn list_gives_each_group_its_own_value() {
    let args = parse("patience=0, factor=0.5").with("groups", groups(&[8.0, 8.0]));
    let mut scheduler =
        build("reduce_lr_on_plateau", &args.clone().with("min_lr", [6.0, 0.0])).expect("a list");
    scheduler.step(&[3.0]).expect("a step");
    assert_eq!(scheduler.step(&[3.0]).expect("a step"), [6.0, 4.0]);

    let got = build("reduce_lr_on_plateau", &args.with("min_lr", [6.0])).expect_err("one for two");
    assert_eq!(
        got,
        ArgError::InvalidConfig(Error::LengthMismatch { argument: "min_lr", got: 1, expected: 2 })
    );

    let args =
        parse("step_size_up=2").with("max_lr", [3.0, 5.0]).with("groups", groups(&[8.0, 8.0]));
    let mut scheduler = build("torch_cyclic", &args.clone().with("base_lr", 1.0)).expect("a list");
    // 1 + (max − 1)/2
    assert_eq!(scheduler.step(&[]).expect("a step"), [2.0, 3.0]);
    let got = build("torch_cyclic", &args.with("base_lr", [1.0; 3])).expect_err("three for two");
    assert_eq!(
        got,
        ArgError::InvalidConfig(Error::LengthMismatch { argument: "base_lr", got: 3, expected: 2 })
    );
}

#[test]
fn wrong_number_of_given_values_changes_nothing() {
    for (name, args, given, _) in table() {
        let mut scheduler = of(name, &args).expect(name);
        let before = scheduler.state().clone();
        let expected = given[0].len();
        let too_many = vec![1.0; expected + 1];
        let refused = Error::LengthMismatch { argument: "given", got: expected + 1, expected };
        assert_eq!(scheduler.step(&too_many), Err(refused), "{name}");
        assert_eq!(scheduler.state(), &before, "{name}");
    }
}

#[test]
fn step_past_the_last_changes_nothing() {
    let mut scheduler =
        build("torch_one_cycle", &parse("max_lr=1.0, total_steps=2")).expect("a cycle");
    scheduler.step(&[]).expect("step 1");
    scheduler.step(&[]).expect("step 2, which the reference takes");
    let before = scheduler.state().clone();
    assert!(matches!(scheduler.step(&[]), Err(Error::InvalidArgument { argument: "step", .. })));
    assert_eq!(scheduler.state(), &before);
}

#[test]
fn restored_state_goes_on_where_it_was() {
    for (name, args, given, _) in table() {
        let mut whole = of(name, &args).expect(name);
        let first = whole.step(given[0]).expect(name).to_vec();
        let mut resumed = of(name, &args).expect(name);
        resumed.restore(whole.state().clone()).expect(name);
        assert_eq!(resumed.lrs(), first, "{name}");
        let second = whole.step(given[1]).expect(name).to_vec();
        assert_eq!(resumed.step(given[1]).expect(name), second, "{name}");
    }
}

#[test]
fn state_of_another_schedule_or_number_of_groups_is_refused() {
    let mut linear =
        of("linear", &parse("num_warmup_steps=1, num_training_steps=3")).expect("linear");
    let before = linear.state().clone();
    let greedy = of("greedy", &Args::new()).expect("greedy");
    let two = build("constant", &Args::new().with("lr", [1.0, 2.0])).expect("two groups");
    for other in [greedy.state(), two.state()] {
        let got = linear.restore(other.clone());
        assert!(matches!(got, Err(Error::InvalidArgument { argument: "state", .. })), "{got:?}");
        assert_eq!(linear.state(), &before);
    }
}

#[test]
fn last_epoch_resumes_after_that_step() {
    // As LambdaLR with last_epoch 0 and an initial_lr of 8: the next step is 1, 8 · (3 − 1)/2.
    let args = parse("num_warmup_steps=1, num_training_steps=3, initial_lr=8.0, last_epoch=0");
    let mut scheduler = build("linear", &args.with("lr", 5.0)).expect("resumed");
    assert_eq!((scheduler.lrs(), scheduler.state().step), (&[8.0][..], 1));
    assert_eq!(scheduler.step(&[]).expect("a step"), [4.0]);
    let linear = Linear { num_warmup_steps: 1, num_training_steps: 3 };
    assert_eq!(scheduler.lrs(), [linear.lr(8.0, 2)]);
}

/// A triangle wave: linearly from 0 up to the base rate and down again, repeatedly.
#[derive(Clone, Debug)]
struct Triangle {
    half: u64,
}

impl HyperParams for Triangle {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("half", &mut self.half);
    }
}

impl Schedule for Triangle {
    fn lr(&self, base_lr: f64, step: u64) -> f64 {
        let t = step % (2 * self.half);
        base_lr * t.min(2 * self.half - t) as f64 / self.half as f64
    }
}

impl ScheduleFacts for Triangle {
    fn check(&self) -> Result<(), Error> {
        ensure_range(self.half > 0, "half", self.half as f64, "half >= 1")
    }
}

fn triangle(half: u64, lrs: &[f64]) -> Scheduler {
    Scheduler::of("triangle", Triangle { half }, lrs).expect("a schedule")
}

/// The current rates, and those after each of this many steps.
fn rates(scheduler: &mut Scheduler, steps: usize) -> Vec<Vec<f64>> {
    let mut all = vec![scheduler.lrs().to_vec()];
    all.extend((0..steps).map(|_| scheduler.step(&[]).expect("a step").to_vec()));
    all
}

#[test]
fn schedule_given_is_the_one_built_of_its_name() {
    let cycle = TorchOneCycle { total_steps: Some(9), max_lr: 0.25, ..TorchOneCycle::default() };
    let given = |name: &str, of: Box<dyn AnySchedule>| {
        Scheduler::of(name, of, &[8.0, 2.0]).expect("a schedule")
    };
    for (name, args, schedule) in [
        (
            "linear",
            "num_warmup_steps=2, num_training_steps=8",
            Linear { num_warmup_steps: 2, num_training_steps: 8 }.clone_box(),
        ),
        ("torch_exponential", "gamma=0.9", TorchExponential { gamma: 0.9 }.clone_box()),
        ("torch_one_cycle", "total_steps=9, max_lr=0.25", cycle.clone_box()),
    ] {
        let args = parse(args).with("groups", groups(&[8.0, 2.0]));
        let (mut own, mut built) = (given(name, schedule), build(name, &args).expect(name));
        for _ in 0..9 {
            assert_eq!((own.name(), own.state()), (built.name(), built.state()));
            assert_eq!(own.momentum(1), built.momentum(1), "{name}");
            assert_eq!(own.step(&[]), built.step(&[]), "{name}");
        }
        // `args` reports all arguments, defaults included.
        assert!(args.iter().all(|(argument, value)| own.args().get(argument) == Some(value)));
    }
    // A schedule refuses to step past its end.
    let mut own = given("torch_one_cycle", cycle.clone_box());
    rates(&mut own, 9);
    assert!(matches!(own.step(&[]), Err(Error::InvalidArgument { argument: "step", .. })));
}

#[test]
fn schedule_of_ones_own_runs_within_others() {
    let schedulers =
        vec![Triangle { half: 2 }.clone_box(), TorchExponential { gamma: 0.5 }.clone_box()];
    let own = TorchSequential { schedulers, milestones: vec![3], last_epoch: -1 };
    let mut own = Scheduler::of("triangle, then down", own, &[8.0]).expect("a schedule");
    // the triangle up and half down; from the milestone on, the base rate halved in each step
    assert_eq!(rates(&mut own, 5).concat(), [0.0, 4.0, 8.0, 8.0, 4.0, 2.0]);
    let wrong = vec![Triangle { half: 0 }.clone_box()];
    let refused = Scheduler::of("chained", TorchChained { schedulers: wrong }, &[8.0]);
    assert!(matches!(
        refused.unwrap_err(),
        ArgError::InvalidConfig(Error::OutOfRange { argument: "half", .. })
    ));
}

#[test]
fn schedule_of_ones_own_goes_on_from_its_state_and_from_what_replaced_its_arguments() {
    let mut went_on = triangle(4, &[8.0, 4.0]);
    rates(&mut went_on, 3);
    let (state, copy) = (went_on.state().clone(), went_on.clone());
    let rest = rates(&mut went_on, 5);

    let mut restored = triangle(4, &[8.0, 4.0]);
    restored.restore(state.clone()).expect("its state");
    assert_eq!(rates(&mut restored, 5), rest);
    assert_eq!(rates(&mut copy.clone(), 5), rest);
    assert!(triangle(4, &[8.0]).restore(state.clone()).is_err());

    let mut resumed = triangle(4, &[8.0, 4.0]);
    let replaced = Args::new().with("half", 5i64).with("groups", groups(&[10.0, 5.0]));
    resumed.resume(&replaced, state.clone()).expect("other arguments");
    assert_eq!(resumed.lrs(), [6.0, 3.0]); // the rates before saving
    assert_eq!(resumed.step(&[]).expect("step 4"), [8.0, 4.0]); // 4/5 of 10 and 5
    assert_eq!((resumed.replaced(), resumed.args()), (&replaced, went_on.args()));
    // Resuming from the result gives the same state again.
    let again = resumed.resumed(&replaced, state.clone()).expect("the same");
    assert_eq!(again.state(), &state);

    let before = format!("{resumed:?}");
    for wrong in [
        Args::new().with("half", 0i64),
        Args::new().with("hlf", 1i64),
        Args::new().with("groups", 1i64),
        Args::new().with("groups", groups(&[1.0])),
        Args::new().with("lr", 1.0),
    ] {
        assert!(resumed.resume(&wrong, state.clone()).is_err(), "{wrong:?}");
        assert_eq!(format!("{resumed:?}"), before);
    }
}

#[test]
fn schedule_of_ones_own_sets_an_optimizers_rates() {
    let mut optimizer = Optimizer::empty();
    for lr in [1.0, 0.5] {
        optimizer
            .add_group(OptimizerSpec::new(Sgd { lr, ..Sgd::default() }, ComputePolicy::Fused))
            .unwrap();
    }
    let mut scheduler = triangle(2, &[1.0, 0.5]);
    let lrs = |optimizer: &Optimizer| [0, 1].map(|g| optimizer.groups()[g].lr);
    optimizer.follow(&scheduler, &[GroupId(0), GroupId(1)]).unwrap();
    assert_eq!(lrs(&optimizer), [0.0, 0.0]);
    for want in [[0.5, 0.25], [1.0, 0.5], [0.5, 0.25]] {
        optimizer.step_schedule(&mut scheduler, &[GroupId(0), GroupId(1)], &[]).unwrap();
        assert_eq!(lrs(&optimizer), want);
    }
    assert!(optimizer.step_schedule(&mut scheduler, &[GroupId(0), GroupId(1)], &[1.0]).is_err());
    assert!(optimizer.step_schedule(&mut scheduler, &[GroupId(0)], &[]).is_err());
    assert_eq!((scheduler.state().step, lrs(&optimizer)), (3, [0.5, 0.25]));
}

#[test]
fn argument_of_ones_own_that_is_the_optimizers_is_refused() {
    #[derive(Clone, Debug)]
    struct Grouped(f64);
    impl HyperParams for Grouped {
        fn fields(&mut self, f: &mut dyn FieldVisitor) {
            f.f64("groups", &mut self.0);
        }
    }
    impl Schedule for Grouped {
        fn lr(&self, base_lr: f64, _: u64) -> f64 {
            base_lr
        }
    }

    impl ScheduleFacts for Grouped {}
    let refused = Scheduler::of("grouped", Grouped(1.0), &[1.0]).unwrap_err();
    assert!(matches!(
        refused,
        ArgError::InvalidConfig(Error::InvalidArgument { argument: "groups", .. })
    ));
    // `lr` and `initial_lr` may be its own arguments.
    #[derive(Clone, Debug)]
    struct Fixed {
        lr: f64,
        initial_lr: f64,
    }
    impl HyperParams for Fixed {
        fn fields(&mut self, f: &mut dyn FieldVisitor) {
            f.f64("lr", &mut self.lr);
            f.f64("initial_lr", &mut self.initial_lr);
        }
    }
    impl Schedule for Fixed {
        fn lr(&self, base_lr: f64, step: u64) -> f64 {
            base_lr + if step == 0 { self.initial_lr } else { self.lr }
        }
    }

    impl ScheduleFacts for Fixed {}
    let mut fixed = Scheduler::of("fixed", Fixed { lr: 3.0, initial_lr: 7.0 }, &[1.0]).unwrap();
    assert_eq!(rates(&mut fixed, 1).concat(), [8.0, 4.0]);
}
