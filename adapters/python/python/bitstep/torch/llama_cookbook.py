"""The classes of llama_cookbook.policies.anyprecision_optimizer."""

# Written by export/classes.py.

from __future__ import annotations

from typing import Any, Sequence

import torch

from .._references import record
from ._base import Optimizer

__all__ = ["AnyPrecisionAdamW"]


class AnyPrecisionAdamW(Optimizer):
    """AnyPrecisionAdamW.

    As `llama_cookbook.policies.anyprecision_optimizer.AnyPrecisionAdamW`; `bitstep.torch.optimizer("adamw_anyprecision", …)`.

    Formula

    p ← p − η λ p
    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    u = −η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
    p ← p + u

    With `use_kahan_summation`, what an addition to p loses to rounding is kept in c and added to the next one:

    c ← c + u
    p' = p + c
    c ← c + (p − p')

    Source

    Reference: `llama_cookbook.policies.anyprecision_optimizer.AnyPrecisionAdamW` (`adamw_anyprecision`). For a
    parameter without dimensions, d is at least `f32`.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | any | 1e-3 |
    | `betas` | β₁, β₂ | any | 0.9, 0.999 |
    | `eps` | ε | any | 1e-8 |
    | `weight_decay` | λ | any | 0 |
    | `use_kahan_summation` | | | false |
    | `momentum_dtype` | | type of m | bf16 |
    | `variance_dtype` | | type of v | bf16 |
    | `compensation_buffer_dtype` | | type of c | bf16 |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_avg_sq` | 0 | v |
    | `compensation` | 0 | c; with `use_kahan_summation` only |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("adamw_anyprecision", "llama_cookbook.policies.anyprecision_optimizer", "AnyPrecisionAdamW")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        use_kahan_summation: bool = False,
        momentum_dtype: torch.dtype | str = torch.bfloat16,
        variance_dtype: torch.dtype | str = torch.bfloat16,
        compensation_buffer_dtype: torch.dtype | str = torch.bfloat16,
        **more: Any,
    ) -> None:
        super().__init__(params, "adamw_anyprecision", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "use_kahan_summation": use_kahan_summation, "momentum_dtype": momentum_dtype, "variance_dtype": variance_dtype, "compensation_buffer_dtype": compensation_buffer_dtype, **more})
