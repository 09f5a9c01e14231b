"""Runs torch's schedules over its optimizers, in f64: cycled momentum, and learning rates that are set by hand between
steps. Writes ../fixtures/momentum.json and ../fixtures/by_hand.json, which `tests/scheduled.rs` compares with."""

import json
import warnings
from pathlib import Path

import schedulefree
import torch
import transformers
from optimi import StableAdamW
from torch.optim import lr_scheduler as L
from transformers.optimization import Adafactor, GreedyLR

FIXTURES = Path(__file__).parent.parent / "fixtures"
CLASSES = {
    "torch_chained": None, "torch_sequential": None,
    "torch_constant": L.ConstantLR, "torch_cosine_annealing": L.CosineAnnealingLR,
    "torch_cosine_annealing_warm_restarts": L.CosineAnnealingWarmRestarts, "torch_cyclic": L.CyclicLR,
    "torch_exponential": L.ExponentialLR, "torch_linear": L.LinearLR, "torch_multi_step": L.MultiStepLR,
    "torch_one_cycle": L.OneCycleLR, "torch_polynomial": L.PolynomialLR, "torch_step": L.StepLR,
    "reduce_lr_on_plateau": L.ReduceLROnPlateau, "greedy": GreedyLR,
    "linear": transformers.get_linear_schedule_with_warmup, "cosine": transformers.get_cosine_schedule_with_warmup,
}
OPTIMIZERS = {
    "sgd": torch.optim.SGD, "adamw_torch": torch.optim.AdamW, "adam": torch.optim.Adam, "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam, "adamax": torch.optim.Adamax, "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad, "adafactor": Adafactor, "stable_adamw": StableAdamW,
    "schedule_free_adamw": schedulefree.AdamWScheduleFree, "schedule_free_sgd": schedulefree.SGDScheduleFree,
}


def optimizer(name, args, groups):
    params = [{"params": [torch.nn.Parameter(torch.ones(1, dtype=torch.float64))], **g} for g in groups]
    made = OPTIMIZERS[name](params, **args)
    if hasattr(made, "train"):
        made.train()
    return made


def scheduler(opt, name, args):
    if name == "torch_chained":
        return L.ChainedScheduler([scheduler(opt, *within) for within in args["schedulers"]])
    if name == "torch_sequential":
        return L.SequentialLR(opt, [scheduler(opt, *within) for within in args["schedulers"]], args["milestones"])
    return CLASSES[name](opt, **args)


def momentum(group):
    return group["betas"][0] if "betas" in group else group.get("momentum")


def run(optim, optim_args, schedule, schedule_args, steps=9, groups=1, metric=None, by_hand=None):
    """by_hand: {step: rates}, set after that many steps. metric: the value handed over at each step."""
    groups = [{}] * groups if isinstance(groups, int) else groups
    case = {"optimizer": optim, "args": optim_args, "schedule": schedule, "schedule_args": schedule_args,
            "groups": groups, "metric": metric, "by_hand": {str(k): v for k, v in (by_hand or {}).items()}}
    opt = optimizer(optim, optim_args, groups)
    try:
        s = scheduler(opt, schedule, schedule_args)
    except ValueError as e:
        return {**case, "refused": str(e)}
    rows = {"lr": [], "momentum": [], "p": []}

    def note():
        rows["lr"].append([float(g["lr"]) for g in opt.param_groups])
        rows["momentum"].append([momentum(g) for g in opt.param_groups])
        rows["p"].append([float(g["params"][0]) for g in opt.param_groups])

    note()
    for t in range(steps):
        for i, g in enumerate(opt.param_groups):
            g["params"][0].grad = torch.full((1,), 1 + t / 2 + i / 4, dtype=torch.float64)
        opt.step()
        s.step() if metric is None else s.step(metric[t])
        if by_hand and t + 1 in by_hand:
            for g, lr in zip(opt.param_groups, by_hand[t + 1]):
                g["lr"] = lr
        note()
    return {**case, **rows}


