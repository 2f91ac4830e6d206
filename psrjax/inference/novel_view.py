"""Novel views: a clip of a dataset, or a video and the person's mesh, seen by another camera."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from psrjax.data import loader, sampling, spec, video
from psrjax.data.source import Clip, Source
from psrjax.errors import UserError
from psrjax.inference import intermediate_results, output_files, synthesizer
from psrjax.inference.footage import Footage
from psrjax.inference.frame_selection import frame_range
from psrjax.inference.marks import UNNAMED, Mark
from psrjax.methods.base import Method
from psrjax.prepare.common.calibration import read_calibration
from psrjax.prepare.multiview import virtual_camera
from psrjax.synthetic import dataset
from psrjax.vision import guidance
from psrjax.vision.camera import Camera

SHOWN_BASELINES = ("x0",)  # baselines worth seeing beside the steps, of those that a method has


@dataclass(frozen=True)
class NovelViewInputs:
    """A clip to synthesize.

    Attributes:
      read: (first frame) -> the wire batch (b = 1) of the window that starts there.
      frames: the clip's length.
      window: the length of a window, the t of `read`'s batches.
      times: (frames,) seconds at which the frames are shown.
      name: what is synthesized, for titles.
    """

    read: Callable[[int], Mapping[str, np.ndarray]]
    frames: int
    window: int
    times: np.ndarray
    name: str


def from_data(
    method: Method,
    config: Any,
    *,
    split: str = "",
    clip: str = "",
    views: tuple[str, str] = ("", ""),
    frames: tuple[int, int] = (0, 0),
) -> NovelViewInputs:
    """Opens a clip of a dataset, from one of its views in another's.

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
    source, entry = _clip(config, split, clip)
    policy = sampling.policy(config.data.sampling)
    pair = _pair(sampling.pairs(entry, policy), views, entry.name)
    first, end = frame_range(frames, entry.frames, entry.name)
    reads = _reads(method)
    sampling.require(source, reads)
    given = (key for key in method.intermediate_reads if sampling.stream(key) in source.streams)
    reads = tuple(dict.fromkeys((*reads, *given)))
    crop = sampling.Augmentation(crop=tuple(config.data.crop))
    appearance = loader.open_appearance(dataset.resolve_path(config.data))

    def read(start: int) -> dict[str, np.ndarray]:
        window = sampling.fixed(entry, pair, first + start, policy, appearance=appearance)
        sample = sampling.assemble(source, window, reads, appearance=appearance)
        return {key: value[None] for key, value in sampling.augment(sample, crop).items()}

    return NovelViewInputs(
        read=read,
        frames=end - first,
        window=policy.t,
        times=np.arange(end - first) / entry.views[pair[1]].fps,
        name=f"{entry.name}, {pair[0]} → {pair[1]}",
    )


def from_scored(
    method: Method, config: Any, *, clip: str, views: tuple[str, str]
) -> NovelViewInputs:
    """Opens the part of a clip that is scored, see `sampling.first_scored`.

    Args:
      method: says which keys are read.
      config: as `evaluated_split.for_scoring` gives it.
      clip: a clip of the evaluation split.
      views: source and target.

    Raises:
      UserError: as `from_data`.
    """
    entry = _clip(config, "", clip)[1]
    appearance = loader.open_appearance(dataset.resolve_path(config.data))
    policy = sampling.policy(config.data.sampling)
    first = sampling.first_scored(entry, policy, appearance=appearance)
    return from_data(method, config, clip=clip, views=views, frames=(first, 0))


PRIOR = "target_prior"


