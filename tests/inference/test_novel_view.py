"""Views of a clip: intermediate results of every frame, and skeletons with their errors."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax.data import loader, video
from psrjax.evaluation import evaluated_split
from psrjax.inference import novel_view, skeletons
from psrjax.methods import base
from psrjax.prepare.common import detector

WINDOW, FRAMES, SIDE = 3, 8, 16


class Method(base.Method):
    """Its intermediate results are the source: as pictures, as a map, and one picture for all."""

    @property
    def reads(self):
        return ("source", "target")

    def start(self, batch):
        return {}

    def synthesize(self, batch, carry, intermediates=False):
        made = {"video": batch["source"], "steps": {"last": batch["source"]}}
        if intermediates:
            made["intermediates"] = {
                "zeroth": batch["source"],
                "map": (batch["source"][..., :1] + 1) / 2,
                "corners": jnp.full((*batch["source"].shape[:2], 4, 2), -0.93),
                "still": batch["source"][:, 0],
            }
        return made, carry

    def baselines(self, batch):
        return {"copy_source": batch["source"]}


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(0)
    return {
        key: rng.integers(0, 256, (1, FRAMES, SIDE, SIDE, 3)).astype(np.uint8)
        for key in ("source", "target")
    }


def synthesize(clip, **options):
    def read(start):
        return {key: value[:, start : start + WINDOW] for key, value in clip.items()}

    times = np.arange(FRAMES) / 25
    inputs = novel_view.NovelViewInputs(read, FRAMES, WINDOW, times, name="")
    return novel_view.synthesize(Method(), {"params": {}}, inputs, **options)


def test_intermediate_results_are_of_every_frame_once_and_in_order(clip):
    made = synthesize(clip, intermediates=True)
    source = clip["source"][0]
    drawn = np.round((made.intermediates["zeroth"] + 1) * 127.5)
    np.testing.assert_array_equal(drawn, source)
    np.testing.assert_array_equal(np.round(made.intermediates["map"] * 255), source[..., :1])
    np.testing.assert_array_equal(np.round((made.intermediates["still"] + 1) * 127.5), source[0])
    assert synthesize(clip).intermediates == {}


def test_intermediate_results_are_drawn_beside_the_source_and_the_answers(clip, tmp_path):
    made = synthesize(clip, intermediates=True)
    paths = novel_view.write(tmp_path / "out.mkv", made)
    assert [path.name for path in paths] == [
        *("out.mkv", "out.compare.mkv", "out.intermediates.mkv", "out.intermediates.png"),
        "out.intermediates.still.png",
    ]
    moving = video.read(tmp_path / "out.intermediates.mkv").frames
    strip = cv2.imread(str(tmp_path / "out.intermediates.png"))[..., ::-1]
    panels = ("source", "truth", "last", "zeroth", "map")
    assert len(moving) == FRAMES and moving.shape[2] == 192 * len(panels)
    assert strip.shape == (6 * moving.shape[1], *moving.shape[2:])
    bar = moving.shape[1] - 192
    for number, panel in ((0, strip[bar : bar + 192]), (7, strip[-192:])):
        for place, frames in (("source", clip["source"]), ("zeroth", clip["source"])):
            left = 192 * panels.index(place)
            seen = panel[6::12, left + 6 : left + 192 : 12]
            np.testing.assert_array_equal(seen, frames[0, number])
        truth = panel[6::12, 192 + 6 : 384 : 12]
        changed = (truth != clip["target"][0, number]).any(-1)
        assert changed[0, 0] and not changed[2:, 2:].any()  # the points lie in the first corner


def found(offset, seen=True):
    """A detector that finds the same joints in every frame, moved by an offset."""
    joints = np.random.default_rng(1).uniform(2, SIDE - 6, (26, 3))
    joints[:, :2] += offset
    joints[:, 2] = seen
    return np.repeat(joints[None], FRAMES, 0)


def test_skeletons_stand_with_the_mean_distance_of_their_joints(clip, tmp_path, monkeypatch):
    truth = clip["target"][0]
    videos = {"truth": truth, "layer1": truth + 1, "layer2": truth + 2, "layer3": truth + 3}
    joints = {0: found((0, 0)), 1: found((3, 4)), 2: found((0, 1.5)), 3: found((0, 0), False)}
    labels = []
    beside = video.beside
    monkeypatch.setattr(video, "beside", lambda row: labels.append(list(row)) or beside(row))

    def detect(frames):
        return joints[int(frames[0, 0, 0, 0] - truth[0, 0, 0, 0])]

    picture = skeletons.picture(videos, detect)
    assert labels == [["truth", "layer1: 5.00", "layer2: 1.50", "layer3: none"]] * 3
    bar = picture.shape[0] // 3 - 192
    assert picture.shape[1] == 4 * 192
    place = np.round(found((0, 0))[0, :, :2] * 12 + 5.5).astype(int)  # enlarged 12 times
    drawn = [picture[bar + y, x] for x, y in place]
    plain = [truth[3][y // 12, x // 12] for x, y in place]
    assert all((a != b).any() for a, b in zip(drawn, plain))

    class Detector:
        def __enter__(self):
            return self

        def __exit__(self, *details):
            pass

        def detect(self, frames):
            shape = frames.shape[1:3]
            return [detector.Detection(j, np.zeros(shape, np.uint8)) for j in detect(frames)]

    monkeypatch.setattr(detector, "PoseDetector", Detector)
    path = skeletons.write(tmp_path / "out.mp4", videos)
    assert path == tmp_path / "out.skeletons.png"
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], picture)


class Watcher(Method):
    @property
    def reads(self):
        return ("source", "target")


@pytest.mark.parametrize(("split", "held_back"), [("train", 0.5), ("test", 0.0)])
def test_what_is_shown_of_a_clip_are_the_windows_that_are_scored(
    dataset_folder, monkeypatch, split, held_back
):
    monkeypatch.setattr(evaluated_split, "TEST", "another")  # or it outranks what is held back
    config = config_lib.load("hpt:tiny", {"data.path": str(dataset_folder)})
    changes = {"data.eval_split": split, "data.sampling.held_back": held_back}
    config = config_lib.update(config, {**changes, "data.sampling.k_evaluation": 6})
    config = evaluated_split.for_scoring(config)
    reads = ("source", "target")
    scored = loader.evaluation_batches(config.data, reads, batch=1, split=split, windows="all")
    found = [(batch, row) for batch, (row,) in scored]
    for batch, row in found:
        clip, view = row["clip"], row["target_view"]
        shown = novel_view.from_scored(Watcher(), config, clip=clip, views=(view, view))
        starts = [r["start"] for _, r in found if (r["clip"], r["target_view"]) == (clip, view)]
        assert shown.frames == max(starts) + shown.window - min(starts)
        made = shown.read(row["start"] - min(starts))
        for key in reads:
            np.testing.assert_array_equal(made[key], np.asarray(batch[key]), err_msg=key)
