from typing import Any, Callable

__version__: str

def optimizers() -> list[str]:
    """The names of all optimizers."""

def schedules() -> list[str]:
    """The names of all schedules."""

def norms(grads: list[Any], norm_type: float) -> list[float]:
    """The norm of each gradient, rounded to its type."""

def clip_coefficient(
    norms: list[float], dtypes: list[str], max_norm: float, norm_type: float, error_if_nonfinite: bool
) -> tuple[float, float]:
    """The norm of all gradients by theirs, and the factor that clips them."""

def scale(grads: list[Any], factor: float) -> None:
    """Multiplies gradients by a factor, in place."""

def quantization_map(signed: bool) -> list[float]:
    """The 256 values of an 8-bit map, from the most negative."""

def verify(
    name: str,
    backend: Any,
    only: str | None = None,
    golden: list[str] = [],
    json: str | None = None,
    html: str | None = None,
    fresh: int | None = None,
    strict: bool = False,
) -> tuple[bool, str]:
    """Checks an object against golden vectors."""

def check(
    name: str, backend: Any, only: str | None = None, golden: list[str] = []
) -> list[tuple[str, str, str, str]]:
    """The outcomes of checks as (case, mode, outcome, detail)."""

def fuzz_object(
    name: str,
    backend: Any,
    only: str,
    out: str,
    cases: int | None = None,
    seconds: float | None = None,
    seed: int = 1,
    profile: str = "all",
    go_on: bool = False,
) -> tuple[bool, str]:
    """Draws runs for an object, with the core as the oracle."""

def cases(only: str | None = None, golden: list[str] = []) -> list[str]:
    """The ids of the cases."""

def same_bits(
    backend: Any, only: str | None = None, golden: list[str] = []
) -> tuple[int, list[str], list[tuple[str, str]]]:
    """Compares answers with the core's, bit by bit."""

class Optimizer:
    """Groups of parameters and their state; the caller keeps the parameters."""

    training: bool
    def copy(self) -> Optimizer: ...
    def add_group(self, name: str, arguments: dict[str, Any], changes: dict[str, Any] | None = None) -> int: ...
    def add_param(
        self, group: int, shape: list[int], dtype: str, plain: bool = False, part: tuple[int, int] | None = None
    ) -> int: ...
    def part_multiple(self, group: int, shape: list[int], dtype: str) -> int | None: ...
    def grad_norms(self, grads: list[Any], extra: list[tuple[str, float]]) -> list[float | None]: ...
    def give_grad_norms(self, norms: list[float | None]) -> None: ...
    def set_arguments(self, group: int, arguments: dict[str, Any]) -> None: ...
    def arguments(self, group: int) -> dict[str, Any]: ...
    def info(self, group: int) -> dict[str, Any]: ...
    def group_state(self, group: int) -> tuple[int, list[float]]: ...
    def set_group_state(self, group: int, steps: int, scalars: list[float]) -> None: ...
    def param_state(self, i: int) -> tuple[int, list[float], bool]: ...
    def set_param_state(self, i: int, steps: int, scalars: list[float], stepped: bool) -> None: ...
    def parts(self, i: int, rows: int | None = None) -> list[tuple[int | None, str, str, list[int], bytearray]]: ...
    def set_part(self, i: int, slot: int | None, key: str, bytes: bytes) -> None: ...
    def set_rounding_bits(self, i: int, bits: list[int] | None) -> None: ...
    def step(
        self,
        params: list[Any],
        grads: list[Any] | None,
        lrs: list[float | None] | None,
        extra: list[tuple[str, float]] | None,
        threads: int,
        dense: Callable[[Any], Any],
        back: Callable[[Any, Any], None],
    ) -> None: ...
    def step_one(
        self,
        i: int,
        param: Any,
        grad: Any,
        lrs: list[float | None],
        threads: int,
        dense: Callable[[Any], Any],
        back: Callable[[Any, Any], None],
    ) -> None: ...
    def switch(self, params: list[Any], train: bool) -> None: ...
    def save(self) -> bytes: ...
    def load(self, state: bytes) -> None: ...

class Scheduler:
    """The rates of groups by the number of steps."""

    lrs: list[float]
    @property
    def arguments(self) -> dict[str, Any]: ...
    def __init__(self, name: str, arguments: dict[str, Any]) -> None: ...
    def momentum(self, group: int) -> float | None: ...
    def step(self, metrics: list[float]) -> list[float]: ...
    def save(self) -> bytes: ...
    def load(self, state: bytes) -> None: ...
