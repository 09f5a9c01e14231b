//! Malicious programs and files: the suite ends in time, reports them, and leaves nothing behind.
#![cfg(unix)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bitstep_conformance::tensor::Tensor;
use common::{Draft, f32s, within_a_minute};
use serde_json::Value;

const SUITE: &str = env!("CARGO_BIN_EXE_bitstep-conformance");

/// A folder with a suite of one plain case, and one for the suite's temporary files.
struct TestFolder {
    root: tempfile::TempDir,
}

impl TestFolder {
    fn new() -> TestFolder {
        let root = tempfile::tempdir().unwrap();
        Draft::sgd().write(&root.path().join("golden"), "plain");
        std::fs::create_dir(root.path().join("tmp")).unwrap();
        TestFolder { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A shell script in the folder, which it knows as `$HERE`.
    fn script(&self, name: &str, text: &str) -> String {
        let here = self.root.path().display();
        std::fs::write(self.path(name), format!("HERE='{here}'\n{text}")).unwrap();
        format!("sh '{here}/{name}'")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(SUITE);
        command.env("RAYON_NUM_THREADS", "1").env("TMPDIR", self.path("tmp"));
        command.arg(args[0]).arg("--golden").arg(self.path("golden")).args(&args[1..]);
        command
    }

    /// Runs `verify` and checks that it leaves no temporary file: status, output, JSON lines.
    fn verify(&self, backend: &str, more: &[&str]) -> (Option<i32>, String, Vec<Value>) {
        let json = self.path("json");
        let json_text = json.display().to_string();
        let args = [&["verify", "--backend", backend, "--json", &json_text], more].concat();
        let out = within_a_minute(&mut self.command(&args));
        let lines = std::fs::read_to_string(json).unwrap_or_default();
        let lines = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        self.is_clean();
        (out.status.code(), text(&out), lines)
    }

    fn is_clean(&self) {
        let left: Vec<_> = std::fs::read_dir(self.path("tmp")).unwrap().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    /// Checks that all processes whose ids are in a file have ended.
    fn all_ended(&self, file: &str, at_least: usize) {
        let pids = std::fs::read_to_string(self.path(file)).unwrap_or_default();
        assert!(pids.lines().count() >= at_least, "{pids:?}");
        for pid in pids.lines() {
            let state = Command::new("ps").args(["-o", "stat=", "-p", pid]).output().unwrap();
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            assert!(state.is_empty() || state.starts_with('Z'), "{pid} is {state}");
        }
    }
}

fn text(out: &Output) -> String {
    String::from_utf8([&out.stdout[..], &out.stderr].concat()).unwrap()
}

fn errors(lines: &[Value], want: &str) {
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert_eq!(line["outcome"], "error", "{line}");
        assert!(line["detail"].as_str().unwrap().contains(want), "{want}: {line}");
    }
}

#[test]
fn every_request_comes_in_a_fresh_folder_of_the_owner_alone() {
    let folder = TestFolder::new();
    // Puts a pipe and links to a victim wherever it could guess the next request's folder to be.
    let program = folder.script(
        "guess.sh",
        r#"echo mine > "$HERE/victim"
while IFS="$(printf '\t')" read -r from to; do
  d=$(dirname "$from")
  stat -c '%a %n' "$d" >> "$HERE/folders"
  echo "$from $to" >> "$HERE/paths"
  printf '%s\t%s\n' "$from" "$to" | SUITE serve || exit 1
  for n in 0 1 2 3 4 5 request answer; do
    for dir in "$d" "$(dirname "$d")"; do
      mkfifo "$dir/$n.request.safetensors" "$dir/$n.safetensors" 2>/dev/null
      ln -s "$HERE/victim" "$dir/$n.answer.safetensors" 2>/dev/null
    done
  done
done"#
            .replace("SUITE", &format!("'{SUITE}'"))
            .as_str(),
    );
    let (status, out, _) = {
        // Not `TestFolder::verify`: it would find the pipes that the program itself put into the temporary folder.
        let json = folder.path("json").display().to_string();
        let backend = format!("exec-loop:{program}");
        let args = ["verify", "--backend", &backend, "--timeout", "20", "--json", &json];
        let out = within_a_minute(&mut folder.command(&args));
        (out.status.code(), text(&out), ())
    };
    assert_eq!(status, Some(0), "{out}");
    assert_eq!(std::fs::read_to_string(folder.path("victim")).unwrap(), "mine\n");
    let folders = std::fs::read_to_string(folder.path("folders")).unwrap();
    let mut names: Vec<&str> = folders.lines().collect();
    assert_eq!(names.len(), 3, "a free run and two steps");
    assert!(names.iter().all(|line| line.starts_with("700 ")), "{folders}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 3, "{folders}");
    let paths = std::fs::read_to_string(folder.path("paths")).unwrap();
    assert!(!paths.contains("plain") && !paths.contains("sgd"), "{paths}");
}

#[test]
fn answers_that_are_no_plain_file_of_a_fit_size_are_errors() {
    let folder = TestFolder::new();
    std::fs::write(folder.path("other"), "somebody's").unwrap();
    let cases = [
        ("mkfifo \"$2\"", "it is no plain file"),
        ("ln -s /dev/zero \"$2\"", "it is no plain file"),
        ("ln -s \"$HERE/other\" \"$2\"", "it is no plain file"),
        ("ln -s \"$2\" \"$2\"", "it is no plain file"),
        ("mkdir \"$2\"", "it is no plain file"),
        ("truncate -s 60G \"$2\"", "it has 64424509440 bytes, at most "),
        ("head -c 3000000 /dev/zero > \"$2\"", "it has 3000000 bytes, at most "),
        (
            "mv \"$(dirname \"$2\")\" \"$HERE/tmp/moved\"; mkdir \"$(dirname \"$2\")\"",
            "no file was written",
        ),
    ];
    for (command, want) in cases {
        let program = folder.script("answer.sh", command);
        let backend = format!("exec:{program}");
        let json = folder.path("json").display().to_string();
        let args = ["verify", "--backend", &backend, "--timeout", "20", "--json", &json];
        let out = within_a_minute(&mut folder.command(&args));
        assert_eq!(out.status.code(), Some(1), "{}", text(&out));
        let lines = std::fs::read_to_string(&json).unwrap();
        let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        errors(&lines, want);
    }
}

#[test]
fn an_answer_that_grows_for_ever_is_read_to_its_limit() {
    let folder = TestFolder::new();
    let program = folder.script(
        "grow.sh",
        r#"while IFS="$(printf '\t')" read -r from to; do
  (yes > "$to" 2>/dev/null & echo $! >> "$HERE/pids")
  sleep 0.2
  echo done
done"#,
    );
    let (status, _, lines) = folder.verify(&format!("exec-loop:{program}"), &["--timeout", "20"]);
    assert_eq!(status, Some(1));
    for line in &lines {
        let detail = line["detail"].as_str().unwrap();
        assert!(detail.contains("at most "), "{detail}");
    }
    folder.all_ended("pids", 2);
}

/// Starts processes in sessions of their own: a child, and an orphan.
const LEAVES: &str = r#"setsid sleep 1000 >&- 2>&- &
echo $! >> "$HERE/pids"
setsid sh -c 'sleep 1000 & echo $! >> "$0/pids"; wait' "$HERE" >&- 2>&- &
sh -c 'setsid sleep 1000 >&- 2>&- & echo $! >> "$0/pids"' "$HERE"
sleep 0.3
"#;

#[cfg(target_os = "linux")]
#[test]
fn what_left_the_group_of_a_program_ends_with_it() {
    for (then, want) in [("wait", "no answer in 2 s"), ("exit 3", "ended with status 3")] {
        for prefix in ["exec", "exec-loop"] {
            let folder = TestFolder::new();
            let program = folder.script("leave.sh", &format!("{LEAVES}{then}\n"));
            let (status, _, lines) =
                folder.verify(&format!("{prefix}:{program}"), &["--timeout", "2"]);
            assert_eq!(status, Some(1));
            errors(&lines, want);
            folder.all_ended("pids", 6);
        }
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_the_programs_and_removes_the_folders_first() {
    use std::os::unix::process::ExitStatusExt;
    for (name, number) in [("TERM", 15), ("INT", 2)] {
        let folder = TestFolder::new();
        let program =
            folder.script("leave.sh", &format!("echo $$ >> \"$HERE/pids\"\n{LEAVES}wait\n"));
        let backend = format!("exec:{program}");
        let suite = folder.command(&["verify", "--backend", &backend, "--timeout", "1000"]);
        // The tests may run with Ctrl-C ignored (a shell does that for background jobs), and the suite leaves ignored
        // signals ignored.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT,TERM").arg(suite.get_program()).args(suite.get_args());
        command.envs(suite.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let pids = || std::fs::read_to_string(folder.path("pids")).unwrap_or_default();
        wait_for("it starts", || pids().lines().count() >= 4);
        let kill =
            Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        wait_for("it ends", || child.try_wait().unwrap().is_some());
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(number), "{status:?}");
        folder.all_ended("pids", 4);
        folder.is_clean();
    }
}

#[test]
fn a_deadline_ends_the_run_and_counts_what_was_not_reached() {
    let folder = TestFolder::new();
    for i in 0..20 {
        Draft::sgd().write(&folder.path("golden"), &format!("more{i}"));
    }
    let program = folder.script("slow.sh", "echo $$ >> \"$HERE/pids\"\nsleep 1000\n");
    for backend in [format!("exec:{program}"), format!("exec-loop:{program}")] {
        let more = ["--timeout", "1000", "--deadline", "2"];
        let (status, out, lines) = folder.verify(&backend, &more);
        assert_eq!((status, lines.len()), (Some(1), 42), "{out}");
        for line in &lines {
            assert_eq!(line["outcome"], "error", "{line}");
            let detail = line["detail"].as_str().unwrap();
            assert!(detail.starts_with("not reached: the time for the whole run"), "{line}");
        }
        assert!(out.contains("42 in error, 0 empty (42 of those in error not reached)"), "{out}");
        folder.all_ended("pids", 1);
    }
    // The deadline holds for the suite's own backends too.
    let (status, out, _) = folder.verify("core", &["--deadline", "1e-9"]);
    assert_eq!(status, Some(1), "{out}");
    assert!(out.contains("not reached"), "{out}");
    let (status, out, _) = folder.verify("core", &["--deadline", "50"]);
    assert_eq!(status, Some(0), "{out}");
    for none in ["0", "-1", "nan"] {
        let (status, out, _) = folder.verify("core", &[&format!("--deadline={none}")]);
        assert_eq!(status, Some(2));
        assert!(out.contains("--deadline is"), "{out}");
    }
}

/// Runs `verify`, `list` and `show` with 4 GiB of memory on a folder in which one file is not a case.
fn refuse(folder: &TestFolder, file: &str, want: &str) {
    for args in [vec!["verify", "--backend", "core"], vec!["list"], vec!["show", "*"]] {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -v 4194304; exec \"$@\"", "sh", SUITE, args[0]]);
        if args[0] == "show" {
            limited.arg(args[1]);
        }
        limited.arg("--golden").arg(folder.path("golden"));
        if args[0] == "verify" {
            limited.args(&args[1..]);
        }
        let out = within_a_minute(limited.env("RAYON_NUM_THREADS", "1"));
        let said = text(&out);
        assert!(matches!(out.status.code(), Some(1 | 2)), "{file}: {:?} {said}", out.status);
        assert!(said.contains(want), "{file}: wanted {want} in {said}");
        // The case beside it is still read.
        assert!(args[0] == "show" || said.contains("optimizer/sgd"), "{said}");
    }
}

#[test]
fn golden_files_get_no_more_than_their_bytes_can_account_for() {
    let huge = 1usize << 62;
    let mut empties = Draft::sgd();
    empties.meta("steps", &huge.to_string());
    empties.tensors.retain(|name, _| name.starts_with("p0"));
    for rows in ["p0.grad", "p0.value"] {
        empties.set(rows, f32s(&[huge, 0], &[]));
    }
    empties.set("p0.init", f32s(&[0], &[]));
    let mut wide = Draft::sgd();
    wide.tensors.retain(|name, _| name.starts_with("p0"));
    wide.set("p0.init", f32s(&[huge, 0], &[]));
    for rows in ["p0.grad", "p0.value"] {
        wide.set(rows, f32s(&[2, huge, 0], &[]));
    }
    let mut schedule = Draft::constant();
    schedule.meta("steps", &u64::MAX.to_string());
    schedule.set("lr", Tensor::f64(&[0, 2], &[]));
    let mut long = Draft::constant();
    long.meta("steps", &(huge - 1).to_string());
    long.set("lr", Tensor::f64(&[huge, 0], &[]));
    let mut rank = Draft::sgd();
    rank.meta("name", "apollo_adamw");
    rank.meta("hyper", &format!(r#"{{"lr": 0.5, "rank": {}}}"#, 1u64 << 40));
    let mut grouped = Draft::sgd();
    grouped.meta("name", "galore_adamw");
    grouped.meta("hyper", r#"{"lr": 0.5, "groups": [{"params": [0, 1], "rank": 1e18}]}"#);
    let mut window = Draft::constant();
    window.meta("name", "greedy");
    window.meta("hyper", &format!(r#"{{"lr": 0.5, "window_size": {}}}"#, 1u64 << 40));
    window.set("metric", Tensor::f64(&[2], &[1.0, 2.0]));
    let mut passes = Draft::sgd();
    passes.meta("name", "muon");
    passes.meta("hyper", &format!(r#"{{"lr": 0.5, "ns_steps": {}}}"#, 1u64 << 40));
    let mut groups = Draft::sgd();
    let many = vec![r#"{"params":[]}"#; 100_000].join(",");
    groups.meta(
        "hyper",
        &format!(r#"{{"lr": 0.5, "x": "{}", "groups": [{many}]}}"#, "x".repeat(100_000)),
    );
    let shape = "dimensions, but for zeros, of a product of at most";
    for (name, draft, want) in [
        ("empties", empties, shape),
        ("wide", wide, shape),
        ("schedule", schedule, "`steps` in the metadata is `18446744073709551615`, wanted at most"),
        ("long", long, shape),
        ("rank", rank, "`hyper.rank` in the metadata is `1099511627776`, wanted at most 4096"),
        ("grouped", grouped, "`hyper.rank` in the metadata is `1e+18`, wanted at most 4096"),
        ("window", window, "`hyper.window_size` in the metadata is"),
        ("passes", passes, "`hyper.ns_steps` in the metadata is"),
        ("groups", groups, "`hyper` in the metadata is"),
    ] {
        let folder = TestFolder::new();
        draft.write(&folder.path("golden"), name);
        refuse(&folder, name, want);
    }
}

#[test]
fn only_plain_files_of_a_fit_size_are_read() {
    let make = |folder: &TestFolder, command: &str| {
        let status =
            Command::new("sh").args(["-c", command]).current_dir(folder.path("golden")).status();
        assert!(status.unwrap().success(), "{command}");
    };
    for (command, want) in [
        ("mkfifo x.safetensors", "can't be read: it is no plain file"),
        ("ln -s /dev/zero x.safetensors", "can't be read: it is no plain file"),
        ("ln -s x.safetensors x.safetensors", "can't be read: "),
        ("truncate -s 60G x.safetensors", "it has 64424509440 bytes, at most 268435456 are read"),
        ("truncate -s 200M x.safetensors", "damaged, or no safetensors file"),
        (
            "printf '\\377\\377\\377\\377\\0\\0\\0\\0' > x.safetensors; truncate -s 200M x.safetensors",
            "its head has 4294967295 bytes",
        ),
    ] {
        let folder = TestFolder::new();
        make(&folder, command);
        refuse(&folder, command, want);
    }
}

#[test]
fn a_folder_is_entered_once_whatever_links_lead_to_it() {
    let folder = TestFolder::new();
    let golden = folder.path("golden");
    let inside = golden.join("optimizer/sgd");
    std::os::unix::fs::symlink(&golden, inside.join("up")).unwrap();
    std::os::unix::fs::symlink("..", golden.join("aside")).unwrap();
    std::os::unix::fs::symlink(&inside, golden.join("again")).unwrap();
    let out = within_a_minute(&mut folder.command(&["list"]));
    assert_eq!(text(&out), "optimizer/sgd/plain  f32  2 steps  made by hand\n");
    // A link to a folder counts as a folder.
    let link = folder.path("link");
    std::os::unix::fs::symlink(&golden, &link).unwrap();
    let mut command = Command::new(SUITE);
    let out = within_a_minute(command.arg("list").arg("--golden").arg(&link));
    assert_eq!(text(&out), "optimizer/sgd/plain  f32  2 steps  made by hand\n");
}

/// Whether text contains terminal control characters other than line ends.
fn acts(text: &str) -> bool {
    text.chars()
        .any(|c| c != '\n' && (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2028}')))
}

#[test]
fn no_control_character_of_a_stranger_reaches_anybody() {
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\r\nerror: none\u{202e}";
    let folder = TestFolder::new();
    let mut d = Draft::sgd();
    d.meta("note", evil);
    d.meta(evil, evil);
    d.meta("hyper", &serde_json::json!({"lr": 0.25, evil: evil}).to_string());
    d.set(&format!("p0.state.{evil}"), f32s(&[2, 1], &[0.0; 2]));
    d.write(&folder.path("golden"), "evil");
    let mut none = Draft::sgd();
    none.meta("kind", evil);
    std::fs::write(folder.path("golden/none.safetensors"), none.bytes()).unwrap();
    let odd = folder.path("golden").join(format!("{}.safetensors", evil.replace('/', "")));
    std::fs::write(odd, "nothing").unwrap();

    let says = folder.script("say.sh", "cat \"$HERE/evil\"; cat \"$HERE/evil\" >&2; exit $1\n");
    std::fs::write(folder.path("evil"), format!("unsupported {evil}")).unwrap();
    let page = folder.path("page.html").display().to_string();
    for backend in ["core", &format!("exec:{says} 0 #"), &format!("exec:{says} 3 #{evil}")] {
        let json = folder.path("json").display().to_string();
        let args = ["verify", "--backend", backend, "--json", &json, "--report", &page];
        let out = within_a_minute(&mut folder.command(&args));
        for text in [
            text(&out),
            std::fs::read_to_string(&page).unwrap(),
            std::fs::read_to_string(&json).unwrap(),
        ] {
            assert!(!acts(&text), "{text:?}");
        }
        assert!(text(&out).contains("owned"), "it is shown: {}", text(&out));
        // JSON keeps the original value.
        let lines = std::fs::read_to_string(&json).unwrap();
        assert!(lines.contains("\\u001b") || !lines.contains("owned"), "{lines}");
    }
    for args in [&["list"][..], &["show", "*evil"]] {
        let mut command = Command::new(SUITE);
        command.args(args).arg("--golden").arg(folder.path("golden"));
        let out = text(&within_a_minute(&mut command));
        assert!(!acts(&out) && out.contains("owned"), "{out:?}");
    }
    let mut command = Command::new(SUITE);
    let out = within_a_minute(command.arg("show").arg(evil).arg("--golden").arg(Path::new("/no")));
    assert!(!acts(&text(&out)), "{:?}", text(&out));
}
