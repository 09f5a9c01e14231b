"""The classes of torch.optim."""

# Written by export/classes.py.

from __future__ import annotations

from typing import Any, Sequence

import torch

from .._references import record
from ._base import Optimizer

__all__ = ["Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD", "Muon", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]


class Adadelta(Optimizer):
    """Adadelta.

    As `torch.optim.Adadelta`; `bitstep.torch.optimizer("adadelta", …)`.

    Formula

    g ← g + λ p
    v ← ρ v + (1 − ρ) g²
    Δ = √(u + ε) / √(v + ε) · g
    u ← ρ u + (1 − ρ) Δ²
    p ← p − η Δ

    `maximize` negates g, but not the decay.

    Source

    Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012. Reference: `torch.optim.Adadelta`. The paper has no
    learning rate: η is 1.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1 |
    | `rho` | ρ | [0, 1] | 0.9 |
    | `eps` | ε | ≥ 0 | 1e-6 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `maximize` | | | false |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `square_avg` | 0 | v |
    | `acc_delta` | 0 | u |

    Non-finite input

    A NaN or infinite gradient makes the element and `acc_delta` NaN permanently. A finite gradient whose square
    overflows makes v infinite, which stops the element.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("adadelta", "torch.optim", "Adadelta")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-06,
        weight_decay: float = 0,
        foreach: Any = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "adadelta", {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "foreach": foreach, "capturable": capturable, "maximize": maximize, "differentiable": differentiable, **more})


class Adafactor(Optimizer):
    """PyTorch's Adafactor: like `crate::optim::Adafactor`, but ε₁ is a floor, the learning rate bounds the relative step, and there is no first moment.

    As `torch.optim.Adafactor`; `bitstep.torch.optimizer("adafactor_torch", …)`.

    Formula

    w ← t^beta2_decay
    α ← max(ε₂, RMS(p)) min(η, 1/√t)
    p ← p − η λ p
    V ← (1 − w) V + w G²                   kept as row averages R and column averages C:
                                           V = R Cᵀ / max(mean(R), ε₁)
    U ← G / max(√V, ε₁)
    p ← p − α U / max(1, RMS(U) / d)

    `maximize` negates G.

    Source

    Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018. Reference:
    `torch.optim.Adafactor`. Where `eps[0]` is none, the machine epsilon of the first parameter of the group that has a
    gradient is used for the whole group. `foreach` rounds once more, which matters in 16-bit types.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-2 |
    | `beta2_decay` | | ≤ 0 | −0.8 |
    | `eps` | ε₁, ε₂ | ≥ 0; ε₁ none for the type's epsilon | none, 1e-3 |
    | `d` | d | ≥ 1 | 1 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `foreach` | | | none |
    | `maximize` | | | false |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `variance` | 0 | V of a tensor below two dimensions |
    | `row_var` | 0 | R, one value for each row of the last two dimensions |
    | `col_var` | 0 | C, one value for each column |

    Non-finite input

    A NaN gradient makes its row, its column and, through the mean of rows, every element NaN. A NaN RMS(U) does not
    clip, and a NaN RMS(p) counts as ε₂.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("adafactor_torch", "torch.optim", "Adafactor")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        beta2_decay: float = -0.8,
        eps: Sequence[float | None] = (None, 0.001),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: Any = None,
        maximize: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "adafactor_torch", {"lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize, **more})


class Adagrad(Optimizer):
    """Adagrad.

    As `torch.optim.Adagrad`; `bitstep.torch.optimizer("adagrad", …)`.

    Formula

    g ← g + λ p
    s ← s + g²
    p ← p − η / (1 + (t − 1) δ) · g / (√s + ε)

    `maximize` negates g, but not the decay.

    Source

    Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011.
    Reference: `torch.optim.Adagrad`. The paper has neither weight decay nor an ε outside the root.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-2 |
    | `lr_decay` | δ | ≥ 0 | 0 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `initial_accumulator_value` | s₀ | ≥ 0 | 0 |
    | `eps` | ε | ≥ 0 | 1e-10 |
    | `foreach` | | true, false, none (as false) | none |
    | `maximize` | | | false |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `sum` | `initial_accumulator_value` | s; in the reference it exists before the first step |

    Non-finite input

    A NaN gradient makes the element and its sum NaN permanently. An infinite gradient makes the sum infinite and the
    element NaN; a finite gradient whose square overflows makes the sum infinite, which stops the element.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("adagrad", "torch.optim", "Adagrad")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: Any = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(params, "adagrad", {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "initial_accumulator_value": initial_accumulator_value, "eps": eps, "foreach": foreach, "maximize": maximize, "differentiable": differentiable, "fused": fused, **more})


class Adam(Optimizer):
    """Adam.

    As `torch.optim.Adam`; `bitstep.torch.optimizer("adam", …)`.

    Formula

    g ← g + λ p
    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    p ← p − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

    With `decoupled_weight_decay`, p ← p − η λ p takes the place of the first line. With `amsgrad`, the largest v so far
    replaces v under the root. `maximize` negates g, but not the decay.

    Source

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015; Reddi et al., "On the Convergence of Adam and
    Beyond", 2018, for `amsgrad`. Reference: `torch.optim.Adam`. The paper has no weight decay; the reference corrects
    the bias of the largest v, the paper on AMSGrad corrects none.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `amsgrad` | | | false |
    | `maximize` | | | false |
    | `decoupled_weight_decay` | | | false |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_avg_sq` | 0 | v |
    | `max_exp_avg_sq` | 0 | largest v so far; with `amsgrad` only |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("adam", "torch.optim", "Adam")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: Any = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: Any = None,
        decoupled_weight_decay: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "adam", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "foreach": foreach, "maximize": maximize, "capturable": capturable, "differentiable": differentiable, "fused": fused, "decoupled_weight_decay": decoupled_weight_decay, **more})


class Adamax(Optimizer):
    """Adamax.

    As `torch.optim.Adamax`; `bitstep.torch.optimizer("adamax", …)`.

    Formula

    g ← g + λ p
    m ← β₁ m + (1 − β₁) g
    u ← max(β₂ u, |g| + ε)
    p ← p − η / (1 − β₁ᵗ) · m / u

    `maximize` negates g, but not the decay.

    Source

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, section 7. Reference: `torch.optim.Adamax`. The
    paper has no ε, the reference adds it inside the maximum.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 2e-3 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `maximize` | | | false |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_inf` | 0 | u |

    Non-finite input

    A NaN or infinite gradient makes the element NaN permanently, and stays in its state.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("adamax", "torch.optim", "Adamax")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.002,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        foreach: Any = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "adamax", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize, "differentiable": differentiable, "capturable": capturable, **more})


