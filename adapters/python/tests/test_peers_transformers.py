"""What Transformers asks of optimizers, asked of ours: its `tests/optimization` and `tests/trainer/test_trainer_optimizers`.

Trainer is run with each `optim=` name, with our classes in the references' packages in place of theirs, so that what it
hands over to one is what ours gets. The checks are written here; the models are as small as there. Left out: memory of a
GPU, and the tests of Trainer that make no optimizer of those names (factories, names of modules).
"""

import importlib
import os

import pytest

os.environ["TORCHDYNAMO_DISABLE"] = "1"

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import bitstep.schedules  # noqa: E402
import bitstep.torch  # noqa: E402
from bitstep._references import records  # noqa: E402
from transformers import Trainer, TrainingArguments, optimization  # noqa: E402

FAMILY = {"torch.optim": "optim", "transformers.optimization": "transformers", "bitsandbytes.optim": "bitsandbytes",
          "torchao.optim": "torchao", "llama_cookbook.policies.anyprecision_optimizer": "llama_cookbook"}  # fmt: skip


def our_class(record):
    module = importlib.import_module(f"bitstep.torch.{FAMILY.get(record['module'], record['module'])}")
    return getattr(module, record["class"])


def as_on_a_cpu(cls):
    """bitsandbytes rounds to its 8-bit codes in another way on a CPU than on a GPU, whose way is our default."""

    def init(self, params, *given, **named):
        cls.__init__(self, params, *given, **named, **({"quantizer": "cpu"} if named.get("optim_bits") == 8 else {}))

    return type(cls.__name__, (cls,), {"__init__": init, "__module__": cls.__module__})


@pytest.fixture
def in_place(monkeypatch):
    """Puts our classes into the references' packages."""

    def put():
        for record in records():
            try:
                module = importlib.import_module(record["module"])
            except ImportError:
                continue
            cls = our_class(record)
            cls = as_on_a_cpu(cls) if record["module"] == "bitsandbytes.optim" else cls
            monkeypatch.setattr(module, record["class"], cls, raising=False)
        # What Trainer has imported already.
        monkeypatch.setattr("transformers.trainer_optimizer.Adafactor", bitstep.torch.transformers.Adafactor)

    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)  # galore_torch waits for a GPU
    put.back = monkeypatch.undo
    return put


# --- tests/optimization ---


def descends(opt, w, count):
    for _ in range(count):
        torch.nn.functional.mse_loss(w, torch.tensor([0.4, 0.2, -0.5])).backward()
        opt.step()
        w.grad.detach_()
        w.grad.zero_()
    assert w.tolist() == pytest.approx([0.4, 0.2, -0.5], abs=1e-2)


def start():
    return torch.tensor([0.1, -0.2, -0.1], requires_grad=True)


def test_adamw_finds_the_least():
    w = start()
    descends(bitstep.torch.AdamW(params=[w], lr=2e-1, weight_decay=0.0), w, 100)


def test_adafactor_finds_the_least():
    w = start()
    arguments = dict(eps=(1e-30, 1e-3), clip_threshold=1.0, decay_rate=-0.8, beta1=None, weight_decay=0.0)
    fixed = dict(lr=1e-2, relative_step=False, scale_parameter=False, warmup_init=False)
    descends(bitstep.torch.Adafactor(params=[w], **arguments, **fixed), w, 1000)


