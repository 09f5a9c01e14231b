"""The classes of apollo_torch."""

# Written by export/classes.py.

from __future__ import annotations

from typing import Any, Sequence

import torch

from .._references import record
from ._base import Optimizer

__all__ = ["APOLLOAdamW"]


class APOLLOAdamW(Optimizer):
    """The former AdamW of Transformers.

    As `apollo_torch.APOLLOAdamW`; `bitstep.torch.optimizer("apollo_adamw", …)`.

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

    _reference = record("apollo_adamw", "apollo_torch", "APOLLOAdamW")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-06,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        scale_front: bool = False,
        disable_nl: bool = False,
        no_deprecation_warning: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(params, "apollo_adamw", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "correct_bias": correct_bias, "scale_front": scale_front, "disable_nl": disable_nl, "no_deprecation_warning": no_deprecation_warning, **more})
