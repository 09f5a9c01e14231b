"""What the references' classes take and keep, as export/references.py recorded it."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

# Names that are another's class, and differ in what a step computes or where it runs.
SAME_CLASS = {
    "adamw_torch_fused": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "adamw_hf": "galore_adamw",
    "apollo_adamw_layerwise": "apollo_adamw",
    "galore_adafactor_layerwise": "galore_adafactor",
    "galore_adamw_8bit_layerwise": "galore_adamw_8bit",
    "galore_adamw_layerwise": "galore_adamw",
}


def from_json(value: Any) -> Any:
    """A recorded value as Python's."""
    if isinstance(value, list):
        return tuple(from_json(v) for v in value)
    if isinstance(value, dict):
        if "float" in value:
            return float(value["float"])
        if "dtype" in value:
            return value["dtype"]
        if "dict" in value:
            return {k: from_json(v) for k, v in value["dict"].items()}
        return None
    return value


@functools.cache
def records() -> list[dict[str, Any]]:
    """All records."""
    text = resources.files(__package__).joinpath("references.json").read_text()
    return json.loads(text)


@functools.cache
def record(name: str, module: str | None = None, cls: str | None = None) -> dict[str, Any]:
    """That of a class, or of a name's first class; without one, an empty one."""
    name = SAME_CLASS.get(name, name)
    for r in records():
        if r["name"] == name and module in (None, r["module"]) and cls in (None, r["class"]):
            return r
    return {"name": name, "module": "", "class": name, "arguments": [], "group": {}, "state": None, "modes": False,
            "tensor_lr": False}
