"""The classes of schedulefree."""

# Written by export/classes.py.

from __future__ import annotations

from typing import Any, Sequence

import torch

from .._references import record
from ._base import Modes, Optimizer

__all__ = ["AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree"]


class AdamWScheduleFree(Modes, Optimizer):
    """Schedule-free AdamW.

    As `schedulefree.AdamWScheduleFree`; `bitstep.torch.optimizer("schedule_free_adamw", …)`.

    Formula

    η = lr · t / warmup_steps as long as t − 1 < warmup_steps, then lr
    w = tʳ · (largest η so far)^weight_lr_power,   c = w / (sum of all w)
    v ← β₂ v + (1 − β₂) g²
    u = g / (√(v / (1 − β₂ᵗ)) + ε) + λ y
    z ← z − η u
    x ← (1 − c) x + c z
    y ← (1 − β₁) z + β₁ x

    Gradients are taken at y, the parameter; x is the point to evaluate. x is not stored: it is y extrapolated away from
    z, and `Rule::convert_element` converts between the two.

    Source

    Defazio et al., "The Road Less Scheduled", 2024. Reference: `schedulefree.AdamWScheduleFree`
    (`schedule_free_adamw`). Steps, weights and the largest rate are counted for the whole group, steps without a
    gradient included; so is the t of the bias correction.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | | ≥ 0 | 2.5e-3 |
    | `betas` | β₁, β₂ | [0, 1); β₁ > 0 to evaluate | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ, at y | ≥ 0 | 0 |
    | `warmup_steps` | | | 0 |
    | `r` | exponent of t in the weights | | 0 |
    | `weight_lr_power` | exponent of the rate in the weights | | 2 |
    | `foreach` | round β₂ to 16 bits where the parameter has 16 | | true |

    (The reference checks none of them.)

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `z` | the parameter | where Adam without momentum would be |
    | `exp_avg_sq` | 0 | v |

    and for the group `k` (steps), `scheduled_lr` (η), `lr_max`, `weight_sum`.

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("schedule_free_adamw", "schedulefree", "AdamWScheduleFree")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.0025,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        warmup_steps: float = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        foreach: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(params, "schedule_free_adamw", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "warmup_steps": warmup_steps, "r": r, "weight_lr_power": weight_lr_power, "foreach": foreach, **more})


class RAdamScheduleFree(Modes, Optimizer):
    """Schedule-free RAdam.

    As `schedulefree.RAdamScheduleFree`; `bitstep.torch.optimizer("schedule_free_radam", …)`.

    Formula

    ρ∞ = 2 / (1 − β₂) − 1,   ρ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ)
    η = lr · √((ρ − 4)(ρ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρ))   if ρ > 4, else lr, or 0 if silent
    w = tʳ · (largest η so far)^weight_lr_power,   c = w / (sum of all w)
    v ← β₂ v + (1 − β₂) g²
    u = g / (√(v / (1 − β₂ᵗ)) + ε) + λ y               if ρ > 4, else g + λ y
    z ← z − η u
    x ← (1 − c) x + c z
    y ← (1 − β₁) z + β₁ x

    Gradients are taken at y, the parameter; x is the point to evaluate. x is not stored: it is y extrapolated away from
    z, and `Rule::convert_element` converts between the two.

    Source

    Defazio et al., "The Road Less Scheduled", 2024; Liu et al., "On the Variance of the Adaptive Learning Rate and
    Beyond", 2020. Reference: `schedulefree.RAdamScheduleFree` (`schedule_free_radam`). The bound on ρ is 4, not 5 as in
    torch. Until it is exceeded, the rate of the silent phase is 0, which leaves y and z where they are and the weights
    at 0.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | | ≥ 0 | 2.5e-3 |
    | `betas` | β₁, β₂ | [0, 1); β₁ > 0 to evaluate | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ, at y | ≥ 0 | 0 |
    | `r` | exponent of t in the weights | | 0 |
    | `weight_lr_power` | exponent of the rate in the weights | | 2 |
    | `foreach` | round β₂ to 16 bits where the parameter has 16 | | true |
    | `silent_sgd_phase` | | | true |

    (The reference checks none of them.)

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `z` | the parameter | where RAdam without momentum would be |
    | `exp_avg_sq` | 0 | v |

    and for the group `k` (steps), `scheduled_lr` (η), `lr_max`, `weight_sum`.

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently, also in the silent phase, where it is
    multiplied by 0.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("schedule_free_radam", "schedulefree", "RAdamScheduleFree")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.0025,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        foreach: bool = True,
        silent_sgd_phase: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(params, "schedule_free_radam", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "r": r, "weight_lr_power": weight_lr_power, "foreach": foreach, "silent_sgd_phase": silent_sgd_phase, **more})


class SGDScheduleFree(Modes, Optimizer):
    """Schedule-free SGD.

    As `schedulefree.SGDScheduleFree`; `bitstep.torch.optimizer("schedule_free_sgd", …)`.

    Formula

    η = lr · t / warmup_steps as long as t − 1 < warmup_steps, then lr
    w = tʳ · (largest η so far)^weight_lr_power,   c = w / (sum of all w)
    g ← g + λ y
    z ← z − η g
    x ← (1 − c) x + c z
    y ← (1 − μ) z + μ x

    Gradients are taken at y, the parameter; x is the point to evaluate. x is not stored: it is y extrapolated away from
    z, and `Rule::convert_element` converts between the two.

    Source

    Defazio et al., "The Road Less Scheduled", 2024. Reference: `schedulefree.SGDScheduleFree` (`schedule_free_sgd`).
    Steps, weights and the largest rate are counted for the whole group, steps without a gradient included.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | | ≥ 0 | 1.0 |
    | `momentum` | μ | (0, 1) | 0.9 |
    | `weight_decay` | λ, at y | ≥ 0 | 0 |
    | `warmup_steps` | | | 0 |
    | `r` | exponent of t in the weights | | 0 |
    | `weight_lr_power` | exponent of the rate in the weights | | 2 |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `z` | the parameter | where plain SGD would be |

    and for the group `k` (steps), `scheduled_lr` (η), `lr_max`, `weight_sum`.

    Non-finite input

    A NaN or infinite gradient makes the element NaN or infinite permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("schedule_free_sgd", "schedulefree", "SGDScheduleFree")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0,
        warmup_steps: float = 0,
        r: float = 0.0,
        weight_lr_power: float = 2,
        foreach: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(params, "schedule_free_sgd", {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "warmup_steps": warmup_steps, "r": r, "weight_lr_power": weight_lr_power, "foreach": foreach, **more})
