"""Writes the classes of `bitstep.torch` from what was recorded of the references and from the rules' documentation.

    python adapters/python/export/classes.py [--check]
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent.parent
CORE = HERE.parent.parent / "core/src"
TARGET = HERE / "python/bitstep/torch"
HEAD = '"""{}"""\n\n# Written by export/classes.py.\n\nfrom __future__ import annotations\n\n'

# Where the registry's entry does not name its rule by a type argument.
RULES = {
    "adamw_bnb_8bit": "BnbAdam", "paged_adamw_32bit": "BnbAdam", "paged_adamw_8bit": "BnbAdam", "bnb_adamw_32bit": "BnbAdam",
    "adamw_8bit": "BnbAdam", "adamw_anyprecision": "AdamWAnyPrecision", "galore_adamw": "AdamWHf",
    "galore_adafactor": "Adafactor", "galore_adamw_8bit": "BnbAdam", "apollo_adamw": "AdamWHf",
    "optimi_adamw": "OptimiAdam",
}  # fmt: skip
MODULES = {
    "torch.optim": "optim",
    "transformers.optimization": "transformers",
    "bitsandbytes.optim": "bitsandbytes",
    "torchao.optim": "torchao",
    "llama_cookbook.policies.anyprecision_optimizer": "llama_cookbook",
}
# Whose class a name is that several have: what Transformers' names mean comes first, then torch's.
FIRST = ["transformers", "optim", "bitsandbytes"]


def rules():
    """The type of each name's rule."""
    text = (CORE / "registry/list.rs").read_text()
    found = dict(RULES)
    for types, name in re.findall(r'<([A-Za-z<>, 0-9]+)>\("(\w+)"\)', text):
        found[name] = re.findall(r"[A-Z]\w+", types)[-1]
    return found


def documentation():
    """The comment of every type in core/src/optim, as sections by heading; the first has none."""
    found = {}
    for path in sorted((CORE / "optim").rglob("*.rs")):
        comment = []
        for line in path.read_text().splitlines():
            if line.startswith("///"):
                comment.append(line[4:])
                continue
            name = re.match(r"pub struct (\w+)", line)
            if name and comment:
                sections, title = {"": []}, ""
                for text in comment:
                    if text.startswith("# "):
                        title = text[2:].strip()
                        sections[title] = []
                    else:
                        sections[title].append(text)
                found[name[1]] = {k: "\n".join(v).strip() for k, v in sections.items()}
            if not line.startswith("#["):
                comment = []
    return found


def plain(text):
    """Rust's links and code fences as plain text."""
    text = re.sub(r"\[(`[^`]+`)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\[(`[^`]+`)\]", r"\1", text)
    text = re.sub(r"^```\w*$", "", text, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", text.replace("\\", "\\\\")).strip()


def annotation(argument):
    value = argument.get("default", 0.0)
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, float) or value == 0 and isinstance(value, int):
        return "float | torch.Tensor" if argument["name"] == "lr" else "float"
    if isinstance(value, int):
        return "float" if argument["name"] in ("lr", "weight_lr_power") else "int"
    if isinstance(value, str):
        return "str"
    if isinstance(value, list):
        return "Sequence[float | None]" if None in value else "Sequence[float]"
    if isinstance(value, dict) and "dtype" in value:
        return "torch.dtype | str"
    return "Any"


def literal(value):
    if isinstance(value, list):
        return "(" + ", ".join(literal(v) for v in value) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, dict):
        if "float" in value:
            return f'float("{value["float"]}")'
        return f"torch.{value['dtype']}" if "dtype" in value else "None"
    return repr(value)


def docstring(record, doc):
    title = plain(doc.get("", "")).split("\n\n")[0].replace("\n", " ") if doc else record["class"]
    reference = f"{record['module']}.{record['class']}"
    parts = [f"{title}\n\nAs `{reference}`; `bitstep.torch.optimizer(\"{record['name']}\", …)`."]
    for heading in ("Formula", "Source", "Hyper-parameters", "State", "Non-finite input"):
        if doc and doc.get(heading):
            parts.append(f"{heading}\n\n{plain(doc[heading])}")
    parts.append("Errors\n\nValueError: an argument outside of its range.")
    text = "\n\n".join(parts)
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def releases(record):
    return any(a["name"] == "gradient_release" for a in record["arguments"])


