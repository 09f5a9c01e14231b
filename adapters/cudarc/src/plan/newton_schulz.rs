//! Rules that follow an orthogonal matrix, and products.

use crate::Error;
use crate::job::ParamJob;
use crate::kernel_spec::NewtonSchulzKernels;
use crate::plan::{Granularity, LaunchPlan, name, no_kernel, phase, wide};
use crate::table::{CHUNK, ProductDesc, TILE, TILES, TensorDesc};
use bitstep::float::Dtype;

const BEGIN: u32 = phase::APPLY + 1;
const SQUARES: u32 = BEGIN + 1;
const FOLD: u32 = SQUARES + 1;
const DIVIDE: u32 = FOLD + 10;
/// The first of the launches of a round.
const ROUND: u32 = DIVIDE + 1;
const LAUNCHES: u32 = 6;
const APPLY: u32 = phase::NARROW - 1;

/// A matrix: where it is, and its strides.
pub(crate) type View = (u64, [u64; 2]);

impl LaunchPlan {
    pub(crate) fn orthogonal<E>(
        &mut self,
        typed: &dyn NewtonSchulzKernels,
        rounds: u64,
        job: &ParamJob<'_>,
    ) -> Result<(), Error<E>> {
        let &[rows, cols] = job.shape else { return Err(no_kernel(job.rule)) };
        let compute = job.policy.compute(job.param.dtype());
        let coefs = typed.coefs(job.rule, compute, &job.step, [rows, cols]);
        let coefs = self.push(&coefs.ok_or_else(|| no_kernel(job.rule))?);
        let [height, width] = [rows, cols].map(|d| d as u64);
        let (short, long, len) = (height.min(width), height.max(width), height * width);
        let mut moves = Vec::new();
        let mut row = TensorDesc { len, coefs, height, width, ..TensorDesc::default() };
        row.param = self.open(&mut moves, compute, &job.param, len, true)?;
        row.grad = self.gradient(&mut moves, compute, job, len);
        if let Some(Some(slot)) = job.slots.first() {
            row.slots[0] = self.open(&mut moves, compute, slot, len, true)?;
        }
        let of = wide(compute);
        let [x, next] = [self.alloc_scratch(len, of), self.alloc_scratch(len, of)];
        let [gram, square] =
            [self.alloc_scratch(short * short, of), self.alloc_scratch(short * short, of)];
        row.factors = [x, gram, square];
        let kernel = |what: &str| format!("{}_{what}_{}", typed.stem(), name(compute));

        self.launch_per_block(BEGIN, kernel("begin"), len, TensorDesc { ..row });
        let blocks = len.div_ceil(CHUNK);
        let sums = self.alloc_scratch(blocks, of);
        let squares = format!("squares_{}", name(of));
        self.launch(SQUARES, squares, Granularity::Warp, [blocks, len], TensorDesc { sums, ..row });
        let sums = self.fold(FOLD, of, 1, blocks, sums);
        self.launch_per_block(DIVIDE, kernel("divide"), len, TensorDesc { sums, ..row });
        for round in 0..rounds as u32 {
            let phase = ROUND + round * LAUNCHES;
            let turned = (x, [1, long]);
            self.product(phase, of, [short, long, short], [(x, [long, 1]), turned], gram);
            self.launch_per_block(
                phase + 1,
                kernel("gram"),
                short * short,
                TensorDesc { len: short * short, ..row },
            );
            let grams = [(gram, [short, 1]); 2];
            self.product(phase + 2, of, [short, short, short], grams, square);
            let line = TensorDesc { len: short * short, ..row };
            self.launch_per_block(phase + 3, kernel("mix"), short * short, line);
            let factors = [(square, [short, 1]), (x, [long, 1])];
            self.product(phase + 4, of, [short, short, long], factors, next);
            self.launch_per_block(
                phase + 5,
                kernel("next"),
                len,
                TensorDesc { factors: [x, next, 0], ..row },
            );
        }
        self.launch_per_block(APPLY, kernel("orthogonal_apply"), len, row);
        self.moved(moves);
        Ok(())
    }

    /// A product of matrices, rounded to the type of its factors: rows, depth and columns.
    pub(crate) fn product(
        &mut self,
        phase: u32,
        of: Dtype,
        [rows, depth, cols]: [u64; 3],
        [a, b]: [View; 2],
        to: u64,
    ) {
        let tiles = rows.div_ceil(TILE) * cols.div_ceil(TILE);
        let (factors, strides) = ([a.0, b.0], [a.1, b.1]);
        let line = ProductDesc { first: 0, rows, depth, cols, factors, strides, to };
        let chunks = [tiles.div_ceil(TILES), tiles.min(TILES)];
        self.launch(phase, format!("product_{}", name(of)), Granularity::Block, chunks, line);
    }
}
