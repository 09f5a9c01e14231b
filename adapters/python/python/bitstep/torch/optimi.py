"""The classes of optimi."""

# Written by export/classes.py.

from __future__ import annotations

from typing import Any, Sequence

import torch

from .._references import record
from ._base import Optimizer
from ._release import Release, prepare_for_gradient_release, remove_gradient_release

__all__ = ["Adam", "AdamW", "Adan", "Lion", "RAdam", "Ranger", "SGD", "StableAdamW", "prepare_for_gradient_release", "remove_gradient_release"]


class Adam(Release, Optimizer):
    """optimi's Adam and AdamW.

    As `optimi.Adam`; `bitstep.torch.optimizer("optimi_adam", …)`.

    Formula

    β̂ = (βᵗ − β) / (βᵗ − 1)
    g ← g + λ p                        without decoupling
    p ← p − η λ p                      with `decouple_wd`
    p ← p − (η / η_max) λ p            with `decouple_lr`
    m ← β̂₁ m + (1 − β̂₁) g
    v ← β̂₂ v + (1 − β̂₂) g²
    p ← p − η m / (√v + ε)

    Where sums are rounded to 16 bits, the update is Kahan-compensated: it is added to c, c is added to p, and what
    rounding loses stays in c.

    Source

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015; Loshchilov and Hutter, "Decoupled Weight Decay
    Regularization", 2019. References: `optimi.Adam` (`optimi_adam`) and `optimi.AdamW` (`optimi_adamw`: `decouple_wd`,
    λ = 1e-2). Debiased decay rates give the paper's corrected averages, so ε is added to the root of a corrected v.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `eps` | ε | ≥ 0 | 1e-6 |
    | `decouple_wd` | | | false |
    | `decouple_lr` | | | false |
    | `max_lr` | η_max | ≥ 0 | `lr` |
    | `kahan_sum` | | | none: wherever sums are rounded to 16 bits |
    | `foreach` | round factors to 16 bits where the parameter has 16 | | none: no |
    | `gradient_release` | each parameter counts its own steps | | false: the group counts |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_avg_sq` | 0 | v |
    | `kahan_comp` | 0 | c; only where updates are compensated |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("optimi_adam", "optimi", "Adam")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0,
        eps: float = 1e-06,
        decouple_wd: bool = False,
        decouple_lr: bool = False,
        max_lr: Any = None,
        kahan_sum: Any = None,
        foreach: Any = None,
        triton: Any = None,
        gradient_release: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "optimi_adam", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps, "decouple_wd": decouple_wd, "decouple_lr": decouple_lr, "max_lr": max_lr, "kahan_sum": kahan_sum, "foreach": foreach, "triton": triton, "gradient_release": gradient_release, **more})


class AdamW(Release, Optimizer):
    """optimi's Adam and AdamW.

    As `optimi.AdamW`; `bitstep.torch.optimizer("optimi_adamw", …)`.

    Formula

    β̂ = (βᵗ − β) / (βᵗ − 1)
    g ← g + λ p                        without decoupling
    p ← p − η λ p                      with `decouple_wd`
    p ← p − (η / η_max) λ p            with `decouple_lr`
    m ← β̂₁ m + (1 − β̂₁) g
    v ← β̂₂ v + (1 − β̂₂) g²
    p ← p − η m / (√v + ε)

    Where sums are rounded to 16 bits, the update is Kahan-compensated: it is added to c, c is added to p, and what
    rounding loses stays in c.

    Source

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015; Loshchilov and Hutter, "Decoupled Weight Decay
    Regularization", 2019. References: `optimi.Adam` (`optimi_adam`) and `optimi.AdamW` (`optimi_adamw`: `decouple_wd`,
    λ = 1e-2). Debiased decay rates give the paper's corrected averages, so ε is added to the root of a corrected v.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `eps` | ε | ≥ 0 | 1e-6 |
    | `decouple_wd` | | | false |
    | `decouple_lr` | | | false |
    | `max_lr` | η_max | ≥ 0 | `lr` |
    | `kahan_sum` | | | none: wherever sums are rounded to 16 bits |
    | `foreach` | round factors to 16 bits where the parameter has 16 | | none: no |
    | `gradient_release` | each parameter counts its own steps | | false: the group counts |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_avg_sq` | 0 | v |
    | `kahan_comp` | 0 | c; only where updates are compensated |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("optimi_adamw", "optimi", "AdamW")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        eps: float = 1e-06,
        decouple_lr: bool = False,
        max_lr: Any = None,
        kahan_sum: Any = None,
        foreach: Any = None,
        triton: Any = None,
        gradient_release: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "optimi_adamw", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps, "decouple_lr": decouple_lr, "max_lr": max_lr, "kahan_sum": kahan_sum, "foreach": foreach, "triton": triton, "gradient_release": gradient_release, **more})


class Adan(Release, Optimizer):
    """optimi's Adan.

    As `optimi.Adan`; `bitstep.torch.optimizer("optimi_adan", …)`.

    Formula

    β̂ = (βᵗ − β) / (βᵗ − 1)
    m ← β̂₁ m + (1 − β̂₁) g
    d ← β̂₂ d + (1 − β̂₂) (g − g₋)
    v ← β̂₃ v + (1 − β̂₃) (g + β₂ (g − g₋))²
    p ← p − η (m + β₂ d) / (√v + ε)
    p ← p / (1 + η λ)                  or p / (1 + (η / η_max) λ) with `decouple_lr`

    g₋ is the gradient of the parameter's previous update, and g itself at the first. Where sums are rounded to 16 bits,
    the update is Kahan-compensated: it is added to c, c is added to p, and what rounding loses stays in c.

    Source

    Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models", 2023. Reference:
    `optimi.Adan` (`optimi_adan`). Its argument `adam_wd` has no effect: the decay is always the one above.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `betas` | β₁, β₂, β₃ | [0, 1) | 0.98, 0.92, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 2e-2 |
    | `eps` | ε | ≥ 0 | 1e-6 |
    | `decouple_lr` | | | false |
    | `max_lr` | η_max | ≥ 0 | `lr` |
    | `kahan_sum` | | | false; none: where sums are rounded to 16 bits |
    | `foreach` | round factors to 16 bits where the parameter has 16 | | none: no |
    | `gradient_release` | each parameter counts its own steps | | false: the group counts |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_avg_diff` | 0 | d |
    | `exp_avg_sq` | 0 | v |
    | `prev_grad` | −g | −g₋ |
    | `kahan_comp` | 0 | c; only where updates are compensated |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("optimi_adan", "optimi", "Adan")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        betas: Sequence[float] = (0.98, 0.92, 0.99),
        weight_decay: float = 0.02,
        eps: float = 1e-06,
        decouple_lr: bool = False,
        max_lr: Any = None,
        adam_wd: bool = False,
        kahan_sum: bool = False,
        foreach: Any = None,
        triton: Any = None,
        gradient_release: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "optimi_adan", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps, "decouple_lr": decouple_lr, "max_lr": max_lr, "adam_wd": adam_wd, "kahan_sum": kahan_sum, "foreach": foreach, "triton": triton, "gradient_release": gradient_release, **more})


