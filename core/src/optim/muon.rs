//! Muon: momentum, orthogonalised.

use half::{bf16, f16};

use crate::arch::simd::{self, Kernel};
use crate::error::{Error, ensure_not_negative, ensure_range};
use crate::float::Eager;
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::lowrank::{LinearAlgebra, PortableLinearAlgebra};
use crate::math::matmul::MatrixView;
use crate::math::reduce;
use crate::rule::newton_schulz::{NewtonSchulz, WideIndex};
use crate::rule::{ComputePolicy, DynRule, RuleInfo, check_tensor};
use crate::rule::{ScalarState, Scope, SlotInit, StepContext, UpdateBuffers, allow_negative_decay};
use crate::storage::{DataMut, MAX_BLOCK, Plain, chunk_len, numel};

/// Muon: the update is the orthogonal matrix nearest to the momentum, found by a Newton–Schulz iteration in bf16. For
/// matrices only.
///
/// # Formula
/// ```text
/// M ← μ M + (1 − μ) G
/// X ← (1 − μ) G + μ M                    nesterov; otherwise M
/// X ← X / ‖X‖, transposed if it is tall
/// A ← X Xᵀ;  X ← a X + (b A + c A²) X    ns_steps times
/// p ← p − η λ p
/// p ← p − η r X                          r: adjust_lr_fn
/// ```
/// | `adjust_lr_fn` | r |
/// | --- | --- |
/// | none, `original` | √max(1, rows / columns) |
/// | `match_rms_adamw` | 0.2 √max(rows, columns) |
/// | `spectral_unclamped` | √(rows / columns) |
///
/// # Order of operations
/// ```text
/// m ← lerp(m, g, 1 − μ)
/// x ← bf16(lerp(g, m, μ))
/// x ← bf16(x / max(bf16(√Σx²), bf16(ε)))
/// A ← bf16(X Xᵀ)
/// B ← bf16(b · A + c · (A A))
/// X ← bf16(a · X + B X)
/// p ← p · (1 − η λ)
/// p ← p + (−η r) · x
/// ```
/// Products are those of [`crate::math::matmul`]; between the roundings shown everything is `f32` (`f64` where the
/// parameter is). The last line is computed in the wider of bf16 and the parameter's type, `f32` for f16.
///
/// # Source
/// Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the adjustments are those of Liu et
/// al., "Muon is Scalable for LLM Training", 2025, and Bernstein, "Deriving Muon", 2025. Reference: `torch.optim.Muon`,
/// whose momentum is a running average, and whose weight decay uses the learning rate before adjustment.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `weight_decay` | λ | ≥ 0 | 0.1 |
/// | `momentum` | μ | ≥ 0 | 0.95 |
/// | `nesterov` | | | true |
/// | `ns_coefficients` | a, b, c | any | 3.4445, −4.775, 2.0315 |
/// | `eps` | ε | any | 1e-7 |
/// | `ns_steps` | | < 100 | 5 |
/// | `adjust_lr_fn` | | see above | none |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `momentum_buffer` | 0 | M |
///
/// # Errors
/// A hyper-parameter outside its range; a parameter that is not a matrix, or one without columns.
///
/// # Non-finite input
/// One NaN or infinity in the gradient makes the whole parameter NaN; in the momentum it stays at its element. A
/// coefficient a or b of 0 leaves out what it multiplies, also where that is not finite.
///
/// # Example
/// For a single element the orthogonal matrix is its sign, which five iterations of the default polynomial, in bf16,
/// bring to 0.6875:
/// ```
/// use bitstep::prelude::*;
/// let rule = Muon { lr: 1.0, weight_decay: 0.0, ..Muon::DEFAULT };
/// let mut opt = Optimizer::new(OptimizerSpec::new(rule, ComputePolicy::Eager))?;
/// let w = opt.add_param(&[1, 1], Dtype::F32)?;
/// let mut p = [0.0];
/// opt.step([(w, DataMut::F32(&mut p), Data::F32(&[-8.0]))])?;
/// let Some(Data::F32(m)) = opt.params()[w.0].slots[0].data() else { unreachable!() };
/// assert!(p[0] == 0.6875 && (m[0] + 0.4).abs() < 1e-6);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon<A = PortableLinearAlgebra> {
    /// Learning rate.
    pub lr: f64,
    /// Weight decay, decoupled.
    pub weight_decay: f64,
    /// Weight of the old momentum.
    pub momentum: f64,
    /// Look one step ahead.
    pub nesterov: bool,
    /// The polynomial of the iteration: of X, A X and A² X.
    pub ns_coefficients: (f64, f64, f64),
    /// The least norm to divide by.
    pub eps: f64,
    /// Iterations.
    pub ns_steps: u64,
    /// How the shape changes the learning rate.
    pub adjust_lr_fn: Option<AdjustLr>,
    /// The implementation of matrix products.
    pub algebra: A,
}

