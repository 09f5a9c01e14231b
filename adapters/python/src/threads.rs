//! Thread pools of a given number of threads.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use pyo3::PyResult;
use pyo3::exceptions::PyRuntimeError;
use rayon::ThreadPool;

/// Pools by the process that made them and their number of threads: a forked process has none of its parent's threads.
type Pools = HashMap<(u32, usize), Arc<ThreadPool>>;

static POOLS: LazyLock<Mutex<Pools>> = LazyLock::new(Mutex::default);

/// The pool of this many threads, which is made once.
pub(crate) fn pool(threads: usize) -> PyResult<Arc<ThreadPool>> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (std::process::id(), threads);
    if let Some(pool) = pools.get(&key) {
        return Ok(pool.clone());
    }
    let new = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let new = Arc::new(new.map_err(|e| PyRuntimeError::new_err(e.to_string()))?);
    pools.insert(key, new.clone());
    Ok(new)
}
