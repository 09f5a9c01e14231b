//! When parameters are updated, and with which gradients: accumulation, clipping, layer-wise optimizers.

use bitstep_trainer::{Arguments, Parameter, TrainingError};

fn parameters() -> Vec<Parameter> {
    let of = |name: &str, shape: &[usize]| Parameter::new(name, shape);
    vec![of("embed.weight", &[5, 8]), of("mlp.weight", &[8, 8]), of("mlp.bias", &[8])]
}

#[test]
fn accelerators_number_of_micro_batches_counts_and_conflicts_as_in_trainer() {
    let read = |more: &str| {
        let config = r#"{"split_batches": false, "gradient_accumulation_kwargs": "#;
        let text = format!(r#"{{"max_steps": 1, "accelerator_config": {config}{more}"#);
        Arguments::from_json(&text).map(|args| args.training.gradient_accumulation_steps)
    };
    assert_eq!(read(r#"{"num_steps": 4}}}"#).unwrap(), 4);
    assert_eq!(read(r#"{"sync_each_batch": true}}}"#).unwrap(), 1);
    assert_eq!(read("null}}").unwrap(), 1);
    assert_eq!(read(r#"{"num_steps": 4}}, "gradient_accumulation_steps": 1}"#).unwrap(), 4);
    for (more, expected) in [
        (r#"{"num_steps": 4}}, "gradient_accumulation_steps": 2}"#, "no `num_steps` beside"),
        (r#"{"num_steps": 0}}}"#, "a `num_steps` from 1"),
        (r#"{"num_steps": null}}}"#, "a `num_steps` from 1"),
        (r#"{"num_steps": 2.5}}}"#, "a `num_steps` from 1"),
        ("4}}", "a dictionary"),
    ] {
        let error = read(more).unwrap_err().to_string();
        assert!(error.contains("`accelerator_config`") && error.contains(expected), "{error}");
    }
    let named = Arguments::from_json(r#"{"accelerator_config": "file.json"}"#).unwrap_err();
    assert!(named.to_string().contains("a dictionary"), "{named}");
}

#[test]
fn layerwise_names_take_no_accumulation_no_clipping_and_a_constant_rate() {
    let args = |more: &str| {
        let text = r#"{"optim": "galore_adamw_layerwise", "optim_target_modules": ["mlp"],
            "learning_rate": 0.5, "warmup_steps": 2, "max_steps": 12"#;
        Arguments::from_json(&format!("{text}{more}}}")).unwrap()
    };
    let mut setup = args("").setup(&parameters(), None).unwrap();
    assert!(setup.clip.is_none() && !setup.every_micro_batch);
    for _ in 0..12 {
        assert_eq!(setup.scheduler.lrs(), [0.5, 0.5]);
        setup.scheduler.step(&[]).unwrap();
    }
    let followed = |args: Arguments| Arguments { layerwise_schedule: Some(true), ..args };
    let setup = followed(args("")).setup(&parameters(), None).unwrap();
    assert_eq!(setup.scheduler.lrs(), [0.0, 0.0], "warming up");

    let error = args(r#", "gradient_accumulation_steps": 2"#).setup(&parameters(), None);
    let error = error.unwrap_err();
    assert!(matches!(error, TrainingError::LayerwiseAccumulation { steps: 2, .. }), "{error}");
    let config = r#", "accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 4}}"#;
    let error = args(config).setup(&parameters(), None).unwrap_err();
    assert!(matches!(error, TrainingError::LayerwiseAccumulation { steps: 4, .. }), "{error}");
    let plateau = args(r#", "lr_scheduler_type": "reduce_lr_on_plateau""#);
    assert!(plateau.setup(&parameters(), None).is_ok(), "which nothing follows");
    let error = followed(plateau).setup(&parameters(), None).unwrap_err();
    assert!(matches!(error, TrainingError::LayerwiseMetric { .. }), "{error}");
    // A schedule that Trainer refuses is still refused.
    let kwargs = r#", "lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycle": 1}"#;
    assert!(args(kwargs).setup(&parameters(), None).is_err());
}

#[test]
fn torchao_is_refused_beside_greedy_as_its_rates_are_tensors() {
    let args = |optim: &str| {
        let text = r#"{"lr_scheduler_type": "greedy", "max_steps": 9, "optim": "#;
        Arguments::from_json(&format!(r#"{text}"{optim}"}}"#)).unwrap()
    };
    assert!(args("adamw_torch").setup(&parameters(), None).is_ok());
    let error = args("adamw_torch_8bit").setup(&parameters(), None).unwrap_err();
    assert!(error.to_string().contains("greedy"), "{error}");
}
