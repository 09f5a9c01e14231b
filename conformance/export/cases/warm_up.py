import numpy as np
import tensorflow as tf
from transformers.modeling_tf_utils import keras
from transformers.optimization_tf import WarmUp

from golden import Case, rng

ENV = "tf"
NAME = "warm_up"


def rows(schedule, steps):
    return np.array([[float(schedule(tf.constant(t, tf.int64)))] for t in range(steps + 1)], dtype=np.float64)


def case(seed, title, note, decay, hyper=None, steps=50, power=1.0):
    """`decay` is (class, arguments); a rate in it of "initial" is the drawn one."""
    g = rng(seed, "schedule", NAME, title)
    initial = float(10 ** g.uniform(-4, -1))
    kind, args = decay
    args = {"initial_learning_rate": initial, **args} if kind != "PiecewiseConstantDecay" else args
    schedule = getattr(keras.optimizers.schedules, kind)(**args)
    hyper = {"initial_learning_rate": initial, "warmup_steps": 10, "power": power, "name": None, **(hyper or {})}
    lr = rows(WarmUp(decay_schedule_fn=schedule, **hyper), steps)
    hyper["decay_schedule_fn"] = {"class_name": kind, "config": schedule.get_config()}
    reference = "transformers.optimization_tf.WarmUp"
    packages = ["tensorflow-cpu", "tf-keras", "transformers", "numpy"]
    return Case("schedule", NAME, title, reference, hyper, steps, note, {"lr": lr}, seed, packages)


def cases(seed):
    line = ("PolynomialDecay", {"decay_steps": 30})
    yield case(seed, "default", "a line up, a line down", line)
    yield case(seed, "power_2", "up along a parabola", line, power=2.0)
    yield case(seed, "power_half", "up along a root", line, power=0.5)
    yield case(seed, "no_warmup", "no warm-up", line, {"warmup_steps": 0})
    yield case(seed, "past_the_end", "the decay holds its last rate", ("PolynomialDecay", {"decay_steps": 12}))
    yield case(seed, "polynomial", "a power down to a floor", ("PolynomialDecay", {"decay_steps": 33, "end_learning_rate": 3e-5, "power": 1.7}))
    yield case(seed, "polynomial_cycle", "the decay starts again", ("PolynomialDecay", {"decay_steps": 7, "power": 2.0, "cycle": True}))
    yield case(seed, "exponential", "exponential decay", ("ExponentialDecay", {"decay_steps": 8, "decay_rate": 0.7}))
    yield case(seed, "exponential_staircase", "in steps", ("ExponentialDecay", {"decay_steps": 8, "decay_rate": 0.7, "staircase": True}))
    yield case(seed, "inverse_time", "1 over time", ("InverseTimeDecay", {"decay_steps": 3, "decay_rate": 0.4}))
    yield case(seed, "inverse_time_staircase", "in steps", ("InverseTimeDecay", {"decay_steps": 3, "decay_rate": 0.4, "staircase": True}))
    yield case(seed, "piecewise", "constant pieces, each with its boundary", ("PiecewiseConstantDecay", {"boundaries": [5, 12, 20], "values": [0.1, 0.05, 0.02, 0.007]}))
    yield case(seed, "cosine", "half a cosine", ("CosineDecay", {"decay_steps": 30}))
    yield case(seed, "cosine_alpha", "half a cosine to a floor", ("CosineDecay", {"decay_steps": 25, "alpha": 0.1}))
    yield case(seed, "cosine_warmup", "with a warm-up of its own after the first", ("CosineDecay", {"decay_steps": 20, "warmup_target": 0.2, "warmup_steps": 8}))
    yield case(seed, "cosine_restarts", "cosines twice as long each time", ("CosineDecayRestarts", {"first_decay_steps": 5}))
    yield case(seed, "cosine_restarts_1", "cosines of one length, each lower", ("CosineDecayRestarts", {"first_decay_steps": 9, "t_mul": 1.0, "m_mul": 0.8, "alpha": 0.05}))
    yield case(seed, "cosine_restarts_fraction", "cosines 1.3 times as long and lower", ("CosineDecayRestarts", {"first_decay_steps": 6, "t_mul": 1.3, "m_mul": 0.9}), steps=80)
    yield case(seed, "cosine_long", "many cosines in f32", ("CosineDecay", {"decay_steps": 900}), steps=900)
    yield case(seed, "long", "many powers in f32", ("PolynomialDecay", {"decay_steps": 700, "power": 0.9}), {"warmup_steps": 300, "power": 1.3}, steps=1010)
