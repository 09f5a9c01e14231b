"""The classes of lomo_optim."""

# Written by export/classes.py.

from __future__ import annotations

from typing import Any, Sequence

import torch

from .._references import record
from ._base import Optimizer

__all__ = ["Lomo", "AdaLomo"]


class Lomo(Optimizer):
    """LOMO: a step consumes one gradient and keeps no state, so that gradients need not be in memory together.

    As `lomo_optim.Lomo`; `bitstep.torch.optimizer("lomo", …)`.

    Formula

    g ← g / s                              s the loss scale, if there is one
    g ← clamp(g, −v, v)                    if clip_grad_value is above 0
    g ← g min(1, n / ‖all g / s‖)          if clip_grad_norm is set
    p ← p − η λ p
    p ← p − η g

    Source

    Lv et al., "Full Parameter Fine-tuning for Large Language Models with Limited Resources", 2023. Reference:
    `lomo_optim.Lomo`. The loss scale is an extra argument of every step (`loss_scale`); with one, a step whose norm is
    not finite changes nothing. Adjusting the scale is left to the caller (`crate::gradient::LossScale`; the reference
    halves it at every overflow).

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | any | 1e-3 |
    | `clip_grad_norm` | n | > 0, or none | none |
    | `clip_grad_value` | v | any, or none | none |
    | `weight_decay` | λ | any; above 0 it decays | 0 |

    State

    None.

    Non-finite input

    With a loss scale the step is skipped. Without one, a NaN or infinite gradient makes its element non-finite; under
    `clip_grad_norm`, a NaN makes everything NaN.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("lomo", "lomo_optim", "Lomo")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        clip_grad_norm: Any = None,
        clip_grad_value: Any = None,
        weight_decay: float = 0.0,
        loss_scale_args: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(params, "lomo", {"lr": lr, "clip_grad_norm": clip_grad_norm, "clip_grad_value": clip_grad_value, "weight_decay": weight_decay, "loss_scale_args": loss_scale_args, **more})


class AdaLomo(Optimizer):
    """AdaLomo: an adaptive step fused into the backward pass, with second moments by row and column.

    As `lomo_optim.AdaLomo`; `bitstep.torch.optimizer("adalomo", …)`.

    Formula

    G ← G / s, clamped to ±v, times min(1, n / ‖all G / s‖)        each if set
    β ← 1 − t^decay_rate
    V ← β V + (1 − β) (G² + ε₁)            kept as row averages R and column averages C:
                                           V = R Cᵀ / mean(R)
    U ← G / √V
    U ← U / max(1, RMS(U) / d)
    α ← η max(ε₂, RMS(p))
    p ← p − α λ p − α U

    Source

    Lv et al., "AdaLomo: Low-memory Optimization with Adaptive Learning Rate", 2023. Reference: `lomo_optim.AdaLomo`,
    whose step counter is the model's. The reference takes tensors of one or two dimensions; here leading dimensions are
    batches.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | any | 1e-3 |
    | `loss_scale` | s | any; 0 or none for no division | 1024 |
    | `eps` | ε₁, ε₂ | any | 1e-30, 1e-3 |
    | `clip_threshold` | d | any | 1 |
    | `decay_rate` | | any | −0.8 |
    | `clip_grad_norm` | n | > 0, or none | none |
    | `clip_grad_value` | v | any, or none | none |
    | `weight_decay` | λ | any; above 0 it decays | 0 |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg_sq` | 0 | V of a tensor below two dimensions |
    | `exp_avg_sq_row` | 0 | R, one value for each row of the last two dimensions |
    | `exp_avg_sq_col` | 0 | C, one value for each column |

    All of it is `f32`. `step_num` belongs to the group: it counts every step, also for parameters without a gradient.

    Non-finite input

    A NaN gradient makes its parameter NaN, and under `clip_grad_norm` every parameter.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("adalomo", "lomo_optim", "AdaLomo")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        loss_scale: int = 1024,
        eps: Sequence[float] = (1e-30, 0.001),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        clip_grad_norm: Any = None,
        clip_grad_value: Any = None,
        weight_decay: float = 0.0,
        **more: Any,
    ) -> None:
        super().__init__(params, "adalomo", {"lr": lr, "loss_scale": loss_scale, "eps": eps, "clip_threshold": clip_threshold, "decay_rate": decay_rate, "clip_grad_norm": clip_grad_norm, "clip_grad_value": clip_grad_value, "weight_decay": weight_decay, **more})