def momenta():
    one, cyclic = {"max_lr": 0.1, "total_steps": 10}, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3}
    sgd = {"lr": 0.1, "momentum": 0.9}
    yield run("sgd", sgd, "torch_one_cycle", one)
    yield run("adamw_torch", {"lr": 0.1}, "torch_one_cycle", one)
    yield run("sgd", sgd, "torch_cyclic", cyclic)
    yield run("sgd", sgd, "torch_one_cycle", {**one, "cycle_momentum": False})
    yield run("sgd", {"lr": 0.1}, "torch_one_cycle", one)  # a momentum of 0 until then
    yield run("rmsprop", {"lr": 0.1}, "torch_cyclic", {**cyclic, "mode": "exp_range", "gamma": 0.9})
    yield run("adam", {"lr": 0.1}, "torch_one_cycle", {**one, "three_phase": True, "anneal_strategy": "linear"})
    yield run("nadam", {"lr": 0.1}, "torch_cyclic", {**cyclic, "mode": "triangular2", "step_size_up": 2})
    yield run("radam", {"lr": 0.1}, "torch_cyclic", {**cyclic, "step_size_down": 1})
    yield run("adamax", {"lr": 0.1}, "torch_one_cycle", {**one, "base_momentum": 0.5, "max_momentum": 0.6})
    yield run("schedule_free_adamw", {"lr": 0.1}, "torch_cyclic", cyclic)
    yield run("schedule_free_sgd", {"lr": 0.1}, "torch_cyclic", cyclic)
    groups = [{}, {"lr": 0.5, "weight_decay": 0.1}]
    lists = {"max_lr": [0.1, 0.2], "base_momentum": [0.8, 0.7], "max_momentum": [0.9, 0.95]}
    yield run("adamw_torch", {"lr": 0.1}, "torch_one_cycle", {**one, **lists}, groups=groups)
    yield run("sgd", sgd, "torch_cyclic", {**cyclic, **lists, "base_lr": [0.01, 0.02]}, groups=groups)
    within = lambda *all: {"schedulers": list(all)}
    one, cyclic = ["torch_one_cycle", one], ["torch_cyclic", cyclic]
    halve, hold = ["torch_exponential", {"gamma": 0.5}], ["torch_constant", {"factor": 0.5, "total_iters": 3}]
    still = ["torch_one_cycle", {"max_lr": 0.1, "total_steps": 10, "cycle_momentum": False}]
    other = ["torch_one_cycle", {"max_lr": 0.2, "total_steps": 12, "base_momentum": 0.3, "max_momentum": 0.4}]
    yield run("sgd", sgd, "torch_chained", within(one, halve))
    yield run("sgd", sgd, "torch_chained", within(one, cyclic))
    yield run("sgd", sgd, "torch_chained", within(cyclic, one))
    yield run("sgd", sgd, "torch_chained", within(one, other))
    yield run("sgd", sgd, "torch_chained", within(one, still))
    yield run("sgd", sgd, "torch_sequential", {**within(hold, one), "milestones": [3]})
    yield run("sgd", sgd, "torch_sequential", {**within(one, halve), "milestones": [4]})
    yield run("sgd", sgd, "torch_sequential", {**within(cyclic, one), "milestones": [4]})
    yield run("sgd", sgd, "torch_sequential", {**within(hold, cyclic, halve), "milestones": [2, 6]})
    for optim in ["adagrad", "adafactor", "stable_adamw"]:
        args = {"lr": 0.1, "relative_step": False} if optim == "adafactor" else {"lr": 0.1}
        yield run(optim, args, *one)
        yield run(optim, args, *cyclic)


def by_hand():
    metric, sgd = [3.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], {"lr": 0.1}
    change = {"steps": 12, "by_hand": {2: [0.04, 0.3], 7: [0.7, 0.01]}, "groups": [{}, {"lr": 0.2}]}
    yield run("sgd", sgd, "reduce_lr_on_plateau", {"factor": 0.5, "patience": 1}, metric=metric, **change)
    yield run("sgd", sgd, "reduce_lr_on_plateau", {"factor": 0.5, "patience": 0, "min_lr": [0.02, 0.1]}, metric=metric,
              **change)
    greedy = {"factor": 0.5, "patience": 0, "min_lr": 0.01, "max_lr": 0.5, "reset_start": 1}
    yield run("sgd", sgd, "greedy", greedy, metric=metric, **change)
    yield run("sgd", sgd, "greedy", {**greedy, "smooth": True, "window_size": 3}, metric=metric, **change)
    for name, args in [
        ("torch_exponential", {"gamma": 0.9}),
        ("torch_step", {"step_size": 3, "gamma": 0.5}),
        ("torch_multi_step", {"milestones": [4, 9], "gamma": 0.5}),
        ("torch_constant", {"factor": 0.5, "total_iters": 5}),
        ("torch_linear", {"start_factor": 0.25, "total_iters": 8}),
        ("torch_polynomial", {"total_iters": 10, "power": 2.0}),
        ("torch_cosine_annealing", {"T_max": 10}),
        ("linear", {"num_warmup_steps": 2, "num_training_steps": 12}),
        ("cosine", {"num_warmup_steps": 2, "num_training_steps": 12}),
        ("torch_chained", {"schedulers": [["torch_exponential", {"gamma": 0.9}], ["torch_step", {"step_size": 3}]]}),
    ]:
        yield run("sgd", sgd, name, args, **change)


def main():
    warnings.simplefilter("ignore")
    for name, cases in [("momentum", momenta()), ("by_hand", by_hand())]:
        lines = ",\n".join(json.dumps(case) for case in cases)
        (FIXTURES / f"{name}.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
