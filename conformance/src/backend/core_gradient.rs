//! The gradient strategies of the backend `core`, built from a case's arguments.

use bitstep::gradient::{
    ClipByGlobalNorm, ClipGradNorm, GradientAccumulator, Neftune, clip_grad_value,
};
use bitstep::hyper::{Args, Value};
use bitstep::optimizer::Buffer;

use crate::backend::{BackendError, GradientAnswer, GradientSpec, failed};
use crate::convert::{self, args, views};
use crate::tensor::Tensor;

pub(crate) fn answer(spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
    let hyper = args(spec.hyper);
    let number = |name: &str| hyper.get(name).and_then(|v| v.as_f64());
    let flag = |name: &str| hyper.get(name).and_then(|v| v.as_bool());
    let lacks = |name: &str| failed(format!("`hyper` has no number `{name}`"));
    let inputs = spec.inputs.iter().map(|t| convert::buffer(t));
    let mut grads = inputs.collect::<Result<Vec<_>, BackendError>>()?;
    let shapes = spec.inputs.iter().map(|t| t.shape.clone()).collect();
    no_groups(&hyper)?;

    match spec.name {
        "clip_grad_norm" => {
            let norm = if let Some(clip_norm) = number("clip_norm") {
                ClipByGlobalNorm { clip_norm }.clip(&mut views(&mut grads))
            } else {
                norm_clip(&hyper)?.clip(&mut views(&mut grads))
            };
            let norm = Some(norm.map_err(failed)?);
            Ok(GradientAnswer { norm, ..answer_of(&grads, shapes) })
        }
        "clip_grad_value" => {
            let limit = match (number("clip_value"), number("clip_value_min")) {
                (Some(limit), _) => limit,
                (None, Some(min)) if number("clip_value_max") == Some(-min) => -min,
                (None, Some(_)) => {
                    return Err(BackendError::Unsupported("core has symmetric limits only".into()));
                }
                (None, None) => return Err(lacks("clip_value")),
            };
            clip_grad_value(&mut views(&mut grads), limit).map_err(failed)?;
            Ok(answer_of(&grads, shapes))
        }
        "accumulate" => {
            let window = match hyper.get("gradient_accumulation_steps") {
                None => None,
                Some(steps) => {
                    let whole = steps.as_i64().and_then(|steps| u64::try_from(steps).ok());
                    let wrong = "`gradient_accumulation_steps` is no number of micro-batches";
                    Some(whole.ok_or_else(|| failed(wrong))?)
                }
            };
            let is_mean = hyper.get("reduction").and_then(|v| v.as_str()) == Some("mean");
            accumulate(spec, window, is_mean)
        }
        "neftune" => {
            if flag("training") != Some(false) {
                let alpha = number("neftune_noise_alpha").or_else(|| number("alpha"));
                let alpha = alpha.ok_or_else(|| lacks("neftune_noise_alpha"))?;
                for ((input, given), grad) in spec.inputs.iter().zip(&spec.given).zip(&mut grads) {
                    neftune(alpha, input, given.get("unit"), given.get("noise"), grad)?;
                }
            }
            Ok(answer_of(&grads, shapes))
        }
        other => {
            Err(BackendError::Unsupported(format!("core has no gradient strategy `{other}` yet")))
        }
    }
}

/// Refuses groups that override arguments: no gradient strategy has any.
pub(crate) fn no_groups(hyper: &Args) -> Result<(), BackendError> {
    let Some(groups) = hyper.get("groups").filter(|&groups| *groups != Value::None) else {
        return Ok(());
    };
    let plain =
        |group: &Value| matches!(group, Value::Map(m) if m.iter().all(|(k, _)| k == "params"));
    match groups.as_list().is_some_and(|groups| groups.iter().all(plain)) {
        true => Ok(()),
        false => Err(failed(format!(
            "`hyper.groups` is {groups}: gradients have no groups with arguments of their own"
        ))),
    }
}

/// `clip_grad_norm_` with a case's arguments.
pub(crate) fn norm_clip(hyper: &Args) -> Result<ClipGradNorm, BackendError> {
    let number = |name: &str| hyper.get(name).and_then(|v| v.as_f64());
    let flag = hyper.get("error_if_nonfinite").and_then(|v| v.as_bool());
    Ok(ClipGradNorm {
        max_norm: number("max_norm").ok_or_else(|| failed("`hyper` has no number `max_norm`"))?,
        norm_type: number("norm_type").unwrap_or(ClipGradNorm::default().norm_type),
        error_if_nonfinite: flag.unwrap_or(false),
    })
}

fn answer_of(grads: &[Buffer], shapes: Vec<Vec<usize>>) -> GradientAnswer {
    let outputs = grads.iter().zip(shapes).map(|(g, s)| convert::tensor(g, &s)).collect();
    GradientAnswer { outputs, norm: None }
}

fn accumulate(
    spec: &GradientSpec<'_>,
    window: Option<u64>,
    mean: bool,
) -> Result<GradientAnswer, BackendError> {
    let mut outputs = Vec::new();
    for input in &spec.inputs {
        let rows = input.shape.first().copied().unwrap_or(0);
        let window = window.unwrap_or(rows as u64);
        let new = if mean { GradientAccumulator::mean } else { GradientAccumulator::sum };
        let mut accumulator = new(window).map_err(failed)?;
        let shape = input.shape.get(1..).unwrap_or_default();
        let mut total =
            Buffer::zeros(convert::dtype(input.dtype)?, shape.iter().product()).map_err(failed)?;
        for m in 0..rows {
            let row = convert::buffer(&input.row(m))?;
            if let Some(row) = row.data() {
                accumulator.add(total.data_mut(), row).map_err(failed)?;
            }
            accumulator.advance();
        }
        outputs.push(convert::tensor(&total, shape));
    }
    Ok(GradientAnswer { outputs, norm: None })
}

fn neftune(
    alpha: f64,
    input: &Tensor,
    unit: Option<&Tensor>,
    noise: Option<&Tensor>,
    output: &mut Buffer,
) -> Result<(), BackendError> {
    if let Some(noise) = noise {
        let noise = convert::buffer(noise)?;
        let Some(noise) = noise.data() else { return Ok(()) };
        return Neftune::add_noise(output.data_mut(), noise).map_err(failed);
    }
    let unit =
        convert::buffer(unit.ok_or_else(|| failed("the case gives neither unit nor noise"))?)?;
    let Some(unit) = unit.data() else { return Ok(()) };
    // Batch × length × width.
    let dimension = |i: usize| input.shape.get(i).map_or(1, |&d| d as u64);
    let neftune = Neftune { alpha };
    neftune.add_from_uniform(output.data_mut(), unit, dimension(1), dimension(2)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_with_arguments_of_their_own_are_refused() {
        let refused = |groups: &str| {
            let hyper = format!(r#"{{"max_norm": 1.0, "groups": {groups}}}"#);
            no_groups(&args(&serde_json::from_str(&hyper).expect("JSON"))).is_err()
        };
        assert!(refused(r#"[{"params": [0]}, {"params": [1], "max_norm": 2.0}]"#));
        assert!(refused("3"));
        assert!(!refused("null") && !refused(r#"[{"params": [0]}, {"params": [1]}]"#));
        assert!(no_groups(&Args::new()).is_ok());
    }
}
