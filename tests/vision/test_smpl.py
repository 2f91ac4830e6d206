"""An SMPL file is read without chumpy or code from it, and skinned as the paper's equations say."""

import pickle
import sys
import types

import cv2
import numpy as np
import pytest
import scipy.sparse as sparse

from psrjax.errors import UserError
from psrjax.vision import smpl

VERTICES, JOINTS, SHAPES = 20, 24, 10


@pytest.fixture
def content():
    """A made-up model of SMPL's keys: random, small, with SMPL's own kinematic tree."""
    generator = np.random.default_rng(0)
    parents = [2**32 - 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20]
    parents.append(21)
    return {
        "v_template": generator.normal(size=(VERTICES, 3)),
        "shapedirs": generator.normal(size=(VERTICES, 3, SHAPES)) * 0.1,
        "posedirs": generator.normal(size=(VERTICES, 3, 9 * (JOINTS - 1))) * 0.01,
        "J_regressor": generator.dirichlet(np.ones(VERTICES), JOINTS),
        "weights": generator.dirichlet(np.ones(JOINTS) * 0.3, VERTICES),
        "kintree_table": np.array([parents, np.arange(JOINTS)], np.uint32),
        "f": generator.integers(0, VERTICES, (30, 3)).astype(np.uint32),
    }


@pytest.fixture
def model(content, tmp_path):
    np.savez(tmp_path / "model.npz", **content)
    return smpl.load_smpl(str(tmp_path / "model.npz"))


@pytest.fixture
def motion():
    generator = np.random.default_rng(1)
    return {
        "pose": generator.normal(size=(3, 3 * JOINTS)) * 0.6,
        "betas": generator.normal(size=SHAPES),
        "translation": generator.normal(size=(3, 3)),
    }


