//! The descriptors that the host writes and the kernels read; both compile this file. A launch has a
//! table of descriptors, and its work is numbered in chunks over all of them. Addresses are device
//! addresses; 0 stands for none.

/// The maximum number of slots of a rule.
pub(crate) const MAX_SLOTS: usize = 6;
/// Items in a chunk: a block of [`bitstep::math::reduce`].
pub(crate) const CHUNK: u64 = 1024;
/// Rows that one thread adds in a sum over columns: a block of [`bitstep::math::reduce`].
pub(crate) const ROWS: u64 = 32;

/// Tiles of a matrix product in a chunk.
pub(crate) const TILES: u64 = 128;
/// Rows, and columns, of a tile.
pub(crate) const TILE: u64 = 4;

/// Elements that a warp decodes, steps and encodes at a time; the largest block of codes that it can.
pub(crate) const UNIT: u64 = 256;
/// The most threads of a block that steps encoded tensors: it needs shared memory for each.
pub(crate) const ENCODED_THREADS: u64 = 128;

/// How the elements of a [`Place`] are stored; 0 where there are none.
pub(crate) mod kind {
    pub(crate) const F32: u64 = 1;
    pub(crate) const BF16: u64 = 2;
    pub(crate) const F16: u64 = 3;
    pub(crate) const SPLIT_BF16_8: u64 = 4;
    pub(crate) const SPLIT_BF16_16: u64 = 5;
    pub(crate) const SPLIT_F16_8: u64 = 6;
    pub(crate) const SPLIT_F16_16: u64 = 7;
    pub(crate) const KAHAN_BF16: u64 = 8;
    pub(crate) const KAHAN_F16: u64 = 9;
    pub(crate) const DITHERED_BF16: u64 = 10;
    pub(crate) const DITHERED_F16: u64 = 11;
    pub(crate) const COMPANDED: u64 = 12;
    pub(crate) const DYNAMIC: u64 = 13;
    pub(crate) const SCALED8: u64 = 14;
    pub(crate) const SCALED4: u64 = 15;
    pub(crate) const FP8: u64 = 16;
}

/// A descriptor in a table.
pub(crate) trait TableRow {
    /// The number of chunks of all descriptors before this one.
    #[allow(dead_code, reason = "the device reads it")]
    fn first_block(&self) -> u64;
    /// Sets [`first_block`](Self::first_block).
    #[allow(dead_code, reason = "the host writes it")]
    fn set_first_block(&mut self, first: u64);
}

/// A tensor that a rule steps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TensorDesc {
    /// [`TableRow::first_block`].
    pub(crate) first: u64,
    /// Elements.
    pub(crate) len: u64,
    /// The parameter.
    pub(crate) param: u64,
    /// Its gradient.
    pub(crate) grad: u64,
    /// Its state.
    pub(crate) slots: [u64; MAX_SLOTS],
    /// The rule's constants.
    pub(crate) coefs: u64,
    /// Sums, or results computed from them.
    pub(crate) sums: u64,
    /// Counters of the blocks of sums.
    pub(crate) counters: u64,
    /// Where both sums over the tensor go; 0 to complete the constants by them.
    pub(crate) totals: u64,
    /// Where completed constants are copied to; 0 for nowhere.
    pub(crate) persist: u64,
    /// For a factored rule: factors of the rows, factors of the columns, and the mean of each batch. Other
    /// kernels document their use.
    pub(crate) factors: [u64; 3],
    /// Rows of a matrix.
    pub(crate) height: u64,
    /// Columns of a matrix.
    pub(crate) width: u64,
    /// The `f64` by which the gradient is multiplied when it is loaded; 0 for none.
    pub(crate) grad_scale: u64,
}

/// Matrices whose squares are summed along rows and columns, for row and column state.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SquaresDesc {
    /// [`TableRow::first_block`].
    pub(crate) first: u64,
    /// Matrices, and the rows and columns of one.
    pub(crate) batches: u64,
    pub(crate) height: u64,
    pub(crate) width: u64,
    /// Their elements.
    pub(crate) grad: u64,
    /// The rule's constants.
    pub(crate) coefs: u64,
    /// The state of rows and of columns; 0 without elements.
    pub(crate) states: [u64; 2],
    /// Results: the new state of the rows, the factors of the columns, and the mean of each matrix's rows.
    pub(crate) factors: [u64; 3],
    /// Sums of the parts of rows, of those of columns level by level, and of blocks of rows.
    pub(crate) parts: [u64; 3],
    /// Counters of the same, and of the tiles in a block of rows.
    pub(crate) counters: [u64; 4],
    /// For each matrix: the values and the counters of the blocks of its rows.
    pub(crate) strides: [u64; 2],
}

/// Values to reduce: `segments` segments of `len` rows of `width` values.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FoldDesc {
    /// [`TableRow::first_block`].
    pub(crate) first: u64,
    /// The length of a segment.
    pub(crate) len: u64,
    /// The number of segments.
    pub(crate) segments: u64,
    /// The number of columns, which are reduced separately.
    pub(crate) width: u64,
    /// The values.
    pub(crate) from: u64,
    /// The results of each block.
    pub(crate) to: u64,
}

/// A tensor to convert between its storage and unquantized elements of the compute type.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CodecDesc {
    /// [`TableRow::first_block`].
    pub(crate) first: u64,
    /// Elements, or blocks for block-wise storage.
    pub(crate) items: u64,
    /// Elements.
    pub(crate) len: u64,
    /// Elements or codes.
    pub(crate) main: u64,
    /// Corrections, scales or random bits that go with them.
    pub(crate) side: u64,
    /// The unquantized elements.
    pub(crate) plain: u64,
    /// Parameters of the storage; for a gradient, the address of its scale.
    pub(crate) with: [u64; 2],
}