def with_estimate(method: Method, inputs: NovelViewInputs, estimate: Footage) -> NovelViewInputs:
    """Replaces the initial estimate that a method refines by frames of one's own.

    Args:
      method: says which keys are read.
      inputs: the clip whose view is made, as `from_data` opens it.
      estimate: footage of that view, frame for frame.

    Raises:
      UserError: if the method refines no estimate, or the estimate has another length.
    """
    if PRIOR not in method.reads:
        raise UserError("this method starts from no estimate of the view: there is none to refine")
    if estimate.frames != inputs.frames:
        raise UserError(
            f"{estimate.name}: {estimate.frames} frames; {inputs.name} has {inputs.frames}"
        )

    def read(start: int) -> Mapping[str, np.ndarray]:
        frames = range(start, start + inputs.window)
        return {**inputs.read(start), PRIOR: estimate.read(("target",), frames)["target"][None]}

    return dataclasses.replace(inputs, read=read)


def _clip(config: Any, split: str, name: str) -> tuple[Source, Clip]:
    source = loader.open_split(dataset.resolve_path(config.data), split or config.data.eval_split)
    return source, source.clip(name) if name else source.clips[0]


def _reads(method: Method) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*method.reads, *method.baseline_reads, "target")))


def _pair(pairs: tuple[tuple[str, str], ...], views: tuple[str, str], clip: str) -> tuple[str, str]:
    found = [p for p in pairs if all(w in ("", have) for w, have in zip(views, p, strict=True))]
    if not found:
        known = ", ".join(f"{a} to {b}" for a, b in pairs)
        raise UserError(f"clip {clip!r}: no views {' to '.join(views)}; there are {known}")
    return found[0]


def from_video(
    method: Method,
    config: Any,
    *,
    path: str,
    mesh: str,
    source_camera: str,
    target_camera: str,
    frames: tuple[int, int] = (0, 0),
) -> NovelViewInputs:
    """Opens a video of a person with a known mesh, for a view that nobody filmed.

    The video and both cameras are cut to the shape and resized to the size of the stored frames of
    the run's dataset, and then cropped as those are.

    Args:
      method: says which keys are read.
      config: the run's config; the frames' size and the coding of depth are those of its data.
      path: the source video.
      mesh: npz of `verts` (t, v, 3) in world metres, one for each frame, and `faces` (f, 3).
      source_camera: "FILE.json" or "FILE.json:NAME", as `calibration.read_calibration` reads it.
      target_camera: the same, of the view to make.
      frames: first and end; an end of 0 is the video's.

    Raises:
      UserError: if a file is not as it must be, or the method reads what a mesh cannot give.
    """
    data = loader.open_split(dataset.resolve_path(config.data), config.data.eval_split)
    size = next(iter(data.clips[0].views.values())).size
    clip = video.read(path)
    first, end = frame_range(frames, len(clip.frames), path)
    body = guidance.read_mesh(mesh)
    if len(body.vertices) != len(clip.frames):
        count = f"{len(body.vertices)} meshes"
        raise UserError(f"{mesh}: {count}, {path} has {len(clip.frames)} frames")
    filmed_size = clip.frames.shape[1:3]
    keys = guidance.guide(
        guidance.fit_frames(clip.frames[first:end], size),
        body.cut(first, end),
        guidance.fit_camera(_camera(source_camera, filmed_size), size),
        guidance.fit_camera(_camera(target_camera, filmed_size), size),
        near=data.meta["near"],
        far=data.meta["far"],
    )
    times = clip.times[first:end] - clip.times[first]
    return _guided(method, config, keys, times, f"{Path(path).name}, {target_camera}")


def from_camera(
    method: Method,
    config: Any,
    *,
    camera: str,
    split: str = "",
    clip: str = "",
    source_view: str = "",
    frames: tuple[int, int] = (0, 0),
) -> NovelViewInputs:
    """Opens a clip of a dataset that stores its person's body, for a camera nobody filmed with.

    There is neither a mean frame nor a clean background of such a camera: a method that reads one
    gets that of the view whose camera looks most nearly the same way.

    Args:
      method: says which keys are read.
      config: the run's config; `data` is read.
      camera: "FILE.json" or "FILE.json:NAME", in the dataset's coordinates.
      split: by default the config's evaluation split.
      clip: by default the split's first.
      source_view: by default the clip's first.
      frames: first and end; an end of 0 is the clip's.

    Raises:
      UserError: if there is no such clip or view, or the dataset does not store the body.
    """
    data, entry = _clip(config, split, clip)
    view = source_view or next(iter(entry.views))
    first, end = frame_range(frames, entry.frames, entry.name)
    target = _camera(camera, (0, 0))
    keys = virtual_camera.guide(data, entry.name, view, target, range(first, end))
    nearest = virtual_camera.nearest_view(data, entry.name, target)
    if "target_mean" in method.reads:
        keys["target_mean"] = data.means[nearest]
    if "background" in method.reads:
        keys["background"] = data.read(entry.name, nearest, "background")
    times = np.arange(end - first) / entry.views[view].fps
    return _guided(method, config, keys, times, f"{entry.name}, {view} → {Path(camera).name}")


