//! The command line's contract.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use bitstep_conformance::backend::registry::NAMES;
use common::{Draft, f32s};
use serde_json::Value;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bitstep-conformance")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `verify` on a suite; the status, what it printed, and the JSON lines.
fn verify(root: &Path, more: &[&str]) -> (Option<i32>, String, Vec<Value>) {
    let json = root.join("out.jsonl");
    let (root, json_text) = (root.display().to_string(), json.display().to_string());
    let args = [&["verify", "--golden", &root, "--json", &json_text], more].concat();
    let out = run(&args);
    let lines = std::fs::read_to_string(&json).unwrap_or_default();
    let lines = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    (out.status.code(), text(&out.stdout) + &text(&out.stderr), lines)
}

fn line<'a>(lines: &'a [Value], case: &str, mode: &str) -> &'a Value {
    let fits = |l: &&Value| l["case"].as_str().unwrap().contains(case) && l["mode"] == mode;
    lines.iter().find(fits).unwrap_or_else(|| panic!("no line for {case} {mode}"))
}

#[test]
fn verify_good_suite_passes_with_a_line_a_check() {
    let root = tempfile::tempdir().unwrap();
    Draft::sgd().write(root.path(), "plain");
    Draft::clip().write(root.path(), "below");
    let (status, out, lines) = verify(root.path(), &["--strict", "--backend", "core"]);
    assert_eq!(status, Some(0), "{out}");
    assert_eq!(lines.len(), 3);
    let keys = [
        "case",
        "kind",
        "name",
        "backend",
        "dtype",
        "mode",
        "outcome",
        "ulp",
        "bound",
        "detail",
        "diagnosis",
        "compared",
        "zeros",
        "off",
        "within",
        "exact",
        "params_off",
        "steps_off",
        "only",
    ];
    for l in &lines {
        let found: Vec<_> = l.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(found, keys);
    }
    let step = line(&lines, "optimizer/sgd/plain", "step");
    assert_eq!((&step["outcome"], &step["dtype"]), (&"pass".into(), &"f32".into()));
    assert_eq!((&step["ulp"], &step["bound"]), (&0.0.into(), &0.0.into()));
    assert_eq!(line(&lines, "gradient/clip_grad_norm/below", "values")["backend"], "core");
    assert_eq!(line(&lines, "optimizer/sgd/plain", "free")["kind"], "optimizer");
    assert!(!out.contains('\u{1b}'), "no progress bar in a pipe");
}

#[test]
fn verify_wrong_number_fails_and_says_where() {
    let root = tempfile::tempdir().unwrap();
    let mut d = Draft::sgd();
    d.set("p1.value", f32s(&[2, 2], &[0.5, 1.0, -1.5, 2.0001]));
    d.write(root.path(), "off");
    let (status, out, lines) = verify(root.path(), &[]);
    assert_eq!(status, Some(1));
    let l = line(&lines, "off", "step");
    assert_eq!(l["outcome"], "fail");
    assert!(l["ulp"].as_f64() > l["bound"].as_f64());
    for want in [
        "made by hand",
        "p1.value, step 1, index 1",
        "got 2.0 (0x40000000)",
        "want 2.0001 (0x400001a3)",
        "419.00 ULP at scale, bound 0.00",
        "--only 'optimizer/sgd/off'",
    ] {
        assert!(out.contains(want), "{want} in {out}");
    }
}

#[test]
fn verify_damaged_file_is_an_error_and_the_rest_still_runs() {
    let root = tempfile::tempdir().unwrap();
    Draft::sgd().write(root.path(), "plain");
    let broken = Draft::sgd().write(root.path(), "broken");
    let bytes = std::fs::read(&broken).unwrap();
    std::fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    let (status, out, lines) = verify(root.path(), &[]);
    assert_eq!(status, Some(1));
    let l = line(&lines, "broken", "step");
    assert_eq!(l["outcome"], "error");
    assert!(l["detail"].as_str().unwrap().contains("broken.safetensors"));
    assert_eq!(line(&lines, "plain", "free")["outcome"], "pass");
    assert!(out.contains("1 in error"));
}

