//! Runs untrusted programs, which may end early, never end, start others, or write without end.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::live;

/// The most bytes of a program's output that are kept.
const TAIL_LEN: usize = 4096;
/// The longest line that is read.
const LONGEST: u64 = 1 << 16;
/// How long a program may take to end after it was told to, or has closed its output.
const GRACE: Duration = Duration::from_millis(500);

/// The last bytes that a program wrote.
#[derive(Clone, Debug, Default)]
struct StderrTail(Arc<Mutex<VecDeque<u8>>>);

impl StderrTail {
    /// Reads to the end in a thread of its own; the receiver gets a message when it is reached.
    fn of(mut from: impl Read + Send + 'static) -> (StderrTail, Receiver<()>) {
        let tail = StderrTail::default();
        let (kept, (done, end)) = (tail.clone(), sync_channel(1));
        thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut block) {
                let mut kept = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&block[..n]);
                let old = kept.len().saturating_sub(TAIL_LEN);
                kept.drain(..old);
            }
            // The receiver may be gone.
            let _ = done.send(());
        });
        (tail, end)
    }

    fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.chars().filter(|&c| c == '\n' || !c.is_control()).collect()
    }

    /// The last lines, joined, as a suffix of an error message.
    fn describe(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        match &lines[lines.len().saturating_sub(5)..] {
            [] => String::new(),
            last => format!("; its last words: {}", last.join(" | ")),
        }
    }
}

/// A program and all that it starts, ended on drop.
#[derive(Debug)]
struct Group {
    child: Child,
    /// Set once it has been ended: its status, if known.
    over: Option<Option<ExitStatus>>,
}

