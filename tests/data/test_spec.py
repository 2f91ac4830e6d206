"""A batch that breaks the contract is refused by name; decoding gives the contract's ranges."""

import numpy as np
import pytest

from psrjax.data import spec
from psrjax.errors import UserError

SIZES = {"b": 2, "k": 3, "t": 4, "h": 6, "w": 5}


def test_zeros_satisfy_the_contract_and_give_back_the_sizes():
    batch = spec.zeros(spec.KEYS, SIZES)
    assert spec.check(batch, spec.KEYS) == SIZES


def test_a_missing_key_says_what_it_is_and_what_makes_it():
    with pytest.raises(UserError, match="'target_depth'.*psrjax prepare"):
        spec.check(spec.zeros(["target"], SIZES), ["target", "target_depth"])


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("target", np.zeros((2, 4, 6, 5, 3), np.float32), "type float32"),
        ("target", np.zeros((2, 4, 6, 5), np.uint8), "shape"),
        ("target_mask", np.zeros((2, 5, 6, 5, 1), np.uint8), "shape"),
        ("target_visibility", np.full((2, 4, 6, 5, 1), 3, np.uint8), "0..2"),
        ("target_depth", np.full((2, 4, 6, 5, 1), 1.5, np.float16), "0.0..1.0"),
        ("target_flow", np.full((2, 4, 6, 5, 2), np.nan, np.float16), "not finite"),
        ("smell", np.zeros(2), "not in the contract"),
    ],
)
def test_what_breaks_the_contract_is_named(key, array, message):
    batch = {**spec.zeros(["source", "target"], SIZES), key: array}
    with pytest.raises(UserError, match=f"'{key}'.*{message}|{message}"):
        spec.check(batch, ["target"])


def test_decode_gives_the_ranges_of_the_contract():
    batch = spec.zeros(spec.KEYS, SIZES)
    full = {
        key: np.full_like(array, 255 if array.dtype == np.uint8 else 1)
        for key, array in batch.items()
    }
    low, high = spec.decode(batch), spec.decode(full)
    assert float(low["source"].min()) == -1.0 and float(high["source"].max()) == 1.0
    assert float(low["target_mask"].min()) == 0.0 and float(high["target_mask"].max()) == 1.0
    assert high["target_iuv"][0, 0, 0, 0].tolist() == [255.0, 1.0, 1.0]
    assert high["target_visibility"].dtype == np.int32
    assert high["target_flow"].dtype == np.float32
    assert high["valid"].dtype == bool


def test_frames_survive_decoding_and_encoding_bit_for_bit():
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 1, 16, 16, 3)
    video = spec.decode({"target": frames})["target"]
    np.testing.assert_array_equal(spec.encode_colors(video), frames)


def test_half_the_size_is_the_mean_of_colours_and_the_first_of_what_has_no_mean():
    sizes = {**SIZES, "h": 6, "w": 4}
    rng = np.random.default_rng(0)
    batch = spec.zeros(spec.KEYS, sizes)
    for array in batch.values():
        high = 3 if array.shape[-1] == 1 else 250
        array[:] = (rng.random(array.shape) * high).astype(array.dtype)
    batch["target_depth"] /= 4
    half = {name: np.asarray(array) for name, array in spec.halve(batch).items()}
    assert spec.check(half, spec.KEYS) == {**sizes, "h": 3, "w": 2}
    for name in ("target", "target_mask", "background"):
        four = [batch[name][..., y::2, x::2, :].astype(float) for y in (0, 1) for x in (0, 1)]
        np.testing.assert_array_equal(half[name], np.rint(sum(four) / 4))
    for name in ("target_iuv", "target_depth", "target_visibility"):
        np.testing.assert_array_equal(half[name], batch[name][..., ::2, ::2, :])
    for name in ("target_flow", "target_mesh_flow"):
        np.testing.assert_array_equal(half[name], batch[name][..., ::2, ::2, :] / np.float16(2))
    np.testing.assert_array_equal(half["target_joints"], batch["target_joints"])
    with pytest.raises(UserError, match="6x5 cannot be halved"):
        spec.halve(spec.zeros(["target"], SIZES))
