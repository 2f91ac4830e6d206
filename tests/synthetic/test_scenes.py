"""The rooms of the synthetic dataset: what stands in the lamp's light."""

import numpy as np

from psrjax.synthetic import decoration, scenes


def test_furniture_shades_the_places_whose_rays_to_the_lamp_meet_it():
    """Against walking along each ray, of which one in so many steps may touch a corner unseen."""
    rng = np.random.default_rng(0)
    scene = decoration.make_scene(1, 0)
    assert scene.boxes
    points = rng.uniform((-scene.back, -scene.side, 0.0), (2.0, scene.side, 2.5), (150, 3))
    found = scenes._clear(scene, {"points": points, "normals": np.zeros_like(points)})

    offsets = 0.22 * np.array([(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)])
    along = np.linspace(0.0, 1.0, 401)[:, None]
    expected = np.zeros(len(points))
    for i, point in enumerate(points):
        for lamp in scene.light + offsets:
            way = point + along * (lamp - point)
            inside = [((way > box.low) & (way < box.high)).all(-1).any() for box in scene.boxes]
            expected[i] += 0.2 * (not any(inside))
    assert 0.02 < (expected < 0.5).mean() < 0.9
    assert (np.abs(found - expected) > 0.01).mean() < 0.03
