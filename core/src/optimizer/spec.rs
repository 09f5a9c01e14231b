//! [`OptimizerSpec`]: a rule with its compute policy and storage formats.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::error::Error;
use crate::float::Dtype;
use crate::hyper::{ArgError, Args, Value, nearest};
use crate::rule::{ComputePolicy, DynRule, NOT_EAGER};
use crate::storage::{RawDtype, StorageFormat, common_block, numel};

/// A rule, its compute policy, and how its state is stored: all that a registry name stands for.
#[derive(Clone, Debug)]
pub struct OptimizerSpec {
    /// The update rule with its hyper-parameters.
    pub rule: Box<dyn DynRule>,
    /// The type that a step is computed in.
    pub policy: ComputePolicy,
    /// The type of every plain state slot; `None` for the rule's own choice.
    pub state_dtype: Option<Dtype>,
    /// Encoded storage of state and of parameters.
    pub storage: StorageConfig,
}

impl OptimizerSpec {
    /// A rule whose parameters and state are plain values.
    pub fn new(rule: impl DynRule + 'static, policy: ComputePolicy) -> OptimizerSpec {
        OptimizerSpec {
            rule: Box::new(rule),
            policy,
            state_dtype: None,
            storage: StorageConfig::default(),
        }
    }

    /// This spec with some arguments overridden, as by a parameter group.
    ///
    /// # Errors
    /// An unknown argument, or a refused value.
    ///
    /// ```
    /// use bitstep::prelude::*;
    /// let spec = registry::optimizer("adamw_torch", [("lr", 1e-3), ("eps", 1e-6)])?;
    /// assert_eq!(spec.with_args(&[("lr", 1e-4)].into())?.rule.lr(), 1e-4);
    /// # Ok::<(), bitstep::hyper::ArgError>(())
    /// ```
    pub fn with_args(&self, args: &Args) -> Result<OptimizerSpec, ArgError> {
        let mut spec = self.clone();
        args.apply("a parameter group", spec.rule.hyper_params())?;
        spec.check()?;
        Ok(spec)
    }

    /// This spec with another storage, by the names of formats in saved files. `storage` is one format for all slots, or a
    /// dictionary of slots and formats; `weights` is that of 16-bit parameters: `plain`, `split:8`, `split:16`, `kahan`
    /// or `stochastic:SEED`. `None` leaves what the spec has.
    ///
    /// # Errors
    /// An unknown slot or format.
    ///
    /// ```
    /// use bitstep::{hyper::Value, prelude::*};
    /// let radam = registry::optimizer("radam", Args::new())?;
    /// let formats = Value::Map(vec![("exp_avg".into(), "companded:momentum".into())]);
    /// let small = radam.with_storage(&formats, &"split:8".into())?; // weights of 24 bits
    /// assert_eq!(small.bytes_per_parameter(&[1 << 20], Dtype::Bf16), 5.0 + 17.0 / 16.0 + 2.0);
    /// assert!(radam.with_storage(&"companded".into(), &Value::None).is_err());
    /// # Ok::<(), bitstep::hyper::ArgError>(())
    /// ```
    pub fn with_storage(
        &self,
        storage: &Value,
        weights: &Value,
    ) -> Result<OptimizerSpec, ArgError> {
        let refused = |argument: &str, value: &Value, expected: &str| ArgError::Value {
            argument: argument.to_owned(),
            value: value.clone(),
            expected: expected.to_owned(),
        };
        let format = |value: &Value| match value.as_str() {
            Some(text) => Ok(text.parse::<StorageFormat>()?),
            None => Err(refused("storage", value, "the name of a format")),
        };
        let mut spec = self.clone();
        let slots = self.rule.info().slots;
        let formats = &mut spec.storage.slot_formats;
        formats.resize(slots.len(), None);
        match storage {
            Value::None => {}
            Value::Map(map) => {
                for (name, value) in map {
                    let format = format(value)?;
                    if !slots.contains(&name.as_str()) {
                        return Err(ArgError::UnknownArgument {
                            of: "storage".to_owned(),
                            argument: name.clone(),
                            nearest: nearest(name, slots.iter().copied()),
                        });
                    }
                    let own = formats.iter_mut().zip(slots).filter(|(_, slot)| *slot == name);
                    own.for_each(|(to, _)| *to = Some(format));
                }
            }
            one => formats.fill(Some(format(one)?)),
        }
        match (weights, weights.as_str()) {
            (Value::None, _) => {}
            (_, Some(text)) => spec.storage.param = text.parse()?,
            (value, None) => return Err(refused("weights", value, "the name of a storage")),
        }
        Ok(spec)
    }

