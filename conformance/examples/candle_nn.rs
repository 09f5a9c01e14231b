//! candle-nn's own AdamW and SGD as a program for the suite (`exec-loop:`), each under the name of the torch class
//! that it follows. They hide their state and can't be loaded in the middle of a run.

use std::collections::BTreeMap;

use bitstep_conformance::backend::{
    Backend, BackendError, Counts, GradientAnswer, GradientSpec, Inputs, OptimizerSpec, Run,
    ScheduleSpec,
};
use bitstep_conformance::exec;
use bitstep_conformance::tensor::{Dtype, Tensor};
use candle_core::{DType, Device, Tensor as Array, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, SGD};
use half::{bf16, f16};
use serde_json::{Map, Value};

fn main() -> std::io::Result<()> {
    exec::serve(&CandleNn, std::io::stdin().lock(), std::io::stdout().lock())
}

struct CandleNn;

fn unsupported<T>(why: &str) -> Result<T, BackendError> {
    Err(BackendError::Unsupported(why.to_owned()))
}

fn failed(e: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(e.to_string())
}

enum Kind {
    AdamW(AdamW),
    Sgd(SGD),
}

impl Backend for CandleNn {
    fn name(&self) -> &str {
        "candle-nn"
    }

    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        let vars = spec.params.iter().map(|&p| Var::from_tensor(&array(p)?).map_err(failed));
        let vars = vars.collect::<Result<Vec<_>, BackendError>>()?;
        let mut groups = Vec::new();
        for group in spec.groups {
            let own = group.params.iter().map(|&i| vars[i].clone()).collect();
            groups.push(build(spec.name, &group.hyper, own)?);
        }
        let dtypes = spec.params.iter().map(|p| p.dtype).collect();
        Ok(Box::new(CandleRun { vars, dtypes, groups }))
    }

    fn schedule(&self, _: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        unsupported("candle-nn has no schedules")
    }

    fn gradient(&self, _: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        unsupported("candle-nn has no gradient strategies")
    }
}

fn build(name: &str, hyper: &Map<String, Value>, vars: Vec<Var>) -> Result<Kind, BackendError> {
    let number = |key: &str| {
        hyper.get(key).and_then(Value::as_f64).ok_or_else(|| failed(format!("no `{key}`")))
    };
    for key in ["amsgrad", "maximize", "nesterov"] {
        if hyper.get(key) == Some(&Value::Bool(true)) {
            return unsupported(&format!("candle-nn has no {key}"));
        }
    }
    match name {
        "adamw_torch" => {
            let beta = |i: usize| {
                let betas = hyper.get("betas").and_then(Value::as_array);
                betas.and_then(|b| b.get(i)?.as_f64()).ok_or_else(|| failed("no `betas`"))
            };
            let params = ParamsAdamW {
                lr: number("lr")?,
                beta1: beta(0)?,
                beta2: beta(1)?,
                eps: number("eps")?,
                weight_decay: number("weight_decay")?,
            };
            AdamW::new(vars, params).map(Kind::AdamW).map_err(failed)
        }
        "sgd" => {
            for key in ["momentum", "weight_decay"] {
                if number(key)? != 0.0 {
                    return unsupported(&format!("candle-nn has no {key}"));
                }
            }
            SGD::new(vars, number("lr")?).map(Kind::Sgd).map_err(failed)
        }
        _ => unsupported("candle-nn has adamw_torch and sgd"),
    }
}

fn array(t: &Tensor) -> Result<Array, BackendError> {
    let (shape, device, x) = (t.shape.as_slice(), &Device::Cpu, t.to_f64s());
    // Exact: every value came from the narrower type.
    match t.dtype {
        Dtype::F64 => Array::from_vec(x, shape, device),
        Dtype::F32 => Array::from_vec(x.iter().map(|&x| x as f32).collect(), shape, device),
        Dtype::Bf16 => {
            Array::from_vec(x.iter().map(|&x| bf16::from_f64(x)).collect(), shape, device)
        }
        Dtype::F16 => Array::from_vec(x.iter().map(|&x| f16::from_f64(x)).collect(), shape, device),
        _ => return unsupported("candle-nn has no such type"),
    }
    .map_err(failed)
}

struct CandleRun {
    vars: Vec<Var>,
    dtypes: Vec<Dtype>,
    groups: Vec<Kind>,
}

impl Run for CandleRun {
    fn load(
        &mut self,
        _: usize,
        _: &Tensor,
        _: &BTreeMap<String, Tensor>,
        _: Counts,
    ) -> Result<(), BackendError> {
        unsupported("candle-nn's optimizers can't be put into the middle of a run")
    }

    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError> {
        // Only a backward pass can create a `GradStore`.
        let nothing = Array::zeros((), DType::F32, &Device::Cpu).map_err(failed)?;
        let mut grads = nothing.backward().map_err(failed)?;
        for (var, grad) in self.vars.iter().zip(&inputs.grads) {
            if let Some(grad) = grad {
                grads.insert(var, array(grad)?);
            }
        }
        for group in &mut self.groups {
            match (group, inputs.lr) {
                (Kind::AdamW(o), lr) => {
                    lr.into_iter().for_each(|lr| o.set_learning_rate(lr));
                    o.step(&grads)
                }
                (Kind::Sgd(o), lr) => {
                    lr.into_iter().for_each(|lr| o.set_learning_rate(lr));
                    o.step(&grads)
                }
            }
            .map_err(failed)?;
        }
        Ok(())
    }

    fn value(&self, i: usize) -> Tensor {
        let (var, dtype) = (&self.vars[i], self.dtypes[i]);
        let numbers = || var.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>();
        let shape = var.dims();
        // An error can't be returned here; the comparison will fail.
        let tensor = numbers().ok().and_then(|x| Tensor::round(dtype, shape, &x));
        tensor.unwrap_or(Tensor { dtype, shape: Vec::new(), bytes: Vec::new() })
    }

    fn state(&self, _: usize) -> BTreeMap<String, Tensor> {
        BTreeMap::new()
    }

    fn shows_state(&self) -> bool {
        false
    }
}
