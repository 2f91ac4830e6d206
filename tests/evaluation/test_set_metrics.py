"""Metrics of all clips together equal those of the features of all clips; what they need is told.

The networks are replaced by small functions of the frames, whose features are known.
"""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from PIL import Image

from psrjax.errors import UserError
from psrjax.evaluation import (
    clip_features,
    clip_metrics,
    folder_evaluation,
    score_statistics,
    set_metrics,
)
from psrjax.metrics import features, frechet, keypoints
from psrjax.prepare.common import detector
from psrjax.pretrained import registry

CLASSES = 4


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    """Features are means over quarters of the picture: of each frame, or of a clip."""

    def of_frames(weights, frames):
        assert weights == "inception"
        found = quarters(frames)
        return {"features": found, "logits": found[:, :CLASSES] / 9}

    def of_clips(weights, clips):
        assert weights == "i3d_whole"
        found = np.stack([quarters(clip).mean(0) for clip in clips])
        return {"features": found, "logits": found * len(clips[0])}

    monkeypatch.setattr(clip_features, "weights", lambda name: name.partition(":")[0])
    monkeypatch.setattr(features, "of_frames", of_frames)
    monkeypatch.setattr(features, "of_clips", of_clips)


def quarters(frames):
    halves = np.asarray(frames, np.float64).reshape(len(frames), 2, 4, 2, 4, 3)
    return halves.mean((2, 4)).reshape(len(frames), 12)


def clips(seed, lengths):
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (length, 8, 8, 3)).astype(np.uint8) for length in lengths]


LENGTHS = (20, 33, 17, 16, 19, 40, 18, 22)


def collected(names, made, true, *, pairs=("1->2",)):
    sets = set_metrics.SetAccumulator(names)
    scored = []
    for i, (m, t) in enumerate(zip(made, true)):
        pair = pairs[i % len(pairs)]
        sides = (clip_features.ClipFeatures(side) for side in (m, t))
        sets.add(("step", "layer1", pair), f"clip{i}", 0, *sides)
        scored.append(
            score_statistics.Scored(
                "step", "layer1", pair, f"clip{i}", 0, {"psnr": np.zeros(len(m))}
            )
        )
    return sets.finish(score_statistics.rows(scored, {"split": "test"}), "whole clips")


def expected_distance(a, b):
    first, second = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(first @ second).real
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(first + second - 2 * root)


@pytest.mark.parametrize("kept", [set_metrics.KEPT, 5], ids=["vectors", "moments"])
def test_fid_is_of_the_frames_of_all_clips_and_of_each_pair(kept, monkeypatch):
    monkeypatch.setattr(set_metrics, "KEPT", kept)
    made, true = clips(0, LENGTHS), clips(1, LENGTHS)
    rows = collected(("fid",), made, true, pairs=("1->2", "2->1"))
    for row, step in zip(rows, (slice(None), slice(0, None, 2), slice(1, None, 2))):
        sides = (np.concatenate([quarters(c) for c in side[step]]) for side in (made, true))
        np.testing.assert_allclose(row["metrics"]["fid"], expected_distance(*sides), rtol=1e-4)
    assert [row["pair"] for row in rows] == ["all", "1->2", "2->1"]
    assert ("fid" in rows[0]["interval"]) == (kept > 5)
    assert any("fid: of 185 frames; fewer than 2048" in n for n in rows[0]["about"]["notes"])


def write(folder, named):
    for name, frames in named.items():
        (folder / name).mkdir(parents=True)
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / name / f"{number:04d}.png")


def test_sets_of_videos_that_do_not_belong_together_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_metrics, "weight_notes", lambda names: [])
    made, true = clips(5, (4, 9, 3)), clips(6, (7, 12))
    write(tmp_path / "real", dict(zip(("walk", "own"), true)))
    write(tmp_path / "fake", dict(zip(("walk", "dance", "throw"), made)))
    write(tmp_path / "same", dict(zip(("a", "b"), true)))
    (tmp_path / "fake" / "broken.mp4").write_bytes(b"this is no video")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "broken.mp4").write_bytes(b"this is no video")
    folders = [tmp_path / name for name in ("fake", "same")]
    found = folder_evaluation.evaluate_unpaired(tmp_path / "real", folders, metrics=("fid", "is"))
    fake, same = found.rows
    sides = (np.concatenate([quarters(clip) for clip in side]) for side in (made, true))
    np.testing.assert_allclose(fake["metrics"]["fid"], expected_distance(*sides), rtol=1e-4)
    assert fake["interval"]["fid"][0] < fake["metrics"]["fid"] < fake["interval"]["fid"][1]
    assert (fake["about"]["clips"], same["about"]["clips"]) == (3, 2)
    assert same["metrics"]["fid"] == pytest.approx(0, abs=1e-3) and same["metrics"]["is"] >= 1
    assert "fid: of 16 frames; fewer than 2048 bias it upwards" in fake["about"]["notes"]
    assert any("left out: " in n and "broken.mp4" in n for n in fake["about"]["notes"])
    with pytest.raises(UserError, match="nothing to score: .*broken.mp4"):
        folder_evaluation.evaluate_unpaired(tmp_path / "real", [tmp_path / "none"], metrics=["fid"])
    with pytest.raises(UserError, match="--unpaired: ms_ssim compares a video with its true one"):
        folder_evaluation.evaluate_unpaired(tmp_path / "real", folders, metrics=("ms_ssim",))
    with pytest.raises(UserError, match="name metrics of sets, as in --metrics=fid"):
        folder_evaluation.evaluate_unpaired(tmp_path / "real", folders, metrics=())


