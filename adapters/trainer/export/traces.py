"""Records small runs of Transformers' Trainer, step by step, for `bitstep-candle`'s test `traces`.

Each run is a file in `../fixtures/traces`. See README.md beside this."""

import argparse
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path

# Kernels without fused multiply-add, whose square root is correctly rounded.
os.environ["ATEN_CPU_CAPABILITY"] = "default"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys  # noqa: E402

import optimi  # noqa: E402, F401
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402
from transformers import Trainer, TrainingArguments  # noqa: E402
from transformers.trainer_pt_utils import (  # noqa: E402
    LayerWiseDummyOptimizer,
    LayerWiseDummyScheduler,
)

VERSION = transformers.__version__
STEPS = 12

# optimi would use its Triton kernels, which need a GPU; AdaLomo moves a tensor to one.
sys.modules["optimi.stableadamw"]._default_to_triton = lambda params: False
torch.Tensor.cuda = lambda self, *a, **kw: self
# This dummy scheduler reports the rates of all parameters for logging, with one group. torch now refuses
# that; the reported rates do not affect the updates.
reported = LayerWiseDummyScheduler.get_lr
LayerWiseDummyScheduler.get_lr = lambda self: reported(self)[:1]


class Model(nn.Module):
    """Small, with everything that the groups tell apart."""

    def __init__(self, words=7, width=3):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.up = nn.Linear(width, 4)
        self.norm = nn.LayerNorm(4)
        self.down = nn.Linear(4, 3, bias=False)

    def forward(self, ids, labels):
        x = self.embed(ids).mean(1)
        logits = self.down(torch.tanh(self.norm(self.up(x))))
        return {"loss": nn.functional.cross_entropy(logits.float(), labels)}


class Tagger(nn.Module):
    """Takes `num_items_in_batch`, as Transformers' own models do."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.up = nn.Linear(3, 7)

    def forward(self, ids, labels, num_items_in_batch=None, **kwargs):
        logits = self.up(torch.tanh(self.embed(ids))).flatten(0, 1)
        how = "mean" if num_items_in_batch is None else "sum"
        loss = nn.functional.cross_entropy(logits, labels.flatten(), reduction=how)
        return {"loss": loss if num_items_in_batch is None else loss / num_items_in_batch}


class Data(torch.utils.data.Dataset):
    """`samples` rows of five words and a class."""

    def __init__(self, samples=48, words=7):
        g = torch.Generator().manual_seed(5)
        self.ids = torch.randint(0, words, (samples, 5), generator=g)
        self.labels = torch.randint(0, 3, (samples,), generator=g)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"ids": self.ids[i], "labels": self.labels[i]}


class Tags(torch.utils.data.Dataset):
    """Batches of 4 rows of 12 words, with 31, 37, 30 and 35 labels in turn."""

    counts = [31, 37, 30, 35]

    def __init__(self, samples=48):
        g = torch.Generator().manual_seed(6)
        self.ids = torch.randint(0, 7, (samples, 12), generator=g)
        self.labels = torch.randint(0, 7, (samples, 12), generator=g)
        for batch in range(samples // 4):
            rows = self.labels[4 * batch:4 * batch + 4].flatten()
            rows[self.counts[batch % 4]:] = -100
            self.labels[4 * batch:4 * batch + 4] = rows.reshape(4, 12)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"ids": self.ids[i], "labels": self.labels[i]}


class Recorder(transformers.TrainerCallback):
    """The rates in force when a step begins, and the parameters when it ends."""

    def __init__(self, trainer):
        self.trainer, self.lrs, self.values = trainer, [], []
        self.windows, self.metrics = [], []

    def on_step_begin(self, args, state, control, **kw):
        self.lrs.append([float(lr) for lr in rates(self.trainer)])
        self.windows.append(0)
        self.metrics.append([])

    def on_step_end(self, args, state, control, model=None, **kw):
        self.values.append({n: p.detach().clone() for n, p in model.named_parameters()})


def rates(trainer):
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    if not isinstance(optimizer, LayerWiseDummyOptimizer):
        return [g["lr"] for g in optimizer.param_groups]
    # An optimizer for each parameter: a group of those that are projected, one of the others.
    groups = [o.param_groups[0] for o in optimizer.optimizer_dict.values()]
    first = lambda projected: next(g["lr"] for g in groups if ("rank" in g) == projected)
    return [first(False), first(True)]


class RecordingTrainer(Trainer):
    """Takes note of each micro-batch's gradients before anything is done with them."""

    metrics = None

    def record(self):
        self.recorder = Recorder(self)
        self.add_callback(self.recorder)
        self.grads = []
        for name, p in self.model.named_parameters():
            p.register_hook(functools.partial(self.take, name))

    def take(self, name, grad):
        if self.weighted is None:
            # The loss has been divided by the window, a power of two, so exactly.
            grad = grad * self.window
        else:
            grad = self.weighted[name]
        self.grads[-1][name] = grad.clone()

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.window = getattr(self, "current_gradient_accumulation_steps",
                              self.args.gradient_accumulation_steps)
        self.weighted = None
        self.grads.append({})
        self.recorder.windows[-1] += 1
        if num_items_in_batch is not None:
            names, ps = zip(*model.named_parameters())
            loss = model(**inputs)["loss"]
            hooks = [p._backward_hooks for p in ps]
            for p in ps:
                p._backward_hooks = None
            self.weighted = dict(zip(names, torch.autograd.grad(loss, ps)))
            for p, h in zip(ps, hooks):
                p._backward_hooks = h
        else:
            assert self.window & (self.window - 1) == 0
        return super().training_step(model, inputs, num_items_in_batch)

    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def evaluate(self, *args, **kw):
        # At the end of an epoch Trainer evaluates a second time.
        metric = self.metrics[self.state.global_step - 1]
        self.recorder.metrics[-1].append(metric)
        return {"eval_loss": metric}


