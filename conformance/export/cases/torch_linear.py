from torch.optim.lr_scheduler import LinearLR

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("torch_linear", LinearLR, seed)
    yield s.case("default", "from a third to all in five steps", {}, steps=12)
    yield s.case("down", "down to nothing", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 20}, steps=25)
    yield s.case("up", "from almost nothing", {"start_factor": 1e-6, "total_iters": 30}, steps=35)
    yield s.case("same", "both ends the same", {"start_factor": 0.4, "end_factor": 0.4, "total_iters": 7}, steps=10)
    yield s.case("no_iters", "no steps: the first factor stays", {"total_iters": 0}, steps=5)
    yield s.case("long", "rounding piles up", {"start_factor": 0.01, "end_factor": 0.9, "total_iters": 700}, steps=720)
    yield s.case("groups", "each group from its own rate", {"start_factor": 0.2, "total_iters": 9}, groups=3, steps=12)
    yield s.case("resumed", "construction changes nothing", {"start_factor": 0.2, "total_iters": 9, "last_epoch": 3}, steps=10)