SCHEDULES = {
    "constant": {},
    "constant_with_warmup": {"num_warmup_steps": 4},
    "linear": {"num_warmup_steps": 2, "num_training_steps": 10},
    "cosine": {"num_warmup_steps": 2, "num_training_steps": 10},
    "cosine_with_restarts": {"num_warmup_steps": 2, "num_training_steps": 10, "num_cycles": 2},
    "polynomial": {"num_warmup_steps": 2, "num_training_steps": 10, "power": 2.0, "lr_end": 1e-7},
    "inverse_sqrt": {"num_warmup_steps": 2},
    "warmup_stable_decay": {"num_warmup_steps": 2, "num_stable_steps": 2, "num_decay_steps": 3, "num_cycles": 0.5, "min_lr_ratio": 0.1},
    "cosine_with_min_lr": {"num_warmup_steps": 2, "num_training_steps": 10, "min_lr": 1e-5},
    "cosine_warmup_with_min_lr": {"num_warmup_steps": 2, "num_training_steps": 10, "min_lr": 1e-5},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_drive_our_groups_to_our_rates(name, tmp_path):
    """Transformers' schedules on our optimizer, saved and loaded half way, and `bitstep.schedules`' rates."""
    make, arguments = optimization.TYPE_TO_SCHEDULER_FUNCTION[optimization.SchedulerType(name)], SCHEDULES[name]
    want = bitstep.schedules.lrs(name, 10, lr=10.0, **arguments)
    for reload in (False, True):
        w = torch.nn.Parameter(torch.ones(1))
        opt = bitstep.torch.SGD([w], lr=10.0)
        schedule, seen = make(opt, **arguments), []
        for t in range(10):
            rate = opt.param_groups[0]["lr"]
            before = w.item()
            w.grad = torch.ones(1)
            opt.step()
            assert w.item() == pytest.approx(before - rate, abs=1e-5)  # it is what was stepped by
            seen.append(rate)
            schedule.step()
            if reload and t == 5:
                torch.save(schedule.state_dict(), tmp_path / "schedule.bin")
                schedule.load_state_dict(torch.load(tmp_path / "schedule.bin", weights_only=False))
        assert seen == pytest.approx(want, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_greedy_rates_go_up_and_down_as_on_torchs(mode):
    greedy = getattr(optimization, "GreedyLR", None)
    if greedy is None:
        pytest.skip("this Transformers has no GreedyLR")
    found = []
    for cls in (bitstep.torch.SGD, torch.optim.SGD):
        model = torch.nn.Linear(3, 2)
        opt = cls([{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.01}])
        schedule = greedy(opt, mode=mode, patience=2, factor=0.9, min_lr=1e-3, max_lr=0.5)
        rates = []
        for metric in [10.0, 8.0, 6.4, 5.1, 4.0, 3.2, *[9.0] * 40]:
            schedule.step(metric)
            rates.append([g["lr"] for g in opt.param_groups])
        other = greedy(opt, mode=mode)
        other.load_state_dict(schedule.state_dict())
        assert other.num_bad_epochs == schedule.num_bad_epochs
        found.append(rates)
    assert found[0] == found[1]
    assert len({rate for rate, _ in found[0]}) > 5


# --- tests/trainer/test_trainer_optimizers ---


class Repeat(torch.utils.data.Dataset):
    def __init__(self, length=24, size=32):
        torch.manual_seed(1)
        self.x, self.length = torch.randint(0, 100, (size,)), length

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        return {"input_ids": self.x, "labels": self.x}


def llama():
    torch.manual_seed(0)
    sizes = dict(vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))


def gpt2():
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=200, n_positions=64, n_embd=64, n_layer=2, n_head=4))


def arguments(folder, optim, **more):
    given = dict(max_steps=4, learning_rate=1e-3, per_device_train_batch_size=4, use_cpu=True, report_to=[], disable_tqdm=True)
    return TrainingArguments(str(folder), optim=optim, **{**given, "save_strategy": "no", "logging_steps": 1, **more})


def train(folder, optim, model=llama, **more):
    net = model()
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    trainer = Trainer(net, arguments(folder, optim, **more), train_dataset=Repeat())
    trainer.train()
    return trainer, before


