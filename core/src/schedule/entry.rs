//! Builds a schedule from a name and arguments. A schedule with arguments that are not fields has its constructor in
//! its own file.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::vec::Vec;

use super::arguments::apply;
use super::group_scheduler::AnySchedule;
use super::keras;
use crate::hyper::{ArgError, Args, FieldMut, FieldVisitor, HyperParams, Value, names, nearest};

/// A named schedule and its constructor.
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// The reference's class or function.
    class: &'static str,
    /// Arguments for which the schedule has no field: lists and nested schedules.
    pub(super) non_fields: &'static [&'static str],
    /// Its fields, with their defaults.
    pub(super) fields: fn() -> Box<dyn HyperParams>,
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

/// Fields that are set from the [context](BuildContext).
const LR_INIT: &str = "lr_init";
const LAST_EPOCH: &str = "last_epoch";

/// Passes on all fields but those that are set from the context.
pub(super) struct OwnFields<'a>(pub(super) &'a mut dyn FieldVisitor);

impl FieldVisitor for OwnFields<'_> {
    fn field(&mut self, name: &'static str, slot: FieldMut<'_>) {
        if name != LR_INIT && name != LAST_EPOCH {
            self.0.field(name, slot);
        }
    }
}

impl Entry {
    /// A schedule all of whose arguments are fields.
    pub(super) const fn of<S: AnySchedule + Default + 'static>(
        name: &'static str,
        class: &'static str,
    ) -> Entry {
        let make = Make::Pure(|entry, args, context| entry.parse(S::default(), args, context));
        Entry::with(name, class, &[], || Box::new(S::default()), make)
    }

    /// A schedule with a constructor of its own.
    pub(super) const fn with(
        name: &'static str,
        class: &'static str,
        non_fields: &'static [&'static str],
        fields: fn() -> Box<dyn HyperParams>,
        make: Make,
    ) -> Entry {
        Entry { name, class, non_fields, fields, make }
    }

    /// All arguments of the schedule with their defaults, `None` for those that must be given.
    #[inline]
    pub(super) fn defaults(&self) -> Args {
        let mut schedule = (self.fields)();
        let mut fields = Args::of(schedule.as_mut());
        for &name in schedule.required() {
            fields.set(name, Value::None);
        }
        let of_groups = self.non_fields.iter().map(|name| ((*name).to_owned(), Value::None));
        let fields = fields.iter().filter(|(name, _)| ![LR_INIT, LAST_EPOCH].contains(name));
        of_groups.chain(fields.map(|(name, value)| (name.to_owned(), value.clone()))).collect()
    }

    /// `schedule` with its fields set from the arguments, `lr_init` and `last_epoch` from the context.
    pub(super) fn parse(
        &self,
        schedule: impl AnySchedule + 'static,
        args: Args,
        context: BuildContext,
    ) -> BuildResult {
        self.parse_any(Box::new(schedule), args, context)
    }

    #[inline]
    fn parse_any(
        &self,
        mut schedule: Box<dyn AnySchedule>,
        mut args: Args,
        context: BuildContext,
    ) -> BuildResult {
        let fields = names(schedule.as_mut());
        if fields.contains(&LR_INIT) {
            args.set(LR_INIT, context.lr);
        }
        if fields.contains(&LAST_EPOCH) {
            args.set(LAST_EPOCH, context.last_epoch);
        }
        apply(self.name, &args, schedule.as_mut(), self.non_fields)?;
        schedule.check()?;
        Ok(schedule)
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

/// The schedule of this name.
#[inline]
pub(super) fn of_name(list: &'static [Entry], name: &str) -> Result<&'static Entry, ArgError> {
    list.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let nearest = nearest(name, list.iter().map(|entry| entry.name));
        ArgError::UnknownName { kind: "schedule", name: name.to_owned(), nearest }
    })
}

/// The schedule of a reference's class or function, given with or without its module.
#[inline]
pub(super) fn of_class(list: &'static [Entry], class: &str) -> Option<&'static Entry> {
    let class = class.rsplit('.').next().unwrap_or(class);
    list.iter().find(|entry| entry.class == class)
}
