from galore_torch import GaLoreAdafactor

from battery import singles
from lowrank import options, projected

ENV = "main"
STRONG = {
    "lr": 0.05,
    "eps": (1e-10, 0.5),
    "clip_threshold": 0.6,
    "decay_rate": -0.5,
    "beta1": 0.7,
    "weight_decay": 0.2,
    "relative_step": False,
}


def cases(seed):
    case = projected("galore_adafactor", GaLoreAdafactor, "galore_torch.GaLoreAdafactor", seed)
    yield from options(case, STRONG, full={"eps": (0.1, 0.5)})
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"trainer_{d}",
            "what Trainer sets: an outer lr, no scaling by the parameter",
            {"lr": 0.02, "scale_parameter": False, "relative_step": False},
            dtype=d,
        )
    yield case(
        "single_f32",
        "matrices of one number: the RMS is its size, whose square would overflow or vanish",
        STRONG,
        group={"rank": 1},
        shapes=[(1, 1)] * 15,
        edit=singles("f32"),
        steps=5,
    )
    yield case("no_beta1_f32", "no first moment; the scale comes after lr", {**STRONG, "beta1": None})
    for d, inits in (("f32", (66, 70)), ("f64", (520, 530))):
        yield case(
            f"infinite_{d}",
            "an RMS whose squares overflow is an infinite rate: a direction of zeros is not multiplied by its decay",
            {**STRONG, "beta1": None},
            dtype=d,
            inits=inits,
            steps=2,
        )
    yield case("rank0_f32", "a projection without elements: the RMS and the decay are those of the parameter", STRONG, group={"rank": 0})
    yield case("warmup_init_f32", "the relative step grows from 1e-6; decay by it", {"warmup_init": True, "weight_decay": 50.0})
    yield case(
        "small_parameter_f32",
        "an RMS below eps[1]: that of the whole parameter, not of the projected",
        {"eps": (1e-30, 0.01), "weight_decay": 0.5},
        inits=(-14, -12),
    )
