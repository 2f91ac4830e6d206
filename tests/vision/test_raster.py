"""The rasteriser agrees with ray casting, leaves no holes, and its flow is the motion seen."""

import dataclasses

import numpy as np
import pytest

from psrjax.vision.camera import Camera
from psrjax.vision.raster import interpolate, mesh_flow, render

LENS = np.array([-0.25, 0.08, 0.003, -0.002, 0.01])


def make_camera(height=40, width=50, *, distortion=None, focal=45.0):
    matrix = np.array([[focal, 0, width / 2 - 0.7], [0, focal * 1.1, height / 2 - 0.2], [0, 0, 1]])
    lens = np.zeros(5) if distortion is None else distortion
    return Camera(matrix, np.eye(3), np.zeros(3), lens, (height, width))


def random_mesh(seed, count):
    """Small and large triangles, some partly or wholly outside the image, crossing each other."""
    generator = np.random.default_rng(seed)
    centres = generator.uniform((-1.5, -1.2, 2), (1.5, 1.2, 5), (count, 1, 3))
    sizes = generator.choice([0.05, 0.5, 2.0], (count, 1, 1))
    vertices = centres + sizes * generator.uniform(-0.7, 0.7, (count, 3, 3))
    return vertices.reshape(-1, 3), np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


def sphere(rings=12, sectors=17, radius=0.8, centre=(0.1, -0.05, 3.0)):
    theta = np.linspace(0, np.pi, rings + 1)[1:-1]
    phi = np.linspace(0, 2 * np.pi, sectors, endpoint=False)
    ring = np.stack(
        [
            np.outer(np.sin(theta), np.cos(phi)),
            np.outer(np.sin(theta), np.sin(phi)),
            np.outer(np.cos(theta), np.ones(sectors)),
        ],
        -1,
    ).reshape(-1, 3)
    vertices = np.concatenate([[[0, 0, 1]], ring, [[0, 0, -1]]]) * radius + centre
    faces = []
    for j in range(sectors):
        k = (j + 1) % sectors
        faces.append((0, 1 + j, 1 + k))
        faces.append(
            (len(vertices) - 1, 1 + (rings - 2) * sectors + k, 1 + (rings - 2) * sectors + j)
        )
        for i in range(rings - 2):
            a, b = 1 + i * sectors + j, 1 + i * sectors + k
            faces += [(a, a + sectors, b), (b, a + sectors, b + sectors)]
    return vertices, np.array(faces, np.int32)


def cast(vertices, faces, camera):
    """Per pixel: solve ray = corners · barycentric for every face, keep the nearest (no lens)."""
    height, width = camera.size
    face = np.full((height, width), -1)
    depth = np.full((height, width), np.inf)
    weights = np.zeros((height, width, 3))
    edge = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            ray = np.linalg.solve(camera.matrix, (column, row, 1.0))
            for index, corners in enumerate(vertices[faces]):
                if (corners[:, 2] <= 0.01).any():
                    continue
                solution = np.linalg.solve(corners.T, ray)  # barycentrics / distance
                if abs(solution).min() < 1e-9 and solution.min() > -1e-9:
                    edge[row, column] = True
                if solution.min() >= 0 and 1 / solution.sum() < depth[row, column]:
                    face[row, column] = index
                    depth[row, column] = 1 / solution.sum()
                    weights[row, column] = solution / solution.sum()
    return {"face": face, "depth": depth, "barycentric": weights, "edge": edge}


@pytest.mark.parametrize("seed", range(3))
def test_every_pixel_sees_what_a_ray_meets_first(seed):
    camera = make_camera(24, 30, focal=28)
    vertices, faces = random_mesh(seed, 30)
    vertices[:3, 2] = 0.2, -1.0, 3.0  # one face reaches behind the camera
    raster, truth = render(vertices, faces, camera), cast(vertices, faces, camera)
    compared = ~truth["edge"]
    assert compared.mean() > 0.99
    for name in ("face", "depth", "barycentric"):
        got, expected = getattr(raster, name)[compared], truth[name][compared]
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=2e-6)


def test_barycentrics_sum_to_one_and_give_back_the_vertices():
    camera = make_camera()
    vertices, faces = sphere()
    raster = render(vertices, faces, camera)
    seen = raster.face >= 0
    np.testing.assert_allclose(raster.barycentric.sum(-1), seen, atol=1e-6)
    assert (raster.barycentric >= 0).all() and not np.isfinite(raster.depth[~seen]).any()
    world = interpolate(raster, faces, vertices)
    row, column = np.nonzero(seen)
    pixels = camera.project(world[seen])["pixels"]
    np.testing.assert_allclose(pixels, np.stack([column, row], -1), atol=1e-4)
    np.testing.assert_allclose(world[..., 2][seen], raster.depth[seen], rtol=1e-5)
    corners = interpolate(raster, faces, vertices[faces])
    np.testing.assert_array_equal(corners, world)


def test_a_plane_has_its_own_depth():
    camera = make_camera()
    vertices = np.array([[-9.0, -9, 0], [9, -9, 0], [9, 9, 0], [-9, 9, 0]])
    vertices[:, 2] = 6 + 0.3 * vertices[:, 0] - 0.2 * vertices[:, 1]
    raster = render(vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32), camera)
    row, column = np.mgrid[: camera.size[0], : camera.size[1]]
    rays = np.linalg.inv(camera.matrix) @ np.stack([column, row, 0 * row + 1]).reshape(3, -1)
    expected = 6 / (rays[2] - 0.3 * rays[0] + 0.2 * rays[1])
    np.testing.assert_allclose(raster.depth.ravel(), expected, rtol=1e-6)
    assert (raster.face >= 0).all()