class Lion(Release, Optimizer):
    """optimi's Lion.

    As `optimi.Lion`; `bitstep.torch.optimizer("optimi_lion", …)`.

    Formula

    p ← p − η λ p                      or p − (η / η_max) λ p with `decouple_lr`
    u = sign(β₁ m + (1 − β₁) g)
    m ← β₂ m + (1 − β₂) g
    p ← p − η u

    Where sums are rounded to 16 bits, the update is Kahan-compensated: it is added to c, c is added to p, and what
    rounding loses stays in c.

    Source

    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023. Reference: `optimi.Lion` (`optimi_lion`).

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-4 (the reference has none) |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `decouple_lr` | | | false |
    | `max_lr` | η_max | ≥ 0 | `lr` |
    | `kahan_sum` | | | none: wherever sums are rounded to 16 bits |
    | `foreach` | round factors to 16 bits where the parameter has 16 | | none: no |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `kahan_comp` | 0 | c; only where updates are compensated |

    Non-finite input

    An infinite gradient steps by its sign, but makes m infinite; NaN makes m NaN. The sign of NaN is 0: the parameter
    then only decays.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("optimi_lion", "optimi", "Lion")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0,
        decouple_lr: bool = False,
        max_lr: Any = None,
        kahan_sum: Any = None,
        foreach: Any = None,
        triton: Any = None,
        gradient_release: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "optimi_lion", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "decouple_lr": decouple_lr, "max_lr": max_lr, "kahan_sum": kahan_sum, "foreach": foreach, "triton": triton, "gradient_release": gradient_release, **more})


class RAdam(Release, Optimizer):
    """optimi's RAdam.

    As `optimi.RAdam`; `bitstep.torch.optimizer("optimi_radam", …)`.

    Formula

    β̂ = (βᵗ − β) / (βᵗ − 1)
    g ← g + λ p                        without decoupling
    p ← p − η λ p                      with `decouple_wd`
    p ← p − (η / η_max) λ p            with `decouple_lr`
    m ← β̂₁ m + (1 − β̂₁) g
    v ← β̂₂ v + (1 − β̂₂) g²
    ρ∞ = 2 / (1 − β₂) − 1,   ρ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ)
    r = √((ρ − 4)(ρ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρ))
    p ← p − η r m / (√v + ε)           if ρ > 5, else p − η m

    Where sums are rounded to 16 bits, the update is Kahan-compensated: it is added to c, c is added to p, and what
    rounding loses stays in c.

    Source

    Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020. Reference: `optimi.RAdam`
    (`optimi_radam`).

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `eps` | ε | ≥ 0 | 1e-6 |
    | `decouple_wd` | | | false |
    | `decouple_lr` | | | false |
    | `max_lr` | η_max | ≥ 0 | `lr` |
    | `kahan_sum` | | | none: wherever sums are rounded to 16 bits |
    | `foreach` | round factors to 16 bits where the parameter has 16 | | none: no |
    | `gradient_release` | each parameter counts its own steps | | false: the group counts |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_avg_sq` | 0 | v |
    | `kahan_comp` | 0 | c; only where updates are compensated |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("optimi_radam", "optimi", "RAdam")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0,
        eps: float = 1e-06,
        decouple_wd: bool = False,
        decouple_lr: bool = False,
        max_lr: Any = None,
        kahan_sum: Any = None,
        foreach: Any = None,
        triton: Any = None,
        gradient_release: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "optimi_radam", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps, "decouple_wd": decouple_wd, "decouple_lr": decouple_lr, "max_lr": max_lr, "kahan_sum": kahan_sum, "foreach": foreach, "triton": triton, "gradient_release": gradient_release, **more})


class Ranger(Release, Optimizer):
    """optimi's Ranger: RAdam with lookahead.

    As `optimi.Ranger`; `bitstep.torch.optimizer("optimi_ranger", …)`.

    Formula

    β̂ = (βᵗ − β) / (βᵗ − 1)
    g ← g + λ p                        without decoupling
    p ← p − η λ p                      with `decouple_wd`
    p ← p − (η / η_max) λ p            with `decouple_lr`
    m ← β̂₁ m + (1 − β̂₁) g
    v ← β̂₂ v + (1 − β̂₂) g²
    ρ∞ = 2 / (1 − β₂) − 1,   ρ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ)
    r = √((ρ − 4)(ρ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρ))
    p ← p − η r m / (√v + ε)           if ρ > 5, else p − η m
    every k steps: a ← a + α (p − a),  p ← a

    Where sums are rounded to 16 bits, the update is Kahan-compensated: it is added to c, c is added to p, and what
    rounding loses stays in c. The lookahead step is then added to that remainder.

    Source

    Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020. Zhang et al., "Lookahead Optimizer: k
    steps forward, 1 step back", 2019; Wright and Demeure, "Ranger21", 2021. Reference: `optimi.Ranger`
    (`optimi_ranger`). Its implementations with and without `foreach` leave different remainders in c after a
    compensated lookahead step; this rule follows both.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `eps` | ε | ≥ 0 | 1e-6 |
    | `k` | steps from one lookahead to the next | ≥ 1 | 6 |
    | `alpha` | α | | 0.5 |
    | `decouple_wd` | | | true |
    | `decouple_lr` | | | false |
    | `max_lr` | η_max | ≥ 0 | `lr` |
    | `kahan_sum` | | | none: wherever sums are rounded to 16 bits |
    | `foreach` | round factors to 16 bits where the parameter has 16; keep the whole remainder | | none: no |
    | `gradient_release` | each parameter counts its own steps | | false: the group counts |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_avg_sq` | 0 | v |
    | `la_param` | the parameter | a |
    | `kahan_comp` | 0 | c; only where updates are compensated |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("optimi_ranger", "optimi", "Ranger")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0,
        eps: float = 1e-06,
        k: int = 6,
        alpha: float = 0.5,
        decouple_wd: bool = True,
        decouple_lr: bool = False,
        max_lr: Any = None,
        kahan_sum: Any = None,
        foreach: Any = None,
        triton: Any = None,
        gradient_release: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "optimi_ranger", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps, "k": k, "alpha": alpha, "decouple_wd": decouple_wd, "decouple_lr": decouple_lr, "max_lr": max_lr, "kahan_sum": kahan_sum, "foreach": foreach, "triton": triton, "gradient_release": gradient_release, **more})


