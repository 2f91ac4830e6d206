"""Guidance of a new view from a mesh: exact where both cameras are one, or refused."""

import numpy as np
import pytest

from psrjax.data import spec
from psrjax.errors import UserError
from psrjax.vision import body, guidance
from psrjax.vision.camera import Camera

SIZE = (48, 40)


def camera(size=SIZE, shift=0.0):
    matrix = np.array([[60.0, 0, (size[1] - 1) / 2], [0, 60.0, (size[0] - 1) / 2], [0, 0, 1]])
    return Camera(matrix, np.eye(3), np.array([shift, 0, 4.0]), np.zeros(5), size)


def box(times=3, step=0.0):
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))]
    vertices = np.stack([corners + [step * t, 0, 0] for t in range(times)])
    return vertices, np.array(faces, np.int64)


@pytest.fixture
def write_mesh(tmp_path):
    def write(**arrays):
        path = tmp_path / "mesh.npz"
        np.savez(path, **arrays)
        return path

    return write


def random_frames(times=3, size=SIZE):
    return np.random.default_rng(0).integers(0, 255, (times, *size, 3), np.uint8)


def guide(write_mesh, target=None, step=0.0):
    vertices, faces = box(step=step)
    mesh = guidance.read_mesh(write_mesh(verts=vertices, faces=faces))
    return guidance.guide(random_frames(), mesh, camera(), target or camera(), near=2.0, far=6.0)


def test_the_arrays_have_the_batch_s_types_and_shapes(write_mesh):
    keys = guide(write_mesh)
    batch = {key: value[None] for key, value in keys.items()}
    sizes = spec.check(batch, ("target_prior", "target_visibility", "target_depth"))
    assert (sizes["t"], sizes["h"], sizes["w"]) == (3, *SIZE)


def test_seen_from_the_same_camera_everything_is_visible_and_nothing_moves(write_mesh):
    keys = guide(write_mesh)
    on = keys["target_mask"][..., 0] > 0
    assert 0.2 < on.mean() < 0.9
    np.testing.assert_array_equal(keys["target_visibility"][..., 0], on.astype(np.uint8))
    np.testing.assert_array_equal(keys["source_mask"], keys["target_mask"])
    np.testing.assert_allclose(keys["target_mesh_flow"].astype(float), 0.0, atol=1e-6)
    assert not keys["target_prior"][~on].any()


def test_depth_is_coded_by_near_and_far(write_mesh):
    depth = guide(write_mesh)["target_depth"][..., 0].astype(float)
    np.testing.assert_allclose(depth.max(), (6.0 - 3.0) / (6.0 - 2.0), atol=1e-3)


def test_flow_points_to_where_the_surface_was_a_frame_earlier(write_mesh):
    flow = guide(write_mesh, step=0.1)["target_mesh_flow"].astype(float)
    assert not flow[0].any()
    middle = flow[1, SIZE[0] // 2, SIZE[1] // 2]  # on the front side, 3 m away
    np.testing.assert_allclose(middle, [-60.0 * 0.1 / 3.0, 0.0], atol=5e-3)


def test_frames_and_camera_are_fitted_alike():
    wide = camera(size=(96, 160))
    fitted = guidance.fit_camera(wide, SIZE)
    points = np.array([[0.3, -0.4, 0.1], [-0.2, 0.5, -0.3]])
    frames = np.zeros((1, 96, 160, 3), np.uint8)
    for column, row in wide.project(points)["pixels"].round().astype(int):
        frames[0, row - 2 : row + 3, column - 2 : column + 3] = 255
    small = guidance.fit_frames(frames, SIZE)[0, ..., 0].astype(float)
    assert small.shape == SIZE
    for column, row in fitted.project(points)["pixels"]:
        rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
        near = small * (np.hypot(rows - row, columns - column) < 4)
        found = [(near * columns).sum() / near.sum(), (near * rows).sum() / near.sum()]
        np.testing.assert_allclose(found, [column, row], atol=0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(verts=np.zeros((3, 8))), "finite and"),
        (dict(verts=np.full((3, 8, 3), np.nan)), "finite"),
        (dict(faces=np.zeros((4, 3))), "integer"),
        (dict(faces=np.array([[0, 1, 9]])), "beyond the 8"),
        (dict(face_group=np.ones(3, int)), "give each face a part"),
    ],
)
def test_an_invalid_mesh_is_refused(write_mesh, change, message):
    vertices, faces = box()
    with pytest.raises(UserError, match=f"mesh.npz: .*{message}"):
        guidance.read_mesh(write_mesh(**{"verts": vertices, "faces": faces, **change}))


def test_a_missing_array_or_a_broken_file_is_named(write_mesh, tmp_path):
    with pytest.raises(UserError, match="holds no 'faces'"):
        guidance.read_mesh(write_mesh(verts=np.zeros((1, 3, 3))))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match=r"broken\.npz: not a readable npz"):
        guidance.read_mesh(tmp_path / "broken.npz")


def test_a_camera_that_sees_nobody_and_a_wrong_length_are_refused(write_mesh):
    with pytest.raises(UserError, match="target camera does not see"):
        guide(write_mesh, target=camera(shift=50.0))
    vertices, faces = box(times=2)
    mesh = guidance.read_mesh(write_mesh(verts=vertices, faces=faces))
    with pytest.raises(UserError, match="3 frames and the mesh 2"):
        guidance.guide(random_frames(), mesh, camera(), camera(), near=2.0, far=6.0)


def test_neighbours_are_those_of_the_body_at_rest_however_it_is_first_posed(write_mesh):
    template = body.template()
    crossed = template.joints.copy()
    crossed[[4, 7]] = template.joints[[7, 4]] + (0.15, 0, 0)  # hands on the other side of the body
    vertices = body.pose(template, np.stack([crossed, crossed]))
    mesh = guidance.read_mesh(write_mesh(verts=vertices, faces=template.faces))
    np.testing.assert_array_equal(mesh.rest, template.vertices)
    given = np.asarray(box()[0][0])
    other = guidance.read_mesh(write_mesh(verts=box()[0] + 1.0, faces=box()[1], rest=given))
    np.testing.assert_array_equal(other.rest, given)
    with pytest.raises(UserError, match="rest is"):
        guidance.read_mesh(write_mesh(verts=box()[0], faces=box()[1], rest=given[:5]))
