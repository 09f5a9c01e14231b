//! Newton–Schulz iterations in bounded arithmetic.
//!
//! All matrices of the iteration are bf16. Between two roundings to bf16 there is one product, whose sums two correct
//! implementations may add in any order; so they round to the same bf16 number, or, where a tie lies within the bound of
//! the sum, to two neighbours. Such a number is *open*. Carrying the bound of every open number through the iteration as
//! |A| |B| would grow by an order of magnitude in each. Instead the rest of the iteration is computed again with the
//! other neighbour in its place, and what each open number moves the result by is added up. (So effects of several open
//! numbers on each other's later roundings count to first order only.)

use bitstep::float::{ComputeFloat, Dtype, Eager, StoredFloat};
use bitstep::math::matmul::{MatrixView, gram, matmul};
use bitstep::math::reduce;
use bitstep::rule::newton_schulz::{NewtonSchulz, WideIndex};
use half::{bf16, f16};

use super::follow::{Answer, Answers, Task, sum};
use super::number::{Bounded, half_ulp};
use super::product::{Matrix, product_summed_in};

/// A step of a rule that orthogonalizes its momentum.
pub(super) fn step<R: NewtonSchulz>(rule: &R, task: &mut Task<'_>) -> Option<Answers> {
    match task.compute {
        Dtype::F64 => of::<R, f64>(rule, task),
        Dtype::F32 => of::<R, f32>(rule, task),
        Dtype::Bf16 => of::<R, Eager<bf16>>(rule, task),
        Dtype::F16 => of::<R, Eager<f16>>(rule, task),
    }
}

/// The matrices of the iteration that are rounded to bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The momentum.
    Start,
    /// X, the start of an iteration or the result.
    X,
    /// X Xᵀ.
    Gram,
    /// The polynomial of it.
    Polynomial,
}

/// An open number: where it is, and how far it is to the other neighbour.
#[derive(Clone, Copy, Debug)]
struct Open {
    iteration: u64,
    stage: Stage,
    index: usize,
    width: f64,
}

/// The iteration on a wide matrix.
struct Iteration<R: NewtonSchulz, T: ComputeFloat> {
    rule: R,
    k: R::Coefs<T>,
    short: usize,
    long: usize,
}

/// The matrices at some point of it.
#[derive(Clone)]
struct Matrices<A> {
    x: Vec<A>,
    gram: Vec<A>,
    polynomial: Vec<A>,
}

impl<R: NewtonSchulz, T: ComputeFloat> Iteration<R, T> {
    fn normalized(&self, x: &[T::Scalar]) -> Vec<T::Scalar> {
        let single = x.len() == 1;
        let squares = reduce::sum(x.len(), |i| reduce::square(x[i], single));
        let norm = R::norm::<T>(&self.k, squares);
        x.iter().map(|&x| R::normalize::<T>(x, norm)).collect()
    }
    fn gram(&self, at: &mut Matrices<T::Scalar>) {
        let view = MatrixView::new(&at.x, self.long);
        at.gram = vec![T::Scalar::ZERO; self.short * self.short];
        gram([self.short, self.long], view, &mut at.gram);
        at.gram.iter_mut().for_each(|x| *x = R::gram::<T>(*x));
    }
    fn polynomial(&self, at: &mut Matrices<T::Scalar>) {
        let view = MatrixView::new(&at.gram, self.short);
        at.polynomial = vec![T::Scalar::ZERO; self.short * self.short];
        gram([self.short; 2], view, &mut at.polynomial);
        for (x, g) in at.polynomial.iter_mut().zip(&at.gram) {
            *x = R::polynomial::<T>(&self.k, *g, *x);
        }
    }
    fn next(&self, at: &mut Matrices<T::Scalar>) {
        let mut product = vec![T::Scalar::ZERO; self.short * self.long];
        let (b, x) =
            (MatrixView::new(&at.polynomial, self.short), MatrixView::new(&at.x, self.long));
        matmul([self.short, self.short, self.long], b, x, &mut product);
        for (x, product) in at.x.iter_mut().zip(product) {
            *x = R::next::<T>(&self.k, *x, product);
        }
    }
    /// The result, from the matrix of an iteration's stage on.
    fn result(&self, iteration: u64, stage: Stage, mut at: Matrices<T::Scalar>) -> Vec<T::Scalar> {
        let mut stage = stage;
        if stage == Stage::Start {
            at.x = self.normalized(&at.x);
            stage = Stage::X;
        }
        for _ in iteration..self.rule.iterations() {
            if stage == Stage::X {
                self.gram(&mut at);
                stage = Stage::Gram;
            }
            if stage == Stage::Gram {
                self.polynomial(&mut at);
            }
            self.next(&mut at);
            stage = Stage::X;
        }
        at.x
    }
}

