"""The features of a clip that is scored, by frozen networks and a pose detector."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from psrjax.metrics import features
from psrjax.pretrained import frozen, registry

Detect = Callable[[UInt8[np.ndarray, "t h w 3"]], Float[np.ndarray, "t 26 3"]]

_BATCH = 8  # frames that a network sees at a time: memory does not grow with a clip's length
_LONGEST = 64  # frames of a clip that I3D sees at a time


class ClipFeatures:
    """The frames of a clip; features are computed when they are asked for, and once.

    Attributes:
      frames: (t h w 3) uint8.
    """

    def __init__(
        self,
        frames: UInt8[np.ndarray, "t h w 3"],
        joints: Float[np.ndarray, "t 26 3"] | None = None,
    ):
        """Takes joints (pixels and confidence); without them they are detected on demand."""
        self.frames = frames
        self._joints = joints
        self._found: dict[tuple[str, str], dict[str, np.ndarray]] = {}

    def of_frames(self, network: str) -> dict[str, Float[np.ndarray, "t _"]]:
        """Returns `metrics.features.of_frames` of every frame, by "inception", trained or not."""
        return self._once("frames", network, _of_frames)

    def of_pieces(self, network: str) -> dict[str, Float[np.ndarray, "n _"]]:
        """Returns `metrics.features.of_clips` of its pieces of 16 frames, one after the other.

        Frames behind the last whole piece are left out; a shorter clip has no piece.
        """
        return self._once("pieces", network, _of_pieces)

    def of_whole(self, network: str) -> dict[str, Float[np.ndarray, "1 _"]]:
        """Returns `metrics.features.of_clips` of the whole clip.

        Of a clip of more than 64 frames it is the mean over parts of 64 that cover it evenly: so
        memory has a bound; I3D itself ends in a mean over time.
        """
        return self._once("whole", network, _of_whole)

    def joints(self, detect: Detect) -> Float[np.ndarray, "t 26 3"]:
        """Returns the joints that were given, or those that `detect` finds."""
        if self._joints is None:
            self._joints = detect(self.frames)
        return self._joints

    def _once(self, kind: str, network: str, compute: Callable) -> dict[str, np.ndarray]:
        key = (kind, network)
        if key not in self._found:
            self._found[key] = compute(weights(network), self.frames)
        return self._found[key]


@functools.cache
def weights(network: str) -> frozen.Weights:
    """Loads weights once, and puts them on the device (`psrjax.pretrained.registry.load`).

    Raises:
      UserError: as `load` does.
    """
    return jax.device_put(registry.load(network))


def _of_frames(net: frozen.Weights, frames: np.ndarray) -> dict[str, np.ndarray]:
    found = []
    for start in range(0, len(frames), _BATCH):
        batch = frames[start : start + _BATCH]
        count = len(batch)
        full = batch[np.minimum(np.arange(_BATCH), count - 1)]  # one shape, so one program
        found.append({k: np.asarray(v)[:count] for k, v in features.of_frames(net, full).items()})
    return _joined(found)


def _of_pieces(net: frozen.Weights, frames: np.ndarray) -> dict[str, np.ndarray]:
    size = features.CLIP_FRAMES
    starts = range(0, len(frames) - size + 1, size)
    return _joined([_of_clip(net, frames[start : start + size]) for start in starts])


def _of_whole(net: frozen.Weights, frames: np.ndarray) -> dict[str, np.ndarray]:
    size = min(len(frames), _LONGEST)
    starts = np.linspace(0, len(frames) - size, -(-len(frames) // size)).round().astype(int)
    parts = _joined([_of_clip(net, frames[start : start + size]) for start in starts])
    return {key: value.mean(0, keepdims=True) for key, value in parts.items()}


def _of_clip(net: frozen.Weights, frames: np.ndarray) -> dict[str, np.ndarray]:
    return {key: np.asarray(value) for key, value in features.of_clips(net, frames[None]).items()}


def _joined(parts: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts]) for key in (parts or [{}])[0]}
