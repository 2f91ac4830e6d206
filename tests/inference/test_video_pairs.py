"""Test sets of pairs: what is drawn, and that what is made of it can be scored without loss."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from psrjax import io
from psrjax.data import codec, store, video
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.evaluation import folder_evaluation
from psrjax.inference import video_pairs
from psrjax.methods import base

SIZE, FRAMES = (16, 24), 9


class Method(base.Method):
    """Shows the driving frames as they are; reads source frames too."""

    @property
    def reads(self):
        """Frames."""
        return ("source", "target")

    def start(self, batch):
        """Nothing."""
        return ()

    def synthesize(self, batch, carry, intermediates=False):
        """(b t h w 3)"""
        return {"video": batch["target"]}, carry


def view(clip, name, seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (FRAMES, *SIZE, 3)).astype(np.uint8)
    return codec.ClipView(clip=clip, view=name, streams={"frames": frames}, meta={"fps": 25.0})


@pytest.fixture
def split(tmp_path):
    """Two clips, one of them by two cameras."""
    views = [view("a", "cam1", 0), view("a", "cam2", 1), view("b", "cam1", 2)]
    store.write(tmp_path / "set", {"test": views, "train": views[:1]}, meta={})
    return Source(tmp_path / "set", "test")


def config(**sampling):
    sampling = {"source": "disjoint", "k": 2, "t": 2, **sampling}
    return ConfigDict(
        {"data": {"sampling": sampling, "crop": SIZE, "path": "", "eval_split": "test"}}
    )


def sequences(pairs):
    return [(pair.source, pair.driving) for pair in pairs]


def test_sequences_of_one_video_do_not_overlap(split):
    pairs = video_pairs.choose(split, "same_video")
    assert len(pairs) == len(set(sequences(pairs))) == 6  # three views, either half as the source
    for source, driving in sequences(pairs):
        assert (source.clip, source.view) == (driving.clip, driving.view)
        ranges = [set(range(each.first, each.end)) for each in (source, driving)]
        assert not ranges[0] & ranges[1] and ranges[0] | ranges[1] == set(range(FRAMES))


def test_pairs_across_videos_are_of_two_clips_and_a_seed_draws_the_same_again(split):
    every = video_pairs.choose(split, "cross_video")
    assert len(every) == len(set(sequences(every))) == 4
    assert all(source.clip != driving.clip for source, driving in sequences(every))
    drawn = [video_pairs.choose(split, "cross_video", count=3, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 3
    alone = Source(split.directory, "train")
    with pytest.raises(UserError, match="split 'train' has no two clips to pair"):
        video_pairs.choose(alone, "cross_video")


def test_what_is_made_of_one_video_is_scored_against_the_driving_frames_themselves(split, tmp_path):
    pairs = video_pairs.choose(split, "same_video", count=2)
    out = tmp_path / "out"
    paths = video_pairs.write(Method(), {}, config(), split, pairs, out)
    assert paths == [out / "made", out / "real", out / "shown", out / "pairs.json"]
    rows = folder_evaluation.evaluate(out / "real", [out / "made"]).rows
    assert rows[0]["metrics"]["ssim"] == 1.0
    for pair, noted in zip(pairs, io.read_json(out / "pairs.json"), strict=True):
        truth = split.load(pair.driving.clip, pair.driving.view, range(FRAMES)).read("frames")
        real = video.read(out / "real" / f"{pair.name}.mkv").frames
        np.testing.assert_array_equal(real, truth[pair.driving.first : pair.driving.end])
        inside = range(pair.source.first, pair.source.end)
        assert len(noted["source_frames"]) == 2 and set(noted["source_frames"]) <= set(inside)


def test_across_videos_there_is_no_truth_and_too_few_frames_are_told(split, tmp_path):
    pairs = video_pairs.choose(split, "cross_video", count=1)
    paths = video_pairs.write(Method(), {}, config(source="first"), split, pairs, tmp_path / "out")
    assert not (tmp_path / "out" / "real").exists() and tmp_path / "out" / "made" in paths
    (noted,) = io.read_json(tmp_path / "out" / "pairs.json")
    assert noted["source_frames"] == [0, 1]
    with pytest.raises(UserError, match="9 frames to take 10 source frames from"):
        video_pairs.write(Method(), {}, config(), split, pairs, tmp_path / "more", k=10)
