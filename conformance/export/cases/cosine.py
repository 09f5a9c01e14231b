from transformers.optimization import get_cosine_schedule_with_warmup

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("cosine", get_cosine_schedule_with_warmup, seed)
    steps = {"num_warmup_steps": 10, "num_training_steps": 50}
    yield s.case("default", "up in a line, down a cosine", steps, steps=50)
    yield s.case("past_the_end", "beyond the end the rate rises again", steps, steps=120)
    yield s.case("no_warmup", "no warm-up", {"num_warmup_steps": 0, "num_training_steps": 37}, steps=37)
    yield s.case("cycles_3", "three waves", {**steps, "num_cycles": 3.0}, steps=60)
    yield s.case("cycles_fraction", "0.7 waves: it ends on the way up", {**steps, "num_cycles": 0.7}, steps=60)
    yield s.case("cycles_0", "no wave: constant", {**steps, "num_cycles": 0.0}, steps=20)
    yield s.case("cycles_int", "a whole number of waves, given as one", {**steps, "num_cycles": 2}, steps=60)
    yield s.case("long_warmup", "warm-up outlasts training", {"num_warmup_steps": 40, "num_training_steps": 30}, steps=60)
    yield s.case("groups", "each group falls from its own rate", steps, groups=3, steps=60)
    yield s.case(
        "long",
        "near the end 1 + cos cancels: a bit of the cosine is thousands of ULP",
        {"num_warmup_steps": 100, "num_training_steps": 2000},
        steps=2100,
    )
    yield s.case(
        "cancel",
        "at step 586 glibc's cosine is not the nearest number: one bit of it is 128 ULP of the rate",
        {"num_warmup_steps": 0, "num_training_steps": 603},
        steps=603,
    )
    yield s.case("resumed", "resumed after step 20", {**steps, "last_epoch": 20}, steps=40)
