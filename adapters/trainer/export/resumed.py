"""Lets Transformers' Trainer save a run and resume it with other arguments, and writes the fixtures of
`tests/resumed.rs` to ../fixtures/resumed. See README.md beside it."""

import argparse
import json
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import Trainer, TrainingArguments

import export

BEFORE, AFTER = 5, 3


class Wide(nn.Module):
    """With one matrix of 4096 numbers, the least that bitsandbytes keeps in 8 bits."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(64, 64, bias=False)
        self.down = nn.Linear(64, 3)

    def forward(self, x, labels):
        logits = self.down(torch.tanh(self.up(x.repeat(1, 11)[:, :64])))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Frozen(export.Model):
    def __init__(self):
        super().__init__()
        self.up.bias.requires_grad_(False)
        self.norm.weight.requires_grad_(False)


class Bf16(export.Model):
    def __init__(self):
        super().__init__()
        self.to(torch.bfloat16)

    def forward(self, x, labels):
        return super().forward(x.bfloat16(), labels)


# name: model, arguments, those that differ when resuming
LINEAR = {"lr_scheduler_type": "linear", "warmup_steps": 2, "max_steps": 20, "learning_rate": 1e-2}
PLATEAU = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 1, "max_steps": 20,
           "learning_rate": 0.5}
GREEDY = {**PLATEAU, "lr_scheduler_type": "greedy"}
RUNS = {
    "linear_other_rate": (export.Model, {"optim": "adamw_torch", **LINEAR, "weight_decay": 0.1, "adam_beta1": 0.8},
                          {"learning_rate": 1e-3, "weight_decay": 0.5, "adam_beta1": 0.9, "adam_epsilon": 1e-3}),
    "cosine_other_steps": (export.Model, {"optim": "sgd", **LINEAR, "lr_scheduler_type": "cosine"},
                           {"max_steps": 12, "warmup_steps": 4, "learning_rate": 1.0}),
    "polynomial_other_rate": (export.Model, {"optim": "sgd", **LINEAR, "lr_scheduler_type": "polynomial"},
                              {"learning_rate": 1e-3}),
    "plateau_other": (export.Model, {"optim": "sgd", **PLATEAU, "lr_scheduler_kwargs": {
        "factor": 0.5, "patience": 0, "cooldown": 1, "threshold": 0.02}},
        {"lr_scheduler_kwargs": {"factor": 0.1, "patience": 7}, "learning_rate": 1e-3}),
    "greedy_other": (export.Model, {"optim": "sgd", **GREEDY, "lr_scheduler_kwargs": {
        "factor": 0.5, "patience": 0, "smooth": True, "window_size": 3, "min_lr": 0.2, "max_lr": 2.0, "reset_start": 2,
        "threshold": 0.02}},
        {"lr_scheduler_kwargs": {"factor": 0.9, "patience": 7}, "learning_rate": 1e-3}),
    "frozen": (Frozen, {"optim": "adamw_torch", **LINEAR, "weight_decay": 0.1}, {}),
    "adagrad": (export.Model, {"optim": "adagrad", **LINEAR}, {}),
    "rmsprop": (export.Model, {"optim": "rmsprop", "optim_args": "momentum=0.5", **LINEAR}, {"optim_args": ""}),
    "stable_adamw_other_beta": (export.Model, {"optim": "stable_adamw", **LINEAR, "adam_beta1": 0.7},
                                {"adam_beta1": 0.9}),
    "schedule_free_radam": (export.Model, {"optim": "schedule_free_radam", **LINEAR, "lr_scheduler_type": "constant"},
                            {}),
    "adamw_torch_8bit": (export.Model, {"optim": "adamw_torch_8bit", **LINEAR}, {}),
    "lion_32bit": (export.Model, {"optim": "lion_32bit", **LINEAR, "adam_beta2": 0.99}, {}),
    "paged_adamw_32bit": (export.Model, {"optim": "paged_adamw_32bit", **LINEAR}, {}),
    "ademamix": (export.Model, {"optim": "ademamix", **LINEAR}, {}),
    "rmsprop_bnb": (export.Model, {"optim": "rmsprop_bnb", **LINEAR}, {}),
    "adamw_bnb_8bit": (Wide, {"optim": "adamw_bnb_8bit", **LINEAR}, {}),
    "ademamix_8bit": (Wide, {"optim": "ademamix_8bit", **LINEAR}, {}),
    "grokadamw": (export.Model, {"optim": "grokadamw", **LINEAR}, {}),
    "adafactor_bf16": (Bf16, {"optim": "adafactor", **LINEAR}, {}),
    "galore_adamw": (export.Model, {"optim": "galore_adamw", **LINEAR, "optim_target_modules": ["up"],
                                    "optim_args": "rank=2"}, {}),
    "apollo_adamw": (export.Model, {"optim": "apollo_adamw", **LINEAR, "optim_target_modules": ["up"],
                                    "optim_args": "rank=2"}, {}),
}


class Recorder(export.Recorder):
    """Also the metrics that a schedule is handed, and whatever is in force after them."""

    def __init__(self):
        super().__init__()
        self.metrics = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kw):
        # torchao's is a tensor that is written in place.
        self.lrs.append([float(g["lr"]) for g in optimizer.param_groups])

    def on_evaluate(self, args, state, control, metrics=None, **kw):
        self.metrics.append(metrics["eval_loss"])


class RecordingTrainer(Trainer):
    recorder: Recorder

    def _clip_grad_norm(self, model):
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.recorder.grads.append({n: p.grad.clone() for n, p in named.items()})
        return super()._clip_grad_norm(model)


def trainer(folder, model, more):
    torch.manual_seed(1)
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no",
        save_strategy="steps", save_steps=BEFORE, per_device_train_batch_size=8, max_grad_norm=0.5, **more,
    )
    data = export.Data()
    made = RecordingTrainer(model=model(), args=args, train_dataset=data, eval_dataset=data)
    made.recorder = Recorder()
    made.add_callback(made.recorder)
    made.add_callback(Stop())
    return made


class Stop(export.transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **kw):
        control.should_training_stop = state.global_step >= BEFORE + AFTER


def run(out, name, model, first, other):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as tmp:
        trainer(tmp, model, first).train()
        at = Path(tmp) / f"checkpoint-{BEFORE}"
        for file in ["optimizer.pt", "scheduler.pt"]:
            shutil.copy(at / file, folder / file)
        t = trainer(tmp, model, first | other)
        text = t.args.to_json_string().replace(tmp, "out")
        (folder / "training_args.json").write_text(text + "\n")
        names = [n for n, _ in t.model.named_parameters()]
        metadata = {"order": json.dumps(names)}
        try:
            t.train(resume_from_checkpoint=str(at))
        except Exception as e:
            # State that Trainer itself can't load.
            save_file({}, folder / "continuation.safetensors", metadata | {"refused": str(e)[:200]})
            return print(f"{name}: {type(e).__name__}")
        r = t.recorder
        assert len(r.values) == AFTER == len(r.grads), (name, len(r.values), len(r.grads))
        from safetensors.torch import load_file
        init = load_file(at / "model.safetensors")
        last = [g["lr"] for g in t.optimizer.param_groups]
        lrs = [*r.lrs, last]
        tensors = {"lr": torch.tensor([[float(x) for x in row] for row in lrs], dtype=torch.float64)}
        if first["lr_scheduler_type"] in ("reduce_lr_on_plateau", "greedy"):
            tensors["metric"] = torch.tensor(r.metrics, dtype=torch.float64)
        for n, p in t.model.named_parameters():
            tensors[f"{n}.init"] = init[n]
            if p.requires_grad:
                tensors[f"{n}.grad"] = torch.stack([row[n] for row in r.grads])
                tensors[f"{n}.value"] = torch.stack([row[n] for row in r.values])
        save_file(tensors, folder / "continuation.safetensors", metadata)
        print(name, lrs)


def scaler(out):
    """A loss scale that was saved, and what torch makes of it step by step: 1 for a good one, 0 for a skipped one."""
    first = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=7)
    first.scale(torch.ones(1))
    for _ in range(5):
        first._growth_tracker += 1
    (out / "scaler").mkdir(parents=True, exist_ok=True)
    torch.save(first.state_dict(), out / "scaler" / "scaler.pt")
    torch.save(torch.amp.GradScaler("cpu", enabled=False).state_dict(), out / "scaler" / "disabled.pt")
    other = torch.amp.GradScaler("cpu")
    other.load_state_dict(torch.load(out / "scaler" / "scaler.pt", weights_only=True))
    steps, rows = [1, 1, 1, 0, 1] + [1] * 8, []
    p = nn.Parameter(torch.ones(1))
    opt = torch.optim.SGD([p], lr=0.0)
    rows.append([other.get_scale(), other._get_growth_tracker()])
    for good in steps:
        p.grad = None
        loss = other.scale((p * (1.0 if good else float("inf"))).sum())
        loss.backward()
        other.step(opt)
        other.update()
        rows.append([other.get_scale(), other._get_growth_tracker()])
    (out / "scaler" / "scale.json").write_text(json.dumps({"good": steps, "rows": rows}) + "\n")


def numpy_rates(out):
    """A schedule whose rates are numpy's scalars, as `learning_rate=np.float64(…)` makes them."""
    (out / "numpy_rates").mkdir(parents=True, exist_ok=True)
    opt = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=np.float64(0.1), momentum=np.float32(0.5))
    s = export.transformers.get_linear_schedule_with_warmup(opt, 2, 10)
    for _ in range(5):
        opt.param_groups[0]["params"][0].grad = torch.ones(2)
        opt.step()
        s.step()
    torch.save(opt.state_dict(), out / "numpy_rates" / "optimizer.pt")
    torch.save(s.state_dict(), out / "numpy_rates" / "scheduler.pt")
    print("numpy", s.state_dict(), opt.state_dict()["param_groups"])


