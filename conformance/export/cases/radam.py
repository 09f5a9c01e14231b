from torch.optim import RAdam

from battery import battery, cancelled, maker

ENV = "main"


def cases(seed):
    case = maker("radam", RAdam, seed)
    strong = {"lr": 0.02, "betas": (0.8, 0.97), "eps": 1e-3, "weight_decay": 0.2}
    late = {"step": 999_990, "exp_avg": "signed", "exp_avg_sq": "positive"}
    yield from battery(case, strong, late=late, late_hyper={"betas": (0.9, 0.999999)})
    yield from cancelled(case)
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"decoupled_{d}",
            "decoupled decay by lr, before the moments",
            {"lr": 0.02, "weight_decay": 0.4, "decoupled_weight_decay": True, "eps": 1e-3},
            dtype=d,
            steps=12,
        )
    for d in ("f32", "bf16"):
        yield case(
            f"maximize_{d}",
            "the gradient is negated before the coupled decay is added",
            {"lr": 0.02, "weight_decay": 0.4, "maximize": True},
            dtype=d,
            steps=12,
        )
        yield case(
            f"eps_large_{d}",
            "eps = 1 beside the root of the uncorrected moment, only once rectified",
            {"lr": 0.2, "eps": 1.0, "betas": (0.9, 0.99)},
            dtype=d,
            steps=12,
        )
    yield case(
        "silent_f32",
        "beta2 so small that the variance is never rectified: rho stays at or below 5",
        {"lr": 0.05, "betas": (0.9, 0.6), "weight_decay": 0.1},
        steps=10,
    )
    yield case(
        "threshold_f64",
        "rho crosses 5 late: the step at which rectification sets in",
        {"lr": 0.05, "betas": (0.9, 0.72)},
        dtype="f64",
        steps=24,
    )
    yield case("beta1_0_f32", "beta1 = 0", {"betas": (0.0, 0.99), "lr": 0.1}, steps=8)
    yield case("beta1_small_f64", "a lerp whose weight is above one half", {"betas": (0.3, 0.9)}, dtype="f64", steps=8)
    yield case("beta2_0_f32", "beta2 = 0: rho is 1, never rectified", {"betas": (0.9, 0.0), "lr": 0.1}, steps=8)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0 times infinity", {"eps": 0.0}, steps=8)
    yield case("foreach_f32", "the multi-tensor path", {**strong, "foreach": True}, steps=8)
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1, 2], "lr": 0.01, "betas": (0.5, 0.9), "decoupled_weight_decay": True}],
        steps=10,
    )