# An optimizer's arguments, and what else a run is made of: `dtype`, `samples`, `steps`, `metrics`,
# `resume` (the step at which it is saved and resumed), `model`, `only` (versions).
LINEAR = {"lr_scheduler_type": "linear", "learning_rate": 1e-2, "max_steps": STEPS}
RUNS = {}


def add(name, only=("5.23.0",), **run):
    more = {k: run.pop(k) for k in
            ("dtype", "samples", "metrics", "resume", "model", "words", "width", "batch", "seed")
            if k in run}
    for version in only:
        RUNS[f"{name}@{version}"] = (version, {**LINEAR, **run}, more)


TARGETS = {"optim_target_modules": ["up", "down"]}
# Every schedule.
add("constant", lr_scheduler_type="constant", optim="adamw_torch")
add("constant_with_warmup", lr_scheduler_type="constant_with_warmup", warmup_steps=5,
    optim="adamw_torch")
add("linear", warmup_steps=0.25, optim="adamw_torch", weight_decay=0.1)
add("cosine", lr_scheduler_type="cosine", warmup_steps=3, optim="adamw_torch_fused",
    weight_decay=0.1)
add("cosine_num_cycles", lr_scheduler_type="cosine", lr_scheduler_kwargs={"num_cycles": 1.3},
    optim="sgd")
add("cosine_with_restarts", lr_scheduler_type="cosine_with_restarts", warmup_steps=2,
    lr_scheduler_kwargs={"num_cycles": 3}, optim="adamw_torch")
add("polynomial", lr_scheduler_type="polynomial", warmup_steps=2,
    lr_scheduler_kwargs={"power": 2.5, "lr_end": 1e-4}, optim="adamw_torch")
add("inverse_sqrt", lr_scheduler_type="inverse_sqrt", warmup_steps=4, optim="adamw_torch")
add("inverse_sqrt_timescale", lr_scheduler_type="inverse_sqrt",
    lr_scheduler_kwargs={"timescale": 7}, optim="sgd")
add("cosine_with_min_lr", lr_scheduler_type="cosine_with_min_lr", warmup_steps=2,
    lr_scheduler_kwargs={"min_lr": 1e-3}, optim="adamw_torch")
add("cosine_warmup_with_min_lr", lr_scheduler_type="cosine_warmup_with_min_lr", warmup_steps=3,
    lr_scheduler_kwargs={"min_lr_rate": 0.1, "warmup_lr_rate": 0.05}, optim="adamw_torch")
add("warmup_stable_decay", lr_scheduler_type="warmup_stable_decay", warmup_steps=3,
    lr_scheduler_kwargs={"num_decay_steps": 5, "min_lr_ratio": 0.1, "decay_type": "1-sqrt"},
    optim="adamw_torch")
add("reduce_lr_on_plateau", lr_scheduler_type="reduce_lr_on_plateau", optim="adamw_torch",
    lr_scheduler_kwargs={"factor": 0.5, "patience": 1}, eval_strategy="steps", eval_steps=1,
    metrics=[3, 2, 2.5, 2.5, 2.5, 1.9, 2, 2, 2, 2, 2, 1])
