//! A training from the arguments of Transformers' Trainer.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ffi::c_char;

use bitstep::optimizer::GroupId;
use bitstep::registry::OPTIMIZERS;
use bitstep::storage::memory::collected;
use bitstep_trainer::{Arguments, Layer, Parameter, TrainingError, follows_metric};

use crate::args::LONGEST_TEXT;
use crate::error::{BITSTEP_ARGUMENT, ErrorMessage, Status, err};
use crate::gradient::LossScaleState;
use crate::optimizer::Optimizer;
use crate::places::ffi_call;
use crate::schedule::Schedule;
use crate::tensor::dtype;

/// The type of a layer is guessed from the parameter's name and shape.
pub const BITSTEP_LAYER_GUESSED: u32 = 0;
/// `torch.nn.Linear`.
pub const BITSTEP_LAYER_LINEAR: u32 = 1;
/// `torch.nn.Embedding`.
pub const BITSTEP_LAYER_EMBEDDING: u32 = 2;
/// `torch.nn.LayerNorm`.
pub const BITSTEP_LAYER_LAYER_NORM: u32 = 3;
/// A norm of the list that Transformers had up to 4.52, such as `LlamaRMSNorm`.
pub const BITSTEP_LAYER_NORM: u32 = 4;
/// Any other layer.
pub const BITSTEP_LAYER_OTHER: u32 = 5;

/// A parameter of a model that is to be trained.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NamedParameter {
    /// Its name in the model, which decides whether it decays: `model.layers.0.mlp.up_proj.weight`.
    pub name: *const c_char,
    /// Its dimensions.
    pub shape: *const usize,
    /// How many these are.
    pub dimensions: usize,
    /// Its type: `BITSTEP_F32`, …
    pub dtype: u32,
    /// The type of its layer: `BITSTEP_LAYER_LINEAR`, …; 0 to guess it.
    pub layer: u32,
}

/// What a training does besides stepping its optimizer and its schedule.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TrainingSetup {
    /// Gradients are clipped to this norm by `bitstep_clip_grad_norm`, of order 2; 0 if they are not.
    pub max_grad_norm: f64,
    /// The magnitude of `bitstep_neftune`'s noise; below 0 if there is none.
    pub neftune_noise_alpha: f64,
    /// Micro-batches whose mean `bitstep_accumulator_new` takes.
    pub gradient_accumulation_steps: u64,
    /// The number of steps, 0 if it is not known.
    pub num_training_steps: u64,
    /// The loss scale, if `scales_loss` is not 0.
    pub loss_scale: LossScaleState,
    /// Whether the loss is scaled (`fp16`).
    pub scales_loss: u32,
    /// Whether the optimizer is stepped with each micro-batch rather than at the end of a window.
    pub every_micro_batch: u32,
    /// Whether the schedule is stepped with a metric after each evaluation rather than after each step.
    pub follows_metric: u32,
    /// Always 0.
    pub reserved: u32,
}

impl From<TrainingError> for Status {
    fn from(e: TrainingError) -> Self {
        Status(BITSTEP_ARGUMENT, e.to_string())
    }
}

