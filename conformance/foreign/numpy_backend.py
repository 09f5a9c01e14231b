"""PyTorch's AdamW and SGD, and Transformers' Adafactor, in numpy: a backend of the suite.

    bitstep-conformance verify --only '{adamw_torch,sgd,adafactor}' \
        --backend 'exec-loop:python3 conformance/foreign/numpy_backend.py'

FAULT makes it wrong, and the suite says how. AdamW: coupled, eps_inside, f16, f32, off_by_one, betas_swapped,
eps_before, no_maximum, lr_f32, one_element, denormal, after_missing; SGD: dampening_first, nesterov.
"""

import math
import os

import numpy as np

from request import Unsupported, serve, steps

FAULT = os.environ.get("FAULT", "")


def adamw(p, g, state, arg, dtype):
    if dtype not in ("F32", "F64"):
        raise Unsupported("f32 and f64 only: torch rounds narrower numbers after every operation")
    if FAULT in ("f16", "f32"):
        narrow = np.float16 if FAULT == "f16" else np.float32
        arg = {key: float(narrow(x)) if type(x) is float else x for key, x in arg.items()}
        arg["betas"] = [float(narrow(x)) for x in arg["betas"]]
    (beta1, beta2), lr, decay = arg["betas"], arg["lr"], arg["weight_decay"]
    if FAULT == "betas_swapped":
        beta1, beta2 = beta2, beta1
    if FAULT == "lr_f32":
        lr = float(np.float32(lr))
    if FAULT == "one_element" and p.size == 1:
        lr = lr / 2
    if FAULT == "denormal":
        g = np.where(np.abs(g) < np.finfo(g.dtype).tiny, g * 0, g)
    g = -g if arg["maximize"] else g
    if FAULT == "coupled":
        g = g + decay * p
    else:
        p = p * (1 - lr * decay)
    m, v = state.start("exp_avg", np.zeros_like(g)), state.start("exp_avg_sq", np.zeros_like(g))
    t = state.start("step", 0.0) + 1
    if FAULT == "after_missing" and state.missed:
        m = np.zeros_like(m)
    way = g - m
    m = m + (1 - beta1) * way if 1 - beta1 < 0.5 else g - way * (1 - (1 - beta1))
    v = v * beta2 + (1 - beta2) * g * g
    state.update(exp_avg=m, exp_avg_sq=v, step=t)
    if FAULT == "off_by_one":
        t = t + 1
    correction1, correction2 = 1 - beta1 ** float(t), 1 - beta2 ** float(t)
    if arg["amsgrad"]:
        largest = state.start("max_exp_avg_sq", np.zeros_like(g))
        v = state["max_exp_avg_sq"] = v if FAULT == "no_maximum" else np.maximum(largest, v)
    if FAULT == "eps_inside":
        denominator = np.sqrt(v / correction2 + arg["eps"])
    elif FAULT == "eps_before":
        denominator = (np.sqrt(v) + arg["eps"]) / math.sqrt(correction2)
    else:
        denominator = np.sqrt(v) / math.sqrt(correction2) + arg["eps"]
    return p + -lr / correction1 * m / denominator


def sgd(p, g, state, arg, dtype):
    if dtype not in ("F32", "F64"):
        raise Unsupported("f32 and f64 only: torch rounds narrower numbers after every operation")
    g = -g if arg["maximize"] else g
    if arg["weight_decay"]:
        g = g + arg["weight_decay"] * p
    if arg["momentum"]:
        old = state.get("momentum_buffer", None)
        if old is None:
            m = state.start("momentum_buffer", (1 - arg["dampening"]) * g if FAULT == "dampening_first" else g)
        else:
            m = state["momentum_buffer"] = old * arg["momentum"] + (1 - arg["dampening"]) * g
        if FAULT == "nesterov" and old is not None:
            g = g + arg["momentum"] * old if arg["nesterov"] else m
        else:
            g = g + arg["momentum"] * m if arg["nesterov"] else m
    return p + -arg["lr"] * g


def rms(x):
    if x.size == 1:  # the norm of one number is its size: no square overflows or vanishes
        return np.abs(x).reshape(())
    return np.sqrt(np.sum(x * x)) / x.dtype.type(math.sqrt(x.size))


def adafactor(p, g, state, arg, _dtype):
    g = g.astype(p.dtype)
    if g.dtype == np.float16:
        g, p = g.astype(np.float32), p.astype(np.float32)
    factored = g.ndim >= 2
    t = state["step"] = float(state.start("step", 0.0)) + 1
    state["RMS"] = rms(p)
    lr = arg["lr"]
    if arg["relative_step"]:
        lr = min(1e-6 * t if arg["warmup_init"] else 1e-2, 1 / math.sqrt(t))
    if arg["scale_parameter"]:
        lr = lr * (state["RMS"] if state["RMS"] > arg["eps"][1] else arg["eps"][1])
    beta = 1 - t ** arg["decay_rate"]
    x = g * g + arg["eps"][0]
    if factored:
        row = state.start("exp_avg_sq_row", np.zeros(g.shape[:-1], g.dtype))
        col = state.start("exp_avg_sq_col", np.zeros(g.shape[:-2] + g.shape[-1:], g.dtype))
        row = state["exp_avg_sq_row"] = row * beta + (1 - beta) * x.mean(-1)
        col = state["exp_avg_sq_col"] = col * beta + (1 - beta) * x.mean(-2)
        u = 1 / np.sqrt(row / row.mean(-1, keepdims=True))[..., None] * (1 / np.sqrt(col))[..., None, :] * g
    else:
        v = state["exp_avg_sq"] = state.start("exp_avg_sq", np.zeros_like(g)) * beta + (1 - beta) * x
        u = 1 / np.sqrt(v) * g
    size = rms(u) / arg["clip_threshold"]
    u = u / (size if not size < 1 else 1) * lr
    if arg["beta1"] is not None:
        u = state.start("exp_avg", np.zeros_like(g)) * arg["beta1"] + (1 - arg["beta1"]) * u
        state["exp_avg"] = u
    if arg["weight_decay"]:
        p = p + -arg["weight_decay"] * lr * p
    return p - u


RULES = {"adamw_torch": adamw, "sgd": sgd, "adafactor": adafactor}


def backend(request):
    if request.kind != "optimizer" or request.name not in RULES:
        raise Unsupported(f"only {', '.join(RULES)}")
    return steps(request, RULES[request.name])


serve(backend)
