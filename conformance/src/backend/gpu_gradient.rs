//! The gradient strategies of the backends `ptx` and `cuda`.

use bitstep::gradient::ClipByGlobalNorm;
use bitstep_cudarc::{Clip, Device, DeviceSlice, GradientOp, Workspace, apply_gradient_ops, clip};

use crate::backend::core_gradient::{no_groups, norm_clip};
use crate::backend::device_buffers::{DeviceAlloc, DeviceBuffers};
use crate::backend::{BackendError, GradientAnswer, GradientSpec, failed};
use crate::convert::{self, args};
use crate::tensor::Tensor;

pub(crate) fn answer<D: Device>(
    device: &mut D,
    spec: &GradientSpec<'_>,
) -> Result<GradientAnswer, BackendError> {
    let hyper = args(spec.hyper);
    let number = |name: &str| hyper.get(name).and_then(|v| v.as_f64());
    let flag = |name: &str| hyper.get(name).and_then(|v| v.as_bool());
    no_groups(&hyper)?;
    let mut buffers = DeviceBuffers(device, Vec::new());
    let mut workspace = Workspace::default();
    if spec.name == "clip_grad_norm" {
        return clip_norm(&mut buffers, &mut workspace, spec);
    }
    let mut outputs = Vec::new();
    for (input, given) in spec.inputs.iter().zip(&spec.given) {
        match spec.name {
            "clip_grad_value" => {
                let (limit, min) = (number("clip_value"), number("clip_value_min"));
                let limit = match (limit, min) {
                    (Some(limit), _) => limit,
                    (None, Some(min)) if number("clip_value_max") == Some(-min) => -min,
                    _ => return Err(unsupported("limits that are not symmetric")),
                };
                let (to, at) = upload(&mut buffers, input)?;
                run(&mut buffers, &mut workspace, to, GradientOp::ClipValue(limit))?;
                outputs.push(Tensor { bytes: buffers.read(at)?, ..(*input).clone() });
            }
            "accumulate" => {
                let rows = input.shape.first().copied().unwrap_or(0);
                let window =
                    number("gradient_accumulation_steps").map_or(rows as u64, |w| w as u64);
                let mean = hyper.get("reduction").and_then(|v| v.as_str()) == Some("mean");
                let shape = input.shape.get(1..).unwrap_or_default().to_vec();
                let len = shape.iter().product::<usize>();
                let size = input.bytes.len().checked_div(rows * len).unwrap_or(0);
                let total = Tensor { dtype: input.dtype, shape, bytes: vec![0; len * size] };
                let (to, at) = upload(&mut buffers, &total)?;
                for m in 0..rows {
                    let (from, _) = upload(&mut buffers, &input.row(m))?;
                    let add = GradientOp::Accumulate { from, window, seen: m as u64, mean };
                    run(&mut buffers, &mut workspace, to, add)?;
                }
                outputs.push(Tensor { bytes: buffers.read(at)?, ..total });
            }
            "neftune" if flag("training") == Some(false) => outputs.push((*input).clone()),
            "neftune" => {
                let (to, at) = upload(&mut buffers, input)?;
                let noise = if let Some(noise) = given.get("noise") {
                    GradientOp::Noise(upload(&mut buffers, noise)?.0)
                } else {
                    let lacks = || failed("the case gives neither unit nor noise, or no magnitude");
                    let alpha = number("neftune_noise_alpha").or_else(|| number("alpha"));
                    let (from, _) = upload(&mut buffers, given.get("unit").ok_or_else(lacks)?)?;
                    // Batch × length × width.
                    let dimensions = [1, 2].map(|i| input.shape.get(i).map_or(1, |&d| d as u64));
                    GradientOp::Unit { from, magnitude: alpha.ok_or_else(lacks)?, dimensions }
                };
                run(&mut buffers, &mut workspace, to, noise)?;
                outputs.push(Tensor { bytes: buffers.read(at)?, ..(*input).clone() });
            }
            other => return Err(unsupported(other)),
        }
    }
    Ok(GradientAnswer { outputs, norm: None })
}

fn clip_norm<D: Device>(
    buffers: &mut DeviceBuffers<'_, D>,
    workspace: &mut Workspace,
    spec: &GradientSpec<'_>,
) -> Result<GradientAnswer, BackendError> {
    let grads = spec.inputs.iter().map(|input| upload(buffers, input));
    let grads: Vec<_> = grads.collect::<Result<_, _>>()?;
    let found = buffers.add(&[0; 16])?;
    let slices: Vec<_> = grads.iter().map(|(slice, _)| *slice).collect();
    let hyper = args(spec.hyper);
    let how = match hyper.get("clip_norm").and_then(|v| v.as_f64()) {
        Some(clip_norm) => Clip::Global(ClipByGlobalNorm { clip_norm }),
        None => Clip::Norm(norm_clip(&hyper)?),
    };
    // SAFETY: all were allocated above, with these lengths.
    unsafe { clip(buffers.0, workspace, &slices, how, found.0) }.map_err(failed)?;
    let norm = buffers.read((found.0, 8))?.as_chunks().0.first().map(|b| f64::from_le_bytes(*b));
    let read = |(input, (_, at)): (&&Tensor, &(_, DeviceAlloc))| {
        Ok(Tensor { bytes: buffers.read(*at)?, ..(*input).clone() })
    };
    let outputs = spec.inputs.iter().zip(&grads).map(read).collect::<Result<_, BackendError>>()?;
    Ok(GradientAnswer { outputs, norm })
}

fn unsupported(what: &str) -> BackendError {
    BackendError::Unsupported(format!("no kernel for {what}"))
}

fn upload<D: Device>(
    buffers: &mut DeviceBuffers<'_, D>,
    t: &Tensor,
) -> Result<(DeviceSlice, DeviceAlloc), BackendError> {
    let at = buffers.add(&t.bytes)?;
    Ok((DeviceSlice { at: at.0, len: t.len(), dtype: convert::dtype(t.dtype)? }, at))
}

fn run<D: Device>(
    buffers: &mut DeviceBuffers<'_, D>,
    workspace: &mut Workspace,
    to: DeviceSlice,
    what: GradientOp,
) -> Result<(), BackendError> {
    // SAFETY: the callers allocated both, with these lengths.
    unsafe { apply_gradient_ops(buffers.0, workspace, &[(to, what)]) }.map_err(|e| match e {
        bitstep_cudarc::Error::NoKernel(what) => unsupported(&what),
        other => failed(other),
    })
}
