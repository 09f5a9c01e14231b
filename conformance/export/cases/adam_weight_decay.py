import inspect

from transformers.optimization_tf import AdamWeightDecay, create_optimizer

from golden_tf import battery_tf, run_tf_optimizer

ENV = "tf"
NAME = "adam_weight_decay"
RATES = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 2.0, 0.125, 0.001, 1.0, 0.0, 1.0, 0.3]
VARIABLES = ["dense/kernel", "dense/bias", "LayerNorm/gamma", "encoder/layer_norm/beta", "head/kernel"]
SHAPES = [(3, 2), (2,), (3,), (3,), (2, 2)]


def cases(seed):
    def case(title, note, hyper, **run):
        reference = "transformers.optimization_tf.AdamWeightDecay"
        return run_tf_optimizer(title, NAME, AdamWeightDecay, hyper, reference, seed=seed, note=note, **run)

    plain = {"learning_rate": 0.05, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-2}
    strong = {**plain, "weight_decay_rate": 0.3}
    yield from battery_tf(case, strong, plain, "learning_rate")
    yield case(
        "lr_schedule_f32",
        "a rate that is set anew at every step, 0 included",
        strong,
        lr=[0.1 * r for r in RATES],
        steps=len(RATES),
    )
    for d in ("f32", "f64"):
        yield case(
            f"late_{d}",
            "steps near a million from a preset state (state0): f32 powers of beta",
            {**plain, "beta_1": 0.9, "beta_2": 0.999999},
            dtype=d,
            late=999_990,
            steps=8,
        )
        yield case(
            f"amsgrad_{d}",
            "amsgrad: the maximum of the uncorrected second moment",
            {**plain, "amsgrad": True},
            dtype=d,
            edit=shrink,
            steps=12,
        )
    for d in ("bf16", "f16"):
        yield case(
            f"amsgrad_{d}",
            "amsgrad: another kernel than without",
            {**plain, "amsgrad": True},
            dtype=d,
            edit=shrink,
            steps=12,
        )
    yield case(
        "amsgrad_decay_f32",
        "amsgrad with decay",
        {**strong, "amsgrad": True},
        edit=shrink,
        steps=12,
    )
    yield case("eps0_f32", "epsilon = 0 is taken for none: it becomes 1e-7", {"epsilon": 0.0}, steps=8)
    yield case("eps_large_f32", "epsilon = 1 beside the uncorrected root", {"epsilon": 1.0, "learning_rate": 0.2}, steps=8)
    yield case("beta1_0_f32", "beta_1 = 0", {"beta_1": 0.0, "learning_rate": 0.1}, steps=8)
    yield case("beta2_0_f32", "beta_2 = 0", {"beta_2": 0.0, "learning_rate": 0.1}, steps=8)
    yield case("decay_f32", "a decay that outweighs the update", {"learning_rate": 0.1, "weight_decay_rate": 3.0}, steps=8)
    yield case("time_decay_f32", "the rate falls with 1/(1 + decay * t)", {**strong, "decay": 0.5}, steps=8)
    yield case("clipnorm_f32", "each gradient is clipped by its norm", {**strong, "clipnorm": 0.5}, steps=8)
    yield case("clipvalue_f32", "each element is clipped", {**strong, "clipvalue": 0.1}, steps=8)
    yield case("global_clipnorm_f32", "all are clipped by one norm", {**strong, "global_clipnorm": 0.5}, steps=8)
    for key in ("clipnorm", "global_clipnorm"):
        yield case(
            f"{key.removeprefix('adam_')}_long_f32",
            "a norm over more numbers than any of its partial sums",
            {**strong, key: 0.5},
            shapes=[(700,), (31,)],
            steps=3,
        )

    none, all_but = {"weight_decay_rate": 0.0}, ["LayerNorm", "layer_norm", "bias"]
    excluded = [{"params": [0]}, {"params": [1, 2, 3], **none}, {"params": [4]}]
    yield case(
        "exclude_f32",
        "names that are excluded from decay",
        {**strong, "exclude_from_weight_decay": all_but},
        shapes=SHAPES,
        names=VARIABLES,
        groups=excluded,
        steps=8,
    )
    yield case(
        "include_f32",
        "an included name wins over the exclusion, and excludes nothing by itself",
        {**strong, "exclude_from_weight_decay": all_but, "include_in_weight_decay": ["dense"]},
        shapes=SHAPES,
        names=VARIABLES,
        groups=[{"params": [0, 1]}, {"params": [2, 3], **none}, {"params": [4]}],
        steps=8,
    )

    def built(title, note, hyper, **run):
        make = lambda **h: create_optimizer(**h)[0]  # noqa: E731
        make.__signature__ = inspect.signature(create_optimizer)
        reference = "transformers.optimization_tf.create_optimizer"
        hyper = {"init_lr": 0.1, "num_train_steps": 10, "num_warmup_steps": 3, "weight_decay_rate": 0.3} | hyper
        run = {"shapes": SHAPES, "names": VARIABLES, "groups": excluded, "steps": 14} | run
        return run_tf_optimizer(title, NAME, make, hyper, reference, seed=seed, note=note, **run)

    yield built("created_f32", "warm-up from 0, linear decay to 0, then on past the end", {})
    yield built("created_no_warmup_f32", "decay from the first step", {"num_warmup_steps": 0})
    yield built(
        "created_power_f32",
        "a quadratic decay to a tenth",
        {"power": 2.0, "min_lr_ratio": 0.1, "adam_beta1": 0.7, "adam_beta2": 0.9, "adam_epsilon": 0.01},
    )
    yield built("created_clip_f32", "clipping by global norm", {"adam_global_clipnorm": 0.3})
    yield built("created_clipnorm_f32", "clipping by norm", {"adam_clipnorm": 0.3})


def shrink(inputs):
    for g in inputs.grads:
        g[len(g) // 3 :] *= 1 / 16
