from transformers.optimization import get_constant_schedule

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("constant", get_constant_schedule, seed)
    yield s.case("default", "nothing changes", {}, steps=8)
    yield s.case("groups", "nothing changes in any group", {}, groups=3, steps=8)
    yield s.case("zero", "a rate of 0", {}, lr=0.0, steps=4)
    yield s.case("resumed", "resumed after step 5", {"last_epoch": 5}, steps=4)
