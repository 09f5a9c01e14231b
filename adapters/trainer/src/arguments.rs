//! `TrainingArguments` files.

use std::collections::BTreeMap;
use std::path::Path;

use bitstep::hyper::{ArgError, Args, Short, Value};
use thiserror::Error;

use crate::checkpoint::CheckpointError;
use crate::json;
use crate::keys::{self, IGNORED, MUST_BE_OFF, ONLY_5, READ};
use crate::training_arguments::TrainingArguments;
use crate::version::Version;

/// Why training can't be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Not JSON.
    #[error("training arguments: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but not an object.
    #[error("training arguments: wanted an object")]
    NotAnObject,
    /// An unknown key.
    #[error("training arguments: unknown key `{}`{}", Short(key), hint(nearest))]
    UnknownKey {
        /// The key.
        key: String,
        /// The most similar known key, if any is similar.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong type or range.
    #[error("training arguments: `{key}` is {}, wanted {expected}", Short(value))]
    Value {
        /// The key.
        key: &'static str,
        /// Its value in the file.
        value: String,
        /// The accepted values.
        expected: &'static str,
    },
    /// A regular expression that is invalid, or uses features that Rust's `regex` lacks.
    #[error("`optim_target_modules`: {0}")]
    Pattern(#[from] regex::Error),
    /// An optimizer that needs `optim_target_modules`, which are not set or match nothing.
    #[error(
        "`{optim}` needs `optim_target_modules` that fit a linear layer, got {}",
        Short(targets)
    )]
    Targets {
        /// The optimizer.
        optim: String,
        /// The value in the file.
        targets: String,
    },
    /// A parameter name that a checkpoint can't have.
    #[error(transparent)]
    Name(#[from] CheckpointError),
    /// Gradient accumulation with an optimizer that uses and frees each gradient in the backward pass.
    #[error(
        "`{optim}` does not support gradient accumulation: `gradient_accumulation_steps` is {steps}, wanted 1"
    )]
    LayerwiseAccumulation {
        /// The optimizer.
        optim: String,
        /// Micro-batches to a step.
        steps: u64,
    },
    /// A schedule driven by a metric, with an optimizer that has a schedule per parameter.
    #[error(
        "`{optim}` can't follow `{schedule}`: it hands no metric to the schedules of its parameters"
    )]
    LayerwiseMetric {
        /// The optimizer.
        optim: String,
        /// The schedule.
        schedule: String,
    },
    /// The number of steps is neither in the file nor passed.
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

/// The maximum size of a file in bytes.
const LONGEST: u64 = 1 << 20;

/// `optim_target_modules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Every linear layer.
    AllLinear,
    /// The layers whose whole name matches a regular expression.
    Pattern(String),
    /// The layers whose name contains one of these, or matches one as a regular expression.
    List(Vec<String>),
}

/// The part of a `TrainingArguments` file that affects how parameters are updated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    /// Optimizer, schedule, clipping, accumulation.
    pub training: TrainingArguments,
    /// The layers that GaLore and APOLLO project.
    pub optim_target_modules: Option<Targets>,
    /// `max_steps`, if it is above 0.
    pub max_steps: Option<u64>,
    /// Whether the loss is scaled.
    pub fp16: bool,
    /// Whether the `*_layerwise` optimizers follow the schedule, as they did before Transformers 5.12.
    /// Since then each parameter keeps its initial learning rate, without warm-up, because of a bug:
    /// the hooks that would change it are never registered. `None` does what the version does.
    pub layerwise_schedule: Option<bool>,
}

impl Arguments {
    /// Reads a regular file of at most 1 MiB. (Transformers writes a few thousand bytes.)
    ///
    /// # Errors
    /// [`TrainingError`].
    pub fn read(path: impl AsRef<Path>) -> Result<Arguments, TrainingError> {
        Self::from_json(&text(path.as_ref())?)
    }

