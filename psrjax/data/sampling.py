"""Samples of clips: choice of frames, reading, cropping, mirroring and recolouring.

One `Policy` serves every method. A `Window` names the frames; `assemble` reads them under the keys
of the contract; `augment` changes the whole sample alike, so that frames, maps and joints still
belong together.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Shaped, UInt8

from psrjax.data import spec
from psrjax.data.policy import Policy
from psrjax.data.source import Clip, LoadedFrames, Source
from psrjax.errors import UserError
from psrjax.ops import geometry, pose

Sample = dict[str, np.ndarray]

_SOURCE_SHARE = 3  # the source frames of an evaluation come from the first third of a clip

_STREAMS = {"source": "frames", "target": "frames", "background": "background"}
_ZERO_AT_START = (  # between a frame and the one before it: none at a window's first frame
    "target_flow",
    "target_flow_forward",
    "target_flow_confidence",
    "target_mesh_flow",
)
_MIRRORED_X = ("target_flow", "target_flow_forward", "target_mesh_flow")
_NOT_MIRRORED = ("source_iuv", "target_iuv", "target_mesh_label")  # values tell left from right


@dataclass(frozen=True)
class Window:
    """Frame numbers of one sample; `start` is the target's first frame after its history.

    The source frames are of `source_clip`, of a split of its own; "" is the target's clip.
    """

    clip: str
    source_view: str
    target_view: str
    start: int
    source_frames: tuple[int, ...]
    target_frames: tuple[int, ...]
    source_clip: str = ""


def policy(options: Mapping[str, Any]) -> Policy:
    """Makes the policy of `config.data.sampling`.

    Raises:
      UserError: for an option that does not exist or a value out of range.
    """
    known = [field.name for field in dataclasses.fields(Policy)]
    for name in options:
        if name not in known:
            raise UserError(f"config.data.sampling.{name}: there is only {', '.join(known)}")
    return Policy(**dict(options))


def pairs(clip: Clip, how: Policy) -> tuple[tuple[str, str], ...]:
    """Lists (source view, target view): ordered pairs for same_time, else each view with itself.

    Raises:
      UserError: if a clip has one view only where two are needed.
    """
    if how.source != "same_time":
        return tuple((view, view) for view in clip.views)
    if len(clip.views) < 2:
        raise UserError(f"clip {clip.name!r} has one view; sampling.source=same_time needs two")
    return tuple((a, b) for a in clip.views for b in clip.views if a != b)


def starts(clip: Clip, how: Policy) -> tuple[int, ...]:
    """Lists the frames at which a target window may start in training.

    Raises:
      UserError: if the clip is too short for the policy.
    """
    fps = max(view.fps for view in clip.views.values())
    possible = _starts(how, trained_frames(clip, how), round(how.gap_seconds * fps))
    if not possible:
        raise _too_short(clip, how)
    return possible


def trained_frames(clip: Clip, how: Policy) -> int:
    """Number of frames, from a clip's start, that are trained on."""
    return clip.frames - round(how.held_back * clip.frames)


def _too_short(clip: Clip, how: Policy) -> UserError:
    held = f" with {how.held_back:.0%} of them held back" if how.held_back else ""
    return UserError(
        f"clip {clip.name!r} has {clip.frames} frames{held}, too few for data.sampling {how}: "
        "leave it out, or lower t, k, held_back or gap_seconds"
    )


@functools.lru_cache(maxsize=4096)
def _starts(how: Policy, frames: int, gap: int) -> tuple[int, ...]:
    windows = range(frames - how.t + 1)
    if how.source in ("same_time", "random"):
        return tuple(windows)
    if how.source == "first":
        return tuple(windows[max(how.k, gap) :])
    return tuple(start for start in windows if len(_outside(start, how, frames, gap)) >= how.k)


def _outside(start: int, how: Policy, frames: int, gap: int) -> list[int]:
    before = range(max(0, start - gap))
    return [*before, *range(min(frames, start + how.t + gap), frames)]


