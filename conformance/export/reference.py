"""The references as a program behind `exec-loop:`: answers whole runs with what the real ones do.

    bitstep-conformance fuzz --backend core --oracle reference

runs it with the exporter's Python (BITSTEP_VENV_MAIN). Which class a name is, how it is made and how its state is
read is what the cases files say: they are run with `run_torch_optimizer` and `Schedules.case` replaced by functions
that only write down what they were called with. What a run can't be made from is refused, with the reason.

References of other environments (BITSTEP_VENV_TF, BITSTEP_VENV_FORMER) are asked there: by `reference_tf.py`, and by
this program.
"""

import importlib
import inspect
import json
import os
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.append(str(HERE / "cases"))
sys.dont_write_bytecode = True
warnings.simplefilter("ignore")

# PyTorch's kernels for any x86-64 round a product before it is added to, as the core does. Those for AVX2, which the
# goldens come from, do not: where products overflow or cancel, the two give other numbers altogether.
os.environ.setdefault("ATEN_CPU_CAPABILITY", "default")

import golden  # noqa: E402  before any reference: it says how torch is to run
import battery  # noqa: E402
import export  # noqa: E402
import lowrank  # noqa: E402
import numpy as np  # noqa: E402
import program  # noqa: E402
import schedules  # noqa: E402
import torch  # noqa: E402
from program import SHORT, Unsupported, protocol  # noqa: E402

ENV = sys.argv[1] if len(sys.argv) == 2 else "main"
# References by their beginnings, and the environments that have them.
ELSEWHERE = {"tensorflow.": "tf", "transformers.optimization_tf.": "tf", "transformers.optimization.AdamW": "former"}
ASKED = {}  # environment: the program there

linspace = torch.linspace
run_torch_optimizer = golden.run_torch_optimizer
OPTIMIZERS = {}  # name: (class, arguments, how it is run)
SCHEDULES = {}  # name: what makes the scheduler
AROUND = {}  # name: the context that its runs need, such as one without a compiler
LOOKED_FOR = set()


