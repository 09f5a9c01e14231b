//! From a rule of any type to the kernels of its own.

use std::any::Any;
use std::marker::PhantomData;

use bitstep::any::AnyRule;
use bitstep::factored::{Factored, Matrix};
use bitstep::optim::*;
use bitstep::real::{Dtype, Real};
use bitstep::rule::{Rule, Scalars, Step};
use half::{bf16, f16};

/// The passes that a rule makes over a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Over its elements, after sums if the configuration needs any.
    Elements,
    /// The same, and over rows and columns before, from two dimensions on.
    Matrix,
}

/// What a launch has to know of a rule.
pub(crate) trait Typed: Sync {
    /// What its kernels' names begin with.
    fn stem(&self) -> &'static str;
    fn shape(&self) -> Shape;
    /// How many slots it has, those of rows and columns not counted.
    fn slots(&self) -> usize;
    /// Whether the constants need sums; `None` of another rule.
    fn needs_sums(&self, rule: &dyn AnyRule) -> Option<bool>;
    /// The constants, as the kernels read them.
    fn coefs(
        &self,
        rule: &dyn AnyRule,
        compute: Dtype,
        step: &Step,
        scalars: &Scalars,
    ) -> Option<Vec<u8>>;
    /// Completes the constants of a tensor without elements.
    fn finish_empty(&self, compute: Dtype, coefs: &mut [u8]);
    /// Notes what is to be carried on.
    fn record(&self, compute: Dtype, coefs: &[u8], scalars: &mut Scalars);
    /// Whether there is anything to note.
    fn records(&self) -> bool;
}

/// Calls a generic function for the type of that name.
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
                type $C = bf16;
                $body
            }
            Dtype::F16 => {
                type $C = f16;
                $body
            }
        }
    };
}

/// How a rule of type R is found in an [`AnyRule`]: as it is, or as a [`Matrix`].
trait Form<R>: Sync {
    const SHAPE: Shape;
    fn find(rule: &dyn AnyRule) -> Option<&R>;
}

struct Plain;
impl<R: Rule> Form<R> for Plain {
    const SHAPE: Shape = Shape::Elements;
    fn find(rule: &dyn AnyRule) -> Option<&R> {
        (rule as &dyn Any).downcast_ref()
    }
}

struct OfMatrix;
impl<R: Factored> Form<R> for OfMatrix {
    const SHAPE: Shape = Shape::Matrix;
    fn find(rule: &dyn AnyRule) -> Option<&R> {
        (rule as &dyn Any).downcast_ref::<Matrix<R>>().map(|m| &m.0)
    }
}

struct Of<R, F>(&'static str, PhantomData<fn(R, F)>);

impl<R: Rule, F: Form<R>> Typed for Of<R, F> {
    fn stem(&self) -> &'static str {
        self.0
    }
    fn shape(&self) -> Shape {
        F::SHAPE
    }
    fn slots(&self) -> usize {
        R::SLOTS.len()
    }
    fn needs_sums(&self, rule: &dyn AnyRule) -> Option<bool> {
        F::find(rule).map(|r| R::SUMS > 0 && r.needs_sums())
    }
    fn coefs(
        &self,
        rule: &dyn AnyRule,
        compute: Dtype,
        step: &Step,
        scalars: &Scalars,
    ) -> Option<Vec<u8>> {
        F::find(rule).map(|r| in_type!(compute, C => image(r.coefs::<C>(step, scalars))))
    }
    fn finish_empty(&self, compute: Dtype, coefs: &mut [u8]) {
        in_type!(compute, C => {
            if let Some(mut k) = read::<R::Coefs<C>>(coefs) {
                R::finish::<C>(&mut k, [<C as Real>::Scalar::ZERO; 2], 0);
                coefs.copy_from_slice(&image(k));
            }
        });
    }
    fn record(&self, compute: Dtype, coefs: &[u8], scalars: &mut Scalars) {
        in_type!(compute, C => {
            if let Some(k) = read::<R::Coefs<C>>(coefs) {
                R::record::<C>(&k, scalars);
            }
        });
    }
    fn records(&self) -> bool {
        !R::SCALARS.is_empty()
    }
}

/// The bytes of constants. The kernels never look at their padding.
fn image<T: Copy>(x: T) -> Vec<u8> {
    let mut x = x;
    let bytes = (&raw mut x).cast::<u8>();
    // The padding is not initialised, as far as the compiler knows. What it can't look into may
    // have done so.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) bytes, options(nostack, preserves_flags));
    }
    // SAFETY: as many bytes as x has.
    unsafe { std::slice::from_raw_parts(std::hint::black_box(bytes), size_of::<T>()).to_vec() }
}

/// The constants whose [`image`] it is, or what a kernel made of it.
fn read<T: Copy>(bytes: &[u8]) -> Option<T> {
    // SAFETY: as many bytes as T has; each field is what a T's field was, or what the same code
    // made of it on the device.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

macro_rules! rules {
    (
        elementwise { $($e:ident: $er:ty,)* }
        tensorwise { $($t:ident: $tr:ty,)* }
        factored { $($f:ident: $fr:ty,)* }
    ) => {
        &[
            $(&Of::<$er, Plain>(stringify!($e), PhantomData),)*
            $(&Of::<$tr, Plain>(stringify!($t), PhantomData),)*
            $(&Of::<$fr, OfMatrix>(stringify!($f), PhantomData),)*
        ]
    };
}

static RULES: &[&dyn Typed] = bitstep::each_rule!(rules);

/// The kernels of a rule; `None` if it has none.
pub(crate) fn typed(rule: &dyn AnyRule) -> Option<&'static dyn Typed> {
    RULES.iter().copied().find(|t| t.needs_sums(rule).is_some())
}
