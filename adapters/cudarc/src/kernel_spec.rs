//! Finds the kernels of a rule, given as `dyn DynRule`.

use std::any::Any;
use std::marker::PhantomData;

use bitstep::float::Eager;
use bitstep::float::bytes::Constants;
use bitstep::float::{ComputeFloat, Dtype};
use bitstep::lowrank::{
    Apollo, ForceF32, GaLore, Projected, Projection, ProjectionMethod, ProjectorKind, SplitRule,
};
use bitstep::optim::*;
use bitstep::optimizer::Buffer;
use bitstep::rule::factored::{FactoredRule, FactoredUpdate};
use bitstep::rule::newton_schulz::NewtonSchulz;
use bitstep::rule::{ComputePolicy, DynRule};
use bitstep::rule::{Rule, ScalarState, StepContext};
use bitstep::storage::{Data, DataMut};
use half::{bf16, f16};

/// The passes of a rule over a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A pass over the elements, after sums if the configuration needs any.
    Elements,
    /// From two dimensions on, passes over rows and columns before that.
    Matrix,
}

/// A rule's kernels, and the host's part of their work.
pub(crate) trait KernelSpec: Sync {
    /// The prefix of the kernels' names.
    fn stem(&self) -> &'static str;
    fn shape(&self) -> Shape;
    /// The number of slots, without those of rows and columns.
    fn slots(&self) -> usize;
    /// Whether the constants need sums over the tensor; `None` for another rule.
    fn needs_sums(&self, rule: &dyn DynRule) -> Option<bool>;
    /// The bytes of the step's constants, as the kernels read them.
    fn coefs(
        &self,
        rule: &dyn DynRule,
        compute: Dtype,
        step: &StepContext,
        scalars: &ScalarState,
    ) -> Option<Vec<u8>>;
    /// Completes the constants for a tensor without elements.
    fn finish_empty(&self, compute: Dtype, coefs: &mut [u8]);
    /// Copies values of the constants to the per-step scalars ([`Rule::export_scalars`]).
    fn export_scalars(&self, compute: Dtype, coefs: &[u8], scalars: &mut ScalarState);
    /// Whether the rule has scalars to export.
    fn exports_scalars(&self) -> bool;
    /// Whether any of the sums is over the parameter alone.
    fn sums_param(&self) -> bool;
}

/// The kernels of a Newton-Schulz rule.
pub(crate) trait NewtonSchulzKernels: Sync {
    fn stem(&self) -> &'static str;
    /// The number of iterations; `None` for another rule.
    fn iterations(&self, rule: &dyn DynRule) -> Option<u64>;
    fn coefs(
        &self,
        rule: &dyn DynRule,
        compute: Dtype,
        step: &StepContext,
        shape: [usize; 2],
    ) -> Option<Vec<u8>>;
}

