"""Runs Transformers' Trainer and writes what the tests of `bitstep-trainer` and
`bitstep-candle` compare with. See README.md beside it."""

import argparse
import json
import shutil
import sys
import tempfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import optimi  # noqa: F401
import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from transformers import Trainer, TrainingArguments

assert transformers.__version__ == "5.23.0", transformers.__version__

# optimi would use its Triton kernels, which need a GPU.
sys.modules["optimi.stableadamw"]._default_to_triton = lambda params: False

# Lines of TrainingArguments; one file each, as to_json_string() writes it.
ARGUMENTS = {
    "default": {},
    "adamw_cosine": {
        "optim": "adamw_torch", "learning_rate": 1e-3, "weight_decay": 0.1, "adam_beta2": 0.95,
        "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
        "warmup_steps": 0.1, "max_steps": 200, "gradient_accumulation_steps": 4,
        "max_grad_norm": 0.5,
    },
    "adafactor_constant": {
        "optim": "adafactor", "lr_scheduler_type": "constant", "max_grad_norm": 0.0,
    },
    "sgd_optim_args": {
        "optim": "sgd", "optim_args": "momentum=0.9, nesterov=True", "learning_rate": 0.1,
        "lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0},
        "warmup_steps": 5, "max_steps": 50, "weight_decay": 0.01,
    },
    "galore_list": {
        "optim": "galore_adamw", "optim_args": "rank=8, update_proj_gap=50, scale=0.5",
        "optim_target_modules": ["attn", "mlp"], "max_steps": 100, "learning_rate": 1e-3,
        "weight_decay": 0.1,
    },
    "apollo_regex": {
        "optim": "apollo_adamw", "optim_args": "proj=random,scale_type=tensor",
        "optim_target_modules": r".*\.(q|k|v)_proj", "max_steps": 100,
    },
    "galore_all_linear": {
        "optim": "galore_adafactor", "optim_target_modules": "all-linear", "max_steps": 100,
    },
    "plateau_neftune": {
        "optim": "stable_adamw", "lr_scheduler_type": "reduce_lr_on_plateau",
        "lr_scheduler_kwargs": {"factor": 0.5, "patience": 2}, "eval_strategy": "steps",
        "neftune_noise_alpha": 5.0,
    },
    "schedule_free": {
        "optim": "schedule_free_adamw", "lr_scheduler_type": "constant", "warmup_steps": 10,
        "max_steps": 100, "learning_rate": 0.02,
    },
}

# Runs that are saved and resumed.
RUNS = {
    "adamw_torch": {"weight_decay": 0.1},
    "adafactor": {"weight_decay": 0.01, "learning_rate": 5e-3},
    "sgd": {"optim_args": "momentum=0.9", "learning_rate": 0.05, "weight_decay": 0.01},
    "stable_adamw": {"weight_decay": 0.1},
    "schedule_free_adamw": {"weight_decay": 0.1, "lr_scheduler_type": "constant"},
    "schedule_free_sgd": {"learning_rate": 0.05, "lr_scheduler_type": "constant"},
}
BEFORE, AFTER = 10, 20


