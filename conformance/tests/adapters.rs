//! Adapters borrow, launch and map errors: they hold no optimizer's name, no default and no
//! arithmetic of a rule.

use std::path::{Path, PathBuf};

use bitstep::hyper::{Args, names};
use bitstep::registry::{self, OPTIMIZERS};
use bitstep::schedule;

const ADAPTERS: [&str; 4] = ["candle", "cudarc", "ndarray", "rayon"];

fn sources(adapter: &str) -> Vec<PathBuf> {
    fn all(folder: &Path, found: &mut Vec<PathBuf>) {
        let files = std::fs::read_dir(folder);
        for file in files.unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = file.unwrap().path();
            if path.is_dir() { all(&path, found) } else { found.push(path) }
        }
    }
    let adapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("../adapters");
    let mut found = Vec::new();
    all(&adapters.join(adapter).join("src"), &mut found);
    found
}

/// The identifiers in a file's code. Comments, including documentation examples, may name an optimizer.
fn words(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code: Vec<&str> = code.collect();
    code.join("\n")
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn adapters_name_no_optimizer_no_schedule_and_no_hyper_parameter() {
    let mut forbidden: Vec<String> = OPTIMIZERS.iter().map(|entry| entry.name.to_owned()).collect();
    forbidden.extend(schedule::NAMES.iter().map(|&name| name.to_owned()));
    // Words of any training program, which the adapters' own interfaces use too.
    let common = [
        "args",
        "clip_grad_norm",
        "dtype",
        "given",
        "learning_rate",
        "loss_scale",
        "lr",
        "mode",
        "name",
        "names",
        "params",
        "scale",
        "state",
        "step",
        "type",
    ];
    for entry in OPTIMIZERS {
        let mut spec = registry::optimizer(entry.name, Args::new()).unwrap();
        let hyper = names(spec.rule.hyper_params())
            .into_iter()
            .filter(|name| name.len() > 1 && !common.contains(name));
        forbidden.extend(hyper.map(str::to_owned));
    }
    assert!(forbidden.len() > 200 && forbidden.contains(&"betas".to_owned()));
    // Names of rules' types, and of functions that rules compute with.
    let more = [
        "AdamW",
        "Adam",
        "Sgd",
        "Lion",
        "Lamb",
        "Muon",
        "Adafactor",
        "sqrt",
        "powi",
        "powf",
        "mul_add",
        "exp",
        "recip",
    ];
    forbidden.extend(more.map(str::to_owned));
    let mut said = Vec::new();
    for adapter in ADAPTERS {
        for path in sources(adapter) {
            let words = words(&path).into_iter().filter(|word| forbidden.contains(word));
            said.extend(words.map(|word| format!("{} says `{word}`", path.display())));
        }
    }
    assert!(said.is_empty(), "{said:#?}");
}
