"""Runs Trainer of the installed version of Transformers on many settings and writes the results, or the
errors, to ../fixtures/settings/trainer-VERSION.json.
See README.md beside it."""

import argparse
import json
import logging
import math
import sys
import tempfile
import types
import warnings
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import Trainer, TrainingArguments

VERSION = transformers.__version__
assert VERSION in ("4.49.0", "4.57.6", "5.23.0"), VERSION
V5 = VERSION.startswith("5")
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

# What can't be installed beside it: the classes that Trainer imports, from where they are.
from llama_cookbook.policies.anyprecision_optimizer import AnyPrecisionAdamW  # noqa: E402

sys.modules["torchdistx"] = types.ModuleType("torchdistx")
sys.modules["torchdistx.optimizers"] = types.ModuleType("torchdistx.optimizers")
sys.modules["torchdistx.optimizers"].AnyPrecisionAdamW = AnyPrecisionAdamW
import optimi  # noqa: E402,F401
import torchao.optim  # noqa: E402

# The path in which 4.49 looks for it.
sys.modules["torchao.prototype.low_bit_optim"] = torchao.optim

# optimi would use its Triton kernels, which need a GPU.
sys.modules["optimi.stableadamw"]._default_to_triton = lambda params: False

STEPS = 4
FOLDER = tempfile.mkdtemp()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.down = nn.Linear(8, 3, bias=False)

    def forward(self, x, labels=None):
        logits = self.down(torch.tanh(self.norm(self.up(x))))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        g = torch.Generator().manual_seed(i)
        return {"x": torch.randn(6, generator=g), "labels": torch.tensor(i % 3)}


class Recorder(transformers.TrainerCallback):
    def __init__(self, trainer, lrs):
        self.trainer, self.lrs = trainer, lrs

    def on_pre_optimizer_step(self, args, state, control, **kw):
        self.lrs.append([group["lr"] for group in self.trainer.optimizer.param_groups])


def number(x):
    """JSON has neither infinity nor NaN."""
    if isinstance(x, float) and not math.isfinite(x):
        return str(x)
    if isinstance(x, torch.dtype):
        return str(x).removeprefix("torch.")
    if isinstance(x, (list, tuple)):
        return [number(v) for v in x]
    return x


def plain(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str, torch.dtype))


def hyper(group: dict) -> dict:
    skip = ("params", "initial_lr", "foreach", "capturable", "differentiable", "maximize")
    return {k: number(v) for k, v in group.items() if k not in skip and plain(v)}


def run(what: str, text: str) -> dict:
    """A training of a few steps, as far as it comes; the whole of `train` where that may count."""
    stage, out, clips = "arguments", {}, []
    torch.manual_seed(0)
    try:
        args = json.loads(text)
        args.setdefault("max_steps", STEPS)
        args = TrainingArguments(
            output_dir=FOLDER, use_cpu=True, report_to=[], disable_tqdm=True,
            logging_strategy="no", save_strategy="no", per_device_train_batch_size=2, **args,
        )
        data, model, lrs = Data(), Model(), []
        if what in ("null", "floats"):
            stage = "trainer"
            t = Trainer(model=model, args=args, train_dataset=data, eval_dataset=data)
            t.add_callback(Recorder(t, lrs))
            make = t.create_scheduler

            def create_scheduler(*a, **kw):
                nonlocal stage
                # Before the first step, while the arguments are unchanged.
                out["hyper"] = [hyper(g) for g in t.optimizer.param_groups]
                stage = "scheduler"
                made = make(*a, **kw)
                stage = "train"
                return made

            t.create_scheduler = create_scheduler
            clip = t.accelerator.clip_grad_norm_

            def clip_grad_norm_(parameters, max_norm, *a, **kw):
                clips.append(max_norm)
                return clip(parameters, max_norm, *a, **kw)

            t.accelerator.clip_grad_norm_ = clip_grad_norm_
            t.train()
            out["clip"] = number(clips[0]) if clips else None
            out["steps"] = t.state.global_step
            out["accumulation"] = t.args.gradient_accumulation_steps
        else:
            # Trainer's optimizer and schedule in a loop of our own, ten times as fast.
            stage = "trainer"
            t = Trainer.__new__(Trainer)
            t.args, t.model, t.model_wrapped = args, model, model
            t.optimizer = t.lr_scheduler = t.optimizer_cls_and_kwargs = None
            t.is_deepspeed_enabled = t.is_fsdp_enabled = False
            t.create_optimizer()
            optimizer = t.optimizer
            out["hyper"] = [hyper(g) for g in optimizer.param_groups]
            stage = "scheduler"
            scheduler = t.create_scheduler(args.max_steps)
            stage = "train"
            if hasattr(optimizer, "train"):
                optimizer.train()
            batch = [data[0], data[1]]
            x = torch.stack([b["x"] for b in batch])
            y = torch.stack([b["labels"] for b in batch])
            metric = args.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy")
            for _ in range(args.max_steps):
                model(x, y)["loss"].backward()
                lrs.append([g["lr"] for g in optimizer.param_groups])
                optimizer.step()
                optimizer.zero_grad()
                if not metric:
                    scheduler.step()
        out["lrs"] = [[number(float(lr)) for lr in row] for row in lrs]
        return out
    except Exception as e:
        return {**out, "raises": stage, "error": f"{type(e).__name__}: {str(e)[:60]}"}


