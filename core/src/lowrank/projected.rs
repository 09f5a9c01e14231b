//! [`Projected`]: a rule on projected gradients.

use core::ops::Range;

use half::{bf16, f16};

use crate::arch::simd::{self, Kernel};
use crate::error::Error;
use crate::float::Eager;
use crate::float::{ComputeFloat, Dtype, StoredFloat};
use crate::hyper::{FieldMut, FieldVisitor, HyperParams};
use crate::lowrank::{
    LinearAlgebra, Mt19937, PortableLinearAlgebra, Projection, ProjectionShape, ProjectorKind,
    Side, SplitRule, nth_seed, rademacher,
};
use crate::math::matmul::MatrixView;
use crate::math::reduce::CHUNK;
use crate::math::svd;
use crate::rule::mode::Mode;
use crate::rule::{self, ComputePolicy, DynRule, RuleInfo};
use crate::rule::{
    MAX_SCALARS, ScalarState, SlotInit, StepContext, UpdateBuffers, allow_negative_decay,
};
use crate::storage::{Data, DataMut, MAX_BLOCK, Plain, chunk_len, numel};

/// How a parameter is updated from the direction of its projected gradient.
pub trait ProjectionMethod:
    Copy + PartialEq + core::fmt::Debug + Default + Send + Sync + 'static
{
    /// The name of the method in saved files, before that of the rule. It never changes.
    const ID: &'static str;
    /// The names of the method's persistent scalars, after the rule's own.
    const SCALAR_NAMES: &'static [&'static str];

    /// The reference's default projection.
    fn projection() -> Projection;
    /// [`HyperParams::fields`] of the method, after those of the projection.
    fn fields(&mut self, projection: &mut Projection, f: &mut dyn FieldVisitor);
    /// How many of the scalars a parameter has, if it is projected or not.
    fn start_scalars(&self, projected: bool) -> usize {
        let _ = projected;
        0
    }
    /// Sets the initial scalars of parameter number `index`.
    fn start(&self, index: usize, scalars: &mut [f64]) {
        let _ = (index, scalars);
    }
    /// The first seed of a parameter's random projectors.
    fn seed(scalars: &[f64]) -> u64 {
        let _ = scalars;
        0
    }
    /// The elements of [`ProjectedUpdate::spare`] that it needs if the parameter is stored element by element.
    fn extra_scratch(&self, plan: &ProjectionShape) -> usize;
    /// `Ok` if the method supports matrices of this shape.
    ///
    /// # Errors
    /// The argument that the method does not support for this shape.
    fn check_plan(&self, projection: &Projection, plan: &ProjectionShape) -> Result<(), Error>;
    /// Updates the parameter and the method's scalars.
    fn apply<R: SplitRule, L: LinearAlgebra, C: ComputeFloat<Scalar: Plain, Stored: Plain>>(
        &self,
        projection: &Projection,
        step: &StepContext,
        k: &R::Coefs<C>,
        update: ProjectedUpdate<'_, C::Scalar>,
        param: &mut DataMut<'_>,
        scalars: &mut [f64],
    );
}

/// The projected gradient of a matrix, and its direction: the input of [`ProjectionMethod::apply`].
#[derive(Debug)]
pub struct ProjectedUpdate<'a, A> {
    /// How the matrix is projected.
    pub plan: ProjectionShape,
    /// The left projector, rows × rank; empty if there is none.
    pub left: &'a [A],
    /// The right projector, rank × columns; empty if there is none.
    pub right: &'a [A],
    /// The projected gradient.
    pub projected: &'a [A],
    /// The direction that the rule computed from it.
    pub direction: &'a [A],
    /// Whether the parameter moves along the direction, which then points against the gradient; if not, the rule's
    /// `apply_direction` negates it, as in the AdamW of GaLore and APOLLO.
    pub against: bool,
    /// The gradient.
    pub grad: &'a [A],
    /// Scratch memory: as many elements as the gradient has, or [`ProjectionMethod::extra_scratch`].
    pub spare: &'a mut [A],
    /// Scratch memory of rows × rank elements if both sides are projected, else empty.
    pub between: &'a mut [A],
}

