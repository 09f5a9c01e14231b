//! The spec of a group's optimizer from the training arguments.

use bitstep::hyper::{ArgError, Args, Value, nearest};
use bitstep::optimizer::OptimizerSpec;
use bitstep::registry;

use crate::optim_args::{Kind, Words};
use crate::training_arguments::{GroupKind, TrainingArguments};
use crate::version::Version;

impl TrainingArguments {
    /// The spec of one of Trainer's groups, with the arguments that Trainer itself sets.
    ///
    /// It reproduces Trainer's quirks: `weight_decay` in `optim_args` has no effect
    /// (the groups set `weight_decay`); for `stable_adamw` any text after `kahan_sum=`
    /// or `decouple_lr=`, even `False`, means true, and no text means false; before 5
    /// most optimizers ignore `optim_args`.
    ///
    /// # Errors
    /// An unknown optimizer or argument, with the nearest known one; a refused
    /// value. Unlike Trainer, this does not silently ignore unknown arguments.
    pub fn optimizer_spec(&self, members: GroupKind) -> Result<OptimizerSpec, ArgError> {
        self.check_warmup()?;
        let words = Words::parse(&self.optim_args)?;
        let spec = registry::optimizer(name_of(&self.optim), &self.arguments(members, &words)?)?;
        // The groups set their own decay. Only StableAdamW's constructor checks it too.
        let mut group = Args::new();
        if !(self.needs_target_modules() || self.optim.ends_with("lomo")) {
            group.set("weight_decay", self.group_decay(members));
        }
        if self.optim == "stable_adamw" {
            registry::optimizer(&self.optim, &group)?;
        }
        spec.with_args(&group)
    }

    fn group_decay(&self, members: GroupKind) -> f64 {
        if members == GroupKind::Decay { self.weight_decay } else { 0.0 }
    }

