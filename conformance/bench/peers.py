"""bitstep's steps beside their references', interleaved in one run: prints medians and ratios.

    python conformance/bench/peers.py [--only NAME] [--list TENSORS] [--threads 1] [--rounds 9] [--json FILE] [--plot FILE.svg]

Builds adapters/rayon/examples/stepper.rs, then for every row makes one step of each side in
turn (of small lists the fastest of twenty). A ratio is the peer's median time over bitstep's. The peer `bandwidth` (bandwidth.rs) only
moves the bytes of an f32 AdamW step, so that its ratio is the fraction of the machine's limit
that is reached. Needs the environment of conformance/export (and matplotlib for --plot); a peer that
can't be imported is reported as such.

--all measures every name instead (every.py), in parts if wanted: --names a,b --types f32,bf16
--lists 256x256,2048x2048,gpt2 --seconds 2 (for a row, at most) --threads 1 (else 1 and all), and writes
docs/speed-all.md.

--processor-time compares the time that one thread computes, not the time that passes: on a machine that others
use, too, that is what a step costs.

--sizes measures AdamW from 2^4 to 2^28 parameters, and from 1 to 10^5 tensors of 16, instead.

--python measures the whole `step()` of bitstep.torch's classes, if the package is installed, beside
their peers' in the same process: the least of the rounds, in processor time, which other work on
the machine disturbs less.

--candle builds bitstep-candle's stepper and adds a row of AdamW by way of candle, against
candle-nn and PyTorch and, if conformance/bench/burn was built (cargo build --release there), burn.
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

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target/release/examples"


def gpt2():
    """The 148 tensors of GPT-2 small."""
    layer = [(768,), (768,), (768, 2304), (2304,), (768, 768), (768,), (768,), (768,), (768, 3072), (3072,), (3072, 768), (768,)]
    return [(50257, 768), (1024, 768)] + 12 * layer + [(768,), (768,)]


def llama_1b():
    """The 146 tensors of Llama 3.2 1B: 1.24 billion parameters."""
    layer = [(2048, 2048), (512, 2048), (512, 2048), (2048, 2048), (8192, 2048), (8192, 2048), (2048, 8192), (2048,), (2048,)]
    return [(128256, 2048)] + 16 * layer + [(2048,)]


LISTS = {
    "gpt2": gpt2(),
    "1b": llama_1b(),
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


PROCESSOR_TIME = False


class Process:
    """A program that makes a step for each line, or as many as the line says (`several`)."""

    def __init__(self, command, shapes, several=False, **more):
        self.several = several
        command = [*map(str, command), *("x".join(map(str, shape)) for shape in shapes)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)

    def step(self, steps=1):
        lines = [steps] if self.several else ["1"] * steps
        before = self.processor_time()
        fastest = min(self.answer(line) for line in lines)
        return (self.processor_time() - before) / steps if PROCESSOR_TIME else fastest

    def processor_time(self):
        """Seconds that it has computed, until it waits for the next line."""
        if not PROCESSOR_TIME:
            return 0
        about = Path(f"/proc/{self.process.pid}")
        while (about / "stat").read_text().rpartition(")")[2].split()[0] == "R":
            time.sleep(1e-5)
        return int((about / "schedstat").read_text().split()[0]) / 1e9

    def answer(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def refresh(self):
        return self.answer("refresh")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def program(name, args, own_dtype=None):
    """Of our own: adapters/rayon/examples/stepper.rs."""
    return lambda dtype, shapes, threads: Process([RELEASE / "stepper", name, args, own_dtype or dtype, threads], shapes, several=True)


def candle(side):
    return lambda dtype, shapes, threads: Process([RELEASE / "candle-stepper", side, dtype, threads], shapes)


def burn(dtype, shapes, threads):
    path = ROOT / "conformance/bench/burn/target/release/bitstep-bench-burn"
    if dtype != "f32" or not path.exists():
        raise ImportError("f32 only, and if built")
    return Process([path], shapes, env={**os.environ, "RAYON_NUM_THREADS": str(threads)})


def bandwidth(dtype, shapes, threads):
    """Moves the bytes, no more."""
    source, path = ROOT / "adapters/rayon/benches/bandwidth.rs", ROOT / "target/release/bandwidth"
    if not path.exists() or path.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["rustc", "--edition=2024", "-O", "-Ctarget-cpu=native", source, "-o", path], check=True)
    return Process([path, threads, sum(math.prod(shape) for shape in shapes)], [])


def deepspeed(p):
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    return DeepSpeedCPUAdam(p, lr=1e-3, adamw_mode=True)


def bare(p):
    """The operation beneath the fused step, with nothing around it."""
    grads, moments = [q.grad for q in p], [[torch.zeros_like(q) for q in p] for _ in range(2)]
    values, steps = [q.detach() for q in p], [torch.tensor(1.0) for _ in p]
    rates = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 1e-2, "eps": 1e-8}

    def step():
        torch._fused_adamw_(values, grads, *moments, [], steps, amsgrad=False, maximize=False, **rates)

    return type("Bare", (), {"step": staticmethod(step)})()


def compiled(p):
    step = torch.compile(torch.optim.AdamW(p).step)
    return type("Compiled", (), {"step": staticmethod(step)})()


LOW_RANK = "lr=1e-3, rank=128, update_proj_gap=1000000000"
OWN = (program("adamw_torch_fused", "lr=1e-3", "f32"),)
ADAMW = {"fused": adam(fused=True), "bare fused op": bare, "foreach": adam(foreach=True), "eager": adam(foreach=False), "DeepSpeed": deepspeed}
# name, arguments, type, tensors, peers: made by Python, or programs
ROWS = [
    ("adafactor", "lr=1e-3, relative_step=false, scale_parameter=false", "f32", "gpt2", {"transformers": adafactor}),
    ("schedule_free_adamw", "lr=1e-3", "f32", "gpt2", {"foreach": schedule_free(True), "for-loop": schedule_free(False)}),
    ("stable_adamw", "lr=1e-3", "f32", "gpt2", {"foreach": stable(True), "for-loop": stable(False)}),
    ("adamw_torch_fused", "lr=1e-3", "f32", "gpt2", ADAMW | {"bandwidth": (bandwidth,)}),
    ("adamw_torch_fused", "lr=1e-3", "f32", "2^14", ADAMW),
    ("adamw_torch_fused", "lr=1e-3", "f32", "2^16", ADAMW | {"compiled": compiled}),
    ("adamw_torch_fused", "lr=1e-3", "f32", "2^24", ADAMW | {"compiled": compiled, "bandwidth": (bandwidth,)}),
    ("adamw_torch_fused", "lr=1e-3", "f32", "10000x16", {"fused": adam(fused=True), "foreach": adam(foreach=True), "eager": adam(foreach=False)}),
    ("adamw_torch_fused", "lr=1e-3", "bf16", "1b", {"fused": adam(fused=True)}),
    ("adamw_torch_fused", "lr=1e-3", "bf16", "gpt2", {"fused": adam(fused=True)}),
    ("adamw_torch_fused", "lr=1e-3", "bf16", "2^24", {"fused": adam(fused=True)}),
    ("flash_adamw", "lr=1e-3", "bf16", "2^16", {"fused bf16": adam(fused=True), "own f32": OWN}),
    ("flash_adamw", "lr=1e-3", "bf16", "2^24", {"fused bf16": adam(fused=True), "own f32": OWN}),
    ("flash_adamw", "lr=1e-3", "bf16", "gpt2", {"fused bf16": adam(fused=True), "own f32": OWN}),
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


def arguments(text):
    return {key: json.loads(value) for key, value in (pair.split("=") for pair in text.replace(" ", "").split(","))}


def own_class(name, text):
    def make(p):
        import bitstep.torch

        return bitstep.torch.optimizer(name, p, **arguments(text))

    return make


PYTHON = [
    ("adamw_torch_fused", "lr=1e-3", "f32", "gpt2", {"fused": adam(fused=True), "foreach": adam(foreach=True)}),
    ("adafactor", "lr=1e-3, relative_step=false, scale_parameter=false", "f32", "gpt2", {"transformers": adafactor}),
    ("adamw_bnb_8bit", "lr=1e-3", "f32", "gpt2", {"bitsandbytes": bnb("AdamW8bit")}),
    ("adamw_torch_8bit", "lr=1e-3", "f32", "gpt2", {"torchao": torchao("AdamW8bit")}),
    ("schedule_free_adamw", "lr=1e-3", "f32", "gpt2", {"foreach": schedule_free(True)}),
    ("stable_adamw", "lr=1e-3", "f32", "gpt2", {"foreach": stable(True)}),
    ("adamw_torch_fused", "lr=1e-3", "f32", "10000x16", {"fused": adam(fused=True)}),
]


def build(package, example, *more):
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", package, "--example", example, *more], cwd=ROOT, check=True)


class Theirs:
    @staticmethod
    def clock():
        return time.thread_time() if PROCESSOR_TIME else time.perf_counter()

    def __init__(self, make, dtype, shapes):
        kind = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
        params = [torch.nn.Parameter((torch.rand(shape) - 0.5).to(kind)) for shape in shapes]
        for p in params:
            p.grad = ((torch.rand(p.shape) - 0.5) * 1e-2).to(kind)
        self.params, self.grads = params, [p.grad for p in params]
        self.optimizer = make(params)

    def step(self, steps=1):
        return min(self.one() for _ in range(steps))

    def one(self):
        for p, grad in zip(self.params, self.grads):  # GaLore's 8 bits leave a projection of it behind
            p.grad = grad
        start = self.clock()
        self.optimizer.step()
        return self.clock() - start

    refresh = one

    def close(self):
        del self.optimizer, self.params, self.grads


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


def medians(sides, rounds, steps, seconds=math.inf, of=statistics.median):
    """Over rounds in which every side has its turn: at least three, then as many as there is time for."""
    times, end = {side: [] for side in sides}, time.monotonic() + seconds
    for round in range(rounds):
        if round >= 3 and time.monotonic() > end:
            break
        for side, each in sides.items():
            times[side].append(each.step(steps))
    return {side: of(t) for side, t in times.items()}


def measure(sides, rounds, steps, of=statistics.median):
    """The same from the beginning to the end of the sides."""
    for each in sides.values():  # state is made
        each.step()
    found = medians(sides, rounds, steps, of=of)
    for each in sides.values():
        each.close()
    return found


def sizes(options):
    """Time of an AdamW step in f32 as the work grows: points of bitstep and of PyTorch's fused step."""
    points = [("parameters", 1 << k, [(1 << k,)]) for k in range(4, 29, 2)]
    points += [("tensors of 16", 10**k, [(16,)] * 10**k) for k in range(6)]
    lines = []
    for what, n, shapes in points:
        sides = {
            "bitstep": program("adamw_torch_fused", "lr=1e-3")("f32", shapes, options.threads),
            "fused": Theirs(adam(fused=True), "f32", shapes),
        }
        total = sum(math.prod(shape) for shape in shapes)
        seconds = measure(sides, options.rounds, 20 if total < 1 << 18 else 1)
        lines.append({"what": what, "n": n, "threads": options.threads, **seconds})
        ours, theirs = seconds["bitstep"], seconds["fused"]
        print(f"{n:>10} {what:14} {ours * 1e6:12.2f} us {ours / n * 1e9:9.3f} ns each   fused {theirs / ours:6.2f} x", flush=True)
    return lines


