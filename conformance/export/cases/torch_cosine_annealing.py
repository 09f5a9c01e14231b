from torch.optim.lr_scheduler import CosineAnnealingLR

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("torch_cosine_annealing", CosineAnnealingLR, seed)
    yield s.case("default", "half a wave", {"T_max": 30}, steps=30)
    yield s.case("waves", "down and up, three times: the step after the bottom is another formula", {"T_max": 10}, steps=60)
    yield s.case("eta_min", "a floor", {"T_max": 20, "eta_min": 1e-4}, steps=50)
    yield s.case("eta_min_high", "a floor above the rate", {"T_max": 20, "eta_min": 0.5}, steps=50)
    yield s.case("one", "waves of one step", {"T_max": 1}, steps=9)
    yield s.case("two", "waves of two steps", {"T_max": 2, "eta_min": 1e-5}, steps=15)
    yield s.case("long", "rounding piles up", {"T_max": 900, "eta_min": 1e-6}, steps=900)
    yield s.case(
        "cancel",
        "at step 299 glibc's cosine is not the nearest number: one bit of it is 128 ULP of the rate",
        {"T_max": 316},
        steps=316,
    )
    yield s.case("groups", "each group from its own rate", {"T_max": 13, "eta_min": 1e-3}, groups=3, steps=30)
    yield s.case("resumed", "the rate at construction is that in force", {"T_max": 20, "last_epoch": 6}, steps=30)