/// A tensor in its storage.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// Its [`kind`].
    pub(crate) kind: u64,
    /// As in [`CodecDesc`], and the bits of an element.
    pub(crate) main: u64,
    pub(crate) main_bits: u64,
    /// As in [`CodecDesc`], and the bits of an element; 0 if there is none for each.
    pub(crate) side: u64,
    pub(crate) side_bits: u64,
    /// Elements of a block, a power of two from 32 to [`UNIT`]; 0 without blocks.
    pub(crate) block: u64,
    /// As in [`CodecDesc`].
    pub(crate) with: [u64; 2],
}

/// The tensors of a rule of up to [`MAX_SLOTS`] slots.
pub(crate) const MAX_PLACES: usize = MAX_SLOTS + 2;

/// A tensor that a rule steps, each part of it in its own storage.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EncodedDesc {
    /// [`TableRow::first_block`].
    pub(crate) first: u64,
    /// Elements.
    pub(crate) len: u64,
    /// The rule's constants.
    pub(crate) coefs: u64,
    /// As in [`TensorDesc`].
    pub(crate) grad_scale: u64,
    pub(crate) sums: u64,
    pub(crate) counters: u64,
    pub(crate) persist: u64,
    /// The gradient, the parameter, and the state.
    pub(crate) places: [Place; MAX_PLACES],
}

/// A gradient to modify.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GradientDesc {
    /// [`TableRow::first_block`].
    pub(crate) first: u64,
    /// Elements.
    pub(crate) len: u64,
    /// The gradient.
    pub(crate) to: u64,
    /// A second operand of the same length; 0 for none.
    pub(crate) from: u64,
    /// The bits of a limit, factor or magnitude, or the address of a factor.
    pub(crate) number: u64,
    /// Counts, which the kernels document.
    pub(crate) counts: [u64; 3],
}

/// A matrix product, and what is made of it. Element (i, j) of a factor is at index `i · strides[0] + j · strides[1]`; the
/// product is row-major.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProductDesc {
    /// [`TableRow::first_block`].
    pub(crate) first: u64,
    /// Rows of the product.
    pub(crate) rows: u64,
    /// Columns of the first factor, rows of the second.
    pub(crate) depth: u64,
    /// Columns of the product.
    pub(crate) cols: u64,
    /// The factors.
    pub(crate) factors: [u64; 2],
    /// Their strides.
    pub(crate) strides: [[u64; 2]; 2],
    /// The product.
    pub(crate) to: u64,
    /// The rule's constants, and a matrix of the product's shape, where it goes on with them; else 0.
    pub(crate) coefs: u64,
    pub(crate) beside: u64,
}

/// Two matrices whose squares are summed by channel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ChannelDesc {
    /// [`TableRow::first_block`].
    pub(crate) first: u64,
    /// Elements of a channel.
    pub(crate) len: u64,
    /// The distance from one channel to the next.
    pub(crate) start: u64,
    /// The distance from one element to the next.
    pub(crate) stride: u64,
    /// The elements: directions, and the projected gradient.
    pub(crate) from: [u64; 2],
    /// The factors of the channels.
    pub(crate) to: u64,
    /// Sums of blocks and their counters, and how many of them a channel has.
    pub(crate) sums: u64,
    pub(crate) counters: u64,
    pub(crate) strides: [u64; 2],
}

/// A gradient that APOLLO scales by channel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ApolloDesc {
    /// [`TableRow::first_block`].
    pub(crate) first: u64,
    /// Elements.
    pub(crate) len: u64,
    /// Columns.
    pub(crate) cols: u64,
    /// The gradient.
    pub(crate) grad: u64,
    /// The factors of the channels.
    pub(crate) factors: u64,
    /// The number of channels.
    pub(crate) count: u64,
    /// Whether channels are columns.
    pub(crate) by_column: u64,
    /// The bits of the square root of the scale.
    pub(crate) root: u64,
    /// Whether that is applied before the limiter.
    pub(crate) front: u64,
    /// Two `f64`: the norm to keep for the next step, and the limiter; 0 without a limiter.
    pub(crate) cell: u64,
    /// Whether a norm has been kept before.
    pub(crate) seen: u64,
    /// Sums, or directions.
    pub(crate) to: u64,
    /// Counters of the blocks of sums.
    pub(crate) counters: u64,
}

/// Values to compute a norm of, or partial results.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NormDesc {
    /// [`TableRow::first_block`].
    pub(crate) first: u64,
    /// The number of values.
    pub(crate) len: u64,
    /// The values, or their partial results.
    pub(crate) from: u64,
    /// The result.
    pub(crate) to: u64,
    /// The bits of the order, or of a limit.
    pub(crate) number: u64,
    /// The bits of the norm to clip to.
    pub(crate) most: u64,
    /// Whether `to` is of `f64`.
    pub(crate) wide: u64,
}

macro_rules! rows {
    ($($row:ty),*) => {$(
        impl TableRow for $row {
            fn first_block(&self) -> u64 {
                self.first
            }
            fn set_first_block(&mut self, first: u64) {
                self.first = first;
            }
        }
    )*};
}
rows!(
    TensorDesc,
    SquaresDesc,
    FoldDesc,
    CodecDesc,
    EncodedDesc,
    GradientDesc,
    ProductDesc,
    ChannelDesc,
    ApolloDesc,
    NormDesc
);
