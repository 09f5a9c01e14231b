"""Clipping by the norm over all gradients."""

from __future__ import annotations

from typing import Any, Iterable

import torch

from .. import _bitstep

__all__ = ["clip_grad_norm_"]


def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> torch.Tensor:
    """`torch.nn.utils.clip_grad_norm_` with the same bits on any number of threads, processors and processes.

    Scales all gradients down to a norm of at most `max_norm`, in place; returns the norm before. Gradients may be
    DTensors with `Shard(0)`: the processes of their mesh then call it together.
    """
    if isinstance(parameters, torch.Tensor):
        parameters = [parameters]
    elif isinstance(parameters, torch.nn.Module):
        parameters = parameters.parameters()
    grads = [p.grad for p in parameters if p.grad is not None]
    if any(hasattr(grad, "placements") for grad in grads):
        from . import _sharded

        norms, grads = _sharded.norms(grads, norm_type), [_sharded.local(grad) for grad in grads]
    else:
        norms = _bitstep.norms([grad.contiguous() for grad in grads], norm_type)
    dtypes = [str(grad.dtype).removeprefix("torch.") for grad in grads]
    norm, factor = _bitstep.clip_coefficient(norms, dtypes, max_norm, norm_type, error_if_nonfinite)
    with torch.no_grad():
        dense = [grad.contiguous() for grad in grads]
        _bitstep.scale(dense, factor)
        for grad, copy in zip(grads, dense):
            if copy is not grad:
                grad.copy_(copy)
    return torch.tensor(norm, dtype=_promoted(grad.dtype for grad in grads))


def _promoted(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    all_types = set(dtypes)
    if len(all_types) == 1:
        return all_types.pop()
    return torch.float64 if torch.float64 in all_types else torch.float32
