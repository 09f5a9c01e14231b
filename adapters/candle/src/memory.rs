//! Detection of variables and gradients that share memory.

use std::collections::BTreeMap;

use candle_core::{Error, Result, Storage, Tensor, Var};
use thiserror::Error as ThisError;

/// Two tensors share memory, and one of them would be written to.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[error("{0} and {1} share memory")]
pub struct SharedMemory(pub String, pub String);

/// A tensor's storage, and the range of elements that it spans there. `None` if it has no elements.
fn place(tensor: &Tensor) -> Option<[usize; 3]> {
    if tensor.elem_count() == 0 {
        return None;
    }
    let (storage, layout) = tensor.storage_and_layout();
    let storage: &Storage = &storage;
    let start = layout.start_offset();
    let steps = layout.dims().iter().zip(layout.stride()).map(|(&d, &step)| (d - 1) * step);
    Some([std::ptr::from_ref(storage).addr(), start, start + steps.sum::<usize>() + 1])
}

/// Disjoint memory ranges, each with the index of its variable or gradient.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(BTreeMap<[usize; 2], (usize, usize)>);

impl Places {
    /// The owner of a range that overlaps this one.
    fn find(&self, [storage, start, end]: [usize; 3]) -> Option<usize> {
        let (&[other, _], &(until, who)) = self.0.range(..[storage, end]).next_back()?;
        (other == storage && until > start).then_some(who)
    }

    /// Adds a range that overlaps no other.
    pub(crate) fn add(&mut self, [storage, start, end]: [usize; 3], who: usize) {
        self.0.insert([storage, start], (end, who));
    }

    /// The range of a variable that is about to be added; an error if it overlaps another variable's.
    pub(crate) fn free(
        &self,
        vars: &[(String, Var)],
        name: &str,
        var: &Var,
    ) -> Result<Option<[usize; 3]>> {
        let at = place(var);
        match at.and_then(|at| self.find(at)) {
            None => Ok(at),
            Some(other) => {
                let text = |name: &str| format!("variable `{name}`");
                let other = vars.get(other).map_or("", |(name, _)| name);
                Err(Error::wrap(SharedMemory(text(other), text(name))))
            }
        }
    }

    /// Refuses gradients that overlap a variable or, if they will be `written`, another gradient.
    pub(crate) fn check(
        &self,
        vars: &[(String, Var)],
        grads: &[Option<Tensor>],
        written: bool,
    ) -> Result<()> {
        let mut others = Places::default();
        let named =
            |kind: &str, i: usize| format!("{kind} `{}`", vars.get(i).map_or("", |(name, _)| name));
        for (i, (grad, (_, var))) in grads.iter().zip(vars).enumerate() {
            let Some(at) = grad.as_ref().and_then(place) else { continue };
            // An in-place operation of candle refuses two tensors of one storage, even if disjoint.
            let own = place(var).is_some_and(|var| var[0] == at[0]);
            if let Some(var) = self.find(at).or(own.then_some(i)) {
                let (var, grad) = (named("variable", var), named("the gradient of", i));
                return Err(Error::wrap(SharedMemory(var, grad)));
            }
            if !written {
                continue;
            }
            if let Some(other) = others.find(at) {
                let text = |i| named("the gradient of", i);
                return Err(Error::wrap(SharedMemory(text(other), text(i))));
            }
            others.add(at, i);
        }
        Ok(())
    }
}
