from galore_torch import GaLoreAdamW

from battery import battery, maker

ENV = "main"
STRONG = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-2, "weight_decay": 0.3}
LATE = {"step": 999_990, "exp_avg": "signed", "exp_avg_sq": "positive"}


def cases(seed):
    # Without a rank in its groups GaLore's AdamW is the one that Transformers used to have; only
    # the division of the moments is rounded before lr comes in, which shows in bf16 and f16.
    case = maker(
        "adamw_hf",
        GaLoreAdamW,
        seed,
        {"no_deprecation_warning": True},
        reference="galore_torch.GaLoreAdamW",
    )
    yield from battery(case, STRONG, late=LATE, late_hyper={"betas": (0.9, 0.999999)})
    yield from options(case)


def options(case):
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"no_bias_{d}",
            "correct_bias off, as for Bert: plain lr from the first step",
            {**STRONG, "correct_bias": False},
            dtype=d,
            steps=12,
        )
    for d in ("f32", "bf16"):
        yield case(
            f"decay_{d}",
            "a large decay, of the updated parameter and by plain lr",
            {"lr": 0.2, "weight_decay": 2.0, "eps": 1e-3},
            dtype=d,
            steps=12,
        )
        yield case(
            f"eps_large_{d}",
            "eps = 1 beside the uncorrected root",
            {"lr": 0.2, "eps": 1.0},
            dtype=d,
            steps=12,
        )
    yield case("beta1_0_f32", "beta1 = 0", {"betas": (0.0, 0.99), "lr": 0.1}, steps=8)
    yield case("beta2_0_f32", "beta2 = 0", {"betas": (0.9, 0.0), "lr": 0.1}, steps=8)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {"eps": 0.0, "lr": 0.1}, steps=8)
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        STRONG,
        shapes=[(5,), (2, 3), (4,)],
        groups=[
            {"params": [0]},
            {"params": [1, 2], "lr": 0.01, "betas": (0.5, 0.7), "eps": 0.1, "weight_decay": 0.0, "correct_bias": False},
        ],
        steps=10,
    )
