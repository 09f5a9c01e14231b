import flash_on_cpu
from flashoptim import FlashAdam, FlashAdamW, FlashLion, FlashSGD, FlashSGDW

from battery import EXTREMES, maker

ENV = "main"
NAMES = ("flash_adam", "flash_adamw", "flash_lion", "flash_sgd", "flash_sgdw")

PLAIN = {"quantize": False, "master_weight_bits": None}
PACKAGES = ("triton",)


def groups_of_32(inputs):
    """Groups of their own kind: zeros, one large number among small ones, a scale below and above f16's
    range, equal numbers (every code the same), ties between two codes, denormals."""
    g = inputs.grads[0]
    g[:, :32] = 0.0
    g[:, 32:64] *= 2.0**-10
    g[:, 40] = 8.0
    g[:, 64:96] *= 2.0**-30
    g[:, 96:128] *= 2.0**30
    g[:, 128:160] = 0.25
    g[:, 160:192] = 0.0
    g[0, 160], g[0, 161], g[0, 162] = 3.0, 1.0, -1.0
    g[:, 192:224] *= 2.0**-120


def nonfinite(inputs):
    x, g = inputs.inits[0], inputs.grads[0]
    g[0, 0] = float("nan")
    g[2, 33], g[2, 34] = float("inf"), -float("inf")
    g[2, 65], g[3, 65] = float("inf"), -float("inf")
    x[98], x[99], x[100] = float("nan"), float("inf"), -float("inf")


def extremes(dtype):
    small = EXTREMES[dtype]

    def edit(inputs):
        x, g = inputs.inits[0], inputs.grads[0]
        for j, value in enumerate(small):
            g[:, 32 * j] = value
            g[:, 32 * j + 1] = 0.0
            g[1, 32 * j + 1] = -value
            x[32 * j + 2] = value
        x[3], x[4] = 0.0, -0.0

    return edit


def cases(seed):
    with flash_on_cpu.running():
        for name, cls, strong, variants in (
            ("flash_adamw", FlashAdamW, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}, ADAM),
            ("flash_adam", FlashAdam, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}, ADAM),
            ("flash_lion", FlashLion, {"lr": 0.01, "betas": (0.7, 0.9), "weight_decay": 0.3}, LION),
            ("flash_sgd", FlashSGD, {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.2}, SGD),
            ("flash_sgdw", FlashSGDW, {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.2}, SGD),
        ):
            case = maker(name, cls, seed, dtype="bf16", state=flash_on_cpu.state, packages=PACKAGES)
            yield from common(case, strong, decoupled=name in ("flash_adamw", "flash_lion", "flash_sgdw"))
            for title, note, hyper in variants:
                yield case(title, note, {**strong, **hyper}, shapes=[(40,)], steps=8)
            if name == "flash_sgd":
                yield case(
                    "eager_parted_bf16",
                    "a code that may be either of two and is another in a program that rounds one operation once: steps after that",
                    {**strong, "nesterov": True, "fused": False},
                    shapes=[(47,)],
                    steps=20,
                )


