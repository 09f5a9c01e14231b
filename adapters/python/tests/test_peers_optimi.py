"""What optimi asks of its optimizers, asked of ours, on a CPU.

The topics are those of its `tests/`: agreement with other people's classes over steps of a small model that is saved
and loaded between them, 16 bits with and without Kahan's sums, the three kinds of weight decay, gradient release,
accumulation in the state, groups without decay, models of two types. Left out: Triton and other devices, and
`to_low_precision` itself, which is about models.
"""

import copy
import io
import warnings

import pytest

torch = pytest.importorskip("torch")
optimi = pytest.importorskip("optimi")

import bitstep.torch  # noqa: E402
import bitstep.torch.optimi as ours  # noqa: E402

RATE = 1e-3
# The variants of each class.
DECAY = {"base": {}, "l2": {"weight_decay": 0.01}, "decoupled": {"weight_decay": 0.01, "decouple_wd": True},
         "fully_decoupled": {"weight_decay": 1e-5, "decouple_lr": True}}  # fmt: skip
OWN = {k: v for k, v in DECAY.items() if k not in ("l2",)}  # of those whose decay is never the gradient's
VARIANTS = {
    "Adam": DECAY,
    "AdamW": {k: {a: b for a, b in v.items() if a != "decouple_wd"} for k, v in OWN.items()},
    "Adan": {"base": {"weight_decay": 0.0}, "decay": {"weight_decay": 0.02}, "adam_wd": {"weight_decay": 0.02, "adam_wd": True},
             "fully_decoupled": {"weight_decay": 2e-5, "decouple_lr": True}},
    "Lion": {"base": {}, "decay": {"weight_decay": 0.1}, "fully_decoupled": {"weight_decay": 1e-5, "decouple_lr": True}},
    "RAdam": DECAY,
    "Ranger": DECAY,
    "SGD": {"base": {}, "momentum": {"momentum": 0.9}, "dampening": {"momentum": 0.9, "dampening": True, "torch_init": True},
            "l2": {"momentum": 0.9, "weight_decay": 0.01},
            "fully_decoupled": {"momentum": 0.9, "dampening": True, "torch_init": True, "weight_decay": 1e-5, "decouple_lr": True}},
    "StableAdamW": {k: {a: b for a, b in v.items() if a != "decouple_wd"} for k, v in OWN.items()},
}  # fmt: skip
CASES = [pytest.param(c, v, id=f"{c}-{k}") for c, all_of in VARIANTS.items() for k, v in all_of.items()]
CLASSES = list(VARIANTS)
every_case = pytest.mark.parametrize("cls, arguments", CASES)
every_class = pytest.mark.parametrize("cls", CLASSES)


class Net(torch.nn.Module):
    def __init__(self, inputs=64, hidden=128):
        super().__init__()
        self.norm = torch.nn.LayerNorm(inputs)
        self.first = torch.nn.Linear(inputs, hidden, bias=False)
        self.last = torch.nn.Linear(hidden, 1, bias=False)

    def forward(self, x):
        return self.last(torch.nn.functional.mish(self.first(self.norm(x))))


def net(dtype=torch.float32, **sizes):
    torch.manual_seed(0)
    return Net(**sizes).to(dtype)


def loss(model, t, batch=8):
    generator = torch.Generator().manual_seed(100 + t)
    p = model.first.weight
    x, y = (torch.randn(batch, n, generator=generator).to(p.dtype) for n in (p.shape[1], 1))
    return torch.nn.functional.mse_loss(model(x), y)


def make(module, cls, model, **arguments):
    kwargs = {"lr": RATE, "triton": False, "foreach": False} | arguments
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a decay might be large
        return getattr(module, cls)(model.parameters(), **kwargs)


def steps(opt, model, ts):
    for t in ts:
        loss(model, t).backward()
        opt.step()
        opt.zero_grad()


