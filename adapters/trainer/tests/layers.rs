//! Layer types: of a model in Python, and as guessed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bitstep_trainer::{Arguments, Layer, LayersError, ModelLayers, Parameter};
use bitstep_trainer::{Targets, TrainingError, Version};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

const VERSIONS: [(&str, Version); 3] =
    [("4.49.0", Version::V4_49), ("4.57.6", Version::V4_57), ("5.23.0", Version::V5_23)];

/// The groups that Trainer makes for a small model.
struct Answer {
    of: String,
    version: Version,
    layers: ModelLayers,
    want: Value,
}

fn answers() -> Vec<Answer> {
    let mut all = Vec::new();
    for (file, version) in VERSIONS {
        let text = std::fs::read_to_string(fixture(&format!("layers/{file}.json"))).unwrap();
        let models: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(models.len(), 10);
        for (model, want) in models {
            let layers = ModelLayers::from_json(&want["layers"].to_string()).unwrap();
            all.push(Answer { of: format!("{model} in {file}"), version, layers, want });
        }
    }
    all
}

fn arguments(version: Version) -> Arguments {
    let mut args = Arguments::default();
    args.training.version = version;
    args.training.weight_decay = 0.1;
    args
}

/// The names in each group.
fn groups(args: &Arguments, parameters: &[Parameter]) -> Result<Vec<Vec<String>>, TrainingError> {
    let setup = args.setup(parameters, Some(10))?;
    let names =
        |members: &Vec<usize>| members.iter().map(|&i| parameters[i].name.clone()).collect();
    Ok(setup.groups.iter().map(|group| names(&group.members)).collect())
}

fn names(value: &Value) -> Option<Vec<String>> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn groups_by_types_are_trainers() {
    for Answer { of, version, layers, want } in answers() {
        let want: Vec<Vec<String>> = serde_json::from_value(want["groups"].clone()).unwrap();
        assert_eq!(groups(&arguments(version), layers.all()).unwrap(), want, "{of}");
    }
}

#[test]
fn targets_by_types_are_trainers() {
    let mut refused = Vec::new();
    for Answer { of, version, layers, want } in answers() {
        let mut args = arguments(version);
        args.training.optim = "galore_adamw".into();
        args.optim_target_modules = Some(Targets::AllLinear);
        let Some(want) = names(&want["linear"]) else {
            // 4.49 adds a head that shares the embedding's table twice, which torch refuses.
            refused.push(of);
            continue;
        };
        match groups(&args, layers.all()) {
            Ok(got) => assert_eq!(got[1], want, "{of}"),
            // The only linear layer of GPT-2 is its head, which is the embedding.
            Err(TrainingError::Targets { .. }) => assert!(want.is_empty(), "{of}"),
            Err(other) => panic!("{of}: {other}"),
        }
    }
    assert_eq!(refused.len(), 6, "{refused:?}");
    assert!(refused.iter().all(|of| of.ends_with("4.49.0")), "{refused:?}");
}

#[test]
fn embeddings_by_types_are_those_that_8_bit_optimizers_leave_in_32() {
    for Answer { of, version, layers, want } in answers() {
        // 4.49 passes this only to an optimizer that it does not have.
        let want = names(&want["in_32_bits"]).unwrap();
        if version == Version::V4_49 {
            assert!(want.is_empty(), "{of}");
            continue;
        }
        let got = layers.all().iter().filter(|p| p.is_embedding()).map(|p| p.name.clone());
        assert_eq!(got.collect::<Vec<_>>(), want, "{of}");
    }
}

