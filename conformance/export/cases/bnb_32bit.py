"""bitsandbytes' optimizers with 32-bit state. Some arguments are accepted and ignored: cases hold that."""

import math

from bitsandbytes.optim import SGD, Adagrad, Adam, AdamW, RMSprop

from battery import NO_F64, battery, maker

ENV = "main"
NAMES = (
    "bnb_adam_32bit",
    "bnb_adamw_32bit",
    "paged_adamw_32bit",
    "bnb_sgd_32bit",
    "bnb_adagrad_32bit",
    "rmsprop_bnb",
    "rmsprop_bnb_32bit",
)


def cases(seed):
    for name, cls, hyper in (
        ("bnb_adam_32bit", Adam, {}),
        ("bnb_adamw_32bit", AdamW, {}),
        ("paged_adamw_32bit", AdamW, {"is_paged": True}),
    ):
        yield from adam(maker(name, cls, seed, hyper))
    yield from sgd(maker("bnb_sgd_32bit", SGD, seed, {"lr": 1e-2, "momentum": 0.9}))
    yield from adagrad(maker("bnb_adagrad_32bit", Adagrad, seed))
    for name in ("rmsprop_bnb", "rmsprop_bnb_32bit"):
        yield from rmsprop(maker(name, RMSprop, seed, {"optim_bits": 32}))


def adam(case):
    strong = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}
    late = {"step": 999_990, "state1": "signed", "state2": "positive"}
    yield from battery(case, strong, late=late, late_hyper={"betas": (0.9, 0.999999)}, skip=NO_F64)
    for d in ("f32", "bf16"):
        yield case(
            f"eps_large_{d}",
            "eps = 1 times the root of the bias correction, beside the uncorrected root",
            {"lr": 0.2, "eps": 1.0},
            dtype=d,
            steps=12,
        )
    yield case("amsgrad_f32", "amsgrad is accepted and does nothing", {**strong, "amsgrad": True}, steps=8)
    yield case("decay_f32", "decoupled decay, of Adam too, before the update", {"lr": 0.1, "weight_decay": 0.8}, steps=8)
    yield case("beta1_0_f32", "beta1 = 0", {"betas": (0.0, 0.99), "lr": 0.1}, steps=8)
    yield case("beta2_0_f32", "beta2 = 0", {"betas": (0.9, 0.0), "lr": 0.1}, steps=8)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {"eps": 0.0, "lr": 0.1}, steps=8)
    yield case("lr_inf_f32", "an infinite rate without decay: nothing is multiplied by it but the update", {"weight_decay": 0.0}, lr=[0.01, math.inf, 0.01], steps=3)
    yield groups(case, strong, {"lr": 0.01, "betas": (0.5, 0.7), "eps": 0.1, "weight_decay": 0.0})


def sgd(case):
    strong = {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.3}
    yield from battery(case, strong, late={"step": 999_990, "state1": "signed"}, skip=NO_F64)
    for d in ("f32", "bf16"):
        yield case(
            f"ignored_{d}",
            "dampening and nesterov are accepted and do nothing",
            {**strong, "dampening": 0.5, "nesterov": True},
            dtype=d,
            steps=12,
        )
    yield case("decay0_f32", "no decay: the first buffer is the gradient", {"lr": 0.1, "momentum": 0.5}, steps=8)
    yield groups(case, strong, {"lr": 0.01, "weight_decay": 0.0})


def adagrad(case):
    strong = {"lr": 0.2, "eps": 0.01, "weight_decay": 0.3}
    yield from battery(case, strong, late={"step": 999_990, "state1": "positive"}, skip=NO_F64)
    yield case("decay_f32", "coupled decay: it enters the sum of squares", {"lr": 0.1, "weight_decay": 0.9}, steps=12)
    yield case("eps_large_f32", "eps = 1: outside the root", {"eps": 1.0, "lr": 0.5}, steps=12)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {"eps": 0.0}, steps=8)
    yield groups(case, strong, {"lr": 0.05, "eps": 0.5, "weight_decay": 0.0})


def rmsprop(case):
    strong = {"lr": 0.02, "alpha": 0.8, "eps": 0.01, "weight_decay": 0.3}
    yield from battery(case, strong, late={"step": 999_990, "state1": "positive"}, skip=NO_F64)
    for d in ("f32", "bf16"):
        yield case(
            f"momentum_{d}",
            "momentum is accepted and does nothing",
            {**strong, "momentum": 0.9},
            dtype=d,
            steps=12,
        )
    yield case("decay_f32", "coupled decay", {"lr": 0.02, "weight_decay": 0.9}, steps=12)
    yield case("eps_large_f32", "eps = 1: outside the root", {"eps": 1.0, "lr": 0.5}, steps=12)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {"eps": 0.0}, steps=8)
    yield groups(case, strong, {"lr": 0.1, "eps": 0.5, "weight_decay": 0.0})


def groups(case, strong, other):
    return case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1, 2], **other}],
        steps=10,
    )
