from transformers.optimization import get_polynomial_decay_schedule_with_warmup

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("polynomial", get_polynomial_decay_schedule_with_warmup, seed)
    steps = {"num_warmup_steps": 10, "num_training_steps": 50}
    yield s.case("default", "a line down to lr_end", steps, steps=60)
    yield s.case("power_2", "a parabola", {**steps, "power": 2.0}, steps=60)
    yield s.case("power_half", "a root: steep at the end", {**steps, "power": 0.5}, steps=60)
    yield s.case("power_int", "a cube, its exponent a whole number", {**steps, "power": 3}, steps=60)
    yield s.case("power_0", "constant until just past the end", {**steps, "power": 0.0}, steps=60)
    yield s.case("lr_end", "a floor that shows", {**steps, "lr_end": 2e-4, "power": 1.7}, steps=60)
    yield s.case("lr_end_0", "down to 0", {**steps, "lr_end": 0.0, "power": 1.3}, steps=60)
    yield s.case("no_warmup", "no warm-up", {"num_warmup_steps": 0, "num_training_steps": 37, "power": 1.5}, steps=40)
    yield s.case(
        "groups",
        "shares are taken of the optimizer's own rate, so other groups end at other floors",
        {**steps, "lr_end": 1e-4, "power": 2.5},
        groups=4,
        steps=60,
    )
    yield s.case("long_warmup", "warm-up outlasts training", {"num_warmup_steps": 40, "num_training_steps": 30}, steps=60)
    yield s.case("long", "many powers", {"num_warmup_steps": 9, "num_training_steps": 1200, "power": 0.9}, steps=1210)
    yield s.case("resumed_behind", "resumed behind a warm-up that is all of training, at whose end it would divide by 0", {"num_warmup_steps": 30, "num_training_steps": 30, "last_epoch": 30}, steps=5)
