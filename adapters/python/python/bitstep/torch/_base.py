"""`Optimizer`, which all classes of `bitstep.torch` are."""

from __future__ import annotations

import ctypes
import sys
from copy import deepcopy
from itertools import chain
from math import prod
from types import MappingProxyType
from typing import Any, Callable, Iterable, Mapping

import torch

from .. import _bitstep
from .._references import from_json, record

__all__ = ["Optimizer"]

_MISSING = object()


def _sharding() -> Any:
    # On first use only: it imports DTensor, which takes as long as torch itself.
    from . import _sharded

    return _sharded


def _count(bounds: tuple[int, int]) -> int:
    return bounds[1] - bounds[0]


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy."""
    if isinstance(tensor, torch.Tensor):
        return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    return tensor


def _back(tensor: torch.Tensor, copy: torch.Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(copy)


def _plain(value: Any, name: str = "argument") -> Any:
    """An argument as the core reads it."""
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(f"Tensor {name} must be 1-element, not of shape {tuple(value.shape)}")
        return value.item()
    if isinstance(value, (tuple, list)):
        return [_plain(v, name) for v in value]
    return value


def _bytes(tensor: torch.Tensor, dtype: torch.dtype) -> bytes:
    tensor = tensor.detach().to(device="cpu", dtype=dtype).contiguous()
    return ctypes.string_at(tensor.data_ptr(), tensor.numel() * tensor.element_size()) if tensor.numel() else b""


def _tensor(dtype: str, shape: list[int], data: bytearray) -> torch.Tensor:
    kind = getattr(torch, dtype)
    return torch.frombuffer(data, dtype=kind).reshape(shape) if data else torch.empty(shape, dtype=kind)


def _scalar(value: float, kind: str) -> Any:
    """A number as the reference keeps it."""
    if kind == "int":
        return int(value)
    if kind == "float":
        return float(value)
    number = torch.tensor(value, dtype=getattr(torch, kind.removeprefix("tensor ")))
    exact = number.item() == value or value != value
    return number if exact else torch.tensor(value, dtype=torch.float64)


def _wrap_quantized(state: dict[str, Any], param: torch.Tensor) -> None:
    """Puts codes and scales into torchao's tensors, if it is installed."""
    slots = [key.removesuffix(".codes") for key in state if key.endswith(".codes")]
    if not slots:
        return
    try:
        from torchao.optim.subclass_4bit import OptimState4bit
        from torchao.optim.subclass_8bit import OptimState8bit
        from torchao.optim.subclass_fp8 import OptimStateFp8
    except ImportError:
        return
    for slot in slots:
        codes, scale = state.pop(f"{slot}.codes"), state.pop(f"{slot}.scale")
        block, signed = param.numel() // scale.numel(), slot == "exp_avg"
        if codes.dtype != torch.uint8:
            state[slot] = OptimStateFp8(codes.reshape(param.shape), scale, param.dtype)
        elif codes.numel() == param.numel():
            empty = OptimState8bit.zeros(param.shape, signed, block, dtype=param.dtype)
            state[slot] = OptimState8bit(codes.reshape(param.shape), scale, empty.qmap, signed, dtype=param.dtype)
        else:
            empty = OptimState4bit.zeros(param.shape, signed, block, dtype=param.dtype)
            state[slot] = OptimState4bit(codes, scale, empty.qmap, signed, param.shape, dtype=param.dtype)


def _kept_in_32_bits(params: list[torch.Tensor]) -> set[int]:
    """The places of the parameters whose state bitsandbytes' manager was told to keep in 32 bits: in Trainer, embeddings."""
    module = sys.modules.get("bitsandbytes.optim.optimizer")
    if module is None:
        return set()
    told = module.GlobalOptimManager.get_instance().module_weight_config_triple
    ids = {id(getattr(owner, name)) for owner, name, config in told if config.get("optim_bits") == 32}
    return {i for i, p in enumerate(params) if id(p) in ids}


def _is_plain(saved: Mapping[str, Any]) -> bool:
    """Whether a saved state of bitsandbytes' is in 32 bits."""
    first = saved.get("state1", saved.get("__bnb_optimizer_quant_state__", {}).get("state1"))
    return isinstance(first, torch.Tensor) and first.dtype.is_floating_point


