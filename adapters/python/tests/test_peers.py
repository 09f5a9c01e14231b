"""What PyTorch asks of its own optimizers, asked of ours: the arguments are those of its own tests (`optim_db`).

The topics are those of `test/test_optim.py`; the checks are written here. Left out, as nothing here is like them:
`foreach`, `fused`, `capturable` and `differentiable` against each other, other devices, sparse and complex parameters,
compiled steps; and the classes that are no name here, `LBFGS` and `SparseAdam`.
"""

import copy
import io
import math
import pickle

import pytest
import torch
from torch.testing._internal.common_optimizers import optim_db

import bitstep.torch.optim

INFOS = [info for info in optim_db if hasattr(bitstep.torch.optim, info.optim_cls.__name__)]


def inputs():
    for info in INFOS:
        for k, case in enumerate(info.optim_inputs_func(device="cpu")):
            yield pytest.param(info, case.kwargs, id=f"{info.optim_cls.__name__}-{k}")


def errors():
    for info in INFOS:
        for k, case in enumerate(info.optim_error_inputs_func("cpu", torch.float32)):
            yield pytest.param(info, case, id=f"{info.optim_cls.__name__}-{k}")


every_input = pytest.mark.parametrize("info, kwargs", list(inputs()))
every_class = pytest.mark.parametrize("info", INFOS, ids=lambda info: info.optim_cls.__name__)


def ours(info):
    return getattr(bitstep.torch.optim, info.optim_cls.__name__)


def is_muon(info):
    return info.optim_cls is torch.optim.Muon


def weights(info, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    shapes = [(6, 4), (3, 5)] if is_muon(info) else [(6, 4), (5,)]
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in shapes]


def give_grads(params, t, scale=1.0):
    generator = torch.Generator().manual_seed(100 + t)
    for p in params:
        p.grad = (scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)).to(p.dtype)


def run(opt, params, steps):
    for t in steps:
        give_grads(params, t)
        opt.step()


def assert_near(info, mine, theirs, steps, lr):
    """As near as torch asks of its own. Muon's update is a bf16 matrix: where one number rounds to its neighbour, so may
    the update."""
    tolerance = dict(rtol=0, atol=steps * float(lr) * 2**-7) if is_muon(info) else {}
    for a, b in zip(mine, theirs):
        torch.testing.assert_close(a, b, **tolerance)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b))


def test_every_class_of_torch_is_here_but_two():
    missing = {info.optim_cls.__name__ for info in optim_db} - {info.optim_cls.__name__ for info in INFOS}
    assert missing == {"LBFGS", "SparseAdam"}


@every_input
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_steps_are_torchs(info, kwargs, dtype):
    mine, theirs = weights(info, dtype), weights(info, dtype)
    run(ours(info)(mine, **kwargs), mine, range(10))
    run(info.optim_cls(theirs, **kwargs), theirs, range(10))
    assert_near(info, mine, theirs, 10, kwargs.get("lr", 1e-3))


# What torch's kernels can't do with tensors as arguments, and here is no matter.
TAKEN = ("is not supported for capturable=False", "must be either both floats or both Tensors")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("info, case", list(errors()))
def test_refusals_are_torchs(info, case):
    given = case.optimizer_error_input

    def build_and_step(cls):
        params = weights(info) if given.params is None else given.params
        opt = cls(params, **given.kwargs)
        if "STEP" in str(case.error_on):
            for p in params:
                p.grad = torch.ones_like(p)
            opt.step()

    with pytest.raises(case.error_type, match=case.error_regex):
        build_and_step(info.optim_cls)
    if any(text in case.error_regex for text in TAKEN):
        build_and_step(ours(info))
        return
    # Complex numbers are refused where the parameter is added, with a type of error that says so.
    late = "complex" in case.error_regex
    with pytest.raises((TypeError, ValueError) if late else case.error_type, match="complex" if late else None):
        build_and_step(ours(info))


