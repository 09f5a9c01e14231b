//! `TrainingArguments` files of Transformers give the groups and schedules of its Trainer.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bitstep_trainer::{Arguments, Parameter, Targets, TrainingError, Version};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

/// Equality, where 0 equals 0.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (a, b) => a == b,
    }
}

/// A value as JSON.
fn plain(value: &bitstep::hyper::Value) -> Value {
    use bitstep::hyper::Value as Ours;
    match value {
        Ours::None => Value::Null,
        Ours::Bool(b) => (*b).into(),
        Ours::Int(i) => (*i).into(),
        Ours::Float(x) => (*x).into(),
        Ours::Str(s) => s.as_str().into(),
        Ours::List(list) => list.iter().map(plain).collect(),
        Ours::Map(_) => panic!("no argument of these is a dictionary"),
    }
}

/// The parameters of the exporter's model, in its order.
fn parameters() -> Vec<Parameter> {
    let linear = ["attn.q_proj", "attn.k_proj", "mlp"];
    let mut all = Vec::new();
    for layer in linear {
        all.push(Parameter::new(&format!("{layer}.weight"), &[8, 8]));
        all.push(Parameter::new(&format!("{layer}.bias"), &[8]));
    }
    all.push(Parameter::new("norm.weight", &[8]));
    all.push(Parameter::new("norm.bias", &[8]));
    all.push(Parameter::new("embed.weight", &[5, 8]));
    all
}

#[test]
fn groups_decay_and_rates_are_trainers() {
    let answers = json("groups.json");
    let answers = answers.as_object().unwrap();
    assert!(answers.len() >= 9);
    let mut compared = 0;
    for (name, want) in answers {
        let args = Arguments::read(fixture(&format!("arguments/{name}.json"))).unwrap();
        let parameters = parameters();
        let mut setup = args.setup(&parameters, want["steps"].as_u64()).unwrap();

        let names: Vec<Vec<&str>> = setup
            .groups
            .iter()
            .map(|g| g.members.iter().map(|&i| parameters[i].name.as_str()).collect())
            .collect();
        assert_eq!(serde_json::json!(names), want["groups"], "{name}");

        for (group, want) in setup.groups.iter().zip(want["hyper"].as_array().unwrap()) {
            let mut rule = group.spec.rule.clone();
            let args = bitstep::hyper::Args::of(rule.hyper_params());
            for (key, want) in want.as_object().unwrap() {
                // The rule resolves defaults that the reference looks up later.
                let Some(got) = args.get(key).filter(|_| key != "max_lr") else { continue };
                assert!(same(&plain(got), want), "{name}: `{key}` is {got}, wanted {want}");
                compared += 1;
            }
        }
        for (group, decay) in setup.groups.iter().zip(want["weight_decay"].as_array().unwrap()) {
            let mut rule = group.spec.rule.clone();
            let args = bitstep::hyper::Args::of(rule.hyper_params());
            let got = args.get("weight_decay").and_then(|v| v.as_f64());
            assert_eq!(got, decay.as_f64(), "{name}");
        }

        for (t, want) in want["lr"].as_array().unwrap().iter().enumerate() {
            if t > 0 {
                setup.scheduler.step(&[]).unwrap();
            }
            for (got, want) in setup.scheduler.lrs().iter().zip(want.as_array().unwrap()) {
                let want = want.as_f64().unwrap();
                // The last bit of a cosine depends on the math library.
                assert!((got - want).abs() <= want * 1e-15, "{name}, step {t}: {got} {want}");
            }
        }
    }
    assert!(compared > 80, "{compared}");
}

#[test]
fn decay_of_real_models_is_trainers() {
    let models = json("decay.json");
    for (model, all) in models.as_object().unwrap() {
        let all = all.as_array().unwrap();
        let named: Vec<(String, Vec<usize>)> = all
            .iter()
            .map(|p| {
                let shape = serde_json::from_value(p["shape"].clone()).unwrap();
                (p["name"].as_str().unwrap().to_owned(), shape)
            })
            .collect();
        let named = named.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
        let parameters = Parameter::guess(named, Version::V5_23);
        let setup = Arguments::default().setup(&parameters, Some(10)).unwrap();
        let decays: BTreeSet<usize> = setup.groups[0].members.iter().copied().collect();
        for (i, (parameter, want)) in parameters.iter().zip(all).enumerate() {
            assert_eq!(
                decays.contains(&i),
                want["decays"].as_bool().unwrap(),
                "{model} {parameter:?}"
            );
            let linear = want["linear"].as_bool().unwrap();
            assert_eq!(parameter.is_linear(), linear, "{model} {parameter:?}");
        }
    }
}