/// A rule; in groups with a rank, that rule on projected gradients.
///
/// The rule sees zeros in place of the parameter. Decoupled weight decay is applied to the parameter itself, by
/// [`apply_direction`](crate::rule::Rule::apply_direction) of the rules that include it there (`AdamW`, `AdamWHf`,
/// `Lion`, `AdEMAMix`, `BnbAdam`, `Adafactor`, those of FlashOptim, …). Other rules
/// [refuse](crate::rule::Rule::check_separable) a rank together with a decay, and rules with a slot that starts as a copy
/// of the parameter (ScheduleFree, Ranger) refuse any rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Projected<R, W, L = PortableLinearAlgebra> {
    /// The rule.
    pub rule: R,
    /// How gradients are projected.
    pub projection: Projection,
    /// How parameters are updated from the directions.
    pub method: W,
    /// The source of products and singular vectors.
    pub algebra: L,
}

impl<R, W: ProjectionMethod, L: LinearAlgebra> Projected<R, W, L> {
    /// The rule with the method's default projection, which projects nothing until its rank is set.
    pub fn new(rule: R) -> Self {
        Projected { rule, projection: W::projection(), method: W::default(), algebra: L::default() }
    }
}

impl<R: Default, W: ProjectionMethod, L: LinearAlgebra> Default for Projected<R, W, L> {
    fn default() -> Self {
        Projected::new(R::default())
    }
}

const PROJECTORS: [&str; 3] = ["projector", "projector_0", "projector_1"];
/// At least as many names as any rule has.
const MAX_NAMES: usize = 12;

/// The concatenation of two lists, padded with empty names.
const fn concat(a: &[&'static str], b: &[&'static str]) -> [&'static str; MAX_NAMES] {
    let (mut all, mut i) = ([""; MAX_NAMES], 0);
    while i < a.len() + b.len() {
        all[i] = if i < a.len() { a[i] } else { b[i - a.len()] };
        i += 1;
    }
    all
}

impl<R: SplitRule, W: ProjectionMethod, L: LinearAlgebra> Projected<R, W, L> {
    const ALL_SLOTS: [&'static str; MAX_NAMES] = concat(R::SLOTS, &PROJECTORS);
    const ALL_SCALARS: [&'static str; MAX_NAMES] = concat(R::SCALAR_NAMES, W::SCALAR_NAMES);
    const ALL_EXTRA_ARGS: [&'static str; MAX_NAMES] = concat(R::EXTRA_ARGS, &PROJECTORS);

    fn projects(&self) -> bool {
        self.projection.rank.is_some()
    }

    fn method_scalars<'a>(&self, scalars: &'a mut ScalarState) -> &'a mut [f64] {
        scalars.get_mut(R::SCALAR_NAMES.len()..).unwrap_or_default()
    }

    /// Elements of scratch memory for singular vectors, if projectors are made from them.
    fn svd_scratch(&self, plan: &ProjectionShape) -> usize {
        let finds = self.projection.proj == ProjectorKind::Svd;
        if finds { L::scratch(plan.rows.min(plan.cols)) } else { 0 }
    }

    /// Elements of scratch memory at this step: for a copy of the gradient, for [`ProjectedUpdate::spare`], and for
    /// singular vectors.
    fn scratch_at(
        &self,
        compute: Dtype,
        step: &StepContext,
        plan: &ProjectionShape,
        param: &DataMut<'_>,
        grad: &Data<'_>,
    ) -> [usize; 3] {
        let [copy, all, svd] = self.max_scratch(plan);
        let finds = self.refresh_due(step) == Some(ProjectorKind::Svd);
        let in_place =
            matches!((compute, grad), (Dtype::F64, Data::F64(_)) | (Dtype::F32, Data::F32(_)));
        let between = plan.rank.saturating_mul(plan.cols); // of the first product if both sides are projected
        let spare = if finds || param.block() != 1 {
            all
        } else {
            self.method.extra_scratch(plan).max(between)
        };
        [if in_place { 0 } else { copy }, spare.min(all), if finds { svd } else { 0 }]
    }

    /// The most elements of scratch memory at any step, as in [`scratch_at`](Self::scratch_at).
    fn max_scratch(&self, plan: &ProjectionShape) -> [usize; 3] {
        let whole = numel(&[plan.rows, plan.cols]);
        [whole, whole, self.svd_scratch(plan)]
    }

    /// All elements of scratch memory, including those that every step needs.
    fn total(&self, plan: &ProjectionShape, needs: [usize; 3]) -> usize {
        let low = plan.low_rank_shape();
        let others = [numel(&low), numel(&low), plan.between(), self.rule.scratch_len(&low)];
        needs.into_iter().chain(plan.sizes()).chain(others).fold(0, usize::saturating_add)
    }

    /// The dimensions of a slot after the rule's: a projector.
    fn projector(&self, slot: usize, shape: &[usize]) -> Option<[usize; 2]> {
        let which = slot.checked_sub(R::SLOTS.len())?;
        self.projection.shape_of(shape)?.projector_lens().get(which).copied().flatten()
    }
}

/// Hides the argument that chooses among a rule's references: the reference of the projection is followed.
struct SkipReference<'a>(&'a mut dyn FieldVisitor);

