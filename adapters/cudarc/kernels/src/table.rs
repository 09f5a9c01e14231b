//! What host and device agree on; both compile this file. Addresses are the device's, 0 where
//! there is nothing. A launch gets a table of tensors; the work is numbered through, in chunks,
//! over all of them.

/// The most slots that a rule may have.
pub(crate) const MAX_SLOTS: usize = 6;
/// Items in a chunk: a block of [`bitstep::reduce`].
pub(crate) const CHUNK: u64 = 1024;
/// Rows of a sum down columns that one thread adds: a block of [`bitstep::reduce`].
pub(crate) const ROWS: u64 = 32;

/// A line of a table.
pub(crate) trait Line {
    /// The number of chunks of all lines before this one.
    #[allow(dead_code, reason = "the device reads it")]
    fn first(&self) -> u64;
    /// Sets it.
    #[allow(dead_code, reason = "the host writes it")]
    fn set_first(&mut self, first: u64);
}

/// A tensor that a rule steps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Row {
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
}

/// Numbers to be summed: `segments` times `len`, each `width` wide.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fold {
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
pub(crate) struct Move {
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
pub(crate) struct Gradient {
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

impl Line for Gradient {
    fn first(&self) -> u64 {
        self.first
    }
    fn set_first(&mut self, first: u64) {
        self.first = first;
    }
}

impl Line for Row {
    fn first(&self) -> u64 {
        self.first
    }
    fn set_first(&mut self, first: u64) {
        self.first = first;
    }
}

impl Line for Fold {
    fn first(&self) -> u64 {
        self.first
    }
    fn set_first(&mut self, first: u64) {
        self.first = first;
    }
}

impl Line for Move {
    fn first(&self) -> u64 {
        self.first
    }
    fn set_first(&mut self, first: u64) {
        self.first = first;
    }
}
