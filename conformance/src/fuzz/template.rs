//! What runs are drawn from: for every name, the argument sets of the suite's cases.
//!
//! A case of the suite says which arguments its reference takes, under which names, and with which values it parts
//! from its neighbours. Everything else of it (parameters, gradients, state) is drawn anew.

use std::collections::{BTreeMap, BTreeSet};

use bitstep::hyper::Value as Argument;
use bitstep::registry;
use serde_json::{Map, Value};

use crate::backend::OptimizerSpec;
use crate::backend::core_backend::completed;
use crate::convert;
use crate::golden::{Case, Data, GoldenError, GradientCase, Kind, ScheduleCase};
use crate::suite::{self, CaseFilter, Suite};
use crate::tensor::Dtype;

/// The arguments of one case, and what kind of inputs it has.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    /// The path of the reference that the case records.
    pub(crate) reference: String,
    /// The versions of its packages.
    pub(crate) versions: Option<String>,
    /// All arguments, with those added that tell the core which reference to follow.
    pub(crate) hyper: Map<String, Value>,
    /// The inputs.
    pub(crate) inputs: Source,
}

/// What the inputs of a case are like.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Of an optimizer.
    Optimizer {
        /// For each group, the arguments that differ.
        overrides: Vec<Map<String, Value>>,
        /// The parameters' types, and with each its gradient's.
        dtypes: Vec<Dtype>,
        /// The names of the extra scalars.
        scalars: Vec<String>,
        /// Whether the case says which rate is in force.
        has_rate: bool,
    },
    /// Of a schedule.
    Schedule(ScheduleCase),
    /// Of a gradient strategy.
    Gradient(GradientCase),
}

/// The state that the suite's cases of a name show: for each slot, if it is a scalar, its type beside each type of
/// parameter.
pub(crate) type Slots = BTreeMap<String, BTreeMap<Dtype, Dtype>>;

/// All templates of one name.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) templates: Vec<Template>,
    /// The types of parameters that the suite has of this name.
    pub(crate) dtypes: Vec<Dtype>,
    /// The state that is shown.
    pub(crate) slots: Slots,
    /// For each reference, its default arguments as far as they are known.
    pub(crate) defaults: BTreeMap<String, Map<String, Value>>,
}

impl Pool {
    /// The default arguments of a template's reference.
    pub(crate) fn defaults(&self, of: &Template) -> Map<String, Value> {
        self.defaults.get(&of.reference).cloned().unwrap_or_default()
    }

    /// Whether the suite has cases with parameters of these types. Shrinking goes to no others: nobody says that the
    /// oracle is right there.
    pub(crate) fn has_types_of(&self, case: &Case) -> bool {
        match &case.data {
            Data::Optimizer(data) => {
                data.params.iter().all(|p| self.dtypes.contains(&p.init.dtype))
            }
            _ => true,
        }
    }
}

/// An argument of the core as JSON.
fn json(value: &Argument) -> Value {
    match value {
        Argument::None => Value::Null,
        Argument::Bool(b) => Value::Bool(*b),
        Argument::Int(i) => Value::from(*i),
        Argument::Float(x) => number(*x),
        Argument::Str(s) => Value::String(s.clone()),
        Argument::List(list) => Value::Array(list.iter().map(json).collect()),
        Argument::Map(map) => {
            Value::Object(map.iter().map(|(key, x)| (key.clone(), json(x))).collect())
        }
    }
}

/// A number, or the name of one that JSON lacks.
pub(crate) fn number(x: f64) -> Value {
    match x {
        x if x.is_nan() => Value::from("NaN"),
        f64::INFINITY => Value::from("Infinity"),
        f64::NEG_INFINITY => Value::from("-Infinity"),
        x => Value::from(x),
    }
}

fn template(case: &Case) -> Template {
    let (reference, hyper) = (case.reference.clone(), case.hyper.clone());
    let versions = case.metadata.get("versions").cloned();
    match &case.data {
        Data::Optimizer(data) => {
            let spec = OptimizerSpec { params: Vec::new(), ..OptimizerSpec::new(case, data) };
            let hyper = completed(&spec, &hyper);
            let differ = |own: &Map<String, Value>| {
                let own = own.iter().filter(|(key, x)| case.hyper.get(*key) != Some(x));
                own.map(|(key, x)| (key.clone(), x.clone())).collect()
            };
            let overrides = data.groups.iter().map(|g| differ(&g.hyper)).collect();
            let dtypes: BTreeSet<Dtype> = data.params.iter().map(|p| p.init.dtype).collect();
            let scalars = data.given.keys().cloned().collect();
            let inputs = Source::Optimizer {
                overrides,
                dtypes: dtypes.into_iter().collect(),
                scalars,
                has_rate: data.lr.is_some(),
            };
            Template { reference, versions, hyper, inputs }
        }
        Data::Schedule(data) => {
            Template { reference, versions, hyper, inputs: Source::Schedule(data.clone()) }
        }
        Data::Gradient(data) => {
            Template { reference, versions, hyper, inputs: Source::Gradient(data.clone()) }
        }
    }
}

