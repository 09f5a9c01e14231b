//! How sharp the golden cases are: whether they notice an argument that is off by one per cent.
//!
//! The core is run with one argument one per cent too large, or too small; a committed case should fail. [`page`]
//! lists for each optimizer the arguments for which one does, and the others: `docs/one-percent.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use rayon::prelude::*;
use serde_json::{Map, Value};

use crate::Core;
use crate::backend::{
    Backend, BackendError, Counts, GradientAnswer, GradientSpec, Inputs, OptimizerSpec, Run,
    ScheduleSpec,
};
use crate::golden::{Case, Data};
use crate::judge::bounds::Bounds;
use crate::judge::check::{Basis, Outcome};
use crate::tensor::Tensor;

/// The factors that an argument is multiplied by.
pub const FACTORS: [f64; 2] = [1.01, 0.99];

/// An argument: its name and, for a list, an index into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Argument {
    name: String,
    index: Option<usize>,
}

impl std::fmt::Display for Argument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.index {
            None => write!(f, "`{}`", self.name),
            Some(i) => write!(f, "`{}[{i}]`", self.name),
        }
    }
}

impl Argument {
    /// The learning rate, in the arguments and at each step.
    #[must_use]
    pub fn lr() -> Argument {
        Argument { name: "lr".to_owned(), index: None }
    }

    /// A scalar argument.
    #[must_use]
    pub fn named(name: &str) -> Argument {
        Argument { name: name.to_owned(), index: None }
    }

    /// The numeric arguments that are not counts: those with a decimal point, other than 0.
    fn all(hyper: &Map<String, Value>) -> BTreeSet<Argument> {
        let is_number = |x: &Value| x.is_f64() && x.as_f64() != Some(0.0);
        let mut out = BTreeSet::new();
        for (name, value) in hyper {
            let argument = |index| Argument { name: name.clone(), index };
            match value {
                Value::Array(list) => {
                    let numbers = list.iter().enumerate().filter(|(_, x)| is_number(x));
                    out.extend(numbers.map(|(i, _)| argument(Some(i))));
                }
                x if is_number(x) => {
                    out.insert(argument(None));
                }
                _ => {}
            }
        }
        out
    }

    fn scale(&self, hyper: &mut Map<String, Value>, factor: f64) {
        let value = hyper.get_mut(&self.name);
        let value = match self.index {
            None => value,
            Some(i) => value.and_then(|list| list.get_mut(i)),
        };
        if let Some(value) = value
            && let Some(x) = value.as_f64()
        {
            *value = Value::from(x * factor);
        }
    }
}

/// The core with one argument of its optimizers multiplied.
#[derive(Clone, Debug)]
pub struct Off {
    /// The argument.
    pub argument: Argument,
    /// The factor.
    pub factor: f64,
}

struct OffRun<'a> {
    inner: Box<dyn Run + 'a>,
    lr: f64,
}

impl Backend for Off {
    fn name(&self) -> &str {
        "off"
    }

    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        let scaled = |hyper: &Map<String, Value>| {
            let mut hyper = hyper.clone();
            self.argument.scale(&mut hyper, self.factor);
            hyper
        };
        let mut groups = spec.groups.to_vec();
        groups.iter_mut().for_each(|g| g.hyper = scaled(&g.hyper));
        let hyper = scaled(spec.hyper);
        let spec = OptimizerSpec { hyper: &hyper, groups: &groups, ..spec.clone() };
        let lr = if self.argument == Argument::lr() { self.factor } else { 1.0 };
        let core: &'static Core = &Core;
        Ok(Box::new(OffRun { inner: core.optimizer(&spec)?, lr }))
    }

    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        Core.schedule(spec)
    }

    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        Core.gradient(spec)
    }
}

impl Run for OffRun<'_> {
    fn load(
        &mut self,
        i: usize,
        value: &Tensor,
        state: &BTreeMap<String, Tensor>,
        counts: Counts,
    ) -> Result<(), BackendError> {
        self.inner.load(i, value, state, counts)
    }
    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError> {
        let lr = inputs.lr.map(|lr| lr * self.lr);
        self.inner.step(&Inputs { lr, ..inputs.clone() })
    }
    fn value(&self, i: usize) -> Tensor {
        self.inner.value(i)
    }
    fn state(&self, i: usize) -> BTreeMap<String, Tensor> {
        self.inner.state(i)
    }
    fn eval(&self, i: usize) -> Option<Tensor> {
        self.inner.eval(i)
    }
}

