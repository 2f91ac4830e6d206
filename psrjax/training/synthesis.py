"""Synthesizes a whole clip, window by window, and writes it as a video beside its comparison."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from psrjax.data import guidance, loader, sampling, spec, video
from psrjax.data.annotations import read_calibration
from psrjax.errors import UserError
from psrjax.methods.base import Method
from psrjax.ops.camera import Camera
from psrjax.training import evaluation

BESIDE = ("x0",)  # baselines worth seeing beside the steps, of those that a method has


@dataclass(frozen=True)
class Inputs:
    """A clip to synthesize.

    Attributes:
      read: gives the wire batch (b = 1) of the window that starts at a frame of the clip.
      frames: the clip's length.
      window: a window's length: the t of `read`'s batches.
      times: (frames,) seconds at which the frames are shown.
      name: what is synthesized, for titles.
    """

    read: Callable[[int], Mapping[str, np.ndarray]]
    frames: int
    window: int
    times: np.ndarray
    name: str


@dataclass(frozen=True)
class Synthesis:
    """A synthesized clip: {label: (t h w 3) uint8} in the order to show them, and its times.

    The labels are "source", baselines, the method's steps, and "truth" where it is known; `result`
    is the label of the last step.
    """

    videos: dict[str, np.ndarray]
    result: str
    times: np.ndarray


def synthesize(
    method: Method, variables: Mapping[str, Any], inputs: Inputs, *, show_progress: bool = False
) -> Synthesis:
    """Synthesizes a clip of any length from windows of a fixed one.

    Raises:
      UserError: if the clip is shorter than a window.
    """
    run = evaluation.make_synthesizer(method, baselines=True)
    parts: dict[str, list[np.ndarray]] = {}
    carry, done, result = None, 0, ""
    starts = windows(inputs.frames, inputs.window)
    for start in tqdm(starts, "synthesize", unit="window", disable=not show_progress):
        batch = dict(inputs.read(start))
        made = run(variables, batch, carry)
        carry, result = made["carry"], list(made["steps"])[-1]
        baselines = {name: made["baselines"][name] for name in BESIDE if name in made["baselines"]}
        videos = {evaluation.SOURCE: batch["source"], **baselines, **made["steps"]}
        if "target" in batch:
            videos[evaluation.TRUTH] = batch["target"]
        for label, frames in videos.items():
            frames = np.asarray(frames[0])
            frames = frames[np.minimum(np.arange(inputs.window), len(frames) - 1)]
            parts.setdefault(label, []).append(frames[done - start :])
        done = start + inputs.window
    return Synthesis({k: np.concatenate(v) for k, v in parts.items()}, result, inputs.times)


def windows(frames: int, window: int) -> tuple[int, ...]:
    """The first frames of windows that cover a clip: side by side, the last moved back to its end.

    Raises:
      UserError: if the clip is shorter than a window.
    """
    if frames < window:
        raise UserError(f"the clip has {frames} frames; this method needs at least {window}")
    starts = list(range(0, frames - window + 1, window))
    if starts[-1] + window < frames:
        starts.append(frames - window)
    return tuple(starts)


def write(path: str | os.PathLike, made: Synthesis) -> tuple[Path, Path]:
    """Writes `path`, the result alone, and `<stem>.compare<suffix>`, everything side by side.

    Raises:
      UserError: if the place cannot be written to.
    """
    path = Path(path)
    compare = path.with_name(f"{path.stem}.compare{path.suffix}")
    video.write(path, made.videos[made.result], times=made.times)
    video.write(compare, video.beside(made.videos), times=made.times)
    return path, compare


def from_data(
    method: Method,
    config: Any,
    *,
    split: str = "",
    clip: str = "",
    views: tuple[str, str] = ("", ""),
    frames: tuple[int, int] = (0, 0),
) -> Inputs:
    """A clip of a data set, from one of its views in another's.

    Args:
      method: says which keys are read.
      config: the run's config; `data` is read.
      split: by default the config's evaluation split.
      clip: by default the split's first.
      views: source and target; by default the first, and the first other one.
      frames: first and end; an end of 0 is the clip's.

    Raises:
      UserError: if there is no such clip, view or frame, or a stream is missing.
    """
    source = loader.open_split(config.data, split or config.data.eval_split)
    entry = source.clip(clip) if clip else source.clips[0]
    policy = sampling.policy(config.data.sampling)
    pair = _pair(sampling.pairs(entry, policy), views, entry.name)
    first, end = _range(frames, entry.frames, entry.name)
    reads = _reads(method)
    sampling.require(source, reads)
    crop = sampling.Augmentation(crop=tuple(config.data.crop))

    def read(start: int) -> dict[str, np.ndarray]:
        window = sampling.fixed(entry, pair, first + start, policy)
        sample = sampling.augment(sampling.assemble(source, window, reads), crop)
        return {key: value[None] for key, value in sample.items()}

    return Inputs(
        read=read,
        frames=end - first,
        window=policy.t,
        times=np.arange(end - first) / entry.views[pair[1]].fps,
        name=f"{entry.name}, {pair[0]} → {pair[1]}",
    )


def _reads(method: Method) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*method.reads, *method.baseline_reads, "target")))


def _pair(pairs: tuple[tuple[str, str], ...], views: tuple[str, str], clip: str) -> tuple[str, str]:
    found = [p for p in pairs if all(w in ("", have) for w, have in zip(views, p, strict=True))]
    if not found:
        known = ", ".join(f"{a} to {b}" for a, b in pairs)
        raise UserError(f"clip {clip!r}: no views {' to '.join(views)}; there are {known}")
    return found[0]


def _range(frames: tuple[int, int], length: int, name: str) -> tuple[int, int]:
    first, end = frames[0], frames[1] or length
    if not 0 <= first < end <= length:
        raise UserError(f"{name} has frames 0 to {length - 1}; {first}:{end} was asked for")
    return first, end


def from_video(
    method: Method,
    config: Any,
    *,
    path: str,
    mesh: str,
    source_camera: str,
    target_camera: str,
    frames: tuple[int, int] = (0, 0),
) -> Inputs:
    """A video of a person with a known mesh, in a view that nobody filmed.

    The video and both cameras are cut to the shape and resized to the size of the run's frames.

    Args:
      method: says which keys are read.
      config: the run's config; the frames' size and the coding of depth are those of its data.
      path: the source video.
      mesh: npz of `verts` (t, v, 3) in world metres, one for each frame, and `faces` (f, 3).
      source_camera: "FILE.json" or "FILE.json:NAME", as `annotations.read_calibration` reads it.
      target_camera: the same, of the view to make.
      frames: first and end; an end of 0 is the video's.

    Raises:
      UserError: if a file is not as it must be, or the method reads what a mesh cannot give.
    """
    data = loader.open_split(config.data, config.data.eval_split)
    policy = sampling.policy(config.data.sampling)
    stored = next(iter(data.clips[0].views.values())).size
    size = tuple(want or have for want, have in zip(config.data.crop, stored, strict=True))
    clip = video.read(path)
    first, end = _range(frames, len(clip.frames), path)
    body = guidance.read_mesh(mesh)
    if len(body.vertices) != len(clip.frames):
        raise UserError(
            f"{mesh}: {len(body.vertices)} meshes, {path} has {len(clip.frames)} frames"
        )
    have = clip.frames.shape[1:3]
    keys = guidance.guide(
        guidance.fit_frames(clip.frames[first:end], size),
        body.cut(first, end),
        guidance.fit_camera(_camera(source_camera, have), size),
        guidance.fit_camera(_camera(target_camera, have), size),
        near=data.meta["near"],
        far=data.meta["far"],
    )
    lacking = sorted(set(method.reads) - set(keys) - {"target"})
    if lacking:
        raise UserError(f"{lacking[0]!r}, which this method reads, cannot be made from a mesh")
    # Baselines that need more than a mesh are not shown, but they are computed with the others.
    sizes = {"b": 1, "h": size[0], "w": size[1], "t": policy.t, "k": policy.t}
    unseen = spec.zeros(set(method.baseline_reads) - set(keys), sizes)

    def read(start: int) -> dict[str, np.ndarray]:
        window = {key: value[None, start : start + policy.t] for key, value in keys.items()}
        flow = window["target_mesh_flow"].copy()
        flow[:, 0] = 0  # by the contract: nothing comes before a window
        return {**unseen, **window, "target_mesh_flow": flow}

    return Inputs(
        read=read,
        frames=end - first,
        window=policy.t,
        times=clip.times[first:end] - clip.times[first],
        name=f"{Path(path).name}, {target_camera}",
    )


def _camera(name: str, size: tuple[int, int]) -> Camera:
    """The camera of "FILE.json:NAME"; without a size of its own it gets the video's."""
    path, _, wanted = name.partition(".json:")
    cameras = read_calibration(f"{path}.json" if wanted else path)
    if wanted and wanted not in cameras:
        raise UserError(f"{path}.json: no camera {wanted!r}, only {', '.join(cameras)}")
    if not wanted and len(cameras) > 1:
        raise UserError(
            f"{path}: holds {', '.join(cameras)}; name one as {path}:{next(iter(cameras))}"
        )
    camera = cameras[wanted] if wanted else next(iter(cameras.values()))
    return camera if all(camera.size) else dataclasses.replace(camera, size=size)
