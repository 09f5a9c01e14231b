//! What Transformers' Trainer makes of its `TrainingArguments`.

use alloc::string::String;
use alloc::vec::Vec;

use crate::args::{ArgError, Args, Value, nearest};
use crate::named;
use crate::optimizer::Recipe;
use crate::schedule::{self, Scheduler};

/// The part of `TrainingArguments` that decides how parameters move, with its defaults.
///
/// ```
/// use bitstep::training::{Members, TrainingArguments};
/// let args = TrainingArguments {
///     optim: "sgd".into(),
///     optim_args: "momentum=0.9, nesterov=True".into(),
///     learning_rate: 0.1,
///     ..TrainingArguments::default()
/// };
/// let recipe = args.recipe(Members::Decay)?;
/// assert_eq!(recipe.rule.lr(), 0.1);
///
/// let typo = TrainingArguments { optim_args: "momentun=0.9".into(), ..args };
/// assert!(typo.recipe(Members::Decay).unwrap_err().to_string().contains("did you mean `momentum`"));
/// # Ok::<(), bitstep::args::ArgError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingArguments {
    /// The optimizer's name.
    pub optim: String,
    /// `name=value, name=value`.
    pub optim_args: String,
    /// Learning rate.
    pub learning_rate: f64,
    /// Weight decay of the group that decays.
    pub weight_decay: f64,
    /// β₁ of the optimizers of the Adam family.
    pub adam_beta1: f64,
    /// β₂ of the optimizers of the Adam family.
    pub adam_beta2: f64,
    /// ε of the optimizers of the Adam family.
    pub adam_epsilon: f64,
    /// Warm-up: a number of steps, or below 1 a share of all steps.
    pub warmup_steps: f64,
    /// The schedule's name.
    pub lr_scheduler_type: String,
    /// The schedule's own arguments.
    pub lr_scheduler_kwargs: Args,
    /// Gradients are clipped to this norm; 0 for never.
    pub max_grad_norm: f64,
    /// Micro-batches to a step.
    pub gradient_accumulation_steps: u64,
    /// Noise on the embeddings.
    pub neftune_noise_alpha: Option<f64>,
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
            lr_scheduler_type: "linear".into(),
            lr_scheduler_kwargs: Args::new(),
            max_grad_norm: 1.0,
            gradient_accumulation_steps: 1,
            neftune_noise_alpha: None,
        }
    }
}

/// Which of the groups that Trainer makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// Parameters that decay ([`decays`]).
    Decay,
    /// Biases and norms: no weight decay.
    NoDecay,
    /// The matrices of `optim_target_modules`, of GaLore and APOLLO, which don't decay.
    Target,
}

/// Whether Trainer decays a parameter of this name: not a bias, not of a norm.
///
/// Trainer also looks at the layer's type; a name is all that is known here.
///
/// ```
/// use bitstep::training::decays;
/// assert!(decays("model.layers.0.mlp.up_proj.weight"));
/// assert!(!decays("model.layers.0.mlp.up_proj.bias"));
/// assert!(!decays("model.layers.0.input_layernorm.weight"));
/// assert!(!decays("model.norm.weight") && decays("model.normal.weight"));
/// ```
#[must_use]
pub fn decays(name: &str) -> bool {
    let name = name.to_lowercase();
    let part = |p: &str| p == "norm" || p.ends_with("_norm");
    let has = |pattern: &str| name.contains(pattern);
    !(has("bias") || has("layernorm") || has("rmsnorm") || name.split('.').any(part))
}

impl TrainingArguments {
    /// The recipe of one of Trainer's groups, with the arguments that Trainer itself sets.
    ///
    /// Where Trainer surprises, so does this: `optim_args`' `weight_decay` never
    /// counts (the groups carry `weight_decay`), and for `stable_adamw` any text
    /// after `kahan_sum=` or `decouple_lr=`, even `False`, means true.
    ///
    /// # Errors
    /// An unknown optimizer or argument, with the nearest known one; a refused
    /// value. Trainer ignores unknown arguments in silence; this does not.
    pub fn recipe(&self, members: Members) -> Result<Recipe, ArgError> {
        let text = Args::parse(&self.optim_args)?;
        let (args, known) = self.arguments(members, &text);
        if let Some((name, _)) = text.iter().find(|(name, _)| !known.contains(name)) {
            return Err(ArgError::UnknownArgument {
                of: self.optim.clone(),
                argument: name.into(),
                nearest: nearest(name, known),
            });
        }
        named::optimizer(name_of(&self.optim), &args)
    }

