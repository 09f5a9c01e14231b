import numpy as np
import tensorflow as tf

from golden import Case, rng, spread

ENV = "tf"
NAME = "clip_grad_value"
NAMES = ("clip_grad_value",)
DTYPES = {"f64": tf.float64, "f32": tf.float32, "bf16": tf.bfloat16, "f16": tf.float16}


def cases(seed):
    for d, dtype in DTYPES.items():
        title = f"tf_default_{d}"
        g = rng(seed, "gradient", NAME, title)
        wide = spread(g, (6, 3), -6, 3)
        wide[0] = [np.nan, np.inf, -np.inf]
        before = tf.cast(tf.constant(wide), dtype)
        after = tf.clip_by_value(before, -0.3, 0.3)
        yield Case(
            "gradient", NAME, title, "tensorflow.clip_by_value", {"clip_value_min": -0.3, "clip_value_max": 0.3}, 1,
            "TensorFlow's limits, non-finite input included", {"g0.in": before, "g0.out": after}, seed,
            ["tensorflow-cpu", "numpy"],
        )  # fmt: skip
