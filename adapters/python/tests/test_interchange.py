"""State goes both ways between here and the reference: it saves and we go on, we save and it goes on.

Every class whose reference runs on this machine's CPU. Where the reference is not installed the test is skipped, with
the reason; what can't be exchanged is listed with why.
"""

import importlib
import os

import pytest

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # torchao would compile its step, for minutes

torch = pytest.importorskip("torch")

import bitstep.torch  # noqa: E402
from bitstep._references import records  # noqa: E402

# What can't be handed over, and why.
NOT_EXCHANGED = {
    "grokadamw": "the reference keeps its state in a group, keyed by parameters, which no state_dict numbers",
    "lomo": "the reference steps inside of the backward pass and has no state",
    "adalomo": "the reference steps inside of the backward pass and saves no state",
}
GIVEN = {"lr": 1e-2, "momentum": 0.9}
SHAPES = [(64, 128), (5, 3), (7,)]
# In units of the largest move of the parameter over all steps: f64 tells a wrong formula from rounding. Besides, each of
# the twenty steps rounds the parameter by up to half a unit in the last place, in both runs.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5}
STEPS = 20
# 8-bit codes: a code may fall on the other side of a midpoint. torchao's and bitsandbytes' CPU kernels differ from
# the references on a GPU, which the core follows by default; here the CPU's way is asked for.
QUANTIZED = 0.05


def classes():
    return [pytest.param(r, id=f"{r['module'].split('.')[0]}.{r['class']}") for r in records()]


def setup(record, dtype):
    if record["name"] in NOT_EXCHANGED:
        pytest.skip(NOT_EXCHANGED[record["name"]])
    if "no_state" in record:
        pytest.skip(f"the reference does not run here: {record['no_state']}")
    try:
        theirs = getattr(importlib.import_module(record["module"]), record["class"])
    except ImportError as e:
        pytest.skip(f"the reference is not installed: {e}")
    family = {"torch.optim": "optim", "transformers.optimization": "transformers", "bitsandbytes.optim": "bitsandbytes",
              "torchao.optim": "torchao", "llama_cookbook.policies.anyprecision_optimizer": "llama_cookbook"}
    module = importlib.import_module(f"bitstep.torch.{family.get(record['module'], record['module'])}")
    ours = getattr(module, record["class"])
    names = [a["name"] for a in record["arguments"]]
    arguments = {} if "relative_step" in names else {"lr": 1e-2}
    required = [a["name"] for a in record["arguments"] if "default" not in a]
    arguments |= {name: GIVEN[name] for name in required}
    if record["class"] in ("SGD", "SGD8bit", "SGD32bit", "LARS", "LARS8bit", "LARS32bit", "RMSprop", "Lion") and "momentum" in names:
        arguments["momentum"] = 0.9
    if "weight_decay" in names:
        arguments["weight_decay"] = 0.1
    if "triton" in names:
        arguments["triton"] = False
    if record["class"].startswith("Flash"):
        arguments |= {"quantize": False, "master_weight_bits": None, "fused": False}
    more = {}
    if record["module"] == "bitsandbytes.optim" and "8bit" in record["class"] or record["class"] == "GaLoreAdamW8bit":
        more["quantizer"] = "cpu"
    return theirs, ours, arguments, more


def fresh(dtype, shapes):
    g = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(s, generator=g, dtype=torch.float64).to(dtype)) for s in shapes]


def gradients(t, dtype, shapes):
    g = torch.Generator().manual_seed(100 + t)
    return [torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in shapes]


def go(opt, params, start, end, shapes):
    if hasattr(opt, "train"):
        opt.train()
    for t in range(start, end):
        for p, grad in zip(params, gradients(t, params[0].dtype, shapes)):
            p.grad = grad
        opt.step()


def compare(got, want, start, dtype, quantized):
    for a, b, x in zip(got, want, start):
        moved = (b - x).abs().max().double()
        off = (a.double() - b.double()).abs().max()
        limit = QUANTIZED if quantized and a.numel() >= 4096 else TOLERANCE[dtype]
        assert moved > 0 or a.numel() == 0
        rounding = STEPS * torch.finfo(dtype).eps * b.abs().max().double() if b.numel() else 0.0
        assert off <= limit * moved + rounding, f"off by {(off / moved):.2e} of the largest move"


@pytest.mark.parametrize("way", ["theirs_then_ours", "ours_then_theirs"])
@pytest.mark.parametrize("record", classes())
def test_state_of_ten_steps_is_taken_over(record, way, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)  # galore_torch waits for a GPU
    dtype = torch.float64
    if record["module"] in ("bitsandbytes.optim", "torchao.optim") or record["class"] in ("GaLoreAdamW8bit", "AnyPrecisionAdamW"):
        dtype = torch.float32
    if record["name"].startswith("flash"):
        dtype = torch.float32
    theirs, ours, arguments, more = setup(record, dtype)
    shapes = [SHAPES[0]] if record["class"] == "Muon" else SHAPES
    want = fresh(dtype, shapes)
    reference = theirs(want, **arguments)
    go(reference, want, 0, 10, shapes)
    if way == "ours_then_theirs":
        # What it makes of a state that it loads: torch rounds that to the type of the parameter.
        again = theirs(want, **arguments)
        again.load_state_dict(reference.state_dict())
        reference = again
    go(reference, want, 10, 20, shapes)
    got = fresh(dtype, shapes)
    first, second = (theirs, ours) if way == "theirs_then_ours" else (ours, theirs)
    extra = lambda cls: more if cls is ours else {}  # noqa: E731
    opt = first(got, **arguments, **extra(first))
    go(opt, got, 0, 10, shapes)
    saved = opt.state_dict()
    opt = second(got, **arguments, **extra(second))
    opt.load_state_dict(saved)
    go(opt, got, 10, 20, shapes)
    # Muon's reference multiplies matrices in bf16, in another order of sums.
    quantized = any(w in record["class"] for w in ("8bit", "4bit", "Fp8", "Muon"))
    compare(got, want, fresh(dtype, shapes), dtype, quantized)
