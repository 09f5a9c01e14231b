from transformers.optimization import get_constant_schedule_with_warmup

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("constant_with_warmup", get_constant_schedule_with_warmup, seed)
    yield s.case("default", "up in a line, then constant", {"num_warmup_steps": 17})
    yield s.case("no_warmup", "constant from the start", {"num_warmup_steps": 0}, steps=8)
    yield s.case("one", "one step of warm-up", {"num_warmup_steps": 1}, steps=8)
    yield s.case("groups", "each group rises to its own rate", {"num_warmup_steps": 9}, groups=3, steps=16)
    yield s.case("unfinished", "training ends during warm-up", {"num_warmup_steps": 1000})
    yield s.case("resumed", "resumed within warm-up", {"num_warmup_steps": 20, "last_epoch": 6})
