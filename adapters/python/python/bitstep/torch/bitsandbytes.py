"""The classes of bitsandbytes.optim."""

# Written by export/classes.py.

from __future__ import annotations

from typing import Any, Sequence

import torch

from .._references import record
from ._base import Optimizer

__all__ = ["Adam", "Adam32bit", "Adam8bit", "AdamW", "AdamW32bit", "AdamW8bit", "PagedAdamW", "PagedAdamW32bit", "PagedAdamW8bit", "AdEMAMix", "AdEMAMix8bit", "PagedAdEMAMix", "PagedAdEMAMix8bit", "Lion", "Lion32bit", "Lion8bit", "PagedLion", "PagedLion32bit", "PagedLion8bit", "RMSprop", "RMSprop32bit", "RMSprop8bit", "Adagrad", "Adagrad32bit", "Adagrad8bit", "LAMB", "LAMB32bit", "LAMB8bit", "LARS", "LARS32bit", "LARS8bit", "SGD", "SGD32bit", "SGD8bit"]


class Adam(Optimizer):
    """bitsandbytes' Adam and AdamW, which differ in the default of `weight_decay` only.

    As `bitsandbytes.optim.Adam`; `bitstep.torch.optimizer("bnb_adam_32bit", …)`.

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

    _reference = record("bnb_adam_32bit", "bitsandbytes.optim", "Adam")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        amsgrad: bool = False,
        optim_bits: int = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        is_paged: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_adam_32bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, "is_paged": is_paged, **more})


class Adam32bit(Optimizer):
    """bitsandbytes' Adam and AdamW, which differ in the default of `weight_decay` only.

    As `bitsandbytes.optim.Adam32bit`; `bitstep.torch.optimizer("bnb_adam_32bit", …)`.

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

    _reference = record("bnb_adam_32bit", "bitsandbytes.optim", "Adam32bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        amsgrad: bool = False,
        optim_bits: int = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        is_paged: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_adam_32bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, "is_paged": is_paged, **more})


class Adam8bit(Optimizer):
    """bitsandbytes' Adam and AdamW, which differ in the default of `weight_decay` only.

    As `bitsandbytes.optim.Adam8bit`; `bitstep.torch.optimizer("bnb_adam_8bit", …)`.

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

    _reference = record("bnb_adam_8bit", "bitsandbytes.optim", "Adam8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        amsgrad: bool = False,
        optim_bits: int = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        is_paged: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_adam_8bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, "is_paged": is_paged, **more})


class AdamW(Optimizer):
    """bitsandbytes' Adam and AdamW, which differ in the default of `weight_decay` only.

    As `bitsandbytes.optim.AdamW`; `bitstep.torch.optimizer("bnb_adamw_32bit", …)`.

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

    _reference = record("bnb_adamw_32bit", "bitsandbytes.optim", "AdamW")

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
        is_paged: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_adamw_32bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, "is_paged": is_paged, **more})


class AdamW32bit(Optimizer):
    """bitsandbytes' Adam and AdamW, which differ in the default of `weight_decay` only.

    As `bitsandbytes.optim.AdamW32bit`; `bitstep.torch.optimizer("bnb_adamw_32bit", …)`.

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

    _reference = record("bnb_adamw_32bit", "bitsandbytes.optim", "AdamW32bit")

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
        is_paged: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_adamw_32bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, "is_paged": is_paged, **more})


class AdamW8bit(Optimizer):
    """bitsandbytes' Adam and AdamW, which differ in the default of `weight_decay` only.

    As `bitsandbytes.optim.AdamW8bit`; `bitstep.torch.optimizer("adamw_bnb_8bit", …)`.

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

    _reference = record("adamw_bnb_8bit", "bitsandbytes.optim", "AdamW8bit")

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
        is_paged: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "adamw_bnb_8bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, "is_paged": is_paged, **more})


