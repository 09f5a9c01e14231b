"""A model in rows over processes (FSDP2), a checkpoint of it, and the run that goes on from there.

    torchrun --nproc-per-node 2 examples/sharded.py

Any number of processes will do, also another one for the checkpoint than for the run that loads it.
"""

import tempfile

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import bitstep.torch

dist.init_process_group("gloo")
rank, mesh = dist.get_rank(), init_device_mesh("cpu", (dist.get_world_size(),))


def build():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 256), torch.nn.Tanh(), torch.nn.Linear(256, 32))
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # Each process has the state of its rows, or of whole tensors where the rule needs them whole.
    return model, bitstep.torch.StableAdamW(model.parameters(), lr=1e-2)


def train(model, opt, steps):
    for step in steps:
        x = torch.randn(16, 32, generator=torch.Generator().manual_seed(1000 * step + rank))
        loss = torch.nn.functional.mse_loss(model(x), x.flip(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


model, opt = build()
train(model, opt, range(20))
with tempfile.TemporaryDirectory() as folder:
    folders = [folder]
    dist.broadcast_object_list(folders)  # that of the first process
    params, state = get_state_dict(model, opt)
    dcp.save({"model": params, "optimizer": state}, checkpoint_id=folders[0])
    uninterrupted = train(model, opt, range(20, 40))

    model, opt = build()
    params, state = get_state_dict(model, opt)
    dcp.load({"model": params, "optimizer": state}, checkpoint_id=folders[0])
    set_state_dict(model, opt, model_state_dict=params, optim_state_dict=state)
    resumed = train(model, opt, range(20, 40))
    dist.barrier()  # before the folder goes

assert resumed == uninterrupted, "not the same bits"
if rank == 0:
    print(f"loss {resumed:.6f}, the same with and without the interruption")
dist.destroy_process_group()
