"""The built-in, licence-free body mesh: shaped by proportions, posed by 26 joints in space.

`body_mesh` makes its surface, `body_parts` its weights and parts, `bone_frames` its bones' frames.
World axes are arbitrary; in the rest pose x is forward, y the person's left, z up.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from psrjax.vision import body_mesh, body_parts, bone_frames

LENGTHS = (
    *("torso", "neck", "head", "shoulders", "hips", "upper_arm", "forearm", "hand"),
    *("thigh", "shin", "foot"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class BodySurface:
    """A body's mesh in its rest pose, with its parts.

    Attributes:
      vertices: (v, 3) metres.
      faces: (f, 3) int32, counter-clockwise seen from outside.
      face_part: (f,) int32 DensePose part 1..24.
      corner_uv: (f, 3, 2) float32 in [0, 1], DensePose u, v at each corner.
      face_group: (f,) int32 GTNet part 1..10; `mirror_groups[g - 1]` is the mirror part of g.
    """

    vertices: np.ndarray
    faces: np.ndarray
    face_part: np.ndarray
    corner_uv: np.ndarray
    face_group: np.ndarray
    mirror_groups: tuple[int, ...] = body_parts.MIRROR_GROUPS


@dataclass(frozen=True, eq=False, kw_only=True)
class BodyModel(BodySurface):
    """The built-in body: one closed surface, soles on z = 0, face i + f/2 mirroring face i.

    Attributes:
      weights: (v, b) skinning weights over `body_parts.BONES`, rows sum to one.
      joints: (26, 3) rest joints, metres, in the order of `psrjax.ops.pose`.
      mirror: (v,) int32, each vertex's mirror image.
      canonical: (v, 3) the unshaped template's vertices: coordinates for textures.
    """

    weights: np.ndarray
    joints: np.ndarray
    mirror: np.ndarray
    canonical: np.ndarray


@functools.lru_cache(maxsize=1)
def template() -> BodyModel:
    """Returns the built-in body, 1.75 m tall; computed once per process, deterministic."""
    surface = body_mesh.mirrored(*body_mesh.half_surface())
    vertices, faces, mirror = surface["vertices"], surface["faces"], surface["mirror"]
    charts = body_parts.densepose(vertices, faces)
    floor = vertices[:, 2].min()
    joints = body_mesh.rest_joints()
    model = BodyModel(
        vertices=vertices - (0, 0, floor),
        faces=faces,
        weights=body_parts.skinning_weights(vertices, faces, mirror),
        joints=joints - (0, 0, floor),
        face_part=charts["part"],
        corner_uv=charts["uv"],
        face_group=body_parts.groups(charts["part"]),
        mirror=mirror,
        canonical=vertices,
    )
    for value in vars(model).values():
        if isinstance(value, np.ndarray):
            value.flags.writeable = False  # the cached model is shared
    return model


def pose(
    model: BodyModel,
    joints: Float[np.ndarray, "t 26 3"],
    *,
    girths: Mapping[str, float] | None = None,
) -> Float[np.ndarray, "t v 3"]:
    """Poses the body by linear blend skinning so that its joints lie at `joints` (world, metres).

    Every bone is stretched along itself to the given joints and keeps its girth, so shoulders,
    elbows, wrists, hips, knees and ankles lie exactly at theirs, whatever the model's bone
    lengths. Upper arms and thighs take their twist from the plane in which elbow and knee bend
    (from chest, pelvis and foot while they are straight), the head from its six joints (rigidly,
    least squares), the feet from toes and heel; the hands continue the forearms. Missing (NaN)
    joints are allowed on head and feet only.

    `girths`: {bone of `body_parts.BONES`: factor on its thickness}; head, hands and feet scale as
    a whole.
    """
    rest = bone_frames.bone_frames(model.joints[None], model.joints)
    posed = bone_frames.bone_frames(np.asarray(joints, np.float64), model.joints)
    scale = posed.lengths / rest.lengths
    scale = np.where(np.isfinite(scale), scale, 1.0) * _girth_factors(girths or {})
    linear = np.einsum("tbij,tbj,bkj->tbik", posed.rotation, scale, rest.rotation[0])
    shift = posed.origin - np.einsum("tbij,bj->tbi", linear, rest.origin[0])
    motion = np.concatenate([linear, shift[..., None]], -1)
    count = len(motion)
    blended = np.einsum("vb,tbk->tvk", model.weights, motion.reshape(count, -1, 12), optimize=True)
    blended = blended.reshape(count, -1, 3, 4)
    return np.einsum("tvij,vj->tvi", blended[..., :3], model.vertices) + blended[..., 3]


def _girth_factors(girths: Mapping[str, float]) -> np.ndarray:
    factors = np.ones((len(body_parts.BONES), 3))
    for bone, factor in girths.items():
        index = body_parts.BONES.index(bone)
        whole = bone == "head" or bone.endswith(("hand", "foot"))
        factors[index, : 3 if whole else 2] = factor
        if bone in ("pelvis", "chest"):
            factors[index, 1] = factor
    return factors


def shape(
    model: BodyModel,
    *,
    lengths: Mapping[str, float] | None = None,
    girths: Mapping[str, float] | None = None,
    offsets: Float[np.ndarray, " v"] | None = None,
) -> BodyModel:
    """Changes the proportions of a body in its rest pose.

    Args:
      model: the body to start from.
      lengths: {name of `LENGTHS`: factor}; "shoulders" and "hips" are widths, "head", "hand" and
        "foot" scale as a whole.
      girths: {"torso" (pelvis, chest, neck, collars), "arm", "leg", or any bone: factor}.
      offsets: (v,) metres by which each vertex then moves along its normal (hair, clothes, fat).

    Raises:
      KeyError: for a name that is not one of these.
    """
    factors: dict[str, float] = dict.fromkeys(LENGTHS, 1.0)
    unknown = set(lengths or {}) - set(factors)
    if unknown:
        raise KeyError(f"unknown body length {sorted(unknown)[0]!r}: one of {LENGTHS}")
    factors.update(lengths or {})
    joints = _scaled_joints(model.joints, factors)
    by_bone = _girths_by_bone(girths or {})
    for name in ("head", "hand", "foot"):
        for bone in body_parts.BONES:
            if bone == name or bone.endswith(f"_{name}"):
                by_bone[bone] = by_bone.get(bone, 1.0) * factors[name]
    vertices = pose(model, joints[None], girths=by_bone)[0]
    if offsets is not None:
        vertices = vertices + offsets[:, None] * vertex_normals(vertices, model.faces)
    floor = vertices[:, 2].min()
    return dataclasses.replace(
        model, vertices=vertices - (0, 0, floor), joints=joints - (0, 0, floor)
    )


_GIRTH_SETS = {
    "torso": ("pelvis", "chest", "neck", "collar"),
    "arm": ("shoulder", "upper_arm", "forearm"),
    "leg": ("hip", "thigh", "shin"),
}


def _girths_by_bone(girths: Mapping[str, float]) -> dict[str, float]:
    by_bone: dict[str, float] = {}
    for name, factor in girths.items():
        endings = _GIRTH_SETS.get(name, (name,))
        bones = [
            bone
            for bone in body_parts.BONES
            if bone == name or bone.removeprefix("left_").removeprefix("right_") in endings
        ]
        if not bones:
            raise KeyError(f"unknown girth {name!r}: torso, arm, leg or a bone")
        for bone in bones:
            by_bone[bone] = by_bone.get(bone, 1.0) * factor
    return by_bone


def _scaled_joints(rest: np.ndarray, factors: Mapping[str, float]) -> np.ndarray:
    """Multiplies every bone's length by its factor, from the hips outward."""
    joints = rest.copy()
    joints[1] = rest[8] + factors["torso"] * (rest[1] - rest[8])
    ears = rest[[17, 18]].mean(0)
    lifted = joints[1] + factors["neck"] * (ears - rest[1])
    for index in (0, 15, 16, 17, 18, 25):
        joints[index] = lifted + factors["head"] * (rest[index] - ears)
    chains = (
        *((2, 1, "shoulders"), (3, 2, "upper_arm"), (4, 3, "forearm")),
        *((9, 8, "hips"), (10, 9, "thigh"), (11, 10, "shin")),
        *((22, 11, "foot"), (23, 11, "foot"), (24, 11, "foot")),
    )
    for child, parent, name in chains:
        joints[child] = joints[parent] + factors[name] * (rest[child] - rest[parent])
    mirror = {5: 2, 6: 3, 7: 4, 12: 9, 13: 10, 14: 11, 19: 22, 20: 23, 21: 24}
    for left, right in mirror.items():
        joints[left] = joints[right] * (1, -1, 1)
    return joints


def vertex_normals(
    vertices: Float[np.ndarray, "v 3"], faces: np.ndarray
) -> Float[np.ndarray, "v 3"]:
    """Returns unit outward normals (v, 3): the area-weighted means over each vertex's faces."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    columns = [
        np.bincount(faces.ravel(), np.repeat(cross[:, axis], 3), minlength=len(vertices))
        for axis in range(3)
    ]
    normals = np.stack(columns, -1)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
