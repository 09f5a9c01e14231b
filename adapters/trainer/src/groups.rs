//! Trainer's parameter groups.

use regex::Regex;

use crate::arguments::{Arguments, Targets, TrainingError};
use crate::layers::Parameter;
use crate::training_arguments::GroupKind;

/// Trainer's groups in its order, with the indices of their parameters.
pub(crate) fn groups(
    args: &Arguments,
    parameters: &[Parameter],
) -> Result<Vec<(GroupKind, Vec<usize>)>, TrainingError> {
    let split = |is_first: &dyn Fn(&Parameter) -> bool| {
        (0..parameters.len()).partition::<Vec<usize>, _>(|&i| is_first(&parameters[i]))
    };
    if !args.training.needs_target_modules() {
        let (decay, rest) = split(&|p| p.has_weight_decay(args.training.version));
        return Ok(vec![(GroupKind::Decay, decay), (GroupKind::NoDecay, rest)]);
    }
    let none =
        |targets: String| TrainingError::Targets { optim: args.training.optim.clone(), targets };
    let Some(targets) = &args.optim_target_modules else { return Err(none("none".to_owned())) };
    let fits = Fits::new(targets)?;
    let (target, rest) = split(&|p| p.is_linear() && fits.layer(&p.name));
    if target.is_empty() {
        return Err(none(format!("{targets:?}")));
    }
    Ok(vec![(GroupKind::NoDecay, rest), (GroupKind::Target, target)])
}

/// `optim_target_modules`, compiled for matching names.
struct Fits<'a> {
    all: bool,
    parts: &'a [String],
    patterns: Vec<Regex>,
}

impl<'a> Fits<'a> {
    fn new(targets: &'a Targets) -> Result<Fits<'a>, regex::Error> {
        // Python's `fullmatch`.
        let whole = |p: &String| Regex::new(&format!("^(?:{p})$"));
        Ok(match targets {
            Targets::AllLinear => Fits { all: true, parts: &[], patterns: Vec::new() },
            Targets::Pattern(p) => Fits { all: false, parts: &[], patterns: vec![whole(p)?] },
            Targets::List(list) => {
                let patterns = list.iter().map(whole).collect::<Result<_, _>>()?;
                Fits { all: false, parts: list, patterns }
            }
        })
    }

    fn layer(&self, parameter: &str) -> bool {
        let layer = parameter.strip_suffix(".weight").unwrap_or(parameter);
        self.all
            || self.parts.iter().any(|part| layer.contains(part.as_str()))
            || self.patterns.iter().any(|p| p.is_match(layer))
    }
}
