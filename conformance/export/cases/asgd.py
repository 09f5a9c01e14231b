from torch.optim import ASGD

from battery import battery, cancelled, maker

ENV = "main"


def cases(seed):
    case = maker("asgd", ASGD, seed)
    strong = {"lr": 0.1, "lambd": 0.3, "alpha": 0.6, "t0": 3, "weight_decay": 0.2}
    late = {"step": 999_990, "ax": "signed", "eta": 0.003, "mu": 1e-6}
    yield from battery(case, strong, late=late, late_hyper={"lambd": 1e-3})
    yield from cancelled(case)
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"average_{d}",
            "averaging from the start: mu = 1/max(1, t - t0)",
            {"lr": 0.1, "t0": 0},
            dtype=d,
            steps=12,
        )
    for d in ("f32", "bf16"):
        yield case(
            f"maximize_{d}",
            "the gradient is negated before the decay is added; lambd decays as before",
            {**strong, "maximize": True},
            dtype=d,
            steps=12,
        )
        yield case(
            f"lambd_{d}",
            "a large lambd: a decay by the previous step's eta, and an eta that falls fast",
            {"lr": 0.5, "lambd": 1.0},
            dtype=d,
            steps=12,
        )
    yield case("alpha0_f64", "alpha = 0: eta stays lr", {"lr": 0.1, "alpha": 0.0, "lambd": 0.5}, dtype="f64", steps=8)
    yield case("alpha2_f64", "eta falls with the square", {"lr": 0.1, "alpha": 2.0, "lambd": 2.0}, dtype="f64", steps=8)
    yield case("lambd0_f32", "no decay by lambd", {"lr": 0.1, "lambd": 0.0, "weight_decay": 0.1}, steps=8)
    yield case("t0_half_f32", "a t0 that is no integer", {"lr": 0.1, "t0": 2.5}, steps=8)
    yield case("t0_negative_f32", "a t0 below 0", {"lr": 0.1, "t0": -4}, steps=8)
    yield case("foreach_f32", "the multi-tensor path", {**strong, "foreach": True}, steps=8)
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1, 2], "lr": 0.01, "lambd": 0.0, "alpha": 0.9, "t0": 0}],
        steps=10,
    )
