"""IUV files: the same values out of every form and order, and nothing run out of a pickle."""

import os
import pickle

import cv2
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.vision import densepose


def iuv():
    """Three rectangles of parts 2, 3 and 24 with ramps of u and v."""
    picture = np.zeros((64, 64, 3), np.uint8)
    ramp = np.linspace(0, 255, 16).astype(np.uint8)
    for part, (top, left) in {2: (4, 4), 3: (24, 30), 24: (44, 8)}.items():
        picture[top : top + 16, left : left + 16, 0] = part
        picture[top : top + 16, left : left + 16, 1] = ramp
        picture[top : top + 16, left : left + 16, 2] = ramp[:, None]
    return picture


@pytest.mark.parametrize("reverse", [False, True])
def test_both_orders_of_a_png_are_told_apart_by_their_values(tmp_path, reverse):
    written = iuv()[..., ::-1] if reverse else iuv()
    paths = [tmp_path / f"{number}_IUV.png" for number in range(3)]
    for path in paths:
        cv2.imwrite(str(path), written)
    cv2.imwrite(str(tmp_path / "0_INDS.png"), written[..., 0])
    assert sorted(densepose.list_files(tmp_path)) == paths
    assert densepose.reversed_order(paths) == reverse
    np.testing.assert_array_equal(densepose.read(paths[0], reverse=reverse), iuv())


def test_an_empty_picture_does_not_decide_the_order(tmp_path):
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    cv2.imwrite(str(paths[0]), np.zeros_like(iuv()))
    cv2.imwrite(str(paths[1]), iuv()[..., ::-1])
    assert densepose.reversed_order(paths)


def test_arrays_fractions_and_charts_give_the_same_values(tmp_path):
    fractions = iuv() / np.array([1, 255, 255], np.float32)
    np.save(tmp_path / "a.npy", fractions)
    np.savez(tmp_path / "b.npz", iuv=np.moveaxis(iuv(), -1, 0))
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"iuv": iuv()}, protocol=2))
    part = fractions[4:60, 4:46]
    chart = {"labels": part[..., 0].astype(np.uint8), "uv": np.moveaxis(part[..., 1:], -1, 0)}
    chart |= {"bbox": (4.0, 4.0, 46.0, 60.0), "size": (64, 64)}
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(chart))
    for name in "abcd":
        (path,) = tmp_path.glob(f"{name}.*")
        found = densepose.read(path).astype(int)
        np.testing.assert_allclose(found, iuv(), atol=1 if name in "ad" else 0)


def test_a_box_that_reaches_beyond_the_picture_is_cut_there(tmp_path):
    labels = np.full((10, 10), 7, np.uint8)
    chart = {
        "labels": labels,
        "uv": np.ones((2, 10, 10)),
        "bbox": (-4, 12, 6, 22),
        "size": (16, 16),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(chart))
    found = densepose.read(tmp_path / "a.pkl")
    expected = np.zeros((16, 16), np.uint8)
    expected[12:, :6] = 7
    np.testing.assert_array_equal(found[..., 0], expected)


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil-was-run",)


def test_no_code_of_a_pickle_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(UserError, match="evil.pkl: no IUV in it as plain arrays"):
        densepose.read(tmp_path / "evil.pkl")
    assert not (tmp_path / "evil-was-run").exists()


def test_a_file_without_iuv_is_refused_by_name(tmp_path):
    photo = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    with pytest.raises(UserError, match="photo.png: in neither order"):
        densepose.reversed_order([tmp_path / "photo.png"])
    with pytest.raises(UserError, match="photo.png: body parts up to"):
        densepose.read(tmp_path / "photo.png")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    (tmp_path / "cut.pkl").write_bytes(b"\x80\x02")
    for name in ("cut.png", "cut.pkl"):
        with pytest.raises(UserError, match=name):
            densepose.read(tmp_path / name)


def test_a_crop_takes_nearest_pixels_and_is_zero_beyond_the_edges():
    whole = densepose.crop(iuv(), (0, 0, 64, 64), (64, 64), (64, 64))
    np.testing.assert_array_equal(whole, iuv())
    half = densepose.crop(iuv(), (0, 0, 128, 128), (128, 128), (32, 32))  # IUV at half its video
    np.testing.assert_array_equal(half, iuv()[1::2, 1::2])
    beyond = densepose.crop(iuv(), (-8, 40, 64, 64), (64, 64), (64, 64))
    assert not beyond[:8].any() and not beyond[:, 24:].any()
    np.testing.assert_array_equal(beyond[8:, :24], iuv()[:56, 40:])