def linspace_of_avx2(start, end, steps, **more):
    """The maps of 8-bit codes are made by `linspace`, whose product AVX2 does not round: the goldens have that map."""
    if more not in ({}, {"dtype": torch.float32}) or any(isinstance(x, torch.Tensor) for x in (start, end)) or steps < 2:
        return linspace(start, end, steps, **more)
    first, last = np.float32(start), np.float32(end)
    k = np.arange(steps, dtype="f8")
    step = np.float64((last - first) / np.float32(steps - 1))
    wide = np.where(k < steps // 2, first + step * k, last - step * (steps - 1 - k))
    return torch.from_numpy(wide.astype("f4"))


def remember(name, cls, seed, hyper=None, prefix="", **run):
    """In place of `battery.maker`."""
    OPTIMIZERS.setdefault(name, (cls, hyper or {}, run))
    return lambda *_, **__: SimpleNamespace()  # some files change what was made


def remember_projected(name, cls, reference, seed, hyper=None, projection=None, **run):
    """In place of `lowrank.projected`."""
    return remember(name, cls, seed, hyper, after=show_projectors, **run)


def show_projectors(opt, params, t, rows):
    """Projectors as state: the suite hands them over as what the reference made."""
    for i, p in enumerate(params):
        if (projector := opt.state.get(p, {}).get("projector")) is not None:
            matrix = projector.ortho_matrix
            if isinstance(matrix, (list, tuple)):
                for j, m in enumerate(matrix):
                    rows.add(f"p{i}.state.projector_{j}", m)
            else:
                rows.add(f"p{i}.state.projector", matrix)


def remember_schedule(self, *_, **__):
    SCHEDULES[self.name] = self.make


def find(name, among):
    """What the cases file of a name has noted. A file is run once."""
    for path, env, names in export.files(name) if name not in LOOKED_FOR else ():
        if env != ENV:
            continue
        LOOKED_FOR.update(names)
        spec = importlib.util.spec_from_file_location(f"cases_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            on_cpu = getattr(getattr(module, "flash_on_cpu", None), "running", nullcontext)
            AROUND.update(dict.fromkeys(names, getattr(module, "uncompiled", on_cpu)))
            for _ in module.cases(1):
                pass
        except Exception:  # what is done with a case that was not made
            pass
    LOOKED_FOR.add(name)
    if name not in among:
        raise Unsupported("no cases file of this environment says how it is run")
    return among[name]


NO_ARGUMENTS = ("reference", "quantizer", "params", "groups")


def beside(cls, given):
    """Arguments that the constructor lacks."""
    wanted = inspect.signature(cls.__init__ if inspect.isclass(cls) else cls).parameters
    return {key: x for key, x in given.items() if key not in wanted and key not in NO_ARGUMENTS}


def of_groups(cls, given):
    """`made` of a run with arguments that only groups have: optimi's take `betas` and hold `beta1` and `beta2`."""

    def made(opt):
        for group in opt.param_groups:
            group.update((key, x) for key, x in beside(cls, given).items() if key in group)

    return made


def constructor(cls, given, own):
    """Arguments as the constructor takes them: those that it has, types by name, pairs as tuples."""
    wanted = inspect.signature(cls.__init__ if inspect.isclass(cls) else cls).parameters
    any_name = any(p.kind is p.VAR_KEYWORD for p in wanted.values())
    out = dict(own)
    for key, x in given.items():
        if key in NO_ARGUMENTS or not (any_name or key in wanted):
            continue
        default = getattr(wanted.get(key), "default", None)
        if isinstance(default, torch.dtype) and isinstance(x, str):
            x = getattr(torch, x)
        out[key] = tuple(x) if isinstance(x, list) else x
    return out


def preset(wanted, step):
    """`prepare` of a run that starts from state: one step makes the slots, then each is overwritten. None may be left
    as that step made it."""

    def prepare(opt, params):
        others = lambda: repr([{k: v for k, v in g.items() if k != "params"} for g in opt.param_groups])
        start, before = [p.detach().clone() for p in params], others()
        made = [dict(opt.state.get(p, {})) for p in params]
        for p in params:
            p.grad = torch.ones_like(p)
        step(opt, params, 0) if step else opt.step()
        if others() != before:
            raise Unsupported("a run from preset state: a group has state of its own")
        with torch.no_grad():
            for p, x, slots, first in zip(params, start, wanted, made):
                p.copy_(x)
                p.grad = None
                state = opt.state[p]
                if not slots:
                    opt.state.pop(p)
                    if first:
                        opt.state[p] = first
                elif {k for k, v in state.items() if isinstance(v, (torch.Tensor, int, float))} != set(slots):
                    raise Unsupported("a run from preset state: it has other slots than are shown")
                for slot, x in slots.items():
                    if isinstance(state[slot], torch.Tensor):
                        state[slot].copy_(torch.from_numpy(np.array(x, "f8" if x.dtype == "f4" else None)))
                    else:
                        state[slot] = type(state[slot])(x)

    return prepare


def drawing(request, steps, has):
    """Has torchao's rounding find the run's bits where it draws its own."""
    order = [i for group in json.loads(request.meta["groups"]) for i in group["params"]]
    rows = {i: request.array(f"p{i}.given.rand16") for i in order}
    wanted = iter(
        [rows[i][t] for t in range(steps) for i in order if rows[i] is not None and (has[i] is None or has[i][t])]
    )

    def randint(low, high, size, **more):
        bits = next(wanted)
        if (low, high, tuple(size)) != (0, 1 << 16, bits.shape):
            raise Unsupported(f"what is drawn is no 16 bits for each number: {low}, {high}, {tuple(size)}")
        return torch.from_numpy(np.asarray(bits, "i4")).to(more.get("dtype") or torch.int64)

    return mock.patch.object(torch, "randint", randint)


def has_nan(tensor):
    dtype, _, data = tensor
    if dtype not in protocol.TYPES:
        return False
    return bool(np.isnan(protocol.widen(dtype, np.frombuffer(data, protocol.TYPES[dtype]))).any())


def is_finite(tensor):
    dtype, _, data = tensor
    return bool(np.isfinite(protocol.widen(dtype, np.frombuffer(data, protocol.TYPES[dtype]))).all())


def optimizer(request):
    cls, own, run = find(request.name, OPTIMIZERS)
    bits = {name for name in request.tensors if name.endswith(".given.rand16")}
    if run.get("before") or any("given." in name for name in request.tensors if name not in bits):
        raise Unsupported("inputs beside the gradients")
    if (other := request.hyper.get("reference")) and other.split(".")[0] != cls.__module__.split(".")[0]:
        raise Unsupported(f"{other} is not in this environment")
    if request.hyper.get("gradient_release"):
        raise Unsupported("gradient_release: its steps are made by hooks of the backward pass")
    count = len([n for n in request.tensors if n.endswith(".init")])
    dtypes = {request.tensors[f"p{i}.init"][0] for i in range(count)}
    if len(dtypes) > 1:
        raise Unsupported("parameters of several types")
    start = [request.under(f"p{i}.state0.") for i in range(count)]
    if any(start):
        if run.get("state") or run.get("prepare"):
            raise Unsupported("a run from preset state: it is not where torch has it")
        run = {**run, "prepare": preset(start, run.get("step"))}
    steps, rates = int(request.meta["steps"]), request.array("lr")
    has = [request.array(f"p{i}.has_grad") for i in range(count)]
    hyper = constructor(cls, request.hyper, own)
    groups = protocol.arguments(json.loads(request.meta["groups"]))
    differ = any(g[k] != request.hyper.get(k) for g in groups for k in g if k != "params")
    if len(groups) > 1 or differ or "rank" in request.hyper:  # GaLore and APOLLO have that one in groups alone
        groups = [{k: x for k, x in g.items() if k != "rank" or x is not None} for g in groups]
        groups = [{"params": g["params"], **constructor(cls, g, {}), **beside(cls, g)} for g in groups]
        for own_arguments in groups:  # PyTorch checks those of the constructor alone, the core each group's
            cls([torch.zeros(2, 2)], **{**hyper, **{k: x for k, x in own_arguments.items() if k != "params" and k in hyper}})
    else:
        groups = None
    if groups is None and not run.get("made"):
        run = {**run, "made": of_groups(cls, request.hyper)}
    for own_arguments in groups or []:
        for i in own_arguments["params"] if "rank" in own_arguments else ():
            if request.array(f"p{i}.init").ndim != 2:
                raise Unsupported("a projected parameter that is no matrix")
            if has[i] is not None and not has[i][0]:
                raise Unsupported("a projected parameter without a gradient at the first step")
    rates = None if rates is None else [float(x) for x in rates]
    if rates and cls.__module__.startswith("torchao.") and not run.get("step"):

        def with_rate(opt, _, t):  # a rate is a tensor, and has to stay it
            for group in opt.param_groups:
                group["lr"].fill_(rates[t])
            opt.step()

        run = {**run, "step": with_rate}
    else:
        with_rate = None
    dtype = SHORT[dtypes.pop()]
    foreach = cls.__module__.startswith("torch.optim") and any(g.get("foreach") for g in [request.hyper, *(groups or [])])
    if foreach and dtype in ("bf16", "f16"):
        raise Unsupported("foreach in 16 bits: PyTorch rounds the factors of _foreach_mul_ to the type of the tensors")
    if foreach and request.name == "asgd":
        raise Unsupported("foreach ASGD: its rate is a power in f32, whose last bit is the vector library's own")
    with AROUND.get(request.name, nullcontext)(), drawing(request, steps, has) if bits else nullcontext():
        case = run_torch_optimizer(
            "fuzz", request.name, cls, hyper, seed=0, note="", steps=steps, groups=groups,
            inputs=golden.Inputs(
                [request.array(f"p{i}.init").astype("f8") for i in range(count)],
                [request.array(f"p{i}.grad").astype("f8") for i in range(count)],
            ),
            lr=None if with_rate else rates,
            has_grad=(lambda i, t: has[i] is None or bool(has[i][t])) if any(h is not None for h in has) else None,
            **{**run, "dtype": dtype},
        )
    if any({**request.hyper, **g}.get("fused") and {**request.hyper, **g}.get("amsgrad") for g in groups or [{}]):
        if any(name.endswith(".exp_avg_sq") and has_nan(t) for name, t in case.tensors.items()):
            raise Unsupported("fused amsgrad: the last elements of a tensor forget a NaN of `exp_avg_sq`, the others not")
    is_data = all(np.isfinite(request.array(f"p{i}.{x}")).all() for i in range(count) for x in ("init", "grad"))
    if request.name == "muon" and is_data and not all(is_finite(t) for n, t in case.tensors.items() if n.endswith(".value")):
        raise Unsupported("muon: products that overflow, where a library may leave out what it multiplies by 0")
    skip = ("init", "grad", "has_grad")
    return {n: t for n, t in case.tensors.items() if n[0] == "p" and n.split(".", 1)[1] not in skip}


def adafactor_schedule(request):
    """Steps of Adafactor in which the RMS of the parameters are those given."""
    from transformers.optimization import Adafactor, AdafactorSchedule

    hyper, rms = request.hyper, request.array("given.rms")
    dtype = getattr(torch, hyper["dtype"])
    groups = hyper.get("groups") or [{} for _ in range(int(request.meta["groups"]))]
    params = [torch.nn.Parameter(torch.ones(3, 4, dtype=dtype)) for _ in groups]
    arg = [{**constructor(Adafactor, g, {}), "params": [p]} for g, p in zip(groups, params)]
    opt = Adafactor(arg, **constructor(Adafactor, hyper, {}))
    scheduler = AdafactorSchedule(opt, hyper["initial_lr"])
    rows = [schedules.rates(opt)]
    for t in range(int(request.meta["steps"])):
        for p in params:
            p.grad = torch.ones_like(p)
        opt.step()
        for p, x in zip(params, rms[t]):
            opt.state[p]["RMS"].fill_(x)
        scheduler.step()
        rows.append(schedules.rates(opt))
    return {"lr": np.array(rows, dtype="f8")}


def schedule(request):
    if request.name == "adafactor_schedule":
        return adafactor_schedule(request)
    make, hyper = find(request.name, SCHEDULES), dict(request.hyper)
    if any(name.startswith("given.") for name in request.tensors):
        raise Unsupported("inputs beside the metric")
    groups = hyper.pop("groups", None) or [{} for _ in range(int(request.meta["groups"]))]
    opt = schedules.optimizer(hyper.pop("lr"), [{k: v for k, v in g.items() if k != "params"} for g in groups])
    if hyper.get("last_epoch", -1) != -1:
        for group in opt.param_groups:
            group.setdefault("initial_lr", group["lr"])
    if "schedulers" in hyper:
        parts = [{k: v for k, v in s.items() if k != "name"} for s in hyper["schedulers"]]
        hyper["schedulers"] = [(s["name"], own) for s, own in zip(hyper["schedulers"], parts)]
    names = inspect.signature(make).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in names.values()):
        hyper = {k: v for k, v in hyper.items() if k in names}
    metric, scheduler = request.array("metric"), make(opt, **hyper)
    rows = [schedules.rates(opt)]
    for t in range(int(request.meta["steps"])):
        opt.step()
        scheduler.step() if metric is None else scheduler.step(metric[t])
        rows.append(schedules.rates(opt))
    return {"lr": np.array(rows, dtype="f8")}


def gradient(request):
    tensors = []
    while (name := f"g{len(tensors)}.in") in request.tensors:
        dtype, x = request.tensors[name]
        wide = torch.from_numpy(np.asarray(protocol.widen(dtype, x), "f8"))
        tensors.append(wide.to(getattr(torch, golden.SHORT[SHORT[dtype]])))
    hyper = request.hyper
    if any(".given." in name for name in request.tensors):
        raise Unsupported("inputs beside the gradients")
    out = {}
    if request.name == "accumulate":
        if "gradient_accumulation_steps" not in hyper:
            raise Unsupported("no accumulator of this environment")
        window, mean = hyper["gradient_accumulation_steps"], hyper["reduction"] == "mean"
        if window < 1:
            raise Unsupported("no steps to accumulate")
        params = [torch.nn.Parameter(torch.zeros_like(x[0])) for x in tensors]
        for w, x in zip(params, tensors):
            for m, row in enumerate(x):
                if m % window == 0:
                    w.grad = None  # as `zero_grad` does after the optimizer's step
                loss = (w * row).sum()
                (loss / window if mean else loss).backward()
    else:
        params = [torch.nn.Parameter(torch.zeros_like(x)) for x in tensors]
        for p, x in zip(params, tensors):
            p.grad = x.clone()
        if request.name == "clip_grad_norm" and "norm_type" in hyper:
            order = {**hyper, "norm_type": float(hyper["norm_type"])}
            out["norm"] = float(torch.nn.utils.clip_grad_norm_(params, **order))
        elif request.name == "clip_grad_value" and "clip_value" in hyper:
            torch.nn.utils.clip_grad_value_(params, **hyper)
        else:
            raise Unsupported("no torch function of this environment")
    return out | {f"g{i}.out": p.grad for i, p in enumerate(params) if p.grad is not None}


def elsewhere(env):
    """The program that answers with the references of another environment."""
    if env not in ASKED:
        variable = f"BITSTEP_VENV_{env.upper()}"
        python = Path(os.environ.get(variable) or HERE / f".venv-{env}") / "bin" / "python"
        if not python.exists():
            raise Unsupported(f"{variable} names no environment")
        command = [python, "-B", HERE / "reference_tf.py"] if env == "tf" else [python, "-B", __file__, env]
        ASKED[env] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return ASKED[env]


def answer(backend, request, to):
    reference = protocol.read(request)[0]["reference"]
    env = next((env for start, env in ELSEWHERE.items() if reference.startswith(start)), ENV)
    if env == ENV:
        return own_answer(backend, request, to)
    try:
        asked = elsewhere(env)
    except Unsupported as why:
        return f"unsupported {why}"
    print(request, to, sep="\t", file=asked.stdin, flush=True)
    if said := asked.stdout.readline().rstrip("\n"):
        return said
    del ASKED[env]
    return f"error the program of the environment {env} has ended"


torch.linspace = linspace_of_avx2
battery.maker = remember
lowrank.projected = remember_projected
schedules.Schedules.case = remember_schedule
own_answer, protocol.answer = protocol.answer, answer
program.serve(optimizer=optimizer, schedule=schedule, gradient=gradient)
