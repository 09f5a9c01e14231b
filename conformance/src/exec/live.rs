//! The registry of live programs, their descendants, and temporary folders. Whatever ends the suite (the last
//! check, a deadline, Ctrl-C) ends these first.
//!
//! A program leads a process group, which is killed as a whole. Descendants that left the group are found on Linux,
//! where the suite becomes their [subreaper](own_process): every child that is not a registered program is then
//! a program's orphan, and is killed with the program that it descends from or, if that is unknown, as soon as no
//! program runs.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long to wait for a killed process to end.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Live {
    programs: BTreeSet<i32>,
    folders: BTreeSet<PathBuf>,
    /// Whether this process is a subreaper, so that children that are not programs may be killed.
    #[cfg(target_os = "linux")]
    adopts: bool,
    /// Whether the run is over, and nothing may be started.
    over: bool,
}

static LIVE: Mutex<Live> = Mutex::new(Live {
    programs: BTreeSet::new(),
    folders: BTreeSet::new(),
    #[cfg(target_os = "linux")]
    adopts: false,
    over: false,
});

fn live() -> MutexGuard<'static, Live> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    fn check(&self) -> io::Result<()> {
        if self.over { Err(io::Error::other("the run is over")) } else { Ok(()) }
    }
}

/// Makes a folder that is removed at the latest when the suite ends.
pub(super) fn folder(make: impl Fn() -> io::Result<TempDir>) -> io::Result<TempDir> {
    let mut live = live();
    live.check()?;
    let dir = make()?;
    live.folders.insert(dir.path().to_owned());
    Ok(dir)
}

/// Removes a folder.
pub(super) fn remove(path: &Path) {
    // May fail, by what a program made of the folder.
    let _ = std::fs::remove_dir_all(path);
    live().folders.remove(path);
}

/// Starts a program. The lock is held meanwhile, so that a child is registered before it can be taken for an orphan.
pub(super) fn start(command: &mut Command) -> io::Result<Child> {
    let mut live = live();
    live.check()?;
    let child = command.spawn()?;
    live.programs.insert(child.id().cast_signed());
    Ok(child)
}

/// Ends a program and all that it started. `None` if it does not end: a process in an uninterruptible system call
/// may not.
pub(super) fn end(child: &mut Child) -> Option<ExitStatus> {
    #[cfg(target_os = "linux")]
    let family = family(child);
    kill_group(child);
    let until = Instant::now() + GRACE;
    while !ended(child) && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    let mut live = live();
    let status = child.try_wait().ok().flatten();
    if status.is_some() {
        live.programs.remove(&child.id().cast_signed());
    }
    #[cfg(target_os = "linux")]
    live.sweep(family);
    status
}

#[cfg(unix)]
fn kill_group(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    // It has not been reaped, so its id is still its own. The group may be empty.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.kill();
}

#[cfg(not(unix))]
fn kill_group(child: &mut Child) {
    let _ = child.kill();
}

/// Whether a program has ended. It is not reaped, so its id stays its own.
#[cfg(unix)]
pub(super) fn ended(child: &mut Child) -> bool {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(Pid::from_child(child)), options), Ok(None))
}

#[cfg(not(unix))]
pub(super) fn ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

/// Makes this process the subreaper of its programs' descendants, so that it can end them, and makes Ctrl-C and
/// similar signals end them before this process. Only for a process that starts no other children.
///
/// # Errors
/// The signal thread can't be started.
pub fn own_process() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        // Without kernel support, descendants that left their group survive.
        let me = rustix::process::getpid();
        live().adopts = rustix::process::set_child_subreaper(Some(me)).is_ok();
    }
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
        let all = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
        // Signals ignored by `nohup` stay ignored.
        let expected = all.into_iter().filter(|signal| !ignored(*signal));
        let mut signals = signal_hook::iterator::Signals::new(expected)?;
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                SIGNALLED.store(true, Ordering::SeqCst);
                end_all();
                // End as if the signal had not been caught.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        })?;
    }
    Ok(())
}

/// Whether a signal is ignored, as far as `/proc` tells.
#[cfg(unix)]
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 != 0)
}

/// Whether a signal is about to end this process.
static SIGNALLED: AtomicBool = AtomicBool::new(false);

/// Ends a run: every program is killed, every folder removed, and no more can be started. If a signal has done so
/// already and is about to end this process, it does not return: the programs' answers are no results then.
pub fn finish() {
    end_all();
    while SIGNALLED.load(Ordering::SeqCst) {
        thread::park();
    }
}