    /// Checks the arguments as the references check a parameter group's: against the rule's ranges, except that a
    /// `weight_decay` below 0 is accepted, which the references refuse in an optimizer's constructor only.
    ///
    /// # Errors
    /// The argument that is refused, or a rule that can't be computed under [`ComputePolicy::Eager`].
    pub fn check(&self) -> Result<(), Error> {
        if self.policy == ComputePolicy::Eager && !self.rule.info().is_eager {
            return Err(NOT_EAGER);
        }
        match self.rule.check() {
            refused @ Err(Error::OutOfRange { argument: "weight_decay", value, .. })
                if value < 0.0 =>
            {
                // Accepted only if the sign is the reason: some configurations refuse any decay.
                let mut rule = self.rule.clone();
                let positive = Args::new().with("weight_decay", 1.0);
                match positive.apply("a parameter group", rule.hyper_params()) {
                    Ok(()) if rule.check().is_ok() => Ok(()),
                    _ => refused,
                }
            }
            checked => checked,
        }
    }

    /// The compute type of a parameter. One in an encoded storage is computed in `f32`, unless the
    /// policy is [`ComputePolicy::Double`].
    pub(super) fn compute_dtype(&self, param: Option<Dtype>) -> Dtype {
        self.policy.compute(param.filter(|&d| self.storage.param.is_plain(d)))
    }

    /// The number of elements of a slot, for a parameter of this shape and type; 0 for an inactive slot.
    #[must_use]
    pub fn slot_len(&self, slot: usize, shape: &[usize], param: Dtype) -> usize {
        self.rule.slot_len(slot, shape, self.compute_dtype(Some(param)))
    }

    /// The format in which a slot is stored, for a parameter of this shape and type.
    #[must_use]
    pub fn slot_format(&self, slot: usize, shape: &[usize], param: Dtype) -> StorageFormat {
        let len = self.slot_len(slot, shape, param);
        let StorageConfig { slot_formats: slots, min_len, len_multiple: multiple, .. } =
            &self.storage;
        let eligible = len >= *min_len && len.is_multiple_of((*multiple).max(1));
        let encoded = slots.get(slot).copied().flatten().filter(|_| eligible);
        encoded.unwrap_or_else(|| self.plain_format(slot, param))
    }

    /// Where a parameter of this shape and type may be cut, so that each [part](super::Optimizer::add_part) is stepped on
    /// its own: after a multiple of this many elements. It is 1, or the length of a block for state in blocks; `None` if
    /// the update of an element depends on others.
    ///
    /// ```
    /// use bitstep::prelude::*;
    /// let multiple = |name| {
    ///     let spec = registry::optimizer(name, Args::new())?;
    ///     Ok::<_, bitstep::hyper::ArgError>(spec.part_multiple(&[64, 64], Dtype::F32))
    /// };
    /// assert_eq!(multiple("adamw_torch")?, Some(1));
    /// assert_eq!(multiple("adamw_bnb_8bit")?, Some(256));
    /// assert_eq!(multiple("adafactor")?, None);
    /// # Ok::<(), bitstep::hyper::ArgError>(())
    /// ```
    #[must_use]
    pub fn part_multiple(&self, shape: &[usize], param: Dtype) -> Option<usize> {
        let info = self.rule.info();
        let blocks = (0..info.slots.len()).map(|k| self.slot_format(k, shape, param).block());
        info.is_elementwise.then(|| common_block(usize::MAX, blocks))?
    }

    /// The format of a slot that is stored as plain values.
    pub(super) fn plain_format(&self, slot: usize, param: Dtype) -> StorageFormat {
        self.state_dtype.unwrap_or_else(|| self.rule.slot_dtype(slot, param)).into()
    }

    /// Bytes of memory per element of a parameter of this shape: the element, its gradient, its state and its correction.
    ///
    /// ```
    /// use bitstep::prelude::*;
    /// let adamw = registry::optimizer("adamw_torch", Args::new())?;
    /// assert_eq!(adamw.bytes_per_parameter(&[1 << 20], Dtype::F32), 16.0);
    /// let flash = registry::optimizer("flash_adamw", Args::new())?;
    /// assert_eq!(flash.bytes_per_parameter(&[1 << 20], Dtype::Bf16), 7.125); // 1/16 for each of two scales
    /// # Ok::<(), bitstep::hyper::ArgError>(())
    /// ```
    #[must_use]
    pub fn bytes_per_parameter(&self, shape: &[usize], dtype: Dtype) -> f64 {
        let n = numel(shape);
        let slots = (0..self.rule.info().slots.len()).map(|k| {
            self.slot_format(k, shape, dtype).bytes(self.slot_len(k, shape, dtype)) as f64
        });
        let correction = self.storage.param.correction_dtype(dtype).map_or(0, RawDtype::size);
        (2 * dtype.size() + correction) as f64 + slots.sum::<f64>() / n.max(1) as f64
    }
}