def test_fvd_is_of_pieces_of_16_frames_and_vfid_of_whole_clips():
    made, true = clips(2, LENGTHS), clips(3, LENGTHS)
    (row, _) = collected(("fvd", "vfid"), made, true)
    pieces = [
        [clip[i : i + 16] for clip in side for i in range(0, len(clip) - 15, 16)]
        for side in (made, true)
    ]
    fvd = [np.stack([16 * quarters(piece).mean(0) for piece in side]) for side in pieces]
    vfid = [np.stack([quarters(clip).mean(0) for clip in side]) for side in (made, true)]
    moments = [[frechet.Moments.of(x) for x in sides] for sides in (fvd, vfid)]
    expected = [frechet.frechet_distance(*sides) for sides in moments]
    found = [row["metrics"][name] for name in ("fvd", "vfid")]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert row["about"]["notes"] == [
        "fvd: of 10 pieces of 16 frames; whole clips",
        "vfid: of 8 clips; whole clips",
    ]
    for name, value in zip(("fvd", "vfid"), found):
        low, high = row["interval"][name]
        assert low < value < high


def test_a_long_clip_is_seen_in_parts_that_cover_it(monkeypatch):
    (clip,) = clips(4, (100,))
    seen = []
    monkeypatch.setattr(
        features, "of_clips", lambda w, c: seen.append(c[0]) or {"features": quarters(c[0])[:1]}
    )
    clip_features.ClipFeatures(clip).of_whole("i3d_whole")
    assert [len(part) for part in seen] == [64, 64]
    np.testing.assert_array_equal(seen[0], clip[:64])
    np.testing.assert_array_equal(seen[1], clip[36:])


def test_the_inception_score_is_of_the_made_frames():
    made = clips(5, LENGTHS)
    (row, _) = collected(("is",), made, clips(6, LENGTHS))
    score = frechet.InceptionScore.empty(CLASSES)
    score = score.add(np.concatenate([quarters(clip)[:, :CLASSES] / 9 for clip in made]))
    np.testing.assert_allclose(row["metrics"]["is"], score.compute()[0], rtol=1e-6)
    assert row["metrics"]["is"] > 1


def test_clips_of_one_are_at_the_distance_of_their_own_frames():
    made, true = clips(7, (20,))[0], clips(8, (20,))[0]
    sides = [clip_features.ClipFeatures(side) for side in (made, true)]
    names = ("clip_fid", "act_l1_logits")
    found = clip_metrics.score(names, *sides, {})
    expected = expected_distance(quarters(made), quarters(true))
    np.testing.assert_allclose(found["clip_fid"], [expected], rtol=1e-4)
    gap = 16 * np.abs(quarters(made[:16]).mean(0) - quarters(true[:16]).mean(0)).sum()
    np.testing.assert_allclose(found["act_l1_logits"], [gap], rtol=1e-6)


class Detector:
    """Finds every joint at the brightest corner's side; nobody in black frames."""

    opened = 0

    def __init__(self):
        Detector.opened += 1

    def detect(self, frames):
        for frame in frames:
            joints = np.zeros((26, 3), np.float32)
            joints[:, :2] = np.arange(26)[:, None] + frame[0, 0, :2] / 50
            joints[:, 2] = frame.any()
            yield detector.Detection(joints, np.zeros(frame.shape[:2], np.uint8))

    def close(self):
        Detector.opened -= 1


def test_pose_metrics_are_of_the_sums_over_all_clips(monkeypatch):
    monkeypatch.setattr(detector, "PoseDetector", Detector)
    made, true = clips(9, (4, 5, 6)), clips(10, (4, 5, 6))
    made[1][2:4] = 0
    names = ("kp_l2", "pck@0.05", "recall", "f1")
    (row, _) = collected(names, made, true)
    found = [
        np.stack([e.joints for clip in side for e in Detector().detect(clip)])
        for side in (made, true)
    ]
    counts = keypoints.counts(*(jnp.asarray(side) for side in found))
    expected = keypoints.scores({key: value.sum() for key, value in counts.items()})
    assert list(row["metrics"]) == ["psnr", *names]
    for name in names:
        np.testing.assert_allclose(row["metrics"][name], expected[name], rtol=1e-5)
        low, high = row["interval"][name]
        assert low <= expected[name] <= high


def test_rows_stay_json(monkeypatch):
    monkeypatch.setattr(detector, "PoseDetector", Detector)
    black = [np.zeros((16, 8, 8, 3), np.uint8)]  # nobody is found, and one piece has no covariance
    (row, _) = collected(("kp_l2", "fvd"), black, black)
    assert list(row["metrics"]) == ["psnr"]
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("fid", "pt_inception-2015-12-05-6726825d.pth.*SHA-256 begins 6726825d"),
        ("fvd", "i3d.npz in /nowhere.*psrjax convert i3d rgb_imagenet.pt"),
        ("act_l1_logits", "i3d.npz in /nowhere"),
        ("is", "inception.npz in /nowhere.*rand_"),
    ],
)
def test_missing_weights_are_told_with_file_hash_and_search_path(name, published, monkeypatch):
    monkeypatch.setattr(clip_features, "weights", registry.load)
    monkeypatch.setattr(registry, "search_path", lambda: (Path("/nowhere"),))
    assert re.search(f"{name}: .*{published}", clip_metrics.obstacle(name))


@pytest.mark.parametrize(
    ("name", "frames", "message"),
    [
        ("fvd", 8, "fvd needs clips of at least 16 frames, these have 8"),
        ("vfid", 8, "vfid needs clips of at least 10 frames, these have 8"),
        ("rand_act_l1_logits", 15, "at least 16 frames"),
    ],
)
def test_windows_that_are_too_short_for_a_metric_are_told(name, frames, message):
    assert message in clip_metrics.obstacle(name, side=64, frames=frames)