fn end_all() {
    let mut live = live();
    live.over = true;
    #[cfg(unix)]
    for &program in &live.programs {
        use rustix::process::{Pid, Signal, kill_process_group};
        // These children have not been reaped: their ids are still their own.
        if let Some(pid) = Pid::from_raw(program) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
    #[cfg(target_os = "linux")]
    live.sweep_all();
    for folder in std::mem::take(&mut live.folders) {
        let _ = std::fs::remove_dir_all(folder);
    }
}

#[cfg(target_os = "linux")]
use linux::family;

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid};

    /// A process in `/proc`.
    struct Process {
        id: i32,
        parent: i32,
        group: i32,
        dead: bool,
    }

    /// All visible processes.
    fn processes() -> Vec<Process> {
        let one = |entry: io::Result<std::fs::DirEntry>| {
            let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read(format!("/proc/{id}/stat")).ok()?;
            // The name, in parentheses, may contain anything: the fields begin after the last `)`.
            let rest = stat.rsplit(|&b| b == b')').next()?;
            let mut fields = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
            let dead = matches!(fields.next()?, "Z" | "X");
            let mut number = || fields.next()?.parse().ok();
            Some(Process { id, parent: number()?, group: number()?, dead })
        };
        std::fs::read_dir("/proc").into_iter().flatten().filter_map(one).collect()
    }

    /// Adds all descendants to a set of processes.
    fn descend(family: &mut BTreeSet<i32>, all: &[Process]) {
        loop {
            let before = family.len();
            let more = all.iter().filter(|p| family.contains(&p.parent)).map(|p| p.id);
            family.extend(more.collect::<Vec<_>>());
            if family.len() == before {
                return;
            }
        }
    }

    /// A program and its descendants.
    pub(super) fn family(child: &mut Child) -> BTreeSet<i32> {
        let mut family = BTreeSet::from([child.id().cast_signed()]);
        // The children of an ended process have another parent.
        if live().adopts && !ended(child) {
            descend(&mut family, &processes());
        }
        family
    }

    /// Whether this process has any children.
    fn any_child() -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::All, options), Err(rustix::io::Errno::CHILD))
    }

    impl Live {
        /// Ends the children of this process that are not programs and belong to a family; all of
        /// them if no program is left.
        pub(super) fn sweep(&mut self, mut family: BTreeSet<i32>) {
            let until = Instant::now() + GRACE;
            while self.adopts && any_child() {
                let all = processes();
                descend(&mut family, &all);
                let leaders = family.clone();
                let alone = self.programs.is_empty();
                let me = getpid().as_raw_pid();
                // Only children: their ids are their own until they are reaped here.
                let orphans =
                    all.iter().filter(|p| p.parent == me && !self.programs.contains(&p.id));
                let ours = orphans
                    .filter(|p| alone || family.contains(&p.id) || leaders.contains(&p.group));
                let ours: Vec<i32> = ours.map(|p| p.id).collect();
                ours.iter().for_each(|&id| end_orphan(id));
                family.extend(&ours);
                let left = all
                    .iter()
                    .any(|p| family.contains(&p.id) && !p.dead && !self.programs.contains(&p.id));
                if ours.is_empty() && !left || Instant::now() > until {
                    return;
                }
                thread::sleep(Duration::from_millis(1));
            }
        }

        /// Ends all descendants of this process.
        pub(super) fn sweep_all(&mut self) {
            let until = Instant::now() + GRACE;
            while self.adopts && any_child() {
                let all = processes();
                let mut family = BTreeSet::from([getpid().as_raw_pid()]);
                descend(&mut family, &all);
                let me = getpid().as_raw_pid();
                let alive = |p: &&Process| p.id != me && family.contains(&p.id) && !p.dead;
                if !all.iter().any(|p| alive(&p)) || Instant::now() > until {
                    return;
                }
                for child in all.iter().filter(|p| p.parent == me) {
                    if self.programs.contains(&child.id) {
                        // The thread that started it reaps it.
                        let pid = Pid::from_raw(child.id);
                        let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
                    } else {
                        end_orphan(child.id);
                    }
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Kills and reaps an orphan.
    fn end_orphan(id: i32) {
        let Some(pid) = Pid::from_raw(id) else { return };
        let _ = kill_process(pid, Signal::KILL);
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}
