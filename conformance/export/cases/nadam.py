from torch.optim import NAdam

from battery import battery, cancelled, maker

ENV = "main"


def cases(seed):
    case = maker("nadam", NAdam, seed)
    strong = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2, "momentum_decay": 0.05}
    late = {"step": 999_990, "exp_avg": "signed", "exp_avg_sq": "positive", "mu_product": 1e-20}
    yield from battery(case, strong, late=late, late_hyper={"betas": (0.9, 0.999999), "momentum_decay": 4e-6})
    yield from cancelled(case)
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"decoupled_{d}",
            "decoupled decay by lr, before the moments",
            {"lr": 0.05, "weight_decay": 0.4, "decoupled_weight_decay": True, "eps": 1e-3},
            dtype=d,
            steps=12,
        )
    for d in ("f32", "bf16"):
        yield case(
            f"maximize_{d}",
            "the gradient is negated before the coupled decay is added",
            {"lr": 0.05, "weight_decay": 0.4, "maximize": True},
            dtype=d,
            steps=12,
        )
        yield case(
            f"momentum_decay_{d}",
            "a fast momentum schedule: this step's mu, the next one's, and their product",
            {"lr": 0.05, "momentum_decay": 3.0, "eps": 1e-3},
            dtype=d,
            steps=12,
        )
        yield case(
            f"eps_large_{d}",
            "eps = 1 beside the root of the corrected moment",
            {"lr": 0.2, "eps": 1.0},
            dtype=d,
            steps=12,
        )
    yield case(
        "decoupled_maximize_f32",
        "maximize leaves decoupled decay alone",
        {"lr": 0.05, "weight_decay": 0.4, "decoupled_weight_decay": True, "maximize": True},
        steps=12,
    )
    yield case("momentum_decay_0_f64", "a constant mu of half beta1", {"momentum_decay": 0.0}, dtype="f64", steps=8)
    yield case("beta1_0_f32", "beta1 = 0: mu is 0", {"betas": (0.0, 0.99), "lr": 0.1}, steps=8)
    yield case("beta1_small_f64", "a lerp whose weight is above one half", {"betas": (0.3, 0.9)}, dtype="f64", steps=8)
    yield case("beta2_0_f32", "beta2 = 0", {"betas": (0.9, 0.0), "lr": 0.1}, steps=8)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {"eps": 0.0}, steps=8)
    yield case("foreach_f32", "the multi-tensor path", {**strong, "foreach": True}, steps=8)
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[
            {"params": [0]},
            {"params": [1, 2], "lr": 0.01, "betas": (0.5, 0.7), "momentum_decay": 0.5, "decoupled_weight_decay": True},
        ],
        steps=10,
    )
