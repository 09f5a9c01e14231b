from transformers.optimization import Adafactor

from battery import battery, maker

ENV = "main"


def cases(seed):
    case = maker("adafactor", Adafactor, seed, reference="transformers.optimization.Adafactor")
    strong = {
        "lr": 0.05,
        "eps": (1e-10, 0.5),
        "clip_threshold": 0.6,
        "decay_rate": -0.5,
        "beta1": 0.7,
        "weight_decay": 0.2,
        "relative_step": False,
    }
    yield from battery(case, strong, coupled=True, skip=("large_f32",))
    late = {"step": 999_990, "exp_avg": "signed", "exp_avg_sq": "positive"}
    factored = {"step": 999_990, "exp_avg": "signed", "exp_avg_sq_row": "positive", "exp_avg_sq_col": "positive"}
    for d in ("f32", "f64"):
        for title, shape, state in (("late", (7,), late), ("late_factored", (4, 3), factored)):
            yield case(
                f"{title}_{d}",
                "steps near a million from a preset state (state0): beta2 = 1 - t^decay_rate",
                strong,
                shapes=[shape],
                late=state,
                dtype=d,
                steps=8,
            )
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"trainer_{d}",
            "what Trainer sets: an outer lr, no scaling by the parameter",
            {"lr": 0.02, "scale_parameter": False, "relative_step": False},
            dtype=d,
            steps=12,
        )
        yield case(
            f"beta1_{d}",
            "a first moment: it averages updates that have lr in them",
            {"beta1": 0.9, "weight_decay": 0.3},
            dtype=d,
            steps=12,
        )
    yield case("warmup_init_f32", "the relative step grows from 1e-6", {"warmup_init": True}, steps=12)
    yield case("warmup_init_f64", "the relative step grows from 1e-6", {"warmup_init": True}, dtype="f64", steps=12)
    yield case(
        "warmup_init_decay_f32",
        "the decay is by the scaled relative step",
        {"warmup_init": True, "weight_decay": 50.0, "beta1": 0.5},
        steps=12,
    )
    yield case(
        "relative_late_f32",
        "the relative step at 1/sqrt(t), below its minimum of 0.01",
        {"weight_decay": 0.5},
        shapes=[(5, 3)],
        late={k: v for k, v in factored.items() if k != "exp_avg"},
        steps=6,
    )
    yield case(
        "small_parameter_f32",
        "parameters whose RMS is below eps[1]: the floor, also for those of all zeros",
        {"eps": (1e-30, 0.01), "weight_decay": 0.5},
        inits=(-14, -12),
        edit=first_zero,
        shapes=[(4,), (3, 5)],
        steps=12,
    )
    yield case(
        "clip_f32",
        "a low threshold: the update's RMS is cut before lr",
        {"clip_threshold": 0.05, "lr": 0.5, "relative_step": False, "scale_parameter": False},
        steps=12,
    )
    yield case("clip_large_f32", "a threshold that never cuts", {"clip_threshold": 1e9}, steps=12)
    yield case(
        "decay_rate_f64",
        "beta2 of the first step is 0, whatever the rate",
        {"decay_rate": -1.5, "lr": 0.1, "relative_step": False},
        dtype="f64",
        steps=12,
    )
    yield case("decay_rate_0_f32", "decay_rate = 0: beta2 = 0 throughout", {"decay_rate": 0.0}, steps=8)
    yield case("eps_large_f32", "eps[0] stands inside the mean of squares", {"eps": (0.5, 0.1)}, steps=12)
    yield case(
        "shapes3_f32",
        "three and four dimensions: rows and columns are the last two, ones included",
        {"lr": 0.05, "relative_step": False, "beta1": 0.5},
        shapes=[(2, 3, 4), (2, 1, 3, 2), (1, 6), (6, 1), (1, 1), (1,), ()],
        steps=6,
    )
    yield case(
        "large_row_f32",
        "rows over 1024 long: reductions along both axes",
        {**strong, "beta1": None},
        shapes=[(2, 1031)],
        steps=1,
    )
    yield case(
        "large_col_f32", "columns over 1024 long", {**strong, "beta1": None}, shapes=[(1031, 2)], steps=1
    )
    yield case(
        "zero_rows_f32",
        "rows and columns whose gradients are always 0: eps[0] alone holds them up",
        {"lr": 0.05, "relative_step": False},
        shapes=[(4, 5)],
        edit=zero_rows,
        steps=8,
    )
    yield case(
        "groups_f32",
        "groups with arguments of their own",
        strong,
        shapes=[(5,), (2, 3), (4, 3)],
        groups=[
            {"params": [0]},
            {"params": [1], "beta1": None, "scale_parameter": False},
            {"params": [2], "lr": None, "relative_step": True, "weight_decay": 0.0, "clip_threshold": 3.0},
        ],
        steps=10,
    )


def first_zero(inputs):
    inputs.inits[0][:] = 0.0


def zero_rows(inputs):
    inputs.grads[0][:, 1, :] = 0.0
    inputs.grads[0][:, :, 2] = 0.0
