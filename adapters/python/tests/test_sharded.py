"""The same bits on 1, 2, 3 and 4 processes: DTensors in rows, FSDP2, DDP, and checkpoints.

Four processes run everything once, with gloo; smaller meshes are of the first of them. Each leaves what it has found in a
file, and the tests compare: bits as hashes, against one process with plain tensors.
"""

import copy
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import bitstep  # noqa: E402
import bitstep.torch  # noqa: E402
from bitstep._references import record  # noqa: E402

WORLD = 4
# Rows: more than processes, as many as three, one, and none; 4,608 elements, from which on bitsandbytes has 8-bit state,
# in rows of a block and in rows of less.
SHAPES = [(18, 256), (72, 64), (3, 32), (1, 7), (5,), (0, 3)]
MATRICES = [(18, 256), (3, 32), (1, 7), (72, 64)]
FEW = (1, 3)  # processes, for every name; of each kind there are all of 1 to 4
STEPS, LONG = 7, 50  # RAdam begins to move at its sixth step
BF16 = torch.bfloat16
# One of each kind: name, arguments, those of its groups, type.
KINDS = {
    "elementwise": ("adamw_torch", {}, {}, torch.float32),
    "no state": ("sgd", {"lr": 0.01}, {}, torch.float64),
    "stacked slots": ("ademamix", {}, {}, torch.float32),
    "two parameter sets": ("schedule_free_adamw", {"warmup_steps": 5}, {}, torch.float32),
    "8-bit blocks": ("adamw_bnb_8bit", {}, {}, torch.float32),
    "8-bit blocks of stacked slots": ("ademamix_8bit", {}, {}, torch.float32),
    "4-bit blocks": ("adamw_torch_4bit", {}, {}, torch.float32),
    "random rounding": ("torchao_adam8bit", {"bf16_stochastic_round": True}, {}, BF16),
    "split weights, 8-bit groups": ("flash_adamw", {}, {}, BF16),
    "compensated weights": ("adamw_anyprecision", {"use_kahan_summation": True}, {}, BF16),
    "sums": ("stable_adamw", {}, {}, torch.float32),
    "sums of the parameter": ("bnb_lamb_32bit", {}, {}, torch.float32),
    "sums, 8-bit blocks": ("bnb_lars_8bit", {"lr": 0.01, "momentum": 0.9}, {}, torch.float32),
    "place in the group": ("grokadamw", {}, {}, torch.float32),
    "rows and columns": ("adafactor", {}, {}, torch.float32),
    "norm over all gradients": ("lomo", {"lr": 0.01, "clip_grad_norm": 0.5}, {}, torch.float32),
    "both": ("adalomo", {"lr": 0.01, "clip_grad_norm": 0.5}, {}, torch.float32),
    "whole matrices": ("muon", {}, {}, torch.float32),
    "projected": ("galore_adamw", {}, {"rank": 4, "update_proj_gap": 9, "scale": 0.25, "proj_type": "std"}, torch.float32),
    "projected, 8-bit blocks": ("galore_adamw_8bit", {}, {"rank": 4, "update_proj_gap": 9, "scale": 0.25, "proj_type": "std"}, torch.float32),
    "projected at random": ("apollo_adamw", {}, {"rank": 4, "update_proj_gap": 9, "scale": 1.0, "proj": "random", "scale_type": "channel", "proj_type": "std"}, torch.float32),
}  # fmt: skip
IN_ROWS = {"elementwise", "no state", "stacked slots", "two parameter sets", "compensated weights"}
ASSIGNED = {"sums", "sums of the parameter", "sums, 8-bit blocks", "place in the group", "rows and columns", "both",
            "whole matrices"}  # fmt: skip


def arguments_of(name):
    required = {"lr": 1e-3, "momentum": 0.9}
    given = {a["name"]: required[a["name"]] for a in record(name)["arguments"] if "default" not in a}
    return given | ({"momentum": 0.9} if name.startswith(("bnb_lars", "bnb_sgd")) else {})


# --- in each process ---------------------------------------------------------------


