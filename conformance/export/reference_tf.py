"""The references of the TensorFlow environment as a program behind `exec-loop:`; `reference.py` starts it."""

import json
import math
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
warnings.simplefilter("ignore")

import golden  # noqa: E402  before any reference: it says how TensorFlow is to run
import golden_tf  # noqa: E402
import numpy as np  # noqa: E402
import program  # noqa: E402
import tensorflow as tf  # noqa: E402
from program import SHORT, Unsupported, protocol  # noqa: E402
from transformers.modeling_tf_utils import keras  # noqa: E402
from transformers.optimization_tf import (  # noqa: E402
    AdamWeightDecay,
    GradientAccumulator,
    WarmUp,
    create_optimizer,
)

# The exponent of the smallest normal number, and the bits of a number. Of f16, which is computed in f32, TensorFlow has
# the subnormal numbers.
NORMAL = {"f64": (-1022, 53), "f32": (-126, 24), "bf16": (-126, 24)}
CREATED = {"adam_beta1": "beta_1", "adam_beta2": "beta_2", "adam_epsilon": "epsilon"}
CREATED |= {"adam_clipnorm": "clipnorm", "adam_global_clipnorm": "global_clipnorm", "init_lr": "learning_rate"}


class Constant(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of a step, which comes with the request."""

    def __init__(self, rate, dtype):
        self.rate = tf.cast(tf.constant(rate, tf.float64), dtype)

    def __call__(self, step):
        return self.rate

    def get_config(self):
        return {}


def least(*numbers):
    """The exponent of the smallest of these numbers that is not 0."""
    sizes = [np.abs(np.asarray(x, dtype="f8")).ravel() for x in numbers]
    sizes = np.concatenate([x[(x > 0) & np.isfinite(x)] for x in sizes] or [[]])
    return math.floor(math.log2(sizes.min())) if sizes.size else 10_000


def most(*numbers):
    """The exponent above the largest of these numbers."""
    sizes = np.concatenate([np.abs(np.asarray(x, dtype="f8")).ravel() for x in numbers] or [[]])
    sizes = sizes[(sizes > 0) & np.isfinite(sizes)]
    return math.ceil(math.log2(sizes.max())) if sizes.size else -10_000


def refuse_subnormal(dtype, whole, products):
    """TensorFlow takes subnormal numbers for 0: refuses runs that may have some. `whole`: exponents of the smallest
    numbers that are added, `products`: of results."""
    if dtype in NORMAL:
        smallest, bits = NORMAL[dtype]
        if min(whole, default=0) - bits < smallest or min(products, default=0) - 2 < smallest:
            raise Unsupported("numbers that may be subnormal, which TensorFlow takes for 0")


def preset(wanted):
    """`prepare` of a run that starts from state: one step makes the slots, then each is overwritten."""
    steps = {float(slots["step"]) for slots in wanted if slots}
    if len(steps) != 1:
        raise Unsupported("a run from preset state: iterations are those of the optimizer")

    def prepare(opt, variables):
        start = [v.numpy() for v in variables]
        opt.apply_gradients([(tf.ones_like(v), v) for v in variables])
        opt.iterations.assign(int(steps.copy().pop()))
        for v, x, given in zip(variables, start, wanted):
            v.assign(x)
            for slot, s in golden_tf.slots(opt, v).items():
                if given and slot not in given:
                    raise Unsupported("a run from preset state: it has other slots than are shown")
                s.assign(tf.cast(tf.constant(given[slot] if given else np.zeros(s.shape)), s.dtype))

    return prepare


def optimizer(request):
    if any("given." in name for name in request.tensors):
        raise Unsupported("inputs beside the gradients")
    is_created = request.meta["reference"].endswith(".create_optimizer")
    hyper = {k: x for k, x in request.hyper.items() if k not in ("names", "groups", "reference", "lr")}
    decay = hyper.get("weight_decay_rate") or 0.0
    if is_created and (decay > 0) != (request.name == "adam_weight_decay"):
        raise Unsupported("create_optimizer: the decay says which of two optimizers it makes")
    count = len([n for n in request.tensors if n.endswith(".init")])
    dtypes = {request.tensors[f"p{i}.init"][0] for i in range(count)}
    if len(dtypes) > 1:
        raise Unsupported("parameters of several types")
    dtype = SHORT[dtypes.pop()]

    if dtype in ("bf16", "f16") and any(hyper.get(key) for key in ("clipnorm", "adam_clipnorm")):
        raise Unsupported("clipnorm in 16 bits: TensorFlow rounds each partial sum, in an order of its own")

    # Which variables decay is said by their names.
    names = [f"p{i}" for i in range(count)]
    for group in protocol.arguments(json.loads(request.meta["groups"])):
        differs = {k for k in group if k != "params" and group[k] != request.hyper.get(k)}
        if differs == {"weight_decay_rate"} and group["weight_decay_rate"] == 0:
            for i in group["params"]:
                names[i] += "/bias"
        elif differs:
            raise Unsupported("groups: TensorFlow's optimizers have none")
    hyper["include_in_weight_decay"] = None
    if not is_created:
        hyper["exclude_from_weight_decay"] = ["bias"]

    rates, key = request.array("lr"), "init_lr" if is_created else "learning_rate"
    rates = [hyper[key]] * int(request.meta["steps"]) if rates is None else rates
    # Divided by 1 + decay · t, a rate is no longer an f32.
    kind = "float64" if hyper.get("decay") else "float32"

    def make(**own):
        opt = create_optimizer(**own)[0] if is_created else AdamWeightDecay(**own)
        opt._initial_decay = 0.0  # the rates have it
        return opt

    start, has = [request.under(f"p{i}.state0.") for i in range(count)], [request.array(f"p{i}.has_grad") for i in range(count)]
    if any(h is not None for h in has) and not all(any(h is None or h[t] for h in has) for t in range(len(rates))):
        raise Unsupported("a step without any gradient, which TensorFlow refuses")
    inputs = golden.Inputs(
        [request.array(f"p{i}.init").astype("f8") for i in range(count)],
        [request.array(f"p{i}.grad").astype("f8") for i in range(count)],
    )
    case = golden_tf.run_tf_optimizer(
        "fuzz", request.name, make, hyper, "", seed=0, note="", dtype=dtype, steps=len(rates), inputs=inputs, names=names,
        lr=[Constant(x, kind) for x in rates],
        has_grad=(lambda i, t: has[i] is None or bool(has[i][t])) if any(h is not None for h in has) else None,
        prepare=preset(start) if any(start) else None,
    )  # fmt: skip

    def shown(slot):
        found = [case.tensors.get(f"p{i}.{slot}") for i in range(count)]
        return [protocol.widen(t[0], np.frombuffer(t[2], protocol.TYPES[t[0]])) for t in found if t]

    plain = {CREATED.get(k, k): x for k, x in hyper.items()}
    of = lambda key: plain.get(key) or 0.0
    m, v, p = ([s[slot] for s in start if slot in s] for slot in ("m", "v", "p"))
    m, v, p = m + shown("state.m"), v + shown("state.v") + shown("state.vhat"), inputs.inits + shown("value")
    beta1, beta2 = least(1 - of("beta_1")), least(1 - of("beta_2"))
    norm = np.sqrt(sum(np.square(np.where(np.isfinite(g), g, 0)).sum() for g in inputs.grads))
    clips = [x / norm for x in (of("clipnorm"), of("global_clipnorm")) if x and norm > x]
    g = least(*inputs.grads) + min(0, least(*clips)) if not of("clipvalue") else least(of("clipvalue"), *inputs.grads)
    lr, denominator = least(rates), max(most(*v) / 2, most(of("epsilon")))
    alpha = lr + min(0, beta2 / 2) - max(0, most(1 - of("beta_1")))
    whole = [g + beta1, 2 * g + beta2, least(*m), least(*v), least(*p)]
    products = [2 * g, least(of("epsilon")), alpha, least(*m) + alpha, least(*m) + alpha - max(0, denominator), lr + least(*p)]
    refuse_subnormal(dtype, whole, [*products, lr + least(*p) + min(0, least(decay))])
    skip = ("init", "grad", "has_grad")
    return {n: t for n, t in case.tensors.items() if n[0] == "p" and n.split(".", 1)[1] not in skip}


def numbers(x):
    """All numbers of arguments."""
    if isinstance(x, (dict, list)):
        return [y for part in (x.values() if isinstance(x, dict) else x) for y in numbers(part)]
    return [float(x)] if isinstance(x, (int, float)) else []


def decays(schedule, wide):
    """A decay of Keras'; `wide`: in f64, which has no subnormal number among the rates."""
    config = schedule["config"]
    if wide and "initial_learning_rate" in config:
        config = {**config, "initial_learning_rate": np.float64(config["initial_learning_rate"])}
    return getattr(keras.optimizers.schedules, schedule["class_name"])(**config)


def schedule(request):
    hyper, sizes = {k: x for k, x in request.hyper.items() if k != "lr"}, []
    count = range(int(request.meta["steps"]) + 1)
    if request.name == "create_optimizer":
        _, made = create_optimizer(**hyper)
        init, warmup, power = hyper["init_lr"], hyper["num_warmup_steps"], 1.0
        line = {"initial_learning_rate": init, "end_learning_rate": init * hyper["min_lr_ratio"], "power": hyper["power"]}
        line["decay_steps"] = hyper["num_train_steps"] - warmup
        decay = {"class_name": "PolynomialDecay", "config": line}
    else:
        decay = hyper.pop("decay_schedule_fn")
        init, warmup, power = (hyper[key] for key in ("initial_learning_rate", "warmup_steps", "power"))
        made = WarmUp(decay_schedule_fn=decays(decay, False), **hyper)
    rows = [[float(made(tf.constant(t, tf.int64)))] * int(request.meta["groups"]) for t in count]
    wide = decays(decay, True)
    for t in count:
        if t < warmup:
            factor = np.float64(t / warmup) ** power
            sizes += [factor, init * factor]
        else:
            sizes.append(float(wide(tf.constant(t - int(warmup), tf.int64))))
    refuse_subnormal("f32", [], [least(numbers(request.hyper), sizes)])
    return {"lr": np.array(rows, dtype="f8")}


def gradient(request):
    tensors = []
    while (name := f"g{len(tensors)}.in") in request.tensors:
        dtype, x = request.tensors[name]
        tensors.append(tf.cast(tf.constant(np.asarray(protocol.widen(dtype, x), "f8")), golden.SHORT[SHORT[dtype]]))
    if any(".given." in name for name in request.tensors):
        raise Unsupported("inputs beside the gradients")
    wide = [protocol.widen(*request.tensors[f"g{i}.in"]) for i in range(len(tensors))]
    dtypes = [SHORT[request.tensors[f"g{i}.in"][0]] for i in range(len(tensors))]
    out, sizes, products = {}, [least(x) for x in wide], []
    if request.name == "accumulate":
        results = []
        for rows in tensors:
            accumulator = GradientAccumulator()
            for row in rows:
                accumulator([row])
            results.append(accumulator.gradients[0])
    elif request.name == "clip_grad_norm":
        for x, dtype in zip(wide, dtypes):
            if dtype == "f16" and np.count_nonzero(x) == 1 and 2 * least(x) < -13:
                raise Unsupported("clip_by_global_norm in f16: the square of a single number is rounded before it is halved")
        results, norm = tf.clip_by_global_norm(tensors, request.hyper["clip_norm"], request.hyper.get("use_norm"))
        out["norm"] = float(norm)
        factor = min(0, least(request.hyper["clip_norm"]) - max(0, most(out["norm"])))
        products = [x for size in sizes for x in (2 * size, size + factor)]
        sizes = []
    else:
        limits = request.hyper["clip_value_min"], request.hyper["clip_value_max"]
        results, products, sizes = [tf.clip_by_value(x, *limits) for x in tensors], [*sizes, least(*limits)], []
    for dtype in set(dtypes):
        refuse_subnormal(dtype, sizes, products)
    return out | {f"g{i}.out": x for i, x in enumerate(results)}


program.serve(optimizer=optimizer, schedule=schedule, gradient=gradient)
