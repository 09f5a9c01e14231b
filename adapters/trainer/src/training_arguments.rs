//! The arguments of Transformers' Trainer, and the settings that it derives from them.

use bitstep::Error;
use bitstep::hyper::{ArgError, Args, Value};
use bitstep::schedule::{self, Scheduler};

use crate::version::Version;

/// The part of `TrainingArguments` that affects how parameters are updated, with its defaults.
///
/// ```
/// use bitstep_trainer::{GroupKind, TrainingArguments};
/// let args = TrainingArguments {
///     optim: "sgd".into(),
///     optim_args: "momentum=0.9, nesterov=True".into(),
///     learning_rate: 0.1,
///     ..TrainingArguments::default()
/// };
/// let spec = args.optimizer_spec(GroupKind::Decay)?;
/// assert_eq!(spec.rule.lr(), 0.1);
///
/// let typo = TrainingArguments { optim_args: "momentun=0.9".into(), ..args };
/// let error = typo.optimizer_spec(GroupKind::Decay).unwrap_err();
/// assert!(error.to_string().contains("did you mean `momentum`"));
/// # Ok::<(), bitstep::hyper::ArgError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingArguments {
    /// The optimizer's name.
    pub optim: String,
    /// The optimizer's own arguments: `name=value, name=value`.
    pub optim_args: String,
    /// Learning rate.
    pub learning_rate: f64,
    /// Weight decay of the group that has any.
    pub weight_decay: f64,
    /// β₁ of the optimizers of the Adam family.
    pub adam_beta1: f64,
    /// β₂ of the optimizers of the Adam family.
    pub adam_beta2: f64,
    /// ε of the optimizers of the Adam family.
    pub adam_epsilon: f64,
    /// Warm-up steps. From 5 on, a value below 1 is a fraction of all steps. The schedule-free
    /// optimizers take the value unconverted, even below 1.
    pub warmup_steps: f64,
    /// Warm-up as a fraction of all steps, if `warmup_steps` is 0; only before 5.
    pub warmup_ratio: f64,
    /// The schedule's name.
    pub lr_scheduler_type: String,
    /// The schedule's own arguments.
    pub lr_scheduler_kwargs: Args,
    /// The norm that gradients are clipped to. At 0, below, or NaN they are not clipped.
    pub max_grad_norm: f64,
    /// Micro-batches per step.
    pub gradient_accumulation_steps: u64,
    /// The magnitude of NEFTune's noise on embeddings.
    pub neftune_noise_alpha: Option<f64>,
    /// The version of Transformers to reproduce.
    pub version: Version,
}

impl Default for TrainingArguments {
    fn default() -> Self {
        TrainingArguments {
            optim: "adamw_torch_fused".into(),
            optim_args: String::new(),
            learning_rate: 5e-5,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            warmup_steps: 0.0,
            warmup_ratio: 0.0,
            lr_scheduler_type: "linear".into(),
            lr_scheduler_kwargs: Args::new(),
            max_grad_norm: 1.0,
            gradient_accumulation_steps: 1,
            neftune_noise_alpha: None,
            version: Version::default(),
        }
    }
}

/// The kind of a parameter group of Trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// Parameters with weight decay ([`has_weight_decay`]).
    Decay,
    /// Biases and norms: no weight decay.
    NoDecay,
    /// The matrices of `optim_target_modules`, for GaLore and APOLLO: no weight decay.
    Target,
}

/// Whether Trainer applies weight decay to a parameter of this name, which is not that of a bias or norm.
///
/// Trainer also checks the layer's type, which this function does not know.
///
/// ```
/// use bitstep_trainer::has_weight_decay;
/// assert!(has_weight_decay("model.layers.0.mlp.up_proj.weight"));
/// assert!(!has_weight_decay("model.layers.0.mlp.up_proj.bias"));
/// assert!(!has_weight_decay("model.layers.0.input_layernorm.weight"));
/// assert!(!has_weight_decay("model.norm.weight") && has_weight_decay("model.normal.weight"));
/// ```
#[must_use]
pub fn has_weight_decay(name: &str) -> bool {
    let name = name.to_lowercase();
    let part = |p: &str| p == "norm" || p.ends_with("_norm");
    let has = |pattern: &str| name.contains(pattern);
    !(has("bias") || has("layernorm") || has("rmsnorm") || name.split('.').any(part))
}