def drawn(shape, seed, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def placed(tensor, mesh):
    """In rows over the processes of a mesh, or along that dimension of a grid whose number is given with it."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    if mesh is None:
        return tensor
    mesh, along = mesh if isinstance(mesh, tuple) else (mesh, 0)
    placements = [Shard(0) if k == along else Replicate() for k in range(mesh.ndim)]
    return distribute_tensor(tensor, mesh, placements, src_data_rank=None)


def start(name, arguments, group, dtype, mesh):
    shapes = MATRICES if name == "muon" or group else SHAPES
    ps = [torch.nn.Parameter(placed(drawn(s, i, dtype), mesh)) for i, s in enumerate(shapes)]
    # Two groups, the first without the gradient of a parameter.
    groups = [{"params": ps[:2], **group}, {"params": ps[2:], **group}]
    return bitstep.torch.optimizer(name, groups, **arguments_of(name) | arguments), ps


def go(opt, ps, first, last, mesh):
    for t in range(first, last):
        for i, p in enumerate(ps):
            p.grad = None if (t, i) == (3, 0) else placed(drawn(p.shape, 1000 * t + i, p.dtype), mesh)
        opt.step()


def digest(tensors):
    h = hashlib.sha256()
    for x in tensors:
        x = x.full_tensor() if hasattr(x, "full_tensor") else x
        h.update(x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()


def flat(state, path=""):
    """Tensors of a state_dict by their paths."""
    for key, value in state.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}/{key}")
        elif isinstance(value, torch.Tensor):
            yield f"{path}/{key}", value


def full(state):
    """A state_dict whose tensors are whole in every process."""
    if isinstance(state, dict):
        return {key: full(value) for key, value in state.items()}
    return state.full_tensor() if hasattr(state, "full_tensor") else state


def refused(call, *errors):
    try:
        call()
    except errors as error:
        return str(error)
    return None


class Worker:
    def __init__(self, rank, folder):
        from torch.distributed.device_mesh import DeviceMesh

        self.rank, self.folder = rank, folder
        self.meshes = {n: DeviceMesh("cpu", list(range(n))) for n in range(1, WORLD + 1)}
        self.mine = {n: mesh for n, mesh in self.meshes.items() if rank < n}
        self.grid = DeviceMesh("cpu", [[0, 1], [2, 3]], mesh_dim_names=("copies", "rows"))
        self.found = {}

    def everywhere(self, key, of, counts=range(1, WORLD + 1)):
        """What `of` finds with plain tensors, and on the meshes of so many processes that this one is in."""
        for n, mesh in {0: None, **self.mine}.items():
            if n in counts or n == self.rank == 0:
                self.found[f"{key}/{n}"] = of(mesh)

    def names(self):
        def of(name):
            def run(mesh):
                dtype = BF16 if name.startswith("flash") else torch.float32
                opt, ps = start(name, {}, {}, dtype, mesh)
                go(opt, ps, 0, STEPS, mesh)
                return digest(ps)

            return run

        for name in bitstep.optimizers():
            self.everywhere(f"names/{name}", of(name), FEW)

    def kinds(self):
        def of(kind):
            def run(mesh):
                name, arguments, group, dtype = KINDS[kind]
                opt, ps = start(name, arguments, group, dtype, mesh)
                before = digest(ps)
                go(opt, ps, 0, LONG, mesh)
                after = digest(ps)
                found = {"moved": before != after, "training": after, "bytes": len(opt._core.save())}
                if hasattr(opt, "eval"):
                    opt.eval()
                    found["evaluation"] = digest(ps)
                    opt.train()
                    found["again"] = digest(ps)
                if mesh is not None:
                    found["owners"] = [layout.owner for layout in opt._layouts]
                return found

            return run

        for kind in KINDS:
            self.everywhere(f"kinds/{kind}", of(kind))

    def copies(self):
        """state_dict, and how the bits go on from it: loaded here, on other meshes by way of files, and in one process."""
        import torch.distributed.checkpoint as dcp

        for kind, (name, arguments, group, dtype) in KINDS.items():
            key, path = f"copies/{kind}", str(self.folder / f"checkpoint-{list(KINDS).index(kind)}")

            def named(ps, state):
                # Numbers as keys would come back as text beside them.
                params, states = ({str(i): x for i, x in entries} for entries in (enumerate(ps), state["state"].items()))
                return {"params": params, "state": states, "param_groups": state["param_groups"]}

            def resume(mesh, saved_params, state):
                opt, ps = start(name, arguments, group, dtype, mesh)
                with torch.no_grad():
                    for p, saved in zip(ps, saved_params):
                        p.copy_(saved)
                opt.load_state_dict(state)
                go(opt, ps, 5, 9, mesh)
                return digest(ps)

            # Saved under four.
            mesh = self.meshes[4]
            opt, ps = start(name, arguments, group, dtype, mesh)
            go(opt, ps, 0, 5, mesh)
            state = opt.state_dict()
            tensors = dict(flat(state["state"]))
            self.found[f"{key}/tensors"] = {k: [list(x.shape), hasattr(x, "placements")] for k, x in tensors.items()}
            dcp.save(named(ps, state), checkpoint_id=path)
            whole = full(state["state"])
            whole_params = [p.detach().full_tensor() for p in ps]
            self.found[f"{key}/resumed"] = resume(mesh, [p.detach().clone() for p in ps], state)
            if self.rank == 0:
                self.found[f"{key}/alone"] = resume(None, whole_params, {**state, "state": whole})
            # A state of tensors that are whole in every process.
            self.found[f"{key}/from whole"] = resume(mesh, [placed(p, mesh) for p in whole_params], {**state, "state": whole})
            copied = copy.deepcopy(opt)
            theirs = [p for g in copied.param_groups for p in g["params"]]
            go(copied, theirs, 5, 9, mesh)
            self.found[f"{key}/copied"] = digest(theirs)
            go(opt, ps, 5, 9, mesh)
            self.found[f"{key}/uninterrupted"] = digest(ps)
            # Loaded under two.
            if self.rank < 2:
                mesh = self.meshes[2]
                opt, ps = start(name, arguments, group, dtype, mesh)
                go(opt, ps, 0, 1, mesh)  # so that there is a state of the right shape
                target = named(ps, opt.state_dict())
                dcp.load(target, checkpoint_id=path, process_group=mesh.get_group())
                state = {int(i): of_one for i, of_one in target["state"].items()}
                opt.load_state_dict({"state": state, "param_groups": target["param_groups"]})
                go(opt, ps, 5, 9, mesh)
                self.found[f"{key}/under two"] = digest(ps)

    def grids(self):
        """Rows along one dimension of a mesh, and copies of them along the other; what is saved so goes on elsewhere."""
        for kind, (name, arguments, group, dtype) in KINDS.items():
            for along in (0, 1):
                on = (self.grid, along)
                opt, ps = start(name, arguments, group, dtype, on)
                go(opt, ps, 0, 5, on)
                state, values = opt.state_dict(), [p.detach().full_tensor() for p in ps]
                for where, mesh in (("same", on), ("other", (self.grid, 1 - along)), ("line", self.meshes[WORLD])):
                    again, qs = start(name, arguments, group, dtype, mesh)
                    with torch.no_grad():
                        for q, value in zip(qs, values):
                            q.copy_(placed(value, mesh))
                    again.load_state_dict(state)
                    go(again, qs, 5, 9, mesh)
                    self.found[f"grids/{kind}/{along}/{where}"] = digest(qs)
                if kind == "elementwise":
                    norm = bitstep.torch.clip_grad_norm_(ps, 0.25)
                    self.found[f"grids/clipping/{along}"] = [norm.item(), digest([p.grad for p in ps])]
                    plain = start(name, arguments, group, dtype, None)[1]
                    for i, p in enumerate(plain):
                        p.grad = drawn(p.shape, 4000 + i, dtype)
                    norm = bitstep.torch.clip_grad_norm_(plain, 0.25)
                    self.found[f"grids/clipping/{along}/plain"] = [norm.item(), digest([p.grad for p in plain])]

    def fsdp(self):
        """FSDP2 with a real model, whose gradients one process with plain tensors steps, too."""
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            get_optimizer_state_dict,
            set_optimizer_state_dict,
        )
        from torch.distributed.fsdp import fully_shard

        def model():
            torch.manual_seed(0)
            return torch.nn.Sequential(
                torch.nn.Embedding(11, 6), torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3)
            )

        for n, mesh in {**self.mine, "grid": self.grid}.items():
            for cls in (bitstep.torch.AdamW, bitstep.torch.Adafactor, bitstep.torch.StableAdamW):
                sharded, plain = model(), model()
                for layer in sharded:
                    if list(layer.parameters()):
                        fully_shard(layer, mesh=mesh)
                fully_shard(sharded, mesh=mesh)
                arguments = {} if cls is bitstep.torch.Adafactor else {"lr": 0.02}
                opt = cls(sharded.named_parameters(), **arguments)
                other = cls(plain.named_parameters(), **arguments)
                losses = []
                for t in range(12):
                    data = torch.randint(0, 11, (8, 4), generator=torch.Generator().manual_seed(100 * t + self.rank))
                    loss = torch.nn.functional.cross_entropy(sharded(data).flatten(0, 1), data.flatten() % 3)
                    opt.zero_grad()
                    loss.backward()
                    for p, q in zip(sharded.parameters(), plain.parameters()):
                        q.grad = p.grad.full_tensor()
                    opt.step(), other.step()
                    losses.append(loss.item())
                    if t == 5:
                        again = cls(sharded.named_parameters(), **arguments)
                        again.zero_grad()  # else torch makes no state to load into
                        if n == WORLD:
                            # As with torch's own: whole tensors at the first process, and back into rows.
                            whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
                            state = get_optimizer_state_dict(sharded, opt, options=whole)
                            rows = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
                            set_optimizer_state_dict(sharded, again, state, options=rows)
                        else:
                            state = get_optimizer_state_dict(sharded, opt)
                            set_optimizer_state_dict(sharded, again, state)
                        opt = again
                key = f"fsdp/{cls.__name__}/{n}"
                self.found[f"{key}/bits"] = digest(sharded.parameters()) == digest(plain.parameters())
                self.found[f"{key}/learns"] = losses[-1] < losses[0]

    def clipping(self):
        def of(norm_type, dtype):
            def run(mesh):
                opt, ps = start("adamw_torch", {}, {}, dtype, mesh)
                go(opt, ps, 0, 1, mesh)
                norm = bitstep.torch.clip_grad_norm_(ps, 0.25, norm_type)
                return [norm.item(), str(norm.dtype), digest([p.grad for p in ps])]

            return run

        for norm_type in (2.0, 1.0, float("inf"), 0.0, 3.0):
            for dtype in (torch.float64, torch.float32, BF16):
                self.everywhere(f"clipping/{norm_type}/{dtype}", of(norm_type, dtype))

    def ddp(self):
        from torch.nn.parallel import DistributedDataParallel

        for n, mesh in self.mine.items():
            for cls in (bitstep.torch.AdamW, bitstep.torch.Muon, bitstep.torch.AdamW8bit):
                torch.manual_seed(0)
                plain = torch.nn.Sequential(torch.nn.Linear(6, 700, bias=False), torch.nn.Tanh(), torch.nn.Linear(700, 3, bias=False))
                model = DistributedDataParallel(copy.deepcopy(plain), process_group=mesh.get_group())
                opt, other = cls(model.parameters(), lr=0.01), cls(plain.parameters(), lr=0.01)
                for t in range(12):
                    x = drawn((8, 6), 100 * t + self.rank, torch.float32)
                    opt.zero_grad()
                    (model(x) - x[:, :3]).square().mean().backward()
                    for p, q in zip(model.parameters(), plain.parameters()):
                        q.grad = p.grad.clone()
                    opt.step(), other.step()
                self.found[f"ddp/{cls.__name__}/{n}"] = digest(model.parameters())
                self.found[f"ddp/{cls.__name__}/{n}/plain"] = digest(plain.parameters())

    def refusals(self):
        from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

        mesh = self.meshes[WORLD]
        value = drawn((8, 8), 0, torch.float32)

        def made(mesh, placements):
            return torch.nn.Parameter(distribute_tensor(value.clone(), mesh, placements, src_data_rank=None))

        def new(p):
            ok = made(mesh, [Shard(0)])
            return lambda: bitstep.torch.AdamW([("fine", ok), ("odd", p)])

        self.found["refused/columns"] = refused(new(made(mesh, [Shard(1)])), ValueError)
        for key, placements in {"mesh": [Shard(0), Shard(1)], "rows of rows": [Shard(0), Shard(0)]}.items():
            self.found[f"refused/{key}"] = refused(new(made(self.grid, placements)), ValueError)
        partial = torch.nn.Parameter(DTensor.from_local(value, mesh, [Partial()], run_check=False))
        self.found["refused/partial"] = refused(new(partial), ValueError)
        uneven = DTensor.from_local(
            value[: 8 if self.rank == 0 else 0], mesh, [Shard(0)], run_check=False, shape=value.shape, stride=(8, 1)
        )
        self.found["refused/uneven"] = refused(new(torch.nn.Parameter(uneven)), ValueError)
        # A group that is refused later leaves the optimizer as it is.
        ok = made(mesh, [Shard(0)])
        opt = bitstep.torch.StableAdamW([ok], lr=0.1)
        group = {"params": [made(mesh, [Shard(1)])]}
        self.found["refused/group"] = refused(lambda: opt.add_param_group(group), ValueError)
        other = made(mesh, [Shard(0)])
        opt.add_param_group({"params": [other]})
        before = digest([ok, other]), opt._core.save()
        ok.grad = placed(value, mesh)
        other.grad = distribute_tensor(value, mesh, [Replicate()], src_data_rank=None)
        self.found["refused/gradient"] = refused(opt.step, ValueError)
        other.grad = distribute_tensor(value, mesh, [Shard(1)], src_data_rank=None)
        self.found["refused/columns of a gradient"] = refused(opt.step, ValueError)
        self.found["refused/unchanged"] = (digest([ok, other]), opt._core.save()) == before
        # To look at the state asks no other process.
        other.grad = placed(value, mesh)
        opt.step()
        if self.rank == 0:
            self.found["looked at"] = [sorted(state) for state in opt.state.values()]
        # Whole in every process: stepped whole.
        p, q = made(mesh, [Replicate()]), torch.nn.Parameter(value.clone())
        for x in (p, q):
            x.grad = distribute_tensor(value.clone(), mesh, [Replicate()], src_data_rank=None) if x is p else value.clone()
            bitstep.torch.StableAdamW([x], lr=0.1).step()
        self.found["replicated"] = digest([p]) == digest([q]) != digest([value])

    def run(self):
        for part in (self.names, self.kinds, self.copies, self.grids, self.fsdp, self.clipping, self.ddp, self.refusals):
            begin = time.monotonic()
            part()
            self.found[f"seconds/{part.__name__}"] = time.monotonic() - begin


def work(rank, folder):
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    worker = Worker(rank, Path(folder))
    worker.run()
    (Path(folder) / f"{rank}.json").write_text(json.dumps(worker.found))
    dist.barrier()
    dist.destroy_process_group()


# --- what they found ---------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the four processes found, by process."""
    folder = tmp_path_factory.mktemp("sharded")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    logs = [open(folder / f"{rank}.log", "w+") for rank in range(WORLD)]
    workers = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)], env=env, stdout=logs[rank], stderr=subprocess.STDOUT)
        for rank in range(WORLD)
    ]
    try:
        end = time.monotonic() + 600
        # One that fails leaves the others waiting for it.
        while any(w.poll() is None for w in workers) and all(w.poll() in (None, 0) for w in workers):
            assert time.monotonic() < end, "the processes did not end"
            time.sleep(0.1)
    finally:
        for w in workers:
            w.kill()
            w.wait()
    for rank, w in enumerate(workers):
        logs[rank].seek(0)
        assert w.returncode in (0, -9), f"process {rank}:\n{logs[rank].read()[-5000:]}"
    results = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)]
    print({key: round(value, 1) for key, value in results[0].items() if key.startswith("seconds")})
    return results


