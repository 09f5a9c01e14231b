"""The classes of torchao.optim."""

# Written by export/classes.py.

from __future__ import annotations

from typing import Any, Sequence

import torch

from .._references import record
from ._base import Optimizer

__all__ = ["Adam8bit", "Adam4bit", "AdamFp8", "AdamW8bit", "AdamW4bit", "AdamWFp8"]


class Adam8bit(Optimizer):
    """Adam8bit

    As `torchao.optim.Adam8bit`; `bitstep.torch.optimizer("torchao_adam8bit", …)`.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("torchao_adam8bit", "torchao.optim", "Adam8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        block_size: int = 256,
        bf16_stochastic_round: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "torchao_adam8bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "block_size": block_size, "bf16_stochastic_round": bf16_stochastic_round, **more})


class Adam4bit(Optimizer):
    """Adam4bit

    As `torchao.optim.Adam4bit`; `bitstep.torch.optimizer("torchao_adam4bit", …)`.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("torchao_adam4bit", "torchao.optim", "Adam4bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        block_size: int = 128,
        bf16_stochastic_round: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "torchao_adam4bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "block_size": block_size, "bf16_stochastic_round": bf16_stochastic_round, **more})


class AdamFp8(Optimizer):
    """AdamFp8

    As `torchao.optim.AdamFp8`; `bitstep.torch.optimizer("torchao_adam_fp8", …)`.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("torchao_adam_fp8", "torchao.optim", "AdamFp8")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        block_size: int = 256,
        bf16_stochastic_round: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "torchao_adam_fp8", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "block_size": block_size, "bf16_stochastic_round": bf16_stochastic_round, **more})


class AdamW8bit(Optimizer):
    """AdamW8bit

    As `torchao.optim.AdamW8bit`; `bitstep.torch.optimizer("adamw_torch_8bit", …)`.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("adamw_torch_8bit", "torchao.optim", "AdamW8bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        block_size: int = 256,
        bf16_stochastic_round: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "adamw_torch_8bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "block_size": block_size, "bf16_stochastic_round": bf16_stochastic_round, **more})


class AdamW4bit(Optimizer):
    """AdamW4bit

    As `torchao.optim.AdamW4bit`; `bitstep.torch.optimizer("adamw_torch_4bit", …)`.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("adamw_torch_4bit", "torchao.optim", "AdamW4bit")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        block_size: int = 128,
        bf16_stochastic_round: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "adamw_torch_4bit", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "block_size": block_size, "bf16_stochastic_round": bf16_stochastic_round, **more})


class AdamWFp8(Optimizer):
    """AdamWFp8

    As `torchao.optim.AdamWFp8`; `bitstep.torch.optimizer("torchao_adamw_fp8", …)`.

    Errors

    ValueError: an argument outside of its range.
    """

    _reference = record("torchao_adamw_fp8", "torchao.optim", "AdamWFp8")

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        block_size: int = 256,
        bf16_stochastic_round: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, "torchao_adamw_fp8", {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "block_size": block_size, "bf16_stochastic_round": bf16_stochastic_round, **more})
