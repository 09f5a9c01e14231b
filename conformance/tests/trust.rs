//! Runs that must not count as a pass: nothing compared, zeros of the other sign, looked-up answers.
#![cfg(unix)]

mod common;

use std::path::Path;
use std::process::Command;

use bitstep_conformance::tensor::Tensor;
use common::{Draft, f32s, within_a_minute};
use serde_json::Value;

const SUITE: &str = env!("CARGO_BIN_EXE_bitstep-conformance");

/// Runs `verify` on a suite: status, output, JSON lines.
fn verify(root: &Path, more: &[&str]) -> (Option<i32>, String, Vec<Value>) {
    let json = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(SUITE);
    command.env("RAYON_NUM_THREADS", "1").arg("verify").arg("--golden").arg(root);
    let out = within_a_minute(command.arg("--json").arg(json.path()).args(more));
    let lines = std::fs::read_to_string(json.path()).unwrap();
    let lines = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
    (out.status.code(), text, lines)
}

/// A case without steps, and one of tensors without elements.
fn nothing(root: &Path) {
    let mut none = Draft::sgd();
    none.meta("steps", "0");
    let mut empty = Draft::sgd();
    for p in ["p0", "p1"] {
        for rows in ["grad", "value"] {
            none.set(&format!("{p}.{rows}"), f32s(&[0, 2], &[]));
            empty.set(&format!("{p}.{rows}"), f32s(&[2, 0], &[]));
        }
        empty.set(&format!("{p}.init"), f32s(&[0], &[]));
    }
    none.write(root, "no_step");
    empty.write(root, "no_element");
    let mut idle = Draft::constant();
    idle.set("lr", Tensor::f64(&[3, 0], &[]));
    idle.write(root, "no_group");
}

#[test]
fn nothing_compared_is_empty_and_no_pass() {
    let root = tempfile::tempdir().unwrap();
    nothing(root.path());
    let last = "0 failed, 0 unsupported, 0 in error, 5 empty; \
                0 numbers compared, 0 off: nothing compared, which is no pass";
    for backend in ["core", &format!("exec-loop:'{SUITE}' serve")] {
        let (status, out, lines) = verify(root.path(), &["--backend", backend, "--strict"]);
        assert_eq!((status, lines.len()), (Some(1), 5), "{out}");
        assert!(lines.iter().all(|l| l["outcome"] == "empty" && l["compared"] == 0), "{out}");
        assert!(out.trim_end().ends_with(last), "{out}");
    }
    // A missing program does not pass, not even on these.
    let (status, out, lines) = verify(root.path(), &["--backend", "exec:/no/such/program"]);
    assert_eq!(status, Some(1));
    assert!(lines.iter().all(|l| l["outcome"] != "pass"), "{out}");
    // Among other cases they are no failure, and no pass either.
    Draft::sgd().write(root.path(), "plain");
    let (status, out, _) = verify(root.path(), &["--backend", "core", "--strict"]);
    assert_eq!(status, Some(0));
    assert!(out.trim_end().ends_with("7 checks: 2 passed, 0 failed, 0 unsupported, 0 in error, 5 empty; 16 numbers compared, 0 off"), "{out}");
}

#[test]
fn an_empty_answer_of_the_wrong_form_is_no_empty_one() {
    let root = tempfile::tempdir().unwrap();
    nothing(root.path());
    let file = root.path().join("answer");
    let mut d = Draft::sgd();
    d.meta.clear();
    d.meta("format", "bitstep-answer/1");
    d.tensors.clear();
    d.set("p0.value", Tensor::f64(&[2, 0], &[]));
    d.set("p1.value", Tensor::f64(&[2, 0], &[]));
    std::fs::write(&file, d.bytes()).unwrap();
    let backend = format!("exec:sh -c 'cp {} \"$2\"' -", file.display());
    let (_, out, lines) = verify(root.path(), &["--backend", &backend, "--only", "no_element"]);
    assert!(lines.iter().all(|l| l["outcome"] == "error"), "{out}");
    assert!(out.contains("`p0.value` is f64 [2, 0], wanted f32 [2, 0]"), "{out}");
}

#[test]
fn nothing_compared_of_one_backend_is_no_pass_whatever_another_has() {
    let root = tempfile::tempdir().unwrap();
    Draft::sgd().write(root.path(), "plain");
    let none = "exec:echo unsupported nothing #";
    let (status, out, _) = verify(root.path(), &["--backend", "core", "--backend", none]);
    assert_eq!(status, Some(1));
    assert!(
        out.trim_end().ends_with(&format!("nothing compared of {none}, which is no pass")),
        "{out}"
    );
}