def shows_rate(record):
    """Those that Transformers' `AdafactorSchedule` asks for their rate."""
    return record["module"] == "transformers.optimization"


def of_class(record, doc):
    arguments = ["self", "params: Any"]
    keyword = False
    for a in record["arguments"]:
        if a["keyword_only"] and not keyword:
            arguments.append("*")
            keyword = True
        default = f" = {literal(a['default'])}" if "default" in a else ""
        arguments.append(f"{a['name']}: {annotation(a)}{default}")
    if not keyword:
        arguments.append("*")
    arguments.append("**more: Any")
    names = ", ".join(f'"{a["name"]}": {a["name"]}' for a in record["arguments"])
    bases = "Modes, " * record["modes"] + "Release, " * releases(record) + "ShownRate, " * shows_rate(record) + "Optimizer"
    body = ",\n        ".join(arguments)
    if not keyword:  # `*, **more` is not Python
        body = body.replace("*,\n        **more", "**more")
    return (
        f'class {record["class"]}({bases}):\n    """{docstring(record, doc).strip()}\n    """\n\n'
        f'    _reference = record("{record["name"]}", "{record["module"]}", "{record["class"]}")\n\n'
        f"    def __init__(\n        {body},\n    ) -> None:\n"
        f'        super().__init__(params, "{record["name"]}", {{{names}, **more}})\n'
    )


def main():
    records = json.loads((HERE / "python/bitstep/references.json").read_text())
    types, docs = rules(), documentation()
    families = {}
    for record in records:
        families.setdefault(MODULES.get(record["module"], record["module"]), []).append(record)
    files = {}
    for family, members in families.items():
        text = HEAD.format(f"The classes of {members[0]['module']}.")
        text += "from typing import Any, Sequence\n\nimport torch\n\nfrom .._references import record\n"
        modes = any(r["modes"] for r in members)
        shown = any(map(shows_rate, members))
        text += f"from ._base import {'Modes, ' if modes else ''}Optimizer{', ShownRate' if shown else ''}\n"
        names = [r["class"] for r in members]
        if any(map(releases, members)):
            more = ["prepare_for_gradient_release", "remove_gradient_release"]
            text += f"from ._release import Release, {', '.join(more)}\n"
            names += more
        text += "\n__all__ = [" + ", ".join(f'"{name}"' for name in names) + "]\n"
        for record in members:
            text += "\n\n" + of_class(record, docs.get(types.get(record["name"], ""), {}))
        files[f"{family}.py"] = text
    order = [*FIRST, *(f for f in families if f not in FIRST)]
    first = {}
    for family in order:
        for record in families[family]:
            first.setdefault(record["class"], family)
    text = HEAD.format("Every optimizer as a `torch.optim.Optimizer`: see `bitstep.torch.optimizer` for the names.")
    text += "".join(
        f"from .{family} import {', '.join(sorted(c for c, f in first.items() if f == family))}\n"
        for family in sorted(set(first.values()))
    )
    text += "\n__all__ = [" + ", ".join(f'"{c}"' for c in sorted(first)) + "]\n"
    text += "\n# The class of each name.\nCLASSES = {\n"
    names = {}
    for record in records:
        family = MODULES.get(record["module"], record["module"])
        names.setdefault(record["name"], (family, record["class"]))
    text += "".join(f'    "{name}": ("{family}", "{cls}"),\n' for name, (family, cls) in sorted(names.items()))
    text += "}\n"
    files["_classes.py"] = text
    stale = [n for n, t in files.items() if not (TARGET / n).exists() or (TARGET / n).read_text() != t]
    if "--check" in sys.argv:
        if stale:
            sys.exit(f"not up to date: {', '.join(stale)}; run export/classes.py")
        return
    for name, text in files.items():
        (TARGET / name).write_text(text)
    print(len(records), "classes in", len(files), "files")


main()
