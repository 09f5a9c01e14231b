//! CUDA devices, through the driver API.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};
use thiserror::Error;

use crate::Device;

/// An error of a CUDA device.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CudaError {
    /// The driver's library was not found.
    #[error("no CUDA driver")]
    NoDriver,
    /// The driver has no device with that ordinal.
    #[error("no CUDA device")]
    NoDevice,
    /// The kernels need compute capability 7.5 or later.
    #[error("the device has compute capability {0}.{1}, 7.5 is wanted")]
    TooOld(i32, i32),
    /// An address that the driver does not know.
    #[error("{0:#x} is no memory of a device")]
    NotMemory(u64),
    /// Memory of another device, or of another context.
    #[error("{0:#x} belongs to another device or context")]
    WrongContext(u64),
    /// There is no such kernel.
    #[error("no kernel `{0}`")]
    NoKernel(String),
    /// An error of the driver.
    #[error("CUDA: {0:?}")]
    Driver(DriverError),
}

impl From<DriverError> for CudaError {
    fn from(e: DriverError) -> Self {
        match e.0 {
            sys::CUresult::CUDA_ERROR_NO_DEVICE | sys::CUresult::CUDA_ERROR_INVALID_DEVICE => {
                CudaError::NoDevice
            }
            _ => CudaError::Driver(e),
        }
    }
}

/// A CUDA device and one of its streams. All operations are on that stream, in order; only
/// [`Device::read`] waits for it.
///
/// The driver compiles a kernel when it is first loaded or launched.
pub struct Cuda {
    stream: Arc<CudaStream>,
    kernels: HashMap<String, Kernel>,
}

struct Kernel {
    module: sys::CUmodule,
    function: sys::CUfunction,
}

// SAFETY: handles of the driver, which may be used from any thread.
unsafe impl Send for Cuda {}

impl Cuda {
    /// The device with this ordinal, on its default stream.
    ///
    /// # Errors
    /// No driver, no such device, or one that is too old.
    pub fn open(ordinal: usize) -> Result<Cuda, CudaError> {
        if !driver_is_there() {
            return Err(CudaError::NoDriver);
        }
        Cuda::on(CudaContext::new(ordinal)?.default_stream())
    }

    /// The caller's stream.
    ///
    /// # Errors
    /// The device is too old.
    pub fn on(stream: Arc<CudaStream>) -> Result<Cuda, CudaError> {
        match stream.context().compute_capability()? {
            old if old < (7, 5) => Err(CudaError::TooOld(old.0, old.1)),
            _ => Ok(Cuda { stream, kernels: HashMap::new() }),
        }
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    fn bind(&self) -> Result<(), CudaError> {
        Ok(self.stream.context().bind_to_thread()?)
    }

    fn function(&mut self, name: &str) -> Result<sys::CUfunction, CudaError> {
        if let Some(kernel) = self.kernels.get(name) {
            return Ok(kernel.function);
        }
        let missing = || CudaError::NoKernel(name.to_owned());
        let text = CString::new(crate::kernel(name).ok_or_else(missing)?).map_err(|_| missing())?;
        let symbol = CString::new(name).map_err(|_| missing())?;
        // SAFETY: the text is NUL-terminated; the module lives as long as its function.
        let kernel = unsafe {
            let module = result::module::load_data(text.as_ptr().cast())?;
            Kernel { module, function: result::module::get_function(module, symbol)? }
        };
        let function = kernel.function;
        self.kernels.insert(name.to_owned(), kernel);
        Ok(function)
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Running kernels must finish before their code is unloaded.
        if self.bind().is_ok() && self.stream.synchronize().is_ok() {
            for kernel in self.kernels.values() {
                // SAFETY: loaded by `function`, and no longer used.
                let unloaded = unsafe { result::module::unload(kernel.module) };
                self.stream.context().record_err(unloaded);
            }
        }
    }
}

/// Whether the driver's library can be loaded. cudarc can tell only if it loads the library itself, not
/// if another crate (candle) links it.
fn driver_is_there() -> bool {
    let mut names = ["libcuda.so", "libcuda.so.1", "nvcuda.dll"].into_iter();
    // SAFETY: the driver's library may be loaded at any time.
    names.any(|name| unsafe { libloading::Library::new(name) }.is_ok())
}

impl Device for Cuda {
    type Error = CudaError;

    fn alloc(&mut self, bytes: usize) -> Result<u64, CudaError> {
        self.bind()?;
        // SAFETY: the memory is written before it is read, in stream order.
        Ok(unsafe { result::malloc_async(self.stream.cu_stream(), bytes.max(1)) }?)
    }

    fn free(&mut self, address: u64) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: from `alloc`; freed in stream order, after all uses.
        Ok(unsafe { result::free_async(address, self.stream.cu_stream()) }?)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the driver copies pageable memory before it returns.
        Ok(unsafe { result::memcpy_htod_async(address, bytes, self.stream.cu_stream()) }?)
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the bytes are borrowed until the stream has finished the copy.
        unsafe { result::memcpy_dtoh_async(bytes, address, self.stream.cu_stream()) }?;
        Ok(self.stream.synchronize()?)
    }

    fn check(&mut self, address: u64, _bytes: usize) -> Result<(), CudaError> {
        use sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
        self.bind()?;
        let mut ordinal = -1i32;
        let to = (&raw mut ordinal).cast();
        // SAFETY: the attribute is an `int`; any address may be queried.
        let answer =
            unsafe { sys::cuPointerGetAttribute(to, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address) };
        match answer {
            sys::CUresult::CUDA_ERROR_INVALID_VALUE => Err(CudaError::NotMemory(address)),
            answer => {
                answer.result()?;
                let own = usize::try_from(ordinal) == Ok(self.stream.context().ordinal());
                if own { Ok(()) } else { Err(CudaError::WrongContext(address)) }
            }
        }
    }

    fn load(&mut self, kernel: &str) -> Result<(), CudaError> {
        self.bind()?;
        self.function(kernel).map(drop)
    }

    fn launch(
        &mut self,
        kernel: &str,
        blocks: u32,
        threads: u32,
        mut params: [u64; 3],
    ) -> Result<(), CudaError> {
        self.bind()?;
        let function = self.function(kernel)?;
        let mut params = params.each_mut().map(|p| (&raw mut *p).cast::<c_void>());
        let stream = self.stream.cu_stream();
        // SAFETY: the kernel has three 64-bit parameters, which the driver copies; the caller
        // guarantees the addresses in the table.
        unsafe {
            result::launch_kernel(
                function,
                (blocks, 1, 1),
                (threads, 1, 1),
                0,
                stream,
                &mut params,
            )?;
        }
        Ok(())
    }
}
