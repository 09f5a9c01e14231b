//! List, files, golden folders and README rows tell of the same optimizers and schedules.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use bitstep::float::Dtype;
use bitstep::hyper::Args;
use bitstep::registry::{self, OPTIMIZERS};

/// Names that run another name's rule without a difference in any number, and so
/// need no goldens of their own.
const SAME_AS: &[(&str, &str)] = &[
    ("adamw_8bit", "adamw_bnb_8bit"),
    ("apollo_adamw_layerwise", "apollo_adamw"),
    ("galore_adafactor_layerwise", "galore_adafactor"),
    ("galore_adamw_8bit_layerwise", "galore_adamw_8bit"),
    ("galore_adamw_layerwise", "galore_adamw"),
];

thread_local! {
    /// The workspace, or what a test has planted in its place.
    static ROOT: RefCell<PathBuf> =
        RefCell::new(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").into());
}

fn root() -> PathBuf {
    ROOT.with_borrow(Clone::clone)
}

fn entries(path: &str) -> BTreeSet<String> {
    let dir = root().join(path);
    let names = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    names.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

fn listed() -> BTreeSet<String> {
    OPTIMIZERS.iter().map(|e| e.name.to_owned()).collect()
}

/// The first column of the README's table between two markers.
fn rows(marker: &str) -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let (_, rest) = readme.split_once(&format!("<!-- {marker} -->")).expect("the table's start");
    let (table, _) = rest.split_once(&format!("<!-- /{marker} -->")).expect("the table's end");
    let names = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    names.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn every_listed_optimizer_has_goldens_and_every_golden_folder_is_listed() {
    let mut with_goldens = entries("conformance/golden/optimizer");
    for (name, same) in SAME_AS {
        assert!(with_goldens.contains(*same), "{name} leans on {same}, which has no goldens");
        assert!(with_goldens.insert((*name).to_owned()), "{name} has goldens: not a mere alias");
    }
    assert_eq!(with_goldens, listed());
}

#[test]
fn no_golden_folder_is_empty() {
    for kind in ["optimizer", "schedule", "gradient"] {
        for name in entries(&format!("conformance/golden/{kind}")) {
            let cases = entries(&format!("conformance/golden/{kind}/{name}"));
            assert!(!cases.is_empty(), "{kind}/{name}");
            assert!(cases.iter().all(|c| c.ends_with(".safetensors")), "{kind}/{name}");
        }
    }
}

#[test]
fn every_optimizer_and_schedule_has_one_readme_row() {
    for (marker, want) in
        [("optimizers", listed()), ("schedules", entries("conformance/golden/schedule"))]
    {
        let rows = rows(marker);
        let unique: BTreeSet<String> = rows.iter().cloned().collect();
        assert_eq!(rows.len(), unique.len(), "a row twice among {marker}");
        assert_eq!(unique, want, "{marker}");
    }
}

/// A number of bytes, without zeros at its end.
fn bytes(x: f64) -> String {
    format!("{x:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The README's row of an optimizer, but for its name and reference.
fn facts(name: &str) -> String {
    const SHAPE: [usize; 2] = [1024, 1024];
    let spec = registry::optimizer(name, Args::new()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let slots = spec.rule.info().slots.iter().enumerate();
    let used = slots.filter(|&(k, _)| spec.slot_len(k, &SHAPE, Dtype::F32) > 0);
    let mut used: Vec<String> = used.map(|(_, slot)| format!("`{slot}`")).collect();
    used.dedup(); // stacked slots have one name
    let [f32, bf16] = [Dtype::F32, Dtype::Bf16].map(|d| bytes(spec.bytes_per_parameter(&SHAPE, d)));
    format!("{} | {f32} | {bf16} |", used.join(", "))
}

#[test]
fn every_readme_row_tells_state_and_bytes() {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).expect("README.md");
    let renewed: Vec<String> = readme
        .lines()
        .map(|line| {
            let cells: Vec<&str> = line.split(" | ").collect();
            match (line.strip_prefix("| `").and_then(|l| l.split_once('`')), cells.len()) {
                (Some((name, _)), 5) if listed().contains(name) => {
                    format!("{} | {} | {}", cells[0], cells[1], facts(name))
                }
                _ => line.to_owned(),
            }
        })
        .collect();
    let renewed = renewed.join("\n") + "\n";
    assert_eq!(renewed.matches(" | ").count(), readme.matches(" | ").count());
    if std::env::var_os("BITSTEP_RENEW").is_some() {
        fs::write(&path, renewed).expect("README.md");
        return;
    }
    for (old, new) in readme.lines().zip(renewed.lines()) {
        assert_eq!(old, new, "renewed by BITSTEP_RENEW=1");
    }
}

#[test]
fn every_rule_file_is_a_module_of_the_list() {
    let list = fs::read_to_string(root().join("core/src/optim/mod.rs")).expect("the list");
    for file in entries("core/src/optim") {
        let stem = file.trim_end_matches(".rs");
        if stem != "mod" {
            assert!(list.contains(&format!("mod {stem};")), "{file} is not in the list");
        }
    }
}

#[test]
fn every_exporter_case_file_writes_committed_goldens() {
    let folders: BTreeSet<String> = ["optimizer", "schedule", "gradient"]
        .iter()
        .flat_map(|kind| entries(&format!("conformance/golden/{kind}")))
        .collect();
    for file in entries("conformance/export/cases") {
        let Some(stem) = file.strip_suffix(".py") else { continue };
        let path = root().join("conformance/export/cases").join(&file);
        let text = fs::read_to_string(&path).expect("a cases file");
        let known =
            folders.contains(stem) || folders.iter().any(|f| text.contains(&format!("\"{f}\"")));
        assert!(known, "{file} writes nothing that is committed");
    }
}

/// The files and folders that the checks look at; goldens without what is in them.
fn sketch(to: &Path) {
    let text = |path: &str| fs::read_to_string(root().join(path)).expect("a text");
    let write = |path: &str, text: &str| {
        let path = to.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    write("README.md", &text("README.md"));
    for folder in ["core/src/optim", "conformance/export/cases"] {
        for file in entries(folder).iter().filter(|f| f.contains('.')) {
            write(&format!("{folder}/{file}"), &text(&format!("{folder}/{file}")));
        }
    }
    for kind in ["optimizer", "schedule", "gradient"] {
        for name in entries(&format!("conformance/golden/{kind}")) {
            write(&format!("conformance/golden/{kind}/{name}/a.safetensors"), "");
        }
    }
}

#[test]
fn planted_gaps_are_caught() {
    type Check = fn();
    let checks: [(&str, Check); 5] = [
        ("goldens", every_listed_optimizer_has_goldens_and_every_golden_folder_is_listed),
        ("folders", no_golden_folder_is_empty),
        ("rows", every_optimizer_and_schedule_has_one_readme_row),
        ("modules", every_rule_file_is_a_module_of_the_list),
        ("exporter", every_exporter_case_file_writes_committed_goldens),
    ];
    type Plant = fn(&Path) -> std::io::Result<()>;
    let plants: [(&str, Plant); 8] = [
        ("", |_| Ok(())),
        ("goldens", |at| fs::remove_dir_all(at.join("conformance/golden/optimizer/sgd"))),
        ("goldens", |at| fs::create_dir(at.join("conformance/golden/optimizer/sdg"))),
        ("folders", |at| {
            fs::remove_file(at.join("conformance/golden/schedule/linear/a.safetensors"))
        }),
        ("rows", |at| {
            let readme = fs::read_to_string(at.join("README.md"))?;
            fs::write(at.join("README.md"), readme.replace("| `sgd` |", "| `sdg` |"))
        }),
        ("rows", |at| {
            let readme = fs::read_to_string(at.join("README.md"))?;
            fs::write(at.join("README.md"), readme.replace("| `linear` |", "| `cosine` |"))
        }),
        ("modules", |at| fs::write(at.join("core/src/optim/sdg.rs"), "")),
        ("exporter", |at| fs::write(at.join("conformance/export/cases/sdg.py"), "")),
    ];
    let here = root();
    for (caught, plant) in plants {
        let folder = tempfile::tempdir().expect("a folder");
        ROOT.set(here.clone());
        sketch(folder.path());
        plant(folder.path()).expect("planted");
        ROOT.set(folder.path().into());
        let complaints = checks.iter().filter(|(_, check)| catch_unwind(check).is_err());
        let complaints: BTreeSet<&str> = complaints.map(|(name, _)| *name).collect();
        let right =
            if caught.is_empty() { complaints.is_empty() } else { complaints.contains(caught) };
        assert!(right, "planted for {caught:?}, caught by {complaints:?}");
    }
}
