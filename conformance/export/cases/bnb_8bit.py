"""bitsandbytes' optimizers with 8-bit state, as its CPU kernels compute it."""

import numpy as np
from bitsandbytes.optim import LAMB, LARS, SGD, Adagrad8bit, Adam, AdamW, AdEMAMix, Lion, RMSprop

from battery import maker

ENV = "main"
NAMES = (
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "lion_8bit",
    "paged_lion_8bit",
    "ademamix_8bit",
    "paged_ademamix_8bit",
    "rmsprop_bnb_8bit",
    "bnb_adam_8bit",
    "bnb_sgd_8bit",
    "bnb_adagrad_8bit",
    "bnb_lamb_8bit",
    "bnb_lars_8bit",
)
ADAM = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}
SMALL = {"min_8bit_size": 1}  # lets a tensor of some blocks have 8-bit state


def state(opt, i, param):
    return {k: v for k, v in opt.state.get(param, {}).items() if not k.startswith("qmap")}


def qmaps(opt, params):
    return {
        f"p{i}.given.{k}": v for i, p in enumerate(params) for k, v in opt.state.get(p, {}).items() if k.startswith("qmap")
    }


def blocks(inputs):
    """Blocks of their own kind: all zeros, then not; one large number; tiny numbers; huge ones; equal ones."""
    g = inputs.grads[0]
    g[:, :256] = 0.0
    g[2, 100] = 1.0
    g[:, 300] = 64.0
    g[:, 512:768] *= 2.0**-60
    g[:, 768:1024] *= 2.0**40
    g[:, 1024:] = 0.125


def nonfinite(inputs):
    x, g = inputs.inits[0], inputs.grads[0]
    g[1, 3], g[1, 300], g[2, 301] = np.nan, np.inf, -np.inf
    x[513], x[514] = np.nan, np.inf


def cases(seed):
    table = (
        ("adamw_bnb_8bit", AdamW, {"optim_bits": 8}, ADAM),
        ("paged_adamw_8bit", AdamW, {"optim_bits": 8, "is_paged": True}, ADAM),
        ("bnb_adam_8bit", Adam, {"optim_bits": 8}, ADAM),
        ("lion_8bit", Lion, {"optim_bits": 8}, {"lr": 0.01, "betas": (0.7, 0.9), "weight_decay": 0.3}),
        (
            "paged_lion_8bit",
            Lion,
            {"optim_bits": 8, "is_paged": True},
            {"lr": 0.01, "betas": (0.7, 0.9), "weight_decay": 0.3},
        ),
        ("ademamix_8bit", AdEMAMix, {"optim_bits": 8}, MIX),
        ("paged_ademamix_8bit", AdEMAMix, {"optim_bits": 8, "is_paged": True}, MIX),
        (
            "rmsprop_bnb_8bit",
            RMSprop,
            {"optim_bits": 8},
            {"lr": 0.02, "alpha": 0.8, "eps": 0.01, "weight_decay": 0.3},
        ),
        (
            "bnb_sgd_8bit",
            SGD,
            {"optim_bits": 8, "lr": 1e-2, "momentum": 0.9},
            {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.3},
        ),
        ("bnb_adagrad_8bit", Adagrad8bit, {}, {"lr": 0.2, "eps": 0.01, "weight_decay": 0.3}),
        ("bnb_lamb_8bit", LAMB, {"optim_bits": 8}, ADAM),
        (
            "bnb_lars_8bit",
            LARS,
            {"optim_bits": 8, "lr": 1e-2, "momentum": 0.9},
            {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.3},
        ),
    )
    for name, cls, hyper, strong in table:
        full = not name.startswith("paged")
        case = maker(name, cls, seed, hyper, state=state, finish=qmaps)
        few = maker(name, cls, seed, {**hyper, **SMALL}, state=state, finish=qmaps)
        yield few("strong_f32", "neighbouring rules part at once", strong, shapes=[(600,)], steps=5)
        yield few("default_bf16", "every default, bf16 weights", shapes=[(256,)], dtype="bf16", steps=5)
        if not full:
            continue
        if name == "adamw_bnb_8bit":
            yield case("size_f32", "8 bits from 4096 elements on", strong, shapes=[(4096,), (4095,)], steps=1)
        size = {**strong, "min_8bit_size": 100}
        yield case("min_size_f32", "8 bits from 100 elements on", size, shapes=[(100,), (99,)], steps=4)
        yield few("default_f32", "every default", shapes=[(300,)], steps=6)
        yield few("strong_f16", "f16 weights", strong, shapes=[(2, 140)], dtype="f16", steps=4)
        yield few("blocks_f32", blocks.__doc__, strong, shapes=[(1100,)], steps=4, edit=blocks)
        yield few(
            "shapes_f32",
            "one element, one block, one more, three dimensions, no elements",
            strong,
            shapes=[(1,), (256,), (257,), (3, 5, 7), (0,)],
            steps=3,
        )
        yield few(
            "nonfinite_f32",
            "NaN and infinities: a NaN is left out of the scale and becomes code 0",
            strong,
            shapes=[(600,)],
            steps=4,
            edit=nonfinite,
        )
        rates = [strong["lr"] * r for r in (0.0, 1.0, 0.125, 2.0)]
        yield few("lr_schedule_f32", "a rate that changes at every step", strong, shapes=[(64,)], lr=rates, steps=4)
        yield few(
            "nograd_f32",
            "steps without a gradient",
            strong,
            shapes=[(64,), (3,)],
            steps=6,
            has_grad=lambda i, t: t != 3 and (i == 1 or t != 2),
        )
        yield few("decay0_f32", "no decay", {**strong, "weight_decay": 0.0}, shapes=[(64,)], steps=5)
        yield few(
            "groups_f32",
            "groups of their own rates",
            strong,
            shapes=[(64,), (40,)],
            groups=[{"params": [0]}, {"params": [1], "lr": 0.001, "weight_decay": 0.0}],
            steps=4,
        )
        if name == "ademamix_8bit":
            yield few("schedulers_f32", "alpha and beta3 grow", {**strong, "t_alpha": 3, "t_beta3": 5}, shapes=[(64,)], steps=8)
        if name in ("bnb_lamb_8bit", "bnb_lars_8bit"):
            yield few("max_unorm_f32", "max_unorm does nothing to 8-bit state", {**strong, "max_unorm": 0.01}, shapes=[(64,)], steps=4)


MIX = {"lr": 0.02, "betas": (0.8, 0.95, 0.97), "alpha": 3.0, "eps": 1e-3, "weight_decay": 0.4}
