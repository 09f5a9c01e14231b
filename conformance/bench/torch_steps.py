"""Steps of torch's AdamW (fused, foreach), FlashOptim's and 8-bit ones on a GPU: lines beside those of examples/steps.rs."""

import importlib
import statistics
import sys
import time

import torch

WIDTH = 768


def gpt2():
    out = [(50257, WIDTH), (1024, WIDTH)]
    for _ in range(12):
        for a, b in [(0, 0), (WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (0, 0), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)]:
            out += [(a, b), (b,)] if a else [(WIDTH,), (WIDTH,)]
    return out + [(WIDTH,), (WIDTH,)]


def seven_billion():
    width, hidden = 4096, 11008
    return [(32000, width)] * 2 + [(width,)] + ([(width, width)] * 4 + [(hidden, width)] * 3 + [(width,)] * 2) * 32


def measure(label, name, dtype, shapes, make):
    params = [torch.nn.Parameter(torch.zeros(s, dtype=dtype, device="cuda")) for s in shapes]
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer = make(params)
    optimizer.step()
    torch.cuda.synchronize()
    times = []
    for _ in range(21):
        start = time.perf_counter()
        optimizer.step()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    print(f"| {label} | {name} | {dtype} | {statistics.median(times):.3f} | |", flush=True)


def steps():
    yield "torch fused", lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True), [torch.float32, torch.bfloat16]
    yield "torch foreach", lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True), [torch.float32, torch.bfloat16]
    for name, package, make, dtypes in [
        ("FlashOptim", "flashoptim", lambda m, p: m.FlashAdamW(p, lr=1e-3), [torch.bfloat16]),
        ("bitsandbytes 8-bit", "bitsandbytes", lambda m, p: m.optim.AdamW8bit(p, lr=1e-3), [torch.bfloat16]),
        ("torchao 8-bit", "torchao.optim", lambda m, p: m.AdamW8bit(p, lr=1e-3), [torch.bfloat16]),
    ]:
        try:
            module = importlib.import_module(package)
        except Exception as error:  # not installed, or not for this torch
            print(f"{name}: not measured: {error}", file=sys.stderr)
            continue
        yield name, lambda p, make=make, module=module: make(module, p), dtypes


if __name__ == "__main__":
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    lists = [(f"2^{power}", [(1 << power,)]) for power in (20, 22, 24, 26, 28, 30)]
    for label, shapes in [*lists, ("GPT-2", gpt2()), ("7B", seven_billion())]:
        for name, make, dtypes in steps():
            for dtype in dtypes:
                if label == "7B" and dtype == torch.float32:
                    continue  # does not fit a card of 80 GB
                try:
                    measure(label, name, dtype, shapes, make)
                except Exception as error:  # one that fails does not keep the others from being measured
                    print(f"{label}, {name}, {dtype}: {error}", file=sys.stderr)
                torch.cuda.empty_cache()
