from galore_torch import GaLoreAdamW

from lowrank import options, projected

ENV = "main"
STRONG = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-2, "weight_decay": 0.3}


def cases(seed):
    case = projected("galore_adamw", GaLoreAdamW, "galore_torch.GaLoreAdamW", seed, {"no_deprecation_warning": True})
    yield from options(case, STRONG, full={"eps": 0.1})
    for d in ("f32", "bf16"):
        yield case(
            f"no_bias_{d}",
            "correct_bias off: plain lr from the first step, in the projected group alone",
            {**STRONG, "correct_bias": True},
            dtype=d,
            group={"correct_bias": False},
        )
    yield case(
        "late_f32",
        "steps near a million from a preset state (state0), a projector in force that came before",
        {**STRONG, "betas": (0.9, 0.999999)},
        late={"step": 999_990, "exp_avg": "signed", "exp_avg_sq": "positive"},
        steps=8,
    )
