import optimi

from battery import battery, cancelled, maker
from golden import group_of, torch_state

ENV = "main"
NAMES = (
    "optimi_adam",
    "optimi_adamw",
    "optimi_adan",
    "optimi_lion",
    "optimi_radam",
    "optimi_ranger",
    "optimi_sgd",
)
TYPES = ("f32", "f64", "bf16", "f16")
FALL = [1.0, 0.5, 0.25, 0.0, 0.1, 1.0, 2.0, 0.3]
STRONG = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}
F16 = {"eps": 0.05}
LATE = {"step": 999_990, "exp_avg": "signed", "exp_avg_sq": "positive"}
MANY = {"betas": (0.9, 0.999999)}


def state(opt, i, param):
    """optimi counts its steps per group; a parameter's own count exists only under gradient release."""
    found = torch_state(opt, i, param)
    step = group_of(opt, param).get("step")
    return found if "step" in found or step is None else {**found, "step": step}


def make(name, cls, seed, **hyper):
    # Left to itself optimi takes its Triton kernels wherever Triton is installed, also on a CPU.
    return maker(name, cls, seed, {"lr": 1e-3, "triton": False, **hyper}, state=state)


def cases(seed):
    yield from adam(make("optimi_adam", optimi.Adam, seed))
    yield from adamw(make("optimi_adamw", optimi.AdamW, seed))
    yield from adan(make("optimi_adan", optimi.Adan, seed))
    yield from lion(make("optimi_lion", optimi.Lion, seed, lr=1e-4))
    yield from radam(make("optimi_radam", optimi.RAdam, seed))
    yield from ranger(make("optimi_ranger", optimi.Ranger, seed))
    yield from sgd(make("optimi_sgd", optimi.SGD, seed))


def common(case, strong, f16=None, counts=True, small_lr=2e-3):
    """Cases that all share: decay relative to the largest learning rate, Kahan sums, foreach and plain loops."""
    for d in ("f32", "bf16"):
        yield case(
            f"decouple_lr_{d}",
            "decay by lr/max_lr, max_lr being the constructor's lr",
            {**strong, "decouple_lr": True},
            dtype=d,
            lr=[strong["lr"] * r for r in FALL],
            steps=len(FALL),
        )
    yield case(
        "max_lr_f64",
        "decay by lr/max_lr with a max_lr of its own",
        {**strong, "decouple_lr": True, "max_lr": 4 * strong["lr"]},
        dtype="f64",
        lr=[strong["lr"] * r for r in FALL],
        steps=len(FALL),
    )
    yield case(
        "decay_1_f32",
        "decay of everything at the full rate: a factor of 0 counts as no decay, but to Adan, which divides",
        {**strong, "decouple_lr": True, "weight_decay": 1.0},
        lr=[strong["lr"] * r for r in FALL],
        steps=len(FALL),
    )
    for d in ("bf16", "f16"):
        own = {**strong, **((f16 or {}) if d == "f16" else {})}
        yield case(f"kahan_off_{d}", "no compensation: a 16-bit sum as it is", {**own, "kahan_sum": False}, dtype=d, steps=10)
        yield case(
            f"kahan_small_{d}",
            "updates below half a unit of the parameter, which only the compensation keeps",
            {**own, "lr": small_lr / 4 if d == "f16" else small_lr, "kahan_sum": True},
            dtype=d,
            inits=(1, 3),
            steps=20,
        )
        yield case(
            f"foreach_{d}",
            "the multi-tensor path, which rounds factors to the tensors' type first",
            {**own, "foreach": True, "kahan_sum": True},
            dtype=d,
            steps=10,
        )
    yield case("foreach_f32", "the multi-tensor path", {**strong, "foreach": True}, steps=6)
    yield case("kahan_on_f32", "kahan_sum in f32 changes nothing", {**strong, "kahan_sum": True}, steps=6)
    yield case(
        "gradient_release_f32",
        "a step a parameter: each counts for itself, if it counts",
        {**strong, "gradient_release": True},
        has_grad=lambda i, t: i == 0 or t not in (2, 3),
        step=release,
        steps=8,
    )
    flat = {f"beta{i + 1}": 0.5 + 0.1 * i for i in range(len(strong.get("betas", ())))}
    other = flat or {"momentum": 0.3}
    yield case(
        "groups_f32",
        "groups with arguments and counters of their own; max_lr is the constructor's lr for both",
        {**strong, "decouple_lr": True},
        shapes=[(5,), (2, 3), (4,)],
        groups=[{"params": [0]}, {"params": [1, 2], "lr": 0.4 * strong["lr"], **other, "weight_decay": 0.1}],
        steps=8,
    )


def edges(case, strong):
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {**strong, "eps": 0.0}, steps=6)
    yield case("betas_0_f32", "both betas 0", {**strong, "betas": (0.0, 0.0)}, steps=6)


def decoupled(case, strong, coupled):
    """The other kind of decay than the strong case has; coupled decay that is cancelled."""
    yield from cancelled(case, decouple_wd=False)
    for d in ("f32", "f64", "bf16"):
        yield case(
            f"{'decoupled' if coupled else 'coupled'}_{d}",
            "decay of the parameter" if coupled else "decay by way of the gradient",
            {**strong, "decouple_wd": coupled},
            dtype=d,
            steps=8,
        )