/// How the shape of a matrix changes Muon's learning rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AdjustLr {
    /// √max(1, rows / columns).
    #[default]
    Original,
    /// 0.2 √max(rows, columns): the RMS of AdamW's updates.
    MatchRmsAdamw,
    /// √(rows / columns).
    SpectralUnclamped,
}

impl Muon {
    /// The reference's defaults.
    pub const DEFAULT: Self = Muon::with_algebra(PortableLinearAlgebra);
}

impl<A> Muon<A> {
    /// The reference's defaults, with the matrix products of `algebra`.
    pub const fn with_algebra(algebra: A) -> Self {
        Muon {
            lr: 1e-3,
            weight_decay: 0.1,
            momentum: 0.95,
            nesterov: true,
            ns_coefficients: (3.4445, -4.775, 2.0315),
            eps: 1e-7,
            ns_steps: 5,
            adjust_lr_fn: None,
            algebra,
        }
    }
}

impl<A: Default> Default for Muon<A> {
    fn default() -> Self {
        Muon::with_algebra(A::default())
    }
}

impl<A> HyperParams for Muon<A> {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        let (a, b, c) = &mut self.ns_coefficients;
        f.f64("lr", &mut self.lr);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("momentum", &mut self.momentum);
        f.bool("nesterov", &mut self.nesterov);
        f.triple("ns_coefficients", a, b, c);
        f.f64("eps", &mut self.eps);
        f.u64("ns_steps", &mut self.ns_steps);
        f.opt_choice(
            "adjust_lr_fn",
            &mut self.adjust_lr_fn,
            &[
                ("original", AdjustLr::Original),
                ("match_rms_adamw", AdjustLr::MatchRmsAdamw),
                ("spectral_unclamped", AdjustLr::SpectralUnclamped),
            ],
        );
    }
}

impl<A> Muon<A> {
    /// r: the factor of the learning rate for a matrix of this shape.
    #[must_use]
    pub fn lr_ratio(&self, rows: usize, cols: usize) -> f64 {
        let (rows, cols) = (rows as f64, cols as f64);
        match self.adjust_lr_fn.unwrap_or_default() {
            AdjustLr::Original => libm::sqrt((rows / cols).max(1.0)),
            AdjustLr::MatchRmsAdamw => 0.2 * libm::sqrt(rows.max(cols)),
            AdjustLr::SpectralUnclamped => libm::sqrt(rows / cols),
        }
    }
}

