from torch.optim import AdamW

from battery import battery, maker, shrink

ENV = "main"
STRONG = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}
LATE = {"step": 999_990, "exp_avg": "signed", "exp_avg_sq": "positive"}


def cases(seed):
    case = maker("adamw_torch", AdamW, seed)
    yield from battery(case, STRONG, late=LATE, late_hyper={"betas": (0.9, 0.999999)})
    yield from amsgrad(case)
    for d in ("f32", "bf16"):
        yield case(
            f"maximize_{d}",
            "the gradient's sign is turned, the decay's is not",
            {"lr": 0.05, "maximize": True, "weight_decay": 0.3},
            dtype=d,
            steps=12,
        )
    yield from edges(case)
    yield case("foreach_f32", "the multi-tensor path", {**STRONG, "foreach": True}, steps=8)
    yield groups(case)


def amsgrad(case):
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"amsgrad_{d}",
            "amsgrad with gradients that shrink: the maximum is of the uncorrected second moment",
            {"lr": 0.05, "amsgrad": True, "weight_decay": 0.1, "eps": 1e-4},
            dtype=d,
            edit=shrink,
            steps=12,
        )
    yield case(
        "amsgrad_maximize_f32",
        "both switches at once",
        {"lr": 0.05, "amsgrad": True, "maximize": True, "weight_decay": 0.1},
        edit=shrink,
        steps=12,
    )


def edges(case):
    yield case("beta1_0_f32", "beta1 = 0: the moment is the gradient", {"betas": (0.0, 0.99), "lr": 0.1}, steps=8)
    yield case("beta2_0_f32", "beta2 = 0: the update is a sign", {"betas": (0.9, 0.0), "lr": 0.1}, steps=8)
    yield case("beta1_small_f64", "a lerp whose weight is above one half", {"betas": (0.3, 0.9)}, dtype="f64", steps=8)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {"eps": 0.0, "lr": 0.1}, steps=8)
    yield case("eps_large_f32", "eps = 1: outside the root", {"eps": 1.0, "lr": 0.5}, steps=8)
    yield case("decay0_f64", "no decay at all", {"weight_decay": 0.0, "lr": 0.1}, dtype="f64", steps=8)


def groups(case):
    return case(
        "groups_f32",
        "two groups that differ in everything: options and counters per group",
        STRONG,
        shapes=[(5,), (2, 3), (4,)],
        groups=[
            {"params": [0]},
            {"params": [1, 2], "lr": 0.01, "betas": (0.5, 0.7), "eps": 0.1, "weight_decay": 0.0, "amsgrad": True},
        ],
        steps=10,
    )