/// One optimizer's arguments: those for which some case notices one per cent, and the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Held {
    pub held: BTreeSet<Argument>,
    pub not: BTreeSet<Argument>,
}

/// Tries every argument of every optimizer that has a case.
#[must_use]
pub fn held(cases: &[Case]) -> BTreeMap<String, Held> {
    let all: Vec<Basis<'_>> = cases.iter().map(Basis::of).collect();
    let mut by_name = BTreeMap::<&str, Vec<(&Basis<'_>, BTreeSet<Argument>)>>::new();
    for basis in &all {
        let case = basis.case;
        let Data::Optimizer(data) = &case.data else { continue };
        let mut arguments: BTreeSet<_> =
            data.groups.iter().flat_map(|g| Argument::all(&g.hyper)).collect();
        if data.lr.as_ref().is_some_and(|lr| lr.iter().any(|&lr| lr != 0.0)) {
            arguments.insert(Argument::lr());
        }
        by_name.entry(&case.name).or_default().push((basis, arguments));
    }
    let size = |case: &Case| match &case.data {
        Data::Optimizer(data) => {
            case.steps * data.params.iter().map(|p| p.init.len()).sum::<usize>()
        }
        _ => 0,
    };
    by_name.values_mut().for_each(|cases| cases.sort_by_key(|(basis, _)| size(basis.case)));
    let pairs: Vec<_> = by_name
        .iter()
        .flat_map(|(&name, cases)| {
            let all: BTreeSet<_> = cases.iter().flat_map(|(_, arguments)| arguments).collect();
            all.into_iter().map(move |argument| (name, argument, cases))
        })
        .collect();
    let bounds = Bounds::default();
    let told = pairs.into_par_iter().map(|(name, argument, cases)| {
        let cases = cases.iter().filter(|(_, a)| a.contains(argument)).map(|(basis, _)| *basis);
        let cases: Vec<_> = cases.collect();
        let tried: Vec<bool> =
            FACTORS.iter().filter_map(|&f| noticed(&cases, argument, f, &bounds)).collect();
        (name, argument.clone(), !tried.is_empty() && tried.into_iter().all(|noticed| noticed))
    });
    let mut out = BTreeMap::<String, Held>::new();
    for (name, argument, noticed) in told.collect::<Vec<_>>() {
        let held = out.entry(name.to_owned()).or_default();
        if noticed { &mut held.held } else { &mut held.not }.insert(argument);
    }
    out
}

/// Whether some case fails; `None` where no case could be run, as every optimizer refuses the altered argument.
fn noticed(
    cases: &[&Basis<'_>],
    argument: &Argument,
    factor: f64,
    bounds: &Bounds,
) -> Option<bool> {
    let off = Off { argument: argument.clone(), factor };
    let mut possible = false;
    let noticed = cases.iter().any(|basis| {
        let case = basis.case;
        let Data::Optimizer(data) = &case.data else { return false };
        if off.optimizer(&OptimizerSpec::new(case, data)).is_err() {
            return false; // out of range
        }
        possible = true;
        basis.check(&off, bounds).iter().any(|r| r.outcome == Outcome::Fail)
    });
    possible.then_some(noticed)
}

/// The text of `docs/one-percent.md`.
#[must_use]
pub fn page(held: &BTreeMap<String, Held>) -> String {
    let list = |arguments: &BTreeSet<Argument>| {
        let all: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        all.join(", ")
    };
    let mut out = String::from(HEAD);
    for (name, h) in held {
        let _ = writeln!(out, "| `{name}` | {} | {} |", list(&h.held), list(&h.not));
    }
    out
}

const HEAD: &str = "\
# One per cent

Written by `cargo run --release -p bitstep-conformance -- one-percent > docs/one-percent.md`; the \
test `one_percent` compares it.

Every argument with a decimal point that a committed case sets was made one per cent larger, then \
one per cent smaller (where the optimizer takes that), and the core run with it. *Held* says that \
some case of that optimizer fails for each. What is *not told apart* changes no number of any case \
by more than its bound: an implementation that has it wrong by so little passes.

| optimizer | held to one per cent | not told apart |
| --- | --- | --- |
";
