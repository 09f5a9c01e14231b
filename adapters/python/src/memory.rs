//! Tensors of PyTorch and arrays of numpy as slices, without a copy.
//!
//! PyTorch describes a tensor through DLPack's C exchange interface, where it has one, and else
//! through its attributes; numpy through `__array_interface__`.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;

use bitstep::float::Dtype;
use bitstep::storage::{Data, DataMut};
use half::{bf16, f16};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyType};

/// `DLTensor` of dlpack.h.
#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

/// `DLPackExchangeAPI` of dlpack.h, as far as it is used.
#[repr(C)]
struct DlExchange {
    major: u32,
    minor: u32,
    previous: *const c_void,
    allocate: *const c_void,
    managed_from: *const c_void,
    managed_to: *const c_void,
    tensor_from: Option<unsafe extern "C" fn(*mut c_void, *mut DlTensor) -> c_int>,
}

const EXCHANGE: &CStr = c"dlpack_exchange_api";
const CPU: i32 = 1;

/// Where the elements of a tensor are, and what they are.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    start: *mut c_void,
    len: usize,
    dtype: Dtype,
}

// SAFETY: it is only an address; who makes a slice of it answers for that.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// What kept a tensor from being borrowed as it is.
pub(crate) enum Refusal {
    /// Its elements have gaps or another order: a contiguous copy will do.
    Strided,
    /// Anything else, with the error to raise.
    Other(PyErr),
}

impl From<PyErr> for Refusal {
    fn from(error: PyErr) -> Refusal {
        Refusal::Other(error)
    }
}

type Exchange = unsafe extern "C" fn(*mut c_void, *mut DlTensor) -> c_int;

/// Reads what tensors are, and remembers how those of each class are read.
pub(crate) struct Reader<'py> {
    py: Python<'py>,
    classes: Vec<(*mut ffi::PyTypeObject, Option<Exchange>)>,
}

impl<'py> Reader<'py> {
    pub(crate) fn new(py: Python<'py>) -> Self {
        Reader { py, classes: Vec::new() }
    }

    /// The memory of a tensor with these dimensions. `what` names it in errors.
    pub(crate) fn memory(
        &mut self,
        tensor: &Bound<'py, PyAny>,
        shape: &[usize],
        what: &dyn Fn() -> String,
    ) -> Result<Memory, Refusal> {
        let class = tensor.get_type_ptr();
        let exchange = match self.classes.iter().find(|(known, _)| *known == class) {
            Some(&(_, exchange)) => exchange,
            None => {
                let exchange = exchange(&tensor.get_type())?;
                self.classes.push((class, exchange));
                exchange
            }
        };
        match exchange {
            Some(read) => self.dlpack(read, tensor, shape, what),
            None if tensor.hasattr("__array_interface__")? => numpy(tensor, shape, what),
            None => torch(tensor, shape, what),
        }
    }

    fn dlpack(
        &self,
        read: Exchange,
        tensor: &Bound<'py, PyAny>,
        shape: &[usize],
        what: &dyn Fn() -> String,
    ) -> Result<Memory, Refusal> {
        let mut dl = std::mem::MaybeUninit::<DlTensor>::zeroed();
        // SAFETY: the function is that of the object's own class, and fills in the struct that DLPack defines.
        let status = unsafe { read(tensor.as_ptr().cast(), dl.as_mut_ptr()) };
        if status != 0 {
            // Its own words are about DLPack; say what the tensor is, if that is known.
            let error = PyErr::take(self.py);
            refuse_layout(tensor, what)?;
            let error =
                error.unwrap_or_else(|| PyValueError::new_err(format!("{} can't be read", what())));
            return Err(error.into());
        }
        // SAFETY: it was zeroed, which is a valid value, and filled in.
        let dl = unsafe { dl.assume_init() };
        if dl.device_type != CPU {
            return Err(not_on_cpu(tensor, what).into());
        }
        let dtype = match (dl.code, dl.bits, dl.lanes) {
            (2, 64, 1) => Dtype::F64,
            (2, 32, 1) => Dtype::F32,
            (2, 16, 1) => Dtype::F16,
            (4, 16, 1) => Dtype::Bf16,
            _ => return Err(wrong_type(&tensor.getattr("dtype")?, what).into()),
        };
        let ndim = usize::try_from(dl.ndim).unwrap_or(0);
        // SAFETY: DLPack: both have `ndim` elements, which live as long as the tensor keeps its shape: we hold the GIL.
        let (dims, strides) = unsafe { (array(dl.shape, ndim), array(dl.strides, ndim)) };
        if dims.len() != shape.len() || dims.iter().zip(shape).any(|(&d, &s)| d != s as i64) {
            return Err(wrong_shape(dims, shape, what).into());
        }
        if !strides.is_empty() && !is_contiguous(dims, strides) {
            return Err(Refusal::Strided);
        }
        let start = dl.data.cast::<u8>().wrapping_add(dl.byte_offset as usize);
        Memory::new(start.cast(), shape.iter().product(), dtype)
    }
}

