//! Versions of Transformers.

/// The version of Transformers whose Trainer is reproduced, where versions differ.
///
/// These versions have been run; use the closest earlier one for a version between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Version {
    /// 4.49.
    V4_49,
    /// 4.57, the last of 4.
    V4_57,
    /// 5.23.
    #[default]
    V5_23,
}
