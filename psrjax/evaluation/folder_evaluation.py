"""Scores videos that any tool made against real ones: clip by clip, or as sets."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Float, UInt8
from tqdm.auto import tqdm

import psrjax
from psrjax.errors import UserError
from psrjax.evaluation import (
    clip_metrics,
    failure_gallery,
    method_evaluation,
    score_statistics,
    score_table,
    set_metrics,
)
from psrjax.evaluation.clip_features import ClipFeatures
from psrjax.inference import synthesizer
from psrjax.metrics import image, interpolation, registry
from psrjax.prepare.common import clip_reader, joint_files
from psrjax.runtime import cluster

_CHUNK = 16  # frames scored at a time: memory does not grow with a video's length


def evaluate(
    real: str | os.PathLike,
    fakes: Sequence[str | os.PathLike],
    *,
    masks: str | os.PathLike = "",
    metrics: Sequence[str] = (),
    joints: Sequence[str | os.PathLike] = (),
    resize: bool = False,
    shorter: bool = False,
    show_progress: bool = False,
) -> method_evaluation.Evaluation:
    """Scores each folder of `fakes` against `real`, clip by clip and frame by frame.

    A folder holds a video for each clip, a folder of pictures in the order of their numbers, or a
    strip of frames; a folder of pictures alone is one clip, and so is a single file. Clips belong
    together by their names without suffix. One that is missing, damaged, or of another length or
    size in any of the folders is left out of all, and the notes say why. The processes of a run
    share the clips, and all return the whole result.

    Args:
      real: the folder of the true videos, or a single one.
      fakes: folders of made ones, or single ones; a row of the results is named after each.
      masks: a folder of the people's masks (half of white or more is the person), for the masked
        metrics; without it there are none.
      metrics: further ones, of `metrics.registry.FURTHER`: those that need no dataset. With them
        a clip is held in memory. Those that need the motion of the real videos take DIS flow.
      joints: where the joints of the clips lie, as `joint_files.find` finds them, for the
        pose metrics: one place for `real` and one for each of `fakes`, all of one detector. Without
        them MediaPipe is asked.
      resize: whether to bring made frames and masks of another size to that of the true ones.
      shorter: whether to cut the longer of two videos to the length of the shorter.
      show_progress: whether to show a progress bar.

    Returns:
      As `method_evaluation.evaluate`, with the one pair "all"; pictures are of the last of `fakes`.

    Raises:
      UserError: if there is nothing to score, with the reasons of each clip; for a metric that
        these videos cannot have.
    """
    _check_metrics(metrics, masked=bool(masks))
    if joints and len(joints) != 1 + len(fakes):
        raise UserError(
            f"--joints: give one for --real and one for each --fake, in their order, not "
            f"{len(joints)}"
        )
    names = _names(fakes)
    labels = (synthesizer.TRUTH, *names, *(["mask"] if masks else []))
    pairs, bad = _pairs(dict(zip(labels, (real, *fakes, masks))), resize=resize, shorter=shorter)
    scored, about = [], {"real": os.fspath(real), "frames": "8 bits, data range 255"}
    gallery = failure_gallery.Gallery()
    sets = set_metrics.SetAccumulator(metrics)
    given = dict(zip((synthesizer.TRUTH, *names), joints))
    work = [(name, clip) for name in names for clip in cluster.own_part(list(pairs))]
    for name, clip in tqdm(work, "evaluate", unit="clip", disable=not show_progress):
        streams = {label: pairs[clip][label] for label in labels if label not in {*names} - {name}}
        if name != gallery.result:
            gallery = failure_gallery.Gallery()
        pieces = []
        for start, frames in _chunks(streams):
            entry = _score(name, clip, start, frames, masked=bool(masks))
            scored.append(entry)
            _show(gallery, entry, frames)
            pieces += [frames] if metrics else []
        if metrics:
            sides = _join(streams, pieces, given)
            scored += _score_whole(name, clip, *sides, _mask_of(pieces), metrics)
            sets.add((score_table.STEP, name, score_statistics.ALL), clip, 0, *sides)
    sets.close()
    (scored, sets, gallery), *others = cluster.gather((scored, sets, gallery))
    for more, theirs, pictures in others:
        scored += more
        sets.merge(theirs)
        gallery.merge(pictures)
    scored.sort(key=lambda entry: names.index(entry.name))
    about |= {"psrjax": psrjax.__version__, "masks": os.fspath(masks), "split": ""}
    about["notes"] = [
        *clip_metrics.weight_notes(metrics),
        *(["frames of another size were resized to the true ones'"] if resize else []),
        *(["of two videos the longer was cut"] if shorter else []),
        *(f"left out: {why}" for why in bad),
    ]
    rows = sets.finish(score_statistics.rows(scored, about), "whole clips")
    return method_evaluation.Evaluation(rows, [], scored, gallery)


def evaluate_unpaired(
    real: str | os.PathLike,
    fakes: Sequence[str | os.PathLike],
    *,
    metrics: Sequence[str],
    show_progress: bool = False,
) -> method_evaluation.Evaluation:
    """Compares each folder of `fakes` with `real` as sets: no clip need have a true one.

    So a transfer between people is scored, for which there is no truth (FID of Table 1 of D2G-Net):
    `real` then holds videos of the person who is shown. The numbers of clips and frames, and the
    sizes of frames, may differ. A clip that cannot be read is left out, and the notes say why.

    Args:
      real: as in `evaluate`.
      fakes: likewise.
      metrics: of `metrics.registry.FURTHER`: those that are of sets of features.
      show_progress: whether to show a progress bar.

    Returns:
      As `evaluate`, without scores of single frames and pictures.

    Raises:
      UserError: if a folder has no clip that can be read, with the reasons; for a metric that
        needs pairs, or that these videos cannot have.
    """
    for metric in metrics:
        if reason := clip_metrics.obstacle(metric):
            raise UserError(f"--metrics: {reason}")
        if not set_metrics.unpaired(metric):
            raise UserError(f"--unpaired: {metric} compares a video with its true one, as pairs")
    if not metrics:
        raise UserError("--unpaired: name metrics of sets, as in --metrics=fid")
    names = _names(fakes)
    clips = {synthesizer.TRUTH: find(real)} | dict(zip(names, map(find, fakes)))
    sets, bad = set_metrics.SetAccumulator(metrics), {}
    work = [(name, clip) for name, paths in clips.items() for clip in paths]
    own = cluster.own_part(work)
    for name, clip in tqdm(own, "evaluate", unit="clip", disable=not show_progress):
        try:
            frames = np.stack(list(_frames(clips[name][clip])))
        except UserError as error:
            bad[name, clip] = str(error)
            continue
        _check_clip(metrics, clip, frames)
        if name == synthesizer.TRUTH:
            sets.add_true(score_statistics.ALL, clip, ClipFeatures(frames))
        else:
            group = (score_table.STEP, name, score_statistics.ALL)
            sets.add_made(group, clip, ClipFeatures(frames))
    (sets, bad), *others = cluster.gather((sets, bad))
    for theirs, more in others:
        sets.merge(theirs)
        bad |= more
    scored = {
        name: len([c for c in paths if (name, c) not in bad]) for name, paths in clips.items()
    }
    if not all(scored.values()):
        raise UserError(f"nothing to score: {'; '.join(bad.values())}")
    about = {"real": os.fspath(real), "psrjax": psrjax.__version__, "unpaired": True}
    about["notes"] = [
        *clip_metrics.weight_notes(metrics),
        *(f"left out: {why}" for why in bad.values()),
    ]
    rows = [
        {
            "name": name,
            "kind": score_table.STEP,
            "split": "",
            "pair": score_statistics.ALL,
            "metrics": {},
            "interval": {},
            "about": {**about, "clips": scored[name]},
        }
        for name in names
    ]
    return method_evaluation.Evaluation(sets.finish(rows, "whole clips"), [])


def find(place: str | os.PathLike) -> dict[str, Path]:
    """Finds the clips of a folder, {name: path}: videos, folders of pictures, strips of frames.

    A folder of pictures alone is one clip, and so is a file that is named itself.

    Raises:
      UserError: if there is nothing there, no clip in it, or two of one name.
    """
    root = Path(place)
    if not root.exists():
        raise UserError(f"{place}: no such folder or file")
    kinds = ", ".join(clip_reader.VIDEOS)
    if root.is_file():
        if not clip_reader.is_video(root) and not clip_reader.is_strip(root):
            raise UserError(
                f"{place}: neither a video ({kinds}) nor a strip of "
                f"{clip_reader.LEAST_IN_STRIP} square frames or more side by side"
            )
        return {_name(root): root}
    pictures = [p for p in root.iterdir() if p.suffix.lower() in clip_reader.PICTURES]
    strips = pictures if all(map(clip_reader.is_strip, pictures)) else []
    videos = [path for path in root.iterdir() if clip_reader.is_video(path)]
    if not videos and pictures and not strips:
        return {"frames": root}
    if not videos and not strips:
        raise UserError(f"{place}: holds no video ({kinds}) and no folder of pictures")
    found = {}
    for path in sorted((*videos, *strips)):
        if _name(path) in found:
            raise UserError(f"{place}: {path.name} and {found[_name(path)].name} are of one name")
        found[_name(path)] = path
    return found


def _name(path: Path) -> str:
    """Returns a clip's name without its suffixes: some tools write `a.mp4.png` of `a.mp4`."""
    while path.suffix.lower() in (*clip_reader.VIDEOS, *clip_reader.PICTURES):
        path = path.with_suffix("")
    return path.name


