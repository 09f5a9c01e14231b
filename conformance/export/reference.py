"""The references as a program behind `exec-loop:`: answers whole runs with what the real optimizers do.

    bitstep-conformance fuzz --backend core --oracle reference

runs it with the exporter's Python (BITSTEP_VENV_MAIN). Which class a name is, and how its state is read, is what the
cases files say. A run from preset state, of several types or with inputs beside the gradients is not taken.
"""

import importlib
import inspect
import json
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "foreign")]
sys.path.append(str(HERE / "cases"))
sys.dont_write_bytecode = True
warnings.simplefilter("ignore")

import golden  # noqa: E402  before any reference: it says how torch is to run
import battery  # noqa: E402
import export  # noqa: E402
import request as protocol  # noqa: E402
import torch  # noqa: E402

SHORT = {"F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16"}
KNOWN = {}  # name: (class, arguments, how it is run)


def remember(name, cls, seed, hyper=None, prefix="", **run):
    KNOWN.setdefault(name, (cls, hyper or {}, run))
    return lambda *_, **__: None


def find(name):
    """The first maker of a name in the cases files of this environment."""
    for path, env, names in export.files(name):
        if env == "main" and name not in KNOWN:
            spec = importlib.util.spec_from_file_location(f"cases_{path.stem}", path)
            module = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
                for _ in module.cases(1):
                    pass
            except Exception:  # what is done with a case that was not made
                pass
    return KNOWN.get(name)


def constructor(cls, given, own):
    """Arguments as the constructor takes them: those that it has, types by name, pairs as tuples."""
    wanted = inspect.signature(cls.__init__).parameters if inspect.isclass(cls) else {}
    any_name = not wanted or any(p.kind is p.VAR_KEYWORD for p in wanted.values())
    out = dict(own)
    for key, x in given.items():
        if key in ("reference", "quantizer", "params") or not (any_name or key in wanted):
            continue
        default = getattr(wanted.get(key), "default", None)
        if isinstance(default, torch.dtype) and isinstance(x, str):
            x = getattr(torch, x)
        out[key] = tuple(x) if isinstance(x, list) else x
    return out


def backend(request):
    found = find(request.name) if request.kind == "optimizer" else None
    if not found:
        raise protocol.Unsupported("no cases file of this environment has it")
    cls, own, run = found
    if run.get("before") or any(name.startswith("given.") for name in request.tensors):
        raise protocol.Unsupported("inputs beside the gradients")
    if any(".state0." in name or ".given." in name for name in request.tensors):
        raise protocol.Unsupported("a run from preset state, or with given tensors")
    count = len([n for n in request.tensors if n.endswith(".init")])
    dtypes = {request.tensors[f"p{i}.init"][0] for i in range(count)}
    if len(dtypes) > 1:
        raise protocol.Unsupported("parameters of several types")
    steps, rates = int(request.meta["steps"]), request.array("lr")
    has = [request.array(f"p{i}.has_grad") for i in range(count)]
    hyper = constructor(cls, request.hyper, own)
    groups = protocol.arguments(json.loads(request.meta["groups"]))
    if len(groups) > 1 or any(g[k] != request.hyper.get(k) for g in groups for k in g if k != "params"):
        groups = [{"params": g["params"], **constructor(cls, g, {})} for g in groups]
    else:
        groups = None
    case = golden.run_torch_optimizer(
        "fuzz", request.name, cls, hyper, seed=0, note="", steps=steps, groups=groups,
        inputs=golden.Inputs(
            [request.array(f"p{i}.init").astype("f8") for i in range(count)],
            [request.array(f"p{i}.grad").astype("f8") for i in range(count)],
        ),
        lr=None if rates is None else [float(x) for x in rates],
        has_grad=(lambda i, t: has[i] is None or bool(has[i][t])) if any(h is not None for h in has) else None,
        **{**run, "dtype": SHORT[dtypes.pop()]},
    )
    skip = ("init", "grad", "has_grad")
    out = {n: t for n, t in case.tensors.items() if n[0] == "p" and n.split(".", 1)[1] not in skip}
    return {"format": "bitstep-answer/1"}, out


def write(path, meta, tensors):
    golden.write_safetensors(Path(path), tensors, meta)


protocol.write = write
battery.maker = remember
protocol.serve(backend)
