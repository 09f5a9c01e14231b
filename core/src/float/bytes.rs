//! Values as little-endian bytes: the constants of a step, for a device that reads them as a C structure, and whole
//! slices, for checkpoints.

use half::{bf16, f16};

use crate::float::Dtype;

/// A `repr(C)` structure, or one of its fields, as little-endian bytes.
///
/// Field by field: padding is neither read nor written, and bytes that are not valid for a field's type are refused.
pub trait Constants: Copy {
    /// Writes each field at its offset; fields beyond the end of `to` are not written.
    fn write(&self, to: &mut [u8]);
    /// Reads each field from its offset; `None` if `from` is too short, or has bytes that are not valid for a field.
    fn read(from: &[u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($type:ty)*) => {
        $(impl Constants for $type {
            fn write(&self, to: &mut [u8]) {
                if let Some(to) = to.first_chunk_mut() {
                    *to = self.to_le_bytes();
                }
            }
            fn read(from: &[u8]) -> Option<Self> {
                from.first_chunk().copied().map(Self::from_le_bytes)
            }
        })*
    };
}
numbers!(f64 f32 bf16 f16 i16 i8 u8);

/// The number of bytes that [`in_pieces`] passes on at a time.
const PIECE: usize = 256;

/// Passes all values on as bytes, padded at the end with zeros to a multiple of `align`, at most 8.
pub(crate) fn in_pieces<T: Constants>(all: &[T], align: usize, to: &mut dyn FnMut(&[u8])) {
    for part in all.chunks((PIECE / size_of::<T>().max(1)).max(1)) {
        let mut bytes = [0; PIECE];
        let mut places = bytes.chunks_exact_mut(size_of::<T>().max(1));
        part.iter().zip(&mut places).for_each(|(x, to)| x.write(to));
        let len = size_of_val(part).next_multiple_of(align.clamp(1, 8));
        to(bytes.get(..len).unwrap_or_default());
    }
}

/// All values as bytes.
#[cfg(feature = "alloc")]
pub(crate) fn to_bytes<T: Constants>(all: &[T]) -> alloc::vec::Vec<u8> {
    let mut bytes = alloc::vec::Vec::with_capacity(size_of_val(all));
    in_pieces(all, 1, &mut |some| bytes.extend_from_slice(some));
    bytes
}

/// Writes as many values as there is memory for.
#[cfg(feature = "alloc")]
pub(crate) fn write_all<T: Constants>(all: &[T], to: &mut [u8]) {
    for (x, to) in all.iter().zip(to.chunks_exact_mut(size_of::<T>().max(1))) {
        x.write(to);
    }
}

/// Reads as many values as there are bytes and elements for; elements whose bytes are not valid are left as they are.
pub(crate) fn read_all<T: Constants>(bytes: &[u8], to: &mut [T]) {
    for (to, bytes) in to.iter_mut().zip(bytes.chunks_exact(size_of::<T>().max(1))) {
        if let Some(x) = T::read(bytes) {
            *to = x;
        }
    }
}

impl Constants for bool {
    fn write(&self, to: &mut [u8]) {
        u8::from(*self).write(to);
    }
    fn read(from: &[u8]) -> Option<Self> {
        match u8::read(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Constants for Dtype {
    fn write(&self, to: &mut [u8]) {
        (*self as u8).write(to);
    }
    fn read(from: &[u8]) -> Option<Self> {
        let byte = u8::read(from)?;
        [Dtype::F64, Dtype::F32, Dtype::Bf16, Dtype::F16].into_iter().find(|d| *d as u8 == byte)
    }
}

impl<T: Constants, const N: usize> Constants for [T; N] {
    fn write(&self, to: &mut [u8]) {
        for (x, to) in self.iter().zip(to.chunks_mut(size_of::<T>().max(1))) {
            x.write(to);
        }
    }
    fn read(from: &[u8]) -> Option<Self> {
        let mut all = [T::read(from)?; N];
        for (i, x) in all.iter_mut().enumerate() {
            *x = T::read(from.get(i * size_of::<T>()..)?)?;
        }
        Some(all)
    }
}

/// Defines the constants of a step: a `repr(C)` structure with [`Constants`](bytes::Constants).
macro_rules! constants {
    (
        $(#[$about:meta])*
        $see:vis struct $name:ident<$T:ident> {
            $($(#[$field_about:meta])* $field_see:vis $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        $see struct $name<$T> {
            $($(#[$field_about])* $field_see $field: $type,)*
        }

        impl<$T: $crate::float::bytes::Constants> $crate::float::bytes::Constants for $name<$T> {
            fn write(&self, to: &mut [u8]) {
                $(if let Some(to) = to.get_mut(core::mem::offset_of!(Self, $field)..) {
                    $crate::float::bytes::Constants::write(&self.$field, to);
                })*
            }
            fn read(from: &[u8]) -> Option<Self> {
                Some(Self {
                    $($field: $crate::float::bytes::Constants::read(
                        from.get(core::mem::offset_of!(Self, $field)..)?,
                    )?,)*
                })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    constants! {
        /// With padding between the fields and at the end.
        struct Gaps<S> {
            flag: bool,
            wide: f64,
            kind: Dtype,
            three: [S; 3],
            last: bool,
        }
    }

    /// The offsets of the fields with invalid values, on any machine.
    const PLACES: [usize; 5] = [
        offset_of!(Gaps<f32>, flag),
        offset_of!(Gaps<f32>, wide),
        offset_of!(Gaps<f32>, kind),
        offset_of!(Gaps<f32>, three),
        offset_of!(Gaps<f32>, last),
    ];

    #[test]
    fn fields_lie_where_c_has_them_and_gaps_stay() {
        let gaps =
            Gaps { flag: true, wide: 1.5, kind: Dtype::F16, three: [1f32, 2.0, 3.0], last: false };
        let (mut got, mut want) = ([0xee; size_of::<Gaps<f32>>()], [0xee; size_of::<Gaps<f32>>()]);
        gaps.write(&mut got);
        let [flag, wide, kind, three, last] = PLACES;
        want[flag] = 1;
        want[wide..wide + 8].copy_from_slice(&1.5f64.to_le_bytes());
        want[kind] = 3;
        for (i, x) in [1f32, 2.0, 3.0].into_iter().enumerate() {
            want[three + 4 * i..three + 4 * i + 4].copy_from_slice(&x.to_le_bytes());
        }
        want[last] = 0;
        assert_eq!(got, want);
        let back = Gaps::<f32>::read(&got).unwrap();
        assert_eq!((back.flag, back.wide, back.kind), (true, 1.5, Dtype::F16));
        assert_eq!((back.three, back.last), ([1.0, 2.0, 3.0], false));
    }

    #[test]
    fn bytes_that_are_no_values_make_none() {
        let [flag, _, kind, _, last] = PLACES;
        let mut bytes = [0; size_of::<Gaps<f32>>()];
        assert!(Gaps::<f32>::read(&bytes).is_some());
        for (at, byte) in [(flag, 2), (flag, 255), (kind, 4), (last, 128)] {
            bytes[at] = byte;
            assert!(Gaps::<f32>::read(&bytes).is_none());
            bytes[at] = 0;
        }
        bytes[flag + 1] = 0xff; // padding
        assert!(Gaps::<f32>::read(&bytes).is_some());
        assert!(Gaps::<f32>::read(&bytes[..last]).is_none());
        assert!(Gaps::<f32>::read(&bytes[..=last]).is_some());
    }
}
