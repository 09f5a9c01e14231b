from torch.optim.lr_scheduler import ExponentialLR

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("torch_exponential", ExponentialLR, seed)
    yield s.case("default", "multiplied at every step: rounding piles up", {"gamma": 0.97}, steps=300)
    yield s.case("growth", "a factor above 1", {"gamma": 1.1})
    yield s.case("one", "a factor of 1", {"gamma": 1.0}, steps=5)
    yield s.case("zero", "a factor of 0", {"gamma": 0.0}, steps=5)
    yield s.case("tiny", "down into the subnormals", {"gamma": 1e-20}, steps=20)
    yield s.case("groups", "each group from its own rate", {"gamma": 0.9}, groups=3)
    yield s.case("resumed", "construction does not multiply", {"gamma": 0.9, "last_epoch": 4}, steps=10)
