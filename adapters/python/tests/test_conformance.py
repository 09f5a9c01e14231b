"""The suite from Python: on this package itself, on right and on wrong optimizers."""

import subprocess
import sys

import pytest

np = pytest.importorskip("numpy")

from bitstep import _bitstep, conformance  # noqa: E402
from bitstep.conformance._own import Own  # noqa: E402


def test_every_golden_has_the_bits_of_the_core():
    """Free runs and single steps of every committed case of an optimizer or a schedule."""
    equal, different, unsupported = _bitstep.same_bits(Own())
    total = len(conformance.cases())
    print(f"{equal} equal answers of {total} cases; unsupported: {len(unsupported)}")
    assert different == []
    assert {why for _, why in unsupported} <= {"no gradient strategies from Python"}
    assert equal > 30_000 and len(unsupported) < total / 20


def test_wrong_answer_of_the_package_would_be_noticed():
    class Off(Own):
        def optimizer(self, *arguments):
            run = super().optimizer(*arguments)
            value = run.value
            run.value = lambda i: (*value(i)[:2], bytes([value(i)[2][0] ^ 1, *value(i)[2][1:]]))
            return run

    equal, different, _ = _bitstep.same_bits(Off(), "optimizer/adamw_torch/default_f32")
    assert equal == 0 and different == ["optimizer/adamw_torch/default_f32"]


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        ("AdamW", "adamw_torch"),
        ("SGD", "sgd"),
        ("NAdam", "nadam"),
        ("Adafactor", "adafactor"),
        ("Lion", "lion_32bit"),
        ("AdamWScheduleFree", "schedule_free_adamw"),
    ],
)
def test_own_classes_pass(cls, name):
    pytest.importorskip("torch")
    import bitstep.torch

    outcomes = conformance.check(getattr(bitstep.torch, cls), name)
    wrong = [o for o in outcomes if o.outcome in ("fail", "error")]
    assert wrong == [] and sum(o.outcome == "pass" for o in outcomes) > 40


def test_torchs_own_class_passes_and_a_changed_one_is_diagnosed(tmp_path):
    torch = pytest.importorskip("torch")
    only = "optimizer/adamw_torch/{default,strong}_f{32,64}"
    ok, text = conformance.verify(torch.optim.AdamW, "adamw_torch", only)
    assert ok, text

    class Coupled(torch.optim.Adam):
        """Adam's decay in place of AdamW's."""

        def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, **more):
            super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **more)

    page, lines = tmp_path / "report.html", tmp_path / "lines.json"
    ok, text = conformance.verify(Coupled, "adamw_torch", only, report=page, json=lines)
    assert not ok and "weight decay coupled into the gradient" in text, text
    assert "<html" in page.read_text() and len(lines.read_text().splitlines()) == 8


def test_plain_function_is_checked():
    torch = pytest.importorskip("torch")

    def sgd(param, grad, state, lr, momentum, dampening, weight_decay, nesterov, maximize, **_):
        grad = -grad if maximize else grad
        grad = grad + weight_decay * param if weight_decay else grad
        if momentum:
            old = state.get("momentum_buffer")
            state["momentum_buffer"] = grad.clone() if old is None else old * momentum + (1 - dampening) * grad
            grad = grad + momentum * state["momentum_buffer"] if nesterov else state["momentum_buffer"]
        return param - lr * grad

    only = "optimizer/sgd/{default,strong}_f64"
    outcomes = conformance.check(sgd, "sgd", only)
    assert outcomes and all(o.outcome == "pass" for o in outcomes), outcomes
    outcomes = conformance.check(lambda *a, **k: sgd(*a, **{**k, "lr": 1.01 * k["lr"]}), "sgd", only)
    assert any(o.outcome == "fail" for o in outcomes)
    assert torch is not None


