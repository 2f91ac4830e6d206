"""Face neighbours are geodesic; visibility and texture transfer are what their steps say."""

import heapq
import itertools

import numpy as np
import pytest

from psrjax.vision.visibility import (
    NO_COLOUR,
    face_neighbours,
    neighbour_count,
    seen_faces,
    texture_transfer,
    visibility_map,
)


def strip(count=12):
    """A strip of `count` quads folded like a U: its ends lie 0.1 apart, far along the surface."""
    half = count // 2
    along = np.r_[np.arange(half + 1), np.arange(half, -1, -1)][: count + 1].astype(float)
    height = np.r_[np.zeros(half + 1), np.full(count - half, 0.1)]
    vertices = [(x, side, z) for x, z in zip(along, height) for side in (0.0, 1.0)]
    faces = [f for i in range(0, 2 * count, 2) for f in ((i, i + 1, i + 2), (i + 1, i + 3, i + 2))]
    return np.array(vertices), np.array(faces, np.int32)


def bumpy_sheet(seed=0, size=7):
    generator = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    vertices = np.stack([x, y, 0 * x], -1).reshape(-1, 3) + generator.uniform(0, 0.6, (size**2, 3))
    quads = [(size * i + j) for i in range(size - 1) for j in range(size - 1)]
    faces = [f for q in quads for f in ((q, q + 1, q + size), (q + 1, q + size + 1, q + size))]
    return vertices, np.array(faces, np.int32)


def all_distances(vertices, faces):
    """Dijkstra from every face, with a heap and sets."""
    centroids = vertices[faces].mean(1)
    joined = {i: [] for i in range(len(faces))}
    for a, b in itertools.permutations(range(len(faces)), 2):
        if len(set(faces[a]) & set(faces[b])) == 2:
            joined[a].append((b, np.linalg.norm(centroids[a] - centroids[b])))
    table = np.full((len(faces), len(faces)), np.inf)
    for source in range(len(faces)):
        queue = [(0.0, source)]
        while queue:
            distance, face = heapq.heappop(queue)
            if np.isfinite(table[source, face]):
                continue
            table[source, face] = distance
            for other, step in joined[face]:
                heapq.heappush(queue, (distance + step, other))
    return table


@pytest.mark.parametrize("count", [1, 5, 30])
def test_neighbours_are_the_nearest_along_the_surface(count):
    vertices, faces = bumpy_sheet()
    table = all_distances(vertices, faces)
    neighbours = face_neighbours(vertices, faces, count)
    assert neighbours.dtype == np.int32 and neighbours.shape == (len(faces), count + 1)
    np.testing.assert_array_equal(neighbours[:, 0], np.arange(len(faces)))
    got = np.take_along_axis(table, neighbours, 1)
    np.testing.assert_allclose(got, np.sort(table, 1)[:, : count + 1], atol=1e-12)


def test_neighbours_do_not_jump_across_a_fold():
    vertices, faces = strip()
    centroids = vertices[faces].mean(1)
    last = len(faces) - 1
    gap = np.linalg.norm(centroids - centroids[0], axis=1)
    assert last in np.argsort(gap)[:4]  # in space, the strip's other end is as near as can be
    assert face_neighbours(vertices, faces, 6)[0].max() <= 6
    assert set(face_neighbours(vertices, faces, last)[0]) == set(range(last + 1))


def test_a_small_separate_piece_keeps_to_itself():
    vertices, faces = strip()
    lone = np.array([[50.0, 0, 0], [51, 0, 0], [50, 1, 0], [51, 1, 0]])
    more = np.array([[0, 1, 2], [1, 3, 2]], np.int32) + len(vertices)
    neighbours = face_neighbours(np.r_[vertices, lone], np.r_[faces, more], 5)
    a, b = len(faces), len(faces) + 1
    np.testing.assert_array_equal(neighbours[-2:], [[a, b, a, a, a, a], [b, a, b, b, b, b]])
    assert neighbours[:-2].max() < a


def test_the_scale_of_the_mesh_does_not_matter():
    vertices, faces = bumpy_sheet(3)
    expected = face_neighbours(vertices, faces, 9)
    np.testing.assert_array_equal(face_neighbours(vertices * 1e-3, faces, 9), expected)


def test_neighbour_count_is_fifty_for_smpl():
    assert neighbour_count(13776) == 50 and neighbour_count(6888) == 25 and neighbour_count(3) == 1


