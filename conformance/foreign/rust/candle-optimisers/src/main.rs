//! candle-optimisers as a program for the suite (`exec-loop:`), each optimizer named after the class
//! of torch that it follows. They show no state and can't be put into the middle of a run.

use std::collections::BTreeMap;

use bitstep_conformance::backend::{
    Backend, Counts, GradientAnswer, GradientSpec, Inputs, OptimizerSpec, BackendError, Run,
    ScheduleSpec,
};
use bitstep_conformance::exec;
use bitstep_conformance::tensor::{Dtype, Tensor};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor as Array, Var};
use candle_nn::Optimizer;
use candle_optimisers::adadelta::{Adadelta, ParamsAdaDelta};
use candle_optimisers::adagrad::{Adagrad, ParamsAdaGrad};
use candle_optimisers::adam::{Adam, ParamsAdam};
use candle_optimisers::adamax::{Adamax, ParamsAdaMax};
use candle_optimisers::esgd::{ParamsSGD, SGD};
use candle_optimisers::nadam::{NAdam, ParamsNAdam};
use candle_optimisers::radam::{ParamsRAdam, RAdam};
use candle_optimisers::rmsprop::{ParamsRMSprop, RMSprop};
use candle_optimisers::{Decay, Momentum};
use half::{bf16, f16};
use serde_json::{Map, Value};

fn main() -> std::io::Result<()> {
    exec::serve(&Optimisers, std::io::stdin().lock(), std::io::stdout().lock())
}

struct Optimisers;

fn unsupported<T>(why: &str) -> Result<T, BackendError> {
    Err(BackendError::Unsupported(why.to_owned()))
}

fn failed(e: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(e.to_string())
}

/// Any of them.
trait Any {
    fn step(&mut self, grads: &GradStore, lr: Option<f64>) -> candle_core::Result<()>;
}

impl<O: Optimizer> Any for O {
    fn step(&mut self, grads: &GradStore, lr: Option<f64>) -> candle_core::Result<()> {
        lr.into_iter().for_each(|lr| self.set_learning_rate(lr));
        Optimizer::step(self, grads)
    }
}

impl Backend for Optimisers {
    fn name(&self) -> &str {
        "candle-optimisers"
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
        Ok(Box::new(OptimisersRun { vars, dtypes, groups }))
    }

    fn schedule(&self, _: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        unsupported("candle-optimisers has no schedules")
    }

    fn gradient(&self, _: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        unsupported("candle-optimisers has no gradient strategies")
    }
}

fn boxed<O: Optimizer + 'static>(
    vars: Vec<Var>,
    config: O::Config,
) -> Result<Box<dyn Any>, BackendError> {
    Ok(Box::new(O::new(vars, config).map_err(failed)?))
}

