//! The type that a step is computed in.

use crate::float::Dtype;

/// Which type a step is computed in; it matters most for 16-bit parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ComputePolicy {
    /// `f64` parameters in `f64`, all others in `f32`, rounded once when stored: PyTorch's fused kernels.
    #[default]
    Fused,
    /// 16-bit parameters are rounded after every tensor operation: PyTorch's eager kernels. Refused for a rule whose
    /// reference [has none](super::Rule::EAGER).
    Eager,
    /// In `f32` whatever the parameter's type, `f64` included.
    Single,
    /// In `f64` whatever the parameter's type.
    Double,
}

impl ComputePolicy {
    /// The policy's name in saved files. It never changes.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            ComputePolicy::Fused => "fused",
            ComputePolicy::Eager => "eager",
            ComputePolicy::Single => "f32",
            ComputePolicy::Double => "f64",
        }
    }

    /// The compute type of a parameter that is stored in this type (`None` for an encoded storage).
    #[must_use]
    pub const fn compute(self, param: Option<Dtype>) -> Dtype {
        match (param, self) {
            (Some(Dtype::F64), ComputePolicy::Fused | ComputePolicy::Eager) => Dtype::F64,
            (_, ComputePolicy::Double) => Dtype::F64,
            (Some(Dtype::Bf16), ComputePolicy::Eager) => Dtype::Bf16,
            (Some(Dtype::F16), ComputePolicy::Eager) => Dtype::F16,
            _ => Dtype::F32,
        }
    }
}
