import numpy as np
import tensorflow as tf

from golden import Case, rng, spread

ENV = "tf"
NAME = "clip_grad_norm"
NAMES = ("clip_grad_norm",)
DTYPES = {"f64": tf.float64, "f32": tf.float32, "bf16": tf.bfloat16, "f16": tf.float16}


def case(seed, title, note, clip_norm, shapes=((5, 3), (7,), ()), dtype="f32", scale=0, edit=None):
    g = rng(seed, "gradient", NAME, title)
    wide = [np.ldexp(spread(g, s, -6, 1), scale) for s in shapes]
    if edit:
        edit(wide)
    grads = [tf.cast(tf.constant(w), DTYPES[dtype]) for w in wide]
    out, norm = tf.clip_by_global_norm(grads, clip_norm)
    tensors = {"norm": float(norm)}
    for i, (a, b) in enumerate(zip(grads, out)):
        tensors |= {f"g{i}.in": a, f"g{i}.out": b}
    hyper = {"clip_norm": clip_norm, "use_norm": None}
    return Case(
        "gradient", NAME, title, "tensorflow.clip_by_global_norm", hyper, 1, note, tensors, seed,
        ["tensorflow-cpu", "numpy"],
    )  # fmt: skip


def cases(seed):
    for d in DTYPES:
        yield case(seed, f"tf_default_{d}", "no epsilon in the factor", 1.0, dtype=d)
        yield case(seed, f"tf_below_{d}", "below the limit: times clip · (1 / clip), not untouched", 13.7, dtype=d)
    yield case(seed, "tf_large_f32", "over one reduction block", 0.1, shapes=((33, 40), (2100,)))
    yield case(seed, "tf_zeros_f32", "a norm of 0", 1.0, edit=lambda w: [x.fill(0) for x in w])
    yield case(seed, "tf_overflow_f32", "squares overflow: all NaN", 1.0, scale=80)

    def put(value):
        def edit(w):
            w[0][1, 1] = value

        return edit

    yield case(seed, "tf_one_inf_f32", "one infinity: all NaN", 1.0, edit=put(np.inf))
    yield case(seed, "tf_one_nan_f32", "one NaN: all NaN", 1.0, edit=put(np.nan))
