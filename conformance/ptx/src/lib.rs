#![doc = include_str!("../README.md")]

mod cost;
mod device;
mod error;
mod lint;
mod memory;
mod ops;
mod parse;
mod warp;

use std::collections::HashMap;
use std::sync::Arc;

use cost::Meter;
pub use cost::{CLASSES, Class, Cost};
pub use error::Error;
pub use lint::lint;
use memory::Memory;
use parse::Kernel;

/// A simulated GPU: memory and kernels. A clone has its own memory.
#[derive(Clone)]
pub struct Machine {
    kernels: Arc<HashMap<String, Kernel>>,
    memory: Memory,
    meter: Option<Box<Meter>>,
    backwards: bool,
}

impl Machine {
    /// Parses a module.
    ///
    /// # Errors
    /// An unknown instruction or directive.
    pub fn new(text: &str) -> Result<Machine, Error> {
        let mut memory = Memory::default();
        let kernels = parse::module(text, &mut memory)?;
        let kernels = kernels.into_iter().map(|k| (k.name.clone(), k)).collect();
        Ok(Machine { kernels: Arc::new(kernels), memory, meter: None, backwards: false })
    }

    /// The kernels' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.kernels.keys().map(String::as_str)
    }

    /// Allocates bytes at a multiple of 256, filled with a pattern that is unlikely to be right.
    pub fn alloc(&mut self, bytes: usize) -> u64 {
        self.memory.alloc(vec![0xcb; bytes])
    }

    /// Frees memory: later accesses are errors.
    ///
    /// # Errors
    /// No memory begins there.
    pub fn free(&mut self, address: u64) -> Result<(), Error> {
        self.memory.free(address)
    }

    /// Checks that a range is within allocated memory.
    ///
    /// # Errors
    /// Out of bounds.
    pub fn check(&self, address: u64, bytes: usize) -> Result<(), Error> {
        self.memory.get(address, bytes).map(drop)
    }

    /// Copies to the GPU.
    ///
    /// # Errors
    /// Out of bounds.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.memory.get_mut(address, bytes.len()).map(|to| to.copy_from_slice(bytes))
    }

    /// Copies from the GPU.
    ///
    /// # Errors
    /// Out of bounds.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.memory.get(address, bytes.len()).map(|from| bytes.copy_from_slice(from))
    }

    /// Begins to count what launches cost, which makes them slower, and forgets what was counted.
    pub fn count_costs(&mut self) {
        self.meter = Some(Box::new(Meter::new()));
    }

    /// Makes launches run the last block first, and of a block the last warp: results must not depend on it.
    pub fn run_backwards(&mut self) {
        self.backwards = true;
    }

    /// What each launch has cost since [`count_costs`](Self::count_costs).
    #[must_use]
    pub fn costs(&self) -> &[Cost] {
        self.meter.as_ref().map_or(&[], |meter| &meter.launches)
    }

    /// Bytes of shared memory that a block of a kernel has; `None` if there is no such kernel.
    #[must_use]
    pub fn shared_bytes(&self, kernel: &str) -> Option<usize> {
        self.kernels.get(kernel).map(|kernel| kernel.shared)
    }

    /// Launches a kernel with `blocks` blocks of `threads` threads.
    ///
    /// # Errors
    /// An unknown kernel, a wrong number of parameters, or a fault in the kernel.
    pub fn launch(
        &mut self,
        kernel: &str,
        blocks: u32,
        threads: u32,
        params: &[u64],
    ) -> Result<(), Error> {
        let kernels = Arc::clone(&self.kernels);
        let Some(kernel) = kernels.get(kernel) else {
            return Err(Error::Launch(format!("no kernel `{kernel}`")));
        };
        if kernel.params != params.len() {
            let (want, got) = (kernel.params, params.len());
            return Err(Error::Launch(format!("{} has {want} parameters, got {got}", kernel.name)));
        }
        if blocks == 0 || threads == 0 || threads > 1024 {
            let what = format!("{}: {blocks} blocks of {threads} threads", kernel.name);
            return Err(Error::Launch(what));
        }
        let mut warp = warp::Warp::new(kernel, params);
        let meter = &mut self.meter;
        if let Some(meter) = meter {
            meter.launch(&kernel.name);
        }
        let order = |i: u32, count: u32| if self.backwards { count - 1 - i } else { i };
        let warps = threads.div_ceil(warp::LANES as u32);
        for block in 0..blocks {
            let block = order(block, blocks);
            warp.begin_block();
            for first in 0..warps {
                let first = order(first, warps) * warp::LANES as u32;
                let place = warp::Place { block, blocks, first, threads };
                warp.run(&mut self.memory, meter.as_deref_mut(), place)?;
            }
        }
        Ok(())
    }
}