class _States(dict[torch.Tensor, Any]):
    """States by parameter: an empty one of a parameter that has not been stepped, as in torch, but it can't be filled."""

    def __missing__(self, param: torch.Tensor) -> Mapping[str, Any]:
        return MappingProxyType({})


class Optimizer(torch.optim.Optimizer):
    """An optimizer by its registry name.

    `arguments` are those of the reference's constructor, under its names. Parameters are CPU tensors of
    float64, float32, bfloat16 or float16; a step changes them in place, all in one call, on
    `torch.get_num_threads()` threads and without the interpreter's lock. They may be DTensors in rows: the processes
    of their mesh then make the same calls, of which `state_dict` and `load_state_dict` are some, too.

    The state is the core's: `state` is a copy to look at, `load_state_dict` replaces it.
    """

    _name: str
    _reference: dict[str, Any] | None = None
    _modes = False

    def __init__(self, params: Any, name: str, arguments: Mapping[str, Any]) -> None:
        if isinstance(params, torch.nn.Module):
            params = params.parameters()
        self._name = name
        if self._reference is None:
            self._reference = record(name)
        defaults = {a["name"]: from_json(a["default"]) for a in self._reference["arguments"] if "default" in a}
        self._arguments = {
            key: _plain(value, key)
            for key, value in arguments.items()
            if key not in defaults or _plain(value, key) != _plain(defaults[key])
        }
        self._core = _bitstep.Optimizer()
        self._seen: list[dict[str, Any]] = []
        self._layouts: list[Any] = []
        # The places of parameters whose state is in 32 bits, whatever their group's is.
        self._plain: set[int] = set()
        probe = _bitstep.Optimizer()
        probe.add_group(name, self._arguments)
        known = probe.arguments(0)
        group = {key: from_json(value) for key, value in self._reference["group"].items()}
        for key, value in {**known, **defaults, **arguments}.items():
            if key in group or not self._reference["group"]:
                # Some defaults are another argument's value (optimi's `max_lr`).
                group[key] = known.get(key) if value is None and key != "lr" else value
        if self._modes:
            group["train_mode"] = True
        if "betas" in group and "betas" not in known:
            names = self._two_in_betas(known)
            group["betas"] = tuple(known.get(n, 0.0) for n in names)
        super().__init__(params, group)

    # --- groups ---------------------------------------------------------------

    @staticmethod
    def _two_in_betas(known: Mapping[str, Any]) -> tuple[str, str]:
        """bitsandbytes keeps two arguments under `betas`, whatever their names."""
        return ("alpha", "momentum") if "alpha" in known else ("momentum", "dampening")

    def _read(self, group: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """The rule's arguments in a group."""
        found = {key: _plain(group[key], key) for key in known if key in group and key != "lr"}
        if "betas" in group and "betas" not in known:
            pair = zip(self._two_in_betas(known), group["betas"])
            found.update({key: _plain(value, key) for key, value in pair if key in known})
        return found

    def _register(
        self, core: _bitstep.Optimizer, layouts: list[Any], group: dict[str, Any], own: Iterable[str], index: int
    ) -> dict[str, Any]:
        """Adds a group to the core, and its parameters' layouts; returns what it has read of it."""
        changes = {key: _plain(group[key], key) for key in own if key not in ("params", "lr")}
        # Beside relative steps a rate is only shown (`AdafactorSchedule`).
        lr = None if group.get("relative_step") else group.get("lr")
        if lr is not None or "lr" in self._arguments and "lr" in group:
            changes["lr"] = None if lr is None else float(lr)
        probe = _bitstep.Optimizer()
        known = None
        while known is None:
            try:
                probe.add_group(self._name, self._arguments, changes)
                known = probe.arguments(0)
            except ValueError as error:
                # What is no argument is the caller's own, as in torch (`name`, `initial_lr`).
                unknown = [key for key in changes if f"no argument `{key}`" in str(error)]
                if not unknown:
                    raise
                del changes[unknown[0]]
        core.add_group(self._name, self._arguments, changes)
        for i, p in enumerate(group["params"]):
            if p.is_complex() or not p.is_floating_point():
                raise ValueError(f"params[{i}] of group {index}: dtype is {p.dtype}, but must be real and floating-point")
            dtype = str(p.dtype).removeprefix("torch.")
            if dtype not in ("float64", "float32", "bfloat16", "float16"):
                raise ValueError(
                    f"params[{i}] of group {index}: dtype is {p.dtype}, "
                    "but must be float64, float32, bfloat16 or float16"
                )
        own_layouts = [None] * len(group["params"])
        if any(hasattr(p, "placements") for p in group["params"]):
            sharded, names = _sharding(), group.get("param_names")
            own_layouts = sharded.layouts(
                group["params"],
                lambda p: core.part_multiple(index, list(p.shape), str(p.dtype).removeprefix("torch.")),
                layouts,
                lambda i: f"params[{i}] of group {index}" + (f" ({names[i]})" if names else ""),
            )
        for i, (p, layout) in enumerate(zip(group["params"], own_layouts), len(layouts)):
            dtype, part = str(p.dtype).removeprefix("torch."), layout.part if layout else None
            core.add_param(index, list(p.shape), dtype, i in self._plain, part)
        layouts.extend(own_layouts)
        return self._read(group, known)

    def _registered(self) -> tuple[_bitstep.Optimizer, list[Any]]:
        """A core with these groups and no state, and the layouts."""
        core, layouts = _bitstep.Optimizer(), []
        for index, group in enumerate(self.param_groups):
            self._register(core, layouts, group, self._saved_arguments(group), index)
        return core, layouts

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as torch's does."""
        own = set(param_group) - {"params"} if isinstance(param_group, dict) else set()
        super().add_param_group(param_group)
        core, layouts = self._core.copy(), self._layouts.copy()
        try:
            group = self.param_groups[-1]
            if self._reference["tensor_lr"] and not isinstance(group["lr"], torch.Tensor):
                group["lr"] = torch.tensor(group["lr"], dtype=torch.float32)
            seen = self._register(core, layouts, group, own, len(self.param_groups) - 1)
        except BaseException:
            self.param_groups.pop()
            raise
        self._core, self._layouts = core, layouts
        self._seen.append(seen)

    def _follow_groups(self) -> list[float | None]:
        """Hands changed arguments of the groups to the core; returns the learning rates."""
        lrs = []
        for index, (group, seen) in enumerate(zip(self.param_groups, self._seen)):
            changed = {}
            for key, old in seen.items():
                if key in group:
                    value = group[key]
                    if value is not old and value != old:
                        value = _plain(value)
                        if value != old:
                            changed[key] = value
            if "betas" in group and "betas" not in seen:
                now = self._read({"betas": group["betas"]}, seen)
                changed.update({key: value for key, value in now.items() if value != seen[key]})
            if changed:
                self._core.set_arguments(index, changed)
                seen.update(changed)
            lr = group.get("lr")
            lrs.append(None if lr is None else float(lr))
        return lrs

    def _write_counters(self) -> None:
        """Shows steps and scalars of groups where the reference keeps them in its groups."""
        for index, group in enumerate(self.param_groups):
            info = self._infos[index]
            if not (info["steps_by_group"] or info["scalars_by_group"]):
                continue
            steps, scalars = self._core.group_state(index)
            if not steps:
                continue
            numbers = {info["step_key"]: steps} if info["steps_by_group"] else {}
            if info["scalars_by_group"]:
                numbers.update(zip(info["scalars"], scalars))
            for key, kind in (self._reference.get("counters") or {}).items():
                if key not in group:
                    known_kind = isinstance(kind, str) and key in numbers
                    group[key] = _scalar(numbers[key], kind) if known_kind else from_json(kind)
                elif kind is True:
                    group[key] = True
            for key, value in numbers.items():
                old = group.get(key, _MISSING)
                if isinstance(old, torch.Tensor):
                    group[key] = torch.tensor(value, dtype=old.dtype)
                elif isinstance(old, int) and not isinstance(old, bool):
                    group[key] = int(value)
                elif old is not _MISSING or self._reference["state"] is None:
                    group[key] = value

    @property
    def _infos(self) -> list[dict[str, Any]]:
        found = self.__dict__.get("_info_cache")
        if found is None or len(found) != len(self.param_groups):
            found = [self._core.info(g) for g in range(len(self.param_groups))]
            self.__dict__["_info_cache"] = found
        return found

    @property
    def _has_dtensors(self) -> bool:
        found = self.__dict__.get("_dtensor_cache")
        if found is None or found[0] != len(self.param_groups):
            found = (len(self.param_groups), any(hasattr(p, "placements") for p in self._params()))
            self.__dict__["_dtensor_cache"] = found
        return found[1]

    def _params(self) -> list[torch.Tensor]:
        if len(self.param_groups) == 1:
            return self.param_groups[0]["params"]
        return list(chain.from_iterable(group["params"] for group in self.param_groups))

    # --- steps ----------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None, *, extra: Mapping[str, float] | None = None) -> Any:
        """One step of every parameter that has a gradient.

        `closure` evaluates the model again and returns the loss. `extra` are the named numbers that a few
        rules use (GrokAdamW's `train_loss` and `eval_loss`).
        """
        return self._step(closure, extra)

    def _step(self, closure: Callable[[], Any] | None, extra: Mapping[str, float] | None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._reference["module"] == "bitsandbytes.optim" and "_kept" not in self.__dict__:
            self.__dict__["_kept"] = True
            self._keep_in_32_bits(_kept_in_32_bits(self._params()))
        lrs = self._follow_groups()
        more = [(key, float(value)) for key, value in extra.items()] if extra else None
        if self._has_dtensors:
            self._step_sharded(lrs, more)
        else:
            self._core.step(self._params(), None, lrs, more, torch.get_num_threads(), _dense, _back)
        self._write_counters()
        return loss

    def _keep_in_32_bits(self, places: set[int]) -> None:
        """Before the first step; a state that is there stays as it is."""
        if places <= self._plain or any(self._core.param_state(i)[2] for i in range(len(self._layouts))):
            return
        self._plain |= places
        self._core, self._layouts = self._registered()

    def _step_sharded(self, lrs: list[float | None], more: list[tuple[str, float]] | None) -> None:
        sharded, params = _sharding(), self._params()
        grads = [sharded.gradient(p, i) for i, p in enumerate(params)]
        if any(norm is not None for norm in self._core.grad_norms([], more or [])):
            whole = [_dense(sharded.whole(p.grad)) for p in params if p.grad is not None]
            self._core.give_grad_norms(self._core.grad_norms(whole, more or []))
            del whole
        held, held_grads = self._held(grads)
        self._core.step(held, held_grads, lrs, more, torch.get_num_threads(), _dense, _back)
        self._give_back(held, [i for i, grad in enumerate(grads) if grad is not None])

    def _held(self, grads: list[torch.Tensor | None] | None) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
        """What the core steps of each parameter and its gradient: the rows that are here, or at its owner all of them.

        Without `grads`, of every parameter.
        """
        sharded, params = _sharding(), self._params()
        held = [sharded.local(p).detach() for p in params]
        held_grads = list(grads or [None] * len(params))
        moved = [
            i
            for i, layout in enumerate(self._layouts)
            if layout is not None and layout.owner is not None and (grads is None or grads[i] is not None)
        ]
        items = [(self._layouts[i], params[i].shape, params[i].dtype, held[i]) for i in moved]
        if grads is not None:
            items += [(self._layouts[i], params[i].shape, grads[i].dtype, grads[i]) for i in moved]
        for k, whole in enumerate(sharded.gather(items)):
            i = moved[k % len(moved)]
            (held if k < len(moved) else held_grads)[i] = whole
        for i, layout in enumerate(self._layouts):
            if layout is None:
                continue
            p, grad = params[i], held_grads[i]
            if not layout.here:
                held[i] = torch.empty(0, dtype=p.dtype)
                if grads is not None and grads[i] is not None:
                    grad = torch.empty(0, dtype=grads[i].dtype)
            elif layout.owner is not None:
                continue
            # The core takes a part as one dimension.
            shape = p.shape if _count(layout.part) == p.numel() else (-1,)
            held[i] = held[i].reshape(shape)
            held_grads[i] = None if grad is None else grad.reshape(shape)
        return held, held_grads

    def _give_back(self, held: list[torch.Tensor], stepped: list[int]) -> None:
        """Writes what the core has stepped to the parameters that it was copied from."""
        sharded, params = _sharding(), self._params()
        moved = [i for i in stepped if self._layouts[i] is not None and self._layouts[i].owner is not None]
        items = [(self._layouts[i], params[i].shape, params[i].dtype, held[i]) for i in moved]
        with torch.no_grad():
            for i, rows in zip(moved, sharded.scatter(items)):
                to = sharded.local(params[i])
                if to.data_ptr() != rows.data_ptr():
                    to.copy_(rows)
            for i in stepped:
                layout = self._layouts[i]
                if layout is not None and layout.owner is None and held[i].numel():
                    rows = sharded.local(params[i])
                    if rows.data_ptr() != held[i].data_ptr():
                        rows.copy_(held[i].reshape(rows.shape))

    # --- state ----------------------------------------------------------------

    def _kinds(self) -> dict[str, str]:
        """How the reference keeps its numbers, by key."""
        kinds = self._reference.get("state") or {}
        return {path.rpartition("/")[2]: kind for path, kind in kinds.items()}

    def _state_of(self, i: int, group: int) -> dict[str, Any]:
        steps, scalars, stepped = self._core.param_state(i)
        if not stepped:
            return {}
        info, kinds = self._infos[group], self._kinds()
        # Some references count no steps (torch's SGD); optimi's are the group's, unless gradients are released.
        shown = (self._reference.get("counters") or {}) | kinds if self._reference["state"] is not None else None
        found: dict[str, Any] = {}
        numbers = {} if info["steps_by_group"] else {info["step_key"]: steps}
        numbers |= {} if info["scalars_by_group"] else dict(zip(info["scalars"], scalars))
        for key, value in numbers.items():
            if shown is None or key in shown or key != info["step_key"]:
                found[key] = _scalar(value, (shown or {}).get(key, "tensor float32"))
        stacks: dict[str, list[torch.Tensor]] = {}
        layout, p = self._layouts[i], self._params()[i]
        if layout is not None and not layout.here:
            return found
        in_rows = layout is not None and layout.owner is None
        own = (_count(layout.rows), *p.shape[1:]) if in_rows else p.shape
        for _, key, dtype, shape, data in self._core.parts(i, own[0] if in_rows else None):
            stacks.setdefault(key, []).append(_tensor(dtype, shape, data))
        for key, rows in stacks.items():
            found[key] = rows[0] if len(rows) == 1 else torch.stack(rows)
        for key in [key for key in found if key.startswith("absmax")]:
            number = key.removeprefix("absmax")
            signed = number == "1"
            found[f"qmap{number}"] = torch.tensor(_bitstep.quantization_map(signed), dtype=torch.float32)
            codes, stacked = found[f"state{number}"], len(stacks[f"state{number}"]) > 1
            if codes[0 if stacked else ...].numel() == prod(own):  # else those of a projection
                found[f"state{number}"] = codes.reshape(*codes.shape[: int(stacked)], *own)
        if in_rows:
            for key, rows in stacks.items():
                found[key] = _sharding().placed(layout, found[key], p.shape[0], int(len(rows) > 1))
        if "compensation" in found and "kahan_comp" in kinds:
            found["kahan_comp"] = found.pop("compensation")
        for key, kind in kinds.items():
            if kind == "NoneType":
                found.setdefault(key, None)
            elif key == "eps_sq":  # a constant that optimi keeps beside the state
                found[key] = torch.tensor(self.param_groups[group]["eps"] ** 2, dtype=p.dtype)
            elif key == "unorm_vec":  # memory of bitsandbytes' that holds nothing between steps
                found[key] = torch.zeros(1)
        return found

    @property
    def state(self) -> Mapping[torch.Tensor, dict[str, Any]]:  # type: ignore[override]
        """A copy of the state, by parameter. To change it, change a `state_dict` and load that."""
        found, i = _States(), 0
        for index, group in enumerate(self.param_groups):
            for p in group["params"]:
                state = self._state_of(i, index)
                if state:
                    found[p] = state
                i += 1
        return MappingProxyType(found)

    @state.setter
    def state(self, value: Any) -> None:
        if value:
            raise ValueError("state can't be assigned: use load_state_dict")

    def state_dict(self) -> dict[str, Any]:
        """The state under the reference's own keys; that of a parameter in rows is in rows."""
        saved = super().state_dict()
        if any(layout is not None and layout.owner is not None for layout in self._layouts):
            saved["state"].update(_sharding().spread(saved["state"], self._layouts))
            saved["state"] = dict(sorted(saved["state"].items()))
        paths = self._reference.get("state") or {}
        homes = {path.rpartition("/")[2]: path.rpartition("/")[0] for path in paths if "/" in path}
        for i, state in saved["state"].items():
            for key in [key for key in state if key in homes]:
                state.setdefault(homes[key], {})[key] = state.pop(key)
            if self._layouts[i] is None:
                _wrap_quantized(state, self._params()[i])
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state_dict of this class or of its reference.

        Unlike torch, state keeps the precision that it was saved in, whatever the type of its parameter.
        """
        state_dict = state_dict.copy()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = hook(self, state_dict)
            if changed is not None:
                state_dict = changed
        groups, saved_groups = self.param_groups, deepcopy(state_dict["param_groups"])
        if len(groups) != len(saved_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(g["params"]) != len(s["params"]) for g, s in zip(groups, saved_groups)):
            raise ValueError("loaded state dict contains a parameter group that doesn't match the size of optimizer's group")
        ids = list(chain.from_iterable(s["params"] for s in saved_groups))
        for group, saved in zip(groups, saved_groups):
            saved["params"] = group["params"]
            if "param_names" in group and "param_names" not in saved:
                saved["param_names"] = group["param_names"]
        before, states = self._plain, [state_dict["state"].get(k) or {} for k in ids]
        self._plain = {i for i, saved in enumerate(states) if (_is_plain(saved) if saved else i in before)}
        try:
            self._load(saved_groups, states)
        except BaseException:
            self._plain = before
            raise
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def _load(self, saved_groups: list[dict[str, Any]], states: list[Mapping[str, Any]]) -> None:
        core, layouts, seen = _bitstep.Optimizer(), [], []
        for index, group in enumerate(saved_groups):
            seen.append(self._register(core, layouts, group, self._saved_arguments(group), index))
        infos = [core.info(g) for g in range(len(saved_groups))]
        i = 0
        for index, group in enumerate(saved_groups):
            for _ in group["params"]:
                self._load_param(core, i, index, group, infos[index], states[i], layouts[i])
                i += 1
        core.training = all(group.get("train_mode", True) for group in saved_groups)
        self.param_groups, self._core, self._seen, self._layouts = saved_groups, core, seen, layouts
        self.__dict__["_info_cache"] = infos

    def _saved_arguments(self, group: Mapping[str, Any]) -> list[str]:
        """The keys of a saved group that are the rule's arguments."""
        probe = _bitstep.Optimizer()
        probe.add_group(self._name, self._arguments)
        known = probe.arguments(0)
        if "betas" in group and "betas" not in known:
            for key, value in zip(self._two_in_betas(known), group["betas"]):
                if key in known:
                    group[key] = value  # type: ignore[index]
        return [key for key in group if key in known]

    def _load_param(
        self,
        core: _bitstep.Optimizer,
        i: int,
        index: int,
        group: Mapping[str, Any],
        info: Mapping[str, Any],
        saved: Mapping[str, Any],
        layout: Any,
    ) -> None:
        state: dict[str, Any] = {}
        for key, value in saved.items():
            if isinstance(value, Mapping):
                state.update(value)
            elif hasattr(value, "codes") and hasattr(value, "scale"):  # torchao's quantised tensors
                state[f"{key}.codes"], state[f"{key}.scale"] = value.codes, value.scale
            else:
                state[key] = value
        started = bool(state)
        in_rows = layout is not None and layout.owner is None
        for key in sorted(state):
            value = state[key]
            # Every process takes part in collecting a tensor; those that don't step it drop it at once.
            if hasattr(value, "placements") and not (in_rows and value.ndim):
                value = value.full_tensor()
            dropped = isinstance(value, torch.Tensor) and value.numel() > 1 and layout is not None and not layout.here
            state[key] = None if dropped else value

        def number(key: str) -> float | None:
            value = state.get(key, group.get(key))
            return None if value is None else float(value)

        steps = number(info["step_key"])
        _, scalars, _ = core.param_state(i)
        for k, name in enumerate(info["scalars"]):
            value = number(name)
            if value is not None:
                scalars[k] = value
            elif started:
                raise ValueError(f"state of parameter {i} has no `{name}`")
        if info["steps_by_group"] or info["scalars_by_group"]:
            old_steps, old_scalars = core.group_state(index)
            core.set_group_state(
                index,
                int(steps or 0) if info["steps_by_group"] else old_steps,
                scalars if info["scalars_by_group"] else old_scalars,
            )
        if not started:
            return
        core.set_param_state(i, int(1 if steps is None else steps), scalars, True)
        if layout is not None and not layout.here:
            return
        parts = core.parts(i, _count(layout.rows) if in_rows else None)
        keys = [key for _, key, *_ in parts]
        rows: dict[str, int] = {}
        for slot, key, dtype, shape, old in parts:
            row, stacked = rows.get(key, 0), keys.count(key)
            rows[key] = row + 1
            if not old and not in_rows:  # a parameter without elements
                continue
            value = state.get(key)
            if value is None and key == "compensation":
                value = state.get("kahan_comp")
            if value is None:
                raise ValueError(f"state of parameter {i} has no `{key}`")
            if in_rows and isinstance(value, torch.Tensor):
                value = _sharding().local_rows(layout, value, stacked if stacked > 1 else 0)
            if stacked > 1:
                value = value[row]
            kind = getattr(torch, dtype)
            if not isinstance(value, torch.Tensor):
                raise ValueError(f"state of parameter {i}: `{key}` is a {type(value).__name__}, but must be a tensor")
            if value.dtype == torch.uint8 and kind.is_floating_point and key.startswith("state"):
                raise ValueError(f"state of parameter {i}: `{key}` is 8-bit codes, but must be {dtype}")
            data = _bytes(value, kind)
            if len(data) != len(old):
                raise ValueError(
                    f"state of parameter {i}: `{key}` has {value.numel()} elements, but must have {len(old) // kind.itemsize}"
                )
            core.set_part(i, slot, key, data)
        for number_, signed in (("1", True), ("2", False)):
            given = state.get(f"qmap{number_}")
            if hasattr(given, "placements"):
                given = given.full_tensor()
            if given is not None and f"absmax{number_}" in keys:
                ours = torch.tensor(_bitstep.quantization_map(signed), dtype=torch.float32)
                if not torch.equal(given.detach().cpu().float(), ours):
                    raise ValueError(f"state of parameter {i}: `qmap{number_}` is another map than this optimizer's")

    def __getstate__(self) -> dict[str, Any]:  # type: ignore[override]
        return {
            "defaults": self.defaults,
            "param_groups": self.param_groups,
            "_name": self._name,
            "_reference": self._reference,
            "_arguments": self._arguments,
            "_seen": self._seen,
            "_plain": self._plain,
            "_saved": self._core.save(),
            "_training": self._core.training,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        saved, training = state.pop("_saved"), state.pop("_training")
        super().__setstate__(state)
        core, self._layouts = self._registered()
        core.load(saved)
        core.training = training
        self._core = core


class Modes:
    """Parameters have other values where they are evaluated than where they are trained."""

    _modes = True

    def eval(self: Any) -> None:
        """Converts the parameters to the values to evaluate, in place."""
        self._switch(False)

    def train(self: Any) -> None:
        """Converts the parameters back to the values to train, in place."""
        self._switch(True)

    def _switch(self: Any, train: bool) -> None:
        if self._core.training != train:
            self._follow_groups()
            if self._has_dtensors:
                held, _ = self._held(None)
                self._core.switch(held, train)
                self._give_back(held, list(range(len(held))))
            else:
                with torch.no_grad():
                    self._core.switch(self._params(), train)
        for group in self.param_groups:
            group["train_mode"] = train


class ShownRate:
    """Has the rate of Transformers' Adafactor for its `AdafactorSchedule`, which shows it and does not set it."""

    @staticmethod
    def _get_lr(group: Mapping[str, Any], state: Mapping[str, Any]) -> Any:
        from transformers.optimization import Adafactor

        return Adafactor._get_lr(group, state)
