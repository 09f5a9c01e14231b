import math

from bitsandbytes.optim import AdEMAMix

from battery import NO_F64, battery, maker

ENV = "main"
NAMES = ("ademamix", "paged_ademamix_32bit")


def cases(seed):
    strong = {"lr": 0.02, "betas": (0.8, 0.95, 0.97), "alpha": 3.0, "eps": 1e-3, "weight_decay": 0.4}
    late = {"step": 999_990, "state1": "signed", "state2": "positive"}
    late_hyper = {"betas": (0.999999, 0.999999, 0.9999)}
    paged = maker("paged_ademamix_32bit", AdEMAMix, seed, {"is_paged": True})
    yield from battery(paged, strong, late=late, late_hyper=late_hyper, skip=(*NO_F64, "large_bf16"))
    yield paged("t_alpha_t_beta3_f32", "both schedulers", {**strong, "t_alpha": 6, "t_beta3": 10}, steps=16)

    case = maker("ademamix", AdEMAMix, seed)
    yield from battery(case, strong, late=late, late_hyper=late_hyper, skip=NO_F64)
    for d in ("f32", "bf16"):
        yield case(
            f"t_alpha_{d}",
            "alpha grows to its value over 6 steps and stays",
            {**strong, "t_alpha": 6},
            dtype=d,
            steps=12,
        )
        yield case(
            f"t_beta3_{d}",
            "beta3 grows from near beta1 to its value over 10 steps and stays",
            {**strong, "betas": (0.7, 0.9, 0.999), "t_beta3": 10},
            dtype=d,
            steps=16,
        )
    yield case(
        "t_alpha_t_beta3_f32",
        "both schedulers, of different lengths",
        {**strong, "t_alpha": 12, "t_beta3": 5},
        steps=16,
    )
    yield case(
        "t_long_f32",
        "both schedulers as in training: long, with the default betas",
        {"lr": 0.01, "t_alpha": 1000, "t_beta3": 1000},
        steps=12,
    )
    yield case("t_one_f32", "schedulers that end at the first step", {"lr": 0.01, "t_alpha": 1, "t_beta3": 1}, steps=6)
    yield case(
        "t_late_f32",
        "schedulers a million steps long, near their end",
        {**strong, "t_alpha": 1_000_000, "t_beta3": 999_995, "betas": (0.9, 0.999, 0.9999)},
        late=late,
        steps=8,
    )
    yield case("alpha0_f32", "alpha = 0: the slow average is kept but not used", {"alpha": 0.0, "lr": 0.02}, steps=8)
    yield case("beta1_0_f32", "beta1 = 0", {"betas": (0.0, 0.99, 0.9), "lr": 0.02}, steps=8)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {"eps": 0.0}, steps=8)
    yield case("lr_inf_f32", "an infinite rate without decay: nothing is multiplied by it but the update", {"weight_decay": 0.0}, lr=[0.01, math.inf, 0.01], steps=3)
    yield case("eps_large_f32", "eps = 1 beside the corrected root", {"eps": 1.0, "lr": 0.2}, steps=8)
    yield case("decay0_f32", "no decay", {"lr": 0.02, "weight_decay": 0.0}, steps=8)
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[
            {"params": [0]},
            {"params": [1, 2], "lr": 0.05, "betas": (0.5, 0.7, 0.9), "alpha": 8.0, "t_alpha": 4, "weight_decay": 0.0},
        ],
        steps=10,
    )
