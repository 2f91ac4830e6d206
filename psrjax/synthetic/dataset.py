"""The embedded world: people who act in rooms, filmed by calibrated cameras; every stream exact.

Nothing is downloaded: bodies, clothes, faces, motion and rooms are functions of a seed. A world is
described by `World`, cut into `ClipSpec`s, rendered clip by clip (`render_clip`, plain NumPy) and
stored by `ensure_world` once, in the format of `psrjax.data.store`.
"""

import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float
from tqdm import tqdm

from psrjax import io
from psrjax.data import codec, store
from psrjax.data.codec import ClipView
from psrjax.errors import UserError
from psrjax.runtime import workers
from psrjax.synthetic import actions, characters, cloth_folds, decoration, filming, scenes
from psrjax.vision import body, mesh_features, raster, rendering

SYNTHETIC = "synthetic"  # the value of config.data.path that means this dataset
VERSION = 1  # of what is rendered: raise it and every cached world is rendered anew
STREAMS = (
    *("frames", "mask", "iuv", "depth", "flow", "flow_forward", "flow_confidence", "mesh_flow"),
    *("joints", "joints_3d", "face", "background", "prior", "visibility", "mesh_label"),
)
_OF_ONE_VIEW = tuple(s for s in STREAMS if s not in ("prior", "visibility", "mesh_label"))
_PSRNET = (
    *("frames", "mask", "depth", "flow", "flow_forward", "flow_confidence", "mesh_flow"),
    *("joints", "joints_3d", "face", "prior", "visibility"),
)
_RUN = 64  # frames of a long clip that one task renders
_DEFAULTS: dict[str, dict[str, Any]] = {
    "multiview": {},
    "long": {
        "people_train": 1,
        "people_test": 0,
        "clips_per_person": 1,
        "frames": 550,
        "cameras": 1,
        "rooms": 1,
        "streams": _OF_ONE_VIEW,
    },
    "many": {
        "people_train": 24,
        "people_test": 8,
        "clips_per_person": 1,
        "frames": 160,
        "cameras": 1,
        "streams": _OF_ONE_VIEW,
    },
}


@dataclass(frozen=True)
class World:
    """What an embedded world is made of.

    Attributes:
      kind: "multiview" (short clips of one action by three cameras), "long" (minutes of one person
        by one camera, with turns) or "many" (clips of at least 6 s of many people, one camera).
      size: (height, width) of the pictures.
      rooms: how many; both splits are filmed in the same ones.
      people_train: how many people act in the split "train".
      people_test: how many others act in the split "test"; 0: there is no such split.
      clips_per_person: each another action.
      frames: of a clip.
      fps: frames per second.
      cameras: filming at once; from -45 to +45 degrees.
      folds: how deep the folds are that poses press into clothes, from 0, for none, to 1.
      joint_noise: what each joint in a picture is off in each frame, as detectors are: the standard
        deviation along each axis, as a share of the picture's height; 0: exact.
      streams: what is rendered and stored (of `STREAMS`); "mesh_label" only where it is named.
      seed: of everything.
    """

    kind: str = "multiview"
    size: tuple[int, int] = (64, 64)
    rooms: int = 8
    people_train: int = 20
    people_test: int = 6
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
    """One clip, or one run of frames of it: a small record that says all that is to be rendered."""

    clip: str
    split: str
    person: int
    action: str
    facing: float  # radians
    room: int
    seed: int
    start: int = 0
    stop: int = 0


