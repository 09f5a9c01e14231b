"""Compares two suites of golden cases.

Inputs and metadata have to agree exactly. Outputs have to agree bit for bit (any NaN
equals any NaN) where both came from the same kind of machine; otherwise the distance
is printed, and up to --ulp units in the last place are let through.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np

from golden import read_safetensors

MANTISSA = {"F64": 52, "F32": 23, "BF16": 7, "F16": 10}
LOWEST = {"F64": -1022, "F32": -126, "BF16": -126, "F16": -14}
INPUT = re.compile(r"init$|grad$|state0\.|^lr$|given\.|^metric$|\.in$|refresh_at$")


def numbers(tensor):
    dtype, shape, data = tensor
    if dtype == "BF16":
        wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).astype(np.float64)
    names = {"F64": "f8", "F32": "f4", "F16": "f2"}
    return np.frombuffer(data, names[dtype]).astype(np.float64)


def ulp(a, b):
    """The largest distance between two tensors in units in the last place at scale; inf where only one is finite."""
    if a[2] == b[2]:
        return 0.0
    if a[0] not in MANTISSA:
        return np.inf
    x, y = numbers(a), numbers(b)
    odd = ~(np.isfinite(x) & np.isfinite(y))
    if np.any(odd & ~((x == y) | (np.isnan(x) & np.isnan(y)))):
        return np.inf
    x, y = np.where(odd, 0, x), np.where(odd, 0, y)
    exponent = np.frexp(np.maximum(abs(x), abs(y)))[1] - 1
    unit = np.ldexp(1.0, np.maximum(exponent, LOWEST[a[0]]) - MANTISSA[a[0]])
    return float(np.max(abs(x - y) / unit, initial=0.0))


def differences(a, b, limit):
    """Lines that say how case b differs from case a, and the worst ULP among those let through."""
    (ta, ma), (tb, mb) = a, b
    same = ma.get("machine") == mb.get("machine")
    for key in sorted(ma.keys() | mb.keys()):
        if key != "machine" and ma.get(key) != mb.get(key):
            yield np.inf, f"{key}: {ma.get(key)} -> {mb.get(key)}"
    for name in sorted(ta.keys() | tb.keys()):
        if name not in ta or name not in tb:
            yield np.inf, f"{name}: only in {'the first' if name in ta else 'the second'}"
        elif ta[name][:2] != tb[name][:2]:
            yield np.inf, f"{name}: {ta[name][:2]} -> {tb[name][:2]}"
        elif worst := ulp(ta[name], tb[name]):
            exact = same or INPUT.search(name)
            yield (np.inf if exact and limit is None else worst), f"{name}: {worst:.3g} ULP"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--only", metavar="NAME")
    parser.add_argument("--ulp", type=float, help="let this distance through, whatever the machines")
    args = parser.parse_args()

    pattern = f"*/{args.only or '*'}/*.safetensors"
    names = {p.relative_to(root) for root in (args.first, args.second) for p in root.glob(pattern)}
    bad = moved = 0
    for name in sorted(names):
        missing = [str(r) for r in (args.first, args.second) if not (r / name).exists()]
        if missing:
            bad += 1
            print(f"{name}: not in {missing[0]}")
            continue
        found = list(differences(read_safetensors(args.first / name), read_safetensors(args.second / name), args.ulp))
        for worst, line in found:
            print(f"{name}: {line}")
        wrong = any(worst > (64 if args.ulp is None else args.ulp) for worst, _ in found)
        bad += wrong
        moved += bool(found) and not wrong
    print(f"{len(names)} cases: {len(names) - bad - moved} the same, {moved} within the machine's room, {bad} different")
    sys.exit(bad > 0 or not names)


if __name__ == "__main__":
    main()
