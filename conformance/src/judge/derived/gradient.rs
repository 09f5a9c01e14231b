//! Gradient strategies in bounded arithmetic: how far apart two correct gradients and norms may be.

use bitstep::float::{ComputeFloat, Dtype, Eager, StoredFloat};
use bitstep::gradient::kernel::{
    NormKind, accumulated, clamped, coefficient, noisy, promote, scaled, tf_norm,
};
use bitstep::gradient::{ClipByGlobalNorm, GradientAccumulator, Neftune};
use bitstep::hyper::Args;
use bitstep::optimizer::Buffer;
use bitstep::schedule::ScheduleFloat;
use half::{bf16, f16};

use super::follow::{Held, sum};
use super::number::{Bounded, Source, added, half_ulp, on_grid};
use crate::backend::{GradientSpec, core_gradient};
use crate::convert;
use crate::tensor::Tensor;

/// How far apart two correct answers may be.
#[derive(Debug, Default)]
pub(crate) struct GradientTolerances {
    /// Of each gradient's elements.
    pub(crate) outputs: Vec<Vec<f64>>,
    pub(crate) norm: Option<f64>,
}

/// Calls a function for the compute type of a type.
macro_rules! in_compute_type {
    ($dtype:expr, $f:ident($($x:expr),*)) => {
        match $dtype {
            Dtype::F64 => $f::<f64>($($x),*),
            Dtype::F32 => $f::<f32>($($x),*),
            Dtype::Bf16 => $f::<Eager<bf16>>($($x),*),
            Dtype::F16 => $f::<Eager<f16>>($($x),*),
        }
    };
}

fn dtype(x: &Buffer) -> Option<Dtype> {
    x.data().map(|data| data.dtype())
}

fn load<C: ComputeFloat>(x: &Buffer) -> Vec<Bounded<C>> {
    Held { values: x, errors: &[] }.load()
}

fn widths<C: ComputeFloat>(x: impl IntoIterator<Item = Bounded<C>>) -> Vec<f64> {
    x.into_iter().map(|x| 2.0 * x.error).collect()
}

/// A number of one type in another.
fn converted<A: ComputeFloat, B: ComputeFloat>(x: Bounded<A>) -> Bounded<B> {
    let value = B::from_f64(x.value.to_f64());
    let narrows = x.error > 0.0 && B::DTYPE.size() < A::DTYPE.size();
    let error = if narrows { on_grid(value, x.value.to_f64(), x.error) } else { x.error };
    Bounded { value, error }
}

/// `None` where nothing can be derived.
pub(crate) fn of_gradient(spec: &GradientSpec<'_>) -> Option<GradientTolerances> {
    let hyper = convert::args(spec.hyper);
    let number = |name: &str| hyper.get(name).and_then(|v| v.as_f64());
    let inputs = spec.inputs.iter().map(|t| convert::buffer(t).ok());
    let inputs = inputs.collect::<Option<Vec<_>>>()?;
    let outputs = match spec.name {
        "clip_grad_norm" => return clip(&inputs, &hyper),
        "clip_grad_value" => {
            fn of<C: ComputeFloat>(x: &Buffer, limit: f64) -> Vec<f64> {
                widths(load::<C>(x).into_iter().map(|g| clamped(g, limit)))
            }
            let limit = number("clip_value").or_else(|| number("clip_value_max"))?;
            let of = |x: &Buffer| Some(in_compute_type!(dtype(x)?, of(x, limit)));
            inputs.iter().map(of).collect::<Option<_>>()?
        }
        "accumulate" => {
            let is_mean = hyper.get("reduction").and_then(|v| v.as_str()) == Some("mean");
            let steps = number("gradient_accumulation_steps");
            let of = |x: &Tensor| accumulation(x, steps, is_mean);
            spec.inputs.iter().map(|x| of(x)).collect::<Option<_>>()?
        }
        "neftune" => {
            let alpha = number("neftune_noise_alpha").or_else(|| number("alpha"));
            let is_idle = hyper.get("training").and_then(|v| v.as_bool()) == Some(false);
            let alpha = alpha.filter(|_| !is_idle);
            let all = spec.inputs.iter().zip(&inputs).zip(&spec.given);
            let all = all.map(|((input, x), given)| {
                noise(input, x, given.get("unit"), given.get("noise"), alpha)
            });
            all.collect::<Option<_>>()?
        }
        _ => return None,
    };
    Some(GradientTolerances { outputs, norm: None })
}