def of_meshes(found, key, counts=range(1, WORLD + 1)):
    """The plain result, and those of each process of each mesh."""
    plain = found[0][f"{key}/0"]
    return plain, [(n, rank, found[rank][f"{key}/{n}"]) for n in counts for rank in range(n)]


@pytest.mark.parametrize("name", bitstep.optimizers())
def test_bits_of_every_name_do_not_depend_on_the_number_of_processes(found, name):
    plain, others = of_meshes(found, f"names/{name}", FEW)
    assert [(n, rank) for n, rank, bits in others if bits != plain] == []


@pytest.mark.parametrize("kind", KINDS)
def test_bits_after_fifty_steps_do_not_depend_on_the_number_of_processes(found, kind):
    plain, others = of_meshes(found, f"kinds/{kind}")
    assert plain["moved"]
    for key in ("training", "evaluation", "again"):
        assert [(n, rank) for n, rank, its in others if its.get(key) != plain.get(key)] == []
    assert ("evaluation" in plain) == (kind == "two parameter sets")


@pytest.mark.parametrize("kind", KINDS)
def test_assigned_tensors_and_their_state_are_split_over_the_processes(found, kind):
    owners = [found[rank][f"kinds/{kind}/4"]["owners"] for rank in range(WORLD)]
    assert owners.count(owners[0]) == WORLD, "processes disagree"
    assigned = [owner for owner in owners[0] if owner is not None]
    if kind in IN_ROWS:
        assert not assigned
    if kind in ASSIGNED:
        # The largest tensors are not at one process.
        assert len(assigned) == len(owners[0]) and len(set(assigned)) >= 3
    if kind == "8-bit blocks":
        # Rows of whole blocks stay where they are; those of less are assigned.
        assert owners[0][0] is None and owners[0][1] is not None
    whole = found[0][f"kinds/{kind}/0"]["bytes"]
    here = [found[rank][f"kinds/{kind}/4"]["bytes"] for rank in range(WORLD)]
    fixed = min(here)
    assert sum(here) <= whole + 4 * fixed and (whole < 12_000 or max(here) < 0.75 * whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["resumed", "from whole", "copied", "under two", "alone"])