TARGETS = {"optim_target_modules": [r".*attn.*", r".*mlp.*"]}
NAMES = {
    "adafactor": {},
    "adamw_torch": {},
    "adamw_torch_fused": {},
    "sgd": {"optim_args": "momentum=0.9,nesterov=True"},
    "adagrad": {},
    "rmsprop": {"optim_args": "momentum=0.9,centered=True"},
    "adamw_bnb_8bit": {},
    "adamw_8bit": {},
    "paged_adamw_32bit": {},
    "paged_adamw_8bit": {},
    "ademamix": {},
    "ademamix_8bit": {},
    "paged_ademamix_32bit": {},
    "paged_ademamix_8bit": {"optim_args": "alpha=4.0,beta3=0.999,t_alpha=10,t_beta3=10"},
    "lion_32bit": {},
    "lion_8bit": {},
    "paged_lion_32bit": {},
    "paged_lion_8bit": {},
    "rmsprop_bnb": {},
    "rmsprop_bnb_8bit": {},
    "rmsprop_bnb_32bit": {},
    "adamw_torch_4bit": {},
    "adamw_torch_8bit": {},
    "lomo": {"learning_rate": 1e-2},
    "adalomo": {},
    "grokadamw": {},
    "schedule_free_adamw": {"lr_scheduler_type": "constant"},
    "schedule_free_radam": {"lr_scheduler_type": "constant", "max_steps": 8},
    "schedule_free_sgd": {"lr_scheduler_type": "constant", "learning_rate": 0.1},
    "galore_adamw": TARGETS | {"optim_args": "rank=8, update_proj_gap=2, scale=0.10"},
    "galore_adamw_8bit": TARGETS,
    "galore_adafactor": {"optim_target_modules": "all-linear"},
    "galore_adamw_layerwise": TARGETS,
    "galore_adamw_8bit_layerwise": TARGETS,
    "apollo_adamw": TARGETS | {"optim_args": "proj=random,scale_type=tensor,rank=1,update_proj_gap=100,scale=128.0"},
    "apollo_adamw_layerwise": TARGETS | {"lr_scheduler_type": "cosine"},
    "stable_adamw": TARGETS | {"optim_args": "decouple_lr=True,max_lr=1e-3,kahan_sum=True"},
}
# Names of Transformers that make no class of ours here, and why.
NOT_MADE = {
    "adamw_torch_xla": "torch_xla's own class",
    "adamw_torch_npu_fused": "torch_npu's own class",
    "adamw_apex_fused": "apex's own class",
    "adamw_anyprecision": "Trainer takes it from torchdistx, which is installed nowhere; llama_cookbook has the class",
    "galore_adafactor_layerwise": "Trainer makes it without a rate and with relative steps, which Adafactor refuses",
}


def test_every_name_is_asked_or_has_a_reason():
    names = {name.value for name in transformers.training_args.OptimizerNames}
    assert names - set(NAMES) - set(NOT_MADE) == set()


def made_of_ours(optimizer):
    inner = getattr(optimizer, "optimizer", optimizer)
    each = getattr(inner, "optimizer_dict", None)
    return all(isinstance(o, bitstep.torch.Optimizer) for o in (each.values() if each else [inner]))


def skip_without(name):
    package = {"galore": "galore_torch", "apollo": "apollo_torch", "schedule": "schedulefree", "stable": "optimi", "grok": "grokadamw"}
    for start, module in package.items():
        if name.startswith(start):
            pytest.importorskip(module)
    if any(part in name for part in ("bnb", "paged", "lion", "ademamix")) or name == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    if name in ("adamw_torch_4bit", "adamw_torch_8bit"):
        pytest.importorskip("torchao")
    if "lomo" in name:
        pytest.skip("Trainer's backward pass steps it by `fused_backward`: the test below")


@pytest.mark.parametrize("name", NAMES)
def test_trainer_trains_by_name(name, in_place, tmp_path):
    skip_without(name)
    in_place()
    linear = "optim_target_modules" in NAMES[name]  # of which GPT-2 has none
    trainer, before = train(tmp_path, name, llama if linear else gpt2, **NAMES[name])
    assert made_of_ours(trainer.optimizer)
    after = dict(trainer.model.named_parameters())
    assert all(torch.isfinite(p).all() for p in after.values())
    used = {n for n in before if "embed" not in n and "wpe" not in n}  # rows of others have no gradient
    stays = {n for n in used if torch.equal(after[n], before[n])}
    assert not stays or name in ("sgd",) and len(stays) < len(used) / 2
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]


# Whose run is not compared, and why.
OTHERWISE = {
    "galore": "gradients of a repeated text have fewer directions than the rank: the others are rounding, which Adam scales up",
}
# In units of the largest move of each parameter; codes of few bits may fall on the other side of a midpoint.
NEAR = {"8bit": 0.02, "4bit": 0.02}


@pytest.mark.parametrize("name", [n for n in NAMES if "lomo" not in n])
def test_trainer_ends_where_it_does_with_its_own_class(name, in_place, tmp_path, monkeypatch):
    skip_without(name)
    if name == "stable_adamw":  # which else would launch a kernel of Triton's, on a CPU, too
        monkeypatch.setattr("optimi.utils.HAS_TRITON", False)
    for start, reason in OTHERWISE.items():
        if name.startswith(start):
            pytest.skip(reason)
    theirs, before = train(tmp_path, name, **NAMES[name])
    assert not made_of_ours(theirs.optimizer)
    in_place()
    mine, _ = train(tmp_path, name, **NAMES[name])
    limit = next((x for part, x in NEAR.items() if part in name), 1e-3)
    want = dict(theirs.model.named_parameters())
    for n, p in mine.model.named_parameters():
        # A fused multiply-add in one of the two moves a parameter by an ULP of its own in each step.
        last_bits = mine.state.global_step * torch.finfo(p.dtype).eps * want[n].abs()
        largest = (want[n] - before[n]).abs().max()
        assert ((p - want[n]).abs() <= limit * largest + last_bits).all(), n