/// The encoded storage of state and parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageConfig {
    /// The format of each slot; `None` or a missing entry means plain values.
    pub slot_formats: Vec<Option<StorageFormat>>,
    /// Slots with fewer elements are stored as plain values.
    pub min_len: usize,
    /// Slots whose number of elements is not a multiple of this are stored as plain values; 0 and 1 allow any length.
    pub len_multiple: usize,
    /// How 16-bit parameters are stored.
    pub param: ParamStorage,
}

/// How 16-bit parameters keep updates smaller than half the gap to the next value, which rounding would lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ParamStorage {
    /// Not at all: they are rounded to nearest.
    #[default]
    Plain,
    /// With 8 or 16 correction bits beside each: [`SplitFloat`](crate::storage::SplitFloat).
    Split(u32),
    /// With a compensation of the same type beside each: [`KahanPair`](crate::storage::KahanPair).
    Kahan,
    /// By stochastic rounding, with this seed: [`StochasticRounded`](crate::storage::StochasticRounded).
    Stochastic(u64),
    /// The same for `bf16`, while `f16` is rounded to nearest: torchao's `bf16_stochastic_round`. Its state is that of
    /// [`Stochastic`](Self::Stochastic), as is its name in saved files.
    StochasticBf16(u64),
}

/// The name in saved files. It never changes.
impl fmt::Display for ParamStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamStorage::Plain => f.write_str("plain"),
            ParamStorage::Split(bits) => write!(f, "split:{bits}"),
            ParamStorage::Kahan => f.write_str("kahan"),
            ParamStorage::Stochastic(seed) | ParamStorage::StochasticBf16(seed) => {
                write!(f, "stochastic:{seed}")
            }
        }
    }
}

/// The inverse of its `Display`; `stochastic` is [`Stochastic`](ParamStorage::Stochastic).
impl FromStr for ParamStorage {
    type Err = Error;

    fn from_str(text: &str) -> Result<ParamStorage, Error> {
        let expected = "`plain`, `split:8`, `split:16`, `kahan` or `stochastic:SEED`";
        let seed = || text.strip_prefix("stochastic:").and_then(|seed| seed.parse().ok());
        match text {
            "plain" => Ok(ParamStorage::Plain),
            "split:8" => Ok(ParamStorage::Split(8)),
            "split:16" => Ok(ParamStorage::Split(16)),
            "kahan" => Ok(ParamStorage::Kahan),
            _ => seed()
                .map(ParamStorage::Stochastic)
                .ok_or(Error::InvalidArgument { argument: "weights", expected }),
        }
    }
}

impl ParamStorage {
    /// The type of the correction beside a parameter of this type; `None` if there is none.
    pub(super) fn correction_dtype(self, param: Dtype) -> Option<RawDtype> {
        match (self, param) {
            (_, Dtype::F64 | Dtype::F32) => None,
            (ParamStorage::Split(8), _) => Some(RawDtype::I8),
            (ParamStorage::Split(16), _) => Some(RawDtype::I16),
            (ParamStorage::Kahan, _) => Some(param.into()),
            (ParamStorage::Plain | ParamStorage::Split(_), _) => None,
            (ParamStorage::Stochastic(_) | ParamStorage::StochasticBf16(_), _) => None,
        }
    }

    /// Whether a parameter of this type is stored as plain values.
    pub(super) fn is_plain(self, param: Dtype) -> bool {
        let wide = matches!(param, Dtype::F64 | Dtype::F32);
        wide || self.correction_dtype(param).is_none() && !self.is_stochastic(param)
    }

    /// Whether a parameter of this type is rounded at random.
    pub(super) fn is_stochastic(self, param: Dtype) -> bool {
        match self {
            ParamStorage::Stochastic(_) => matches!(param, Dtype::Bf16 | Dtype::F16),
            ParamStorage::StochasticBf16(_) => param == Dtype::Bf16,
            _ => false,
        }
    }

    /// The seed of what is rounded at random.
    pub(super) fn seed(self) -> Option<u64> {
        match self {
            ParamStorage::Stochastic(seed) | ParamStorage::StochasticBf16(seed) => Some(seed),
            _ => None,
        }
    }
}