class PagedAdamW(Optimizer):
    """bitsandbytes' Adam and AdamW, which differ in the default of `weight_decay` only.

    As `bitsandbytes.optim.PagedAdamW`; `bitstep.torch.optimizer("paged_adamw_32bit", …)`.

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

    _reference = record("paged_adamw_32bit", "bitsandbytes.optim", "PagedAdamW")

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
        **more: Any,
    ) -> None:
        super().__init__(params, "paged_adamw_32bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, **more})


class PagedAdamW32bit(Optimizer):
    """bitsandbytes' Adam and AdamW, which differ in the default of `weight_decay` only.

    As `bitsandbytes.optim.PagedAdamW32bit`; `bitstep.torch.optimizer("paged_adamw_32bit", …)`.

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

    _reference = record("paged_adamw_32bit", "bitsandbytes.optim", "PagedAdamW32bit")

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
        **more: Any,
    ) -> None:
        super().__init__(params, "paged_adamw_32bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, **more})


class PagedAdamW8bit(Optimizer):
    """bitsandbytes' Adam and AdamW, which differ in the default of `weight_decay` only.

    As `bitsandbytes.optim.PagedAdamW8bit`; `bitstep.torch.optimizer("paged_adamw_8bit", …)`.

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

    _reference = record("paged_adamw_8bit", "bitsandbytes.optim", "PagedAdamW8bit")

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
        **more: Any,
    ) -> None:
        super().__init__(params, "paged_adamw_8bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, **more})


class AdEMAMix(Optimizer):
    """AdEMAMix.

    As `bitsandbytes.optim.AdEMAMix`; `bitstep.torch.optimizer("ademamix", …)`.

    Formula

    m₁ ← β₁ m₁ + (1 − β₁) g
    m₂ ← β₃ m₂ + (1 − β₃) g
    v ← β₂ v + (1 − β₂) g²
    p ← p − η λ p − η (m₁ / (1 − β₁ᵗ) + α m₂) / (√(v / (1 − β₂ᵗ)) + ε)

    With `t_alpha`, α grows linearly to its value over that many steps; with `t_beta3`, β₃ grows from β₁ to its value,
    the half-life of m₂ growing linearly:

    β₃ = exp(ln β₁ ln β₃ / ((1 − t/T) ln β₃ + t/T ln β₁))

    Source

    Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024. Reference:
    `bitsandbytes.optim.AdEMAMix` (`ademamix`, `paged_ademamix_32bit`): arithmetic and state are `f32` throughout. The
    8-bit kernel computes the same update. The paper adds the decay to the update; the reference applies it first.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂, β₃ | [0, 1); β₁, β₃ > 0 with `t_beta3` | 0.9, 0.999, 0.9999 |
    | `alpha` | α | any | 5 |
    | `t_alpha` | | steps; none or 0: no schedule | none |
    | `t_beta3` | T | steps; none or 0: no schedule | none |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 1e-2 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m₁, in `f32` |
    | `state1` | 0 | m₂, in `f32`; the reference stacks both in one tensor |
    | `state2` | 0 | v, in `f32` |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("ademamix", "bitsandbytes.optim", "AdEMAMix")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0,
        t_alpha: Any = None,
        t_beta3: Any = None,
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        optim_bits: int = 32,
        min_8bit_size: int = 4096,
        is_paged: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "ademamix", {"lr": lr, "betas": betas, "alpha": alpha, "t_alpha": t_alpha, "t_beta3": t_beta3, "eps": eps, "weight_decay": weight_decay, "optim_bits": optim_bits, "min_8bit_size": min_8bit_size, "is_paged": is_paged, **more})


class AdEMAMix8bit(Optimizer):
    """AdEMAMix.

    As `bitsandbytes.optim.AdEMAMix8bit`; `bitstep.torch.optimizer("ademamix_8bit", …)`.

    Formula

    m₁ ← β₁ m₁ + (1 − β₁) g
    m₂ ← β₃ m₂ + (1 − β₃) g
    v ← β₂ v + (1 − β₂) g²
    p ← p − η λ p − η (m₁ / (1 − β₁ᵗ) + α m₂) / (√(v / (1 − β₂ᵗ)) + ε)

    With `t_alpha`, α grows linearly to its value over that many steps; with `t_beta3`, β₃ grows from β₁ to its value,
    the half-life of m₂ growing linearly:

    β₃ = exp(ln β₁ ln β₃ / ((1 − t/T) ln β₃ + t/T ln β₁))

    Source

    Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024. Reference:
    `bitsandbytes.optim.AdEMAMix` (`ademamix`, `paged_ademamix_32bit`): arithmetic and state are `f32` throughout. The
    8-bit kernel computes the same update. The paper adds the decay to the update; the reference applies it first.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂, β₃ | [0, 1); β₁, β₃ > 0 with `t_beta3` | 0.9, 0.999, 0.9999 |
    | `alpha` | α | any | 5 |
    | `t_alpha` | | steps; none or 0: no schedule | none |
    | `t_beta3` | T | steps; none or 0: no schedule | none |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 1e-2 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m₁, in `f32` |
    | `state1` | 0 | m₂, in `f32`; the reference stacks both in one tensor |
    | `state2` | 0 | v, in `f32` |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("ademamix_8bit", "bitsandbytes.optim", "AdEMAMix8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0,
        t_alpha: Any = None,
        t_beta3: Any = None,
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        min_8bit_size: int = 4096,
        is_paged: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "ademamix_8bit", {"lr": lr, "betas": betas, "alpha": alpha, "t_alpha": t_alpha, "t_beta3": t_beta3, "eps": eps, "weight_decay": weight_decay, "min_8bit_size": min_8bit_size, "is_paged": is_paged, **more})


class PagedAdEMAMix(Optimizer):
    """AdEMAMix.

    As `bitsandbytes.optim.PagedAdEMAMix`; `bitstep.torch.optimizer("paged_ademamix_32bit", …)`.

    Formula

    m₁ ← β₁ m₁ + (1 − β₁) g
    m₂ ← β₃ m₂ + (1 − β₃) g
    v ← β₂ v + (1 − β₂) g²
    p ← p − η λ p − η (m₁ / (1 − β₁ᵗ) + α m₂) / (√(v / (1 − β₂ᵗ)) + ε)

    With `t_alpha`, α grows linearly to its value over that many steps; with `t_beta3`, β₃ grows from β₁ to its value,
    the half-life of m₂ growing linearly:

    β₃ = exp(ln β₁ ln β₃ / ((1 − t/T) ln β₃ + t/T ln β₁))

    Source

    Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024. Reference:
    `bitsandbytes.optim.AdEMAMix` (`ademamix`, `paged_ademamix_32bit`): arithmetic and state are `f32` throughout. The
    8-bit kernel computes the same update. The paper adds the decay to the update; the reference applies it first.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂, β₃ | [0, 1); β₁, β₃ > 0 with `t_beta3` | 0.9, 0.999, 0.9999 |
    | `alpha` | α | any | 5 |
    | `t_alpha` | | steps; none or 0: no schedule | none |
    | `t_beta3` | T | steps; none or 0: no schedule | none |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 1e-2 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m₁, in `f32` |
    | `state1` | 0 | m₂, in `f32`; the reference stacks both in one tensor |
    | `state2` | 0 | v, in `f32` |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("paged_ademamix_32bit", "bitsandbytes.optim", "PagedAdEMAMix")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0,
        t_alpha: Any = None,
        t_beta3: Any = None,
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        optim_bits: int = 32,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "paged_ademamix_32bit", {"lr": lr, "betas": betas, "alpha": alpha, "t_alpha": t_alpha, "t_beta3": t_beta3, "eps": eps, "weight_decay": weight_decay, "optim_bits": optim_bits, "min_8bit_size": min_8bit_size, **more})