def test_shared_edges_on_pixel_centres_belong_to_one_face_only():
    """A grid of triangles all of whose corners and diagonals are pixel centres."""
    camera = Camera(np.eye(3), np.eye(3), np.zeros(3), np.zeros(5), (9, 9))
    y, x = np.mgrid[0:9:2, 0:9:2]
    vertices = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3).astype(float)
    quads = [
        (5 * i + j, 5 * i + j + 1, 5 * i + j + 6, 5 * i + j + 5) for i in range(4) for j in range(4)
    ]
    faces = np.array([f for a, b, c, d in quads for f in ((a, b, c), (c, a, d))], np.int32)
    together = render(vertices, faces, camera).face
    alone = np.stack([render(vertices, faces[i : i + 1], camera).face == 0 for i in range(32)])
    assert (alone.sum(0) <= 1).all()
    np.testing.assert_array_equal(alone.any(0), together >= 0)
    assert (together[1:8, 1:8] >= 0).all()
    backwards = render(vertices, faces[:, ::-1], camera).face  # wound the other way
    np.testing.assert_array_equal(together, backwards)


@pytest.mark.parametrize("lens", [None, LENS])
def test_a_closed_surface_has_no_holes_and_no_order(lens):
    camera = make_camera(120, 130, focal=150, distortion=lens)
    vertices, faces = sphere(40, 61)
    raster = render(vertices, faces, camera)
    seen = raster.face >= 0
    inner = np.linalg.norm(
        np.indices(seen.shape) - np.argwhere(seen).mean(0)[:, None, None], axis=0
    )
    assert seen[inner < 0.95 * np.sqrt(seen.sum() / np.pi)].all()
    assert np.isfinite(raster.depth[seen]).all() and raster.depth[seen].max() < 3.05
    order = np.random.default_rng(0).permutation(len(faces))
    shuffled = render(vertices, faces[order], camera)
    assert (np.where(seen, order[shuffled.face], -1) == raster.face).all()
    np.testing.assert_array_equal(shuffled.depth, raster.depth)


def test_equal_depth_shows_the_lower_index():
    camera = make_camera()
    vertices, faces = sphere()
    raster = render(vertices, np.concatenate([faces, faces]), camera)
    np.testing.assert_array_equal(raster.face, render(vertices, faces, camera).face)


def test_nothing_in_sight_is_an_empty_raster():
    camera = make_camera()
    vertices, faces = sphere(centre=(0, 0, -3))
    raster = render(vertices, faces, camera)
    assert (raster.face == -1).all() and (raster.barycentric == 0).all()
    assert np.isinf(raster.depth).all()
    flow = mesh_flow(raster, faces, vertices, camera)
    assert flow.shape == (40, 50, 2) and not flow.any()


@pytest.mark.parametrize("lens", [None, LENS])
def test_the_image_is_bent_by_the_lens(lens):
    """Every seen surface point projects, by the exact lens model, onto the pixel that sees it."""
    camera = make_camera(80, 90, focal=70, distortion=lens)
    vertices, faces = sphere(60, 90, radius=1.2)
    raster = render(vertices, faces, camera)
    row, column = np.nonzero(raster.face >= 0)
    world = interpolate(raster, faces, vertices)[row, column]
    pixels = camera.project(world)["pixels"]
    assert np.abs(pixels - np.stack([column, row], -1)).max() < 0.02


@pytest.mark.parametrize("lens", [None, LENS])
def test_flow_of_a_rigid_motion_is_the_motion_of_its_projection(lens):
    camera = make_camera(80, 90, focal=70, distortion=lens)
    vertices, faces = sphere(60, 90, radius=1.0)
    angle = 0.1
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    centre = np.array([0.1, -0.05, 3.0])

    def move(points):
        return (points - centre) @ turn.T + centre + (0.03, -0.02, 0.15)

    raster = render(vertices, faces, camera)
    seen = raster.face >= 0
    flow = mesh_flow(raster, faces, move(vertices), camera)
    world = interpolate(raster, faces, vertices)[seen]
    expected = camera.project(move(world))["pixels"] - camera.project(world)["pixels"]
    assert np.abs(expected).max() > 2.5
    np.testing.assert_allclose(flow[seen], expected, atol=1e-4 if lens is None else 0.03)
    assert not flow[~seen].any()
    np.testing.assert_allclose(mesh_flow(raster, faces, vertices, camera), 0, atol=2e-5)


def test_forward_and_backward_flow_undo_each_other():
    camera = make_camera(80, 90, focal=70)
    before, faces = sphere(60, 90, radius=1.0)
    after = before + (0.05, 0.02, -0.1)
    old, new = render(before, faces, camera), render(after, faces, camera)
    forward = mesh_flow(old, faces, after, camera)
    backward = mesh_flow(new, faces, before, camera)
    row, column = np.nonzero(old.face >= 0)
    landed = np.stack([column, row], -1) + forward[row, column]
    x, y = np.rint(landed).astype(int).T
    inside = (x >= 0) & (x < 90) & (y >= 0) & (y < 80)
    x, y, row, column = x[inside], y[inside], row[inside], column[inside]
    met = new.face[y, x] >= 0
    total = (forward[row, column] + backward[y, x])[met]
    assert met.mean() > 0.9 and np.abs(total).max() < 0.6


def test_faces_in_many_chunks_are_the_same_picture(monkeypatch):
    camera = dataclasses.replace(make_camera(), size=(60, 70))
    vertices, faces = random_mesh(5, 200)
    whole = render(vertices, faces, camera)
    monkeypatch.setattr("psrjax.vision.raster._CHUNK", 700)
    parts = render(vertices, faces, camera)
    np.testing.assert_array_equal(whole.face, parts.face)
    np.testing.assert_array_equal(whole.barycentric, parts.barycentric)