impl<A: LinearAlgebra> DynRule for Muon<A> {
    fn id(&self, part: &mut dyn FnMut(&'static str)) {
        part("muon");
    }
    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("momentum", self.momentum)?;
        ensure_not_negative("weight_decay", self.weight_decay)?;
        ensure_range(self.ns_steps < 100, "ns_steps", self.ns_steps as f64, "< 100")
    }
    fn check_shape(&self, shape: &[usize]) -> Result<(), Error> {
        match shape {
            [_, cols] if *cols > 0 => Ok(()),
            _ => {
                Err(Error::InvalidArgument { argument: "param", expected: "a matrix with columns" })
            }
        }
    }
    fn info(&self) -> RuleInfo {
        RuleInfo {
            slots: &["momentum_buffer"],
            scalar_names: &[],
            extra_args: &[],
            step_key: "step",
            step_scope: Scope::Parameter,
            scalar_scope: Scope::Parameter,
            is_eager: true,
            counts_empty_params: true,
            needs_index_in_group: false,
            is_elementwise: false,
            maximizes: false,
            decay_bases: [1.0; 2],
        }
    }
    fn hyper_params(&mut self) -> &mut dyn HyperParams {
        self
    }
    fn lr(&self) -> f64 {
        self.lr
    }
    fn initial_scalars(&self, _: usize) -> ScalarState {
        ScalarState::default()
    }
    fn advance_scalars(&self, _: &StepContext, _: &mut ScalarState) {}
    fn slot_len(&self, _: usize, shape: &[usize], _: Dtype) -> usize {
        numel(shape)
    }
    fn slot_dtype(&self, _: usize, param: Dtype) -> Dtype {
        param
    }
    fn slot_init(&self, _: usize) -> SlotInit {
        SlotInit::Constant(0.0)
    }
    fn scratch_len(&self, shape: &[usize]) -> usize {
        let short = shape.iter().copied().min().unwrap_or(0);
        numel(shape).saturating_add(numel(&[short, short])).saturating_mul(2)
    }
    fn update(
        &self,
        policy: ComputePolicy,
        step: &StepContext,
        _: &mut ScalarState,
        tensor: UpdateBuffers<'_, '_>,
    ) -> Result<(), Error> {
        allow_negative_decay(self.check())?;
        check_tensor(self, policy, step, &tensor)?;
        match policy.compute(tensor.param.dtype()) {
            Dtype::F64 => update::<A, f64>(self, step, tensor),
            Dtype::F32 => update::<A, f32>(self, step, tensor),
            Dtype::Bf16 => update::<A, Eager<bf16>>(self, step, tensor),
            Dtype::F16 => update::<A, Eager<f16>>(self, step, tensor),
        }
    }
    #[cfg(feature = "alloc")]
    fn clone_box(&self) -> alloc::boxed::Box<dyn DynRule> {
        alloc::boxed::Box::new(*self)
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        weight: S,
        nesterov: bool,
        ahead: S,
        eps: S,
        polynomial: [S; 3],
        decay: S,
        step_size: S,
        single: bool,
    }
}

/// The matrix that a product is added to, times its coefficient: as BLAS does, 0 times it is 0 whatever it holds.
#[inline(always)]
fn added<S: ComputeFloat>(coefficient: S, x: S) -> S {
    if coefficient == S::ZERO { S::ZERO } else { coefficient * x }
}

impl<A: LinearAlgebra> NewtonSchulz for Muon<A> {
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;