#[test]
fn guess_of_small_models_is_off_where_names_say_nothing() {
    let mut off = Vec::new();
    for Answer { of, version, layers, .. } in answers() {
        let all = layers.all();
        let guessed =
            Parameter::guess(all.iter().map(|p| (p.name.as_str(), p.shape.as_slice())), version);
        let as_known = all.iter().zip(&guessed).all(|(known, guess)| {
            (known.has_weight_decay(version), known.is_linear(), known.is_embedding())
                == (guess.has_weight_decay(version), guess.is_linear(), guess.is_embedding())
        });
        if !as_known {
            off.push(of);
        }
    }
    // A tied head that comes before its embedding; the RMSNorms of a list in 4.49; a model with layers
    // of all types.
    let want = [
        "LlamaForCausalLM in 4.49.0",
        "Others in 4.49.0",
        "Others in 4.57.6",
        "CamembertForMaskedLM in 5.23.0",
        "Others in 5.23.0",
    ];
    assert_eq!(off, want);
}

/// The models of an architecture, as parameters with name, shape and kind.
type Model = Vec<(String, Vec<usize>, String)>;

fn architectures() -> BTreeMap<String, Vec<Model>> {
    let data = std::fs::read(fixture("architectures/5.23.0.zz")).unwrap();
    let text = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&data, 1 << 26).unwrap();
    let text = String::from_utf8(text).unwrap();
    let mut all = BTreeMap::<String, Vec<Model>>::new();
    let mut architecture = "";
    for line in text.lines() {
        match line.chars().take_while(|&c| c == ' ').count() {
            0 => architecture = line,
            1 => all.entry(architecture.to_owned()).or_default().push(Model::new()),
            _ => {
                let parts: Vec<&str> = line.split_whitespace().collect();
                let [name, shape, kind] = parts[..] else { panic!("{line}") };
                let shape = shape.split('x').filter(|d| *d != "-").map(|d| d.parse().unwrap());
                let parameter = (name.to_owned(), shape.collect(), kind.to_owned());
                all.get_mut(architecture).unwrap().last_mut().unwrap().push(parameter);
            }
        }
    }
    all
}

/// The architectures for which a guess is wrong, with a parameter of each, by the guessed property.
fn off(
    architectures: &BTreeMap<String, Vec<Model>>,
    guess: &dyn Fn(&Model) -> Vec<Parameter>,
) -> [BTreeMap<String, String>; 3] {
    let mut off = <[BTreeMap<String, String>; 3]>::default();
    for (architecture, models) in architectures {
        for model in models {
            for (guess, (name, shape, kind)) in guess(model).iter().zip(model) {
                let got = [
                    guess.has_weight_decay(Version::V5_23),
                    guess.is_linear(),
                    guess.is_embedding(),
                ];
                let want = ['D', 'L', 'E'].map(|c| kind.contains(c));
                for (off, (got, want)) in off.iter_mut().zip(got.into_iter().zip(want)) {
                    if got != want {
                        let not = if want { "" } else { "not " };
                        let text = format!("`{name}` {shape:?} is {not}so");
                        off.entry(architecture.clone()).or_insert(text);
                    }
                }
            }
        }
    }
    off
}

fn guess(model: &Model) -> Vec<Parameter> {
    let named = model.iter().map(|(name, shape, _)| (name.as_str(), shape.as_slice()));
    Parameter::guess(named, Version::V5_23)
}

#[test]
fn guess_is_off_in_few_architectures() {
    let all = architectures();
    assert!(all.len() >= 590, "{}", all.len());
    let mut page = String::from(
        "# Where the types of layers are not guessed as they are\n\n\
         One parameter of each architecture of Transformers 5.23. Written by the test \
         `guess_is_off_in_few_architectures`.\n",
    );
    for (what, off) in ["decays", "linear", "embedding"].iter().zip(off(&all, &guess)) {
        let share = off.len() as f64 / all.len() as f64;
        assert!(share <= 0.05, "{what}: {off:#?}");
        page += &format!("\n## {what}: {} of {}\n\n", off.len(), all.len());
        for (architecture, example) in off {
            page += &format!("* {architecture}: {example}\n");
        }
    }
    let path = fixture("architectures/off.md");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if committed != page {
        let written = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("off.md");
        std::fs::write(&written, page).unwrap();
        panic!("{} is not what {} says", path.display(), written.display());
    }
}