    /// The constructor's arguments, without the group's `weight_decay`.
    fn arguments(&self, members: GroupKind, words: &Words) -> Result<Args, ArgError> {
        use Kind::{Any, Float, Int, Refused, Text, Truth, Unread, Yes};
        let optim = self.optim.as_str();
        let five = self.version >= Version::V5_23;
        let mut args = Args::new().with("lr", self.learning_rate);
        let low_rank = self.needs_target_modules();
        let adam = |args: &mut Args| {
            args.set("betas", [self.adam_beta1, self.adam_beta2]);
            args.set("eps", self.adam_epsilon);
        };
        let mut known = Vec::new();
        // Takes an argument from `optim_args`, or else Trainer's own default.
        let mut take = |args: &mut Args, name: &'static str, kind: Kind, default: Option<Value>| {
            known.push(name);
            if let Some(value) = words.get(name, kind)?.or(default) {
                args.set(name, value);
            }
            Ok::<_, ArgError>(())
        };
        let float = |x: f64| Some(Value::Float(x));
        match optim {
            "adafactor" => {
                args.set("scale_parameter", false);
                args.set("relative_step", false);
            }
            "adamw_anyprecision" => {
                adam(&mut args);
                take(&mut args, "use_kahan_summation", Truth, Some(false.into()))?;
                take(&mut args, "momentum_dtype", Text, Some("float32".into()))?;
                take(&mut args, "variance_dtype", Text, Some("float32".into()))?;
                take(&mut args, "compensation_buffer_dtype", Text, Some("bfloat16".into()))?;
            }
            // Before 5 Trainer ignores their `optim_args`.
            "sgd" | "adagrad" | "rmsprop" => {
                let own: &[(&'static str, Kind)] = match optim {
                    "sgd" => &[("momentum", Float), ("dampening", Float), ("nesterov", Yes)],
                    "adagrad" => &[("lr_decay", Float), ("eps", Float)],
                    _ => {
                        &[("momentum", Float), ("alpha", Float), ("eps", Float), ("centered", Yes)]
                    }
                };
                for &(name, kind) in own {
                    take(&mut args, name, if five { kind } else { Unread }, None)?;
                }
                take(&mut args, "weight_decay", if five { Float } else { Unread }, None)?;
            }
            "rmsprop_bnb" | "rmsprop_bnb_8bit" | "rmsprop_bnb_32bit" => {
                for name in ["alpha", "eps", "momentum"] {
                    take(&mut args, name, Refused, None)?;
                }
                take(&mut args, "centered", Any, None)?;
            }
            "ademamix" | "ademamix_8bit" | "paged_ademamix_32bit" | "paged_ademamix_8bit" => {
                let mut betas = Args::new();
                take(&mut betas, "beta1", Float, float(self.adam_beta1))?;
                take(&mut betas, "beta2", Float, float(self.adam_beta2))?;
                take(&mut betas, "beta3", Float, float(0.9999))?;
                let betas: Vec<Value> = betas.iter().map(|(_, beta)| beta.clone()).collect();
                args.set("betas", betas);
                take(&mut args, "alpha", Float, float(5.0))?;
                take(&mut args, "eps", Float, float(self.adam_epsilon))?;
                take(&mut args, "t_alpha", Int, None)?;
                take(&mut args, "t_beta3", Int, None)?;
            }
            "lion_32bit" | "lion_8bit" | "paged_lion_32bit" | "paged_lion_8bit" => {
                args.set("betas", [self.adam_beta1, self.adam_beta2]);
            }
            "grokadamw" => {
                take(&mut args, "alpha_init", Float, float(0.98))?;
                take(&mut args, "lamb", Float, float(2.0))?;
                take(&mut args, "gamma", Float, float(0.1))?;
                take(&mut args, "grokking_signal_decay_rate", Float, float(0.1))?;
                take(&mut args, "gradient_clipping", Float, float(1.0))?;
            }
            "adamw_torch_4bit" | "adamw_torch_8bit" => {
                adam(&mut args);
                let size = five.then_some(Value::Int(256));
                take(&mut args, "block_size", if five { Refused } else { Unread }, size)?;
                let (name, kind) = ("bf16_stochastic_round", if five { Truth } else { Unread });
                take(&mut args, name, kind, None)?;
            }
            "schedule_free_radam" | "schedule_free_adamw" | "schedule_free_sgd" => {
                if optim != "schedule_free_sgd" {
                    adam(&mut args);
                }
                if optim != "schedule_free_radam" {
                    args.set("warmup_steps", self.warmup_steps);
                }
                take(&mut args, "weight_lr_power", Float, float(2.0))?;
                take(&mut args, "r", Float, float(0.0))?;
            }
            "stable_adamw" => {
                adam(&mut args);
                take(&mut args, "max_lr", Float, None)?;
                take(&mut args, "decouple_lr", Any, None)?;
                take(&mut args, "kahan_sum", Any, None)?;
            }
            _ if low_rank => {
                let (galore, target) = (optim.starts_with("galore"), members == GroupKind::Target);
                // 4.49 leaves APOLLO with the defaults of its own constructor.
                if target && !galore && self.version > Version::V4_49 {
                    adam(&mut args);
                }
                let mut own = Args::new();
                take(&mut own, "rank", Int, Some(128.into()))?;
                take(&mut own, "update_proj_gap", Int, Some(200.into()))?;
                take(&mut own, "scale", Float, float(if galore { 0.25 } else { 1.0 }))?;
                take(&mut own, "proj_type", Text, Some("std".into()))?;
                if !galore {
                    take(&mut own, "proj", Text, Some("random".into()))?;
                    take(&mut own, "scale_type", Text, Some("channel".into()))?;
                }
                if target {
                    own.iter().for_each(|(name, value)| args.set(name, value.clone()));
                }
                // The layerwise variant is absent: Adafactor keeps its own defaults there.
                if optim == "galore_adafactor" {
                    args.set("scale_parameter", false);
                    args.set("relative_step", false);
                }
            }
            "lomo" | "adalomo" => {}
            _ => adam(&mut args),
        }
        if self.is_bnb_8bit() {
            // An argument that Trainer ignores: whether to quantize as on the GPU or on the CPU.
            take(&mut args, "quantizer", Text, None)?;
        }
        match words.names().find(|name| !known.contains(name)) {
            None => Ok(args),
            Some(name) => Err(ArgError::UnknownArgument {
                of: self.optim.clone(),
                argument: name.into(),
                nearest: nearest(name, known),
            }),
        }
    }
}