@pytest.mark.parametrize("cls", ["Lomo", "AdaLomo"])
def test_trainer_trains_with_lomo_by_class(cls, tmp_path):
    net = llama()
    before = [p.detach().clone() for p in net.parameters()]
    given = (getattr(bitstep.torch, cls), {"lr": 1e-2})
    Trainer(net, arguments(tmp_path, "adamw_torch"), train_dataset=Repeat(), optimizer_cls_and_kwargs=given).train()
    assert all(not torch.equal(p, x) for p, x in zip(net.parameters(), before))


@pytest.mark.parametrize("first", ["theirs", "ours"])
@pytest.mark.parametrize("name", ["adamw_bnb_8bit", "rmsprop_bnb_8bit"])
def test_embeddings_keep_32_bits_as_trainer_asks_and_the_others_go_on(name, first, in_place, tmp_path):
    """Trainer tells bitsandbytes' manager, before the first step; a checkpoint of either is gone on with by the other."""
    pytest.importorskip("bitsandbytes")
    more = dict(max_steps=4, save_strategy="steps", save_steps=2)
    if first == "ours":
        in_place()
    trainer, _ = train(tmp_path, name, **more)
    state = trainer.optimizer.state_dict()["state"]
    flat = {i: {**s, **s.get("__bnb_optimizer_quant_state__", {})} for i, s in state.items()}
    places = dict(enumerate(p for group in trainer.optimizer.param_groups for p in group["params"]))
    embeddings = [i for i, p in places.items() if p is trainer.model.get_input_embeddings().weight]
    assert [flat[i]["state1"].dtype for i in embeddings] == [torch.float32]
    assert sum(s["state1"].dtype == torch.uint8 for s in flat.values()) > 4
    in_place() if first == "theirs" else in_place.back()
    net = llama()
    resumed = Trainer(net, arguments(tmp_path, name, **more), train_dataset=Repeat())
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert made_of_ours(resumed.optimizer) == (first == "theirs")
    for p, want, x in zip(net.parameters(), trainer.model.parameters(), llama().parameters()):
        assert (p - want).abs().max() <= 0.02 * (want - x).abs().max()


@pytest.mark.parametrize("warmup", [True, False])
def test_adafactor_without_a_rate_shows_its_own(warmup, tmp_path):
    runs = []
    for cls in (bitstep.torch.Adafactor, optimization.Adafactor):
        net = llama()
        opt = cls(net.parameters(), scale_parameter=True, relative_step=True, warmup_init=warmup, lr=None)
        schedule = optimization.AdafactorSchedule(opt)
        assert schedule.get_last_lr() == [0.0]
        args = arguments(tmp_path, "adamw_torch", max_steps=3)
        Trainer(net, args, train_dataset=Repeat(), optimizers=(opt, schedule)).train()
        assert opt.state_dict()["param_groups"][0]["lr"] > 0
        runs.append((list(net.parameters()), [float(rate) for rate in schedule.get_last_lr()]))
    assert runs[0][1] == pytest.approx(runs[1][1], rel=1e-6)
    for p, want, x in zip(runs[0][0], runs[1][0], llama().parameters()):
        moved = (want - x).abs().max()
        assert moved > 0 or warmup
        assert (p - want).abs().max() <= 1e-3 * moved + 2**-22 * want.abs().max()


def test_optimizer_and_schedule_of_the_caller_are_used_as_they_are(tmp_path):
    net, other = llama(), llama()
    for model, cls in ((net, bitstep.torch.SGD), (other, torch.optim.SGD)):
        opt = cls(model.parameters(), lr=0.1)
        flat = torch.optim.lr_scheduler.LambdaLR(opt, lr_lambda=lambda x: 1.0)
        trainer = Trainer(model, arguments(tmp_path, "adamw_torch"), train_dataset=Repeat(), optimizers=(opt, flat))
        trainer.train()
        assert trainer.optimizer.state_dict()["param_groups"][0]["lr"] == 0.1
    for p, want in zip(net.parameters(), other.parameters()):
        torch.testing.assert_close(p, want)