    /// The constructor's arguments, and the names that `optim_args` may have.
    fn arguments(&self, members: Members, text: &Args) -> (Args, Vec<&'static str>) {
        let optim = self.optim.as_str();
        let mut args = Args::new().with("lr", self.learning_rate);
        let mut known = Vec::new();
        let low_rank = self.wants_targets();
        if !(low_rank || optim.ends_with("lomo")) {
            let decay = if members == Members::Decay { self.weight_decay } else { 0.0 };
            args.set("weight_decay", decay);
        }
        let adam = |args: &mut Args| {
            args.set("betas", [self.adam_beta1, self.adam_beta2]);
            args.set("eps", self.adam_epsilon);
        };
        // An argument of `optim_args`, or Trainer's own default.
        let mut take = |args: &mut Args, name: &'static str, default: Option<Value>| {
            known.push(name);
            if let Some(value) = text.get(name).cloned().or(default) {
                args.set(name, value);
            }
        };
        let float = |x: f64| Some(Value::Float(x));
        match optim {
            "adafactor" => {
                args.set("scale_parameter", false);
                args.set("relative_step", false);
            }
            "adamw_anyprecision" => {
                adam(&mut args);
                take(&mut args, "use_kahan_summation", Some(false.into()));
                take(&mut args, "momentum_dtype", Some("float32".into()));
                take(&mut args, "variance_dtype", Some("float32".into()));
                take(&mut args, "compensation_buffer_dtype", Some("bfloat16".into()));
            }
            "sgd" => {
                for name in ["momentum", "dampening", "nesterov"] {
                    take(&mut args, name, None);
                }
                known.push("weight_decay");
            }
            "adagrad" => {
                take(&mut args, "lr_decay", None);
                take(&mut args, "eps", None);
                known.push("weight_decay");
            }
            "rmsprop" => {
                for name in ["momentum", "alpha", "eps", "centered"] {
                    take(&mut args, name, None);
                }
                known.push("weight_decay");
            }
            "rmsprop_bnb" | "rmsprop_bnb_8bit" | "rmsprop_bnb_32bit" => {
                for name in ["alpha", "eps", "momentum", "centered"] {
                    take(&mut args, name, None);
                }
            }
            "ademamix" | "ademamix_8bit" | "paged_ademamix_32bit" | "paged_ademamix_8bit" => {
                known.extend(["beta1", "beta2", "beta3"]);
                let beta =
                    |name, default| text.get(name).and_then(Value::as_f64).unwrap_or(default);
                let betas = [
                    beta("beta1", self.adam_beta1),
                    beta("beta2", self.adam_beta2),
                    beta("beta3", 0.9999),
                ];
                args.set("betas", betas);
                for (name, default) in [
                    ("alpha", float(5.0)),
                    ("eps", float(self.adam_epsilon)),
                    ("t_alpha", None),
                    ("t_beta3", None),
                ] {
                    known.push(name);
                    if let Some(value) = text.get(name).cloned().or(default) {
                        args.set(name, value);
                    }
                }
            }
            "lion_32bit" | "lion_8bit" | "paged_lion_32bit" | "paged_lion_8bit" => {
                args.set("betas", [self.adam_beta1, self.adam_beta2]);
            }
            "grokadamw" => {
                take(&mut args, "alpha_init", float(0.98));
                take(&mut args, "lamb", float(2.0));
                take(&mut args, "gamma", float(0.1));
                take(&mut args, "grokking_signal_decay_rate", float(0.1));
                take(&mut args, "gradient_clipping", float(1.0));
            }
            "adamw_torch_4bit" | "adamw_torch_8bit" => {
                adam(&mut args);
                take(&mut args, "block_size", Some(256.into()));
                take(&mut args, "bf16_stochastic_round", Some(false.into()));
            }
            "schedule_free_radam" | "schedule_free_adamw" | "schedule_free_sgd" => {
                if optim != "schedule_free_sgd" {
                    adam(&mut args);
                }
                if optim != "schedule_free_radam" {
                    args.set("warmup_steps", self.warmup_steps);
                }
                take(&mut args, "weight_lr_power", float(2.0));
                take(&mut args, "r", float(0.0));
            }
            "stable_adamw" => {
                adam(&mut args);
                take(&mut args, "max_lr", None);
                for name in ["decouple_lr", "kahan_sum"] {
                    known.push(name);
                    if text.get(name).is_some() {
                        args.set(name, true);
                    }
                }
            }
            _ if low_rank => {
                let (galore, target) = (optim.starts_with("galore"), members == Members::Target);
                if target && !galore {
                    adam(&mut args);
                }
                let mut own = Args::new();
                take(&mut own, "rank", Some(128.into()));
                take(&mut own, "update_proj_gap", Some(200.into()));
                take(&mut own, "scale", float(if galore { 0.25 } else { 1.0 }));
                take(&mut own, "proj_type", Some("std".into()));
                if !galore {
                    take(&mut own, "proj", Some("random".into()));
                    take(&mut own, "scale_type", Some("channel".into()));
                }
                if target {
                    own.iter().for_each(|(name, value)| args.set(name, value.clone()));
                }
                // The layerwise variant is not named here: there Adafactor keeps its own defaults.
                if optim == "galore_adafactor" {
                    args.set("scale_parameter", false);
                    args.set("relative_step", false);
                }
            }
            "lomo" | "adalomo" => {}
            _ => adam(&mut args),
        }
        (args, known)
    }

    /// Whether the optimizer projects some matrices, which must be named.
    #[must_use]
    pub fn wants_targets(&self) -> bool {
        self.optim.starts_with("galore") || self.optim.starts_with("apollo")
    }

    /// The schedule, for groups with these rates. As in Transformers' `get_scheduler`, some
    /// schedules know nothing of warm-up or of the number of steps.
    ///
    /// # Errors
    /// An unknown schedule or argument, with the nearest known one; a refused value.
    ///
    /// ```
    /// use bitstep::training::TrainingArguments;
    /// let args = TrainingArguments { warmup_steps: 0.1, ..TrainingArguments::default() };
    /// let mut scheduler = args.scheduler(&[1.0, 0.5], 20)?;
    /// assert_eq!(scheduler.lrs(), [0.0, 0.0]);
    /// assert_eq!(scheduler.step(&[])?, [0.5, 0.25]); // 2 steps of warm-up
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn scheduler(&self, lrs: &[f64], num_training_steps: u64) -> Result<Scheduler, ArgError> {
        let mut args = self.lr_scheduler_kwargs.clone();
        let count = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        if self.warms_up() {
            args.set("num_warmup_steps", count(self.warmup(num_training_steps)));
        }
        if self.needs_training_steps() {
            args.set("num_training_steps", count(num_training_steps));
        }
        args.set("lr", self.learning_rate);
        let group = |&lr: &f64| Value::Map(alloc::vec![("lr".into(), Value::Float(lr))]);
        args.set("groups", Value::List(lrs.iter().map(group).collect()));
        schedule::build(&self.lr_scheduler_type, &args)
    }

    fn warms_up(&self) -> bool {
        let name = self.lr_scheduler_type.as_str();
        // torch's own are not Trainer's to choose; they take their arguments only.
        !(matches!(name, "constant" | "reduce_lr_on_plateau" | "greedy")
            || name.starts_with("torch_"))
    }

    /// Whether the schedule depends on the number of steps in all.
    #[must_use]
    pub fn needs_training_steps(&self) -> bool {
        let forever = ["constant_with_warmup", "inverse_sqrt"];
        self.warms_up() && !forever.contains(&self.lr_scheduler_type.as_str())
    }

    /// Warm-up in whole steps, of this many in all.
    #[must_use]
    pub fn warmup(&self, num_training_steps: u64) -> u64 {
        let steps = self.warmup_steps;
        let steps =
            if steps >= 1.0 { steps } else { libm::ceil(num_training_steps as f64 * steps) };
        steps as u64
    }
}

