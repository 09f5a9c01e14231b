//! The checkout that this was built in, and what a program has with it that is installed elsewhere: the golden
//! vectors and the exporter, as they were when it was built (feature `vectors`).

use std::path::{Path, PathBuf};

/// A file: its path with `/`, and its bytes.
pub(crate) type File = (&'static str, &'static [u8]);

/// The folder `conformance` of the checkout that this was built in, or else of that in the current folder.
pub(crate) fn checkout() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A package has no goldens of its own, and so nothing is written into a registry's sources.
    [built, Path::new("conformance")]
        .into_iter()
        .find(|at| at.join("golden").is_dir())
        .map(Into::into)
}

#[cfg(feature = "vectors")]
mod files {
    include!(concat!(env!("OUT_DIR"), "/built_in.rs"));
}

#[cfg(not(feature = "vectors"))]
mod files {
    pub(super) static GOLDEN: &[super::File] = &[];
    pub(super) static EXPORTER: &[super::File] = &[];
}

/// The golden vectors, sorted by `KIND/NAME/CASE.safetensors`; none without the feature.
pub(crate) fn golden() -> &'static [File] {
    files::GOLDEN
}

/// The exporter's files, sorted; none without the feature.
pub(crate) fn exporter() -> &'static [File] {
    files::EXPORTER
}
