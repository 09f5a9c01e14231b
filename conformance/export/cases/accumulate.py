import numpy as np
import torch

from golden import Case, rng, spread

ENV = "main"
NAME = "accumulate"
DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def case(seed, title, note, window, reduction, dtype="f32", shapes=((5, 3), (7,)), batches=None, edit=None):
    """Backward passes of Σ w·x with gradient x, the loss divided by the window for the mean."""
    g = rng(seed, "gradient", NAME, title)
    batches = batches or window
    tensors = {}
    for i, shape in enumerate(shapes):
        wide = spread(g, (batches, *shape), -6, 1)
        if edit:
            edit(wide)
        x = torch.from_numpy(wide).to(DTYPES[dtype])
        w = torch.nn.Parameter(torch.zeros(shape, dtype=DTYPES[dtype]))
        for m, row in enumerate(x):
            if m % window == 0:
                w.grad = None  # as `zero_grad` does after the optimizer's step
            # A gradient of ones times the mean's factor, then times x: as a loss / M runs backward.
            loss = (w * row).sum()
            (loss / window if reduction == "mean" else loss).backward()
        tensors |= {f"g{i}.in": x, f"g{i}.out": w.grad}
    hyper = {"gradient_accumulation_steps": window, "reduction": reduction}
    return Case("gradient", NAME, title, "torch.Tensor.backward", hyper, 1, note, tensors, seed, ["torch", "numpy"])


def cases(seed):
    for d in DTYPES:
        yield case(seed, f"mean3_{d}", "the mean multiplies by the rounded 1/3", 3, "mean", d)
        yield case(seed, f"sum5_{d}", "the sum rounds each time", 5, "sum", d)
    yield case(seed, "mean7_f32", "seven", 7, "mean")
    yield case(seed, "mean1_f32", "a window of one", 1, "mean")
    yield case(seed, "partial_f32", "a partial window: three of four micro-batches, each a quarter", 4, "mean", batches=3)

    yield case(seed, "windows_f32", "five micro-batches in windows of three: the gradient is that of the second", 3, "mean", batches=5)

    def special(w):
        w[0].flat[:2] = [np.inf, np.nan]
        w[1].flat[0] = -np.inf

    yield case(seed, "nonfinite_f32", "infinities cancel to NaN", 2, "mean", edit=special)
    yield case(seed, "large_f32", "over one reduction block", 3, "mean", shapes=((1100,),))
    yield case(seed, "empty_f32", "no elements", 2, "sum", shapes=((0, 2),))
