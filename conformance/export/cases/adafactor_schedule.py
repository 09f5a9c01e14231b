import numpy as np
import torch
from transformers.optimization import Adafactor, AdafactorSchedule

from golden import Case, rng
from golden import defaults as arguments

ENV = "main"
NAME = "adafactor_schedule"


def case(seed, title, note, hyper=None, initial_lr=0.0, dtype="float32", steps=30, groups=1, scale=1.0):
    """A run of Adafactor with small gradients; what the schedule shows, and the RMS that it follows. `groups`: how many,
    or what each of them changes."""
    if isinstance(groups, int):
        groups = [{} for _ in range(groups)]
    g = rng(seed, "schedule", NAME, title)
    kind = getattr(torch, dtype)
    params = [torch.nn.Parameter(torch.from_numpy(scale * g.standard_normal((3, 4))).to(kind)) for _ in groups]
    opt = Adafactor([{**group, "params": [p]} for group, p in zip(groups, params)], **(hyper or {}))
    schedule = AdafactorSchedule(opt, initial_lr)
    rates = lambda: [float(group["lr"]) for group in opt.param_groups]
    rows, rms = [rates()], []
    for _ in range(steps):
        for p in params:
            p.grad = torch.from_numpy(g.standard_normal((3, 4))).to(kind)
        opt.step()
        rms.append([float(opt.state[p]["RMS"]) for p in params])
        schedule.step()
        rows.append(rates())
    hyper = {**arguments(Adafactor, hyper or {}), "initial_lr": initial_lr, "dtype": dtype}
    if len(groups) > 1:
        hyper["groups"] = [{"params": [i], **group} for i, group in enumerate(groups)]
    tensors = {"lr": np.array(rows), "given.rms": np.array(rms)}
    reference = "transformers.optimization.AdafactorSchedule"
    return Case("schedule", NAME, title, reference, hyper, steps, note, tensors, seed, ["torch", "transformers", "numpy"])


def cases(seed):
    yield case(seed, "default", "scaled by the parameter, in f32")
    yield case(seed, "initial", "before the first step the rate is initial_lr", initial_lr=0.3, steps=5)
    yield case(seed, "warmup_init", "rises first", {"warmup_init": True})
    yield case(seed, "no_scale", "time alone, in f64", {"scale_parameter": False})
    yield case(seed, "no_scale_long", "past step 10 000 the root takes over", {"scale_parameter": False}, steps=300)
    yield case(seed, "small", "parameters below the floor: a number, not a tensor", scale=1e-5)
    yield case(seed, "crossing", "from below the floor to above: the rate becomes a tensor", {"eps": (1e-30, 0.02)}, scale=0.005)
    yield case(seed, "f64", "in f64 throughout", dtype="float64")
    yield case(seed, "bf16", "the RMS of a bf16 parameter is f32", dtype="bfloat16")
    yield case(seed, "groups", "each group by its first parameter", groups=3)
    yield case(
        seed,
        "groups_differ",
        "groups with arguments of their own: scaled or not, from 1e-6 or from 0.01, another floor, a rate from outside",
        {"lr": None, "weight_decay": 0.01},
        groups=[
            {"scale_parameter": False},
            {"scale_parameter": False, "warmup_init": True},
            {"eps": (1e-30, 4.0), "weight_decay": 0.0},
            {"relative_step": False},
            {},
        ],
    )
    yield case(
        seed,
        "groups_against_f64",
        "the same, against what holds for the others",
        {"scale_parameter": False, "warmup_init": True},
        groups=[{"scale_parameter": True}, {"warmup_init": False}, {}],
        dtype="float64",
        initial_lr=0.3,
    )
    yield case(
        seed,
        "external",
        "without relative steps the schedule multiplies its own rate up",
        {"relative_step": False, "lr": 1e-3},
        initial_lr=0.01,
        steps=12,
    )
    yield case(
        seed,
        "external_no_scale",
        "and without a scale it stays",
        {"relative_step": False, "scale_parameter": False, "lr": 1e-3},
        initial_lr=0.01,
        steps=6,
    )