@pytest.fixture
def views():
    """Random face maps of the bumpy sheet in two views, of which the source sees only a part."""
    generator = np.random.default_rng(7)
    vertices, faces = bumpy_sheet()
    source = generator.integers(-6, 40, (3, 9, 8)).clip(-1).astype(np.int32)
    target = generator.integers(-20, len(faces), (4, 10, 11)).clip(-1).astype(np.int32)
    parts = (np.arange(len(faces)) // 8 + 1).clip(max=10).astype(np.int32)
    parts[60:] = 9
    return {
        "neighbours": face_neighbours(vertices, faces, 12),
        "source": source,
        "target": target,
        "frames": generator.integers(0, 256, (3, 9, 8, 3)).astype(np.uint8),
        "parts": parts,
    }


def test_seen_faces_are_those_on_any_frame(views):
    seen = seen_faces(views["source"], len(views["neighbours"]))
    assert set(np.flatnonzero(seen)) == set(views["source"].ravel()) - {-1}


@pytest.mark.parametrize("k", [0, 1, 4, 12])
def test_visibility_is_algorithm_1(views, k):
    seen = set(views["source"].ravel()) - {-1}
    expected = np.zeros(views["target"].shape)
    for place in np.ndindex(expected.shape):
        face = views["target"][place]
        if face >= 0:
            near = views["neighbours"][face][: k + 1]
            expected[place] = 1 if any(other in seen for other in near) else 2
    result = visibility_map(views["source"], views["target"], views["neighbours"], k)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(result == 0, views["target"] < 0)


def test_more_neighbours_never_hide_anything(views):
    maps = [
        visibility_map(views["source"], views["target"], views["neighbours"], k) for k in range(13)
    ]
    for fewer, more in itertools.pairwise(maps):
        assert ((more == 1) >= (fewer == 1)).all()
    assert (maps[0] == 2).sum() > (maps[12] == 2).sum() > 0


def test_identical_views_have_no_occlusion_and_frame_order_does_not_matter(views):
    same = visibility_map(views["target"], views["target"], views["neighbours"], 0)
    assert set(np.unique(same)) == {0, 1}
    forwards = visibility_map(views["source"], views["target"], views["neighbours"], 2)
    backwards = visibility_map(views["source"][::-1], views["target"], views["neighbours"], 2)
    np.testing.assert_array_equal(forwards, backwards)


def test_too_few_neighbours_are_an_error(views):
    with pytest.raises(ValueError, match="12 neighbours"):
        visibility_map(views["source"], views["target"], views["neighbours"], 13)


MIRROR = (5, 6, 7, 8, 1, 2, 3, 4, 9, 10)


def steps(frames, source, target, neighbours, parts):
    """Steps I-III one pixel at a time: per pixel the set of colours that ties allow."""
    pixels = {}
    for place in np.ndindex(source.shape):
        if source[place] >= 0:
            pixels.setdefault(source[place], []).append(frames[place])
    colours = {
        face: tuple(np.median(values, 0).astype(np.uint8)) for face, values in pixels.items()
    }
    allowed = np.empty(target.shape, object)
    used = set()
    for t in range(len(target)):
        done, remaining = {}, []
        for place in np.ndindex(target[t].shape):
            face = target[t][place]
            allowed[t][place] = {(0, 0, 0)}
            if face < 0:
                continue
            near = [other for other in neighbours[face] if other in colours]
            if near:
                used.add("own" if near[0] == face else "neighbour")
                allowed[t][place] = {colours[near[0]]}
                done.setdefault(parts[face], []).append((place, colours[near[0]]))
            else:
                remaining.append((place, parts[face]))
        for place, part in remaining:
            donors = done.get(part) or done.get(MIRROR[part - 1])
            used.add("same" if part in done else "mirror" if donors else "none")
            if not donors:
                allowed[t][place] = {NO_COLOUR}
                continue
            gaps = [(p[0] - place[0]) ** 2 + (p[1] - place[1]) ** 2 for p, _ in donors]
            allowed[t][place] = {c for gap, (_, c) in zip(gaps, donors) if gap == min(gaps)}
    return allowed, used


def test_texture_transfer_is_steps_1_to_3(views):
    neighbours = views["neighbours"][:, :3]
    source = np.where(views["source"] < 12, views["source"], -1)
    arguments = views["frames"], source, views["target"], neighbours
    result = texture_transfer(*arguments, views["parts"], MIRROR)
    assert result.dtype == np.uint8
    allowed, used = steps(*arguments, views["parts"])
    assert used == {"own", "neighbour", "same", "mirror", "none"}
    for place in np.ndindex(allowed.shape):
        assert tuple(result[place]) in allowed[place], place


def test_a_hand_made_texture():
    """Four faces in a row: 0 seen twice, 1 beside it, 2 and 3 of parts never seen or mirrored."""
    frames = np.array([[[[10, 20, 30], [13, 40, 50], [99, 99, 99]]]], np.uint8)
    source = np.array([[[0, 0, -1]]], np.int32)
    neighbours = np.array([[0, 1], [1, 0], [2, 3], [3, 2]], np.int32)
    target = np.array([[[-1, 0, 1, 2, 3]]], np.int32)
    result = texture_transfer(frames, source, target, neighbours, np.array([1, 1, 5, 9]), MIRROR)
    median = [11, 30, 40]
    np.testing.assert_array_equal(result[0, 0], [[0, 0, 0], median, median, median, NO_COLOUR])


def test_a_view_transferred_to_itself_is_itself(views):
    """Each face on one pixel only: its median is its own colour."""
    faces = np.arange(72, dtype=np.int32).reshape(1, 8, 9)
    frames = np.random.default_rng(0).integers(0, 256, (1, 8, 9, 3)).astype(np.uint8)
    result = texture_transfer(frames, faces, faces, views["neighbours"], views["parts"], MIRROR)
    np.testing.assert_array_equal(result, frames)