def near(a, b, rtol, atol, share=0.0):
    """All but a share of the elements are near: where an update is a sign, or a sum is rounded to 16 bits, a few are not."""
    for x, y in zip(a.parameters(), b.parameters()):
        off = (~torch.isclose(x.double(), y.double(), rtol=rtol, atol=atol)).sum().item()
        assert off <= share * x.numel(), f"{off} of {x.numel()} are off"


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))


def reloaded(opt, remake):
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    opt = remake()
    opt.load_state_dict(torch.load(file, weights_only=True))
    return opt


@every_case
@pytest.mark.parametrize("hidden", [64, 128])
def test_steps_are_optimis_with_state_reloaded_between(cls, arguments, hidden):
    a, b = net(hidden=hidden), net(hidden=hidden)
    mine, theirs = make(ours, cls, a, **arguments), make(optimi, cls, b, **arguments)
    for start in range(0, 20, 4):
        steps(mine, a, range(start, start + 4)), steps(theirs, b, range(start, start + 4))
        mine = reloaded(mine, lambda: make(ours, cls, a, **arguments))
        near(a, b, rtol=1e-5, atol=1e-6, share=2e-3 if cls == "Lion" else 0.0)


@pytest.mark.parametrize(
    ("cls", "arguments", "torchs", "as_torchs"),
    [
        ("Adam", {}, "Adam", {}),
        ("Adam", {"weight_decay": 0.01}, "Adam", {"weight_decay": 0.01}),
        ("Adam", {"weight_decay": 0.01, "decouple_wd": True}, "AdamW", {"weight_decay": 0.01}),
        ("AdamW", {"weight_decay": 0.01}, "AdamW", {"weight_decay": 0.01}),
        ("RAdam", {}, "RAdam", {}),
        ("RAdam", {"weight_decay": 0.01}, "RAdam", {"weight_decay": 0.01}),
        ("RAdam", {"weight_decay": 0.01, "decouple_wd": True}, "RAdam", {"weight_decay": 0.01, "decoupled_weight_decay": True}),
        ("SGD", {}, "SGD", {}),
        ("SGD", {"momentum": 0.9}, "SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9, "weight_decay": 0.01}, "SGD", {"momentum": 0.9, "weight_decay": 0.01}),
        ("SGD", {"momentum": 0.9, "dampening": True, "torch_init": True}, "SGD", {"momentum": 0.9, "dampening": 0.9}),
    ],
)  # fmt: skip
def test_steps_are_torchs(cls, arguments, torchs, as_torchs):
    a, b = net(), net()
    rates = {} if cls == "SGD" else {"betas": (0.9, 0.99), "eps": 1e-8}
    mine = make(ours, cls, a, **rates, **arguments)
    theirs = getattr(torch.optim, torchs)(b.parameters(), lr=RATE, **rates, **as_torchs)
    steps(mine, a, range(20)), steps(theirs, b, range(20))
    near(a, b, rtol=1e-5, atol=1e-6, share=1e-3)


@pytest.mark.parametrize("cls", ["Adam", "AdamW", "SGD"])
def test_fully_decoupled_decay_follows_the_schedule_and_not_the_rate(cls):
    a, b = net(), net()
    arguments = {"momentum": 0.9, "dampening": True, "torch_init": True} if cls == "SGD" else {"eps": 1e-8}
    mine = make(ours, cls, a, decouple_lr=True, weight_decay=1e-4, max_lr=2 * RATE, **arguments)
    other = {"momentum": 0.9, "dampening": 0.9} if cls == "SGD" else {"betas": (0.9, 0.99)}
    theirs = getattr(torch.optim, cls.removesuffix("W"))(b.parameters(), lr=RATE, **other)
    for t in range(12):
        for group in (*mine.param_groups, *theirs.param_groups):
            group["lr"] = 2 * RATE * (t + 1) / 12
        with torch.no_grad():
            for p in b.parameters():
                p.mul_(1 - (t + 1) / 12 * 1e-4)
        steps(mine, a, [t]), steps(theirs, b, [t])
    near(a, b, rtol=1e-5, atol=1e-6)
    unscheduled = net()
    steps(make(ours, cls, unscheduled, decouple_lr=True, weight_decay=1e-4, **arguments), unscheduled, range(12))
    with pytest.raises(AssertionError):  # which would not pass without the schedule
        near(unscheduled, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wd", [0.0, 0.01])
def test_kahan_sums_of_bf16_are_those_of_anyprecision(wd):
    anyprecision = pytest.importorskip("llama_cookbook.policies.anyprecision_optimizer").AnyPrecisionAdamW
    a, b, plain = net(torch.bfloat16), net(torch.bfloat16), net(torch.bfloat16)
    rates = {"betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": wd}
    types = {f"{k}_dtype": torch.bfloat16 for k in ("momentum", "variance", "compensation_buffer")}
    mine = make(ours, "AdamW", a, kahan_sum=True, **rates)
    theirs = anyprecision(b.parameters(), lr=RATE, use_kahan_summation=True, **types, **rates)
    without = make(ours, "AdamW", plain, kahan_sum=False, **rates)
    for opt, model in ((mine, a), (theirs, b), (without, plain)):
        steps(opt, model, range(20))
    near(a, b, rtol=2e-2, atol=2e-3, share=0.01)
    assert not same(a, plain)


@every_class
def test_16_bits_with_kahan_sums_stay_near_32(cls):
    """Many steps far below half a unit of the weights' last place: without compensation they are lost."""
    end, fine = {}, torch.full((64, 64), 1.0)
    for name, dtype, kahan in (("f32", torch.float32, False), ("kahan", torch.bfloat16, True), ("plain", torch.bfloat16, False)):
        p = torch.nn.Parameter(fine.clone().to(dtype))
        opt = getattr(ours, cls)([p], lr=1e-4, weight_decay=0.0, triton=False, foreach=False, kahan_sum=kahan)
        for _ in range(100):
            p.grad = torch.ones_like(p)
            opt.step()
        end[name] = p.detach().float()
    assert torch.equal(end["plain"], fine)
    if cls == "Ranger":  # whose reference drops half of what is compensated where it looks ahead
        p = torch.nn.Parameter(fine.clone().bfloat16())
        theirs = optimi.Ranger([p], lr=1e-4, weight_decay=0.0, triton=False, foreach=False)
        for _ in range(100):
            p.grad = torch.ones_like(p)
            theirs.step()
        assert torch.equal(end["kahan"], p.detach().float())
        return
    moved = (end["f32"] - fine).abs().mean()
    assert (end["kahan"] - end["f32"]).abs().mean() < 0.5 * moved


@every_case
def test_16_bits_step_as_optimi(cls, arguments):
    a, b = net(torch.bfloat16), net(torch.bfloat16)
    mine, theirs = make(ours, cls, a, **arguments), make(optimi, cls, b, **arguments)
    generator = torch.Generator().manual_seed(3)
    for _ in range(10):
        for p, q in zip(a.parameters(), b.parameters()):
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
            q.grad = p.grad.clone()
        mine.step(), theirs.step()
    near(a, b, rtol=2**-7, atol=1e-6, share=1e-3)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_released_gradients_step_with_the_bits_of_an_ordinary_step(cls, arguments, dtype):
    ordinary, released = net(dtype), net(dtype)
    opt = make(ours, cls, ordinary, **arguments)
    release = make(ours, cls, released, gradient_release=True, **arguments)
    ours.prepare_for_gradient_release(released, release)
    for t in range(10):
        steps(opt, ordinary, [t])
        loss(released, t).backward()
        assert all(p.grad is None for p in released.parameters())
        if t % 2:  # a framework that steps all the same
            release.step()
            release.zero_grad()
        assert same(ordinary, released)
    ours.remove_gradient_release(released)
    loss(released, 10).backward()
    assert same(ordinary, released) and all(p.grad is not None for p in released.parameters())


@every_class
def test_released_gradients_step_as_torchs_hooks(cls):
    """As in PyTorch's tutorial: an optimizer for each parameter, stepped by a hook."""
    by_hooks, released = net(), net()
    each = {p: getattr(optimi, cls)([p], lr=RATE, triton=False, foreach=False) for p in by_hooks.parameters()}

    def hook(p):
        each[p].step()
        each[p].zero_grad()

    for p in by_hooks.parameters():
        p.register_post_accumulate_grad_hook(hook)
    release = make(ours, cls, released, gradient_release=True)
    ours.prepare_for_gradient_release(released, release)
    for t in range(20):
        loss(by_hooks, t).backward(), loss(released, t).backward()
        near(by_hooks, released, rtol=1e-5, atol=1e-6, share=2e-3 if cls == "Lion" else 0.0)


@every_class
def test_state_of_released_steps_is_gone_on_with(cls):
    whole, parts = net(), net()
    opts = [make(ours, cls, m, gradient_release=True) for m in (whole, parts)]
    ours.prepare_for_gradient_release(whole, opts[0])
    ours.prepare_for_gradient_release(parts, opts[1])
    for t in range(9):
        loss(whole, t).backward(), loss(parts, t).backward()
        if t == 3:
            ours.remove_gradient_release(parts)
            again = reloaded(opts[1], lambda: make(ours, cls, parts, gradient_release=True))
            ours.prepare_for_gradient_release(parts, again)
    assert same(whole, parts)


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_accumulation_in_the_state_is_optimis(cls, arguments, dtype):
    a, b = net(dtype), net(dtype)
    mine, theirs = make(ours, cls, a, gradient_release=True, **arguments), make(optimi, cls, b, gradient_release=True, **arguments)
    ours.prepare_for_gradient_release(a, mine)
    optimi.prepare_for_gradient_release(b, theirs)
    for t in range(16):
        before = [p.detach().clone() for p in a.parameters()]
        mine.optimizer_accumulation = theirs.optimizer_accumulation = (t + 1) % 4 != 0
        if dtype == torch.bfloat16:  # the same gradients, however their weights were rounded
            with torch.no_grad():
                for p, q in zip(a.parameters(), b.parameters()):
                    q.copy_(p)
        loss(a, t).backward(), loss(b, t).backward()
        stayed = all(torch.equal(p, x) for p, x in zip(a.parameters(), before))
        assert stayed == mine.optimizer_accumulation
        near(a, b, *((1e-9, 1e-12) if dtype == torch.float64 else (2**-6, 1e-5)), share=0 if dtype == torch.float64 else 5e-3)


@pytest.mark.parametrize(("cls", "arguments", "share"), [("AdamW", {}, 0.035), ("Adan", {}, 0.035), ("RAdam", {}, 0.035), ("SGD", {"momentum": 0.9}, 0.3)])
def test_accumulation_in_the_state_is_near_that_of_gradients(cls, arguments, share):
    a, b = net(), net()
    opt, release = make(ours, cls, a, **arguments), make(ours, cls, b, gradient_release=True, **arguments)
    ours.prepare_for_gradient_release(b, release)
    for t in range(40):
        release.optimizer_accumulation = (t + 1) % 4 != 0
        loss(a, t, 32).backward(), loss(b, t, 32).backward()
        if not release.optimizer_accumulation:
            opt.step()
            opt.zero_grad()
    near(a, b, rtol=1e-2, atol=1e-2, share=share)
    assert not same(b, net())


@every_class
@pytest.mark.parametrize("more", [None, ["last"]])
def test_groups_without_decay_keep_theirs(cls, more):
    model = net()
    groups = optimi.param_groups_weight_decay(model, weight_decay=1e-2, additional_layers=more)
    opt = getattr(ours, cls)(groups, lr=RATE, weight_decay=1e-3, triton=False)
    assert [g["weight_decay"] for g in opt.param_groups] == [0.0, 1e-2]
    assert [len(g["params"]) for g in opt.param_groups] == ([3, 1] if more else [2, 2])
    steps(opt, model, range(2))


def test_model_of_two_types_steps_in_one_group():
    a, b = optimi.to_low_precision(net(), fp32_modules=torch.nn.LayerNorm), net(torch.float64)
    assert {p.dtype for p in a.parameters()} == {torch.float32, torch.bfloat16}
    b.load_state_dict(a.state_dict())
    mine, exact = make(ours, "AdamW", a), make(ours, "AdamW", b)
    generator = torch.Generator().manual_seed(3)
    for _ in range(10):
        for p, q in zip(a.parameters(), b.parameters()):
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
            q.grad = p.grad.double()
        mine.step(), exact.step()
    near(a, b, rtol=2**-7, atol=1e-4)


def test_gradient_release_refuses_what_it_can_not_step():
    model = net()
    with pytest.raises(TypeError, match="SGD"):
        ours.prepare_for_gradient_release(model, torch.optim.SGD(model.parameters(), lr=RATE))
    with pytest.raises(ValueError, match="gradient_release=True"):
        ours.prepare_for_gradient_release(model, make(ours, "AdamW", model))
    plain = make(ours, "AdamW", model)
    model.first.weight.grad = torch.ones_like(model.first.weight)
    with pytest.raises(ValueError, match="gradient_release"):
        plain.step(param=model.first.weight)
    release = make(ours, "AdamW", model, gradient_release=True)
    with pytest.raises(ValueError, match="not one of"):
        release.step(param=torch.nn.Parameter(torch.ones(3)))
    before = [p.detach().clone() for p in model.parameters()]
    model.first.weight.grad = torch.eye(*model.first.weight.shape).to_sparse()
    with pytest.raises(ValueError, match="sparse"):
        release.step(param=model.first.weight)
    assert all(torch.equal(p, x) for p, x in zip(model.parameters(), before)) and not release.state


def test_other_hooks_are_refused_unless_they_should_be_there():
    model, heard = net(), []
    handle = model.first.weight.register_post_accumulate_grad_hook(lambda p: heard.append(p.grad is None))
    release = make(ours, "AdamW", model, gradient_release=True)
    with pytest.raises(ValueError, match="ignore_existing_hooks"):
        ours.prepare_for_gradient_release(model, release)
    assert not hasattr(model, "_gradient_release_hooks")
    ours.prepare_for_gradient_release(model, release, ignore_existing_hooks=True)
    loss(model, 0).backward()
    assert heard == [False] and len(release.state) == 4
    handle.remove()
    ours.remove_gradient_release(model)
    with pytest.warns(UserWarning, match="no hooks"):
        ours.remove_gradient_release(model)


def test_gradient_of_one_parameter_can_be_freed():
    model = net()
    release = make(ours, "AdamW", model, gradient_release=True)
    loss(model, 0).backward()
    first, last = model.first.weight, model.last.weight
    release.zero_grad(param=first)
    release.zero_grad(set_to_none=False, param=last)
    assert first.grad is None and torch.equal(last.grad, torch.zeros_like(last)) and model.norm.weight.grad is not None


def test_copies_of_a_released_optimizer_step_their_own_parameters():
    model = net()
    release = make(ours, "AdamW", model, gradient_release=True)
    loss(model, 0).backward()
    for p in model.parameters():
        release.step(param=p)
    other = copy.deepcopy(release)
    p, q = model.first.weight, other.param_groups[0]["params"][2]
    assert q is not p and torch.equal(p, q)
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(p)
    release.step(param=p), other.step(param=q)
    assert torch.equal(p, q)
    q.grad = None
    other.step(param=q)
    assert torch.equal(p, q)
    with pytest.raises(ValueError, match="not one of"):
        other.step(param=p)
