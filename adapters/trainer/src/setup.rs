//! The training setup that Trainer derives from its arguments.

use bitstep::gradient::{ClipGradNorm, GradientAccumulator, LossScale, Neftune};
use bitstep::hyper::Args;
use bitstep::optimizer::OptimizerSpec;
use bitstep::schedule::Scheduler;

use crate::arguments::{Arguments, TrainingError};
use crate::checkpoint::check_name;
use crate::groups::groups;
use crate::layers::Parameter;
use crate::training_arguments::TrainingArguments;
use crate::version::Version;

/// Parameters that share a spec.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their optimizer.
    pub spec: OptimizerSpec,
    /// Their indices among the parameters passed to [`Arguments::setup`].
    pub members: Vec<usize>,
    /// Those of them whose state is stored unquantized, whatever the spec says: embeddings, with
    /// bitsandbytes' 8-bit optimizers.
    pub plain: Vec<usize>,
}

/// Everything that training needs besides model and data.
#[derive(Debug)]
pub struct Setup {
    /// The groups. Every parameter is in exactly one; a group may be empty, as in Trainer.
    pub groups: Vec<Group>,
    /// The schedule of the groups' learning rates.
    pub scheduler: Scheduler,
    /// How gradients are clipped. `None` without clipping, and for optimizers that use each gradient
    /// in the backward pass ([`TrainingArguments::steps_in_backward`]).
    pub clip: Option<ClipGradNorm>,
    /// The mean over the micro-batches of a window.
    pub accumulation: GradientAccumulator,
    /// Whether parameters are updated with each micro-batch, by its share of the window, rather than
    /// once per window, as LOMO does. Learning rates change at the end of the window all the same.
    pub every_micro_batch: bool,
    /// The loss scale, with `fp16`.
    pub loss_scale: Option<LossScale>,
    /// NEFTune's noise on the embedding's output, if `neftune_noise_alpha` is set.
    pub neftune: Option<Neftune>,
    /// The total number of steps, if known.
    pub num_training_steps: Option<u64>,
}

/// Whether a schedule is driven by a metric rather than by steps.
#[must_use]
pub fn follows_metric(scheduler: &Scheduler) -> bool {
    let state = scheduler.state();
    state.plateau.is_some() || state.greedy.is_some()
}

impl Arguments {
    /// Sets up the training of these parameters, for `max_steps` or else `num_training_steps`.
    ///
    /// # Errors
    /// [`TrainingError`].
    pub fn setup(
        &self,
        parameters: &[Parameter],
        num_training_steps: Option<u64>,
    ) -> Result<Setup, TrainingError> {
        let t = &self.training;
        parameters.iter().try_for_each(|p| check_name(&p.name))?;
        let steps = t.gradient_accumulation_steps;
        if t.is_layerwise() && steps != 1 {
            return Err(TrainingError::LayerwiseAccumulation { optim: t.optim.clone(), steps });
        }
        let plain = |i: &usize| t.skips_embeddings() && parameters[*i].is_embedding();
        let groups = groups(self, parameters)?
            .into_iter()
            .map(|(kind, members)| {
                let plain = members.iter().copied().filter(plain).collect();
                Ok(Group { spec: t.optimizer_spec(kind)?, members, plain })
            })
            .collect::<Result<Vec<_>, TrainingError>>()?;
        let num_training_steps = self.max_steps.or(num_training_steps);
        let lrs: Vec<f64> = groups.iter().map(|g| g.spec.rule.lr()).collect();
        if num_training_steps.is_none() && t.needs_training_steps() {
            return Err(TrainingError::Steps);
        }
        let mut scheduler = t.scheduler(&lrs, num_training_steps.unwrap_or(0))?;
        if t.is_layerwise() {
            scheduler = self.layerwise(scheduler, &lrs)?;
        }
        Ok(Setup {
            groups,
            scheduler,
            clip: (t.max_grad_norm > 0.0 && !t.steps_in_backward())
                .then(|| ClipGradNorm { max_norm: t.max_grad_norm, ..ClipGradNorm::default() }),
            accumulation: GradientAccumulator::mean(steps)?,
            every_micro_batch: t.steps_every_micro_batch(),
            loss_scale: self.fp16.then(LossScale::default),
            neftune: t.neftune_noise_alpha.map(|alpha| Neftune { alpha }),
            num_training_steps,
        })
    }

    /// The schedule in effect with an optimizer per parameter.
    fn layerwise(&self, scheduler: Scheduler, lrs: &[f64]) -> Result<Scheduler, TrainingError> {
        let t = &self.training;
        if !self.layerwise_schedule.unwrap_or(t.version < Version::V5_23) {
            let (name, kwargs) = ("constant".into(), Args::new());
            let constant = TrainingArguments {
                lr_scheduler_type: name,
                lr_scheduler_kwargs: kwargs,
                ..t.clone()
            };
            return Ok(constant.scheduler(lrs, 0)?);
        }
        match follows_metric(&scheduler) {
            false => Ok(scheduler),
            true => Err(TrainingError::LayerwiseMetric {
                optim: t.optim.clone(),
                schedule: t.lr_scheduler_type.clone(),
            }),
        }
    }
}
