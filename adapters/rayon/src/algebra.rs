//! Matrix products and singular vectors by faer.

use bitstep::float::ComputeFloat;
use bitstep::lowrank::{LinearAlgebra, PortableLinearAlgebra};
use bitstep::math::matmul::MatrixView;
use bitstep::storage::{Data, DataMut, Plain};
use faer::linalg::matmul::matmul;
use faer::traits::RealField;
use faer::{Accum, MatMut, MatRef};

/// Linear algebra by the crate `faer`, on as many threads as its global setting allows.
///
/// Faster than [`PortableLinearAlgebra`], above all when a projector is refreshed from singular vectors.
/// In return the bits depend on the processor, the number of threads and faer's version: a rule that
/// uses it is exempt from bitstep's promise of the same bits. Nothing uses it by default.
///
/// ```
/// use bitstep::lowrank::{GaLore, Projected};
/// use bitstep::prelude::*;
/// use bitstep_rayon::Faer;
/// let mut rule = Projected::<AdamWHf, GaLore, Faer>::default();
/// rule.projection.rank = Some(128);
/// let optimizer = Optimizer::new(OptimizerSpec::new(rule, ComputePolicy::Eager))?;
/// # let _ = optimizer;
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faer;

impl LinearAlgebra for Faer {
    fn matmul<A: ComputeFloat<Scalar = A> + Plain>(
        dims: [usize; 3],
        a: MatrixView<'_, A>,
        b: MatrixView<'_, A>,
        out: &mut [A],
    ) {
        let done = match (A::data(a.data), A::data(b.data), A::data_mut(out)) {
            (Data::F32(x), Data::F32(y), DataMut::F32(to)) => {
                multiply(dims, [(x, a.strides), (y, b.strides)], 1.0, to)
            }
            (Data::F64(x), Data::F64(y), DataMut::F64(to)) => {
                multiply(dims, [(x, a.strides), (y, b.strides)], 1.0, to)
            }
            _ => None,
        };
        if done.is_none() {
            PortableLinearAlgebra::matmul(dims, a, b, out);
        }
    }

    fn truncated_svd<A: ComputeFloat<Scalar = A> + Plain>(
        dims: [usize; 2],
        matrix: &mut [A],
        short: &mut [A],
        long: &mut [A],
        scratch: &mut [A],
    ) {
        let done = match (A::data(matrix), A::data_mut(short), A::data_mut(long)) {
            (Data::F32(x), DataMut::F32(short), DataMut::F32(long)) => svd(dims, x, short, long),
            (Data::F64(x), DataMut::F64(short), DataMut::F64(long)) => svd(dims, x, short, long),
            _ => None,
        };
        // faer finds no decomposition of a matrix with a NaN.
        if done.is_none() {
            PortableLinearAlgebra::truncated_svd(dims, matrix, short, long, scratch);
        }
    }
}

type Strided<'a, T> = (&'a [T], (usize, usize));

/// `None`, with nothing written, if a slice is too short or neither its rows nor its columns are contiguous.
fn multiply<T: RealField>(
    [rows, depth, cols]: [usize; 3],
    [a, b]: [Strided<'_, T>; 2],
    one: T,
    out: &mut [T],
) -> Option<()> {
    let (a, b) = (matrix(a, rows, depth)?, matrix(b, depth, cols)?);
    if out.len() != rows.checked_mul(cols)? {
        return None;
    }
    let out = MatMut::from_row_major_slice_mut(out, rows, cols);
    matmul(out, Accum::Replace, a, b, one, faer::get_global_parallelism());
    Some(())
}

fn matrix<T>((data, strides): Strided<'_, T>, rows: usize, cols: usize) -> Option<MatRef<'_, T>> {
    let fits = |count: usize, width: usize, stride: usize| {
        let len = count.checked_sub(1)?.checked_mul(stride)?.checked_add(width)?;
        (stride >= width && len <= data.len()).then_some(())
    };
    match strides {
        (stride, 1) => {
            fits(rows, cols, stride)?;
            Some(MatRef::from_row_major_slice_with_stride(data, rows, cols, stride))
        }
        (1, stride) => {
            fits(cols, rows, stride)?;
            Some(MatRef::from_column_major_slice_with_stride(data, rows, cols, stride))
        }
        _ => None,
    }
}

fn svd<T: RealField>(
    [rows, cols]: [usize; 2],
    data: &[T],
    short: &mut [T],
    long: &mut [T],
) -> Option<()> {
    let found = matrix((data, (cols, 1)), rows, cols)?.thin_svd().ok()?;
    for (to, vectors, len) in [(short, found.U(), rows), (long, found.V(), cols)] {
        for (to, vector) in to.chunks_mut(len).zip(vectors.col_iter()) {
            for (to, x) in to.iter_mut().zip(vector.iter()) {
                to.clone_from(x);
            }
        }
    }
    Some(())
}
