"""Every optimizer as a `torch.optim.Optimizer`: see `bitstep.torch.optimizer` for the names."""

# Written by export/classes.py.

from __future__ import annotations

from .apollo_torch import APOLLOAdamW
from .bitsandbytes import AdEMAMix, AdEMAMix8bit, Adagrad32bit, Adagrad8bit, Adam32bit, Adam8bit, AdamW32bit, AdamW8bit, LAMB, LAMB32bit, LAMB8bit, LARS, LARS32bit, LARS8bit, Lion, Lion32bit, Lion8bit, PagedAdEMAMix, PagedAdEMAMix8bit, PagedAdamW, PagedAdamW32bit, PagedAdamW8bit, PagedLion, PagedLion32bit, PagedLion8bit, RMSprop32bit, RMSprop8bit, SGD32bit, SGD8bit
from .flashoptim import FlashAdam, FlashAdamW, FlashLion, FlashSGD, FlashSGDW
from .galore_torch import GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit
from .grokadamw import GrokAdamW
from .llama_cookbook import AnyPrecisionAdamW
from .lomo_optim import AdaLomo, Lomo
from .optim import ASGD, Adadelta, Adagrad, Adam, AdamW, Adamax, Muon, NAdam, RAdam, RMSprop, Rprop, SGD
from .optimi import Adan, Ranger, StableAdamW
from .schedulefree import AdamWScheduleFree, RAdamScheduleFree, SGDScheduleFree
from .torchao import Adam4bit, AdamFp8, AdamW4bit, AdamWFp8
from .transformers import Adafactor

__all__ = ["APOLLOAdamW", "ASGD", "AdEMAMix", "AdEMAMix8bit", "AdaLomo", "Adadelta", "Adafactor", "Adagrad", "Adagrad32bit", "Adagrad8bit", "Adam", "Adam32bit", "Adam4bit", "Adam8bit", "AdamFp8", "AdamW", "AdamW32bit", "AdamW4bit", "AdamW8bit", "AdamWFp8", "AdamWScheduleFree", "Adamax", "Adan", "AnyPrecisionAdamW", "FlashAdam", "FlashAdamW", "FlashLion", "FlashSGD", "FlashSGDW", "GaLoreAdafactor", "GaLoreAdamW", "GaLoreAdamW8bit", "GrokAdamW", "LAMB", "LAMB32bit", "LAMB8bit", "LARS", "LARS32bit", "LARS8bit", "Lion", "Lion32bit", "Lion8bit", "Lomo", "Muon", "NAdam", "PagedAdEMAMix", "PagedAdEMAMix8bit", "PagedAdamW", "PagedAdamW32bit", "PagedAdamW8bit", "PagedLion", "PagedLion32bit", "PagedLion8bit", "RAdam", "RAdamScheduleFree", "RMSprop", "RMSprop32bit", "RMSprop8bit", "Ranger", "Rprop", "SGD", "SGD32bit", "SGD8bit", "SGDScheduleFree", "StableAdamW"]

