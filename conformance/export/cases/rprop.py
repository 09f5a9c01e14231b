from torch.optim import Rprop

from battery import battery, maker

ENV = "main"


def cases(seed):
    case = maker("rprop", Rprop, seed)
    strong = {"lr": 0.1, "etas": (0.4, 1.7), "step_sizes": (1e-3, 0.6)}
    late = {"step": 999_990, "prev": "signed", "step_size": "positive"}
    yield from battery(case, strong, late=late)
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"limits_{d}",
            "steps that soon run into the smallest and the largest size",
            {"lr": 0.1, "etas": (0.1, 4.0), "step_sizes": (0.05, 0.3)},
            dtype=d,
            steps=12,
        )
    for d in ("f32", "bf16"):
        yield case(
            f"maximize_{d}",
            "maximize: also what is remembered is negated",
            {**strong, "maximize": True},
            dtype=d,
            steps=12,
        )
        yield case(
            f"flip_{d}",
            "a gradient that changes sign at every step: it is taken as 0, and remembered as 0, once in two",
            strong,
            dtype=d,
            edit=flip,
            steps=12,
        )
    yield case(
        "underflow_f32",
        "products of gradients that underflow to 0: no change of sign is seen",
        {"lr": 0.1},
        grads=(-100, -60),
        steps=12,
    )
    yield case("outside_f32", "a first step size outside its limits", {"lr": 5.0, "step_sizes": (0.1, 1.0)}, steps=8)
    yield case("foreach_f32", "the multi-tensor path", {**strong, "foreach": True}, steps=8)
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1, 2], "lr": 0.01, "etas": (0.9, 1.1), "step_sizes": (0.009, 0.012)}],
        steps=10,
    )


def flip(inputs):
    for g in inputs.grads:
        g[1::2] = -abs(g[1::2])
        g[::2] = abs(g[::2])
