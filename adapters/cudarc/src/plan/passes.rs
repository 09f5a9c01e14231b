//! Launches over several levels: reductions, and the passes of factored rules.

use bitstep::float::Dtype;
use bitstep::rule::factored::MatrixLayout;

use crate::Error;
use crate::device_storage::{Conversions, DeviceStorage};
use crate::kernel_spec::KernelSpec;
use crate::plan::{Granularity, LaunchPlan, name, phase, wide};
use crate::table::{CHUNK, FoldDesc, ROWS, SquaresDesc, TensorDesc};

impl LaunchPlan {
    /// Room for `numbers` results of each of `count` chunks, and of each block of them level by level, in each of
    /// `segments`; and for counters. Returns the addresses of both, and how many of both a segment has.
    pub(crate) fn partials(
        &mut self,
        of: Dtype,
        [segments, numbers, count]: [u64; 3],
    ) -> ([u64; 2], [u64; 2]) {
        let (mut values, mut counters, mut left) = (0, 0, count);
        while left > 1 {
            values += numbers * left;
            left = left.div_ceil(CHUNK);
            counters += left;
        }
        let at =
            [self.alloc_scratch(segments * values, of), self.push_counters(segments * counters)];
        (at, [values, counters])
    }

    /// Counters that are 0; returns their address.
    fn push_counters(&mut self, count: u64) -> u64 {
        self.push(&vec![0; count as usize * size_of::<u32>()])
    }

    /// Both sums over a tensor with at least one element, which complete its constants or go to `totals`.
    pub(crate) fn sums(&mut self, kernel: String, compute: Dtype, desc: &TensorDesc) {
        let blocks = desc.len.div_ceil(CHUNK);
        let ([sums, counters], _) = self.partials(wide(compute), [1, 2, blocks]);
        let desc = TensorDesc { sums, counters, ..*desc };
        self.launch(phase::SUMS, kernel, Granularity::Warp, [blocks, desc.len], desc);
    }

    /// Sums each of `segments` segments of `len` values; returns the address of the sums.
    pub(crate) fn fold(
        &mut self,
        phase: u32,
        of: Dtype,
        segments: u64,
        len: u64,
        from: u64,
    ) -> u64 {
        self.fold_by("fold", phase, of, segments, len, from)
    }

    /// Reduces each segment by the kernels of a name.
    pub(crate) fn fold_by(
        &mut self,
        kernel: &str,
        phase: u32,
        of: Dtype,
        segments: u64,
        len: u64,
        from: u64,
    ) -> u64 {
        let (mut from, mut len, mut phase) = (from, len, phase);
        while len > 1 {
            let blocks = segments * len.div_ceil(CHUNK);
            let to = self.alloc_scratch(blocks, of);
            self.launch(
                phase,
                format!("{kernel}_{}", name(of)),
                Granularity::Warp,
                [blocks, len],
                FoldDesc { first: 0, len, segments, width: 1, from, to },
            );
            (from, len, phase) = (to, len.div_ceil(CHUNK), phase + 1);
        }
        from
    }

    /// The passes over rows and columns, which compute the factors of the elements.
    pub(crate) fn matrix<E>(
        &mut self,
        conversions: &mut Conversions,
        kernels: &dyn KernelSpec,
        compute: Dtype,
        layout: MatrixLayout,
        slots: &[Option<DeviceStorage>],
        desc: &mut TensorDesc,
    ) -> Result<(), Error<E>> {
        let (of, stem, suffix) = (wide(compute), kernels.stem(), name(compute));
        let [batches, height, width] = [layout.batches, layout.rows, layout.cols].map(|d| d as u64);
        (desc.height, desc.width) = (height, width);
        let (rows, cols) = (batches * height, batches * width);
        // A matrix without elements may have no state.
        let nothing = DeviceStorage::plain(compute, 0);
        let [row_state, col_state] = [kernels.slots(), kernels.slots() + 1]
            .map(|k| slots.get(k).copied().flatten().unwrap_or(nothing));
        let row_state = self.open(conversions, compute, &row_state, rows, true)?;
        let col_state = self.open(conversions, compute, &col_state, cols, true)?;

        let state = |(state, len)| if len == 0 { 0 } else { state };
        // Even without elements there is a tile, as the state is updated.
        let tiles = |len: u64, size| len.div_ceil(size).max(1);
        let (down, across) = (tiles(height, ROWS), tiles(width, CHUNK));
        // Parts of columns are added level by level, by blocks of [`ROWS`].
        let (mut parts, mut blocks, mut count) = (0, 0, down);
        while count > 1 {
            parts += count;
            count = count.div_ceil(ROWS);
            blocks += count;
        }
        let rows_of_tiles = ROWS * ROWS;
        let (blocks_of_rows, strides) =
            self.partials(of, [batches, 1, tiles(height, rows_of_tiles)]);
        let squares = SquaresDesc {
            first: 0,
            batches,
            height,
            width,
            grad: desc.grad,
            coefs: desc.coefs,
            states: [(row_state, rows), (col_state, cols)].map(state),
            factors: [rows, cols, batches].map(|count| self.alloc_scratch(count, of)),
            parts: [
                self.alloc_scratch(if across > 1 { rows * across } else { 0 }, of),
                self.alloc_scratch(parts * cols, of),
                blocks_of_rows[0],
            ],
            counters: [
                self.push_counters(batches * down),
                self.push_counters(batches * blocks * across),
                blocks_of_rows[1],
                self.push_counters(batches * tiles(height, rows_of_tiles)),
            ],
            strides,
        };
        desc.factors = squares.factors;
        let tiles = batches * down * across;
        self.launch(
            phase::SQUARES,
            format!("{stem}_squares_{suffix}"),
            Granularity::Shared,
            [tiles, tiles],
            squares,
        );
        let (factors, coefs) = (desc.factors, desc.coefs);
        self.launch_per_block(
            phase::FACTORS,
            format!("{stem}_factors_{suffix}"),
            rows,
            TensorDesc { len: rows, factors, height, coefs, ..TensorDesc::default() },
        );
        Ok(())
    }
}
