from torch.optim.lr_scheduler import PolynomialLR

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("torch_polynomial", PolynomialLR, seed)
    yield s.case("default", "a line in five steps", {}, steps=8)
    yield s.case("power_2", "a parabola", {"total_iters": 30, "power": 2.0}, steps=34)
    yield s.case("power_half", "a root", {"total_iters": 30, "power": 0.5}, steps=34)
    yield s.case("power_0", "constant", {"total_iters": 6, "power": 0.0}, steps=8)
    yield s.case("power_int", "a cube, its exponent a whole number", {"total_iters": 12, "power": 3}, steps=14)
    yield s.case("no_iters", "no steps: nothing changes", {"total_iters": 0}, steps=4)
    yield s.case("long", "a power a step: rounding piles up", {"total_iters": 1000, "power": 0.9}, steps=1010)
    yield s.case("groups", "each group from its own rate", {"total_iters": 11, "power": 1.5}, groups=3, steps=12)
    yield s.case("resumed", "construction changes nothing", {"total_iters": 20, "power": 1.5, "last_epoch": 7}, steps=15)
    yield s.case("resumed_behind_0", "resumed behind the step at which it would raise 0 to a negative power", {"total_iters": 6, "power": -1.5, "last_epoch": 6}, steps=5)
