//! [`OptimizerEntry`], and looking one up by name.

use crate::hyper::{ArgError, Args, nearest};
use crate::optimizer::OptimizerSpec;

/// A registry name and how its spec is built.
#[derive(Clone, Copy)]
pub struct OptimizerEntry {
    /// Transformers' string, or the reference's class in snake case.
    pub name: &'static str,
    /// Builds the spec from the name and the reference's constructor arguments.
    pub build: fn(&str, &Args) -> Result<OptimizerSpec, ArgError>,
}

/// The spec of a name in `list`, with these constructor arguments of its reference.
///
/// # Errors
/// An unknown name or argument (with the nearest known one), or a refused value.
pub fn optimizer_of(
    list: &[OptimizerEntry],
    name: &str,
    args: &Args,
) -> Result<OptimizerSpec, ArgError> {
    let Some(entry) = list.iter().find(|e| e.name == name) else {
        return Err(ArgError::UnknownName {
            kind: "optimizer",
            name: name.into(),
            nearest: nearest(name, list.iter().map(|e| e.name)),
        });
    };
    let spec = (entry.build)(name, args)?;
    spec.rule.check()?;
    Ok(spec)
}
