"""This package's own optimizers and schedules as the suite's backend: over arrays, without PyTorch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from .. import _bitstep
from ..numpy import _back, _dense
from ._answers import Lacks, Unsupported

TYPES = {"bfloat16": np.dtype("uint16"), "float8_e4m3fn": np.dtype("uint8")}
FLOATS = ("float64", "float32", "bfloat16", "float16")


def array(raw: Any) -> np.ndarray:
    dtype, shape, data = raw
    return np.frombuffer(bytearray(data), TYPES.get(dtype) or np.dtype(dtype)).reshape(shape)


def numbers(raw: Any) -> np.ndarray:
    """As float64, exactly."""
    found = array(raw)
    return (found.astype("<u4") << 16).view("<f4").astype(np.float64) if raw[0] == "bfloat16" else found.astype(np.float64)


def narrowed(values: np.ndarray, dtype: str) -> bytes:
    """Rounded to a type, ties to even."""
    if dtype != "bfloat16":
        return values.astype(dtype).tobytes()
    bits = np.asarray(values, "<f4", order="C").view("<u4")
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype("<u2").tobytes()


def converted(raw: Any, dtype: str) -> bytes:
    """The elements in another type."""
    return raw[2] if raw[0] == dtype else narrowed(numbers(raw), dtype)


class Own:
    """The backend."""

    def optimizer(self, name: str, reference: str, hyper: str, groups: Any, params: Any, given: Any) -> Run:
        if name not in _bitstep.optimizers():
            raise Unsupported(f"no optimizer `{name}`")
        return Run(name, reference, json.loads(hyper), [(p, json.loads(h)) for p, h in groups], params, given)

    def schedule(
        self, name: str, reference: str, hyper: str, steps: int, groups: int, metric: Any, given: dict[str, Any]
    ) -> list[float]:
        arguments = json.loads(hyper)
        of_groups = arguments.pop("groups", None)
        listed = isinstance(arguments.get("lr"), list)
        if of_groups is None and not listed:
            of_groups = [{}] * groups
        rms = numbers(given["rms"]).reshape(-1) if "rms" in given else None
        if rms is not None and "dtype" not in arguments:
            if any(np.isfinite(x) and float(np.float32(x)) != x for x in rms):
                arguments["dtype"] = "float64"  # an RMS that f32 can't represent
        # Arguments of the optimizer that the schedule drove change no rate.
        bare = [{k: v for k, v in g.items() if k in ("params", "lr", "initial_lr")} for g in of_groups or []]
        while True:
            try:
                _bitstep.Scheduler(name, {**arguments, **({"groups": bare} if of_groups is not None else {})})
                break
            except ValueError as e:
                unknown = [key for key in arguments if f"has no argument `{key}`" in str(e)]
                if not unknown:
                    raise
                del arguments[unknown[0]]

        def known(key: str, value: Any) -> bool:
            if key in ("params", "lr", "initial_lr"):
                return True
            try:
                _bitstep.Scheduler(name, {**arguments, "groups": bare, key: value})
            except ValueError as e:
                return "has no argument" not in str(e)
            return True

        if of_groups is not None:
            arguments["groups"] = [{k: v for k, v in g.items() if known(k, v)} for g in of_groups]
        schedule = _bitstep.Scheduler(name, arguments)
        rates = list(schedule.lrs)
        for t in range(steps):
            if name in ("reduce_lr_on_plateau", "greedy"):
                metrics = [metric[t]]
            elif name == "adafactor_schedule":
                columns = len(rms) // max(steps, 1)
                row = [float(x) for x in rms[t * columns : (t + 1) * columns]]
                metrics = row * groups if columns == 1 else row
            else:
                metrics = []
            rates += schedule.step(metrics)
        return rates


class Run:
    """A running optimizer."""

    shows_state = True

    def __init__(self, name: str, reference: str, hyper: dict[str, Any], groups: Any, params: Any, given: Any) -> None:
        self.types = [p[0] for p in params]
        if any(dtype not in FLOATS for dtype in self.types):
            raise Unsupported("parameters that are no floats")
        self.values = [array(p) for p in params]
        hyper = {key: value for key, value in hyper.items() if key != "groups"}
        eight_bit = ("bitsandbytes.optim.", "galore_torch.GaLoreAdamW8bit")
        if reference.startswith(eight_bit):
            hyper.setdefault("quantizer", "cpu")
        probe = _bitstep.Optimizer()
        probe.add_group(name, hyper)
        if "reference" in probe.arguments(0):
            hyper["reference"] = reference
        self.core = _bitstep.Optimizer()
        self.group_of = [0] * len(params)
        by_group = _bitstep.Optimizer()
        self.groups = []
        for index, (members, own) in enumerate(groups):
            changes = {k: v for k, v in own.items() if k != "params" and (k not in hyper or hyper[k] != v)}
            self.groups.append((name, hyper, changes))
            for optimizer in (self.core, by_group):
                optimizer.add_group(name, hyper, changes)
            for i in members:
                self.group_of[i] = index
        for i, p in enumerate(params):
            self.core.add_param(self.group_of[i], list(p[1]), p[0])
        # References number parameters group by group.
        order = [i for members, _ in groups for i in members]
        for position, i in enumerate(order):
            by_group.add_param(self.group_of[i], list(params[i][1]), params[i][0])
            steps, _, stepped = self.core.param_state(i)
            self.core.set_param_state(i, steps, by_group.param_state(position)[1], stepped)
        self.infos = [self.core.info(g) for g in range(len(groups))]
        self.provided = [set(names) for names in given]

    def load(self, i: int, value: Any, state: dict[str, Any], updates: int, steps: int) -> None:
        self.values[i][...] = array(value)
        group = self.group_of[i]
        info = self.infos[group]
        step = int(numbers(state[info["step_key"]]).item()) if info["step_key"] in state else None
        late = updates == 0 and steps == 0 and bool(state)
        started = updates > 0 or late or (step is not None and step > 0)
        group_steps, group_scalars = self.core.group_state(group)
        own = not info["steps_by_group"]
        group_steps = max(group_steps, step if step is not None and not own else steps)
        scalars = self._initial_scalars(i)
        for k, name in enumerate(info["scalars"]):
            if name in state:
                scalars[k] = float(numbers(state[name]).reshape(-1)[0])
            elif started:
                raise Lacks(name)
        _, param_scalars, _ = self.core.param_state(i)
        if info["scalars_by_group"] and (started or state):
            group_scalars = scalars
        else:
            param_scalars = scalars
        self.core.set_group_state(group, group_steps, group_scalars)
        self.core.set_param_state(i, step if own and step is not None else updates, param_scalars, started)
        parts = self.core.parts(i)
        keys = [key for _, key, *_ in parts]
        rows: dict[str, int] = {}
        for slot, key, dtype, _, old in parts:
            row = rows.get(key, 0)
            rows[key] = row + 1
            if key in self.provided[i] or not old:
                continue
            if key not in state:
                if started:
                    raise Lacks(key)
                continue
            data = converted(state[key], dtype)
            if keys.count(key) > 1:
                data = data[row * len(old) : (row + 1) * len(old)]
            self.core.set_part(i, slot, key, data)

    def _initial_scalars(self, i: int) -> list[float]:
        """Those of a parameter that is its optimizer's first."""
        alone = _bitstep.Optimizer()
        alone.add_group(*self.groups[self.group_of[i]])
        alone.add_param(0, list(self.values[i].shape), self.types[i])
        return alone.param_state(0)[1]

    def step(self, t: int, grads: Any, lr: float | None, given: dict[str, float], drawn: Any) -> None:
        extra = list(given.items())
        for i, tensors in enumerate(drawn):
            bits = tensors.get("rand16")
            self.core.set_rounding_bits(i, None if bits is None else [int(x) for x in numbers(bits[0]).reshape(-1)])
            for slot, key, dtype, _, old in self.core.parts(i) if tensors else ():
                if key in self.provided[i] and key in tensors:
                    data = converted(tensors[key][0], dtype)
                    self.core.set_part(i, slot, key, data)
                    extra.append((key, 1.0))
        rates = None if lr is None else [lr] * len(self.infos)
        arrays = [None if g is None else array(g) for g in grads]
        self.core.step(self.values, arrays, rates, extra, 1, _dense, _back)

    def value(self, i: int) -> Any:
        return self.types[i], list(self.values[i].shape), self.values[i].tobytes()

    def state(self, i: int) -> dict[str, Any]:
        stacks: dict[str, list[Any]] = {}
        for _, key, dtype, shape, data in self.core.parts(i):
            stacks.setdefault(key, []).append((dtype, shape, bytes(data)))
        found = {}
        for key, rows in stacks.items():
            dtype, shape, data = rows[0]
            found[key] = rows[0] if len(rows) == 1 else (dtype, [len(rows), *shape], b"".join(r[2] for r in rows))
        info, group = self.infos[self.group_of[i]], self.core.group_state(self.group_of[i])
        param = self.core.param_state(i)
        scalars = group[1] if info["scalars_by_group"] else param[1]
        steps = group[0] if info["steps_by_group"] else param[0]
        for name, x in [*zip(info["scalars"], scalars), (info["step_key"], float(steps))]:
            found[name] = ("float64", [], np.float64(x).tobytes())
        return found

    def eval(self, i: int) -> Any:
        other = self.core.copy()
        copies = [value.copy() for value in self.values]
        try:
            other.switch(copies, False)
        except ValueError:
            return None  # the check reports the missing answer
        return self.types[i], list(copies[i].shape), copies[i].tobytes()
