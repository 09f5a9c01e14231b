//! Programs as backends: correct ones, faulty ones, and the requests that they get.
#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bitstep_conformance::backend::registry;
use bitstep_conformance::exec::check_answer;
use bitstep_conformance::golden::{Case, Data};
use bitstep_conformance::judge::bounds::Bounds;
use bitstep_conformance::suite::{self, CaseFilter};
use common::{Draft, f32s};
use serde_json::Value;

const SUITE: &str = env!("CARGO_BIN_EXE_bitstep-conformance");

/// `verify`: status, output, JSON lines.
fn verify(args: &[&str]) -> (Option<i32>, String, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("out.jsonl");
    // One thread: the order of requests is that of the checks.
    let mut command = Command::new(SUITE);
    command.env("RAYON_NUM_THREADS", "1").args(["verify", "--json"]).arg(&json).args(args);
    let out = command.output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    let lines = std::fs::read_to_string(&json).unwrap_or_default();
    let lines = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    (out.status.code(), String::from_utf8_lossy(&text).into_owned(), lines)
}

/// JSON lines without the backend's name.
fn anonymous(mut lines: Vec<Value>) -> Vec<Value> {
    for line in &mut lines {
        line.as_object_mut().unwrap().remove("backend");
    }
    lines
}

/// Checks a command on two plain steps of SGD.
fn on_sgd(backend: &str, more: &[&str]) -> (Option<i32>, String, Vec<Value>) {
    let root = tempfile::tempdir().unwrap();
    Draft::sgd().write(root.path(), "plain");
    let root = root.path().display().to_string();
    verify(&[&["--golden", &root, "--backend", backend], more].concat())
}

/// The result of each check of a command on two plain steps of SGD.
fn details(backend: &str, outcome: &str) -> Vec<String> {
    let (status, out, lines) = on_sgd(backend, &["--timeout", "20"]);
    assert_eq!(lines.len(), 2, "{backend}: {out}");
    // If all is unsupported, nothing was compared.
    assert_eq!(status, Some(i32::from(outcome != "pass")), "{out}");
    let detail = |l: &Value| {
        assert_eq!(l["outcome"], outcome, "{backend}: {l}");
        l["detail"].as_str().unwrap().to_owned()
    };
    lines.iter().map(detail).collect()
}

#[test]
fn core_behind_the_protocol_is_core_in_every_kind_of_case() {
    for only in [
        "*/{adam*,sgd,muon,rprop}/joins_f32",
        "*/adamw_torch/{late,groups,nograd}*",
        "*/*_8bit/default_bf16",
        "schedule/c*",
        "gradient/*/default*",
    ] {
        let through = format!("exec-loop:'{SUITE}' serve");
        let (status, out, through) = verify(&["--only", only, "--backend", &through]);
        assert_eq!(status, Some(0), "{out}");
        assert!(through.len() > 5, "{only}");
        let straight = verify(&["--only", only, "--backend", "core"]).2;
        assert_eq!(anonymous(through), anonymous(straight), "{only}");
    }
}

#[test]
fn a_program_for_every_request_and_one_for_all_say_the_same() {
    for prefix in ["exec", "exec-loop"] {
        let (status, out, lines) = on_sgd(&format!("{prefix}:'{SUITE}' serve"), &[]);
        assert_eq!((status, lines.len()), (Some(0), 2), "{out}");
        assert!(lines.iter().all(|l| l["ulp"] == 0.0), "{out}");
    }
}

