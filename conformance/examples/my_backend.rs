//! A backend of your own, to be copied: SGD with momentum, and clipping by value.
//!
//! `cargo run --release -p bitstep-conformance --example my_backend [GLOB]` checks it against the
//! committed vectors. Elsewhere, depend on `bitstep-conformance` and put your code in the marked places.

use std::collections::BTreeMap;
use std::error::Error;

use bitstep_conformance::backend::{
    Backend, BackendError, Counts, GradientAnswer, GradientSpec, Inputs, OptimizerSpec, Run,
    ScheduleSpec,
};
use bitstep_conformance::judge::bounds::Bounds;
use bitstep_conformance::judge::check::Outcome;
use bitstep_conformance::report;
use bitstep_conformance::suite::{self, CaseFilter};
use bitstep_conformance::tensor::{Dtype, Tensor};
use serde_json::{Map, Value};

struct Mine;

fn unsupported<T>(why: &str) -> Result<T, BackendError> {
    Err(BackendError::Unsupported(why.to_owned()))
}

impl Backend for Mine {
    fn name(&self) -> &str {
        "mine"
    }

    // Arguments have the reference's names and are always present, defaults included. Refuse what you don't support,
    // with a reason: a wrong answer fails, a refusal is counted.
    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        if spec.name != "sgd" {
            return unsupported("only sgd");
        }
        let mut params: Vec<Param> = spec.params.iter().map(|&p| Param::new(p)).collect();
        for group in spec.groups {
            for &i in &group.params {
                params[i].arguments = Arguments::new(&group.hyper)?;
            }
        }
        if params.iter().any(|p| p.dtype != Dtype::F32) {
            return unsupported("only f32");
        }
        Ok(Box::new(MyRun(params)))
    }

    fn schedule(&self, _: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        unsupported("no schedules")
    }

    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        let limit = spec.hyper.get("clip_value").and_then(Value::as_f64);
        let Some(limit) = limit.filter(|_| spec.name == "clip_grad_value") else {
            return unsupported("only clip_grad_value");
        };
        let clip = |g: &&Tensor| {
            let limit = Tensor::round(g.dtype, &[], &[limit])?.get(0);
            // Keeps NaN.
            let one = |x: f64| {
                if x > limit {
                    limit
                } else if x < -limit {
                    -limit
                } else {
                    x
                }
            };
            let clipped: Vec<f64> = g.to_f64s().into_iter().map(one).collect();
            Tensor::round(g.dtype, &g.shape, &clipped)
        };
        let outputs: Option<Vec<Tensor>> = spec.inputs.iter().map(clip).collect();
        let Some(outputs) = outputs else { return unsupported("only floating point") };
        Ok(GradientAnswer { outputs, norm: None })
    }
}

#[derive(Clone, Copy, Default)]
struct Arguments {
    lr: f32,
    momentum: f32,
    gain: f32,
    decay: f32,
    nesterov: bool,
    sign: f32,
}

impl Arguments {
    fn new(hyper: &Map<String, Value>) -> Result<Arguments, BackendError> {
        let number = |key: &str| {
            let found = hyper.get(key).and_then(Value::as_f64);
            found.ok_or_else(|| BackendError::Failed(format!("no number `{key}`")))
        };
        let is = |key: &str| hyper.get(key) == Some(&Value::Bool(true));
        Ok(Arguments {
            lr: number("lr")? as f32,
            momentum: number("momentum")? as f32,
            gain: (1.0 - number("dampening")?) as f32,
            decay: number("weight_decay")? as f32,
            nesterov: is("nesterov"),
            sign: if is("maximize") { -1.0 } else { 1.0 },
        })
    }
}

/// Yours: a parameter in your code's representation.
struct Param {
    dtype: Dtype,
    shape: Vec<usize>,
    arguments: Arguments,
    value: Vec<f32>,
    buffer: Option<Vec<f32>>,
}

fn f32s(t: &Tensor) -> Vec<f32> {
    t.to_f64s().into_iter().map(|x| x as f32).collect()
}

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Tensor { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
}

impl Param {
    fn new(p: &Tensor) -> Param {
        let (dtype, shape) = (p.dtype, p.shape.clone());
        Param { dtype, shape, arguments: Arguments::default(), value: f32s(p), buffer: None }
    }

    /// Yours: the step.
    fn step(&mut self, grad: &[f32], lr: f32) {
        let Arguments { momentum, gain, decay, nesterov, sign, .. } = self.arguments;
        let grads = || {
            grad.iter()
                .zip(&self.value)
                .map(|(g, p)| if decay == 0.0 { sign * g } else { sign * g + decay * p })
        };
        let mut move_by: Vec<f32> = grads().collect();
        if momentum != 0.0 {
            let buffer = match &self.buffer {
                None => move_by.clone(),
                Some(b) => b.iter().zip(&move_by).map(|(b, g)| b * momentum + gain * g).collect(),
            };
            if nesterov {
                move_by.iter_mut().zip(&buffer).for_each(|(g, b)| *g += momentum * b);
            } else {
                move_by.clone_from(&buffer);
            }
            self.buffer = Some(buffer);
        }
        self.value.iter_mut().zip(&move_by).for_each(|(p, u)| *p -= lr * u);
    }
}

struct MyRun(Vec<Param>);

impl Run for MyRun {
    // Called before a step that starts in the middle of a run. If the case lacks state that your rule needs, name it in
    // `BackendError::NeedsState`.
    fn load(
        &mut self,
        i: usize,
        value: &Tensor,
        state: &BTreeMap<String, Tensor>,
        counts: Counts,
    ) -> Result<(), BackendError> {
        let p = &mut self.0[i];
        p.value = f32s(value);
        p.buffer = state.get("momentum_buffer").map(f32s);
        if p.arguments.momentum != 0.0 && counts.updates > 0 && p.buffer.is_none() {
            return Err(BackendError::NeedsState("momentum_buffer".to_owned()));
        }
        Ok(())
    }

    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError> {
        for (p, grad) in self.0.iter_mut().zip(&inputs.grads) {
            let lr = inputs.lr.map_or(p.arguments.lr, |lr| lr as f32);
            if let Some(grad) = grad {
                p.step(&f32s(grad), lr);
            }
        }
        Ok(())
    }

    fn value(&self, i: usize) -> Tensor {
        tensor(&self.0[i].shape, &self.0[i].value)
    }

    // Under the reference's keys. A backend that hides its state says so in `shows_state`.
    fn state(&self, i: usize) -> BTreeMap<String, Tensor> {
        let p = &self.0[i];
        let buffer = p.buffer.iter();
        buffer.map(|b| ("momentum_buffer".to_owned(), tensor(&p.shape, b))).collect()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let glob = std::env::args().nth(1).unwrap_or_else(|| "{sgd,clip_grad_value}".to_owned());
    let entries = suite::read(&[suite::committed()], &CaseFilter::new(Some(&glob))?)?;
    let reports = suite::run(&entries, &[Box::new(Mine)], &Bounds::default(), || {});
    print!("{}", report::table(&reports));
    for r in reports.iter().filter(|r| matches!(r.outcome, Outcome::Fail | Outcome::Error)) {
        println!("\n{}: {} {}: {}", r.outcome.name(), r.case, r.mode.name(), r.detail);
    }
    println!("\n{}", report::verdict(&reports)?);
    Ok(())
}
