from transformers.optimization import AdamW

from battery import battery, maker

ENV = "former"
NAMES = ("adamw_hf",)


def cases(seed):
    case = maker(
        "adamw_hf",
        AdamW,
        seed,
        {"no_deprecation_warning": True},
        prefix="former_",
        reference="transformers.optimization.AdamW",
    )
    strong = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-2, "weight_decay": 0.3}
    skip = ("large_f32", "large_bf16", "shapes_f32", "default_f64", "lr0_f32", "lr_schedule_f32", "joins_f32")
    late = {"step": 999_990, "exp_avg": "signed", "exp_avg_sq": "positive"}
    yield from battery(case, strong, late=late, late_hyper={"betas": (0.9, 0.999999)}, skip=skip)
