"""The built-in body: one closed mirror-symmetric surface, parts, weights, and exact posing."""

import dataclasses

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from psrjax.ops import pose
from psrjax.vision import body, body_parts

DENSEPOSE_MIRROR = (1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21)
DENSEPOSE_MIRROR = (*DENSEPOSE_MIRROR, 24, 23)


@pytest.fixture(scope="module")
def model():
    return body.template()


def bent(model, seed=0):
    """Joints of a pose with bent limbs, bone lengths kept."""
    generator = np.random.default_rng(seed)
    joints = model.joints.copy()
    chains = ((5, 6, 7), (2, 3, 4), (12, 13, 14), (9, 10, 11))
    feet = {14: (19, 20, 21), 11: (22, 23, 24)}
    for chain in chains:
        turn = Rotation.identity()
        for start, end in zip(chain, chain[1:]):
            turn = turn * Rotation.from_rotvec(generator.normal(0, 0.5, 3))
            joints[end] = joints[start] + turn.apply(model.joints[end] - model.joints[start])
        for part in feet.get(chain[-1], ()):
            offset = model.joints[part] - model.joints[chain[-1]]
            joints[part] = joints[chain[-1]] + turn.apply(offset)
    return joints


def test_the_surface_is_one_closed_piece_of_at_least_5000_faces(model):
    assert len(model.faces) >= 5000
    edges = {}
    for a, b, c in model.faces.tolist():
        for start, end in ((a, b), (b, c), (c, a)):
            edges[start, end] = edges.get((start, end), 0) + 1
    # Every directed edge once and its opposite once: closed, orientable, consistently wound.
    assert all(count == 1 and (end, start) in edges for (start, end), count in edges.items())
    ends = np.array(list(edges))
    graph = coo_matrix((np.ones(len(ends)), ends.T), (len(model.vertices),) * 2)
    assert connected_components(graph)[0] == 1
    assert len(model.vertices) - len(edges) // 2 + len(model.faces) == 2  # a sphere: no handles


def test_faces_are_wound_outward(model):
    corners = model.vertices[model.faces]
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert 0.04 < volume < 0.11  # cubic metres of a person


def test_the_surface_is_its_own_mirror_image(model):
    image = model.vertices * (1, -1, 1)
    np.testing.assert_array_equal(image, model.vertices[model.mirror])
    faces = {frozenset(face) for face in model.faces.tolist()}
    assert {frozenset(model.mirror[list(face)].tolist()) for face in faces} == faces


def test_mirror_faces_have_mirror_parts_and_groups(model):
    half = len(model.faces) // 2
    for left, right in zip(model.face_part[:half], model.face_part[half:]):
        assert DENSEPOSE_MIRROR[left - 1] == right
    for left, right in zip(model.face_group[:half], model.face_group[half:]):
        assert model.mirror_groups[left - 1] == right
    assert model.mirror_groups == (5, 6, 7, 8, 1, 2, 3, 4, 9, 10)


def test_all_24_parts_and_10_groups_are_there(model):
    assert set(model.face_part.tolist()) == set(range(1, 25))
    assert set(model.face_group.tolist()) == set(range(1, 11))
    assert model.corner_uv.min() >= 0 and model.corner_uv.max() <= 1


@pytest.mark.parametrize(
    "part, where",
    [
        (1, lambda p: (p[:, 0] < 0.02) & (p[:, 2] > 0.73) & (p[:, 2] < 1.52)),  # torso, back
        (2, lambda p: (p[:, 0] > -0.03) & (p[:, 2] > 0.73) & (p[:, 2] < 1.52)),  # torso, front
        (3, lambda p: p[:, 1] < -0.55),  # right hand
        (4, lambda p: p[:, 1] > 0.55),  # left hand
        (5, lambda p: (p[:, 1] > 0) & (p[:, 2] < 0.13)),  # left foot
        (6, lambda p: (p[:, 1] < 0) & (p[:, 2] < 0.13)),  # right foot
        (23, lambda p: (p[:, 1] <= 0) & (p[:, 2] > 1.45)),  # head, right
        (24, lambda p: (p[:, 1] >= 0) & (p[:, 2] > 1.45)),  # head, left
    ],
)
def test_parts_lie_where_densepose_has_them(model, part, where):
    centroids = model.vertices[model.faces[model.face_part == part]].mean(1)
    assert where(centroids).all()


