//! From the references' names and argument names to recipes.
//!
//! `optim="adamw_torch"` and the arguments of its constructor make a [`Recipe`].

use crate::args::{ArgError, Args, nearest};
use crate::optim::LIST;
use crate::optimizer::Recipe;

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
pub fn optimizer(name: &str, args: &Args) -> Result<Recipe, ArgError> {
    let Some(entry) = LIST.iter().find(|e| e.name == name) else {
        return Err(ArgError::UnknownName {
            kind: "optimizer",
            name: name.into(),
            nearest: nearest(name, LIST.iter().map(|e| e.name)),
        });
    };
    let recipe = (entry.build)(name, args)?;
    recipe.rule.check()?;
    Ok(recipe)
}
