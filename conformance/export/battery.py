"""The situations that every torch-like optimizer meets, each with what it is there to catch.

A cases file adds the options that are its optimizer's own.
"""

import numpy as np
import torch

from golden import run_torch_optimizer

# An lr that moves: from 0 up, down again, and by a factor of 1000 between two steps.
RATES = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 2.0, 0.125, 0.001, 1.0, 0.0, 1.0, 0.3]

EXTREMES = {
    # smallest subnormal, a subnormal, smallest normal, squares to 0, squares to infinity, large, largest
    "f64": [5e-324, 1e-310, 2.3e-308, 1e-170, 1e160, 1e300, 1.7e308],
    "f32": [1e-45, 1e-40, 1.2e-38, 1e-25, 1e25, 1e30, 3e38],
    "bf16": [1e-40, 2e-39, 1.2e-38, 1e-25, 1e25, 1e30, 3e38],
    "f16": [6e-8, 1e-6, 6.2e-5, 1e-4, 300.0, 3e4, 65504.0],
}


def extremes(dtype):
    small = EXTREMES[dtype]

    def edit(inputs):
        x, g = inputs.inits[0], inputs.grads[0]
        for j, value in enumerate(small):
            g[:, j] = value  # throughout
            g[:, j + 7] = 0.0
            g[1, j + 7] = -value  # once, then zeros
        g[:, 14] = 0.0  # never anything
        g[:, 15] = -0.0
        x[14], x[15], x[16] = 0.0, -0.0, 0.0
        x[17], x[18], x[19] = small[0], -small[1], small[-2]

    return edit


def extremes_apart(dtype):
    """Those edge values, each in a parameter of its own: for rules that couple the elements of a tensor."""

    def edit(inputs):
        for j, value in enumerate(EXTREMES[dtype]):
            inputs.grads[j][:] = value
            inputs.grads[j][2:, 1] = 0.0
        inputs.grads[7][:] = 0.0
        inputs.inits[8][:] = 0.0
        for j, value in enumerate(EXTREMES[dtype]):
            inputs.inits[9 + j][:] = value

    return edit


def singles(dtype):
    """Those edge values in tensors of one element, whose norm is its magnitude: as gradients, then as parameters."""

    def edit(inputs):
        for j, value in enumerate(EXTREMES[dtype]):
            inputs.grads[j][:3] = -value
            inputs.grads[j][3:] = value / 4
            inputs.inits[8 + j] = np.full(np.shape(inputs.inits[8 + j]), value)
        inputs.grads[7][:] = 0.0

    return edit


def nonfinite(inputs):
    x, g = inputs.inits[0], inputs.grads[0]
    g[0, 0] = np.nan
    g[2, 1] = np.nan
    g[2, 2] = np.inf
    g[2, 3] = -np.inf
    g[2, 4], g[3, 4] = np.inf, -np.inf
    x[5], x[6], x[7] = np.nan, np.inf, -np.inf


# bitsandbytes takes f32, bf16 and f16 only (its own check says so; a CPU merely doesn't enforce it).
NO_F64 = ("default_f64", "strong_f64", "late_f64", "single_f64")


def shrink(inputs):
    """Gradients that grow small after a third of the steps: what remembers a maximum shows."""
    for g in inputs.grads:
        g[len(g) // 3 :] *= 1 / 16


def cancelled(case, decay="weight_decay", **more):
    """Coupled decay that gradients in 16 bits cancel. PyTorch rounds the product of decay and parameter before it adds in
    what fills no vector, where 0 is left, and not in vectors, where the product's rounding error is."""
    for d, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):

        def edit(inputs, dtype=dtype):
            for j, x in enumerate(inputs.inits):
                x = torch.from_numpy(x).to(dtype)
                inputs.inits[j] = x.double().numpy()
                inputs.grads[j][:] = -(0.3 * x.float()).to(dtype).double().numpy()

        yield case(
            f"cancelled_{d}",
            "decay that the gradient cancels, but for a rounding error",
            {decay: 0.3, **more},
            dtype=d,
            shapes=[(1,), (37,)],
            steps=3,
            edit=edit,
        )


def maker(name, cls, seed, hyper=None, prefix="", **run):
    """A function that makes one case of `cls`, with arguments that hold for all."""

    def case(title, note, arguments=None, **more):
        given = {**(hyper or {}), **(arguments or {})}
        return run_torch_optimizer(prefix + title, name, cls, given, seed=seed, note=note, **{**run, **more})

    return case


