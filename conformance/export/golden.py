"""Golden cases: drawing inputs, running a reference, writing `bitstep-golden/1` files.

Every number in a case comes from a seed (the inputs) or from the reference (the
outputs). Nothing here knows how an optimizer works.
"""

import copy
import functools
import hashlib
import importlib
import inspect
import json
import os
import platform
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

# One instruction set for everybody: a machine with AVX-512 then writes the same
# files as one without. Has to be set before torch is imported.
os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton reads it when its own modules are imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np  # noqa: E402

try:
    import torch
except ImportError:  # the TensorFlow environment has none
    torch = None
else:
    torch.set_num_threads(1)

FORMAT = "bitstep-golden/1"

# safetensors dtype names by numpy's and torch's names (ml_dtypes has a bfloat16).
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
WIDTH = {dtype: np.dtype(name).itemsize for name, dtype in DTYPES.items() if hasattr(np, name)}
WIDTH |= {"BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1}
SHORT = {"f64": "float64", "f32": "float32", "bf16": "bfloat16", "f16": "float16"}


# --- the file ---------------------------------------------------------------


def raw(x):
    """(safetensors dtype, shape, little-endian bytes) of a torch, numpy or TF tensor or a Python number."""
    if torch is not None and isinstance(x, torch.Tensor):
        x = x.detach().cpu().contiguous()
        name = str(x.dtype).removeprefix("torch.")
        words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
        return DTYPES[name], list(x.shape), x.view(words).numpy().tobytes()
    if hasattr(x, "numpy"):
        x = x.numpy()
    if isinstance(x, (bool, int, float)):
        x = np.float64(x)
    x = np.asarray(x)
    shape = list(x.shape)  # before ascontiguousarray, which turns a scalar into one dimension
    return DTYPES[x.dtype.name], shape, np.ascontiguousarray(x).tobytes()


def write_safetensors(path, tensors, meta):
    """Like safetensors' own writer, but with the metadata in a fixed order."""
    tensors = {k: v if isinstance(v, tuple) else raw(v) for k, v in tensors.items()}
    header, blob = {"__metadata__": {k: meta[k] for k in sorted(meta)}}, bytearray()
    for name in sorted(tensors, key=lambda n: (-WIDTH[tensors[n][0]], n)):  # wide first: all are aligned
        dtype, shape, data = tensors[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(blob), len(blob) + len(data)]}
        blob += data
    head = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    head += b" " * (-len(head) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(blob))


def read_safetensors(path):
    """({name: (dtype, shape, bytes)}, metadata)"""
    data = Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    meta = header.pop("__metadata__", {})
    body = memoryview(data)[8 + size :]
    return {k: (v["dtype"], v["shape"], bytes(body[slice(*v["data_offsets"])])) for k, v in header.items()}, meta


def machine():
    if torch is not None:
        return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return platform.machine()


def as_json(value):
    """Converts values that JSON lacks: dtypes by their name, NumPy scalars as numbers, other things by name."""
    if torch is not None and isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, np.generic):
        return value.item()
    return getattr(value, "__name__", str(value))


@dataclass
class Case:
    kind: str
    name: str
    case: str
    reference: str
    hyper: dict
    steps: int
    note: str
    tensors: dict
    seed: int
    packages: list = field(default_factory=list)

    def path(self, out):
        return Path(out) / self.kind / self.name / f"{self.case}.safetensors"

    def write(self, out):
        versions = {p: metadata.version(p) for p in sorted(set(self.packages))}
        meta = {
            "format": FORMAT,
            "kind": self.kind,
            "name": self.name,
            "reference": self.reference,
            "versions": json.dumps(versions),
            "hyper": json.dumps(self.hyper, allow_nan=False, default=as_json),
            "steps": str(self.steps),
            "seed": str(self.seed),
            "note": " ".join(self.note.split()),
            "machine": machine(),
        }
        write_safetensors(self.path(out), self.tensors, meta)