class SGD(Release, Optimizer):
    """optimi's SGD.

    As `optimi.SGD`; `bitstep.torch.optimizer("optimi_sgd", …)`.

    Formula

    g ← g + λ p                        without decoupling
    p ← p − η λ p                      with `decouple_wd`
    p ← p − (η / η_max) λ p            with `decouple_lr`
    m ← μ m + g                        or μ m + (1 − μ) g with `dampening`
    p ← p − η m                        or η g without momentum

    Where sums are rounded to 16 bits, the update is Kahan-compensated: it is added to c, c is added to p, and what
    rounding loses stays in c.

    Source

    Reference: `optimi.SGD` (`optimi_sgd`). Dampening is by 1 − μ, where torch's is an argument of its own. With
    `torch_init` and dampening, m starts as the first gradient instead of 0.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `momentum` | μ | [0, 1) | 0 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `dampening` | | | false |
    | `decouple_wd` | | | false |
    | `decouple_lr` | | | false |
    | `max_lr` | η_max | ≥ 0 | `lr` |
    | `torch_init` | | | false |
    | `kahan_sum` | | | none: wherever sums are rounded to 16 bits |
    | `foreach` | round factors to 16 bits where the parameter has 16 | | none: no |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0, or the first gradient | m; with momentum, or with dampening and `torch_init` |
    | `kahan_comp` | 0 | c; only where updates are compensated |

    Non-finite input

    A NaN or infinite gradient makes the element NaN or infinite permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("optimi_sgd", "optimi", "SGD")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        momentum: float = 0,
        weight_decay: float = 0,
        dampening: bool = False,
        decouple_wd: bool = False,
        decouple_lr: bool = False,
        max_lr: Any = None,
        torch_init: bool = False,
        kahan_sum: Any = None,
        foreach: Any = None,
        triton: Any = None,
        gradient_release: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "optimi_sgd", {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "dampening": dampening, "decouple_wd": decouple_wd, "decouple_lr": decouple_lr, "max_lr": max_lr, "torch_init": torch_init, "kahan_sum": kahan_sum, "foreach": foreach, "triton": triton, "gradient_release": gradient_release, **more})


class StableAdamW(Release, Optimizer):
    """StableAdamW.

    As `optimi.StableAdamW`; `bitstep.torch.optimizer("stable_adamw", …)`.

    Formula

    β̂ = (βᵗ − β) / (βᵗ − 1)
    m ← β̂₁ m + (1 − β̂₁) g
    v ← β̂₂ v + (1 − β̂₂) g²
    r = √mean(g² / max(v, ε²))          over the tensor
    η' = η / max(1, r)
    p ← p − η' λ p
    p ← p − η' m / (√v + ε)

    With `decouple_lr` the decay is (η' / η_max) λ p. Where sums are rounded to 16 bits, the update is
    Kahan-compensated: it is added to c, c is added to p, and what rounding loses stays in c.

    Source

    Wortsman et al., "Stable and low-precision training for large-scale vision-language models", 2023. Reference:
    `optimi.StableAdamW` (`stable_adamw`). The weight decay also uses the rate that r has reduced.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 1e-2 |
    | `eps` | ε | ≥ 0 | 1e-6 |
    | `decouple_lr` | | | false |
    | `max_lr` | η_max | ≥ 0 | `lr` |
    | `kahan_sum` | | | none: wherever sums are rounded to 16 bits |
    | `foreach` | round factors to 16 bits where the parameter has 16 | | none: no |
    | `gradient_release` | each parameter counts its own steps | | false: the group counts |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_avg_sq` | 0 | v |
    | `kahan_comp` | 0 | c; only where updates are compensated |

    The scalar `eps_sq` is ε² in the parameter's type, which in `f16` is easily 0.

    Non-finite input

    A NaN or infinite gradient makes the element NaN permanently. The mean is then NaN, which does not reduce the rate,
    so the other elements step as in AdamW.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("stable_adamw", "optimi", "StableAdamW")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        eps: float = 1e-06,
        decouple_lr: bool = False,
        max_lr: Any = None,
        kahan_sum: Any = None,
        foreach: Any = None,
        triton: Any = None,
        gradient_release: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "stable_adamw", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps, "decouple_lr": decouple_lr, "max_lr": max_lr, "kahan_sum": kahan_sum, "foreach": foreach, "triton": triton, "gradient_release": gradient_release, **more})