def _guided(
    method: Method, config: Any, keys: Mapping[str, np.ndarray], times: np.ndarray, name: str
) -> NovelViewInputs:
    """Makes a clip, cropped, of `guidance.guide`'s arrays (t, …) and of keys without time."""
    lacking = sorted(set(method.reads) - set(keys) - {"target"})
    if lacking:
        raise UserError(f"{lacking[0]!r}, which this method reads, cannot be made from a mesh")
    policy = sampling.policy(config.data.sampling)
    crop = sampling.Augmentation(crop=tuple(config.data.crop))
    # Baselines that need more than a mesh are not shown, but they are computed with the others.
    _, height, width, _ = keys["source"].shape
    sizes = {"b": 1, "h": height, "w": width, "t": policy.t, "k": policy.t}
    unseen = spec.zeros(set(method.baseline_reads) - set(keys), sizes)
    fixed = {key: value[0] for key, value in unseen.items()}
    fixed |= {key: keys[key] for key in keys if not {"k", "t"} & set(spec.KEYS[key].axes.split())}
    timed = {key: value for key, value in keys.items() if key not in fixed}

    def read(start: int) -> dict[str, np.ndarray]:
        sample = {key: value[start : start + policy.t] for key, value in timed.items()}
        flow = sample["target_mesh_flow"].copy()
        flow[:1] = 0  # by the contract: nothing comes before a window
        sample = sampling.augment({**fixed, **sample, "target_mesh_flow": flow}, crop)
        return {key: value[None] for key, value in sample.items()}

    return NovelViewInputs(read, frames=len(times), window=policy.t, times=times, name=name)


def _camera(name: str, size: tuple[int, int]) -> Camera:
    """Reads the camera of "FILE.json:NAME"; without a size of its own it gets `size`."""
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


@dataclass(frozen=True)
class SynthesizedClip:
    """A synthesized clip.

    Attributes:
      videos: {label: (t h w 3) uint8} in the order to show them: "source", baselines, the method's
        steps, and "truth" where it is known.
      steps: the labels of the method's steps; the last one is the result.
      times: (t,) seconds at which the frames are shown.
      intermediates: {name: array} as `intermediate_results` draws them, if they were wanted: of the
        whole clip, those without time of its first window.
    """

    videos: dict[str, np.ndarray]
    steps: tuple[str, ...]
    times: np.ndarray
    intermediates: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def answers(self) -> dict[str, np.ndarray]:
        """The truth, where it is known, and the method's steps."""
        known = (synthesizer.TRUTH, *self.steps)
        return {label: self.videos[label] for label in known if label in self.videos}


def synthesize(
    method: Method,
    variables: Mapping[str, Any],
    inputs: NovelViewInputs,
    *,
    intermediates: bool = False,
    show_progress: bool = False,
) -> SynthesizedClip:
    """Synthesizes a clip of any length from windows of a fixed one.

    Args:
      method: as a run restores it.
      variables: its parameters and statistics.
      inputs: the clip.
      intermediates: whether the method's intermediate results are kept.
      show_progress: whether to show a progress bar.

    Raises:
      UserError: if the clip is shorter than a window.
    """
    made = synthesize_windows(method, variables, inputs, intermediates=intermediates)
    count = len(windows(inputs.frames, inputs.window))
    bar = tqdm(made, "synthesize", unit="window", total=count, disable=not show_progress)
    parts = list(bar)
    joined = lambda arrays: {  # noqa: E731
        name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]
    }
    drawn = joined([part.intermediates for part in parts]) | parts[0].stills
    return SynthesizedClip(
        joined([part.videos for part in parts]), parts[0].steps, inputs.times, drawn
    )


