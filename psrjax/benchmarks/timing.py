"""Timings, interleaved pairs, the matrix-product peak, and compilation."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_PEAK_SECONDS = 1.0  # how long each matrix size is tried for
_CPU_SIZES, _ACCELERATOR_SIZES = (1024, 2048), (4096, 8192)
_CPU_BYTES, _ACCELERATOR_BYTES = 2**28, 2**31  # of the copy that measures bandwidth


@dataclass(frozen=True)
class Timing:
    """The seconds of every timed run of one call."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median, seconds."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles, seconds."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float(low), float(high)

    def summary(self) -> dict[str, float]:
        """Returns median, quartiles and extremes in seconds, and the number of runs, for JSON."""
        low, high = self.spread
        return {
            "median_s": self.median,
            "quartile_low_s": low,
            "quartile_high_s": high,
            "min_s": min(self.seconds),
            "max_s": max(self.seconds),
            "runs": len(self.seconds),
        }


@dataclass(frozen=True)
class Pairs:
    """Two calls timed in turn, A B A B: neighbours in time share the machine's other load."""

    first: Timing
    second: Timing

    @property
    def ratios(self) -> Timing:
        """The ratio of each pair, first / second, as a `Timing` for its median and spread."""
        pairs = zip(self.first.seconds, self.second.seconds, strict=True)
        return Timing(tuple(a / b for a, b in pairs))


def clock(call: Callable[[], Any]) -> float:
    """Measures the seconds until everything that `call` returns is computed."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def measure(call: Callable[[], Any], *, runs: int, warm: int = 2) -> Timing:
    """Times `call`, after `warm` runs that do not count."""
    for _ in range(warm):
        clock(call)
    return Timing(tuple(clock(call) for _ in range(runs)))


def measure_pairs(
    first: Callable[[], Any],
    second: Callable[[], Any],
    *,
    pairs: int,
    warm: int = 2,
    settle: int = 1,
) -> Pairs:
    """Times two calls in turn.

    Args:
      first: returns jax arrays, or has finished when it returns.
      second: likewise.
      pairs: how many timed runs of each.
      warm: runs of each before anything counts.
      settle: uncounted runs before each timed one, so that each side is timed in its own warm state
        (caches, threads awake), not in the one that the other left.
    """
    for call in (first, second):
        for _ in range(warm):
            clock(call)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for call, found in zip((first, second), seconds, strict=True):
            for _ in range(settle):
                clock(call)
            found.append(clock(call))
    return Pairs(Timing(tuple(seconds[0])), Timing(tuple(seconds[1])))


def matrix_peak(dtype: Any = jnp.float32) -> float:
    """Measures the FLOP/s of the best square matrix product on this machine now."""
    sizes = _CPU_SIZES if jax.default_backend() == "cpu" else _ACCELERATOR_SIZES
    product = jax.jit(lambda a, b: a @ b)
    best = 0.0
    for size in sizes:
        a, b = (jax.random.normal(jax.random.key(i), (size, size)).astype(dtype) for i in (0, 1))
        once = min(clock(lambda a=a, b=b: product(a, b)) for _ in range(3))
        runs = int(np.clip(_PEAK_SECONDS / once, 3, 1000))
        fastest = min(clock(lambda a=a, b=b: product(a, b)) for _ in range(runs))
        best = max(best, 2 * size**3 / fastest)
    return best


def copy_bandwidth() -> float:
    """Measures the bytes/s to and from this device's memory, of a copy much larger than a cache."""
    size = _CPU_BYTES if jax.default_backend() == "cpu" else _ACCELERATOR_BYTES
    array = jax.device_put(np.zeros(size // 4, np.float32))
    copy = jax.jit(lambda x: x + 1)
    return 2 * size / min(measure(lambda: copy(array), runs=5).seconds)


@dataclass(frozen=True)
class Program:
    """A compiled function.

    Attributes:
      call: runs it.
      compile_seconds: tracing, lowering and compiling.
      executed_flops: what XLA counts in the optimised program, formulation included; 0 if unknown.
    """

    call: Callable[..., Any]
    compile_seconds: float
    executed_flops: float


def compile_program(function: Any, *arguments: Any) -> Program:
    """Compiles a jitted function for these arguments."""
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    costs = compiled.cost_analysis() or {}
    costs = costs[0] if isinstance(costs, Sequence) else costs
    return Program(compiled, seconds, float(costs.get("flops", 0.0)))
