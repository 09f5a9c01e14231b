//! From Keras' class names and arguments to decays.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt::Debug;

use super::Decay;
use crate::hyper::{ArgError, Args, HyperParams, Value, nearest};
use crate::schedule::arguments::{apply, name_and_args};

/// A decay, or what is wrong with its arguments.
type Made = Result<Box<dyn AnyDecay>, ArgError>;

/// How arguments make a decay. What a decay within it may be is in the list.
pub(in crate::schedule) type Make = fn(&Entry, Args, &'static [Entry]) -> Made;

/// A class, and how arguments make its decay.
pub(in crate::schedule) struct Entry {
    pub(super) class: &'static str,
    /// Arguments that no field stands for.
    pub(super) apart: &'static [&'static str],
    pub(super) make: Make,
}

impl Entry {
    /// A decay whose fields are its arguments.
    pub(super) const fn of<D: AnyDecay + HyperParams + Default + 'static>(
        class: &'static str,
    ) -> Entry {
        Entry { class, apart: &[], make: |entry, args, _| entry.read(D::default(), &args) }
    }

    /// `decay` with its arguments.
    pub(in crate::schedule) fn read<D: AnyDecay + HyperParams + 'static>(
        &self,
        mut decay: D,
        args: &Args,
    ) -> Made {
        apply(self.class, args, &mut decay, self.apart)?;
        Ok(Box::new(decay))
    }
}

/// A decay whose type is known at run time only.
pub(in crate::schedule) trait AnyDecay: Decay + Debug + Send + Sync {
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

/// A number, or a class of the list with its arguments.
pub(in crate::schedule) fn decay_of(list: &'static [Entry], value: &Value) -> Made {
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
