//! Newton-Schulz rules, and products of matrices.

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
/// The first of the launches of an iteration.
const ITERATION: u32 = DIVIDE + 1;
const LAUNCHES: u32 = 6;
const APPLY: u32 = phase::NARROW - 1;

/// A matrix: its address and strides.
pub(crate) type DeviceMatrix = (u64, [u64; 2]);

impl LaunchPlan {
    pub(crate) fn newton_schulz<E>(
        &mut self,
        kernels: &dyn NewtonSchulzKernels,
        iterations: u64,
        job: &ParamJob<'_>,
    ) -> Result<(), Error<E>> {
        let &[rows, cols] = job.shape else { return Err(no_kernel(job.rule)) };
        let compute = job.policy.compute(job.param.dtype());
        let coefs = kernels.coefs(job.rule, compute, &job.step, [rows, cols]);
        let coefs = self.push(&coefs.ok_or_else(|| no_kernel(job.rule))?);
        let [height, width] = [rows, cols].map(|d| d as u64);
        let (short, long, len) = (height.min(width), height.max(width), height * width);
        let mut conversions = Vec::new();
        let mut desc = TensorDesc { len, coefs, height, width, ..TensorDesc::default() };
        desc.param = self.open(&mut conversions, compute, &job.param, len, true)?;
        desc.grad = self.gradient(&mut conversions, compute, job, len);
        if let Some(Some(slot)) = job.slots.first() {
            desc.slots[0] = self.open(&mut conversions, compute, slot, len, true)?;
        }
        let of = wide(compute);
        let [x, next] = [self.alloc_scratch(len, of), self.alloc_scratch(len, of)];
        let [gram, square] =
            [self.alloc_scratch(short * short, of), self.alloc_scratch(short * short, of)];
        desc.factors = [x, gram, square];
        let kernel = |what: &str| format!("{}_{what}_{}", kernels.stem(), name(compute));

        self.launch_per_block(BEGIN, kernel("begin"), len, TensorDesc { ..desc });
        let blocks = len.div_ceil(CHUNK);
        let sums = self.alloc_scratch(blocks, of);
        let squares = format!("squares_{}", name(of));
        self.launch(
            SQUARES,
            squares,
            Granularity::Warp,
            [blocks, len],
            TensorDesc { sums, ..desc },
        );
        let sums = self.fold(FOLD, of, 1, blocks, sums);
        self.launch_per_block(DIVIDE, kernel("divide"), len, TensorDesc { sums, ..desc });
        for iteration in 0..iterations as u32 {
            let phase = ITERATION + iteration * LAUNCHES;
            let transposed = (x, [1, long]);
            self.product(phase, of, [short, long, short], [(x, [long, 1]), transposed], gram);
            self.launch_per_block(
                phase + 1,
                kernel("gram"),
                short * short,
                TensorDesc { len: short * short, ..desc },
            );
            let grams = [(gram, [short, 1]); 2];
            self.product(phase + 2, of, [short, short, short], grams, square);
            self.launch_per_block(
                phase + 3,
                kernel("mix"),
                short * short,
                TensorDesc { len: short * short, ..desc },
            );
            let factors = [(square, [short, 1]), (x, [long, 1])];
            self.product(phase + 4, of, [short, short, long], factors, next);
            self.launch_per_block(
                phase + 5,
                kernel("next"),
                len,
                TensorDesc { factors: [x, next, 0], ..desc },
            );
        }
        self.launch_per_block(APPLY, kernel("orthogonal_apply"), len, desc);
        self.add_conversions(conversions);
        Ok(())
    }

    /// A product of matrices of `[rows, depth, cols]`, rounded to the type of its factors.
    pub(crate) fn product(
        &mut self,
        phase: u32,
        of: Dtype,
        [rows, depth, cols]: [u64; 3],
        [a, b]: [DeviceMatrix; 2],
        to: u64,
    ) {
        let tiles = rows.div_ceil(TILE) * cols.div_ceil(TILE);
        let (factors, strides) = ([a.0, b.0], [a.1, b.1]);
        let desc = ProductDesc { first: 0, rows, depth, cols, factors, strides, to };
        let chunks = [tiles.div_ceil(TILES), tiles.min(TILES)];
        self.launch(phase, format!("product_{}", name(of)), Granularity::Block, chunks, desc);
    }
}
