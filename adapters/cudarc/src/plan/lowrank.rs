//! Rules on projected gradients.

use bitstep::float::Dtype;
use bitstep::lowrank::{Apollo, Channels, ProjectionShape as Shapes, ProjectorKind, Side};
use bitstep::optimizer::Buffer;
use bitstep::rule::StepContext;
use bitstep::rule::factored::MatrixLayout;
use bitstep::storage::StorageFormat;

use crate::bytes::{bytes, multiply, read};
use crate::device_storage::DeviceStorage;
use crate::job::ParamJob;
use crate::kernel_spec::{LowRankParts, Shape, low_rank_parts};
use crate::plan::newton_schulz::View;
use crate::plan::{Granularity, LaunchPlan, Readback, ReadbackKind, name, no_kernel, phase, wide};
use crate::table::{ApolloDesc, CHUNK, ChannelDesc, CodecDesc, TensorDesc};
use crate::{Device, Error};

// Between the gradient's being there and the inner rule.
const PROJECT: u32 = phase::WIDEN + 1;
const PROJECT_AGAIN: u32 = PROJECT + 1;
const TO_OWN: u32 = PROJECT + 2;
// Between the inner rule and the parameter's being stored.
const FROM_OWN: u32 = phase::APPLY + 1;
const BACK: u32 = FROM_OWN + 1;
const BACK_AGAIN: u32 = BACK + 1;
const FOLD_CHANNELS: u32 = BACK + 10;
const FACTORS: u32 = BACK + 30;
const LENGTH: u32 = BACK + 31;
const FOLD_LENGTH: u32 = BACK + 32;
const LIMIT: u32 = BACK + 50;
const DIRECTIONS: u32 = BACK + 51;
const FOLLOW: u32 = BACK + 52;

/// Renews a job's projectors, if this step is the time: on the host, from a gradient that is read
/// back if singular vectors are expected.
pub(crate) fn renew<D: Device>(
    device: &mut D,
    job: &mut ParamJob<'_>,
) -> Result<(), Error<D::Error>> {
    let Some(low) = low_rank_parts(job.rule) else { return Ok(()) };
    let Some(from) = low.whole.refresh_due(&job.step) else { return Ok(()) };
    let len = match from {
        ProjectorKind::Svd => job.shape.iter().product(),
        ProjectorKind::Random | ProjectorKind::Rademacher => 0,
    };
    let mut grad = Buffer::zeros(job.grad.0, len)?;
    read(device, job.grad.1, &mut grad).map_err(Error::Device)?;
    multiply(device, job.grad_scale, &mut grad).map_err(Error::Device)?;
    let dims = low.projection.shape_of(job.shape).map_or([None; 3], |plan| plan.projector_lens());
    let mut places = [0; 3];
    let mut buffers = Vec::new();
    let keys = low.inner.info().slots.len();
    for ((to, dims), slot) in places.iter_mut().zip(dims).zip(job.slots.iter().skip(keys)) {
        let dtype = match slot {
            Some(DeviceStorage::At(StorageFormat::Plain(dtype), at, _)) => {
                *to = *at;
                *dtype
            }
            None => Dtype::F32,
            Some(other) => return Err(Error::NoKernel(format!("a projector as {other:?}"))),
        };
        buffers.push(Buffer::zeros(dtype, dims.map_or(0, |[a, b]| a * b))?);
    }
    let mut views: Vec<_> = buffers.iter_mut().map(Buffer::data_mut).collect();
    let (of, step) =
        ((job.policy, job.param.dtype()), StepContext { shape: job.shape, ..job.step });
    if let Some(grad) = grad.data() {
        low.whole.refresh(of, &step, job.scalars, grad, &mut views)?;
    }
    drop(views);
    for (at, buffer) in places.into_iter().zip(&buffers).filter(|(_, b)| !b.is_empty()) {
        device.write(at, &bytes(buffer)).map_err(Error::Device)?;
    }
    Ok(())
}

/// A matrix on its way.
struct ProjectionBuffers<'a> {
    shapes: Shapes,
    compute: Dtype,
    /// Its gradient.
    grad: u64,
    /// The projectors, where there are any.
    left: u64,
    right: u64,
    projected: u64,
    direction: u64,
    low: &'a LowRankParts<'a>,
}

