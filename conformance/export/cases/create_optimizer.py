import inspect

import numpy as np
import tensorflow as tf
from transformers.optimization_tf import create_optimizer

from golden import Case, rng

ENV = "tf"
NAME = "create_optimizer"


def case(seed, title, note, hyper, steps=50):
    g = rng(seed, "schedule", NAME, title)
    hyper = {"init_lr": float(10 ** g.uniform(-4, -1)), **hyper}
    _, schedule = create_optimizer(**hyper)
    lr = np.array([[float(schedule(tf.constant(t, tf.int64)))] for t in range(steps + 1)], dtype=np.float64)
    args = inspect.signature(create_optimizer).parameters.values()
    hyper = {p.name: p.default for p in args if p.default is not p.empty} | hyper
    reference = "transformers.optimization_tf.create_optimizer"
    packages = ["tensorflow-cpu", "tf-keras", "transformers", "numpy"]
    return Case("schedule", NAME, title, reference, hyper, steps, note, {"lr": lr}, seed, packages)


def cases(seed):
    steps = {"num_train_steps": 45, "num_warmup_steps": 10}
    yield case(seed, "default", "a line up, a line down to 0", steps)
    yield case(seed, "no_warmup", "the decay alone", {"num_train_steps": 40, "num_warmup_steps": 0})
    yield case(seed, "min_lr_ratio", "a floor", {**steps, "min_lr_ratio": 0.1})
    yield case(seed, "power", "down along a power", {**steps, "power": 2.0})
    yield case(seed, "power_floor", "a root down to a floor", {**steps, "power": 0.5, "min_lr_ratio": 0.03})
    yield case(seed, "weight_decay", "the optimizer's arguments do not count", {**steps, "weight_decay_rate": 0.01, "adam_beta1": 0.8})
    yield case(seed, "long_warmup", "warm-up outlasts training", {"num_train_steps": 8, "num_warmup_steps": 12}, steps=20)
    yield case(seed, "long", "many steps", {"num_train_steps": 1000, "num_warmup_steps": 77, "power": 1.4}, steps=1010)