#[test]
fn bad_programs_are_errors_that_say_what_happened() {
    let say = |text: &str| format!("sh -c 'while read l; do echo {text}; done' -");
    for (command, want) in [
        ("exec:no_such_program", "status 127 (no such command?); its last words: "),
        ("exec:true", "the answer: no file was written"),
        ("exec:false", "ended with status 1"),
        (
            "exec:sh -c 'echo first >&2; echo last >&2; exit 3' -",
            "status 3; its last words: first | last",
        ),
        ("exec:sh -c 'kill -SEGV $$' -", "signal 11, segmentation fault"),
        ("exec:sh -c 'mkdir \"$2\"' -", "it is no plain file"),
        ("exec:sh -c 'mkfifo \"$2\"' -", "it is no plain file"),
        ("exec:sh -c 'echo nonsense > \"$2\"' -", "damaged, or no safetensors file"),
        ("exec:sh -c 'head -c 100000 /dev/urandom > \"$2\"' -", "damaged, or no safetensors file"),
        ("exec:cp", "its `format` is `bitstep-request/1`, wanted `bitstep-answer/1`"),
        ("exec:sh -c 'rm \"$1\"; echo error lost my way' -", "the program says: lost my way"),
        ("exec-loop:true", "ended with status 0"),
        ("exec-loop:sh -c 'read l; kill -KILL $$' -", "signal 9, kill"),
        ("exec-loop:yes", "the program says `y`, wanted `done`"),
        ("exec-loop:exec 1>&-; sleep 60 #", "closed its input or output"),
        (&format!("exec-loop:{}", say("done")), "the answer: no file was written"),
        (&format!("exec-loop:{}", say("error no idea")), "the program says: no idea"),
        (&format!("exec-loop:{}", say("hello")), "the program says `hello`, wanted `done`"),
    ] {
        for detail in details(command, "error") {
            assert!(detail.contains(want), "{command}: {detail}");
        }
    }
}

#[test]
fn unsupported_comes_with_its_reason() {
    let each = "while read l; do echo unsupported: only tuesdays; done";
    for command in [
        "exec:sh -c 'echo chatter; echo unsupported: only tuesdays' -".to_owned(),
        format!("exec-loop:sh -c '{each}' -"),
    ] {
        for detail in details(&command, "unsupported") {
            assert_eq!(detail, "only tuesdays");
        }
        let (status, out, _) = on_sgd(&command, &["--strict"]);
        assert_eq!(status, Some(1));
        assert!(out.contains("2 checks: only tuesdays"), "{out}");
    }
}

#[test]
fn a_hanging_program_ends_with_all_that_it_started() {
    for prefix in ["exec", "exec-loop"] {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("hang.sh");
        let child = folder.path().join("child");
        let text =
            format!("sleep 1000 &\necho $! >> '{}'\necho waiting >&2\nwait\n", child.display());
        std::fs::write(&script, text).unwrap();
        let command = format!("{prefix}:sh '{}'", script.display());
        let (status, out, lines) = on_sgd(&command, &["--timeout", "3"]);
        assert_eq!(status, Some(1), "{out}");
        for line in lines {
            let detail = line["detail"].as_str().unwrap();
            let want = "no answer in 3 s, ended by force; its last words: waiting";
            assert_eq!((&line["outcome"], detail), (&"error".into(), want));
        }
        for pid in std::fs::read_to_string(&child).unwrap().lines() {
            let state = Command::new("ps").args(["-o", "stat=", "-p", pid]).output().unwrap();
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            // A zombie that has not been reaped counts as ended.
            assert!(state.is_empty() || state.starts_with('Z'), "{prefix}: {pid} is {state}");
        }
    }
}

#[test]
fn a_program_that_always_hangs_is_given_up() {
    let root = tempfile::tempdir().unwrap();
    (0..6).for_each(|i| drop(Draft::sgd().write(root.path(), &format!("case{i}"))));
    let suite = root.path().display().to_string();
    let args = ["--golden", &suite, "--timeout", "0.2", "--backend", "exec:sleep 1000 #"];
    let (status, _, lines) = verify(&args);
    assert_eq!((status, lines.len()), (Some(1), 12));
    let given_up = |l: &&Value| l["detail"].as_str().unwrap().starts_with("not asked: 5 answers");
    assert_eq!(lines.iter().filter(given_up).count(), 7);
}

#[test]
fn limits_that_are_none_are_refused() {
    for limit in ["0", "-1", "nan", "1e30"] {
        let (status, out, _) = on_sgd("exec:true", &[&format!("--timeout={limit}")]);
        assert_eq!(status, Some(2));
        assert!(out.contains("wanted seconds above 0"), "{out}");
    }
}

/// The right answer for the free run of the two plain steps.
fn answer() -> Draft {
    let mut d = Draft::sgd();
    d.meta.clear();
    d.meta("format", "bitstep-answer/1");
    d.tensors.retain(|name, _| name.ends_with(".value"));
    d
}

