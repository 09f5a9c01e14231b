import inspect

from transformers.optimization_tf import create_optimizer

from golden_tf import battery_tf, run_tf_optimizer

ENV = "tf"


def cases(seed):
    def make(**hyper):
        return create_optimizer(**hyper)[0]

    make.__signature__ = inspect.signature(create_optimizer)
    # So many steps that the rate hardly falls, unless a case says otherwise.
    base = {"init_lr": 1e-3, "num_train_steps": 1000, "num_warmup_steps": 0}

    def case(title, note, hyper, **run):
        reference = "transformers.optimization_tf.create_optimizer"
        return run_tf_optimizer(title, "keras_adam", make, base | hyper, reference, seed=seed, note=note, **run)

    strong = {"init_lr": 0.05, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-2}
    yield from battery_tf(case, strong, strong, "init_lr")
    for d in ("f32", "f64"):
        yield case(
            f"late_{d}",
            "steps near a million from a preset state (state0): f32 powers of beta",
            {**strong, "num_train_steps": 2_000_000, "adam_beta1": 0.9, "adam_beta2": 0.999999},
            dtype=d,
            late=999_990,
            steps=8,
        )
        yield case(
            f"warmup_{d}",
            "warm-up from 0, linear decay to 0, then on past the end",
            {"init_lr": 0.1, "num_train_steps": 10, "num_warmup_steps": 4},
            dtype=d,
            steps=14,
        )
    yield case(
        "power_f32",
        "a quadratic decay to a tenth",
        {"init_lr": 0.1, "num_train_steps": 10, "power": 2.0, "min_lr_ratio": 0.1},
        steps=12,
    )
    yield case("eps0_f32", "epsilon = 0 with zero gradients: 0/0", {"adam_epsilon": 0.0}, steps=8)
    yield case("eps_large_f32", "epsilon = 1 beside the uncorrected root", {"adam_epsilon": 1.0, "init_lr": 0.2}, steps=8)
    yield case("beta1_0_f32", "beta1 = 0", {"adam_beta1": 0.0, "init_lr": 0.1}, steps=8)
    yield case("beta2_0_f32", "beta2 = 0", {"adam_beta2": 0.0, "init_lr": 0.1}, steps=8)
    yield case("clipnorm_f32", "each gradient is clipped by its norm", {**strong, "adam_clipnorm": 0.5}, steps=8)
    yield case("global_clipnorm_f32", "all are clipped by one norm", {**strong, "adam_global_clipnorm": 0.5}, steps=8)
    for key in ("adam_clipnorm", "adam_global_clipnorm"):
        yield case(
            f"{key.removeprefix('adam_')}_long_f32",
            "a norm over more numbers than any of its partial sums",
            {**strong, key: 0.5},
            shapes=[(700,), (31,)],
            steps=3,
        )
