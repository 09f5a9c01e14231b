//! burn-optim's AdamW, Adam and SGD as a program for the suite (`exec-loop:`), each named after the
//! class of torch that it follows. Elements of a tensor don't act on each other: all are flat here.

use std::collections::BTreeMap;

use bitstep_conformance::backend::{
    Backend, Counts, GradientAnswer, GradientSpec, Inputs, OptimizerSpec, BackendError, Run,
    ScheduleSpec,
};
use bitstep_conformance::exec;
use bitstep_conformance::tensor::{Dtype, Tensor};
use burn_core::tensor::{DType, Device, Tensor as Array, TensorData};
use burn_optim::decay::WeightDecayConfig;
use burn_optim::momentum::MomentumConfig;
use burn_optim::{
    AdamConfig, AdamState, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer, SgdConfig,
};
use serde_json::{Map, Value};

fn main() -> std::io::Result<()> {
    exec::serve(&Burn, std::io::stdin().lock(), std::io::stdout().lock())
}

struct Burn;

fn unsupported<T>(why: &str) -> Result<T, BackendError> {
    Err(BackendError::Unsupported(why.to_owned()))
}

fn failed(e: impl std::fmt::Debug) -> BackendError {
    BackendError::Failed(format!("{e:?}"))
}

enum Rule {
    AdamW(burn_optim::AdamW, Option<AdamWState<1>>),
    Adam(burn_optim::Adam, Option<AdamState<1>>),
    /// And whether it has momentum.
    Sgd(burn_optim::Sgd, Option<burn_optim::SgdState<1>>, bool),
}

struct Param {
    dtype: Dtype,
    shape: Vec<usize>,
    value: Array<1>,
    lr: f64,
    rule: Rule,
}

impl Backend for Burn {
    fn name(&self) -> &str {
        "burn"
    }

    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        let mut params = Vec::new();
        for (i, p) in spec.params.iter().enumerate() {
            let group = spec.groups.iter().find(|g| g.params.contains(&i));
            let hyper = &group.ok_or_else(|| failed("no group"))?.hyper;
            params.push(Param {
                dtype: p.dtype,
                shape: p.shape.clone(),
                value: array(p)?,
                lr: number(hyper, "lr")?,
                rule: rule(spec.name, hyper)?,
            });
        }
        Ok(Box::new(BurnRun(params)))
    }

    fn schedule(&self, _: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        unsupported("not tried")
    }

    fn gradient(&self, _: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        unsupported("not tried")
    }
}

fn number(hyper: &Map<String, Value>, key: &str) -> Result<f64, BackendError> {
    let found = hyper.get(key).and_then(Value::as_f64);
    found.ok_or_else(|| failed(format!("no number `{key}`")))
}

fn rule(name: &str, hyper: &Map<String, Value>) -> Result<Rule, BackendError> {
    let is = |key: &str| hyper.get(key) == Some(&Value::Bool(true));
    for key in ["maximize", "decoupled_weight_decay"] {
        if is(key) {
            return unsupported(&format!("burn has no {key}"));
        }
    }
    let beta = |i: usize| {
        let betas = hyper.get("betas").and_then(Value::as_array);
        betas.and_then(|b| b.get(i)?.as_f64()).ok_or_else(|| failed("no `betas`"))
    };
    let decay = number(hyper, "weight_decay")?;
    let coupled = (decay != 0.0).then(|| WeightDecayConfig::new(decay as f32));
    Ok(match name {
        "adamw_torch" => {
            let config = AdamWConfig::new()
                .with_beta_1(beta(0)? as f32)
                .with_beta_2(beta(1)? as f32)
                .with_epsilon(number(hyper, "eps")? as f32)
                .with_weight_decay(decay as f32)
                .with_amsgrad(is("amsgrad"));
            Rule::AdamW(config.build(), None)
        }
        "adam" => {
            let config = AdamConfig::new()
                .with_beta_1(beta(0)? as f32)
                .with_beta_2(beta(1)? as f32)
                .with_epsilon(number(hyper, "eps")? as f32)
                .with_weight_decay(coupled)
                .with_amsgrad(is("amsgrad"));
            Rule::Adam(config.build(), None)
        }
        "sgd" => {
            let momentum = number(hyper, "momentum")?;
            let has_momentum = momentum != 0.0;
            let momentum = has_momentum.then(|| {
                let dampening = number(hyper, "dampening").unwrap_or(0.0);
                MomentumConfig::new()
                    .with_momentum(momentum)
                    .with_dampening(dampening)
                    .with_nesterov(is("nesterov"))
            });
            let config = SgdConfig::new().with_weight_decay(coupled).with_momentum(momentum);
            Rule::Sgd(config.build(), None, has_momentum)
        }
        _ => return unsupported("only adamw_torch, adam and sgd were tried"),
    })
}

