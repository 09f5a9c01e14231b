"""What torch's optimizers do around the update, and what is refused."""

import copy
import os
import pickle
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import bitstep  # noqa: E402
import bitstep.torch  # noqa: E402
from bitstep import _bitstep  # noqa: E402
from bitstep._references import from_json, records  # noqa: E402
from bitstep.torch import SGD, AdamW, AdamWScheduleFree  # noqa: E402


def params(*shapes, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=g).to(dtype)) for s in shapes]


def with_grads(ps, seed=7):
    g = torch.Generator().manual_seed(seed)
    for p in ps:
        p.grad = torch.randn(p.shape, generator=g).to(p.dtype)
    return ps


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b))


# Shapes and arguments under which every name can be made.
REQUIRED = {"lr": 1e-3, "momentum": 0.9}


def arguments_of(name):
    from bitstep._references import record

    return {a["name"]: REQUIRED[a["name"]] for a in record(name)["arguments"] if "default" not in a} | (
        {"momentum": 0.9} if name.startswith(("bnb_lars", "bnb_sgd")) else {}
    )


@pytest.mark.parametrize("name", bitstep.optimizers())
def test_every_name_steps_in_place(name):
    ps = with_grads(params((8, 4), (6, 6)))
    pointers, before = [p.data_ptr() for p in ps], [p.detach().clone() for p in ps]
    arguments = arguments_of(name)
    if name in ("lomo", "adalomo"):
        arguments["lr"] = 1e-3
    opt = bitstep.torch.optimizer(name, ps, **arguments)
    assert isinstance(opt, torch.optim.Optimizer)
    for t in range(8):  # RAdam begins to move at its sixth step
        opt.step()
        with_grads(ps, seed=t)
    assert [p.data_ptr() for p in ps] == pointers
    assert not any(torch.equal(p, b) for p, b in zip(ps, before))


@pytest.mark.parametrize("record", [pytest.param(r, id=f"{r['module']}.{r['class']}") for r in records()])
def test_defaults_are_the_references(record):
    """Every argument of the reference is known to the core, which has the same default."""
    required = {a["name"]: REQUIRED[a["name"]] for a in record["arguments"] if "default" not in a}
    if record["name"].startswith(("bnb_lars", "bnb_sgd")):
        required["momentum"] = 0.9
    core = _bitstep.Optimizer()
    core.add_group(record["name"], required)
    ours = core.arguments(0)
    compared = 0
    for a in record["arguments"]:
        if "default" not in a:
            continue
        default = from_json(a["default"])
        value = ours.get(a["name"], default)
        # Where the width of the state is part of the name, and where one means another (`max_lr`).
        if a["name"] in ("optim_bits", "max_lr", "momentum"):
            continue
        if a["name"] in ours:
            compared += 1
            assert value == default or list(map(float, value)) == list(map(float, default)), a["name"]
    assert compared >= 2 or record["module"] == "lomo_optim"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_types_step(dtype):
    ps = with_grads(params((33,), dtype=dtype))
    before = ps[0].detach().clone()
    AdamW(ps, lr=0.1).step()
    assert ps[0].dtype is dtype and not torch.equal(ps[0], before)


def test_threads_do_not_change_bits():
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        ps = with_grads(params((700, 700), (3,), (400, 1000)))
        opt = AdamW(ps, lr=0.1)
        opt.step()
        opt.step()
        results.append([p.detach().clone() for p in ps])
    torch.set_num_threads(1)
    assert same(results[0], results[1]) and same(results[0], results[2])


def test_views_with_gaps_step_as_their_copies():
    whole = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    strided = torch.nn.Parameter(whole.clone().t())
    plain = torch.nn.Parameter(whole.t().contiguous())
    grad = torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
    strided.grad, plain.grad = grad.clone(), grad.clone()
    for p in (strided, plain):
        AdamW([p], lr=0.1).step()
    assert not strided.is_contiguous() and torch.equal(strided, plain)


def test_expanded_gradient_steps_as_its_copy():
    a, b = params((4, 3)), params((4, 3))
    a[0].grad = torch.ones(3).expand(4, 3)
    b[0].grad = torch.ones(4, 3)
    AdamW(a).step(), AdamW(b).step()
    assert same(a, b)


