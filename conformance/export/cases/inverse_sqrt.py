from transformers.optimization import get_inverse_sqrt_schedule

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("inverse_sqrt", get_inverse_sqrt_schedule, seed)
    yield s.case("default", "the time scale is that of warm-up", {"num_warmup_steps": 10}, steps=60)
    yield s.case("no_warmup", "without warm-up the time scale is 10 000", {"num_warmup_steps": 0}, steps=60)
    yield s.case("timescale", "a time scale of its own", {"num_warmup_steps": 10, "timescale": 37}, steps=60)
    yield s.case("timescale_short", "a time scale shorter than warm-up", {"num_warmup_steps": 30, "timescale": 3}, steps=60)
    yield s.case("timescale_fraction", "a time scale that is not whole", {"num_warmup_steps": 4, "timescale": 2.5}, steps=30)
    yield s.case("groups", "each group falls from its own rate", {"num_warmup_steps": 7}, groups=3, steps=30)
    yield s.case("long", "many steps", {"num_warmup_steps": 100}, steps=1500)