/// The weight of a micro-batch, which is the gradient of a division of the loss: in the loss's type, which may be that
/// of the gradients or a wider one.
fn weight<C: ComputeFloat>(weight: f64) -> Bounded<C::Scalar> {
    let wide = C::scalar(weight);
    let narrow = C::round_from(wide).widen();
    let apart = (wide.to_f64() - narrow.to_f64()).abs();
    Bounded { value: wide, error: apart / 2.0 }
}

fn accumulation(input: &Tensor, steps: Option<f64>, is_mean: bool) -> Option<Vec<f64>> {
    fn of<C: ComputeFloat>(rows: &[Buffer], mut accumulator: GradientAccumulator) -> Vec<f64> {
        let mut total: Vec<Option<Bounded<C>>> = Vec::new();
        for row in rows {
            let row = load::<C>(row);
            total.resize(row.len(), None);
            let weight = weight::<C>(accumulator.weight());
            let is_first = accumulator.position() == 0;
            for (total, g) in total.iter_mut().zip(row) {
                *total = Some(accumulated(total.filter(|_| !is_first), g, weight));
            }
            accumulator.advance();
        }
        widths(total.into_iter().flatten())
    }
    let rows = input.shape.first().copied().unwrap_or(0);
    let window = steps.map_or(rows as u64, |steps| steps as u64);
    let new = if is_mean { GradientAccumulator::mean } else { GradientAccumulator::sum };
    let accumulator = new(window).ok()?;
    let rows = (0..rows).map(|m| convert::buffer(&input.row(m)).ok());
    let rows = rows.collect::<Option<Vec<_>>>()?;
    Some(in_compute_type!(convert::dtype(input.dtype).ok()?, of(&rows, accumulator)))
}

fn noise(
    input: &Tensor,
    x: &Buffer,
    unit: Option<&Tensor>,
    noise: Option<&Tensor>,
    alpha: Option<f64>,
) -> Option<Vec<f64>> {
    fn added<C: ComputeFloat>(x: &Buffer, noise: &Buffer) -> Vec<f64> {
        let all = load::<C>(x).into_iter().zip(load::<C>(noise));
        widths(all.map(|(x, noise)| x + noise))
    }
    fn drawn<C: ComputeFloat>(x: &Buffer, unit: &Buffer, high: f32) -> Vec<f64> {
        let high = Bounded::exact(C::Scalar::from_f64(high.into()));
        // Samples of 16 bits are rounded: whoever drew the noise had more.
        let is_rounded = unit.data().is_some_and(|unit| unit.dtype().size() < 4);
        let drawn = |unit: Bounded<f64>| {
            let lost = if is_rounded { half_ulp(C::DTYPE, unit.value) / 2.0 } else { 0.0 };
            Bounded { error: lost, ..converted::<f64, C::Scalar>(unit) }
        };
        let units = load::<f64>(unit).into_iter().map(drawn);
        widths(load::<C>(x).into_iter().zip(units).map(|(x, unit)| noisy(x, unit, high)))
    }
    let Some(alpha) = alpha else { return Some(vec![0.0; x.len()]) };
    let dtype = dtype(x)?;
    if let Some(noise) = noise {
        return Some(in_compute_type!(dtype, added(x, &convert::buffer(noise).ok()?)));
    }
    // A few operations on single numbers, which everybody rounds alike.
    let dimension = |i: usize| input.shape.get(i).map_or(1, |&d| d as u64);
    let high = Neftune { alpha }.magnitude(dimension(1), dimension(2));
    Some(in_compute_type!(dtype, drawn(x, &convert::buffer(unit?).ok()?, high)))
}