/// Notes the open numbers of a matrix, and returns its values.
fn settle<A: ComputeFloat>(
    open: &mut Vec<Open>,
    (iteration, stage): (u64, Stage),
    matrix: &[Bounded<A>],
) -> Vec<A> {
    for (index, x) in matrix.iter().enumerate() {
        if x.error > 0.0 && x.value.to_f64().is_finite() {
            open.push(Open { iteration, stage, index, width: 2.0 * x.error });
        }
    }
    matrix.iter().map(|x| x.value).collect()
}

fn of<R: NewtonSchulz, T: ComputeFloat>(rule: &R, task: &mut Task<'_>) -> Option<Answers> {
    let &[rows, cols] = task.step.shape else { return None };
    let (short, long) = (rows.min(cols), rows.max(cols));
    let k = rule.coefs::<Bounded<T>>(&task.step, [rows, cols]);
    let plain = Iteration::<R, T> {
        rule: *rule,
        k: rule.coefs::<T>(&task.step, [rows, cols]),
        short,
        long,
    };
    let place = WideIndex::new([rows, cols]);
    let (param, grad) = (task.param.load::<T>(), task.grad.load::<T>());
    let momentum = task.slots.first()?.load::<T>();
    // The reference multiplies bf16 matrices with sums in f32, also for f64 parameters.
    let wide = T::DTYPE == Dtype::F64;
    let in_f32 = |x: Bounded<T::Scalar>| {
        let rounding = if wide { 2.0 * half_ulp(Dtype::F32, x.value.to_f64()) } else { 0.0 };
        Bounded { error: x.error + rounding, ..x }
    };
    let exact = |x: &[T::Scalar]| x.iter().map(|&x| Bounded::exact(x)).collect::<Vec<_>>();

    let mut open = Vec::new();
    let mut x = vec![Bounded::<T::Scalar>::ZERO; param.len()];
    let mut moved = Vec::with_capacity(param.len());
    for (i, (m, g)) in momentum.iter().zip(&grad).enumerate() {
        let (m, next) = R::momentum::<Bounded<T>>(&k, *m, *g);
        moved.push(Answer::of(m));
        *x.get_mut(place.of(i))? = next;
    }
    let start = settle(&mut open, (0, Stage::Start), &x);

    let mut states = Vec::new();
    let normalized: Vec<_> = {
        let x = exact(&start);
        let single = x.len() == 1;
        let mut squares = sum(x.iter().map(|&x| reduce::square(x, single)));
        if wide {
            squares.error += (x.len() + 2) as f64 * half_ulp(Dtype::F32, squares.value.to_f64());
        }
        let norm = R::norm::<Bounded<T>>(&k, squares);
        if norm.error > 0.0 {
            // The norm is rounded to bf16 too; an open one moves all elements together.
            open.push(Open {
                iteration: 0,
                stage: Stage::Start,
                index: usize::MAX,
                width: 2.0 * norm.error,
            });
        }
        let norm = Bounded::exact(norm.value);
        x.iter().map(|&x| R::normalize::<Bounded<T>>(in_f32(x), norm)).collect()
    };
    let mut at = Matrices {
        x: settle(&mut open, (0, Stage::X), &normalized),
        gram: Vec::new(),
        polynomial: Vec::new(),
    };
    for iteration in 0..rule.iterations() {
        let mut before = at.clone();
        let x = exact(&at.x);
        let view = Matrix::new(&x, long);
        let product = product_summed_in(Dtype::F32, [short, long, short], view, view.transposed());
        let bounded: Vec<_> = product.iter().map(|&x| R::gram::<Bounded<T>>(in_f32(x))).collect();
        before.gram = settle(&mut open, (iteration, Stage::Gram), &bounded);
        let gram = exact(&before.gram);
        let view = Matrix::new(&gram, short);
        let product = product_summed_in(Dtype::F32, [short; 3], view, view.transposed());
        let of = |(g, x): (&Bounded<T::Scalar>, &Bounded<T::Scalar>)| {
            R::polynomial::<Bounded<T>>(&k, in_f32(*g), in_f32(*x))
        };
        let bounded: Vec<_> = gram.iter().zip(&product).map(of).collect();
        before.polynomial = settle(&mut open, (iteration, Stage::Polynomial), &bounded);
        let polynomial = exact(&before.polynomial);
        let product = product_summed_in(
            Dtype::F32,
            [short, short, long],
            Matrix::new(&polynomial, short),
            Matrix::new(&x, long),
        );
        let of = |(x, product): (&Bounded<T::Scalar>, &Bounded<T::Scalar>)| {
            R::next::<Bounded<T>>(&k, in_f32(*x), in_f32(*product))
        };
        let bounded: Vec<_> = x.iter().zip(&product).map(of).collect();
        at.x = settle(&mut open, (iteration + 1, Stage::X), &bounded);
        states.push(before);
    }

    let effects = effects(&plain, &start, &states, &at.x, open);
    let updated = |(i, &p): (usize, &Bounded<T>)| {
        let place = place.of(i);
        let value = at.x.get(place).copied().unwrap_or(T::Scalar::ZERO);
        let error = effects.get(place).copied().unwrap_or(0.0) / 2.0;
        // Added to a bf16 parameter, the scaled element is a part of the operation, rounded or not.
        let part =
            if T::DTYPE == Dtype::Bf16 { half_ulp(T::DTYPE, value.to_f64()) / 2.0 } else { 0.0 };
        let error = error + part;
        let mut answer =
            Answer::of(<R as NewtonSchulz>::update::<Bounded<T>>(&k, p, Bounded { value, error }));
        if error.is_nan() || p.error.is_nan() {
            answer.tolerance = f64::NAN;
        }
        answer
    };
    Some(vec![param.iter().enumerate().map(updated).collect(), moved])
}

