//! Builds decays from Keras' class names and arguments.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use core::any::Any;
use core::fmt::Debug;

use super::Decay;
use crate::hyper::{ArgError, Args, HyperParams, Value, nearest};
use crate::schedule::arguments::{apply, name_and_args};

/// A decay, or the error in its arguments.
type BuildResult = Result<Box<dyn AnyDecay>, ArgError>;

/// The constructor of a decay; the list has the known nested decays.
pub(in crate::schedule) type Make = fn(&Entry, Args, &'static [Entry]) -> BuildResult;

/// A class of Keras and the constructor of its decay.
pub(in crate::schedule) struct Entry {
    pub(super) class: &'static str,
    /// Arguments for which the decay has no field: lists and nested decays.
    pub(super) non_fields: &'static [&'static str],
    pub(super) make: Make,
}

impl Entry {
    /// A decay all of whose arguments are fields.
    pub(super) const fn of<D: AnyDecay + HyperParams + Default + 'static>(
        class: &'static str,
    ) -> Entry {
        Entry { class, non_fields: &[], make: |entry, args, _| entry.parse(D::default(), &args) }
    }

    /// `decay` with its fields set from the arguments.
    pub(in crate::schedule) fn parse<D: AnyDecay + HyperParams + 'static>(
        &self,
        mut decay: D,
        args: &Args,
    ) -> BuildResult {
        apply(self.class, args, &mut decay, self.non_fields)?;
        Ok(Box::new(decay))
    }
}

/// A decay whose type is known at run time only. Implemented for every `Clone` type that is a [`Decay`].
pub trait AnyDecay: Decay + Debug + Any + Send + Sync {
    /// A boxed copy.
    fn clone_box(&self) -> Box<dyn AnyDecay>;
}

impl<D: Decay + Debug + Clone + Send + Sync + 'static> AnyDecay for D {
    fn clone_box(&self) -> Box<dyn AnyDecay> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn AnyDecay> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}

/// A decay from a value: a number for a constant rate, or a class of the list with its arguments.
#[inline]
pub(in crate::schedule) fn decay_of(list: &'static [Entry], value: &Value) -> BuildResult {
    if let Some(constant) = value.as_f64() {
        return Ok(Box::new(constant as f32));
    }
    let (class, args) = name_and_args("decay_schedule_fn", value)?;
    let class: String = class.rsplit('.').next().unwrap_or("").to_lowercase();
    let class: String = class.replace('_', "").replace("keras", "");
    let short = class.trim_end_matches("schedule");
    let is = |entry: &&Entry| {
        let known = entry.class.to_lowercase();
        short == known || short == known.replace("decay", "")
    };
    match list.iter().find(is) {
        Some(entry) => (entry.make)(entry, args, list),
        None => {
            let nearest = nearest(&class, list.iter().map(|entry| entry.class));
            Err(ArgError::UnknownName { kind: "decay", name: class.to_owned(), nearest })
        }
    }
}