def adam(case):
    yield from battery(case, STRONG, f16=F16, late=LATE, late_hyper=MANY)
    yield from common(case, STRONG, F16)
    yield from edges(case, STRONG)
    yield from decoupled(case, STRONG, True)


def adamw(case):
    yield from battery(case, STRONG, f16=F16, late=LATE, late_hyper=MANY)
    yield from common(case, STRONG, F16)


def adan(case):
    strong = {**STRONG, "betas": (0.8, 0.7, 0.95)}
    late = {**LATE, "exp_avg_diff": "signed", "prev_grad": "signed"}
    yield from battery(case, strong, f16=F16, late=late, late_hyper={"betas": (0.9, 0.95, 0.999999)})
    yield from common(case, strong, F16)
    for d in ("bf16", "f16"):
        yield case(
            f"kahan_auto_{d}",
            "kahan_sum=None: compensated, where the default False is not",
            {**strong, **F16, "kahan_sum": None},
            dtype=d,
            steps=10,
        )
    yield case("adam_wd_f32", "adam_wd=True, which the optimizer does not look at", {**strong, "adam_wd": True}, steps=6)
    yield case("decay0_f64", "no decay", {**strong, "weight_decay": 0.0}, dtype="f64", steps=6)
    yield case("eps0_f32", "eps = 0 with zero gradients: 0/0", {**strong, "eps": 0.0}, steps=6)
    yield case(
        "inf_first_f32",
        "an infinite first gradient: the difference to itself is NaN",
        strong,
        edit=infinite,
        steps=5,
    )


def lion(case):
    strong = {"lr": 0.02, "betas": (0.7, 0.9), "weight_decay": 0.3}
    yield from battery(case, strong, late={"exp_avg": "signed"})
    yield from common(case, strong)
    yield case("betas_small_f64", "betas below one half: the other end of the lerp", {**strong, "betas": (0.2, 0.4)}, dtype="f64", steps=6)


def radam(case):
    strong = {**STRONG, "betas": (0.8, 0.9)}
    yield from battery(case, strong, f16=F16, late=LATE, late_hyper=MANY)
    yield from common(case, strong, F16)
    yield from edges(case, strong)
    yield from decoupled(case, strong, True)
    yield case(
        "rectified_f64",
        "from plain steps to rectified ones: the bound of 5 is passed on the way",
        {**STRONG, "betas": (0.9, 0.999)},
        dtype="f64",
        steps=12,
    )


def ranger(case):
    strong = {**STRONG, "betas": (0.8, 0.9), "k": 3, "alpha": 0.3}
    yield from battery(case, strong, f16=F16, late={**LATE, "la_param": "signed"}, late_hyper=MANY)
    yield from common(case, strong, F16)
    yield from decoupled(case, strong, False)
    for d in ("f32", "bf16"):
        yield case(f"k1_{d}", "lookahead at every step, all the way", {**strong, "k": 1, "alpha": 1.0}, dtype=d, steps=8)
    yield case(
        "lookahead_nograd_f32",
        "the group's count decides on lookahead, also after steps without a gradient",
        strong,
        steps=10,
        has_grad=lambda i, t: i == 0 or t not in (1, 2, 5),
    )


def sgd(case):
    strong = {"lr": 0.3, "momentum": 0.7, "weight_decay": 0.2}
    yield from battery(case, strong, late={"exp_avg": "signed"})
    yield from common(case, strong, small_lr=0.05)
    yield from decoupled(case, strong, True)
    yield case("plain_f32", "no momentum, no decay", {"lr": 0.3}, steps=6)
    for d in ("bf16", "f16"):
        yield case(f"plain_{d}", "no momentum: only the compensation is state", {"lr": 0.3, "weight_decay": 0.1}, dtype=d, steps=8)
    for d in TYPES:
        yield case(f"dampening_{d}", "gradients averaged instead of added up", {**strong, "dampening": True}, dtype=d, steps=8)
    for d in ("f32", "f64", "bf16"):
        yield case(
            f"torch_init_{d}",
            "the first gradient, decay included, starts the average; a later parameter's first does too",
            {**strong, "dampening": True, "torch_init": True},
            dtype=d,
            has_grad=lambda i, t: i == 0 or t >= 2,
            steps=8,
        )
    yield case(
        "torch_init_unused_f32", "torch_init without dampening says nothing", {**strong, "torch_init": True}, steps=6
    )
    yield case(
        "torch_init_idle_f32",
        "torch_init without momentum: a state that is made and never moves",
        {"lr": 0.3, "dampening": True, "torch_init": True, "weight_decay": 0.2},
        steps=6,
    )


def release(opt, params, t):
    for p in params:
        if p.grad is not None:
            opt.step(param=p)


def infinite(inputs):
    g = inputs.grads[0]
    g[0, 0, 0], g[0, 1, 0] = float("inf"), float("nan")