def test_charts_cover_their_square_without_folding(model):
    for part in range(1, 25):
        corners = model.corner_uv[model.face_part == part].astype(float)
        sides = corners[:, 1:] - corners[:, :1]
        area = 0.5 * np.cross(
            np.pad(sides[:, 0], ((0, 0), (0, 1))), np.pad(sides[:, 1], ((0, 0), (0, 1)))
        )
        signs = np.sign(area[:, 2])
        kept = max((signs >= 0).mean(), (signs <= 0).mean())
        if part not in (3, 4, 5, 6):  # hands and feet have two sides, each its own way round
            assert kept > 0.9, part
        assert np.ptp(corners[..., 0]) > 0.8 and np.ptp(corners[..., 1]) > 0.6, part


def test_weights_are_shares_and_do_not_leak_between_limbs(model):
    np.testing.assert_allclose(model.weights.sum(1), 1, atol=1e-6)
    assert (model.weights >= 0).all()
    names = np.array(body_parts.BONES)
    left = np.char.startswith(names, "left")
    legs = np.isin(
        np.char.replace(np.char.replace(names, "left_", ""), "right_", ""),
        ("thigh", "shin", "foot"),
    )
    below_crotch = model.vertices[:, 2] < 0.65
    on_left = below_crotch & (model.vertices[:, 1] > 0)
    assert model.weights[on_left][:, ~left & legs].max() == 0
    hands = np.abs(model.vertices[:, 1]) > 0.6
    assert model.weights[hands][:, :4].max() == 0  # no trunk
    chest_side = (np.abs(model.vertices[:, 1]) < 0.15) & (np.abs(model.vertices[:, 2] - 1.2) < 0.05)
    forearms = np.char.endswith(names, "forearm") | np.char.endswith(names, "hand")
    assert model.weights[chest_side][:, forearms].max() == 0


def test_the_rest_joints_give_the_rest_pose(model):
    posed = body.pose(model, model.joints[None])
    np.testing.assert_allclose(posed[0], model.vertices, atol=1e-6)


def test_posing_commutes_with_rigid_motions_of_the_world(model):
    joints = bent(model)
    turn, shift = Rotation.from_euler("xyz", (0.4, -1.1, 2.2)).as_matrix(), np.array([1.0, -2, 3])
    here = body.pose(model, joints[None])[0]
    there = body.pose(model, (joints @ turn.T + shift)[None])[0]
    np.testing.assert_allclose(there, here @ turn.T + shift, atol=1e-5)


@pytest.mark.parametrize("stretch", [1.0, 1.15])
def test_every_bone_carries_its_joints_exactly_to_their_targets(model, stretch):
    joints = bent(model, seed=3) * stretch
    carried = {
        "left_shoulder": (5, 6), "left_upper_arm": (5, 6), "left_forearm": (6, 7),
        "left_hand": (7,), "right_collar": (1, 2), "right_upper_arm": (2, 3),
        "right_forearm": (3, 4), "left_hip": (12, 13), "left_thigh": (12, 13),
        "left_shin": (13, 14), "left_foot": (14,), "right_shin": (10, 11), "chest": (1,),
        "pelvis": (9, 12), "neck": (1,),
    }  # fmt: skip
    if stretch == 1.0:
        carried |= {"head": (0, 15, 16, 17, 18, 25), "left_foot": (14, 19, 20, 21)}
    for bone, members in carried.items():
        weights = np.zeros((len(members), len(body_parts.BONES)), np.float32)
        weights[:, body_parts.BONES.index(bone)] = 1
        points = dataclasses.replace(model, vertices=model.joints[list(members)], weights=weights)
        moved = body.pose(points, joints[None])[0]
        np.testing.assert_allclose(moved, joints[list(members)], atol=1e-6, err_msg=bone)


