//! The interpreter as a device of the CUDA adapter.

use bitstep_cudarc::Device;

use crate::{Error, Machine};

impl Device for Machine {
    type Error = Error;

    fn alloc(&mut self, bytes: usize) -> Result<u64, Error> {
        Ok(Machine::alloc(self, bytes))
    }
    fn free(&mut self, address: u64) -> Result<(), Error> {
        Machine::free(self, address)
    }
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        Machine::write(self, address, bytes)
    }
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        Machine::read(self, address, bytes)
    }
    fn check(&mut self, address: u64, bytes: usize) -> Result<(), Error> {
        Machine::check(self, address, bytes)
    }
    fn load(&mut self, kernel: &str) -> Result<(), Error> {
        if self.kernels.contains_key(kernel) {
            return Ok(());
        }
        Err(Error::Launch(format!("no kernel `{kernel}`")))
    }
    fn launch(
        &mut self,
        kernel: &str,
        blocks: u32,
        threads: u32,
        params: [u64; 3],
    ) -> Result<(), Error> {
        Machine::launch(self, kernel, blocks, threads, &params)
    }
}