# torch's schedules: the arguments of the saved one, and those when resuming.
OWN = {
    "torch_constant": ({"factor": 0.25, "total_iters": 7}, {"factor": 0.5, "total_iters": 3}),
    "torch_linear": ({"start_factor": 0.25, "total_iters": 8}, {"start_factor": 0.5, "total_iters": 6}),
    "torch_exponential": ({"gamma": 0.9}, {"gamma": 0.5}),
    "torch_step": ({"step_size": 3, "gamma": 0.5}, {"step_size": 2, "gamma": 0.1}),
    "torch_multi_step": ({"milestones": [2, 7, 7, 9], "gamma": 0.5}, {"milestones": [6], "gamma": 0.1}),
    "torch_polynomial": ({"total_iters": 12, "power": 2.0}, {"total_iters": 7, "power": 1.0}),
    "torch_cosine_annealing": ({"T_max": 12, "eta_min": 0.01}, {"T_max": 7, "eta_min": 0.0}),
    "torch_cosine_annealing_warm_restarts": ({"T_0": 3, "T_mult": 2, "eta_min": 0.01}, {"T_0": 4}),
    "torch_cyclic": ({"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 4, "mode": "exp_range", "gamma": 0.9},
                     {"base_lr": 0.02, "max_lr": 0.1, "step_size_up": 4}),
}


def own_schedules(out):
    from momentum import CLASSES

    (out / "own").mkdir(parents=True, exist_ok=True)
    rows = {}
    for name, (first, other) in OWN.items():
        make = lambda args, lr: (opt := torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr, momentum=0.9),
                                 CLASSES[name](opt, **args))
        opt, s = make(first, 0.5)
        for _ in range(5):
            opt.step()
            s.step()
        torch.save(s.state_dict(), out / "own" / f"{name}.pt")
        again, resumed = make(other, 0.1)
        again.load_state_dict(opt.state_dict())
        resumed.load_state_dict(torch.load(out / "own" / f"{name}.pt", weights_only=False))
        lrs, momenta = [again.param_groups[0]["lr"]], [again.param_groups[0]["momentum"]]
        for _ in range(6):
            again.step()
            resumed.step()
            lrs.append(again.param_groups[0]["lr"])
            momenta.append(again.param_groups[0]["momentum"])
        rows[name] = {"other": other, "lr": lrs, "momentum": momenta}
    lines = ",\n".join(f'"{name}": {json.dumps(row)}' for name, row in rows.items())
    (out / "own" / "rates.json").write_text(f"{{\n{lines}\n}}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "fixtures" / "resumed")
    parser.add_argument("only", nargs="*")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if not args.only:
        scaler(args.out)
        numpy_rates(args.out)
        own_schedules(args.out)
    for name, (model, first, other) in RUNS.items():
        if not args.only or name in args.only:
            run(args.out, name, model, first, other)


if __name__ == "__main__":
    main()
