from torch.optim.lr_scheduler import ChainedScheduler

from schedules import Schedules, described_within, within

ENV = "main"


def make(opt, schedulers):
    return ChainedScheduler(within(opt, schedulers), optimizer=opt)


def described(hyper):
    return {"schedulers": described_within(hyper["schedulers"])}


def cases(seed):
    s = Schedules("torch_chained", make, seed, "torch.optim.lr_scheduler.ChainedScheduler", described)

    def case(title, note, *schedulers, steps=40, **more):
        return s.case(title, note, {"schedulers": list(schedulers)}, steps, **more)

    warm = ("torch_linear", {"start_factor": 0.1, "total_iters": 10})
    flat = ("torch_constant", {"factor": 0.5, "total_iters": 4})
    fall = ("torch_exponential", {"gamma": 0.95})
    wave = ("torch_cosine_annealing", {"T_max": 20, "eta_min": 1e-5})
    yield case("default", "a share while an exponential falls", flat, fall)
    yield case("warmup_cosine", "a recursive cosine acts on the rate in force", warm, wave, steps=50)
    yield case("cosine_first", "the other order", wave, warm, steps=50)
    yield case("many", "all that multiply", warm, flat, fall, ("torch_step", {"step_size": 7, "gamma": 0.7}), ("torch_multi_step", {"milestones": [3, 12], "gamma": 0.8}), ("torch_polynomial", {"total_iters": 60, "power": 1.2}))
    yield case("one", "a chain of one", fall, steps=10)
    yield case("restarts_last", "a closed form undoes what came before", fall, ("torch_cosine_annealing_warm_restarts", {"T_0": 6}))
    yield case("restarts_first", "and is changed by what comes after", ("torch_cosine_annealing_warm_restarts", {"T_0": 6}), fall)
    yield case("cyclic_first", "a cycle first: the cosine's base is its lower rate", ("torch_cyclic", {"base_lr": 1e-3, "max_lr": 0.1, "step_size_up": 4}), wave, steps=50)
    yield case("cyclic_second", "a cycle second: at construction it starts from the optimizer's rate", fall, ("torch_cyclic", {"base_lr": 1e-3, "max_lr": 0.1, "step_size_up": 4}))
    yield case("twice", "the same twice", fall, fall)
    yield case("groups", "each group from its own rate", warm, wave, groups=3, steps=50)
