from torch.optim.lr_scheduler import MultiStepLR

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("torch_multi_step", MultiStepLR, seed)
    yield s.case("default", "two milestones", {"milestones": [10, 25]})
    yield s.case("repeated", "a milestone given three times counts thrice", {"milestones": [4, 9, 9, 9, 20], "gamma": 0.7})
    yield s.case("unsorted", "milestones in no order", {"milestones": [30, 3, 17], "gamma": 0.3})
    yield s.case("zero", "a milestone at 0 acts at construction", {"milestones": [0, 5], "gamma": 0.5}, steps=10)
    yield s.case("none", "no milestones", {"milestones": []}, steps=5)
    yield s.case("groups", "each group from its own rate", {"milestones": [2, 3, 11], "gamma": 0.6}, groups=3, steps=16)