def test_a_longer_bone_keeps_its_girth(model):
    joints = model.joints.copy()
    shin = joints[14] - joints[13]
    joints[[14, 19, 20, 21]] += 0.2 * shin
    axis = shin / np.linalg.norm(shin)
    rigid = model.weights[:, body_parts.BONES.index("left_shin")] == 1
    assert rigid.sum() > 20

    def girth(vertices):
        offset = vertices[rigid] - model.joints[13]
        return np.linalg.norm(offset - (offset @ axis)[:, None] * axis, axis=-1)

    posed = body.pose(model, joints[None])[0]
    np.testing.assert_allclose(girth(posed), girth(model.vertices), atol=1e-6)
    along = (posed[rigid] - model.joints[13]) @ axis
    np.testing.assert_allclose(along, 1.2 * ((model.vertices[rigid] - model.joints[13]) @ axis))


def test_the_surface_stays_smooth_when_limbs_bend(model):
    posed = body.pose(model, bent(model, seed=1)[None])[0]
    edges = model.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    before = np.linalg.norm(model.vertices[edges[:, 0]] - model.vertices[edges[:, 1]], axis=-1)
    after = np.linalg.norm(posed[edges[:, 0]] - posed[edges[:, 1]], axis=-1)
    assert np.quantile(after / before, 0.99) < 2.0 and after.max() < 0.12


def test_joints_of_head_and_feet_may_be_missing(model):
    joints = bent(model)
    joints[[0, 15, 16, 25, 19, 20, 21]] = np.nan
    posed = body.pose(model, joints[None])[0]
    assert np.isfinite(posed).all()
    joints[[17, 18]] = np.nan  # the whole head: it follows the chest
    posed = body.pose(model, joints[None])[0]
    top = posed[model.vertices[:, 2].argmax()]
    assert np.linalg.norm(top - joints[1] - (model.joints[25] - model.joints[1])) < 0.12


def test_shape_changes_the_given_proportions_and_stays_symmetric(model):
    tall = body.shape(model, lengths={"thigh": 1.1, "shin": 1.1}, girths={"torso": 1.2})
    thigh = np.linalg.norm(tall.joints[13] - tall.joints[12])
    assert thigh == pytest.approx(1.1 * np.linalg.norm(model.joints[13] - model.joints[12]))
    waist = np.abs(model.vertices[:, 2] - 1.1) < 0.05
    deep = np.ptp(tall.vertices[waist, 0]) / np.ptp(model.vertices[waist, 0])
    assert deep == pytest.approx(1.2, abs=0.02)
    assert tall.vertices[:, 2].min() == pytest.approx(0.0)
    mirrored = tall.vertices[tall.mirror] * (1, -1, 1)
    np.testing.assert_allclose(mirrored, tall.vertices, atol=1e-6)


def test_shape_refuses_unknown_names(model):
    with pytest.raises(KeyError, match="nose"):
        body.shape(model, lengths={"nose": 2.0})
    with pytest.raises(KeyError, match="tail"):
        body.shape(model, girths={"tail": 2.0})


def test_offsets_move_vertices_along_their_normals(model):
    thick = body.shape(model, offsets=np.full(len(model.vertices), 0.01))
    moved = thick.vertices - model.vertices
    moved = moved - (moved[:, 2].mean() * np.array([0, 0, 1.0]))
    assert np.median(np.linalg.norm(moved, axis=-1)) == pytest.approx(0.01, abs=0.003)


def test_joints_lie_inside_the_body_or_on_it(model):
    centre = model.vertices[np.abs(model.vertices[:, 2] - 1.44) < 0.02].mean(0)
    assert abs(centre[1]) < 1e-6
    assert len(model.joints) == pose.COUNT
    for index, joint in enumerate(model.joints):
        distance = np.linalg.norm(model.vertices - joint, axis=-1).min()
        assert distance < 0.13, pose.NAMES[index]
