"""The classes of flashoptim."""

# Written by export/classes.py.

from __future__ import annotations

from typing import Any, Sequence

import torch

from .._references import record
from ._base import Optimizer

__all__ = ["FlashAdam", "FlashAdamW", "FlashLion", "FlashSGD", "FlashSGDW"]


class FlashAdam(Optimizer):
    """FlashAdam

    As `flashoptim.FlashAdam`; `bitstep.torch.optimizer("flash_adam", …)`.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("flash_adam", "flashoptim", "FlashAdam")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        quantize: bool = True,
        compress_state_dict: bool = True,
        master_weight_bits: int = 24,
        check_numerics: bool = False,
        fused: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(params, "flash_adam", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "quantize": quantize, "compress_state_dict": compress_state_dict, "master_weight_bits": master_weight_bits, "check_numerics": check_numerics, "fused": fused, **more})


class FlashAdamW(Optimizer):
    """FlashAdamW

    As `flashoptim.FlashAdamW`; `bitstep.torch.optimizer("flash_adamw", …)`.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("flash_adamw", "flashoptim", "FlashAdamW")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        decouple_lr: bool = False,
        quantize: bool = True,
        compress_state_dict: bool = True,
        master_weight_bits: int = 24,
        check_numerics: bool = False,
        fused: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(params, "flash_adamw", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "decouple_lr": decouple_lr, "quantize": quantize, "compress_state_dict": compress_state_dict, "master_weight_bits": master_weight_bits, "check_numerics": check_numerics, "fused": fused, **more})


class FlashLion(Optimizer):
    """FlashOptim's Lion.

    As `flashoptim.FlashLion`; `bitstep.torch.optimizer("flash_lion", …)`.

    Formula

    u ← sign(β₁ m + (1 − β₁) g)
    m ← β₂ m + (1 − β₂) g
    p ← (1 − η λ) p − η u

    With `decouple_lr` the decay is λ η / η₀, η₀ being the constructor's rate.

    Source

    FlashOptim 0.1.4, `flashoptim.FlashLion`.

    Hyper-parameters

    | field | symbol | range | default |
    | --- | --- | --- | --- |
    | `lr` | η | ≥ 0 | 1e-3 |
    | `betas` | β₁, β₂ | [0, 1] | 0.9, 0.99 |
    | `weight_decay` | λ | ≥ 0 | 0 |
    | `decouple_lr` | | | false |
    | `fused` | | | true |

    State

    | slot | start | meaning |
    | --- | --- | --- |
    | `exp_avg` | 0 | m |

    Non-finite input

    The sign of NaN is 0: the weight only decays. A companded momentum stores NaN as 0.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("flash_lion", "flashoptim", "FlashLion")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0,
        decouple_lr: bool = False,
        quantize: bool = True,
        compress_state_dict: bool = True,
        master_weight_bits: int = 24,
        check_numerics: bool = False,
        fused: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(params, "flash_lion", {"lr": lr, "betas": betas, "weight_decay": weight_decay, "decouple_lr": decouple_lr, "quantize": quantize, "compress_state_dict": compress_state_dict, "master_weight_bits": master_weight_bits, "check_numerics": check_numerics, "fused": fused, **more})


class FlashSGD(Optimizer):
    """FlashSGD

    As `flashoptim.FlashSGD`; `bitstep.torch.optimizer("flash_sgd", …)`.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("flash_sgd", "flashoptim", "FlashSGD")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        quantize: bool = True,
        compress_state_dict: bool = True,
        master_weight_bits: int = 24,
        check_numerics: bool = False,
        fused: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(params, "flash_sgd", {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov, "quantize": quantize, "compress_state_dict": compress_state_dict, "master_weight_bits": master_weight_bits, "check_numerics": check_numerics, "fused": fused, **more})


class FlashSGDW(Optimizer):
    """FlashSGDW

    As `flashoptim.FlashSGDW`; `bitstep.torch.optimizer("flash_sgdw", …)`.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("flash_sgdw", "flashoptim", "FlashSGDW")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        decouple_lr: bool = False,
        quantize: bool = True,
        compress_state_dict: bool = True,
        master_weight_bits: int = 24,
        check_numerics: bool = False,
        fused: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(params, "flash_sgdw", {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov, "decouple_lr": decouple_lr, "quantize": quantize, "compress_state_dict": compress_state_dict, "master_weight_bits": master_weight_bits, "check_numerics": check_numerics, "fused": fused, **more})
