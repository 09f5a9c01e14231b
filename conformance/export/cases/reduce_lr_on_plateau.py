import numpy as np
from transformers.optimization import get_reduce_on_plateau_schedule
from torch.optim.lr_scheduler import ReduceLROnPlateau

from schedules import Schedules, defaults

ENV = "main"


def noise(steps, start=3.0, slope=-0.02, size=0.2):
    """A loss that falls slowly under noise."""
    return lambda g: start + slope * np.arange(steps) + size * g.standard_normal(steps)


def flat(steps):
    return lambda g: np.full(steps, 1.0)


def odd(steps):
    """NaN and both infinities among the others."""

    def values(g):
        x = noise(steps)(g)
        x[[3, 4, 11]] = np.nan
        x[7], x[15] = np.inf, -np.inf
        return x

    return values


def cases(seed):
    s = Schedules(
        "reduce_lr_on_plateau",
        get_reduce_on_plateau_schedule,
        seed,
        described=lambda hyper: defaults(ReduceLROnPlateau) | hyper,
    )
    yield s.case("default", "patience of 10", {}, metric=noise(120))
    yield s.case("flat", "never better: reduced every patience + 1 steps until the change is below eps", {}, metric=flat(120))
    yield s.case("patience_0", "the first bad step reduces", {"patience": 0, "factor": 0.9}, metric=noise(60))
    yield s.case("patience_3", "the fourth bad step in a row reduces", {"patience": 3, "factor": 0.5}, metric=noise(80))
    yield s.case("max", "up is good", {"mode": "max", "patience": 2, "factor": 0.7}, metric=noise(60, slope=0.03))
    for mode in ("min", "max"):
        for threshold_mode in ("rel", "abs"):
            yield s.case(
                f"{mode}_{threshold_mode}",
                "a threshold that noise does not always pass",
                {"mode": mode, "threshold": 0.05, "threshold_mode": threshold_mode, "patience": 1, "factor": 0.8},
                metric=noise(60, slope=-0.05 if mode == "min" else 0.05),
            )
    yield s.case(
        "negative_rel",
        "a relative threshold below zero turns around",
        {"threshold": 0.1, "patience": 1, "factor": 0.8},
        metric=noise(50, start=-1.0),
    )
    yield s.case("cooldown", "no counting while it lasts, though the best is kept", {"patience": 1, "cooldown": 4, "factor": 0.6}, metric=noise(80))
    yield s.case("min_lr", "a floor", {"patience": 0, "min_lr": 1e-3, "factor": 0.5}, lr=0.01, metric=flat(30))
    yield s.case("eps", "changes of eps or less are not made", {"patience": 0, "factor": 0.9, "eps": 1e-3}, lr=0.02, metric=flat(40))
    yield s.case("nan", "NaN is a bad step, an infinite best is never passed", {"patience": 2, "factor": 0.5}, metric=odd(50))
    yield s.case("nan_max", "the same upwards", {"mode": "max", "patience": 2, "factor": 0.5}, metric=odd(50))
    yield s.case("groups", "groups with one floor", {"patience": 1, "min_lr": 5e-4, "factor": 0.6}, groups=3, metric=noise(60))
    yield s.case(
        "groups_min_lr",
        "a floor for each group",
        {"patience": 0, "min_lr": [1e-2, 0.0, 1e-4], "factor": 0.7},
        lr=0.1,
        groups=3,
        metric=noise(60),
    )
