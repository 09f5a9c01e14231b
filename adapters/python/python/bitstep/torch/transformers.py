"""The classes of transformers.optimization."""

# Written by export/classes.py.

from __future__ import annotations

from typing import Any, Sequence

import torch

from .._references import record
from ._base import Optimizer, ShownRate

__all__ = ["Adafactor"]


class Adafactor(ShownRate, Optimizer):
    """Adafactor: second moments of matrices by row and column, with a learning rate of its own or the caller's.

    As `transformers.optimization.Adafactor`; `bitstep.torch.optimizer("adafactor", …)`.

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

    _reference = record("adafactor", "transformers.optimization", "Adafactor")

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
        super().__init__(params, "adafactor", {"lr": lr, "eps": eps, "clip_threshold": clip_threshold, "decay_rate": decay_rate, "beta1": beta1, "weight_decay": weight_decay, "scale_parameter": scale_parameter, "relative_step": relative_step, "warmup_init": warmup_init, **more})
