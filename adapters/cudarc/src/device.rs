//! The interface to a device that runs kernels.

/// A GPU, or an emulation of one. Operations take effect in the order of the calls.
pub trait Device {
    /// The device's errors.
    type Error: std::error::Error;

    /// Allocates memory, aligned to 256 bytes.
    ///
    /// # Errors
    /// Out of memory.
    fn alloc(&mut self, bytes: usize) -> Result<u64, Self::Error>;
    /// Frees memory from [`alloc`](Self::alloc), after everything launched so far.
    ///
    /// # Errors
    /// An address that is not from `alloc`.
    fn free(&mut self, address: u64) -> Result<(), Self::Error>;
    /// Copies to the device. The caller may reuse `bytes` afterwards.
    ///
    /// # Errors
    /// An error of the device.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Self::Error>;
    /// Waits for everything launched so far, and copies from the device.
    ///
    /// # Errors
    /// An error of the device.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Self::Error>;
    /// Checks that memory belongs to the device.
    ///
    /// # Errors
    /// It does not.
    fn check(&mut self, address: u64, bytes: usize) -> Result<(), Self::Error>;
    /// Loads a kernel of [`crate::ptx`], if it is not loaded yet.
    ///
    /// # Errors
    /// An error of the device.
    fn load(&mut self, kernel: &str) -> Result<(), Self::Error> {
        let _ = kernel;
        Ok(())
    }
    /// Launches a kernel of [`crate::ptx`] with `blocks` blocks of `threads` threads.
    ///
    /// # Errors
    /// An error of the device.
    fn launch(
        &mut self,
        kernel: &str,
        blocks: u32,
        threads: u32,
        params: [u64; 3],
    ) -> Result<(), Self::Error>;
}
