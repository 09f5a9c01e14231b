//! What runs kernels.

/// A GPU, or what stands in for one. Everything happens in the order of the calls.
pub trait Device {
    /// What can go wrong.
    type Error: std::error::Error;

    /// Memory of this many bytes, at a multiple of 256.
    ///
    /// # Errors
    /// There is none left.
    fn alloc(&mut self, bytes: usize) -> Result<u64, Self::Error>;
    /// Gives it back, once what has been launched is done with it.
    ///
    /// # Errors
    /// It is not the device's.
    fn free(&mut self, address: u64) -> Result<(), Self::Error>;
    /// Copies to the device. The bytes may be changed when it returns.
    ///
    /// # Errors
    /// The device's own.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Self::Error>;
    /// Copies from the device, when all that was launched is done.
    ///
    /// # Errors
    /// The device's own.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Self::Error>;
    /// Refuses memory that is not the device's.
    ///
    /// # Errors
    /// It is not.
    fn check(&mut self, address: u64, bytes: usize) -> Result<(), Self::Error>;
    /// Gets a kernel of [`crate::ptx`] ready to be launched, if it is not yet.
    ///
    /// # Errors
    /// The device's own.
    fn load(&mut self, kernel: &str) -> Result<(), Self::Error> {
        let _ = kernel;
        Ok(())
    }
    /// Runs a kernel of [`crate::ptx`]: `blocks` times `threads`.
    ///
    /// # Errors
    /// The device's own.
    fn launch(
        &mut self,
        kernel: &str,
        blocks: u32,
        threads: u32,
        params: [u64; 3],
    ) -> Result<(), Self::Error>;
}
