"""The conformance suite from Python: golden vectors of the real references against an optimizer of yours.

    python -m bitstep.conformance verify --optimizer mypkg:MyAdamW --as adamw_torch
    python -m bitstep.conformance fuzz --optimizer mypkg:MyAdamW --as adamw_torch

The vectors are in the package. `check` gives the outcomes to a test framework; with pytest the fixture
`bitstep_conformance` does it in three lines:

    def test_my_adamw(bitstep_conformance):
        bitstep_conformance(MyAdamW, "adamw_torch")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Sequence

from .. import _bitstep
from ._foreign import Foreign, Lacks, Unsupported

__all__ = ["Lacks", "Outcome", "Unsupported", "cases", "check", "fuzz", "verify"]


class Outcome(NamedTuple):
    """What came of one check: `pass`, `fail`, `unsupported`, `error` or `empty`."""

    case: str
    mode: str
    outcome: str
    detail: str


def cases(only: str | None = None, golden: Sequence[str | Path] = ()) -> list[str]:
    """The ids of the golden cases: those of the package, or of folders."""
    return _bitstep.cases(only, [str(folder) for folder in golden])


def _glob(name: str, only: str | None) -> str:
    return only or f"optimizer/{name}/*"


def check(
    optimizer: Any, name: str, only: str | None = None, golden: Sequence[str | Path] = (), hidden_state: bool = False
) -> list[Outcome]:
    """Runs the golden cases of a name against an optimizer: a `torch.optim.Optimizer` class or a function.

    A function is called as `step(param, grad, state, **arguments)` with tensors and the dictionary of the parameter's
    state; it changes `param` in place or returns the new one. `hidden_state`: only values are compared, as the state
    has other keys than the reference's.
    """
    backend = Foreign(optimizer, name, hidden_state)
    rows = _bitstep.check("python", backend, _glob(name, only), [str(folder) for folder in golden])
    return [Outcome(*row) for row in rows]


def verify(
    optimizer: Any,
    name: str,
    only: str | None = None,
    golden: Sequence[str | Path] = (),
    hidden_state: bool = False,
    json: str | Path | None = None,
    report: str | Path | None = None,
    fresh: int | None = None,
    strict: bool = False,
) -> tuple[bool, str]:
    """`check` as text: whether all passed, and the table with errors in ULP, their bounds and diagnoses.

    `json` and `report` are files to write, as lines and as a page. `fresh` is a seed of other inputs, for which the core
    is the oracle. `strict`: what is unsupported fails.
    """
    backend = Foreign(optimizer, name, hidden_state)
    folders = [str(folder) for folder in golden]
    json, report = (None if path is None else str(path) for path in (json, report))
    ok, text = _bitstep.verify("python", backend, _glob(name, only), folders, json, report, fresh, strict)
    again = _again(optimizer, name, hidden_state)
    return ok, text.replace("cargo run --release -p bitstep-conformance -- verify --backend python", again)


def fuzz(
    optimizer: Any,
    name: str,
    out: str | Path = "fuzz-findings",
    cases: int | None = None,
    seconds: float | None = None,
    seed: int = 1,
    profile: str = "all",
    hidden_state: bool = False,
    go_on: bool = False,
) -> tuple[bool, str]:
    """Looks for inputs at which an optimizer is wrong, makes them as small as they can be, and says what they show.

    Runs are drawn: arguments within the reference's ranges and at their ends, types, shapes, gradients by pattern,
    missing gradients, rates, late steps (`profile` "ordinary": what occurs in training; "edges": ends of ranges, NaN,
    infinity, denormals). The core says what is right. It ends after `cases` runs or `seconds`, 60 without either, and
    after the first finding unless it shall `go_on`. Returns whether nothing was found, and the text to show; findings
    are written to the folder `out` as golden cases, which `verify(..., golden=[out])` replays.
    """
    backend = Foreign(optimizer, name, hidden_state)
    found = _bitstep.fuzz_object("python", backend, _glob(name, None), str(out), cases, seconds, seed, profile, go_on)
    replay = "cargo run --release -p bitstep-conformance -- verify "
    return found[0], found[1].replace(replay, _again(optimizer, name, hidden_state) + " ").replace(" --backend python", "")


def _again(optimizer: Any, name: str, hidden_state: bool) -> str:
    module, cls = getattr(optimizer, "__module__", "MODULE"), getattr(optimizer, "__qualname__", "NAME")
    hidden = " --hidden-state" if hidden_state else ""
    return f"python -m bitstep.conformance verify --optimizer {module}:{cls} --as {name}{hidden}"