class PagedAdEMAMix8bit(Optimizer):
    """AdEMAMix.

    As `bitsandbytes.optim.PagedAdEMAMix8bit`; `bitstep.torch.optimizer("paged_ademamix_8bit", …)`.

    Formula

    m₁ ← β₁ m₁ + (1 − β₁) g
    m₂ ← β₃ m₂ + (1 − β₃) g
    v ← β₂ v + (1 − β₂) g²
    p ← p − η λ p − η (m₁ / (1 − β₁ᵗ) + α m₂) / (√(v / (1 − β₂ᵗ)) + ε)

    With `t_alpha`, α grows linearly to its value over that many steps; with `t_beta3`, β₃ grows from β₁ to its value,
    the half-life of m₂ growing linearly:

    β₃ = exp(ln β₁ ln β₃ / ((1 − t/T) ln β₃ + t/T ln β₁))

    Source

    Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024. Reference:
    `bitsandbytes.optim.AdEMAMix` (`ademamix`, `paged_ademamix_32bit`): arithmetic and state are `f32` throughout. The
    8-bit kernel computes the same update. The paper adds the decay to the update; the reference applies it first.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂, β₃ | [0, 1); β₁, β₃ > 0 with `t_beta3` | 0.9, 0.999, 0.9999 |
    | `alpha` | α | any | 5 |
    | `t_alpha` | | steps; none or 0: no schedule | none |
    | `t_beta3` | T | steps; none or 0: no schedule | none |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 1e-2 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m₁, in `f32` |
    | `state1` | 0 | m₂, in `f32`; the reference stacks both in one tensor |
    | `state2` | 0 | v, in `f32` |

    Non-finite input

    A NaN or infinite gradient makes the element and its state NaN permanently.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("paged_ademamix_8bit", "bitsandbytes.optim", "PagedAdEMAMix8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0,
        t_alpha: Any = None,
        t_beta3: Any = None,
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "paged_ademamix_8bit", {"lr": lr, "betas": betas, "alpha": alpha, "t_alpha": t_alpha, "t_beta3": t_beta3, "eps": eps, "weight_decay": weight_decay, "min_8bit_size": min_8bit_size, **more})


class Lion(Optimizer):
    """Lion.

    As `bitsandbytes.optim.Lion`; `bitstep.torch.optimizer("lion_32bit", …)`.

    Formula

    p ← p − η λ p − η sign(β₁ m + (1 − β₁) g)
    m ← β₂ m + (1 − β₂) g

    Source

    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023. Reference: `bitsandbytes.optim.Lion`
    (`lion_32bit`, `paged_lion_32bit`): arithmetic and state are `f32` throughout. The 8-bit kernel computes the same
    update.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-4 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |

    Non-finite input

    The sign of NaN is 0: the parameter only decays, but m stays NaN.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("lion_32bit", "bitsandbytes.optim", "Lion")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.0001,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0,
        optim_bits: int = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        is_paged: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "lion_32bit", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, "is_paged": is_paged, **more})