def test_saved_state_goes_on_with_the_same_bits(found, kind, way):
    want = found[0][f"copies/{kind}/uninterrupted"]
    ranks = {"under two": 2, "alone": 1}.get(way, WORLD)
    assert [rank for rank in range(ranks) if found[rank][f"copies/{kind}/{way}"] != want] == []


@pytest.mark.parametrize("kind", KINDS)
def test_saved_state_is_in_rows_and_alike_in_every_process(found, kind):
    tensors = [found[rank][f"copies/{kind}/tensors"] for rank in range(WORLD)]
    assert tensors.count(tensors[0]) == WORLD
    large = {key: in_rows for key, (shape, in_rows) in tensors[0].items() if shape and "qmap" not in key and "unorm" not in key}
    assert all(large.values()) and (large or KINDS[kind][0] in ("sgd", "lomo"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("where", ["same", "other", "line"])
def test_rows_with_copies_have_the_same_bits_and_go_on_elsewhere(found, kind, along, where):
    want = found[0][f"copies/{kind}/uninterrupted"]
    assert [rank for rank in range(WORLD) if found[rank][f"grids/{kind}/{along}/{where}"] != want] == []


@pytest.mark.parametrize("along", [0, 1])
def test_clipping_of_rows_with_copies_has_the_bits_of_one_process(found, along):
    assert all(its[f"grids/clipping/{along}"] == its[f"grids/clipping/{along}/plain"] for its in found)


@pytest.mark.parametrize("cls", ["AdamW", "Adafactor", "StableAdamW"])
@pytest.mark.parametrize("n", [*range(1, WORLD + 1), "grid"])
def test_fsdp2_has_the_bits_of_one_process_with_its_gradients(found, cls, n):
    for rank in range(WORLD if n == "grid" else n):
        assert found[rank][f"fsdp/{cls}/{n}/bits"] and found[rank][f"fsdp/{cls}/{n}/learns"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, BF16])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, float("inf"), 0.0, 3.0])