@every_input
def test_state_goes_to_torch_and_back(info, kwargs):
    mine = weights(info, torch.float64)
    opt = ours(info)(mine, **kwargs)
    run(opt, mine, range(3))
    theirs = copy.deepcopy(mine)
    reference = info.optim_cls(theirs, **kwargs)
    reference.load_state_dict(copy.deepcopy(opt.state_dict()))
    run(reference, theirs, range(3, 6))
    mine = copy.deepcopy(theirs)
    back = ours(info)(mine, **kwargs)
    back.load_state_dict(copy.deepcopy(reference.state_dict()))
    run(back, mine, range(6, 9))
    run(reference, theirs, range(6, 9))
    assert_near(info, mine, theirs, 9, kwargs.get("lr", 1e-3))


@every_input
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "weights_only"])
def test_copies_go_on_alike(info, kwargs, how):
    mine = weights(info)
    opt = ours(info)(mine, **kwargs)
    run(opt, mine, range(3))
    if how == "weights_only":
        file = io.BytesIO()
        torch.save(opt.state_dict(), file)
        file.seek(0)
        params = copy.deepcopy(mine)
        other = ours(info)(params, **kwargs)
        other.load_state_dict(torch.load(file, weights_only=True))
    else:
        other = copy.deepcopy(opt) if how == "deepcopy" else pickle.loads(pickle.dumps(opt))
        params = [p for group in other.param_groups for p in group["params"]]
    run(opt, mine, range(3, 6))
    run(other, params, range(3, 6))
    assert equal(mine, params)


@every_class
def test_first_rates_of_groups_are_their_own(info):
    params = weights(info)
    before = [p.detach().clone() for p in params]
    opt = ours(info)([{"params": [params[0]], "lr": 0.0}, {"params": [params[1]]}], lr=0.01)
    run(opt, params, range(3))
    if info.optim_cls not in (torch.optim.Rprop,):  # whose steps have their own sizes after the first
        assert torch.equal(params[0], before[0])
    assert not torch.equal(params[1], before[1])


@every_class
def test_decay_is_a_groups_own(info):
    if "weight_decay" not in info.optim_cls(weights(info)).defaults:
        pytest.skip("it has no weight decay")
    params = [torch.nn.Parameter(torch.ones(4, 4, dtype=torch.float64)) for _ in range(2)]
    opt = ours(info)([{"params": [params[0]], "weight_decay": 0.5}, {"params": [params[1]], "weight_decay": 0.0}], lr=0.1)
    for p in params:
        p.grad = torch.full_like(p, 0.25)
    opt.step()
    assert not torch.equal(*params)


@every_class
def test_group_can_be_added_between_steps(info):
    mine, theirs = weights(info, torch.float64), weights(info, torch.float64)
    for cls, params in ((ours(info), mine), (info.optim_cls, theirs)):
        opt = cls([params[0]], lr=0.01)
        run(opt, params[:1], range(2))
        opt.add_param_group({"params": [params[1]], "lr": 0.05})
        run(opt, params, range(2, 4))
    assert_near(info, mine, theirs, 4, 0.05)
    with pytest.raises(ValueError, match="more than one parameter group"):
        opt.add_param_group({"params": [theirs[0]]})
    mine_opt = ours(info)([mine[0]], lr=0.01)
    with pytest.raises(ValueError, match="more than one parameter group"):
        mine_opt.add_param_group({"params": [mine[0]]})


@every_class
def test_nothing_changes_without_gradients(info):
    params = weights(info)
    before = [p.detach().clone() for p in params]
    opt = ours(info)(params)
    opt.step()
    assert equal(params, before) and not opt.state_dict()["state"]


@every_class
def test_tensors_without_elements_step(info):
    if is_muon(info):
        pytest.skip("a matrix that has columns is what it takes")
    empty, other = torch.nn.Parameter(torch.empty(0, 3)), torch.nn.Parameter(torch.ones(2, 3))
    opt = ours(info)([empty, other])
    for _ in range(2):
        empty.grad, other.grad = torch.empty(0, 3), torch.ones(2, 3)
        opt.step()
    assert empty.numel() == 0 and torch.isfinite(other).all()


