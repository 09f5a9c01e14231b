import math

from torch.optim import Adafactor

from battery import battery, maker

ENV = "main"
DTYPES = ("f32", "f64", "bf16", "f16")


def cases(seed):
    case = maker("adafactor_torch", Adafactor, seed, reference="torch.optim.Adafactor")
    strong = {"lr": 0.2, "beta2_decay": -0.5, "eps": (1e-3, 0.5), "d": 1.5, "weight_decay": 0.3}
    # It divides by the number of elements, so it refuses tensors without any.
    skip = ("shapes_f32", "large_f32", "large_bf16")
    yield from battery(case, strong, coupled=True, skip=skip)
    late = {"step": 999_990, "variance": "positive"}
    factored = {"step": 999_990, "row_var": "positive", "col_var": "positive"}
    for d in ("f32", "f64", "bf16"):
        for title, shape, state in (("late", (7,), late), ("late_factored", (4, 3), factored)):
            yield case(
                f"{title}_{d}",
                "steps near a million from a preset state (state0): the weight of new squares is t^beta2_decay, "
                "the rate at most 1/sqrt(t)",
                strong,
                shapes=[shape],
                late=state,
                dtype=d,
                steps=6,
            )
    yield case(
        "shapes_f32",
        "from 0 to 4 dimensions: rows and columns are the last two, ones included",
        {**strong, "eps": (None, 1e-3)},
        shapes=[(), (1,), (17,), (2, 3, 4), (2, 1, 3, 2), (1, 6), (6, 1), (1, 1)],
        steps=6,
    )
    yield case(
        "shapes_bf16",
        "from 0 to 4 dimensions, every operation rounded",
        {**strong, "eps": (None, 1e-3)},
        shapes=[(), (1,), (9,), (2, 3, 4), (2, 1, 3, 2), (1, 6), (6, 1), (1, 1)],
        dtype="bf16",
        steps=6,
    )
    for d, shape in (("f32", (2, 1031)), ("bf16", (3, 349))):
        yield case(f"large_row_{d}", "rows over 1024 long, or tails", strong, shapes=[shape], steps=1, dtype=d)
    yield case("large_col_f32", "columns over 1024 long", strong, shapes=[(1031, 2)], steps=1)
    for d in DTYPES:
        yield case(
            f"eps_none_{d}",
            "eps[0] = None is the machine epsilon of the type: a floor that small gradients reach",
            {"eps": (None, 0.2), "lr": 0.5},
            grads=(-16, -8) if d != "f16" else (-7, -4),
            dtype=d,
            steps=8,
        )
        yield case(
            f"maximize_{d}",
            "the gradient's sign is turned, the decay's is not",
            {"lr": 0.5, "maximize": True, "weight_decay": 0.3},
            dtype=d,
            steps=8,
        )
        yield case(
            f"foreach_{d}",
            "the multi-tensor path multiplies the update before it adds it: one more rounding",
            {**strong, "foreach": True},
            shapes=[(5, 3), (7,)],
            dtype=d,
            steps=8,
        )
    yield case(
        "eps_mean_f32",
        "eps[0] above the mean of rows and above the root of every estimate",
        {"eps": (0.5, 1e-3), "lr": 0.5},
        steps=8,
    )
    yield case("eps0_f32", "eps[0] = 0 with a gradient that is always 0: 0/0", {"eps": (0.0, 0.1)}, edit=zero, steps=6)
    yield case("lr_inf_f32", "an infinite rate without decay: nothing is multiplied by it but the update", {"weight_decay": 0.0}, lr=[0.01, math.inf, 0.01], steps=3)
    yield case(
        "small_parameter_f32",
        "parameters whose RMS is below eps[1], one of them all zeros",
        {"eps": (None, 0.01), "lr": 0.5},
        inits=(-14, -12),
        edit=first_zero,
        shapes=[(4,), (3, 5)],
        steps=8,
    )
    yield case("d_large_f32", "a threshold that never cuts", {"d": 1e9, "lr": 0.5}, steps=8)
    yield case("decay0_f32", "beta2_decay = 0: the average forgets at once", {"beta2_decay": 0.0, "lr": 0.5}, steps=8)
    yield case(
        "decay_f64", "a steep beta2_decay, plain decay by lr", {"beta2_decay": -1.5, "lr": 0.3, "weight_decay": 1.0},
        dtype="f64", steps=8,
    )  # fmt: skip
    yield case("lr_large_f32", "lr above 1/sqrt(t) from the second step on: the rate is bounded, the decay is not",
               {"lr": 0.9, "weight_decay": 0.5}, steps=10)  # fmt: skip
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4, 3)],
        groups=[
            {"params": [0]},
            {"params": [1], "eps": (None, 1e-3), "d": 1.0, "maximize": True},
            {"params": [2], "lr": 0.01, "beta2_decay": -1.0, "weight_decay": 0.0},
        ],
        steps=8,
    )


def zero(inputs):
    for g in inputs.grads:
        g[:] = 0.0


def first_zero(inputs):
    inputs.inits[0][:] = 0.0