/// The report of the free run with this answer. (The single steps fail: it has the wrong number of rows.)
fn with_answer(answer: &Draft) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answer");
    std::fs::write(&file, answer.bytes()).unwrap();
    let command = format!("exec:sh -c 'cp {} \"$2\"' -", file.display());
    let (_, out, lines) = on_sgd(&command, &[]);
    let step = lines.iter().find(|l| l["mode"] == "step").unwrap();
    assert_eq!(step["outcome"], "error", "{out}");
    lines.into_iter().find(|l| l["mode"] == "free").unwrap()
}

#[test]
fn partial_and_misshapen_answers_are_errors() {
    assert_eq!(with_answer(&answer())["outcome"], "pass");
    type Spoil = fn(&mut Draft);
    let cases: [(Spoil, &str); 6] = [
        (|d| drop(d.tensors.remove("p1.value")), "the answer: it lacks `p1.value`"),
        (|d| d.set("p0.value", f32s(&[1, 2], &[0.5, 1.0])), "is f32 [1, 2], wanted f32 [2, 2]"),
        (|d| d.set("p0.value", f32s(&[4], &[0.0; 4])), "is f32 [4], wanted f32 [2, 2]"),
        (
            |d| d.set("p0.value", bitstep_conformance::tensor::Tensor::f64(&[2, 2], &[0.0; 4])),
            "is f64 [2, 2], wanted f32 [2, 2]",
        ),
        (|d| d.set("p0.state.x", f32s(&[3], &[0.0; 3])), "`p0.state.x` is f32 [3], wanted 2 rows"),
        (|d| d.meta("state", "secret"), "`state` in its metadata is `secret`, wanted `hidden`"),
    ];
    for (spoil, want) in cases {
        let mut d = answer();
        spoil(&mut d);
        let line = with_answer(&d);
        assert_eq!(line["outcome"], "error", "{line}");
        assert!(line["detail"].as_str().unwrap().contains(want), "{want}: {line}");
    }
}

#[test]
fn a_number_that_is_none_fails_by_more_than_any_bound() {
    for bad in [f64::NAN, f64::INFINITY] {
        let mut d = answer();
        d.set("p1.value", f32s(&[2, 2], &[0.5, bad, -1.5, 2.0]));
        let line = with_answer(&d);
        assert_eq!((&line["outcome"], &line["ulp"]), (&"fail".into(), &f64::MAX.into()));
        assert!(line["detail"].as_str().unwrap().contains("p1.value, step 0, index 1"), "{line}");
    }
}

#[test]
fn state_may_be_hidden_but_that_is_said() {
    let root = tempfile::tempdir().unwrap();
    let mut case = Draft::sgd();
    case.set("p0.state.momentum_buffer", f32s(&[2, 2], &[0.0; 4]));
    case.write(root.path(), "plain");
    let suite = root.path().display().to_string();
    let file = root.path().join("answer");
    let command = format!("exec:sh -c 'cp {} \"$2\"' -", file.display());
    for (hidden, outcome, want) in [
        (false, "fail", "does not show the state `p0.state.momentum_buffer`"),
        (true, "pass", "values only: the backend does not show its state"),
    ] {
        let mut d = answer();
        if hidden {
            d.meta("state", "hidden");
        }
        std::fs::write(&file, d.bytes()).unwrap();
        let lines = verify(&["--golden", &suite, "--backend", &command]).2;
        let free = lines.iter().find(|l| l["mode"] == "free").unwrap();
        assert_eq!(free["outcome"], outcome, "{free}");
        assert!(free["detail"].as_str().unwrap().contains(want), "{free}");
    }
}