def test_negated_view_is_read_negated():
    z = torch.complex(torch.zeros(3), torch.tensor([1.0, -2.0, 3.0]))
    (a,), (b,) = params((3,)), params((3,))
    a.grad = z.conj().imag
    assert a.grad.is_neg()
    b.grad = a.grad.resolve_neg().clone()
    SGD([a], lr=1.0).step(), SGD([b], lr=1.0).step()
    assert torch.equal(a, b)


def test_expanded_parameter_is_refused():
    p = torch.nn.Parameter(torch.ones(3).expand(4, 3))
    p.grad = torch.ones(4, 3)
    with pytest.raises((ValueError, RuntimeError)):
        AdamW([p]).step()


def test_parameters_that_share_memory_are_refused():
    base = torch.ones(10)
    a, b = torch.nn.Parameter(base[:6]), torch.nn.Parameter(base[4:])
    with_grads([a, b])
    with pytest.raises(ValueError, match="shares memory"):
        AdamW([a, b]).step()
    assert torch.equal(base, torch.ones(10))


def test_sparse_gradient_is_refused():
    (p,) = params((4, 3))
    p.grad = torch.eye(4, 3).to_sparse()
    with pytest.raises(ValueError, match=r"grads\[0\].*sparse"):
        AdamW([p]).step()


def test_complex_parameter_is_refused():
    with pytest.raises(ValueError, match=r"params\[0\].*complex64"):
        AdamW([torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))])


def test_other_device_is_refused():
    p = torch.nn.Parameter(torch.ones(3, device="meta"))
    p.grad = torch.ones(3, device="meta")
    with pytest.raises(ValueError, match="meta"):
        AdamW([p]).step()


@pytest.mark.parametrize(
    ("cls", "arguments", "named"),
    [
        (AdamW, {"lr": -1.0}, "lr"),
        (AdamW, {"betas": (1.0, 0.9)}, "beta"),
        (AdamW, {"weight_decy": 0.1}, "weight_decay"),
        (SGD, {"lr": 0.1, "momentum": -0.5}, "momentum"),
    ],
)
def test_refused_argument_is_named(cls, arguments, named):
    with pytest.raises(ValueError, match=named):
        cls(params((3,)), **arguments)


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="adamw_torch"):
        bitstep.torch.optimizer("adamw_troch", params((3,)))


def test_error_in_a_step_writes_nothing():
    a, b = params((3,), (4,))
    with_grads([a, b])
    opt = AdamW([a, b], lr=0.1)
    b.grad = torch.ones(4).to_sparse()
    before = a.detach().clone()
    with pytest.raises(ValueError):
        opt.step()
    assert torch.equal(a, before) and not opt.state


def test_groups_have_arguments_of_their_own():
    a, b = params((5,), (5,)), params((5,), (5,))
    ours = AdamW([{"params": [a[0]], "lr": 0.1}, {"params": [a[1]], "weight_decay": 0.0}], lr=0.01)
    torchs = torch.optim.AdamW([{"params": [b[0]], "lr": 0.1}, {"params": [b[1]], "weight_decay": 0.0}], lr=0.01)
    for t in range(5):
        with_grads(a, t), with_grads(b, t)
        ours.step(), torchs.step()
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert [g["lr"] for g in ours.param_groups] == [0.1, 0.01]
    assert ours.param_groups[1]["weight_decay"] == 0.0


def test_added_group_and_changed_arguments_are_followed():
    a, b = params((5,), (4,)), params((5,), (4,))
    pairs = [(AdamW, a), (torch.optim.AdamW, b)]
    for cls, ps in pairs:
        opt = cls(ps[:1], lr=0.1)
        for t in range(8):
            with_grads(ps, t)
            if t == 3:
                opt.add_param_group({"params": ps[1:], "lr": 0.05})
            if t == 5:
                opt.param_groups[0]["betas"] = (0.5, 0.9)
                opt.param_groups[1]["weight_decay"] = 0.5
                opt.param_groups[0]["maximize"] = True
            opt.step()
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_parameter_without_gradient_stays():
    a, b = params((3,), (4,))
    a.grad = torch.ones(3)
    opt = AdamW([a, b], lr=0.1)
    before = b.detach().clone()
    opt.step()
    assert torch.equal(b, before) and list(opt.state) == [a]
    assert b not in opt.state and len(opt.state[b]) == 0


