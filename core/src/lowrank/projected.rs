//! A rule on projected gradients.

use core::ops::Range;

use half::{bf16, f16};

use crate::any::{self, AnyRule, Arithmetic, RuleInfo};
use crate::args::{Fields, Hyper, Slot};
use crate::eager::Eager;
use crate::error::Error;
use crate::lowrank::{
    Algebra, Directed, Mt19937, Plan, Portable, Projection, Projector, Side, later_seed, signs, svd,
};
use crate::matmul::View;
use crate::mode::Mode;
use crate::real::{Dtype, Number, Real};
use crate::reduce::CHUNK;
use crate::rule::{MAX_SCALARS, Scalars, Start, Step, Tensor, check_group};
use crate::simd::{self, Kernel};
use crate::storage::{Data, DataMut, MAX_BLOCK, Plain, numel, stretch};

/// What is done with the direction that a rule found in a projected gradient.
pub trait Way: Copy + PartialEq + core::fmt::Debug + Default + Send + Sync + 'static {
    /// What saved files call it, before the rule's own. It never changes.
    const ID: &'static str;
    /// Names of the numbers carried from step to step, after the rule's own.
    const NUMBERS: &'static [&'static str];

    /// How the reference projects.
    fn projection() -> Projection;
    /// [`Hyper::fields`], after those of the projection.
    fn fields(&mut self, projection: &mut Projection, f: &mut dyn Fields);
    /// How many of the numbers there are for parameters that are projected or not.
    fn numbers(&self, projected: bool) -> usize {
        let _ = projected;
        0
    }
    /// How the numbers of parameter number `index` start.
    fn start(&self, index: usize, numbers: &mut [f64]) {
        let _ = (index, numbers);
    }
    /// The first seed of a parameter's random projectors.
    fn seed(numbers: &[f64]) -> u64 {
        let _ = numbers;
        0
    }
    /// How many numbers of [`Found::spare`] it needs, where the parameter is stored element by element.
    fn spare(&self, plan: &Plan) -> usize;
    /// Whether a matrix can be updated so.
    ///
    /// # Errors
    /// It can't.
    fn check_plan(&self, projection: &Projection, plan: &Plan) -> Result<(), Error>;
    /// Updates the parameter.
    fn finish<R: Directed, L: Algebra, C: Real<Scalar: Plain, Stored: Plain>>(
        &self,
        projection: &Projection,
        step: &Step,
        k: &R::Known<C>,
        found: Found<'_, C::Scalar>,
        param: &mut DataMut<'_>,
        numbers: &mut [f64],
    );
}

/// What has been found for a matrix.
#[derive(Debug)]
pub struct Found<'a, A> {
    /// How it is projected.
    pub plan: Plan,
    /// The left projector, rows × rank; empty if there is none.
    pub left: &'a [A],
    /// The right projector, rank × columns; empty if there is none.
    pub right: &'a [A],
    /// The projected gradient.
    pub projected: &'a [A],
    /// The direction that the rule found in it.
    pub direction: &'a [A],
    /// Whether that direction is the way of the parameter, and so against the gradient; else the rule's
    /// second half turns it round, as AdamW's of GaLore and APOLLO does.
    pub against: bool,
    /// The gradient.
    pub grad: &'a [A],
    /// Numbers which may be overwritten: as many, or what [`Way::spare`] asks for.
    pub spare: &'a mut [A],
    /// Where both sides are projected, rows × rank numbers.
    pub between: &'a mut [A],
}

/// A rule, or, in groups with a rank, that rule on projected gradients.
///
/// The rule sees zeros in place of the parameter. Weight decay is applied to the parameter itself, by the
/// rule's [second half](crate::rule::Rule::descend): where it is decoupled, in rules that have one (`AdamW`, `AdamWHf`, `Lion`,
/// `AdEMAMix`, `BnbAdam`, `Adafactor`, those of FlashOptim, …). Others [refuse](crate::rule::Rule::check_halves) a rank together
/// with a decay, and rules with a slot that stands for the parameter (ScheduleFree, Ranger) refuse a rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Projected<R, W, L = Portable> {
    /// What moves the parameters.
    pub rule: R,
    /// How gradients are projected.
    pub projection: Projection,
    /// What is done with the direction found.
    pub way: W,
    /// Where products and singular vectors come from.
    pub algebra: L,
}

