"""The synthetic dataset: people who act in furnished scenes, rendered for calibrated cameras.

Nothing is downloaded: bodies, clothes, faces, motion and scenes are functions of a seed, and every
stream is exact. A `SyntheticConfig` says what there is; `render_clip` renders one `ClipSpec` of it
in plain NumPy; `ensure_rendered` stores all of them once, in the format of `psrjax.data.store`.
"""

import dataclasses
import fcntl
import functools
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from absl import logging
from jaxtyping import Float
from tqdm import tqdm

from psrjax import io
from psrjax.data import codec, store
from psrjax.data.codec import ClipView
from psrjax.errors import UserError
from psrjax.runtime import workers
from psrjax.synthetic import actions, characters, clip_rendering, cloth_folds, decoration, scenes
from psrjax.vision import body, mesh_features, raster, rendering
from psrjax.vision.camera import Camera

SYNTHETIC = "synthetic"  # the value of config.data.path that means this dataset
VERSION = 1  # of what is rendered: raise it, and every cached dataset is rendered anew
STREAMS = (
    *("frames", "mask", "iuv", "depth", "flow", "flow_forward", "flow_confidence", "mesh_flow"),
    *("joints", "joints_3d", "face", "background", "prior", "visibility", "mesh_label"),
)
_OF_ONE_VIEW = tuple(s for s in STREAMS if s not in ("prior", "visibility", "mesh_label"))
_PSRNET = (
    *("frames", "mask", "depth", "flow", "flow_forward", "flow_confidence", "mesh_flow"),
    *("joints", "joints_3d", "face", "background", "prior", "visibility"),
)
_RUN = 64  # frames of a long clip that one task renders
_ONE_CAMERA = {"cameras": 1, "clips_per_person": 1, "streams": _OF_ONE_VIEW}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "multiview": {},
    "long": {**_ONE_CAMERA, "people_train": 1, "people_test": 0, "frames": 550, "scenes": 1},
    "many": {**_ONE_CAMERA, "people_train": 24, "people_test": 8, "frames": 160},
}
_DEPTH = {"near": clip_rendering.NEAR, "far": clip_rendering.FAR}


@dataclass(frozen=True)
class SyntheticConfig:
    """The contents of a synthetic dataset.

    Attributes:
      kind: "multiview" (short clips of one action by three cameras), "long" (minutes of one person
        by one camera, with turns) or "many" (clips of at least 6 s of many people, one camera).
      size: (height, width) of the frames.
      scenes: how many; both splits share them.
      people_train: how many people act in the split "train".
      people_test: how many others act in the split "test"; 0: there is no such split.
      people_validation: likewise in "validation".
      clips_per_person: each another action.
      frames: of a clip.
      fps: frames per second.
      cameras: how many see each clip at once; from -45 to +45 degrees.
      folds: depth of the folds that poses press into clothes, from 0, for none, to 1.
      joint_noise: error of each joint in each frame, as a detector makes it: the standard deviation
        along each axis, as a share of the frame's height; 0: exact.
      streams: what is rendered and stored (of `STREAMS`); "mesh_label" only where it is named.
      seed: of everything.
    """

    kind: str = "multiview"
    size: tuple[int, int] = (64, 64)
    scenes: int = 8
    people_train: int = 20
    people_test: int = 6
    people_validation: int = 0
    clips_per_person: int = 3
    frames: int = 24
    fps: float = 25.0
    cameras: int = 3
    folds: float = 0.0
    joint_noise: float = 0.0
    streams: tuple[str, ...] = _PSRNET
    seed: int = 0


@dataclass(frozen=True)
class ClipSpec:
    """One clip, or one run of its frames: all that `render_clip` needs beside the config."""

    clip: str
    split: str
    person: int
    action: str
    facing: float  # radians
    scene: int
    seed: int
    start: int = 0
    stop: int = 0


