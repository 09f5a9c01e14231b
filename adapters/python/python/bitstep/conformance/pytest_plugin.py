"""The fixture `bitstep_conformance`, which pytest finds by itself where this package is installed."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def bitstep_conformance() -> Any:
    """A function that checks an optimizer against the golden vectors of a name, and fails the test with what is wrong.

    def test_my_adamw(bitstep_conformance):
        bitstep_conformance(MyAdamW, "adamw_torch")
    """
    from . import check

    def run(optimizer: Any, name: str, only: str | None = None, **options: Any) -> None:
        outcomes = check(optimizer, name, only, **options)
        wrong = [o for o in outcomes if o.outcome in ("fail", "error")]
        if wrong:
            lines = "\n".join(f"{o.outcome} {o.case} {o.mode}: {o.detail}" for o in wrong[:10])
            pytest.fail(f"{len(wrong)} of {len(outcomes)} checks:\n{lines}", pytrace=False)
        if not any(o.outcome == "pass" for o in outcomes):
            reasons = sorted({o.detail for o in outcomes})
            pytest.fail(f"nothing was compared: {'; '.join(reasons[:3]) or 'no such cases'}", pytrace=False)

    return run
