"""Data and weights in a bucket (gs://) are read as local ones are; what cannot be is refused.

The bucket is a stand-in on this machine, see `helpers/bucket.py`: etils finds its files through
fsspec, ArrayRecord's own reader over HTTP. Google's was never asked.
"""

import io as bytes_io

import bucket
import fsspec
import numpy as np
import pytest

from psrjax import io
from psrjax.data import store
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.pretrained import registry


@pytest.fixture(scope="module", name="cloud")
def cloud_fixture(dataset_folder):
    """The bucket; its folder `data` holds the small dataset."""
    with bucket.instead_of_the_cloud() as files:
        for path in dataset_folder.iterdir():
            files.pipe(f"gs://bucket/data/{path.name}", path.read_bytes())
        yield files


def test_every_stream_of_a_dataset_is_what_it_is_on_a_disk(cloud, dataset_folder):
    local, far = Source(dataset_folder, "train"), Source("gs://bucket/data", "train")
    assert far.clips == local.clips and far.meta == local.meta and len(local.streams) > 10
    for name in local.streams:
        of = {"source": "cam2"} if name in ("prior", "visibility") else {}
        expected, found = (each.read("b", "cam1", name, [9, 2], **of) for each in (local, far))
        np.testing.assert_array_equal(found, expected, err_msg=name)
        assert found.dtype == expected.dtype
    for view, mean in local.means.items():
        np.testing.assert_array_equal(far.means[view], mean)


def test_weights_are_found_in_a_bucket_among_folders(cloud, monkeypatch, tmp_path):
    monkeypatch.setenv("PSRJAX_WEIGHTS", f"{tmp_path}:gs://bucket/weights")
    weights = registry.load("alexnet:random")
    arrays = {f"{unit}/{name}": a for unit, names in weights.items() for name, a in names.items()}
    packed = bytes_io.BytesIO()
    np.savez(packed, **arrays)
    cloud.pipe("gs://bucket/weights/alexnet.npz", packed.getvalue())
    for unit, names in registry.load("alexnet").items():
        for name, array in names.items():
            np.testing.assert_array_equal(array, weights[unit][name])


def test_json_in_a_bucket_is_written_whole_under_its_own_name_alone(cloud):
    io.write_json("gs://bucket/json/config.json", {"a": 1})
    assert io.read_json("gs://bucket/json/config.json") == {"a": 1}
    assert [key for key in bucket.Bucket.store if "/json/" in key] == ["/bucket/json/config.json"]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: Source("gs://bucket/none", "train"), "gs://bucket/none: no dataset there"),
        (lambda: Source("gs://bucket/data", "none"), "no split 'none'; there are train, test"),
        (lambda: Source("s3://bucket/data", "train"), "s3:// cannot be opened; .* and gs:// "),
        (lambda: io.read_json("gs://bucket/none.json"), "gs://bucket/none.json: no such file"),
        (lambda: store.require_free("gs://bucket/new"), "gs://bucket/new: "),
    ],
)
def test_what_a_bucket_cannot_give_or_take_is_refused(cloud, action, message):
    with pytest.raises(UserError, match=message):
        action()


def test_without_a_client_for_buckets_the_message_says_how_to_get_one(monkeypatch):
    def missing(protocol):
        raise ImportError("gcsfs")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(UserError, match=r"gs://bucket/x: needs gcsfs: pip install 'psrjax\[gcs\]'"):
        io.absolute("gs://bucket/x")