#[test]
fn nobody_lacks_what_the_core_does_not_lack() {
    let lacking = |momentum: f64, held: bool, slot: &str| {
        let root = tempfile::tempdir().unwrap();
        let mut case = Draft::sgd();
        case.meta("hyper", &format!(r#"{{"lr": 0.5, "momentum": {momentum:?}}}"#));
        let mut d = answer();
        let values = f32s(&[1, 2], &[0.5, 1.0]);
        d.set("p0.value", values.clone());
        d.set("p1.value", values);
        if held {
            case.set("p0.state.momentum_buffer", f32s(&[2, 2], &[0.0; 4]));
            d.set("p0.state.momentum_buffer", f32s(&[1, 2], &[0.0; 2]));
        }
        case.write(root.path(), "plain");
        let once = d.bytes();
        d.meta("p0.lacks", slot);
        d.meta("p1.lacks", slot);
        let [first, later] = ["first", "later"].map(|n| root.path().join(n));
        std::fs::write(&first, once).unwrap();
        std::fs::write(&later, d.bytes()).unwrap();
        let (first, later) = (first.display(), later.display());
        // The second request of a single step begins after one.
        let command = format!(
            "exec:sh -c 'if grep -aq \"\\\"done\\\":\\\"1\\\"\" \"$1\"; then cp {later} \"$2\"; \
             else cp {first} \"$2\"; fi' -"
        );
        let suite = root.path().display().to_string();
        let lines = verify(&["--golden", &suite, "--backend", &command]).2;
        lines.into_iter().find(|l| l["mode"] == "step").unwrap()
    };
    for (momentum, held, slot, outcome, want) in [
        (0.5, false, "momentum_buffer", "unsupported", "nothing to judge after the first step"),
        (0.5, false, "another", "error", "where the core lacks `momentum_buffer`"),
        (0.0, false, "momentum_buffer", "error", "but the core makes that step"),
        (0.0, false, "", "error", "but the core makes that step"),
        (0.0, true, "another", "error", "but the core makes that step"),
        (0.0, true, "momentum_buffer", "error", "which there is"),
    ] {
        let line = lacking(momentum, held, slot);
        assert_eq!(line["outcome"], outcome, "{line}");
        assert!(line["detail"].as_str().unwrap().contains(want), "{want}: {line}");
    }
}

/// Runs the core behind the protocol and keeps every request, in order.
fn requests(only: &str) -> Vec<Vec<u8>> {
    let kept = tempfile::tempdir().unwrap();
    let at = kept.path().display();
    let command = format!(
        "exec:sh -c 'cp \"$1\" {at}/$(printf %04d $(ls {at} | wc -l)); '\"'{SUITE}'\"' serve \"$1\" \"$2\"' -"
    );
    let (status, out, _) = verify(&["--only", only, "--backend", &command]);
    assert_eq!(status, Some(0), "{out}");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(kept.path()).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.iter().map(|f| std::fs::read(f).unwrap()).collect()
}

#[test]
fn no_program_sees_an_answer_before_it_gives_its_own() {
    let id = "optimizer/adamw_torch/strong_f32";
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let path = root.join(Path::new(id)).with_extension("safetensors");
    let case = Case::read(&path, &root).unwrap();
    let Data::Optimizer(data) = &case.data else { panic!() };
    let requests = requests(id);
    assert_eq!(requests.len(), 1 + case.steps, "a free run, then step by step");
    // Nor do the suite's names tell which case it is.
    for secret in ["strong_f32", &case.note] {
        let named = |r: &Vec<u8>| r.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!secret.is_empty() && !requests.iter().any(named), "{secret}");
    }
    let holds = |request: &[u8], row: &[u8]| request.windows(row.len()).any(|w| w == row);
    for (n, request) in requests.iter().enumerate() {
        // The request of the free run may contain no answer; that of step t none from t on.
        for t in n.saturating_sub(1)..case.steps {
            for p in &data.params {
                for rows in p.state.values().chain([&p.value]).map(|r| r.row(t).bytes) {
                    assert!(rows.len() < 16 || !holds(request, &rows), "request {n}, step {t}");
                }
            }
        }
    }
    // The search works: a step does start from the answer to the one before.
    assert!(holds(&requests[2], &data.params[0].value.row(0).bytes));
}

#[test]
fn no_bytes_make_the_suite_panic() {
    let init = f32s(&[2], &[1.0, 2.0]);
    let params = [&init, &init];
    let good = answer().bytes();
    assert_eq!(check_answer(&good, &params, 2), Ok(()));
    for n in 0..good.len() {
        assert!(check_answer(&good[..n], &params, 2).is_err(), "{n} bytes");
        // Most changes damage the file, but not all.
        for flip in [1, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[n] ^= flip;
            let _ = check_answer(&bytes, &params, 2);
        }
    }
    assert!(check_answer(&good, &params, usize::MAX).is_err());
}

/// The diagnoses of a wrong AdamW in the table, the JSON lines and the page.
fn diagnoses(backend: &str) -> (Vec<(Value, Value)>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let page_text = page.display().to_string();
    let only = "*/adamw_torch/{strong,late,groups,lr_schedule,eps_large,default}_*";
    let args = ["--only", only, "--backend", backend, "--report", &page_text];
    let (status, out, lines) = verify(&args);
    assert_eq!(status, Some(1), "{out}");
    let failed = lines.into_iter().filter(|l| l["outcome"] == "fail");
    let failed = failed.map(|l| (l["case"].clone(), l["diagnosis"].clone())).collect();
    (failed, out, std::fs::read_to_string(page).unwrap())
}

const FAULTS: [(&str, &str); 5] = [
    ("coupled", "weight decay coupled into the gradient"),
    ("eps_inside", "epsilon inside the root"),
    ("f16", "hyper-parameters in f16"),
    ("f32", "hyper-parameters in f32"),
    ("off_by_one", "bias correction off by one"),
];

fn named(fault: &str, want: &str, failed: &[(Value, Value)]) {
    for (case, diagnosis) in failed {
        // A beta of 0.999999 rounds to 1 in f16, which no rule accepts, so there is nothing to compare with;
        // rounding to f32 has small effects, and too few failing values for a diagnosis. But no diagnosis is wrong.
        let is = |part: &str| case.as_str().unwrap().contains(part);
        let none = fault == "f32" || fault == "f16" && is("/late_");
        assert!(diagnosis == want || none && diagnosis.is_null(), "{fault}: {case}: {diagnosis}");
    }
    assert!(failed.iter().filter(|(_, d)| d == want).count() > 4, "{fault}");
}

fn foreign(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign").join(file)
}

#[test]
fn the_c_backend_passes_and_each_of_its_faults_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("adamw").display().to_string();
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-ffp-contract=off"]);
    let built = cc.arg(foreign("adamw.c")).args(["-o", &program, "-lm"]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let (status, out, lines) =
        verify(&["--only", "adamw_torch", "--backend", &format!("exec-loop:{program}")]);
    assert_eq!(status, Some(0), "{out}");
    let passed = lines.iter().filter(|l| l["outcome"] == "pass").count();
    assert!(passed > 30, "{passed}");
    assert!(lines.iter().all(|l| l["diagnosis"].is_null()));

    for (fault, want) in FAULTS {
        let (failed, out, page) = diagnoses(&format!("exec-loop:{program} {fault}"));
        assert!(failed.len() > 8, "{fault}: {out}");
        named(fault, want, &failed);
        assert!(out.contains(&format!("  looks like: {want}\n")), "{out}");
        assert!(page.contains(&format!("Looks like: {want}.")));
    }
}

#[test]
fn the_numpy_backend_passes_and_each_of_its_faults_is_named() {
    use std::io::Write;
    let python = std::env::var("BITSTEP_VENV_MAIN");
    let python = python.map_or("python3".to_owned(), |venv| format!("{venv}/bin/python3"));
    let numpy = Command::new(&python).args(["-c", "import numpy"]).output();
    if !numpy.is_ok_and(|out| out.status.success()) {
        // Not `println!`: the harness captures the output of tests that pass.
        let text = "has no numpy, and BITSTEP_VENV_MAIN names no environment that has";
        writeln!(std::io::stderr(), "SKIPPED: the backend in Python: {python} {text}").unwrap();
        return;
    }
    let program = format!("'{python}' -B '{}'", foreign("numpy_backend.py").display());
    let only = "{adamw_torch,sgd,adafactor}";
    let (status, out, lines) =
        verify(&["--only", only, "--backend", &format!("exec-loop:{program}")]);
    assert_eq!(status, Some(0), "{out}");
    let passed = lines.iter().filter(|l| l["outcome"] == "pass").count();
    assert!(passed > 180, "{passed}");
    for (fault, want) in FAULTS {
        let (failed, out, _) = diagnoses(&format!("exec-loop:FAULT={fault} {program}"));
        assert!(failed.len() > 8, "{fault}: {out}");
        named(fault, want, &failed);
    }
}

/// Runs the suite on each fault of `faulty_torch.py`, which names the diagnosis that it wants. Torch takes seconds to
/// start, so one program serves all: it reads from a file which faults it is to have, one of each optimizer.
#[test]
fn the_torch_backend_passes_and_each_of_its_faults_is_named() {
    use std::io::Write;
    let python = std::env::var("BITSTEP_VENV_MAIN");
    let python = python.map_or("python3".to_owned(), |venv| format!("{venv}/bin/python3"));
    let text = "import json, faulty_torch; print(json.dumps(faulty_torch.FAULTS))";
    let mut command = Command::new(&python);
    command.args(["-B", "-c", text]).env("PYTHONPATH", foreign(""));
    let faults = command.output().ok().filter(|out| out.status.success());
    let Some(faults) = faults else {
        // Not `println!`: the harness captures the output of tests that pass.
        let text = "has no torch, and BITSTEP_VENV_MAIN names no environment that has";
        writeln!(std::io::stderr(), "SKIPPED: faults in torch: {python} {text}").unwrap();
        return;
    };
    let faults: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&faults.stdout).unwrap();
    const CLASSES: [(&str, &str); 3] =
        [("AdamW", "adamw_torch"), ("SGD", "sgd"), ("Adafactor", "adafactor_torch")];
    let cases = "{strong,amsgrad,nesterov,dampening,default,eps_large,lr_schedule,late}";
    let only = format!("optimizer/{{adamw_torch,sgd,adafactor_torch}}/{cases}_f{{32,64}}");
    let entries = suite::read(&[suite::committed()], &CaseFilter::new(Some(&only)).unwrap());
    let entries = entries.unwrap();
    let chosen = tempfile::NamedTempFile::new().unwrap();
    let (program, file) = (foreign("torch_backend.py"), chosen.path().display());
    let command = format!("exec-loop:'{python}' -B '{}' @'{file}'", program.display());
    // Torch may take long to start beside other programs.
    let backends = vec![registry::backend(&command, Duration::from_secs(300)).unwrap()];
    let (mut complaints, mut named) = (Vec::new(), 0);
    for k in 0..faults.values().map(BTreeMap::len).max().unwrap() {
        let of = |(class, name)| Some((class, name, faults[class].iter().nth(k)?));
        let own: Vec<_> = CLASSES.into_iter().filter_map(of).collect();
        let all = own.iter().map(|(class, _, (fault, _))| format!("{class}.{fault}"));
        std::fs::write(chosen.path(), all.collect::<Vec<_>>().join(",")).unwrap();
        let reports = suite::run(&entries, &backends, &Bounds::default(), || {});
        for (_, name, (fault, want)) in own {
            let mut counts = BTreeMap::<(&str, &str), usize>::new();
            for r in reports.iter().filter(|r| r.name == name) {
                let key = (r.outcome.name(), r.diagnosis.as_deref().unwrap_or(""));
                *counts.entry(key).or_default() += 1;
            }
            // Some checks may show too little for a name, but none may have a wrong one.
            let failed = counts.keys().filter(|(outcome, _)| *outcome == "fail");
            let names: Vec<&str> = failed.map(|(_, name)| *name).collect();
            let is_right = match want.as_str() {
                "" => names.is_empty() && counts.get(&("pass", "")).is_some_and(|n| *n > 10),
                want => names.contains(&want) && names.iter().all(|n| n.is_empty() || *n == want),
            };
            named += usize::from(is_right && !want.is_empty());
            if !is_right {
                let details = reports.iter().filter(|r| r.name == name && !r.detail.is_empty());
                let details: Vec<&str> = details.map(|r| r.detail.as_str()).take(3).collect();
                complaints.push(format!("{name} {fault}: wanted {want:?}: {counts:?} {details:?}"));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(named >= 22, "{named}");
}
