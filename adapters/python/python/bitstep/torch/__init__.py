"""Optimizers for PyTorch: each a `torch.optim.Optimizer` with its reference's class name, arguments and state.

Classes that several packages have (AdamW, AdamW8bit) are here what Transformers' names mean, else torch.optim's, else
bitsandbytes'; each package's own are in a module of its name: `bitstep.torch.optimi.AdamW`.
"""

from __future__ import annotations

import importlib
from typing import Any

from . import _classes
from ._base import Optimizer
from ._classes import *  # noqa: F403
from ._classes import __all__ as _all
from ._clip import clip_grad_norm_

__all__ = ["Optimizer", "clip_grad_norm_", "optimizer", *_all]


def optimizer(name: str, params: Any, **arguments: Any) -> Optimizer:
    """The optimizer of a registry name, such as those of Transformers' `optim=`, with its reference's arguments.

    >>> opt = bitstep.torch.optimizer("adamw_bnb_8bit", model.parameters(), lr=1e-4)

    ValueError: an unknown name or argument, with the nearest known one, or a value outside of its range.
    """
    found = _classes.CLASSES.get(name)
    if found is None:
        return Optimizer(params, name, arguments)
    family, cls = found
    made = getattr(importlib.import_module(f"{__name__}.{family}"), cls)
    return made(params, **arguments)

