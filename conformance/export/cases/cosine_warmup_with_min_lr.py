from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup_lr_rate

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("cosine_warmup_with_min_lr", get_cosine_with_min_lr_schedule_with_warmup_lr_rate, seed)
    steps = {"num_warmup_steps": 10, "num_training_steps": 50}
    yield s.case("min_lr", "one step ahead: the floor is reached a step before the end", {**steps, "min_lr": 1e-4}, steps=90)
    yield s.case("min_lr_rate", "a floor as a share", {**steps, "min_lr_rate": 0.1}, steps=60)
    yield s.case("warmup_rate", "warm-up begins at a share", {**steps, "min_lr_rate": 0.1, "warmup_lr_rate": 0.25}, steps=60)
    yield s.case("warmup_rate_0", "warm-up begins at 0", {**steps, "min_lr_rate": 0.1, "warmup_lr_rate": 0.0}, steps=60)
    yield s.case(
        "warmup_one",
        "one step of warm-up: its divisor is held at 1",
        {"num_warmup_steps": 1, "num_training_steps": 20, "min_lr_rate": 0.1, "warmup_lr_rate": 0.3},
        steps=24,
    )
    yield s.case("no_warmup", "no warm-up", {"num_warmup_steps": 0, "num_training_steps": 37, "min_lr_rate": 0.2}, steps=40)
    yield s.case("cycles", "1.5 waves", {**steps, "min_lr_rate": 0.2, "num_cycles": 1.5}, steps=60)
    yield s.case("groups", "the floor's share is of the optimizer's own rate", {**steps, "min_lr": 2e-4}, groups=3, steps=60)
    yield s.case(
        "long_warmup",
        "warm-up outlasts training",
        {"num_warmup_steps": 40, "num_training_steps": 30, "min_lr_rate": 0.3},
        steps=60,
    )
