//! The library's own threads.

use alloc::format;
use alloc::vec::Vec;

use crate::error::{BITSTEP_MEMORY, Status, err};

/// Threads that have ended when this is dropped, so that none is left in a library that is unloaded.
pub(crate) struct Threads {
    /// Their number as the caller has it: 0 for one for each processor.
    wanted: usize,
    pool: Option<rayon::ThreadPool>,
    handles: Vec<std::thread::JoinHandle<()>>,
}

impl Threads {
    pub(crate) fn new(wanted: usize) -> Result<Threads, Status> {
        let mut handles = Vec::new();
        let start = |thread: rayon::ThreadBuilder| {
            handles.push(std::thread::Builder::new().spawn(|| thread.run())?);
            Ok(())
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(wanted).spawn_handler(start);
        match pool.build() {
            Ok(pool) => Ok(Threads { wanted, pool: Some(pool), handles }),
            Err(e) => err(BITSTEP_MEMORY, format!("threads: {e}")),
        }
    }

    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Runs `f` on them.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(f),
            None => f(),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.pool = None; // which tells them to end
        self.handles.drain(..).for_each(|thread| _ = thread.join());
    }
}