impl Group {
    fn start(command: &str, arguments: &[&str], stdin: Stdio) -> io::Result<Group> {
        // The shell splits the command, and passes the arguments on verbatim.
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{command} \"$@\""), "sh"]).args(arguments);
        shell.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        Ok(Group { child: live::start(&mut shell)?, over: None })
    }

    /// Waits for its end until a deadline; whether it ended.
    fn wait(&mut self, until: Instant) -> bool {
        let mut pause = Duration::from_millis(1);
        while self.over.is_none() && !live::ended(&mut self.child) {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        true
    }

    /// Ends whatever is left of the program and of all that it started.
    fn end(&mut self) -> Option<ExitStatus> {
        *self.over.get_or_insert_with(|| live::end(&mut self.child))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// Describes how a program ended.
fn ending(status: Option<ExitStatus>) -> String {
    let Some(status) = status else { return "ended".to_owned() };
    let signal = |n: i32| {
        let name = match n {
            4 => ", illegal instruction",
            6 => ", abort",
            7 => ", bus error",
            8 => ", arithmetic exception",
            9 => ", kill",
            11 => ", segmentation fault",
            13 => ", broken pipe",
            15 => ", termination",
            _ => "",
        };
        format!("was ended by signal {n}{name}")
    };
    #[cfg(unix)]
    if let Some(n) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return signal(n);
    }
    match status.code() {
        // How a shell reports what ended its command.
        Some(n @ 129..=192) => signal(n - 128),
        Some(127) => "ended with status 127 (no such command?)".to_owned(),
        Some(n) => format!("ended with status {n}"),
        None => "ended".to_owned(),
    }
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ExitOutcome {
    /// The answer should have been written.
    Done,
    /// The program has no implementation; with its reason.
    Unsupported(String),
    /// The program says that this request failed; it may be asked another.
    Failed(String),
    /// The program failed.
    Trouble(String),
    /// The timeout expired.
    Late(String),
}

/// Parses a line of the protocol.
fn parse_outcome(line: &str) -> Option<ExitOutcome> {
    let line = line.trim();
    let (word, rest) = line.split_once([' ', ':']).unwrap_or((line, ""));
    let rest = rest.trim_start_matches([' ', ':']).to_owned();
    Some(match word {
        "done" => ExitOutcome::Done,
        "unsupported" => ExitOutcome::Unsupported(rest),
        "error" => ExitOutcome::Failed(format!("the program says: {rest}")),
        _ => return None,
    })
}

fn cannot_start(e: &io::Error) -> ExitOutcome {
    ExitOutcome::Trouble(format!("the program can't be started: {e}"))
}

fn seconds(limit: Duration) -> String {
    format!("{} s", limit.as_secs_f64())
}

/// Runs a command once.
pub(super) fn once(command: &str, arguments: &[&str], limit: Duration) -> ExitOutcome {
    let mut group = match Group::start(command, arguments, Stdio::null()) {
        Ok(group) => group,
        Err(e) => return cannot_start(&e),
    };
    let (Some(out), Some(err)) = (group.child.stdout.take(), group.child.stderr.take()) else {
        return ExitOutcome::Trouble("the program has no output".to_owned());
    };
    let ((out, out_end), (err, err_end)) = (StderrTail::of(out), StderrTail::of(err));
    let in_time = group.wait(Instant::now() + limit);
    let status = group.end();
    // Processes that left the group may still hold the pipes open.
    let _ = (out_end.recv_timeout(GRACE), err_end.recv_timeout(GRACE));
    let said = out.text().lines().rev().find(|l| !l.trim().is_empty()).and_then(parse_outcome);
    if !in_time {
        return ExitOutcome::Late(format!(
            "no answer in {}, ended by force{}",
            seconds(limit),
            err.describe()
        ));
    }
    match (status, said) {
        (Some(s), None) if s.success() => ExitOutcome::Done,
        (Some(s), Some(said)) if s.success() => said,
        (status, _) => {
            ExitOutcome::Trouble(format!("the program {}{}", ending(status), err.describe()))
        }
    }
}

/// A program that answers many requests (`exec-loop:`).
#[derive(Debug)]
pub(super) struct WorkerProcess {
    /// Dropped first: end of input tells the program to end.
    stdin: Option<ChildStdin>,
    group: Group,
    lines: Receiver<String>,
    err: StderrTail,
}

impl WorkerProcess {
    pub(super) fn start(command: &str) -> Result<WorkerProcess, ExitOutcome> {
        let mut group = Group::start(command, &[], Stdio::piped()).map_err(|e| cannot_start(&e))?;
        let (stdin, out, err) =
            (group.child.stdin.take(), group.child.stdout.take(), group.child.stderr.take());
        let (Some(out), Some(err)) = (out, err) else {
            return Err(ExitOutcome::Trouble("the program has no output".to_owned()));
        };
        // Bounded, so that a program that writes without end blocks.
        let (sender, lines) = sync_channel(4);
        thread::spawn(move || {
            let mut out = BufReader::new(out);
            loop {
                let mut line = Vec::new();
                match out.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
                    Ok(1..) => {}
                    _ => return,
                }
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Ok(WorkerProcess { stdin, group, lines, err: StderrTail::of(err).0 })
    }

    /// Sends a request and waits for the outcome. After `Trouble` and `Late` the worker must be dropped.
    pub(super) fn request(&mut self, request: &str, answer: &str, limit: Duration) -> ExitOutcome {
        if let Ok(line) = self.lines.try_recv() {
            return unexpected_line(&line);
        }
        let sent = self.stdin.as_mut().is_some_and(|to| {
            // Can't block: a line is far shorter than the pipe's buffer, and only one is in flight.
            writeln!(to, "{request}\t{answer}").and_then(|()| to.flush()).is_ok()
        });
        if !sent {
            return self.over();
        }
        match self.lines.recv_timeout(limit) {
            Ok(line) => parse_outcome(&line).unwrap_or_else(|| unexpected_line(&line)),
            Err(RecvTimeoutError::Disconnected) => self.over(),
            Err(RecvTimeoutError::Timeout) => {
                self.group.end();
                let words = self.err.describe();
                ExitOutcome::Late(format!("no answer in {}, ended by force{words}", seconds(limit)))
            }
        }
    }

    /// The outcome after the program has closed its input or output.
    fn over(&mut self) -> ExitOutcome {
        let ended = self.group.wait(Instant::now() + GRACE);
        let status = self.group.end();
        let how = if ended { ending(status) } else { "closed its input or output".to_owned() };
        thread::sleep(Duration::from_millis(10)); // its last output may still be in flight
        ExitOutcome::Trouble(format!("the program {how}{}", self.err.describe()))
    }
}

fn unexpected_line(line: &str) -> ExitOutcome {
    let line: String = line.trim().chars().filter(|c| !c.is_control()).take(80).collect();
    ExitOutcome::Trouble(format!(
        "the program says `{line}`, wanted `done`, `unsupported …` or `error …`, once a request"
    ))
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.group.wait(Instant::now() + GRACE);
    }
}
