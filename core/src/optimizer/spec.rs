//! What a registry name stands for: a rule, its compute policy, its storage formats.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::error::Error;
use crate::float::Dtype;
use crate::hyper::{ArgError, Args};
use crate::rule::{ComputePolicy, DynRule, NOT_EAGER};
use crate::storage::{RawDtype, StorageFormat, numel};

/// A rule, how it is computed, and how its state is stored: what a registry name stands for.
#[derive(Clone, Debug)]
pub struct OptimizerSpec {
    /// How a parameter moves.
    pub rule: Box<dyn DynRule>,
    /// How 16-bit parameters are computed.
    pub policy: ComputePolicy,
    /// The type of every plain state slot; `None` for the rule's own choice.
    pub state_dtype: Option<Dtype>,
    /// Formats of state, and of parameters, that are not plain values.
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

    /// This spec with some arguments changed, as a parameter group changes them.
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

    /// Whether the references would step a group with these arguments: a rule's own ranges, but for
    /// a `weight_decay` below 0, which they refuse where an optimizer is made and not where a group
    /// brings its own.
    ///
    /// # Errors
    /// The argument that is refused.
    pub fn check(&self) -> Result<(), Error> {
        if self.policy == ComputePolicy::Eager && !self.rule.info().is_eager {
            return Err(NOT_EAGER);
        }
        match self.rule.check() {
            refused @ Err(Error::OutOfRange { argument: "weight_decay", value, .. })
                if value < 0.0 =>
            {
                // Refused for its number, or because this rule would lose any decay?
                let mut rule = self.rule.clone();
                let some = Args::new().with("weight_decay", 1.0);
                match some.apply("a parameter group", rule.hyper_params()) {
                    Ok(()) if rule.check().is_ok() => Ok(()),
                    _ => refused,
                }
            }
            checked => checked,
        }
    }

    /// The type that a parameter is computed in: `f32` unless it is stored as plain values.
    pub(super) fn compute_dtype(&self, param: Option<Dtype>) -> Dtype {
        self.policy.compute(param.filter(|&d| self.storage.param.is_plain(d)))
    }

    /// How many elements slot k of a parameter has.
    #[must_use]
    pub fn slot_len(&self, slot: usize, shape: &[usize], param: Dtype) -> usize {
        self.rule.slot_len(slot, shape, self.compute_dtype(Some(param)))
    }

    /// The format in which slot k of a parameter is stored.
    #[must_use]
    pub fn slot_format(&self, slot: usize, shape: &[usize], param: Dtype) -> StorageFormat {
        let len = self.slot_len(slot, shape, param);
        let StorageConfig { slot_formats: slots, min_len, len_multiple: multiple, .. } =
            &self.storage;
        let big = len >= *min_len && len.is_multiple_of((*multiple).max(1));
        let coded = slots.get(slot).copied().flatten().filter(|_| big);
        coded.unwrap_or_else(|| self.plain_format(slot, param))
    }

    /// Its format where it is stored as plain values.
    pub(super) fn plain_format(&self, slot: usize, param: Dtype) -> StorageFormat {
        self.state_dtype.unwrap_or_else(|| self.rule.slot_dtype(slot, param)).into()
    }

    /// Bytes of memory for each element of a parameter of this shape: the element, its gradient and its state.
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
        let companion = self.storage.param.correction_dtype(dtype).map_or(0, RawDtype::size);
        (2 * dtype.size() + companion) as f64 + slots.sum::<f64>() / n.max(1) as f64
    }
}

/// Which state is not stored as plain values, and in which format.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageConfig {
    /// The format of each slot; `None`, or no entry, is plain.
    pub slot_formats: Vec<Option<StorageFormat>>,
    /// A slot with fewer elements stays plain.
    pub min_len: usize,
    /// So does one whose number of elements is no multiple of this; 0 for any.
    pub len_multiple: usize,
    /// What is stored beside 16-bit parameters.
    pub param: ParamStorage,
}

/// How 16-bit parameters keep updates that are smaller than half their spacing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ParamStorage {
    /// Nothing.
    #[default]
    Plain,
    /// 8 or 16 correction bits: [`SplitFloat`](crate::storage::SplitFloat).
    Split(u32),
    /// A compensation of the same type: [`KahanPair`](crate::storage::KahanPair).
    Kahan,
    /// Nothing: they are rounded at random: [`StochasticRounded`](crate::storage::StochasticRounded). The seed.
    Stochastic(u64),
}

/// What saved files call it. It never changes.
impl fmt::Display for ParamStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamStorage::Plain => f.write_str("plain"),
            ParamStorage::Split(bits) => write!(f, "split:{bits}"),
            ParamStorage::Kahan => f.write_str("kahan"),
            ParamStorage::Stochastic(seed) => write!(f, "stochastic:{seed}"),
        }
    }
}

impl ParamStorage {
    /// The type of the correction of a parameter of this type.
    pub(super) fn correction_dtype(self, param: Dtype) -> Option<RawDtype> {
        match (self, param) {
            (_, Dtype::F64 | Dtype::F32) => None,
            (ParamStorage::Split(8), _) => Some(RawDtype::I8),
            (ParamStorage::Split(16), _) => Some(RawDtype::I16),
            (ParamStorage::Kahan, _) => Some(param.into()),
            (ParamStorage::Plain | ParamStorage::Split(_) | ParamStorage::Stochastic(_), _) => None,
        }
    }

    /// Whether a parameter of this type is plain values only.
    pub(super) fn is_plain(self, param: Dtype) -> bool {
        let wide = matches!(param, Dtype::F64 | Dtype::F32);
        wide || self.correction_dtype(param).is_none()
            && !matches!(self, ParamStorage::Stochastic(_))
    }
}