impl FieldVisitor for SkipReference<'_> {
    fn field(&mut self, name: &'static str, slot: FieldMut<'_>) {
        if name != "reference" {
            self.0.field(name, slot);
        }
    }
}

impl<R: SplitRule, W: ProjectionMethod, L: LinearAlgebra> HyperParams for Projected<R, W, L> {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        self.rule.hyper_params().fields(&mut SkipReference(f));
        self.projection.fields(f);
        self.method.fields(&mut self.projection, f);
    }
}

impl<R: SplitRule, W: ProjectionMethod, L: LinearAlgebra> DynRule for Projected<R, W, L> {
    fn id(&self, part: &mut dyn FnMut(&'static str)) {
        part(W::ID);
        self.rule.id(part);
    }
    fn check(&self) -> Result<(), Error> {
        const {
            assert!(R::SCALAR_NAMES.len() + W::SCALAR_NAMES.len() <= MAX_SCALARS);
        }
        self.rule.check()?;
        if self.projects() {
            self.rule.check_separable()?;
        }
        self.projection.check()
    }
    fn info(&self) -> RuleInfo {
        let inner = self.rule.info();
        let projectors = if self.projects() { PROJECTORS.len() } else { 0 };
        let first =
            |all: &'static [&'static str], count: usize| all.get(..count).unwrap_or_default();
        RuleInfo {
            slots: first(const { &Self::ALL_SLOTS }, R::SLOTS.len() + projectors),
            scalar_names: match self.method.start_scalars(self.projects()) {
                0 => inner.scalar_names,
                more => first(const { &Self::ALL_SCALARS }, R::SCALAR_NAMES.len() + more),
            },
            extra_args: first(const { &Self::ALL_EXTRA_ARGS }, R::EXTRA_ARGS.len() + projectors),
            is_elementwise: inner.is_elementwise && !self.projects(),
            ..inner
        }
    }
    fn hyper_params(&mut self) -> &mut dyn HyperParams {
        self
    }
    fn lr(&self) -> f64 {
        self.rule.lr()
    }
    fn resolve_defaults(&mut self) {
        self.rule.resolve_defaults();
    }
    fn grad_norm_divisor(&self, extra: &[(&str, f64)]) -> Option<f64> {
        self.rule.grad_norm_divisor(extra)
    }
    fn grad_norm(&self, grads: &[Data<'_>], scale: f64) -> f64 {
        self.rule.grad_norm(grads, scale)
    }
    fn initial_scalars(&self, index: usize) -> ScalarState {
        let mut scalars = self.rule.initial_scalars(index);
        self.method.start(index, self.method_scalars(&mut scalars));
        scalars
    }
    fn advance_scalars(&self, step: &StepContext, scalars: &mut ScalarState) {
        self.rule.advance_scalars(step, scalars);
    }
    fn check_shape(&self, shape: &[usize]) -> Result<(), Error> {
        if !self.projects() {
            return self.rule.check_shape(shape);
        }
        let Some(plan) = self.projection.shape_of(shape) else {
            return Err(Error::InvalidArgument {
                argument: "shape",
                expected: "two dimensions, to project",
            });
        };
        self.method.check_plan(&self.projection, &plan)?;
        self.rule.check_shape(&plan.low_rank_shape())
    }
    fn slot_len(&self, slot: usize, shape: &[usize], compute: Dtype) -> usize {
        if slot >= R::SLOTS.len() {
            return self.projector(slot, shape).map_or(0, |dims| numel(&dims));
        }
        match self.projection.shape_of(shape) {
            Some(plan) => self.rule.slot_len(slot, &plan.low_rank_shape(), compute),
            None => self.rule.slot_len(slot, shape, compute),
        }
    }
    fn slot_shape(&self, slot: usize, shape: &[usize], dims: &mut dyn FnMut(usize)) {
        if slot >= R::SLOTS.len() {
            return self.projector(slot, shape).into_iter().flatten().for_each(dims);
        }
        match self.projection.shape_of(shape) {
            Some(plan) => self.rule.slot_shape(slot, &plan.low_rank_shape(), dims),
            None => self.rule.slot_shape(slot, shape, dims),
        }
    }
    fn slot_dtype(&self, slot: usize, param: Dtype) -> Dtype {
        let own = slot < R::SLOTS.len();
        if own { self.rule.slot_dtype(slot, param) } else { self.rule.projector_dtype(param) }
    }
    fn slot_init(&self, slot: usize) -> SlotInit {
        if slot < R::SLOTS.len() { self.rule.slot_init(slot) } else { SlotInit::Constant(0.0) }
    }
    fn scratch_len(&self, shape: &[usize]) -> usize {
        match self.projection.shape_of(shape) {
            Some(plan) => self.total(&plan, self.max_scratch(&plan)),
            None => self.rule.scratch_len(shape),
        }
    }
    fn scratch_len_at(
        &self,
        compute: Dtype,
        step: &StepContext,
        shape: &[usize],
        param: &DataMut<'_>,
        grad: &Data<'_>,
    ) -> usize {
        match self.projection.shape_of(shape) {
            Some(plan) => self.total(&plan, self.scratch_at(compute, step, &plan, param, grad)),
            None => self.rule.scratch_len_at(compute, step, shape, param, grad),
        }
    }
    fn update(
        &self,
        policy: ComputePolicy,
        step: &StepContext,
        scalars: &mut ScalarState,
        tensor: UpdateBuffers<'_, '_>,
    ) -> Result<(), Error> {
        allow_negative_decay(self.check())?;
        if !self.projects() {
            return self.rule.update(policy, step, scalars, tensor);
        }
        rule::check_tensor(self, policy, step, &tensor)?;
        match policy.compute(tensor.param.dtype()) {
            Dtype::F64 => self.project::<f64>(step, scalars, tensor),
            Dtype::F32 => self.project::<f32>(step, scalars, tensor),
            _ if const { !R::EAGER } => Err(rule::NOT_EAGER),
            Dtype::Bf16 => self.project::<Eager<bf16>>(step, scalars, tensor),
            Dtype::F16 => self.project::<Eager<f16>>(step, scalars, tensor),
        }
    }
    fn convert(
        &self,
        policy: ComputePolicy,
        to: Mode,
        param: &mut DataMut<'_>,
        slots: &mut [DataMut<'_>],
    ) -> Result<(), Error> {
        if self.projects() {
            return self.rule.convert(policy, to, &mut DataMut::F32(&mut []), &mut []);
        }
        self.rule.convert(policy, to, param, slots)
    }
    #[cfg(feature = "alloc")]
    fn clone_box(&self) -> alloc::boxed::Box<dyn DynRule> {
        alloc::boxed::Box::new(*self)
    }
}

/// Scratch memory, split.
struct Scratch<'w, A> {
    grad: &'w mut [A],
    spare: &'w mut [A],
    projected: &'w mut [A],
    direction: &'w mut [A],
    left: &'w mut [A],
    right: &'w mut [A],
    svd: &'w mut [A],
    between: &'w mut [A],
    rule: &'w mut [A],
}

impl<'w, A> Scratch<'w, A> {
    fn split(
        plan: &ProjectionShape,
        [copy, spare, svd]: [usize; 3],
        scratch: &'w mut [A],
    ) -> Option<Self> {
        let low = numel(&plan.low_rank_shape());
        let [left, right] = plan.sizes();
        let (grad, scratch) = scratch.split_at_mut_checked(copy)?;
        let (spare, scratch) = scratch.split_at_mut_checked(spare)?;
        let (projected, scratch) = scratch.split_at_mut_checked(low)?;
        let (direction, scratch) = scratch.split_at_mut_checked(low)?;
        let (left, scratch) = scratch.split_at_mut_checked(left)?;
        let (right, scratch) = scratch.split_at_mut_checked(right)?;
        let (svd, scratch) = scratch.split_at_mut_checked(svd)?;
        let (between, rule) = scratch.split_at_mut_checked(plan.between())?;
        Some(Scratch { grad, spare, projected, direction, left, right, svd, between, rule })
    }
}

impl<R: SplitRule, W: ProjectionMethod, L: LinearAlgebra> Projected<R, W, L> {
    /// Whether the projector is refreshed at this step.
    fn is_refreshed_at(&self, step: &StepContext) -> bool {
        let provided = PROJECTORS.iter().any(|name| step.extra(name).is_some());
        let before = step.t.saturating_sub(1);
        self.projects()
            && !provided
            && (step.is_first || before.is_multiple_of(self.projection.update_proj_gap.max(1)))
    }