fn array(t: &Tensor) -> Result<Array<1>, BackendError> {
    let x = t.to_f64s();
    let (n, device) = (x.len(), Device::flex());
    match t.dtype {
        Dtype::F64 => Ok(Array::from_data(TensorData::new(x, [n]), (&device, DType::F64))),
        Dtype::F32 => {
            let x: Vec<f32> = x.into_iter().map(|x| x as f32).collect();
            Ok(Array::from_data(TensorData::new(x, [n]), (&device, DType::F32)))
        }
        _ => unsupported("only f32 and f64 were tried"),
    }
}

fn tensor(x: &Array<1>, dtype: Dtype, shape: &[usize]) -> Tensor {
    let values: Vec<f64> = x.to_data().iter::<f64>().collect();
    let empty = Tensor { dtype, shape: Vec::new(), bytes: Vec::new() };
    Tensor::round(dtype, shape, &values).unwrap_or(empty)
}

struct BurnRun(Vec<Param>);

impl Run for BurnRun {
    fn load(
        &mut self,
        i: usize,
        value: &Tensor,
        state: &BTreeMap<String, Tensor>,
        counts: Counts,
    ) -> Result<(), BackendError> {
        let p = &mut self.0[i];
        p.value = array(value)?;
        let moments = || {
            let slot = |key: &str| state.get(key).map(array).transpose();
            let need = |key: &str| slot(key)?.ok_or_else(|| BackendError::NeedsState(key.to_owned()));
            let step = state.get("step").ok_or_else(|| BackendError::NeedsState("step".to_owned()))?;
            Ok(AdaptiveMomentumState {
                time: step.get(0) as usize,
                moment_1: need("exp_avg")?,
                moment_2: need("exp_avg_sq")?,
                max_moment_2: slot("max_exp_avg_sq")?,
            })
        };
        match &mut p.rule {
            Rule::AdamW(_, own) if counts.updates > 0 || !state.is_empty() => {
                *own = Some(AdamWState::new(moments()?));
            }
            Rule::Adam(_, own) if counts.updates > 0 || !state.is_empty() => {
                *own = Some(AdamState::new(moments()?));
            }
            Rule::Sgd(_, own, has_momentum) => match state.get("momentum_buffer") {
                Some(buffer) => {
                    let state = burn_optim::momentum::MomentumState::new(array(buffer)?);
                    *own = Some(burn_optim::SgdState::new(Some(state)));
                }
                None if *has_momentum && counts.updates > 0 => {
                    return Err(BackendError::NeedsState("momentum_buffer".to_owned()));
                }
                None => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError> {
        for (p, grad) in self.0.iter_mut().zip(&inputs.grads) {
            let Some(grad) = grad else { continue };
            let (lr, value, grad) = (inputs.lr.unwrap_or(p.lr), p.value.clone(), array(grad)?);
            p.value = match &mut p.rule {
                Rule::AdamW(rule, state) => {
                    let (value, next) = rule.step(lr, value, grad, state.take());
                    *state = next;
                    value
                }
                Rule::Adam(rule, state) => {
                    let (value, next) = rule.step(lr, value, grad, state.take());
                    *state = next;
                    value
                }
                Rule::Sgd(rule, state, _) => {
                    let (value, next) = rule.step(lr, value, grad, state.take());
                    *state = next;
                    value
                }
            };
        }
        Ok(())
    }

    fn value(&self, i: usize) -> Tensor {
        let p = &self.0[i];
        tensor(&p.value, p.dtype, &p.shape)
    }

    fn state(&self, _: usize) -> BTreeMap<String, Tensor> {
        BTreeMap::new()
    }

    // SGD's can't be seen; the moments of the others show in the values.
    fn shows_state(&self) -> bool {
        false
    }
}
