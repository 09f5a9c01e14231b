"""Running TensorFlow optimizers. TensorFlow flushes subnormal numbers to 0, so no case holds any."""

import inspect

import ml_dtypes
import numpy as np
import tensorflow as tf

from golden import SHORT, Case, Rows, draw, raw, rng, spread

tf.get_logger().setLevel("ERROR")
PACKAGES = ["ml-dtypes", "numpy", "tensorflow-cpu", "tf-keras", "transformers"]

# The edge values of the torch battery, without subnormals and without squares that become subnormal.
EXTREMES = [1e-15, 1e-12, 1e15, 1e25, 1e30, 3e38]


def extremes(inputs):
    x, g = inputs.inits[0], inputs.grads[0]
    for j, value in enumerate(EXTREMES):
        g[:, j] = value
        g[:, j + 6] = 0.0
        g[1, j + 6] = -value
    g[:, 12] = 0.0
    x[12], x[13], x[14], x[15] = 0.0, -0.0, 1e30, -3e38


def slots(opt, var):
    """m, v and vhat of a variable, of either generation of Keras' optimizers; {} before they exist."""
    if hasattr(opt, "get_slot_names"):
        made = opt._slots.get(var._unique_id, {})
        return {name: made[name] for name in ("m", "v", "vhat") if name in made}
    if not getattr(opt, "_built", False):
        return {}
    i = opt._index_dict[opt._var_key(var)]
    found = {"m": opt._momentums[i], "v": opt._velocities[i]}
    return found | ({"vhat": opt._velocity_hats[i]} if opt.amsgrad else {})


def rate(opt, dtype):
    """The rate of the coming step, as the optimizer will compute it."""
    if hasattr(opt, "_decayed_lr"):
        return float(opt._decayed_lr(dtype))
    lr = opt._learning_rate
    return float(lr(opt.iterations) if callable(lr) else lr)


def arguments(make, hyper):
    args = inspect.signature(make).parameters
    return {k: p.default for k, p in args.items() if p.default is not p.empty} | hyper


def run_tf_optimizer(
    case,
    name,
    make,
    hyper,
    reference,
    *,
    seed,
    note,
    shapes=((4, 3), (5,)),
    dtype="f32",
    steps=16,
    inputs=None,
    names=None,
    groups=None,
    edit=None,
    lr=None,
    has_grad=None,
    late=None,
    prepare=None,
):
    """Runs what `make(**hyper)` returns.

    inputs   an Inputs instead of a drawn one
    names    the variables' names, which decide over their weight decay (in the file as `hyper.names`)
    groups   what those names come to, as the format's groups
    late     the number of steps made before; the moments are then drawn and stored as state0
    prepare  `prepare(opt, variables)` after construction
    """
    g = rng(seed, "optimizer", name, case)
    inputs = inputs or draw(g, shapes, steps, dtype, (-2, 1), edit=edit)
    kind = {"bf16": ml_dtypes.bfloat16}.get(dtype, SHORT[dtype])
    with np.errstate(over="ignore"):
        inits = [x.astype(kind) for x in inputs.inits]
        grads = [x.astype(kind) for x in inputs.grads]
    titles = names or [f"p{i}" for i in range(len(inits))]
    variables = [tf.Variable(x, name=title) for x, title in zip(inits, titles)]
    opt = make(**hyper)

    tensors = {f"p{i}.init": raw(x) for i, x in enumerate(inits)}
    tensors |= {f"p{i}.grad": raw(x) for i, x in enumerate(grads)}
    if late:
        opt.apply_gradients([(tf.ones_like(v), v) for v in variables])
        opt.iterations.assign(late)
        for i, (v, x) in enumerate(zip(variables, inits)):
            v.assign(x)
            for slot, s in slots(opt, v).items():
                drawn = spread(g, tuple(s.shape), -6, 0)
                s.assign((drawn if slot == "m" else abs(drawn)).astype(kind))
                tensors[f"p{i}.state0.{slot}"] = raw(s)
            tensors[f"p{i}.state0.step"] = raw(float(opt.iterations))
    if prepare:
        prepare(opt, variables)
    if has_grad:
        for i in range(len(variables)):
            tensors[f"p{i}.has_grad"] = raw(np.array([has_grad(i, t) for t in range(steps)], dtype=np.uint8))

    rows, rates = Rows(steps), []
    for t in range(steps):
        if lr is not None:
            opt.learning_rate = lr[t]
        rates.append(rate(opt, variables[0].dtype))
        present = [not has_grad or has_grad(i, t) for i in range(len(variables))]
        opt.apply_gradients([(tf.constant(x[t]) if p else None, v) for x, v, p in zip(grads, variables, present)])
        for i, v in enumerate(variables):
            rows.add(f"p{i}.value", v)
            state = slots(opt, v)
            for slot, s in state.items():
                rows.add(f"p{i}.state.{slot}", s)
            if state:
                rows.add(f"p{i}.state.step", float(opt.iterations))
    tensors |= rows.tensors()
    tensors["lr"] = raw(np.array(rates))

    written = arguments(make, hyper)
    if names:
        written["names"] = names
    if groups:
        written["groups"] = groups
    return Case("optimizer", name, case, reference, written, steps, note, tensors, seed, PACKAGES)