    /// Whether the projector is refreshed at this step, and how: for backends that keep their memory elsewhere, to
    /// [`refresh`](Self::refresh) it before they step.
    #[must_use]
    pub fn refresh_due(&self, step: &StepContext) -> Option<ProjectorKind> {
        self.is_refreshed_at(step).then_some(self.projection.proj)
    }

    /// Refreshes the projectors of a parameter of this type and the shape of `step`, from its gradient (which may be
    /// empty if they are drawn at random). `scratch` is at least [`DynRule::scratch_len`] elements.
    ///
    /// # Errors
    /// A shape that is not projected, a policy in which the rule's reference does not compute, or scratch memory of the
    /// wrong type or too little of it.
    pub fn refresh(
        &self,
        (policy, param): (ComputePolicy, Option<Dtype>),
        step: &StepContext,
        scalars: &mut ScalarState,
        grad: Data<'_>,
        projectors: &mut [DataMut<'_>],
        scratch: DataMut<'_>,
    ) -> Result<(), Error> {
        match policy.compute(param) {
            Dtype::F64 => self.refresh_in::<f64>(step, scalars, grad, projectors, scratch),
            Dtype::F32 => self.refresh_in::<f32>(step, scalars, grad, projectors, scratch),
            _ if const { !R::EAGER } => Err(rule::NOT_EAGER),
            Dtype::Bf16 => self.refresh_in::<Eager<bf16>>(step, scalars, grad, projectors, scratch),
            Dtype::F16 => self.refresh_in::<Eager<f16>>(step, scalars, grad, projectors, scratch),
        }
    }

    fn refresh_in<C: ComputeFloat<Scalar: Plain, Stored: Plain>>(
        &self,
        step: &StepContext,
        scalars: &mut ScalarState,
        from: Data<'_>,
        projectors: &mut [DataMut<'_>],
        mut scratch: DataMut<'_>,
    ) -> Result<(), Error> {
        let (Some(plan), Some(scratch)) =
            (self.projection.shape_of(step.shape), <C::Scalar as Plain>::of_mut(&mut scratch))
        else {
            return Err(WRONG_SCRATCH);
        };
        let Some(scratch) = Scratch::split(&plan, self.max_scratch(&plan), scratch) else {
            return Err(WRONG_SCRATCH);
        };
        let Scratch { grad, spare, left, right, svd, .. } = scratch;
        if from.len() == grad.len() {
            load::<C>(grad, |start, out| from.load(start, out));
        }
        self.refreshed::<C>(&plan, step, scalars, grad, spare, [left, right], svd, projectors);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "all of the scratch memory is in use")]
    fn refreshed<C: ComputeFloat<Scalar: Plain, Stored: Plain>>(
        &self,
        plan: &ProjectionShape,
        step: &StepContext,
        scalars: &mut ScalarState,
        grad: &[C::Scalar],
        spare: &mut [C::Scalar],
        [left, right]: [&mut [C::Scalar]; 2],
        svd: &mut [C::Scalar],
        projectors: &mut [DataMut<'_>],
    ) {
        let sides = [&mut *left, &mut *right];
        match self.projection.proj {
            ProjectorKind::Svd => svd_projectors::<L, _>(plan, grad, spare, sides, svd),
            ProjectorKind::Random => {
                let first = W::seed(self.method_scalars(scalars));
                random_projectors(plan, nth_seed(first, self.past_refreshes(step)), sides);
            }
            ProjectorKind::Rademacher => {
                let seed = W::seed(self.method_scalars(scalars));
                for side in sides {
                    rademacher(seed, self.past_refreshes(step), 0, plan.rank as u64, side);
                }
            }
        }
        for_each_projector(plan, projectors, [left, right], |slot, values| {
            store::<C>(slot, values)
        });
    }

    /// How often the projector was refreshed before this step.
    fn past_refreshes(&self, step: &StepContext) -> u64 {
        step.t.saturating_sub(1) / self.projection.update_proj_gap.max(1)
    }

    pub(super) fn project<C: ComputeFloat<Scalar: Plain, Stored: Plain>>(
        &self,
        step: &StepContext,
        scalars: &mut ScalarState,
        mut t: UpdateBuffers<'_, '_>,
    ) -> Result<(), Error> {
        let mut scratch = core::mem::replace(&mut t.scratch, DataMut::F32(&mut []));
        let (Some(plan), Some(scratch), Some((slots, projectors))) = (
            self.projection.shape_of(t.shape),
            <C::Scalar as Plain>::of_mut(&mut scratch),
            t.slots.split_at_mut_checked(R::SLOTS.len()),
        ) else {
            return Err(WRONG_SCRATCH);
        };
        let needs = self.scratch_at(C::DTYPE, step, &plan, &t.param, &t.grad);
        let Some(scratch) = Scratch::split(&plan, needs, scratch) else {
            return Err(WRONG_SCRATCH);
        };
        let Scratch { grad, spare, projected, direction, left, right, svd, between, rule } =
            scratch;
        let grad = match (<C::Scalar as Plain>::of(&t.grad), C::Stored::of(&t.grad)) {
            (Some(whole), _) if C::DTYPE == C::Scalar::DTYPE => whole,
            (_, Some(from)) => {
                simd::dispatch(Widen { from, to: &mut *grad });
                &*grad
            }
            _ => {
                load::<C>(grad, |start, out| t.grad.load(start, out));
                &*grad
            }
        };

        if self.is_refreshed_at(step) {
            self.refreshed::<C>(&plan, step, scalars, grad, spare, [left, right], svd, projectors);
        }
        // The projectors as stored in the slots, with the slots' rounding.
        for_each_projector(&plan, projectors, [left, right], |slot, values| {
            load::<C>(values, |start, out| slot.load(start, out));
        });

        let ProjectionShape { rows, cols, rank, side } = plan;
        let matrix = MatrixView::new(grad, cols);
        let (p, q) = (
            MatrixView::new(&*left, rank).transposed(),
            MatrixView::new(&*right, cols).transposed(),
        );
        match side {
            Side::Right => L::matmul([rows, cols, rank], matrix, q, projected),
            Side::Left => L::matmul([rank, rows, cols], p, matrix, projected),
            Side::Both => {
                let between = spare.get_mut(..rank * cols).unwrap_or_default();
                L::matmul([rank, rows, cols], p, matrix, between);
                round::<C>(between);
                L::matmul([rank, cols, rank], MatrixView::new(between, cols), q, projected);
            }
        }
        round::<C>(projected);

        direction.fill(C::Scalar::ZERO);
        let low = plan.low_rank_shape();
        let tensor = UpdateBuffers {
            shape: &low,
            param: Plain::data_mut(&mut *direction),
            grad: Plain::data(&*projected),
            slots,
            scratch: Plain::data_mut(rule),
        };
        let inner = StepContext { shape: &low, projected: Some(numel(t.shape)), ..*step };
        let k = self.rule.compute_direction::<C>(&inner, scalars, &t.param, tensor)?;
        round::<C>(direction); // the rule may have computed in a wider type
        let uphill = (step.lr < 0.0) != self.rule.info().maximizes;
        let against = R::ADDS_DIRECTION && !uphill;
        let update = ProjectedUpdate {
            plan,
            left,
            right,
            projected,
            direction,
            against,
            grad,
            spare,
            between,
        };
        let scalars = self.method_scalars(scalars);
        self.method.apply::<R, L, C>(&self.projection, step, &k, update, &mut t.param, scalars);
        Ok(())
    }
}

const WRONG_SCRATCH: Error = Error::InvalidArgument {
    argument: "scratch",
    expected: "f64 numbers if computed in f64, else f32, as many as the rule asks for",
};

/// Calls `f` for each projector in use, with its slot and its values.
fn for_each_projector<A>(
    plan: &ProjectionShape,
    slots: &mut [DataMut<'_>],
    [left, right]: [&mut [A]; 2],
    mut f: impl FnMut(&mut DataMut<'_>, &mut [A]),
) {
    let [one, first, second] = slots else { return };
    match plan.side {
        Side::Right => f(one, right),
        Side::Left => f(one, left),
        Side::Both => {
            f(first, left);
            f(second, right);
        }
    }
}

/// Projectors from the singular vectors of the gradient, for the sides that are projected.
fn svd_projectors<L: LinearAlgebra, A: ComputeFloat<Scalar = A> + Plain>(
    plan: &ProjectionShape,
    grad: &[A],
    spare: &mut [A],
    [left, right]: [&mut [A]; 2],
    svd: &mut [A],
) {
    let ProjectionShape { rows, cols, rank, .. } = *plan;
    // The left vectors are computed as rows of `left`, and transposed to columns by way of `spare`.
    if rows <= cols {
        spare.copy_from_slice(grad);
        L::truncated_svd([rows, cols], spare, left, right, svd);
    } else {
        transpose(grad, cols, spare);
        L::truncated_svd([cols, rows], spare, right, left, svd);
    }
    for (vectors, len) in [(&mut *left, rows), (&mut *right, cols)] {
        vectors.chunks_mut(len.max(1)).for_each(svd::fix_sign);
    }
    let vectors = spare.get_mut(..left.len()).unwrap_or_default();
    vectors.copy_from_slice(left);
    if rank > 0 {
        transpose(vectors, rows, left);
    }
}

/// Transposes a row-major matrix with `cols` columns.
fn transpose<A: Copy>(from: &[A], cols: usize, to: &mut [A]) {
    let rows = from.len().checked_div(cols).unwrap_or(0);
    for (i, row) in from.chunks(cols.max(1)).enumerate() {
        for (j, x) in row.iter().enumerate() {
            if let Some(to) = to.get_mut(j * rows + i) {
                *to = *x;
            }
        }
    }
}

/// Normal values over √rank; drawn and divided in `f32`, as in the reference, whatever the type.
fn random_projectors<A: ComputeFloat<Scalar = A>>(
    plan: &ProjectionShape,
    seed: u64,
    sides: [&mut [A]; 2],
) {
    let root = libm::sqrt(plan.rank as f64) as f32;
    for side in sides {
        Mt19937::new(seed).normal(side);
        for x in side {
            *x = A::from_f32(x.to_f32() / root);
        }
    }
}

/// Rounds to the compute type.
pub(super) fn round<C: ComputeFloat>(x: &mut [C::Scalar]) {
    if C::DTYPE != C::Scalar::DTYPE {
        simd::dispatch(Round::<C>(x));
    }
}

struct Round<'a, C: ComputeFloat>(&'a mut [C::Scalar]);

impl<C: ComputeFloat> Kernel for Round<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.0 {
            *x = C::round_from(*x).widen();
        }
    }
}

struct Widen<'a, T, W> {
    from: &'a [T],
    to: &'a mut [W],
}

impl<T: StoredFloat, W: ComputeFloat> Kernel for Widen<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (to, x) in self.to.iter_mut().zip(self.from) {
            *to = W::load(*x);
        }
    }
}