class AdamW(Optimizer):
    """AdamW.

    As `torch.optim.AdamW`; `bitstep.torch.optimizer("adamw_torch", …)`.

    Formula

    p ← p − η λ p
    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    p ← p − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

    With `amsgrad`, the largest v so far replaces v under the root. `maximize` negates g.

    Source

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. Reference: `torch.optim.AdamW` (`adamw_torch`;
    `adamw_torch_fused` is the same rule computed in `f32` for 16-bit parameters). The paper multiplies λ by the
    schedule only, the reference also by the learning rate.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 1e-2 |
    | `amsgrad` | | | false |
    | `maximize` | | | false |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_avg_sq` | 0 | v |
    | `max_exp_avg_sq` | 0 | largest v so far; with `amsgrad` only |

    Non-finite input

    A NaN gradient makes the element and its state NaN permanently. After an infinite one the element is NaN; m is infinite,
    and NaN from the next step on; v stays infinite.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("adamw_torch", "torch.optim", "AdamW")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: Any = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(params, "adamw_torch", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach, "capturable": capturable, "differentiable": differentiable, "fused": fused, **more})


class ASGD(Optimizer):
    """Averaged stochastic gradient descent.

    As `torch.optim.ASGD`; `bitstep.torch.optimizer("asgd", …)`.

    Formula

    g ← g + λ p
    p ← p (1 − ν ηₜ) − ηₜ g
    a ← p if μₜ = 1, else a + μₜ (p − a)
    ηₜ₊₁ = η / (1 + ν η t)^α,  μₜ₊₁ = 1 / max(1, t − t₀)

    from η₁ = η and μ₁ = 1. `maximize` negates g, but not the decays.

    Source

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992. Reference: `torch.optim.ASGD`. A
    step uses the rate that the previous step computed, so a schedule takes effect one step late.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-2 |
    | `lambd` | ν | ≥ 0 | 1e-4 |
    | `alpha` | α | ≥ 0 | 0.75 |
    | `t0` | t₀ | any | 1e6 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `foreach` | | true, false, none (as false) | none |
    | `maximize` | | | false |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `ax` | 0 | a |
    | `eta` | the rate at the first step | ηₜ₊₁, a scalar |
    | `mu` | 1 | μₜ₊₁, a scalar |

    Non-finite input

    A NaN or infinite gradient makes the element and its average NaN or infinite permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("asgd", "torch.optim", "ASGD")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        lambd: float = 0.0001,
        alpha: float = 0.75,
        t0: float = 1000000.0,
        weight_decay: float = 0,
        foreach: Any = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "asgd", {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize, "differentiable": differentiable, "capturable": capturable, **more})


