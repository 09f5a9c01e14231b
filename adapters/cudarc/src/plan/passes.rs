//! Launches over several levels: reductions, and the passes of factored rules.

use bitstep::float::Dtype;
use bitstep::rule::factored::MatrixLayout;

use crate::Error;
use crate::device_storage::{Conversions, DeviceStorage};
use crate::kernel_spec::KernelSpec;
use crate::plan::{Granularity, LaunchPlan, name, phase, wide};
use crate::table::{CHUNK, FoldDesc, ROWS, TensorDesc};

impl LaunchPlan {
    /// Both sums over a tensor with at least one element; returns their address.
    pub(crate) fn sums(&mut self, kernel: String, compute: Dtype, desc: &TensorDesc) -> u64 {
        let (wide, blocks) = (wide(compute), desc.len.div_ceil(CHUNK));
        let sums = self.alloc_scratch(2 * blocks, wide);
        self.launch(
            phase::SUMS,
            kernel,
            Granularity::Warp,
            [blocks, desc.len],
            TensorDesc { sums, ..*desc },
        );
        self.fold(phase::FOLD_SUMS, wide, 2, blocks, sums)
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
            self.fold_once(kernel, phase, of, segments, len, from, to);
            (from, len, phase) = (to, len.div_ceil(CHUNK), phase + 1);
        }
        from
    }

    #[expect(clippy::too_many_arguments, reason = "a descriptor has that many parts")]
    pub(crate) fn fold_once(
        &mut self,
        kernel: &str,
        phase: u32,
        of: Dtype,
        segments: u64,
        len: u64,
        from: u64,
        to: u64,
    ) {
        let blocks = segments * len.div_ceil(CHUNK);
        let kernel = format!("{kernel}_{}", name(of));
        self.launch(
            phase,
            kernel,
            Granularity::Warp,
            [blocks, len],
            FoldDesc { first: 0, len, segments, width: 1, from, to },
        );
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

        let chunks_per_row = width.div_ceil(CHUNK);
        let row_sums = if width == 0 {
            self.push_zeros(rows, of)
        } else {
            let to = self.alloc_scratch(rows * chunks_per_row, of);
            let kernel = format!("{stem}_rows_{suffix}");
            self.launch(
                phase::SQUARES,
                kernel,
                Granularity::Warp,
                [rows * chunks_per_row, width],
                TensorDesc { sums: to, ..*desc },
            );
            self.fold(phase::FOLD_SQUARES, of, rows, chunks_per_row, to)
        };
        let chunks_per_col = height.div_ceil(ROWS);
        let col_sums = if height == 0 {
            self.push_zeros(cols, of)
        } else {
            let mut from = self.alloc_scratch(cols * chunks_per_col, of);
            let kernel = format!("{stem}_cols_{suffix}");
            self.launch_per_block(
                phase::SQUARES,
                kernel,
                cols * chunks_per_col,
                TensorDesc { sums: from, ..*desc },
            );
            let (mut len, mut phase) = (chunks_per_col, phase::FOLD_SQUARES);
            while len > 1 {
                let items = cols * len.div_ceil(ROWS);
                let to = self.alloc_scratch(items, of);
                self.launch_per_block(
                    phase,
                    format!("columns_{}", name(of)),
                    items,
                    FoldDesc { first: 0, len, segments: batches, width, from, to },
                );
                (from, len, phase) = (to, len.div_ceil(ROWS), phase + 1);
            }
            from
        };
        let coefs = desc.coefs;
        self.launch_per_block(
            phase::TRACK,
            format!("{stem}_track_rows_{suffix}"),
            rows,
            TensorDesc {
                len: rows,
                param: row_state,
                sums: row_sums,
                width,
                coefs,
                ..TensorDesc::default()
            },
        );
        self.launch_per_block(
            phase::TRACK,
            format!("{stem}_track_cols_{suffix}"),
            cols,
            TensorDesc {
                len: cols,
                param: col_state,
                sums: col_sums,
                width: height,
                coefs,
                ..TensorDesc::default()
            },
        );
        // At least one level, even for a single value: `sums` must not be `row_sums`, which the factors overwrite.
        let blocks = height.div_ceil(CHUNK);
        let to = self.alloc_scratch(batches * blocks, of);
        self.fold_once("fold", phase::FOLD_ROWS, of, batches, height, row_sums, to);
        let sums = self.fold(phase::FOLD_ROWS + 1, of, batches, blocks, to);
        desc.factors = [row_sums, col_sums, self.alloc_scratch(batches, of)];
        let factors = desc.factors;
        self.launch_per_block(
            phase::FACTORS,
            format!("{stem}_factors_{suffix}"),
            rows,
            TensorDesc { len: rows, sums, factors, height, coefs, ..TensorDesc::default() },
        );
        Ok(())
    }
}
