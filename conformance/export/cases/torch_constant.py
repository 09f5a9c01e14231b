from torch.optim.lr_scheduler import ConstantLR

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("torch_constant", ConstantLR, seed)
    yield s.case("default", "a third for five steps", {}, steps=12)
    yield s.case("factor", "multiplied back by 1/factor, which does not give the same rate", {"factor": 0.7, "total_iters": 11}, steps=20)
    yield s.case("one", "a factor of 1", {"factor": 1.0}, steps=8)
    yield s.case("zero", "a factor of 0, up to the step before it divides by it", {"factor": 0.0, "total_iters": 6}, steps=5)
    yield s.case("no_iters", "no steps: the factor stays", {"factor": 0.25, "total_iters": 0}, steps=6)
    yield s.case("groups", "each group from its own rate", {"factor": 0.1, "total_iters": 4}, groups=3, steps=8)
    yield s.case("resumed", "resumed just before the end, which construction then makes", {"factor": 0.3, "total_iters": 6, "last_epoch": 5}, steps=5)
    yield s.case("resumed_behind_0", "resumed behind the step at which it would divide by a factor of 0", {"factor": 0.0, "total_iters": 6, "last_epoch": 6}, steps=5)
