"""An excerpt is the chosen frames of a clip, as the dataset has them."""

import numpy as np
import pytest

from psrjax.data import excerpt
from psrjax.data.source import Source
from psrjax.errors import UserError


def test_an_excerpt_holds_these_frames_of_every_view_and_the_cameras_mean_frames(
    dataset_folder, tmp_path
):
    whole = Source(dataset_folder, "test")
    streams = ("mask", "flow", "prior", "background", "joints")
    excerpt.write(tmp_path / "few", whole, "d", range(3, 9), streams)
    few = Source(tmp_path / "few", "test")
    assert set(few.streams) == {"frames", *streams} and few.meta == whole.meta
    assert few.clip("d").frames == 6 and list(few.clip("d").views) == list(whole.clip("d").views)
    for stream in ("frames", "mask", "joints"):
        found = few.read("d", "cam2", stream)
        np.testing.assert_array_equal(found, whole.read("d", "cam2", stream, range(3, 9)))
    flow = whole.read("d", "cam2", "flow", range(3, 9))
    assert (few.read("d", "cam2", "flow")[0] == 0).all()  # there is no frame before it
    np.testing.assert_array_equal(few.read("d", "cam2", "flow")[1:], flow[1:])
    prior = few.read("d", "cam2", "prior", source="cam3")
    expected = whole.read("d", "cam2", "prior", range(3, 9), source="cam3")
    np.testing.assert_array_equal(prior, expected)
    for view, mean in whole.means.items():
        np.testing.assert_array_equal(few.means[view], mean)
    with pytest.raises(UserError, match="it has frames 0 to 11, asked for"):
        excerpt.write(tmp_path / "none", whole, "d", range(9, 15), streams)
    assert not (tmp_path / "none").exists()
