from torch.optim.lr_scheduler import OneCycleLR

from schedules import Schedules

ENV = "main"


def cases(seed):
    s = Schedules("torch_one_cycle", OneCycleLR, seed)
    cycle = {"max_lr": 0.1, "total_steps": 50}
    yield s.case("default", "up, then far down; the reference takes one step beyond the end", cycle, steps=50)
    yield s.case("linear", "in lines", {**cycle, "anneal_strategy": "linear"}, steps=50)
    yield s.case("three_phase", "down in two phases", {**cycle, "three_phase": True}, steps=50)
    yield s.case("three_phase_linear", "in lines", {**cycle, "three_phase": True, "anneal_strategy": "linear"}, steps=50)
    yield s.case("epochs", "steps from epochs", {"max_lr": 0.1, "epochs": 4, "steps_per_epoch": 9}, steps=36)
    yield s.case("total_wins", "both given: total_steps counts", {**cycle, "epochs": 2, "steps_per_epoch": 5}, steps=50)
    yield s.case("pct_0", "down only", {**cycle, "pct_start": 0.0}, steps=50)
    yield s.case("pct_1", "up only", {**cycle, "pct_start": 1.0}, steps=49)
    yield s.case("pct_odd", "phases that do not end on a step", {**cycle, "pct_start": 0.37, "three_phase": True}, steps=50)
    yield s.case("factors", "other factors", {**cycle, "div_factor": 3.0, "final_div_factor": 7.0}, steps=50)
    yield s.case("factor_1", "from the top", {**cycle, "div_factor": 1.0}, steps=50)
    yield s.case("no_momentum", "momentum is left alone", {**cycle, "cycle_momentum": False}, steps=20)
    yield s.case("groups", "the groups' own rates do not count", cycle, groups=2, steps=50)
    yield s.case("groups_lists", "a highest rate for each group", {**cycle, "max_lr": [0.1, 0.02, 3.0]}, groups=3, steps=50)
    yield s.case("long", "near the end a cosine cancels", {"max_lr": 0.01, "total_steps": 1000}, steps=1000)
