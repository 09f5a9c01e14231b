from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("cosine_with_min_lr", get_cosine_with_min_lr_schedule_with_warmup, seed)
    steps = {"num_warmup_steps": 10, "num_training_steps": 50}
    yield s.case("min_lr", "a floor as a rate; past the end up again", {**steps, "min_lr": 1e-4}, steps=90)
    yield s.case("min_lr_rate", "a floor as a share", {**steps, "min_lr_rate": 0.1}, steps=90)
    yield s.case("min_lr_0", "a floor of 0", {**steps, "min_lr": 0.0}, steps=60)
    yield s.case("rate_over_1", "a floor above the rate: the cosine stands on its head", {**steps, "min_lr_rate": 1.5}, steps=60)
    yield s.case("rate_negative", "a negative floor is cut at 0", {**steps, "min_lr_rate": -0.5}, steps=60)
    yield s.case("cycles", "1.25 waves", {**steps, "min_lr_rate": 0.2, "num_cycles": 1.25}, steps=60)
    yield s.case("no_warmup", "no warm-up", {"num_warmup_steps": 0, "num_training_steps": 37, "min_lr": 3e-4}, steps=40)
    yield s.case("groups", "the floor's share is of the optimizer's own rate", {**steps, "min_lr": 2e-4}, groups=4, steps=60)
    yield s.case(
        "long_warmup",
        "warm-up outlasts training",
        {"num_warmup_steps": 40, "num_training_steps": 30, "min_lr_rate": 0.3},
        steps=60,
    )
    yield s.case(
        "long", "many steps", {"num_warmup_steps": 20, "num_training_steps": 1000, "min_lr_rate": 0.01}, steps=1020
    )