impl TrainingArguments {
    /// Whether the optimizer projects some matrices, which `optim_target_modules` must name.
    #[must_use]
    pub fn needs_target_modules(&self) -> bool {
        self.optim.starts_with("galore") || self.optim.starts_with("apollo")
    }

    /// Whether parameters are updated during the backward pass, which frees each gradient once it is
    /// used: LOMO's and the `*_layerwise` optimizers. There are no gradients left to clip then.
    #[must_use]
    pub fn steps_in_backward(&self) -> bool {
        self.is_layerwise() || self.steps_every_micro_batch()
    }

    /// Whether every parameter has its own optimizer and schedule.
    #[must_use]
    pub fn is_layerwise(&self) -> bool {
        self.needs_target_modules() && self.optim.ends_with("_layerwise")
    }

    /// Whether parameters are updated with every micro-batch of a window, as LOMO's optimizers do.
    #[must_use]
    pub fn steps_every_micro_batch(&self) -> bool {
        matches!(self.optim.as_str(), "lomo" | "adalomo")
    }

    /// Whether large parameters have bitsandbytes' 8-bit state.
    pub(crate) fn is_bnb_8bit(&self) -> bool {
        self.optim.contains("8bit") && !self.optim.starts_with("adamw_torch")
    }

    /// Whether embeddings keep 32-bit state although others have 8-bit state, as with bitsandbytes'
    /// optimizers.
    #[must_use]
    pub fn skips_embeddings(&self) -> bool {
        // 4.49 tests for a class that it does not use.
        self.version > Version::V4_49 && self.is_bnb_8bit() && !self.needs_target_modules()
    }

    /// Whether the optimizer stores its learning rates as `f32`, as torchao's do.
    #[must_use]
    pub fn has_single_rates(&self) -> bool {
        matches!(self.optim.as_str(), "adamw_torch_8bit" | "adamw_torch_4bit")
    }

    /// The schedule for groups with these learning rates. As in Transformers' `get_scheduler`, some
    /// schedules ignore warm-up or the number of steps.
    ///
    /// # Errors
    /// An unknown schedule or argument, with the nearest known one; a refused value.
    ///
    /// ```
    /// use bitstep_trainer::TrainingArguments;
    /// let args = TrainingArguments { warmup_steps: 0.1, ..TrainingArguments::default() };
    /// let mut scheduler = args.scheduler(&[1.0, 0.5], 20)?;
    /// assert_eq!(scheduler.lrs(), [0.0, 0.0]);
    /// assert_eq!(scheduler.step(&[])?, [0.5, 0.25]); // 2 steps of warm-up
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn scheduler(&self, lrs: &[f64], num_training_steps: u64) -> Result<Scheduler, ArgError> {
        self.check_warmup()?;
        let mut args = self.kwargs()?;
        let count = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        if self.warms_up() {
            args.set("num_warmup_steps", count(self.warmup(num_training_steps)));
        }
        if self.needs_training_steps() {
            args.set("num_training_steps", count(num_training_steps));
        }
        args.set("lr", self.learning_rate);
        let group = |&lr: &f64| Value::Map(vec![("lr".into(), Value::Float(lr))]);
        args.set("groups", Value::List(lrs.iter().map(group).collect()));
        let scheduler = schedule::build(&self.lr_scheduler_type, &args)?;
        if self.has_single_rates() && self.lr_scheduler_type == "greedy" {
            let expected = "another schedule than `greedy`, whose rates this optimizer refuses";
            return Err(Error::InvalidArgument { argument: "lr_scheduler_type", expected }.into());
        }
        Ok(if self.has_single_rates() { scheduler.in_single() } else { scheduler })
    }

