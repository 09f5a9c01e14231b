//! Rules on projected gradients.

use bitstep::float::Dtype;
use bitstep::lowrank::{Apollo, Channels, ProjectionShape as Shapes, ProjectorKind, Side};
use bitstep::optimizer::Buffer;
use bitstep::rule::StepContext;
use bitstep::rule::factored::MatrixLayout;
use bitstep::storage::StorageFormat;

use crate::bytes::{apply_grad_scale, read};
use crate::device_storage::DeviceStorage;
use crate::job::{ParamJob, kept};
use crate::kernel_spec::{LowRankParts, Shape, low_rank_parts};
use crate::plan::newton_schulz::DeviceMatrix;
use crate::plan::{Granularity, LaunchPlan, Readback, ReadbackKind, name, no_kernel, phase, wide};
use crate::table::{ApolloDesc, CHUNK, ChannelDesc, CodecDesc, TensorDesc};
use crate::{Device, Error};

// Phases between loading the gradient and the inner rule.
const PROJECT: u32 = phase::WIDEN + 1;
const PROJECT_AGAIN: u32 = PROJECT + 1;
const TO_INNER_DTYPE: u32 = PROJECT + 2;
// Phases between the inner rule and storing the parameter.
const FROM_INNER_DTYPE: u32 = phase::APPLY + 1;
const PROJECT_BACK: u32 = FROM_INNER_DTYPE + 1;
const PROJECT_BACK_AGAIN: u32 = PROJECT_BACK + 1;
const FACTORS: u32 = PROJECT_BACK + 2;
const NORM: u32 = PROJECT_BACK + 3;
const DIRECTIONS: u32 = PROJECT_BACK + 4;
const APPLY_DIRECTION: u32 = PROJECT_BACK + 5;

