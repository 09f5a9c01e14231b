from torch.optim.lr_scheduler import SequentialLR

from schedules import Schedules, defaults, described_within, within

ENV = "main"


def make(opt, schedulers, **hyper):
    return SequentialLR(opt, schedulers=within(opt, schedulers), **hyper)


def described(hyper):
    return defaults(SequentialLR) | {**hyper, "schedulers": described_within(hyper["schedulers"])}


def cases(seed):
    s = Schedules("torch_sequential", make, seed, "torch.optim.lr_scheduler.SequentialLR", described)

    def case(title, note, *schedulers, milestones, steps=40, last_epoch=None, **more):
        hyper = {"schedulers": list(schedulers), "milestones": milestones}
        if last_epoch is not None:
            hyper["last_epoch"] = last_epoch
        return s.case(title, note, hyper, steps, **more)

    warm = ("torch_linear", {"start_factor": 0.1, "total_iters": 10})
    flat = ("torch_constant", {"factor": 0.5, "total_iters": 4})
    fall = ("torch_exponential", {"gamma": 0.9})
    wave = ("torch_cosine_annealing", {"T_max": 20, "eta_min": 1e-5})
    yield case("default", "warm-up, then a fall from the base rate", warm, fall, milestones=[10])
    yield case("warmup_cosine", "warm-up, then a cosine", warm, wave, milestones=[10])
    yield case("early", "a milestone before warm-up is over", warm, wave, milestones=[4])
    yield case("three", "three in turn", warm, fall, flat, milestones=[7, 15])
    yield case("four", "four in turn", flat, ("torch_step", {"step_size": 3, "gamma": 0.5}), ("torch_polynomial", {"total_iters": 9, "power": 2.0}), wave, milestones=[5, 16, 27])
    yield case("multi_step", "its closed form counts milestones at 0", fall, ("torch_multi_step", {"milestones": [0, 3, 7], "gamma": 0.5}), milestones=[6], steps=20)
    yield case("constant_0", "the closed form of a factor that lasts no steps", fall, ("torch_constant", {"factor": 0.3, "total_iters": 0}), milestones=[6], steps=20)
    yield case("restarts", "warm restarts after a warm-up", warm, ("torch_cosine_annealing_warm_restarts", {"T_0": 5, "T_mult": 2}), milestones=[10], steps=60)
    yield case("at_0", "a milestone at 0: the second begins", warm, fall, milestones=[0], steps=20)
    yield case("same", "two milestones at one step: the one between never runs", warm, flat, fall, milestones=[5, 5], steps=20)
    yield case("one", "one schedule, no milestones", fall, milestones=[], steps=10)
    yield case("cyclic_first", "a cycle first: later schedules start from its lower rate", ("torch_cyclic", {"base_lr": 1e-3, "max_lr": 0.1, "step_size_up": 4}), fall, milestones=[12])
    yield case("cyclic_second", "a cycle second: its rates are its own", warm, ("torch_cyclic", {"base_lr": 1e-3, "max_lr": 0.1, "step_size_up": 4}), milestones=[10])
    yield case("one_cycle", "one cycle second: the first schedule begins at its first rate", warm, ("torch_one_cycle", {"max_lr": 0.2, "total_steps": 30}), milestones=[10])
    yield case("one_cycle_first", "one cycle first: the second starts from its first rate", ("torch_one_cycle", {"max_lr": 0.2, "total_steps": 20}), fall, milestones=[20])
    yield case("groups", "each group from its own rate", warm, wave, fall, milestones=[10, 25], groups=3)
    cycle = ("torch_cyclic", {"base_lr": 1e-3, "max_lr": 0.1, "step_size_up": 4})
    yield case("resumed_0", "resumed after step 0: the first begins at its start, one step nearer to the milestone", warm, fall, milestones=[10], last_epoch=0)
    yield case("resumed_late", "resumed past the milestone: the second multiplies the rate that the first begins with", warm, wave, fall, milestones=[4, 20], last_epoch=5)
    yield case("resumed_at", "resumed at the milestone, which is not met any more", warm, flat, milestones=[8], last_epoch=7, steps=20)
    yield case("disordered", "milestones that are not in order: Python searches them all the same", warm, fall, wave, milestones=[9, 4], steps=20)
    yield case("disordered_0", "a milestone of 0 behind others: its schedule makes its own step 0 when its turn comes", warm, fall, flat, wave, milestones=[10, 16, 0], steps=30)
    yield case("resumed_cyclic", "a cycle first, in groups that have an initial_lr: later schedules start from that", cycle, fall, milestones=[12], last_epoch=3, groups=2)