/// What all open numbers together may move each element of the result by; NaN if one of them decides whether it is a
/// number: what cancels to 0 or nearly so, divided by its norm.
fn effects<R: NewtonSchulz, T: ComputeFloat>(
    plain: &Iteration<R, T>,
    start: &[T::Scalar],
    states: &[Matrices<T::Scalar>],
    result: &[T::Scalar],
    open: Vec<Open>,
) -> Vec<f64> {
    let mut effects = vec![0.0; result.len()];
    let last = plain.rule.iterations();
    let mut add = |index: usize, effect: f64| {
        if let Some(to) = effects.get_mut(index) {
            *to += if effect == f64::INFINITY { 0.0 } else { effect };
        }
    };
    let apart = |a: T::Scalar, b: T::Scalar| {
        let [a, b] = [a, b].map(StoredFloat::to_f64);
        if a == b || a.is_nan() && b.is_nan() { 0.0 } else { (a - b).abs() }
    };
    let shift = |x: &mut T::Scalar, by: f64| *x = T::Scalar::from_f64(x.to_f64() + by);
    for Open { iteration, stage, index, width } in open {
        if stage == Stage::X && iteration == last {
            add(index, width);
            continue;
        }
        let none = || Matrices { x: Vec::new(), gram: Vec::new(), polynomial: Vec::new() };
        let mut at = match stage {
            Stage::Start => Matrices { x: start.to_vec(), ..none() },
            _ => states.get(iteration as usize).cloned().unwrap_or_else(none),
        };
        if index == usize::MAX {
            // ‖X‖ larger is X smaller by as much.
            at.x = plain.normalized(start);
            let norm = start.iter().zip(&at.x).map(|(a, b)| a.to_f64() / b.to_f64());
            let norm = norm.filter(|x| x.is_finite()).fold(0.0, f64::max).max(width);
            for x in &mut at.x {
                *x = T::Scalar::from_f64(x.to_f64() * norm / (norm + width)).rounded(Dtype::Bf16);
            }
            let other = plain.result(0, Stage::X, at);
            for (i, (a, b)) in result.iter().zip(other).enumerate() {
                add(i, apart(*a, b));
            }
            continue;
        }
        let matrix = match stage {
            Stage::Start | Stage::X => &mut at.x,
            Stage::Gram => &mut at.gram,
            Stage::Polynomial => &mut at.polynomial,
        };
        if let Some(x) = matrix.get_mut(index) {
            shift(x, width);
        }
        let other = plain.result(iteration, stage, at);
        for (i, (a, b)) in result.iter().zip(other).enumerate() {
            add(i, apart(*a, b));
        }
    }
    effects
}
