//! A `TrainingArguments` file.

use std::path::Path;

use bitstep::args::{ArgError, Args, Value};
use bitstep::training::TrainingArguments;
use serde_json::{Map, Value as Json};
use thiserror::Error;

use crate::json;

/// Why training can't be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not JSON.
    #[error("training arguments: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but not an object.
    #[error("training arguments: wanted an object")]
    NotAnObject,
    /// A key that is neither known nor known to be of no account.
    #[error("training arguments: unknown key `{key}`{}", hint(nearest))]
    UnknownKey {
        /// The key.
        key: String,
        /// The known key that is most like it, if one is.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong type or range.
    #[error("training arguments: `{key}` is {value}, wanted {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// What stands there.
        value: String,
        /// What is accepted.
        wanted: &'static str,
    },
    /// A regular expression that can't be read, or needs what Rust's `regex` does not have.
    #[error("`optim_target_modules`: {0}")]
    Pattern(#[from] regex::Error),
    /// An optimizer that needs `optim_target_modules`, which are not set or fit nothing.
    #[error("`{optim}` needs `optim_target_modules` that fit a linear layer, got {targets}")]
    Targets {
        /// The optimizer.
        optim: String,
        /// What was given.
        targets: String,
    },
    /// The number of steps is neither in the file nor given.
    #[error("`max_steps` is not set: give the number of steps")]
    Steps,
    /// An optimizer, schedule or argument that is refused.
    #[error(transparent)]
    Argument(#[from] ArgError),
    /// A configuration that the core refuses.
    #[error(transparent)]
    Core(#[from] bitstep::Error),
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map_or(String::new(), |n| format!("; did you mean `{n}`?"))
}

/// How many bytes a file may have.
const LONGEST: u64 = 1 << 20;

/// `optim_target_modules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Every linear layer.
    AllLinear,
    /// The layers whose whole name fits a regular expression.
    Pattern(String),
    /// The layers whose name has one of these in it, or fits one as a regular expression.
    List(Vec<String>),
}

/// What a `TrainingArguments` file says about how parameters move.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    /// Optimizer, schedule, clipping, accumulation.
    pub training: TrainingArguments,
    /// The layers that GaLore and APOLLO project.
    pub optim_target_modules: Option<Targets>,
    /// Steps in all, if the file has a number above 0.
    pub max_steps: Option<u64>,
    /// Whether the loss is scaled.
    pub fp16: bool,
}

impl Arguments {
    /// Reads a file: a regular one of at most 1 MiB. Transformers writes a few thousand bytes.
    ///
    /// # Errors
    /// [`TrainingError`].
    pub fn read(path: impl AsRef<Path>) -> Result<Arguments, TrainingError> {
        let path = path.as_ref();
        let text = crate::file::read(path, LONGEST)
            .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
            .map_err(|source| TrainingError::Io { path: path.display().to_string(), source })?;
        Self::from_json(&text)
    }

    /// Reads what `TrainingArguments.to_json_string()` writes. A key that is left out has
    /// Transformers' default; one that is not known is an error.
    ///
    /// # Errors
    /// [`TrainingError`].
    pub fn from_json(text: &str) -> Result<Arguments, TrainingError> {
        let Json::Object(map) = serde_json::from_str(text)? else {
            return Err(TrainingError::NotAnObject);
        };
        let file = File(map);
        file.check_keys()?;
        let mut args = Arguments::default();
        let t = &mut args.training;
        file.text("optim", &mut t.optim)?;
        file.text("optim_args", &mut t.optim_args)?;
        file.float("learning_rate", &mut t.learning_rate)?;
        file.float("weight_decay", &mut t.weight_decay)?;
        file.float("adam_beta1", &mut t.adam_beta1)?;
        file.float("adam_beta2", &mut t.adam_beta2)?;
        file.float("adam_epsilon", &mut t.adam_epsilon)?;
        file.float("warmup_steps", &mut t.warmup_steps)?;
        // Files of Transformers before 5 have both; a number of steps goes first.
        let mut ratio = 0.0;
        file.float("warmup_ratio", &mut ratio)?;
        if t.warmup_steps == 0.0 {
            t.warmup_steps = ratio;
        }
        file.text("lr_scheduler_type", &mut t.lr_scheduler_type)?;
        if let Some(kwargs) = file.get("lr_scheduler_kwargs") {
            // Each key is looked for among those before it.
            let wanted = "a dictionary of at most 1000 keys";
            let map = kwargs.as_object().filter(|map| map.len() <= 1000);
            let map = map.ok_or_else(|| bad("lr_scheduler_kwargs", kwargs, wanted))?;
            t.lr_scheduler_kwargs =
                map.iter().map(|(k, v)| (k.clone(), json::value(v))).collect::<Args>();
        }
        file.float("max_grad_norm", &mut t.max_grad_norm)?;
        if let Some(steps) = file.count("gradient_accumulation_steps")? {
            t.gradient_accumulation_steps = steps;
        }
        let mut alpha = f64::NAN;
        file.float("neftune_noise_alpha", &mut alpha)?;
        t.neftune_noise_alpha = (!alpha.is_nan()).then_some(alpha);
        args.max_steps = file.whole("max_steps")?.and_then(|n| u64::try_from(n).ok());
        args.max_steps = args.max_steps.filter(|&n| n > 0);
        args.optim_target_modules = file.targets()?;
        args.fp16 = match file.get("fp16") {
            None => false,
            Some(v) => v.as_bool().ok_or_else(|| bad("fp16", v, "true or false"))?,
        };
        Ok(args)
    }
}