def test_closure_is_called_with_gradients_on_and_its_loss_returned():
    ps = params((3,))
    opt = AdamW(ps, lr=0.1)

    def closure():
        opt.zero_grad()
        loss = (ps[0] ** 2).sum()
        loss.backward()
        return loss

    assert opt.step(closure).item() > 0 and opt.state


def test_hooks_run():
    ps, seen = with_grads(params((3,))), []
    opt = AdamW(ps)
    opt.register_step_pre_hook(lambda *_: seen.append("pre"))
    opt.register_step_post_hook(lambda *_: seen.append("post"))
    opt.register_load_state_dict_post_hook(lambda *_: seen.append("loaded"))
    opt.register_state_dict_post_hook(lambda *_: seen.append("saved"))
    opt.step()
    opt.load_state_dict(opt.state_dict())
    assert seen == ["pre", "post", "saved", "loaded"]


def test_zero_grad_and_clipping():
    ps = with_grads(params((3,), (4,)))
    opt = AdamW(ps)
    norm = torch.nn.utils.clip_grad_norm_(ps, 0.1)
    assert norm > 0.1
    opt.step()
    opt.zero_grad()
    assert all(p.grad is None for p in ps)


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)])
def test_schedulers_of_torch(lr):
    a, b = params((5,)), params((5,))
    runs = []
    for cls, ps in ((AdamW, a), (torch.optim.AdamW, b)):
        opt = cls(ps, lr=copy.deepcopy(lr))
        schedule = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.2, total_steps=12)
        for t in range(10):
            with_grads(ps, t)
            opt.step()
            schedule.step()
        runs.append([float(x) for x in schedule.get_last_lr()])
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert runs[0] == runs[1]


def test_grad_scaler_steps_and_skips():
    ps = params((3,))
    opt, scaler = SGD(ps, lr=1.0), torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale((ps[0] * 2).sum()).backward()
    before = ps[0].detach().clone()
    scaler.step(opt)
    scaler.update()
    torch.testing.assert_close(ps[0].detach(), before - 2)
    ps[0].grad = torch.tensor([1.0, float("inf"), 1.0])
    before = ps[0].detach().clone()
    scaler.step(opt)
    scaler.update()
    assert torch.equal(ps[0], before)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("name", ["adamw_torch", "adamw_bnb_8bit", "schedule_free_adamw", "flash_adamw"])
def test_copies_go_on_with_the_same_bits(name, copied):
    ps = with_grads(params((80, 64), dtype=torch.bfloat16 if name == "flash_adamw" else torch.float32))
    opt = bitstep.torch.optimizer(name, ps, lr=0.1)
    opt.step()
    other = copied(opt)
    theirs = other.param_groups[0]["params"]
    assert theirs[0] is not ps[0]
    for o, all_params in ((opt, ps), (other, theirs)):
        with_grads(all_params, seed=3)
        o.step()
    assert same(ps, theirs)


@pytest.mark.parametrize("name", bitstep.optimizers())
def test_own_state_dict_is_exact(name):
    """Saved through a file that loads without arbitrary code, and gone on with to the bit."""
    import io

    dtype = torch.bfloat16 if name.startswith("flash") else torch.float32
    a = with_grads(params((80, 64), dtype=dtype))
    arguments = arguments_of(name)
    opt = bitstep.torch.optimizer(name, a, **arguments)
    for t in range(3):
        with_grads(a, t)
        opt.step()
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    b = [torch.nn.Parameter(p.detach().clone()) for p in a]
    other = bitstep.torch.optimizer(name, b, **arguments)
    other.load_state_dict(torch.load(file, weights_only=True))
    for t in range(3, 6):
        with_grads(a, t), with_grads(b, t)
        opt.step(), other.step()
    assert same(a, b)


