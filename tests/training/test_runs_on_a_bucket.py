"""A run directory on gs://: trained, gone on with and read as one on a disk is.

The bucket is a stand-in on this machine, see `helpers/bucket.py`; orbax writes arrays through
tensorstore's own client for Google's storage, over HTTP, and the rest through fsspec.
"""

import sys

import bucket
import jax
import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax import io
from psrjax.errors import UserError
from psrjax.training import checkpoint, stages

RUN = "gs://bucket/runs/a"


@pytest.fixture(name="cloud")
def cloud_fixture():
    with bucket.instead_of_the_cloud() as files:
        yield files


def test_a_run_in_a_bucket_is_resumed_and_ends_where_a_local_one_does(cloud, toy, tmp_path):
    config = config_lib.update(toy.get_config(), {"only": ("first",)})
    straight = stages.train(config, tmp_path / "run")
    stages.train(config_lib.update(config, {"steps": 2}), RUN)
    assert checkpoint.saved_steps(f"{RUN}/first") == [2]
    end = stages.train(config_lib.update(config, {"steps": 4}), RUN)
    for x, y in zip(jax.tree.leaves(end.params), jax.tree.leaves(straight.params), strict=True):
        np.testing.assert_array_equal(x, y)
    _, variables, _, stage = checkpoint.restore_for_inference(RUN)
    assert stage == "first"
    for x, y in zip(
        jax.tree.leaves(variables["params"]), jax.tree.leaves(straight.params), strict=True
    ):
        np.testing.assert_array_equal(x, y)
    lines = io.absolute(f"{RUN}/first/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4


def test_without_the_client_that_orbax_asks_the_run_is_refused(cloud, toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    with pytest.raises(UserError, match=r"pip install 'psrjax\[gcs\]'"):
        checkpoint.Checkpoints("gs://other/runs/b/first", toy.get_config())