#[test]
fn verify_unsupported_is_counted_and_fails_only_if_strict_or_alone() {
    let root = tempfile::tempdir().unwrap();
    let mut d = Draft::sgd();
    d.meta("name", "sgd_of_tomorrow");
    d.write(root.path(), "plain");
    let (status, out, lines) = verify(root.path(), &["--backend", "core"]);
    assert_eq!(line(&lines, "plain", "step")["outcome"], "unsupported");
    assert!(line(&lines, "plain", "step")["ulp"].is_null());
    assert!(out.contains("2 unsupported") && out.contains("no optimizer `sgd_of_tomorrow`"));
    // Nothing was compared.
    assert_eq!(status, Some(1), "{out}");
    assert!(
        out.trim_end().ends_with("0 numbers compared, 0 off: nothing compared, which is no pass")
    );
    Draft::sgd().write(root.path(), "plain");
    assert_eq!(verify(root.path(), &["--backend", "core"]).0, Some(0));
    assert_eq!(verify(root.path(), &["--backend", "core", "--strict"]).0, Some(1));
}

#[test]
fn verify_only_takes_a_glob_and_refuses_one_that_fits_nothing() {
    let root = tempfile::tempdir().unwrap();
    Draft::sgd().write(root.path(), "plain");
    Draft::clip().write(root.path(), "below");
    for (glob, want) in [("optimizer/*", 2), ("sgd", 2), ("*/below", 1), ("plain", 2), ("*", 3)] {
        let lines = verify(root.path(), &["--backend", "core", "--only", glob]).2;
        assert_eq!(lines.len(), want, "{glob}");
    }
    let (status, out, _) = verify(root.path(), &["--only", "adam*"]);
    assert_eq!(status, Some(2));
    assert!(out.contains("no case fits `adam*`"));
}

#[test]
fn verify_several_suites_and_backends_at_once() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Draft::sgd().write(a.path(), "one");
    Draft::sgd().write(b.path(), "two");
    let other = b.path().display().to_string();
    let (status, _, lines) =
        verify(a.path(), &["--golden", &other, "--backend", "core", "--backend", "core"]);
    assert_eq!((status, lines.len()), (Some(0), 8));
}

#[test]
fn verify_without_a_backend_checks_every_one_that_is_compiled_in() {
    let root = tempfile::tempdir().unwrap();
    Draft::sgd().write(root.path(), "one");
    let (status, out, lines) = verify(root.path(), &[]);
    assert_eq!(status, Some(0), "{out}");
    for name in NAMES {
        assert_eq!(lines.iter().filter(|l| l["backend"] == *name).count(), 2, "{name}");
    }
    assert_eq!(lines.len(), 2 * NAMES.len());
}

#[test]
fn verify_refuses_unknown_backends_and_empty_suites() {
    let root = tempfile::tempdir().unwrap();
    let (status, out, _) = verify(root.path(), &[]);
    assert_eq!(status, Some(2));
    assert!(out.contains("no golden cases"), "{out}");
    Draft::sgd().write(root.path(), "plain");
    let (status, out, _) = verify(root.path(), &["--backend", "cuda9000"]);
    assert_eq!(status, Some(2));
    assert!(out.contains("unknown backend `cuda9000`"), "{out}");
}

#[test]
fn report_is_one_page_with_a_plot_and_nothing_from_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    Draft::sgd().write(root.path(), "plain");
    let page = root.path().join("page.html");
    let (status, out, _) = verify(root.path(), &["--report", &page.display().to_string()]);
    assert_eq!(status, Some(0), "{out}");
    let page = std::fs::read_to_string(page).unwrap();
    // The worst error of a name, by backend and type, links to the case's details.
    let (link, target) = (
        "<td class=pass><a href='#optimizer/sgd/plain core step'>",
        "<details id='optimizer/sgd/plain core step'>",
    );
    for want in ["<table>", "<th>core<br>f32", link, target, "<svg", "</html>"] {
        assert!(page.contains(want), "{want}");
    }
    for never in ["<script", "http://", "https://", "@import", "src="] {
        assert!(!page.contains(never), "{never}");
    }
}

