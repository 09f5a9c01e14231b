"""torchao's Adam and AdamW with 8-bit, 4-bit and fp8 state, without its compiler: the operations as written."""

import contextlib
from unittest import mock

import numpy as np
import torch
import torchao.optim as ao
from torchao.optim.subclass_4bit import OptimState4bit
from torchao.optim.subclass_8bit import OptimState8bit
from torchao.optim.subclass_fp8 import OptimStateFp8

from battery import EXTREMES, maker

ENV = "main"
NAMES = (
    "adamw_torch_8bit",
    "adamw_torch_4bit",
    "torchao_adam8bit",
    "torchao_adam4bit",
    "torchao_adam_fp8",
    "torchao_adamw_fp8",
)
STRONG = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}


def state(opt, i, param):
    """Codes and scales of what is quantised, under `slot.codes` and `slot.scale`."""
    out = {}
    for key, value in opt.state.get(param, {}).items():
        if isinstance(value, (OptimState8bit, OptimState4bit, OptimStateFp8)):
            out[f"{key}.codes"], out[f"{key}.scale"] = value.codes, value.scale
        else:
            out[key] = value
    return out


def qmaps(opt, params):
    """The maps from codes to numbers."""
    return {
        f"p{i}.given.{key}_qmap": value.qmap
        for i, p in enumerate(params)
        for key, value in opt.state.get(p, {}).items()
        if hasattr(value, "qmap")
    }


def blocks(inputs):
    """Blocks of their own kind: all zeros, one large number, tiny ones, huge ones, equal ones."""
    g = inputs.grads[0]
    g[:, :256] = 0.0
    g[:, 300] = 64.0
    g[:, 512:768] *= 2.0**-60
    g[:, 768:1024] *= 2.0**40
    g[:, 1024:1280] = 0.125


def nonfinite(inputs):
    x, g = inputs.inits[0], inputs.grads[0]
    g[0, 3], g[1, 300], g[1, 700] = np.nan, np.inf, -np.inf
    x[1025], x[1026] = np.nan, np.inf


def extremes(inputs):
    for j, value in enumerate(EXTREMES["f32"]):
        inputs.grads[0][:, j] = value
        inputs.inits[0][j + 7] = value


def set_lr(rates):
    """torchao keeps the rate in a tensor."""

    def before(opt, params, t, rows):
        for group in opt.param_groups:
            group["lr"] = torch.tensor(rates[t], dtype=torch.float32)

    return before


class Recorder:
    """Hands out what torch draws, and notes it for the rows of the step."""

    def __init__(self):
        self.drawn, self.randint = [], torch.randint

    def __call__(self, *args, **kwargs):
        self.drawn.append(self.randint(*args, **kwargs))
        return self.drawn[-1]

    def after(self, opt, params, t, rows):
        for i, bits in enumerate(self.drawn):
            rows.add(f"p{i}.given.rand16", bits)
        self.drawn.clear()


@contextlib.contextmanager
def uncompiled():
    # Compiling would fuse the operations; they are the same ones.
    with mock.patch.object(torch, "compile", lambda f, **_: f):
        yield


def cases(seed):
    with uncompiled():
        for name, cls in (
            ("adamw_torch_8bit", ao.AdamW8bit),
            ("adamw_torch_4bit", ao.AdamW4bit),
            ("torchao_adam8bit", ao.Adam8bit),
            ("torchao_adam4bit", ao.Adam4bit),
            ("torchao_adam_fp8", ao.AdamFp8),
            ("torchao_adamw_fp8", ao.AdamWFp8),
        ):
            yield from one(name, cls, seed)


def one(name, cls, seed):
    finish = {} if "fp8" in name else {"finish": qmaps}
    case = maker(name, cls, seed, state=state, packages=("torchao",), **finish)
    yield case("strong_f32", blocks.__doc__, STRONG, shapes=[(4096,)], steps=2, edit=blocks)
    yield case("default_bf16", "every default", shapes=[(4096,)], dtype="bf16", steps=3)
    yield case(
        "nonfinite_bf16",
        "a NaN or infinity makes its block of moments NaN, and with it the block's weights",
        STRONG,
        shapes=[(4096,)],
        dtype="bf16",
        steps=2,
        edit=nonfinite,
    )
    yield case("block_size_bf16", "blocks of 64", {**STRONG, "block_size": 64}, shapes=[(65, 64)], dtype="bf16", steps=2)
    yield case(
        "stays_plain_f32",
        "below 4096 elements, or not a multiple of a block: state of the parameter's type",
        STRONG,
        shapes=[(4100,), (64,), (0,), ()],
        steps=1,
    )
    for d in ("f32", "bf16", "f16"):
        yield case(f"plain_{d}", "small tensors are not quantised", STRONG, shapes=[(33,)], dtype=d, steps=12)
    yield case("plain_default_f32", "every default on small tensors", shapes=[(33,)], steps=16)
    yield case("amsgrad_f32", "amsgrad, which works on small tensors only", {**STRONG, "amsgrad": True}, shapes=[(33,)], steps=8)
    yield case("extremes_f32", "subnormals, overflow", STRONG, shapes=[(20,)], steps=4, edit=extremes)
    yield case("decay0_f32", "no decay", {**STRONG, "weight_decay": 0.0}, shapes=[(33,)], steps=6)
    rates = [0.0, 0.05, 0.1, 0.001]
    yield case("lr_schedule_f32", "a rate that changes", STRONG, shapes=[(33,)], lr=rates, before=set_lr(rates), steps=4)
    yield case(
        "nograd_f32",
        "steps without a gradient",
        STRONG,
        shapes=[(33,), (3,)],
        steps=6,
        has_grad=lambda i, t: t != 3 and (i == 1 or t != 2),
    )
    torch.manual_seed(seed)
    recorder = Recorder()
    with mock.patch.object(torch, "randint", recorder):
        yield case(
            "stochastic_bf16",
            "bf16 weights rounded at random, with the bits that were drawn",
            {**STRONG, "bf16_stochastic_round": True},
            shapes=[(65,), (7,)],
            dtype="bf16",
            steps=8,
            after=recorder.after,
        )
    yield case(
        "stochastic_f16",
        "f16 weights are rounded to nearest whatever the argument says",
        {**STRONG, "bf16_stochastic_round": True},
        shapes=[(65,), (7,)],
        dtype="f16",
        steps=8,
    )
