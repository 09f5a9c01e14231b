"""GaLore's AdamW over bitsandbytes' 8-bit state: a step of bitsandbytes from a parameter of zeros, brought back.

galore_torch hands `percentile_clipping` and `block_wise` over by position; bitsandbytes now has `max_unorm` and
`skip_zeros` there. So its default of 100 limits the norm of an update to 100 times that of the parameter, where the
state is of 32 bits: what is projected, a parameter of zeros then, does not move but for its decay.
"""

import torch
from bnb_8bit import SMALL
from galore_torch import GaLoreAdamW8bit

from golden import torch_state
from lowrank import options, projected

ENV = "main"
STRONG = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-2, "weight_decay": 0.3}
FREE = {"percentile_clipping": 0, "min_8bit_size": 4096}  # 32-bit state, without the limit

torch.cuda.synchronize = lambda: None  # the reference waits for a GPU after every parameter


def state(opt, i, param):
    return {k: v for k, v in torch_state(opt, i, param).items() if not k.startswith("qmap")}


def cases(seed):
    case = projected(
        "galore_adamw_8bit",
        GaLoreAdamW8bit,
        "galore_torch.GaLoreAdamW8bit",
        seed,
        SMALL,
        state=state,
        packages=("bitsandbytes",),
    )
    yield from options(case, STRONG, full={"eps": 0.1})
    yield case(
        "min_size_f32",
        "8 bits from 12 elements of the projection on, however many the parameter has; no limit for the others",
        {**STRONG, "percentile_clipping": 0, "min_8bit_size": 12},
        shapes=[(12,), (11,), (6, 3), (5, 9), (3, 5), (20, 4)],
    )
    for d in ("f32", "bf16", "f64"):
        yield case(f"bits32_{d}", f"32-bit state in {d}", {**STRONG, **FREE}, dtype=d)
    yield case(
        "limit_f32",
        "32-bit state and the default limit of 100 norms: what is projected stays where it is",
        {"lr": 0.05, "min_8bit_size": 4096},
        inits=(-14, -12),
        steps=6,
    )
    yield case("blocks_f32", "projections of several blocks", STRONG, shapes=[(300, 5), (4, 257)], steps=3)
    yield case("no_decay_f32", "no decay", {**STRONG, "weight_decay": 0.0}, steps=5)