def test_clipping_has_the_bits_of_one_process(found, norm_type, dtype):
    plain, others = of_meshes(found, f"clipping/{norm_type}/{dtype}")
    assert [(n, rank) for n, rank, bits in others if bits != plain] == []
    # And is torch's, up to rounding.
    ps = [torch.nn.Parameter(drawn(s, i, dtype)) for i, s in enumerate(SHAPES)]
    for i, p in enumerate(ps):
        p.grad = drawn(p.shape, i, dtype)
    ps = [p for p in ps if p.numel() or norm_type not in (0.0, float("inf"))]
    norm = torch.nn.utils.clip_grad_norm_(ps, 0.25, norm_type, foreach=False)
    assert plain[0] == pytest.approx(norm.item(), rel=64 * torch.finfo(dtype).eps) and plain[1] == str(norm.dtype)


@pytest.mark.parametrize("cls", ["AdamW", "Muon", "AdamW8bit"])
@pytest.mark.parametrize("n", range(1, WORLD + 1))
def test_ddp_has_the_bits_of_one_process_with_its_gradients(found, cls, n):
    bits = {found[rank][f"ddp/{cls}/{n}{which}"] for rank in range(n) for which in ("", "/plain")}
    assert len(bits) == 1


def test_unsupported_placements_are_refused_before_anything_is_written(found):
    for its in found:
        assert all(its[f"refused/{key}"] for key in ("columns", "mesh", "rows of rows", "partial", "group", "gradient", "columns of a gradient"))
        assert "params[1] of group 0 (odd)" in its["refused/columns"] and "dim=1" in its["refused/columns"].replace("S(1)", "dim=1")
        assert "2 dimensions" in its["refused/mesh"] and "(odd)" in its["refused/mesh"]
        assert "P" in its["refused/partial"] and "params[0] of group 1" in its["refused/group"]
        assert "grads[1]" in its["refused/gradient"] and "grads[1]" in its["refused/columns of a gradient"]
        assert its["refused/unchanged"] and "rows are here" in its["refused/uneven"]


def test_looking_at_the_state_shows_what_is_here(found):
    # The first parameter is this process's, the second another's.
    here, elsewhere = found[0]["looked at"]
    assert "exp_avg" in here and "exp_avg" not in elsewhere


def test_replicated_parameters_are_stepped_whole(found):
    assert all(its["replicated"] for its in found)


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2])