def battery(case, strong, *, f16=None, late=None, late_hyper=None, coupled=False, skip=()):
    """`case`: what `maker` returned.
    `strong`: arguments under which neighbouring rules part at once (large lr and weight decay).
    `f16`: what half precision needs besides (an epsilon that it can hold).
    `coupled`: the elements of a tensor act on each other (a norm, a mean).
    `late`: the preset state of the late steps; `late_hyper`: arguments under which they still show."""

    def wanted():
        for d, t in (("f32", 40), ("f64", 12), ("bf16", 24), ("f16", 16)):
            yield (
                f"default_{d}",
                f"every default in {d}: a default that was copied wrongly, a scalar rounded to {d} too early",
                dict(dtype=d, steps=t),
            )
        strong16 = {**strong, **(f16 or {})}
        for d, t, h in (("f32", 24, strong), ("f64", 12, strong), ("bf16", 24, strong), ("f16", 16, strong16)):
            yield (
                f"strong_{d}",
                f"{', '.join(h)} far from the defaults in {d}: the neighbouring rules (coupled or decoupled decay, "
                "decay before or after, epsilon inside or outside, bias correction off by one, swapped betas)",
                dict(arguments=h, dtype=d, steps=t),
            )
        yield (
            "shapes_f32",
            "0 dimensions, 0 elements, 1 element, odd sizes and three dimensions in one optimizer",
            dict(arguments=strong, shapes=[(), (0,), (1,), (3, 0, 2), (2, 3, 5), (17,)], steps=6),
        )
        yield (
            "large_f32",
            "more than one block of 1024 and a remainder: vector tails and splits",
            dict(arguments=strong, shapes=[(1031,)], steps=2),
        )
        yield (
            "large_bf16",
            "more than one block of 1024 and a remainder, in a type that converts inside the loop",
            dict(arguments=strong, shapes=[(3, 349)], steps=2, dtype="bf16"),
        )
        for d in ("f32", "bf16"):
            yield (
                f"extremes_{d}",
                "subnormals, squares that underflow and overflow, 1e30 and the largest number, once and throughout; "
                "gradients that are always 0; parameters of 0, -0, subnormal and huge",
                dict(arguments=strong, dtype=d)
                | (
                    dict(shapes=[(2,)] * 16, steps=5, edit=extremes_apart(d))
                    if coupled
                    else dict(shapes=[(20,)], steps=8, edit=extremes(d))
                ),
            )
        for d in ("f32", "f64", "bf16") if coupled else ():
            yield (
                f"single_{d}",
                f"parameters of one number in {d}: its norm is its size, whose square would overflow or vanish",
                dict(arguments=strong, dtype=d, shapes=[(), (1,), (1, 1)] * 5, steps=5, edit=singles(d)),
            )
        for d in ("f32", "bf16"):
            yield (
                f"nonfinite_{d}",
                "NaN and infinities in single gradients at the first and a later step, infinity then minus infinity, "
                "and in parameters: nothing may spread to other elements except where the rule couples them",
                dict(arguments=strong, shapes=[(9,), (2,)], steps=6, edit=nonfinite, dtype=d),
            )
        yield (
            "lr0_f32",
            "lr 0 throughout: state moves, the parameter moves only where the rule doesn't multiply by lr",
            dict(arguments={**strong, "lr": 0.0}, steps=6),
        )
        base = strong.get("lr", 0.1)
        yield (
            "lr_schedule_f32",
            "a rate that changes at every step, 0 included: an lr captured once, or baked into the state",
            dict(arguments=strong, lr=[base * r for r in RATES], steps=len(RATES)),
        )
        yield (
            "nograd_f32",
            "steps without a gradient, for one parameter and for all: no decay, no state change, no count",
            dict(arguments=strong, steps=12, has_grad=lambda i, t: t != 5 and (i == 1 or t not in (3, 4, 9))),
        )
        yield (
            "joins_f32",
            "a parameter whose first gradient comes at step 4, and one that never has any: counters of their own",
            dict(
                arguments=strong,
                shapes=[(5,), (3,), (2,)],
                steps=10,
                has_grad=lambda i, t: i == 0 or (i == 1 and t >= 4),
            ),
        )
        if late:
            for d in ("f32", "f64"):
                yield (
                    f"late_{d}",
                    "steps near a million from a preset state (state0): powers of beta that vanish or lose digits",
                    dict(arguments={**strong, **(late_hyper or {})}, dtype=d, steps=8, late=late),
                )

    for title, note, kwargs in wanted():
        if title not in skip:
            yield case(title, note, **kwargs)