    /// [`read`](Self::read) as this version's Trainer would.
    ///
    /// # Errors
    /// [`TrainingError`].
    pub fn read_as(path: impl AsRef<Path>, version: Version) -> Result<Arguments, TrainingError> {
        Self::from_json_as(&text(path.as_ref())?, version)
    }

    /// Parses the output of `TrainingArguments.to_json_string()` as the version that wrote it would,
    /// which is told by keys that only some versions have; without any it is the newest. A missing
    /// key has Transformers' default; an unknown one is an error.
    ///
    /// # Errors
    /// [`TrainingError`].
    pub fn from_json(text: &str) -> Result<Arguments, TrainingError> {
        let file = object(text)?;
        let version = keys::version(&file);
        Self::of(File { keys: file, version })
    }

    /// [`from_json`](Self::from_json) as this version's Trainer would.
    ///
    /// # Errors
    /// [`TrainingError`].
    ///
    /// ```
    /// use bitstep_trainer::{Arguments, Version};
    /// let args = Arguments::from_json_as(r#"{"max_grad_norm": null}"#, Version::V4_57)?;
    /// assert_eq!(args.training.max_grad_norm, 0.0); // no clipping
    /// assert!(Arguments::from_json_as(r#"{"max_grad_norm": null}"#, Version::V5_23).is_err());
    /// # Ok::<(), bitstep_trainer::TrainingError>(())
    /// ```
    pub fn from_json_as(text: &str, version: Version) -> Result<Arguments, TrainingError> {
        Self::of(File { keys: object(text)?, version })
    }

    fn of(file: File) -> Result<Arguments, TrainingError> {
        file.check_keys()?;
        let mut args = Arguments::default();
        let t = &mut args.training;
        t.version = file.version;
        let before_5 = file.version < Version::V5_23;
        if file.version == Version::V4_49 {
            "adamw_torch".clone_into(&mut t.optim); // its default
        }
        file.text("optim", &mut t.optim)?;
        if file.flag("adafactor")? {
            if !before_5 {
                let expected = "left out: 5 has `optim` for it";
                return Err(bad("adafactor", &Value::Bool(true), expected));
            }
            "adafactor".clone_into(&mut t.optim);
        }
        if file.get("optim_args").is_some() {
            file.text("optim_args", &mut t.optim_args)?;
        }
        file.float("learning_rate", &mut t.learning_rate)?;
        file.float("weight_decay", &mut t.weight_decay)?;
        file.float("adam_beta1", &mut t.adam_beta1)?;
        file.float("adam_beta2", &mut t.adam_beta2)?;
        file.float("adam_epsilon", &mut t.adam_epsilon)?;
        file.warmup(t)?;
        file.text("lr_scheduler_type", &mut t.lr_scheduler_type)?;
        t.lr_scheduler_kwargs = file.kwargs()?;
        if before_5 && file.keys.get("max_grad_norm") == Some(&Value::None) {
            t.max_grad_norm = 0.0;
        } else {
            file.float("max_grad_norm", &mut t.max_grad_norm)?;
        }
        if let Some(steps) = file.count("gradient_accumulation_steps")? {
            t.gradient_accumulation_steps = steps;
        }
        if let Some(steps) = file.num_steps(t.gradient_accumulation_steps)? {
            t.gradient_accumulation_steps = steps;
        }
        if file.get("neftune_noise_alpha").is_some() {
            let mut alpha = 0.0;
            file.float("neftune_noise_alpha", &mut alpha)?;
            t.neftune_noise_alpha = Some(alpha);
        }
        args.max_steps = file.whole("max_steps")?.and_then(|n| u64::try_from(n).ok());
        args.max_steps = args.max_steps.filter(|&n| n > 0);
        args.optim_target_modules = file.targets()?;
        args.fp16 = file.flag("fp16")?;
        Ok(args)
    }
}

