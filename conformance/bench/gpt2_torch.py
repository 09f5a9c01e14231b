"""One step of torch's fused AdamW over the 148 tensors of GPT-2 small: beside gpt2.rs."""

import time

import torch

WIDTH = 768


def shapes():
    out = [(50257, WIDTH), (1024, WIDTH)]
    for _ in range(12):
        for a, b in [(0, 0), (WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (0, 0), (WIDTH, 4 * WIDTH),
                     (4 * WIDTH, WIDTH)]:
            out += [(a, b), (b,)] if a else [(WIDTH,), (WIDTH,)]
    out += [(WIDTH,), (WIDTH,)]
    assert len(out) == 148
    return out


for dtype in [torch.float32, torch.bfloat16]:
    for threads in [1, 2]:
        torch.set_num_threads(threads)
        params = [torch.nn.Parameter(torch.randn(s).mul(0.02).to(dtype)) for s in shapes()]
        for p in params:
            p.grad = torch.randn(p.shape).mul(1e-3).to(dtype)
        optimizer = torch.optim.AdamW(params, lr=1e-3, weight_decay=0.01, fused=True)
        optimizer.step()
        times = []
        for _ in range(15):
            start = time.perf_counter()
            optimizer.step()
            times.append((time.perf_counter() - start) * 1e3)
        print(f"{dtype} torch fused {threads} thr {min(times):9.1f}")
