"""SMPL's linear blend skinning, from a model file that the user provides under its own licence.

Loper et al., "SMPL: A Skinned Multi-Person Linear Model" (2015), eqs. 2-10. psrjax ships no SMPL.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse
from etils import epath
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from psrjax.errors import UserError
from psrjax.io import foreign

# GTNet's part (see `psrjax.vision.body_parts`) of SMPL's 24 joints: pelvis, hips, spine, knees, ...
_GROUP_OF_JOINT = np.array(
    [9, 3, 7, 9, 4, 8, 9, 4, 8, 9, 4, 8, 10, 9, 9, 10, 1, 5, 2, 6, 2, 6, 2, 6], np.int32
)
_LARGEST = 1 << 24  # numbers in a regressor of joints; SMPL's has 165,360


@dataclass(frozen=True, eq=False)
class SmplModel:
    """A skinned body of v vertices, f faces and b joints (SMPL: 6,890, 13,776 and 24).

    Attributes:
      vertices: (v, 3) the mean body in its rest pose, metres.
      faces: (f, 3) int32.
      shape_basis: (v, 3, s) metres per unit of each shape coefficient.
      pose_basis: (v, 3, 9 (b - 1)) metres per unit of the entries of the joints' rotations.
      joint_regressor: (b, v) rows give the joints of a body at rest.
      weights: (v, b) skinning weights.
      parents: (b,) int32 parent of each joint, listed before it; the first joint's is -1.
    """

    vertices: np.ndarray
    faces: np.ndarray
    shape_basis: np.ndarray
    pose_basis: np.ndarray
    joint_regressor: np.ndarray
    weights: np.ndarray
    parents: np.ndarray


def load_smpl(path: str | os.PathLike) -> SmplModel:
    """Reads an SMPL model: an .npz of plain arrays, or the official .pkl (chumpy is not needed).

    Of a .pkl only NumPy arrays are unpickled; every other object in it is inert, no code of the
    file runs.

    Raises:
      UserError: if the file is missing or not an SMPL model; names the file and the key.
    """
    place = epath.Path(path)
    if not place.is_file():
        raise UserError(f"{path}: no such SMPL file; get it from its authors and give its path")
    with foreign.parsing(path, "neither .npz nor pickled SMPL model"):
        content = foreign.load_arrays(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: a pickle, but not of SMPL's keys; give the model file")
    return _model(content, path)


def _model(content: Mapping[str, Any], path: str | os.PathLike) -> SmplModel:
    vertices = _array(content, "v_template", (None, 3), path)
    count = len(vertices)
    tree = _array(content, "kintree_table", (2, None), path).astype(np.int64)
    joints = tree.shape[1]
    parents = np.append(-1, tree[0, 1:]).astype(np.int32)
    if (parents[1:] < 0).any() or (parents >= np.arange(joints)).any():
        raise UserError(f"{path}: kintree_table lists a joint before its parent")
    faces = _array(content, "f", (None, 3), path).astype(np.int32)
    if faces.min(initial=0) < 0 or faces.max(initial=-1) >= count:
        raise UserError(f"{path}: f names a vertex that v_template does not have")
    return SmplModel(
        vertices=vertices,
        faces=faces,
        shape_basis=_array(content, "shapedirs", (count, 3, None), path),
        pose_basis=_array(content, "posedirs", (count, 3, 9 * (joints - 1)), path),
        joint_regressor=_array(content, "J_regressor", (joints, count), path),
        weights=_array(content, "weights", (count, joints), path),
        parents=parents,
    )


def _array(
    content: Mapping[str, Any], key: str, shape: tuple, path: str | os.PathLike
) -> np.ndarray:
    if key not in content:
        raise UserError(f"{path}: the key {key!r} of an SMPL model is missing")
    with foreign.parsing(path, f"{key} is not an array"):
        array = np.asarray(_plain(content[key]), np.float64)
    matches = len(shape) == array.ndim
    if not matches or any(want not in (None, got) for want, got in zip(shape, array.shape)):
        wanted = tuple("any" if want is None else want for want in shape)
        raise UserError(f"{path}: {key} has shape {array.shape}, an SMPL model's is {wanted}")
    return array


def _plain(value: Any) -> Any:
    """Extracts the array from a pickled SciPy sparse matrix or chumpy array."""
    if not isinstance(value, foreign.Inert):
        return value
    state = value.state
    if value.name in ("csc_matrix", "csr_matrix"):
        kind = getattr(sparse, value.name)
        parts = state["data"], state["indices"], state["indptr"]
        if math.prod(state["_shape"]) > _LARGEST:
            raise ValueError(f"a sparse matrix {state['_shape']}")
        matrix = kind(parts, shape=state["_shape"])
        matrix.check_format(full_check=True)  # SciPy writes wherever the indices say
        return matrix.toarray()
    if value.name == "Select":  # chumpy's indexing
        return np.ravel(_plain(state["a"]))[state["idxs"]].reshape(state["preferred_shape"])
    return _plain(state["x"])


def vertices(
    model: SmplModel,
    pose: Float[np.ndarray, "t p"],
    betas: Float[np.ndarray, " s"] | Float[np.ndarray, "t s"],
    translation: Float[np.ndarray, "t 3"],
) -> Float[np.ndarray, "t v 3"]:
    """Poses the surface; metres, in the axes of the pose's first rotation and translation.

    Args:
      model: of `load_smpl`.
      pose: axis-angle rotations of the joints, radians; the first is the whole body's.
      betas: shape coefficients, fixed or per frame; fewer than the model has are allowed.
      translation: added to everything, metres.
    """
    shaped = _shaped(model, betas)
    motion = _motion(model, pose, shaped)
    features = motion["rotation"][:, 1:] - np.eye(3)
    features = features.reshape(len(pose), -1)
    bent = shaped + np.tensordot(features, model.pose_basis, axes=(1, 2))
    # Move each joint's share by x -> R (x - rest) + joint.
    shift = motion["joints"] - np.einsum("tbij,tbj->tbi", motion["globals"], motion["rest"])
    blend = np.concatenate([motion["globals"], shift[..., None]], -1).reshape(len(pose), -1, 12)
    blend = np.einsum("vb,tbk->tvk", model.weights, blend, optimize=True)
    blend = blend.reshape(len(pose), -1, 3, 4)
    moved = np.einsum("tvij,tvj->tvi", blend[..., :3], bent) + blend[..., 3]
    return moved + translation[:, None]


def joints(
    model: SmplModel,
    pose: Float[np.ndarray, "t p"],
    betas: Float[np.ndarray, " s"] | Float[np.ndarray, "t s"],
    translation: Float[np.ndarray, "t 3"],
) -> Float[np.ndarray, "t b 3"]:
    """Returns the posed joints of the skeleton, metres; arguments as of `vertices`."""
    return _motion(model, pose, _shaped(model, betas))["joints"] + translation[:, None]


def face_groups(model: SmplModel) -> Int[np.ndarray, " f"]:
    """Returns GTNet's part 1..10 of each face of a 24-joint model, numbered as in `body_parts`.

    A vertex belongs to the part of its heaviest joint, a face to the majority of its corners.
    Departs from: GTNet's label file, which is not public.

    Raises:
      ValueError: for a model whose joints are not SMPL's 24.
    """
    if len(model.parents) != len(_GROUP_OF_JOINT):
        raise ValueError(f"parts are known for SMPL's 24 joints, not for {len(model.parents)}")
    labels = _GROUP_OF_JOINT[model.weights.argmax(1)]
    return np.sort(labels[model.faces], 1)[:, 1]  # the middle one is the majority if there is one


def _shaped(model: SmplModel, betas: np.ndarray) -> np.ndarray:
    """Applies shape coefficients to the body at rest: (1 or t, v, 3)."""
    betas = np.atleast_2d(betas)
    return model.vertices + np.tensordot(betas, model.shape_basis[..., : betas.shape[1]], (1, 2))


def _motion(model: SmplModel, pose: np.ndarray, shaped: np.ndarray) -> dict[str, np.ndarray]:
    return forward_kinematics(pose, model.joint_regressor @ shaped, model.parents.tolist())


def forward_kinematics(
    pose: Float[np.ndarray, "t p"], rest: Float[np.ndarray, "#t b 3"], parents: Sequence[int]
) -> dict[str, np.ndarray]:
    """Poses a skeleton by axis-angle rotations.

    Args:
      pose: of the joints, radians; the first is the whole body's.
      rest: joints at rest, fixed or per frame.
      parents: of each joint, listed before it.

    Returns:
      Local `rotation` and `globals` (t, b, 3, 3); `rest` and posed `joints` (t, b, 3).
    """
    count = len(parents)
    rotation = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, count, 3, 3)
    rest = np.broadcast_to(rest, (len(pose), count, 3))
    whole, placed = rotation.copy(), rest.copy()
    for joint, parent in enumerate(parents[1:], 1):
        bone = rest[:, joint] - rest[:, parent]
        placed[:, joint] = placed[:, parent] + np.einsum("tij,tj->ti", whole[:, parent], bone)
        whole[:, joint] = whole[:, parent] @ rotation[:, joint]
    return {"rotation": rotation, "globals": whole, "rest": rest, "joints": placed}
