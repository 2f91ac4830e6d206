"""Runs a function as it is traced for a platform that is not here."""

from collections.abc import Callable
from typing import Any

import jax

from psrjax.runtime import target


def as_on(platform: str, function: Callable, *arguments: Any) -> Any:
    """Returns function(*arguments) in the formulation for "cpu", "gpu" or "tpu", run here."""
    jax.clear_caches()  # what is traced stays as it is
    target.use(platform)
    try:
        return jax.jit(function)(*arguments)
    finally:
        target.use("")
        jax.clear_caches()
