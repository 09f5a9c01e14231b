"""schedulefree's own tests, which its package carries, run on our classes in place of its own.

They compare those with its closure, reference and wrapped forms, which stay. They ask for a GPU: here every tensor stays
where it is.
"""

import types

import pytest

torch = pytest.importorskip("torch")
schedulefree = pytest.importorskip("schedulefree")
suite = pytest.importorskip("schedulefree.test_schedulefree")

import bitstep.torch.schedulefree as ours  # noqa: E402
from bitstep.torch.optim import SGD  # noqa: E402

TESTS = sorted(name for name in vars(suite) if name.startswith("test_"))
REPLACED = ["AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree"]


def on_ours(name, monkeypatch, seed, **classes):
    """One of the tests, with these classes where it names its own; how many optimizers of each it made."""
    made = dict.fromkeys(classes, 0)

    def counted(cls):
        def make(*arguments, **named):
            made[cls] += 1
            return classes[cls](*arguments, **named)

        return make

    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor, raising=False)
    names = {**vars(suite), **{cls: counted(cls) for cls in classes}}
    test = vars(suite)[name]
    names.update({k: types.FunctionType(f.__code__, names) for k, f in vars(suite).items() if isinstance(f, types.FunctionType)})
    torch.manual_seed(seed)
    types.FunctionType(test.__code__, names)()
    return made


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TESTS)
def test_schedulefrees_test_passes(name, seed, monkeypatch, capsys):
    made = on_ours(name, monkeypatch, seed, **{cls: getattr(ours, cls) for cls in REPLACED})
    assert sum(made.values()) > 0 or name == "test_equiv"  # which is about `lerp_`


def test_no_class_is_left_out(monkeypatch, capsys):
    made = [on_ours(name, monkeypatch, 0, **{cls: getattr(ours, cls) for cls in REPLACED}) for name in TESTS]
    assert all(sum(one[cls] for one in made) > 0 for cls in REPLACED)


def test_schedulefrees_test_fails_on_another_momentum(monkeypatch, capsys):
    """The harness runs on what it is given."""

    def other(params, **arguments):
        return ours.SGDScheduleFree(params, **(arguments | {"momentum": 0.8}))

    with pytest.raises(AssertionError):
        on_ours("test_schedulefree_sgd", monkeypatch, 0, SGDScheduleFree=other)


def test_wrapper_around_ours_is_refused():
    """`ScheduleFreeWrapper` keeps tensors in its base's `state`, which here is a copy of the core's."""
    p = torch.nn.Parameter(torch.ones(3))
    wrapped = schedulefree.ScheduleFreeWrapper(SGD([p], lr=0.1), momentum=0.9)
    wrapped.train()
    p.grad = torch.ones(3)
    with pytest.raises(TypeError, match="does not support item assignment"):
        wrapped.step()
    assert torch.equal(p, torch.ones(3))
