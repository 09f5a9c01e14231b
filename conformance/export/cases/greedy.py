import numpy as np
from transformers.optimization import GreedyLR, get_greedy_schedule

from schedules import Schedules, defaults

ENV = "main"


def noise(steps, start=3.0, slope=-0.02, size=0.05):
    """A loss that falls slowly under noise."""
    return lambda g: start + slope * np.arange(steps) + size * g.standard_normal(steps)


def phases(*parts):
    """Falling, flat, rising: (steps, slope) each."""

    def values(g):
        slopes = np.repeat([slope for _, slope in parts], [steps for steps, _ in parts])
        return 3.0 + np.cumsum(slopes) + 1e-3 * g.standard_normal(len(slopes))

    return values


def odd(steps):
    """NaN and both infinities among the others."""

    def values(g):
        x = noise(steps)(g)
        x[[9, 10]] = np.nan
        x[20], x[31] = np.inf, -np.inf
        return x

    return values


def cases(seed):
    s = Schedules("greedy", get_greedy_schedule, seed, described=lambda hyper: defaults(GreedyLR) | hyper)
    quick = {"patience": 1, "factor": 0.8, "min_lr": 1e-3, "max_lr": 0.5}
    three = phases((30, -0.1), (30, 0.0), (30, 0.1))
    yield s.case("default", "patience of 10", {}, metric=phases((40, -0.1), (40, 0.0), (40, 0.1)))
    yield s.case("quick", "raised while it falls, lowered while it rises", quick, metric=three)
    yield s.case("patience_0", "every step changes the rate", {**quick, "patience": 0}, metric=noise(60))
    yield s.case("max", "up is good", {**quick, "mode": "max"}, metric=three)
    for mode in ("min", "max"):
        yield s.case(
            f"{mode}_rel",
            "a relative threshold",
            {**quick, "mode": mode, "threshold": 0.02, "threshold_mode": "rel"},
            metric=noise(80, slope=-0.05 if mode == "min" else 0.05, size=0.1),
        )
    yield s.case("threshold_abs", "an absolute threshold", {**quick, "threshold": 0.05}, metric=noise(80, slope=-0.04, size=0.1))
    yield s.case("cooldown", "after a reduction it rests, and the best is not updated", {**quick, "cooldown": 5}, metric=noise(90, size=0.2))
    yield s.case("warmup", "after a raise it rests", {**quick, "warmup": 5}, metric=noise(90, slope=-0.1))
    yield s.case("both_rests", "cooldown and warm-up", {**quick, "cooldown": 3, "warmup": 2}, metric=noise(120, size=0.3))
    yield s.case("smooth", "the mean of the last steps", {**quick, "smooth": True, "window_size": 7}, metric=noise(90, size=0.3))
    yield s.case("smooth_default", "a window of 50, not yet full and then full", {**quick, "smooth": True}, metric=noise(90, size=0.3))
    yield s.case("smooth_1", "a window of one: a running sum still rounds", {**quick, "smooth": True, "window_size": 1}, metric=noise(60))
    reset = {**quick, "patience": 0, "min_lr": 0.01, "reset_start": 3}
    flat = phases((60, 0.02))
    yield s.case("reset", "at the minimum for three reductions: everything starts again", reset, lr=0.05, metric=flat)
    yield s.case("reset_cooldown", "a reset is followed by cooldown", {**reset, "cooldown": 2}, lr=0.05, metric=flat)
    yield s.case("reset_1", "at once", {**reset, "reset_start": 1}, lr=0.05, metric=flat)
    yield s.case("reset_0", "a count that is over before it begins", {**reset, "reset_start": 0}, lr=0.05, metric=flat)
    yield s.case(
        "reset_interrupted",
        "a raise between restores the count",
        {**reset, "reset_start": 4},
        lr=0.05,
        metric=phases((12, 0.02), (2, -0.5), (8, 0.02), (2, -0.5), (30, 0.02)),
    )
    yield s.case(
        "reset_groups",
        "only when all groups are at their minimum",
        {**reset, "min_lr": [0.01, 0.002, 0.5]},
        lr=0.05,
        groups=[{}, {"lr": 0.3}, {"lr": 0.02}],
        metric=flat,
    )
    yield s.case("reset_smooth", "a reset empties the window", {**reset, "smooth": True, "window_size": 5}, lr=0.05, metric=flat)
    yield s.case("nan", "NaN is a bad step", quick, metric=odd(60))
    yield s.case("nan_smooth", "NaN poisons the running sum until a reset", {**reset, "smooth": True, "window_size": 4}, lr=0.05, metric=odd(60))
    yield s.case("below_min", "a rate that starts below the minimum is not lifted", {**quick, "min_lr": 0.1}, lr=0.01, metric=three)
    yield s.case("eps", "small changes are not made", {**quick, "eps": 2e-3}, lr=0.01, metric=three)
    yield s.case("groups", "groups with limits of their own", {**quick, "min_lr": [1e-3, 1e-2], "max_lr": [0.1, 1.0]}, lr=0.05, groups=2, metric=three)
