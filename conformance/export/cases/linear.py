from transformers.optimization import get_linear_schedule_with_warmup

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("linear", get_linear_schedule_with_warmup, seed)
    yield s.case("default", "up in a line, down in a line", {"num_warmup_steps": 10, "num_training_steps": 40})
    yield s.case("no_warmup", "no warm-up: the first rate is the full one", {"num_warmup_steps": 0, "num_training_steps": 33})
    yield s.case("past_the_end", "beyond the end the rate stays 0", {"num_warmup_steps": 3, "num_training_steps": 20})
    yield s.case("long_warmup", "warm-up outlasts training", {"num_warmup_steps": 50, "num_training_steps": 30}, steps=60)
    yield s.case("all_warmup", "warm-up as long as training", {"num_warmup_steps": 30, "num_training_steps": 30})
    yield s.case("no_steps", "no training at all", {"num_warmup_steps": 0, "num_training_steps": 0}, steps=4)
    yield s.case("groups", "each group falls from its own rate", {"num_warmup_steps": 7, "num_training_steps": 30}, groups=3)
    yield s.case("long", "many steps", {"num_warmup_steps": 137, "num_training_steps": 1111}, steps=1200)
    yield s.case(
        "resumed",
        "resumed after step 11",
        {"num_warmup_steps": 5, "num_training_steps": 30, "last_epoch": 11},
        steps=20,
    )
