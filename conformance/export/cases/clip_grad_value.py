import numpy as np
import torch

from golden import Case, rng, spread

ENV = "main"
NAME = "clip_grad_value"
DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def case(seed, title, note, clip_value, dtype="f32", shapes=((5, 3), (7,), ()), foreach=None, edit=None):
    g = rng(seed, "gradient", NAME, title)
    wide = [spread(g, s, -6, 3) for s in shapes]
    if edit:
        edit(wide)
    params, tensors = [], {}
    for i, w in enumerate(wide):
        x = torch.from_numpy(np.asarray(w)).to(DTYPES[dtype])
        params.append(torch.nn.Parameter(torch.zeros_like(x)))
        params[i].grad = x.clone()
        tensors[f"g{i}.in"] = x
    torch.nn.utils.clip_grad_value_(params, clip_value, foreach=foreach)
    tensors |= {f"g{i}.out": p.grad for i, p in enumerate(params)}
    hyper = {"clip_value": clip_value, "foreach": foreach}
    reference = "torch.nn.utils.clip_grad_value_"
    return Case("gradient", NAME, title, reference, hyper, 1, note, tensors, seed, ["torch", "numpy"])


def cases(seed):
    def special(w):
        w[0][0] = [np.nan, np.inf, -np.inf]
        w[1][:3] = [0.1, -0.1, -0.0]

    for d in DTYPES:
        yield case(seed, f"default_{d}", "both limits", 0.5, dtype=d)
        yield case(seed, f"special_{d}", "NaN stays, infinities are limited, the limit in the type", 0.1, d, edit=special)
    yield case(seed, "loop_f32", "tensor by tensor", 0.1, foreach=False, edit=special)
    yield case(seed, "zero_f32", "a limit of 0", 0.0)
    yield case(seed, "empty_f32", "no elements", 1.0, shapes=((0,), (2,)))
