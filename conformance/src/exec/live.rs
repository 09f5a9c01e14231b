//! What the suite has alive: programs, all that they started, and folders. Whatever ends the suite
//! (the last check, a deadline, Ctrl-C) ends these first.
//!
//! A program is the leader of a process group, which is ended as a whole. What has left its group is
//! found on Linux, where the suite's own process can [adopt](own_process) those whose parents have
//! ended: none of its children is a stranger then, and what is no program's is ended with the
//! program that it came from or, if that can't be told, as soon as no program runs.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long the end of what was killed is waited for.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Live {
    programs: BTreeSet<i32>,
    folders: BTreeSet<PathBuf>,
    /// Whether children that are no programs may be ended.
    #[cfg(target_os = "linux")]
    adopts: bool,
    /// Nothing is begun any more.
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

/// Makes a folder that is removed at the latest with the suite's end.
pub(super) fn folder(make: impl Fn() -> io::Result<TempDir>) -> io::Result<TempDir> {
    let mut live = live();
    live.check()?;
    let dir = make()?;
    live.folders.insert(dir.path().to_owned());
    Ok(dir)
}

/// Removes a folder.
pub(super) fn remove(path: &Path) {
    // What a program made of it may withstand.
    let _ = std::fs::remove_dir_all(path);
    live().folders.remove(path);
}

/// Starts a program. Not two at a time: a child is known before anybody asks whose it is.
pub(super) fn start(command: &mut Command) -> io::Result<Child> {
    let mut live = live();
    live.check()?;
    let child = command.spawn()?;
    live.programs.insert(child.id().cast_signed());
    Ok(child)
}

/// Ends a program and all that it started; none if it does not end, as one in the middle of a
/// call into the kernel may not.
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
    // It is not collected yet, so its number is still its own. There may be nobody left.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.kill();
}

#[cfg(not(unix))]
fn kill_group(child: &mut Child) {
    let _ = child.kill();
}

/// Whether a program has ended. It is not collected yet, so its number is still its own.
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

/// Makes this process the parent of all that its programs leave behind, so that it can end them;
/// and has Ctrl-C and the like end them, too, before they end this process. For a process that
/// starts no others but these.
///
/// # Errors
/// No thread for the signals.
pub fn own_process() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        // A kernel too old for it, or none: what left its group stays.
        let me = rustix::process::getpid();
        live().adopts = rustix::process::set_child_subreaper(Some(me)).is_ok();
    }
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
        let all = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
        // What `nohup` had ignored stays so.
        let expected = all.into_iter().filter(|signal| !ignored(*signal));
        let mut signals = signal_hook::iterator::Signals::new(expected)?;
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                SIGNALLED.store(true, Ordering::SeqCst);
                end_all();
                // As if it had not been caught.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        })?;
    }
    Ok(())
}

/// Whether a signal is ignored, where the system tells.
#[cfg(unix)]
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 != 0)
}

/// Whether a signal is about to end this process.
static SIGNALLED: AtomicBool = AtomicBool::new(false);

/// Ends every program, removes every folder, and lets none be begun: the end of a run. Does not
/// return if a signal has done so already, and is about to end this process: what its programs
/// came to then is no result.
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
        // Those are children that nobody has collected: their numbers are still theirs.
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

    /// A process, as `/proc` has it.
    struct Process {
        id: i32,
        parent: i32,
        group: i32,
        dead: bool,
    }

    /// All processes that can be seen.
    fn processes() -> Vec<Process> {
        let one = |entry: io::Result<std::fs::DirEntry>| {
            let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read(format!("/proc/{id}/stat")).ok()?;
            // The name, in parentheses, may hold anything: what counts stands behind the last one.
            let rest = stat.rsplit(|&b| b == b')').next()?;
            let mut fields = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
            let dead = matches!(fields.next()?, "Z" | "X");
            let mut number = || fields.next()?.parse().ok();
            Some(Process { id, parent: number()?, group: number()?, dead })
        };
        std::fs::read_dir("/proc").into_iter().flatten().filter_map(one).collect()
    }

    /// Adds to some processes all that descend from them.
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

    /// A program and all that descends from it.
    pub(super) fn family(child: &mut Child) -> BTreeSet<i32> {
        let mut family = BTreeSet::from([child.id().cast_signed()]);
        // Of one that has ended nothing descends any more.
        if live().adopts && !ended(child) {
            descend(&mut family, &processes());
        }
        family
    }

    /// Whether this process has any child.
    fn any_child() -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::All, options), Err(rustix::io::Errno::CHILD))
    }

    impl Live {
        /// Ends the children of this process that are no programs and belong to a family; all of
        /// them if no program is left.
        pub(super) fn sweep(&mut self, mut family: BTreeSet<i32>) {
            let until = Instant::now() + GRACE;
            while self.adopts && any_child() {
                let all = processes();
                descend(&mut family, &all);
                let leaders = family.clone();
                let alone = self.programs.is_empty();
                let me = getpid().as_raw_pid();
                // Only children: their numbers are theirs until they are collected here.
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

        /// Ends all that descends from this process.
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
                        // Whoever started it collects it.
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

    /// Kills a child that nobody knows, and collects it.
    fn end_orphan(id: i32) {
        let Some(pid) = Pid::from_raw(id) else { return };
        let _ = kill_process(pid, Signal::KILL);
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}