fn text(path: &Path) -> Result<String, TrainingError> {
    crate::file::read(path, LONGEST)
        .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
        .map_err(|source| TrainingError::Io { path: path.display().to_string(), source })
}

fn object(text: &str) -> Result<BTreeMap<String, Value>, TrainingError> {
    match json::read(text)? {
        Value::Map(map) => Ok(map.into_iter().collect()),
        _ => Err(TrainingError::NotAnObject),
    }
}

fn bad(key: &'static str, value: &Value, expected: &'static str) -> TrainingError {
    let mut value = value.to_string();
    if let Some((end, _)) = value.char_indices().nth(200) {
        value.truncate(end);
        value.push('…');
    }
    TrainingError::Value { key, value, expected }
}

struct File {
    keys: BTreeMap<String, Value>,
    version: Version,
}

impl File {
    /// The value of a key, if it is there and not null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|v| **v != Value::None)
    }

    fn check_keys(&self) -> Result<(), TrainingError> {
        for (key, value) in &self.keys {
            let key = key.as_str();
            if let Some(key) = MUST_BE_OFF.iter().copied().find(|k| *k == key) {
                let off = match value {
                    Value::None | Value::Bool(false) => true,
                    Value::Str(s) => s.is_empty(),
                    Value::List(list) => list.is_empty(),
                    _ => false,
                };
                if !off {
                    return Err(bad(key, value, "off: it is not supported"));
                }
            } else if !READ.contains(&key) && !IGNORED.contains(&key) {
                let known = READ.iter().chain(MUST_BE_OFF).copied();
                let nearest = bitstep::hyper::nearest(key, known);
                return Err(TrainingError::UnknownKey { key: key.to_owned(), nearest });
            }
        }
        Ok(())
    }

    fn text(&self, key: &'static str, to: &mut String) -> Result<(), TrainingError> {
        if let Some(v) = self.keys.get(key) {
            v.as_str().ok_or_else(|| bad(key, v, "a string"))?.clone_into(to);
        }
        Ok(())
    }

    fn float(&self, key: &'static str, to: &mut f64) -> Result<(), TrainingError> {
        match self.keys.get(key) {
            None => {}
            Some(v @ Value::Str(_)) => return Err(bad(key, v, "a number, not in quotes")),
            Some(v) => *to = v.as_f64().ok_or_else(|| bad(key, v, "a number"))?,
        }
        Ok(())
    }

    fn flag(&self, key: &'static str) -> Result<bool, TrainingError> {
        self.get(key).map_or(Ok(false), |v| v.as_bool().ok_or_else(|| bad(key, v, "true or false")))
    }

    fn whole(&self, key: &'static str) -> Result<Option<i64>, TrainingError> {
        let read = |v: &Value| match v {
            Value::Int(n) => Ok(*n),
            v => Err(bad(key, v, "a whole number, without a point")),
        };
        self.keys.get(key).map(read).transpose()
    }

    fn count(&self, key: &'static str) -> Result<Option<u64>, TrainingError> {
        let Some(v) = self.keys.get(key) else { return Ok(None) };
        let n = self.whole(key)?.and_then(|n| u64::try_from(n).ok()).filter(|&n| n > 0);
        n.map(Some).ok_or_else(|| bad(key, v, "a number from 1"))
    }

    fn warmup(&self, t: &mut TrainingArguments) -> Result<(), TrainingError> {
        if self.version < Version::V5_23 {
            if let Some(v) = self.keys.get("warmup_steps").filter(|v| !matches!(v, Value::Int(_))) {
                return Err(bad("warmup_steps", v, "a whole number, without a point"));
            }
            self.float("warmup_ratio", &mut t.warmup_ratio)?;
        }
        self.float("warmup_steps", &mut t.warmup_steps)?;
        let ratio = self.get("warmup_ratio").filter(|_| self.version >= Version::V5_23);
        let Some(ratio) = ratio else { return Ok(()) };
        // The first versions of 5 wrote both keys, and used it as `warmup_steps`.
        if ONLY_5.iter().any(|key| self.keys.contains_key(*key)) {
            return self.float("warmup_ratio", &mut t.warmup_steps);
        }
        Err(bad("warmup_ratio", ratio, "left out: `warmup_steps` below 1 is a share"))
    }

    /// A dictionary, or a string that Trainer parses to one.
    fn kwargs(&self) -> Result<Args, TrainingError> {
        const KEY: &str = "lr_scheduler_kwargs";
        let Some(given) = self.get(KEY) else { return Ok(Args::new()) };
        let map: BTreeMap<_, _> = match given {
            Value::Map(map) => map.iter().cloned().collect(),
            Value::Str(text) if text.starts_with('{') => {
                object(text)?.into_iter().map(|(name, v)| (name, unquoted(v))).collect()
            }
            _ => return Err(bad(KEY, given, "a dictionary")),
        };
        // Bounded, as each key is compared with all before it.
        if map.len() > 1000 {
            return Err(bad(KEY, given, "a dictionary of at most 1000 keys"));
        }
        // Trainer passes a string on unconverted, with which a schedule can't compute.
        if let Some((_, v)) = map.iter().find(|(_, v)| v.as_str().is_some() && v.as_f64().is_some())
        {
            return Err(bad(KEY, v, "a dictionary of numbers that are not in quotes"));
        }
        Ok(map.into_iter().collect())
    }

    /// `accelerator_config.gradient_accumulation_kwargs.num_steps`, which Trainer uses as
    /// `gradient_accumulation_steps`, and refuses if that is above 1.
    fn num_steps(&self, other: u64) -> Result<Option<u64>, TrainingError> {
        const KEY: &str = "accelerator_config";
        let Some(config) = self.get(KEY) else { return Ok(None) };
        // Trainer also accepts the name of a file.
        let Value::Map(config) = config else { return Err(bad(KEY, config, "a dictionary")) };
        let of = |map: &[(String, Value)], key| {
            map.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
        };
        let kwargs = match of(config, "gradient_accumulation_kwargs") {
            None | Some(Value::None) => return Ok(None),
            Some(Value::Map(kwargs)) => kwargs,
            Some(v) => {
                return Err(bad(KEY, &v, "`gradient_accumulation_kwargs` that are a dictionary"));
            }
        };
        let Some(steps) = of(&kwargs, "num_steps") else { return Ok(None) };
        if other > 1 {
            let expected = "no `num_steps` beside a `gradient_accumulation_steps` above 1 (once it \
                 has begun, Trainer itself writes both: leave this one out)";
            return Err(bad(KEY, &steps, expected));
        }
        match steps {
            Value::Int(n) if n > 0 => Ok(Some(n.unsigned_abs())),
            steps => Err(bad(KEY, &steps, "a `num_steps` from 1")),
        }
    }

    fn targets(&self) -> Result<Option<Targets>, TrainingError> {
        const KEY: &str = "optim_target_modules";
        let expected = "a string or a list of strings";
        Ok(match self.get(KEY) {
            None => None,
            Some(Value::Str(s)) if s.replace('_', "-") == "all-linear" => Some(Targets::AllLinear),
            Some(Value::Str(s)) => Some(Targets::Pattern(s.clone())),
            Some(v) => {
                let list = v.as_list().ok_or_else(|| bad(KEY, v, expected))?;
                let names = list.iter().map(|s| s.as_str().map(str::to_owned));
                let names = names.collect::<Option<_>>().ok_or_else(|| bad(KEY, v, expected))?;
                Some(Targets::List(names))
            }
        })
    }
}

/// Trainer's conversion of a string inside a dictionary that was itself written as a string.
fn unquoted(value: Value) -> Value {
    let Value::Str(s) = &value else { return value };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    match s.to_lowercase().as_str() {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if digits(s) || digits(&s.replacen('.', "", 1)) => Value::parse(s),
        _ => value,
    }
}