impl LaunchPlan {
    pub(crate) fn projected<E>(
        &mut self,
        index: usize,
        job: &ParamJob<'_>,
        low: &LowRankParts<'_>,
    ) -> Result<(), Error<E>> {
        let none = || no_kernel(job.rule);
        let shapes = low.projection.shape_of(job.shape).ok_or_else(none)?;
        let compute = job.policy.compute(job.param.dtype());
        let own = if low.is_single_precision { Dtype::F32 } else { compute };
        let size = |[a, b]: [usize; 2]| (a * b) as u64;
        let (small, len) = (size(shapes.low_rank_shape()), size([shapes.rows, shapes.cols]));
        let keys = low.inner.info().slots.len();
        let (slots, projectors) = job.slots.split_at_checked(keys).ok_or_else(none)?;
        let mut moves = Vec::new();
        let param = self.open(&mut moves, compute, &job.param, len, true)?;
        let grad = self.gradient(&mut moves, compute, job, len);
        let mut open = |which: usize| {
            let dims = shapes.projector_lens().get(which).copied().flatten();
            match (dims, projectors.get(which)) {
                (Some(dims), Some(Some(place))) => {
                    self.open(&mut moves, compute, place, size(dims), false)
                }
                _ => Ok(0),
            }
        };
        let (left, right) = match shapes.side {
            Side::Right => (0, open(0)?),
            Side::Left => (open(0)?, 0),
            Side::Both => (open(1)?, open(2)?),
        };
        let projected = self.alloc_scratch(small, compute);
        let direction = self.alloc_scratch(small, compute);
        let way =
            ProjectionBuffers { shapes, compute, grad, left, right, projected, direction, low };
        self.project(&way);

        // The inner rule, over zeros.
        let mut row =
            TensorDesc { len: small, param: direction, grad: projected, ..TensorDesc::default() };
        if own != compute {
            (row.param, row.grad) =
                (self.alloc_scratch(small, own), self.alloc_scratch(small, own));
            self.convert(TO_OWN, [compute, own], [projected, row.grad], small);
        }
        let words = (small * own.size() as u64).div_ceil(8);
        let zeros = TensorDesc { len: words, param: row.param, ..TensorDesc::default() };
        self.launch_per_block(PROJECT, "clear".to_owned(), words, zeros);
        let dims = shapes.low_rank_shape();
        let step = StepContext { shape: &dims, projected: Some(len as usize), ..job.step };
        let (typed, mut coefs, at) = self.constants(low.inner, own, &step, job.scalars)?;
        row.coefs = at;
        let known = if low.is_single_precision {
            self.constants(low.inner, compute, &step, job.scalars)?.2
        } else {
            at
        };
        for (to, slot) in row.slots.iter_mut().zip(slots.iter().take(typed.slots())) {
            if let Some(slot) = slot {
                *to = self.open(&mut moves, own, slot, small, true)?;
            }
        }
        let (stem, suffix) = (typed.stem(), name(own));
        let matrix = typed.shape() == Shape::Matrix;
        if let Some(layout) = MatrixLayout::of(&dims).filter(|_| matrix) {
            self.matrix(&mut moves, typed, own, layout, slots, &mut row)?;
        }
        let sums = typed.needs_sums(low.inner).ok_or_else(none)?;
        if sums && len == 0 {
            typed.finish_empty(own, &mut coefs);
        }
        let sums = sums && len > 0;
        if sums {
            let kernel = if matrix { "scaled_sums" } else { "sums" };
            let of_low = match small {
                0 => 0,
                _ => self.sums(format!("{stem}_{kernel}_{suffix}"), own, &row),
            };
            let of_param = if typed.sums_param() {
                let param = match own == compute {
                    true => param,
                    false => self.open(&mut moves, own, &job.param, len, false)?,
                };
                let line = TensorDesc { len, param, coefs: at, ..TensorDesc::default() };
                self.sums(format!("{stem}_param_sums_{suffix}"), own, &line)
            } else {
                0
            };
            let line = TensorDesc { len: small, coefs: at, sums: of_low, ..TensorDesc::default() };
            let line = TensorDesc { factors: [of_param, 0, 0], width: len, ..line };
            let kernel = format!("{stem}_finish_low_{suffix}");
            self.launch(phase::FINISH, kernel, Granularity::Block, [1, 1], line);
        }
        let kernel = if matrix { "scaled_apply" } else { "direct" };
        let line = row;
        self.launch_per_block(phase::APPLY, format!("{stem}_{kernel}_{suffix}"), small, line);
        self.read_back(index, job, (typed, own), (at, coefs), sums);
        if own != compute {
            self.convert(FROM_OWN, [own, compute], [row.param, direction], small);
        }

        let grad = match &low.scales {
            None => self.bring_back(&way),
            Some(apollo) => self.scale(index, job, &way, apollo),
        };
        let line = TensorDesc { len, param, grad, coefs: known, ..TensorDesc::default() };
        self.launch_per_block(FOLLOW, format!("{stem}_follow_{}", name(compute)), len, line);
        self.moved(moves);
        Ok(())
    }

    /// Copies plain numbers, from type to type.
    fn convert(&mut self, phase: u32, types: [Dtype; 2], [main, plain]: [u64; 2], len: u64) {
        let kernel = format!("load_{}_{}", name(types[0]), name(types[1]));
        self.launch_per_block(
            phase,
            kernel,
            len,
            CodecDesc { items: len, len, main, plain, ..CodecDesc::default() },
        );
    }

