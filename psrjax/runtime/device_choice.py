"""The device that the user names, chosen before JAX looks for devices."""

import re

import jax

from psrjax.errors import UserError

_GPUS = "cuda", "rocm"


def use(name: str) -> None:
    """Restricts JAX to "cpu", "gpu", "gpu:N" or "tpu"; "" leaves the choice to JAX.

    Call it before any use of devices.

    Raises:
      UserError: for another name, or a device that is not here.
    """
    if not name:
        return
    found = re.fullmatch(r"(cpu|gpu|tpu)(?::(\d+))?", name)
    if not found or (found[2] and found[1] != "gpu"):
        raise UserError(f"--device={name}: it is cpu, gpu, gpu:0 (or another number) or tpu")
    kind, number = found.groups()
    for platform in _GPUS if number else ():
        jax.config.update(f"jax_{platform}_visible_devices", number)
    platforms = {"gpu": ("cuda", "rocm")}.get(kind, (kind,))
    for platform in platforms:
        jax.config.update("jax_platforms", platform)
        try:
            if jax.devices():
                return
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
    raise UserError(f"--device={name}: no such device ({reason}); psrjax doctor lists what is here")
