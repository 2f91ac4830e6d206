"""Frames are stored on disk exactly."""

import numpy as np
import pytest

from psrjax.data import codec


@pytest.mark.parametrize("shape", [(5, 7, 3), (6, 4), (1, 3, 3), (0, 2)])
def test_differences_of_rows_come_back_exactly(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = codec.decode_array(codec.encode_array(image, differences=True))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32, np.uint8, bool])
def test_arrays_of_every_type_come_back_exactly(dtype):
    values = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(dtype)
    found = codec.decode_array(codec.encode_array(values))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, values)


def test_a_smooth_picture_is_stored_smaller_as_differences_than_as_it_is():
    y, x = np.mgrid[:64, :64]
    picture = np.stack([2 * y + x, y + 2 * x, 255 - 2 * y], -1).astype(np.uint8)
    assert 2 * len(codec.encode_array(picture, differences=True)) < len(codec.encode_array(picture))


def test_every_damaged_byte_of_what_is_compressed_is_noticed():
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    whole = codec.encode_array(picture, differences=True)
    for place in range(20, len(whole)):  # after type, rank and shape
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        with pytest.raises(ValueError):
            codec.decode_array(bytes(damaged))