/// # Safety
/// If it is not null it points to that many elements.
unsafe fn array<'a>(start: *const i64, len: usize) -> &'a [i64] {
    if start.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: guaranteed by the caller.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// The function by which a class describes its tensors; `None` if it has none of a version that is known.
fn exchange(class: &Bound<'_, PyType>) -> PyResult<Option<Exchange>> {
    // A subclass may keep its values elsewhere (`DTensor`); its own attributes decide.
    let module = class.module().map(|name| name.to_string()).unwrap_or_default();
    let plain = ["Tensor", "Parameter"].contains(&&*class.name()?.to_string());
    if !plain || !(module == "torch" || module.starts_with("torch.nn.parameter")) {
        return Ok(None);
    }
    let Ok(capsule) = class.getattr("__dlpack_c_exchange_api__") else { return Ok(None) };
    let Ok(capsule) = capsule.cast_into::<PyCapsule>() else { return Ok(None) };
    let Ok(api) = capsule.pointer_checked(Some(EXCHANGE)) else { return Ok(None) };
    let api: NonNull<DlExchange> = api.cast();
    // SAFETY: a capsule of this name holds the struct, which lives as long as the process.
    let api = unsafe { api.as_ref() };
    Ok(if api.major == 1 { api.tensor_from } else { None })
}

fn is_contiguous(dims: &[i64], strides: &[i64]) -> bool {
    if dims.contains(&0) {
        return true;
    }
    let mut expected = 1;
    dims.iter().zip(strides).rev().all(|(&dim, &stride)| {
        let fits = dim == 1 || stride == expected;
        expected *= dim;
        fits
    })
}

fn wrong_shape(got: &[i64], expected: &[usize], what: &dyn Fn() -> String) -> PyErr {
    PyValueError::new_err(format!("{}: shape is {got:?}, but must be {expected:?}", what()))
}

fn wrong_type(dtype: &Bound<'_, PyAny>, what: &dyn Fn() -> String) -> PyErr {
    let dtype = dtype.str().map(|s| s.to_string()).unwrap_or_default();
    PyTypeError::new_err(format!(
        "{}: dtype is {dtype}, but must be float64, float32, bfloat16 or float16",
        what()
    ))
}

fn not_on_cpu(tensor: &Bound<'_, PyAny>, what: &dyn Fn() -> String) -> PyErr {
    let device = tensor.getattr("device").and_then(|d| d.str().map(|s| s.to_string()));
    PyValueError::new_err(format!(
        "{}: device is {}, but must be cpu",
        what(),
        device.unwrap_or_default()
    ))
}

/// Refuses a tensor of PyTorch's that has no dense real memory of its own.
fn refuse_layout(tensor: &Bound<'_, PyAny>, what: &dyn Fn() -> String) -> PyResult<()> {
    let layout = tensor.getattr("layout")?.str()?.to_string();
    if layout != "torch.strided" {
        let message = format!(
            "{}: layout is {layout}, but must be torch.strided: call to_dense() first",
            what()
        );
        return Err(PyValueError::new_err(message));
    }
    if tensor.getattr("device")?.getattr("type")?.extract::<String>()? != "cpu" {
        return Err(not_on_cpu(tensor, what));
    }
    if tensor.hasattr("_local_tensor")? {
        let message = format!("{}: a DTensor, whose elements are in several processes", what());
        return Err(PyTypeError::new_err(message));
    }
    Ok(())
}

fn named(dtype: &str) -> Option<Dtype> {
    Some(match dtype {
        "torch.float64" | "<f8" | "float64" | "f64" => Dtype::F64,
        "torch.float32" | "<f4" | "float32" | "f32" => Dtype::F32,
        "torch.float16" | "<f2" | "float16" | "f16" => Dtype::F16,
        "torch.bfloat16" | "bfloat16" | "bf16" => Dtype::Bf16,
        _ => return None,
    })
}

/// The type of this name.
pub(crate) fn dtype(name: &str) -> PyResult<Dtype> {
    named(name).ok_or_else(|| {
        PyTypeError::new_err(format!(
            "dtype is {name}, but must be float64, float32, bfloat16 or float16"
        ))
    })
}

fn dims(of: Vec<i64>, shape: &[usize], what: &dyn Fn() -> String) -> PyResult<()> {
    let same = of.len() == shape.len() && of.iter().zip(shape).all(|(&d, &s)| d == s as i64);
    if same { Ok(()) } else { Err(wrong_shape(&of, shape, what)) }
}

fn torch(
    tensor: &Bound<'_, PyAny>,
    shape: &[usize],
    what: &dyn Fn() -> String,
) -> Result<Memory, Refusal> {
    if !tensor.hasattr("data_ptr")? {
        let class = tensor.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "{}: {class} is neither a tensor nor an array",
            what()
        ))
        .into());
    }
    refuse_layout(tensor, what)?;
    let name = tensor.getattr("dtype")?;
    let Some(dtype) = named(&name.str()?.to_string()) else {
        return Err(wrong_type(&name, what).into());
    };
    dims(tensor.getattr("shape")?.extract()?, shape, what)?;
    if tensor.call_method0("is_neg")?.extract()?
        || !tensor.call_method0("is_contiguous")?.extract::<bool>()?
    {
        return Err(Refusal::Strided);
    }
    let start: usize = tensor.call_method0("data_ptr")?.extract()?;
    Memory::new(start as *mut c_void, shape.iter().product(), dtype)
}

