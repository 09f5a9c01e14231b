//! Newton–Schulz iterations in bounded arithmetic.
//!
//! All matrices of the iteration are bf16. Between two roundings to bf16 there is one product, whose sums two correct
//! implementations may add in any order; so they round to the same bf16 number, or, where a tie lies within the bound of
//! the sum, to two neighbours. Such a number is *open*. Carrying the bound of every open number through the iteration as
//! |A| |B| would grow by an order of magnitude in each. Instead the rest of the iteration is computed again with the
//! other neighbour in its place, and what each open number moves the result by is added up. (So effects of several open
//! numbers on each other's later roundings count to first order only.)

use std::collections::BTreeMap;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// An open number: where it is, how far it is to the other neighbour, and on which sides that may lie.
#[derive(Clone, Copy, Debug)]
struct Open {
    iteration: u64,
    stage: Stage,
    index: usize,
    width: f64,
    sides: [bool; 2],
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

/// Notes the open numbers of a matrix, and returns its values. `end`: a number with what is rounded at one of the ends
/// of its bound, which tells the side that its other neighbour is on.
fn settle<A: ComputeFloat>(
    open: &mut Vec<Open>,
    (iteration, stage): (u64, Stage),
    matrix: &[Bounded<A>],
    end: impl Fn(usize, f64) -> Option<A>,
) -> Vec<A> {
    for (index, x) in matrix.iter().enumerate() {
        if x.error > 0.0 && x.value.to_f64().is_finite() {
            let is_other = |sign| end(index, sign).is_some_and(|end| end != x.value);
            let sides = match [-1.0, 1.0].map(is_other) {
                [false, false] => [true; 2],
                sides => sides,
            };
            open.push(Open { iteration, stage, index, width: 2.0 * x.error, sides });
        }
    }
    matrix.iter().map(|x| x.value).collect()
}

/// `x` at one end of its bound, and beyond by some roundings of numbers of the size of `scale`.
fn end<A: ComputeFloat>(x: &Bounded<A>, scale: f64, sign: f64) -> A {
    let roundings = 8.0 * half_ulp(Dtype::F32, scale.abs().max(x.value.to_f64().abs()));
    A::from_f64(x.value.to_f64() + sign * (2.0 * x.error + roundings))
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
    let start = settle(&mut open, (0, Stage::Start), &x, |_, _| None);

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
                sides: [false, true],
            });
        }
        let norm = Bounded::exact(norm.value);
        x.iter().map(|&x| R::normalize::<Bounded<T>>(in_f32(x), norm)).collect()
    };
    let mut at = Matrices {
        x: settle(&mut open, (0, Stage::X), &normalized, |_, _| None),
        gram: Vec::new(),
        polynomial: Vec::new(),
    };
    for iteration in 0..rule.iterations() {
        let mut before = at.clone();
        let x = exact(&at.x);
        let view = Matrix::new(&x, long);
        let product = product_summed_in(Dtype::F32, [short, long, short], view, view.transposed());
        let bounded: Vec<_> = product.iter().map(|&x| R::gram::<Bounded<T>>(in_f32(x))).collect();
        let of = |i: usize, sign| Some(R::gram::<T>(end(product.get(i)?, 0.0, sign)));
        before.gram = settle(&mut open, (iteration, Stage::Gram), &bounded, of);
        let gram = exact(&before.gram);
        let view = Matrix::new(&gram, short);
        let product = product_summed_in(Dtype::F32, [short; 3], view, view.transposed());
        let of = |(g, x): (&Bounded<T::Scalar>, &Bounded<T::Scalar>)| {
            R::polynomial::<Bounded<T>>(&k, in_f32(*g), in_f32(*x))
        };
        let bounded: Vec<_> = gram.iter().zip(&product).map(of).collect();
        let of = |i: usize, sign| {
            let g = before.gram.get(i)?;
            let square = end(product.get(i)?, 4.0 * g.to_f64(), sign);
            Some(R::polynomial::<T>(&plain.k, *g, square))
        };
        before.polynomial = settle(&mut open, (iteration, Stage::Polynomial), &bounded, of);
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
        let of = |i: usize, sign| {
            let x = at.x.get(i)?;
            let product = end(product.get(i)?, 4.0 * x.to_f64(), sign);
            Some(R::next::<T>(&plain.k, *x, product))
        };
        let next = settle(&mut open, (iteration + 1, Stage::X), &bounded, of);
        at.x = next;
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
            *to += effect;
        }
    };
    let apart = |a: T::Scalar, b: T::Scalar| {
        let [a, b] = [a, b].map(StoredFloat::to_f64);
        let apart = (a - b).abs();
        if a == b || a.is_nan() && b.is_nan() || apart == f64::INFINITY { 0.0 } else { apart }
    };
    let shift = |x: &mut T::Scalar, by: f64| *x = T::Scalar::from_f64(x.to_f64() + by);
    // How far the result moves with the other neighbours, on one side, of some open numbers of one matrix.
    let on_side = |all: &[Open], side: f64| -> Vec<f64> {
        let Some(&Open { iteration, stage, .. }) = all.first() else { return Vec::new() };
        let none = || Matrices { x: Vec::new(), gram: Vec::new(), polynomial: Vec::new() };
        let mut at = match stage {
            Stage::Start => Matrices { x: start.to_vec(), ..none() },
            _ => states.get(iteration as usize).cloned().unwrap_or_else(none),
        };
        let mut first = (iteration, stage);
        for &Open { index, width, .. } in all {
            if index == usize::MAX {
                // ‖X‖ larger is X smaller by as much.
                at.x = plain.normalized(start);
                let norm = start.iter().zip(&at.x).map(|(a, b)| a.to_f64() / b.to_f64());
                let norm = norm.filter(|x| x.is_finite()).fold(0.0, f64::max).max(width);
                for x in &mut at.x {
                    let moved = T::Scalar::from_f64(x.to_f64() * norm / (norm + width));
                    *x = moved.rounded(Dtype::Bf16);
                }
                first = (0, Stage::X);
                continue;
            }
            let matrix = match stage {
                Stage::Start | Stage::X => &mut at.x,
                Stage::Gram => &mut at.gram,
                Stage::Polynomial => &mut at.polynomial,
            };
            if let Some(x) = matrix.get_mut(index) {
                shift(x, side * width);
            }
        }
        let other = plain.result(first.0, first.1, at);
        result.iter().zip(other).map(|(a, b)| apart(*a, b)).collect()
    };
    let with = |all: &[Open]| -> Vec<f64> {
        let [down, up] = all.first().map_or([false; 2], |x| x.sides);
        match (down, up) {
            (true, false) => on_side(all, -1.0),
            (false, _) => on_side(all, 1.0),
            (true, true) => {
                // NaN where one of them is.
                let both = on_side(all, -1.0).into_iter().zip(on_side(all, 1.0));
                both.map(|(a, b)| if a > b { a + 0.0 * b } else { b + 0.0 * a }).collect()
            }
        }
    };
    let places: BTreeMap<_, _> =
        open.iter().map(|x| ((x.iteration, x.stage, x.index), *x)).collect();
    for one in open {
        let Open { iteration, stage, index, width, .. } = one;
        if stage == Stage::X && iteration == last {
            add(index, width);
            continue;
        }
        // X Xᵀ and its polynomial are symmetric: who rounds the one number to its other neighbour mostly does so with
        // the one across the diagonal as well, and the two together may move later roundings that neither moves alone.
        let across = match stage {
            Stage::Gram | Stage::Polynomial => {
                let (i, j) = (index / plain.short, index % plain.short);
                places.get(&(iteration, stage, j * plain.short + i)).filter(|x| x.index != index)
            }
            _ => None,
        };
        match across {
            Some(other) if other.index < index => {} // done with the other one
            Some(other) => {
                let (alone, across, both) = (with(&[one]), with(&[*other]), with(&[one, *other]));
                for (i, ((a, b), c)) in alone.into_iter().zip(across).zip(both).enumerate() {
                    // NaN where one of them is.
                    let sum = a + b;
                    add(i, if c > sum { c } else { sum + 0.0 * c });
                }
            }
            None => with(&[one]).into_iter().enumerate().for_each(|(i, x)| add(i, x)),
        }
    }
    effects
}
