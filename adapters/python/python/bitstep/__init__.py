"""Every optimizer and learning-rate schedule of Hugging Face Transformers, with the same bits on every machine.

* `bitstep.torch`: `torch.optim.Optimizer` classes that step CPU tensors in place.
* `bitstep.numpy`: the same over arrays.
* `bitstep.schedules`: learning rates by Transformers' names.
* `bitstep.conformance`: golden vectors of the real references against an optimizer of yours.
"""

from ._bitstep import __version__, optimizers
from ._bitstep import schedules as schedule_names

__all__ = ["__version__", "optimizers", "schedule_names"]
