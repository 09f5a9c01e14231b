"""`peers.py --all`: every name × type × size × number of threads beside its reference.

No row is picked: names, references and their arguments are those of the golden cases. Each row makes
steps of both sides in turn and compares medians. Lines are appended to target/speed-all.jsonl, so that the
table can be measured in parts (--names, --types, --lists, --seconds a row); docs/speed-all.md is written
from the newest line of each row.
"""

import importlib
import inspect
import json
import math
import os
import sys
import traceback
from pathlib import Path

import torch

import peers

GOLDEN = peers.ROOT / "conformance/golden/optimizer"
EXPORT = peers.ROOT / "conformance/export"
LINES = peers.ROOT / "target/speed-all.jsonl"
TABLE = peers.ROOT / "docs/speed-all.md"
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64}
LISTS = {"256x256": [(256, 256)], "2048x2048": [(2048, 2048)], "gpt2": peers.gpt2()}

# Names without goldens of their own, which are these by another name.
SAME = {
    "adamw_8bit": "adamw_bnb_8bit",
    "apollo_adamw_layerwise": "apollo_adamw",
    "galore_adafactor_layerwise": "galore_adafactor",
    "galore_adamw_8bit_layerwise": "galore_adamw_8bit",
    "galore_adamw_layerwise": "galore_adamw",
}
# Nothing is projected by default: what the references' own examples set. The projector stays.
PROJECTION = {"rank": 128, "update_proj_gap": 10**9, "scale": 0.25, "proj_type": "std"}
PROJECTED = {
    "GaLoreAdamW": PROJECTION,
    "GaLoreAdamW8bit": PROJECTION,
    "GaLoreAdafactor": PROJECTION,
    "APOLLOAdamW": PROJECTION | {"scale": 1.0, "proj": "random", "scale_type": "channel"},
}
# FlashOptim runs on GPUs alone: PyTorch's fused step of the same rule, for Lion of AdamW.
FUSED = {"FlashAdam": "Adam", "FlashSGD": "SGD", "FlashSGDW": "SGD", "FlashAdamW": "AdamW", "FlashLion": "AdamW"}


def reference(name):
    """The import path and the constructor's arguments in the golden case, and the types it has cases of."""
    files = {path.stem: path for path in sorted((GOLDEN / name).glob("*.safetensors"))}
    title = next(title for title in ("default_f32", "default_bf16", *files) if title in files)
    with files[title].open("rb") as file:
        meta = json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]
    hyper = json.loads(meta["hyper"])
    if "groups" in hyper:  # of a name that projects there is no case of defaults
        hyper = {key: value for key, value in hyper.items() if key == "no_deprecation_warning"}
    types = [t for t in TYPES if any(stem.endswith(f"_{t}") for stem in files)]
    return meta["reference"], hyper, types


def plain(value):
    """As goldens write it."""
    return list(value) if isinstance(value, tuple) else str(value)[6:] if isinstance(value, torch.dtype) else value


def needed(cls, hyper):
    """What the name asks for beyond the constructor's defaults. Goldens lower bitsandbytes' least size; users do not."""
    known = inspect.signature(cls.__init__).parameters
    default = {key: plain(known[key].default) for key in hyper if key in known}
    return {k: v for k, v in hyper.items() if k != "min_8bit_size" and not (k in default and default[k] == v)}


def imported(path):
    module, cls = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), cls)


class Fused:
    """LOMO's optimizers move parameters in the backward pass, as the exporter makes them do."""

    def __init__(self, cls, params, **hyper):
        torch.backends.cpu.get_cpu_capability()  # is found out now: the exporter would ask for less
        before, threads = dict(os.environ), torch.get_num_threads()
        places = [str(EXPORT), str(EXPORT / "cases")]
        sys.path[:0] = places
        self.lomo = importlib.import_module("lomo")
        del sys.path[: len(places)]  # its files have the names of packages
        os.environ.clear()
        os.environ.update(before)
        torch.set_num_threads(threads)
        self.params, self.grads = params, [p.grad for p in params]
        self.optimizer = self.lomo.on_params(cls)(params, **hyper)

    def step(self):
        for p, grad in zip(self.params, self.grads):
            p.grad = grad
        self.lomo.backward(self.optimizer, self.params, 0)


def make(name, path, hyper):
    """The reference's constructor as a function of parameters, and our arguments."""
    short = path.rsplit(".", 1)[1]
    if short in FUSED:
        return lambda params: getattr(torch.optim, FUSED[short])(params, fused=True), ""
    cls = imported(path)
    given = needed(cls, hyper)
    args = ", ".join(f"{key}={value}" for key, value in given.items())
    projection = PROJECTED.get(short) if name.startswith(("galore", "apollo")) else None
    if projection:
        args += " / " + ", ".join(f"{key}={value}" for key, value in projection.items())

    def construct(params):
        torch.cuda.synchronize = lambda: None  # GaLore's 8 bits wait for a GPU after every parameter
        if path.startswith("lomo_optim"):
            return Fused(cls, params, **given)
        if projection:
            matrices = [p for p in params if p.dim() == 2]
            others = [p for p in params if p.dim() != 2]
            params = [{"params": matrices, **projection}] + ([{"params": others}] if others else [])
        optimizer = cls(params, **given)
        if hasattr(optimizer, "train"):
            optimizer.train()
        return optimizer

    return construct, args


