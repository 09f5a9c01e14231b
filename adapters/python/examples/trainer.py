"""Transformers' Trainer with 8-bit AdamW on a CPU: the argument `optimizer_cls_and_kwargs` is all that changes.

    python adapters/python/examples/trainer.py
"""

import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import bitstep.torch


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = dict(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    return LlamaForCausalLM(LlamaConfig(**sizes, max_position_embeddings=32))


def data(count: int = 64) -> list[dict[str, torch.Tensor]]:
    """Texts that count upwards, from anywhere."""
    starts = torch.randint(0, 64, (count, 1), generator=torch.Generator().manual_seed(0))
    texts = (starts + torch.arange(16)) % 64
    return [{"input_ids": text, "labels": text} for text in texts]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=60,
            per_device_train_batch_size=16,
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            warmup_steps=5,
            logging_steps=20,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(
            model(),
            arguments,
            train_dataset=data(),
            optimizer_cls_and_kwargs=(bitstep.torch.AdamW8bit, {"lr": 3e-3, "betas": (0.9, 0.99)}),
        )
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        print("losses:", losses)
        assert losses[-1] < losses[0] / 2, "it did not learn"


if __name__ == "__main__":
    main()
