import math

import numpy as np
import torch

from golden import Case, rng, spread

ENV = "main"
NAME = "clip_grad_norm"
DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def case(seed, title, note, hyper, shapes=((5, 3), (7,), ()), dtypes=("f32",), scale=0, edit=None):
    g = rng(seed, "gradient", NAME, title)
    wide = [np.ldexp(spread(g, s, -6, 1), scale) for s in shapes]
    if edit:
        edit(wide)
    grads = [torch.from_numpy(np.asarray(w)).to(DTYPES[dtypes[i % len(dtypes)]]) for i, w in enumerate(wide)]
    params = [torch.nn.Parameter(torch.zeros_like(x)) for x in grads]
    for p, x in zip(params, grads):
        p.grad = x.clone()
    hyper = {"max_norm": 1.0, "norm_type": 2.0, "error_if_nonfinite": False, "foreach": None} | hyper
    norm = torch.nn.utils.clip_grad_norm_(params, **hyper)
    tensors = {"norm": float(norm)}
    for i, (p, x) in enumerate(zip(params, grads)):
        tensors |= {f"g{i}.in": x, f"g{i}.out": p.grad}
    if math.isinf(float(hyper["norm_type"])):
        hyper["norm_type"] = str(float(hyper["norm_type"]))
    reference = "torch.nn.utils.clip_grad_norm_"
    return Case("gradient", NAME, title, reference, hyper, 1, note, tensors, seed, ["torch", "numpy"])


def fill(*values):
    def edit(w):
        w[:] = [np.full(np.shape(x), value) for x, value in zip(w, values, strict=True)]

    return edit


def cases(seed):
    for d in DTYPES:
        yield case(seed, f"default_{d}", "a norm above the limit: all tensors shrink by one factor", {}, dtypes=[d])
        yield case(seed, f"below_{d}", "a norm below the limit: nothing changes", {"max_norm": 1e4}, dtypes=[d])
        yield case(seed, f"loop_{d}", "tensor by tensor", {"max_norm": 0.3, "foreach": False}, dtypes=[d])
        for title, order in (("one", 1.0), ("inf", math.inf), ("three", 3.0), ("half", 0.5)):
            yield case(seed, f"{title}_{d}", f"norm of order {order}", {"norm_type": order, "max_norm": 0.7}, dtypes=[d])
    yield case(seed, "zero_order_f32", "order 0 counts", {"norm_type": 0.0, "max_norm": 2.0})
    yield case(seed, "minus_inf_f32", "order -inf is the smallest", {"norm_type": -math.inf, "max_norm": 1e-3})
    yield case(seed, "mixed_f32_bf16", "mixed types: the norm is in the wider", {}, dtypes=["f32", "bf16"])
    yield case(seed, "mixed_bf16_f16", "bf16 and f16 meet in f32", {}, dtypes=["bf16", "f16"])
    yield case(seed, "mixed_f64_f32", "f64 and f32 meet in f64", {}, dtypes=["f64", "f32", "bf16"])
    yield case(seed, "large_f32", "over one reduction block", {"max_norm": 0.1}, shapes=((33, 40), (2100,)))
    yield case(seed, "large_bf16", "over one reduction block", {"max_norm": 0.1}, shapes=((33, 40),), dtypes=["bf16"])
    yield case(seed, "empty_f32", "a tensor without elements", {}, shapes=((0, 3), (4,)))
    yield case(seed, "max_norm0_f32", "a limit of 0", {"max_norm": 0.0})
    yield case(seed, "zeros_f32", "a norm of 0: no division by it", {}, edit=lambda w: [x.fill(0) for x in w])
    yield case(seed, "tiny_f32", "norms near 1e-6: epsilon shows", {"max_norm": 1e-7}, scale=-22)
    yield case(seed, "overflow_f32", "squares overflow f32: infinite norm, zero gradients", {}, scale=80)
    yield case(seed, "underflow_f32", "squares underflow f32", {"max_norm": 1e-12}, scale=-90)
    yield case(seed, "exp_scale_f64", "the same sizes in f64", {"max_norm": 1e-3}, dtypes=["f64"], scale=80)

    for d, large, small in (("f64", 2.29e200, 1e-200), ("f32", 2.29e30, 1e-30), ("bf16", 2.29e30, 1e-30), ("f16", 3e4, 6e-8)):
        for title, order in (("", 2.0), ("_three", 3.0)):
            for size, value in (("large", large), ("small", small)):
                yield case(
                    seed,
                    f"single_{size}{title}_{d}",
                    "a single number: its norm is its size, and nothing overflows or vanishes",
                    {"norm_type": order, "max_norm": small / 2},
                    shapes=((),),
                    dtypes=[d],
                    edit=fill(-value),
                )
    yield case(seed, "single_loop_f32", "the same tensor by tensor", {"foreach": False}, shapes=((1, 1),), edit=fill(2.29e30))
    for title, order in (("one", 1.0), ("inf", math.inf), ("minus_inf", -math.inf), ("half", 0.5), ("zero_order", 0.0)):
        hyper = {"norm_type": order}
        yield case(seed, f"single_{title}_f32", f"a single number, order {order}", hyper, shapes=((1,),), edit=fill(1e30))
    yield case(
        seed,
        "singles_f32",
        "several: each has the norm of a single number, all together that of a list",
        {"norm_type": 3.0, "max_norm": 1e-3},
        shapes=((), (1,), (2,)),
        edit=fill(-1e-20, 3e12, 0.5),
    )

    def put(value):
        def edit(w):
            w[0][1, 1] = value

        return edit

    for title, value in (("inf", math.inf), ("nan", math.nan)):
        for d in ("f32", "bf16"):
            yield case(seed, f"one_{title}_{d}", f"one {title} among the gradients", {}, dtypes=[d], edit=put(value))
            hyper = {"norm_type": math.inf}
            yield case(seed, f"one_{title}_order_inf_{d}", f"one {title}, largest", hyper, dtypes=[d], edit=put(value))
