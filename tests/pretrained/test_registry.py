"""Weights by name: found along the search path, checked before they are used."""

import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.pretrained import i3d, registry


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PSRJAX_WEIGHTS", f"{tmp_path / 'empty'}:{tmp_path}")
    monkeypatch.setenv("PSRJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path


def write(folder, **changes):
    arrays = {
        f"{unit}/{part}": np.zeros(shape, np.float16)
        for unit, parts in i3d.shapes().items()
        for part, shape in parts.items()
    }
    np.savez(folder / "i3d.npz", **(arrays | changes))


def test_weights_are_found_and_given_as_float32(folder):
    write(folder)
    weights = registry.load("i3d")
    assert weights["Mixed_4b.b2b"]["kernel"].shape == (3, 3, 3, 16, 48)
    assert weights["Mixed_4b.b2b"]["kernel"].dtype == np.float32


def test_a_missing_file_is_told_with_the_path_and_the_way_out(folder):
    with pytest.raises(UserError, match="no weights i3d.npz in .*cache/weights.*perceptual=off"):
        registry.load("i3d")


def test_other_weights_are_refused(folder):
    write(folder, **{"Conv3d_2b_1x1/bias": np.zeros(3)})
    with pytest.raises(UserError, match=r"i3d.npz: Conv3d_2b_1x1/bias should be \(64,\)"):
        registry.load("i3d")
    (folder / "i3d.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match="i3d.npz: cannot be read"):
        registry.load("i3d")


def test_unknown_names_are_told():
    with pytest.raises(UserError, match="no pretrained weights 'vgg'; there are i3d, i3d:random"):
        registry.load("vgg")
