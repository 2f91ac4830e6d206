"""The head's square follows the joints, and nothing outside it changes."""

import jax.numpy as jnp
import numpy as np

from psrjax.ops import face_box, pose

NOSE, RIGHT, LEFT = (pose.NAMES.index(name) for name in ("nose", "right ear", "left ear"))
SIZES = {"height": 32, "width": 48, "size": 8}


def joints(**places):
    made = np.zeros((1, 26, 3), np.float32)
    for name, (x, y) in places.items():
        made[0, pose.NAMES.index(name.replace("_", " "))] = (x, y, 1.0)
    return jnp.asarray(made)


def centre(made):
    corner, present = face_box.locate(made, **SIZES)
    assert bool(present[0])
    top, left = np.asarray(corner[0])
    return (left + 4) / 24 - 1, (top + 4) / 16 - 1  # of the square, in unit coordinates


def test_the_centre_is_the_nose_else_the_ears_middle_else_the_ear_that_is_seen():
    ears = {"right_ear": (-0.5, 0.25), "left_ear": (0.0, 0.25)}
    np.testing.assert_allclose(centre(joints(nose=(0.25, -0.25), **ears)), (0.25, -0.25), atol=0.05)
    np.testing.assert_allclose(centre(joints(**ears)), (-0.25, 0.25), atol=0.05)
    np.testing.assert_allclose(centre(joints(left_ear=(0.5, 0.5))), (0.5, 0.5), atol=0.05)
    assert not bool(face_box.locate(joints(neck=(0, 0)), **SIZES)[1][0])


def test_the_square_stays_inside_the_frame():
    for x, y in ((-1, -1), (1, 1), (3, -3)):
        top, left = np.asarray(face_box.locate(joints(nose=(x, y)), **SIZES)[0][0])
        assert 0 <= top <= 24 and 0 <= left <= 40


def test_what_is_cut_out_and_pasted_changes_the_square_only():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 48, 3)).astype(np.float32))
    corner = jnp.asarray([[3, 5], [24, 40]])
    patch = face_box.crop(image, corner, size=8)
    np.testing.assert_array_equal(patch[1], image[1, 24:32, 40:48])
    np.testing.assert_array_equal(face_box.paste(image, corner, patch), image)
    pasted = np.array(face_box.paste(image, corner, patch + 1.0))
    np.testing.assert_array_equal(pasted[0, 3:11, 5:13], image[0, 3:11, 5:13] + 1.0)
    pasted[0, 3:11, 5:13], pasted[1, 24:32, 40:48] = image[0, 3:11, 5:13], image[1, 24:32, 40:48]
    np.testing.assert_array_equal(pasted, image)


def test_what_fades_leaves_no_seam():
    for size in (8, 64):
        fading = face_box.fading(size)[..., 0]
        edge = np.concatenate([fading[0], fading[-1], fading[:, 0], fading[:, -1]])
        np.testing.assert_array_equal(edge, 0.0)
        assert fading.max() == 1.0 and fading.min() >= 0.0
        np.testing.assert_allclose(fading, fading[::-1, ::-1], atol=1e-7)
    steps = np.abs(np.diff(face_box.fading(64)[..., 0], axis=0))
    assert steps.max() < 0.11  # no step is larger than the smooth fall over 16 pixels
