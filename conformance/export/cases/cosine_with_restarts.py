from transformers.optimization import get_cosine_with_hard_restarts_schedule_with_warmup

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("cosine_with_restarts", get_cosine_with_hard_restarts_schedule_with_warmup, seed)
    steps = {"num_warmup_steps": 10, "num_training_steps": 50}
    yield s.case("default", "one fall: a cosine that stays 0 past the end", steps, steps=70)
    yield s.case("cycles_4", "four falls", {**steps, "num_cycles": 4}, steps=60)
    yield s.case("cycles_fraction", "2.5 falls", {**steps, "num_cycles": 2.5}, steps=60)
    yield s.case("cycles_7", "falls that do not begin on a step", {**steps, "num_cycles": 7}, steps=60)
    yield s.case("no_warmup", "no warm-up", {"num_warmup_steps": 0, "num_training_steps": 37, "num_cycles": 3}, steps=40)
    yield s.case("long_warmup", "warm-up outlasts training", {"num_warmup_steps": 40, "num_training_steps": 30}, steps=60)
    yield s.case("groups", "each group falls from its own rate", {**steps, "num_cycles": 2}, groups=3, steps=60)
    yield s.case(
        "long",
        "many steps, many restarts",
        {"num_warmup_steps": 50, "num_training_steps": 1500, "num_cycles": 11},
        steps=1550,
    )
