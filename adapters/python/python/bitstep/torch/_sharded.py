"""DTensor parameters: what a process holds of each, and what moves between processes.

A parameter whose rule updates every element on its own is stepped where its rows are. Any other is assigned to one
process, the owner, which has its whole state: the owner gets the rows of gradient and parameter, steps the whole
tensor, and hands the new rows back. Both have the bits of one process that holds everything.

The processes of a mesh make the same calls in the same order, as with every use of DTensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Callable, Iterable, Sequence

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Replicate, Shard

from .. import _bitstep

__all__ = [
    "Layout",
    "gather",
    "gradient",
    "layouts",
    "local",
    "local_rows",
    "norms",
    "placed",
    "scatter",
    "spread",
    "whole",
]


def _rows(count: int, processes: int, rank: int) -> tuple[int, int]:
    """The rows of a process under `Shard(0)`: as many as `torch.chunk` gives, the last ones fewer or none."""
    step = -(-count // processes)
    start = min(count, rank * step)
    return start, min(count, start + step)


@dataclass(frozen=True)
class Layout:
    """How a parameter lies on the processes of its mesh."""

    mesh: Any
    along: int
    """The dimension of the mesh over whose processes the rows are spread; along the others they are repeated."""
    shape: torch.Size
    owner: int | None
    """The rank that steps the whole tensor; None: each process steps its rows."""

    @property
    def group(self) -> Any:
        return self.mesh.get_group(self.along)

    @property
    def rank(self) -> int:
        return self.mesh.get_local_rank(self.along)

    @property
    def processes(self) -> int:
        return self.mesh.size(self.along)

    @property
    def over(self) -> tuple[Any, int]:
        """What layouts have in common whose rows are spread over the same processes."""
        return self.mesh, self.along

    def placements(self, dim: int) -> list[Any]:
        """Those of a tensor that lies as the rows do, along its dimension `dim`."""
        return [Shard(dim) if k == self.along else Replicate() for k in range(self.mesh.ndim)]

    @property
    def here(self) -> bool:
        """Whether this process steps it, or a part of it."""
        return self.owner is None or self.owner == self.rank

    @property
    def rows(self) -> tuple[int, int]:
        """The first row of this process, and the one behind its last."""
        return _rows(self.shape[0], self.processes, self.rank)

    @property
    def part(self) -> tuple[int, int]:
        """The elements that this process steps, from the first to that behind the last."""
        if self.owner is None:
            start, end = self.rows
            row = prod(self.shape[1:])
            return start * row, end * row
        return (0, prod(self.shape) if self.here else 0)


def _placements(tensor: Any) -> str:
    return ", ".join(map(str, tensor.placements)) + f" on a mesh of {tensor.device_mesh.ndim} dimensions"


def _is_whole(tensor: torch.Tensor) -> bool:
    """Whether every process has all of it."""
    return not isinstance(tensor, DTensor) or all(placement.is_replicate() for placement in tensor.placements)


def _along(tensor: Any) -> int | None:
    """The one dimension of its mesh along which a tensor is in rows."""
    cut = [k for k, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    # Subclasses of `Shard` have another order of rows.
    rows = len(cut) == 1 and type(tensor.placements[cut[0]]) is Shard and tensor.placements[cut[0]].dim == 0
    return cut[0] if rows else None


def layouts(
    params: Sequence[torch.Tensor],
    multiple: Callable[[torch.Tensor], int | None],
    before: Iterable[Layout | None],
    name: Callable[[int], str],
) -> list[Layout | None]:
    """The layout of each parameter of a group; None for one that is whole in every process.

    `multiple` is the number of elements of which parts of a parameter must be multiples. `before` are the layouts of
    earlier groups: what is assigned is balanced over all of them, the largest tensors first, by the number of elements.
    """
    for i, p in enumerate(params):
        if _is_whole(p):
            continue
        along = _along(p)
        if along is None:
            raise ValueError(f"{name(i)}: placement is {_placements(p)}, but must be Shard(0) once and else Replicate()")
        start, end = _rows(p.shape[0], p.device_mesh.size(along), p.device_mesh.get_local_rank(along))
        if len(local(p)) != end - start:
            raise ValueError(f"{name(i)}: {len(local(p))} of its rows are here, but must be {end - start}, as of torch.chunk")
    loads: dict[Any, list[int]] = {}
    for layout in before:
        if layout is not None and layout.owner is not None:
            loads.setdefault(layout.over, [0] * layout.processes)[layout.owner] += prod(layout.shape)
    found: list[Layout | None] = [None] * len(params)
    for i in sorted(range(len(params)), key=lambda i: (-params[i].numel(), i)):
        p = params[i]
        if _is_whole(p):
            continue
        mesh, along, step = p.device_mesh, _along(p), multiple(p)
        owner = None
        # By rows, so that how a state is split does not depend on the number of processes.
        if step is None or prod(p.shape[1:]) % step:
            load = loads.setdefault((mesh, along), [0] * mesh.size(along))
            owner = load.index(min(load))
            load[owner] += p.numel()
        found[i] = Layout(mesh, along, p.shape, owner)
    return found


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or its rows in this process."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gradient(p: torch.Tensor, i: int) -> torch.Tensor | None:
    """The gradient of a parameter, or its rows in this process."""
    grad = p.grad
    if grad is None:
        return None
    same = isinstance(grad, DTensor) and isinstance(p, DTensor) and grad.device_mesh == p.device_mesh
    if isinstance(grad, DTensor) and not (same and grad.placements == p.placements):
        its = ", ".join(map(str, p.placements)) if isinstance(p, DTensor) else "no DTensor"
        raise ValueError(f"grads[{i}]: placement is {_placements(grad)}, but must be its parameter's: {its}")
    return local(grad)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _sizes(layout: Layout, shape: Sequence[int], dtype: torch.dtype) -> list[int]:
    """The bytes of a tensor in each process."""
    row = prod(shape[1:]) * dtype.itemsize
    each = (_rows(shape[0], layout.processes, rank) for rank in range(layout.processes))
    return [(end - start) * row for start, end in each]


Item = tuple[Layout, Sequence[int], torch.dtype, "torch.Tensor | None"]
"""A tensor in rows, its dimensions and type, and what this process has of it."""


def _by_mesh(items: Sequence[Item]) -> Iterable[list[int]]:
    meshes: dict[Any, list[int]] = {}
    for k, (layout, *_) in enumerate(items):
        meshes.setdefault(layout.over, []).append(k)
    return meshes.values()


def _exchange(to: list[list[torch.Tensor]], sizes: list[int], group: Any) -> tuple[torch.Tensor, ...]:
    """Sends to every process its pieces, and returns what came from each, of these sizes."""
    received = torch.empty(sum(sizes), dtype=torch.uint8)
    if len(to) > 1:
        sent = torch.cat([torch.empty(0, dtype=torch.uint8), *(piece for pieces in to for piece in pieces)])
        dist.all_to_all_single(received, sent, sizes, [sum(map(len, pieces)) for pieces in to], group=group)
    return received.split(sizes)


def gather(items: Sequence[Item]) -> list[torch.Tensor | None]:
    """Whole tensors at their owners, from the rows in each process; None elsewhere. One exchange for each mesh.

    A tensor whose rows are all in one process, of one, is not copied.
    """
    found: list[torch.Tensor | None] = [None] * len(items)
    for own in _by_mesh(items):
        first = items[own[0]][0]
        to: list[list[torch.Tensor]] = [[] for _ in range(first.processes)]
        sizes = [0] * first.processes
        for k in own:
            layout, shape, dtype, rows = items[k]
            if layout.here:
                sizes = [a + b for a, b in zip(sizes, _sizes(layout, shape, dtype))]
            else:
                to[layout.owner].append(_bytes(rows))
        sizes[first.rank] = 0  # its own rows are not sent
        received = _exchange(to, sizes, first.group)
        at = [0] * first.processes
        for k in own:
            layout, shape, dtype, rows = items[k]
            if not layout.here:
                continue
            if layout.processes == 1:
                found[k] = rows
                continue
            found[k] = torch.empty(shape, dtype=dtype)
            parts = _sizes(layout, shape, dtype)
            whole = found[k].view(-1).view(torch.uint8).split(parts)
            for rank, size in enumerate(parts):
                if rank == first.rank:
                    whole[rank].copy_(_bytes(rows))
                    continue
                whole[rank].copy_(received[rank][at[rank] : at[rank] + size])
                at[rank] += size
    return found


def scatter(items: Sequence[Item]) -> list[torch.Tensor]:
    """The rows of this process, of whole tensors at their owners, which view them. One exchange for each mesh."""
    found: list[torch.Tensor] = [None] * len(items)  # type: ignore[list-item]
    for own in _by_mesh(items):
        first = items[own[0]][0]
        to: list[list[torch.Tensor]] = [[] for _ in range(first.processes)]
        sizes = [0] * first.processes
        for k in own:
            layout, shape, dtype, whole = items[k]
            parts = _sizes(layout, shape, dtype)
            if layout.here:
                for rank, piece in enumerate(_bytes(whole).split(parts)):
                    if rank != first.rank:
                        to[rank].append(piece)
            else:
                sizes[layout.owner] += parts[first.rank]
        received = _exchange(to, sizes, first.group)
        at = [0] * first.processes
        for k in own:
            layout, shape, dtype, whole = items[k]
            size = _sizes(layout, shape, dtype)[first.rank]
            start, end = _rows(shape[0], layout.processes, first.rank)
            if layout.here:
                found[k] = whole[start:end]
                continue
            found[k] = torch.empty([end - start, *shape[1:]], dtype=dtype)
            piece = received[layout.owner][at[layout.owner] : at[layout.owner] + size]
            found[k].view(-1).view(torch.uint8).copy_(piece)
            at[layout.owner] += size
    return found


def placed(layout: Layout, rows: torch.Tensor, count: int, dim: int = 0) -> torch.Tensor:
    """The tensor of which `rows` are those of this process, along a dimension of `count` in all."""
    shape = [*rows.shape]
    shape[dim] = count
    stride = [prod(shape[k + 1 :]) for k in range(len(shape))]
    return DTensor.from_local(
        rows, layout.mesh, layout.placements(dim), run_check=False, shape=torch.Size(shape), stride=tuple(stride)
    )


def spread(states: dict[int, dict[str, Any]], known: Sequence[Layout | None]) -> dict[int, dict[str, Any]]:
    """The states of assigned parameters, which their owners have, as tensors in rows of all processes.

    Every process of the meshes calls it, and gets an entry for each parameter that has a state.
    """
    found: dict[int, dict[str, Any]] = {}
    assigned = [i for i, layout in enumerate(known) if layout is not None and layout.owner is not None]
    for over in dict.fromkeys(known[i].over for i in assigned):
        here = [i for i in assigned if known[i].over == over]
        first = known[here[0]]
        mine = {}
        for i in here:
            if known[i].here and i in states:
                tensors = {k: v for k, v in states[i].items() if isinstance(v, torch.Tensor) and v.ndim}
                mine[i] = [(k, (tuple(tensors[k].shape), v.dtype) if k in tensors else None, None if k in tensors else v)
                           for k, v in states[i].items()]  # fmt: skip
        told: list[Any] = [None] * first.processes
        dist.all_gather_object(told, mine, group=first.group)
        listed = {i: entries for all_of_one in told for i, entries in all_of_one.items()}
        places, items = [], []
        for i in here:
            for key, tensor, value in listed.get(i, []):
                found.setdefault(i, {})[key] = value
                if tensor is not None:
                    places.append((i, key))
                    items.append((known[i], *tensor, states[i][key] if known[i].here else None))
        for (i, key), (layout, shape, *_), rows in zip(places, items, scatter(items)):
            # A view would keep the whole tensor alive.
            found[i][key] = placed(layout, rows.clone() if layout.here else rows, shape[0])
    return found


def norms(grads: Sequence[torch.Tensor], norm_type: float) -> list[float]:
    """The norm of each whole gradient. Those in rows are spread over the processes, which tell each other."""
    known = layouts(grads, lambda _: None, (), lambda i: f"grads[{i}]")
    here = [(i, layout) for i, layout in enumerate(known) if layout is not None]
    tensors = [None if layout else local(grad).contiguous() for grad, layout in zip(grads, known)]
    items = [(layout, layout.shape, grads[i].dtype, local(grads[i])) for i, layout in here]
    for (i, _), tensor in zip(here, gather(items)):
        tensors[i] = tensor
    mine = [i for i, tensor in enumerate(tensors) if tensor is not None]
    found = dict(zip(mine, _bitstep.norms([tensors[i] for i in mine], norm_type)))
    for over in dict.fromkeys(layout.over for _, layout in here):
        own = [(i, layout) for i, layout in here if layout.over == over]
        told: list[Any] = [None] * own[0][1].processes
        dist.all_gather_object(told, {i: found[i] for i, layout in own if layout.here}, group=own[0][1].group)
        for one in told:
            found.update(one)
    return [found[i] for i in range(len(grads))]


def whole(value: Any) -> Any:
    """A tensor as it is without processes."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def local_rows(layout: Layout, value: torch.Tensor, stacked: int = 0) -> torch.Tensor:
    """The rows of this process of a saved tensor, in whatever way that is placed. `stacked`: so many lie in it, along a
    new first dimension."""
    dim = 1 if stacked else 0
    if isinstance(value, DTensor):
        if value.device_mesh == layout.mesh and list(value.placements) == layout.placements(dim):
            return value.to_local()
        value = value.full_tensor()
    rows = slice(*layout.rows)
    if value.numel() % (layout.shape[0] * max(stacked, 1) or 1):
        return value  # of another length, which is an error for who reads it
    if stacked:
        return value.reshape(stacked, layout.shape[0], -1)[:, rows]
    return value.reshape(layout.shape[0], -1)[rows] if layout.shape[0] else value