#[test]
fn a_zero_of_the_other_sign_is_counted_and_fails_if_asked_to() {
    let root = tempfile::tempdir().unwrap();
    let mut case = Draft::sgd();
    let (grad, value) = (f32s(&[2, 2], &[2.0, 4.0, 0.0, 0.0]), f32s(&[2, 2], &[0.0; 4]));
    case.set("p0.grad", grad);
    case.set("p0.value", value);
    case.write(root.path(), "to_zero");
    let answer = |zero: f64| {
        let mut d = case.clone();
        d.meta.clear();
        d.meta("format", "bitstep-answer/1");
        d.tensors.retain(|name, _| name.ends_with(".value"));
        d.set("p0.value", f32s(&[2, 2], &[0.0, zero, 0.0, zero]));
        let file = root.path().join("answer");
        std::fs::write(&file, d.bytes()).unwrap();
        format!("exec:sh -c 'cp {} \"$2\"' -", file.display())
    };
    let free = |lines: &[Value]| lines.iter().find(|l| l["mode"] == "free").unwrap().clone();
    let page = root.path().join("page.html").display().to_string();

    let wrong = answer(-0.0);
    let (_, out, lines) = verify(root.path(), &["--backend", &wrong, "--report", &page]);
    let line = free(&lines);
    assert_eq!((&line["outcome"], &line["zeros"]), (&"pass".into(), &2.into()), "{out}");
    assert!(out.contains("2 zeros of the other sign"), "{out}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("2 zeros of the other sign"));
    let line = free(&verify(root.path(), &["--backend", &wrong, "--strict-zeros"]).2);
    assert_eq!(line["outcome"], "fail");
    assert!(
        line["detail"].as_str().unwrap().starts_with("2 zeros of the other sign, of 8 numbers")
    );

    let line = free(&verify(root.path(), &["--backend", &answer(0.0), "--strict-zeros"]).2);
    assert_eq!((&line["outcome"], &line["zeros"]), (&"pass".into(), &0.into()));
}

/// A hash of a request that does not depend on the order of its bytes, as that of metadata varies.
const HASH: &str = "od -An -v -tx1 -w1 \"$1\" | sort | cksum";

/// The hashes of a run's requests, written by a program.
fn order(root: &Path, more: &[&str]) -> (Vec<String>, String) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let at = log.path().display();
    let backend = format!("exec:sh -c '{HASH} >> {at}; echo unsupported' -");
    let (_, out, _) = verify(root, &[&["--backend", &backend], more].concat());
    let lines = std::fs::read_to_string(log.path()).unwrap();
    (lines.lines().map(str::to_owned).collect(), out)
}

#[test]
fn programs_get_the_cases_in_an_order_of_the_seed() {
    let root = tempfile::tempdir().unwrap();
    for i in 0..8 {
        let mut d = Draft::constant();
        d.meta("hyper", &format!(r#"{{"lr": 0.5, "n": {i}}}"#));
        d.write(root.path(), &format!("case{i}"));
    }
    let (one, out) = order(root.path(), &["--shuffle", "1"]);
    assert_eq!(one.len(), 8, "{out}");
    assert!(out.contains("order of the cases: --shuffle 1\n"), "{out}");
    assert_eq!(order(root.path(), &["--shuffle", "1"]).0, one);
    let (two, _) = order(root.path(), &["--shuffle", "2"]);
    assert_ne!(two, one);
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(two), sorted(one.clone()));
    // Without a seed, one is drawn and printed.
    let (_, out) = order(root.path(), &[]);
    let seed = out.split("--shuffle ").nth(1).unwrap().split_whitespace().next().unwrap();
    assert_eq!(
        order(root.path(), &["--shuffle", seed]).1.split("--shuffle ").nth(1),
        out.split("--shuffle ").nth(1)
    );
}

#[test]
fn who_looks_answers_up_passes_but_not_what_is_drawn_anew() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    // Stores each answer of the core under a hash of its request.
    let kept = format!("{at}/$({HASH} | tr \" \" _)");
    let learns = format!("exec:sh -c '\"{SUITE}\" serve \"$1\" \"$2\" && cp \"$2\" {kept}' -");
    let knows =
        format!("exec:sh -c 'cp {kept} \"$2\" 2>/dev/null || echo error I have not learnt this' -");
    for only in ["*/adamw_torch/default_f32", "{schedule/cosine,gradient/clip_grad_norm}/default*"]
    {
        let run = |more: &[&str]| verify(&golden, &[&["--only", only], more].concat());
        let (status, out, _) = run(&["--backend", &learns]);
        assert_eq!(status, Some(0), "{out}");
        let (status, out, lines) = run(&["--backend", &knows]);
        assert_eq!(status, Some(0), "{out}");
        assert!(lines.len() >= 2, "{only}");
        let (status, out, lines) = run(&["--backend", &knows, "--fresh", "1"]);
        assert_eq!(status, Some(1), "{out}");
        assert!(lines.iter().all(|l| l["outcome"] != "pass"), "{only}: {out}");
    }
}

#[test]
fn who_computes_passes_what_is_drawn_anew_whatever_the_seed() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let rules =
        "adamw_torch,sgd,adafactor,adamw_bnb_8bit,galore_adamw,schedule_free_adamw,lion_8bit";
    let some = format!("*/{{{rules}}}/{{default,late,groups,nograd}}_f32");
    let served = format!("exec-loop:'{SUITE}' serve");
    let mut seen = Vec::new();
    for (only, backend, seed) in [
        (some.as_str(), "core", "1"),
        ("*/{adamw_torch,sgd}/default_f32", &served, "1"),
        ("schedule/{cosine,linear,reduce_lr_on_plateau}/*", "core", "2"),
        ("gradient/*/default*", "core", "2"),
    ] {
        let more = ["--only", only, "--backend", backend, "--fresh", seed];
        let (status, out, lines) = verify(&golden, &more);
        assert_eq!(status, Some(0), "{out}");
        assert!(lines.iter().all(|l| l["ulp"] == 0.0 || l["outcome"] == "empty"), "{out}");
        seen.push(lines.len());
    }
    assert!(seen.iter().all(|&n| n >= 4), "{seen:?}");
}
