//! torchao's Adam and AdamW.

use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// torchao's Adam, with decoupled or coupled weight decay, in `f32` throughout.
///
/// The registry names `adamw_torch_8bit`, `adamw_torch_4bit`, `torchao_adam8bit`, … run it over
/// [`BlockQuant8`](crate::storage::BlockQuant8), [`BlockQuant4`](crate::storage::BlockQuant4) and
/// [`BlockFp8`](crate::storage::BlockFp8). With other storages it is PyTorch's Adam(W) up to the rounding of the
/// scalars.
///
/// # Formula
/// ```text
/// g ← g + λ p                 coupled
/// p ← p − η λ p               decoupled
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// p ← p − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
/// ```
/// With `amsgrad`, the largest v so far replaces v under the root. The update uses the moments as they are before the
/// storage rounds them.
///
/// # Order of operations
/// ```text
/// p ← p − (η · λ) · p         or g ← g + λ · p
/// m ← lerp(m, g, 1 − β₁)
/// v ← lerp(v, g · g, 1 − β₂)
/// d ← √v / √(1 − β₂ᵗ) + ε
/// p ← p − (η · (m / (1 − β₁ᵗ))) / d
/// ```
/// η is `f32`, βᵗ an `f32` power; 1 − β is computed in `f64`.
///
/// # Source
/// torchao 0.18.0, `torchao.optim.Adam8bit`, `AdamW8bit`, `Adam4bit`, `AdamW4bit`, `AdamFp8`, `AdamWFp8`.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | | 0, decoupled 1e-2 |
/// | `amsgrad` | | | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
/// | `exp_avg_sq` | 0 | v |
/// | `max_exp_avg_sq` | 0 | largest v so far; with `amsgrad` only |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element NaN permanently; in a block-wise storage it makes the whole block of
/// moments NaN, and with it all its weights.
///
/// # Example
/// At t = 1 the corrections cancel the averages' weights, so p moves by η·sign(g), except that β is `f32`:
/// 1 − f32(0.999) is a relative 1.29e-5 below 0.001, so the corrected root of v is a relative 6.4e-6 too large:
/// ```
/// use bitstep::prelude::*;
/// let rule = TorchaoAdamW { weight_decay: 0.5, ..TorchaoAdamW::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32; 2])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// assert!((p[0] - 1.999_996_8).abs() < 3e-7); // 2 − 0.5 · 0.5 · 2 + 0.5 / 1.000 006 4
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchaoAdamRule<const DECOUPLED: bool> {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Divide by the largest second moment so far.
    pub amsgrad: bool,
}

/// torchao's Adam with coupled weight decay.
pub type TorchaoAdam = TorchaoAdamRule<false>;
/// torchao's Adam with decoupled weight decay.
pub type TorchaoAdamW = TorchaoAdamRule<true>;

impl<const DECOUPLED: bool> TorchaoAdamRule<DECOUPLED> {
    /// The reference's defaults.
    pub const DEFAULT: Self = TorchaoAdamRule {
        lr: 1e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: if DECOUPLED { 1e-2 } else { 0.0 },
        amsgrad: false,
    };
}

impl<const DECOUPLED: bool> Default for TorchaoAdamRule<DECOUPLED> {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        l2: S,
        decay: S,
        one_minus_beta1: S,
        one_minus_beta2: S,
        correction1: S,
        sqrt_correction2: S,
        eps: S,
        lr: S,
        decoupled: bool,
        amsgrad: bool,
    }
}

impl<const DECOUPLED: bool> HyperParams for TorchaoAdamRule<DECOUPLED> {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("amsgrad", &mut self.amsgrad);
    }
}

