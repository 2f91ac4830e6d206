"""What the compiler is asked for before it starts: a guard against wrong sums of jaxlib 0.10.2.

jaxlib 0.10.2 fuses, on CPUs, a sum with the product before it; where a factor is broadcast over an
axis that comes before the summed one, the compiled sum is garbage, with errors as large as the
values: `jnp.broadcast_to(x, (2, 4, n, n, 8)) * y[..., None]` summed over axis 1, for one. 0.8.3,
0.9.2, 0.10.0 and 0.10.1 are right, and so is 0.10.2 without these fusions.
"""

import os
from collections.abc import MutableMapping
from importlib import metadata

_WRONG = "0.10.2"
_FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def guard(environ: MutableMapping[str, str] = os.environ, version: str = "") -> None:
    """Turns the wrong fusions off where jaxlib has them, unless `environ` names their flag.

    XLA reads it when the first backend starts; other versions of jaxlib may not know the flag, and
    XLA ends a process that gives it one.

    Args:
      environ: whose XLA_FLAGS gets one flag more.
      version: of jaxlib; by default the installed one's.
    """
    given = environ.get("XLA_FLAGS", "")
    if (version or metadata.version("jaxlib")) == _WRONG and _FLAG not in given:
        environ["XLA_FLAGS"] = f"{given} {_FLAG}=-reduce".strip()
