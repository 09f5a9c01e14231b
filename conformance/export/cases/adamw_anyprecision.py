import math

import torch
from llama_cookbook.policies.anyprecision_optimizer import AnyPrecisionAdamW

from battery import battery, maker

ENV = "main"
NAME = "adamw_anyprecision"
TYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def types(momentum, variance, compensation=None):
    out = {"momentum_dtype": TYPES[momentum], "variance_dtype": TYPES[variance]}
    if compensation:
        out |= {"use_kahan_summation": True, "compensation_buffer_dtype": TYPES[compensation]}
    return out


def cases(seed):
    case = maker(NAME, AnyPrecisionAdamW, seed)
    strong = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-2, "weight_decay": 0.2}
    late = {"step": 999_990, "exp_avg": "signed", "exp_avg_sq": "positive"}
    yield from battery(case, strong, late=late, late_hyper={"betas": (0.9, 0.999999)})

    for d in ("f32", "bf16", "f16", "f64"):
        yield case(
            f"kahan_{d}",
            "Kahan summation with steps far below the parameter's spacing: what is lost comes back",
            {"lr": 1e-3, "weight_decay": 0.1, "use_kahan_summation": True},
            dtype=d,
            steps=40 if d == "bf16" else 16,
        )
    mixed = [
        ("f32", "f32", "f32", "f32"),
        ("f32", "f32", "bf16", "bf16"),
        ("f32", "bf16", "f32", "f32"),
        ("f32", "f16", "bf16", "f16"),
        ("bf16", "f32", "f32", "f32"),
        ("bf16", "f32", "bf16", "bf16"),
        ("bf16", "bf16", "f32", "f32"),
        ("bf16", "f16", "bf16", "f32"),
        ("f16", "f32", "f32", "f16"),
        ("f16", "bf16", "f16", "bf16"),
        ("f64", "f64", "f64", "f64"),
        ("f64", "bf16", "f32", "f32"),
        ("f32", "f64", "f32", "bf16"),
        ("bf16", "f32", "f64", "f64"),
    ]
    for p, m, v, c in mixed:
        yield case(
            f"types_{m}_{v}_{c}_{p}",
            f"{p} parameters, momentum in {m}, variance in {v}, compensation in {c}: each operation is rounded to "
            "the type of what it is stored in, and runs in the wider one of its operands",
            {**strong, **types(m, v, c)},
            dtype=p,
            steps=12,
        )
    for p, m, v in (("f32", "f32", "f32"), ("bf16", "f32", "bf16"), ("f16", "f32", "f32")):
        yield case(
            f"types_{m}_{v}_{p}",
            f"{p} parameters, momentum in {m}, variance in {v}, no compensation",
            {**strong, **types(m, v)},
            dtype=p,
            steps=12,
        )
    yield case(
        "shapes_bf16",
        "without dimensions the denominator is f32: the correction is a tensor without dimensions too",
        {**strong, **types("bf16", "bf16", "bf16")},
        shapes=[(), (0,), (1,), (2, 3, 5), ()],
        dtype="bf16",
        steps=10,
    )
    yield case("beta1_0_f32", "beta1 = 0", {"betas": (0.0, 0.99), "lr": 0.1}, steps=8)
    yield case("beta2_0_f32", "beta2 = 0", {"betas": (0.9, 0.0), "lr": 0.1}, steps=8)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {"eps": 0.0, "lr": 0.1}, steps=8)
    yield case("lr_inf_f32", "an infinite rate without decay: nothing is multiplied by it but the update", {"weight_decay": 0.0}, lr=[0.01, math.inf, 0.01], steps=3)
    yield case("eps_large_bf16", "eps = 1 beside the corrected root", {"eps": 1.0, "lr": 0.5}, dtype="bf16", steps=8)
    yield case(
        "decay_kahan_bf16",
        "decay is rounded on its own and not compensated",
        {"lr": 0.01, "weight_decay": 0.5, "use_kahan_summation": True},
        dtype="bf16",
        steps=16,
    )
    yield case(
        "groups_f32",
        "groups with arguments and types of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[
            {"params": [0]},
            {"params": [1, 2], "lr": 0.01, "betas": (0.5, 0.7), "eps": 0.1, "weight_decay": 0.0, **types("f32", "bf16", "f32")},
        ],
        steps=10,
    )