def test_plateau_schedule_of_the_caller_lowers_the_rate(tmp_path):
    net = llama()
    opt = bitstep.torch.SGD(net.parameters(), lr=1e-6)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, factor=0.2, patience=1, threshold=0.5)
    args = arguments(tmp_path, "adamw_torch", max_steps=5, eval_strategy="steps", eval_steps=1, metric_for_best_model="eval_loss")
    Trainer(net, args, train_dataset=Repeat(), eval_dataset=Repeat(4), optimizers=(opt, plateau)).train()
    assert opt.param_groups[0]["lr"] < 1e-6


RATES = {"galore_adamw": TARGETS, "apollo_adamw": TARGETS, "stable_adamw": TARGETS, "adamw_torch": {}, "adamw_bnb_8bit": {}}


@pytest.mark.parametrize("name", RATES)
def test_rates_and_groups_are_shown(name, in_place, tmp_path):
    skip_without(name)
    in_place()
    net = llama()
    trainer = Trainer(net, arguments(tmp_path, name, learning_rate=1e-9, **RATES[name]), train_dataset=Repeat())
    with pytest.raises(ValueError, match="None"):
        trainer.get_learning_rates()
    trainer.create_optimizer()
    assert trainer.get_learning_rates() == [1e-9, 1e-9]
    assert made_of_ours(trainer.optimizer) and len(trainer.get_optimizer_group()) == 2
    first = next(net.parameters())
    assert any(p is first for p in trainer.get_optimizer_group(first)["params"])


@pytest.mark.parametrize("name", RATES)
def test_rates_go_up_and_down_with_the_schedule(name, in_place, tmp_path):
    skip_without(name)
    in_place()
    trainer, _ = train(tmp_path, name, max_steps=12, warmup_steps=5, lr_scheduler_type="cosine", learning_rate=2e-4, **RATES[name])
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    top = rates.index(max(rates))
    assert max(rates) == 2e-4 and 0 < top < 11
    assert all(a < b for a, b in zip(rates[:top], rates[1 : top + 1])) and all(a > b for a, b in zip(rates[top:], rates[top + 1 :]))
    assert trainer.get_learning_rates()[0] == trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-6)


def test_arguments_of_trainer_reach_stable_adamw(in_place, tmp_path):
    pytest.importorskip("optimi")
    in_place()
    given = dict(weight_decay=0.001, adam_beta1=0.89, adam_beta2=0.98, adam_epsilon=1e-8)
    trainer = Trainer(llama(), arguments(tmp_path, "stable_adamw", **TARGETS, **given), train_dataset=Repeat())
    trainer.create_optimizer_and_scheduler(num_training_steps=10)
    defaults = trainer.optimizer.defaults
    assert [defaults[k] for k in ("beta1", "beta2", "eps", "weight_decay")] == [0.89, 0.98, 1e-8, 0.001]


def test_biases_and_norms_do_not_decay(in_place, tmp_path):
    in_place()
    net = gpt2()
    trainer = Trainer(net, arguments(tmp_path, "adamw_torch", weight_decay=0.1), train_dataset=Repeat())
    opt = trainer.create_optimizer()
    assert [g["weight_decay"] for g in opt.param_groups] == [0.1, 0.0]
    names = {id(p): n for n, p in net.named_parameters()}
    assert all("bias" in names[id(p)] or "ln" in names[id(p)] for p in opt.param_groups[1]["params"])


def test_overflowing_gradients_skip_the_update_and_its_count(tmp_path):
    """With a scaled loss: an infinite gradient changes neither parameters nor state, and the run goes on."""
    net, seen = llama(), []
    opt = bitstep.torch.AdamW(net.parameters(), lr=1e-3)
    weight = net.model.layers[0].mlp.up_proj.weight

    def poison(gradient):
        seen.append(weight.detach().clone())
        return gradient * float("inf") if len(seen) == 3 else gradient

    weight.register_hook(poison)
    schedule = transformers.get_constant_schedule(opt)
    args = arguments(tmp_path, "adamw_torch", max_steps=6, max_grad_norm=0.0)
    trainer = Trainer(net, args, train_dataset=Repeat(), optimizers=(opt, schedule))
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    trainer.accelerator.native_amp = True
    trainer.train()
    assert torch.equal(seen[2], seen[3]) and not torch.equal(seen[3], seen[4])
    assert {int(state["step"]) for state in opt.state.values()} == {len(seen) - 1}
    assert all(torch.isfinite(p).all() for p in net.parameters())
