"""bitstep's steps beside their references', interleaved in one run: prints medians and ratios.

    python adapters/rayon/benches/peers.py [--only NAME] [--list TENSORS] [--threads 1] [--rounds 9] [--json FILE] [--plot FILE.svg]

Builds adapters/rayon/examples/stepper.rs, then for every row makes one step of each side in
turn. A ratio is the peer's median time over bitstep's. The peer `bandwidth` (bandwidth.rs) only
moves the bytes of an f32 AdamW step, so that its ratio is the fraction of the machine's limit
that is reached. Needs the environment of conformance/export; a peer that can't be imported is
reported as such.

--candle builds bitstep-candle's stepper and adds a row of AdamW by way of candle, against
candle-nn and PyTorch and, if benches/burn was built (cargo build --release there), burn.
--refresh has the first step find singular vectors, and says how long it took; --faer adds
the row of GaLore with faer's products and singular vectors. --list ROWSxCOLUMNS takes the rows of
GaLore and APOLLO to a matrix of that size.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[3]
RELEASE = ROOT / "target/release/examples"


def gpt2():
    """The 148 tensors of GPT-2 small."""
    layer = [(768,), (768,), (768, 2304), (2304,), (768, 768), (768,), (768,), (768,), (768, 3072), (3072,), (3072, 768), (768,)]
    return [(50257, 768), (1024, 768)] + 12 * layer + [(768,), (768,)]


LISTS = {
    "gpt2": gpt2(),
    "2^14": [(1 << 14,)],
    "2^16": [(1 << 16,)],
    "2^24": [(1 << 24,)],
    "10000x16": [(16,)] * 10_000,
    "4096x4096": [(4096, 4096)],
}


def adam(**more):
    return lambda p: torch.optim.AdamW(p, **more)


def adafactor(p):
    from transformers.optimization import Adafactor

    return Adafactor(p, lr=1e-3, relative_step=False, scale_parameter=False)


def schedule_free(foreach):
    def make(p):
        from schedulefree import AdamWScheduleFree

        optimizer = AdamWScheduleFree(p, lr=1e-3, foreach=foreach)
        optimizer.train()
        return optimizer

    return make


def stable(foreach):
    def make(p):
        from optimi import StableAdamW

        return StableAdamW(p, lr=1e-3, foreach=foreach)

    return make


def bnb(name):
    def make(p):
        import bitsandbytes.optim as module

        return getattr(module, name)(p, lr=1e-3)

    return make


def torchao(name):
    def make(p):
        import torchao.optim as module

        return getattr(module, name)(p, lr=1e-3)

    return make


def galore(p):
    from galore_torch import GaLoreAdamW

    return GaLoreAdamW([{"params": p, "rank": 128, "update_proj_gap": 10**9, "scale": 0.25, "proj_type": "std"}], lr=1e-3, no_deprecation_warning=True)


def apollo(p):
    from apollo_torch import APOLLOAdamW

    group = {"params": p, "rank": 128, "proj": "random", "scale_type": "channel", "scale": 1.0, "update_proj_gap": 10**9, "proj_type": "std"}
    return APOLLOAdamW([group], lr=1e-3)


class Process:
    def __init__(self, command, shapes, **more):
        command = [*map(str, command), *("x".join(map(str, shape)) for shape in shapes)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)

    def step(self, line=""):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def program(name, args, own_dtype=None):
    """Of our own: adapters/rayon/examples/stepper.rs."""
    return lambda dtype, shapes, threads: Process([RELEASE / "stepper", name, args, own_dtype or dtype, threads], shapes)


def candle(side):
    return lambda dtype, shapes, threads: Process([RELEASE / "candle-stepper", side, dtype, threads], shapes)


def burn(dtype, shapes, threads):
    path = ROOT / "benches/burn/target/release/bitstep-bench-burn"
    if dtype != "f32" or not path.exists():
        raise ImportError("f32 only, and if built")
    return Process([path], shapes, env={**os.environ, "RAYON_NUM_THREADS": str(threads)})


def bandwidth(dtype, shapes, threads):
    """Moves the bytes, no more."""
    source, path = Path(__file__).parent / "bandwidth.rs", ROOT / "target/release/bandwidth"
    if not path.exists() or path.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["rustc", "--edition=2024", "-O", "-Ctarget-cpu=native", source, "-o", path], check=True)
    return Process([path, threads, sum(math.prod(shape) for shape in shapes)], [])


def deepspeed(p):
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    return DeepSpeedCPUAdam(p, lr=1e-3, adamw_mode=True)


def compiled(p):
    step = torch.compile(torch.optim.AdamW(p).step)
    return type("Compiled", (), {"step": staticmethod(step)})()


LOW_RANK = "lr=1e-3, rank=128, update_proj_gap=1000000000"
OWN = (program("adamw_torch_fused", "lr=1e-3", "f32"),)
ADAMW = {"fused": adam(fused=True), "foreach": adam(foreach=True), "eager": adam(foreach=False), "DeepSpeed": deepspeed}
# name, arguments, type, tensors, peers: made by Python, or programs
ROWS = [
    ("adafactor", "lr=1e-3, relative_step=false, scale_parameter=false", "f32", "gpt2", {"transformers": adafactor}),
    ("schedule_free_adamw", "lr=1e-3", "f32", "gpt2", {"foreach": schedule_free(True), "for-loop": schedule_free(False)}),
    ("stable_adamw", "lr=1e-3", "f32", "gpt2", {"foreach": stable(True), "for-loop": stable(False)}),
    ("adamw_torch_fused", "lr=1e-3", "f32", "gpt2", ADAMW | {"bandwidth": (bandwidth,)}),
    ("adamw_torch_fused", "lr=1e-3", "f32", "2^14", ADAMW),
    ("adamw_torch_fused", "lr=1e-3", "f32", "2^16", ADAMW | {"compiled": compiled}),
    ("adamw_torch_fused", "lr=1e-3", "f32", "2^24", ADAMW | {"compiled": compiled, "bandwidth": (bandwidth,)}),
    ("adamw_torch_fused", "lr=1e-3", "f32", "10000x16", {"fused": adam(fused=True), "foreach": adam(foreach=True)}),
    ("adamw_torch_fused", "lr=1e-3", "bf16", "gpt2", {"fused": adam(fused=True)}),
    ("adamw_torch_fused", "lr=1e-3", "bf16", "2^24", {"fused": adam(fused=True)}),
    ("flash_adamw", "lr=1e-3", "bf16", "2^16", {"fused bf16": adam(fused=True), "own f32": OWN}),
    ("flash_adamw", "lr=1e-3", "bf16", "2^24", {"fused bf16": adam(fused=True), "own f32": OWN}),
    ("adamw_bnb_8bit", "lr=1e-3", "bf16", "2^16", {"bitsandbytes": bnb("AdamW8bit"), "fused bf16": adam(fused=True), "own f32": OWN}),
    ("adamw_bnb_8bit", "lr=1e-3", "bf16", "2^24", {"bitsandbytes": bnb("AdamW8bit"), "fused bf16": adam(fused=True), "own f32": OWN}),
    ("adamw_torch_8bit", "lr=1e-3", "f32", "2^16", {"torchao": torchao("AdamW8bit"), "own f32": OWN}),
    ("adamw_torch_8bit", "lr=1e-3", "f32", "2^24", {"torchao": torchao("AdamW8bit"), "own f32": OWN}),
    ("adamw_torch_4bit", "lr=1e-3", "f32", "2^24", {"torchao": torchao("AdamW4bit"), "own f32": OWN}),
    ("galore_adamw", LOW_RANK, "f32", "4096x4096", {"galore-torch": galore}),
    ("apollo_adamw", LOW_RANK, "f32", "4096x4096", {"apollo-torch": apollo}),
]
FAER = [("galore_adamw", LOW_RANK, "f32", "4096x4096", {"with faer": (program("galore_adamw+faer", LOW_RANK),)})]
CANDLE = [
    ("adamw_torch_fused", None, dtype, "gpt2", {"candle-nn": (candle("candle-nn"),), "burn-ndarray": (burn,), "fused": adam(fused=True)})
    for dtype in ("f32", "bf16")
]


def build(package, example, *more):
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", package, "--example", example, *more], cwd=ROOT, check=True)


class Theirs:
    def __init__(self, make, dtype, shapes):
        kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
        params = [torch.nn.Parameter((torch.rand(shape) - 0.5).to(kind)) for shape in shapes]
        for p in params:
            p.grad = ((torch.rand(p.shape) - 0.5) * 1e-2).to(kind)
        self.optimizer = make(params)

    def step(self, line=""):
        start = time.perf_counter()
        self.optimizer.step()
        return time.perf_counter() - start

    def close(self):
        del self.optimizer


def plot(lines, file):
    """One bar a ratio, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    bars = [(f"{line['name']} {line['dtype']} {line['tensors']} / {peer}", ratio) for line in lines for peer, ratio in line["ratios"].items()]
    figure, axes = plt.subplots(figsize=(9, 0.24 * len(bars) + 1.2))
    axes.barh([label for label, _ in bars], [ratio for _, ratio in bars], color=["#2e8540" if ratio >= 1 else "#c2571a" for _, ratio in bars])
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("the peer's time over bitstep's (bandwidth: fraction of the limit)")
    figure.tight_layout()
    figure.savefig(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only")
    parser.add_argument("--list")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--candle", action="store_true")
    parser.add_argument("--faer", action="store_true")
    parser.add_argument("--refresh", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    build("bitstep-rayon", "stepper", *(["--features", "faer"] if options.faer else []))
    rows = ROWS + (FAER if options.faer else [])
    if options.candle:
        build("bitstep-candle", "candle-stepper")
        rows = CANDLE
    if options.list and options.list not in LISTS:
        LISTS[options.list] = [tuple(map(int, options.list.split("x")))]
        rows = [(*row[:3], options.list, row[4]) for row in rows if row[3] == "4096x4096"]
    lines, left_out = [], {}
    for name, args, dtype, tensors, peers in rows:
        if options.only and options.only != name or options.list and options.list != tensors:
            continue
        shapes = LISTS[tensors]
        start = candle("bitstep") if options.candle else program(name, args)
        sides = {"bitstep": start(dtype, shapes, options.threads)}
        for peer, make in peers.items():
            try:
                if isinstance(make, tuple):  # a program
                    sides[peer] = make[0](dtype, shapes, options.threads)
                else:
                    sides[peer] = Theirs(make, dtype, shapes)
            except ImportError as error:
                print(f"{name}: no {peer}: {error}")
                left_out.setdefault(peer, str(error))
        times = {side: [] for side in sides}
        for side, stepper in sides.items():  # state is made
            first = stepper.step("refresh" if options.refresh else "")
            if options.refresh:
                print(f"{name}: the first step of {side}, singular vectors found: {first:.2f} s", flush=True)
        for _ in range(options.rounds):
            for side, each in sides.items():
                times[side].append(min(each.step() for _ in range(5 if tensors == "2^16" else 1)))
        for each in sides.values():
            each.close()
        median = {side: statistics.median(t) for side, t in times.items()}
        ours = median.pop("bitstep")
        ratios = {peer: t / ours for peer, t in median.items()}
        lines.append({"name": name, "dtype": dtype, "tensors": tensors, "threads": options.threads, "seconds": ours, "ratios": ratios})
        shown = ", ".join(f"{peer} {ratio:.2f} x" for peer, ratio in ratios.items())
        print(f"{name:22} {dtype:5} {tensors:10} {ours * 1e3:10.3f} ms   {shown}", flush=True)
    for peer, why in left_out.items():
        print(f"left out: {peer}: {why}")
    if options.plot:
        plot(lines, options.plot)
    if options.json:
        options.json.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
