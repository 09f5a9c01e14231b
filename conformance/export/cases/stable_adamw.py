from optimi import StableAdamW

from battery import battery, maker
from golden import group_of, torch_state

ENV = "main"
LATE = {"step": 999_990, "exp_avg": "signed", "exp_avg_sq": "positive"}


def state(opt, i, param):
    """optimi counts its steps per group; a parameter's own count exists only under gradient release."""
    found = torch_state(opt, i, param)
    step = group_of(opt, param).get("step")
    return found if "step" in found or step is None else {**found, "step": step}


def cases(seed):
    # Left to itself optimi takes its Triton kernels wherever Triton is installed, also on a CPU.
    case = maker("stable_adamw", StableAdamW, seed, {"lr": 1e-3, "triton": False}, state=state)
    strong = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}
    f16 = {"eps": 0.05}
    yield from battery(case, strong, f16=f16, coupled=True, late=LATE, late_hyper={"betas": (0.9, 0.999999)})
    for d in ("f32", "f64", "bf16"):
        yield case(
            f"decouple_lr_{d}",
            "decay by lr/max_lr, max_lr being the constructor's lr",
            {"lr": 0.05, "decouple_lr": True, "weight_decay": 0.1},
            dtype=d,
            lr=[0.05 * r for r in (1.0, 0.5, 0.25, 0.0, 0.1, 1.0, 2.0, 0.3)],
            steps=8,
        )
    yield case(
        "max_lr_f32",
        "decay by lr/max_lr with a max_lr of its own",
        {"lr": 0.05, "decouple_lr": True, "max_lr": 0.2, "weight_decay": 0.3},
        lr=[0.05 * r for r in (1.0, 0.5, 0.25, 0.0, 0.1, 1.0, 2.0, 4.0)],
        steps=8,
    )
    yield case("max_lr_unused_f32", "max_lr without decouple_lr says nothing", {"lr": 0.05, "max_lr": 0.2}, steps=8)
    for d in ("bf16", "f16"):
        yield case(
            f"kahan_off_{d}",
            "no compensation: a 16-bit sum as it is",
            {**strong, **(f16 if d == "f16" else {}), "kahan_sum": False},
            dtype=d,
            steps=12,
        )
        yield case(
            f"kahan_small_{d}",
            "updates below half a unit of the parameter, which only the compensation keeps",
            {"lr": 1e-3 if d == "f16" else 5e-3, "kahan_sum": True, "weight_decay": 0.1, "eps": 0.05 if d == "f16" else 1e-6},
            dtype=d,
            inits=(1, 3),
            steps=24,
        )
    yield case("kahan_on_f32", "kahan_sum in f32 changes nothing", {**strong, "kahan_sum": True}, steps=8)
    yield case("eps0_f32", "eps = 0: 0/0 in the RMS where the second moment is 0", {"eps": 0.0}, steps=8)
    yield case(
        "eps_f16",
        "an eps whose square is 0 in half precision",
        {"lr": 0.05, "eps": 1e-5},
        dtype="f16",
        steps=8,
    )
    yield case(
        "spike_f32",
        "a gradient 1000 times larger than those before: the RMS cuts the rate, the decay included",
        strong,
        edit=spike,
        steps=12,
    )
    yield case("decay0_f64", "no decay", {"lr": 0.05, "weight_decay": 0.0}, dtype="f64", steps=8)
    yield case("beta1_0_f32", "beta1 = 0", {"lr": 0.05, "betas": (0.0, 0.9)}, steps=8)
    yield case("beta2_0_f32", "beta2 = 0", {"lr": 0.05, "betas": (0.9, 0.0)}, steps=8)
    yield case("foreach_f32", "the multi-tensor path", {**strong, "foreach": True}, steps=8)
    yield case(
        "gradient_release_f32",
        "a step a parameter: each counts for itself",
        {**strong, "gradient_release": True},
        has_grad=lambda i, t: i == 0 or t not in (2, 3),
        step=release,
        steps=8,
    )
    yield case(
        "groups_f32",
        "groups with arguments and counters of their own",
        strong,
        shapes=[(5,), (2, 3), (4,)],
        groups=[
            {"params": [0]},
            {"params": [1, 2], "lr": 0.01, "beta1": 0.5, "beta2": 0.7, "eps": 0.1, "weight_decay": 0.0},
        ],
        steps=10,
    )


def release(opt, params, t):
    for p in params:
        if p.grad is not None:
            opt.step(param=p)


def spike(inputs):
    for g in inputs.grads:
        g[6] *= 1000
