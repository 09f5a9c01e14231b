"""AdamW, SGD and torch's Adafactor, one tensor after the other as in torch, each with faults to choose from.

`torch_backend.py FAULT` runs them, to see whether the suite names what is wrong. Without a fault they are right.
"""

import math

import torch

# What the suite should say.
FAULTS = {
    "AdamW": {
        "right": "",
        "coupled": "weight decay coupled into the gradient",
        "decay_without_rate": "weight decay not multiplied by the learning rate",
        "decay_late": "weight decay on the other side of the update",
        "eps_inside": "epsilon inside the root",
        "eps_early": "epsilon added before the bias correction",
        "betas_swapped": "betas swapped",
        "beta2_for_m": "beta2 for the first moment",
        "off_by_one": "bias correction off by one",
        "uncorrected": "no bias correction",
        "rate_f32": "learning rate in f32",
        "max_not_kept": "amsgrad's maximum not kept",
        "max_not_used": "amsgrad's maximum not used",
        "ascends": "update added, not subtracted",
    },
    "SGD": {
        "right": "",
        "dampened_first": "dampening on the first step",
        "nesterov_ignored": "`nesterov` ignored",
        "nesterov_other_way": "Nesterov's momentum with the factor on the gradient",
        "nesterov_buffer_only": "Nesterov's momentum without the gradient",
        "nesterov_kept": "Nesterov's step kept as the buffer",
        "rate_in_buffer": "learning rate inside of the momentum",
        "averages": "momentum as an average: 1 - momentum times the gradient",
    },
    "Adafactor": {
        "right": "",
        "clipped_late": "update clipped after the learning rate",
        "unclipped": "update not clipped",
    },
}


class Faulty(torch.optim.Optimizer):
    def __init__(self, groups, fault, **hyper):
        super().__init__(groups, hyper)
        self.fault = fault

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    grad = -p.grad if group["maximize"] else p.grad
                    self.one(p, grad, self.state[p], group, self.fault)


class AdamW(Faulty):
    def one(self, p, g, state, group, fault):
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = torch.zeros_like(p)
        (b1, b2), lr, decay, eps = group["betas"], group["lr"], group["weight_decay"], group["eps"]
        if fault == "betas_swapped":
            b1, b2 = b2, b1
        if fault == "rate_f32":
            lr = torch.tensor(lr, dtype=torch.float32).item()
        state["step"] += 1
        t = state["step"].item() + (fault == "off_by_one")
        if fault == "coupled":
            g = g.add(p, alpha=decay)
        elif fault != "decay_late":
            p.mul_(1 - (decay if fault == "decay_without_rate" else lr * decay))
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.lerp_(g, 1 - (b2 if fault == "beta2_for_m" else b1))
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        c1, c2 = (1, 1) if fault == "uncorrected" else (1 - b1**t, 1 - b2**t)
        if group["amsgrad"]:
            top = torch.maximum(state["max_exp_avg_sq"], v)
            if fault != "max_not_kept":
                state["max_exp_avg_sq"].copy_(top)
            v = v if fault == "max_not_used" else top
        if fault == "eps_inside":
            denominator = (v / c2 + eps).sqrt()
        elif fault == "eps_early":
            denominator = (v.sqrt() + eps) / math.sqrt(c2)
        else:
            denominator = (v.sqrt() / math.sqrt(c2)).add_(eps)
        p.addcdiv_(m, denominator, value=lr / c1 if fault == "ascends" else -(lr / c1))
        if fault == "decay_late":
            p.mul_(1 - lr * decay)


class SGD(Faulty):
    def one(self, p, g, state, group, fault):
        lr, momentum, dampening = group["lr"], group["momentum"], group["dampening"]
        if group["weight_decay"]:
            g = g.add(p, alpha=group["weight_decay"])
        if fault == "averages":
            dampening = momentum
        if momentum:
            scale = lr if fault == "rate_in_buffer" else 1
            g = g * scale if scale != 1 else g
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = g.clone()
                if fault == "dampened_first":
                    state["momentum_buffer"].mul_(1 - dampening)
            else:
                state["momentum_buffer"].mul_(momentum).add_(g, alpha=1 - dampening)
            buffer = state["momentum_buffer"]
            if group["nesterov"] and fault != "nesterov_ignored":
                if fault == "nesterov_other_way":
                    g = buffer.add(g, alpha=momentum)
                elif fault == "nesterov_buffer_only":
                    g = buffer * momentum
                elif fault == "nesterov_kept":
                    g = buffer.mul_(momentum).add_(g)
                else:
                    g = g.add(buffer, alpha=momentum)
            else:
                g = buffer
            lr = lr if scale == 1 else 1
        p.add_(g, alpha=-lr)


class Adafactor(Faulty):
    def one(self, p, g, state, group, fault):
        if not state:
            state["step"] = torch.tensor(0.0)
            if g.dim() > 1:
                state["row_var"], state["col_var"] = g.new_zeros(g[..., :1].shape), g.new_zeros(g[..., :1, :].shape)
            else:
                state["variance"] = torch.zeros_like(g)
        state["step"] += 1
        t = state["step"].item()
        eps1, eps2 = group["eps"]
        eps1 = torch.finfo(p.dtype).eps if eps1 is None else eps1
        weight = t ** group["beta2_decay"]
        rate = max(eps2, p.norm(2).item() / math.sqrt(p.numel())) * min(group["lr"], 1 / math.sqrt(t))
        if group["weight_decay"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])
        if g.dim() > 1:
            row, col = state["row_var"], state["col_var"]
            row.lerp_(g.norm(dim=-1, keepdim=True).square_().div_(g.size(-1)), weight)
            col.lerp_(g.norm(dim=-2, keepdim=True).square_().div_(g.size(-2)), weight)
            v = (row @ col).div_(row.mean(dim=-2, keepdim=True).clamp_(min=eps1))
        else:
            v = state["variance"].lerp_(g.square(), weight).clone()
        u = v.clamp_(min=eps1 * eps1).rsqrt_().mul_(g)
        size = u.norm(2).item() / math.sqrt(u.numel()) * (rate if fault == "clipped_late" else 1)
        over = 1.0 if fault == "unclipped" else max(1.0, size / group["d"])
        p.add_(u, alpha=-rate / over)
