"""The suite's tensors, (type, dimensions, bytes), as PyTorch's."""

from __future__ import annotations

from typing import Any

import torch

Raw = tuple[str, list[int], bytes]


def tensor(raw: Raw) -> torch.Tensor:
    """A tensor of its own memory."""
    dtype, shape, data = raw
    kind = getattr(torch, dtype)
    if not data:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(bytearray(data), dtype=kind).reshape(shape)


def raw(value: Any) -> Raw:
    """A tensor or a number as the suite's."""
    if not isinstance(value, torch.Tensor):
        value = torch.tensor(float(value), dtype=torch.float64)
    value = value.detach().cpu().contiguous()
    name = str(value.dtype).removeprefix("torch.")
    data = bytes(value.reshape(-1).view(torch.uint8).tolist()) if value.numel() else b""
    return name, list(value.shape), data