def measure(name, dtype, size, threads, options):
    """A line of the table; with `reason` in place of times if a side can't run."""
    line = {"name": name, "dtype": dtype, "size": size, "threads": threads, "machine": machine()}
    line["clock"] = "processor" if options.processor_time else "wall"
    try:
        path, hyper, _ = reference(name)
        construct, args = make(name, path, hyper)
        shapes = [shape for shape in LISTS[size] if name != "muon" or len(shape) == 2]  # takes no others
        torch.set_num_threads(threads)
        line |= {"reference": path, "arguments": args}
        ours = peers.program(name, args)(dtype, shapes, threads)
        theirs = None
        try:
            theirs = peers.Theirs(construct, dtype, shapes)
            ours.step()  # state is made
            theirs.step()
            steps = 20 if sum(map(math.prod, shapes)) < 1 << 18 else 1
            line |= peers.medians({"ours": ours, "theirs": theirs}, options.rounds, steps, options.seconds)
        finally:
            ours.close()
            if theirs:
                theirs.close()
    except Exception as error:
        if options.verbose:
            traceback.print_exc()
        line["reason"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return line


def machine():
    """The processor's name, number, and the vector units it has."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in info)}
    units = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vbmi", "amx_bf16", "asimd", "sve")
    flags = (fields.get("flags") or fields.get("Features", "")).split()
    return f"{fields.get('model name', 'processor')} × {os.cpu_count()} ({' '.join(u for u in units if u in flags)})"


def unmeasured(lines):
    """How many rows there are beside these."""
    rows = len(LISTS) * len({1, os.cpu_count()}) * sum(len(reference(path.name)[2]) for path in GOLDEN.iterdir())
    return f"; {rows - len(lines)} were not measured" if rows > len(lines) else ""


def write(lines):
    """The table: rows below 1 first, what could not run last."""
    ran = sorted((line for line in lines if "ours" in line), key=lambda line: line["theirs"] / line["ours"])
    failed = [line for line in lines if "reason" in line]
    below = [line for line in ran if line["theirs"] < line["ours"]]
    out = [
        "<!-- Generated by `python conformance/bench/peers.py --all`: edits are lost. -->",
        "# Every name beside its reference",
        "",
        f"{lines[0]['machine']}; PyTorch {torch.__version__}. {len(ran)} rows measured, of which {len(below)} below 1; "
        f"{len(failed)} could not run{unmeasured(lines)}. Each side makes a step in turn, with its default arguments; the "
        "ratio is the reference's median time over this library's. FlashOptim has no CPU path: its names are measured "
        "against PyTorch's fused step. Low-rank names have rank 128 and a projector that stays.",
    ]

    def table(title, rows):
        if rows:
            out.extend(["", f"## {title}", "", "| name | type | tensors | threads | step | reference's | ratio |"])
            out.append("| --- | --- | --- | --- | --- | --- | --- |")
        for line in rows:
            ours, theirs = line["ours"], line["theirs"]
            where = f"| `{line['name']}` | {line['dtype']} | {line['size']} | {line['threads']} "
            out.append(where + f"| {ours * 1e3:.3f} ms | {theirs * 1e3:.3f} ms | {theirs / ours:.2f} |")

    if any(line["clock"] == "processor" for line in lines):
        note = "Others used the machine: rows of one thread have the processor's time (`--processor-time`)"
        more = "." if all(line["clock"] == "processor" for line in lines) else ", others the time that passed."
        out.extend(["", note + more])
    table("Below 1", below)
    table("From 1 on", ran[len(below) :])
    if failed:
        out.extend(["", "## Could not run", "", "| name | type | tensors | threads | why |", "| --- | --- | --- | --- | --- |"])
    for line in failed:
        why = line["reason"].replace("|", "\\|")
        out.append(f"| `{line['name']}` | {line['dtype']} | {line['size']} | {line['threads']} | {why} |")
    out.extend(["", "By another name: " + "; ".join(f"`{a}` is `{b}`" for a, b in SAME.items()) + "."])
    TABLE.write_text("\n".join(out) + "\n")


def chosen(given, known):
    """The part asked for."""
    wanted = given.split(",") if given else list(known)
    unknown = [x for x in wanted if x not in known]
    if unknown:
        raise SystemExit(f"{', '.join(unknown)}: not among {', '.join(known)}")
    return wanted


def main(options):
    names = chosen(options.names, [path.name for path in sorted(GOLDEN.iterdir())])
    lists, types = chosen(options.lists, LISTS), chosen(options.types, TYPES)
    if options.processor_time and options.threads != 1:
        raise SystemExit("--processor-time is that of one thread: --threads 1")
    peers.PROCESSOR_TIME = options.processor_time
    LINES.parent.mkdir(exist_ok=True)
    for name in names:
        for dtype in (t for t in reference(name)[2] if t in types):
            for size in lists:
                for threads in [options.threads] if options.threads else sorted({1, os.cpu_count()}):
                    line = measure(name, dtype, size, threads, options)
                    ratio = f"{line['theirs'] / line['ours']:.2f} x" if "ours" in line else line["reason"]
                    print(f"{name:22} {dtype:5} {size:10} {threads:2}   {ratio}", flush=True)
                    with LINES.open("a") as file:
                        file.write(json.dumps(line) + "\n")
    newest = {}
    for line in map(json.loads, LINES.read_text().splitlines()):
        if line["machine"] == machine() and "clock" in line:
            newest[line["name"], line["dtype"], line["size"], line["threads"]] = line
    write(list(newest.values()))