    /// `lr_scheduler_kwargs`, if the schedule uses them. Refuses those that Trainer sets itself.
    fn kwargs(&self) -> Result<Args, ArgError> {
        let name = self.lr_scheduler_type.as_str();
        // Trainer passes these no arguments.
        if matches!(name, "constant" | "constant_with_warmup")
            || (name == "inverse_sqrt" && self.version < Version::V5_23)
        {
            return Ok(Args::new());
        }
        let mut args = self.lr_scheduler_kwargs.clone();
        if self.warms_up() && args.get("last_epoch").and_then(Value::as_i64) == Some(-1) {
            args.take("last_epoch");
        }
        // Arguments of bitstep's schedules that the reference's do not have.
        let unknown = |name: &&str| match *name {
            "lr" | "groups" | "lr_init" | "last_epoch" => true,
            "initial_lr" => self.lr_scheduler_type != "adafactor_schedule",
            _ => false,
        };
        if let Some(argument) = args.iter().map(|(name, _)| name).find(unknown) {
            return Err(ArgError::UnknownArgument {
                of: name.to_owned(),
                argument: argument.to_owned(),
                nearest: None,
            });
        }
        for argument in ["num_warmup_steps", "num_training_steps"] {
            if self.warms_up() && args.get(argument).is_some() {
                let expected = "left out: Trainer sets it itself";
                return Err(Error::InvalidArgument { argument, expected }.into());
            }
        }
        Ok(args)
    }

    fn warms_up(&self) -> bool {
        let name = self.lr_scheduler_type.as_str();
        // Trainer can't choose torch's schedules; they take their own arguments only.
        !(matches!(name, "constant" | "reduce_lr_on_plateau" | "greedy")
            || name.starts_with("torch_"))
    }

    /// Whether the schedule depends on the total number of steps.
    #[must_use]
    pub fn needs_training_steps(&self) -> bool {
        let forever = ["constant_with_warmup", "inverse_sqrt"];
        self.warms_up() && !forever.contains(&self.lr_scheduler_type.as_str())
    }

    /// Refuses a warm-up that this version's Trainer refuses, whatever the schedule.
    pub(crate) fn check_warmup(&self) -> Result<(), Error> {
        let (steps, ratio) = (self.warmup_steps, self.warmup_ratio);
        let (of_ratio, of_steps) = if self.version >= Version::V5_23 {
            let finite = (0.0..f64::INFINITY).contains(&steps);
            // `warmup_steps` below 1 replaces the ratio.
            ((ratio == 0.0, "warmup_ratio == 0, from 5 on"), (finite, "0 <= value < inf"))
        } else {
            let whole = steps >= 0.0 && steps.fract() == 0.0;
            let share = (0.0..=1.0).contains(&ratio);
            ((share, "0 <= value <= 1"), (whole, "a whole number, 0 or more"))
        };
        for (argument, value, (ok, expected)) in
            [("warmup_ratio", ratio, of_ratio), ("warmup_steps", steps, of_steps)]
        {
            if !ok {
                return Err(Error::OutOfRange { argument, value, expected });
            }
        }
        Ok(())
    }

    /// Warm-up in whole steps, out of this many.
    #[must_use]
    pub fn warmup(&self, num_training_steps: u64) -> u64 {
        let share = |of: f64| (num_training_steps as f64 * of).ceil() as u64;
        let steps = self.warmup_steps;
        if self.version >= Version::V5_23 {
            if steps >= 1.0 { steps as u64 } else { share(steps) }
        } else if steps > 0.0 {
            steps as u64
        } else {
            share(self.warmup_ratio)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warmup_below_one_is_a_share() {
        let warm = |w| TrainingArguments { warmup_steps: w, ..Default::default() }.warmup(101);
        assert_eq!((warm(0.1), warm(7.0), warm(0.0)), (11, 7, 0));
    }
}