/// Computes the directions of elements. A trait, because a closure can't be marked `#[inline(always)]`, which the vector
/// kernel that calls it needs.
pub(super) trait DirectionSource<C: ComputeFloat> {
    /// Writes the directions of the elements from `start` on.
    fn fill(&self, start: usize, out: &mut [C]);
}

/// Moves the elements of a range of a parameter along their directions.
pub(super) fn apply_directions<R: SplitRule, C: ComputeFloat<Stored: Plain>>(
    k: &R::Coefs<C>,
    param: &mut DataMut<'_>,
    range: Range<usize>,
    directions: &impl DirectionSource<C>,
) {
    if let Some(values) = C::Stored::of_mut(param).and_then(|values| values.get_mut(range.clone()))
    {
        let start = range.start;
        return simd::dispatch_in::<C, C, _>(ApplyDirection::<R, C, _, _> {
            k,
            start,
            values,
            directions,
        });
    }
    let mut buffer = [C::Stored::default(); MAX_BLOCK];
    let Some(chunk) = chunk_len([param.block()]) else { return };
    for start in range.clone().step_by(chunk) {
        let values = buffer.get_mut(..(range.end - start).min(chunk)).unwrap_or_default();
        param.load(start, values);
        simd::dispatch_in::<C, C, _>(ApplyDirection::<R, C, _, _> { k, start, values, directions });
        param.store(start, values);
    }
}