def _names(fakes: Sequence[str | os.PathLike]) -> list[str]:
    """Names each folder's row after it."""
    names = [Path(os.path.abspath(fake)).name for fake in fakes]
    taken = [*names, synthesizer.TRUTH]
    if len(set(taken)) < len(taken):
        raise UserError(f"--fake: a second {max(taken, key=taken.count)!r}; rename the folder")
    return names


def _pairs(
    places: Mapping[str, Any], *, resize: bool, shorter: bool
) -> tuple[dict[str, dict[str, Path]], list[str]]:
    """Returns {clip: {label: path}} of the clips that are good in all places, and why others not.

    Raises:
      UserError: if there is no good one.
    """
    found = {label: find(place) for label, place in places.items()}
    truth = found[synthesizer.TRUTH]
    if all(len(clips) == 1 for clips in found.values()) and any(
        next(iter(clips.values())) == Path(places[label]) for label, clips in found.items()
    ):  # a clip that is named itself belongs to the only one of the others, whatever its name
        found = {label: dict(zip(truth, clips.values())) for label, clips in found.items()}
    everything = sorted({clip for clips in found.values() for clip in clips})
    bad = {}
    for clip in cluster.own_part(everything):
        lacking = [places[label] for label, clips in found.items() if clip not in clips]
        if lacking:
            bad[clip] = f"{lacking[0]}: holds no clip {clip!r}, which another folder has"
        elif why := _misfit([clips[clip] for clips in found.values()], resize, shorter):
            bad[clip] = why
    bad = {clip: why for own in cluster.gather(bad) for clip, why in own.items()}
    reasons = [bad[clip] for clip in everything if clip in bad]
    good = [clip for clip in everything if clip not in bad]
    if not good:
        raise UserError(f"nothing to score: {'; '.join(reasons)}")
    return {clip: {label: found[label][clip] for label in found} for clip in good}, reasons


