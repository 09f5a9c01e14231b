"""The classes of galore_torch."""

# Written by export/classes.py.

from __future__ import annotations

from typing import Any, Sequence

import torch

from .._references import record
from ._base import Optimizer

__all__ = ["GaLoreAdamW", "GaLoreAdafactor", "GaLoreAdamW8bit"]


class GaLoreAdamW(Optimizer):
    """The former AdamW of Transformers.

    As `galore_torch.GaLoreAdamW`; `bitstep.torch.optimizer("galore_adamw", …)`.

    Formula

    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    p ← p − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) m / (√v + ε)
    p ← p − η λ p

    Without `correct_bias` the step size in the third line is η.

    Source

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. Reference (`adamw_hf`):
    `transformers.optimization.AdamW`, until 4.49, and `galore_torch.GaLoreAdamW` for parameters that it does not
    project. The paper adds ε to the corrected root and decays the parameter as it was before the update.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-6 |
    | `weight_decay` | λ | any; none if ≤ 0 | 0 |
    | `correct_bias` | | | true |
    | `reference` | | which implementation | Transformers' |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_avg_sq` | 0 | v |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("galore_adamw", "galore_torch", "GaLoreAdamW")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-06,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        no_deprecation_warning: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "galore_adamw", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "correct_bias": correct_bias, "no_deprecation_warning": no_deprecation_warning, **more})


class GaLoreAdafactor(Optimizer):
    """Adafactor: second moments of matrices by row and column, with a learning rate of its own or the caller's.

    As `galore_torch.GaLoreAdafactor`; `bitstep.torch.optimizer("galore_adafactor", …)`.

    Formula

    ρ ← min(10⁻², 1/√t)                    relative_step; with warmup_init min(10⁻⁶ t, 1/√t)
    ρ ← η                                  otherwise
    α ← max(ε₂, RMS(p)) ρ                  scale_parameter; otherwise ρ
    β ← 1 − t^decay_rate
    V ← β V + (1 − β) (G² + ε₁)            kept as row averages R and column averages C:
                                           V = R Cᵀ / mean(R)
    U ← G / √V
    U ← α U / max(1, RMS(U) / d)
    U ← M ← β₁ M + (1 − β₁) U              if beta1 is set
    p ← p − α λ p − U

    Source

    Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018. Reference:
    `transformers.optimization.Adafactor`, which computes 16-bit parameters in `f32` and keeps their state in `f32`.
    Unlike the paper it averages squares instead of summing them, and the first moment averages updates that contain α.
    `crate::optim::AdafactorTorch` is a different rule.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | set if and only if not `relative_step` | none |
    | `eps` | ε₁, ε₂ | any | 1e-30, 1e-3 |
    | `clip_threshold` | d | any | 1 |
    | `decay_rate` | | any | −0.8 |
    | `beta1` | β₁ | any, or none | none |
    | `weight_decay` | λ | any | 0 |
    | `scale_parameter` | | | true |
    | `relative_step` | | | true |
    | `warmup_init` | | only with `relative_step` | false |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | M; with `beta1` only |
    | `exp_avg_sq` | 0 | V of a tensor below two dimensions |
    | `exp_avg_sq_row` | 0 | R, one value for each row of the last two dimensions |
    | `exp_avg_sq_col` | 0 | C, one value for each column |
    | `RMS` | 0 | a scalar: RMS(p) before the step |

    All of it is `f32` for 16-bit parameters.

    Non-finite input

    A NaN gradient makes its row and column of state NaN, and through RMS(U) the whole parameter. An infinite one makes
    its own update NaN, with the same result. A NaN in the parameter counts as RMS(p) ≤ ε₂ and stays in its element.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("galore_adafactor", "galore_torch", "GaLoreAdafactor")

    def __init__(
        self,
        params: Any,
        lr: Any = None,
        eps: Sequence[float] = (1e-30, 0.001),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: Any = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "galore_adafactor", {"lr": lr, "eps": eps, "clip_threshold": clip_threshold, "decay_rate": decay_rate, "beta1": beta1, "weight_decay": weight_decay, "scale_parameter": scale_parameter, "relative_step": relative_step, "warmup_init": warmup_init, **more})


class GaLoreAdamW8bit(Optimizer):
    """bitsandbytes' Adam and AdamW, which differ in the default of `weight_decay` only.

    As `galore_torch.GaLoreAdamW8bit`; `bitstep.torch.optimizer("galore_adamw_8bit", …)`.

    Formula

    p ← p − η λ p
    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    p ← p − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

    Source

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015; Loshchilov and Hutter, "Decoupled Weight Decay
    Regularization", 2019. Reference: `bitsandbytes.optim.Adam` (`bnb_adam_32bit`) and `bitsandbytes.optim.AdamW`
    (`bnb_adamw_32bit`, `paged_adamw_32bit`): arithmetic and state are `f32` throughout. bitsandbytes' Adam decays as
    AdamW does, and `amsgrad` does nothing.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 0; 1e-2 under the registry names of AdamW |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |
    | `state2` | 0 | v, in `f32` |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("galore_adamw_8bit", "galore_torch", "GaLoreAdamW8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        optim_bits: int = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "galore_adamw_8bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, "percentile_clipping": percentile_clipping, "block_wise": block_wise, "is_paged": is_paged, **more})
