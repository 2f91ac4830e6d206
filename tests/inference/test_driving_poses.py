"""Transfer by joints: they are fitted at once, shown first, and read from any video."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from psrjax.data import codec, store, video
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.inference import driving_poses, footage, transfer
from psrjax.methods import base, hpt
from psrjax.prepare.monocular import dataset_builder
from psrjax.vision import body

SIZE = (16, 16)


class Method(base.Method):
    """Generates each frame as bright as its nose is low."""

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

    def synthesize(self, batch, carry, intermediates=False):
        """(b t h w 3)"""
        nose = batch["target_joints"][:, :, 0, 1]
        shape = (*nose.shape, *SIZE, 3)
        return {"video": jnp.broadcast_to(nose[:, :, None, None, None], shape)}, carry


def dataset_folder(directory, heads, *, joints=None):
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
    data = {"sampling": sampling, "crop": SIZE, "path": own}
    data |= {"train_split": "train", "eval_split": "test"}
    return ConfigDict({"data": data})


def drive(tmp_path, heads, own_heads, **joints):
    """Noses of the made frames, y in [-1, 1], and the paths; the source is the run's own clip."""
    settings = config(dataset_folder(tmp_path / "own", own_heads))
    method = Method()
    inputs = transfer.open_inputs(
        settings,
        source="",
        driving=dataset_folder(tmp_path / "driving", heads, **joints),
        reads=method.synthesis_reads,
    )
    paths = transfer.write(method, {}, settings, inputs, tmp_path / "out.mkv")
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
        dataset_folder(directory, [0.0] * 4)

    monkeypatch.setattr(dataset_builder, "prepare", prepare)
    settings = config(dataset_folder(tmp_path / "own", [0.0, 0.1]))
    for reads in (("target",), ("target_joints",)):
        opened = footage.open_footage(str(film), settings, size=SIZE, reads=reads)
        assert isinstance(opened, footage.VideoFootage) == (reads == ("target",))
        assert opened.audio == str(film)
    assert asked == [(str(film), SIZE)]
    assert Source(next((tmp_path / "cache").glob("driving-*")), "train").clips[0].frames == 4


class Labelled(Method):
    """Shows the mesh label that comes with the driving poses, moved or not, upon its mask."""

    normalize: str = "head"

    @property
    def synthesis_reads(self):
        """Poses, and the mesh on them."""
        return ("source", "target_joints", "target_mesh_label")

    def synthesize(self, batch, carry, intermediates=False):
        """(b t h w 3)"""
        label = batch["target_mesh_label"]
        mask = (jnp.abs(label) > 0.01).any(-1, keepdims=True).astype(jnp.float32)
        return {"video": label, "mask": mask, "foreground": label}, carry


TALL = 48


def standing(frames, *, low, known=slice(None)):
    """Somebody who stands still, seen from the front; the head's height in [-1, 1] is `low`."""
    rest = body.template().joints
    x, y = rest[:, 1], -(rest[:, 2] - rest[0, 2])
    joints = np.zeros((frames, 26, 3), np.float32)
    joints[:, known] = np.stack([x * 0.6, low + y * 0.6, np.ones(26)], -1)[known]
    return joints


def labelled_set(directory, joints, *, label=None):
    """A clip of these joints, with a mesh label or without."""
    streams = {"frames": np.full((len(joints), TALL, TALL, 3), 9, np.uint8), "joints": joints}
    if label is not None:
        streams["mesh_label"] = np.full((len(joints), TALL, TALL, 3), label, np.uint8)
    view = codec.ClipView(clip="c", view="cam1", streams=streams, meta={"fps": 10.0})
    store.write(directory, {"train": [codec.encode(view)]})
    return str(directory)


def label_of(tmp_path, joints, *, own=-0.6, label=None, background="", **fields):
    settings = config(labelled_set(tmp_path / "own", standing(3, low=own)))
    settings.data.crop = (TALL, TALL)
    method = Labelled()
    inputs = transfer.open_inputs(
        settings,
        source="",
        driving=labelled_set(tmp_path / "driving", joints, label=label),
        background=background,
        reads=driving_poses.reads(method),
    )
    options = transfer.TransferOptions(fields=fields)
    paths = transfer.write(method, {}, settings, inputs, tmp_path / "out.mkv", options=options)
    return video.read(paths[0]).frames, paths


def rows(frames):
    """The first row in which a label is drawn."""
    return np.flatnonzero((np.abs(frames[0].astype(int) - 128) > 20).any((-1, -2)))[0]


def test_the_mesh_label_goes_with_the_joints_that_were_moved(tmp_path):
    made, paths = label_of(tmp_path, standing(11, low=-0.4), own=-0.6, label=200)
    assert len(made) == 11 and tmp_path / "out.mask.mkv" in paths
    crown = (-0.6 - 0.149 * 0.6 + 1) * TALL / 2  # the head top is 15 cm above the nose
    assert abs(rows(made) - crown) <= 2


def test_a_stored_mesh_label_is_taken_where_nothing_moved_and_drawn_where_there_is_none(tmp_path):
    made, _ = label_of(tmp_path, standing(3, low=-0.4), label=200, normalize="none")
    assert np.abs(made.astype(int) - 200).max() <= 4
    for name in ("own", "driving"):
        shutil.rmtree(tmp_path / name)
    made, _ = label_of(tmp_path, standing(3, low=-0.4), normalize="none")
    crown = (-0.4 - 0.149 * 0.6 + 1) * TALL / 2
    assert abs(rows(made) - crown) <= 2


def test_driving_footage_with_neither_mesh_nor_a_body_is_told(tmp_path):
    head = standing(3, low=-0.4, known=[0, 15, 16, 17, 18])
    own = standing(3, low=-0.4, known=[0, 15, 16, 17, 18])
    settings = config(labelled_set(tmp_path / "own", own))
    settings.data.crop = (TALL, TALL)
    place = labelled_set(tmp_path / "driving", head)
    inputs = transfer.open_inputs(
        settings, source="", driving=place, reads=driving_poses.reads(Labelled())
    )
    with pytest.raises(UserError, match="^c: .*mesh on the joints: give footage.*whole person"):
        transfer.write(Labelled(), {}, settings, inputs, tmp_path / "out.mkv")


def test_another_background_is_brought_to_the_run_s_size_or_refused(tmp_path):
    large, wide = tmp_path / "large.png", tmp_path / "wide.png"
    Image.new("RGB", (4 * TALL, 4 * TALL), (250, 0, 0)).save(large)
    Image.new("RGB", (2 * TALL, TALL)).save(wide)
    made, _ = label_of(tmp_path, standing(2, low=-0.4), background=str(large))
    assert made.shape[1:] == (TALL, TALL, 3)
    corner = made[0, :4, :4].reshape(-1, 3).mean(0)
    np.testing.assert_allclose(corner, (250, 0, 0), atol=6)
    for name in ("own", "driving"):
        shutil.rmtree(tmp_path / name)
    with pytest.raises(UserError, match="wide.png: 96x48 is of another shape.*48x48.*--fit=crop"):
        label_of(tmp_path, standing(2, low=-0.4), background=str(wide))
