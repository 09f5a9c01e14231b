//! The tensors of an `optimizer` case.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Problem;
use super::tensors::{Tensors, check_dtype, check_shape, no_nan, series};
use crate::tensor::Tensor;

/// Parameters, gradients and state over all steps.
#[derive(Clone, Debug)]
pub struct OptimizerCase {
    /// In the order of the reference's constructor argument.
    pub params: Vec<ParamCase>,
    /// Parameter groups; every parameter is in exactly one.
    pub groups: Vec<Group>,
    /// The learning rate in force at each step; `None`: the one of the arguments throughout.
    pub lr: Option<Vec<f64>>,
    /// Extra scalar inputs (`given.…`), one value per step.
    pub given: BTreeMap<String, Vec<f64>>,
}

/// Parameters that share their arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Their indices.
    pub params: Vec<usize>,
    /// All constructor arguments that hold for them.
    pub hyper: Map<String, Value>,
}

/// One parameter.
#[derive(Clone, Debug)]
pub struct ParamCase {
    /// Its value before the first step.
    pub init: Tensor,
    /// The gradients, T rows.
    pub grad: Tensor,
    /// Whether it had a gradient, for each step.
    pub has_grad: Vec<bool>,
    /// Its value after each step, T rows.
    pub value: Tensor,
    /// Its slots after each step, T rows each.
    pub state: BTreeMap<String, Tensor>,
    /// The state before the first step, for runs that do not start from scratch.
    pub state0: BTreeMap<String, Tensor>,
    /// Its evaluation value after the last step.
    pub eval: Option<Tensor>,
    /// Tensors that the reference drew at random or decomposed (`p{i}.given.…`).
    pub given: BTreeMap<String, Given>,
}

/// A tensor that the case supplies: noise, a projector.
#[derive(Clone, Debug)]
pub enum Given {
    /// One row per step.
    Steps(Tensor),
    /// One row per refresh, and the steps at which the rows came into force.
    Refreshes(Tensor, Vec<usize>),
    /// One value for all steps.
    Constant(Tensor),
}

impl Given {
    /// The tensor in force at step `t`, and whether it came into force at that step.
    #[must_use]
    pub fn at(&self, t: usize) -> Option<(Tensor, bool)> {
        match self {
            Given::Steps(rows) => Some((rows.row(t), true)),
            Given::Refreshes(rows, at) => {
                let last = at.iter().rposition(|&a| a <= t)?;
                Some((rows.row(last), at[last] == t))
            }
            Given::Constant(x) => Some((x.clone(), t == 0)),
        }
    }
}

impl ParamCase {
    /// The parameter before step `t`.
    #[must_use]
    pub fn value_before(&self, t: usize) -> Tensor {
        if t == 0 { self.init.clone() } else { self.value.row(t - 1) }
    }

    /// The slots before step `t`; empty if the optimizer has not created them yet.
    #[must_use]
    pub fn state_before(&self, t: usize) -> BTreeMap<String, Tensor> {
        if t == 0 {
            return self.state0.clone();
        }
        // Rows before a parameter's first gradient may be filled with NaN.
        let joined = !self.state0.is_empty() || self.updates_before(t) > 0;
        let rows = self.state.iter().map(|(slot, rows)| (slot.clone(), rows.row(t - 1)));
        rows.filter(|(_, row)| joined || !row.has_nan()).collect()
    }

    /// The number of gradients before step `t`.
    #[must_use]
    pub fn updates_before(&self, t: usize) -> usize {
        self.has_grad.iter().take(t).filter(|&&g| g).count()
    }
}

pub(super) fn read(
    tensors: &mut Tensors,
    steps: usize,
    hyper: &Map<String, Value>,
    groups: Option<Value>,
) -> Result<OptimizerCase, Problem> {
    let count = tensors.numbered('p', "init")?;
    let params =
        (0..count).map(|i| param(tensors, i, steps)).collect::<Result<Vec<_>, Problem>>()?;
    let lr = tensors.optional("lr").map(|lr| series("lr", lr, steps)).transpose()?;
    if let Some(lr) = &lr {
        no_nan("lr", lr)?;
    }
    let given = tensors.with_prefix("given.").into_iter().map(|(what, t)| {
        let series = series(&format!("given.{what}"), t, steps)?;
        Ok((what, series))
    });
    let given = given.collect::<Result<_, Problem>>()?;
    Ok(OptimizerCase { params, groups: read_groups(hyper, groups, count)?, lr, given })
}