impl<R, W: Way, L: Algebra> Projected<R, W, L> {
    /// A rule that projects nothing until its rank is set.
    pub fn new(rule: R) -> Self {
        Projected { rule, projection: W::projection(), way: W::default(), algebra: L::default() }
    }
}

impl<R: Default, W: Way, L: Algebra> Default for Projected<R, W, L> {
    fn default() -> Self {
        Projected::new(R::default())
    }
}

const PROJECTORS: [&str; 3] = ["projector", "projector_0", "projector_1"];
/// More names than any rule has.
const MOST: usize = 12;

/// One list after the other.
const fn joined(a: &[&'static str], b: &[&'static str]) -> [&'static str; MOST] {
    let (mut all, mut i) = ([""; MOST], 0);
    while i < a.len() + b.len() {
        all[i] = if i < a.len() { a[i] } else { b[i - a.len()] };
        i += 1;
    }
    all
}

impl<R: Directed, W: Way, L: Algebra> Projected<R, W, L> {
    const ALL_KEYS: [&'static str; MOST] = joined(R::KEYS, &PROJECTORS);
    const ALL_NUMBERS: [&'static str; MOST] = joined(R::NUMBERS, W::NUMBERS);
    const ALL_GIVEN: [&'static str; MOST] = joined(R::GIVEN, &PROJECTORS);

    fn projects(&self) -> bool {
        self.projection.rank.is_some()
    }

    fn numbers<'a>(&self, scalars: &'a mut Scalars) -> &'a mut [f64] {
        scalars.get_mut(R::NUMBERS.len()..).unwrap_or_default()
    }

    /// Numbers to find singular vectors with, if such are asked for.
    fn svd_scratch(&self, plan: &Plan) -> usize {
        let finds = self.projection.proj == Projector::Svd;
        if finds { L::scratch(plan.rows.min(plan.cols)) } else { 0 }
    }

    /// Numbers for a copy of the gradient, to be overwritten, and to find singular vectors with: at this step.
    fn needs(
        &self,
        compute: Dtype,
        step: &Step,
        plan: &Plan,
        param: &DataMut<'_>,
        grad: &Data<'_>,
    ) -> [usize; 3] {
        let [copy, all, svd] = self.most(plan);
        let finds = self.renewal(step) == Some(Projector::Svd);
        let in_place =
            matches!((compute, grad), (Dtype::F64, Data::F64(_)) | (Dtype::F32, Data::F32(_)));
        let between = plan.rank.saturating_mul(plan.cols); // where both sides are projected
        let spare =
            if finds || param.block() != 1 { all } else { self.way.spare(plan).max(between) };
        [if in_place { 0 } else { copy }, spare.min(all), if finds { svd } else { 0 }]
    }

    /// The same at any step.
    fn most(&self, plan: &Plan) -> [usize; 3] {
        let whole = numel(&[plan.rows, plan.cols]);
        [whole, whole, self.svd_scratch(plan)]
    }

    /// Those and all others.
    fn total(&self, plan: &Plan, needs: [usize; 3]) -> usize {
        let low = plan.low();
        let others = [numel(&low), numel(&low), plan.between(), self.rule.workspace(&low)];
        needs.into_iter().chain(plan.sizes()).chain(others).fold(0, usize::saturating_add)
    }

    /// Dimensions of a slot beyond the rule's.
    fn projector(&self, slot: usize, shape: &[usize]) -> Option<[usize; 2]> {
        let which = slot.checked_sub(R::KEYS.len())?;
        self.projection.plan(shape)?.projectors().get(which).copied().flatten()
    }
}

/// All arguments but the one that chooses among a rule's references: the projection's is followed.
struct ButReference<'a>(&'a mut dyn Fields);

