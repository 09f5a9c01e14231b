"""LOMO and AdaLomo: optimizers of a model, whose update is fused into the backward pass."""

from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
from lomo_optim import AdaLomo, Lomo

from battery import battery, maker, singles
from golden import defaults

ENV = "main"
NAMES = ("lomo", "adalomo")
SINGLE = ("single_f32", "single_f64", "single_bf16")


class Model(torch.nn.Module):
    def __init__(self, params):
        super().__init__()
        self.ps = torch.nn.ParameterList(params)


class Given(torch.autograd.Function):
    """A loss whose gradient is the given one, whatever it is scaled by: goldens hold the scaled gradient."""

    @staticmethod
    def forward(ctx, p, grad):
        ctx.grad = grad
        return p.new_zeros(())

    @staticmethod
    def backward(ctx, _):
        return ctx.grad, None


def on_params(cls):
    class OnParams(cls):
        def __init__(self, params, **hyper):
            # AdaLomo puts its state on a GPU, unasked.
            with mock.patch.object(torch.Tensor, "cuda", lambda self: self):
                super().__init__(Model(params), **hyper)

    OnParams.__module__ = cls.__module__  # so that its package's version is noted
    return OnParams


def backward(opt, params, t):
    """One step of the training loop: the norm pass if gradients are clipped by norm, then the fused pass."""
    grads = [p.grad for p in params]
    for p in params:
        p.grad = None
    losses = [Given.apply(p, g) for p, g in zip(params, grads) if g is not None]
    if not losses:
        if isinstance(opt, AdaLomo):
            opt.step_num += 1  # the backward pass of a loss that touches no parameter
        return
    loss = sum(losses[1:], losses[0])
    if opt.clip_grad_norm is not None:
        opt.grad_norm(loss)
        scaler = getattr(opt, "loss_scaler", None)
        if scaler and scaler.has_overflow_serial:
            return
    opt.fused_backward(loss, opt.param_groups[0]["lr"])


def scale_row(opt, params, t, rows):
    if params[0].dtype == torch.float16:
        scaler = opt.loss_scaler
        scale = scaler.loss_scale if scaler else opt.loss_scale_args.get("init_scale", 2**32)
        rows.add("given.loss_scale", float(scale))


def adalomo_state(opt, i, _):
    name = f"ps.{i}"
    slots = {slot: getattr(opt, slot).get(name) for slot in ("exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col")}
    return slots | {"step_num": opt.step_num}


def case_maker(name, cls, seed, **run):
    make = maker(name, on_params(cls), seed, reference=f"lomo_optim.{cls.__name__}", step=backward, **run)

    def case(title, note, arguments=None, **more):
        made = make(title, note, arguments, packages=["lomo_optim"], **more)
        made.hyper = defaults(cls, arguments or {}, skip=("self", "model"))
        return made

    return case


def cases(seed):
    yield from lomo(seed)
    yield from adalomo(seed)


