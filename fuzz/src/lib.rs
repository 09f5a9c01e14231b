//! Properties of every rule, storage and schedule, each written once, and generators of their inputs.
//!
//! A [`Trial`] is a run of one optimizer on arbitrary input: any bits, any length, any options. A
//! property takes a trial and panics where it does not hold; [`PROPERTIES`] lists them. Trials are decoded from
//! plain bytes, so the same code serves proptest on stable Rust (`cargo test -p bitstep-fuzz`), libFuzzer on nightly
//! (`fuzz/run`), and replays of earlier findings (`fuzz/cases`). No expected values are here: those are in
//! `conformance/golden`.

mod bits;
mod codec;
mod edges;
mod goldens;
mod input;
mod parsers;
mod pickles;
mod properties;
mod run;
mod schedules;

pub use bits::{bits, buffer, eq_ignoring_zero_sign, numbers};
pub use codec::codecs;
pub use edges::edge_case_table;
pub use goldens::{goldens, is_golden};
pub use input::{FORMATS, WEIGHTS, any_trial, named, trial};
pub use parsers::{answers, arguments, checkpoints, resumed};
pub use pickles::pickle_seeds;
pub use properties::{
    NOT_ODD, PROPERTIES, Property, deterministic, error_leaves_everything_untouched,
    gradient_scale_invariant, linear, never_panics, odd_symmetry, restorable,
    second_moments_nonnegative, splittable, y_between_x_and_z,
};
pub use run::{EXTRA_ARGS, Run, Trial};
pub use schedules::{SCHEDULE_PROPERTIES, ScheduleTrial, Scheduled, library_schedule, schedules};

/// A fuzz target: takes any bytes, and panics if a property is violated.
pub type Target = fn(&[u8]);

/// The fuzz targets, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("rules", rules),
    ("schedules", schedules),
    ("codecs", codecs),
    ("goldens", goldens),
    ("checkpoints", checkpoints),
    ("arguments", arguments),
    ("answers", answers),
    ("resumed", resumed),
];

/// Checks a property of a rule. An input begins with a line that names the property and one that names the optimizer,
/// or with bytes that choose them.
///
/// # Panics
/// If it does not hold.
pub fn rules(data: &[u8]) {
    let mut u = arbitrary::Unstructured::new(data);
    let names: Vec<&'static str> = PROPERTIES.iter().map(|(name, _)| *name).collect();
    let Ok(name) = named(&mut u, &names) else { return };
    let property = PROPERTIES.iter().find(|(known, _)| *known == name);
    if let (Some((_, property)), Ok(trial)) = (property, any_trial(&mut u)) {
        property(&trial);
    }
}
