"""Steps over arrays, and schedules."""

import pytest

np = pytest.importorskip("numpy")

import bitstep.numpy  # noqa: E402
import bitstep.schedules  # noqa: E402


def test_step_is_in_place_and_sgds():
    w = np.array([1.0, 2.0])
    opt = bitstep.numpy.Optimizer("sgd", [w], lr=0.5)
    opt.step([np.array([1.0, -1.0])])
    assert w.tolist() == [0.5, 2.5]


def test_state_goes_on_from_bytes():
    def start():
        w = np.linspace(-1, 1, 7, dtype=np.float32)
        return w, bitstep.numpy.Optimizer("adamw_torch", [w], lr=0.1)

    (a, one), (b, two) = start(), start()
    g = np.ones(7, np.float32)
    one.step([g])
    b[...] = a
    two.load(one.save())
    one.step([g]), two.step([g])
    assert (a == b).all() and set(one.state(0)) == {"exp_avg", "exp_avg_sq"}
    with pytest.raises(ValueError):
        two.load(one.save()[:-3])


def test_strided_and_misaligned_arrays_step_as_their_copies():
    base = np.arange(20.0).reshape(4, 5)
    strided, plain = base.copy().T, base.T.copy()
    raw = np.zeros(8 * 3 + 1, np.uint8)[1:].view(np.float64)
    raw[...] = 1.0
    for w in (strided, plain):
        bitstep.numpy.Optimizer("adamw_torch", [w], lr=0.1).step([np.ones_like(plain)])
    assert (strided == plain).all()
    bitstep.numpy.Optimizer("sgd", [raw], lr=0.5).step([np.ones(3)])
    assert raw.tolist() == [0.5] * 3


def test_wrong_gradients_are_refused():
    w = np.ones(3)
    opt = bitstep.numpy.Optimizer("sgd", [w], lr=0.5)
    for bad in (np.ones(4), np.ones(3, np.int64), "no", [1.0, 1.0, 1.0]):
        with pytest.raises((ValueError, TypeError)):
            opt.step([bad])
    with pytest.raises(ValueError):
        opt.step([])
    w.flags.writeable = False
    with pytest.raises(ValueError):
        opt.step([np.ones(3)])
    assert w.tolist() == [1.0] * 3


def test_parameter_that_is_its_own_gradient_is_refused():
    w = np.ones(3)
    with pytest.raises(ValueError, match="shares memory"):
        bitstep.numpy.Optimizer("sgd", [w], lr=0.5).step([w])


def test_rates_are_transformers():
    rates = bitstep.schedules.lrs("linear", 5, lr=1.0, num_warmup_steps=2, num_training_steps=4)
    assert rates == [0.0, 0.5, 1.0, 0.5, 0.0]
    with pytest.raises(ValueError, match="cosine"):
        bitstep.schedules.Schedule("cosin", 1.0)
    assert len(bitstep.schedules.names()) == 27


def test_schedule_goes_on_from_bytes():
    def start():
        return bitstep.schedules.Schedule("cosine", 0.5, num_warmup_steps=2, num_training_steps=20)

    one, two = start(), start()
    one.step()
    two.load(one.save())
    assert one.step() == two.step()


def test_schedules_are_transformers_own():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    cases = {
        "linear": {},
        "cosine": {},
        "cosine_with_restarts": {"num_cycles": 3},
        "polynomial": {"power": 2.0},
        "constant_with_warmup": {},
        "inverse_sqrt": {},
        "cosine_with_min_lr": {"min_lr": 0.01},
        "warmup_stable_decay": {"num_decay_steps": 20},
    }
    for name, own in cases.items():
        opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        needs_end = name not in ("constant_with_warmup", "inverse_sqrt")
        theirs = transformers.get_scheduler(
            name, opt, num_warmup_steps=10, num_training_steps=60 if needs_end else None, scheduler_specific_kwargs=own
        )
        more = {"num_training_steps": 60} if needs_end else {}
        ours = bitstep.schedules.Schedule(name, 0.1, num_warmup_steps=10, **more, **own)
        for _ in range(60):
            assert ours.lrs[0] == pytest.approx(theirs.get_last_lr()[0], rel=1e-14, abs=1e-18), name
            opt.step(), theirs.step(), ours.step()
