import math

import numpy as np
from grokadamw import GrokAdamW

from battery import battery, maker

ENV = "main"


LATE = {"step": 999_990, "exp_avg": "signed", "exp_avg_sq": "positive", "grok_ema": "signed"}


def one_state(opt):
    """The reference keeps its state in a dictionary of the group; let it be the optimizer's own, where others look."""
    for group in opt.param_groups:
        group["state"] = opt.state


def losses(train, evaluation):
    """Hands the reference the losses of each step and stores them."""

    def before(opt, params, t, rows):
        for group in opt.param_groups:
            group["train_loss"], group["eval_loss"] = train[t], evaluation[t]
        rows.add("given.train_loss", float(train[t]))
        rows.add("given.eval_loss", float(evaluation[t]))

    return {"before": before, "steps": len(train)}


def cases(seed):
    case = maker("grokadamw", GrokAdamW, seed, made=one_state, packages=("torch",))
    # A large threshold: otherwise every gradient is cut to norm 1 and sizes don't show.
    strong = {
        "lr": 0.05,
        "betas": (0.8, 0.95),
        "eps": 1e-3,
        "weight_decay": 0.2,
        "alpha_init": 0.9,
        "lamb": 1.5,
        "gamma": 0.2,
        "gradient_clipping": 4.0,
    }
    yield from battery(case, strong, f16={"eps": 0.05}, coupled=True, late=LATE, late_hyper={"betas": (0.9, 0.999999)})
    rng = np.random.Generator(np.random.PCG64(seed))
    train = rng.uniform(0.2, 3.0, 12)
    evaluation = train * rng.uniform(0.5, 4.0, 12)
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"losses_{d}",
            "losses that give a signal: the decay of the slow average falls with it",
            {**strong, **({"eps": 0.05} if d == "f16" else {}), "grokking_signal_decay_rate": 0.8},
            dtype=d,
            **losses(train, evaluation),
        )
    odd = [(0.0, 0.0), (-1.0, -0.5), (-1.0, 0.5), (2.0, 1.0), (0.0, 1.0), (1e-300, 1e300)]
    odd += [(math.inf, 1.0), (math.nan, 1.0), (1.0, math.nan), (1.0, 3.0), (math.inf, math.inf)]
    odd += [(1.0, math.inf)]  # inf/inf: a signal of NaN, after which everything is
    for d in ("f32", "f64"):
        yield case(
            f"odd_losses_{d}",
            "losses that are 0, negative, infinite or NaN, and a validation loss below the other",
            {**strong, "grokking_signal_decay_rate": 0.8},
            dtype=d,
            **losses([a for a, _ in odd], [b for _, b in odd]),
        )
    many = [(3,), (2, 2), (4,), (1,), (5,)]
    for d in ("f32", "f64", "bf16"):
        yield case(
            f"layers_{d}",
            "five layers: beta1 falls from layer to layer, its correction does not",
            {**strong, "gamma": 0.4},
            dtype=d,
            shapes=many,
            steps=10,
        )
    yield case(
        "layers_nograd_f32",
        "only parameters with a gradient count as layers, so a layer's beta1 changes",
        {**strong, "gamma": 0.4},
        shapes=many,
        steps=10,
        has_grad=lambda i, t: (t + i) % 4 != 0 and t != 5,
    )
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"clip_{d}",
            "a threshold that cuts at some steps: each parameter by its own norm, before the averages",
            {**strong, **({"eps": 0.05} if d == "f16" else {}), "gradient_clipping": 0.5},
            dtype=d,
            steps=10,
        )
    for d in ("f32", "bf16"):
        yield case(
            f"clip_off_{d}",
            "gradient_clipping = 0: not clipped at all",
            {**strong, "gradient_clipping": 0.0},
            dtype=d,
            steps=8,
        )
    yield case(
        "clip_negative_f32", "a negative threshold does not clip either", {**strong, "gradient_clipping": -1.0}, steps=5
    )
    yield case("alpha0_f32", "alpha_init = 0: no slow average", {**strong, "alpha_init": 0.0}, steps=6)
    yield case("alpha1_f32", "alpha_init = 1: a slow average that stays 0", {**strong, "alpha_init": 1.0}, steps=6)
    yield case("gamma0_f32", "gamma = 0: all layers alike", {**strong, "gamma": 0.0}, steps=6)
    yield case("gamma1_f64", "gamma = 1: beta1 is 0 but for the first layer", {**strong, "gamma": 1.0}, dtype="f64", steps=6)
    yield case("lamb0_f32", "lamb = 0: AdamW with an uncorrected epsilon", {**strong, "lamb": 0.0}, steps=6)
    yield case("decay0_f64", "no decay", {**strong, "weight_decay": 0.0}, dtype="f64", steps=6)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {**strong, "eps": 0.0}, steps=6)
    yield case("beta1_0_f32", "beta1 = 0", {**strong, "betas": (0.0, 0.9)}, steps=6)
    yield case("beta2_0_f32", "beta2 = 0", {**strong, "betas": (0.9, 0.0)}, steps=6)
    yield case(
        "groups_f32",
        "groups with arguments and layers of their own",
        strong,
        shapes=[(5,), (2, 3), (4,), (3,)],
        groups=[
            {"params": [0, 1]},
            {"params": [2, 3], "lr": 0.01, "betas": (0.5, 0.7), "gamma": 0.5, "lamb": 0.5, "alpha_init": 0.5},
        ],
        steps=8,
    )
