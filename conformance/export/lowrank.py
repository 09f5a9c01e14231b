"""Optimizers that project: the groups that make them do so, and what they projected with."""

import numpy as np
import torch

from golden import run_torch_optimizer

SHAPES = [(3,), (6, 3), (3, 6), (4, 4)]  # one dimension, which is never projected; tall, wide, square
GAP = 4
STEPS = 9  # refreshes at 0, 4 and 8
RATES = [0.0, 0.25, 1.0, 0.5, 2.0, 0.125, 0.001, 1.0, 0.3]


class Projectors:
    """Notes every projector when it comes into force, for `refresh_at` and `given`."""

    def __init__(self):
        self.last, self.at, self.rows = {}, {}, {}

    def after(self, opt, params, t, rows):
        for i, p in enumerate(params):
            projector = opt.state[p].get("projector") if p in opt.state else None
            if projector is None or projector.ortho_matrix is self.last.get(i):
                continue
            self.last[i] = matrix = projector.ortho_matrix  # held on to, so that no other takes its address
            self.at.setdefault(i, []).append(t)
            both = isinstance(matrix, (list, tuple))
            for j, m in enumerate(matrix if both else [matrix]):
                self.rows.setdefault(f"p{i}.given.projector" + (f"_{j}" if both else ""), []).append(m)

    def finish(self, opt, params):
        tensors = {f"p{i}.refresh_at": np.array(at, dtype=np.int64) for i, at in self.at.items()}
        return tensors | {key: torch.stack(matrices) for key, matrices in self.rows.items()}


def projected(name, cls, reference, seed, hyper=None, projection=None, **common):
    """A function that makes one case of `cls`: `group` are the arguments of the group that is projected,
    beside `projection`; tensors of fewer than two dimensions are in a group before it. What else
    is `common` goes to every run."""
    base = {"rank": 2, "update_proj_gap": GAP, "scale": 0.25, "proj_type": "std", **(projection or {})}

    def case(title, note, arguments=None, *, group=None, shapes=SHAPES, targets=None, plain=None, steps=STEPS, **more):
        if targets is None:
            targets = [i for i, s in enumerate(shapes) if len(s) == 2]
        others = [i for i in range(len(shapes)) if i not in targets]
        groups = [{"params": others, **(plain or {})}] if others else []
        groups += [{"params": targets, **base, **(group or {})}]
        seen = Projectors()
        return run_torch_optimizer(
            title,
            name,
            cls,
            {**(hyper or {}), **(arguments or {})},
            seed=seed,
            note=note,
            shapes=shapes,
            groups=groups,
            steps=steps,
            after=seen.after,
            finish=seen.finish,
            reference=reference,
            **common,
            **more,
        )

    return case


def options(case, strong, full):
    """Every way to project, and the situations in which it matters."""
    for d in ("f32", "f64", "bf16", "f16"):
        yield case(
            f"std_{d}",
            f"tall matrices from the right, wide ones from the left, refreshed at 0, 4 and 8, in {d}; "
            "the moments are not turned with the projector",
            dtype=d,
        )
        yield case(f"reverse_std_{d}", f"the other side of each in {d}", strong, group={"proj_type": "reverse_std"}, dtype=d)
    for d in ("f32", "f64", "bf16"):
        for kind in ("right", "left"):
            yield case(
                f"{kind}_{d}", f"always from the {kind} in {d}, whatever the shape", strong, group={"proj_type": kind}, dtype=d
            )
    for d in ("f32", "f64"):
        yield case(
            f"full_{d}",
            f"from both sides in {d}; a large epsilon holds what is only rounding noise",
            {**strong, **full},
            group={"proj_type": "full"},
            dtype=d,
        )
    yield from situations(case, strong)


def situations(case, strong):
    for d in ("f32", "bf16"):
        yield case(
            f"strong_{d}",
            f"{', '.join(strong)} far from the defaults in {d}: what is decayed, and by which rate",
            strong,
            group={"scale": 2.0},
            dtype=d,
        )
    yield case("scale_f32", "scale = 3: how often it is applied", strong, group={"scale": 3.0})
    yield case("rank1_f32", "rank 1", strong, group={"rank": 1})
    yield case("rank_max_f32", "a rank beyond both dimensions", strong, group={"rank": 8})
    yield case("gap1_f32", "a new projector at every step", strong, group={"update_proj_gap": 1}, steps=6)
    yield case("gap_never_f32", "a gap beyond the end: one projector", strong, group={"update_proj_gap": 200})
    yield case("row_col_f32", "one row, one column, one element", strong, shapes=[(1, 6), (6, 1), (1, 1)], group={"rank": 1})
    yield case(
        "lr_schedule_f32", "a rate that changes at every step, 0 included", strong, lr=[0.05 * r for r in RATES]
    )
    yield case(
        "nograd_f32",
        "steps without a gradient: a parameter's own counter says when it refreshes",
        strong,
        steps=12,
        has_grad=lambda i, t: t != 5 and (i == 1 or t not in (3, 4, 9)),
    )
    yield case(
        "joins_f32",
        "a first gradient at step 3: a projector then, and the next one 4 updates later",
        strong,
        shapes=[(6, 3), (3, 4)],
        has_grad=lambda i, t: i == 0 or t >= 3,
    )
    yield case("large_f32", "vector tails: sizes that no vector divides", strong, shapes=[(37, 21)], group={"rank": 5}, steps=3)
    yield case("large_bf16", "vector tails in bf16", strong, shapes=[(21, 37)], group={"rank": 5}, steps=2, dtype="bf16")
    yield case(
        "groups_f32",
        "a matrix that is not projected, beside those that are, with arguments of their own",
        strong,
        shapes=[(3,), (2, 3), (5, 3), (4, 6)],
        targets=[2, 3],
        plain={"weight_decay": 0.0},
        group={"rank": 3, "update_proj_gap": 3, "weight_decay": 0.1},
    )
    yield case(
        "zero_grad_f32",
        "gradients of 0 for two steps after a refresh, then at a refresh",
        strong,
        shapes=[(5, 3), (3, 5)],
        edit=zeros_at(1, 2, 4),
    )


def zeros_at(*steps):
    def edit(inputs):
        for g in inputs.grads:
            g[list(steps)] = 0.0

    return edit