/// [`Projected`], whatever its rule and method.
pub(crate) trait RefreshProjector {
    /// [`Projected::refresh_due`].
    fn refresh_due(&self, step: &StepContext) -> Option<ProjectorKind>;
    /// [`Projected::refresh`], which allocates its own scratch memory.
    fn refresh(
        &self,
        of: (ComputePolicy, Option<Dtype>),
        step: &StepContext,
        scalars: &mut ScalarState,
        grad: Data<'_>,
        projectors: &mut [DataMut<'_>],
    ) -> Result<(), bitstep::Error>;
}

impl<R: SplitRule, W: ProjectionMethod> RefreshProjector for Projected<R, W> {
    fn refresh_due(&self, step: &StepContext) -> Option<ProjectorKind> {
        Projected::refresh_due(self, step)
    }
    fn refresh(
        &self,
        (policy, param): (ComputePolicy, Option<Dtype>),
        step: &StepContext,
        scalars: &mut ScalarState,
        grad: Data<'_>,
        projectors: &mut [DataMut<'_>],
    ) -> Result<(), bitstep::Error> {
        let compute = match policy.compute(param) {
            Dtype::F64 => Dtype::F64,
            _ => Dtype::F32,
        };
        let mut work = Buffer::zeros(compute, self.scratch_len(step.shape))?;
        Projected::refresh(self, (policy, param), step, scalars, grad, projectors, work.data_mut())
    }
}

/// The parts of a rule on projected gradients.
pub(crate) struct LowRankParts<'a> {
    pub(crate) whole: &'a dyn RefreshProjector,
    pub(crate) projection: Projection,
    pub(crate) inner: &'a dyn DynRule,
    /// Whether the inner rule computes in `f32` whatever the compute policy.
    pub(crate) is_single_precision: bool,
    /// APOLLO's configuration. `None` for GaLore, which projects directions back.
    pub(crate) scales: Option<Apollo>,
    /// The number of per-step scalars of the inner rule.
    pub(crate) num_scalars: usize,
}

/// Evaluates `$body` with `$C` as the compute type of a dtype.
macro_rules! in_type {
    ($compute:expr, $C:ident => $body:expr) => {
        match $compute {
            Dtype::F64 => {
                type $C = f64;
                $body
            }
            Dtype::F32 => {
                type $C = f32;
                $body
            }
            Dtype::Bf16 => {
                type $C = Eager<bf16>;
                $body
            }
            Dtype::F16 => {
                type $C = Eager<f16>;
                $body
            }
        }
    };
}

/// How a rule of type R is found in a [`DynRule`]: directly, or inside a [`FactoredRule`].
trait Downcast<R>: Sync {
    const SHAPE: Shape;
    fn find(rule: &dyn DynRule) -> Option<&R>;
}

struct Plain;
impl<R: Rule> Downcast<R> for Plain {
    const SHAPE: Shape = Shape::Elements;
    fn find(rule: &dyn DynRule) -> Option<&R> {
        (rule as &dyn Any).downcast_ref()
    }
}

struct OfMatrix;
impl<R: FactoredUpdate> Downcast<R> for OfMatrix {
    const SHAPE: Shape = Shape::Matrix;
    fn find(rule: &dyn DynRule) -> Option<&R> {
        (rule as &dyn Any).downcast_ref::<FactoredRule<R>>().map(|m| &m.0)
    }
}

struct Of<R, F>(&'static str, PhantomData<fn(R, F)>);

impl<R: Rule, F: Downcast<R>> KernelSpec for Of<R, F>
where
    R::Coefs<f64>: Constants,
    R::Coefs<f32>: Constants,
    R::Coefs<Eager<bf16>>: Constants,
    R::Coefs<Eager<f16>>: Constants,
{
    fn stem(&self) -> &'static str {
        self.0
    }
    fn shape(&self) -> Shape {
        F::SHAPE
    }
    fn slots(&self) -> usize {
        R::SLOTS.len()
    }
    fn needs_sums(&self, rule: &dyn DynRule) -> Option<bool> {
        F::find(rule).map(|r| R::NUM_SUMS > 0 && r.needs_sums())
    }
    fn coefs(
        &self,
        rule: &dyn DynRule,
        compute: Dtype,
        step: &StepContext,
        scalars: &ScalarState,
    ) -> Option<Vec<u8>> {
        F::find(rule).map(|r| in_type!(compute, C => coefs_to_bytes(r.coefs::<C>(step, scalars))))
    }
    fn finish_empty(&self, compute: Dtype, coefs: &mut [u8]) {
        in_type!(compute, C => {
            if let Some(mut k) = coefs_from_bytes::<R::Coefs<C>>(coefs) {
                R::apply_sums::<C>(&mut k, [<C as ComputeFloat>::Scalar::ZERO; 2], 0);
                coefs.copy_from_slice(&coefs_to_bytes(k));
            }
        });
    }
    fn export_scalars(&self, compute: Dtype, coefs: &[u8], scalars: &mut ScalarState) {
        in_type!(compute, C => {
            if let Some(k) = coefs_from_bytes::<R::Coefs<C>>(coefs) {
                R::export_scalars::<C>(&k, scalars);
            }
        });
    }
    fn exports_scalars(&self) -> bool {
        !R::SCALAR_NAMES.is_empty()
    }
    fn sums_param(&self) -> bool {
        R::PARAM_ONLY_SUMS != 0
    }
}

impl<R: NewtonSchulz> NewtonSchulzKernels for Of<R, ()>
where
    R::Coefs<f64>: Constants,
    R::Coefs<f32>: Constants,
    R::Coefs<Eager<bf16>>: Constants,
    R::Coefs<Eager<f16>>: Constants,
{
    fn stem(&self) -> &'static str {
        self.0
    }
    fn iterations(&self, rule: &dyn DynRule) -> Option<u64> {
        (rule as &dyn Any).downcast_ref::<R>().map(R::iterations)
    }
    fn coefs(
        &self,
        rule: &dyn DynRule,
        compute: Dtype,
        step: &StepContext,
        shape: [usize; 2],
    ) -> Option<Vec<u8>> {
        let rule = (rule as &dyn Any).downcast_ref::<R>()?;
        Some(in_type!(compute, C => coefs_to_bytes(rule.coefs::<C>(step, shape))))
    }
}