    fn iterations(&self) -> u64 {
        self.ns_steps
    }
    fn coefs<C: ComputeFloat>(
        &self,
        step: &StepContext,
        [rows, cols]: [usize; 2],
    ) -> Coefs<C::Scalar> {
        let step_size = C::scalar(-(step.lr * self.lr_ratio(rows, cols)));
        let (a, b, c) = self.ns_coefficients;
        Coefs {
            weight: C::scalar(1.0 - self.momentum),
            nesterov: self.nesterov,
            ahead: C::scalar(self.momentum),
            eps: round(C::scalar(self.eps)),
            polynomial: [a, b, c].map(C::scalar),
            decay: C::scalar(1.0 - step.lr * self.weight_decay),
            // PyTorch adds bf16 to bf16 in bf16, and anything else in a type that holds both.
            step_size: if C::DTYPE == Dtype::Bf16 {
                C::round_from(step_size).widen()
            } else {
                step_size
            },
            single: rows == 1 && cols == 1,
        }
    }
    #[inline(always)]
    fn momentum<C: ComputeFloat>(k: &Coefs<C::Scalar>, m: C, g: C) -> (C, C::Scalar) {
        let m = m.lerp(g, k.weight);
        let next = if k.nesterov { g.lerp(m, k.ahead) } else { m };
        (m, round(next.widen()))
    }
    #[inline(always)]
    fn norm<C: ComputeFloat>(k: &Coefs<C::Scalar>, squares: C::Scalar) -> C::Scalar {
        round(reduce::root(squares, k.single)).maximum(k.eps)
    }
    #[inline(always)]
    fn normalize<C: ComputeFloat>(x: C::Scalar, norm: C::Scalar) -> C::Scalar {
        round(x / norm)
    }
    #[inline(always)]
    fn gram<C: ComputeFloat>(product: C::Scalar) -> C::Scalar {
        round(product)
    }
    #[inline(always)]
    fn polynomial<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        gram: C::Scalar,
        square: C::Scalar,
    ) -> C::Scalar {
        let [_, b, c] = k.polynomial;
        round(added(b, gram) + c * square)
    }
    #[inline(always)]
    fn next<C: ComputeFloat>(k: &Coefs<C::Scalar>, x: C::Scalar, product: C::Scalar) -> C::Scalar {
        let [a, ..] = k.polynomial;
        round(added(a, x) + product)
    }
    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, x: C::Scalar) -> C {
        C::round_from(p.mul_scalar(k.decay).widen() + k.step_size * x)
    }
}

fn update<A: LinearAlgebra, C: ComputeFloat<Scalar: Plain, Stored: Plain>>(
    rule: &Muon<A>,
    step: &StepContext,
    mut t: UpdateBuffers<'_, '_>,
) -> Result<(), Error> {
    let (&[rows, cols], [momentum]) = (t.shape, t.slots) else { return Ok(()) };
    let Some(work) = <C::Scalar as Plain>::of_mut(&mut t.scratch) else {
        let expected = "f64 numbers if computed in f64, else f32";
        return Err(Error::InvalidArgument { argument: "scratch", expected });
    };
    let k = rule.coefs::<C>(step, [rows, cols]);
    let (short, long) = (rows.min(cols), rows.max(cols));
    let (x, rest) = work.split_at_mut(rows * cols);
    let place = WideIndex::new([rows, cols]);

    // The momentum, and X laid out as a wide matrix.
    each(momentum, |start, m: &mut [C::Stored]| {
        let (mut g, mut next) = ([C::Stored::default(); MAX_BLOCK], [C::Scalar::ZERO; MAX_BLOCK]);
        let g = g.get_mut(..m.len()).unwrap_or_default();
        t.grad.load(start, g);
        in_vectors(m, g, &mut next, |m, g, next| {
            let (moved, ahead) = <Muon<A>>::momentum::<C>(&k, C::load(*m), C::load(g));
            *m = moved.store();
            *next = ahead;
        });
        for (i, &next) in next.iter().enumerate().take(m.len()) {
            if let Some(x) = x.get_mut(place.of(start + i)) {
                *x = next;
            }
        }
    });
    orthogonalise::<A, C>(rule, &k, [short, long], x, rest);

    each(&mut t.param, |start, p: &mut [C::Stored]| {
        let mut update = [C::Scalar::ZERO; MAX_BLOCK];
        for (i, to) in update.iter_mut().enumerate().take(p.len()) {
            *to = x.get(place.of(start + i)).copied().unwrap_or(C::Scalar::ZERO);
        }
        in_vectors(p, &update, &mut [(); MAX_BLOCK], |p, x, ()| {
            *p = <Muon<A> as NewtonSchulz>::update::<C>(&k, C::load(*p), x).store();
        });
    });
    Ok(())
}

