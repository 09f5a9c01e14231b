from torch.optim import Adamax

from battery import battery, cancelled, maker, shrink

ENV = "main"


def cases(seed):
    case = maker("adamax", Adamax, seed)
    strong = {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-2, "weight_decay": 0.2}
    late = {"step": 999_990, "exp_avg": "signed", "exp_inf": "positive"}
    yield from battery(case, strong, late=late, late_hyper={"betas": (0.999999, 0.99)})
    yield from cancelled(case)
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"shrink_{d}",
            "gradients that shrink: the infinity norm decays and is overtaken again",
            {"lr": 0.05, "betas": (0.9, 0.7), "eps": 1e-3},
            dtype=d,
            edit=shrink,
            steps=12,
        )
    for d in ("f32", "bf16"):
        yield case(
            f"decay_{d}",
            "coupled decay",
            {"lr": 0.05, "weight_decay": 0.7, "eps": 1e-3},
            dtype=d,
            steps=12,
        )
        yield case(
            f"maximize_{d}",
            "the gradient is negated before the decay is added",
            {"lr": 0.05, "weight_decay": 0.7, "maximize": True, "eps": 1e-3},
            dtype=d,
            steps=12,
        )
        yield case(
            f"eps_large_{d}",
            "eps = 1 is added to |g| inside the maximum, not to the norm",
            {"lr": 0.1, "eps": 1.0, "betas": (0.9, 0.5)},
            dtype=d,
            steps=12,
        )
    yield case("beta1_0_f32", "beta1 = 0", {"betas": (0.0, 0.9), "lr": 0.1}, steps=8)
    yield case("beta1_small_f64", "a lerp whose weight is above one half", {"betas": (0.3, 0.9)}, dtype="f64", steps=8)
    yield case("beta2_0_f32", "beta2 = 0: no memory of the norm", {"betas": (0.9, 0.0), "lr": 0.1}, steps=8)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {"eps": 0.0}, steps=8)
    yield case("foreach_f32", "the multi-tensor path", {**strong, "foreach": True}, steps=8)
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1, 2], "lr": 0.01, "betas": (0.5, 0.5), "eps": 0.5, "weight_decay": 0.0}],
        steps=10,
    )
