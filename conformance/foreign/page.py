"""Prints docs/backends.md from the JSON lines of `run`: `page.py FOLDER`. Without a folder the part about the committed
cases stays as it stands there, and only that about fuzzing is made anew, from `found`."""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

WHAT = {
    "c": "[AdamW in plain C](../conformance/foreign/adamw.c), an example of ours",
    "numpy": "[AdamW, SGD and Adafactor in numpy](../conformance/foreign/numpy_backend.py), an example of ours",
    "torch-foreach": "PyTorch's multi-tensor kernels (`foreach=True`), against its plain ones",
    "torch-fused": "PyTorch's fused kernels (`fused=True`), against its plain ones",
    "optax": "optax, on jax on a CPU, against PyTorch's and bitsandbytes' classes of the same name",
    "candle-nn": "candle-nn, against PyTorch",
    "candle-optimisers": "candle-optimisers, against PyTorch",
    "burn": "burn-optim, on burn-flex, against PyTorch",
}
HERE = Path(__file__).resolve().parent
UNDER_FUZZ = "# Under fuzzing\n"


def version(name):
    def python(lock, package):
        lines = (HERE / lock).read_text().splitlines()
        return next(line.split("==")[1].split()[0] for line in lines if line.startswith(package + "=="))

    def rust(lock, package):
        text = lock.read_text()
        return text.split(f'name = "{package}"\nversion = "')[1].split('"')[0]

    own = HERE / "rust" / "Cargo.lock"
    if name.startswith("torch"):
        return " " + python("../export/main.lock", "torch")
    if name == "optax":
        return f" {python('optax.lock', 'optax')}, jax {python('optax.lock', 'jax')}"
    if name == "candle-nn":
        return " " + rust(HERE / "../../Cargo.lock", "candle-nn")
    if name in ("burn", "candle-optimisers"):
        return " " + rust(own, {"burn": "burn-optim"}.get(name, name))
    return ""


def figure(x):
    if x is None:
        return "–"
    if x >= 1e300:
        return "∞"
    return f"{x:.0f}" if x < 10000 else f"{x:.1e}"


def fuzzed():
    print(UNDER_FUZZ)
    print("""What [`fuzz`](fuzzing.md) finds in them, each made as small as it can be; the core is the oracle. Written by `conformance/foreign/run fuzz`; a line's command shows it again. One finding of each optimizer: after its first it is left alone.
""")
    for name in WHAT:
        folder = HERE / "found" / name
        if not (folder / "summary.txt").exists():
            continue
        # Without the time it took.
        summary = re.sub(r" in .*? a second\)", "", (folder / "summary.txt").read_text().strip())
        print(f"## {name}{version(name)}: fuzzed\n\n{summary}.\n")
        lines = [json.loads(line) for line in (folder / "found.jsonl").read_text().splitlines()]
        if not lines:
            continue
        print("| name | smallest run | error | what is known of it | to see it |")
        print("| --- | --- | --- | --- | --- |")
        for c in sorted(lines, key=lambda c: c["name"]):
            known = [f"off: {', '.join(c['off'])}" if c["off"] else c["detail"].split("; ")[0]]
            known += [f"looks like: {c['diagnosis']}"] if c["diagnosis"] else []
            known += [f"shows {', '.join(c['conditions'])}"] if c["conditions"] else []
            text = "; ".join(known).replace("|", "\\|").replace("\n", " ")
            more = f"{c['more']} more runs failed" if c["more"] else "no other run failed"
            print(f"| `{c['name']}` | {c['size']} | {c['error'] or '–'} | {text}; {more} | `conformance/foreign/run again {name} {c['case']}` |")
        print()


def main(folder):
    print("""# Other people's optimizers

What the suite says of optimizers that others have written, and of PyTorch's own faster kernels. Written by `conformance/foreign/run`, which ran each of them on the committed cases; nothing here is by hand. `conformance/foreign/run NAME CASE` shows a line again, with the first number that is off.

A case counts as matched if the whole run from its start stays within the [bounds](../conformance/src/judge/bounds.rs), 4 ULP a step unless one says otherwise; where the state can be set, single steps from the reference's own state are counted too. What a library has no argument for is left out, not failed. The reference is the class of the same name as it runs by default; a difference is not a mistake where a library promises no such thing. f16 and bf16 are judged against PyTorch's plain kernels, which round after every operation. optax, candle and burn are compared by their parameters alone. “Looks like” names a known mistake that gives the same numbers, not necessarily the cause.
""")
    for name, what in WHAT.items():
        lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        by = defaultdict(list)
        for line in lines:
            by[line["name"]].append(line)
        title = what.replace("optax,", f"optax{version(name)},", 1) if name == "optax" else what
        print(f"## {name}{'' if name == 'optax' else version(name)}\n\n{title[0].upper() + title[1:]}.\n")
        print("| name | runs matched | steps matched | left out | worst error of a run, ULP | looks like |")
        print("| --- | --- | --- | --- | --- | --- |")
        for optimizer, checks in sorted(by.items()):
            def of(mode):
                # Where no single step can be made, that the first one erred says nothing.
                none = ("unsupported", "empty") if mode == "free" else ("unsupported", "empty", "error")
                asked = [c for c in checks if c["mode"] == mode and c["outcome"] not in none]
                return sum(c["outcome"] == "pass" for c in asked), len(asked)

            free, step = of("free"), of("step")
            out = len({c["case"] for c in checks}) - free[1]
            failed = [c for c in checks if c["outcome"] == "fail"]
            worst = max((c["ulp"] for c in checks if c["mode"] == "free" and c["ulp"] is not None), default=None)
            looks = defaultdict(int)
            for c in failed:
                looks[c["diagnosis"]] += 1
            best = max((d for d in looks if d), key=lambda d: looks[d], default=None)
            best = best if best and 2 * looks[best] > len(failed) else ""
            if free[1]:
                steps = f"{step[0]} of {step[1]}" if step[1] else "–"
                print(f"| `{optimizer}` | {free[0]} of {free[1]} | {steps} | {out} | {figure(worst)} | {best} |")
            else:
                print(f"| `{optimizer}` | – | – | {out} | – | |")
        bad = [c for c in lines if c["outcome"] in ("fail", "error")]
        if bad:
            print("\n<details><summary>" + f"{len({c['case'] for c in bad})} cases that part</summary>\n")
            print("| case | how it is checked | the first number off | looks like | to see it |")
            print("| --- | --- | --- | --- | --- |")
            seen = defaultdict(list)
            for c in bad:
                detail = c["detail"].split("    ")[0] if c["outcome"] == "error" else c["detail"].split("; ")[0]
                seen[c["case"]].append((c["mode"], detail.replace("|", "\\|"), c["diagnosis"] or ""))
            for case, both in sorted(seen.items()):
                modes = " and ".join(mode for mode, *_ in both)
                looks = next((d for *_, d in both if d), "")
                print(f"| `{case}` | {modes} | {both[-1][1]} | {looks} | `conformance/foreign/run {name} {case}` |")
            print("\n</details>")
        print()


if len(sys.argv) > 1:
    main(Path(sys.argv[1]))
else:
    print((HERE / "../../docs/backends.md").read_text().split(UNDER_FUZZ)[0], end="")
fuzzed()
