from torch.optim import SGD

from battery import battery, cancelled, maker

ENV = "main"


def cases(seed):
    case = maker("sgd", SGD, seed)
    strong = {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.2}
    yield from battery(case, strong, late={"momentum_buffer": "signed"})
    yield from cancelled(case)
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"nesterov_{d}",
            "Nesterov's step looks ahead along the new buffer; the first buffer is the raw gradient",
            {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
            dtype=d,
            steps=12,
        )
    for d in ("f32", "bf16"):
        yield case(
            f"decay_{d}",
            "coupled decay without momentum: no buffer at all",
            {"lr": 0.1, "weight_decay": 0.5},
            dtype=d,
            steps=12,
        )
        yield case(
            f"dampening_{d}",
            "dampening doesn't touch the first gradient",
            {"lr": 0.1, "momentum": 0.5, "dampening": 0.9},
            dtype=d,
            steps=12,
        )
        yield case(
            f"maximize_{d}",
            "the gradient is negated before the decay is added",
            {"lr": 0.1, "momentum": 0.7, "weight_decay": 0.4, "maximize": True},
            dtype=d,
            steps=12,
        )
        yield case(f"fused_{d}", "the fused kernel: rounded once", {**strong, "fused": True}, dtype=d, steps=12)
        yield case(
            f"fused_nesterov_{d}",
            "the fused kernel's Nesterov, with maximize",
            {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1, "maximize": True, "fused": True},
            dtype=d,
            steps=12,
        )
    yield case("momentum_over_1_f32", "momentum above 1 is legal", {"lr": 0.01, "momentum": 1.25}, steps=8)
    yield case("dampening_negative_f32", "so is a negative dampening", {"momentum": 0.5, "dampening": -0.5}, steps=8)
    yield case("foreach_f32", "the multi-tensor path", {**strong, "foreach": True}, steps=8)
    yield case(
        "groups_f32",
        "one group with a buffer, one without, one with Nesterov",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[
            {"params": [0]},
            {"params": [1], "momentum": 0.0, "weight_decay": 0.0, "lr": 0.5},
            {"params": [2], "nesterov": True, "dampening": 0.0, "maximize": True},
        ],
        steps=10,
    )
