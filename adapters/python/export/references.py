"""What the references' classes take and keep: writes python/bitstep/references.json.

Nothing is computed here but by the references. Run with the exporter's environment
(conformance/export/README.md): python adapters/python/export/references.py
"""

import importlib
import inspect
import json
import math
import os
import warnings
from pathlib import Path

os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # torchao would compile its step

import torch

warnings.simplefilter("ignore")
torch.cuda.synchronize = lambda *_: None  # galore_torch waits for a GPU after every parameter

BNB, AO = "bitsandbytes.optim", "torchao.optim"
# Name here, module and class of the reference. Of several classes for one name, the first is the name's.
CLASSES = [
    *((name, "torch.optim", cls) for name, cls in {
        "adadelta": "Adadelta", "adafactor_torch": "Adafactor", "adagrad": "Adagrad", "adam": "Adam",
        "adamax": "Adamax", "adamw_torch": "AdamW", "asgd": "ASGD", "muon": "Muon", "nadam": "NAdam",
        "radam": "RAdam", "rmsprop": "RMSprop", "rprop": "Rprop", "sgd": "SGD"}.items()),
    ("adafactor", "transformers.optimization", "Adafactor"),
    *((name, BNB, cls) for name, cls in (
        ("bnb_adam_32bit", "Adam"), ("bnb_adam_32bit", "Adam32bit"), ("bnb_adam_8bit", "Adam8bit"),
        ("bnb_adamw_32bit", "AdamW"), ("bnb_adamw_32bit", "AdamW32bit"), ("adamw_bnb_8bit", "AdamW8bit"),
        ("paged_adamw_32bit", "PagedAdamW"), ("paged_adamw_32bit", "PagedAdamW32bit"),
        ("paged_adamw_8bit", "PagedAdamW8bit"),
        ("ademamix", "AdEMAMix"), ("ademamix_8bit", "AdEMAMix8bit"),
        ("paged_ademamix_32bit", "PagedAdEMAMix"), ("paged_ademamix_8bit", "PagedAdEMAMix8bit"),
        ("lion_32bit", "Lion"), ("lion_32bit", "Lion32bit"), ("lion_8bit", "Lion8bit"),
        ("paged_lion_32bit", "PagedLion"), ("paged_lion_32bit", "PagedLion32bit"),
        ("paged_lion_8bit", "PagedLion8bit"),
        ("rmsprop_bnb", "RMSprop"), ("rmsprop_bnb_32bit", "RMSprop32bit"), ("rmsprop_bnb_8bit", "RMSprop8bit"),
        ("bnb_adagrad_32bit", "Adagrad"), ("bnb_adagrad_32bit", "Adagrad32bit"), ("bnb_adagrad_8bit", "Adagrad8bit"),
        ("bnb_lamb_32bit", "LAMB"), ("bnb_lamb_32bit", "LAMB32bit"), ("bnb_lamb_8bit", "LAMB8bit"),
        ("bnb_lars_32bit", "LARS"), ("bnb_lars_32bit", "LARS32bit"), ("bnb_lars_8bit", "LARS8bit"),
        ("bnb_sgd_32bit", "SGD"), ("bnb_sgd_32bit", "SGD32bit"), ("bnb_sgd_8bit", "SGD8bit"))),
    *((name, AO, cls) for name, cls in {
        "torchao_adam8bit": "Adam8bit", "torchao_adam4bit": "Adam4bit", "torchao_adam_fp8": "AdamFp8",
        "adamw_torch_8bit": "AdamW8bit", "adamw_torch_4bit": "AdamW4bit", "torchao_adamw_fp8": "AdamWFp8"}.items()),
    *((name, "optimi", cls) for name, cls in {
        "optimi_adam": "Adam", "optimi_adamw": "AdamW", "optimi_adan": "Adan", "optimi_lion": "Lion",
        "optimi_radam": "RAdam", "optimi_ranger": "Ranger", "optimi_sgd": "SGD", "stable_adamw": "StableAdamW"}.items()),
    *((name, "flashoptim", cls) for name, cls in {
        "flash_adam": "FlashAdam", "flash_adamw": "FlashAdamW", "flash_lion": "FlashLion", "flash_sgd": "FlashSGD",
        "flash_sgdw": "FlashSGDW"}.items()),
    *((name, "schedulefree", cls) for name, cls in {
        "schedule_free_adamw": "AdamWScheduleFree", "schedule_free_radam": "RAdamScheduleFree",
        "schedule_free_sgd": "SGDScheduleFree"}.items()),
    *((name, "galore_torch", cls) for name, cls in {
        "galore_adamw": "GaLoreAdamW", "galore_adafactor": "GaLoreAdafactor",
        "galore_adamw_8bit": "GaLoreAdamW8bit"}.items()),
    ("apollo_adamw", "apollo_torch", "APOLLOAdamW"),
    ("grokadamw", "grokadamw", "GrokAdamW"),
    ("adamw_anyprecision", "llama_cookbook.policies.anyprecision_optimizer", "AnyPrecisionAdamW"),
    ("lomo", "lomo_optim", "Lomo"),
    ("adalomo", "lomo_optim", "AdaLomo"),
]  # fmt: skip
GIVEN = {"lr": 1e-3, "momentum": 0.9}  # for arguments without a default


