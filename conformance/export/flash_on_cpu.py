"""FlashOptim's own kernels on a machine without a GPU, under Triton's interpreter.

The kernels' source is what runs. What is supplied here is what a GPU would have done
where the interpreter does otherwise or nothing.
"""

import contextlib
from types import SimpleNamespace
from unittest import mock

import golden  # noqa: F401  (sets TRITON_INTERPRET before Triton is imported)
import flashoptim.optimizers as flash
import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import TensorHandle


def scalar(x):
    return tl.tensor(TensorHandle(np.array([x], dtype=np.float32), tl.float32), tl.float32)


def pow_by_squaring(base, exponent):
    """libdevice's pow of a float and an int: products of f32, from the lowest bit up."""
    x, n = np.float32(base.handle.data[0]), int(exponent.handle.data[0])
    power = np.float32(1)
    while n:
        if n & 1:
            power = power * x
        x = x * x
        n >>= 1
    return scalar(power)


def copysign(magnitude, sign):
    data = np.copysign(magnitude.handle.data, sign.handle.data)
    return tl.tensor(TensorHandle(data, tl.float32), magnitude.type)


def float_as_f32(arg, convert=interpreter._implicit_cvt):
    """A Python float reaches a kernel as f32, so that `1.0 - beta` is a difference of f32."""
    return scalar(arg) if isinstance(arg, float) else convert(arg)


def convert_float(data, source, target, mode, convert=interpreter._convert_float):
    """f32 to bf16 rounds to nearest even (the interpreter truncates); bf16 to f32 keeps subnormals."""
    if source == tl.float32 and target == tl.bfloat16:
        # On the CPU PyTorch rounds as a GPU does; NaN keeps no payload.
        return torch.from_numpy(np.ascontiguousarray(data)).bfloat16().view(torch.int16).numpy().view(np.uint16)
    if source == tl.bfloat16 and target == tl.float32:
        return data.astype(np.uint32) << 16
    return convert(data, source, target, mode)


class Launch:
    """An autotuned kernel without the search for the fastest configuration."""

    def __init__(self, tuned):
        self.kernel = tuned.fn

    def __getitem__(self, grid):
        return lambda *args, **kwargs: self.kernel[grid](*args, **kwargs, BLOCK_SIZE_N=1024)


@contextlib.contextmanager
def running():
    libdevice = SimpleNamespace(pow=pow_by_squaring, copysign=copysign)
    with contextlib.ExitStack() as stack:
        for target, name, new in (
            (interpreter, "_implicit_cvt", float_as_f32),
            (interpreter, "_convert_float", convert_float),
            (flash, "libdevice", libdevice),
            (flash, "_get_sm_count", lambda device=None: 4),
            (flash, "_triton_quantize_kernel", Launch(flash._triton_quantize_kernel)),
            (flash, "_triton_dequantize_kernel", Launch(flash._triton_dequantize_kernel)),
            # The gates: FlashOptim refuses to start without a GPU.
            (torch.cuda, "is_available", lambda: True),
            (torch.Tensor, "is_cuda", True),
        ):
            stack.enter_context(mock.patch.object(target, name, new))
        yield


def state(opt, i, param):
    """The raw codes, scales and correction bits, under the keys of a compressed state_dict."""
    out = {}
    for key, value in opt.state.get(param, {}).items():
        if isinstance(value, flash._MaybeQuantizedTensor):
            out |= value.state_dict(key, allow_quantized=True)
        else:
            out[key] = value
    return out
