from torch.optim import Adadelta

from battery import battery, cancelled, maker

ENV = "main"


def cases(seed):
    case = maker("adadelta", Adadelta, seed)
    strong = {"lr": 0.7, "rho": 0.6, "eps": 1e-2, "weight_decay": 0.3}
    late = {"step": 999_990, "square_avg": "positive", "acc_delta": "positive"}
    yield from battery(case, strong, late=late)
    yield from cancelled(case)
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"decay_{d}",
            "coupled decay: it enters the average of squares",
            {"lr": 1.0, "weight_decay": 0.5, "eps": 1e-3},
            dtype=d,
            steps=12,
        )
    for d in ("f32", "bf16"):
        yield case(
            f"maximize_{d}",
            "the gradient is negated before the decay is added",
            {"weight_decay": 0.5, "maximize": True, "eps": 1e-3},
            dtype=d,
            steps=12,
        )
        yield case(
            f"eps_large_{d}",
            "eps = 1 stands inside both roots",
            {"eps": 1.0, "rho": 0.5},
            dtype=d,
            steps=12,
        )
    yield case("rho0_f32", "rho = 0: no memory", {"rho": 0.0, "eps": 1e-3}, steps=8)
    yield case("rho1_f32", "rho = 1 is legal: the averages stay 0", {"rho": 1.0, "eps": 1e-3}, steps=8)
    yield case("eps0_f32", "eps = 0: nothing ever moves, zero gradients give 0/0", {"eps": 0.0}, steps=6)
    yield case("lr_small_f32", "lr doesn't enter the accumulated step", {"lr": 0.01, "eps": 1e-3}, steps=12)
    yield case("foreach_f32", "the multi-tensor path", {**strong, "foreach": True}, steps=8)
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1, 2], "lr": 0.1, "rho": 0.95, "eps": 0.1, "weight_decay": 0.0}],
        steps=10,
    )
