from torch.optim import Adagrad

from battery import battery, cancelled, maker

ENV = "main"


def cases(seed):
    case = maker("adagrad", Adagrad, seed)
    strong = {"lr": 0.2, "lr_decay": 0.3, "weight_decay": 0.2, "initial_accumulator_value": 0.1, "eps": 0.01}
    yield from battery(case, strong, late={"step": 999_990, "sum": "positive"}, late_hyper={"lr_decay": 1e-5})
    yield from cancelled(case)
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"lr_decay_{d}",
            "the rate falls with the step before: the first step has the whole of it",
            {"lr": 0.2, "lr_decay": 0.5},
            dtype=d,
            steps=12,
        )
    for d in ("f32", "bf16"):
        yield case(
            f"decay_{d}",
            "coupled decay: it enters the sum of squares",
            {"lr": 0.1, "weight_decay": 0.7},
            dtype=d,
            steps=12,
        )
        yield case(
            f"maximize_{d}",
            "the gradient is negated before the decay is added",
            {"lr": 0.1, "weight_decay": 0.7, "maximize": True},
            dtype=d,
            steps=12,
        )
        yield case(f"fused_{d}", "the fused kernel: rounded once", {**strong, "fused": True}, dtype=d, steps=12)
    yield case("accumulator_f32", "a sum that starts at 2", {"lr": 0.1, "initial_accumulator_value": 2.0}, steps=8)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {"eps": 0.0}, steps=8)
    yield case("eps_large_f32", "eps = 1: outside the root", {"eps": 1.0, "lr": 0.5}, steps=8)
    yield case("foreach_f32", "the multi-tensor path", {**strong, "foreach": True}, steps=8)
    yield case(
        "groups_f32",
        "groups with arguments of their own; the starting value is the constructor's for all",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1, 2], "lr": 0.05, "lr_decay": 0.0, "weight_decay": 0.0, "eps": 0.5}],
        steps=10,
    )