@every_class
def test_gradients_are_zeroed(info):
    params = weights(info)
    opt = ours(info)(params)
    give_grads(params, 0)
    opt.zero_grad(set_to_none=False)
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in params)
    opt.zero_grad()
    assert all(p.grad is None for p in params)


@every_class
def test_hooks_around_steps_and_states_run(info):
    params = weights(info)
    opt = ours(info)(params)
    heard = []

    def note(what):
        return lambda *_: heard.append(what)

    handles = [
        opt.register_step_pre_hook(note("pre")),
        opt.register_step_post_hook(note("post")),
        opt.register_state_dict_pre_hook(note("state pre")),
        opt.register_state_dict_post_hook(note("state post")),
        opt.register_load_state_dict_pre_hook(note("load pre")),
        opt.register_load_state_dict_post_hook(note("load post")),
    ]
    run(opt, params, range(1))
    opt.load_state_dict(opt.state_dict())
    assert heard == ["pre", "post", "state pre", "state post", "load pre", "load post"]
    for handle in handles:
        handle.remove()
    run(opt, params, range(1, 2))
    opt.load_state_dict(opt.state_dict())
    assert len(heard) == 6


@every_class
def test_named_parameters_keep_their_names(info):
    params = weights(info)
    named = [(f"layer.{i}", p) for i, p in enumerate(params)]
    opt, reference = ours(info)(named), info.optim_cls([(n, torch.nn.Parameter(p.detach().clone())) for n, p in named])
    run(opt, params, range(1))
    names = [group["param_names"] for group in opt.state_dict()["param_groups"]]
    assert names == [group["param_names"] for group in reference.state_dict()["param_groups"]] == [["layer.0", "layer.1"]]
    other = ours(info)(weights(info))
    other.load_state_dict(opt.state_dict())


@every_class
def test_attributes_are_those_of_torchs(info):
    opt, reference = ours(info)(weights(info)), info.optim_cls(weights(info))
    assert set(reference.state_dict()) == set(opt.state_dict())
    assert set(reference.param_groups[0]) <= set(opt.param_groups[0])
    for key, value in reference.defaults.items():
        assert opt.defaults[key] == value or key in ("foreach", "fused"), key
    assert repr(opt).startswith(info.optim_cls.__name__ + " (")


@every_class
def test_rates_may_be_tensors_and_change_in_place(info):
    mine, theirs = weights(info, torch.float64), weights(info, torch.float64)
    for cls, params in ((ours(info), mine), (info.optim_cls, theirs)):
        opt = cls(params, lr=torch.tensor(0.01, dtype=torch.float64))
        run(opt, params, range(2))
        opt.param_groups[0]["lr"].mul_(0.5)
        run(opt, params, range(2, 4))
    assert_near(info, mine, theirs, 4, 0.01)


SCHEDULERS = {
    "StepLR": lambda opt: torch.optim.lr_scheduler.StepLR(opt, 3, gamma=0.5),
    "Linear+Exponential": lambda opt: torch.optim.lr_scheduler.ChainedScheduler(
        [torch.optim.lr_scheduler.LinearLR(opt, 0.4, total_iters=4), torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)]
    ),
    "Cosine": lambda opt: torch.optim.lr_scheduler.CosineAnnealingLR(opt, 7),
    "Plateau": lambda opt: torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=1),
}


@every_class
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_rosenbrocks_valley_is_gone_down_as_torch_does(info, scheduler):
    if is_muon(info):
        pytest.skip("its steps are matrices")
    found = []
    for cls in (ours(info), info.optim_cls):
        p = torch.nn.Parameter(torch.tensor([1.5, 1.5], dtype=torch.float64))
        opt = cls([p], lr=1e-3)
        schedule = SCHEDULERS[scheduler](opt)

        def valley():
            opt.zero_grad()
            loss = (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
            loss.backward()
            return loss

        first = valley().item()
        for _ in range(60):
            loss = opt.step(valley)
            schedule.step(*([loss.item()] if scheduler == "Plateau" else []))
        assert valley().item() < first and math.isfinite(loss.item())
        found.append(p.detach())
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)
