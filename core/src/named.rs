//! From the references' names and argument names to recipes.
//!
//! `optim="adamw_torch"` and the arguments of its constructor make a [`Recipe`].

pub mod entries;
#[cfg(feature = "names")]
mod list;

use crate::args::{ArgError, Args, nearest};
use crate::optimizer::Recipe;
#[cfg(feature = "names")]
pub use list::LIST;

/// A name and what it stands for.
pub struct Entry {
    /// Transformers' string, or the reference's class in snake case.
    pub name: &'static str,
    /// From the reference's constructor arguments to a recipe.
    pub build: fn(&str, &Args) -> Result<Recipe, ArgError>,
}

/// The recipe of a name, with the given constructor arguments of its reference.
///
/// # Errors
/// An unknown name or argument (with the nearest known one), or a refused value.
///
/// ```
/// use bitstep::{args::Args, named::optimizer};
/// assert!(optimizer("adamw_torch", &Args::parse("lr=1e-3, weight_decay=0.1")?).is_ok());
/// let error = optimizer("adamw_torch", &Args::parse("weight_decy=0.1")?).unwrap_err();
/// assert_eq!(error.to_string(), "`adamw_torch` has no argument `weight_decy`; did you mean `weight_decay`?");
/// assert!(optimizer("adamw_troch", &Args::new()).unwrap_err().to_string().contains("`adamw_torch`"));
/// # Ok::<(), bitstep::args::ArgError>(())
/// ```
#[cfg(feature = "names")]
pub fn optimizer(name: &str, args: &Args) -> Result<Recipe, ArgError> {
    optimizer_of(LIST, name, args)
}

/// The recipe of one of these names, with the given constructor arguments of its reference.
///
/// # Errors
/// An unknown name or argument (with the nearest known one), or a refused value.
pub fn optimizer_of(list: &[Entry], name: &str, args: &Args) -> Result<Recipe, ArgError> {
    let Some(entry) = list.iter().find(|e| e.name == name) else {
        return Err(ArgError::UnknownName {
            kind: "optimizer",
            name: name.into(),
            nearest: nearest(name, list.iter().map(|e| e.name)),
        });
    };
    let recipe = (entry.build)(name, args)?;
    recipe.rule.check()?;
    Ok(recipe)
}
