from apollo_torch import APOLLOAdamW

import numpy as np

from battery import singles
from lowrank import projected, situations, zeros_at

ENV = "main"
STRONG = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-2, "weight_decay": 0.3}


def cases(seed):
    case = projected(
        "apollo_adamw",
        APOLLOAdamW,
        "apollo_torch.APOLLOAdamW",
        seed,
        projection={"proj": "random", "scale_type": "channel", "scale": 1.0},
    )
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(f"std_{d}", f"random projections in {d}, a scale for each channel, seeds by position", dtype=d)
        yield case(
            f"mini_{d}",
            f"APOLLO-Mini in {d}: rank 1, one scale for the tensor, times the root of 128",
            STRONG,
            group={"rank": 1, "scale_type": "tensor", "scale": 128.0},
            dtype=d,
        )
        yield case(f"svd_{d}", f"singular vectors in {d}", STRONG, group={"proj": "svd"}, dtype=d)
    for kind in ("reverse_std", "right", "left"):
        for d in ("f32", "bf16"):
            yield case(
                f"{kind}_{d}",
                f"{kind} with one scale for the tensor in {d}",
                STRONG,
                group={"proj_type": kind, "scale_type": "tensor"},
                dtype=d,
            )
    yield case(
        "svd_tensor_f32",
        "singular vectors of the other side",
        STRONG,
        group={"proj": "svd", "proj_type": "reverse_std", "scale_type": "tensor"},
    )
    yield case(
        "svd_full_f32",
        "singular vectors of both sides; the reference fails at the second step",
        {**STRONG, "eps": 0.1},
        group={"proj": "svd", "proj_type": "full", "scale_type": "tensor"},
        steps=1,
    )
    yield case(
        "right_channel_f32",
        "channels of tall and square matrices from the right",
        STRONG,
        shapes=[(6, 3), (4, 4)],
        group={"proj_type": "right"},
    )
    yield case(
        "left_channel_f32", "channels of wide matrices from the left", STRONG, shapes=[(3, 6)], group={"proj_type": "left"}
    )
    yield case(
        "broadcast_f32",
        "channels along the projected side, which fits for rank 1 or a rank of that side alone",
        STRONG,
        shapes=[(6, 3), (3, 6)],
        group={"proj_type": "reverse_std", "rank": 1},
    )
    for d in ("f32", "bf16"):
        yield case(
            f"scale_front_{d}",
            f"the scale before the limiter in {d}",
            {**STRONG, "scale_front": True},
            group={"scale": 3.0},
            dtype=d,
        )
        yield case(
            f"growth_{d}",
            f"gradients that double: the limiter on the norm's growth in {d}",
            STRONG,
            edit=growing,
            dtype=d,
        )
        yield case(
            f"disable_nl_{d}", f"the same without the limiter in {d}", {**STRONG, "disable_nl": True}, edit=growing, dtype=d
        )
        yield case(
            f"nonfinite_{d}",
            f"NaN and infinity in single gradients in {d}: they reach the norm, and with it every element",
            STRONG,
            edit=nonfinite,
            steps=8,
            dtype=d,
        )
    yield from situations(case, STRONG)
    yield case(
        "rank15_f32",
        "projectors of 15 numbers, drawn one by one, of 16 in one go, and of 17 with the last 16 drawn again",
        STRONG,
        shapes=[(6, 5), (8, 4), (17, 2), (2, 17), (5, 6), (7, 6)],
        group={"rank": 3},
        steps=5,
    )
    yield case("rank16_f32", "a block of 16 normal numbers and a part of one", STRONG, shapes=[(6, 4), (6, 5)], group={"rank": 4}, steps=5)
    for kind in ("channel", "tensor"):
        yield case(
            f"single_{kind}_f32",
            "matrices of one number, and channels: a norm is its size, whose square would overflow or vanish",
            {**STRONG, "eps": 1e-6},
            group={"rank": 1, "scale_type": kind},
            shapes=[(1, 1)] * 15 + [(1, 3), (3, 1)],
            edit=single,
            steps=5,
        )
    yield case("no_bias_f32", "correct_bias off", {**STRONG, "correct_bias": False})
    yield case(
        "trainer_f32",
        "what Trainer gives to the projected group alone",
        {"lr": 0.01},
        group={"betas": (0.9, 0.95), "eps": 1e-8, "rank": 128, "update_proj_gap": 200},
        shapes=[(2,), (3, 2)],
        steps=4,
    )
    yield case(
        "lr_negative_f32",
        "a schedule's rate below 0: uphill, and the scale stays positive",
        STRONG,
        lr=[0.05, -0.05, -0.01, 0.0, 0.05],
        steps=5,
    )
    yield case(
        "decay_beyond_f32",
        "decay of more than the whole parameter, which turns its sign and not the direction's",
        STRONG,
        lr=[0.05, 4.0, 5.0, 0.05],
        steps=4,
    )
    yield case(
        "zero_first_f32",
        "a first gradient of 0: a norm of 0 is remembered, and throttles what follows",
        STRONG,
        edit=zeros_at(0),
    )
    yield case(
        "late_f32",
        "steps near a million from a preset state (state0), a projector in force that came before",
        {**STRONG, "betas": (0.9, 0.999999)},
        late={"step": 999_990, "exp_avg": "signed", "exp_avg_sq": "positive", "scaled_grad": 0.5},
        shapes=[(6, 3), (3, 6)],
        steps=8,
    )


def single(inputs):
    singles("f32")(inputs)
    for g in inputs.grads[7:]:
        g *= 1e-24


def growing(inputs):
    for g in inputs.grads:
        g *= np.ldexp(1.0, np.arange(len(g))).reshape(-1, *[1] * (g.ndim - 1)) / 64


def nonfinite(inputs):
    for g, (t, value) in zip(inputs.grads, [(1, np.inf), (2, np.nan), (1, np.inf), (3, -np.inf)]):
        g[t].flat[1] = value
