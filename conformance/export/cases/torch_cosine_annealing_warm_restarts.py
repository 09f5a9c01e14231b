from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("torch_cosine_annealing_warm_restarts", CosineAnnealingWarmRestarts, seed)
    yield s.case("default", "parts of ten steps", {"T_0": 10})
    yield s.case("mult_2", "each part twice as long", {"T_0": 3, "T_mult": 2}, steps=100)
    yield s.case("mult_3", "each part three times as long, from one step", {"T_0": 1, "T_mult": 3}, steps=60)
    yield s.case("eta_min", "a floor", {"T_0": 7, "eta_min": 2e-4})
    yield s.case("one", "parts of one step", {"T_0": 1}, steps=5)
    yield s.case("long", "long parts", {"T_0": 300, "T_mult": 2, "eta_min": 1e-6}, steps=950)
    yield s.case("groups", "each group from its own rate", {"T_0": 4, "T_mult": 2, "eta_min": 1e-3}, groups=3, steps=30)
    yield s.case("resumed", "resumed in the first part", {"T_0": 10, "T_mult": 2, "last_epoch": 4}, steps=50)
    yield s.case("resumed_late", "resumed far on: it restarts once only, then goes on from there", {"T_0": 4, "T_mult": 2, "last_epoch": 30}, steps=50)
