"""torch.optim, made to take one of its kernels, as a backend of the suite: `torch_backend.py foreach` or `fused`.

The goldens of most names come from torch's plain kernels, so this measures the errors of its other kernels.
`torch_backend.py FAULT` runs the optimizers of faulty_torch.py, wrong in one way; with several faults and commas
between them, each optimizer has its own; `AdamW.coupled` is for AdamW alone. `torch_backend.py @FILE` reads them from
a file, anew for each request.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

import faulty_torch
from request import Unsupported, arguments, serve, widen

torch.set_num_threads(1)
KERNEL = sys.argv[1]
NAMES = {
    "adadelta": "Adadelta", "adagrad": "Adagrad", "adam": "Adam", "adamax": "Adamax", "adamw_torch": "AdamW",
    "asgd": "ASGD", "nadam": "NAdam", "radam": "RAdam", "rmsprop": "RMSprop", "rprop": "Rprop", "sgd": "SGD",
    "adafactor_torch": "Adafactor",
}
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def tensor(dtype, array):
    return torch.from_numpy(np.array(widen(dtype, array))).to(TYPES.get(dtype, torch.float64))


def bits(x):
    """Type and numbers as a file has them."""
    x = x.detach().clone()
    if x.dtype == torch.bfloat16:
        return "BF16", x.view(torch.uint16).numpy()
    return {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16"}[x.dtype], x.numpy()


def faulty(request, groups):
    """Plain kernels with the fault that was asked for."""
    name = NAMES[request.name]
    faults = Path(KERNEL[1:]).read_text() if KERNEL.startswith("@") else KERNEL
    own = {fault.removeprefix(f"{name}.") for fault in faults.split(",")} & faulty_torch.FAULTS.get(name, {}).keys()
    if len(own) != 1:
        raise Unsupported(f"not one fault of {name} among {faults}")
    if any(group.get("foreach") or group.get("fused") for group in groups):
        raise Unsupported("plain kernels only")
    return getattr(faulty_torch, name)(groups, *own, **request.hyper)


def backend(request):
    if request.kind != "optimizer" or request.name not in NAMES:
        raise Unsupported(f"only {', '.join(NAMES)}")
    is_kernel = KERNEL in ("foreach", "fused")
    groups, params, of_param = arguments(json.loads(request.meta["groups"])), {}, {}
    for group in groups:
        numbers = group.pop("params")
        if KERNEL == "fused" and group.get("foreach"):
            raise Unsupported("foreach is asked for")
        if KERNEL == "fused" and "fused" not in group:
            raise Unsupported("torch has no fused kernel of it")
        if KERNEL == "foreach" and group.get("fused"):
            raise Unsupported("fused is asked for")
        if is_kernel:
            group[KERNEL] = True
        for i in numbers:
            params[i] = torch.nn.Parameter(tensor(*request.tensors[f"p{i}.init"]))
            of_param[i] = group
        group["params"] = [params[i] for i in numbers]
    if is_kernel:
        hyper = {**request.hyper, KERNEL: True}
        optimizer = getattr(torch.optim, NAMES[request.name])(groups, **hyper)
    else:
        optimizer = faulty(request, groups)
    meta, out, shown = {"format": "bitstep-answer/1"}, {}, {i: [] for i in params}
    updates = request.array("updates")
    for i, p in params.items():
        prefix = f"p{i}.state0."
        state = {n[len(prefix):]: t for n, t in request.tensors.items() if n.startswith(prefix)}
        if state:
            optimizer.state[p] = {slot: tensor(*t) for slot, t in state.items()}
        elif updates[i] > 0 and (request.name != "sgd" or of_param[i]["momentum"]):
            meta[f"p{i}.lacks"] = "step" if request.name != "sgd" else "momentum_buffer"
    rates, count = request.array("lr"), int(request.meta["steps"])
    for t in range(count):
        for i, p in params.items():
            has = request.array(f"p{i}.has_grad")
            dtype, grads = request.tensors[f"p{i}.grad"]
            p.grad = tensor(dtype, grads[t]) if has is None or has[t] else None
        if rates is not None:
            for group in optimizer.param_groups:
                group["lr"] = float(rates[t])
        optimizer.step()
        for i, p in params.items():
            numbers = {s: x.detach().clone() if torch.is_tensor(x) else torch.tensor(float(x), dtype=torch.float64)
                       for s, x in optimizer.state[p].items() if x is not None}
            shown[i].append((p.detach().clone(), numbers))
    for i, rows in shown.items():
        if f"p{i}.lacks" in meta:
            continue
        out[f"p{i}.value"] = bits(torch.stack([value for value, _ in rows]))
        for slot in set(rows[0][1]).intersection(*(state for _, state in rows)):
            out[f"p{i}.state.{slot}"] = bits(torch.stack([state[slot] for _, state in rows]))
    return meta, out


serve(backend)
