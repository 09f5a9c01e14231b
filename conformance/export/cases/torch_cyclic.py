from torch.optim.lr_scheduler import CyclicLR

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("torch_cyclic", CyclicLR, seed)
    bounds = {"base_lr": 1e-3, "max_lr": 1e-1, "step_size_up": 7}
    yield s.case("default", "the beginning of a long cycle", {"base_lr": 1e-3, "max_lr": 1e-1})
    yield s.case("triangular", "up and down", bounds, steps=60)
    yield s.case("triangular2", "half as high each cycle", {**bounds, "mode": "triangular2"}, steps=60)
    yield s.case("exp_range", "lower each step", {**bounds, "mode": "exp_range", "gamma": 0.97}, steps=200)
    yield s.case("exp_range_default", "a factor of 1", {**bounds, "mode": "exp_range"}, steps=20)
    yield s.case("down", "down faster than up", {**bounds, "step_size_down": 3}, steps=40)
    yield s.case("down_0", "down at once", {**bounds, "step_size_down": 0}, steps=30)
    yield s.case("fraction", "cycles that are not whole", {**bounds, "step_size_up": 4.5, "step_size_down": 2.25}, steps=40)
    yield s.case("reversed", "the upper rate is the lower one", {**bounds, "max_lr": 1e-5}, steps=20)
    yield s.case("no_momentum", "momentum is left alone", {**bounds, "cycle_momentum": False, "scale_mode": "iterations"}, steps=20)
    yield s.case("groups", "the groups' own rates do not count", bounds, groups=2, steps=20)
    yield s.case(
        "groups_lists",
        "rates for each group",
        {**bounds, "base_lr": [1e-3, 1e-2, 0.0], "max_lr": [0.1, 0.3, 0.7], "mode": "triangular2"},
        groups=3,
        steps=40,
    )
    yield s.case("resumed", "resumed after step 9", {**bounds, "last_epoch": 9}, steps=20)
