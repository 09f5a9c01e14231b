from torch.optim.lr_scheduler import StepLR

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("torch_step", StepLR, seed)
    yield s.case("default", "every seven steps", {"step_size": 7})
    yield s.case("every_step", "every step: rounding piles up", {"step_size": 1, "gamma": 0.97}, steps=300)
    yield s.case("growth", "a factor above 1", {"step_size": 3, "gamma": 1.3})
    yield s.case("long_step", "a step beyond the end", {"step_size": 100}, steps=20)
    yield s.case("groups", "each group from its own rate", {"step_size": 4, "gamma": 0.7}, groups=3)
    yield s.case("resumed", "resumed just before a change, which construction then makes", {"step_size": 5, "last_epoch": 9}, steps=20)