def draw(
    clip: Clip,
    source_view: str,
    how: Policy,
    rng: np.random.Generator,
    *,
    times: np.random.Generator | None = None,
) -> Window:
    """Draws a training window with the given source view, and under same_time the target view.

    Args:
      clip: of the training split.
      source_view: one of its views.
      how: the policy.
      rng: what is drawn with.
      times: what the window's start is drawn with, if windows of other views are to share it.

    Raises UserError as `starts` does.
    """
    targets = [target for source, target in pairs(clip, how) if source == source_view]
    target_view = targets[rng.integers(len(targets))]
    possible = starts(clip, how)
    start = possible[(times or rng).integers(len(possible))]
    window = range(start, start + how.t)
    if how.source == "random":
        itself = rng.random(how.k) < 0.5
        anywhere = rng.integers(trained_frames(clip, how), size=how.k)
        source = np.where(itself, rng.choice(window, size=how.k), anywhere)
    elif how.source == "disjoint":
        gap = round(how.gap_seconds * clip.views[source_view].fps)
        frames = trained_frames(clip, how)
        source = np.sort(rng.choice(_outside(start, how, frames, gap), how.k, replace=False))
    else:
        source = window if how.source == "same_time" else range(how.k)
    return _window(clip, source_view, target_view, start, source, how)