def located(data_config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `config.data` with the path of a stored dataset; the synthetic one is rendered first.

    What reads stored data (`psrjax.data.loader`) knows folders only, so whoever holds a config
    passes it through here.
    """
    found = dict(data_config)
    if found["path"] == SYNTHETIC:
        found["path"] = os.fspath(ensure_world(found.get("synthetic", {})))
    return found


def options(settings: Mapping[str, Any]) -> World:
    """The world that `settings` (names of `World`'s fields) describe; the rest is as its kind has.

    Raises:
      UserError: for a setting that does not exist or a value that makes no world.
    """
    settings = dict(settings)
    fields = {field.name: field for field in dataclasses.fields(World)}
    for name in settings:
        if name not in fields:
            raise UserError(f"data.synthetic has no setting {name!r}: {', '.join(fields)}")
    kind = settings.get("kind", "multiview")
    if kind not in _DEFAULTS:
        raise UserError(f"data.synthetic.kind={kind!r}: one of {', '.join(_DEFAULTS)}")
    merged = _DEFAULTS[kind] | settings
    for name in ("size", "streams"):
        if name in merged:
            merged[name] = tuple(merged[name])
    world = World(**merged)
    for name in ("rooms", "people_train", "clips_per_person", "frames", "cameras"):
        if getattr(world, name) < 1:
            raise UserError(f"data.synthetic.{name}={getattr(world, name)}: must be at least 1")
    if not 0.0 <= world.folds <= 1.0:
        raise UserError(f"data.synthetic.folds={world.folds}: from 0, for none, to 1")
    if not 0.0 <= world.joint_noise <= 0.5:
        raise UserError(
            f"data.synthetic.joint_noise={world.joint_noise}: from 0, for exact, to 0.5"
        )
    if len(world.size) != 2 or min(world.size) < 16:
        raise UserError(f"data.synthetic.size={world.size}: two sides of at least 16 pixels")
    unknown = [name for name in world.streams if name not in STREAMS]
    if unknown or "frames" not in world.streams:
        raise UserError(f"data.synthetic.streams: 'frames' and any of {', '.join(STREAMS)}")
    if world.cameras == 1 and {"prior", "visibility"} & set(world.streams):
        raise UserError(
            "data.synthetic.streams: 'prior' and 'visibility' need at least two cameras"
        )
    return world


def clip_specs(world: World) -> dict[str, list[ClipSpec]]:
    """What is to be rendered, by split. People differ between splits, rooms are shared."""
    splits: dict[str, list[ClipSpec]] = {"train": []}
    if world.people_test:
        splits["test"] = []
    for person in range(world.people_train + world.people_test):
        split = "train" if person < world.people_train else "test"
        generator = np.random.default_rng((world.seed, 7003, person))
        first = person if split == "train" else person - world.people_train
        for number in range(world.clips_per_person):
            order = first * world.clips_per_person + number
            turned = first + number
            action = actions.ACTIONS[turned % len(actions.ACTIONS)]
            action = action if world.kind == "multiview" else world.kind
            side = (-1.0, 1.0)[(first + number // len(actions.ACTIONS)) % 2]
            spec = ClipSpec(
                clip=f"p{person:03d}_{action}_{number + 1}",
                split=split,
                person=person,
                action=action,
                facing=float(np.radians(45.0 * side + generator.uniform(-9, 9))),
                room=(order + order // world.rooms) % world.rooms,
                seed=int(generator.integers(2**31)),
                stop=world.frames,
            )
            splits[split] += _runs(world, spec)
    return splits


def _runs(world: World, spec: ClipSpec) -> list[ClipSpec]:
    """A clip as tasks: whole if its views look at one another, else in runs of frames."""
    if world.cameras > 1:
        return [spec]
    starts = range(0, world.frames, _RUN)
    return [
        dataclasses.replace(spec, start=start, stop=min(start + _RUN, world.frames))
        for start in starts
    ]


@functools.lru_cache(maxsize=4)
def person(seed: int, number: int) -> characters.Person:
    """Person `number` of the world with that seed."""
    generator = np.random.default_rng((seed, 7004, number))
    return characters.person(f"p{number:03d}", generator)


def joints_of(world: World, spec: ClipSpec) -> np.ndarray:
    """Joints in space (frames, 26, 3), metres, of the whole clip of `spec`."""
    generator = np.random.default_rng((world.seed, 7005, spec.seed))
    if spec.action in actions.ACTIONS:
        motion = actions.short(spec.action, world.frames, world.fps, spec.facing, generator)
    else:
        motion = actions.long(world.frames, world.fps, spec.facing, generator)
    return actions.joints(person(world.seed, spec.person).model, motion, world.fps)


@functools.lru_cache(maxsize=32)
def _plates(world: World, number: int) -> dict[str, dict[str, np.ndarray]]:
    room = decoration.room(number, world.seed)
    cameras = filming.rig(number, world.seed, world.cameras, world.size)
    return {view: scenes.view(room, camera, filming.SAMPLES) for view, camera in cameras.items()}


def render_clip(world: World, spec: ClipSpec) -> list[ClipView]:
    """Every view of a clip (or of its run of frames), with the world's streams.

    A pure function of its arguments, whatever was rendered before and by how many processes.
    """
    who = person(world.seed, spec.person)
    first = max(spec.start - 1, 0)  # a run's first flow needs the frame before it
    joints = joints_of(world, spec)[first : spec.stop]
    vertices = body.pose(who.model, joints)
    room = decoration.room(spec.room, world.seed)
    cameras = filming.rig(spec.room, world.seed, world.cameras, world.size)
    plates = _plates(world, spec.room)
    bends = world.folds * cloth_folds.bends(joints)
    shots = filming.film(who, vertices, room, cameras, plates, bends)
    faces = {view: np.stack([r.face for r in shot.rasters]) for view, shot in shots.items()}
    told: dict[str, dict[str, Any]] = {view: {} for view in shots}
    if {"prior", "visibility"} & set(world.streams):
        frames = {view: shot.frames for view, shot in shots.items()}
        near = rendering.neighbours(body.template())
        told = rendering.all_pairs(frames, faces, who.model, near)
    meta = {
        "fps": world.fps,
        "person": who.name,
        "action": spec.action,
        "room": room.name,
        "facing": round(float(np.degrees(spec.facing)), 2),
        "kind": world.kind,
        "near": filming.NEAR,
        "far": filming.FAR,
    }
    records = []
    for view, shot in shots.items():
        streams = _streams(world, who, shot, vertices, joints, cameras[view])
        if "joints" in streams:
            streams["joints"] = _detected(streams["joints"], world, spec, view)
        streams |= {"background": filming.plate_colors(plates[view])} | told[view]
        kept = {
            name: streams[name]
            if name in ("background", *told[view])
            else streams[name][spec.start - first :]
            for name in sorted(world.streams)
        }
        records.append(ClipView(spec.clip, view, kept, meta, cameras[view], spec.start))
    return records


def _streams(
    world: World,
    who: characters.Person,
    shot: filming.Shot,
    vertices: np.ndarray,
    joints: np.ndarray,
    camera: Any,
) -> dict[str, np.ndarray]:
    """The streams of one view that need no other view."""
    wanted, model = set(world.streams), who.model
    metres = np.stack([seen.depth for seen in shot.rasters])
    streams = {
        "frames": shot.frames,
        "mask": shot.mask,
        "face": np.stack([seen.face for seen in shot.rasters]),
        "joints_3d": joints.astype(np.float32),
    }
    if "depth" in wanted:
        streams["depth"] = rendering.encode_depth(metres, near=filming.NEAR, far=filming.FAR)
    if "iuv" in wanted:
        streams["iuv"] = np.stack([rendering.iuv(model, seen) for seen in shot.rasters])
    if "mesh_label" in wanted:
        seen = zip(shot.rasters, vertices)
        labels = [mesh_features.label(one, now, model.faces, camera) for one, now in seen]
        streams["mesh_label"] = np.stack(labels)
    if "joints" in wanted:
        seen = camera.project(joints)
        confidence = filming.joint_confidence(metres, seen["pixels"], seen["depth"])
        streams["joints"] = rendering.stored_joints(joints, confidence, camera)
    if wanted & {"flow", "flow_forward", "flow_confidence", "mesh_flow"}:
        streams |= _flows(shot, vertices, model.faces, camera)
    return streams


def _detected(
    joints: Float[np.ndarray, "t 26 3"], world: World, spec: ClipSpec, view: str
) -> Float[np.ndarray, "t 26 3"]:
    """Exact joints as a detector gives them: see `World.joint_noise`. What is missing stays so."""
    key = (world.seed, 7006, spec.seed, int(view.removeprefix("cam")))
    drawn = np.random.default_rng(key).standard_normal((spec.stop, len(joints[0]), 2))
    height, width = world.size
    step = 2.0 * world.joint_noise * np.array([height / width, 1.0])
    noise = (step * drawn)[spec.stop - len(joints) :]
    found = joints[..., 2:] > 0
    return np.concatenate([joints[..., :2] + found * noise, joints[..., 2:]], -1, dtype=np.float32)


def _flows(
    shot: filming.Shot, vertices: np.ndarray, faces: np.ndarray, camera: Any
) -> dict[str, np.ndarray]:
    """Flows between neighbouring frames. The room stands still, so off the body they are zero and
    the image's flow is the mesh's."""
    still = np.zeros((*camera.size, 2), np.float32)
    backward, forward, trust = [still], [still], [np.zeros(camera.size, np.uint8)]
    for time in range(1, len(vertices)):
        now, before = shot.rasters[time], shot.rasters[time - 1]
        there = raster.mesh_flow(now, faces, vertices[time - 1], camera)
        back = raster.mesh_flow(before, faces, vertices[time], camera)
        trust.append(filming.agreement(there, back, now.face >= 0, before.face >= 0))
        backward.append(there)
        forward.append(back)
    flow = np.stack(backward).astype(np.float16)
    return {
        "flow": flow,
        "mesh_flow": flow,
        "flow_forward": np.stack(forward).astype(np.float16),
        "flow_confidence": np.stack(trust),
    }


def ensure_world(settings: Mapping[str, Any] | World, *, processes: int = 0) -> Path:
    """The folder of the stored world of `settings`; it is rendered on first use.

    Several processes may ask at once: one renders, the others wait. An interrupted rendering
    leaves nothing that is taken for whole.

    Args:
      settings: a `World` or settings for `options`.
      processes: how many render; 0: one per core, four at most. The result does not depend on it.

    Raises:
      UserError: as `options`, and when the cache cannot be written.
    """
    world = settings if isinstance(settings, World) else options(settings)
    versions = {"version": VERSION, "format": store.FORMAT}
    described = json.dumps({**versions, **dataclasses.asdict(world)}, sort_keys=True)
    key = hashlib.sha256(described.encode()).hexdigest()[:16]
    directory = io.cache_folder() / f"world-{world.kind}-{key}"
    if (directory / store.MANIFEST).is_file():
        return directory
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock = open(directory.with_suffix(".lock"), "w")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{directory.parent}: cannot be written ({error}); set PSRJAX_CACHE") from (
            error
        )
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file closes, even after a kill
        if not (directory / store.MANIFEST).is_file():
            shutil.rmtree(directory, ignore_errors=True)
            write_world(world, directory, processes=processes)
    return directory


def write_world(world: World, directory: str | os.PathLike, *, processes: int = 0) -> None:
    """Renders a whole world into a new folder, in the format of `psrjax.data.store`."""
    specs = clip_specs(world)
    total = sum(len(tasks) for tasks in specs.values())
    logging.info("rendering the embedded world (%s) into %s", world.kind, directory)
    meta = {
        "near": filming.NEAR,
        "far": filming.FAR,
        "faces": len(body.template().faces),
        "world": dataclasses.asdict(world),
    }
    encode = functools.partial(_encoded_clip, world)
    with (
        tqdm(total=total, desc="rendering the embedded world", unit="clip") as bar,
        workers.mapping(encode, processes or min(os.cpu_count() or 1, 4)) as encode_all,
    ):
        splits = {split: _advancing(encode_all(tasks), bar) for split, tasks in specs.items()}
        store.write(directory, splits, meta=meta)


def _encoded_clip(world: World, spec: ClipSpec) -> list[codec.EncodedView]:
    return [codec.encode(view) for view in render_clip(world, spec)]


def _advancing(clips: Iterable[list[codec.EncodedView]], bar: tqdm) -> Iterator[codec.EncodedView]:
    for views in clips:
        yield from views
        bar.update()