def plot_sizes(lines, file):
    """Nanoseconds for each parameter, and for each small tensor."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(10, 3.6))
    for axes, what in zip(both, ("parameters", "tensors of 16")):
        points = [line for line in lines if line["what"] == what]
        for side, label, color in (("bitstep", "bitstep", "#2e8540"), ("fused", "PyTorch, fused", "#c2571a")):
            axes.loglog([p["n"] for p in points], [p[side] / p["n"] * 1e9 for p in points], "o-", label=label, color=color, markersize=4)
        axes.set_xlabel(what)
        axes.set_ylabel("ns for each")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only")
    parser.add_argument("--list")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--python", action="store_true")
    parser.add_argument("--candle", action="store_true")
    parser.add_argument("--faer", action="store_true")
    parser.add_argument("--refresh", action="store_true")
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--names")
    parser.add_argument("--types")
    parser.add_argument("--lists")
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    global PROCESSOR_TIME
    PROCESSOR_TIME = options.processor_time
    if options.python:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # torchao would compile its step, for minutes
        Theirs.clock = staticmethod(time.process_time)
    else:
        build("bitstep-rayon", "stepper", *(["--features", "faer"] if options.faer else []))
    if options.all:
        import every

        return every.main(options)
    options.threads = options.threads or 1
    if PROCESSOR_TIME and options.threads > 1:
        raise SystemExit("--processor-time is that of one thread")
    torch.set_num_threads(options.threads)
    if options.sizes:
        lines, draw = sizes(options), plot_sizes
    else:
        lines, draw = compare(options), plot
    if options.plot:
        draw(lines, options.plot)
    if options.json:
        options.json.write_text("".join(json.dumps(line) + "\n" for line in lines))


def compare(options):
    rows = ROWS + (FAER if options.faer else [])
    if options.candle:
        build("bitstep-candle", "candle-stepper")
        rows = CANDLE
    if options.python:
        rows = PYTHON
    if options.list and options.list not in LISTS:
        LISTS[options.list] = [tuple(map(int, options.list.split("x")))]
        rows = [(*row[:3], options.list, row[4]) for row in rows if row[3] == "4096x4096"]
    lines = []
    for name, args, dtype, tensors, peers in rows:
        if options.only and options.only != name or options.list and options.list != tensors:
            continue
        if tensors == "1b" and options.list != "1b":
            continue  # twelve GB: on demand
        shapes = LISTS[tensors]

        def start(make):
            if isinstance(make, tuple):  # a program
                return make[0](dtype, shapes, options.threads)
            return Theirs(make, dtype, shapes)

        own = candle("bitstep") if options.candle else program(name, args)
        small = sum(math.prod(shape) for shape in shapes) < 1 << 18
        own = own_class(name, args) if options.python else (own,)
        median, sides = {}, {}
        for side, make in {"bitstep": own, **peers}.items():
            try:
                sides[side] = start(make)
            except ImportError as error:
                print(f"{name}: no {side}: {error}")
            if tensors == "1b":  # not two of them in memory
                median |= measure(sides, options.rounds, 1)
                sides = {}
        if options.refresh:
            for side, each in sides.items():
                print(f"{name}: the first step of {side}, singular vectors found: {each.refresh():.2f} s", flush=True)
        of = min if options.python else statistics.median
        median |= measure(sides, options.rounds, 20 if small else 1, of)
        ours = median.pop("bitstep")
        ratios = {peer: t / ours for peer, t in median.items()}
        lines.append({"name": name, "dtype": dtype, "tensors": tensors, "threads": options.threads, "seconds": ours, "ratios": ratios})
        shown = ", ".join(f"{peer} {ratio:.2f} x" for peer, ratio in ratios.items())
        print(f"{name:22} {dtype:5} {tensors:10} {ours * 1e3:10.3f} ms   {shown}", flush=True)
    return lines


if __name__ == "__main__":
    main()
