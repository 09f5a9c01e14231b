from torch.optim import RMSprop

from battery import battery, cancelled, maker

ENV = "main"


def cases(seed):
    case = maker("rmsprop", RMSprop, seed)
    strong = {"lr": 0.02, "alpha": 0.8, "eps": 0.01, "weight_decay": 0.2, "momentum": 0.6}
    late = {"step": 999_990, "square_avg": "positive", "momentum_buffer": "signed"}
    yield from battery(case, strong, late=late)
    yield from cancelled(case)
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"centered_{d}",
            "the variance about the mean: a first squared average minus a squared average, under the root",
            {"lr": 0.02, "centered": True, "eps": 0.01},
            dtype=d,
            steps=12,
        )
    for d in ("f32", "bf16"):
        yield case(
            f"centered_momentum_{d}",
            "all states at once, with decay",
            {"lr": 0.02, "centered": True, "eps": 0.01, "momentum": 0.9, "weight_decay": 0.1, "alpha": 0.7},
            dtype=d,
            steps=12,
        )
        yield case(
            f"momentum_{d}",
            "momentum of the normalised gradient, without lr in it",
            {"lr": 0.02, "momentum": 0.9, "eps": 1e-3},
            dtype=d,
            steps=12,
        )
        yield case(
            f"maximize_{d}",
            "the gradient is negated before the decay is added",
            {"lr": 0.02, "weight_decay": 0.5, "maximize": True, "eps": 1e-3},
            dtype=d,
            steps=12,
        )
    yield case("alpha0_f32", "alpha = 0: the update is a sign", {"alpha": 0.0}, steps=8)
    yield case("alpha1_f32", "alpha = 1 is legal: the average never leaves 0", {"alpha": 1.0, "eps": 0.1}, steps=8)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {"eps": 0.0}, steps=8)
    yield case("eps_large_f32", "eps = 1: outside the root", {"eps": 1.0, "lr": 0.5}, steps=8)
    yield case(
        "centered_constant_f32",
        "a constant gradient: the variance cancels towards 0 and may turn negative, whose root is NaN",
        {"lr": 0.01, "centered": True, "alpha": 0.5, "eps": 0.1},
        shapes=[(6,)],
        edit=constant,
        steps=12,
    )
    yield case("foreach_f32", "the multi-tensor path", {**strong, "foreach": True}, steps=8)
    yield case(
        "groups_f32",
        "three groups with other states",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1], "centered": True, "alpha": 0.5}, {"params": [2], "momentum": 0.0}],
        steps=10,
    )


def constant(inputs):
    inputs.grads[0][:] = [1.0, -0.3, 1e-3, 7.0, 0.1, 0.0]