def battery_tf(case, strong, plain, lr_key):
    """`case(title, note, arguments, **run)`; `strong`: far from the defaults, f32 only; `plain`: the same for all dtypes."""
    for d, t in (("f32", 40), ("f64", 12), ("bf16", 24), ("f16", 16)):
        yield case(
            f"default_{d}",
            f"every default in {d}: f32 scalars whatever the dtype, no correction of the second moment",
            {},
            dtype=d,
            steps=t,
        )
    for d in ("f64", "bf16", "f16"):
        yield case(
            f"strong_{d}",
            f"{', '.join(plain)} far from the defaults in {d}: rounded after every operation in bf16 and f16",
            plain,
            dtype=d,
            steps=12,
        )
    yield case("strong_f32", f"{', '.join(strong)} far from the defaults", strong, steps=24)
    yield case(
        "shapes_f32",
        "0 dimensions, 0 elements, 1 element, odd sizes and three dimensions in one optimizer",
        strong,
        shapes=[(), (0,), (1,), (3, 0, 2), (2, 3, 5), (17,)],
        steps=6,
    )
    yield case("large_f32", "more than one block of 1024 and a remainder", strong, shapes=[(1031,)], steps=2)
    yield case("large_bf16", "the same, narrow", plain, shapes=[(3, 349)], dtype="bf16", steps=2)
    yield case(
        "extremes_f32",
        "1e30 and the largest number, squares that overflow, once and throughout; gradients that are always 0",
        strong,
        shapes=[(16,)],
        edit=extremes,
        steps=8,
    )
    for d, h in (("f32", strong), ("bf16", plain)):
        yield case(
            f"nonfinite_{d}",
            "NaN and infinities in single gradients and parameters: nothing may spread",
            h,
            shapes=[(9,), (2,)],
            edit=nonfinite,
            dtype=d,
            steps=6,
        )
    yield case("lr0_f32", "lr 0 throughout", {**strong, lr_key: 0.0}, steps=6)
    yield case(
        "nograd_f32",
        "steps without a gradient for one variable: its own bias correction goes on, iterations being global",
        strong,
        has_grad=lambda i, t: i == 1 or t not in (3, 4, 9),
        steps=12,
    )
    yield case(
        "joins_f32",
        "a variable whose first gradient comes at step 4: it is corrected as if it had been there",
        strong,
        has_grad=lambda i, t: i == 0 or t >= 4,
        steps=10,
    )


def nonfinite(inputs):
    x, g = inputs.inits[0], inputs.grads[0]
    g[0, 0] = np.nan
    g[2, 1] = np.nan
    g[2, 2] = np.inf
    g[2, 3] = -np.inf
    g[2, 4], g[3, 4] = np.inf, -np.inf
    x[5], x[6], x[7] = np.nan, np.inf, -np.inf
