//! From a name and arguments to a schedule. How each is made of arguments stands in its own file.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::vec::Vec;

use super::arguments::apply;
use super::group_scheduler::AnySchedule;
use super::keras;
use crate::hyper::{ArgError, Args, HyperParams, names, nearest};

/// A name, and how arguments make its schedule.
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// The reference's class or function.
    class: &'static str,
    /// Arguments that no field stands for.
    apart: &'static [&'static str],
    pub(super) make: Make,
}

/// How arguments make a schedule.
pub(super) enum Make {
    /// One that is a function of the step: each group's, from its arguments and what it is told beside them.
    Pure(fn(&Entry, Args, Told) -> Made),
    // Those that are more than that are known by their types, which stand above this file.
    Plateau,
    Greedy,
    Adafactor,
}

/// A schedule of one group, or what is wrong with its arguments.
pub(super) type Made = Result<Box<dyn AnySchedule>, ArgError>;

/// What a schedule is told beside its arguments.
#[derive(Clone, Copy)]
pub(super) struct Told {
    /// The optimizer's own rate.
    pub(super) lr: f64,
    /// The step after which training is resumed; −1 for its start.
    pub(super) last_epoch: i64,
    /// What schedules within it may be.
    pub(super) schedules: &'static [Entry],
    /// What a decay within it may be.
    pub(super) decays: &'static [keras::Entry],
}

impl Entry {
    /// A schedule whose fields are its arguments.
    pub(super) const fn of<S: AnySchedule + Default + 'static>(
        name: &'static str,
        class: &'static str,
    ) -> Entry {
        let make = Make::Pure(|entry, args, told| entry.read(S::default(), args, told));
        Entry::with(name, class, &[], make)
    }

    /// One that is made in its own way.
    pub(super) const fn with(
        name: &'static str,
        class: &'static str,
        apart: &'static [&'static str],
        make: Make,
    ) -> Entry {
        Entry { name, class, apart, make }
    }

    /// `schedule` with its arguments and with what it asks of its optimizer.
    pub(super) fn read(
        &self,
        mut schedule: impl AnySchedule + 'static,
        mut args: Args,
        told: Told,
    ) -> Made {
        let fields = names(&mut schedule);
        if fields.contains(&"lr_init") {
            args.set("lr_init", told.lr);
        }
        if fields.contains(&"last_epoch") {
            args.set("last_epoch", told.last_epoch);
        }
        apply(self.name, &args, &mut schedule, self.apart)?;
        schedule.check()?;
        Ok(Box::new(schedule))
    }

    /// Each group's schedule with its arguments.
    pub(super) fn read_each<S: HyperParams + Default>(
        &self,
        groups: &[Args],
    ) -> Result<Vec<S>, ArgError> {
        let read = |args: &Args| {
            let mut schedule = S::default();
            args.apply(self.name, &mut schedule).map(|()| schedule)
        };
        groups.iter().map(read).collect()
    }
}

/// The one of a name.
pub(super) fn of_name(list: &'static [Entry], name: &str) -> Result<&'static Entry, ArgError> {
    list.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let nearest = nearest(name, list.iter().map(|entry| entry.name));
        ArgError::UnknownName { kind: "schedule", name: name.to_owned(), nearest }
    })
}

/// The one of a reference's class or function, with or without its module.
pub(super) fn of_class(list: &'static [Entry], class: &str) -> Option<&'static Entry> {
    let class = class.rsplit('.').next().unwrap_or(class);
    list.iter().find(|entry| entry.class == class)
}
