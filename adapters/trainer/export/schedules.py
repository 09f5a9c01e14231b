"""Runs every schedule of Transformers and torch with values at the edges of its arguments, and
writes the rates, or where and how it raises, to ../fixtures/settings/schedules.json.
See README.md beside it."""

import argparse
import itertools
import json
import math
import warnings
from pathlib import Path

import torch
import transformers
from torch.optim import lr_scheduler
from transformers import get_scheduler

assert transformers.__version__ == "5.23.0", transformers.__version__
warnings.simplefilter("ignore")

STEPS = 8
LRS = [0.1, 0.05]
METRICS = [1.0, 0.5, 0.6, 0.6, 0.7, 0.7, 0.4, 0.3]

TORCH = {
    "torch_constant": lr_scheduler.ConstantLR,
    "torch_cosine_annealing": lr_scheduler.CosineAnnealingLR,
    "torch_cosine_annealing_warm_restarts": lr_scheduler.CosineAnnealingWarmRestarts,
    "torch_cyclic": lr_scheduler.CyclicLR,
    "torch_exponential": lr_scheduler.ExponentialLR,
    "torch_linear": lr_scheduler.LinearLR,
    "torch_multi_step": lr_scheduler.MultiStepLR,
    "torch_one_cycle": lr_scheduler.OneCycleLR,
    "torch_polynomial": lr_scheduler.PolynomialLR,
    "torch_step": lr_scheduler.StepLR,
}

# The arguments that every case of a schedule starts from.
BASE = {
    "constant": {},
    "constant_with_warmup": {"num_warmup_steps": 2},
    "linear": {"num_warmup_steps": 2, "num_training_steps": 6},
    "cosine": {"num_warmup_steps": 2, "num_training_steps": 6},
    "cosine_with_restarts": {"num_warmup_steps": 2, "num_training_steps": 6},
    "polynomial": {"num_warmup_steps": 2, "num_training_steps": 6},
    "inverse_sqrt": {"num_warmup_steps": 2},
    "cosine_with_min_lr": {"num_warmup_steps": 2, "num_training_steps": 6, "min_lr": 0.01},
    "cosine_warmup_with_min_lr": {"num_warmup_steps": 2, "num_training_steps": 6, "min_lr": 0.01},
    "warmup_stable_decay": {"num_warmup_steps": 2, "num_training_steps": 7, "num_decay_steps": 3},
    "reduce_lr_on_plateau": {"patience": 1, "factor": 0.5},
    "greedy": {"patience": 1, "factor": 0.5},
    "torch_constant": {"factor": 0.5, "total_iters": 3},
    "torch_cosine_annealing": {"T_max": 3},
    "torch_cosine_annealing_warm_restarts": {"T_0": 3},
    "torch_cyclic": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
    "torch_exponential": {"gamma": 0.5},
    "torch_linear": {"start_factor": 0.5, "total_iters": 3},
    "torch_multi_step": {"milestones": [2, 4], "gamma": 0.5},
    "torch_one_cycle": {"max_lr": 0.1, "total_steps": 8},
    "torch_polynomial": {"total_iters": 3, "power": 2.0},
    "torch_step": {"step_size": 2, "gamma": 0.5},
}

FLOATS = [0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 0.1, 1e300, math.nan, math.inf, -math.inf]
WHOLE = [0, 1, 2, 6, 8, -1, 1000000]

FLOAT_ARGUMENTS = {
    "cosine": ["num_cycles"],
    "cosine_with_restarts": ["num_cycles"],
    "polynomial": ["lr_end", "power"],
    "inverse_sqrt": ["timescale"],
    "cosine_with_min_lr": ["num_cycles", "min_lr", "min_lr_rate"],
    "cosine_warmup_with_min_lr": ["num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"],
    "warmup_stable_decay": ["min_lr_ratio", "num_cycles"],
    "reduce_lr_on_plateau": ["factor", "threshold", "min_lr", "eps"],
    "greedy": ["factor", "threshold", "min_lr", "max_lr", "eps"],
    "torch_constant": ["factor"],
    "torch_cosine_annealing": ["eta_min"],
    "torch_cosine_annealing_warm_restarts": ["eta_min"],
    "torch_cyclic": ["base_lr", "max_lr", "step_size_up", "step_size_down", "gamma"],
    "torch_exponential": ["gamma"],
    "torch_linear": ["start_factor", "end_factor"],
    "torch_multi_step": ["gamma"],
    "torch_one_cycle": ["max_lr", "pct_start", "div_factor", "final_div_factor"],
    "torch_polynomial": ["power"],
    "torch_step": ["gamma"],
}
WHOLE_ARGUMENTS = {
    "constant_with_warmup": ["num_warmup_steps"],
    "inverse_sqrt": ["num_warmup_steps"],
    "warmup_stable_decay": ["num_decay_steps"],
    "reduce_lr_on_plateau": ["patience", "cooldown"],
    "greedy": ["patience", "cooldown", "warmup", "window_size", "reset_start"],
    "torch_constant": ["total_iters"],
    "torch_cosine_annealing": ["T_max"],
    "torch_cosine_annealing_warm_restarts": ["T_0", "T_mult"],
    "torch_linear": ["total_iters"],
    "torch_one_cycle": ["total_steps"],
    "torch_polynomial": ["total_iters"],
    "torch_step": ["step_size"],
}
# Arguments that interact: every pair of values.
PAIRS = {
    "linear": {"num_warmup_steps": [0, 1, 4, 6, 8], "num_training_steps": [0, 1, 4, 6]},
    "cosine": {"num_warmup_steps": [0, 1, 4, 6, 8], "num_training_steps": [0, 1, 4, 6]},
    "cosine_with_restarts": {"num_warmup_steps": [0, 1, 4, 6], "num_training_steps": [0, 1, 4, 6]},
    "polynomial": {"num_warmup_steps": [0, 1, 4, 6, 8], "num_training_steps": [0, 1, 4, 6]},
    "cosine_with_min_lr": {"num_warmup_steps": [0, 1, 4, 6], "num_training_steps": [0, 1, 4, 6]},
    "cosine_warmup_with_min_lr":
        {"num_warmup_steps": [0, 1, 4, 6], "num_training_steps": [0, 1, 4, 6]},
    "warmup_stable_decay": {"num_warmup_steps": [0, 4, 6], "num_training_steps": [0, 4, 7, 8],
                            "num_decay_steps": [0, 3], "num_stable_steps": [None, 0, 2]},
    "torch_cyclic": {"base_lr": [0.0, 0.1], "max_lr": [0.0, 0.1], "step_size_up": [1, 3],
                     "step_size_down": [0, 1],
                     "mode": ["triangular", "triangular2", "exp_range"]},
    "torch_linear": {"start_factor": [0.5, 1.0], "end_factor": [0.5, 1.0], "total_iters": [0, 1]},
    "torch_one_cycle": {"total_steps": [1, 2, 4, 8], "pct_start": [0.0, 0.125, 0.25, 0.5, 1.0],
                        "three_phase": [False, True], "anneal_strategy": ["cos", "linear"]},
    "reduce_lr_on_plateau": {"mode": ["min", "max"], "threshold_mode": ["rel", "abs"],
                             "threshold": [0.0, 1.0, -1.0], "patience": [0, 1]},
    "greedy": {"mode": ["min", "max"], "threshold_mode": ["rel", "abs"], "smooth": [False, True],
               "min_lr": [0.01, 0.1], "max_lr": [0.1, 1.0], "window_size": [1, 3]},
}