struct ApplyDirection<'a, R: SplitRule, C: ComputeFloat, T, D> {
    k: &'a R::Coefs<C>,
    start: usize,
    values: &'a mut [T],
    directions: &'a D,
}

impl<R: SplitRule, C: ComputeFloat, T: StoredFloat, D: DirectionSource<C>> Kernel
    for ApplyDirection<'_, R, C, T, D>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut buffer = [C::ZERO; CHUNK];
        for (at, values) in self.values.chunks_mut(CHUNK).enumerate() {
            let directions = buffer.get_mut(..values.len()).unwrap_or_default();
            self.directions.fill(self.start + at * CHUNK, directions);
            for (p, direction) in values.iter_mut().zip(directions) {
                *p = R::apply_direction(self.k, C::load(*p), *direction).store();
            }
        }
    }
}

fn load<C: ComputeFloat<Stored: Plain>>(
    to: &mut [C::Scalar],
    from: impl Fn(usize, &mut [C::Stored]),
) {
    let mut buffer = [C::Stored::default(); MAX_BLOCK];
    for (block, to) in to.chunks_mut(MAX_BLOCK).enumerate() {
        let values = buffer.get_mut(..to.len()).unwrap_or_default();
        from(block * MAX_BLOCK, values);
        for (to, x) in to.iter_mut().zip(values) {
            *to = C::load(*x).widen();
        }
    }
}

fn store<C: ComputeFloat<Stored: Plain>>(to: &mut DataMut<'_>, from: &[C::Scalar]) {
    let mut buffer = [C::Stored::default(); MAX_BLOCK];
    for (block, from) in from.chunks(MAX_BLOCK).enumerate() {
        let values = buffer.get_mut(..from.len()).unwrap_or_default();
        for (to, x) in values.iter_mut().zip(from) {
            *to = C::round_from(*x).store();
        }
        to.store(block * MAX_BLOCK, values);
    }
}
