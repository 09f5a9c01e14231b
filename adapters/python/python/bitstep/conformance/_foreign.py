"""An optimizer of somebody's as the suite's backend."""

from __future__ import annotations

import inspect
import json
from typing import Any

from .. import _bitstep
from .._references import from_json, record
from ._answers import Lacks, Unsupported
from ._own import Own

__all__ = ["Foreign", "Lacks", "Unsupported"]


def _number(value: Any) -> Any:
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if isinstance(value, list):
        return tuple(_number(v) for v in value)
    return value


class Foreign:
    """A `torch.optim.Optimizer` class, or a function, under a registry name."""

    def __init__(self, optimizer: Any, name: str, hidden_state: bool) -> None:
        self.optimizer_class, self.name, self.hidden = optimizer, name, hidden_state
        self.reference = record(name)
        self.defaults = {a["name"]: from_json(a["default"]) for a in self.reference["arguments"] if "default" in a}

    def optimizer(self, name: str, reference: str, hyper: str, groups: Any, params: Any, given: Any) -> Run:
        if name != self.name:
            raise Unsupported(f"only {self.name}")
        if any(not what.startswith("qmap") for names in given for what in names):  # the maps are constants
            raise Unsupported("tensors that the reference drew at random can't be handed over")
        own = Own().optimizer(name, reference, hyper, groups, params, given) if name in _bitstep.optimizers() else None
        return Run(self, own, _arguments(json.loads(hyper)), [(p, _arguments(json.loads(h))) for p, h in groups], params)

    def schedule(self, name: str, *_: Any) -> Any:
        raise Unsupported("only optimizers")


def _arguments(hyper: dict[str, Any]) -> dict[str, Any]:
    import torch

    arguments = {key: _number(value) for key, value in hyper.items() if key not in ("groups", "params")}
    for key, value in arguments.items():
        if key.endswith("dtype") and isinstance(value, str) and hasattr(torch, value):
            arguments[key] = getattr(torch, value)
    return arguments


class Run:
    """A running optimizer."""

    def __init__(self, foreign: Foreign, own: Any, hyper: dict[str, Any], groups: Any, params: Any) -> None:
        import torch

        from ._tensors import tensor

        self.foreign, self.own, self.shows_state = foreign, own, not foreign.hidden
        self.loaded: dict[int, dict[str, Any]] = {}
        self.params = [torch.nn.Parameter(tensor(p)) for p in params]
        self.is_class = inspect.isclass(foreign.optimizer_class)
        if self.is_class:
            known = inspect.signature(foreign.optimizer_class.__init__).parameters
            takes_all = any(p.kind is p.VAR_KEYWORD for p in known.values())
            arguments = {}
            for key, value in hyper.items():
                if key in known or takes_all and value != foreign.defaults.get(key, value):
                    arguments[key] = value
                elif key in foreign.defaults and value != foreign.defaults[key]:
                    raise Unsupported(f"the constructor has no argument `{key}`")
            own = []
            for members, arguments_here in groups:
                changed = {k: v for k, v in arguments_here.items() if k not in hyper or hyper[k] != v}
                own.append({"params": [self.params[i] for i in members], **changed})
            try:
                self.opt = foreign.optimizer_class(own if len(own) > 1 else own[0]["params"], **arguments)
            except NotImplementedError as e:
                raise Unsupported(str(e)) from e
            if hasattr(self.opt, "train"):
                self.opt.train()
        else:
            self.arguments = [{} for _ in self.params]
            for members, arguments_here in groups:
                for i in members:
                    self.arguments[i] = {**hyper, **arguments_here}
            self.states: list[dict[str, Any]] = [{} for _ in self.params]

    def load(self, i: int, value: Any, state: dict[str, Any], updates: int, steps: int) -> None:
        import torch

        from ._tensors import tensor

        if self.foreign.hidden and (updates or state):
            raise Unsupported("the state is hidden: a run can't start in the middle")
        with torch.no_grad():
            self.params[i].copy_(tensor(value))
        kinds = {path.rpartition("/")[2]: kind for path, kind in (self.foreign.reference.get("state") or {}).items()}
        counters = self.foreign.reference.get("counters") or {}
        found = {}
        for key, raw in state.items():
            given = tensor(raw)
            kind = kinds.get(key) or (counters.get(key) if isinstance(counters.get(key), str) else None)
            if kind == "int":
                found[key] = int(given.item())
            elif kind == "float":
                found[key] = given.item()
            elif kind and kind.startswith("tensor ") and given.dim() == 0 and given.dtype == torch.float64:
                narrow = given.to(getattr(torch, kind.removeprefix("tensor ")))
                found[key] = narrow if narrow.item() == given.item() else given
            else:
                found[key] = given
        if self.own is not None:
            self.own.load(i, value, state, updates, steps)  # raises `Lacks` where the core lacks state
        if not self.is_class:
            self.states[i] = found
            return
        group = next(g for g in self.opt.param_groups if any(p is self.params[i] for p in g["params"]))
        for key in [key for key in found if key in counters and key not in kinds]:
            group[key] = found.pop(key)
        if found and isinstance(self.opt.state, dict):
            self.opt.state[self.params[i]].update(found)
        elif found:
            self.loaded[i] = found  # an optimizer whose state can be replaced only

    def step(self, t: int, grads: Any, lr: float | None, given: dict[str, float], drawn: Any) -> None:
        import torch

        from ._tensors import tensor

        if given:
            raise Unsupported(f"extra numbers can't be handed over: {', '.join(given)}")
        if self.is_class:
            if self.loaded:
                order = [p for group in self.opt.param_groups for p in group["params"]]
                ids = {i: next(k for k, p in enumerate(order) if p is self.params[i]) for i in self.loaded}
                saved = {**self.opt.state_dict(), "state": {ids[i]: state for i, state in self.loaded.items()}}
                self.opt.load_state_dict(saved)
                self.loaded = {}
            for p, grad in zip(self.params, grads):
                p.grad = None if grad is None else tensor(grad)
            for group in self.opt.param_groups if lr is not None else ():
                group["lr"] = lr
            self.opt.step()
            return
        for i, grad in enumerate(grads):
            if grad is None:
                continue
            arguments = self.arguments[i] if lr is None else {**self.arguments[i], "lr": lr}
            with torch.no_grad():
                new = self.foreign.optimizer_class(self.params[i].data, tensor(grad), self.states[i], **arguments)
                if new is not None:
                    self.params[i].copy_(torch.as_tensor(new))

    def value(self, i: int) -> Any:
        from ._tensors import raw

        return raw(self.params[i])

    def state(self, i: int) -> dict[str, Any]:
        import torch

        from ._tensors import raw

        found = dict(self.opt.state.get(self.params[i], {})) if self.is_class else dict(self.states[i])
        if self.is_class:
            group = next(g for g in self.opt.param_groups if any(p is self.params[i] for p in g["params"]))
            found |= {key: group[key] for key in self.foreign.reference.get("counters") or {} if key in group}
        numbers = (torch.Tensor, int, float)
        return {k: raw(v) for k, v in found.items() if isinstance(v, numbers) and not isinstance(v, bool)}

    def eval(self, i: int) -> Any:
        if not (self.is_class and hasattr(self.opt, "eval")):
            return None
        from ._tensors import raw

        before = [p.detach().clone() for p in self.params]
        self.opt.eval()
        value = raw(self.params[i])
        self.opt.train()
        import torch

        with torch.no_grad():
            for p, x in zip(self.params, before):
                p.copy_(x)
        return value