/// Of the cases with NaN, infinities and extremes only those that are about it, and there the update of the step that cancels, in both parameters.
#[test]
fn what_may_be_nan_is_not_judged_and_counted() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
    let out = text(
        &run(&[
            "show",
            "optimizer/muon/{cancelling,extremes,large,nonfinite,single}*",
            "--golden",
            golden,
        ])
        .stdout,
    );
    let (mut case, mut found) = ("", Vec::new());
    for line in out.lines() {
        if line.starts_with("optimizer/") {
            case = line;
        }
        let line = line.trim().split_once(" numbers not judged that have no bound");
        if let Some((count, _)) = line {
            found.push((case, count));
        }
    }
    // In a single step, then in a free run, where the next step starts from it.
    let of = |case| [(case, "2"), (case, "4")];
    let want = ["optimizer/muon/cancelling_bf16", "optimizer/muon/cancelling_f32"].map(of);
    assert_eq!(found, want.concat());
}

#[test]
fn show_says_which_operations_a_tolerance_comes_from() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
    let table: [(&str, &str, &[&str]); 10] = [
        ("optimizer/adamw_torch/default_f32", "p0.value", &["×", "+"]),
        ("optimizer/adamw_torch/strong_bf16", "p1.value", &["parts of 16-bit operations"]),
        ("optimizer/bnb_adam_8bit/strong_f32", "p0.state.absmax1", &["×", "+"]),
        ("optimizer/galore_adamw/right_f32", "p3.state.exp_avg", &["products of matrices"]),
        ("optimizer/muon/strong_f32", "p0.value", &["products of matrices"]),
        ("optimizer/adafactor/strong_f32", "p0.state.RMS", &["sums"]),
        ("schedule/torch_polynomial/long", "lr", &["÷", "powers, cosines and logarithms"]),
        ("schedule/torch_step/default", "lr", &["×"]),
        ("gradient/clip_grad_norm/large_f32", "norm", &["sums"]),
        ("gradient/clip_grad_value/default_f32", "g0.out", &["0, as every operation is exact"]),
    ];
    for (case, tensor, sources) in table {
        let out = text(&run(&["show", case, "--golden", golden]).stdout);
        let of = |line: &str| Some(line.trim().strip_prefix("tolerance of ")?.to_owned());
        let line = out
            .lines()
            .filter_map(of)
            .find(|line| line.strip_prefix(tensor).is_some_and(|rest| rest.starts_with(' ')));
        let line = line.unwrap_or_else(|| panic!("no tolerance of {tensor} in {out}"));
        for source in sources {
            assert!(line.contains(source), "{case}: {source} in {line}");
        }
    }
}

#[test]
fn list_and_show_name_the_case() {
    let root = tempfile::tempdir().unwrap();
    Draft::sgd().write(root.path(), "plain");
    let suite = root.path().display().to_string();
    let list = run(&["list", "--golden", &suite]);
    assert!(list.status.success());
    assert!(text(&list.stdout).contains("optimizer/sgd/plain  f32  2 steps  made by hand"));
    let show = run(&["show", "optimizer/sgd/plain", "--golden", &suite]);
    assert!(show.status.success());
    let shown = text(&show.stdout);
    for want in ["note       made by hand", "core step pass", "core free pass", "value "] {
        assert!(shown.contains(want), "{want} in {shown}");
    }
    assert_eq!(run(&["show", "nothing", "--golden", &suite]).status.code(), Some(2));
}

#[test]
fn new_case_begins_a_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().display().to_string();
    let new = |name: &str, reference: &str, more: &[&str]| {
        let args = ["new-case", name, "--reference", reference, "--folder", &to];
        let out = run(&[&args, more].concat());
        (out.status.code(), text(&out.stdout) + &text(&out.stderr))
    };
    assert_eq!(new("lamb", "torch_optimizer.Lamb", &[]).0, Some(0));
    assert_eq!(new("square", "a.b.Square", &["--schedule"]).0, Some(0));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(read("lamb.py").starts_with("from torch_optimizer import Lamb\n"));
    assert!(read("square.py").contains("Schedules(\"square\", Square, seed)"));
    for (name, reference, want) in [
        ("lamb", "torch_optimizer.Lamb", "lamb.py"),
        ("../lamb", "torch_optimizer.Lamb", "is none for a file"),
        ("Lamb", "torch_optimizer.Lamb", "is none for a file"),
        ("lamb2", "Lamb", "is no import path"),
        ("lamb2", "a.b; c", "is no import path"),
    ] {
        let (status, out) = new(name, reference, &[]);
        assert_eq!(status, Some(2));
        assert!(out.contains(want), "{out}");
    }
}