fn bad(key: &'static str, value: &Json, wanted: &'static str) -> TrainingError {
    let mut value = value.to_string();
    if let Some((end, _)) = value.char_indices().nth(200) {
        value.truncate(end);
        value.push('…');
    }
    TrainingError::Value { key, value, wanted }
}

struct File(Map<String, Json>);

impl File {
    /// The value of a key, if it is there and not null.
    fn get(&self, key: &str) -> Option<&Json> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn check_keys(&self) -> Result<(), TrainingError> {
        for (key, value) in &self.0 {
            let key = key.as_str();
            if let Some(key) = MUST_BE_OFF.iter().copied().find(|k| *k == key) {
                let off = match value {
                    Json::Null | Json::Bool(false) => true,
                    Json::String(s) => s.is_empty(),
                    Json::Array(list) => list.is_empty(),
                    _ => false,
                };
                if !off {
                    return Err(bad(key, value, "off: it is not supported"));
                }
            } else if !READ.contains(&key) && !IGNORED.contains(&key) {
                let known = READ.iter().chain(MUST_BE_OFF).copied();
                let nearest = bitstep::args::nearest(key, known);
                return Err(TrainingError::UnknownKey { key: key.to_owned(), nearest });
            }
        }
        Ok(())
    }

    fn text(&self, key: &'static str, to: &mut String) -> Result<(), TrainingError> {
        if let Some(v) = self.get(key) {
            *to = v.as_str().ok_or_else(|| bad(key, v, "a string"))?.to_owned();
        }
        Ok(())
    }

    fn float(&self, key: &'static str, to: &mut f64) -> Result<(), TrainingError> {
        if let Some(v) = self.get(key) {
            *to = json::as_f64(v).ok_or_else(|| bad(key, v, "a number"))?;
        }
        Ok(())
    }

    fn whole(&self, key: &'static str) -> Result<Option<i64>, TrainingError> {
        let read = |v: &Json| match json::value(v) {
            Value::Bool(_) => None,
            v => v.as_i64(),
        };
        self.get(key).map(|v| read(v).ok_or_else(|| bad(key, v, "a whole number"))).transpose()
    }

    fn count(&self, key: &'static str) -> Result<Option<u64>, TrainingError> {
        let Some(v) = self.get(key) else { return Ok(None) };
        let n = self.whole(key)?.and_then(|n| u64::try_from(n).ok()).filter(|&n| n > 0);
        n.map(Some).ok_or_else(|| bad(key, v, "a number from 1"))
    }

    fn targets(&self) -> Result<Option<Targets>, TrainingError> {
        const KEY: &str = "optim_target_modules";
        let wanted = "a string or a list of strings";
        Ok(match self.get(KEY) {
            None => None,
            Some(Json::String(s)) if s.replace('_', "-") == "all-linear" => {
                Some(Targets::AllLinear)
            }
            Some(Json::String(s)) => Some(Targets::Pattern(s.clone())),
            Some(v) => {
                let list = v.as_array().ok_or_else(|| bad(KEY, v, wanted))?;
                let names = list.iter().map(|s| s.as_str().map(str::to_owned));
                let names = names.collect::<Option<_>>().ok_or_else(|| bad(KEY, v, wanted))?;
                Some(Targets::List(names))
            }
        })
    }
}