/// Loads, changes and stores a buffer in chunks that fit its storage.
fn each<S: Plain>(data: &mut DataMut<'_>, mut f: impl FnMut(usize, &mut [S])) {
    let len = data.len();
    let chunk = chunk_len([data.block()]).unwrap_or(MAX_BLOCK);
    let mut values = [S::default(); MAX_BLOCK];
    for start in (0..len).step_by(chunk) {
        let values = values.get_mut(..(len - start).min(chunk)).unwrap_or_default();
        data.load(start, values);
        f(start, values);
        data.store(start, values);
    }
}

/// To bf16 and back.
#[inline(always)]
fn round<W: ComputeFloat>(x: W) -> W {
    W::load(x.store::<Eager<bf16>>())
}

/// The Newton–Schulz iteration on X, `short` × `long`, whose elements are bf16 values.
fn orthogonalise<A: LinearAlgebra, C: ComputeFloat<Scalar: Plain>>(
    rule: &Muon<A>,
    k: &Coefs<C::Scalar>,
    [short, long]: [usize; 2],
    x: &mut [C::Scalar],
    scratch: &mut [C::Scalar],
) {
    let zero = C::Scalar::ZERO;
    let sum = reduce::sum(x.len(), |i| x.get(i).map_or(zero, |&x| reduce::square(x, k.single)));
    let norm = <Muon<A>>::norm::<C>(k, sum);
    replace(x, &[], |x, _| <Muon<A>>::normalize::<C>(x, norm));
    let (a, rest) = scratch.split_at_mut(short * short);
    let (b, rest) = rest.split_at_mut(short * short);
    let Some(bx) = rest.get_mut(..x.len()) else { return };
    for _ in 0..rule.ns_steps {
        // A ← X Xᵀ
        A::gram([short, long], MatrixView::new(&*x, long), a);
        replace(a, &[], |a, _| <Muon<A>>::gram::<C>(a));
        // B ← b A + c A²: A is exactly symmetric, so A A is A Aᵀ.
        A::gram([short, short], MatrixView::new(&*a, short), b);
        replace(b, a, |square, a| <Muon<A>>::polynomial::<C>(k, a, square));
        // X ← a X + B X
        A::matmul(
            [short, short, long],
            MatrixView::new(&*b, short),
            MatrixView::new(&*x, long),
            bx,
        );
        replace(x, bx, |x, bx| <Muon<A>>::next::<C>(k, x, bx));
    }
}

/// Replaces each element x of `to` by f(x, y), where y is the element of `with` at the same place, or 0 if `with` is
/// empty.
fn replace<W: ComputeFloat>(to: &mut [W], with: &[W], f: impl Fn(W, W) -> W) {
    if with.is_empty() {
        simd::dispatch(InVectors(to.iter_mut(), |x: &mut W| *x = f(*x, W::ZERO)));
    } else {
        simd::dispatch(InVectors(to.iter_mut().zip(with), |(x, y): (&mut W, &W)| *x = f(*x, *y)));
    }
}

/// Calls f with the elements at each place of three slices, up to the end of the shortest.
fn in_vectors<X, Y: Copy, Z>(
    x: &mut [X],
    y: &[Y],
    z: &mut [Z],
    mut f: impl FnMut(&mut X, Y, &mut Z),
) {
    let all = x.iter_mut().zip(y).zip(z);
    simd::dispatch(InVectors(all, |((x, y), z): ((&mut X, &Y), &mut Z)| f(x, *y, z)));
}

struct InVectors<I, F>(I, F);

impl<I: Iterator, F: FnMut(I::Item)> Kernel for InVectors<I, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.0.for_each(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_size_is_a_bf16_number_only_for_bf16() {
        let muon: Muon = Muon::default();
        let step = StepContext::new(1, 0.1);
        let narrow = muon.coefs::<Eager<bf16>>(&step, [4, 4]).step_size;
        let wide = muon.coefs::<f32>(&step, [4, 4]).step_size;
        assert_eq!(narrow, bf16::from_f32(wide).to_f32());
        assert_ne!(narrow, wide);
    }
}