def test_optimizer_that_raises_is_an_error_that_says_where():
    torch = pytest.importorskip("torch")

    class Broken(torch.optim.AdamW):
        def step(self, closure=None):
            raise RuntimeError("out of cheese")

    outcomes = conformance.check(Broken, "adamw_torch", "optimizer/adamw_torch/default_f32")
    assert {o.outcome for o in outcomes} == {"error"} and "out of cheese" in outcomes[0].detail


def test_fixture_passes_and_fails(bitstep_conformance):
    torch = pytest.importorskip("torch")
    bitstep_conformance(torch.optim.SGD, "sgd", "optimizer/sgd/default_f64")
    with pytest.raises(pytest.fail.Exception, match="checks"):
        bitstep_conformance(torch.optim.SGD, "adamw_torch", "optimizer/adamw_torch/default_f64", hidden_state=True)
    with pytest.raises(pytest.fail.Exception, match="nothing was compared"):
        bitstep_conformance(torch.optim.SGD, "sgd", "optimizer/sgd/no_such_case")


def test_command_line(tmp_path):
    pytest.importorskip("torch")

    def command(*arguments):
        run = [sys.executable, "-m", "bitstep.conformance", *arguments]
        return subprocess.run(run, capture_output=True, text=True, cwd=tmp_path)

    (tmp_path / "mine.py").write_text("from torch.optim import AdamW as Mine\n")
    only = ["--as", "adamw_torch", "--only", "optimizer/adamw_torch/default_f64"]
    fine = command("verify", "--optimizer", "mine:Mine", *only)
    assert fine.returncode == 0, fine.stdout + fine.stderr
    assert command("verify", "--optimizer", "mine:Other", *only).returncode != 0
    assert "optimizer/adamw_torch/default_f32" in command("list", "--only", "adamw_torch").stdout


def test_fuzzing_finds_a_mistake_makes_it_small_and_names_it(tmp_path):
    torch = pytest.importorskip("torch")

    def wrong(p, g, state, lr, betas, eps, weight_decay, maximize=False, amsgrad=False, **_):
        if maximize or amsgrad:
            raise conformance.Unsupported("not written")
        state["step"] = state.get("step", torch.tensor(0.0)) + 1
        t = state["step"].item()
        m = state["exp_avg"] = betas[0] * state.get("exp_avg", torch.zeros_like(p)) + (1 - betas[0]) * g
        v = state["exp_avg_sq"] = betas[1] * state.get("exp_avg_sq", torch.zeros_like(p)) + (1 - betas[1]) * g * g
        root = torch.sqrt(v / (1 - betas[1] ** t) + eps)  # epsilon belongs behind the root
        return p * (1 - lr * weight_decay) - lr / (1 - betas[0] ** t) * m / root

    ok, text = conformance.fuzz(wrong, "adamw_torch", tmp_path, cases=200, profile="ordinary")
    assert not ok and "epsilon inside the root" in text, text
    found = list(tmp_path.rglob("*.safetensors"))
    assert len(found) == 1 and "python -m bitstep.conformance verify --optimizer " in text
    outcomes = conformance.check(wrong, "adamw_torch", golden=[tmp_path])
    assert [o.outcome for o in outcomes].count("fail") > 0
    # The finding is small: of few numbers, and what is right passes it.
    assert found[0].stat().st_size < 4096
    assert all(o.outcome == "pass" for o in conformance.check(torch.optim.AdamW, "adamw_torch", golden=[tmp_path]))


def test_fuzzing_finds_nothing_in_torchs_own(tmp_path):
    torch = pytest.importorskip("torch")

    class Plain(torch.optim.AdamW):
        """Without its `foreach` kernels, which round a product's factor to 16 bits where the others do not."""

        def __init__(self, params, foreach=None, fused=None, **arguments):
            super().__init__(params, foreach=False, **arguments)

    ok, text = conformance.fuzz(Plain, "adamw_torch", tmp_path, cases=40, profile="ordinary")
    assert ok and not list(tmp_path.rglob("*.safetensors")), text
    with pytest.raises(ValueError, match="profile"):
        conformance.fuzz(torch.optim.AdamW, "adamw_torch", tmp_path, cases=1, profile="odd")
