"""Runs Trainer of the installed version of Transformers on small models and writes their layers and the
groups that it makes for them. See README.md beside it."""

import json
import sys
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import AutoConfig, Trainer, TrainingArguments

from model_layers import model_layers

HEADS = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 11,
         "intermediate_size": 12}
GROUPED = {**HEADS, "num_key_value_heads": 1}
EXPERTS = {**GROUPED, "num_local_experts": 2}
MODELS = {
    "GPT2LMHeadModel": {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 11,
                        "n_positions": 7},
    "LlamaForCausalLM": GROUPED,
    "MistralForCausalLM": GROUPED,
    "MixtralForCausalLM": EXPERTS,
    "BertForMaskedLM": {**HEADS, "max_position_embeddings": 7},
    "CamembertForMaskedLM": {**HEADS, "max_position_embeddings": 7},
    "T5ForConditionalGeneration": {"d_model": 8, "num_layers": 1, "num_heads": 2, "d_ff": 12,
                                   "vocab_size": 11, "d_kv": 4},
    "MambaForCausalLM": {"hidden_size": 8, "num_hidden_layers": 1, "state_size": 2,
                         "vocab_size": 11, "pad_token_id": 0},
    "ViTForImageClassification": {**HEADS, "image_size": 4, "patch_size": 2},
}
for config in MODELS.values():
    config.setdefault("pad_token_id", 0)


class Scaled(nn.LayerNorm):
    """A LayerNorm with a layer inside: none of it decays."""

    def __init__(self):
        super().__init__(8)
        self.by = nn.Linear(8, 8)


class Others(nn.Module):
    """What is neither a bias nor of a LayerNorm, nor linear, though it looks so."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(8, 8, 3)
        self.bn1 = nn.BatchNorm1d(8)
        self.batch_norm = nn.BatchNorm1d(8)
        self.gn = nn.GroupNorm(2, 8)
        self.rms = nn.RMSNorm(8)
        self.act = nn.PReLU()
        self.scaled = Scaled()
        self.stack = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.PReLU(8))
        self.attention = nn.MultiheadAttention(8, 2)
        self.bag = nn.EmbeddingBag(5, 8)
        self.table = nn.Embedding(5, 8)
        self.bilinear = nn.Bilinear(4, 4, 8)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.class_embedding = nn.Parameter(torch.zeros(8))
        self.gamma = nn.Parameter(torch.ones(8))
        self.experts = nn.Parameter(torch.zeros(2, 8, 8))
        self.head = nn.Linear(8, 5)
        self.head.weight = self.table.weight


def build(name, config):
    cls = getattr(transformers, name)
    return cls(cls.config_class(**config))


def names(model, optim, **more):
    """The groups of an optimizer of this name, by the first names of their parameters."""
    args = TrainingArguments(output_dir="out", use_cpu=True, report_to=[], optim=optim, **more)
    optimizer = Trainer(model=model, args=args).create_optimizer()
    of = {id(p): n for n, p in model.named_parameters()}
    return [[of[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def in_32_bits(model):
    """What an 8-bit optimizer of bitsandbytes is told to keep in 32 bits."""
    from bitsandbytes.optim import GlobalOptimManager

    manager = GlobalOptimManager.get_instance()
    manager.initialize()
    names(model, "adamw_bnb_8bit")
    found = {id(getattr(m, attr)) for m, attr, _ in manager.module_weight_config_triple}
    return [n for n, p in model.named_parameters() if id(p) in found]


def main():
    out = Path(__file__).parent.parent / "fixtures" / "layers"
    out.mkdir(parents=True, exist_ok=True)
    models = {name: build(name, config) for name, config in MODELS.items()} | {"Others": Others()}
    answers = {}
    for name, model in models.items():
        try:
            target = names(model, "galore_adamw", optim_target_modules="all-linear")[1]
        except ValueError as e:  # 4.49 takes a matrix that an embedding shares twice
            assert "more than one parameter group" in str(e), e
            target = None
        answers[name] = {
            "layers": model_layers(model),
            "groups": names(model, "adamw_torch", weight_decay=0.1),
            "linear": target,
            "in_32_bits": in_32_bits(model),
        }
    text = "{\n" + ",\n".join(f'"{n}": {json.dumps(a)}' for n, a in answers.items()) + "\n}\n"
    (out / f"{transformers.__version__}.json").write_text(text)


if __name__ == "__main__":
    main()