class Lion32bit(Optimizer):
    """Lion.

    As `bitsandbytes.optim.Lion32bit`; `bitstep.torch.optimizer("lion_32bit", …)`.

    Formula

    p ← p − η λ p − η sign(β₁ m + (1 − β₁) g)
    m ← β₂ m + (1 − β₂) g

    Source

    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023. Reference: `bitsandbytes.optim.Lion`
    (`lion_32bit`, `paged_lion_32bit`): arithmetic and state are `f32` throughout. The 8-bit kernel computes the same
    update.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-4 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |

    Non-finite input

    The sign of NaN is 0: the parameter only decays, but m stays NaN.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("lion_32bit", "bitsandbytes.optim", "Lion32bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.0001,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0,
        args: Any = None,
        min_8bit_size: int = 4096,
        is_paged: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "lion_32bit", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "args": args, "min_8bit_size": min_8bit_size, "is_paged": is_paged, **more})


class Lion8bit(Optimizer):
    """Lion.

    As `bitsandbytes.optim.Lion8bit`; `bitstep.torch.optimizer("lion_8bit", …)`.

    Formula

    p ← p − η λ p − η sign(β₁ m + (1 − β₁) g)
    m ← β₂ m + (1 − β₂) g

    Source

    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023. Reference: `bitsandbytes.optim.Lion`
    (`lion_32bit`, `paged_lion_32bit`): arithmetic and state are `f32` throughout. The 8-bit kernel computes the same
    update.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-4 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |

    Non-finite input

    The sign of NaN is 0: the parameter only decays, but m stays NaN.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("lion_8bit", "bitsandbytes.optim", "Lion8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.0001,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0,
        args: Any = None,
        min_8bit_size: int = 4096,
        is_paged: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "lion_8bit", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "args": args, "min_8bit_size": min_8bit_size, "is_paged": is_paged, **more})


class PagedLion(Optimizer):
    """Lion.

    As `bitsandbytes.optim.PagedLion`; `bitstep.torch.optimizer("paged_lion_32bit", …)`.

    Formula

    p ← p − η λ p − η sign(β₁ m + (1 − β₁) g)
    m ← β₂ m + (1 − β₂) g

    Source

    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023. Reference: `bitsandbytes.optim.Lion`
    (`lion_32bit`, `paged_lion_32bit`): arithmetic and state are `f32` throughout. The 8-bit kernel computes the same
    update.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-4 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |

    Non-finite input

    The sign of NaN is 0: the parameter only decays, but m stays NaN.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("paged_lion_32bit", "bitsandbytes.optim", "PagedLion")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.0001,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0,
        optim_bits: int = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "paged_lion_32bit", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, **more})


class PagedLion32bit(Optimizer):
    """Lion.

    As `bitsandbytes.optim.PagedLion32bit`; `bitstep.torch.optimizer("paged_lion_32bit", …)`.

    Formula

    p ← p − η λ p − η sign(β₁ m + (1 − β₁) g)
    m ← β₂ m + (1 − β₂) g

    Source

    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023. Reference: `bitsandbytes.optim.Lion`
    (`lion_32bit`, `paged_lion_32bit`): arithmetic and state are `f32` throughout. The 8-bit kernel computes the same
    update.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-4 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |

    Non-finite input

    The sign of NaN is 0: the parameter only decays, but m stays NaN.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("paged_lion_32bit", "bitsandbytes.optim", "PagedLion32bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.0001,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0,
        args: Any = None,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "paged_lion_32bit", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "args": args, "min_8bit_size": min_8bit_size, **more})


class PagedLion8bit(Optimizer):
    """Lion.

    As `bitsandbytes.optim.PagedLion8bit`; `bitstep.torch.optimizer("paged_lion_8bit", …)`.

    Formula

    p ← p − η λ p − η sign(β₁ m + (1 − β₁) g)
    m ← β₂ m + (1 − β₂) g

    Source

    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023. Reference: `bitsandbytes.optim.Lion`
    (`lion_32bit`, `paged_lion_32bit`): arithmetic and state are `f32` throughout. The 8-bit kernel computes the same
    update.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-4 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |

    Non-finite input

    The sign of NaN is 0: the parameter only decays, but m stays NaN.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("paged_lion_8bit", "bitsandbytes.optim", "PagedLion8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.0001,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0,
        args: Any = None,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "paged_lion_8bit", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "args": args, "min_8bit_size": min_8bit_size, **more})


class RMSprop(Optimizer):
    """bitsandbytes' RMSprop.

    As `bitsandbytes.optim.RMSprop`; `bitstep.torch.optimizer("rmsprop_bnb", …)`.

    Formula

    g ← g + λ p
    s ← α s + (1 − α) g²
    p ← p − η g / (√s + ε)

    Source

    Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012. Reference: `bitsandbytes.optim.RMSprop`
    (`rmsprop_bnb`, `rmsprop_bnb_32bit`): arithmetic and state are `f32` throughout. `momentum` does nothing.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-2 |
    | `alpha` | α | (0, 1) | 0.99 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `momentum` | | [0, 1) | 0 |
    | `centered` | | false | false |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | s, in `f32` |

    Non-finite input

    A NaN or infinite gradient makes the element NaN; s stays NaN or infinite.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("rmsprop_bnb", "bitsandbytes.optim", "RMSprop")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        optim_bits: int = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "rmsprop_bnb", {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "centered": centered, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, **more})


