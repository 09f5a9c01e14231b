from transformers.optimization import get_wsd_schedule

from schedules import Schedules

ENV = "main"
SHAPES = {"linear": "linear", "cosine": "cosine", "1-sqrt": "sqrt"}


def cases(seed):
    s = Schedules("warmup_stable_decay", get_wsd_schedule, seed)
    steps = {"num_warmup_steps": 10, "num_decay_steps": 20, "num_training_steps": 45}
    yield s.case("default", "up, constant, down; then the floor", steps, steps=55)
    for up, short_up in SHAPES.items():
        for down, short_down in SHAPES.items():
            yield s.case(
                f"{short_up}_{short_down}",
                f"warm-up {up}, decay {down}, both stretched to a floor",
                {**steps, "warmup_type": up, "decay_type": down, "min_lr_ratio": 0.1},
                steps=50,
            )
    stable = {"num_warmup_steps": 5, "num_decay_steps": 10, "num_stable_steps": 7}
    yield s.case("stable", "the middle's length is given", stable, steps=30)
    yield s.case("stable_wins", "both lengths given: the middle's counts", {**stable, "num_training_steps": 100}, steps=30)
    yield s.case("cycles", "decay along 1.5 waves", {**steps, "num_cycles": 1.5}, steps=50)
    yield s.case("no_warmup", "no warm-up", {**steps, "num_warmup_steps": 0, "min_lr_ratio": 0.05}, steps=50)
    yield s.case("no_decay", "no decay: the floor at once", {**steps, "num_decay_steps": 0, "min_lr_ratio": 0.2}, steps=50)
    yield s.case(
        "overlap",
        "warm-up and decay longer than training: decay is under way when warm-up ends",
        {"num_warmup_steps": 20, "num_decay_steps": 20, "num_training_steps": 30, "min_lr_ratio": 0.1},
        steps=40,
    )
    yield s.case("groups", "each group from its own rate", {**steps, "decay_type": "1-sqrt"}, groups=3, steps=50)