# The class of each name.
CLASSES = {
    "adadelta": ("optim", "Adadelta"),
    "adafactor": ("transformers", "Adafactor"),
    "adafactor_torch": ("optim", "Adafactor"),
    "adagrad": ("optim", "Adagrad"),
    "adalomo": ("lomo_optim", "AdaLomo"),
    "adam": ("optim", "Adam"),
    "adamax": ("optim", "Adamax"),
    "adamw_anyprecision": ("llama_cookbook", "AnyPrecisionAdamW"),
    "adamw_bnb_8bit": ("bitsandbytes", "AdamW8bit"),
    "adamw_torch": ("optim", "AdamW"),
    "adamw_torch_4bit": ("torchao", "AdamW4bit"),
    "adamw_torch_8bit": ("torchao", "AdamW8bit"),
    "ademamix": ("bitsandbytes", "AdEMAMix"),
    "ademamix_8bit": ("bitsandbytes", "AdEMAMix8bit"),
    "apollo_adamw": ("apollo_torch", "APOLLOAdamW"),
    "asgd": ("optim", "ASGD"),
    "bnb_adagrad_32bit": ("bitsandbytes", "Adagrad"),
    "bnb_adagrad_8bit": ("bitsandbytes", "Adagrad8bit"),
    "bnb_adam_32bit": ("bitsandbytes", "Adam"),
    "bnb_adam_8bit": ("bitsandbytes", "Adam8bit"),
    "bnb_adamw_32bit": ("bitsandbytes", "AdamW"),
    "bnb_lamb_32bit": ("bitsandbytes", "LAMB"),
    "bnb_lamb_8bit": ("bitsandbytes", "LAMB8bit"),
    "bnb_lars_32bit": ("bitsandbytes", "LARS"),
    "bnb_lars_8bit": ("bitsandbytes", "LARS8bit"),
    "bnb_sgd_32bit": ("bitsandbytes", "SGD"),
    "bnb_sgd_8bit": ("bitsandbytes", "SGD8bit"),
    "flash_adam": ("flashoptim", "FlashAdam"),
    "flash_adamw": ("flashoptim", "FlashAdamW"),
    "flash_lion": ("flashoptim", "FlashLion"),
    "flash_sgd": ("flashoptim", "FlashSGD"),
    "flash_sgdw": ("flashoptim", "FlashSGDW"),
    "galore_adafactor": ("galore_torch", "GaLoreAdafactor"),
    "galore_adamw": ("galore_torch", "GaLoreAdamW"),
    "galore_adamw_8bit": ("galore_torch", "GaLoreAdamW8bit"),
    "grokadamw": ("grokadamw", "GrokAdamW"),
    "lion_32bit": ("bitsandbytes", "Lion"),
    "lion_8bit": ("bitsandbytes", "Lion8bit"),
    "lomo": ("lomo_optim", "Lomo"),
    "muon": ("optim", "Muon"),
    "nadam": ("optim", "NAdam"),
    "optimi_adam": ("optimi", "Adam"),
    "optimi_adamw": ("optimi", "AdamW"),
    "optimi_adan": ("optimi", "Adan"),
    "optimi_lion": ("optimi", "Lion"),
    "optimi_radam": ("optimi", "RAdam"),
    "optimi_ranger": ("optimi", "Ranger"),
    "optimi_sgd": ("optimi", "SGD"),
    "paged_adamw_32bit": ("bitsandbytes", "PagedAdamW"),
    "paged_adamw_8bit": ("bitsandbytes", "PagedAdamW8bit"),
    "paged_ademamix_32bit": ("bitsandbytes", "PagedAdEMAMix"),
    "paged_ademamix_8bit": ("bitsandbytes", "PagedAdEMAMix8bit"),
    "paged_lion_32bit": ("bitsandbytes", "PagedLion"),
    "paged_lion_8bit": ("bitsandbytes", "PagedLion8bit"),
    "radam": ("optim", "RAdam"),
    "rmsprop": ("optim", "RMSprop"),
    "rmsprop_bnb": ("bitsandbytes", "RMSprop"),
    "rmsprop_bnb_32bit": ("bitsandbytes", "RMSprop32bit"),
    "rmsprop_bnb_8bit": ("bitsandbytes", "RMSprop8bit"),
    "rprop": ("optim", "Rprop"),
    "schedule_free_adamw": ("schedulefree", "AdamWScheduleFree"),
    "schedule_free_radam": ("schedulefree", "RAdamScheduleFree"),
    "schedule_free_sgd": ("schedulefree", "SGDScheduleFree"),
    "sgd": ("optim", "SGD"),
    "stable_adamw": ("optimi", "StableAdamW"),
    "torchao_adam4bit": ("torchao", "Adam4bit"),
    "torchao_adam8bit": ("torchao", "Adam8bit"),
    "torchao_adam_fp8": ("torchao", "AdamFp8"),
    "torchao_adamw_fp8": ("torchao", "AdamWFp8"),
}