fn param(tensors: &mut Tensors, i: usize, steps: usize) -> Result<ParamCase, Problem> {
    let name = |what: &str| format!("p{i}.{what}");
    let rows = |s: &[usize]| [&[steps], s].concat();

    let init = tensors.required(&name("init"))?;
    check_dtype(&name("init"), init.dtype, init.dtype.float().is_some(), "a floating-point type")?;
    let grad = tensors.required(&name("grad"))?;
    check_dtype(&name("grad"), grad.dtype, grad.dtype.float().is_some(), "a floating-point type")?;
    check_shape(&name("grad"), &grad, &rows(&init.shape))?;
    let value = tensors.required(&name("value"))?;
    check_dtype(&name("value"), value.dtype, value.dtype == init.dtype, init.dtype.name())?;
    check_shape(&name("value"), &value, &rows(&init.shape))?;

    let has_grad = match tensors.optional(&name("has_grad")) {
        None => vec![true; steps],
        Some(t) => {
            let whole = t.dtype.float().is_none();
            check_dtype(&name("has_grad"), t.dtype, whole, "u8")?;
            check_shape(&name("has_grad"), &t, &[steps])?;
            one_by_one(&name("has_grad"), &t, "0 or 1", |x, _| x == 0.0 || x == 1.0)?;
            t.to_f64s().iter().map(|&x| x == 1.0).collect()
        }
    };
    let eval = tensors.optional(&name("eval"));
    if let Some(eval) = &eval {
        check_dtype(&name("eval"), eval.dtype, eval.dtype == init.dtype, init.dtype.name())?;
        check_shape(&name("eval"), eval, &init.shape)?;
    }

    let state = tensors.with_prefix(&name("state."));
    for (slot, t) in &state {
        if t.shape.first() != Some(&steps) {
            let (tensor, got) = (name(&format!("state.{slot}")), t.shape.clone());
            return Err(Problem::Dimensions { tensor, got, expected: format!("{steps} × …") });
        }
    }
    let state0 = tensors.with_prefix(&name("state0."));
    for (slot, t) in &state0 {
        if let Some(rows) = state.get(slot) {
            check_shape(&name(&format!("state0.{slot}")), t, &rows.shape[1..])?;
        }
    }

    let refresh_at = match tensors.optional(&name("refresh_at")) {
        None => None,
        Some(t) => {
            let tensor = name("refresh_at");
            if t.shape.len() != 1 {
                let expected = "one dimension".to_owned();
                return Err(Problem::Dimensions { tensor, got: t.shape, expected });
            }
            let expected = format!("ascending steps below {steps}");
            let fits = |x: f64, before: Option<f64>| {
                x.fract() == 0.0 && (0.0..steps as f64).contains(&x) && before.is_none_or(|b| b < x)
            };
            one_by_one(&tensor, &t, &expected, fits)?;
            Some(t.to_f64s().iter().map(|&x| x as usize).collect::<Vec<_>>())
        }
    };
    let given = tensors.with_prefix(&name("given.")).into_iter().map(|(what, t)| {
        let rows = t.shape.first().copied();
        let given = match &refresh_at {
            Some(at) if rows == Some(at.len()) => Given::Refreshes(t, at.clone()),
            _ if rows == Some(steps) => Given::Steps(t),
            None => Given::Constant(t),
            Some(at) => {
                let (tensor, expected) =
                    (name(&format!("given.{what}")), format!("{steps} × … or {} × …", at.len()));
                return Err(Problem::Dimensions { tensor, got: t.shape, expected });
            }
        };
        Ok((what, given))
    });
    let given = given.collect::<Result<_, _>>()?;
    Ok(ParamCase { init, grad, has_grad, value, state, state0, eval, given })
}

/// Checks every element, given the one before it.
fn one_by_one(
    name: &str,
    tensor: &Tensor,
    expected: &str,
    fits: impl Fn(f64, Option<f64>) -> bool,
) -> Result<(), Problem> {
    let mut before = None;
    for (index, value) in tensor.to_f64s().into_iter().enumerate() {
        if !fits(value, before) {
            let (tensor, expected) = (name.to_owned(), expected.to_owned());
            return Err(Problem::Value { tensor, index, value, expected });
        }
        before = Some(value);
    }
    Ok(())
}

fn read_groups(
    hyper: &Map<String, Value>,
    groups: Option<Value>,
    count: usize,
) -> Result<Vec<Group>, Problem> {
    let bad =
        |value: &Value, expected: &str| Problem::key("hyper.groups", &value.to_string(), expected);
    let groups = match groups {
        None | Some(Value::Null) => {
            return Ok(vec![Group { params: (0..count).collect(), hyper: hyper.clone() }]);
        }
        Some(Value::Array(groups)) => groups,
        Some(other) => return Err(bad(&other, "a list of objects")),
    };
    let mut seen = vec![false; count];
    let mut out = Vec::new();
    for group in &groups {
        let Value::Object(own) = group else { return Err(bad(group, "a list of objects")) };
        let Some(Value::Array(params)) = own.get("params") else {
            return Err(bad(group, "`params` in every group"));
        };
        let mut numbers = Vec::new();
        for number in params {
            let i = number.as_u64().and_then(|i| usize::try_from(i).ok());
            let Some((i, seen)) = i.and_then(|i| seen.get_mut(i).map(|s| (i, s))) else {
                return Err(bad(group, &format!("numbers of parameters, below {count}")));
            };
            if std::mem::replace(seen, true) {
                return Err(bad(group, "every parameter in one group only"));
            }
            numbers.push(i);
        }
        let mut all = hyper.clone();
        let own = own.iter().filter(|(key, _)| *key != "params");
        all.extend(own.map(|(key, value)| (key.clone(), value.clone())));
        out.push(Group { params: numbers, hyper: all });
    }
    if let Some(i) = seen.iter().position(|s| !s) {
        return Err(bad(&Value::Array(groups), &format!("a group for parameter {i}")));
    }
    Ok(out)
}