#[test]
fn guess_knows_more_of_a_whole_model() {
    let all = architectures();
    let alone = |model: &Model| -> Vec<Parameter> {
        model.iter().map(|(name, shape, _)| Parameter::new(name, shape)).collect()
    };
    let (whole, alone) = (off(&all, &guess), off(&all, &alone));
    for (whole, alone) in whole.iter().zip(&alone) {
        assert!(whole.len() < alone.len(), "{} {}", whole.len(), alone.len());
    }
}

#[test]
fn guess_does_not_hang_on_the_order() {
    for models in architectures().values().step_by(7) {
        let model = &models[0];
        let back: Model = model.iter().rev().cloned().collect();
        assert!(guess(model).iter().eq(guess(&back).iter().rev()));
    }
}

#[test]
fn a_tied_parameter_is_found_under_both_names() {
    let all = answers();
    let camembert = all.iter().find(|a| a.of == "CamembertForMaskedLM in 5.23.0").unwrap();
    let (head, table) = ("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight");
    let found = camembert.layers.get(table).unwrap();
    assert_eq!(Some(found), camembert.layers.get(head));
    assert_eq!((found.name.as_str(), found.layer), (head, Layer::Linear));
    assert!(found.is_linear() && found.is_embedding());
}

#[test]
fn layers_that_do_not_fit_are_refused() {
    let modules = r#""modules": {"": [], "up": ["torch.nn.modules.linear.Linear"]}"#;
    let text =
        format!(r#"{{{modules}, "parameters": [{{"names": ["up.weight"], "shape": [4, 2]}}]}}"#);
    let layers = ModelLayers::from_json(&text).unwrap();
    assert!(layers.parameters([("up.weight", &[4, 2][..])]).unwrap()[0].is_linear());
    let refused = |name, shape: &[usize]| layers.parameters([(name, shape)]).unwrap_err();
    assert!(
        matches!(refused("down.weight", &[4, 2]), LayersError::Unknown(n) if n == "down.weight")
    );
    let LayersError::Shape { name, want, got } = refused("up.weight", &[2, 4]) else { panic!() };
    assert_eq!((name.as_str(), want, got), ("up.weight", vec![4, 2], vec![2, 4]));

    for (parameters, at) in [
        ("7", "parameters"),
        ("[7]", "parameters[0]"),
        (r#"[{"names": [], "shape": [1]}]"#, "parameters[0]"),
        (r#"[{"names": ["up.a"], "shape": [-1]}]"#, "parameters[0]"),
        (r#"[{"names": ["up.a"]}]"#, "parameters[0]"),
        (r#"[{"names": ["up.a", "up.a"], "shape": []}]"#, "parameters[0]"),
        (r#"[{"names": ["down.a"], "shape": []}]"#, "modules.down"),
    ] {
        let text = format!(r#"{{{modules}, "parameters": {parameters}}}"#);
        let LayersError::Form { at: got, .. } = ModelLayers::from_json(&text).unwrap_err() else {
            panic!("{text}");
        };
        assert_eq!(got, at, "{text}");
    }
    let out_of_order = r#"{"modules": {"a.b": [], "": []}, "parameters": []}"#;
    assert!(matches!(ModelLayers::from_json(out_of_order), Err(LayersError::Form { .. })));
    for text in ["{}", "[]", "7", r#"{"modules": {"up": 7}}"#, r#"{"modules": {"up": [7]}}"#] {
        assert!(matches!(ModelLayers::from_json(text), Err(LayersError::Form { .. })), "{text}");
    }
    assert!(matches!(ModelLayers::from_json("{"), Err(LayersError::Json(_))));
    assert!(matches!(ModelLayers::read(fixture("none.json")), Err(LayersError::Io { .. })));
}

#[test]
fn the_guide_shows_the_script_that_is_run() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(root.join("export/model_layers.py")).unwrap();
    let guide = std::fs::read_to_string(root.join("../../docs/training.md")).unwrap();
    let (_, function) = script.split_once("def model_layers").unwrap();
    let (function, _) = function.split_once("\n\n\n").unwrap();
    assert!(function.lines().count() == 8 && guide.contains(function), "{function}");
}
