//! Whose Trainer is followed.

/// The Transformers whose Trainer is followed, where they differ.
///
/// Each stands for what was run; those between are nearest to the one below them.
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