fn build(name: &str, hyper: &Map<String, Value>, vars: Vec<Var>) -> Result<Box<dyn Any>, BackendError> {
    let number = |key: &str| {
        hyper.get(key).and_then(Value::as_f64).ok_or_else(|| failed(format!("no `{key}`")))
    };
    let is = |key: &str| hyper.get(key) == Some(&Value::Bool(true));
    if is("maximize") {
        return unsupported("candle-optimisers has no maximize");
    }
    let beta = |i: usize| {
        let betas = hyper.get("betas").and_then(Value::as_array);
        betas.and_then(|b| b.get(i)?.as_f64()).ok_or_else(|| failed("no `betas`"))
    };
    let lr = number("lr")?;
    let wd = Some(number("weight_decay")?).filter(|&wd| wd != 0.0);
    let decoupled = is("decoupled_weight_decay") || name == "adamw_torch";
    let weight_decay = wd
        .map(|wd| if decoupled { Decay::DecoupledWeightDecay(wd) } else { Decay::WeightDecay(wd) });
    match name {
        "adam" | "adamw_torch" => {
            let (beta_1, beta_2, eps, amsgrad) =
                (beta(0)?, beta(1)?, number("eps")?, is("amsgrad"));
            boxed::<Adam>(vars, ParamsAdam { lr, beta_1, beta_2, eps, weight_decay, amsgrad })
        }
        "nadam" => {
            let (beta_1, beta_2, eps) = (beta(0)?, beta(1)?, number("eps")?);
            let momentum_decay = number("momentum_decay")?;
            let params = ParamsNAdam { lr, beta_1, beta_2, eps, weight_decay, momentum_decay };
            boxed::<NAdam>(vars, params)
        }
        "radam" => {
            let (beta_1, beta_2, eps) = (beta(0)?, beta(1)?, number("eps")?);
            boxed::<RAdam>(vars, ParamsRAdam { lr, beta_1, beta_2, eps, weight_decay })
        }
        "adamax" => {
            let (beta_1, beta_2, eps) = (beta(0)?, beta(1)?, number("eps")?);
            boxed::<Adamax>(vars, ParamsAdaMax { lr, beta_1, beta_2, eps, weight_decay })
        }
        "adagrad" => {
            let (lr_decay, eps) = (number("lr_decay")?, number("eps")?);
            let initial_acc = number("initial_accumulator_value")?;
            boxed::<Adagrad>(vars, ParamsAdaGrad { lr, lr_decay, initial_acc, weight_decay, eps })
        }
        "adadelta" => {
            let (rho, eps) = (number("rho")?, number("eps")?);
            boxed::<Adadelta>(vars, ParamsAdaDelta { lr, rho, eps, weight_decay })
        }
        "rmsprop" => {
            let (alpha, eps, centered) = (number("alpha")?, number("eps")?, is("centered"));
            let momentum = Some(number("momentum")?).filter(|&m| m != 0.0);
            let params = ParamsRMSprop { lr, alpha, eps, weight_decay: wd, momentum, centered };
            boxed::<RMSprop>(vars, params)
        }
        "sgd" => {
            let momentum = Some(number("momentum")?).filter(|&m| m != 0.0).map(|m| {
                if is("nesterov") { Momentum::Nesterov(m) } else { Momentum::Classical(m) }
            });
            let dampening = number("dampening")?;
            boxed::<SGD>(vars, ParamsSGD { lr, momentum, weight_decay, dampening })
        }
        _ => unsupported("not among candle-optimisers"),
    }
}

fn array(t: &Tensor) -> Result<Array, BackendError> {
    let (shape, device, x) = (t.shape.as_slice(), &Device::Cpu, t.to_f64s());
    match t.dtype {
        Dtype::F64 => Array::from_vec(x, shape, device),
        Dtype::F32 => Array::from_vec(x.iter().map(|&x| x as f32).collect(), shape, device),
        Dtype::Bf16 => {
            Array::from_vec(x.iter().map(|&x| bf16::from_f64(x)).collect(), shape, device)
        }
        Dtype::F16 => Array::from_vec(x.iter().map(|&x| f16::from_f64(x)).collect(), shape, device),
        _ => return unsupported("candle has no such type"),
    }
    .map_err(failed)
}

struct OptimisersRun {
    vars: Vec<Var>,
    dtypes: Vec<Dtype>,
    groups: Vec<Box<dyn Any>>,
}

impl Run for OptimisersRun {
    fn load(
        &mut self,
        _: usize,
        _: &Tensor,
        _: &BTreeMap<String, Tensor>,
        _: Counts,
    ) -> Result<(), BackendError> {
        unsupported("candle-optimisers can't be put into the middle of a run")
    }

    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError> {
        // A store of gradients can only be had from a backward pass.
        let nothing = Array::zeros((), DType::F32, &Device::Cpu).map_err(failed)?;
        let mut grads = nothing.backward().map_err(failed)?;
        for (var, grad) in self.vars.iter().zip(&inputs.grads) {
            if let Some(grad) = grad {
                grads.insert(var, array(grad)?);
            }
        }
        for group in &mut self.groups {
            group.step(&grads, inputs.lr).map_err(failed)?;
        }
        Ok(())
    }

    fn value(&self, i: usize) -> Tensor {
        let (var, dtype) = (&self.vars[i], self.dtypes[i]);
        let numbers = || var.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>();
        let tensor = numbers().ok().and_then(|x| Tensor::round(dtype, var.dims(), &x));
        tensor.unwrap_or(Tensor { dtype, shape: Vec::new(), bytes: Vec::new() })
    }

    fn state(&self, _: usize) -> BTreeMap<String, Tensor> {
        BTreeMap::new()
    }

    fn shows_state(&self) -> bool {
        false
    }
}