fn projected<R: SplitRule, W: ProjectionMethod>(rule: &dyn DynRule) -> Option<LowRankParts<'_>> {
    let rule = (rule as &dyn Any).downcast_ref::<Projected<R, W>>()?;
    let (inner, single) = rule.rule.inner_rule();
    let scales = (&rule.method as &dyn Any).downcast_ref::<Apollo>().copied();
    Some(LowRankParts {
        whole: rule,
        projection: rule.projection,
        inner,
        is_single_precision: single,
        scales,
        num_scalars: R::SCALAR_NAMES.len(),
    })
}

/// The bytes of the constants, with zeros as padding: the memory layout that the kernels read.
fn coefs_to_bytes<T: Constants>(x: T) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<T>()];
    x.write(&mut bytes);
    bytes
}

/// Reads the constants from [their bytes](coefs_to_bytes), possibly modified by a kernel.
fn coefs_from_bytes<T: Constants>(bytes: &[u8]) -> Option<T> {
    T::read(bytes).filter(|_| bytes.len() == size_of::<T>())
}

macro_rules! rules {
    (
        elementwise { $($e:ident: $er:ty,)* }
        tensorwise { $($t:ident: $tr:ty,)* }
        factored { $($f:ident: $fr:ty,)* }
        orthogonal { $($o:ident: $or:ty,)* }
        projected { $($p:ty, $w:ty;)* }
        $($rest:tt)*
    ) => {
        static RULES: &[&dyn KernelSpec] = &[
            $(&Of::<$er, Plain>(stringify!($e), PhantomData),)*
            $(&Of::<$tr, Plain>(stringify!($t), PhantomData),)*
            $(&Of::<$fr, OfMatrix>(stringify!($f), PhantomData),)*
        ];
        static NEWTON_SCHULZ: &[&dyn NewtonSchulzKernels] =
            &[$(&Of::<$or, ()>(stringify!($o), PhantomData),)*];
        static PROJECTED: &[fn(&dyn DynRule) -> Option<LowRankParts<'_>>] = &[$(projected::<$p, $w>,)*];
    };
}

bitstep::each_rule!(rules);

/// The kernels of an elementwise, tensorwise or factored rule.
pub(crate) fn kernel_spec(rule: &dyn DynRule) -> Option<&'static dyn KernelSpec> {
    RULES.iter().copied().find(|t| t.needs_sums(rule).is_some())
}

/// Whether there are kernels for a rule.
pub(crate) fn has_kernels(rule: &dyn DynRule) -> bool {
    let inner = low_rank_parts(rule).map_or(rule, |low| low.inner);
    newton_schulz_kernels(rule).is_some() || kernel_spec(inner).is_some()
}

/// The index of the per-step scalar that is kept on the device, if any: the norm of APOLLO's limiter.
pub(crate) fn persistent_scalar(rule: &dyn DynRule) -> Option<usize> {
    let low = low_rank_parts(rule).filter(|low| low.projection.projects())?;
    low.scales.filter(|apollo| apollo.limits_growth()).map(|_| low.num_scalars + 1)
}

/// The kernels of a Newton-Schulz rule, and its number of iterations.
pub(crate) fn newton_schulz_kernels(
    rule: &dyn DynRule,
) -> Option<(&'static dyn NewtonSchulzKernels, u64)> {
    NEWTON_SCHULZ.iter().find_map(|&t| Some((t, t.iterations(rule)?)))
}

/// The parts of a rule on projected gradients; `None` for another rule.
pub(crate) fn low_rank_parts(rule: &dyn DynRule) -> Option<LowRankParts<'_>> {
    PROJECTED.iter().find_map(|of| of(rule))
}
