"""bitsandbytes' LAMB and LARS with 32-bit state: the norm of an update is limited to a multiple of the parameter's."""

import math

from bitsandbytes.optim import LAMB, LARS

from battery import NO_F64, battery, maker

ENV = "main"
NAMES = ("bnb_lamb_32bit", "bnb_lars_32bit")


def cases(seed):
    yield from lamb(maker("bnb_lamb_32bit", LAMB, seed))
    yield from lars(maker("bnb_lars_32bit", LARS, seed, {"lr": 1e-2, "momentum": 0.9}))


def lamb(case):
    strong = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2, "max_unorm": 0.3}
    late = {"step": 999_990, "state1": "signed", "state2": "positive"}
    late_hyper = {"betas": (0.9, 0.999999)}
    yield from battery(case, strong, coupled=True, late=late, late_hyper=late_hyper, skip=NO_F64)
    yield from limits(case, {"lr": 0.05})
    yield case(
        "ignored_f32",
        "bias_correction, amsgrad and adam_w_mode are accepted and do nothing",
        {**strong, "bias_correction": False, "amsgrad": True, "adam_w_mode": False},
        steps=12,
    )
    yield case("eps_large_f32", "eps = 1 inside the norm", {"lr": 0.2, "eps": 1.0, "max_unorm": 0.1}, steps=12)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0 makes the norm NaN", {"eps": 0.0, "lr": 0.1}, steps=8)
    yield case("lr_inf_f32", "an infinite rate without decay: nothing is multiplied by it but the update", {"weight_decay": 0.0}, lr=[0.01, math.inf, 0.01], steps=3)
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1, 2], "lr": 0.01, "betas": (0.5, 0.7), "eps": 0.1, "weight_decay": 0.0}],
        steps=10,
    )


def lars(case):
    strong = {"lr": 0.5, "momentum": 0.8, "weight_decay": 0.3, "max_unorm": 0.1}
    yield from battery(case, strong, coupled=True, late={"step": 999_990, "state1": "signed"}, skip=NO_F64)
    yield from limits(case, {"lr": 0.2})
    yield case(
        "ignored_f32",
        "dampening and nesterov are accepted and do nothing",
        {**strong, "dampening": 0.5, "nesterov": True},
        steps=12,
    )
    yield case("decay0_f32", "no decay: the first buffer is the gradient", {"lr": 0.1, "momentum": 0.5}, steps=8)
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1, 2], "lr": 0.1, "weight_decay": 0.0}],
        steps=10,
    )


def limits(case, base):
    for d in ("f32", "bf16", "f16"):
        yield case(
            f"limit_small_{d}",
            "every update is cut, by norms in f32 of the numbers before the step",
            {**base, "max_unorm": 1e-3},
            dtype=d,
            shapes=[(37,), (4, 3)],
            steps=10,
        )
    yield case("limit_large_f32", "no update is cut, the norm is noted all the same", {**base, "max_unorm": 1e4}, steps=8)
    yield case("limit0_f32", "no limit and no norm", {**base, "max_unorm": 0.0}, steps=8)
    yield case("limit_sometimes_f32", "gradients that grow: cut from some step on", base, edit=grow, steps=16)
    yield case("zero_param_f32", "a parameter of norm 0 never moves", base, edit=zero_param, steps=6)
    yield case(
        "long_f32",
        "norms over more than one block of 1024",
        {**base, "max_unorm": 0.01},
        shapes=[(2500,)],
        steps=2,
    )


def grow(inputs):
    for g in inputs.grads:
        for t in range(len(g)):
            g[t] *= 2.0 ** (t - 10)


def zero_param(inputs):
    inputs.inits[0][...] = 0.0