fn numpy(
    array: &Bound<'_, PyAny>,
    shape: &[usize],
    what: &dyn Fn() -> String,
) -> Result<Memory, Refusal> {
    let interface = array.getattr("__array_interface__")?;
    let dtype = array.getattr("dtype")?;
    let name = dtype.getattr("name")?.extract::<String>()?;
    // Bits of bf16 in numpy's own types: two bytes without a sign.
    let name = if name == "uint16" { "bfloat16" } else { &name };
    let native = dtype.getattr("isnative")?.extract::<bool>()?;
    let Some(dtype) = named(name).filter(|_| native) else {
        return Err(wrong_type(&dtype, what).into());
    };
    dims(interface.get_item("shape")?.extract()?, shape, what)?;
    if !array.getattr("flags")?.get_item("C_CONTIGUOUS")?.extract::<bool>()? {
        return Err(Refusal::Strided);
    }
    let (start, read_only): (usize, bool) = interface.get_item("data")?.extract()?;
    let memory = Memory::new(start as *mut c_void, shape.iter().product(), dtype)?;
    if read_only { Err(Refusal::Strided) } else { Ok(memory) }
}

impl Memory {
    fn new(start: *mut c_void, len: usize, dtype: Dtype) -> Result<Memory, Refusal> {
        if len > 0 && (start.is_null() || !start.addr().is_multiple_of(dtype.size())) {
            return Err(Refusal::Strided); // a copy is aligned
        }
        Ok(Memory { start, len, dtype })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The addresses of the first byte and of that behind the last.
    pub(crate) fn range(&self) -> (usize, usize) {
        let start = self.start.addr();
        (start, start + if self.len == 0 { 0 } else { self.len * self.dtype.size() })
    }

    /// The elements, to read.
    ///
    /// # Safety
    /// The tensor lives and keeps its memory as long as the slice is used, and nobody writes to it.
    pub(crate) unsafe fn data<'a>(&self) -> Data<'a> {
        unsafe fn slice<'a, T>(start: *mut c_void, len: usize) -> &'a [T] {
            if len == 0 {
                return &[];
            }
            // SAFETY: guaranteed by the caller; `new` has checked null and alignment.
            unsafe { std::slice::from_raw_parts(start.cast(), len) }
        }
        // SAFETY: guaranteed by the caller; the type is that of the tensor, and every bit pattern is a float.
        unsafe {
            match self.dtype {
                Dtype::F64 => Data::F64(slice::<f64>(self.start, self.len)),
                Dtype::F32 => Data::F32(slice::<f32>(self.start, self.len)),
                Dtype::Bf16 => Data::Bf16(slice::<bf16>(self.start, self.len)),
                Dtype::F16 => Data::F16(slice::<f16>(self.start, self.len)),
            }
        }
    }

    /// The elements, to read and write.
    ///
    /// # Safety
    /// The tensor lives and keeps its memory as long as the slice is used, and nobody else reads or writes it.
    pub(crate) unsafe fn data_mut<'a>(&self) -> DataMut<'a> {
        unsafe fn slice<'a, T>(start: *mut c_void, len: usize) -> &'a mut [T] {
            if len == 0 {
                return &mut [];
            }
            // SAFETY: guaranteed by the caller; `new` has checked null and alignment.
            unsafe { std::slice::from_raw_parts_mut(start.cast(), len) }
        }
        // SAFETY: guaranteed by the caller; the type is that of the tensor, and every bit pattern is a float.
        unsafe {
            match self.dtype {
                Dtype::F64 => DataMut::F64(slice::<f64>(self.start, self.len)),
                Dtype::F32 => DataMut::F32(slice::<f32>(self.start, self.len)),
                Dtype::Bf16 => DataMut::Bf16(slice::<bf16>(self.start, self.len)),
                Dtype::F16 => DataMut::F16(slice::<f16>(self.start, self.len)),
            }
        }
    }
}