    fn project(&mut self, way: &ProjectionBuffers<'_>) {
        let Shapes { rows, cols, side, .. } = way.shapes;
        let [rows, cols, inner] = [rows, cols, way.shapes.intermediate_len()].map(|d| d as u64);
        let whole: View = (way.grad, [cols, 1]);
        let (p, q): (View, View) = ((way.left, [1, inner]), (way.right, [1, cols]));
        let (of, to) = (way.compute, way.projected);
        match side {
            Side::Right => self.product(PROJECT, of, [rows, cols, inner], [whole, q], to),
            Side::Left => self.product(PROJECT, of, [inner, rows, cols], [p, whole], to),
            Side::Both => {
                let between = self.alloc_scratch(inner * cols, of);
                self.product(PROJECT, of, [inner, rows, cols], [p, whole], between);
                let factors = [(between, [cols, 1]), q];
                self.product(PROJECT_AGAIN, of, [inner, cols, inner], factors, to);
            }
        }
    }

    /// Directions, brought back and scaled.
    fn bring_back(&mut self, way: &ProjectionBuffers<'_>) -> u64 {
        let Shapes { rows, cols, side, .. } = way.shapes;
        let [rows, cols, inner] = [rows, cols, way.shapes.intermediate_len()].map(|d| d as u64);
        let (of, len) = (way.compute, rows * cols);
        let (tall, wide) = match side {
            Side::Right => (way.direction, way.right),
            Side::Left => (way.left, way.direction),
            Side::Both => {
                let between = self.alloc_scratch(rows * inner, of);
                let factors = [(way.left, [inner, 1]), (way.direction, [inner, 1])];
                self.product(BACK, of, [rows, inner, inner], factors, between);
                (between, way.right)
            }
        };
        let directions = self.alloc_scratch(len, of);
        let factors = [(tall, [inner, 1]), (wide, [cols, 1])];
        self.product(BACK_AGAIN, of, [rows, inner, cols], factors, directions);
        let width = way.low.projection.scale.to_bits();
        let line = TensorDesc { len, param: directions, width, ..TensorDesc::default() };
        self.launch_per_block(DIRECTIONS, format!("galore_{}", name(of)), len, line);
        directions
    }

    /// The gradient, scaled as the projection's directions are long, and limited. Its rule's second
    /// half turns directions round, as the references' does: no factor is negative.
    fn scale(
        &mut self,
        index: usize,
        job: &ParamJob<'_>,
        way: &ProjectionBuffers<'_>,
        apollo: &Apollo,
    ) -> u64 {
        let Channels { count, len, start, stride, by_column } = apollo.factors(&way.shapes);
        let (of, suffix) = (wide(way.compute), name(way.compute));
        let [count, of_one] = [count as u64, len as u64];
        let squares = [way.direction, way.projected].map(|from| {
            let blocks = of_one.div_ceil(CHUNK);
            if blocks == 0 {
                return self.push_zeros(count, of);
            }
            let to = self.alloc_scratch(count * blocks, of);
            let (start, stride) = (start as u64, stride as u64);
            let line = ChannelDesc { first: 0, len: of_one, start, stride, from, to };
            let chunks = [count * blocks, of_one];
            self.launch(BACK, format!("channels_{suffix}"), Granularity::Warp, chunks, line);
            self.fold(FOLD_CHANNELS, of, count, blocks, to)
        });
        let factors = self.alloc_scratch(count, way.compute);
        let line =
            TensorDesc { len: count, param: factors, sums: squares[0], ..TensorDesc::default() };
        let line = TensorDesc { factors: [squares[1], 0, 0], width: of_one, ..line };
        self.launch_per_block(FACTORS, format!("apollo_factors_{suffix}"), count, line);

        let len = (way.shapes.rows * way.shapes.cols) as u64;
        let mut line = ApolloDesc {
            first: 0,
            len,
            cols: way.shapes.cols as u64,
            grad: way.grad,
            factors,
            count,
            by_column: by_column.into(),
            root: way.low.projection.sqrt_scale().to_bits(),
            front: apollo.scale_first().into(),
            cell: 0,
            seen: (!job.step.is_first).into(),
            to: 0,
        };
        if apollo.limits_growth() {
            let which = way.low.num_scalars + 1;
            line.cell = job.persistent.unwrap_or_else(|| {
                let before = job.scalars.get(which).copied().unwrap_or(0.0);
                self.push(&[before.to_le_bytes(), [0; 8]].concat())
            });
            let blocks = len.div_ceil(CHUNK);
            let sum = if blocks == 0 {
                self.push_zeros(1, of)
            } else {
                let to = self.alloc_scratch(blocks, of);
                let chunks = [blocks, len];
                let kernel = format!("apollo_squares_{suffix}");
                self.launch(LENGTH, kernel, Granularity::Warp, chunks, ApolloDesc { to, ..line });
                self.fold(FOLD_LENGTH, of, 1, blocks, to)
            };
            let kernel = format!("apollo_limit_{suffix}");
            self.launch(LIMIT, kernel, Granularity::Block, [1, 1], ApolloDesc { to: sum, ..line });
            self.records.push(Readback { index, what: ReadbackKind::Number(line.cell, which) });
        }
        let directions = self.alloc_scratch(len, way.compute);
        line.to = directions;
        self.launch_per_block(DIRECTIONS, format!("apollo_directions_{suffix}"), len, line);
        directions
    }
}
