//! Projected rules in bounded arithmetic: GaLore and APOLLO around any rule.

use bitstep::float::{ComputeFloat, Dtype};
use bitstep::lowrank::{
    Apollo, Channels, ForceF32, GaLore, Projected, Projection, ProjectionMethod, ProjectionShape,
    Side, SplitRule,
};
use bitstep::math::reduce;
use bitstep::optimizer::Buffer;
use bitstep::rule::factored::{FactoredRule, FactoredUpdate, MatrixLayout};
use bitstep::rule::{Rule, StepContext};

use super::choice;
use super::factors::Factors;
use super::follow::{Answer, Answers, Directions, Held, Task, follow, sum};
use super::number::Bounded;
use super::plain;
use super::product::{Matrix, product};

/// A rule that can be inside of a projection.
pub(super) trait Inner: SplitRule {
    /// The direction of a projected gradient, computed in `T`.
    fn direction<T: ComputeFloat>(&self, task: &mut Task<'_>) -> Option<Directed<Self, T>>;
    /// The step of a parameter that is not projected.
    fn whole(&self, task: &mut Task<'_>) -> Option<Answers>;
}

/// A direction and the new state, and the constants to apply it.
pub(super) struct Directed<R: SplitRule, T: ComputeFloat> {
    answers: Answers,
    k: R::Coefs<Bounded<T>>,
    /// The constants with perturbed sums, in pairs: down and up.
    others: Vec<R::Coefs<Bounded<T>>>,
}

/// [`Inner::direction`] of an elementwise or tensorwise rule.
pub(super) fn elementwise<R: Rule, T: ComputeFloat>(
    rule: &R,
    task: &mut Task<'_>,
) -> Option<Directed<R, T>> {
    let mask = rule.active_slots(T::DTYPE);
    let followed = follow::<R, T, _>(rule, mask, task, |_, _| Directions);
    let others = followed.others.iter().map(|x| x.k).collect();
    Some(Directed { answers: followed.answers, k: followed.nominal.k, others })
}

impl<R: FactoredUpdate> Inner for FactoredRule<R> {
    fn direction<T: ComputeFloat>(&self, task: &mut Task<'_>) -> Option<Directed<Self, T>> {
        let layout = MatrixLayout::of(task.step.shape)?;
        let (slots, states) = task.slots.split_at(R::SLOTS.len().min(task.slots.len()));
        let mask = self.0.active_slots(T::DTYPE) & !R::FACTORED_SLOTS;
        let mut task =
            Task { slots, scalars: task.scalars, scalar_errors: task.scalar_errors, ..*task };
        let factors = |k: &_, grad: &[Bounded<T>]| Factors::new::<R>(k, layout, grad, states);
        let followed = follow::<R, T, _>(&self.0, mask, &mut task, factors);
        let mut answers = followed.answers;
        let states = followed.nominal.shape.states;
        answers.extend(states.map(|state| state.into_iter().map(Answer::of).collect()));
        let others = followed.others.iter().map(|x| x.k).collect();
        Some(Directed { answers, k: followed.nominal.k, others })
    }
    fn whole(&self, task: &mut Task<'_>) -> Option<Answers> {
        Some(plain::matrix(&self.0, task))
    }
}

impl<R: Rule> Inner for ForceF32<R> {
    fn direction<T: ComputeFloat>(&self, task: &mut Task<'_>) -> Option<Directed<Self, T>> {
        let k = self.0.coefs::<Bounded<T>>(&task.step, task.scalars);
        let mut task = Task {
            compute: Dtype::F32,
            scalars: task.scalars,
            scalar_errors: task.scalar_errors,
            ..*task
        };
        let mask = self.0.active_slots(Dtype::F32);
        let followed = follow::<R, f32, _>(&self.0, mask, &mut task, |_, _| Directions);
        Some(Directed { answers: followed.answers, k, others: Vec::new() })
    }
    fn whole(&self, task: &mut Task<'_>) -> Option<Answers> {
        let mut task = Task {
            compute: Dtype::F32,
            scalars: task.scalars,
            scalar_errors: task.scalar_errors,
            ..*task
        };
        Some(plain::elements(&self.0, &mut task))
    }
}

/// The projected gradient and its direction, in the type of the products.
pub(super) struct Update<A> {
    plan: ProjectionShape,
    left: Vec<Bounded<A>>,
    right: Vec<Bounded<A>>,
    projected: Vec<Bounded<A>>,
    direction: Vec<Bounded<A>>,
    against: bool,
    grad: Vec<Bounded<A>>,
}

/// How the parameter moves along a direction: [`ProjectionMethod::apply`].
pub(super) trait Method: ProjectionMethod {
    /// The directions of all elements of the parameter. `scalars` are the method's, with their errors.
    fn directions<T: ComputeFloat>(
        &self,
        projection: &Projection,
        step: &StepContext<'_>,
        update: &Update<T::Scalar>,
        scalars: [&mut [f64]; 2],
    ) -> Vec<Bounded<T>>;
}

/// Rounds to the compute type, and converts back.
fn rounded<T: ComputeFloat>(x: Vec<Bounded<T::Scalar>>) -> Vec<Bounded<T::Scalar>> {
    x.into_iter().map(|x| Bounded::<T>::round_from(x).widen()).collect()
}

impl Method for GaLore {
    fn directions<T: ComputeFloat>(
        &self,
        projection: &Projection,
        _: &StepContext<'_>,
        update: &Update<T::Scalar>,
        _: [&mut [f64]; 2],
    ) -> Vec<Bounded<T>> {
        let Update { plan, left, right, direction, .. } = update;
        let ProjectionShape { rows, cols, rank, side } = *plan;
        let low = |width| Matrix::new(direction, width);
        let (left, right) = (Matrix::new(left, rank), Matrix::new(right, cols));
        let product = match side {
            Side::Right => product([rows, rank, cols], low(rank), right),
            Side::Left => product([rows, rank, cols], left, low(cols)),
            Side::Both => {
                let between = rounded::<T>(product([rows, rank, rank], left, low(rank)));
                product([rows, rank, cols], Matrix::new(&between, rank), right)
            }
        };
        let scale = Bounded::<T>::scalar(projection.scale);
        let scaled = |x| GaLore::scaled(Bounded::<T>::round_from(x), scale);
        product.into_iter().map(scaled).collect()
    }
}

impl Method for Apollo {
    fn directions<T: ComputeFloat>(
        &self,
        projection: &Projection,
        step: &StepContext<'_>,
        update: &Update<T::Scalar>,
        [scalars, errors]: [&mut [f64]; 2],
    ) -> Vec<Bounded<T>> {
        let Update { plan, projected, direction, against, grad, .. } = update;
        let Channels { count, len, start, stride, by_column } = self.factors(plan);
        let factor = |channel: usize| {
            let squares = |x: &[Bounded<T::Scalar>]| {
                let at = |i| x.get(channel * start + i * stride).copied();
                let at = |i| at(i).unwrap_or(Bounded::ZERO);
                sum((0..len).map(|i| reduce::square(at(i), len == 1)))
            };
            let [of_direction, of_projected] = [squares(direction), squares(projected)];
            let factor = Apollo::factor::<Bounded<T>>(of_direction, of_projected, len == 1);
            if *against { -factor } else { factor }
        };
        let factors: Vec<Bounded<T>> = (0..count).map(factor).collect();
        let root = Bounded::<T>::scalar(projection.sqrt_scale());
        let cols = plan.cols.max(1);
        let element = |i: usize, limiter| {
            let channel = if by_column && count > 1 { i % cols } else { i / cols };
            let factor = factors.get(channel).or(factors.first());
            let factor = factor.copied().unwrap_or(Bounded::ZERO);
            let g = Bounded::<T>::round_from(grad[i]);
            Apollo::scaled(g, factor, root, self.scale_first(), limiter)
        };
        let mut limiter = Bounded::ONE;
        if self.limits_growth()
            && let (Some(stored), Some(error)) = (scalars.get_mut(1), errors.get_mut(1))
        {
            let single = grad.len() == 1;
            let squares =
                sum((0..grad.len()).map(|i| reduce::square(element(i, None).widen(), single)));
            let before = (!step.is_first).then_some(*stored);
            // The norm before may itself be off: both ends of its bound are outcomes too.
            let around = [0.0, -*error, *error];
            let mut both: Option<[Answer; 2]> = None;
            for shift in around.into_iter().take(if *error > 0.0 { 3 } else { 1 }) {
                let before = before.map(|x| x + shift);
                choice::each(
                    || Apollo::limiter::<Bounded<T>>(squares, single, before),
                    |(limiter, last)| {
                        let these = [limiter, last].map(Answer::of);
                        match &mut both {
                            None => both = Some(these),
                            Some(both) => both.iter_mut().zip(these).for_each(|(x, y)| x.admit(y)),
                        }
                    },
                );
            }
            let [a, last] = both.unwrap_or_default();
            limiter = a.bounded();
            (*stored, *error) = (last.value, last.tolerance / 2.0);
        }
        (0..grad.len()).map(|i| element(i, Some(limiter))).collect()
    }
}

/// A step of a projected rule.
pub(super) fn step<R: Inner, W: Method>(
    rule: &Projected<R, W>,
    task: &mut Task<'_>,
) -> Option<Answers> {
    let Some(plan) = rule.projection.shape_of(task.step.shape) else {
        return rule.rule.whole(task);
    };
    // Projectors that are made from the gradient, or drawn, are no arithmetic of the rule.
    if rule.refresh_due(&task.step).is_some() {
        return None;
    }
    match task.compute {
        Dtype::F64 => of::<R, W, f64>(rule, plan, task),
        Dtype::F32 => of::<R, W, f32>(rule, plan, task),
        Dtype::Bf16 => of::<R, W, bitstep::float::Eager<half::bf16>>(rule, plan, task),
        Dtype::F16 => of::<R, W, bitstep::float::Eager<half::f16>>(rule, plan, task),
    }
}

/// Values as a buffer, and their error bounds.
fn held<A: ComputeFloat>(x: &[Bounded<A>]) -> (Buffer, Vec<f64>) {
    let values = x.iter().map(|x| x.value);
    let buffer = match A::DTYPE {
        Dtype::F64 => Buffer::F64(values.map(|x| x.to_f64()).collect()),
        _ => Buffer::F32(values.map(|x| x.to_f32()).collect()),
    };
    (buffer, x.iter().map(|x| x.error).collect())
}

fn of<R: Inner, W: Method, T: ComputeFloat>(
    rule: &Projected<R, W>,
    plan: ProjectionShape,
    task: &mut Task<'_>,
) -> Option<Answers> {
    let wide = |held: Held<'_>| -> Vec<Bounded<T::Scalar>> {
        held.load::<T>().into_iter().map(|x| x.widen()).collect()
    };
    let (slots, projectors) = task.slots.split_at_checked(R::SLOTS.len())?;
    let projector = |which: usize| projectors.get(which).map(|x| wide(*x)).unwrap_or_default();
    let [left, right] = match plan.side {
        Side::Left => [projector(0), Vec::new()],
        Side::Right => [Vec::new(), projector(0)],
        Side::Both => [projector(1), projector(2)],
    };
    let grad = wide(task.grad);
    let ProjectionShape { rows, cols, rank, side } = plan;
    let matrix = Matrix::new(&grad, cols);
    let (p, q) = (Matrix::new(&left, rank).transposed(), Matrix::new(&right, cols).transposed());
    let projected = match side {
        Side::Right => product([rows, cols, rank], matrix, q),
        Side::Left => product([rank, rows, cols], p, matrix),
        Side::Both => {
            let between = rounded::<T>(product([rank, rows, cols], p, matrix));
            product([rank, cols, rank], Matrix::new(&between, cols), q)
        }
    };
    let projected = rounded::<T>(projected);

    let low = plan.low_rank_shape();
    let (low_grad, low_errors) = held(&projected);
    let (zeros, _) = held(&vec![Bounded::<T::Scalar>::ZERO; projected.len()]);
    let whole: usize = task.step.shape.iter().product();
    let mut inner = Task {
        compute: task.compute,
        step: StepContext { shape: &low, projected: Some(whole), ..task.step },
        scalars: &mut *task.scalars,
        param: Held { values: &zeros, errors: &[] },
        grad: Held { values: &low_grad, errors: &low_errors },
        slots,
        norm_error: task.norm_error,
        scalar_errors: &mut *task.scalar_errors,
        full: Some(task.param),
    };
    let Directed { mut answers, k, others } = rule.rule.direction::<T>(&mut inner)?;
    let bounded = |x: &Answer| x.bounded::<T::Scalar>();
    let direction = answers.first()?.iter().map(bounded).collect();
    let direction = rounded::<T>(direction); // the rule may have computed in a wider type
    let uphill = (task.step.lr < 0.0) != rule.rule.info().maximizes;
    let against = R::ADDS_DIRECTION && !uphill;
    let update = Update { plan, left, right, projected, direction, against, grad };
    let first = R::SCALAR_NAMES.len();
    let scalars = [&mut *task.scalars, &mut *task.scalar_errors];
    let scalars = scalars.map(|x| x.get_mut(first..).unwrap_or_default());
    let directions = rule.method.directions::<T>(&rule.projection, &task.step, &update, scalars);
    let param = task.param.load::<T>();
    let apply = |k: &R::Coefs<Bounded<T>>, i: usize| {
        let direction = directions.get(i).copied().unwrap_or(Bounded::ZERO);
        let mut all: Option<Answer> = None;
        choice::each(
            || R::apply_direction(k, param[i], direction),
            |x| match &mut all {
                None => all = Some(Answer::of(x)),
                Some(all) => all.admit(Answer::of(x)),
            },
        );
        all.unwrap_or_default()
    };
    let element = |i: usize| {
        let base = apply(&k, i);
        let mut total = base;
        for pair in others.chunks(2) {
            let apart = pair.iter().map(|k| (apply(k, i).value - base.value).abs());
            total.tolerance += apart.filter(|x| x.is_finite()).fold(0.0, f64::max);
        }
        total
    };
    *answers.first_mut()? = (0..param.len()).map(element).collect();
    Some(answers)
}