class _Section(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


def resolve_path(data: _Section | Mapping[str, Any]) -> dict[str, Any]:
    """Returns `config.data` with the path of a stored dataset; the synthetic one is rendered first.

    What reads stored data (`psrjax.data.loader`) knows folders only, so whoever holds a config
    passes it through here.
    """
    found = dict(data) if isinstance(data, Mapping) else data.to_dict()
    if found["path"] == SYNTHETIC:
        found["path"] = os.fspath(ensure_rendered(found.get("synthetic", {})))
    return found


def make_config(settings: Mapping[str, Any]) -> SyntheticConfig:
    """Completes `settings` (fields of `SyntheticConfig`) with the defaults of their kind.

    Raises:
      UserError: for a setting that does not exist, or a value outside its range.
    """
    fields = [field.name for field in dataclasses.fields(SyntheticConfig)]
    for name in settings:
        if name not in fields:
            raise UserError(f"data.synthetic has no setting {name!r}: {', '.join(fields)}")
    kind = settings.get("kind", "multiview")
    if kind not in _DEFAULTS:
        raise UserError(f"data.synthetic.kind={kind!r}: one of {', '.join(_DEFAULTS)}")
    merged = _DEFAULTS[kind] | dict(settings)
    merged |= {name: tuple(merged[name]) for name in ("size", "streams") if name in merged}
    config = SyntheticConfig(**merged)
    _check(config)
    return config


def _check(config: SyntheticConfig) -> None:
    def require(good: bool, name: str, rule: str) -> None:
        if not good:
            raise UserError(f"data.synthetic.{name}={getattr(config, name)}: {rule}")

    for name in ("scenes", "people_train", "clips_per_person", "frames", "cameras"):
        require(getattr(config, name) >= 1, name, "must be at least 1")
    require(0.0 <= config.folds <= 1.0, "folds", "from 0, for none, to 1")
    require(0.0 <= config.joint_noise <= 0.5, "joint_noise", "from 0, for exact, to 0.5")
    good_size = len(config.size) == 2 and min(config.size) >= 16
    require(good_size, "size", "two sides of at least 16 pixels")
    known = "frames" in config.streams and set(config.streams) <= set(STREAMS)
    require(known, "streams", f"'frames' and any of {', '.join(STREAMS)}")
    paired = bool({"prior", "visibility"} & set(config.streams))
    rule = "'prior' and 'visibility' need at least two cameras"
    require(config.cameras > 1 or not paired, "streams", rule)


def clip_specs(config: SyntheticConfig) -> dict[str, list[ClipSpec]]:
    """Lists the clips of each split. People differ between splits, scenes are shared."""
    counts = {"train": config.people_train, "test": config.people_test}
    counts |= {"validation": config.people_validation}
    splits: dict[str, list[ClipSpec]] = {name: [] for name, count in counts.items() if count}
    people = ((split, first) for split in splits for first in range(counts[split]))
    for person, (split, first) in enumerate(people):
        generator = np.random.default_rng((config.seed, 7003, person))
        for number in range(config.clips_per_person):
            order = first * config.clips_per_person + number
            action = actions.ACTIONS[(first + number) % len(actions.ACTIONS)]
            action = action if config.kind == "multiview" else config.kind
            side = (-1.0, 1.0)[(first + number // len(actions.ACTIONS)) % 2]
            spec = ClipSpec(
                clip=f"p{person:03d}_{action}_{number + 1}",
                split=split,
                person=person,
                action=action,
                facing=float(np.radians(45.0 * side + generator.uniform(-9, 9))),
                scene=(order + order // config.scenes) % config.scenes,
                seed=int(generator.integers(2**31)),
                stop=config.frames,
            )
            splits[split] += _runs(config, spec)
    return splits


def _runs(config: SyntheticConfig, spec: ClipSpec) -> list[ClipSpec]:
    """Cuts a clip into runs of frames, unless streams of its views depend on one another."""
    if config.cameras > 1:
        return [spec]
    ends = [*range(0, config.frames, _RUN), config.frames]
    return [dataclasses.replace(spec, start=a, stop=b) for a, b in itertools.pairwise(ends)]


@functools.lru_cache(maxsize=4)
def make_person(seed: int, number: int) -> characters.Character:
    """Draws person `number` of the dataset with that seed."""
    generator = np.random.default_rng((seed, 7004, number))
    return characters.make_character(f"p{number:03d}", generator)


def joints_of(config: SyntheticConfig, spec: ClipSpec) -> np.ndarray:
    """Returns the joints (frames, 26, 3), in metres, of the whole clip of `spec`."""
    generator = np.random.default_rng((config.seed, 7005, spec.seed))
    clip = (config.frames, config.fps, spec.facing, generator)
    if spec.action in actions.ACTIONS:
        motion = actions.single_action(spec.action, *clip)
    else:
        motion = actions.action_sequence(*clip)
    return actions.joints(make_person(config.seed, spec.person).model, motion, config.fps)


@functools.lru_cache(maxsize=32)
def _backgrounds(config: SyntheticConfig, number: int) -> dict[str, dict[str, np.ndarray]]:
    scene = decoration.make_scene(number, config.seed)
    cameras = clip_rendering.rig(number, config.seed, config.cameras, config.size)
    return {
        view: scenes.render_background(scene, camera, clip_rendering.SAMPLES)
        for view, camera in cameras.items()
    }


def render_clip(config: SyntheticConfig, spec: ClipSpec) -> list[ClipView]:
    """Renders every view of a clip, or of a run of its frames, with the config's streams.

    A pure function of its arguments, whatever was rendered before and by how many processes.
    """
    person = make_person(config.seed, spec.person)
    first = max(spec.start - 1, 0)  # a run's first flow needs the frame before it
    joints = joints_of(config, spec)[first : spec.stop]
    vertices = body.pose(person.model, joints)
    scene = decoration.make_scene(spec.scene, config.seed)
    cameras = clip_rendering.rig(spec.scene, config.seed, config.cameras, config.size)
    backgrounds = _backgrounds(config, spec.scene)
    bends = config.folds * cloth_folds.bends(joints)
    views = clip_rendering.render_views(person, vertices, scene, cameras, backgrounds, bends)
    pair_streams: dict[str, dict[str, Any]] = {name: {} for name in views}
    if {"prior", "visibility"} & set(config.streams):
        frames = {name: view.frames for name, view in views.items()}
        faces = {name: np.stack([r.face for r in view.rasters]) for name, view in views.items()}
        near = rendering.neighbours(body.template())
        pair_streams = rendering.all_pairs(frames, faces, person.model, near)
    meta = {
        "fps": config.fps,
        "person": person.name,
        "action": spec.action,
        "scene": scene.name,
        "facing": round(float(np.degrees(spec.facing)), 2),
        "kind": config.kind,
        **_DEPTH,
    }
    records = []
    for name, view in views.items():
        streams = _view_streams(config, person, view, vertices, joints, cameras[name])
        if "joints" in streams:
            streams["joints"] = _add_joint_noise(streams["joints"], config, spec, name)
        streams = {key: values[spec.start - first :] for key, values in streams.items()}
        streams |= {"background": clip_rendering.background_image(backgrounds[name])}
        streams |= pair_streams[name]
        kept = {key: streams[key] for key in sorted(config.streams)}
        records.append(ClipView(spec.clip, name, kept, meta, cameras[name], spec.start))
    return records


def _view_streams(
    config: SyntheticConfig,
    person: characters.Character,
    view: clip_rendering.RenderedView,
    vertices: np.ndarray,
    joints: np.ndarray,
    camera: Camera,
) -> dict[str, np.ndarray]:
    """Returns the streams of one view that need no other view."""
    wanted, model = set(config.streams), person.model
    metres = np.stack([seen.depth for seen in view.rasters])
    streams = {
        "frames": view.frames,
        "mask": view.mask,
        "face": np.stack([seen.face for seen in view.rasters]),
        "joints_3d": joints.astype(np.float32),
    }
    if "depth" in wanted:
        streams["depth"] = rendering.encode_depth(metres, **_DEPTH)
    if "iuv" in wanted:
        streams["iuv"] = np.stack([rendering.iuv(model, seen) for seen in view.rasters])
    if "mesh_label" in wanted:
        labels = [
            mesh_features.label(seen, posed, model.faces, camera)
            for seen, posed in zip(view.rasters, vertices)
        ]
        streams["mesh_label"] = np.stack(labels)
    if "joints" in wanted:
        projected = camera.project(joints)
        places = projected["pixels"], projected["depth"]
        confidence = clip_rendering.joint_confidence(metres, *places)
        streams["joints"] = rendering.stored_joints(joints, confidence, camera)
    if wanted & {"flow", "flow_forward", "flow_confidence", "mesh_flow"}:
        streams |= _flows(view, vertices, model.faces, camera)
    return streams


def _add_joint_noise(
    joints: Float[np.ndarray, "t 26 3"], config: SyntheticConfig, spec: ClipSpec, view: str
) -> Float[np.ndarray, "t 26 3"]:
    """Adds `config.joint_noise` to joints with confidence."""
    key = (config.seed, 7006, spec.seed, int(view.removeprefix("cam")))
    drawn = np.random.default_rng(key).standard_normal((spec.stop, len(joints[0]), 2))
    height, width = config.size
    std = 2.0 * config.joint_noise * np.array([height / width, 1.0])
    noise = (std * drawn)[spec.stop - len(joints) :]
    found = joints[..., 2:] > 0
    return np.concatenate([joints[..., :2] + found * noise, joints[..., 2:]], -1, dtype=np.float32)


def _flows(
    view: clip_rendering.RenderedView, vertices: np.ndarray, faces: np.ndarray, camera: Camera
) -> dict[str, np.ndarray]:
    """Returns the flows between neighbouring frames.

    The scene stands still: off the body they are zero, and the image's flow is the mesh's.
    """
    zero = np.zeros((*camera.size, 2), np.float32)
    backward, forward, confidence = [zero], [zero], [np.zeros(camera.size, np.uint8)]
    for time in range(1, len(vertices)):
        after, before = view.rasters[time], view.rasters[time - 1]
        backward.append(raster.mesh_flow(after, faces, vertices[time - 1], camera))
        forward.append(raster.mesh_flow(before, faces, vertices[time], camera))
        moving = after.face >= 0, before.face >= 0
        confidence.append(clip_rendering.agreement(backward[-1], forward[-1], *moving))
    flow = np.stack(backward).astype(np.float16)
    return {
        "flow": flow,
        "mesh_flow": flow,
        "flow_forward": np.stack(forward).astype(np.float16),
        "flow_confidence": np.stack(confidence),
    }


def ensure_rendered(settings: Mapping[str, Any] | SyntheticConfig, *, processes: int = 0) -> Path:
    """Returns the folder of a stored synthetic dataset, which is rendered on first use.

    Several processes may ask at once: one renders, the others wait. An interrupted rendering
    leaves nothing that is taken for whole.

    Args:
      settings: a `SyntheticConfig` or settings for `make_config`.
      processes: how many render; 0: one per core, four at most. The result does not depend on it.

    Raises:
      UserError: as `make_config`, and when the cache cannot be written.
    """
    config = settings if isinstance(settings, SyntheticConfig) else make_config(settings)
    contents = {"version": VERSION, "format": store.FORMAT, **dataclasses.asdict(config)}
    if not config.people_validation:  # as before there was such a split
        del contents["people_validation"]
    key = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]
    directory = io.cache_folder() / f"synthetic-{config.kind}-{key}"
    if (directory / store.MANIFEST).is_file():
        return directory
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock = open(directory.with_suffix(".lock"), "w")  # noqa: SIM115
    except OSError as error:
        text = f"{directory.parent}: cannot be written ({error}); set PSRJAX_CACHE"
        raise UserError(text) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file closes, even after a kill
        if not (directory / store.MANIFEST).is_file():
            shutil.rmtree(directory, ignore_errors=True)
            write(config, directory, processes=processes)
    return directory


def write(config: SyntheticConfig, directory: str | os.PathLike, *, processes: int = 0) -> None:
    """Renders a whole dataset into a new folder, in the format of `psrjax.data.store`."""
    specs = clip_specs(config)
    logging.info("rendering the synthetic dataset (%s) into %s", config.kind, directory)
    meta = {
        **_DEPTH,
        "faces": len(body.template().faces),
        "synthetic": dataclasses.asdict(config),
    }
    encode = functools.partial(_encoded_clip, config)
    with (
        tqdm(total=sum(map(len, specs.values())), desc="rendering", unit="clip") as bar,
        workers.mapping(encode, processes or min(os.cpu_count() or 1, 4)) as encode_all,
    ):
        splits = {split: _advancing(encode_all(tasks), bar) for split, tasks in specs.items()}
        store.write(directory, splits, meta=meta)


def _encoded_clip(config: SyntheticConfig, spec: ClipSpec) -> list[codec.EncodedView]:
    return [codec.encode(view) for view in render_clip(config, spec)]


def _advancing(clips: Iterable[list[codec.EncodedView]], bar: tqdm) -> Iterator[codec.EncodedView]:
    for views in clips:
        yield from views
        bar.update()
