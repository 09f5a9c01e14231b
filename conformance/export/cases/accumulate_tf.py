import tensorflow as tf
from transformers.optimization_tf import GradientAccumulator

from golden import Case, rng, spread

ENV = "tf"
NAME = "accumulate"
NAMES = ("accumulate",)
DTYPES = {"f64": tf.float64, "f32": tf.float32, "bf16": tf.bfloat16, "f16": tf.float16}


def cases(seed):
    for d, dtype in DTYPES.items():
        title = f"tf_sum4_{d}"
        g = rng(seed, "gradient", NAME, title)
        rows = tf.cast(tf.constant(spread(g, (4, 5, 3), -6, 1)), dtype)
        accumulator = GradientAccumulator()
        for row in rows:
            accumulator([row])
        yield Case(
            "gradient", NAME, title, "transformers.optimization_tf.GradientAccumulator", {}, 1,
            "a plain sum, rounded each time", {"g0.in": rows, "g0.out": accumulator.gradients[0]}, seed,
            ["tensorflow-cpu", "transformers", "numpy"],
        )  # fmt: skip