def common(case, strong, decoupled):
    yield case("default_bf16", "every default: 24-bit weights, companded state", shapes=[(5, 3), (70,)], steps=16)
    yield case("default_f16", "every default in f16", shapes=[(5, 3), (70,)], dtype="f16", steps=10, grads=(-10, 0))
    yield case("strong_bf16", "neighbouring rules part at once", strong, shapes=[(5, 3), (70,)], steps=16)
    yield case("strong_f16", "f16 weights with 8 bits", strong, shapes=[(70,)], dtype="f16", steps=10)
    for d in ("bf16", "f16"):
        yield case(
            f"master32_{d}",
            "16 correction bits",
            {**strong, "master_weight_bits": 32},
            shapes=[(70,)],
            dtype=d,
            steps=10,
        )
        yield case(
            f"master_none_{d}",
            "no correction bits, companded state",
            {**strong, "master_weight_bits": None},
            shapes=[(70,)],
            dtype=d,
            steps=10,
        )
        yield case(
            f"unquantized_{d}",
            "split weights, state in the parameter's type",
            {**strong, "quantize": False},
            shapes=[(70,)],
            dtype=d,
            steps=10,
        )
        yield case(f"plain_{d}", "neither", {**strong, **PLAIN}, shapes=[(33,)], dtype=d, steps=10)
    yield case(
        "quantized_f32",
        "f32 weights, companded state",
        {**strong, "master_weight_bits": None},
        shapes=[(70,)],
        dtype="f32",
        steps=16,
    )
    yield case("plain_f32", "only the scalars differ from PyTorch's", {**strong, **PLAIN}, dtype="f32", steps=24)
    yield case("default_f32", "the defaults in f32", PLAIN, dtype="f32", steps=24)
    yield case(
        "groups_of_32_f32",
        groups_of_32.__doc__,
        {**strong, "master_weight_bits": None},
        shapes=[(240,)],
        dtype="f32",
        edit=groups_of_32,
        steps=6,
    )
    yield case("groups_of_32_bf16", groups_of_32.__doc__, strong, shapes=[(240,)], edit=groups_of_32, steps=6)
    yield case(
        "shapes_bf16",
        "0 dimensions, 0 elements, 1 element, one group, one more, three dimensions",
        strong,
        shapes=[(), (0,), (1,), (3, 0, 2), (32,), (33,), (3, 5, 5)],
        steps=5,
    )
    yield case("large_bf16", "more than one block of 1024 and a remainder", strong, shapes=[(1051,)], steps=2)
    for d in ("f32", "bf16"):
        none = {"master_weight_bits": None} if d == "f32" else {}
        yield case(
            f"extremes_{d}",
            "subnormals, squares that underflow and overflow, the largest number; weights of 0, -0, subnormal, huge",
            {**strong, **none},
            shapes=[(224,)],
            dtype=d,
            edit=extremes(d),
            steps=5,
        )
        yield case(
            f"nonfinite_{d}",
            "NaN and infinities in gradients and weights: a companded moment forgets a NaN, an infinity poisons "
            "its group of 32 once, correction bits of what is not finite",
            {**strong, **none},
            shapes=[(130,)],
            dtype=d,
            edit=nonfinite,
            steps=6,
        )
    yield case("lr0_bf16", "lr 0: state moves", {**strong, "lr": 0.0}, shapes=[(40,)], steps=5)
    rates = [strong["lr"] * r for r in (0.0, 0.5, 1.0, 2.0, 0.125, 0.001, 1.0, 0.3)]
    yield case("lr_schedule_bf16", "a rate that changes at every step", strong, shapes=[(40,)], lr=rates, steps=8)
    yield case(
        "nograd_bf16",
        "steps without a gradient: nothing moves, no count",
        strong,
        shapes=[(40,), (3,)],
        steps=8,
        has_grad=lambda i, t: t != 5 and (i == 1 or t not in (3, 4)),
    )
    yield case("decay0_bf16", "no decay", {**strong, "weight_decay": 0.0}, shapes=[(40,)], steps=8)
    yield case(
        "tiny_lr_bf16",
        "updates far below a bf16's gap: only the correction bits carry them",
        {"lr": 1e-5},
        shapes=[(70,)],
        steps=12,
    )
    if decoupled:
        yield case(
            "decouple_lr_bf16",
            "decay by lr over the constructor's lr, with a rate that moves",
            {**strong, "decouple_lr": True, "weight_decay": 0.01},
            shapes=[(40,)],
            lr=rates,
            steps=8,
        )
    for d in ("bf16", "f32"):
        yield case(
            f"eager_{d}",
            "fused=False: the arithmetic of PyTorch's operations around the same storages",
            {**strong, "fused": False} | ({"master_weight_bits": None} if d == "f32" else {}),
            shapes=[(70,)],
            dtype=d,
            steps=10,
        )
    yield case(
        "eager_decay0_f32",
        "fused=False, infinite weights, no decay: nothing leaks into the state",
        {**strong, "fused": False, "weight_decay": 0.0, **PLAIN},
        shapes=[(130,)],
        dtype="f32",
        edit=nonfinite,
        steps=4,
    )
    yield case(
        "groups_bf16",
        "two groups that differ",
        strong,
        shapes=[(40,), (3, 3)],
        groups=[{"params": [0]}, {"params": [1], "lr": 0.01, "weight_decay": 0.0}],
        steps=8,
    )


ADAM = (
    ("eps_large_bf16", "eps = 1: outside of the corrected root", {"eps": 1.0, "lr": 0.5}),
    ("betas_bf16", "beta1 = 0, beta2 near 1", {"betas": (0.0, 0.9999)}),
)
LION = (("beta1_1_bf16", "beta1 = 1: the update is the old momentum's sign", {"betas": (1.0, 0.9)}),)
SGD = (
    ("dampening_bf16", "dampened from the first step on", {"dampening": 0.5}),
    ("nesterov_bf16", "momentum looked ahead", {"nesterov": True}),
    ("momentum0_bf16", "no momentum: no state", {"momentum": 0.0}),
    ("eager_nesterov_bf16", "fused=False with nesterov", {"nesterov": True, "fused": False}),
)