class RMSprop32bit(Optimizer):
    """bitsandbytes' RMSprop.

    As `bitsandbytes.optim.RMSprop32bit`; `bitstep.torch.optimizer("rmsprop_bnb_32bit", …)`.

    Formula

    g ← g + λ p
    s ← α s + (1 − α) g²
    p ← p − η g / (√s + ε)

    Source

    Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012. Reference: `bitsandbytes.optim.RMSprop`
    (`rmsprop_bnb`, `rmsprop_bnb_32bit`): arithmetic and state are `f32` throughout. `momentum` does nothing.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-2 |
    | `alpha` | α | (0, 1) | 0.99 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `momentum` | | [0, 1) | 0 |
    | `centered` | | false | false |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | s, in `f32` |

    Non-finite input

    A NaN or infinite gradient makes the element NaN; s stays NaN or infinite.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("rmsprop_bnb_32bit", "bitsandbytes.optim", "RMSprop32bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        args: Any = None,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "rmsprop_bnb_32bit", {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "centered": centered, "args": args, "min_8bit_size": min_8bit_size, **more})


class RMSprop8bit(Optimizer):
    """bitsandbytes' RMSprop.

    As `bitsandbytes.optim.RMSprop8bit`; `bitstep.torch.optimizer("rmsprop_bnb_8bit", …)`.

    Formula

    g ← g + λ p
    s ← α s + (1 − α) g²
    p ← p − η g / (√s + ε)

    Source

    Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012. Reference: `bitsandbytes.optim.RMSprop`
    (`rmsprop_bnb`, `rmsprop_bnb_32bit`): arithmetic and state are `f32` throughout. `momentum` does nothing.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-2 |
    | `alpha` | α | (0, 1) | 0.99 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `momentum` | | [0, 1) | 0 |
    | `centered` | | false | false |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | s, in `f32` |

    Non-finite input

    A NaN or infinite gradient makes the element NaN; s stays NaN or infinite.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("rmsprop_bnb_8bit", "bitsandbytes.optim", "RMSprop8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        args: Any = None,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "rmsprop_bnb_8bit", {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "centered": centered, "args": args, "min_8bit_size": min_8bit_size, **more})


class Adagrad(Optimizer):
    """bitsandbytes' Adagrad.

    As `bitsandbytes.optim.Adagrad`; `bitstep.torch.optimizer("bnb_adagrad_32bit", …)`.

    Formula

    g ← g + λ p
    s ← s + g²
    p ← p − η g / (√s + ε)

    Source

    Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011.
    Reference: `bitsandbytes.optim.Adagrad` (`bnb_adagrad_32bit`): arithmetic and state are `f32` throughout.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-2 |
    | `lr_decay` | | 0 | 0 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `initial_accumulator_value` | | 0 | 0 |
    | `eps` | ε | ≥ 0 | 1e-10 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | s, in `f32` |

    Non-finite input

    A NaN or infinite gradient makes the element NaN; s stays NaN or infinite.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("bnb_adagrad_32bit", "bitsandbytes.optim", "Adagrad")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        optim_bits: int = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_adagrad_32bit", {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "initial_accumulator_value": initial_accumulator_value, "eps": eps, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, **more})


class Adagrad32bit(Optimizer):
    """bitsandbytes' Adagrad.

    As `bitsandbytes.optim.Adagrad32bit`; `bitstep.torch.optimizer("bnb_adagrad_32bit", …)`.

    Formula

    g ← g + λ p
    s ← s + g²
    p ← p − η g / (√s + ε)

    Source

    Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011.
    Reference: `bitsandbytes.optim.Adagrad` (`bnb_adagrad_32bit`): arithmetic and state are `f32` throughout.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-2 |
    | `lr_decay` | | 0 | 0 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `initial_accumulator_value` | | 0 | 0 |
    | `eps` | ε | ≥ 0 | 1e-10 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | s, in `f32` |

    Non-finite input

    A NaN or infinite gradient makes the element NaN; s stays NaN or infinite.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("bnb_adagrad_32bit", "bitsandbytes.optim", "Adagrad32bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        optim_bits: int = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_adagrad_32bit", {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "initial_accumulator_value": initial_accumulator_value, "eps": eps, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, **more})


class Adagrad8bit(Optimizer):
    """bitsandbytes' Adagrad.

    As `bitsandbytes.optim.Adagrad8bit`; `bitstep.torch.optimizer("bnb_adagrad_8bit", …)`.

    Formula

    g ← g + λ p
    s ← s + g²
    p ← p − η g / (√s + ε)

    Source

    Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011.
    Reference: `bitsandbytes.optim.Adagrad` (`bnb_adagrad_32bit`): arithmetic and state are `f32` throughout.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-2 |
    | `lr_decay` | | 0 | 0 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `initial_accumulator_value` | | 0 | 0 |
    | `eps` | ε | ≥ 0 | 1e-10 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | s, in `f32` |

    Non-finite input

    A NaN or infinite gradient makes the element NaN; s stays NaN or infinite.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("bnb_adagrad_8bit", "bitsandbytes.optim", "Adagrad8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        optim_bits: int = 8,
        args: Any = None,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_adagrad_8bit", {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "initial_accumulator_value": initial_accumulator_value, "eps": eps, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, **more})


class LAMB(Optimizer):
    """bitsandbytes' LAMB.

    As `bitsandbytes.optim.LAMB`; `bitstep.torch.optimizer("bnb_lamb_32bit", …)`.

    Formula

    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    u = m / (√v + ε √(1 − β₂ᵗ))
    r = min(1, τ ‖p‖ / ‖u‖)
    p ← p − η λ p − η r √(1 − β₂ᵗ) / (1 − β₁ᵗ) u

    Source

    You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2020. Reference:
    `bitsandbytes.optim.LAMB` (`bnb_lamb_32bit`): arithmetic and state are `f32` throughout. The paper scales every
    update to the parameter's norm, the decay included; the reference only reduces larger updates, and does so before
    the bias correction. `bias_correction`, `amsgrad` and `adam_w_mode` do nothing.

    Also `galore_torch.GaLoreAdamW8bit` (`galore_adamw_8bit`), which is bitsandbytes' Adam, and passes its
    `percentile_clipping` of 100 by position, where bitsandbytes now has `max_unorm`. So updates of parameters with
    32-bit state are limited to 100 times the parameter's norm, and a projected parameter, which bitsandbytes sees as
    zeros, moves by its decay only. `percentile_clipping=0` removes the limit.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `max_unorm` | τ | any; no limit if ≤ 0 | 1 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |
    | `state2` | 0 | v, in `f32` |

    With a limit, the scalar `unorm_vec` records ‖u‖ of the last step, or 0 with 8-bit state; no update depends on it.

    Non-finite input

    A NaN gradient makes its element NaN; the norm then is NaN, and r is 1. An infinite u makes r 0: the other elements
    stay where they are.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("bnb_lamb_32bit", "bitsandbytes.optim", "LAMB")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        bias_correction: bool = True,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        amsgrad: bool = False,
        adam_w_mode: bool = True,
        optim_bits: int = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        max_unorm: float = 1.0,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_lamb_32bit", {"lr": lr, "bias_correction": bias_correction, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "adam_w_mode": adam_w_mode, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, "max_unorm": max_unorm, **more})


class LAMB32bit(Optimizer):
    """bitsandbytes' LAMB.

    As `bitsandbytes.optim.LAMB32bit`; `bitstep.torch.optimizer("bnb_lamb_32bit", …)`.

    Formula

    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    u = m / (√v + ε √(1 − β₂ᵗ))
    r = min(1, τ ‖p‖ / ‖u‖)
    p ← p − η λ p − η r √(1 − β₂ᵗ) / (1 − β₁ᵗ) u

    Source

    You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2020. Reference:
    `bitsandbytes.optim.LAMB` (`bnb_lamb_32bit`): arithmetic and state are `f32` throughout. The paper scales every
    update to the parameter's norm, the decay included; the reference only reduces larger updates, and does so before
    the bias correction. `bias_correction`, `amsgrad` and `adam_w_mode` do nothing.

    Also `galore_torch.GaLoreAdamW8bit` (`galore_adamw_8bit`), which is bitsandbytes' Adam, and passes its
    `percentile_clipping` of 100 by position, where bitsandbytes now has `max_unorm`. So updates of parameters with
    32-bit state are limited to 100 times the parameter's norm, and a projected parameter, which bitsandbytes sees as
    zeros, moves by its decay only. `percentile_clipping=0` removes the limit.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `max_unorm` | τ | any; no limit if ≤ 0 | 1 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |
    | `state2` | 0 | v, in `f32` |

    With a limit, the scalar `unorm_vec` records ‖u‖ of the last step, or 0 with 8-bit state; no update depends on it.

    Non-finite input

    A NaN gradient makes its element NaN; the norm then is NaN, and r is 1. An infinite u makes r 0: the other elements
    stay where they are.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("bnb_lamb_32bit", "bitsandbytes.optim", "LAMB32bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        bias_correction: bool = True,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        amsgrad: bool = False,
        adam_w_mode: bool = True,
        args: Any = None,
        min_8bit_size: int = 4096,
        max_unorm: float = 1.0,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_lamb_32bit", {"lr": lr, "bias_correction": bias_correction, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "adam_w_mode": adam_w_mode, "args": args, "min_8bit_size": min_8bit_size, "max_unorm": max_unorm, **more})


class LAMB8bit(Optimizer):
    """bitsandbytes' LAMB.

    As `bitsandbytes.optim.LAMB8bit`; `bitstep.torch.optimizer("bnb_lamb_8bit", …)`.

    Formula

    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    u = m / (√v + ε √(1 − β₂ᵗ))
    r = min(1, τ ‖p‖ / ‖u‖)
    p ← p − η λ p − η r √(1 − β₂ᵗ) / (1 − β₁ᵗ) u

    Source

    You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2020. Reference:
    `bitsandbytes.optim.LAMB` (`bnb_lamb_32bit`): arithmetic and state are `f32` throughout. The paper scales every
    update to the parameter's norm, the decay included; the reference only reduces larger updates, and does so before
    the bias correction. `bias_correction`, `amsgrad` and `adam_w_mode` do nothing.

    Also `galore_torch.GaLoreAdamW8bit` (`galore_adamw_8bit`), which is bitsandbytes' Adam, and passes its
    `percentile_clipping` of 100 by position, where bitsandbytes now has `max_unorm`. So updates of parameters with
    32-bit state are limited to 100 times the parameter's norm, and a projected parameter, which bitsandbytes sees as
    zeros, moves by its decay only. `percentile_clipping=0` removes the limit.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
    | `eps` | ε | ≥ 0 | 1e-8 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `max_unorm` | τ | any; no limit if ≤ 0 | 1 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |
    | `state2` | 0 | v, in `f32` |

    With a limit, the scalar `unorm_vec` records ‖u‖ of the last step, or 0 with 8-bit state; no update depends on it.

    Non-finite input

    A NaN gradient makes its element NaN; the norm then is NaN, and r is 1. An infinite u makes r 0: the other elements
    stay where they are.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("bnb_lamb_8bit", "bitsandbytes.optim", "LAMB8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        bias_correction: bool = True,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        amsgrad: bool = False,
        adam_w_mode: bool = True,
        args: Any = None,
        min_8bit_size: int = 4096,
        max_unorm: float = 1.0,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_lamb_8bit", {"lr": lr, "bias_correction": bias_correction, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "adam_w_mode": adam_w_mode, "args": args, "min_8bit_size": min_8bit_size, "max_unorm": max_unorm, **more})


class LARS(Optimizer):
    """bitsandbytes' LARS.

    As `bitsandbytes.optim.LARS`; `bitstep.torch.optimizer("bnb_lars_32bit", …)`.

    Formula

    m ← μ m + g + λ p        at the first step: g + λ p
    p ← p − η min(1, τ ‖p‖ / ‖m‖) m

    Source

    You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", 2017. Reference:
    `bitsandbytes.optim.LARS` (`bnb_lars_32bit`): arithmetic and state are `f32` throughout. The paper scales every
    gradient, before the momentum; the reference only reduces updates that are too large. `dampening` and `nesterov` do
    nothing.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `momentum` | μ | (0, 1) | 0.9 (the reference refuses its own default, 0) |
    | `dampening` | | [0, 1) | 0 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `max_unorm` | τ | any; no limit if ≤ 0 | 0.02 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |

    The scalar `unorm_vec` records ‖m‖ of the last step, or 0 without a limit; no update depends on it.

    Non-finite input

    A NaN gradient makes its element NaN; the norm then is NaN, and r is 1. An infinite m makes r 0: the other elements
    stay where they are.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("bnb_lars_32bit", "bitsandbytes.optim", "LARS")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        optim_bits: int = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        max_unorm: float = 0.02,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_lars_32bit", {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, "max_unorm": max_unorm, **more})


class LARS32bit(Optimizer):
    """bitsandbytes' LARS.

    As `bitsandbytes.optim.LARS32bit`; `bitstep.torch.optimizer("bnb_lars_32bit", …)`.

    Formula

    m ← μ m + g + λ p        at the first step: g + λ p
    p ← p − η min(1, τ ‖p‖ / ‖m‖) m

    Source

    You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", 2017. Reference:
    `bitsandbytes.optim.LARS` (`bnb_lars_32bit`): arithmetic and state are `f32` throughout. The paper scales every
    gradient, before the momentum; the reference only reduces updates that are too large. `dampening` and `nesterov` do
    nothing.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `momentum` | μ | (0, 1) | 0.9 (the reference refuses its own default, 0) |
    | `dampening` | | [0, 1) | 0 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `max_unorm` | τ | any; no limit if ≤ 0 | 0.02 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |

    The scalar `unorm_vec` records ‖m‖ of the last step, or 0 without a limit; no update depends on it.

    Non-finite input

    A NaN gradient makes its element NaN; the norm then is NaN, and r is 1. An infinite m makes r 0: the other elements
    stay where they are.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("bnb_lars_32bit", "bitsandbytes.optim", "LARS32bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        args: Any = None,
        min_8bit_size: int = 4096,
        max_unorm: float = 0.02,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_lars_32bit", {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov, "args": args, "min_8bit_size": min_8bit_size, "max_unorm": max_unorm, **more})


class LARS8bit(Optimizer):
    """bitsandbytes' LARS.

    As `bitsandbytes.optim.LARS8bit`; `bitstep.torch.optimizer("bnb_lars_8bit", …)`.

    Formula

    m ← μ m + g + λ p        at the first step: g + λ p
    p ← p − η min(1, τ ‖p‖ / ‖m‖) m

    Source

    You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", 2017. Reference:
    `bitsandbytes.optim.LARS` (`bnb_lars_32bit`): arithmetic and state are `f32` throughout. The paper scales every
    gradient, before the momentum; the reference only reduces updates that are too large. `dampening` and `nesterov` do
    nothing.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `momentum` | μ | (0, 1) | 0.9 (the reference refuses its own default, 0) |
    | `dampening` | | [0, 1) | 0 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `max_unorm` | τ | any; no limit if ≤ 0 | 0.02 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |

    The scalar `unorm_vec` records ‖m‖ of the last step, or 0 without a limit; no update depends on it.

    Non-finite input

    A NaN gradient makes its element NaN; the norm then is NaN, and r is 1. An infinite m makes r 0: the other elements
    stay where they are.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("bnb_lars_8bit", "bitsandbytes.optim", "LARS8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        args: Any = None,
        min_8bit_size: int = 4096,
        max_unorm: float = 0.02,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_lars_8bit", {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov, "args": args, "min_8bit_size": min_8bit_size, "max_unorm": max_unorm, **more})


class SGD(Optimizer):
    """bitsandbytes' SGD with momentum.

    As `bitsandbytes.optim.SGD`; `bitstep.torch.optimizer("bnb_sgd_32bit", …)`.

    Formula

    m ← μ m + g + λ p        at the first step: g + λ p
    p ← p − η m

    Source

    Reference: `bitsandbytes.optim.SGD` (`bnb_sgd_32bit`): arithmetic and state are `f32` throughout. `dampening` and
    `nesterov` do nothing.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `momentum` | μ | (0, 1) | 0.9 (the reference refuses its own default, 0) |
    | `dampening` | | [0, 1) | 0 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |

    Non-finite input

    A NaN or infinity stays in m and p. With 8-bit state λ = 0 does not keep a non-finite p out of m.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("bnb_sgd_32bit", "bitsandbytes.optim", "SGD")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        optim_bits: int = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_sgd_32bit", {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov, "optim_bits": optim_bits, "args": args, "min_8bit_size": min_8bit_size, **more})


class SGD32bit(Optimizer):
    """bitsandbytes' SGD with momentum.

    As `bitsandbytes.optim.SGD32bit`; `bitstep.torch.optimizer("bnb_sgd_32bit", …)`.

    Formula

    m ← μ m + g + λ p        at the first step: g + λ p
    p ← p − η m

    Source

    Reference: `bitsandbytes.optim.SGD` (`bnb_sgd_32bit`): arithmetic and state are `f32` throughout. `dampening` and
    `nesterov` do nothing.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `momentum` | μ | (0, 1) | 0.9 (the reference refuses its own default, 0) |
    | `dampening` | | [0, 1) | 0 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |

    Non-finite input

    A NaN or infinity stays in m and p. With 8-bit state λ = 0 does not keep a non-finite p out of m.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("bnb_sgd_32bit", "bitsandbytes.optim", "SGD32bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        args: Any = None,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_sgd_32bit", {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov, "args": args, "min_8bit_size": min_8bit_size, **more})


class SGD8bit(Optimizer):
    """bitsandbytes' SGD with momentum.

    As `bitsandbytes.optim.SGD8bit`; `bitstep.torch.optimizer("bnb_sgd_8bit", …)`.

    Formula

    m ← μ m + g + λ p        at the first step: g + λ p
    p ← p − η m

    Source

    Reference: `bitsandbytes.optim.SGD` (`bnb_sgd_32bit`): arithmetic and state are `f32` throughout. `dampening` and
    `nesterov` do nothing.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
    | `momentum` | μ | (0, 1) | 0.9 (the reference refuses its own default, 0) |
    | `dampening` | | [0, 1) | 0 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `state` | | | 32-bit |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `state1` | 0 | m, in `f32` |

    Non-finite input

    A NaN or infinity stays in m and p. With 8-bit state λ = 0 does not keep a non-finite p out of m.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("bnb_sgd_8bit", "bitsandbytes.optim", "SGD8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        args: Any = None,
        min_8bit_size: int = 4096,
        **more: Any,
    ) -> None:
        super().__init__(params, "bnb_sgd_8bit", {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov, "args": args, "min_8bit_size": min_8bit_size, **more})