class Muon(Optimizer):
    """Muon: the update is the orthogonal matrix nearest to the momentum, found by a Newton–Schulz iteration in bf16. For matrices only.

    As `torch.optim.Muon`; `bitstep.torch.optimizer("muon", …)`.

    Formula

    M ← μ M + (1 − μ) G
    X ← (1 − μ) G + μ M                    nesterov; otherwise M
    X ← X / ‖X‖, transposed if it is tall
    A ← X Xᵀ;  X ← a X + (b A + c A²) X    ns_steps times
    p ← p − η λ p
    p ← p − η r X                          r: adjust_lr_fn

    | `adjust_lr_fn` | r |
    | --- | --- |
    | none, `original` | √max(1, rows / columns) |
    | `match_rms_adamw` | 0.2 √max(rows, columns) |
    | `spectral_unclamped` | √(rows / columns) |

    Source

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the adjustments are those of Liu et
    al., "Muon is Scalable for LLM Training", 2025, and Bernstein, "Deriving Muon", 2025. Reference: `torch.optim.Muon`,
    whose momentum is a running average, and whose weight decay uses the learning rate before adjustment.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `weight_decay` | λ | ≥ 0 | 0.1 |
    | `momentum` | μ | ≥ 0 | 0.95 |
    | `nesterov` | | | true |
    | `ns_coefficients` | a, b, c | any | 3.4445, −4.775, 2.0315 |
    | `eps` | ε | any | 1e-7 |
    | `ns_steps` | | < 100 | 5 |
    | `adjust_lr_fn` | | see above | none |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `momentum_buffer` | 0 | M |

    Non-finite input

    One NaN or infinity in the gradient makes the whole parameter NaN; in the momentum it stays at its element. A
    coefficient a or b of 0 leaves out what it multiplies, also where that is not finite.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("muon", "torch.optim", "Muon")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: Sequence[float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-07,
        ns_steps: int = 5,
        adjust_lr_fn: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(params, "muon", {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov, "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn, **more})


class NAdam(Optimizer):
    """NAdam.

    As `torch.optim.NAdam`; `bitstep.torch.optimizer("nadam", …)`.

    Formula

    g ← g + λ p
    μₜ = β₁ (1 − ½ · 0.96^(t ψ)),  Πₜ = μ₁ · … · μₜ
    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    p ← p − η (μₜ₊₁ m / (1 − Πₜ₊₁) + (1 − μₜ) g / (1 − Πₜ)) / (√(v / (1 − β₂ᵗ)) + ε)

    With `decoupled_weight_decay`, p ← p − η λ p takes the place of the first line. `maximize` negates g, but not the
    decay.

    Source

    Dozat, "Incorporating Nesterov Momentum into Adam", 2016. Reference: `torch.optim.NAdam`.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 2e-3 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `momentum_decay` | ψ | ≥ 0 | 4e-3 |
    | `decoupled_weight_decay` | | | false |
    | `foreach` | | true, false, none (as false) | none |
    | `maximize` | | | false |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |
    | `exp_avg_sq` | 0 | v |
    | `mu_product` | 1 | Π, a scalar |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("nadam", "torch.optim", "NAdam")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.002,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        momentum_decay: float = 0.004,
        decoupled_weight_decay: bool = False,
        *,
        foreach: Any = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "nadam", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay, "foreach": foreach, "maximize": maximize, "capturable": capturable, "differentiable": differentiable, **more})


