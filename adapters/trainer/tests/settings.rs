//! Settings, each accepted or refused as by the Trainer of three versions.

use bitstep::hyper::{Args, Value};
use bitstep_trainer::{Arguments, Parameter, Version, follows_metric};
use serde_json::Value as Json;

const VERSIONS: [(&str, Version); 3] =
    [("4.49.0", Version::V4_49), ("4.57.6", Version::V4_57), ("5.23.0", Version::V5_23)];

/// Known differences to Trainer, identified by a part of the line that reports them, with the reason.
const OTHERWISE: &[(&str, &str)] = &[
    ("is not a valid OptimizerNames", "a name of one version is known to all"),
    ("is not a valid SchedulerType", "a name of one version is known to all"),
    ("apex is not", "Apex was not at hand; its AdamW is torch's here"),
    ("is True, wanted a", "no truth value for a number"),
    ("is True, but must be a number", "no truth value for a number"),
    ("betas must be either both floats", "a whole 0 is the number 0"),
    ("`adam_beta1` is None", "refused whether the optimizer looks or not"),
    ("`adam_beta2` is None", "refused whether the optimizer looks or not"),
    ("`adam_epsilon` is None", "refused whether the optimizer looks or not"),
    ("\"num_train_epochs\": null", "not read: the caller knows its steps"),
    ("\"warmup_ratio\": null", "5.0 writes it"),
    ("\"adafactor\": false", "a key of another version that is off"),
    ("wanted a dictionary", "a dictionary also where none is looked at"),
    ("`optim_args` is {}", "a string"),
    (
        "\"lr_scheduler_kwargs\": {\"verbose\": false}}: there TypeError: Reduce",
        "older torch has it",
    ),
    ("requires an eval strategy", "the caller evaluates"),
    ("clip there Some(inf), here None", "5.23 measures the norm so; nothing is clipped"),
    ("\"gradient_accumulation_steps\": -1", "a count"),
    ("no attribute 'get_input_embeddings'", "no such model here"),
    ("`rank` is -1", "a count"),
    ("`update_proj_gap` is -1", "a count"),
    ("proj_type=reverse_std", "refused at the first step"),
    ("`block_size` is", "refused there as soon as a tensor has 4096 numbers"),
    ("has no argument `unknown`", "no word is dropped in silence"),
    ("`adamw_torch` has no argument `betas`", "no word is dropped in silence"),
    ("`adafactor` has no argument `scale_parameter`", "no word is dropped in silence"),
    ("`sgd` has no argument ``", "no word is dropped in silence"),
    ("did you mean `momentum`?", "no word is dropped in silence"),
];

fn fixture(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/settings/");
    std::fs::read_to_string(format!("{folder}{name}.json")).unwrap()
}

/// The exporter's model.
fn parameters() -> Vec<Parameter> {
    let shapes: [(&str, &[usize]); 5] = [
        ("up.weight", &[8, 6]),
        ("up.bias", &[8]),
        ("norm.weight", &[8]),
        ("norm.bias", &[8]),
        ("down.weight", &[3, 8]),
    ];
    shapes.iter().map(|(name, shape)| Parameter::new(name, shape)).collect()
}

struct Outcome {
    /// The learning rates of each step.
    lrs: Vec<Vec<f64>>,
    /// The arguments of each group's rule.
    hyper: Vec<Args>,
    clip: Option<f64>,
    accumulation: u64,
}

fn run(file: &str, version: Version, steps: u64) -> Result<Outcome, String> {
    let args = Arguments::from_json_as(file, version).map_err(|e| e.to_string())?;
    let mut setup = args.setup(&parameters(), Some(steps)).map_err(|e| e.to_string())?;
    let mut lrs = Vec::new();
    for _ in 0..setup.num_training_steps.unwrap() {
        lrs.push(setup.scheduler.lrs().to_vec());
        if !follows_metric(&setup.scheduler) {
            setup.scheduler.step(&[]).map_err(|e| e.to_string())?;
        }
    }
    let hyper = setup.groups.iter_mut().map(|g| Args::of(g.spec.rule.hyper_params())).collect();
    Ok(Outcome {
        lrs,
        hyper,
        clip: setup.clip.map(|c| c.max_norm),
        accumulation: args.training.gradient_accumulation_steps,
    })
}