impl Fields for ButReference<'_> {
    fn field(&mut self, name: &'static str, slot: Slot<'_>) {
        if name != "reference" {
            self.0.field(name, slot);
        }
    }
}

impl<R: Directed, W: Way, L: Algebra> Hyper for Projected<R, W, L> {
    fn fields(&mut self, f: &mut dyn Fields) {
        self.rule.hyper().fields(&mut ButReference(f));
        self.projection.fields(f);
        self.way.fields(&mut self.projection, f);
    }
}

impl<R: Directed, W: Way, L: Algebra> AnyRule for Projected<R, W, L> {
    fn id(&self, part: &mut dyn FnMut(&'static str)) {
        part(W::ID);
        self.rule.id(part);
    }
    fn check(&self) -> Result<(), Error> {
        const {
            assert!(R::NUMBERS.len() + W::NUMBERS.len() <= MAX_SCALARS);
        }
        self.rule.check()?;
        if self.projects() {
            self.rule.check_halves()?;
        }
        self.projection.check()
    }
    fn info(&self) -> RuleInfo {
        let inner = self.rule.info();
        let projectors = if self.projects() { PROJECTORS.len() } else { 0 };
        let first =
            |all: &'static [&'static str], count: usize| all.get(..count).unwrap_or_default();
        RuleInfo {
            slots: first(const { &Self::ALL_KEYS }, R::KEYS.len() + projectors),
            scalars: match self.way.numbers(self.projects()) {
                0 => inner.scalars,
                more => first(const { &Self::ALL_NUMBERS }, R::NUMBERS.len() + more),
            },
            given: first(const { &Self::ALL_GIVEN }, R::GIVEN.len() + projectors),
            is_elementwise: inner.is_elementwise && !self.projects(),
            ..inner
        }
    }
    fn hyper(&mut self) -> &mut dyn Hyper {
        self
    }
    fn lr(&self) -> f64 {
        self.rule.lr()
    }
    fn settle(&mut self) {
        self.rule.settle();
    }
    fn norm_scale(&self, given: &[(&str, f64)]) -> Option<f64> {
        self.rule.norm_scale(given)
    }
    fn grad_norm(&self, grads: &[Data<'_>], scale: f64) -> f64 {
        self.rule.grad_norm(grads, scale)
    }
    fn scalars_of(&self, index: usize) -> Scalars {
        let mut scalars = self.rule.scalars_of(index);
        self.way.start(index, self.numbers(&mut scalars));
        scalars
    }
    fn advance(&self, step: &Step, scalars: &mut Scalars) {
        self.rule.advance(step, scalars);
    }
    fn check_shape(&self, shape: &[usize]) -> Result<(), Error> {
        if !self.projects() {
            return self.rule.check_shape(shape);
        }
        let Some(plan) = self.projection.plan(shape) else {
            return Err(Error::Invalid { argument: "shape", wanted: "two dimensions, to project" });
        };
        self.way.check_plan(&self.projection, &plan)?;
        self.rule.check_shape(&plan.low())
    }
    fn slot_len(&self, slot: usize, shape: &[usize], compute: Dtype) -> usize {
        if slot >= R::KEYS.len() {
            return self.projector(slot, shape).map_or(0, |dims| numel(&dims));
        }
        match self.projection.plan(shape) {
            Some(plan) => self.rule.slot_len(slot, &plan.low(), compute),
            None => self.rule.slot_len(slot, shape, compute),
        }
    }
    fn slot_dims(&self, slot: usize, shape: &[usize], dims: &mut dyn FnMut(usize)) {
        if slot >= R::KEYS.len() {
            return self.projector(slot, shape).into_iter().flatten().for_each(dims);
        }
        match self.projection.plan(shape) {
            Some(plan) => self.rule.slot_dims(slot, &plan.low(), dims),
            None => self.rule.slot_dims(slot, shape, dims),
        }
    }
    fn slot_dtype(&self, slot: usize, param: Dtype) -> Dtype {
        let own = slot < R::KEYS.len();
        if own { self.rule.slot_dtype(slot, param) } else { self.rule.projector_dtype(param) }
    }
    fn slot_start(&self, slot: usize) -> Start {
        if slot < R::KEYS.len() { self.rule.slot_start(slot) } else { Start::Value(0.0) }
    }
    fn workspace(&self, shape: &[usize]) -> usize {
        match self.projection.plan(shape) {
            Some(plan) => self.total(&plan, self.most(&plan)),
            None => self.rule.workspace(shape),
        }
    }
    fn workspace_at(
        &self,
        compute: Dtype,
        step: &Step,
        shape: &[usize],
        param: &DataMut<'_>,
        grad: &Data<'_>,
    ) -> usize {
        match self.projection.plan(shape) {
            Some(plan) => self.total(&plan, self.needs(compute, step, &plan, param, grad)),
            None => self.rule.workspace_at(compute, step, shape, param, grad),
        }
    }
    fn update(
        &self,
        arithmetic: Arithmetic,
        step: &Step,
        scalars: &mut Scalars,
        tensor: Tensor<'_, '_>,
    ) -> Result<(), Error> {
        check_group(self.check())?;
        if !self.projects() {
            return self.rule.update(arithmetic, step, scalars, tensor);
        }
        any::check_tensor(self, arithmetic, step, &tensor)?;
        match arithmetic.compute(tensor.param.dtype()) {
            Dtype::F64 => self.project::<f64>(step, scalars, tensor),
            Dtype::F32 => self.project::<f32>(step, scalars, tensor),
            _ if const { !R::EAGER } => Err(any::NOT_EAGER),
            Dtype::Bf16 => self.project::<Eager<bf16>>(step, scalars, tensor),
            Dtype::F16 => self.project::<Eager<f16>>(step, scalars, tensor),
        }
    }
    fn convert(
        &self,
        arithmetic: Arithmetic,
        to: Mode,
        param: &mut DataMut<'_>,
        slots: &mut [DataMut<'_>],
    ) -> Result<(), Error> {
        if self.projects() {
            return self.rule.convert(arithmetic, to, &mut DataMut::F32(&mut []), &mut []);
        }
        self.rule.convert(arithmetic, to, param, slots)
    }
    #[cfg(feature = "alloc")]
    fn boxed(&self) -> alloc::boxed::Box<dyn AnyRule> {
        alloc::boxed::Box::new(*self)
    }
}

/// Scratch memory, cut up.
struct Work<'w, A> {
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

impl<'w, A> Work<'w, A> {
    fn split(plan: &Plan, [copy, spare, svd]: [usize; 3], work: &'w mut [A]) -> Option<Self> {
        let low = numel(&plan.low());
        let [left, right] = plan.sizes();
        let (grad, work) = work.split_at_mut_checked(copy)?;
        let (spare, work) = work.split_at_mut_checked(spare)?;
        let (projected, work) = work.split_at_mut_checked(low)?;
        let (direction, work) = work.split_at_mut_checked(low)?;
        let (left, work) = work.split_at_mut_checked(left)?;
        let (right, work) = work.split_at_mut_checked(right)?;
        let (svd, work) = work.split_at_mut_checked(svd)?;
        let (between, rule) = work.split_at_mut_checked(plan.between())?;
        Some(Work { grad, spare, projected, direction, left, right, svd, between, rule })
    }
}

impl<R: Directed, W: Way, L: Algebra> Projected<R, W, L> {
    /// Whether the projector is renewed at this step.
    fn renews(&self, step: &Step) -> bool {
        let given = PROJECTORS.iter().any(|name| step.given(name).is_some());
        let before = step.t.saturating_sub(1);
        self.projects()
            && !given
            && (step.first || before.is_multiple_of(self.projection.update_proj_gap.max(1)))
    }

    /// Whether the projector is renewed at this step, and from what: for backends that keep
    /// numbers elsewhere, to [`renew`](Self::renew) it before they step.
    #[must_use]
    pub fn renewal(&self, step: &Step) -> Option<Projector> {
        self.renews(step).then_some(self.projection.proj)
    }

    /// The projectors of this step: of a parameter of this shape and type, from its gradient (which
    /// may be empty, if they are drawn at random). `work` is what a step takes.
    ///
    /// # Errors
    /// A shape that is not projected, or too little scratch memory.
    pub fn renew(
        &self,
        (arithmetic, param): (Arithmetic, Option<Dtype>),
        step: &Step,
        scalars: &mut Scalars,
        grad: Data<'_>,
        projectors: &mut [DataMut<'_>],
        work: DataMut<'_>,
    ) -> Result<(), Error> {
        match arithmetic.compute(param) {
            Dtype::F64 => self.renew_in::<f64>(step, scalars, grad, projectors, work),
            Dtype::F32 => self.renew_in::<f32>(step, scalars, grad, projectors, work),
            _ if const { !R::EAGER } => Err(any::NOT_EAGER),
            Dtype::Bf16 => self.renew_in::<Eager<bf16>>(step, scalars, grad, projectors, work),
            Dtype::F16 => self.renew_in::<Eager<f16>>(step, scalars, grad, projectors, work),
        }
    }

    fn renew_in<C: Real<Scalar: Plain, Stored: Plain>>(
        &self,
        step: &Step,
        scalars: &mut Scalars,
        from: Data<'_>,
        projectors: &mut [DataMut<'_>],
        mut work: DataMut<'_>,
    ) -> Result<(), Error> {
        let (Some(plan), Some(work)) =
            (self.projection.plan(step.shape), <C::Scalar as Plain>::of_mut(&mut work))
        else {
            return Err(WORK);
        };
        let Some(work) = Work::split(&plan, self.most(&plan), work) else {
            return Err(WORK);
        };
        let Work { grad, spare, left, right, svd, .. } = work;
        if from.len() == grad.len() {
            load::<C>(grad, |start, out| from.load(start, out));
        }
        self.renewed::<C>(&plan, step, scalars, grad, spare, [left, right], svd, projectors);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "all of the scratch memory is at work")]
    fn renewed<C: Real<Scalar: Plain, Stored: Plain>>(
        &self,
        plan: &Plan,
        step: &Step,
        scalars: &mut Scalars,
        grad: &[C::Scalar],
        spare: &mut [C::Scalar],
        [left, right]: [&mut [C::Scalar]; 2],
        svd: &mut [C::Scalar],
        projectors: &mut [DataMut<'_>],
    ) {
        let sides = [&mut *left, &mut *right];
        match self.projection.proj {
            Projector::Svd => singular::<L, _>(plan, grad, spare, sides, svd),
            Projector::Random => {
                let first = W::seed(self.numbers(scalars));
                random(plan, later_seed(first, self.renewals(step)), sides);
            }
            Projector::Signs => {
                let seed = W::seed(self.numbers(scalars));
                for side in sides {
                    signs(seed, self.renewals(step), 0, plan.rank as u64, side);
                }
            }
        }
        each(plan, projectors, [left, right], |slot, values| store::<C>(slot, values));
    }

    /// How often the projector has been renewed before this step.
    fn renewals(&self, step: &Step) -> u64 {
        step.t.saturating_sub(1) / self.projection.update_proj_gap.max(1)
    }

    pub(super) fn project<C: Real<Scalar: Plain, Stored: Plain>>(
        &self,
        step: &Step,
        scalars: &mut Scalars,
        mut t: Tensor<'_, '_>,
    ) -> Result<(), Error> {
        let mut work = core::mem::replace(&mut t.work, DataMut::F32(&mut []));
        let (Some(plan), Some(work), Some((slots, projectors))) = (
            self.projection.plan(t.shape),
            <C::Scalar as Plain>::of_mut(&mut work),
            t.slots.split_at_mut_checked(R::KEYS.len()),
        ) else {
            return Err(WORK);
        };
        let needs = self.needs(C::DTYPE, step, &plan, &t.param, &t.grad);
        let Some(work) = Work::split(&plan, needs, work) else {
            return Err(WORK);
        };
        let Work { grad, spare, projected, direction, left, right, svd, between, rule } = work;
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

        if self.renews(step) {
            self.renewed::<C>(&plan, step, scalars, grad, spare, [left, right], svd, projectors);
        }
        // What rests in the slots is what counts, rounded as they are.
        each(&plan, projectors, [left, right], |slot, values| {
            load::<C>(values, |start, out| slot.load(start, out));
        });

        let Plan { rows, cols, rank, side } = plan;
        let matrix = View::new(grad, cols);
        let (p, q) = (View::new(&*left, rank).transposed(), View::new(&*right, cols).transposed());
        match side {
            Side::Right => L::product([rows, cols, rank], matrix, q, projected),
            Side::Left => L::product([rank, rows, cols], p, matrix, projected),
            Side::Both => {
                let between = spare.get_mut(..rank * cols).unwrap_or_default();
                L::product([rank, rows, cols], p, matrix, between);
                round::<C>(between);
                L::product([rank, cols, rank], View::new(between, cols), q, projected);
            }
        }
        round::<C>(projected);

        direction.fill(C::Scalar::ZERO);
        let low = plan.low();
        let tensor = Tensor {
            shape: &low,
            param: Plain::data_mut(&mut *direction),
            grad: Plain::data(&*projected),
            slots,
            work: Plain::data_mut(rule),
        };
        let inner = Step { shape: &low, projected: Some(numel(t.shape)), ..*step };
        let k = self.rule.direct::<C>(&inner, scalars, &t.param, tensor)?;
        round::<C>(direction); // a rule may have computed in a wider type
        let against = R::follow(&k, C::ZERO, C::ONE) > C::ZERO && !self.rule.info().maximizes;
        let found =
            Found { plan, left, right, projected, direction, against, grad, spare, between };
        let numbers = self.numbers(scalars);
        self.way.finish::<R, L, C>(&self.projection, step, &k, found, &mut t.param, numbers);
        Ok(())
    }
}

const WORK: Error = Error::Invalid {
    argument: "work",
    wanted: "f64 numbers if computed in f64, else f32, as many as the rule asks for",
};

/// Runs `f` on each projector that there is: its slot and its numbers.
fn each<A>(
    plan: &Plan,
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

/// Singular vectors of the gradient, into whichever side is to be projected.
fn singular<L: Algebra, A: Real<Scalar = A> + Plain>(
    plan: &Plan,
    grad: &[A],
    spare: &mut [A],
    [left, right]: [&mut [A]; 2],
    svd: &mut [A],
) {
    let Plan { rows, cols, rank, .. } = *plan;
    // Left vectors are found as rows, and stored as columns. They wait where the rotations were.
    if rows <= cols {
        spare.copy_from_slice(grad);
        L::singular([rows, cols], spare, left, right, svd);
    } else {
        transpose(grad, cols, spare);
        L::singular([cols, rows], spare, right, left, svd);
    }
    for (vectors, len) in [(&mut *left, rows), (&mut *right, cols)] {
        vectors.chunks_mut(len.max(1)).for_each(svd::orient);
    }
    let vectors = spare.get_mut(..left.len()).unwrap_or_default();
    vectors.copy_from_slice(left);
    if rank > 0 {
        transpose(vectors, rows, left);
    }
}

/// Rows of `cols` elements into columns.
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

/// Normal numbers over √rank: in `f32`, as the reference draws them, whatever the type.
fn random<A: Real<Scalar = A>>(plan: &Plan, seed: u64, sides: [&mut [A]; 2]) {
    let root = libm::sqrt(plan.rank as f64) as f32;
    for side in sides {
        Mt19937::new(seed).normal(side);
        for x in side {
            *x = A::from_f32(x.to_f32() / root);
        }
    }
}

/// Rounds to the compute type.
pub(super) fn round<C: Real>(x: &mut [C::Scalar]) {
    if C::DTYPE != C::Scalar::DTYPE {
        simd::dispatch(Round::<C>(x));
    }
}

struct Round<'a, C: Real>(&'a mut [C::Scalar]);

impl<C: Real> Kernel for Round<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.0 {
            *x = C::narrow(*x).wide();
        }
    }
}

struct Widen<'a, T, W> {
    from: &'a [T],
    to: &'a mut [W],
}

impl<T: Number, W: Real> Kernel for Widen<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (to, x) in self.to.iter_mut().zip(self.from) {
            *to = W::load(*x);
        }
    }
}

