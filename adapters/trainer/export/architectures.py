"""Builds the models of every architecture of Transformers from their default configurations, on
the `meta` device, and writes their parameters: name, shape, layer type, and whether Trainer applies
weight decay. See README.md beside it."""

import importlib
import os
import re
import signal
import sys
import zlib
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
import transformers  # noqa: E402
from torch import nn  # noqa: E402
from transformers import Trainer  # noqa: E402
from transformers.models.auto import modeling_auto  # noqa: E402
from transformers.models.auto.configuration_auto import model_type_to_module_name  # noqa: E402

# Two layers of each kind are enough, where a configuration counts them.
COUNTS = ["num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers",
          "decoder_layers", "num_encoder_layers", "num_decoder_layers"]


def classes() -> dict[str, list[str]]:
    """By architecture, the models that Transformers' auto classes know."""
    found: dict[str, dict[str, None]] = {}
    for name, mapping in vars(modeling_auto).items():
        if name.startswith("MODEL_") and name.endswith("MAPPING_NAMES"):
            for kind, names in mapping.items():
                names = names if isinstance(names, (list, tuple)) else [names]
                found.setdefault(kind, {}).update(dict.fromkeys(names))
    return {kind: list(names) for kind, names in sorted(found.items())}


def shrink(config, depth: int = 0) -> None:
    for key in COUNTS:
        value = getattr(config, key, None)
        if type(value) is int:
            setattr(config, key, min(value, 2))
    if depth < 3:
        for inner in list(vars(config).values()):
            if isinstance(inner, transformers.PretrainedConfig):
                shrink(inner, depth + 1)


def build(kind: str, name: str) -> nn.Module:
    cls = getattr(transformers, name, None)
    if cls is None:
        module = f"transformers.models.{model_type_to_module_name(kind)}"
        cls = getattr(importlib.import_module(module), name)
    try:
        config = cls.config_class()
        shrink(config)
        with torch.device("meta"):
            return cls(config)
    except Exception:  # some configurations count their layers in two places
        with torch.device("meta"):
            return cls(cls.config_class())


def lines(model: nn.Module) -> list[str]:
    """One a parameter, but of modules that differ only in the numbers in their names one."""
    modules = dict(model.named_modules(remove_duplicate=False))
    names: dict[nn.Parameter, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(p, []).append(name)
    decay = set(Trainer.get_decay_parameter_names(None, model))
    kinds: dict[str, list] = {}
    for p, (name, *_) in names.items():
        module, _, leaf = name.rpartition(".")
        kinds.setdefault(module, [re.sub(r"\d+", "#", module)]).append((leaf, p.shape))
    first: dict[tuple, str] = {}
    for module, kind in kinds.items():
        first.setdefault(tuple(kind), module)
    kept, out = set(first.values()), []

    def of(name: str, kind: type) -> bool:
        module, _, leaf = name.rpartition(".")
        return leaf == "weight" and isinstance(modules[module], kind)

    for p, all_names in names.items():
        name = all_names[0]
        if name.rpartition(".")[0] not in kept:
            continue
        is_embedding = any(of(n, nn.Embedding) for n in all_names)
        kind = "L" * of(name, nn.Linear) + "E" * is_embedding + "D" * (name in decay)
        out.append(f"  {name} {'x'.join(map(str, p.shape)) or '-'} {kind or '-'}")
    return out


def give_up(*_) -> None:
    raise TimeoutError("a minute")


def main() -> None:
    transformers.logging.set_verbosity_error()
    signal.signal(signal.SIGALRM, give_up)
    text, left_out = [], {}
    for kind, models in classes().items():
        built = []
        for name in models:
            signal.alarm(60)
            try:
                built += [f" {name}", *lines(build(kind, name))]
            except Exception as e:
                left_out[f"{kind} {name}"] = f"{type(e).__name__}: {str(e).strip()[:100]}"
            signal.alarm(0)
        if built:
            text += [kind, *built]
    for name, why in left_out.items():
        print(f"left out: {name}: {why}", file=sys.stderr)
    out = Path(__file__).parent.parent / "fixtures" / "architectures"
    out.mkdir(parents=True, exist_ok=True)
    data = zlib.compress("".join(line + "\n" for line in text).encode(), 9)
    (out / f"{transformers.__version__}.zz").write_bytes(data)
    kinds = sum(not line.startswith(" ") for line in text)
    print(f"{kinds} architectures, {len(left_out)} models left out, {len(data)} bytes")


if __name__ == "__main__":
    main()