/// Sets up a training as Transformers' Trainer does. `json` is the output of
/// `TrainingArguments.to_json_string()`, at most 65536 bytes, or some of its keys: `{"optim": "adamw_torch",
/// "learning_rate": 1e-3, "max_steps": 100}`. Writes an optimizer with the parameters in the order given,
/// divided into Trainer's groups; a schedule, whose first rates are set; and what else the loop has to do.
/// `num_training_steps` is for arguments without `max_steps`; 0 if it is not known. Free both handles.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated, strings end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_training_new(
    json: *const c_char,
    parameters: *const NamedParameter,
    count: usize,
    num_training_steps: u64,
    optimizer: *mut *mut Optimizer,
    schedule: *mut *mut Schedule,
    setup: *mut TrainingSetup,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let json = places.text("json", json, LONGEST_TEXT)?;
            let optimizer = places.out("optimizer", optimizer)?;
            let schedule = places.out("schedule", schedule)?;
            let out = places.out("setup", setup)?;
            let parameters = places.list("parameters", parameters, count)?;
            let mut named = collected("parameters", core::iter::empty())?;
            for (i, p) in parameters.iter().enumerate() {
                let name = places.text(&format!("parameters[{i}].name"), p.name, LONGEST_PATH)?;
                let what = format!("parameters[{i}].shape");
                named.push((name, places.list(&what, p.shape, p.dimensions)?));
            }
            places.check()?;
            let arguments = Arguments::from_json(json)?;
            let version = arguments.training.version;
            let mut all = Parameter::guess(named.iter().copied(), version);
            for (i, (known, p)) in all.iter_mut().zip(parameters).enumerate() {
                let layer = match p.layer {
                    BITSTEP_LAYER_GUESSED => continue,
                    BITSTEP_LAYER_LINEAR => Layer::Linear,
                    BITSTEP_LAYER_EMBEDDING => Layer::Embedding,
                    BITSTEP_LAYER_LAYER_NORM => Layer::LayerNorm,
                    BITSTEP_LAYER_NORM => Layer::Norm,
                    BITSTEP_LAYER_OTHER => Layer::Other,
                    layer => {
                        let message = format!("parameters[{i}].layer: {layer} is no layer");
                        return err(BITSTEP_ARGUMENT, message);
                    }
                };
                *known = Parameter::of(&known.name, &known.shape, layer);
            }
            let steps = Some(num_training_steps).filter(|&steps| steps > 0);
            let made = arguments.setup(&all, steps)?;

            let mut handle = Optimizer::default();
            let mut group_of = Vec::new();
            group_of.resize(count, (GroupId(0), false));
            for group in &made.groups {
                let id = handle.inner.add_group(group.spec.clone())?;
                handle.names.push(known_name(&arguments.training.optim));
                for &i in &group.members {
                    if let Some(to) = group_of.get_mut(i) {
                        *to = (id, group.plain.contains(&i));
                    }
                }
            }
            for (i, (p, (group, plain))) in parameters.iter().zip(group_of).enumerate() {
                let (shape, dtype) =
                    (named.get(i).map_or(&[][..], |(_, shape)| *shape), dtype(p.dtype)?);
                match plain {
                    true => handle.inner.add_plain_param(group, shape, dtype)?,
                    false => handle.inner.add_param_to(group, shape, dtype)?,
                };
            }
            // References number parameters group by group.
            let members = made.groups.iter().flat_map(|group| &group.members);
            for (position, &i) in members.enumerate() {
                let rule =
                    handle.inner.params().get(i).and_then(|p| handle.inner.groups().get(p.group.0));
                let scalars = rule.map(|group| group.spec.rule.initial_scalars(position));
                if let (Some(scalars), Some(p)) = (scalars, handle.inner.params_mut().get_mut(i)) {
                    p.scalars = scalars;
                }
            }
            let groups = collected("groups", (0..made.groups.len()).map(GroupId))?;
            handle.inner.follow(&made.scheduler, &groups)?;
            out.set(TrainingSetup {
                max_grad_norm: made.clip.map_or(0.0, |clip| clip.max_norm),
                neftune_noise_alpha: made.neftune.map_or(-1.0, |neftune| neftune.alpha),
                gradient_accumulation_steps: arguments.training.gradient_accumulation_steps,
                num_training_steps: made.num_training_steps.unwrap_or(0),
                loss_scale: made.loss_scale.unwrap_or_default().into(),
                scales_loss: made.loss_scale.is_some().into(),
                every_micro_batch: made.every_micro_batch.into(),
                follows_metric: follows_metric(&made.scheduler).into(),
                reserved: 0,
            });
            optimizer.set(Box::into_raw(Box::new(handle)));
            schedule.set(Box::into_raw(Box::new(Schedule(made.scheduler))));
            Ok(())
        })
    }
}

/// The longest name of a parameter.
const LONGEST_PATH: usize = 1 << 12;

fn known_name(name: &str) -> &'static str {
    OPTIMIZERS.iter().find(|entry| entry.name == name).map_or("", |entry| entry.name)
}
