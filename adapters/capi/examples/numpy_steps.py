"""Steps numpy arrays through the C interface, beside torch: `numpy_steps.py LIBRARY`.

Prints the largest difference in units in the last place, and fails if there is any beyond
bitstep's bound of 4 against torch's own kernels.
"""

import ctypes
import sys
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_double, c_size_t, c_uint32, c_void_p

import numpy as np
import torch

F32, STEPS = 1, 100


class Error(Structure):
    _fields_ = [("message", c_char * 256)]


class Tensor(Structure):
    _fields_ = [("data", c_void_p), ("len", c_size_t), ("dtype", c_uint32), ("grad_dtype", c_uint32),
                ("grad", c_void_p)]

    def __init__(self, data, grad):
        assert data.dtype == grad.dtype == np.float32 and data.size == grad.size
        assert data.flags.c_contiguous and grad.flags.c_contiguous
        super().__init__(data.ctypes.data, data.size, F32, F32, grad.ctypes.data)


class Optimizer:
    def __init__(self, library, name, arguments):
        self.library, self.handle, group = library, c_void_p(), c_size_t()
        self.call("new", byref(self.handle), on=())
        self.call("add_group", name.encode(), arguments.encode(), byref(group))
        self.group = group.value

    def call(self, function, *arguments, on=None):
        error = Error()
        on = (self.handle,) if on is None else on
        if getattr(self.library, f"bitstep_optimizer_{function}")(*on, *arguments, byref(error)):
            raise ValueError(error.message.decode())

    def add_param(self, array):
        shape = (c_size_t * array.ndim)(*array.shape)
        self.call("add_param", c_size_t(self.group), shape, c_size_t(array.ndim), c_uint32(F32))

    def step(self, arrays, grads):
        tensors = (Tensor * len(arrays))(*map(Tensor, arrays, grads))
        self.call("step", tensors, c_size_t(len(arrays)), None, c_size_t(0))

    def __del__(self):
        self.library.bitstep_optimizer_free(self.handle)


def ulps(got, want, before):
    """Units in the last place of `scale`, so that a value near 0 is not blamed for cancellation."""
    spacing = np.spacing(np.maximum(np.maximum(np.abs(want), np.abs(before)), np.finfo(np.float32).tiny))
    return float((np.abs(got.astype(np.float64) - want) / spacing).max())


def main():
    library = ctypes.CDLL(sys.argv[1])
    worst = 0.0
    for name, arguments, make in [
        ("adamw_torch", "lr=0.01, weight_decay=0.1", lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)),
        ("sgd", "lr=0.01, momentum=0.9, nesterov=True",
         lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True)),
        ("nadam", '{"lr": 0.01}', lambda p: torch.optim.NAdam(p, lr=0.01)),
    ]:
        rng = np.random.default_rng(0)
        arrays = [rng.normal(size=shape).astype(np.float32) for shape in [(5, 3), (7,)]]
        ours = Optimizer(library, name, arguments)
        for array in arrays:
            ours.add_param(array)
        params = [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in arrays]
        theirs = make(params)
        of_name = 0.0
        for _ in range(STEPS):
            # One step at a time: both begin each step with the same values.
            for array, param in zip(arrays, params):
                array[...] = param.detach().numpy()
            before = [array.copy() for array in arrays]
            grads = [rng.normal(size=a.shape).astype(np.float32) for a in arrays]
            for param, grad in zip(params, grads):
                param.grad = torch.from_numpy(grad.copy())
            ours.step(arrays, grads)
            theirs.step()
            of_name = max(of_name, *(ulps(a, p.detach().numpy(), b) for a, p, b in zip(arrays, params, before)))
        print(f"{name}: {STEPS} steps, at most {of_name:.2f} units in the last place from torch")
        worst = max(worst, of_name)
    try:
        Optimizer(library, "adamw_torch", "learning_rate=0.1")
        sys.exit("an unknown argument was not refused")
    except ValueError as error:
        print("refused:", error)
    sys.exit(worst > 4)


main()
