from torch.optim import Muon

from battery import EXTREMES, battery, maker, nonfinite, singles
from golden import draw, rng

ENV = "main"
# Matrices only: tall, wide, and with a side of 1.
SHAPES = [(5, 3), (3, 7)]
DTYPES = ("f32", "f64", "bf16", "f16")


def cancelling(inputs):
    """The second gradient takes the momentum to 0, or to what a fused multiply-add leaves."""
    for g, sign in zip(inputs.grads, (1.0, -1.0)):
        g[:, 0, 0] = [-1.0546875 * sign, 0.6328125 * sign, 0.890625 * sign]


def ties(inputs):
    """Numbers with which a tie of X Xᵀ, and its mirror image, are rounded to one side or the other by the order of the
    sum, and both together move what neither moves alone. Drawn once: of twenty suites, one had such numbers."""
    drawn = draw(rng(215, "optimizer", "muon", "large_f32"), [(9, 300), (35, 20)], 1)
    inputs.inits[0], inputs.grads[0] = drawn.inits[1], drawn.grads[1]


def cases(seed):
    case = maker("muon", Muon, seed, shapes=SHAPES)
    strong = {"lr": 0.2, "weight_decay": 0.4, "momentum": 0.6, "eps": 1e-3}
    skip = ("shapes_f32", "large_f32", "large_bf16", "extremes_f32", "extremes_bf16", "joins_f32")
    skip += ("nonfinite_f32", "nonfinite_bf16")
    yield from battery(case, strong, skip=skip)
    for d in ("f32", "bf16"):
        yield case(
            f"shapes_{d}",
            "square, one row, one column, one element, no rows: the smaller side is the Gram matrix",
            strong,
            shapes=[(4, 4), (1, 6), (6, 1), (1, 1), (0, 3), (2, 17), (17, 2)],
            dtype=d,
            steps=4,
        )
        yield case(
            f"large_{d}",
            "sides beyond any tile, and an inner dimension beyond a block of 256",
            strong,
            shapes=[(9, 300), (35, 20)] if d == "f32" else [(11, 271)],
            dtype=d,
            steps=1,
        )
        yield case(
            f"extremes_{d}",
            "gradients whose squares under- and overflow, a norm below eps, all zeros",
            {**strong, "nesterov": False},
            shapes=[(2, 2)] * 9,
            edit=extremes(d),
            dtype=d,
            steps=4,
        )
        yield case(
            f"single_{d}",
            f"matrices of one number in {d}: its norm is its size, whose square would overflow or vanish",
            {**strong, "nesterov": False, "eps": 0.0},
            shapes=[(1, 1)] * 15,
            edit=singles(d),
            dtype=d,
            steps=5,
        )
        yield case(
            f"cancelling_{d}",
            "momentum that cancels in matrices of one number, and is divided by its own size: 0 / 0 or not",
            {**strong, "nesterov": False, "eps": 0.0},
            shapes=[(1, 1)] * 2,
            edit=cancelling,
            dtype=d,
            steps=3,
        )
        yield case(
            f"nonfinite_{d}",
            "NaN and infinities: one makes its whole matrix NaN, and stays in its momentum",
            strong,
            shapes=[(3, 3), (2, 2)],
            edit=in_rows,
            dtype=d,
            steps=6,
        )
    for d in DTYPES:
        yield case(
            f"plain_momentum_{d}",
            "without nesterov the momentum itself is orthogonalised",
            {"lr": 0.1, "nesterov": False, "momentum": 0.9},
            dtype=d,
            steps=6,
        )
        for fn in ("match_rms_adamw", "spectral_unclamped"):
            yield case(
                f"{fn}_{d}",
                "the rate follows the shape, the decay does not",
                {"lr": 0.1, "adjust_lr_fn": fn, "weight_decay": 0.5},
                shapes=[(6, 2), (2, 6)],
                dtype=d,
                steps=4,
            )
    yield case("original_f32", "the default adjustment by name", {"lr": 0.1, "adjust_lr_fn": "original"}, steps=4)
    yield case(
        "coefficients_f32",
        "another polynomial, other steps",
        {"lr": 0.1, "ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 8},
        steps=4,
    )
    yield case("steps_0_f32", "no iteration: the normalised momentum", {"lr": 0.1, "ns_steps": 0}, steps=4)
    yield case("steps_1_f64", "one iteration", {"lr": 0.1, "ns_steps": 1}, dtype="f64", steps=4)
    yield case("momentum_0_f32", "momentum = 0: the gradient", {"lr": 0.1, "momentum": 0.0}, steps=4)
    yield case("decay0_f32", "no decay", {"lr": 0.1, "weight_decay": 0.0}, steps=4)
    yield case(
        "ties_f32",
        "a number of the Gram matrix on a tie of bf16, and its mirror image: both may round either way, together",
        strong,
        shapes=[(35, 20)],
        edit=ties,
        steps=1,
    )
    yield case("eps_large_f32", "eps above every norm: a floor, not a sum", {"lr": 0.1, "eps": 100.0}, steps=4)
    yield case(
        "joins_f32",
        "a parameter whose first gradient comes at step 4, and one that never has any",
        strong,
        shapes=[(3, 2), (2, 2), (1, 2)],
        steps=8,
        has_grad=lambda i, t: i == 0 or (i == 1 and t >= 4),
    )
    yield case(
        "groups_f32",
        "two groups that differ in everything",
        strong,
        shapes=[(3, 2), (2, 3), (4, 2)],
        groups=[
            {"params": [0]},
            {
                "params": [1, 2],
                "lr": 0.05,
                "momentum": 0.9,
                "nesterov": False,
                "ns_coefficients": (3.0, -3.2, 1.2),
                "ns_steps": 3,
                "eps": 0.5,
                "weight_decay": 0.0,
                "adjust_lr_fn": "match_rms_adamw",
            },
        ],
        steps=4,
    )
    for letter, coefficients in (("a", (0.0, 1e30, 1.0)), ("b", (1e30, 0.0, 1.0)), ("c", (1e30, 1.0, 0.0))):
        yield case(
            f"coefficient_0_{letter}_f32",
            f"{letter} = 0 where the iteration overflows: to the matrix that a product is added to, 0 is no factor",
            {"ns_coefficients": coefficients, "ns_steps": 4},
            shapes=[(1, 1), (1, 3)],
            steps=2,
        )


def extremes(dtype):
    def edit(inputs):
        for j, value in enumerate(EXTREMES[dtype]):
            inputs.grads[j][:] = value
            inputs.grads[j][2:, 1] = 0.0
        inputs.grads[7][:] = 0.0
        inputs.inits[8][:] = 0.0

    return edit


def in_rows(inputs):
    class Flat:
        inits = [x.reshape(-1) for x in inputs.inits]
        grads = [g.reshape(len(g), -1) for g in inputs.grads]

    nonfinite(Flat)
