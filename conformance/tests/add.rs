//! `add` writes what CONTRIBUTING.md says, and nothing where it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bitstep_conformance::add::{BLANK, CHECKS, TOUCHED, Way, commands};
use tempfile::TempDir;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What the command reads and writes into, and the core.
fn sketch() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let added = TOUCHED.iter().filter(|(file, way)| {
        matches!(way, Way::Added | Way::Completed(_)) && !file.contains("NAME")
    });
    let mut files: Vec<PathBuf> = added.map(|(file, _)| root().join(file)).collect();
    let mut folders = vec![root().join("core/src"), root().join("conformance/export/cases")];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for file in files {
        let to = folder.path().join(file.strip_prefix(root()).expect("a file of ours"));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(&file, &to).expect("a copy");
    }
    fs::create_dir_all(folder.path().join("conformance/golden/optimizer/sgd")).expect("goldens");
    folder
}

/// Every file below a folder, with what is in it.
fn contents(of: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut folders, mut out) = (vec![of.to_path_buf()], BTreeMap::new());
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(of).expect("below").display().to_string();
                out.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    out
}

/// The status and all that was printed.
fn add(root: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitstep-conformance"));
    let out = command.arg("add").args(arguments).arg("--root").arg(root).output().expect("a run");
    let text = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// The rows of the page's table: a file, and how it comes to know of the optimizer.
fn table() -> BTreeSet<(String, String)> {
    let page = read("CONTRIBUTING.md");
    let (_, rest) = page.split_once("<!-- touched -->").expect("the table's start");
    let (table, _) = rest.split_once("<!-- /touched -->").expect("the table's end");
    let row = |line: &str| {
        let (file, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((file.to_owned(), rest.split_once(" | ")?.0.to_owned()))
    };
    table.lines().filter_map(row).collect()
}

fn with(word: &str) -> BTreeSet<String> {
    table().into_iter().filter(|(_, how)| how.starts_with(word)).map(|(file, _)| file).collect()
}

const NEW_RULE: [&str; 5] =
    ["new_rule", "--reference", "some_package.module.NewRule", "--package", "some-package==1.2.3"];

#[test]
fn page_lists_what_an_optimizer_touches() {
    let touched = TOUCHED.iter().map(|(file, way)| {
        let how = match way {
            Way::Added => "added",
            Way::Completed(_) => "added, then regenerated",
            Way::Regenerated(_) => "regenerated",
            Way::ByHand => "by hand",
        };
        ((*file).to_owned(), how.to_owned())
    });
    assert_eq!(table(), touched.collect());
    for (file, way) in TOUCHED {
        let there = root().join(file.replace("NAME", "sgd"));
        assert!(there.exists(), "{file}");
        if let Way::Regenerated(command) | Way::Completed(command) = way {
            let mut words = command.split(' ').skip_while(|word| word.starts_with("BITSTEP_"));
            let program = words.next().expect("a program");
            let known =
                program == "cargo" || program.starts_with('$') || root().join(program).exists();
            assert!(known, "{command}");
        }
    }
    let page = read("CONTRIBUTING.md");
    for check in CHECKS {
        let prefix = check.trim_end_matches(" --test one_percent");
        assert!(page.contains(prefix), "the page has not got `{check}`");
    }
}

/// The folders that the page draws, each with a line of its own.
#[test]
fn house_is_as_the_page_draws_it() {
    let page = read("CONTRIBUTING.md");
    let (_, rest) = page.split_once("```text\ncore/").expect("the drawing's start");
    let (drawing, _) = rest.split_once("\n```").expect("its end");
    let (mut drawn, mut top) = (BTreeSet::new(), String::new());
    for line in format!("core/{drawing}").lines() {
        let folder = line.split_whitespace().next().expect("a folder").trim_end_matches('/');
        if line.starts_with(' ') {
            assert!(drawn.insert(format!("{top}/{folder}")), "{folder} twice");
        } else {
            top = folder.to_owned();
            assert!(drawn.insert(top.clone()), "{folder} twice");
        }
    }
    let folders = |path: &str| -> Vec<String> {
        let entries = fs::read_dir(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        let entries = entries.map(|entry| entry.expect("an entry"));
        let entries = entries.filter(|entry| entry.path().is_dir());
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // But what is built, and hidden.
        names.filter(|n| n != "target" && (!n.starts_with('.') || n == ".ci")).collect()
    };
    let mut there: BTreeSet<String> = folders(".").into_iter().collect();
    for (room, inner) in
        [("core", true), ("conformance", true), ("fuzz", false), ("adapters", false)]
    {
        for folder in folders(room) {
            if inner && folder == "src" {
                let rooms = folders(&format!("{room}/src"));
                there.extend(rooms.into_iter().map(|name| format!("{room}/src/{name}")));
            } else {
                there.insert(format!("{room}/{folder}"));
            }
        }
    }
    assert_eq!(drawn, there);
}

#[test]
fn add_writes_the_files_that_the_page_says_and_prints_the_rest() {
    let folder = sketch();
    let before = contents(folder.path());
    let (status, out) = add(folder.path(), &NEW_RULE);
    assert_eq!(status, Some(0), "{out}");
    let after = contents(folder.path());
    assert!(before.keys().all(|file| after.contains_key(file)));
    let changed = after.iter().filter(|(file, text)| before.get(*file) != Some(text));
    let changed: BTreeSet<String> =
        changed.map(|(file, _)| file.replace("new_rule", "NAME")).collect();
    assert_eq!(changed, with("added"));
    for file in &changed {
        assert!(out.contains(&file.replace("NAME", "new_rule")), "{file} in {out}");
    }
    for (_, command) in commands("new_rule") {
        assert!(out.contains(&command), "{command} in {out}");
    }
    for check in CHECKS {
        assert!(out.contains(check), "{check} in {out}");
    }
    // One more line or word each, and all that was there.
    let text = |file: &str| String::from_utf8(after[file].clone()).expect("a text");
    for (file, new) in [
        ("core/src/optim/mod.rs", "pub mod nadam;\npub mod new_rule;\npub mod optimi;\n"),
        ("core/src/optim/mod.rs", "pub use nadam::NAdam;\npub use new_rule::NewRule;\n"),
        ("core/src/optim/mod.rs", "\n                new_rule: NewRule,\n"),
        ("core/src/registry/list.rs", " NAdam, NewRule,"),
        (
            "core/src/registry/list.rs",
            "    single::<Lomo>(\"lomo\"),\n    eager::<NewRule>(\"new_rule\"),\n",
        ),
        (
            "README.md",
            "\n| `new_rule` | some_package.module.NewRule | x | x | x |\n| `optimi_adam` |",
        ),
        ("docs/checkpoints.md", "`nadam`, `new_rule`, `optimi_adam`"),
        ("conformance/export/main.lock", "\nsome-package==1.2.3\n"),
        ("conformance/export/pyproject.toml", "\n  \"some-package==1.2.3\",\n]\ntf ="),
        (
            "fuzz/ranges/export.py",
            "    from some_package.module import NewRule\n\n    yield \"new_rule\", NewRule, {}\n\n\n",
        ),
    ] {
        assert!(text(file).contains(new), "{new:?} in {file}:\n{}", text(file));
    }
}

#[test]
fn rule_of_the_template_has_the_headings_in_their_order() {
    let folder = sketch();
    assert_eq!(add(folder.path(), &NEW_RULE).0, Some(0));
    let headings = |path: &Path| -> Vec<String> {
        let text = fs::read_to_string(path).expect("a rule");
        let lines = text.lines().filter_map(|line| line.strip_prefix("/// # "));
        // But for the last line of the example.
        lines.filter(|line| !line.starts_with("Ok::")).map(str::to_owned).collect()
    };
    let new = headings(&folder.path().join("core/src/optim/new_rule.rs"));
    assert_eq!(new, headings(&root().join("core/src/optim/adamw.rs")));
    assert_eq!(new.len(), 8);
}

/// By the compiler that runs this test; nothing is downloaded.
#[test]
fn a_core_with_the_template_compiles() {
    let folder = sketch();
    let (status, out) = add(folder.path(), &[&NEW_RULE[..], &["--type", "ANewRule"]].concat());
    assert_eq!(status, Some(0), "{out}");
    let workspace = read("Cargo.toml");
    let rest = workspace.split_once("[workspace.package]").expect("the workspace's package").1;
    let alone =
        format!("[workspace]\nresolver = \"3\"\nmembers = [\"core\"]\n[workspace.package]{rest}");
    let alone = alone.split("[profile.").next().expect("a manifest").to_owned();
    fs::write(folder.path().join("Cargo.toml"), alone).expect("a manifest");
    for file in ["Cargo.lock", "core/Cargo.toml", "docs/embedding.md"] {
        let to = folder.path().join(file);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(root().join(file), to).expect("a copy");
    }
    fs::create_dir_all(folder.path().join("core/benches")).expect("a folder");
    for bench in fs::read_dir(root().join("core/benches")).into_iter().flatten() {
        let path = bench.expect("an entry").path();
        let name = path.file_name().expect("a name");
        fs::copy(&path, folder.path().join("core/benches").join(name)).expect("a copy");
    }
    let check = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["check", "--offline", "--quiet", "--lib", "-p", "bitstep", "--features", "names"])
        .env("CARGO_TARGET_DIR", folder.path().join("target"))
        .env("RUSTFLAGS", "-Dwarnings")
        .current_dir(folder.path())
        .output()
        .expect("cargo");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let formatted = Command::new("rustfmt")
        .args(["--check", "--edition", "2024", "--config-path"])
        .arg(root().join("rustfmt.toml"))
        .args(["core/src/registry/list.rs", "core/src/optim/new_rule.rs"])
        .current_dir(folder.path())
        .output();
    // A toolchain may come without it.
    if let Ok(formatted) = formatted {
        let said = [formatted.stdout, formatted.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let lacking = said.contains("is not installed");
        assert!(formatted.status.success() || lacking, "{said}");
    }
}

#[test]
fn refused_add_says_why_and_writes_nothing() {
    let folder = sketch();
    assert_eq!(add(folder.path(), &NEW_RULE).0, Some(0));
    let before = contents(folder.path());
    let reference = ["--reference", "torch.optim.Some"];
    for (arguments, want) in [
        (&["new_rule"][..], "there is a `new_rule` already"),
        (&["sgd"], "there is a `sgd` already"),
        (&["bnb_sgd"], "there is a `bnb_sgd` already"),
        (&["adamw_torch_4bit"], "there is a `adamw_torch_4bit` already"),
        (&["another", "--type", "Sgd"], "there is a `Sgd` already"),
        (&["Another"], "is not snake_case"),
        (&["../another"], "is not snake_case"),
        (&["another_"], "is not snake_case"),
        (&["a__b"], "is not snake_case"),
        (&["2nd"], "is not snake_case"),
        (&[""], "is not snake_case"),
        (&["mod"], "is a word of Rust's"),
        (&["another", "--type", "a::B"], "is not CamelCase"),
        (&["another", "--package", "thing"], "is not pinned"),
        (&["another", "--package", "a\"]==1"], "is not pinned"),
    ] {
        let (status, out) = add(folder.path(), &[arguments, &reference].concat());
        assert_eq!(status, Some(2), "{arguments:?}: {out}");
        assert!(out.contains(want), "{arguments:?}: {out}");
    }
    for path in ["Some", "a.b; c", "a..b"] {
        let (status, out) = add(folder.path(), &["another", "--reference", path]);
        assert_eq!(status, Some(2), "{out}");
        assert!(out.contains("is no import path"), "{out}");
    }
    // What is blank, or not there, has nothing that could be written anew.
    for (name, want) in
        [("new_rule", "still says FILL IN"), ("another", "there is no `another` yet")]
    {
        let (status, out) = add(folder.path(), &[name, "--regenerate"]);
        assert_eq!(status, Some(2), "{out}");
        assert!(out.contains(want), "{out}");
    }
    assert!(contents(folder.path()) == before, "something was written");
}

#[test]
fn folder_that_is_no_checkout_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (status, out) = add(folder.path(), &NEW_RULE);
    assert_eq!(status, Some(2), "{out}");
    assert!(out.contains("is no checkout of bitstep"), "{out}");
    assert!(contents(folder.path()).is_empty());
    // One in which a single file is missing is none, either: nothing is written before all is known.
    for missing in with("added").iter().filter(|file| !file.contains("NAME")) {
        let folder = sketch();
        fs::remove_file(folder.path().join(missing)).expect("a file");
        let before = contents(folder.path());
        let (status, out) = add(folder.path(), &NEW_RULE);
        assert_eq!(status, Some(2), "{missing}: {out}");
        assert!(out.contains(missing), "{missing}: {out}");
        assert!(contents(folder.path()) == before, "{missing}");
    }
}

/// A failed command leaves the page that it was to write as it was, and nothing after it runs.
#[test]
fn regenerate_stops_at_the_first_command_that_fails() {
    let folder = sketch();
    assert_eq!(add(folder.path(), &NEW_RULE).0, Some(0));
    for file in ["core/src/optim/new_rule.rs", "conformance/export/cases/new_rule.py"] {
        let path = folder.path().join(file);
        let text = fs::read_to_string(&path).expect("a file").replace(BLANK, "");
        fs::write(path, text).expect("a file");
    }
    let before = contents(folder.path());
    let (status, out) = add(folder.path(), &["new_rule", "--regenerate"]);
    let first = commands("new_rule").next().expect("a command").1;
    assert_eq!(status, Some(2), "{out}");
    assert!(out.contains(&format!("`{first}` did not succeed")), "{out}");
    assert_eq!(out.matches("$ ").count(), 1, "{out}");
    assert!(contents(folder.path()) == before);
}

#[test]
fn no_rule_and_no_case_is_a_template_still() {
    for folder in ["core/src/optim", "conformance/export/cases"] {
        for (file, text) in contents(&root().join(folder)) {
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(!text.contains(BLANK), "{folder}/{file} says {BLANK}");
        }
    }
}