add("greedy", lr_scheduler_type="greedy", optim="adamw_torch",
    lr_scheduler_kwargs={"factor": 0.9, "patience": 1, "min_lr": 1e-3, "max_lr": 2e-2},
    eval_strategy="steps", eval_steps=1,
    metrics=[3, 2, 2.5, 2.5, 2.5, 1.9, 1.8, 1.7, 1.6, 1.5, 2, 2])

# Clipping, accumulation and windows that end with an epoch.
add("clipped", max_grad_norm=0.05, optim="adamw_torch", weight_decay=0.1)
add("clipped_bf16", max_grad_norm=0.05, optim="adamw_torch", dtype="bfloat16")
add("not_clipped", max_grad_norm=0.0, optim="sgd", optim_args="momentum=0.9")
add("accumulated", gradient_accumulation_steps=4, max_grad_norm=0.1, optim="adamw_torch")
add("accumulated_bf16", gradient_accumulation_steps=2, optim="adamw_torch", dtype="bfloat16")
# 10 batches an epoch: windows of 4, 4, 2.
add("short_windows", gradient_accumulation_steps=4, max_grad_norm=0.1, optim="sgd",
    optim_args="momentum=0.9", samples=40)
add("num_steps", optim="adamw_torch",
    accelerator_config={"gradient_accumulation_kwargs": {"num_steps": 4}})
add("labels", gradient_accumulation_steps=4, model="tagger", optim="adamw_torch", batch=4)
add("labels_lomo", gradient_accumulation_steps=4, model="tagger", optim="lomo", batch=4)

# Optimizers that free gradients before they could be clipped.
for optim in ["lomo", "adalomo"]:
    add(optim, optim=optim, max_grad_norm=0.01, warmup_steps=2)
    add(f"{optim}_accumulated", optim=optim, gradient_accumulation_steps=2, max_grad_norm=0.01)
for optim, gap in [("galore_adamw_layerwise", 50), ("apollo_adamw_layerwise", 5)]:
    add(optim, only=["5.23.0", "4.57.6"], optim=optim, optim_args=f"rank=2, update_proj_gap={gap}",
        warmup_steps=2, max_grad_norm=0.01, **TARGETS)

# Every other name that runs on a CPU.
for optim in ["adafactor", "adagrad", "rmsprop", "grokadamw", "stable_adamw", "lion_32bit",
              "paged_lion_32bit", "paged_adamw_32bit", "rmsprop_bnb", "rmsprop_bnb_32bit",
              "ademamix", "paged_ademamix_32bit", "adamw_torch_8bit", "adamw_torch_4bit",
              "adamw_bnb_8bit"]:
    add(optim, optim=optim, weight_decay=0.05, warmup_steps=2)
add("sgd_nesterov", optim="sgd", optim_args="momentum=0.9, nesterov=True", weight_decay=0.05)
for optim in ["schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd"]:
    add(optim, optim=optim, weight_decay=0.05, lr_scheduler_type="constant", warmup_steps=3)
# Only the first projection: LAPACK chooses the signs of singular vectors, so after a refresh the moments
# refer to another basis.
add("galore_adamw", optim="galore_adamw", optim_args="rank=2, update_proj_gap=50, scale=0.5",
    **TARGETS)
add("apollo_adamw", optim="apollo_adamw", optim_args="rank=2, update_proj_gap=5", **TARGETS)
add("galore_adafactor", optim="galore_adafactor", optim_args="rank=2, update_proj_gap=5",
    **TARGETS)
for schedule, kwargs in [("polynomial", {"power": 2.5}), ("cosine", {}), ("inverse_sqrt", {})]:
    add(f"torchao_{schedule}", optim="adamw_torch_8bit", lr_scheduler_type=schedule,
        lr_scheduler_kwargs=kwargs, warmup_steps=3, learning_rate=0.3)
add("torchao_plateau", optim="adamw_torch_8bit", lr_scheduler_type="reduce_lr_on_plateau",
    lr_scheduler_kwargs={"factor": 0.3, "patience": 0}, eval_strategy="steps", eval_steps=1,
    learning_rate=0.3, metrics=[3, 2, 2.5, 2.5, 2.5, 1.9, 2, 2, 2, 2, 2, 1])
# 8-bit state: from 4096 elements on, but for embeddings.
for optim in ["adamw_bnb_8bit", "lion_8bit", "ademamix_8bit"]:
    add(f"{optim}_embedding", only=["5.23.0", "4.49.0"], optim=optim, words=128, width=32,
        max_steps=3, weight_decay=0.05)

