//! Numbers in the module's own memory, which JavaScript sees by views, and arrays of JavaScript.

use core::cell::RefCell;

use bitstep::Error;
use bitstep::float::Dtype;
use bitstep::storage::{Data, DataMut};
use js_sys::{Float32Array, Float64Array, Object, Uint16Array};
use wasm_bindgen::{JsCast, JsValue};

use crate::error::{Refusal, Result, refused};

thread_local! {
    /// Memory of freed tensors. It goes to later tensors and to nothing else: a view that a caller has kept by mistake
    /// can then change other tensors' numbers, but nothing that the module relies on.
    static FREED: RefCell<Vec<Vec<u64>>> = const { RefCell::new(Vec::new()) };
}

/// Words of a cache line. Tensors begin at one: what crosses two is read twice.
const LINE: usize = 8;

/// Numbers of one type.
pub(crate) struct Tensor {
    /// A line more than the numbers need.
    words: Vec<u64>,
    dtype: Dtype,
    len: usize,
}

impl Drop for Tensor {
    fn drop(&mut self) {
        let words = core::mem::take(&mut self.words);
        if words.capacity() > 0 {
            FREED.with_borrow_mut(|freed| freed.push(words));
        }
    }
}

impl Tensor {
    /// Zeros.
    pub(crate) fn zeros(dtype: Dtype, len: usize) -> Result<Tensor> {
        let none = Error::OutOfMemory { argument: "param", len };
        let words = len.checked_mul(dtype.size()).ok_or(none)?.div_ceil(8) + LINE;
        let mut memory = FREED.with_borrow_mut(|freed| {
            let fits = |v: &Vec<u64>| v.capacity() >= words && v.capacity() / 2 <= words;
            freed.iter().position(fits).map(|at| freed.swap_remove(at)).unwrap_or_default()
        });
        memory.clear();
        memory.try_reserve_exact(words).map_err(|_| none)?;
        memory.resize(words, 0);
        Ok(Tensor { words: memory, dtype, len })
    }

    fn words(&self) -> &[u64] {
        self.words.get(self.words.as_ptr().align_offset(LINE * 8)..).unwrap_or_default()
    }

    fn words_mut(&mut self) -> &mut [u64] {
        let start = self.words.as_ptr().align_offset(LINE * 8);
        self.words.get_mut(start..).unwrap_or_default()
    }

    /// To read.
    pub(crate) fn data(&self) -> Data<'_> {
        fn of<T: bytemuck::Pod>(words: &[u64], len: usize) -> &[T] {
            bytemuck::cast_slice(words).get(..len).unwrap_or_default()
        }
        match self.dtype {
            Dtype::F64 => Data::F64(of(self.words(), self.len)),
            Dtype::F32 => Data::F32(of(self.words(), self.len)),
            Dtype::Bf16 => Data::Bf16(of(self.words(), self.len)),
            Dtype::F16 => Data::F16(of(self.words(), self.len)),
        }
    }

    /// To read and write.
    pub(crate) fn data_mut(&mut self) -> DataMut<'_> {
        fn of<T: bytemuck::Pod>(words: &mut [u64], len: usize) -> &mut [T] {
            bytemuck::cast_slice_mut(words).get_mut(..len).unwrap_or_default()
        }
        let len = self.len;
        match self.dtype {
            Dtype::F64 => DataMut::F64(of(self.words_mut(), len)),
            Dtype::F32 => DataMut::F32(of(self.words_mut(), len)),
            Dtype::Bf16 => DataMut::Bf16(of(self.words_mut(), len)),
            Dtype::F16 => DataMut::F16(of(self.words_mut(), len)),
        }
    }

    /// A view for JavaScript, until the module's memory grows: then its length is 0.
    pub(crate) fn view(&mut self) -> Object {
        let len = self.len;
        let words = self.words_mut().as_mut_ptr();
        // SAFETY: the memory has `len` numbers of this type, is never given back to the allocator (`FREED`), and
        // whatever JavaScript writes there is a number; no reference to it lives while JavaScript runs.
        unsafe {
            match self.dtype {
                Dtype::F64 => Float64Array::view_mut_raw(words.cast(), len).into(),
                Dtype::F32 => Float32Array::view_mut_raw(words.cast(), len).into(),
                Dtype::Bf16 | Dtype::F16 => Uint16Array::view_mut_raw(words.cast(), len).into(),
            }
        }
    }

    /// Copies an array of JavaScript that has been [checked](ArrayOf::len).
    pub(crate) fn copy_from(&mut self, from: &ArrayOf) {
        fn of<T: bytemuck::Pod>(words: &mut [u64], len: usize) -> &mut [T] {
            bytemuck::cast_slice_mut(words).get_mut(..len).unwrap_or_default()
        }
        let len = self.len;
        match from {
            ArrayOf::F64(x) => x.copy_to(of(self.words_mut(), len)),
            ArrayOf::F32(x) => x.copy_to(of(self.words_mut(), len)),
            ArrayOf::Bits(x) => x.copy_to(of(self.words_mut(), len)),
        }
    }

    /// Copies to an array of JavaScript that has been [checked](ArrayOf::len).
    pub(crate) fn copy_to(&self, to: &ArrayOf) {
        fn of<T: bytemuck::Pod>(words: &[u64], len: usize) -> &[T] {
            bytemuck::cast_slice(words).get(..len).unwrap_or_default()
        }
        match to {
            ArrayOf::F64(x) => x.copy_from(of(self.words(), self.len)),
            ArrayOf::F32(x) => x.copy_from(of(self.words(), self.len)),
            ArrayOf::Bits(x) => x.copy_from(of(self.words(), self.len)),
        }
    }
}