fn number(json: &Json) -> Option<f64> {
    match json {
        Json::String(s) => match s.as_str() {
            "inf" => Some(f64::INFINITY),
            "-inf" => Some(f64::NEG_INFINITY),
            "nan" => Some(f64::NAN),
            _ => None,
        },
        Json::Bool(b) => Some(f64::from(u8::from(*b))),
        other => other.as_f64(),
    }
}

fn near(got: f64, want: f64) -> bool {
    // The last bit depends on the math library.
    got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= want.abs() * 1e-15
}

fn same(got: &Value, want: &Json) -> bool {
    match (got, want) {
        (Value::List(got), Json::Array(want)) => {
            got.len() == want.len() && got.iter().zip(want).all(|(g, w)| same(g, w))
        }
        (Value::None, want) => want.is_null(),
        (Value::Bool(got), want) => number(want) == Some(f64::from(u8::from(*got))),
        (Value::Str(got), Json::String(want)) => got == want,
        (got, want) => match (got.as_f64(), number(want)) {
            (Some(got), Some(want)) => near(got, want),
            _ => false,
        },
    }
}

/// The difference, if there is any.
fn difference(got: &Outcome, want: &Json, compared: &mut usize) -> Option<String> {
    let rests_in_f32 = want["file"].as_str().unwrap().contains("\"adamw_torch_8bit\"");
    let list = |key: &str| want[key].as_array().map(Vec::as_slice).unwrap_or_default();
    for (step, row) in list("lrs").iter().enumerate() {
        let row = row.as_array().unwrap();
        let fits = got.lrs.get(step).is_some_and(|lrs| {
            lrs.len() == row.len()
                && lrs.iter().zip(row).all(|(lr, want)| {
                    let want = number(want).unwrap();
                    near(*lr, want) || (rests_in_f32 && f64::from(*lr as f32) == want)
                })
        });
        if !fits {
            return Some(format!("step {step}: there {row:?}, here {:?}", got.lrs.get(step)));
        }
    }
    // All groups, or only the last.
    let first = got.hyper.len() - list("hyper").len().min(got.hyper.len());
    for (group, want) in (first..).zip(list("hyper")) {
        for (key, want) in want.as_object().unwrap() {
            // The rule resolves defaults that the reference looks up later, and has no choice of kernel.
            let skip = ["lr", "fused", "max_lr"].contains(&key.as_str()) && !want.is_string();
            let Some(value) = got.hyper[group].get(key).filter(|_| !skip) else { continue };
            *compared += 1;
            if !same(value, want) {
                return Some(format!("group {group}: `{key}` there {want}, here {value}"));
            }
        }
    }
    if let Some(clip) = want.get("clip") {
        // Trainer clips only if the norm is above 0.
        let clip = number(clip);
        let fits = match (got.clip, clip) {
            (Some(got), Some(want)) => near(got, want),
            (got, want) => got.is_none() && want.is_none(),
        };
        if !fits {
            return Some(format!("clip there {clip:?}, here {:?}", got.clip));
        }
        let steps = want["accumulation"].as_f64().unwrap();
        if got.accumulation as f64 != steps {
            return Some(format!("accumulation there {steps}, here {}", got.accumulation));
        }
    }
    None
}