def evaluation_sources(clip: Clip, how: Policy) -> tuple[int, ...]:
    """Lists the source frames of a clip's evaluation, the same for all its windows.

    With `held_back` they are spread evenly over the frames that are trained on; "first" takes the
    clip's first k frames; "random" and "disjoint" spread them over its first third. Only frames
    behind them are scored. Under "same_time" there are none: sources are of another view.
    """
    if how.source == "same_time":
        return ()
    count = how.k_evaluation or how.k
    part = count if how.source == "first" else max(count, clip.frames // _SOURCE_SHARE)
    part = trained_frames(clip, how) if how.held_back else part
    return tuple(np.linspace(0, part - 1, count).round().astype(int).tolist())


def first_scored(clip: Clip, how: Policy, *, appearance: Source | None = None) -> int:
    """Returns the first frame of a clip that an evaluation scores.

    It is behind the source frames, and behind all frames that were trained on where some are held
    back. A clip whose source frames are of another one, as with `appearance`, is scored whole.
    """
    if how.held_back:
        return trained_frames(clip, how)
    return max((-1, *(evaluation_sources(clip, how) if appearance is None else ()))) + 1


def fixed(
    clip: Clip,
    views: tuple[str, str],
    start: int,
    how: Policy,
    *,
    appearance: Source | None = None,
) -> Window:
    """Returns the evaluation window of a (source view, target view) pair at `start`.

    Args:
      clip: the clip.
      views: the pair.
      start: the first frame.
      how: the policy.
      appearance: the split whose first clip gives the source frames; by default `clip` does.
    """
    if appearance is None:
        source = evaluation_sources(clip, how) or range(start, start + how.t)
        return _window(clip, *views, start, source, how)
    shown = appearance.clips[0]
    spread = np.linspace(0, shown.frames - 1, how.k_evaluation or how.k).round().astype(int)
    window = _window(clip, *views, start, spread, how)
    return dataclasses.replace(window, source_clip=shown.name, source_view=next(iter(shown.views)))


def _window(
    clip: Clip,
    source_view: str,
    target_view: str,
    start: int,
    source: Iterable[int],
    how: Policy,
) -> Window:
    target = (max(0, frame) for frame in range(start - how.history, start + how.t))
    return Window(
        clip=clip.name,
        source_view=source_view,
        target_view=target_view,
        start=start,
        source_frames=tuple(int(frame) for frame in source),
        target_frames=tuple(target),
    )


def evaluation_windows(
    source: Source, how: Policy, windows: str = "central", *, appearance: Source | None = None
) -> tuple[Window, ...]:
    """Lists the evaluation windows of every clip and pair of views: the central one, or all.

    They lie in the part of a clip that is scored, see `first_scored`. "all" are consecutive windows
    over that part, the last one moved back to end with the clip.

    Args:
      source: the split that is scored.
      how: the policy.
      windows: "central" or "all".
      appearance: as in `fixed`.

    Raises:
      UserError: for another value of `windows`, or a clip that is too short.
    """
    if windows not in ("central", "all"):
        raise UserError(f"evaluation windows: {windows!r} is neither 'central' nor 'all'")
    found = []
    for clip in source.clips:
        first = first_scored(clip, how, appearance=appearance)
        possible = range(first, clip.frames - how.t + 1)
        if not possible:
            raise _too_short(clip, how)
        chosen = (possible[(len(possible) - 1) // 2],)
        if windows == "all":
            chosen = tuple(dict.fromkeys((*possible[:: how.t], possible[-1])))
        found.extend(
            fixed(clip, pair, start, how, appearance=appearance)
            for pair in pairs(clip, how)
            for start in chosen
        )
    return tuple(found)


def require(source: Source, reads: Iterable[str]) -> None:
    """Checks that a dataset can give the keys that a method reads.

    Raises:
      UserError: naming the first stream that it lacks and the command that makes it.
    """
    for key in reads:
        if key == "target_mean":
            views = {view for clip in source.clips for view in clip.views} - set(source.means)
            if views:
                raise UserError(
                    f"{source.directory}: no mean training frame of view {sorted(views)[0]!r}, "
                    "which this method reads (target_mean); prepare the dataset again"
                )
        elif key not in ("index", "valid"):
            source.require(stream(key), f"which this method reads as {key!r}")


def assemble(
    source: Source, window: Window, reads: Iterable[str], *, appearance: Source | None = None
) -> Sample:
    """Reads one sample: the keys of `reads` as in the contract, without the batch axis.

    Args:
      source: the split of the window's clip.
      window: the frames.
      reads: keys of the contract.
      appearance: the split of the window's `source_clip`.

    Raises:
      UserError: if a stream is missing or damaged.
    """
    shown = window.source_clip or window.clip
    loaded = {
        "source": (appearance or source).load(shown, window.source_view, window.source_frames),
        "target": source.load(window.clip, window.target_view, window.target_frames),
    }
    keys = [key for key in reads if key not in ("index", "valid")]
    return {key: _read(key, source, loaded, window) for key in keys}


def _read(
    key: str, source: Source, loaded: Mapping[str, LoadedFrames], window: Window
) -> np.ndarray:
    if key == "target_mean":
        return source.means[window.target_view]
    side = loaded["source" if key.startswith("source") else "target"]
    value = side.read(stream(key), source=window.source_view)
    if spec.KEYS[key].axes.endswith(" 1"):
        value = value[..., None]
    if key in _ZERO_AT_START:
        value = np.concatenate([np.zeros_like(value[:1]), value[1:]])
    return value.astype(spec.KEYS[key].wire, copy=False)


def stream(key: str) -> str:
    """Names the stored stream (see `psrjax.data.codec`) that a key of the contract is read from."""
    return _STREAMS.get(key) or key.split("_", 1)[1]


@dataclass(frozen=True)
class Augmentation:
    """Changes of a sample; the defaults keep it as it is.

    Attributes:
      crop: height and width, at one random place (evaluation: the centre); 0 keeps the size.
      flip: probability of a mirror image; refused where values tell left from right (iuv).
      jitter: brightness, contrast and saturation change by a factor in 1 ± jitter, alike in the
        whole sample.
      hue: its hue turns by up to this part of the circle, either way, alike in the whole sample.
    """

    crop: tuple[int, int] = (0, 0)
    flip: float = 0.0
    jitter: float = 0.0
    hue: float = 0.0


def augment(sample: Sample, how: Augmentation, rng: np.random.Generator | None = None) -> Sample:
    """Crops a sample; in training (with `rng`) also mirrors and recolours it.

    Raises:
      UserError: if a frame is smaller than the crop, or the sample cannot be mirrored.
    """
    place = (0.5, 0.5) if rng is None else tuple(rng.random(2))
    sample = crop(sample, how.crop, place)
    if rng is not None and how.flip and rng.random() < how.flip:
        sample = flip(sample)
    if rng is not None and how.jitter:
        factors = rng.uniform(1 - how.jitter, 1 + how.jitter, 3)
        sample = recolor(sample, factors)
    if rng is not None and how.hue:
        sample = turn_hue(sample, rng.uniform(-how.hue, how.hue))
    return sample


def crop(sample: Sample, size: tuple[int, int], place: tuple[float, float]) -> Sample:
    """Crops every image, and moves the joints along.

    Args:
      sample: as `assemble` gives it.
      size: the new height and width; 0 keeps it.
      place: position of the crop: (0, 0) top left, (.5, .5) the centre, (1, 1) bottom right; the
        same in all views of one size.

    Raises:
      UserError: if a frame is smaller than `size`.
    """
    sizes = {side: _size(sample, side) for side in ("source", "target")}
    boxes = {side: _box(have, size, place) for side, have in sizes.items() if have}
    return {
        key: _cropped(key, value, *boxes[side])
        for key, value in sample.items()
        for side in ["source" if key.startswith("source") else "target"]
    }


def _size(sample: Sample, side: str) -> tuple[int, int] | None:
    """(height, width) of one side's images; None if it has neither images nor joints."""
    of_side = [key for key in sample if key.startswith("source") == (side == "source")]
    images = [sample[key].shape[-3:-1] for key in of_side if _is_image(key)]
    if len(set(images)) > 1:
        raise UserError(f"the {side}'s streams differ in size: {sorted(set(images))}")
    if of_side and not images:
        raise UserError(f"{of_side[0]!r} cannot be cropped without an image of its view beside it")
    return images[0] if images else None


def _is_image(key: str) -> bool:
    return "h w" in spec.KEYS[key].axes


def _box(
    have: tuple[int, int], size: tuple[int, int], place: tuple[float, float]
) -> tuple[tuple[int, int], slice, slice]:
    height, width = (want or whole for want, whole in zip(size, have, strict=True))
    if height > have[0] or width > have[1]:
        raise UserError(
            f"config.data.crop or train_crop: {height}x{width} is more than the stored "
            f"{have[0]}x{have[1]}"
        )
    top = round((have[0] - height) * place[0])
    left = round((have[1] - width) * place[1])
    return have, slice(top, top + height), slice(left, left + width)


def _cropped(
    key: str, value: np.ndarray, have: tuple[int, int], rows: slice, columns: slice
) -> np.ndarray:
    if _is_image(key):
        return np.ascontiguousarray(value[..., rows, columns, :])
    points = geometry.unit_to_pixels(value[..., :2], height=have[0], width=have[1])
    points = geometry.pixels_to_unit(
        points - np.array([columns.start, rows.start]),
        height=rows.stop - rows.start,
        width=columns.stop - columns.start,
    )
    moved = np.concatenate([points, value[..., 2:]], -1).astype(np.float32)
    return np.where(value[..., 2:] > 0, moved, np.zeros_like(moved))


def flip(sample: Sample) -> Sample:
    """Mirrors a sample: joints change sides, horizontal flow changes its sign.

    Raises:
      UserError: if the sample holds maps whose values tell left from right.
    """
    for key in _NOT_MIRRORED:
        if key in sample:
            raise UserError(
                f"config.data.flip: {key!r} cannot be mirrored, its values tell left from right; "
                "set config.data.flip=0.0"
            )
    return {key: _flipped(key, value) for key, value in sample.items()}


def _flipped(key: str, value: np.ndarray) -> np.ndarray:
    if not _is_image(key):
        return pose.flip(value).astype(value.dtype)
    value = _mirrored(value)
    if key in _MIRRORED_X:
        value[..., 0] *= -1
    return value


def _mirrored(image: Shaped[np.ndarray, "*t h w c"]) -> Shaped[np.ndarray, "*t h w c"]:
    """Reverses the columns by OpenCV, which is ten times as fast as NumPy on pixels of 3 bytes."""
    rows = np.ascontiguousarray(image).reshape(-1, *image.shape[-2:])
    same_width = rows.view(np.uint16) if rows.dtype == np.float16 else rows
    return cv2.flip(same_width, 1).view(rows.dtype).reshape(image.shape)


def recolor(sample: Sample, factors: Float[np.ndarray, "3"]) -> Sample:
    """Multiplies brightness, contrast and saturation of every colour image by the same factors."""
    return {
        key: _recolored(value, factors) if _is_color(key) else value
        for key, value in sample.items()
    }


def turn_hue(sample: Sample, turn: float) -> Sample:
    """Turns the hue of every colour image by the same part of the circle."""
    return {
        key: _hue_turned(value, turn) if _is_color(key) else value for key, value in sample.items()
    }


def _hue_turned(image: UInt8[np.ndarray, "*t h w 3"], turn: float) -> UInt8[np.ndarray, "*t h w 3"]:
    flat = np.ascontiguousarray(image).reshape(-1, image.shape[-2], 3)
    hsv = cv2.cvtColor(flat.astype(np.float32) / 255.0, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360.0 * turn) % 360.0
    turned = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.round(255.0 * turned).clip(0, 255).astype(np.uint8).reshape(image.shape)


def _is_color(key: str) -> bool:
    return spec.KEYS[key].coding == spec.COLORS and key != "target_mesh_label"


def _recolored(
    image: UInt8[np.ndarray, "*t h w 3"], factors: Float[np.ndarray, "3"]
) -> UInt8[np.ndarray, "*t h w 3"]:
    brightness, contrast, saturation = factors
    # One affine map of colour space: towards gray by saturation, about mid-gray by contrast.
    luma = np.array([0.299, 0.587, 0.114])
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * luma)
    offset = np.full((3, 1), brightness * 127.5 * (1 - contrast))
    flat = np.ascontiguousarray(image).reshape(-1, image.shape[-2], 3)
    return cv2.transform(flat, np.concatenate([matrix, offset], 1)).reshape(image.shape)
