"""The platform that programs are traced for: this process's own, or one that is not here."""

import jax

_platform = ""


def use(platform: str) -> None:
    """Traces for "tpu" or "gpu" from now on, whatever this process runs on; "" is its own.

    What JAX has traced already stays as it is.
    """
    global _platform
    _platform = platform


def platform() -> str:
    """Returns "cpu", "gpu" or "tpu": which formulation of a computation is the fast one."""
    return _platform or jax.default_backend()