# Saved in the middle and resumed.
for name, more in {
    "adamw_torch": {"weight_decay": 0.1, "lr_scheduler_type": "cosine", "warmup_steps": 2},
    "adafactor": {}, "lion_32bit": {}, "rmsprop": {}, "adagrad": {},
    "sgd": {"optim_args": "momentum=0.9", "lr_scheduler_type": "polynomial"},
    "schedule_free_adamw": {"lr_scheduler_type": "constant", "warmup_steps": 3},
    "stable_adamw": {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1},
}.items():
    add(f"{name}_resumed", optim=name, resume=6, **more)


def trainer(folder, arguments, more):
    torch.manual_seed(1)
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True,
        logging_strategy="no", per_device_train_batch_size=more.get("batch", 8),
        save_strategy="steps" if "resume" in more else "no", save_steps=more.get("resume", 500),
        **arguments,
    )
    tags = more.get("model") == "tagger"
    words = more.get("words", 7)
    model = Tagger() if tags else Model(words, more.get("width", 3))
    model.to(getattr(torch, more.get("dtype", "float32")))
    data = Tags() if tags else Data(more.get("samples", 48), words)
    eval_data = data if "metrics" in more else None
    out = RecordingTrainer(model=model, args=args, train_dataset=data, eval_dataset=eval_data)
    out.metrics = more.get("metrics")
    return out


def given(text):
    """What a `TrainingArguments` file has that is not the default."""
    default = json.loads(TrainingArguments(output_dir="out", use_cpu=True).to_json_string())
    apart = {"output_dir", "logging_dir", "run_name", "seed"}
    return {k: v for k, v in json.loads(text).items() if k not in apart and default.get(k) != v}


def run(out, name):
    version, arguments, more = RUNS[name]
    with tempfile.TemporaryDirectory() as tmp:
        t = trainer(tmp, arguments, more)
        text = t.args.to_json_string()
        # Trainer writes its own value into the dictionary passed to it.
        if "accelerator_config" in arguments:
            both = json.loads(text)
            both.update({"gradient_accumulation_steps": 1,
                         "accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 4}}})
            text = json.dumps(both)
        begin = {n: p.detach().clone() for n, p in t.model.named_parameters()}
        first = more.get("resume", 0)
        if first:
            t.record()
            t.train()
            begin = t.recorder.values[first - 1]
            at = Path(tmp) / f"checkpoint-{first}"
            folder = out / f"{name}.checkpoint"
            folder.mkdir(parents=True)
            for file in ["optimizer.pt", "scheduler.pt"]:
                shutil.copy(at / file, folder / file)
            t = trainer(tmp, arguments, more)
            t.record()
            t.train(resume_from_checkpoint=str(at))
        else:
            t.record()
            t.train()
    r = t.recorder
    steps = arguments["max_steps"] - first
    assert len(r.values) == steps == len(r.lrs), (len(r.values), len(r.lrs))
    assert sum(r.windows) == len(t.grads)
    embeddings = {f"{n}.weight" for n, m in t.model.named_modules() if isinstance(m, nn.Embedding)}
    names = [n for n, _ in t.model.named_parameters()]
    large = "words" in more
    tensors = {"lr": torch.tensor(r.lrs, dtype=torch.float64)}
    for n in names:
        tensors[f"{n}.init"] = begin[n]
        tensors[f"{n}.grad"] = torch.stack([g[n] for g in t.grads])
        # Only the end of large tensors, so that the file stays small.
        tensors[f"{n}.value"] = torch.stack([v[n] for v in (r.values[-1:] if large else r.values)])
    meta = {
        "arguments": given(text), "order": names, "embeddings": sorted(embeddings),
        "windows": r.windows, "version": VERSION,
        "metrics": r.metrics, "labels": Tags.counts if "model" in more else None,
        "resumed": bool(first),
    }
    save_file(tensors, out / f"{name}.safetensors", {"run": json.dumps(meta)})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path,
                        default=Path(__file__).parent.parent / "fixtures" / "traces")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, (version, _, _) in RUNS.items():
        if version != VERSION or args.only not in name:
            continue
        for old in [args.out / f"{name}.safetensors", args.out / f"{name}.checkpoint"]:
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        try:
            run(args.out, name)
            print("ok ", name, flush=True)
        except Exception as error:
            print("not", name, type(error).__name__, str(error)[:300], flush=True)


if __name__ == "__main__":
    main()
