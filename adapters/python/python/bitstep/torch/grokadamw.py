"""The classes of grokadamw."""

# Written by export/classes.py.

from __future__ import annotations

from typing import Any, Sequence

import torch

from .._references import record
from ._base import Optimizer

__all__ = ["GrokAdamW"]


class GrokAdamW(Optimizer):
    """GrokAdamW: AdamW over a gradient whose slow component is amplified.

    As `grokadamw.GrokAdamW`; `bitstep.torch.optimizer("grokadamw", …)`.

    Formula

    g ← g · min(1, c / (‖g‖ + 1e-6))                  over the tensor, if c > 0
    s = max(0, eval − train) / max(eval, train)       0 unless both losses are known and one is positive
    α = α₀ e^(−κ s)
    e ← α e + (1 − α) g
    h = g + λ_grok e
    β = β₁ (1 − γ)^layer
    m ← β m + (1 − β) h
    v ← β₂ v + (1 − β₂) h²
    p ← p − η λ p
    p ← p − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε)

    Source

    Lee et al., "Grokfast: Accelerated Grokking by Amplifying Slow Gradients", 2024, combined with AdamW by Hartford.
    Reference: `grokadamw.GrokAdamW` (`grokadamw`). It clips each parameter's gradient by that gradient's own norm,
    corrects m with β₁ instead of the layer's β, adds ε to the uncorrected root, and counts as layers the parameters of
    a group that have a gradient. The reference's signal functions are left to the caller, who passes their mean as the
    extra argument `grokking_signal`; without it, the signal is computed from `train_loss` and `eval_loss`.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 1e-2 |
    | `alpha_init` | α₀ | [0, 1] | 0.98 |
    | `lamb` | λ_grok | | 2 |
    | `gamma` | γ | | 0.1 |
    | `grokking_signal_decay_rate` | κ | | 0.1 |
    | `gradient_clipping` | c | off unless > 0 | 1 |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_avg_sq` | 0 | v |
    | `grok_ema` | 0 | e |

    Non-finite input

    While clipping, a NaN gradient makes the whole tensor NaN; an infinite one, or a norm that overflows, makes the
    finite elements' gradients 0 and the infinite ones NaN. NaN is permanent.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("grokadamw", "grokadamw", "GrokAdamW")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        alpha_init: float = 0.98,
        lamb: float = 2.0,
        gamma: float = 0.1,
        grokking_signal_fns: Any = None,
        grokking_signal_decay_rate: float = 0.1,
        gradient_clipping: float = 1.0,
        **more: Any,
    ) -> None:
        super().__init__(params, "grokadamw", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "alpha_init": alpha_init, "lamb": lamb, "gamma": gamma, "grokking_signal_fns": grokking_signal_fns, "grokking_signal_decay_rate": grokking_signal_decay_rate, "gradient_clipping": gradient_clipping, **more})
