"""The conformance suite from Python: golden vectors of the real references against an optimizer of yours.

    python -m bitstep.conformance verify --optimizer mypkg:MyAdamW --as adamw_torch

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

__all__ = ["Lacks", "Outcome", "Unsupported", "cases", "check", "verify"]


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
    module, cls = getattr(optimizer, "__module__", "MODULE"), getattr(optimizer, "__qualname__", "NAME")
    again = f"python -m bitstep.conformance verify --optimizer {module}:{cls} --as {name}"
    return ok, text.replace("cargo run --release -p bitstep-conformance -- verify --backend python", again)