def _misfit(paths: Sequence[Path], resize: bool, shorter: bool) -> str:
    """Says why videos cannot be scored beside the first; "" if they can."""
    counts, sizes = [], []
    for path in paths:
        try:
            shapes = [frame.shape[:2] for frame in _frames(path)]
        except UserError as error:
            return str(error)
        counts.append(len(shapes))
        sizes.append(shapes[0])
    for path, size, count in zip(paths, sizes, counts):
        if size != sizes[0] and not resize:
            return (
                f"{path} is {size[1]}x{size[0]} pixels, {paths[0]} {sizes[0][1]}x{sizes[0][0]}: "
                "resize one, or take --resize"
            )
        if count != counts[0] and not shorter:
            return f"{path} has {count} frames, {paths[0]} {counts[0]}: cut one, or take --shorter"
    return ""


def _frames(path: Path) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    if path.is_file() and clip_reader.is_strip(path):
        return iter(clip_reader.read_strip(path))
    return (frame.image for frame in clip_reader.read_frames(path))


def _chunks(paths: Mapping[str, Path]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields (number of the first frame, {label: (t h w 3)}) of clips that go side by side.

    Frames of another size than the first clip's are resized; what is longer is cut.
    """
    together = zip(*(_frames(path) for path in paths.values()))
    for start in itertools.count(0, _CHUNK):
        chunk = list(itertools.islice(together, _CHUNK))
        if not chunk:
            return
        size = chunk[0][0].shape[:2]
        columns = ([_resized(frame, size) for frame in column] for column in zip(*chunk))
        yield start, {label: np.stack(column) for label, column in zip(paths, columns)}


def _resized(
    frame: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "y x 3"]:
    if frame.shape[:2] == size:
        return frame
    smaller = size[0] * size[1] < frame.shape[0] * frame.shape[1]
    return cv2.resize(
        frame, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    )


@jax.jit
def _unmasked(made: jax.Array, truth: jax.Array) -> dict[str, jax.Array]:
    """Computes the metrics that need no mask."""
    made, truth = made.astype(np.float32) / 255.0, truth.astype(np.float32) / 255.0
    return {name: getattr(image, name)(made, truth) for name in ("ssim", "ssim_uniform7", "psnr")}


def _score(
    name: str, clip: str, start: int, frames: Mapping[str, np.ndarray], *, masked: bool
) -> score_statistics.Scored:
    """Scores a chunk; it is padded to one length, so that one program serves all."""
    count = len(frames[synthesizer.TRUTH])
    full = [
        frames[label][np.minimum(np.arange(_CHUNK), count - 1)]
        for label in (name, synthesizer.TRUTH)
    ]
    if masked:
        mask = _mask(frames)[np.minimum(np.arange(_CHUNK), count - 1)]
        found = method_evaluation.frame_scores(*full, mask)
    else:
        found = _unmasked(*full)
    metrics = {m: np.asarray(found[m])[:count] for m in registry.BASIC if m in found}
    return score_statistics.Scored(
        score_table.STEP, name, score_statistics.ALL, clip, start, metrics
    )


def _check_metrics(metrics: Sequence[str], *, masked: bool) -> None:
    for metric in metrics:
        if reason := clip_metrics.obstacle(metric):
            raise UserError(f"--metrics: {reason}")
        needs = registry.get(metric).needs
        if "target_joints" in needs:
            raise UserError(f"--metrics: {metric} needs the joints of a dataset: evaluate a run")
        if "target_mask" in needs and not masked:
            raise UserError(f"--metrics: {metric} needs the people's masks: give --masks")


def _join(
    streams: Mapping[str, Path], pieces: Sequence[Mapping[str, np.ndarray]], joints: Mapping
) -> tuple[ClipFeatures, ClipFeatures]:
    """Joins the chunks of the made clip and of the true one."""
    truth, name, *_ = streams
    found = []
    for label in (name, truth):
        frames, own = np.concatenate([piece[label] for piece in pieces]), None
        if label in joints:
            size = frames.shape[1:3]
            place = joint_files.find(joints[label], streams[label])
            people = joint_files.read(place, frames=len(frames), size=size)
            own = np.stack([_first(here) for here in people.frames])
        found.append(ClipFeatures(frames, own))
    return tuple(found)


def _first(people: Float[np.ndarray, "n 26 3"]) -> Float[np.ndarray, "26 3"]:
    """Returns the person of whom the detector is surest; zeros if there is nobody."""
    if not len(people):
        return np.zeros(people.shape[1:], np.float32)
    return people[people[..., 2].sum(-1).argmax()].astype(np.float32)


def _score_whole(
    name: str,
    clip: str,
    made: ClipFeatures,
    truth: ClipFeatures,
    mask: UInt8[np.ndarray, "t h w 1"],
    metrics: Sequence[str],
) -> list[score_statistics.Scored]:
    """Scores a whole clip."""
    _check_clip(metrics, clip, mask)
    needs = {key for metric in metrics for key in registry.get(metric).needs}
    flows = _flows(truth.frames) if needs & set(registry.FLOWS) else {}
    values = clip_metrics.score(metrics, made, truth, {**flows, "target_mask": mask})
    place = (score_table.STEP, name, score_statistics.ALL, clip, 0)
    return [score_statistics.Scored(*place, values, whole=True)] if values else []


def _check_clip(metrics: Sequence[str], clip: str, frames: UInt8[np.ndarray, "t h w _"]) -> None:
    for metric in metrics:
        if reason := clip_metrics.obstacle(metric, side=min(frames.shape[1:3]), frames=len(frames)):
            raise UserError(f"--metrics: {reason}: clip {clip!r}")


def _flows(frames: UInt8[np.ndarray, "t h w 3"]) -> dict[str, Float[np.ndarray, "t h w 2"]]:
    """Computes DIS flow between the frames of a true video, under the names of stored flow."""
    still = np.zeros((*frames.shape[1:3], 2), np.float32)
    pairs = list(zip(frames[1:], frames[:-1]))
    backward = [still, *(interpolation.dis_flow(now, before) for now, before in pairs)]
    forward = [still, *(interpolation.dis_flow(before, now) for now, before in pairs)]
    return dict(zip(registry.FLOWS, (np.stack(backward), np.stack(forward))))


def _mask_of(pieces: Sequence[Mapping[str, np.ndarray]]) -> UInt8[np.ndarray, "t h w 1"]:
    return np.concatenate([_mask(piece) for piece in pieces])


def _mask(frames: Mapping[str, np.ndarray]) -> UInt8[np.ndarray, "t h w 1"]:
    if "mask" not in frames:
        return np.zeros((*frames[synthesizer.TRUTH].shape[:3], 1), np.uint8)
    return frames["mask"].max(-1, keepdims=True)


def _show(
    gallery: failure_gallery.Gallery,
    entry: score_statistics.Scored,
    frames: Mapping[str, np.ndarray],
) -> None:
    window = {"clip": entry.clip, "target_view": entry.clip, "start": entry.start}
    videos = {label: frames[label] for label in (entry.name, synthesizer.TRUTH)}
    gallery.add(window, entry.pair, videos, _mask(frames), entry.metrics)