/// The directions of elements. A trait, because a closure can't be told to become part of the
/// vector kernel that calls it.
pub(super) trait Directions<C: Real> {
    /// Writes those from element `start` on.
    fn fill(&self, start: usize, out: &mut [C]);
}

/// Moves the elements of a range of a parameter along their directions.
pub(super) fn follow<R: Directed, C: Real<Stored: Plain>>(
    k: &R::Known<C>,
    param: &mut DataMut<'_>,
    range: Range<usize>,
    directions: &impl Directions<C>,
) {
    if let Some(values) = C::Stored::of_mut(param).and_then(|values| values.get_mut(range.clone()))
    {
        let start = range.start;
        return simd::dispatch_in::<C, C, _>(Follow::<R, C, _, _> { k, start, values, directions });
    }
    let mut buffer = [C::Stored::default(); MAX_BLOCK];
    let Some(stretch) = stretch([param.block()]) else { return };
    for start in range.clone().step_by(stretch) {
        let values = buffer.get_mut(..(range.end - start).min(stretch)).unwrap_or_default();
        param.load(start, values);
        simd::dispatch_in::<C, C, _>(Follow::<R, C, _, _> { k, start, values, directions });
        param.store(start, values);
    }
}

struct Follow<'a, R: Directed, C: Real, T, D> {
    k: &'a R::Known<C>,
    start: usize,
    values: &'a mut [T],
    directions: &'a D,
}

