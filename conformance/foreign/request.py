"""Reads requests and writes answers of the suite, with numpy alone; ../README.md defines both.

A backend is a function that is called for every parameter and step; `serve` does the rest.
"""

import json
import sys

import numpy as np

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "U8": "u1"}
TYPES |= {"I8": "i1", "I16": "<i2", "U16": "<u2"}  # codes, and bits for rounding at random


class Unsupported(Exception):
    """There is no implementation of this; with the reason."""


class Lacks(Exception):
    """The request holds no such state, and the step needs it."""


def read(path):
    """Metadata, and tensors by name as (type, array); the bits of BF16 as whole numbers."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    meta = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] in TYPES:
            start, end = entry["data_offsets"]
            array = np.frombuffer(data[start:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
            tensors[name] = (entry["dtype"], array)
    return meta, tensors


def write(path, meta, tensors):
    header, data = {"__metadata__": meta}, []
    at = 0
    for name, (dtype, array) in tensors.items():
        raw = np.ascontiguousarray(array, TYPES[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        data.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + b"".join(data))


def widen(dtype, array):
    """BF16 to f32, exactly."""
    return (array.astype("<u4") << 16).view("<f4") if dtype == "BF16" else array


def narrow(dtype, array):
    """Rounds to the type, ties to even."""
    if dtype != "BF16":
        return array.astype(TYPES[dtype])
    bits = np.asarray(array, "<f4", order="C").view("<u4")
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
    return np.where(np.isnan(array), np.uint16(0x7FC0), rounded)


class State(dict):
    """A parameter's state, under the reference's keys."""

    updates = 0
    missed = False  # whether the step before had no gradient

    def start(self, slot, value):
        """A slot's value; the given one if the parameter has had no gradient yet."""
        if slot not in self:
            if self.updates:
                raise Lacks(slot)
            self[slot] = value
        return self[slot]


def arguments(value):
    """JSON has no NaN and no infinity: they come by name."""
    if isinstance(value, dict):
        return {key: arguments(x) for key, x in value.items()}
    if isinstance(value, list):
        return [arguments(x) for x in value]
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


class Request:
    def __init__(self, path):
        self.meta, self.tensors = read(path)
        self.kind, self.name = self.meta["kind"], self.meta["name"]
        self.hyper = arguments(json.loads(self.meta["hyper"]))

    def array(self, name):
        found = self.tensors.get(name)
        return None if found is None else widen(*found)

    def under(self, prefix):
        return {name[len(prefix):]: widen(*t) for name, t in self.tensors.items() if name.startswith(prefix)}


def steps(request, step):
    """Runs `step(value, grad, state, arguments, type)` -> value; state changes in place."""
    meta, out = {"format": "bitstep-answer/1"}, {}
    count, rates = int(request.meta["steps"]), request.array("lr")
    for group in arguments(json.loads(request.meta["groups"])):
        for i in group["params"]:
            dtype, value = request.tensors[f"p{i}.init"]
            value = widen(dtype, value).copy()
            state = State((slot, x.copy()) for slot, x in request.under(f"p{i}.state0.").items())
            state.updates = int(request.array("updates")[i])
            has, grads, rows = request.array(f"p{i}.has_grad"), request.array(f"p{i}.grad"), []
            try:
                for t in range(count):
                    if has is None or has[t]:
                        own = group if rates is None else {**group, "lr": float(rates[t])}
                        value = narrow(dtype, step(value, grads[t], state, own, dtype))
                        rows_value, value = value, widen(dtype, value)
                        state.updates, state.missed = state.updates + 1, False
                    else:
                        state.missed = True
                        rows_value = narrow(dtype, value)
                    rows.append((rows_value, {slot: np.copy(x) for slot, x in state.items()}))
            except Lacks as lacks:
                meta[f"p{i}.lacks"] = str(lacks)
                continue
            out[f"p{i}.value"] = (dtype, np.stack([v for v, _ in rows]))
            for slot in set(rows[0][1]).intersection(*(kept for _, kept in rows)):
                shown = np.stack([np.asarray(kept[slot]) for _, kept in rows])
                out[f"p{i}.state.{slot}"] = ("F32" if shown.dtype == np.float32 else "F64", shown)
    return meta, out


def answer(backend, request, to):
    try:
        write(to, *backend(Request(request)))
        return "done"
    except Unsupported as why:
        return f"unsupported {why}"
    except Exception as e:  # one bad case is not the end
        return f"error {type(e).__name__}: {e}".replace("\n", " ")


def serve(backend):
    """`backend(Request)` gives the metadata and tensors of an answer."""
    np.seterr(all="ignore")  # NaN and infinity are numbers like others here
    if len(sys.argv) > 2:
        print(answer(backend, *sys.argv[-2:]))
        return
    for line in sys.stdin:
        print(answer(backend, *line.rstrip("\n").split("\t")), flush=True)