/// The norm of some numbers.
fn norm<A: ComputeFloat<Scalar = A> + ScheduleFloat>(x: &[Bounded<A>], order: f64) -> Bounded<A> {
    let kind = NormKind::of(order, x.len());
    let exponent = Bounded::exact(A::from_f64(order));
    // A power is the platform's; its value is that of the core.
    let power = |x: Bounded<A>, y: Bounded<A>, value: A| Bounded { value, ..x.pow(y) };
    let term = |x: &Bounded<A>| match kind {
        NormKind::Power => power(ComputeFloat::abs(*x), exponent, kind.term(order, x.value)),
        _ => kind.term(order, *x),
    };
    let terms = x.iter().map(term);
    let all = match kind {
        NormKind::Largest | NormKind::Smallest => terms.fold(kind.start(), |a, b| kind.join(a, b)),
        NormKind::Count => Bounded { error: 0.0, ..sum(terms) },
        _ => sum(terms),
    };
    match kind {
        NormKind::Power => {
            let one = <Bounded<A> as ComputeFloat>::ONE;
            power(all, one / exponent, kind.root(order, all.value))
        }
        _ => kind.root(order, all),
    }
}

/// The norm of a gradient, rounded to its type, in another.
fn norm_in<A: ComputeFloat>(x: &Buffer, order: f64) -> Option<Bounded<A>> {
    fn of<C: ComputeFloat, A: ComputeFloat>(x: &Buffer, order: f64) -> Bounded<A>
    where
        C::Scalar: ScheduleFloat,
    {
        let x: Vec<_> = load::<C>(x).into_iter().map(|x| x.widen()).collect();
        converted(Bounded::<C>::round_from(norm(&x, order)))
    }
    Some(match dtype(x)? {
        Dtype::F64 => of::<f64, A>(x, order),
        Dtype::F32 => of::<f32, A>(x, order),
        Dtype::Bf16 => of::<Eager<bf16>, A>(x, order),
        Dtype::F16 => of::<Eager<f16>, A>(x, order),
    })
}

fn clip(inputs: &[Buffer], hyper: &Args) -> Option<GradientTolerances> {
    let types = inputs.iter().map(dtype).collect::<Option<Vec<_>>>()?;
    let dtype = types.into_iter().reduce(promote).unwrap_or(Dtype::F32);
    let by_global = hyper.get("clip_norm").and_then(|v| v.as_f64());
    if let Some(clip_norm) = by_global {
        return in_compute_type!(dtype, by_global_norm(inputs, ClipByGlobalNorm { clip_norm }));
    }
    let clip = core_gradient::norm_clip(hyper).ok()?;
    let order = clip.norm_type;
    fn finish<C: ComputeFloat>(
        inputs: &[Buffer],
        total: Bounded<C::Scalar>,
        max_norm: f64,
    ) -> Option<GradientTolerances> {
        let total = Bounded::<C>::round_from(total);
        scale(inputs, total, coefficient(total, max_norm))
    }
    if dtype == Dtype::F64 {
        let norms = inputs.iter().map(|x| norm_in::<f64>(x, order)).collect::<Option<Vec<_>>>()?;
        return finish::<f64>(inputs, norm(&norms, order), clip.max_norm);
    }
    let norms = inputs.iter().map(|x| norm_in::<f32>(x, order)).collect::<Option<Vec<_>>>()?;
    let total = norm(&norms, order);
    match dtype {
        Dtype::Bf16 => finish::<Eager<bf16>>(inputs, total, clip.max_norm),
        Dtype::F16 => finish::<Eager<f16>>(inputs, total, clip.max_norm),
        _ => finish::<f32>(inputs, total, clip.max_norm),
    }
}

