//! In which type a step is computed.

use crate::float::Dtype;

/// How 16-bit parameters are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ComputePolicy {
    /// In `f32`, rounded once when stored: PyTorch's fused kernels.
    #[default]
    Fused,
    /// Rounded after every tensor operation: PyTorch's eager kernels. Refused for a [rule that has none](super::Rule::EAGER).
    Eager,
    /// In `f32` whatever the parameter's type, `f64` included.
    Single,
    /// In `f64` whatever the parameter's type.
    Double,
}

impl ComputePolicy {
    /// What saved files call it. It never changes.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            ComputePolicy::Fused => "fused",
            ComputePolicy::Eager => "eager",
            ComputePolicy::Single => "f32",
            ComputePolicy::Double => "f64",
        }
    }

    /// The type that a parameter is computed in, given its own (`None` for a storage).
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