def skin(content, pose, betas, translation):
    """One frame by 4 x 4 matrices, vertex by vertex (SMPL eqs. 2-4)."""
    rotations = [cv2.Rodrigues(pose[3 * j : 3 * j + 3])[0] for j in range(JOINTS)]
    shaped = np.array(content["v_template"])
    for s in range(len(betas)):
        shaped = shaped + betas[s] * content["shapedirs"][:, :, s]
    rest = np.array(
        [sum(row[i] * shaped[i] for i in range(VERTICES)) for row in content["J_regressor"]]
    )
    for j in range(1, JOINTS):
        for entry in range(9):
            change = (rotations[j] - np.eye(3))[entry // 3, entry % 3]
            shaped = shaped + change * content["posedirs"][:, :, 9 * (j - 1) + entry]
    chain, relative = [], []
    for j in range(JOINTS):
        local = np.eye(4)
        local[:3, :3] = rotations[j]
        parent = int(content["kintree_table"][0, j]) if j else None
        local[:3, 3] = rest[j] - (rest[parent] if j else 0)
        chain.append(chain[parent] @ local if j else local)
        back = np.eye(4)
        back[:3, 3] = -rest[j]
        relative.append(chain[j] @ back)
    result = []
    for i in range(VERTICES):
        blended = sum(content["weights"][i, j] * relative[j] for j in range(JOINTS))
        result.append((blended @ np.append(shaped[i], 1))[:3] + translation)
    return np.array(result), np.array([matrix[:3, 3] for matrix in chain]) + translation


def test_skinning_is_smpls(content, model, motion):
    surface = smpl.vertices(model, **motion)
    skeleton = smpl.joints(model, **motion)
    assert surface.shape == (3, VERTICES, 3) and skeleton.shape == (3, JOINTS, 3)
    for t in range(3):
        expected = skin(content, motion["pose"][t], motion["betas"], motion["translation"][t])
        np.testing.assert_allclose(surface[t], expected[0], atol=1e-10)
        np.testing.assert_allclose(skeleton[t], expected[1], atol=1e-10)


def test_at_rest_the_body_is_the_template(model):
    still = np.zeros((2, 3 * JOINTS)), np.zeros(3), np.zeros((2, 3))
    np.testing.assert_allclose(smpl.vertices(model, *still), np.stack([model.vertices] * 2))


def test_shape_may_change_by_frame_and_leave_coefficients_out(model, motion):
    betas = np.stack([motion["betas"]] * 3)
    together = smpl.vertices(model, motion["pose"], betas, motion["translation"])
    np.testing.assert_allclose(together, smpl.vertices(model, **motion), atol=1e-12)
    padded = np.append(motion["betas"][:4], np.zeros(6))
    short = smpl.vertices(model, motion["pose"], motion["betas"][:4], motion["translation"])
    full = smpl.vertices(model, motion["pose"], padded, motion["translation"])
    np.testing.assert_allclose(short, full, atol=1e-12)


def test_the_whole_body_turns_rigidly(model, motion):
    turned = dict(motion, pose=motion["pose"].copy(), translation=np.zeros((3, 3)))
    turned["pose"][:, :3] = 0
    before = smpl.vertices(model, **turned)
    root = smpl.joints(model, **turned)[:, :1]
    turned["pose"][:, :3] = 0.3, -0.9, 0.5
    rotation = cv2.Rodrigues(np.array([0.3, -0.9, 0.5]))[0]
    after = smpl.vertices(model, **turned)
    np.testing.assert_allclose(after, (before - root) @ rotation.T + root, atol=1e-10)


class Ch:
    """As chumpy pickles: a state with the array under "x"."""

    def __init__(self, state):
        self.__dict__ = state


class Select(Ch):
    """As chumpy pickles an indexed array."""


@pytest.fixture
def chumpy(monkeypatch):
    """Lets pickle write the two classes as chumpy's; they are gone again when it reads."""
    for kind, name in ((Ch, "chumpy.ch"), (Select, "chumpy.reordering")):
        module = types.ModuleType(name)
        setattr(module, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(kind, "__module__", name)
    return monkeypatch


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_the_official_pickle_is_read_without_chumpy(content, model, tmp_path, chumpy, protocol):
    path = tmp_path / "model.pkl"
    official = dict(content, J_regressor=sparse.csc_matrix(content["J_regressor"]), J=None)
    order = np.random.default_rng(2).permutation(content["posedirs"].size)
    everything = np.empty(order.size)
    everything[order] = content["posedirs"].ravel()
    official["shapedirs"] = Ch({"x": content["shapedirs"], "_dirty_vars": {1}})
    official["posedirs"] = Select(
        {"a": Ch({"x": everything}), "idxs": order, "preferred_shape": content["posedirs"].shape}
    )
    written = pickle.dumps(official, protocol)
    if protocol == 2:  # as NumPy 1 and an older SciPy wrote it
        written = written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        written = written.replace(b"scipy.sparse._csc", b"scipy.sparse.csc")
    path.write_bytes(written)
    for name in ("chumpy", "chumpy.ch", "chumpy.reordering"):
        chumpy.delitem(sys.modules, name)
    read = smpl.load_smpl(path)
    for name, value in vars(model).items():
        np.testing.assert_allclose(getattr(read, name), value)


class _Trap:
    def __reduce__(self):
        return open, ("trapped.txt", "w")


def test_no_code_of_a_pickle_runs(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(dict(content, extra=_Trap())))
    smpl.load_smpl("model.pkl")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(dict(content, weights=_Trap())))
    with pytest.raises(UserError, match="weights"):
        smpl.load_smpl("model.pkl")
    assert not (tmp_path / "trapped.txt").exists()


def test_a_missing_or_foreign_file_is_named(content, tmp_path):
    with pytest.raises(UserError, match="nowhere.pkl"):
        smpl.load_smpl(str(tmp_path / "nowhere.pkl"))
    path = tmp_path / "model.npz"
    for foreign in (b"", b"hello, this is text", b"PK\x03\x04 cut short", pickle.dumps([1, 2])):
        path.write_bytes(foreign)
        with pytest.raises(UserError, match="model.npz"):
            smpl.load_smpl(str(path))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights", None),
        ("shapedirs", np.zeros((VERTICES, 3))),
        ("posedirs", np.zeros((VERTICES, 3, 9))),
        ("f", np.full((2, 3), VERTICES)),
        ("kintree_table", np.array([[-1, 2, 1], [0, 1, 2]])),
        ("J_regressor", np.array([{}], object)),
        ("v_template", np.array(["a"])),
    ],
)
def test_a_wrong_key_is_named(content, tmp_path, key, value):
    content[key] = value
    if value is None:
        del content[key]
    np.savez(tmp_path / "model.npz", **content)
    with pytest.raises(UserError, match=rf"model\.npz: .*{key}"):
        smpl.load_smpl(str(tmp_path / "model.npz"))


def test_a_face_belongs_to_the_part_of_most_of_its_corners(content, model):
    groups = smpl.face_groups(model)
    left_arm = {16: 1, 18: 2, 20: 2, 22: 2}
    for face, group in zip(content["f"].astype(int), groups):
        heaviest = [int(content["weights"][i].argmax()) for i in face]
        if all(joint in left_arm for joint in heaviest):
            assert sorted(left_arm[joint] for joint in heaviest)[1] == group
    weights = np.eye(JOINTS)[np.full(VERTICES, 15)]  # all head
    weights[0] = np.eye(JOINTS)[4]  # one corner on the left shin
    whole = smpl.SmplModel(**(vars(model) | {"weights": weights, "faces": np.array([[0, 1, 2]])}))
    np.testing.assert_array_equal(smpl.face_groups(whole), [10])
