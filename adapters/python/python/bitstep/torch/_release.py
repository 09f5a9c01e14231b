"""Gradient release, as in optimi: a parameter is stepped as soon as backward has its gradient, which is then freed."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Mapping
from warnings import warn

import torch

from ._base import _back, _bytes, _dense

__all__ = ["Release", "prepare_for_gradient_release", "remove_gradient_release"]

# State that follows the parameter, and so stays as it is while gradients are only accumulated.
_OF_THE_PARAMETER = ("kahan_comp", "la_param")


class Release:
    """An optimizer whose parameters may be stepped one at a time, inside of the backward pass."""

    optimizer_accumulation = False
    """While True, gradients that are released change the averages of the state and no parameter."""

    def step(
        self: Any,
        closure: Callable[[], Any] | None = None,
        param: torch.Tensor | None = None,
        *,
        extra: Mapping[str, float] | None = None,
    ) -> Any:
        """One step of every parameter that has a gradient, or of `param` alone, with the same bits.

        `closure` evaluates the model again and returns the loss; `param` needs `gradient_release=True`.
        """
        if param is None:
            return self._step(closure, extra)
        if not self.defaults["gradient_release"]:
            raise ValueError("gradient_release is False, but must be True to step one param")
        index, i = self._place(param)
        if hasattr(param, "placements"):
            raise ValueError(f"params[{i}]: a DTensor, which is not stepped inside of the backward pass")
        if param.grad is None:
            return None
        lrs = self._follow_groups()
        if self.optimizer_accumulation:
            self._accumulate(index, i, param, lrs)
        else:
            self._core.step_one(i, param, param.grad, lrs, torch.get_num_threads(), _dense, _back)
        self._write_counters()
        return None

    def zero_grad(self: Any, set_to_none: bool = True, param: torch.Tensor | None = None) -> None:
        """Frees or zeroes the gradients of all parameters, or of `param` alone."""
        if param is None:
            super().zero_grad(set_to_none=set_to_none)  # type: ignore[misc]
        elif set_to_none:
            param.grad = None
        elif param.grad is not None:
            param.grad = torch.zeros_like(param.grad)

    def _place(self: Any, param: torch.Tensor) -> tuple[int, int]:
        """The group of a parameter, and its place among all of them."""
        found = self.__dict__.get("_place_cache")
        if found is None or len(found) != sum(len(group["params"]) for group in self.param_groups):
            of_group = [(index, p) for index, group in enumerate(self.param_groups) for p in group["params"]]
            found = {id(p): (index, i) for i, (index, p) in enumerate(of_group)}
            self.__dict__["_place_cache"] = found
        if id(param) not in found:
            raise ValueError("param is not one of this optimizer's parameters")
        return found[id(param)]

    def _accumulate(self: Any, index: int, i: int, param: torch.Tensor, lrs: list[float | None]) -> None:
        """A step of the state: the parameter's is made on a copy, and without decay, which would go into the gradient."""
        stepped, kept = self._core.param_state(i)[2], []
        if "la_param" in self._infos[index]["slots"] or param.dtype.itemsize == 2:  # else there is none, and it is not copied
            kept = [part for part in self._core.parts(i) if part[1] in _OF_THE_PARAMETER]
        decay = self._seen[index]["weight_decay"]
        self._core.set_arguments(index, {"weight_decay": 0.0})
        try:
            self._core.step_one(i, _dense(param.detach()), param.grad, lrs, torch.get_num_threads(), _dense, _back)
        finally:
            self._core.set_arguments(index, {"weight_decay": decay})
        for slot, key, dtype, _, old in kept:
            start = key == "la_param" and not stepped  # it begins as the parameter
            self._core.set_part(i, slot, key, _bytes(param, getattr(torch, dtype)) if start else bytes(old))


def _released(param: torch.Tensor, optimizer: Any) -> None:
    optimizer.step(param=param)
    optimizer.zero_grad(param=param)


def prepare_for_gradient_release(model: torch.nn.Module, optimizer: Release, ignore_existing_hooks: bool = False) -> None:
    """Has every backward pass of the model step its parameters, as `optimi.prepare_for_gradient_release`.

    TypeError: not one of these optimizers. ValueError: one without `gradient_release=True`; a parameter with another hook
    after its gradient, unless those are to be ignored.
    """
    if not isinstance(optimizer, Release):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}, but must be one of bitstep.torch.optimi")
    if not optimizer.defaults["gradient_release"]:  # type: ignore[attr-defined]
        raise ValueError("optimizer must be made with gradient_release=True")
    params = [p for p in model.parameters() if p.requires_grad]
    if not ignore_existing_hooks and any(p._post_accumulate_grad_hooks for p in params):
        raise ValueError("model has hooks after its gradients already: ignore_existing_hooks=True if they should be there")
    hook = partial(_released, optimizer=optimizer)
    model._gradient_release_hooks = [p.register_post_accumulate_grad_hook(hook) for p in params]  # type: ignore[assignment]


def remove_gradient_release(model: torch.nn.Module) -> None:
    """Takes back what `prepare_for_gradient_release` did to the model."""
    if not hasattr(model, "_gradient_release_hooks"):
        warn("model has no hooks of gradient release to remove", stacklevel=2)
        return
    for handle in model._gradient_release_hooks:
        handle.remove()
    del model._gradient_release_hooks
