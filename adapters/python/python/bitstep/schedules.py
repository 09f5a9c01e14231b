"""Learning rates by Transformers' names.

>>> rates = bitstep.schedules.lrs("cosine", 100, lr=1e-3, num_warmup_steps=10, num_training_steps=100)

A `Schedule` holds the state; `lrs` are the rates of a whole run. `bitstep.schedules.names()` lists all schedules.
"""

from __future__ import annotations

from typing import Any, Sequence

from . import _bitstep

__all__ = ["Schedule", "lrs", "names", "plot"]


def names() -> list[str]:
    """The names of all schedules."""
    return _bitstep.schedules()


class Schedule:
    """A schedule by name, with the arguments of its reference.

    `lr` is the optimizer's rate, or a list with one for each group. ValueError: an unknown name or argument, with the
    nearest known one, a missing argument, or a refused value.
    """

    def __init__(self, name: str, lr: float | Sequence[float] | None = None, **arguments: Any) -> None:
        if lr is not None:
            arguments["lr"] = lr
        self.name = name
        self._core = _bitstep.Scheduler(name, arguments)

    @property
    def lrs(self) -> list[float]:
        """The current rate of each group."""
        return self._core.lrs

    @lrs.setter
    def lrs(self, values: Sequence[float]) -> None:
        self._core.lrs = list(values)

    def momentum(self, group: int = 0) -> float | None:
        """The momentum (or β₁) of a group, if the schedule sets one."""
        return self._core.momentum(group)

    def step(self, *metrics: float) -> list[float]:
        """Makes a step and returns the new rates. Schedules that follow a metric take it as argument."""
        return self._core.step([float(x) for x in metrics])

    def save(self) -> bytes:
        """The state as bytes, the same on every machine."""
        return self._core.save()

    def load(self, state: bytes) -> None:
        """Restores what `save` returned of a schedule that was built in the same way."""
        self._core.load(state)


def lrs(name: str, steps: int, lr: float = 1.0, **arguments: Any) -> list[float]:
    """The rate of each of `steps` updates: the first is that at construction."""
    schedule = Schedule(name, lr, **arguments)
    rates = []
    for t in range(steps):
        rates.append(schedule.lrs[0])
        if t + 1 < steps:
            schedule.step()
    return rates


def plot(name: str, steps: int, lr: float = 1.0, *, ax: Any = None, **arguments: Any) -> Any:
    """Draws the rates with matplotlib, and returns the axes."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1]
    ax.plot(range(steps), lrs(name, steps, lr, **arguments), label=name)
    ax.set_xlabel("update")
    ax.set_ylabel("learning rate")
    return ax