#[test]
fn settings_are_taken_and_refused_as_by_trainer() {
    let (mut wrong, mut compared, mut refused, mut taken) = (Vec::new(), 0, 0, 0);
    let mut needed = vec![false; OTHERWISE.len()];
    for (name, version) in VERSIONS {
        let all: Json = serde_json::from_str(&fixture(&format!("trainer-{name}"))).unwrap();
        for case in all["cases"].as_array().unwrap() {
            let steps = case["steps"].as_u64().or(all["steps"].as_u64()).unwrap();
            let file = case["file"].as_str().unwrap();
            let there = case.get("raises").map(|_| case["error"].as_str().unwrap());
            let differs = match (there, run(file, version, steps)) {
                (Some(_), Err(_)) => {
                    refused += 1;
                    None
                }
                (Some(error), Ok(_)) => Some(format!("there {error}, here taken")),
                (None, Err(error)) => Some(format!("there taken, here {error}")),
                (None, Ok(got)) => {
                    taken += 1;
                    difference(&got, case, &mut compared)
                }
            };
            if let Some(differs) = differs {
                let line = format!("{name} {file}: {differs}");
                match OTHERWISE.iter().position(|(part, _)| line.contains(part)) {
                    Some(known) => needed[known] = true,
                    None => wrong.push(line),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} are otherwise:\n{}", wrong.len(), wrong.join("\n"));
    assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused");
    assert!(compared > 5000, "{compared} numbers compared");
    let stale: Vec<_> = OTHERWISE.iter().zip(&needed).filter(|(_, n)| !**n).collect();
    assert!(stale.is_empty(), "no longer needed: {stale:?}");
}

#[test]
fn file_tells_the_version_that_wrote_it() {
    for (name, version) in VERSIONS {
        for kind in ["default", "seq2seq"] {
            let args = Arguments::from_json(&fixture(&format!("{kind}-{name}"))).unwrap();
            assert_eq!(args.training.version, version, "{kind}-{name}");
        }
        // Infinity and NaN, as Python writes them.
        let args = Arguments::from_json(&fixture(&format!("infinite-{name}"))).unwrap();
        let t = args.training;
        assert_eq!((t.version, t.max_grad_norm), (version, f64::INFINITY));
        assert_eq!(t.learning_rate, f64::NEG_INFINITY);
        assert!(t.weight_decay.is_nan());
    }
    let version = |text: &str| Arguments::from_json(text).unwrap().training.version;
    assert_eq!(version(r#"{"learning_rate": 1}"#), Version::V5_23);
    assert_eq!(version(r#"{"warmup_ratio": 0.1}"#), Version::V4_57);
    assert_eq!(version(r#"{"evaluation_strategy": "no"}"#), Version::V4_49);
    // 5.0 still had a `warmup_ratio`, and used it as `warmup_steps`.
    let text = r#"{"use_cache": false, "warmup_ratio": 0.25, "warmup_steps": 3}"#;
    let args = Arguments::from_json(text).unwrap();
    assert_eq!((args.training.version, args.training.warmup(20)), (Version::V5_23, 5));
}

#[test]
fn message_says_how_it_is_written() {
    let error = |text: &str| {
        let args = Arguments::from_json(text).and_then(|a| a.setup(&parameters(), Some(9)));
        args.unwrap_err().to_string()
    };
    let text = error(r#"{"optim_args": "betas=(0.9,0.95)"}"#);
    assert!(text.contains("adam_beta1") && text.contains("commas"), "{text}");
    let named = [Parameter::new("up/weight", &[2, 2])];
    let text = Arguments::default().setup(&named, Some(9)).unwrap_err().to_string();
    assert!(text.contains("`up/weight` has a `/` in it"), "{text}");
    let text = error(r#"{"learning_rate": "1e-5"}"#);
    assert!(text.contains("learning_rate") && text.contains("not in quotes"), "{text}");
    let text = error(r#"{"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"lr": 1}}"#);
    assert_eq!(text, "`cosine` has no argument `lr`");
    let text =
        error(r#"{"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_warmup_steps": 1}}"#);
    assert!(text.contains("num_warmup_steps") && text.contains("Trainer sets it"), "{text}");
}
