from torch.optim import AdamW

from adamw_torch import LATE, STRONG, amsgrad, edges, groups
from battery import battery, maker

ENV = "main"


def cases(seed):
    # The whole step in f32, rounded once: what bf16 and f16 show against the eager path.
    case = maker("adamw_torch_fused", AdamW, seed, {"fused": True})
    yield from battery(case, STRONG, late=LATE, late_hyper={"betas": (0.9, 0.999999)})
    yield from amsgrad(case)
    for d in ("f32", "bf16", "f16"):
        yield case(
            f"maximize_{d}",
            "the gradient's sign is turned, the decay's is not",
            {"lr": 0.05, "maximize": True, "weight_decay": 0.3},
            dtype=d,
            steps=12,
        )
    yield from edges(case)
    yield groups(case)