/// An array of JavaScript's.
pub(crate) enum ArrayOf {
    F64(Float64Array),
    F32(Float32Array),
    Bits(Uint16Array),
}

impl ArrayOf {
    /// The array of a parameter or gradient of this type.
    pub(crate) fn of(argument: &str, value: &JsValue, dtype: Dtype) -> Result<ArrayOf> {
        let (array, expected) = match dtype {
            Dtype::F64 => (value.dyn_ref().cloned().map(ArrayOf::F64), "a Float64Array"),
            Dtype::F32 => (value.dyn_ref().cloned().map(ArrayOf::F32), "a Float32Array"),
            Dtype::Bf16 | Dtype::F16 => {
                (value.dyn_ref().cloned().map(ArrayOf::Bits), "a Uint16Array of bits")
            }
        };
        array.ok_or_else(|| refused(argument, value, expected))
    }

    /// The number of elements; 0 for an array whose memory is gone.
    pub(crate) fn len(&self) -> usize {
        (match self {
            ArrayOf::F64(x) => x.length(),
            ArrayOf::F32(x) => x.length(),
            ArrayOf::Bits(x) => x.length(),
        }) as usize
    }

    /// Refuses an array of another length.
    pub(crate) fn expect_len(&self, argument: &'static str, expected: usize) -> Result<()> {
        match self.len() {
            got if got == expected => Ok(()),
            got => Err(Error::LengthMismatch { argument, got, expected }.into()),
        }
    }
}

/// A type's name.
pub(crate) fn dtype(value: &JsValue) -> Result<Dtype> {
    if value.is_undefined() {
        return Ok(Dtype::F32);
    }
    let name = crate::args::name("dtype", value)?;
    [Dtype::F64, Dtype::F32, Dtype::Bf16, Dtype::F16]
        .into_iter()
        .find(|dtype| dtype.id() == name)
        .ok_or_else(|| refused("dtype", value, "f64, f32, bf16 or f16"))
}

/// Bytes of JavaScript's, copied.
pub(crate) fn bytes(argument: &'static str, value: &JsValue) -> Result<Vec<u8>> {
    let from: &js_sys::Uint8Array =
        value.dyn_ref().ok_or_else(|| refused(argument, value, "a Uint8Array"))?;
    let len = from.length() as usize;
    let mut all = bitstep::storage::memory::filled(argument, 0, len)?;
    // The memory may have grown, and an array that is a view of it is empty then.
    if from.length() as usize != len {
        return Err(Refusal::Message(format!(
            "`{argument}` is a view of this module's own memory"
        )));
    }
    from.copy_to(&mut all);
    Ok(all)
}
