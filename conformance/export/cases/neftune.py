import numpy as np
import torch
from transformers.integrations.neftune import neftune_post_forward_hook

from golden import Case, rng, spread

ENV = "main"
NAME = "neftune"
DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class Module:
    def __init__(self, alpha, training):
        self.neftune_noise_alpha, self.training = alpha, training


def case(seed, title, note, alpha, shape=(2, 5, 6), dtype="f32", training=True, edit=None):
    g = rng(seed, "gradient", NAME, title)
    wide = spread(g, shape, -4, 1)
    if edit:
        edit(wide)
    before = torch.from_numpy(wide).to(DTYPES[dtype])
    stream = int(g.integers(2**31))
    torch.manual_seed(stream)
    after = neftune_post_forward_hook(Module(alpha, training), None, before)
    tensors = {"g0.in": before, "g0.out": after}
    if training:
        # The reference's own stream again: uniform numbers in [0, 1), for 16-bit types in f32, in which it draws them.
        torch.manual_seed(stream)
        drawn = torch.float64 if dtype == "f64" else torch.float32
        tensors["g0.given.unit"] = torch.zeros_like(before, dtype=drawn).uniform_(0, 1)
    hyper = {"neftune_noise_alpha": alpha, "training": training}
    reference = "transformers.integrations.neftune.neftune_post_forward_hook"
    return Case("gradient", NAME, title, reference, hyper, 1, note, tensors, seed, ["torch", "transformers", "numpy"])


def cases(seed):
    for d in DTYPES:
        yield case(seed, f"default_{d}", "alpha / sqrt(length · width), the batch does not count", 5.0, dtype=d)
    yield case(seed, "weak_f32", "a small alpha", 0.1, shape=(3, 7, 4))
    yield case(seed, "zero_f32", "alpha 0", 0.0)
    yield case(seed, "eval_f32", "no noise outside of training", 5.0, training=False)
    yield case(seed, "one_token_f32", "length 1", 10.0, shape=(1, 1, 8))
    yield case(seed, "large_f32", "over one reduction block", 5.0, shape=(2, 10, 60))

    def special(w):
        w.flat[:3] = [np.nan, np.inf, -np.inf]

    yield case(seed, "nonfinite_f32", "noise on NaN and infinity", 5.0, edit=special)
