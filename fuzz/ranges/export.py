"""Which hyper-parameters the references' constructors take: writes ranges.json beside this file.

Every number among a constructor's arguments is set to values in and around the usual ranges, the
others staying at their defaults. Run with the exporter's environment (conformance/export/README.md):
    python fuzz/ranges/export.py [NAME...]
With names, records of others stay as they are.
"""

import inspect
import json
import math
import sys
import warnings
from pathlib import Path

import torch

warnings.simplefilter("ignore")
VALUES = [-1.0, -1e-3, -0.0, 0.0, 1e-3, 0.5, 1.0, 1.0 + 2**-40, 1.5, math.nan, math.inf, -math.inf]
# Arguments that are a choice, a count of work, or of no account to any number.
SKIP = {"fused", "foreach", "capturable", "differentiable", "rank", "ns_steps"}


def parameters():
    return [torch.nn.Parameter(torch.ones(4, 4))]


def classes():
    """Our name, what to call, and arguments without which it can't be called."""
    import bitsandbytes.optim as bnb
    import flashoptim
    import galore_torch
    import apollo_torch
    import grokadamw
    import lomo_optim
    import optimi
    import schedulefree
    import torch.optim as o
    import torchao.optim as ao
    from llama_cookbook.policies.anyprecision_optimizer import AnyPrecisionAdamW
    from transformers.optimization import Adafactor

    for name, cls in {
        "adadelta": o.Adadelta, "adafactor_torch": o.Adafactor, "adagrad": o.Adagrad, "adam": o.Adam,
        "adamax": o.Adamax, "adamw_torch": o.AdamW, "asgd": o.ASGD, "muon": o.Muon, "nadam": o.NAdam,
        "radam": o.RAdam, "rmsprop": o.RMSprop, "rprop": o.Rprop, "sgd": o.SGD,
        "adamw_hf": galore_torch.GaLoreAdamW, "apollo_adamw": apollo_torch.APOLLOAdamW,
        "adamw_anyprecision": AnyPrecisionAdamW, "grokadamw": grokadamw.GrokAdamW,
        "schedule_free_adamw": schedulefree.AdamWScheduleFree,
        "schedule_free_radam": schedulefree.RAdamScheduleFree,
        "bnb_adam_32bit": bnb.Adam32bit, "bnb_adamw_32bit": bnb.AdamW32bit,
        "ademamix": bnb.AdEMAMix, "lion_32bit": bnb.Lion32bit,
        "rmsprop_bnb": bnb.RMSprop, "rmsprop_bnb_8bit": bnb.RMSprop8bit,
        "bnb_adagrad_32bit": bnb.Adagrad32bit, "bnb_lamb_32bit": bnb.LAMB32bit,
        "adamw_torch_8bit": ao.AdamW8bit, "adamw_torch_4bit": ao.AdamW4bit,
        "torchao_adam8bit": ao.Adam8bit, "torchao_adamw_fp8": ao.AdamWFp8,
        "flash_adam": flashoptim.FlashAdam, "flash_adamw": flashoptim.FlashAdamW,
        "flash_lion": flashoptim.FlashLion, "flash_sgd": flashoptim.FlashSGD, "flash_sgdw": flashoptim.FlashSGDW,
    }.items():
        yield name, cls, {}
    yield "adafactor", Adafactor, {"lr": 1e-3, "relative_step": False}
    yield "schedule_free_sgd", schedulefree.SGDScheduleFree, {"lr": 0.1}
    for name, cls in {"optimi_adam": optimi.Adam, "optimi_adamw": optimi.AdamW,
                      "optimi_ranger": optimi.Ranger, "optimi_adan": optimi.Adan, "optimi_lion": optimi.Lion,
                      "optimi_radam": optimi.RAdam, "optimi_sgd": optimi.SGD, "stable_adamw": optimi.StableAdamW}.items():
        yield name, cls, {"lr": 1e-3}
    yield "adamw_bnb_8bit", bnb.AdamW, {"optim_bits": 8}
    yield "bnb_lars_32bit", bnb.LARS32bit, {"lr": 1e-3, "momentum": 0.9}
    yield "bnb_sgd_32bit", bnb.SGD32bit, {"lr": 1e-3, "momentum": 0.9}
    for name, cls in {"lomo": lomo_optim.Lomo, "adalomo": lomo_optim.AdaLomo}.items():
        yield name, lambda params, cls=cls, **k: cls(torch.nn.Linear(4, 4), **k), {"lr": 1e-3, "clip_grad_norm": 1.0}


# Combinations that are valid, or not.
PAIRS = [
    {"nesterov": True}, {"nesterov": True, "momentum": 0.9}, {"nesterov": True, "momentum": 0.0},
    {"nesterov": True, "momentum": 0.9, "dampening": 0.5}, {"nesterov": True, "dampening": 0.5},
    {"centered": True}, {"amsgrad": True}, {"decouple_wd": True, "decouple_lr": True},
    {"decouple_lr": True}, {"max_lr": 1e-2}, {"max_lr": 1e-4, "decouple_lr": True}, {"max_lr": 1e-2, "decouple_lr": True},
    {"warmup_init": True}, {"warmup_init": True, "relative_step": True, "lr": None},
    {"relative_step": True}, {"relative_step": True, "lr": None},
]


def numbers(cls, base):
    """The arguments that hold numbers, with their defaults."""
    target = cls.__defaults__[0] if inspect.isfunction(cls) else cls
    for key, p in inspect.signature(target.__init__).parameters.items():
        value = base.get(key, p.default)
        if key in SKIP or isinstance(value, (bool, str)) or value is p.empty:
            continue
        if isinstance(value, (int, float)) or value is None and key in {"clip_grad_norm", "max_lr", "clip_threshold"}:
            yield key, value
        elif isinstance(value, (tuple, list)) and value and all(isinstance(x, (int, float, type(None))) for x in value):
            yield key, list(value)


def plain(value):
    """JSON without the words it does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return [plain(v) for v in value] if isinstance(value, list) else value


def main():
    page, only = Path(__file__).parent / "ranges.json", sys.argv[1:]
    records = [r for r in json.loads(page.read_text()) if r[0] not in only] if only else []
    for name, cls, base in classes():
        if only and name not in only:
            continue
        tries = [{}]
        accepts = set(inspect.signature(cls.__defaults__[0].__init__ if inspect.isfunction(cls) else cls.__init__).parameters)
        for key, default in numbers(cls, base):
            for value in VALUES:
                if isinstance(default, list):
                    tries += [{key: default[:i] + [value] + default[i + 1:]} for i in range(len(default))]
                elif isinstance(default, int) and not isinstance(default, bool):
                    if value in (0.0, 1.0, -1.0):
                        tries.append({key: int(value)})
                else:
                    tries.append({key: value})
        tries += [pair for pair in PAIRS if pair.keys() <= accepts]
        try:
            cls(parameters(), **base)
            works = True
        except Exception:
            works = False
        for one in tries:
            args = base | one
            try:
                cls(parameters(), **{k: tuple(v) if isinstance(v, list) else v for k, v in args.items()})
                taken = True
            except (ValueError, AssertionError):
                taken = False
            except NotImplementedError:  # of these arguments, if not of this machine's processor
                if not works:
                    continue
                taken = False
            except Exception:  # neither taken nor refused: an accident of Python's
                continue
            records.append([name, {k: plain(v) for k, v in args.items()}, taken])
    lines = ",\n".join(json.dumps(r) for r in records)
    page.write_text(f"[\n{lines}\n]\n")
    print(len(records), "constructions,", sum(not r[2] for r in records), "refused")


main()