def cases():
    for name, base in BASE.items():
        seen = []
        lists = [(FLOAT_ARGUMENTS, FLOATS), (WHOLE_ARGUMENTS, WHOLE)]
        every = [base]
        for arguments, values in lists:
            for argument in arguments.get(name, []):
                for value in values:
                    args = {**base, argument: value}
                    if argument == "min_lr_rate":
                        del args["min_lr"]
                    every.append(args)
        pairs = PAIRS.get(name, {})
        for values in itertools.product(*pairs.values()):
            every.append({**base, **dict(zip(pairs, values))})
        if name == "torch_cyclic":
            every += [{**base, "mode": "exp_range", "gamma": gamma} for gamma in FLOATS]
        for args in every:
            if repr(args) not in seen:
                seen.append(repr(args))
                yield name, args, LRS
        for lr in [0.0, math.nan, math.inf]:
            yield name, base, [lr, lr]


def run(name: str, args: dict, lrs: list) -> dict:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    optimizer = torch.optim.SGD(groups, lr=lrs[0], momentum=0.9)
    lrs, at = [], 0
    metric = name in ("reduce_lr_on_plateau", "greedy")
    try:
        if name in TORCH:
            scheduler = TORCH[name](optimizer, **args)
        else:
            args = dict(args)
            warmup = args.pop("num_warmup_steps", None)
            steps = args.pop("num_training_steps", None)
            scheduler = get_scheduler(name, optimizer, warmup, steps, args)
        while True:
            now = [g["lr"] for g in optimizer.param_groups]
            if any(isinstance(lr, complex) for lr in now):
                raise TypeError("a complex rate")
            lrs.append([number(float(lr)) for lr in now])
            if at == STEPS:
                return {"lrs": lrs}
            at += 1
            optimizer.step()
            scheduler.step(*([METRICS[at - 1]] if metric else []))
    except Exception as e:
        return {"lrs": lrs, "raises_at": at, "error": f"{type(e).__name__}: {e}"}


def schedule_free() -> list:
    """The parameter after each step, at warm-ups that Trainer hands on as they are."""
    from schedulefree import AdamWScheduleFree, SGDScheduleFree

    out = []
    for name, kind in [("schedule_free_adamw", AdamWScheduleFree),
                       ("schedule_free_sgd", SGDScheduleFree)]:
        for warmup_steps in [0, 2, 0.2, 2.5, 0.75]:
            p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
            optimizer = kind([p], lr=0.25, warmup_steps=warmup_steps, foreach=False)
            optimizer.train()
            values, rates = [], []
            for t in range(4):
                p.grad = torch.tensor([1.0 + t], dtype=torch.float64)
                optimizer.step()
                values.append(p.item())
                rates.append(optimizer.param_groups[0]["scheduled_lr"])
            out.append({"optim": name, "lr": 0.25, "warmup_steps": warmup_steps,
                        "values": values, "rates": rates})
    return out


def number(x):
    """JSON has neither infinity nor NaN."""
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "fixtures" / "settings"
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    answers = [
        {"name": name, "args": {k: number(v) for k, v in args.items()},
         "group_lrs": [number(lr) for lr in lrs], **run(name, args, lrs)}
        for name, args, lrs in cases()
    ]
    head = {"steps": STEPS, "metrics": METRICS, "schedule_free": schedule_free()}
    lines = ",\n".join(json.dumps(a) for a in answers)
    text = json.dumps(head)[:-1] + ', "cases": [\n' + lines + "\n]}\n"
    (out / "schedules.json").write_text(text)


if __name__ == "__main__":
    main()
