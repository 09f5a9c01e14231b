//! Faults planted in the sample backends in Python and C: each is found within a minute, shrunk and explained.
//!
//! `cargo test -p bitstep-conformance --test planted_faults -- --nocapture` prints the table. What needs Python with
//! numpy, or a C compiler, is counted as left out where there is none. `BITSTEP_VENV_MAIN` may name an environment.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bitstep_conformance::golden::{Case, Data};
use serde_json::Value;

const SUITE: &str = env!("CARGO_BIN_EXE_bitstep-conformance");

/// A fault: the optimizer it is in, its name in the sample backends, whether the one in C has it, and what has to be
/// said of it.
const FAULTS: [(&str, &str, bool, &[&str]); 12] = [
    ("adamw_torch", "eps_inside", true, &["looks like: epsilon inside the root"]),
    ("adamw_torch", "coupled", true, &["looks like: weight decay coupled into the gradient"]),
    ("adamw_torch", "betas_swapped", true, &["looks like: betas swapped"]),
    ("adamw_torch", "off_by_one", true, &["looks like: bias correction off by one"]),
    ("adamw_torch", "eps_before", true, &["looks like: epsilon added before the bias correction"]),
    ("adamw_torch", "no_maximum", false, &["looks like: amsgrad's maximum not kept"]),
    ("sgd", "dampening_first", false, &["looks like: dampening on the first step"]),
    (
        "sgd",
        "nesterov",
        false,
        &["looks like: Nesterov's momentum with the buffer before the step"],
    ),
    (
        "adamw_torch",
        "lr_f32",
        true,
        &["looks like: learning rate in f32", "`lr` is no number of f32"],
    ),
    ("adamw_torch", "one_element", true, &["only in tensors of one element"]),
    ("adamw_torch", "denormal", true, &["only where a gradient is denormal"]),
    ("adamw_torch", "after_missing", true, &["only after a step without a gradient"]),
];

fn foreign(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign");
    folder.join(file).display().to_string()
}

/// The sample backend in C, if there is a compiler.
fn in_c(folder: &Path) -> Option<PathBuf> {
    let program = folder.join("adamw");
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-O1", "-ffp-contract=off"]).arg(foreign("adamw.c")).arg("-o");
    let status = cc.arg(&program).arg("-lm").status().ok()?;
    assert!(status.success(), "adamw.c does not compile");
    Some(program)
}

/// A Python with numpy, if there is one.
fn python() -> Option<String> {
    let venv = std::env::var("BITSTEP_VENV_MAIN").map(|venv| format!("{venv}/bin/python3"));
    let python = venv.unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import numpy"]).output().ok()?;
    has.status.success().then_some(python)
}

/// Fuzzes a backend; the findings, a JSON object each, and the output.
fn fuzz(name: &str, backend: &str, out: &Path, more: &[&str]) -> (Vec<Value>, String) {
    let json = out.join("findings.jsonl");
    let mut command = Command::new(SUITE);
    command.args(["fuzz", "--backend", backend, "--only", name, "--seed", "1"]).args(more);
    command.arg("--out").arg(out).arg("--json").arg(&json);
    let done = command.output().expect("the suite");
    let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    let lines = std::fs::read_to_string(&json).unwrap_or_default();
    let lines = lines.lines().map(|l| serde_json::from_str(l).expect("JSON"));
    (lines.collect(), text)
}

/// Whether a kept case is as small as it has to be.
fn is_small(out: &Path, finding: &Value) -> bool {
    let file = format!("{}.safetensors", finding["case"].as_str().expect("a case"));
    let case = Case::read(&out.join(file), out).expect("a case that can be read");
    let Data::Optimizer(data) = &case.data else { return false };
    data.params.len() == 1 && data.params[0].init.len() <= 3 && case.steps <= 3
}

/// Finds one fault; a row of the table, or what is wrong.
fn find(name: &str, fault: &str, backend: &str, said: &[&str]) -> Result<String, String> {
    let out = tempfile::tempdir().expect("a folder");
    let start = Instant::now();
    let (findings, text) = fuzz(name, backend, out.path(), &["--seconds", "60"]);
    let seconds = start.elapsed().as_secs_f64();
    let [finding] = &findings[..] else {
        return Err(format!("{fault}: {} findings after {seconds:.0} s\n{text}", findings.len()));
    };
    let note = text.lines().find_map(|l| l.trim().strip_prefix("note ")).unwrap_or_default().trim();
    let row = format!(
        "| `{fault}` | {} | {seconds:.1} | {} | {} | {note} |",
        finding["run"],
        finding["tries"],
        finding["size"].as_str().unwrap_or_default()
    );
    if !is_small(out.path(), finding) {
        return Err(format!("{fault} is not small: {row}"));
    }
    if !said.iter().any(|words| note.contains(words)) {
        return Err(format!("{fault} is not explained by {said:?}: {row}"));
    }
    Ok(row)
}

fn all(backends: impl Fn(&str) -> Option<String>, language: &str) {
    println!(
        "| {language} | run | seconds | tries | smallest | note |\n| --- | --- | --- | --- | --- | --- |"
    );
    let mut wrong = Vec::new();
    for (name, fault, _, said) in FAULTS {
        let Some(backend) = backends(fault) else { continue };
        match find(name, fault, &backend, said) {
            Ok(row) => println!("{row}"),
            Err(why) => wrong.push(why),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn planted_faults_in_c_are_found_shrunk_and_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = in_c(folder.path()) else {
        println!(
            "LEFT OUT: {} faults in C; there is no compiler",
            FAULTS.iter().filter(|f| f.2).count()
        );
        return;
    };
    let has = |fault: &str| FAULTS.iter().any(|f| f.1 == fault && f.2);
    all(|fault| has(fault).then(|| format!("exec-loop:'{}' {fault}", program.display())), "C");
}

#[test]
fn planted_faults_in_python_are_found_shrunk_and_explained() {
    let Some(python) = python() else {
        println!("LEFT OUT: {} faults in Python; there is no numpy", FAULTS.len());
        return;
    };
    let file = foreign("numpy_backend.py");
    all(|fault| Some(format!("exec-loop:FAULT={fault} '{python}' -B '{file}'")), "Python");
}

#[test]
fn the_right_backends_are_found_right_and_the_same_seed_gives_the_same_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = in_c(folder.path()) else {
        println!("LEFT OUT: the right backend in C; there is no compiler");
        return;
    };
    let backend = format!("exec-loop:'{}'", program.display());
    let few = &["--cases", "192"];
    let (findings, text) = fuzz("adamw_torch", &backend, folder.path(), few);
    assert!(findings.is_empty() && text.contains("runs compared"), "{text}");
    let wrong = format!("exec-loop:'{}' off_by_one", program.display());
    let [a, b] = [0, 1].map(|_| fuzz("adamw_torch", &wrong, folder.path(), few).0);
    assert!(!a.is_empty() && a == b, "{a:?}\n{b:?}");
}