@pytest.mark.parametrize("name", ["galore_adamw", "galore_adamw_8bit", "galore_adafactor", "apollo_adamw"])
def test_projected_groups_go_on_with_the_same_bits(name):
    def start(ps):
        group = {"params": ps, "rank": 4, "update_proj_gap": 2, "scale": 0.25, "proj_type": "std"}
        return bitstep.torch.optimizer(name, [group | ({"proj": "random"} if name.startswith("apollo") else {})])

    a = params((16, 12))
    opt = start(a)
    for t in range(3):
        with_grads(a, t)
        opt.step()
    b = [torch.nn.Parameter(p.detach().clone()) for p in a]
    other = start(b)
    other.load_state_dict(opt.state_dict())
    for t in range(3, 6):
        with_grads(a, t), with_grads(b, t)
        opt.step(), other.step()
    assert same(a, b)


def test_damaged_state_dicts_are_refused_and_change_nothing():
    ps = with_grads(params((5,), (4,)))
    opt = AdamW(ps, lr=0.1)
    opt.step()
    saved = opt.state_dict()
    before = opt._core.save()
    fewer = {**saved, "param_groups": saved["param_groups"] * 2}
    missing = copy.deepcopy(saved)
    del missing["state"][0]["exp_avg"]
    shape = copy.deepcopy(saved)
    shape["state"][1]["exp_avg"] = torch.zeros(9)
    for bad, match in ((fewer, "different number"), (missing, "exp_avg"), (shape, "9 elements")):
        with pytest.raises(ValueError, match=match):
            opt.load_state_dict(bad)
    assert opt._core.save() == before


def test_modes_of_schedule_free():
    ps = with_grads(params((5,)))
    opt = AdamWScheduleFree(ps, lr=0.1)
    opt.train()
    for t in range(3):
        with_grads(ps, t)
        opt.step()
    train = ps[0].detach().clone()
    opt.eval()
    assert not torch.equal(ps[0], train) and not opt.param_groups[0]["train_mode"]
    with pytest.raises(ValueError, match="train"):
        opt.step()
    opt.train()
    torch.testing.assert_close(ps[0].detach(), train)
    assert not hasattr(AdamW(ps), "eval")


def test_state_can_not_be_written_past_the_core():
    ps = with_grads(params((5,)))
    opt = AdamW(ps)
    opt.step()
    with pytest.raises(TypeError):
        opt.state[ps[0]] = {}
    with pytest.raises(ValueError, match="load_state_dict"):
        opt.state = {ps[0]: {}}


def test_training_converges_as_torchs():
    def run(cls):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        x = torch.randn(64, 6)
        y = x.sum(1, keepdim=True).sin()
        opt = cls(model.parameters(), lr=0.02)
        for _ in range(100):
            opt.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            opt.step()
        return loss.item()

    ours, torchs = run(AdamW), run(torch.optim.AdamW)
    assert ours < 0.1 and abs(ours - torchs) < 0.02


COMPILED = """
import torch, bitstep.torch

def run(model=lambda m: m, step=lambda s: s):
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    net = model(plain)
    opt = bitstep.torch.AdamW(net.parameters(), lr=0.02)
    do, x = step(opt.step), torch.randn(64, 6)
    for _ in range(4):
        opt.zero_grad()
        (net(x) - x.sum(1, keepdim=True)).square().mean().backward()
        do()
    return list(plain.parameters())

calls = []

def backend(graph, inputs):
    calls.append(graph)
    return graph.forward

compiled = lambda f: torch.compile(f, backend=backend)
want = run()
assert all(torch.equal(a, b) for a, b in zip(run(compiled), want)) and calls
assert all(torch.equal(a, b) for a, b in zip(run(compiled, compiled), want))
"""


def test_compiled_models_and_steps_have_the_same_bits():
    env = {k: v for k, v in os.environ.items() if k != "TORCHDYNAMO_DISABLE"}  # with which nothing is compiled
    done = subprocess.run([sys.executable, "-c", COMPILED], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