/// The registry name of an optimizer: some of Trainer's names differ only in where a step runs.
fn name_of(optim: &str) -> &str {
    match optim {
        "adamw_torch_xla" => "adamw_torch",
        "adamw_torch_npu_fused" => "adamw_torch_fused",
        // Apex has AdamW's formula; it runs on CUDA only, with another order of operations.
        "adamw_apex_fused" => "adamw_torch_fused",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(optim: &str, optim_args: &str, members: GroupKind) -> Args {
        let args = TrainingArguments {
            optim: optim.into(),
            optim_args: optim_args.into(),
            ..TrainingArguments::default()
        };
        args.arguments(members, &Words::parse(optim_args).unwrap()).unwrap()
    }

    #[test]
    fn adafactor_gets_trainers_own_arguments() {
        let args = of("adafactor", "", GroupKind::Decay);
        assert_eq!(args.get("scale_parameter"), Some(&Value::Bool(false)));
        assert_eq!(args.get("relative_step"), Some(&Value::Bool(false)));
        assert_eq!(args.get("betas"), None);
    }

    #[test]
    fn decay_is_the_groups_and_optim_args_do_not_change_it() {
        let decay = |optim: &str, weight_decay, optim_args: &str, members| {
            let args = TrainingArguments {
                optim: optim.into(),
                optim_args: optim_args.into(),
                weight_decay,
                ..TrainingArguments::default()
            };
            let mut spec = args.optimizer_spec(members)?;
            Ok::<_, ArgError>(Args::of(spec.rule.hyper_params()).get("weight_decay").cloned())
        };
        let of = |members| decay("sgd", 0.5, "weight_decay=0.9", members);
        assert_eq!(of(GroupKind::Decay), Ok(Some(Value::Float(0.5))));
        assert_eq!(of(GroupKind::NoDecay), Ok(Some(Value::Float(0.0))));
        // A constructor checks its own decay, but not a group's; StableAdamW's gets both.
        assert!(decay("sgd", 0.5, "weight_decay=-0.9", GroupKind::Decay).is_err());
        let negative = Ok(Some(Value::Float(-0.5)));
        assert_eq!(decay("adamw_torch", -0.5, "", GroupKind::Decay), negative);
        assert!(decay("stable_adamw", -0.5, "", GroupKind::Decay).is_err());
    }

    #[test]
    fn stable_adamw_takes_any_text_for_true() {
        let args = of("stable_adamw", "decouple_lr=False", GroupKind::Decay);
        assert_eq!(args.get("decouple_lr"), Some(&Value::Bool(true)));
        assert_eq!(args.get("kahan_sum"), None);
        let args = of("stable_adamw", "kahan_sum=", GroupKind::Decay);
        assert_eq!(args.get("kahan_sum"), Some(&Value::Bool(false)));
    }

    #[test]
    fn low_rank_arguments_go_to_the_target_group_only() {
        let rank = |members| of("apollo_adamw", "rank=4", members).get("rank").cloned();
        assert_eq!(rank(GroupKind::Target), Some(Value::Int(4)));
        assert_eq!(rank(GroupKind::NoDecay), None);
        assert!(of("apollo_adamw", "", GroupKind::Target).get("betas").is_some());
        assert!(of("apollo_adamw", "", GroupKind::NoDecay).get("betas").is_none());
    }
}