impl<const DECOUPLED: bool> Rule for TorchaoAdamRule<DECOUPLED> {
    type Slots<T> = [T; 3];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = if DECOUPLED { "torchao_adamw" } else { "torchao_adam" };
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
    const SLOT_MASKS: &'static [u32] = &[0b011, 0b111];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("eps", self.eps)?;
        ensure_betas(self.betas)
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn active_slots(&self, _: Dtype) -> u32 {
        if self.amsgrad { 0b111 } else { 0b011 }
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let scalar = |x: f32| C::scalar(x.into());
        let lr = step.lr as f32;
        let correction = |beta: f64| 1.0 - libm::pow((beta as f32).into(), step.t_f64()) as f32;
        Coefs {
            l2: scalar(self.weight_decay as f32),
            decay: scalar(lr * self.weight_decay as f32),
            one_minus_beta1: scalar((1.0 - self.betas.0) as f32),
            one_minus_beta2: scalar((1.0 - self.betas.1) as f32),
            correction1: scalar(correction(self.betas.0)),
            sqrt_correction2: scalar(ComputeFloat::sqrt(correction(self.betas.1))),
            eps: scalar(self.eps as f32),
            lr: scalar(lr),
            decoupled: DECOUPLED,
            amsgrad: self.amsgrad,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        [m, v, v_max]: [C; 3],
    ) -> (C, [C; 3]) {
        let g = if k.decoupled { g } else { g + p.mul_scalar(k.l2) };
        let p = if k.decoupled { p - p.mul_scalar(k.decay) } else { p };
        let m = m.lerp(g, k.one_minus_beta1);
        let v = v.lerp(g * g, k.one_minus_beta2);
        let v_max = v_max.maximum(v);
        let largest = if k.amsgrad { v_max } else { v };
        let denom = largest.sqrt().div_scalar(k.sqrt_correction2).add_scalar(k.eps);
        (p - m.div_scalar(k.correction1).mul_scalar(k.lr) / denom, [m, v, v_max])
    }
}

#[cfg(feature = "alloc")]
pub(crate) use storage::build;

#[cfg(feature = "alloc")]
mod storage {
    use crate::error::ensure_range;
    use crate::hyper::{ArgError, Args, FieldVisitor, HyperParams};
    use crate::optimizer::{OptimizerSpec, ParamStorage};
    use crate::rule::{ComputePolicy, DynRule};
    use crate::storage::{BlockFp8, BlockQuant4, BlockQuant8, MAX_BLOCK, StorageFormat};

    /// The arguments that choose storages.
    struct Storages<'a> {
        rule: &'a mut dyn HyperParams,
        block_size: u64,
        bf16_stochastic_round: bool,
    }

    impl HyperParams for Storages<'_> {
        fn fields(&mut self, f: &mut dyn FieldVisitor) {
            self.rule.fields(f);
            f.u64("block_size", &mut self.block_size);
            f.bool("bf16_stochastic_round", &mut self.bf16_stochastic_round);
        }
    }

    /// The spec of the rule with 8-bit or 4-bit state, or fp8 state for `None`. Tensors with fewer than 4096 elements,
    /// or not a whole number of blocks, keep unquantized state.
    pub(crate) fn build<R: DynRule + Default + 'static>(
        bits: Option<u32>,
        name: &str,
        args: &Args,
    ) -> Result<OptimizerSpec, ArgError> {
        let mut rule = R::default();
        let block_size = if bits == Some(4) { 128 } else { 256 };
        let mut storages =
            Storages { rule: rule.hyper_params(), block_size, bf16_stochastic_round: false };
        args.apply(name, &mut storages)?;
        let Storages { block_size, bf16_stochastic_round, .. } = storages;
        let block = block_size as usize;
        let expected = "1 <= value <= 2048, even for 4 bits";
        let fits = (1..=MAX_BLOCK).contains(&block) && (bits != Some(4) || block.is_multiple_of(2));
        ensure_range(fits, "block_size", block_size as f64, expected)?;
        let mut spec = OptimizerSpec::new(rule, ComputePolicy::Fused);
        spec.storage.min_len = 4096;
        spec.storage.len_multiple = block;
        let slots = spec.rule.info().slots.iter().map(|&slot| {
            let signed = slot == "exp_avg";
            Some(match bits {
                Some(8) => StorageFormat::BlockQuant8(BlockQuant8 { signed, block }),
                Some(_) => StorageFormat::BlockQuant4(BlockQuant4 { signed, block }),
                None => StorageFormat::BlockFp8(BlockFp8 { block }),
            })
        });
        spec.storage.slot_formats = slots.collect();
        if bf16_stochastic_round {
            spec.storage.param = ParamStorage::StochasticBf16(0);
        }
        Ok(spec)
    }
}