class Rows:
    """Collects tensors step by step; `tensors()` stacks those that kept their shape and were there at every step."""

    def __init__(self, steps):
        self.steps, self.rows = steps, {}

    def add(self, key, value):
        self.rows.setdefault(key, []).append(raw(value))

    def tensors(self):
        out = {}
        for key, rows in self.rows.items():
            dtype, shape, _ = rows[0]
            if len(rows) == self.steps and all(r[:2] == (dtype, shape) for r in rows):
                out[key] = (dtype, [self.steps, *shape], b"".join(r[2] for r in rows))
        return out


# --- inputs -----------------------------------------------------------------


def rng(seed, kind, name, case):
    """A generator for one case. Keyed by the case's path, so that a new case changes no other."""
    digest = hashlib.sha256(f"{seed}/{kind}/{name}/{case}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def spread(g, shape, low, high):
    """Normal numbers times powers of two between 2^low and 2^high, in f64."""
    return np.ldexp(g.standard_normal(shape), g.integers(low, high, size=shape, endpoint=True))


def draw_grads(g, steps, shape, low, high, zeros=1 / 16):
    """T gradients: each element has a magnitude of its own, moves around it, and is sometimes exactly 0."""
    scale = g.integers(low, high, size=shape, endpoint=True)
    grads = np.ldexp(g.standard_normal((steps, *shape)), scale + g.integers(-2, 2, size=(steps, *shape), endpoint=True))
    return np.where(g.random((steps, *shape)) < zeros, 0.0, grads)


# Ranges of exponents that keep squares and differences inside the type.
GRADS = {"f64": (-24, 4), "f32": (-16, 4), "bf16": (-16, 4), "f16": (-5, 2)}


@dataclass
class Inputs:
    """Parameters and gradients in f64, before they are cast to the case's dtype."""

    inits: list
    grads: list


def draw(g, shapes, steps, dtype="f32", inits=(-2, 1), grads=None, edit=None):
    """`edit(inputs)` may overwrite single elements: NaN, infinity, denormals."""
    low, high = grads or GRADS[dtype]
    drawn = Inputs([spread(g, s, *inits) for s in shapes], [draw_grads(g, steps, s, low, high) for s in shapes])
    if edit:
        edit(drawn)
    return drawn


# --- running torch-like optimizers ------------------------------------------


def defaults(cls, hyper, skip=("self", "params")):
    """The constructor's arguments with its defaults, overwritten by `hyper`."""
    args = inspect.signature(cls.__init__).parameters
    return {k: p.default for k, p in args.items() if k not in skip and p.default is not p.empty} | hyper


def path_of(cls):
    """The shortest module that offers the class: torch.optim.AdamW, not torch.optim.adamw.AdamW."""
    parts = cls.__module__.split(".")
    for n in range(1, len(parts)):
        module = ".".join(parts[:n])
        if getattr(importlib.import_module(module), cls.__qualname__, None) is cls:
            return f"{module}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def to_torch(x, dtype):
    return torch.from_numpy(np.ascontiguousarray(x)).reshape(x.shape).to(getattr(torch, SHORT[dtype]))


def torch_state(opt, i, param):
    """The state of one parameter: tensors and numbers, under the reference's keys."""
    return {k: v for k, v in opt.state.get(param, {}).items() if isinstance(v, (torch.Tensor, int, float))}


def run_torch_optimizer(
    case,
    name,
    cls,
    hyper=None,
    *,
    seed,
    note,
    shapes=((4, 3), (5,)),
    dtype="f32",
    steps=16,
    inputs=None,
    inits=(-2, 1),
    grads=None,
    edit=None,
    groups=None,
    lr=None,
    has_grad=None,
    late=None,
    state=torch_state,
    made=None,
    prepare=None,
    before=None,
    step=None,
    after=None,
    finish=None,
    written=None,
    reference=None,
    packages=(),
    kind="optimizer",
):
    """Runs `cls(params, **hyper)` for `steps` steps and returns the Case.

    inputs   an Inputs instead of a drawn one
    groups   a list of {"params": [indices], argument: value, ...}
    lr       the rate of each step (a list), set in every group
    has_grad `has_grad(i, t)`: whether parameter i has a gradient at step t
    late     {slot: number | "signed" | "positive"}: the state before step 0, stored as `p{i}.state0.{slot}`
    state    `state(opt, i, param)`: {slot: tensor or number}, where it isn't simply `opt.state[param]`
    made     `made(opt)` right after construction
    prepare  `prepare(opt, params)` after construction (with `late`: after the state was set)
    before   `before(opt, params, t, rows)` before each step, with the gradients in place
    step     `step(opt, params, t)` instead of `opt.step()`
    after    `after(opt, params, t, rows)` after each step: further rows (`given.…`)
    finish   `finish(opt, params)` at the end: further tensors (`p0.eval`)
    written  what `hyper` says in the file where it isn't what the constructor got
    """
    g = rng(seed, kind, name, case)
    inputs = inputs or draw(g, shapes, steps, dtype, inits, grads, edit)
    params = [torch.nn.Parameter(to_torch(x, dtype)) for x in inputs.inits]
    gradients = [to_torch(x, dtype) for x in inputs.grads]
    hyper = dict(hyper or {})
    if groups:
        arg = [{**group, "params": [params[i] for i in group["params"]]} for group in groups]
    else:
        arg = params
    opt = cls(arg, **copy.deepcopy(hyper))
    if made:
        made(opt)

    tensors = {f"p{i}.init": raw(p) for i, p in enumerate(params)}
    tensors |= {f"p{i}.grad": raw(x) for i, x in enumerate(gradients)}
    if late:
        preset(opt, params, late, g)
        for i, p in enumerate(params):
            tensors |= {f"p{i}.state0.{slot}": raw(v) for slot, v in state(opt, i, p).items() if v is not None}
    if prepare:
        prepare(opt, params)
    if lr is not None:
        tensors["lr"] = raw(np.array(lr, dtype=np.float64))
        assert len(lr) == steps
    if has_grad:
        for i in range(len(params)):
            tensors[f"p{i}.has_grad"] = raw(np.array([has_grad(i, t) for t in range(steps)], dtype=np.uint8))

    rows = Rows(steps)
    for t in range(steps):
        if lr is not None:
            for group in opt.param_groups:
                group["lr"] = lr[t]
        for i, p in enumerate(params):
            p.grad = gradients[i][t].clone() if not has_grad or has_grad(i, t) else None
        if before:
            before(opt, params, t, rows)
        step(opt, params, t) if step else opt.step()
        for i, p in enumerate(params):
            rows.add(f"p{i}.value", p)
            for slot, v in state(opt, i, p).items():
                if v is not None:
                    rows.add(f"p{i}.state.{slot}", v)
        if after:
            after(opt, params, t, rows)
    tensors |= rows.tensors()
    if finish:
        tensors |= {k: raw(v) for k, v in finish(opt, params).items()}

    hyper = written or defaults(cls, hyper)
    if groups:
        hyper = {**hyper, "groups": groups}
    packages = {"numpy", "torch", cls.__module__.split(".")[0], *packages}
    return Case(kind, name, case, reference or path_of(cls), hyper, steps, note, tensors, seed, distributions(packages))


# Reads what all packages consist of: three quarters of the time of an export if done for each case.
installed = functools.cache(metadata.packages_distributions)


def distributions(modules):
    """The names under which packages were installed, from the names they are imported by."""
    known = installed()
    return sorted({known.get(m, [m])[0] for m in modules})


def group_of(opt, param):
    return next(g for g in opt.param_groups if any(p is param for p in g["params"]))


def preset(opt, params, late, g):
    """Gives every parameter the state `late`: one step makes the slots exist, then they are overwritten.
    A slot that isn't in the parameter's state is the group's."""
    start = [p.detach().clone() for p in params]
    for p in params:
        p.grad = torch.ones_like(p)
    opt.step()
    with torch.no_grad():
        for p, x in zip(params, start):
            p.copy_(x)
            for slot, what in late.items():
                home = opt.state[p] if slot in opt.state[p] else group_of(opt, p)
                old = home[slot]
                if what == "signed":
                    new = spread(g, tuple(old.shape), -6, 0)
                elif what == "positive":
                    new = np.abs(spread(g, tuple(old.shape), -10, 0))
                else:
                    new = what
                if not isinstance(old, torch.Tensor):
                    home[slot] = new
                else:
                    old.copy_(torch.as_tensor(new))
