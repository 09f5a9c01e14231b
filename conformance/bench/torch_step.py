"""PyTorch's fused and eager steps beside bitstep's, on the same sizes: prints ratios.

    python conformance/bench/torch_step.py [--threads 1]

Runs `cargo bench -p bitstep --bench step` first, then times torch in the same
minutes on the same machine. Needs torch; the environment of conformance/export has it.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {"F32": torch.float32, "Bf16": torch.bfloat16}


def lion(params):
    from bitsandbytes.optim import Lion

    return Lion(params)


RULES = {
    "adamw_torch_fused": {
        "fused": lambda p: torch.optim.AdamW(p, fused=True),
        "eager": lambda p: torch.optim.AdamW(p),
        "foreach": lambda p: torch.optim.AdamW(p, foreach=True),
    },
    "sgd": {
        "fused": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, fused=True),
        "eager": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    },
    "lion_32bit": {"bitsandbytes": lion},
}


def median_ns(make, n, dtype):
    p = torch.nn.Parameter(torch.ones(n, dtype=dtype))
    p.grad = torch.full_like(p, 1e-3)
    optimizer = make([p])
    optimizer.step()
    times, stop = [], time.perf_counter() + 1.0
    while len(times) < 5 or (time.perf_counter() < stop and len(times) < 2000):
        start = time.perf_counter_ns()
        optimizer.step()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="torch's; bitstep's core runs on one")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    subprocess.run(["cargo", "bench", "--quiet", "-p", "bitstep", "--bench", "step"], cwd=ROOT, check=True)
    print(f"{'rule':18} {'type':5} {'size':5} {'bitstep':>12} {'peer':>14} {'time':>12} {'ratio':>7}")
    for rule, peers in RULES.items():
        for name, dtype in DTYPES.items():
            for bits in (14, 16, 24):
                path = ROOT / "target/criterion" / rule / name / f"2_{bits}" / "new/estimates.json"
                if not path.exists():
                    path = path.parents[2] / f"2^{bits}" / "new/estimates.json"
                ours = json.loads(path.read_text())["median"]["point_estimate"]
                for peer, make in peers.items():
                    try:
                        theirs = median_ns(make, 1 << bits, dtype)
                    except (RuntimeError, NotImplementedError, ValueError, ImportError) as e:
                        print(f"{rule:18} {name:5} 2^{bits:<3} {ours / 1e3:9.1f} µs {peer:>14}      refused: {e}")
                        continue
                    print(
                        f"{rule:18} {name:5} 2^{bits:<3} {ours / 1e3:9.1f} µs {peer:>14} "
                        f"{theirs / 1e3:9.1f} µs {theirs / ours:6.2f}×"
                    )


if __name__ == "__main__":
    main()