/// Keys that decide how parameters move.
const READ: &[&str] = &[
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "fp16",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_kwargs",
    "lr_scheduler_type",
    "max_grad_norm",
    "max_steps",
    "neftune_noise_alpha",
    "optim",
    "optim_args",
    "optim_target_modules",
    "warmup_ratio",
    "warmup_steps",
    "weight_decay",
];

/// Keys that change who moves the parameters, or how gradients come about.
const MUST_BE_OFF: &[&str] = &["adafactor", "deepspeed", "fsdp", "parallelism_config"];

/// The other keys of Transformers 4.49 to 5.23: about data, logging, saving, devices and the
/// forward pass.
const IGNORED: &[&str] = &[
    "accelerator_config",
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "auto_find_batch_size",
    "average_tokens_across_devices",
    "batch_eval_metrics",
    "bf16",
    "bf16_full_eval",
    "data_seed",
    "dataloader_drop_last",
    "dataloader_in_order",
    "dataloader_multiprocessing_context",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "ddp_backend",
    "ddp_broadcast_buffers",
    "ddp_bucket_cap_mb",
    "ddp_find_unused_parameters",
    "ddp_static_graph",
    "ddp_timeout",
    "debug",
    "disable_tqdm",
    "dispatch_batches",
    "do_eval",
    "do_predict",
    "do_train",
    "enable_jit_checkpoint",
    "eval_accumulation_steps",
    "eval_delay",
    "eval_do_concat_batches",
    "eval_on_start",
    "eval_steps",
    "eval_strategy",
    "eval_use_gather_object",
    "evaluation_strategy",
    "fp16_backend",
    "fp16_full_eval",
    "fp16_opt_level",
    "fsdp_config",
    "fsdp_min_num_params",
    "fsdp_transformer_layer_cls_to_wrap",
    "full_determinism",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "greater_is_better",
    "group_by_length",
    "half_precision_backend",
    "hub_always_push",
    "hub_model_id",
    "hub_private_repo",
    "hub_revision",
    "hub_strategy",
    "hub_token",
    "ignore_data_skip",
    "include_for_metrics",
    "include_inputs_for_metrics",
    "include_num_input_tokens_seen",
    "include_tokens_per_second",
    "jit_mode_eval",
    "label_names",
    "label_smoothing_factor",
    "length_column_name",
    "liger_kernel_config",
    "load_best_model_at_end",
    "local_rank",
    "log_level",
    "log_level_replica",
    "log_on_each_node",
    "logging_dir",
    "logging_first_step",
    "logging_nan_inf_filter",
    "logging_steps",
    "logging_strategy",
    "metric_for_best_model",
    "mp_parameters",
    "no_cuda",
    "num_train_epochs",
    "output_dir",
    "overwrite_output_dir",
    "past_index",
    "per_device_eval_batch_size",
    "per_device_train_batch_size",
    "per_gpu_eval_batch_size",
    "per_gpu_train_batch_size",
    "prediction_loss_only",
    "project",
    "push_to_hub",
    "push_to_hub_model_id",
    "push_to_hub_organization",
    "push_to_hub_token",
    "ray_scope",
    "remove_unused_columns",
    "report_to",
    "restore_callback_states_from_checkpoint",
    "resume_from_checkpoint",
    "run_name",
    "save_on_each_node",
    "save_only_model",
    "save_safetensors",
    "save_steps",
    "save_strategy",
    "save_total_limit",
    "seed",
    "skip_memory_metrics",
    "split_batches",
    "tf32",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
    "torch_empty_cache_steps",
    "torchdynamo",
    "tpu_metrics_debug",
    "tpu_num_cores",
    "trackio_bucket_id",
    "trackio_space_id",
    "trackio_static_space_id",
    "train_sampling_strategy",
    "use_cache",
    "use_cpu",
    "use_ipex",
    "use_legacy_prediction_loop",
    "use_liger_kernel",
    "use_mps_device",
];