/// The arguments that the registry has by default.
fn registered(name: &str) -> Map<String, Value> {
    let Ok(mut spec) = registry::optimizer(name, bitstep::hyper::Args::new()) else {
        return Map::new();
    };
    let all = bitstep::hyper::Args::of(spec.rule.hyper_params());
    all.iter().map(|(key, x)| (key.to_owned(), json(x))).collect()
}

/// Reads the templates of all selected names, from suites.
///
/// # Errors
/// A folder that can't be read, or has no cases.
pub(crate) fn pools(suites: &[Suite], only: &CaseFilter) -> Result<Vec<Pool>, GoldenError> {
    let mut pools = BTreeMap::<(Kind, String), Vec<Case>>::new();
    for entry in suite::read(suites, only)? {
        let case = entry.case?;
        pools.entry((case.kind, case.name.clone())).or_default().push(case);
    }
    Ok(pools.into_iter().map(|((kind, name), cases)| pool(kind, name, &cases)).collect())
}

/// The templates of one name, equal ones once.
pub(crate) fn pool(kind: Kind, name: String, cases: &[Case]) -> Pool {
    let mut templates = Vec::<Template>::new();
    let mut seen = BTreeSet::new();
    let mut dtypes = BTreeSet::new();
    let mut defaults = BTreeMap::new();
    let mut slots = Slots::new();
    for case in cases {
        if let Data::Optimizer(data) = &case.data {
            for p in &data.params {
                let rows = p.state.iter().map(|(slot, t)| (slot, t.dtype, t.shape.len() == 1));
                let first = p.state0.iter().map(|(slot, t)| (slot, t.dtype, t.shape.is_empty()));
                for (slot, dtype, is_scalar) in rows.chain(first) {
                    let types = slots.entry(slot.clone()).or_default();
                    // The type of a tensor like the parameter may be an argument; the core has it.
                    if is_scalar && !p.init.shape.is_empty() {
                        types.entry(p.init.dtype).or_insert(dtype);
                    }
                }
            }
        }
        let one = template(case);
        let stem = case.id.rsplit('/').next().unwrap_or_default();
        if stem.starts_with("default") {
            defaults.entry(one.reference.clone()).or_insert_with(|| one.hyper.clone());
        }
        let mut overrides = String::new();
        if let Source::Optimizer { overrides: own, dtypes: types, .. } = &one.inputs {
            overrides = format!("{own:?}");
            dtypes.extend(types.iter().copied());
        }
        let key = (one.reference.clone(), Value::Object(one.hyper.clone()).to_string(), overrides);
        if seen.insert(key) || kind == Kind::Gradient {
            templates.push(one);
        }
    }
    if kind == Kind::Optimizer {
        // What the suite has no default case of, and an argument that only the core knows.
        let own = registered(&name);
        for t in &templates {
            let all = defaults.entry(t.reference.clone()).or_insert_with(Map::new);
            for (key, x) in &own {
                all.entry(key.clone()).or_insert_with(|| x.clone());
            }
        }
    }
    let dtypes: Vec<Dtype> = dtypes.into_iter().filter(|&d| convert::dtype(d).is_ok()).collect();
    Pool { kind, name, templates, dtypes, slots, defaults }
}

#[cfg(test)]
mod tests {
    use super::super::edit;
    use super::*;

    #[test]
    fn types_of_a_pool_are_those_of_its_cases() {
        let only = CaseFilter::new(Some("optimizer/torchao_adam8bit/*")).unwrap();
        let case = suite::read(&[suite::committed()], &only).unwrap().remove(0).case.unwrap();
        let pool = &pools(&[suite::committed()], &only).unwrap()[0];
        let with = |dtype| edit::with_dtype(&case, dtype).unwrap();
        assert!(pool.has_types_of(&with(Dtype::F32)) && pool.has_types_of(&with(Dtype::Bf16)));
        assert!(!pool.has_types_of(&with(Dtype::F64)), "{:?}", pool.dtypes);
    }
}