#[test]
fn a_file_is_read_to_the_last_argument() {
    let args = Arguments::read(fixture("arguments/adamw_cosine.json")).unwrap();
    let t = &args.training;
    assert_eq!(
        (t.optim.as_str(), t.lr_scheduler_type.as_str()),
        ("adamw_torch", "cosine_with_min_lr")
    );
    assert_eq!((t.learning_rate, t.weight_decay, t.adam_beta2), (1e-3, 0.1, 0.95));
    assert_eq!((t.max_grad_norm, t.gradient_accumulation_steps), (0.5, 4));
    assert_eq!((args.max_steps, t.warmup(200), args.fp16), (Some(200), 20, false));
    let setup = args.setup(&parameters(), None).unwrap();
    assert_eq!(setup.clip.map(|c| c.max_norm), Some(0.5));

    let args = Arguments::read(fixture("arguments/adafactor_constant.json")).unwrap();
    assert_eq!(args.setup(&parameters(), None).unwrap().clip, None);
    assert_eq!(args.max_steps, None, "-1 stands for none");
    let args = Arguments::read(fixture("arguments/plateau_neftune.json")).unwrap();
    assert_eq!(args.training.neftune_noise_alpha, Some(5.0));
    let args = Arguments::read(fixture("arguments/galore_all_linear.json")).unwrap();
    assert_eq!(args.optim_target_modules, Some(Targets::AllLinear));
}

#[test]
fn warm_up_of_older_files_is_a_ratio() {
    let read = |text: &str| Arguments::from_json(text).unwrap().training.warmup(50);
    assert_eq!(read(r#"{"warmup_steps": 0, "warmup_ratio": 0.1}"#), 5);
    assert_eq!(read(r#"{"warmup_steps": 3, "warmup_ratio": 0.1}"#), 3);
}

#[test]
fn what_can_not_be_followed_is_an_error_that_says_why() {
    let error = |text: &str| Arguments::from_json(text).unwrap_err().to_string();
    assert_eq!(
        error(r#"{"learning_rat": 1}"#),
        "training arguments: unknown key `learning_rat`; did you mean `learning_rate`?"
    );
    assert_eq!(
        error(r#"{"learning_rate": "fast"}"#),
        r#"training arguments: `learning_rate` is "fast", wanted a number, not in quotes"#
    );
    assert!(error(r#"{"deepspeed": "zero3.json"}"#).contains("not supported"));
    assert!(error(r#"{"gradient_accumulation_steps": 0}"#).contains("a number from 1"));
    assert!(error("[]").contains("an object"));
    assert!(error("{").starts_with("training arguments: "));
    let missing = Arguments::read("no/such/file.json").unwrap_err();
    assert!(matches!(missing, TrainingError::Io { .. }));

    let setup = |text: &str| {
        let args = Arguments::from_json(text).unwrap();
        args.setup(&parameters(), None).unwrap_err()
    };
    assert!(matches!(setup("{}"), TrainingError::Steps));
    assert!(matches!(
        setup(r#"{"optim": "galore_adamw", "max_steps": 9}"#),
        TrainingError::Targets { .. }
    ));
    assert!(matches!(
        setup(r#"{"optim": "galore_adamw", "max_steps": 9, "optim_target_modules": ["conv"]}"#),
        TrainingError::Targets { .. }
    ));
    assert!(matches!(
        setup(r#"{"optim": "galore_adamw", "max_steps": 9, "optim_target_modules": "(?<!a)b"}"#),
        TrainingError::Pattern(_)
    ));
    let unknown = setup(r#"{"optim": "adamw_troch", "max_steps": 9}"#).to_string();
    assert!(unknown.contains("did you mean `adamw_torch`"), "{unknown}");
    let unknown = setup(r#"{"lr_scheduler_type": "cosin", "max_steps": 9}"#).to_string();
    assert!(unknown.contains("did you mean `cosine`"), "{unknown}");
}

#[cfg(unix)]
#[test]
fn only_regular_files_of_moderate_length_are_read_and_none_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    let mut paths = vec![folder.path().to_owned(), "/dev/zero".into(), "/dev/tty".into()];
    match made.is_ok_and(|status| status.success()) {
        true => paths.push(pipe),
        false => println!("SKIPPED: no mkfifo"),
    }
    let long = folder.path().join("long.json");
    std::fs::write(&long, format!("{{}}{}", " ".repeat(1 << 20))).unwrap();
    let endless = folder.path().join("endless.json");
    std::fs::File::create(&endless).unwrap().set_len(1 << 40).unwrap();
    for path in paths.into_iter().chain([long, endless]) {
        let error = Arguments::read(&path).unwrap_err();
        assert!(matches!(error, TrainingError::Io { .. }), "{}: {error}", path.display());
    }
}

#[test]
fn json_that_nests_deep_is_an_error() {
    for depth in [200, 1_000_000] {
        for text in ["[".repeat(depth), "{\"optim\":".repeat(depth)] {
            assert!(matches!(Arguments::from_json(&text), Err(TrainingError::Json(_))));
        }
    }
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!("{{\"lr_scheduler_kwargs\": {{\"x\": {open}{close}}}}}")
    };
    assert!(Arguments::from_json(&nested(100)).is_ok());
    assert!(matches!(Arguments::from_json(&nested(130)), Err(TrainingError::Json(_))));
    // Each key is compared with all before it.
    let keys: Vec<String> = (0..100_000).map(|i| format!("\"k{i}\": 1")).collect();
    let many = format!("{{\"lr_scheduler_kwargs\": {{{}}}}}", keys.join(","));
    assert!(matches!(
        Arguments::from_json(&many),
        Err(TrainingError::Value { key: "lr_scheduler_kwargs", .. })
    ));
}
