"""The synthesis of one window, which transfer, novel views, evaluation and benchmarks share."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from psrjax.data import spec
from psrjax.methods.base import Method

TRUTH, SOURCE = "truth", "source"  # the labels of the frames that are given, in a comparison


def start(method: Method, variables: Mapping, batch: Mapping) -> Any:
    """Returns the carry that a method starts with; `batch` is a wire batch."""
    return method.apply(variables, spec.decode(batch), method="start")


def synthesize(
    method: Method, variables: Mapping, batch: Mapping, carry: Any, *, intermediates: bool = False
) -> tuple[dict[str, Any], Any]:
    """Returns what `Method.synthesize` makes of a wire batch, and the next carry."""
    batch = spec.decode(batch)
    made, carry = method.apply(variables, batch, carry, intermediates, method="synthesize")
    return made, carry


@dataclass(frozen=True)
class Synthesizer:
    """The compiled synthesis of a method.

    Attributes:
      start: (variables, wire batch) -> carry.
      synthesize: (variables, wire batch, carry) -> (frames, carry), as `make_synthesizer` says.
    """

    start: Callable[..., Any]
    synthesize: Callable[..., tuple[dict[str, Any], Any]]

    def __call__(self, variables: Mapping, batch: Mapping, carry: Any) -> tuple[dict, Any]:
        """Synthesizes one window; a carry of None starts a new clip."""
        carry = self.start(variables, batch) if carry is None else carry
        return self.synthesize(variables, batch, carry)


def devices(work: int = 0) -> list[Any]:
    """Returns the devices of this process that share so many rows; 0 is many."""
    return jax.local_devices()[: work or None]


def cut(devices: Sequence[Any], *, axis: int = 0) -> Sharding | None:
    """Returns the sharding of arrays that are cut along an axis; None where there is one device."""
    if len(devices) == 1:
        return None
    mesh = jax.sharding.Mesh(np.array(devices), ("devices",))
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "devices"))


def whole(arrays: Any, where: Sharding | None) -> Any:
    """Puts arrays, whole, on each device of a sharding that `cut` gave."""
    if where is None:
        return arrays
    assert isinstance(where, NamedSharding)
    return jax.device_put(arrays, NamedSharding(where.mesh, PartitionSpec()))


def frame_devices(frames: int) -> list[Any]:
    """Returns as many devices of this process as share so many frames evenly."""
    local = devices()
    return next(local[:n] for n in range(len(local), 0, -1) if frames % n == 0)


def by_frames(batch: Mapping[str, Any], where: Sharding | None, frames: int) -> dict[str, Any]:
    """Puts a wire batch on devices, its keys with so many frames cut along them."""
    if where is None:
        return dict(batch)
    timed = {key for key, value in batch.items() if value.shape[1:2] == (frames,)}
    timed -= {key for key in timed if "t" not in spec.KEYS[key].axes.split()}
    return {
        key: jax.device_put(value, where) if key in timed else whole(value, where)
        for key, value in batch.items()
    }


def make_synthesizer(
    method: Method, *, comparison: bool = False, intermediates: bool = False
) -> Synthesizer:
    """Compiles a method's synthesis.

    Args:
      method: at its stage.
      comparison: gives {"steps", "baselines"}, both {label: (b t h w 3) uint8} in the method's
        order; a method without named steps has one, named after its stage. Otherwise it gives
        "video", and "foreground" and "mask" where the method makes them, all uint8.
      intermediates: whether there are also the method's "intermediates".
    """
    # Modules hash, which flax's annotations do not tell.
    return _compiled(method, comparison, intermediates)  # pyright: ignore[reportArgumentType]


@functools.lru_cache(maxsize=4)  # clip after clip is synthesized by one compiled program
def _compiled(method: Method, comparison: bool, intermediates: bool) -> Synthesizer:
    def run(variables: Mapping, batch: Mapping, carry: Any) -> tuple[dict[str, Any], Any]:
        made, carry = synthesize(method, variables, batch, carry, intermediates=intermediates)
        if not comparison:
            return _encode(made), carry
        baselines: Any = method.apply(variables, spec.decode(batch), method="baselines")
        steps = made.get("steps") or {method.stage: made["video"]}
        # An OrderedDict keeps its order through a compiled function; a dict comes back sorted.
        videos = {"steps": OrderedDict(steps), "baselines": OrderedDict(baselines)}
        return jax.tree.map(spec.encode_colors, videos) | _intermediates(made), carry

    return Synthesizer(jax.jit(functools.partial(start, method)), jax.jit(run))


def _encode(made: Mapping[str, Any]) -> dict[str, Any]:
    encoded = {key: spec.encode_colors(made[key]) for key in ("video", "foreground") if key in made}
    if "mask" in made:
        encoded["mask"] = jnp.clip(jnp.round(made["mask"] * 255.0), 0, 255).astype(jnp.uint8)
    return encoded | _intermediates(made)


def _intermediates(made: Mapping[str, Any]) -> dict[str, Any]:
    found = made.get("intermediates")
    return {"intermediates": OrderedDict(found)} if found else {}