def plain(value):
    """Python's values as JSON; floats that JSON lacks by name, types by theirs."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.Tensor):
        return plain(value.item()) if value.numel() == 1 else {"unknown": "Tensor"}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {"dict": {str(k): plain(v) for k, v in value.items()}}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return {"unknown": getattr(value, "__name__", type(value).__name__)}


def kind(value):
    if type(value) is torch.Tensor:
        return f"tensor {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def run(cls, given, shape, dtype=torch.float32):
    """The state of one parameter after two steps, by key and kind; and what the group holds more than before."""
    p = torch.nn.Parameter(torch.linspace(-1, 1, math.prod(shape)).reshape(shape).to(dtype))
    opt = cls([p], **given)
    before = dict(opt.param_groups[0])
    if hasattr(opt, "train"):
        opt.train()
    for _ in range(2):
        p.grad = torch.ones_like(p)
        opt.step()
    saved = opt.state_dict()["state"].get(0, {})
    found = {}
    for key, value in saved.items():
        if isinstance(value, dict):
            found.update({f"{key}/{inner}": kind(v) for inner, v in value.items()})
        else:
            found[key] = kind(value)
    after = opt.param_groups[0]
    return found, {
        key: kind(value) if isinstance(value, (int, float, torch.Tensor)) and not isinstance(value, bool) else plain(value)
        for key, value in after.items()
        if key not in ("params", "state") and (key not in before or plain(before[key]) != plain(value))
    }


def record(name, module, cls_name):
    cls = getattr(importlib.import_module(module), cls_name)
    arguments, given = [], {}
    for argument in list(inspect.signature(cls.__init__).parameters.values())[2:]:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue
        entry = {"name": argument.name, "keyword_only": argument.kind is argument.KEYWORD_ONLY}
        if argument.default is argument.empty:
            given[argument.name] = GIVEN[argument.name]
        else:
            entry["default"] = plain(argument.default)
        arguments.append(entry)
    new = {"name": name, "module": module, "class": cls_name, "arguments": arguments}
    if "triton" in [a["name"] for a in arguments]:
        given["triton"] = False
    if cls_name.startswith(("LARS", "SGD")) and module == BNB:
        given["momentum"] = GIVEN["momentum"]  # refused without
    if cls_name.startswith("Flash"):
        given |= {"quantize": False, "master_weight_bits": None, "fused": False}
    new["modes"] = hasattr(cls, "train") and hasattr(cls, "eval")
    if module == "lomo_optim":
        return new | {"group": {}, "state": None, "tensor_lr": False}  # takes a model, and steps inside of the backward pass
    p = torch.nn.Parameter(torch.ones(64, 128))
    group = dict(cls([p], **given).param_groups[0])
    group.pop("params")
    new["group"] = {key: plain(value) for key, value in group.items()}
    new["tensor_lr"] = isinstance(group["lr"], torch.Tensor)
    try:
        new["state"], new["counters"] = run(cls, given, (64, 128))
        if name == "grokadamw":
            new["state"] = None  # it is in a dictionary of the group
    except Exception as e:
        new["no_state"] = f"{type(e).__name__}: {e}".splitlines()[0][:200]
    return new


def main():
    page = Path(__file__).parent.parent / "python/bitstep/references.json"
    records = []
    for name, module, cls in CLASSES:
        records.append(record(name, module, cls))
        if "no_state" in records[-1]:
            print(name, cls, records[-1]["no_state"])
    lines = ",\n".join(json.dumps(r) for r in records)
    page.write_text(f"[\n{lines}\n]\n")
    print(len(records), "classes,", len({r["name"] for r in records}), "names")


main()