impl<R: Directed, C: Real, T: Number, D: Directions<C>> Kernel for Follow<'_, R, C, T, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut buffer = [C::ZERO; CHUNK];
        for (at, values) in self.values.chunks_mut(CHUNK).enumerate() {
            let directions = buffer.get_mut(..values.len()).unwrap_or_default();
            self.directions.fill(self.start + at * CHUNK, directions);
            for (p, direction) in values.iter_mut().zip(directions) {
                *p = R::follow(self.k, C::load(*p), *direction).store();
            }
        }
    }
}

fn load<C: Real<Stored: Plain>>(to: &mut [C::Scalar], from: impl Fn(usize, &mut [C::Stored])) {
    let mut buffer = [C::Stored::default(); MAX_BLOCK];
    for (block, to) in to.chunks_mut(MAX_BLOCK).enumerate() {
        let values = buffer.get_mut(..to.len()).unwrap_or_default();
        from(block * MAX_BLOCK, values);
        for (to, x) in to.iter_mut().zip(values) {
            *to = C::load(*x).wide();
        }
    }
}

fn store<C: Real<Stored: Plain>>(to: &mut DataMut<'_>, from: &[C::Scalar]) {
    let mut buffer = [C::Stored::default(); MAX_BLOCK];
    for (block, from) in from.chunks(MAX_BLOCK).enumerate() {
        let values = buffer.get_mut(..from.len()).unwrap_or_default();
        for (to, x) in values.iter_mut().zip(from) {
            *to = C::narrow(*x).store();
        }
        to.store(block * MAX_BLOCK, values);
    }
}
