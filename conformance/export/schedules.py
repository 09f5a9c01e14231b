"""Running torch-like schedules: an optimizer with some groups, a scheduler, a row of rates a step."""

import inspect
import warnings

import numpy as np
import torch
from torch.optim import lr_scheduler

from golden import Case, path_of, rng

CLASSES = {
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


def defaults(make):
    args = inspect.signature(make).parameters.values()
    return {p.name: p.default for p in args if p.default is not p.empty}


def optimizer(lr, groups):
    """SGD with one number in each group, so that a case is about rates alone."""
    params = [{"params": [torch.nn.Parameter(torch.zeros(1))], **g} for g in groups]
    return torch.optim.SGD(params, lr=lr, momentum=0.9)


def rates(opt):
    return [float(group["lr"]) for group in opt.param_groups]


class Schedules:
    """Makes the cases of one name."""

    def __init__(self, name, make, seed, reference=None, described=None):
        """`make(optimizer, **hyper)` gives the scheduler; `described(hyper)` is what the file says of `hyper`."""
        self.name, self.make, self.seed = name, make, seed
        module = make.__module__
        short = module if module.startswith("transformers") else None
        self.reference = reference or (f"{short}.{make.__qualname__}" if short else path_of(make))
        self.described = described or (lambda hyper: defaults(make) | hyper)

    def rng(self, title):
        return rng(self.seed, "schedule", self.name, title)

    def case(self, title, note, hyper, steps=40, lr=None, groups=None, metric=None):
        """lr      the optimizer's own rate; drawn if not given
        groups  a number of groups (the first with the optimizer's rate, the others with rates of their own), or their
                arguments
        metric  `metric(generator)`: the values handed over, one a step
        """
        g = self.rng(title)
        lr = float(10 ** g.uniform(-3, -1)) if lr is None else lr
        if isinstance(groups, int):
            groups = [{}, *({"lr": float(10 ** g.uniform(-4, 0))} for _ in range(groups - 1))]
        metric = None if metric is None else np.asarray(metric(g), dtype=np.float64)
        steps = steps if metric is None else len(metric)
        opt = optimizer(lr, groups or [{}])
        if hyper.get("last_epoch", -1) != -1:
            for group in opt.param_groups:
                group.setdefault("initial_lr", group["lr"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = self.make(opt, **hyper)
            rows = [rates(opt)]
            for t in range(steps):
                opt.step()
                scheduler.step() if metric is None else scheduler.step(metric[t])
                rows.append(rates(opt))
        tensors = {"lr": np.array(rows, dtype=np.float64)}
        if metric is not None:
            tensors["metric"] = metric
        hyper = {**self.described(hyper), "lr": lr}
        if groups:
            hyper["groups"] = [{"params": [i], **group} for i, group in enumerate(groups)]
        packages = ["torch", "numpy"] + (["transformers"] if self.reference.startswith("transformers") else [])
        return Case("schedule", self.name, title, self.reference, hyper, steps, note, tensors, self.seed, packages)


def within(opt, schedulers):
    """The schedulers of a container, made in order: [name, arguments] each."""
    return [CLASSES[name](opt, **hyper) for name, hyper in schedulers]


def described_within(schedulers):
    return [{"name": name, **defaults(CLASSES[name]), **hyper} for name, hyper in schedulers]