class RAdam(Optimizer):
    """RAdam.

    As `torch.optim.RAdam`; `bitstep.torch.optimizer("radam", …)`.

    Formula

    g ← g + λ p
    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    ρ∞ = 2 / (1 − β₂) − 1,  ρ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ)
    r = √((ρ − 4) (ρ − 2) ρ∞ / ((ρ∞ − 4) (ρ∞ − 2) ρ))
    p ← p − η m / (1 − β₁ᵗ) · r √(1 − β₂ᵗ) / (√v + ε)   if ρ > 5
    p ← p − η m / (1 − β₁ᵗ)                              otherwise

    With `decoupled_weight_decay`, p ← p − η λ p takes the place of the first line. `maximize` negates g, but not the
    decay.

    Source

    Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020. Reference: `torch.optim.RAdam`. The
    paper rectifies from ρ > 4 and has no ε.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `decoupled_weight_decay` | | | false |
    | `foreach` | | true, false, none (as false) | none |
    | `maximize` | | | false |

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

    _reference = record("radam", "torch.optim", "RAdam")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: Any = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "radam", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "decoupled_weight_decay": decoupled_weight_decay, "foreach": foreach, "maximize": maximize, "capturable": capturable, "differentiable": differentiable, **more})


class RMSprop(Optimizer):
    """RMSprop: plain, centered, or with momentum.

    As `torch.optim.RMSprop`; `bitstep.torch.optimizer("rmsprop", …)`.

    Formula

    g ← g + λ p
    v ← α v + (1 − α) g²
    d = √v + ε,  or centered:  ḡ ← α ḡ + (1 − α) g,  d = √(v − ḡ²) + ε
    p ← p − η g / d,  or with momentum:  b ← μ b + g / d,  p ← p − η b

    `maximize` negates g, but not the decay.

    Source

    Tieleman and Hinton, "Lecture 6.5: rmsprop", 2012; Graves, "Generating Sequences With Recurrent Neural Networks",
    2013, for the centered form. Reference: `torch.optim.RMSprop`. Graves has ε inside the root. v − ḡ² may come out
    below 0 where the gradient hardly changes; its root is NaN, as in the reference.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-2 |
    | `alpha` | α | ≥ 0 | 0.99 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `momentum` | μ | ≥ 0 | 0 |
    | `centered` | | | false |
    | `maximize` | | | false |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `square_avg` | 0 | v |
    | `momentum_buffer` | 0 | b; with momentum only |
    | `grad_avg` | 0 | ḡ; with `centered` only |

    Non-finite input

    A NaN or infinite gradient makes the element NaN permanently, and its state NaN or infinite.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("rmsprop", "torch.optim", "RMSprop")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: Any = None,
        maximize: bool = False,
        differentiable: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "rmsprop", {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "centered": centered, "capturable": capturable, "foreach": foreach, "maximize": maximize, "differentiable": differentiable, **more})


class Rprop(Optimizer):
    """Resilient backpropagation.

    As `torch.optim.Rprop`; `bitstep.torch.optimizer("rprop", …)`.

    Formula

    s ← s · η⁺ if g g′ > 0,  s · η⁻ if g g′ < 0,  s otherwise; then s ← clamp(s, Γmin, Γmax)
    g ← 0 if g g′ < 0
    p ← p − sign(g) s
    g′ ← g

    where g′ is the gradient that the previous step stored. `maximize` negates g.

    Source

    Riedmiller and Braun, "A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm", 1993.
    Reference: `torch.optim.Rprop`: after a change of sign it stores 0 as the gradient instead of undoing the last step.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | first s | ≥ 0 | 1e-2 |
    | `etas` | η⁻, η⁺ | 0 < η⁻ < 1 < η⁺ | 0.5, 1.2 |
    | `step_sizes` | Γmin, Γmax | any | 1e-6, 50 |
    | `maximize` | | | false |

    Only the learning rate at the parameter's first step has an effect.

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `prev` | 0 | g′ |
    | `step_size` | the rate at the first step | s |

    Non-finite input

    A NaN gradient has the sign 0: the element stays where it is, and its step size stays the same for this step and the
    next. An infinite gradient counts by its sign like any other; its product with 0 is NaN, whose sign is 0 too.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("rprop", "torch.optim", "Rprop")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        etas: Sequence[float] = (0.5, 1.2),
        step_sizes: Sequence[float] = (1e-06, 50),
        *,
        capturable: bool = False,
        foreach: Any = None,
        maximize: bool = False,
        differentiable: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "rprop", {"lr": lr, "etas": etas, "step_sizes": step_sizes, "capturable": capturable, "foreach": foreach, "maximize": maximize, "differentiable": differentiable, **more})


class SGD(Optimizer):
    """Stochastic gradient descent: plain, with momentum, or with Nesterov momentum.

    As `torch.optim.SGD`; `bitstep.torch.optimizer("sgd", …)`.

    Formula

    g ← g + λ p
    b ← g at the first step, then μ b + (1 − τ) g
    p ← p − η d,  where d = b; with Nesterov g + μ b; without momentum g

    `maximize` negates g, but not the decay.

    Source

    Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013. Reference:
    `torch.optim.SGD`. The reference multiplies the whole buffer by the learning rate, the paper only what enters it.
    The first buffer of the reference is the gradient, without dampening.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `momentum` | μ | ≥ 0 | 0 |
    | `dampening` | τ | any | 0 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `nesterov` | | needs μ > 0 and τ = 0 | false |
    | `maximize` | | | false |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `momentum_buffer` | the first gradient | b; with momentum only |

    Non-finite input

    A NaN or infinite gradient makes the parameter non-finite, and stays in the buffer.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("sgd", "torch.optim", "SGD")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: Any = None,
        differentiable: bool = False,
        fused: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(params, "sgd", {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize, "foreach": foreach, "differentiable": differentiable, "fused": fused, **more})
