"""Training whose master weights and optimizer state lie in the CPU's memory, as with DeepSpeed's CPUAdam.

    python examples/offload.py

The model is bfloat16 on a GPU, or on the CPU where there is none. A gradient leaves the device as soon as backward has
made it; once a layer's gradients have arrived, a thread steps that layer, while backward goes on with the layers before,
and sends the new weights back. Steps do not hold the interpreter's lock.
"""

from concurrent.futures import ThreadPoolExecutor

import torch

import bitstep.torch

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pinned = device.type == "cuda"


class Offload:
    """`make`: from a list of master weights to their optimizer. Each layer has one, so a rule with a norm over all
    gradients would take it over a layer."""

    def __init__(self, layers, make):
        self.worker, self.steps = ThreadPoolExecutor(1), []
        self.copies = torch.cuda.Stream() if pinned else None
        for layer in layers:
            params = list(layer.parameters())
            masters = [self.memory(p, torch.float32).copy_(p.detach()) for p in params]
            grads = [self.memory(p, torch.float32) for p in params]
            for master, grad in zip(masters, grads):
                master.grad = grad
            bucket = (params, masters, grads, make(masters), set())
            for i, p in enumerate(params):
                p.register_post_accumulate_grad_hook(lambda p, bucket=bucket, i=i: self.arrived(bucket, i))

    @staticmethod
    def memory(like, dtype):
        return torch.empty(like.shape, dtype=dtype, pin_memory=pinned)

    def arrived(self, bucket, i):
        params, _, grads, _, here = bucket
        if pinned:
            self.copies.wait_stream(torch.cuda.current_stream())
            params[i].grad.record_stream(self.copies)
        with torch.cuda.stream(self.copies):  # does nothing without a GPU
            grads[i].copy_(params[i].grad, non_blocking=True)
        params[i].grad = None
        here.add(i)
        if len(here) == len(params):
            here.clear()
            done = self.copies.record_event() if pinned else None
            self.steps.append(self.worker.submit(self.step_one, bucket, done))

    def step_one(self, bucket, done):
        params, masters, _, opt, _ = bucket
        if done:
            done.synchronize()
        opt.step()
        with torch.no_grad(), torch.cuda.stream(self.copies):
            for p, master in zip(params, masters):
                p.data.copy_(master, non_blocking=True)

    def step(self):
        """Waits until all layers are stepped, and their weights are back."""
        for one in self.steps:
            one.result()
        self.steps.clear()
        if pinned:
            torch.cuda.current_stream().wait_stream(self.copies)


def build():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, 256), torch.nn.Tanh(), torch.nn.Linear(256, 256), torch.nn.Tanh(), torch.nn.Linear(256, 64)]
    return torch.nn.Sequential(*layers).to(device, torch.bfloat16)


def batch(step):
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(step)).to(device, torch.bfloat16)
    return x, x.flip(1)


def train(model, finish):
    for step in range(60):
        x, y = batch(step)
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        finish()
    return loss.item()


def make(weights):
    return bitstep.torch.AdamW8bit(weights, lr=3e-3)


model = build()
offload = Offload([layer for layer in model if list(layer.parameters())], make)
loss = train(model, offload.step)

# The same without threads and copies in the background: equal bits.
plain = build()
masters = [p.detach().float().cpu() for p in plain.parameters()]
opt = make(masters)


def finish():
    for p, master in zip(plain.parameters(), masters):
        master.grad, p.grad = p.grad.float().cpu(), None
    opt.step()
    for p, master in zip(plain.parameters(), masters):
        p.data.copy_(master)


assert train(plain, finish) == loss and all(map(torch.equal, model.parameters(), plain.parameters())), "not the same bits"
print(f"loss {loss:.4f} on {device}, master weights and 8-bit state on the CPU, the bits of steps in turn")
