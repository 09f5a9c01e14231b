//! Everything that Trainer makes of its arguments.

use bitstep::gradient::{Accumulation, ClipGradNorm, LossScale, Neftune};
use bitstep::optimizer::Recipe;
use bitstep::schedule::Scheduler;

use crate::arguments::{Arguments, TrainingError};
use crate::checkpoint::check_name;
use crate::groups::groups;
use crate::layers::Parameter;

/// Parameters that share their arguments.
#[derive(Clone, Debug)]
pub struct Group {
    /// What moves them.
    pub recipe: Recipe,
    /// Their numbers, in the order in which they were given.
    pub members: Vec<usize>,
}

/// All that training needs beside model and data.
#[derive(Debug)]
pub struct Setup {
    /// Every parameter is in exactly one. One may be empty, as in Trainer.
    pub groups: Vec<Group>,
    /// The groups' learning rates.
    pub scheduler: Scheduler,
    /// How gradients are clipped, if they are.
    pub clip: Option<ClipGradNorm>,
    /// The mean over micro-batches.
    pub accumulation: Accumulation,
    /// By what the loss is multiplied, with `fp16`.
    pub loss_scale: Option<LossScale>,
    /// Noise on what the embedding gives, if asked for.
    pub neftune: Option<Neftune>,
    /// Steps in all, where known.
    pub num_training_steps: Option<u64>,
}

/// Whether a schedule waits for a metric, rather than for a step.
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
        let groups = groups(self, parameters)?
            .into_iter()
            .map(|(kind, members)| Ok(Group { recipe: t.recipe(kind)?, members }))
            .collect::<Result<Vec<_>, TrainingError>>()?;
        let num_training_steps = self.max_steps.or(num_training_steps);
        let lrs: Vec<f64> = groups.iter().map(|g| g.recipe.rule.lr()).collect();
        if num_training_steps.is_none() && t.needs_training_steps() {
            return Err(TrainingError::Steps);
        }
        Ok(Setup {
            groups,
            scheduler: t.scheduler(&lrs, num_training_steps.unwrap_or(0))?,
            clip: (t.max_grad_norm > 0.0)
                .then(|| ClipGradNorm { max_norm: t.max_grad_norm, ..ClipGradNorm::default() }),
            accumulation: Accumulation::mean(t.gradient_accumulation_steps)?,
            loss_scale: self.fp16.then(LossScale::default),
            neftune: t.neftune_noise_alpha.map(|alpha| Neftune { alpha }),
            num_training_steps,
        })
    }
}