@contextmanager
def process_group():
    """LOMO asks for its rank when it reports an overflow."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def alone(case, arguments, shape=()):
    """The norm over all gradients is that of a single number."""
    for d in ("f32", "f64", "bf16"):
        yield case(
            f"alone_{d}",
            "one parameter of one number: the norm over all is its size, whose square would overflow or vanish",
            arguments,
            shapes=[shape],
            edit=one_by_one,
            dtype=d,
            steps=6,
        )


def one_by_one(inputs):
    inputs.grads[0][:] = np.reshape([-2.29e30, 1e-30, 0.0, 3e38, 1e-25, 0.5], (6, *[1] * (inputs.grads[0].ndim - 1)))


def lomo(seed):
    case = case_maker("lomo", Lomo, seed, before=scale_row)
    strong = {"lr": 0.3, "clip_grad_norm": 2.0, "clip_grad_value": 0.7, "weight_decay": 0.4}
    f16 = {"loss_scale_args": {"init_scale": 64.0}}
    # Half precision needs a norm to clip by.
    yield from battery(case, strong, f16=f16, coupled=True, skip=("default_f16", *SINGLE))
    yield from alone(case, {**strong, "clip_grad_value": None})
    yield case(
        "default_f16",
        "half precision brings the default loss scale of 2^32: scaled gradients are unscaled in f32",
        {"clip_grad_norm": 1e-6, "lr": 0.5},
        grads=(6, 10),
        dtype="f16",
        steps=8,
    )
    for d in ("f32", "f64", "bf16"):
        yield case(
            f"clip_norm_{d}",
            "the coefficient over all tensors, at most 1: steps above and below the limit",
            {"lr": 0.5, "clip_grad_norm": 5.0},
            shapes=[(5, 3), (), (7,)],
            edit=louder,
            dtype=d,
            steps=10,
        )
        yield case(
            f"clip_value_{d}",
            "values are cut, decay is by lr",
            {"lr": 0.5, "clip_grad_value": 0.3, "weight_decay": 0.5},
            dtype=d,
            steps=8,
        )
        yield case(f"plain_{d}", "no clipping, no decay, no loss scale", {"lr": 0.4}, dtype=d, steps=6)
    yield case(
        "clip_both_f32",
        "the norm is that of gradients whose values are not cut yet",
        {"lr": 0.5, "clip_grad_norm": 1.0, "clip_grad_value": 0.05},
        edit=louder,
        steps=8,
    )
    yield case(
        "clip_value_0_f32", "a limit of 0 is none", {"lr": 0.5, "clip_grad_value": 0.0, "weight_decay": 0.1}, steps=6
    )
    with process_group():
        overflowing = case(
            "overflow_f16",
            "an infinite and a NaN scaled gradient: the whole step is skipped, the scale halves",
            {"lr": 0.5, "clip_grad_norm": 4.0, "weight_decay": 0.1, "loss_scale_args": {"init_scale": 2.0**10}},
            grads=(2, 9),
            edit=overflow,
            dtype="f16",
            steps=8,
        )
    yield overflowing
    yield case(
        "scale_odd_f16",
        "a loss scale that is no power of two: a division, not a product with the reciprocal",
        {"lr": 0.5, "clip_grad_norm": 4.0, "loss_scale_args": {"init_scale": 1000.0}},
        grads=(2, 9),
        dtype="f16",
        steps=8,
    )
    yield case(
        "nonfinite_plain_f32",
        "no clipping by norm: what is not finite stays where it is",
        {"lr": 0.5, "clip_grad_value": 1.0, "weight_decay": 0.1},
        shapes=[(9,)],
        edit=overflow,
        steps=6,
    )


def adalomo(seed):
    case = case_maker("adalomo", AdaLomo, seed, state=adalomo_state)
    strong = {
        "lr": 0.2,
        "loss_scale": 8.0,
        "eps": (1e-6, 0.4),
        "clip_threshold": 0.7,
        "decay_rate": -0.5,
        "clip_grad_norm": 2.0,
        "clip_grad_value": 0.7,
        "weight_decay": 0.4,
    }
    # Only one and two dimensions are possible.
    yield from battery(case, strong, coupled=True, skip=("shapes_f32", "large_f32", "large_bf16", *SINGLE))
    for d in ("f32", "bf16"):
        yield case(
            f"single_{d}",
            f"parameters of one number in {d}: its norm is its size, whose square would overflow or vanish",
            {**strong, "clip_grad_norm": None},
            shapes=[(1,), (1, 1)] * 8,
            edit=singles(d),
            dtype=d,
            steps=5,
        )
    yield from alone(case, {**strong, "clip_grad_value": None}, shape=(1,))
    for d in ("f32", "bf16"):
        yield case(
            f"shapes_{d}",
            "one and two dimensions: tall, wide, one row, one column, one element, none",
            {**strong, "clip_grad_norm": None},
            shapes=[(1,), (17,), (0,), (2, 9), (9, 2), (1, 6), (6, 1), (1, 1), (0, 3), (3, 0)],
            dtype=d,
            steps=6,
        )
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"clip_norm_{d}",
            "the coefficient over all tensors scales the squares too",
            {"lr": 0.5, "clip_grad_norm": 0.01, "loss_scale": 16.0},
            edit=louder,
            dtype=d,
            steps=8,
        )
    for title, scale in (("none", None), ("0", 0.0), ("odd", 1000.0)):
        yield case(
            f"scale_{title}_f32",
            "no loss scale, or one that is no power of two",
            {"lr": 0.3, "loss_scale": scale, "eps": (1e-3, 1e-3)},
            steps=6,
        )
    yield case("large_row_f32", "rows over 1024 long", {**strong, "clip_grad_norm": None}, shapes=[(2, 1031)], steps=1)
    yield case("large_col_f32", "columns over 1024 long", strong, shapes=[(1031, 2)], steps=1)
    yield case(
        "small_parameter_f32",
        "parameters whose RMS is below eps[1], one of them all zeros",
        {"lr": 0.5, "eps": (1e-30, 0.01), "weight_decay": 0.5},
        inits=(-14, -12),
        edit=first_zero,
        shapes=[(4,), (3, 5)],
        steps=8,
    )
    yield case(
        "decay_f32",
        "the decay is by the scaled rate",
        {"lr": 0.5, "weight_decay": 1.5, "loss_scale": 1.0},
        inits=(0, 3),
        steps=8,
    )
    yield case("clip_threshold_f32", "a threshold that never cuts", {"lr": 0.3, "clip_threshold": 1e9}, steps=8)
    yield case("decay_rate_0_f32", "decay_rate = 0: beta2 = 0 throughout", {"lr": 0.3, "decay_rate": 0.0}, steps=6)
    yield case(
        "nonfinite_plain_f32",
        "no clipping by norm: what is not finite spreads over its own tensor only",
        {**strong, "clip_grad_norm": None},
        shapes=[(3, 3), (9,), (2,)],
        edit=overflow_second,
        steps=6,
    )


def louder(inputs):
    for g in inputs.grads:
        g[::2] *= 16.0


def overflow(inputs):
    g = inputs.grads[0]
    g[2].flat[1] = float("inf")
    g[5].flat[0] = float("nan")


def overflow_second(inputs):
    inputs.grads[0][3, 1, 1] = float("nan")
    inputs.grads[1][2, 4] = float("-inf")


def first_zero(inputs):
    inputs.inits[0][:] = 0.0