/// All gradients times a factor.
fn scale<C: ComputeFloat>(
    inputs: &[Buffer],
    total: Bounded<C>,
    factor: Bounded<C>,
) -> Option<GradientTolerances> {
    fn of<C: ComputeFloat, A: ComputeFloat>(x: &Buffer, factor: Bounded<A>) -> Vec<f64> {
        let factor = converted(factor);
        widths(load::<C>(x).into_iter().map(|g| scaled(g, factor)))
    }
    let of = |x: &Buffer| {
        Some(match dtype(x)? {
            Dtype::F64 => of::<f64, C>(x, factor),
            Dtype::F32 => of::<f32, C>(x, factor),
            Dtype::Bf16 => of::<Eager<bf16>, C>(x, factor),
            Dtype::F16 => of::<Eager<f16>, C>(x, factor),
        })
    };
    let outputs = inputs.iter().map(of).collect::<Option<_>>()?;
    Some(GradientTolerances { outputs, norm: Some(2.0 * total.error) })
}

/// A sum as TensorFlow makes it: of 16-bit terms in 16 bits, each term and each partial sum rounded, in any order.
fn tf_sum<C: ComputeFloat>(terms: Vec<Bounded<C::Scalar>>) -> Bounded<C::Scalar> {
    let count = terms.iter().filter(|x| x.value.to_f64() != 0.0).count();
    let magnitude: f64 = terms.iter().map(|x| x.value.to_f64().abs() + x.error).sum();
    let is_narrow = matches!(C::DTYPE, Dtype::Bf16 | Dtype::F16);
    let rounding = (2.0 * count as f64 - 1.0).max(0.0) * half_ulp(C::DTYPE, magnitude);
    let Bounded { value, error } = sum(terms.into_iter());
    let rounding = if is_narrow && count > 1 { added(Source::Sum, rounding) } else { 0.0 };
    Bounded { value, error: error + rounding }
}

fn by_global_norm<C: ComputeFloat>(
    inputs: &[Buffer],
    clip: ClipByGlobalNorm,
) -> Option<GradientTolerances> {
    let half_square = |x: &Buffer| {
        let squares = load::<C::Scalar>(x).into_iter().map(|x| x * x);
        let Bounded { value, error } = tf_sum::<C>(squares.collect());
        let half = Bounded { value: C::Scalar::from_f64(value.to_f64() * 0.5), error: error * 0.5 };
        Bounded::<C>::round_from(half).widen()
    };
    let total = tf_norm::<Bounded<C>>(tf_sum::<C>(inputs.iter().map(half_square).collect()));
    scale(inputs, total, clip.coefficient(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clipped(x: Vec<f32>, max_norm: f64, order: f64) -> GradientTolerances {
        let hyper = Args::new().with("max_norm", max_norm).with("norm_type", order);
        clip(&[Buffer::F32(x)], &hyper).expect("tolerances")
    }

    #[test]
    fn norm_has_the_bound_of_a_sum_in_any_order() {
        let x: Vec<f32> = (1..=1000).map(|i| 1.0 / i as f32).collect();
        let (two, largest) = (clipped(x.clone(), 1e9, 2.0), clipped(x.clone(), 1e9, f64::INFINITY));
        let ulp = f64::from(f32::EPSILON);
        // n · u of the squares is half of that of the root, and the tolerance is twice that.
        let norm: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let expected = 1000.0 * ulp / 2.0 * norm;
        let got = two.norm.expect("a norm");
        assert!((0.9..1.1).contains(&(got / expected)), "{got:e}, not {expected:e}");
        assert_eq!(largest.norm, Some(0.0));
        // Nothing is clipped, so nothing is rounded.
        assert!(two.outputs[0].iter().all(|&x| x == 0.0));
        let cut = clipped(x, 0.5, 2.0);
        assert!(cut.outputs[0].iter().all(|&x| x > 0.0 && x < 1e-3));
    }

    #[test]
    fn clamping_is_exact_and_one_element_has_no_square() {
        assert_eq!(clipped(vec![3.0], 1e9, 2.0).norm, Some(0.0));
        assert_eq!(clamped(Bounded::exact(3.0f32), 1.0).error, 0.0);
    }
}
