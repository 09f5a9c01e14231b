from torch.optim import Adam

from adamw_torch import LATE, STRONG, amsgrad, edges, groups
from battery import battery, cancelled, maker

ENV = "main"


def cases(seed):
    case = maker("adam", Adam, seed)
    yield from battery(case, STRONG, late=LATE, late_hyper={"betas": (0.9, 0.999999)})
    yield from cancelled(case)
    yield from amsgrad(case)
    for d in ("f32", "bf16"):
        yield case(
            f"maximize_{d}",
            "the gradient is negated before the coupled decay is added",
            {"lr": 0.05, "maximize": True, "weight_decay": 0.3},
            dtype=d,
            steps=12,
        )
    yield from edges(case)
    yield groups(case)
    for d in ("f32", "bf16"):
        yield case(
            f"decoupled_{d}",
            "decoupled_weight_decay: AdamW under Adam's name",
            {"lr": 0.05, "weight_decay": 0.3, "decoupled_weight_decay": True},
            dtype=d,
            steps=12,
        )
        yield case(
            f"fused_{d}",
            "the fused kernel with coupled decay and amsgrad: rounded once",
            {**STRONG, "fused": True, "amsgrad": True},
            dtype=d,
            steps=12,
        )
    yield case("foreach_f32", "the multi-tensor path", {**STRONG, "foreach": True}, steps=8)
