"""Transfer by joints: they are fitted at once, shown first, and read from any video."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from psrjax.data import codec, preparation_set, store, video
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.methods import base, hpt
from psrjax.training import driving, driving_footage

SIZE = (16, 16)


class Method(base.Method):
    """Paints each frame as bright as its nose is low."""

    fit_joints = hpt.Method.fit_joints  # Eq. 1, with its checks
    normalize: str = "head"
    normalize_position: str = "constant"

    @property
    def synthesis_reads(self):
        """No frames of the driving clip."""
        return ("source", "source_joints", "target_joints")

    def start(self, batch):
        """Nothing."""
        del batch
        return {}

    def synthesize(self, batch, carry, explain=False):
        """(b t h w 3)"""
        nose = batch["target_joints"][:, :, 0, 1]
        shape = (*nose.shape, *SIZE, 3)
        return {"video": jnp.broadcast_to(nose[:, :, None, None, None], shape)}, carry


def data_set(directory, heads, *, joints=None):
    """A clip whose noses are at these heights."""
    frames = np.full((len(heads), *SIZE, 3), 100, np.uint8)
    points = (
        np.zeros((len(heads), 26, 3), np.float32) + (0.1, 0.3, 1.0) if joints is None else joints
    )
    points = points.astype(np.float32)
    points[:, 0, 1] = np.where(points[:, 0, 2] > 0, heads, 0.0)
    view = codec.ClipView(
        clip="c", view="cam1", streams={"frames": frames, "joints": points}, meta={"fps": 10.0}
    )
    store.write(directory, {"train": [codec.encode(view)]})
    return str(directory)


def config(own):
    sampling = {"source": "random", "k": 1, "t": 1, "k_evaluation": 4}
    data = {"sampling": sampling, "crop": SIZE, "path": own, "eval_split": "train"}
    return ConfigDict({"data": data})


def drive(tmp_path, heads, own_heads, **joints):
    """Noses of the made frames, y in [-1, 1], and the paths; the source is the run's own clip."""
    settings = config(data_set(tmp_path / "own", own_heads))
    method = Method()
    cast = driving.open_cast(
        settings,
        source="",
        driving=data_set(tmp_path / "driving", heads, **joints),
        reads=method.synthesis_reads,
    )
    paths = driving.drive(method, {}, settings, cast, tmp_path / "out.mkv")
    return video.read(paths[0]).frames[:, 8, 8, 0] / 127.5 - 1, paths


def test_driving_joints_are_fitted_over_the_whole_clip_before_the_first_window(tmp_path):
    heads = np.linspace(-0.2, 0.2, 19)  # more than two windows
    made, paths = drive(tmp_path, heads, [-0.8, -0.4])
    np.testing.assert_allclose(made, heads - 0.6, atol=0.03)  # Eq. 1 with one shift: the means
    preview = np.asarray(Image.open(tmp_path / "out.poses.png"))
    assert tmp_path / "out.poses.png" in paths and preview.any()


def test_a_driving_clip_without_a_head_or_with_other_joints_is_told_before_anything_is_written(
    tmp_path,
):
    headless = np.zeros((6, 26, 3)) + (0.1, 0.3, 1.0)
    headless[:, [0, 15, 16, 17, 18]] = 0.0
    with pytest.raises(UserError, match="the driving clip has no head"):
        drive(tmp_path, np.zeros(6), [-0.8, -0.4], joints=headless)
    shutil.rmtree(tmp_path / "own"), shutil.rmtree(tmp_path / "driving")
    handless = np.zeros((6, 26, 3)) + (0.1, 0.3, 1.0)
    handless[:, [4, 7]] = 0.0
    with pytest.raises(UserError, match="never shows right wrist, left wrist"):
        drive(tmp_path, np.zeros(6), [-0.8, -0.4], joints=handless)
    assert not list(tmp_path.glob("out*"))


def test_a_video_is_prepared_once_in_the_cache_and_keeps_its_sound(tmp_path, monkeypatch):
    monkeypatch.setenv("PSRJAX_CACHE", str(tmp_path / "cache"))
    film = tmp_path / "dance.mkv"
    video.write(film, np.zeros((4, 32, 32, 3), np.uint8))
    asked = []

    def prepare(clips, directory, options):
        asked.append((clips[0].video, options.size))
        data_set(directory, [0.0] * 4)

    monkeypatch.setattr(preparation_set, "prepare", prepare)
    settings = config(data_set(tmp_path / "own", [0.0, 0.1]))
    for reads in (("target",), ("target_joints",)):
        footage = driving_footage.open_footage(str(film), settings, size=SIZE, reads=reads)
        assert isinstance(footage, driving_footage.FilmedFootage) == (reads == ("target",))
        assert footage.audio == str(film)
    assert asked == [(str(film), SIZE)]
    assert Source(next((tmp_path / "cache").glob("driving-*")), "train").clips[0].frames == 4