/// The name of the rule: some names say only where a step runs.
fn name_of(optim: &str) -> &str {
    match optim {
        "adamw_torch_xla" => "adamw_torch",
        "adamw_torch_npu_fused" => "adamw_torch_fused",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(optim: &str, optim_args: &str, members: Members) -> Args {
        let args = TrainingArguments {
            optim: optim.into(),
            optim_args: optim_args.into(),
            weight_decay: 0.5,
            ..TrainingArguments::default()
        };
        args.arguments(members, &Args::parse(optim_args).unwrap()).0
    }

    #[test]
    fn adafactor_gets_trainers_own_arguments() {
        let args = of("adafactor", "", Members::Decay);
        assert_eq!(args.get("scale_parameter"), Some(&Value::Bool(false)));
        assert_eq!(args.get("relative_step"), Some(&Value::Bool(false)));
        assert_eq!(args.get("betas"), None);
    }

    #[test]
    fn decay_goes_to_the_decaying_group_only_and_optim_args_do_not_change_it() {
        let decay = |members| of("sgd", "weight_decay=0.9", members).get("weight_decay").cloned();
        assert_eq!(decay(Members::Decay), Some(Value::Float(0.5)));
        assert_eq!(decay(Members::NoDecay), Some(Value::Float(0.0)));
    }

    #[test]
    fn stable_adamw_takes_any_text_for_true() {
        let args = of("stable_adamw", "decouple_lr=False", Members::Decay);
        assert_eq!(args.get("decouple_lr"), Some(&Value::Bool(true)));
        assert_eq!(args.get("kahan_sum"), None);
    }

    #[test]
    fn low_rank_arguments_go_to_the_target_group_only() {
        let rank = |members| of("apollo_adamw", "rank=4", members).get("rank").cloned();
        assert_eq!(rank(Members::Target), Some(Value::Int(4)));
        assert_eq!(rank(Members::NoDecay), None);
        assert!(of("apollo_adamw", "", Members::Target).get("betas").is_some());
        assert!(of("apollo_adamw", "", Members::NoDecay).get("betas").is_none());
    }

    #[test]
    fn warmup_below_one_is_a_share() {
        let warm = |w| TrainingArguments { warmup_steps: w, ..Default::default() }.warmup(101);
        assert_eq!((warm(0.1), warm(7.0), warm(0.0)), (11, 7, 0));
    }
}