@dataclass(frozen=True)
class ViewWindow:
    """Consecutive frames of a novel view: fields as those of `SynthesizedClip`.

    Attributes:
      videos: {label: (t h w 3) uint8}.
      steps: the labels of the method's steps.
      intermediates: those with time, of these frames.
      stills: those without.
    """

    videos: dict[str, np.ndarray]
    steps: tuple[str, ...]
    intermediates: dict[str, np.ndarray]
    stills: dict[str, np.ndarray]


def synthesize_windows(
    method: Method,
    variables: Mapping[str, Any],
    inputs: NovelViewInputs,
    *,
    intermediates: bool = False,
) -> Iterator[ViewWindow]:
    """Yields what `synthesize` joins, window by window, each frame once."""
    compiled = synthesizer.make_synthesizer(method, comparison=True, intermediates=intermediates)
    where = synthesizer.cut(synthesizer.frame_devices(inputs.window), axis=1)
    variables = synthesizer.whole(variables, where)
    carry, done = None, 0
    for start in windows(inputs.frames, inputs.window):
        batch = dict(inputs.read(start))
        made, carry = compiled(variables, synthesizer.by_frames(batch, where, inputs.window), carry)
        known = {n: video for n, video in made["baselines"].items() if n in SHOWN_BASELINES}
        videos = {synthesizer.SOURCE: batch["source"], **known, **made["steps"]}
        if "target" in batch:
            videos[synthesizer.TRUTH] = batch["target"]
        fresh = np.arange(done - start, inputs.window)
        found = {name: np.asarray(a[0]) for name, a in made.get("intermediates", {}).items()}
        moving = {n for n, a in found.items() if a.ndim > 2 and len(a) == inputs.window}
        yield ViewWindow(
            {
                label: np.asarray(v[0])[np.minimum(fresh, v.shape[1] - 1)]
                for label, v in videos.items()
            },
            tuple(made["steps"]),
            {name: found[name][fresh] for name in found if name in moving},
            {name: found[name] for name in found if name not in moving},
        )
        done = start + inputs.window


def windows(frames: int, window: int) -> tuple[int, ...]:
    """Returns the first frames of windows that cover a clip; the last is moved back to its end.

    Raises:
      UserError: if the clip is shorter than a window.
    """
    if frames < window:
        raise UserError(f"the clip has {frames} frames; this method needs at least {window}")
    starts = list(range(0, frames - window + 1, window))
    if starts[-1] + window < frames:
        starts.append(frames - window)
    return tuple(starts)


def write(path: str | os.PathLike, clip: SynthesizedClip, *, mark: Mark = UNNAMED) -> list[Path]:
    """Writes `path`, the result alone, and `<stem>.compare<suffix>`, everything side by side.

    A clip with intermediate results also gets the files of `intermediate_results.write`. `mark` is
    what the videos say of themselves.

    Raises:
      UserError: if the place cannot be written to.
    """
    suffix, path = output_files.suffix_of(path), Path(path)
    compare = path.with_name(f"{path.stem}.compare{path.suffix}")
    how: Any = {"times": clip.times, "suffix": suffix, "mark": mark}
    output_files.write(path, clip.videos[clip.steps[-1]], **how)
    output_files.write(compare, video.beside(clip.videos), **how)
    if not clip.intermediates:
        return [path, compare]
    shown = {synthesizer.SOURCE: clip.videos[synthesizer.SOURCE], **clip.answers}
    drawn = intermediate_results.write(path, clip.intermediates, shown, clip.times, mark=mark)
    return [path, compare, *drawn]
