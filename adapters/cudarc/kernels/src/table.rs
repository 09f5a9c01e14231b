//! What host and device agree on; both compile this file. Addresses are the device's, 0 where
//! there is nothing. A launch gets a table of tensors; the work is numbered through, in chunks,
//! over all of them.

/// The most slots that a rule may have.
pub(crate) const MAX_SLOTS: usize = 6;
/// Items in a chunk: a block of [`bitstep::math::reduce`].
pub(crate) const CHUNK: u64 = 1024;
/// Rows of a sum down columns that one thread adds: a block of [`bitstep::math::reduce`].
pub(crate) const ROWS: u64 = 32;

/// Tiles of a product in a chunk.
pub(crate) const TILES: u64 = 128;
/// Rows, and columns, of a tile.
pub(crate) const TILE: u64 = 4;

/// A line of a table.
pub(crate) trait TableRow {
    /// The number of chunks of all lines before this one.
    #[allow(dead_code, reason = "the device reads it")]
    fn first_block(&self) -> u64;
    /// Sets it.
    #[allow(dead_code, reason = "the host writes it")]
    fn set_first_block(&mut self, first: u64);
}

/// A tensor that a rule steps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TensorDesc {
    /// [`Line::first`].
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
    /// Sums, or what becomes of them.
    pub(crate) sums: u64,
    /// Of a matrix: factors of the rows, of the columns, and what goes with each batch.
    pub(crate) factors: [u64; 3],
    /// Rows of a matrix.
    pub(crate) height: u64,
    /// Columns of a matrix.
    pub(crate) width: u64,
    /// Where the `f64` is that the gradient is multiplied by on its way; 0 if there is none.
    pub(crate) by: u64,
}

/// Numbers to be summed: `segments` times `len`, each `width` wide.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FoldDesc {
    /// [`Line::first`].
    pub(crate) first: u64,
    /// Numbers that become one, if they are not too many.
    pub(crate) len: u64,
    /// How many times so many there are.
    pub(crate) segments: u64,
    /// Columns, each summed on its own.
    pub(crate) width: u64,
    /// The numbers.
    pub(crate) from: u64,
    /// What becomes of them.
    pub(crate) to: u64,
}

/// A tensor that moves between a storage and plain numbers of the type to compute in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CodecDesc {
    /// [`Line::first`].
    pub(crate) first: u64,
    /// Elements; of blocks, blocks.
    pub(crate) items: u64,
    /// Elements.
    pub(crate) len: u64,
    /// Numbers or codes.
    pub(crate) main: u64,
    /// What stands beside them: corrections, scales, random bits.
    pub(crate) side: u64,
    /// The plain numbers.
    pub(crate) plain: u64,
    /// What the storage has to say of itself.
    pub(crate) with: [u64; 2],
}

/// A gradient, or what is added to one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GradientDesc {
    /// [`Line::first`].
    pub(crate) first: u64,
    /// Elements.
    pub(crate) len: u64,
    /// What is changed.
    pub(crate) to: u64,
    /// What it is changed by, element by element.
    pub(crate) from: u64,
    /// The bits of a limit, a factor or a magnitude.
    pub(crate) number: u64,
    /// Whatever is counted.
    pub(crate) counts: [u64; 3],
}

/// A product of matrices: element (i, j) of a factor stands at `i · strides[0] + j · strides[1]`,
/// the product row by row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProductDesc {
    /// [`Line::first`].
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
}

/// Numbers whose squares are summed, channel by channel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ChannelDesc {
    /// [`Line::first`].
    pub(crate) first: u64,
    /// Numbers in a channel.
    pub(crate) len: u64,
    /// From one channel to the next.
    pub(crate) start: u64,
    /// From one number to the next.
    pub(crate) stride: u64,
    /// The numbers.
    pub(crate) from: u64,
    /// The sums of blocks, channel by channel.
    pub(crate) to: u64,
}

/// A gradient that is scaled by channels.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ApolloDesc {
    /// [`Line::first`].
    pub(crate) first: u64,
    /// Elements.
    pub(crate) len: u64,
    /// Columns.
    pub(crate) cols: u64,
    /// The gradient.
    pub(crate) grad: u64,
    /// The channels' factors.
    pub(crate) factors: u64,
    /// How many.
    pub(crate) count: u64,
    /// Whether they belong to columns.
    pub(crate) by_column: u64,
    /// The bits of the root of the scale.
    pub(crate) root: u64,
    /// Whether it comes first.
    pub(crate) front: u64,
    /// The norm to remember, and the limiter; 0 if there is none.
    pub(crate) cell: u64,
    /// Whether there is a norm to remember already.
    pub(crate) seen: u64,
    /// Sums, or directions.
    pub(crate) to: u64,
}

/// Numbers that a norm is taken of, or what has been found of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NormDesc {
    /// [`Line::first`].
    pub(crate) first: u64,
    /// Numbers.
    pub(crate) len: u64,
    /// The numbers, or what they make together.
    pub(crate) from: u64,
    /// What becomes of them.
    pub(crate) to: u64,
    /// The bits of the order, or of a limit.
    pub(crate) number: u64,
    /// The bits of the largest norm that is let through.
    pub(crate) most: u64,
    /// Whether `to` is of `f64`.
    pub(crate) wide: u64,
}

macro_rules! lines {
    ($($line:ty),*) => {$(
        impl TableRow for $line {
            fn first_block(&self) -> u64 {
                self.first
            }
            fn set_first_block(&mut self, first: u64) {
                self.first = first;
            }
        }
    )*};
}
lines!(
    TensorDesc,
    FoldDesc,
    CodecDesc,
    GradientDesc,
    ProductDesc,
    ChannelDesc,
    ApolloDesc,
    NormDesc
);
