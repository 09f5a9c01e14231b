"""The real Trainer on these optimizers; checkpoints of its own optimizers and of these resume each other."""

import importlib.util
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import bitstep.torch  # noqa: E402

EXAMPLE = Path(__file__).parent.parent / "examples/trainer.py"
spec = importlib.util.spec_from_file_location("trainer_example", EXAMPLE)
example = importlib.util.module_from_spec(spec)
sys.modules["trainer_example"] = example
spec.loader.exec_module(example)


def run(folder, optimizer, steps, resume=None, arguments=None, **more):
    args = transformers.TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        lr_scheduler_type="linear",
        warmup_steps=2,
        save_strategy="steps",
        save_steps=4,
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
        weight_decay=0.1,
        **more,
    )
    given = {} if optimizer is None else {"optimizer_cls_and_kwargs": (optimizer, {"lr": 1e-3, **(arguments or {})})}
    trainer = transformers.Trainer(example.model(), args, train_dataset=example.data(), **given)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def weights(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def close(got, want, start):
    for a, b, x in zip(got, want, start):
        moved = (b - x).abs().max()
        assert (a - b).abs().max() <= 1e-3 * moved


@pytest.mark.parametrize("first", ["torch", "bitstep"])
def test_checkpoint_of_one_is_gone_on_with_by_the_other(first, tmp_path):
    start = [p.detach().clone() for p in example.model().parameters()]
    whole = weights(run(tmp_path / "whole", None, 8, optim="adamw_torch"))
    ours, optims = bitstep.torch.AdamW, {"optim": "adamw_torch"}
    one, other = (None, ours) if first == "torch" else (ours, None)
    run(tmp_path / "parts", one, 8, **optims)
    resumed = run(tmp_path / "parts", other, 8, resume=tmp_path / "parts/checkpoint-4", **optims)
    assert resumed.state.global_step == 8
    close(weights(resumed), whole, start)


def test_run_is_resumed_with_the_same_bits(tmp_path):
    whole = weights(run(tmp_path, bitstep.torch.AdamW8bit, 8))
    resumed = weights(run(tmp_path, bitstep.torch.AdamW8bit, 8, resume=tmp_path / "checkpoint-4"))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed))


def test_optimizers_argument_and_schedule_free(tmp_path):
    model = example.model()
    opt = bitstep.torch.AdamWScheduleFree(model.parameters(), lr=1e-3)
    schedule = transformers.get_constant_schedule(opt)
    args = transformers.TrainingArguments(
        str(tmp_path), max_steps=4, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, eval_strategy="no"
    )
    trainer = transformers.Trainer(model, args, train_dataset=example.data(), optimizers=(opt, schedule))
    trainer.train()
    assert opt.param_groups[0]["k"] == 4


def test_example_runs(capsys):
    example.main()
    assert "losses" in capsys.readouterr().out
