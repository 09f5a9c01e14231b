//! Builds a schedule from a name and arguments. A schedule with arguments that are not fields has its constructor in
//! its own file.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::vec::Vec;

use super::arguments::apply;
use super::group_scheduler::AnySchedule;
use super::keras;
use crate::hyper::{ArgError, Args, HyperParams, Value, names, nearest};

/// A named schedule and its constructor.
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// The reference's class or function.
    class: &'static str,
    /// Arguments for which the schedule has no field: lists and nested schedules.
    non_fields: &'static [&'static str],
    /// The fields with their defaults, `None` for those that have none.
    fields: fn() -> Args,
    pub(super) make: Make,
}

/// The constructor of a schedule.
pub(super) enum Make {
    /// For a function of the step: one schedule per group, from the group's arguments.
    Pure(fn(&Entry, Args, BuildContext) -> BuildResult),
    // Schedules with a state; `scheduler` constructs them.
    Plateau,
    Greedy,
    Adafactor,
}

/// A schedule of one group, or the error in its arguments.
pub(super) type BuildResult = Result<Box<dyn AnySchedule>, ArgError>;

/// The information that the constructor of a schedule may use in addition to its arguments.
#[derive(Clone, Copy)]
pub(super) struct BuildContext {
    /// The optimizer's `lr`.
    pub(super) lr: f64,
    /// The step after which training is resumed; −1 for its start.
    pub(super) last_epoch: i64,
    /// The known nested schedules.
    pub(super) schedules: &'static [Entry],
    /// The known nested decays.
    pub(super) decays: &'static [keras::Entry],
}

impl Entry {
    /// A schedule all of whose arguments are fields.
    pub(super) const fn of<S: AnySchedule + Default + 'static>(
        name: &'static str,
        class: &'static str,
    ) -> Entry {
        let make = Make::Pure(|entry, args, context| entry.parse(S::default(), args, context));
        Entry::with(name, class, &[], fields::<S>, make)
    }

    /// A schedule with a constructor of its own.
    pub(super) const fn with(
        name: &'static str,
        class: &'static str,
        non_fields: &'static [&'static str],
        fields: fn() -> Args,
        make: Make,
    ) -> Entry {
        Entry { name, class, non_fields, fields, make }
    }

    /// All arguments of the schedule with their defaults, `None` for those that must be given.
    pub(super) fn defaults(&self) -> Args {
        let own = |name: &str| !["lr_init", "last_epoch"].contains(&name);
        let of_groups = self.non_fields.iter().map(|name| ((*name).to_owned(), Value::None));
        let fields = (self.fields)();
        let fields = fields.iter().filter(|(name, _)| own(name));
        of_groups.chain(fields.map(|(name, value)| (name.to_owned(), value.clone()))).collect()
    }

    /// `schedule` with its fields set from the arguments, `lr_init` and `last_epoch` from the context.
    pub(super) fn parse(
        &self,
        mut schedule: impl AnySchedule + 'static,
        mut args: Args,
        context: BuildContext,
    ) -> BuildResult {
        let fields = names(&mut schedule);
        if fields.contains(&"lr_init") {
            args.set("lr_init", context.lr);
        }
        if fields.contains(&"last_epoch") {
            args.set("last_epoch", context.last_epoch);
        }
        apply(self.name, &args, &mut schedule, self.non_fields)?;
        schedule.check()?;
        Ok(Box::new(schedule))
    }

    /// One schedule per group, its fields set from the group's arguments.
    pub(super) fn parse_each<S: HyperParams + Default>(
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

/// The fields of a schedule with their defaults, `None` for those that have none.
pub(super) fn fields<S: HyperParams + Default>() -> Args {
    fields_of(S::default())
}

/// [`fields`] of a schedule that has just been made.
pub(super) fn fields_of(mut schedule: impl HyperParams) -> Args {
    let mut fields = Args::of(&mut schedule);
    for &name in schedule.required() {
        fields.set(name, Value::None);
    }
    fields
}

/// The schedule of this name.
pub(super) fn of_name(list: &'static [Entry], name: &str) -> Result<&'static Entry, ArgError> {
    list.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let nearest = nearest(name, list.iter().map(|entry| entry.name));
        ArgError::UnknownName { kind: "schedule", name: name.to_owned(), nearest }
    })
}

/// The schedule of a reference's class or function, given with or without its module.
pub(super) fn of_class(list: &'static [Entry], class: &str) -> Option<&'static Entry> {
    let class = class.rsplit('.').next().unwrap_or(class);
    list.iter().find(|entry| entry.class == class)
}
