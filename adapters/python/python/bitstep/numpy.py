"""Steps over arrays, without PyTorch.

>>> opt = bitstep.numpy.Optimizer("adamw_torch", [weight, bias], lr=1e-3)
>>> opt.step([weight_grad, bias_grad])  # weight and bias change in place

Arrays are float64, float32 or float16 of numpy's, bfloat16 of ml_dtypes', or the bits of bfloat16 as uint16.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np

from . import _bitstep

__all__ = ["Optimizer"]


def _dense(array: np.ndarray) -> np.ndarray:
    return np.array(array, order="C")


def _back(array: np.ndarray, copy: np.ndarray) -> None:
    array[...] = copy


def _name(dtype: np.dtype) -> str:
    return "bfloat16" if dtype.name == "uint16" else dtype.name


class Optimizer:
    """An optimizer by its registry name over arrays, with the arguments of its reference.

    `params` is a list of arrays, or of groups: dictionaries with `params` and what differs there. ValueError: an unknown
    name or argument, with the nearest known one, or a value outside of its range.
    """

    def __init__(self, name: str, params: Sequence[Any], threads: int = 1, **arguments: Any) -> None:
        self.name, self.threads = name, threads
        self.params: list[np.ndarray] = []
        self._core = _bitstep.Optimizer()
        self._lrs: list[float | None] = []
        groups = params if params and isinstance(params[0], Mapping) else [{"params": params}]
        for group in groups:
            own = {key: value for key, value in group.items() if key != "params"}
            index = self._core.add_group(name, arguments, own)
            lr = self._core.arguments(index).get("lr")
            self._lrs.append(None if lr is None else float(lr))
            for array in group["params"]:
                self._core.add_param(index, list(array.shape), _name(array.dtype))
                self.params.append(array)

    @property
    def lr(self) -> list[float | None]:
        """The learning rate of each group; None where the rule computes its own."""
        return self._lrs

    @lr.setter
    def lr(self, value: float | Sequence[float]) -> None:
        values = [value] * len(self._lrs) if isinstance(value, (int, float)) else list(value)
        if len(values) != len(self._lrs):
            raise ValueError(f"lr: {len(values)} rates, but there are {len(self._lrs)} groups")
        self._lrs = [float(x) for x in values]

    def set(self, group: int = 0, **arguments: Any) -> None:
        """Changes arguments of a group; `lr` is set by `lr`."""
        self._core.set_arguments(group, arguments)

    def step(self, grads: Sequence[Any], **extra: float) -> None:
        """One step, in place. A parameter whose gradient is None stays as it is, and so does its step count.

        `extra` are the named numbers that a few rules use (GrokAdamW's `train_loss`).
        """
        more = [(key, float(value)) for key, value in extra.items()]
        self._core.step(self.params, list(grads), self._lrs, more, self.threads, _dense, _back)

    def train(self) -> None:
        """Converts the parameters back to the values to train, in place."""
        self._core.switch(self.params, True)

    def eval(self) -> None:
        """Converts the parameters to the values to evaluate, in place: those of schedule-free optimizers differ."""
        self._core.switch(self.params, False)

    def state(self, i: int) -> dict[str, np.ndarray]:
        """Copies of the state of a parameter, under the reference's keys; types that numpy lacks as their bits."""
        bits = {"bfloat16": np.uint16, "float8_e4m3fn": np.uint8}
        rows: dict[str, list[np.ndarray]] = {}
        for _, key, dtype, shape, data in self._core.parts(i):
            kind = bits.get(dtype) or np.dtype(dtype)
            rows.setdefault(key, []).append(np.frombuffer(data, kind).reshape(shape))
        return {key: found[0] if len(found) == 1 else np.stack(found) for key, found in rows.items()}

    def save(self) -> bytes:
        """State, counters and arguments as bytes, which Rust and C load, too."""
        return self._core.save()

    def load(self, state: bytes) -> None:
        """Restores what `save` returned of an optimizer that was built in the same way."""
        self._core.load(state)
