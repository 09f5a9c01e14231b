//! Newton-Schulz rules, and products of matrices.

use crate::Error;
use crate::job::ParamJob;
use crate::kernel_spec::NewtonSchulzKernels;
use crate::plan::{Granularity, LaunchPlan, name, no_kernel, phase, wide};
use crate::table::{CHUNK, ProductDesc, TILE, TILES, TensorDesc};
use bitstep::float::Dtype;

const BEGIN: u32 = phase::APPLY + 1;
const SQUARES: u32 = BEGIN + 1;
const DIVIDE: u32 = SQUARES + 1;
/// The first of the launches of an iteration.
const ITERATION: u32 = DIVIDE + 1;
const LAUNCHES: u32 = 3;
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
        let [mut x, mut next] = [self.alloc_scratch(len, of), self.alloc_scratch(len, of)];
        let [gram, square] =
            [self.alloc_scratch(short * short, of), self.alloc_scratch(short * short, of)];
        desc.factors = [x, 0, 0];
        let kernel = |what: &str| format!("{}_{what}_{}", kernels.stem(), name(compute));

        self.launch_per_block(BEGIN, kernel("begin"), len, TensorDesc { ..desc });
        let blocks = len.div_ceil(CHUNK);
        let ([sums, counters], _) = self.partials(of, [1, 1, blocks]);
        let with_norm = TensorDesc { sums, counters, totals: self.alloc_scratch(1, of), ..desc };
        let squares = format!("squares_{}", name(of));
        self.launch(SQUARES, squares, Granularity::Warp, [blocks, len], with_norm);
        self.launch_per_block(DIVIDE, kernel("divide"), len, with_norm);
        for iteration in 0..iterations as u32 {
            let phase = ITERATION + iteration * LAUNCHES;
            let wide = (x, [long, 1]);
            let transposed = (x, [1, long]);
            let product = Product {
                phase,
                kernel: kernel("gram"),
                dims: [short, long, short],
                factors: [wide, transposed],
                to: gram,
                with: [coefs, 0],
            };
            self.product_by(product);
            let product = Product {
                phase: phase + 1,
                kernel: kernel("mix"),
                dims: [short, short, short],
                factors: [(gram, [short, 1]); 2],
                to: square,
                with: [coefs, gram],
            };
            self.product_by(product);
            let product = Product {
                phase: phase + 2,
                kernel: kernel("next"),
                dims: [short, short, long],
                factors: [(square, [short, 1]), wide],
                to: next,
                with: [coefs, x],
            };
            self.product_by(product);
            (x, next) = (next, x);
        }
        desc.factors = [x, 0, 0];
        self.launch_per_block(APPLY, kernel("orthogonal_apply"), len, desc);
        self.add_conversions(conversions);
        Ok(())
    }

    /// A product of matrices of `[rows, depth, cols]`, rounded to the type of its factors.
    pub(crate) fn product(
        &mut self,
        phase: u32,
        of: Dtype,
        dims: [u64; 3],
        factors: [DeviceMatrix; 2],
        to: u64,
    ) {
        let kernel = format!("product_{}", name(of));
        self.product_by(Product { phase, kernel, dims, factors, to, with: [0; 2] });
    }

    fn product_by(&mut self, product: Product) {
        let Product { phase, kernel, dims: [rows, depth, cols], factors: [a, b], to, with } =
            product;
        let tiles = rows.div_ceil(TILE) * cols.div_ceil(TILE);
        let (factors, strides, [coefs, beside]) = ([a.0, b.0], [a.1, b.1], with);
        let desc = ProductDesc { first: 0, rows, depth, cols, factors, strides, to, coefs, beside };
        let chunks = [tiles.div_ceil(TILES), tiles.min(TILES)];
        self.launch(phase, kernel, Granularity::Block, chunks, desc);
    }
}

/// A launch of a product of matrices.
struct Product {
    phase: u32,
    kernel: String,
    /// `[rows, depth, cols]`
    dims: [u64; 3],
    factors: [DeviceMatrix; 2],
    to: u64,
    /// What the kernel goes on with: constants, and a matrix.
    with: [u64; 2],
}