class Model(nn.Module):
    """Small, with everything that the groups tell apart."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.down = nn.Linear(8, 3, bias=False)

    def forward(self, x, labels):
        logits = self.down(torch.tanh(self.norm(self.up(x))))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Data(torch.utils.data.Dataset):
    def __init__(self):
        g = torch.Generator().manual_seed(5)
        self.x = torch.randn(64, 6, generator=g)
        self.y = torch.randint(0, 3, (64,), generator=g)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "labels": self.y[i]}


def arguments(out: Path, **more) -> TrainingArguments:
    return TrainingArguments(output_dir="out", use_cpu=True, report_to=[], **more)


class Recorder(transformers.TrainerCallback):
    """The raw gradients of each step, the rate in force, and the parameters after it."""

    def __init__(self):
        self.grads, self.values, self.lrs = [], [], []

    def on_pre_optimizer_step(self, args, state, control, model=None, optimizer=None, **kw):
        self.lrs.append([g["lr"] for g in optimizer.param_groups])

    def on_step_end(self, args, state, control, model=None, **kw):
        self.values.append({n: p.detach().clone() for n, p in model.named_parameters()})


class RecordingTrainer(Trainer):
    """Takes note of the gradients before they are clipped."""

    recorder: Recorder

    def _clip_grad_norm(self, model):
        self.recorder.grads.append({n: p.grad.clone() for n, p in model.named_parameters()})
        return super()._clip_grad_norm(model)


def trainer(folder: Path, optim: str, more: dict, steps: int) -> RecordingTrainer:
    torch.manual_seed(1)
    args = {
        "optim": optim, "learning_rate": 2e-3, "lr_scheduler_type": "cosine", "warmup_steps": 4,
        "max_steps": steps, "per_device_train_batch_size": 8, "max_grad_norm": 0.5, **more,
    }
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True,
        logging_strategy="no", save_strategy="steps", save_steps=BEFORE, **args,
    )
    out = RecordingTrainer(model=Model(), args=args, train_dataset=Data())
    out.recorder = Recorder()
    out.add_callback(out.recorder)
    return out


def run(out: Path, name: str, more: dict) -> None:
    """One uninterrupted run of BEFORE + AFTER steps that leaves a checkpoint at BEFORE."""
    with tempfile.TemporaryDirectory() as tmp:
        t = trainer(Path(tmp), name, more, BEFORE + AFTER)
        t.train()
        r = t.recorder
        assert len(r.values) == BEFORE + AFTER == len(r.grads)
        at = Path(tmp) / f"checkpoint-{BEFORE}"
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in ["optimizer.pt", "scheduler.pt", "model.safetensors"]:
            shutil.copy(at / file, folder / file)
        text = t.args.to_json_string().replace(tmp, "out")
        (folder / "training_args.json").write_text(text + "\n")
        tensors = {"lr": torch.tensor(r.lrs[BEFORE:], dtype=torch.float64)}
        for p, _ in t.model.named_parameters():
            for what, rows in [("grad", r.grads), ("value", r.values)]:
                tensors[f"{p}.{what}"] = torch.stack([row[p] for row in rows[BEFORE:]])
            tensors[f"{p}.init"] = r.values[BEFORE - 1][p].clone()
        order = json.dumps([p for p, _ in t.model.named_parameters()])
        save_file(tensors, folder / "continuation.safetensors", {"order": order})


def decay(out: Path) -> None:
    """Which parameters of real models Trainer lets decay, and which layers are linear."""
    from transformers import AutoConfig, AutoModel

    small = {
        "gpt2": {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 11, "n_positions": 7},
        "llama": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                  "num_key_value_heads": 1, "intermediate_size": 12, "vocab_size": 11},
        "bert": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                 "intermediate_size": 12, "vocab_size": 11},
        "t5": {"d_model": 8, "num_layers": 1, "num_heads": 2, "d_ff": 12, "vocab_size": 11,
               "d_kv": 4},
    }
    all_models = {}
    for kind, config in small.items():
        model = AutoModel.from_config(AutoConfig.for_model(kind, **config))
        t = Trainer(model=model, args=arguments(out))
        names = set(t.get_decay_parameter_names(model))
        linear = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        norms = {f"{n}.{p}" for n, m in model.named_modules() if isinstance(m, nn.LayerNorm)
                 for p, _ in m.named_parameters()}
        all_models[kind] = [
            {"name": n, "shape": list(p.shape), "decays": n in names, "linear": n in linear,
             "norm": n in norms}
            for n, p in model.named_parameters()
        ]
    (out / "decay.json").write_text(json.dumps(all_models, indent=1) + "\n")


def plain(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))


def groups(out: Path) -> None:
    """The groups and the rates of a few steps that Trainer makes of the files above."""
    answers = {}
    for name, args in ARGUMENTS.items():
        steps = args.get("max_steps", 30)
        model = nn.Module()
        model.attn = nn.Module()
        model.attn.q_proj = nn.Linear(8, 8)
        model.attn.k_proj = nn.Linear(8, 8)
        model.mlp = nn.Linear(8, 8)
        model.norm = nn.LayerNorm(8)
        model.embed = nn.Embedding(5, 8)
        try:
            t = Trainer(model=model, args=arguments(out, **args))
        except Exception as e:  # an evaluation strategy wants a data set
            t = Trainer(model=model, args=arguments(out, **args), eval_dataset=Data())
        optimizer = t.create_optimizer()
        if hasattr(optimizer, "train"):
            optimizer.train()
        scheduler = t.create_scheduler(steps, optimizer)
        of = {id(p): n for n, p in model.named_parameters()}
        hyper = [
            {k: v for k, v in g.items() if k not in ("params", "lr", "initial_lr") and plain(v)}
            for g in optimizer.param_groups
        ]
        lrs = [[g["lr"] for g in optimizer.param_groups]]
        for _ in range(min(steps, 12)):
            if args.get("lr_scheduler_type") != "reduce_lr_on_plateau":
                optimizer.step()
                scheduler.step()
                lrs.append([g["lr"] for g in optimizer.param_groups])
        answers[name] = {
            "steps": steps,
            "groups": [[of[id(p)] for p in g["params"]] for g in optimizer.param_groups],
            "weight_decay": [g["weight_decay"] for g in optimizer.param_groups],
            "lr": lrs,
            "hyper": hyper,
        }
        text = t.args.to_json_string()
        (out / "arguments" / f"{name}.json").write_text(text + "\n")
    (out / "groups.json").write_text(json.dumps(answers, indent=1) + "\n")


def saved(out: Path) -> None:
    """What torch.save makes of all kinds of values, and of rates that are numpy's."""
    three = torch.arange(3)
    values = {
        "none": None, "true": True, "byte": 200, "long": 2**40, "least": -(2**63), "wide": 2**70,
        "float": 0.1, "text": "é", "bytes": b"\x00\xff", "tuple": (1, [2]), "set": {7},
        "ordered": OrderedDict(b=2, a=1), "default": defaultdict(dict, {3: {}}),
        "size": torch.Size([1, 2]), "device": torch.device("cpu"), "dtype": torch.float32,
        "numpy_f64": np.float64(0.1), "numpy_f32": np.float32(2.5), "numpy_f16": np.float16(0.5),
        "numpy_i64": np.int64(-7), "numpy_u8": np.uint8(250), "numpy_bool": np.bool_(True),
        "array": np.ones(3), "sparse": torch.ones(2).to_sparse(),
        "complex": torch.ones(2, dtype=torch.complex128),
        "f64": three.double(), "f32": three.float(), "f16": three.half(), "bf16": three.bfloat16(),
        "i64": three, "i32": three.int(), "i16": three.short(), "i8": three.char(),
        "u8": three.byte(), "u16": three.to(torch.uint16), "bool": torch.tensor([True, False]),
        "f8": torch.ones(2).to(torch.float8_e4m3fn), "parameter": nn.Parameter(torch.ones(2)),
        "scalar": torch.tensor(5.0), "empty": torch.zeros(0, 4),
        "transposed": torch.arange(6.0).reshape(2, 3).T, "part": torch.arange(6.0)[2:4],
        "expanded": torch.tensor([9.0]).expand(3),
    }
    out.mkdir(parents=True, exist_ok=True)
    torch.save(values, out / "values.pt")
    torch.save({"lr": 0.1}, out / "old.pt", _use_new_zipfile_serialization=False)
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter], lr=np.float64(1e-3))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    torch.save(optimizer.state_dict(), out / "numpy_rate.pt")
    torch.save(schedule.state_dict(), out / "numpy_schedule.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "fixtures")
    out = parser.parse_args().out
    (out / "arguments").mkdir(parents=True, exist_ok=True)
    groups(out)
    decay(out)
    saved(out / "torch")
    for name, more in RUNS.items():
        run(out / "resume", name, more)


if __name__ == "__main__":
    main()
