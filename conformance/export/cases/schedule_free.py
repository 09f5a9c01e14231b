from schedulefree import AdamWScheduleFree, RAdamScheduleFree, SGDScheduleFree

from battery import battery, maker
from golden import group_of, torch_state

ENV = "main"
NAMES = ("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd")
GROUP = ("k", "lr_max", "scheduled_lr", "weight_sum")
LATE = {"z": "signed", "k": 999_990, "lr_max": 0.06, "weight_sum": 3000.0}


def state(opt, i, param):
    """The numbers that a group keeps in its arguments are state, too."""
    group = group_of(opt, param)
    return {**torch_state(opt, i, param), **{k: group[k] for k in GROUP}}


def evaluated(opt, params):
    opt.eval()
    return {f"p{i}.eval": p for i, p in enumerate(params)}


def make(name, cls, seed):
    return maker(name, cls, seed, made=lambda opt: opt.train(), state=state, finish=evaluated)


def cases(seed):
    yield from adamw(make("schedule_free_adamw", AdamWScheduleFree, seed))
    yield from radam(make("schedule_free_radam", RAdamScheduleFree, seed))
    yield from sgd(make("schedule_free_sgd", SGDScheduleFree, seed))


def averages(case, strong, skip=()):
    """How the average is weighted, and where the parameter lies between it and z."""
    for d in ("f32", "f64", "bf16"):
        if f"r_{d}" not in skip:
            yield case(
                f"r_{d}",
                "later steps weigh more, and the rate's power is 1",
                {**strong, "r": 1.5, "weight_lr_power": 1.0},
                dtype=d,
                lr=[strong["lr"] * r for r in (0.5, 0.25, 1.0, 2.0, 1.0, 0.0, 0.1, 3.0)],
                steps=8,
            )
    yield case(
        "power0_f32",
        "no weighting by the rate: 0 to the power 0 is 1, so steps at rate 0 count",
        {**strong, "weight_lr_power": 0.0},
        lr=[strong["lr"] * r for r in (0.0, 0.0, 1.0, 2.0, 1.0, 0.0, 0.1, 3.0)],
        steps=8,
    )
    yield case(
        "rate0_f64",
        "the first steps at rate 0: all weights are 0, and 0/0 is taken as 0",
        strong,
        dtype="f64",
        lr=[strong["lr"] * r for r in (0.0, 0.0, 0.0, 1.0, 0.5, 1.0)],
        steps=6,
    )
    yield case("decay0_f64", "no decay", {**strong, "weight_decay": 0.0}, dtype="f64", steps=8)
    for d in ("f32", "bf16"):
        yield case(f"single_{d}", "one tensor at a time", {**strong, "foreach": False}, dtype=d, steps=8)


def warmups(case, strong):
    for d in ("f32", "f64", "bf16"):
        yield case(
            f"warmup_{d}",
            "a warm-up of 6 steps: the rate, its maximum and the weights rise with it",
            {**strong, "warmup_steps": 6},
            dtype=d,
            steps=12,
        )
    yield case(
        "warmup_nograd_f32",
        "steps and weights are the group's: they move on without gradients",
        {**strong, "warmup_steps": 6},
        steps=10,
        has_grad=lambda i, t: t != 1 and (i == 0 or t not in (2, 3, 4)),
    )


def adamw(case):
    strong = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}
    late = {**LATE, "exp_avg_sq": "positive"}
    yield from battery(case, strong, f16={"eps": 0.05}, late=late, late_hyper={"betas": (0.8, 0.999999)})
    yield from averages(case, strong)
    yield from warmups(case, strong)
    yield case("beta1_small_f32", "beta1 below one half: the other end of the lerp", {**strong, "betas": (0.3, 0.9)}, steps=8)
    yield case("beta2_0_f32", "beta2 = 0", {**strong, "betas": (0.9, 0.0)}, steps=8)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {**strong, "eps": 0.0}, steps=8)
    yield groups(case, strong, {"betas": (0.5, 0.7), "eps": 0.1, "warmup_steps": 3, "weight_lr_power": 1.0})


def radam(case):
    strong = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}
    late = {**LATE, "exp_avg_sq": "positive"}
    yield from battery(case, strong, f16={"eps": 0.05}, late=late, late_hyper={"betas": (0.8, 0.999999)})
    yield from averages(case, strong, skip=("r_bf16",))
    for d in ("f32", "f64", "bf16"):
        yield case(
            f"loud_{d}",
            "silent_sgd_phase=False: plain steps until the variance is known",
            {**strong, "silent_sgd_phase": False},
            dtype=d,
            steps=12,
        )
    yield case(
        "silent_power0_f32",
        "the silent phase with power 0: steps that don't move weigh 1 each",
        {**strong, "weight_lr_power": 0.0},
        steps=10,
    )
    yield case(
        "silent_nonfinite_f32",
        "infinity in the silent phase: infinity times rate 0 is NaN",
        strong,
        edit=early,
        steps=8,
    )
    yield case("beta2_0_f32", "beta2 = 0: never rectified, so nothing moves", {**strong, "betas": (0.9, 0.0)}, steps=6)
    yield case(
        "beta2_half_f32",
        "beta2 = 0.6: the limit of rho lies at the bound of 4 and is never above it",
        {**strong, "betas": (0.9, 0.6), "silent_sgd_phase": False},
        steps=10,
    )
    yield groups(case, strong, {"betas": (0.5, 0.99), "eps": 0.1, "silent_sgd_phase": False, "weight_lr_power": 1.0})


def sgd(case):
    strong = {"lr": 0.3, "momentum": 0.7, "weight_decay": 0.2}
    yield from battery(case, strong, late=LATE)
    yield from averages(case, strong)
    yield from warmups(case, strong)
    yield case("momentum_small_f32", "momentum below one half: the other end of the lerp", {**strong, "momentum": 0.3}, steps=8)
    yield groups(case, strong, {"momentum": 0.4, "warmup_steps": 3, "weight_lr_power": 1.0, "r": 2.0})


def groups(case, strong, other):
    return case(
        "groups_f32",
        "groups with arguments, steps and weights of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1, 2], "lr": 0.01, "weight_decay": 0.0, **other}],
        steps=10,
    )


def early(inputs):
    g = inputs.grads[0]
    g[1, 0, 0], g[1, 1, 0] = float("inf"), float("nan")