def case(**args) -> str:
    return json.dumps(args)


def cases():
    sgd = {"optim": "sgd", "learning_rate": 0.5}
    # 7. Warm-up.
    for schedule in ["linear", "constant_with_warmup", "cosine", "polynomial", "inverse_sqrt"]:
        for warm in [{}, {"warmup_steps": 2}, {"warmup_steps": 0.25}, {"warmup_steps": 1.0},
                     {"warmup_steps": 2.5}, {"warmup_steps": 0.3}, {"warmup_ratio": 0.25},
                     {"warmup_ratio": 0.3}, {"warmup_ratio": 1.0}, {"warmup_ratio": 1},
                     {"warmup_steps": 4}]:
            yield "warmup", case(**sgd, lr_scheduler_type=schedule, **warm)
    for warm in [{"warmup_steps": -1}, {"warmup_steps": -0.25}, {"warmup_ratio": -0.25},
                 {"warmup_ratio": 1.5}, {"warmup_steps": 6}, {"warmup_steps": True},
                 {"warmup_steps": 1, "warmup_ratio": 0.5}, {"warmup_steps": 0.25,
                 "warmup_ratio": 0.5}, {"warmup_steps": "2"}, {"warmup_ratio": "0.5"},
                 {"warmup_steps": math.nan}, {"warmup_steps": math.inf},
                 {"warmup_ratio": math.nan}, {"warmup_ratio": math.inf}]:
        yield "warmup", case(**sgd, **warm)
    for optim in ["schedule_free_adamw", "schedule_free_sgd", "schedule_free_radam"]:
        for warm in [{}, {"warmup_steps": 2}, {"warmup_steps": 0.2}, {"warmup_ratio": 0.2},
                     {"warmup_steps": 2.5}, {"warmup_ratio": 1.0}]:
            yield "warmup", case(optim=optim, learning_rate=0.5, lr_scheduler_type="constant", **warm)
    # 8. null, for every key that is read.
    keys = ["optim", "optim_args", "optim_target_modules", "learning_rate", "weight_decay",
            "adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_type",
            "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio", "max_steps", "max_grad_norm",
            "gradient_accumulation_steps", "fp16", "neftune_noise_alpha", "num_train_epochs",
            "accelerator_config"]
    for key in keys:
        for optim in ["adamw_torch", "sgd"]:
            yield "null", json.dumps({"optim": optim, "learning_rate": 0.5, key: None})
    # 11. Names of the schedule's own arguments in lr_scheduler_kwargs, and of others.
    schedules = {
        "linear": {}, "cosine": {}, "cosine_with_restarts": {}, "polynomial": {}, "constant": {},
        "constant_with_warmup": {}, "inverse_sqrt": {}, "reduce_lr_on_plateau": {},
        "cosine_with_min_lr": {"min_lr": 0.01}, "cosine_warmup_with_min_lr": {"min_lr": 0.01},
        "warmup_stable_decay": {"num_decay_steps": 1}, "greedy": {},
    }
    names = {
        "optimizer": 1, "name": "x", "lr": 0.25, "groups": [], "initial_lr": 0.25,
        "lr_init": 0.25, "num_warmup_steps": 1, "num_training_steps": 3, "last_epoch": -1,
        "num_cycles": 0.5, "lr_end": 0.01, "power": 2.0, "timescale": 3, "min_lr": 0.02,
        "min_lr_rate": 0.1, "warmup_lr_rate": 0.1, "num_decay_steps": 2, "num_stable_steps": 1,
        "warmup_type": "linear", "decay_type": "linear", "min_lr_ratio": 0.1, "mode": "min",
        "factor": 0.5, "patience": 2, "threshold": 0.1, "threshold_mode": "abs", "cooldown": 1,
        "eps": 1e-3, "verbose": False, "warmup": 1, "max_lr": 1.0, "smooth": True,
        "window_size": 3, "reset_start": 3, "unknown": 1,
    }
    for schedule, own in schedules.items():
        more = {"eval_strategy": "steps"} if schedule in ("reduce_lr_on_plateau", "greedy") else {}
        base = {**sgd, "lr_scheduler_type": schedule, "warmup_steps": 1, **more}
        yield "kwargs", case(**base)
        for name, value in names.items():
            kwargs = {**own, name: value}
            if name == "min_lr_rate":
                kwargs.pop("min_lr", None)
            yield "kwargs", case(**base, lr_scheduler_kwargs=kwargs)
        for value in [0, 3, -2, None, "x"]:
            yield "kwargs", case(**base, lr_scheduler_kwargs={**own, "last_epoch": value})
        for value in [{}, [], "", "{}", "x", 1]:
            yield "kwargs", case(**base, lr_scheduler_kwargs=value)
    for kwargs in ['{"power": 2.0}', '{"power": "2.0"}', '{"power": "2"}', '{"power": "1e0"}',
                   '{"lr_end": "0.01", "power": "3"}', '{"power": "True"}', ' {"power": 2.0}',
                   '{"power": 2.0', '{"power": Infinity}', '{"power": "-2"}', '{"power": ".5"}']:
        yield "kwargs", case(**sgd, lr_scheduler_type="polynomial", lr_scheduler_kwargs=kwargs)
    for kwargs in [{"power": "2.0"}, {"power": "inf"}, {"power": None}, {"power": True},
                   {"power": math.inf}, {"lr_end": "nan"}, {"lr_end": -math.inf}]:
        yield "kwargs", case(**sgd, lr_scheduler_type="polynomial", lr_scheduler_kwargs=kwargs)
    for kwargs in [{"num_decay_steps": "2"}, {"num_decay_steps": 2.0},
                   {"num_decay_steps": 2, "min_lr_ratio": "0.5"},
                   '{"num_decay_steps": "2", "min_lr_ratio": "0.5", "decay_type": "linear"}']:
        yield "kwargs", case(**sgd, lr_scheduler_type="warmup_stable_decay",
                             lr_scheduler_kwargs=kwargs)
    # 17. NaN and infinities, and numbers in quotes.
    floats = ["learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
              "max_grad_norm"]
    for key in floats:
        for value in [math.inf, -math.inf, math.nan, "0.5", "inf", "1e-5", "nan", -0.5, 0, 1, True,
                      0.0, [0.5]]:
            optim = "adamw_torch" if key.startswith("adam") else "sgd"
            yield "floats", json.dumps(
                {"optim": optim, "learning_rate": 0.5, "lr_scheduler_type": "constant",
                 key: value})
    for optim in ["adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop", "adafactor",
                  "lion_32bit", "stable_adamw", "schedule_free_adamw", "grokadamw",
                  "adamw_bnb_8bit", "ademamix", "adamw_torch_8bit", "adamw_anyprecision"]:
        yield "floats", case(optim=optim, learning_rate=1e-3, lr_scheduler_type="constant",
                             weight_decay=-0.1)
    for key, values in {
        "gradient_accumulation_steps": [0, -1, 2, 2.0, 1.5, "2", True],
        "max_steps": [0, -1, 3.0, "3", True], "neftune_noise_alpha": [0, -1.0, "5"],
        "fp16": [False, 0, "no"], "optim_args": ["", {}, 3],
        "adafactor": [True, False], "optim": ["adamw_apex_fused", "adamw_hf", "x"],
        "lr_scheduler_type": ["x", "greedy", "cosine_warmup_with_min_lr"],
    }.items():
        for value in values:
            if key == "fp16" and value:
                continue
            yield "floats", json.dumps(
                {"optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant",
                 key: value})
    # 13, 17, 19. optim_args.
    booleans = ["True", "False", "true", "FALSE", "yes", "no", "YES", "y", "n", "t", "f", "on",
                "off", "1", "0", "", "2", "None"]
    numbers = ["0.5", "1", "5e-1", ".5", "5.", "+0.5", "-0.5", "inf", "nan", "Infinity", "0_5",
               "1_0", "", "True", "None", "0x1", "(0.9,0.95)", "0.9=1"]
    whole = ["4", "4.0", "1_0", "", "-1", "+4", "0", "x", "4e0", "True"]
    strings = ["std", "reverse_std", "", "x", "None"]
    per = {
        "sgd": {"momentum": numbers, "dampening": numbers, "weight_decay": numbers,
                "nesterov": booleans},
        "adagrad": {"lr_decay": numbers, "eps": numbers, "weight_decay": ["0.5", ""]},
        "rmsprop": {"momentum": numbers, "alpha": numbers, "eps": numbers, "centered": booleans,
                    "weight_decay": ["0.5", ""]},
        "stable_adamw": {"max_lr": numbers, "decouple_lr": booleans, "kahan_sum": booleans},
        "adamw_anyprecision": {
            "use_kahan_summation": booleans, "momentum_dtype": ["float32", "bfloat16", "", "x"],
            "variance_dtype": ["bfloat16", "int8"], "compensation_buffer_dtype": ["float32", ""]},
        "ademamix": {"beta1": numbers, "beta3": numbers, "alpha": numbers, "eps": numbers,
                     "t_alpha": whole, "t_beta3": whole},
        "grokadamw": {"alpha_init": numbers, "lamb": numbers, "gradient_clipping": numbers},
        "rmsprop_bnb": {"alpha": numbers, "momentum": ["0.5"], "centered": booleans,
                        "eps": ["1e-6"]},
        "adamw_torch_8bit": {"block_size": whole, "bf16_stochastic_round": booleans},
        "adamw_torch_4bit": {"block_size": ["128", ""], "bf16_stochastic_round": ["no"]},
        "schedule_free_adamw": {"weight_lr_power": numbers, "r": numbers},
        "schedule_free_sgd": {"r": numbers}, "schedule_free_radam": {"r": ["0.5", ""]},
        "galore_adamw": {"rank": whole, "update_proj_gap": whole, "scale": numbers,
                         "proj_type": strings, "unknown": ["1"]},
        "galore_adafactor": {"rank": ["4", ""], "scale": ["0.5", "x"]},
        "apollo_adamw": {"rank": whole, "update_proj_gap": whole, "scale": numbers,
                         "proj_type": strings, "proj": ["random", "svd", "x", ""],
                         "scale_type": ["channel", "tensor", "x", ""]},
        "adamw_torch": {"betas": ["(0.9,0.95)", "0.9"], "unknown": ["1"]},
        "adafactor": {"scale_parameter": ["True"]}, "lion_32bit": {"betas": ["(0.9,0.95)"]},
    }
    for optim, arguments in per.items():
        low_rank = {"optim_target_modules": ["up", "down"]} if "_ada" in optim and optim[0] in "ag" \
            and optim.startswith(("galore", "apollo")) else {}
        base = {"optim": optim, "learning_rate": 0.01, "lr_scheduler_type": "constant",
                "max_steps": 2, **low_rank}
        yield "optim_args", case(**base)
        for name, values in arguments.items():
            for value in values:
                text = f"{name}={value}"
                if name == "nesterov":
                    text = f"momentum=0.9,{text}"
                if name in ("max_lr", "decouple_lr") and optim == "stable_adamw":
                    text = f"{text},{'decouple_lr=1' if name == 'max_lr' else 'max_lr=0.5'}"
                yield "optim_args", case(**base, optim_args=text)
    for text in ["momentum", "momentum=0.9,", ",momentum=0.9", "=0.9", "momentum=", "=",
                 " momentum = 0.9 , dampening=0.5", "momentum=0.9,momentum=0.5", "mo mentum=0.9",
                 "momentum=0 .9", "momentum=0.9;dampening=0.5", "momentum=0.9\t", "\tmomentum=0.9",
                 " ", ",", "momentum=0.9,,dampening=0.5", "Momentum=0.9", "momentum==0.9"]:
        yield "optim_args", case(optim="sgd", learning_rate=0.01, lr_scheduler_type="constant",
                                 max_steps=2, optim_args=text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "fixtures" / "settings"
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    seen, lines = set(), []
    for what, text in cases():
        if text not in seen:
            seen.add(text)
            made = run(what, text)
            if what == "kwargs":
                made.pop("hyper", None)  # the optimizer is not what these are about
            if what == "optim_args":
                made.pop("lrs", None)  # nor the schedule these; both groups are alike, but for GaLore's
                made["hyper"] = made.get("hyper", [])[-1:]
            lines.append(json.dumps({"what": what, "file": text, **made}))
    head = {"version": VERSION, "steps": STEPS}
    text = json.dumps(head)[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n"
    (out / f"trainer-{VERSION}.json").write_text(text)
    # Files as this version writes them, which identify the version.
    written = {"default": {}, "infinite": {"max_grad_norm": math.inf, "learning_rate": -math.inf,
                                           "weight_decay": math.nan}}
    for name, args in written.items():
        args = TrainingArguments(output_dir="out", use_cpu=True, report_to=[], **args)
        (out / f"{name}-{VERSION}.json").write_text(clean(args) + "\n")
    args = transformers.Seq2SeqTrainingArguments(output_dir="out", use_cpu=True, report_to=[])
    (out / f"seq2seq-{VERSION}.json").write_text(clean(args) + "\n")


def clean(args: TrainingArguments) -> str:
    """Without the name of the machine."""
    if hasattr(args, "logging_dir"):
        args.logging_dir = "out/runs"
    return args.to_json_string()


if __name__ == "__main__":
    main()
