import math

from bitsandbytes.optim import Lion

from battery import NO_F64, battery, maker

ENV = "main"
NAMES = ("lion_32bit", "paged_lion_32bit")


def cases(seed):
    strong = {"lr": 0.02, "betas": (0.8, 0.6), "weight_decay": 0.4}
    late = {"step": 999_990, "state1": "signed"}
    yield from battery(maker("paged_lion_32bit", Lion, seed, {"is_paged": True}), strong, late=late, skip=NO_F64)
    case = maker("lion_32bit", Lion, seed)
    yield from battery(case, strong, late=late, skip=NO_F64)
    for d in ("f32", "bf16", "f16"):
        yield case(
            f"small_{d}",
            "gradients whose mixture with the momentum nearly cancels or is exactly 0: sign(0) = 0",
            {"lr": 0.05, "betas": (0.5, 0.5), "weight_decay": 0.1},
            dtype=d,
            edit=cancel,
            steps=12,
        )
    yield case("beta1_0_f32", "beta1 = 0: the sign of the gradient", {"betas": (0.0, 0.9), "lr": 0.05}, steps=8)
    yield case("lr_inf_f32", "an infinite rate without decay: nothing is multiplied by it but the update", {"weight_decay": 0.0}, lr=[0.01, math.inf, 0.01], steps=3)
    yield case("beta2_0_f32", "beta2 = 0: the momentum is the last gradient", {"betas": (0.9, 0.0), "lr": 0.05}, steps=8)
    yield case("decay0_f32", "no decay", {"lr": 0.05}, steps=8)
    yield case("decay_over_1_f32", "lr * weight_decay above 1: the parameter changes sign", {"lr": 0.5, "weight_decay": 3.0}, steps=8)
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1, 2], "lr": 0.1, "betas": (0.1, 0.9), "weight_decay": 0.0}],
        steps=10,
    )


def cancel(inputs):
    for g in inputs.grads:
        g[1] = -g[0] / 2  # with both betas one half, the momentum after step 0 is g/2
        g[2] = 0.0
        g[5] = -g[4]
