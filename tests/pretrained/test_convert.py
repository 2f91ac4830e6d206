"""Published weights become .npz files: every array in its place, strict, with hashes."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.pretrained import convert, registry

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = json.loads((GOLDEN / "features.json").read_text())


@pytest.fixture
def heads():
    names = NAMES["lpips_alex"]
    return {key: np.full(shape, i, np.float32) for i, (key, shape) in enumerate(names.items())}


@pytest.fixture
def published(heads, tmp_path, monkeypatch):
    monkeypatch.setenv("PSRJAX_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(convert.torch_files, "load", lambda path: heads)
    path = tmp_path / "alex.pth"
    path.write_bytes(b"published")
    return path


def test_a_converted_file_is_loaded_by_name_and_tells_its_hashes(published, tmp_path):
    made, digest = convert.convert("lpips", published, tmp_path / "weights")
    found = registry.load("lpips_alex")
    assert [float(found[f"lin{i}"]["weight"][0]) for i in range(5)] == [0, 1, 2, 3, 4]
    with np.load(made) as file:
        assert str(file[registry.SOURCE]) == hashlib.sha256(b"published").hexdigest()
        assert str(file[registry.CONTENT]) == digest


def test_weights_that_are_not_those_of_their_hash_are_refused(published, tmp_path):
    made, _ = convert.convert("lpips", published, tmp_path / "weights")
    arrays = dict(np.load(made))
    arrays["lin3/weight"][0] += 1
    np.savez(made, **arrays)
    with pytest.raises(UserError, match="not those that its hash tells"):
        registry.load("lpips_alex")


def test_a_file_that_is_not_what_its_name_says_is_refused(published, tmp_path):
    damaged = tmp_path / "vgg19-dcbb9e9d.pth"
    shutil.copy(published, damaged)
    with pytest.raises(UserError, match="its name says dcbb9e9d"):
        convert.convert("torchvision", damaged, tmp_path)


def test_missing_unexpected_and_misshapen_arrays_are_named(heads):
    with pytest.raises(UserError, match="x: 'lin9.weight' is unexpected"):
        convert.convert_arrays("lpips", heads | {"lin9.weight": np.ones(3)}, where="x")
    small = {"features.0.weight": np.zeros((64, 3, 3, 3)), "features.0.bias": np.zeros(64)}
    with pytest.raises(UserError, match="x: 'features.2.weight' is missing"):
        convert.convert_arrays("torchvision", small, where="x")
    with pytest.raises(UserError, match="'features.0.bias' has shape"):
        wrong = small | {"features.0.bias": np.zeros(63)}
        convert.convert_arrays("torchvision", wrong, where="x")
    with pytest.raises(UserError, match="no weights 'resnet' to convert"):
        convert.convert_arrays("resnet", heads, where="x")


def test_i3ds_two_copies_differ_in_the_epsilon_that_moves_into_the_variance():
    arrays = {key: np.ones(shape, np.float32) for key, shape in NAMES["i3d"].items()}
    first, second = (
        convert.convert_arrays("i3d", arrays, where=name)[1]["Mixed_5c.b0"]["var"]
        for name in ("rgb_imagenet.pt", "folder/i3d_pretrained_400.pt")
    )
    np.testing.assert_allclose(first, 1.0)
    np.testing.assert_allclose(second + 1e-3, 1 + 1e-5, rtol=1e-6)


def test_a_missing_file_is_refused_with_its_name_hash_and_search_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PSRJAX_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=f"vgg19.npz in {tmp_path}.*vgg19-dcbb9e9d.pth.*dcbb9e9d"):
        registry.find("vgg19")