/// A job's projectors, if new ones are due at this step, and the addresses that they are to be written to.
/// The host computes them, from the gradient read back from the device if they are singular vectors.
pub(crate) fn new_projectors<D: Device>(
    device: &mut D,
    job: &mut ParamJob<'_>,
) -> Result<Vec<(u64, Buffer)>, Error<D::Error>> {
    let Some(low) = low_rank_parts(job.rule) else { return Ok(Vec::new()) };
    let Some(from) = low.whole.refresh_due(&job.step) else { return Ok(Vec::new()) };
    let len = match from {
        ProjectorKind::Svd => job.shape.iter().product(),
        ProjectorKind::Random | ProjectorKind::Rademacher => 0,
    };
    let mut grad = Buffer::zeros(job.grad.0, len)?;
    read(device, job.grad.1, &mut grad).map_err(Error::Device)?;
    apply_grad_scale(device, job.grad_scale, &mut grad).map_err(Error::Device)?;
    let dims = low.projection.shape_of(job.shape).map_or([None; 3], |plan| plan.projector_lens());
    let mut addresses = [0; 3];
    let mut buffers = Vec::new();
    let num_slots = low.inner.info().slots.len();
    for ((to, dims), slot) in addresses.iter_mut().zip(dims).zip(job.slots.iter().skip(num_slots)) {
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
    Ok(addresses.into_iter().zip(buffers).filter(|(_, b)| !b.is_empty()).collect())
}

/// The buffers of one projected parameter.
struct ProjectionBuffers<'a> {
    shapes: Shapes,
    compute: Dtype,
    /// The gradient.
    grad: u64,
    /// The projectors; 0 if there is none on that side.
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
        let inner_dtype = if low.is_single_precision { Dtype::F32 } else { compute };
        let size = |[a, b]: [usize; 2]| (a * b) as u64;
        let (small, len) = (size(shapes.low_rank_shape()), size([shapes.rows, shapes.cols]));
        let num_slots = low.inner.info().slots.len();
        let (slots, projectors) = job.slots.split_at_checked(num_slots).ok_or_else(none)?;
        let mut conversions = Vec::new();
        let param = self.open(&mut conversions, compute, &job.param, len, true)?;
        let grad = self.gradient(&mut conversions, compute, job, len);
        let mut open = |which: usize| {
            let dims = shapes.projector_lens().get(which).copied().flatten();
            match (dims, projectors.get(which)) {
                (Some(dims), Some(Some(place))) => {
                    self.open(&mut conversions, compute, place, size(dims), false)
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
        let buffers =
            ProjectionBuffers { shapes, compute, grad, left, right, projected, direction, low };
        self.project(&buffers);

        // The inner rule, applied to a parameter of zeros.
        let mut desc =
            TensorDesc { len: small, param: direction, grad: projected, ..TensorDesc::default() };
        if inner_dtype != compute {
            (desc.param, desc.grad) =
                (self.alloc_scratch(small, inner_dtype), self.alloc_scratch(small, inner_dtype));
            self.convert(TO_INNER_DTYPE, [compute, inner_dtype], [projected, desc.grad], small);
        }
        let dims = shapes.low_rank_shape();
        let step = StepContext { shape: &dims, projected: Some(len as usize), ..job.step };
        let (kernels, mut coefs, at) =
            self.constants(low.inner, inner_dtype, &step, job.scalars)?;
        desc.coefs = at;
        let outer_coefs = if low.is_single_precision {
            self.constants(low.inner, compute, &step, job.scalars)?.2
        } else {
            at
        };
        for (to, slot) in desc.slots.iter_mut().zip(slots.iter().take(kernels.slots())) {
            if let Some(slot) = slot {
                *to = self.open(&mut conversions, inner_dtype, slot, small, true)?;
            }
        }
        let (stem, suffix) = (kernels.stem(), name(inner_dtype));
        let matrix = kernels.shape() == Shape::Matrix;
        if let Some(layout) = MatrixLayout::of(&dims).filter(|_| matrix) {
            self.matrix(&mut conversions, kernels, inner_dtype, layout, slots, &mut desc)?;
        }
        let sums = kernels.needs_sums(low.inner).ok_or_else(none)?;
        if sums && len == 0 {
            kernels.finish_empty(inner_dtype, &mut coefs);
        }
        let sums = sums && len > 0;
        // Else directions are written without a look at it.
        if sums || matrix {
            let words = (small * inner_dtype.size() as u64).div_ceil(8);
            let zeros = TensorDesc { len: words, param: desc.param, ..TensorDesc::default() };
            self.launch_per_block(PROJECT, "clear".to_owned(), words, zeros);
        }
        if sums {
            let kernel = if matrix { "scaled_sums" } else { "sums" };
            let of_low = match small {
                0 => 0,
                _ => {
                    let totals = self.alloc_scratch(2, wide(inner_dtype));
                    let desc = TensorDesc { totals, ..desc };
                    self.sums(format!("{stem}_{kernel}_{suffix}"), inner_dtype, &desc);
                    totals
                }
            };
            let of_param = if kernels.sums_param() {
                let param = match inner_dtype == compute {
                    true => param,
                    false => self.open(&mut conversions, inner_dtype, &job.param, len, false)?,
                };
                let totals = self.alloc_scratch(2, wide(inner_dtype));
                let desc = TensorDesc { len, param, coefs: at, totals, ..TensorDesc::default() };
                self.sums(format!("{stem}_param_sums_{suffix}"), inner_dtype, &desc);
                totals
            } else {
                0
            };
            let desc = TensorDesc { len: small, coefs: at, sums: of_low, ..TensorDesc::default() };
            // The kernel takes the sums over the full parameter from `factors[0]`, and its length from `width`.
            let persist = kept(kernels, job);
            let desc = TensorDesc { factors: [of_param, 0, 0], width: len, persist, ..desc };
            let kernel = format!("{stem}_finish_low_{suffix}");
            self.launch(phase::FINISH, kernel, Granularity::Block, [1, 1], desc);
        }
        let kernel = if matrix { "scaled_apply" } else { "direct" };
        self.launch_per_block(phase::APPLY, format!("{stem}_{kernel}_{suffix}"), small, desc);
        self.read_back(index, job, (kernels, inner_dtype), (at, coefs), sums);
        if inner_dtype != compute {
            self.convert(FROM_INNER_DTYPE, [inner_dtype, compute], [desc.param, direction], small);
        }

        let grad = match &low.scales {
            None => self.project_back(&buffers),
            Some(apollo) => self.scale(index, job, &buffers, apollo),
        };
        let desc = TensorDesc { len, param, grad, coefs: outer_coefs, ..TensorDesc::default() };
        self.launch_per_block(
            APPLY_DIRECTION,
            format!("{stem}_follow_{}", name(compute)),
            len,
            desc,
        );
        self.add_conversions(conversions);
        Ok(())
    }

    /// Converts elements from type to type.
    fn convert(&mut self, phase: u32, types: [Dtype; 2], [main, plain]: [u64; 2], len: u64) {
        let kernel = format!("load_{}_{}", name(types[0]), name(types[1]));
        self.launch_per_block(
            phase,
            kernel,
            len,
            CodecDesc { items: len, len, main, plain, ..CodecDesc::default() },
        );
    }

    fn project(&mut self, buffers: &ProjectionBuffers<'_>) {
        let Shapes { rows, cols, side, .. } = buffers.shapes;
        let [rows, cols, inner] = [rows, cols, buffers.shapes.intermediate_len()].map(|d| d as u64);
        let whole: DeviceMatrix = (buffers.grad, [cols, 1]);
        let (p, q): (DeviceMatrix, DeviceMatrix) =
            ((buffers.left, [1, inner]), (buffers.right, [1, cols]));
        let (of, to) = (buffers.compute, buffers.projected);
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

    /// The directions, projected back and scaled.
    fn project_back(&mut self, buffers: &ProjectionBuffers<'_>) -> u64 {
        let Shapes { rows, cols, side, .. } = buffers.shapes;
        let [rows, cols, inner] = [rows, cols, buffers.shapes.intermediate_len()].map(|d| d as u64);
        let (of, len) = (buffers.compute, rows * cols);
        let (tall, wide) = match side {
            Side::Right => (buffers.direction, buffers.right),
            Side::Left => (buffers.left, buffers.direction),
            Side::Both => {
                let between = self.alloc_scratch(rows * inner, of);
                let factors = [(buffers.left, [inner, 1]), (buffers.direction, [inner, 1])];
                self.product(PROJECT_BACK, of, [rows, inner, inner], factors, between);
                (between, buffers.right)
            }
        };
        let directions = self.alloc_scratch(len, of);
        let factors = [(tall, [inner, 1]), (wide, [cols, 1])];
        self.product(PROJECT_BACK_AGAIN, of, [rows, inner, cols], factors, directions);
        // The kernel takes the scale from the bits of `width`, which is not a width here.
        let width = buffers.low.projection.scale.to_bits();
        let desc = TensorDesc { len, param: directions, width, ..TensorDesc::default() };
        self.launch_per_block(DIRECTIONS, format!("galore_{}", name(of)), len, desc);
        directions
    }

    /// APOLLO: the gradient, scaled by the ratio of the norms of the inner rule's directions and the
    /// projected gradient, and its growth limited. The factors are not negative; the sign of the descent is
    /// applied by the rule's `apply_direction`, as in the references.
    fn scale(
        &mut self,
        index: usize,
        job: &ParamJob<'_>,
        buffers: &ProjectionBuffers<'_>,
        apollo: &Apollo,
    ) -> u64 {
        let Channels { count, len, start, stride, by_column } = apollo.factors(&buffers.shapes);
        let (of, suffix) = (wide(buffers.compute), name(buffers.compute));
        let [count, of_one] = [count as u64, len as u64];
        // A channel without elements has a factor too.
        let blocks = of_one.div_ceil(CHUNK).max(1);
        let factors = self.alloc_scratch(count, buffers.compute);
        let ([sums, counters], strides) = self.partials(of, [count, 2, blocks]);
        let desc = ChannelDesc {
            first: 0,
            len: of_one,
            start: start as u64,
            stride: stride as u64,
            from: [buffers.direction, buffers.projected],
            to: factors,
            sums,
            counters,
            strides,
        };
        let chunks = [count * blocks, of_one.max(1)];
        self.launch(FACTORS, format!("channels_{suffix}"), Granularity::Warp, chunks, desc);

        let len = (buffers.shapes.rows * buffers.shapes.cols) as u64;
        let mut desc = ApolloDesc {
            first: 0,
            len,
            cols: buffers.shapes.cols as u64,
            grad: buffers.grad,
            factors,
            count,
            by_column: by_column.into(),
            root: buffers.low.projection.sqrt_scale().to_bits(),
            front: apollo.scale_first().into(),
            cell: 0,
            seen: (!job.step.is_first).into(),
            to: 0,
            counters: 0,
        };
        if apollo.limits_growth() {
            let which = buffers.low.num_scalars + 1;
            desc.cell = job.persistent.unwrap_or_else(|| {
                let before = job.scalars.get(which).copied().unwrap_or(0.0);
                self.push(&[before.to_le_bytes(), [0; 8]].concat())
            });
            // The limiter of nothing is computed too.
            let blocks = len.div_ceil(CHUNK).max(1);
            let ([to, counters], _) = self.partials(of, [1, 1, blocks]);
            let (kernel, squares) =
                (format!("apollo_squares_{suffix}"), ApolloDesc { to, counters, ..desc });
            self.launch(NORM, kernel, Granularity::Warp, [blocks, len.max(1)], squares);
            self.readbacks
                .push(Readback { index, what: ReadbackKind::DeviceF64(desc.cell, which) });
        }
        let directions = self.alloc_scratch(len, buffers.compute);
        desc.to = directions;
        self.launch_per_block(DIRECTIONS, format!("apollo_directions_{suffix}"), len, desc);
        directions
    }
}
