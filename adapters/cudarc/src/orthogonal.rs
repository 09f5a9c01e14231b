//! Rules that follow an orthogonal matrix, and products.

use crate::Error;
use crate::job::Job;
use crate::plan::{Plan, Share, name, no_kernel, phase, wide};
use crate::table::{CHUNK, Product, Row, TILE, TILES};
use crate::typed::TypedOrthogonal;
use bitstep::real::Dtype;

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

impl Plan {
    pub(crate) fn orthogonal<E>(
        &mut self,
        typed: &dyn TypedOrthogonal,
        rounds: u64,
        job: &Job<'_>,
    ) -> Result<(), Error<E>> {
        let &[rows, cols] = job.shape else { return Err(no_kernel(job.rule)) };
        let compute = job.arithmetic.compute(job.param.dtype());
        let coefs = typed.coefs(job.rule, compute, &job.step, [rows, cols]);
        let coefs = self.put(&coefs.ok_or_else(|| no_kernel(job.rule))?);
        let [height, width] = [rows, cols].map(|d| d as u64);
        let (short, long, len) = (height.min(width), height.max(width), height * width);
        let mut moves = Vec::new();
        let mut row = Row { len, coefs, height, width, ..Row::default() };
        row.param = self.open(&mut moves, compute, &job.param, len, true)?;
        row.grad = self.gradient(&mut moves, compute, job, len);
        if let Some(Some(slot)) = job.slots.first() {
            row.slots[0] = self.open(&mut moves, compute, slot, len, true)?;
        }
        let of = wide(compute);
        let [x, next] = [self.room(len, of), self.room(len, of)];
        let [gram, square] = [self.room(short * short, of), self.room(short * short, of)];
        row.factors = [x, gram, square];
        let kernel = |what: &str| format!("{}_{what}_{}", typed.stem(), name(compute));

        self.each(BEGIN, kernel("begin"), len, Row { ..row });
        let blocks = len.div_ceil(CHUNK);
        let sums = self.room(blocks, of);
        let squares = format!("squares_{}", name(of));
        self.add(SQUARES, squares, Share::Warp, [blocks, len], Row { sums, ..row });
        let sums = self.fold(FOLD, of, 1, blocks, sums);
        self.each(DIVIDE, kernel("divide"), len, Row { sums, ..row });
        for round in 0..rounds as u32 {
            let phase = ROUND + round * LAUNCHES;
            let turned = (x, [1, long]);
            self.product(phase, of, [short, long, short], [(x, [long, 1]), turned], gram);
            self.each(phase + 1, kernel("gram"), short * short, Row { len: short * short, ..row });
            let grams = [(gram, [short, 1]); 2];
            self.product(phase + 2, of, [short, short, short], grams, square);
            let line = Row { len: short * short, ..row };
            self.each(phase + 3, kernel("mix"), short * short, line);
            let factors = [(square, [short, 1]), (x, [long, 1])];
            self.product(phase + 4, of, [short, short, long], factors, next);
            self.each(phase + 5, kernel("next"), len, Row { factors: [x, next, 0], ..row });
        }
        self.each(APPLY, kernel("orthogonal_apply"), len, row);
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
        let line = Product { first: 0, rows, depth, cols, factors, strides, to };
        let chunks = [tiles.div_ceil(TILES), tiles.min(TILES)];
        self.add(phase, format!("product_{}", name(of)), Share::Block, chunks, line);
    }
}
