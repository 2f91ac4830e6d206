"""Scores are of the valid windows, by pair, on 8-bit frames; toy methods with known answers."""

import copy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from psrjax import config as config_lib
from psrjax import io
from psrjax.data import loader, spec
from psrjax.errors import UserError
from psrjax.evaluation import (
    clip_features,
    failure_gallery,
    method_evaluation,
    score_statistics,
    score_table,
)
from psrjax.inference import novel_view, synthesizer
from psrjax.methods.base import Method as Base
from psrjax.metrics import challenging, detail, features, interpolation, temporal
from psrjax.metrics import registry as metric_registry
from psrjax.pretrained import registry
from psrjax.runtime import cluster
from psrjax.synthetic import dataset
from psrjax.vision import drawing

T, SIZE = 3, 32


class Toy(Base):
    """Brightens the source in two steps; its baseline is the source."""

    stage: str = "second"

    @property
    def reads(self):
        return ("source", "target")

    def setup(self):
        self.gain = nn.Dense(1, name="gain")

    def start(self, batch):
        return jnp.zeros((), jnp.int32)

    def synthesize(self, batch, carry, intermediates=False):
        first = batch["source"] + 0.1
        second = batch["source"] + 0.101 + 0.0 * carry
        return {"video": second, "steps": {"first": first, "second": second}}, carry + 1

    def baselines(self, batch):
        return {"copy_source": batch["source"]}


class Plain(Toy):
    """Names no steps."""

    def synthesize(self, batch, carry, intermediates=False):
        made, carry = super().synthesize(batch, carry, intermediates)
        return {"video": made["video"]}, carry


def wire_batch(seed, valid):
    random = np.random.default_rng(seed)
    shape = (len(valid), T, SIZE, SIZE, 3)
    mask = np.zeros((len(valid), T, SIZE, SIZE, 1), np.uint8)
    mask[:, 1:, 8:24, 10:20] = 255  # the first frame of every window shows nobody
    return {
        "source": random.integers(20, 200, shape, np.uint8),
        "target": random.integers(20, 200, shape, np.uint8),
        "target_mask": mask,
        "index": np.arange(len(valid), dtype=np.int32),
        "valid": np.array(valid),
    }


IDS = [
    [
        {"clip": "a", "source_view": "cam1", "target_view": "cam2", "start": 0},
        {"clip": "a", "source_view": "cam2", "target_view": "cam1", "start": 0},
    ],
    [
        {"clip": "b", "source_view": "cam1", "target_view": "cam2", "start": 4},
        {"clip": "b", "source_view": "cam2", "target_view": "cam1", "start": 4},
    ],
]


@pytest.fixture
def batches(monkeypatch):
    made = [(wire_batch(0, [True, True]), IDS[0]), (wire_batch(1, [True, False]), IDS[1])]

    def batches(*args, limit, **options):
        return iter(made[: 1 if limit == 2 else None])

    monkeypatch.setattr(loader, "evaluation_batches", batches)
    return made


def evaluate(method=None, **options):
    config = config_lib.base()
    return method_evaluation.evaluate(method or Toy(), {"params": {}}, config, **options)


def row(rows, name, pair="all"):
    (found,) = (r for r in rows if r["name"] == name and r["pair"] == pair)
    return found["metrics"]


def quantised(source, shift):
    return np.clip(np.round((source / 127.5 - 1.0 + shift + 1.0) * 127.5), 0, 255).astype(np.uint8)


def test_scores_are_means_over_the_valid_windows_frames_and_agree_with_scikit_image(batches):
    rows = evaluate().rows
    by_pair = {"1->2": [], "2->1": []}
    for batch, ids in batches:
        for i in np.flatnonzero(batch["valid"]):
            pair = "1->2" if ids[i]["source_view"] == "cam1" else "2->1"
            for truth, source in zip(batch["target"][i], quantised(batch["source"][i], 0.1)):
                by_pair[pair].append(
                    (
                        peak_signal_noise_ratio(truth, source, data_range=255),
                        structural_similarity(truth, source, channel_axis=-1, data_range=255),
                    )
                )
    everything = by_pair["1->2"] + by_pair["2->1"]
    assert [len(by_pair["1->2"]), len(by_pair["2->1"])] == [2 * T, T]
    for pair, values in {**by_pair, "all": everything}.items():
        found = row(rows, "first", pair)
        np.testing.assert_allclose(found["psnr"], np.mean(values, 0)[0], rtol=1e-5)
        np.testing.assert_allclose(found["ssim_uniform7"], np.mean(values, 0)[1], atol=2e-5)


def test_frames_are_scored_after_rounding_to_8_bits(batches):
    rows = evaluate().rows
    assert row(rows, "first") == row(rows, "second")  # 0.101 and 0.1 round to the same frames


def test_frames_without_a_person_are_left_out_of_masked_scores_and_counted(batches):
    rows = evaluate().rows
    inside = []
    for batch, _ in batches:
        for i in np.flatnonzero(batch["valid"]):
            for t in range(1, T):
                mask = batch["target_mask"][i, t, ..., 0] > 0
                truth = batch["target"][i, t][mask].astype(float)
                made = quantised(batch["source"][i, t], 0.0)[mask].astype(float)
                inside.append(10 * np.log10(255**2 / np.mean((truth - made) ** 2)))
    np.testing.assert_allclose(row(rows, "copy_source")["m_psnr_in"], np.mean(inside), rtol=1e-5)
    assert rows[0]["about"]["frames_without_person"] == 3


def test_rows_name_every_step_baseline_and_pair_and_have_all_metrics(batches):
    rows = evaluate(split="test").rows
    names = ["copy_source", "first", "second"]
    assert [r["name"] for r in rows if r["pair"] == "all"] == names
    assert {(r["name"], r["pair"]) for r in rows} == {
        (name, pair) for name in names for pair in ("all", "1->2", "2->1")
    }
    metrics = "ssim ssim_uniform7 psnr m_ssim_zero m_psnr_zero m_ssim_in m_psnr_in".split()
    assert all(list(r["metrics"]) == metrics and r["split"] == "test" for r in rows)
    assert [r["kind"] for r in rows if r["pair"] == "all"] == ["baseline", "step", "step"]


def test_a_limit_and_samples_take_the_first_windows(batches):
    found = evaluate(limit=2, samples=1)
    assert found.rows[0]["about"]["windows"] == 2 and found.rows[0]["about"]["clips"] == 1
    (sample,) = found.samples
    assert (sample.clip, sample.source_view, sample.start) == ("a", "cam1", 0)
    assert list(sample.videos) == ["source", "copy_source", "first", "second", "truth"]
    np.testing.assert_array_equal(sample.videos["truth"], batches[0][0]["target"][0])
    np.testing.assert_array_equal(sample.videos["copy_source"], batches[0][0]["source"][0])


def test_a_method_without_named_steps_is_scored_under_its_stage(batches):
    rows = score_table.overall(evaluate(Plain()).rows)
    assert [r["name"] for r in rows] == ["copy_source", "second"]


def test_a_split_without_windows_is_said(monkeypatch):
    monkeypatch.setattr(loader, "evaluation_batches", lambda *args, **kwargs: iter([]))
    with pytest.raises(UserError, match="no window to evaluate in split 'nobody'"):
        evaluate(split="nobody")


@pytest.mark.parametrize(
    ("frames", "starts"), [(8, (0,)), (16, (0, 8)), (19, (0, 8, 11)), (9, (0, 1))]
)
def test_windows_cover_every_frame_and_end_with_the_clip(frames, starts):
    assert novel_view.windows(frames, 8) == starts
    assert set(range(frames)) == {start + i for start in starts for i in range(8)}


def test_a_clip_shorter_than_a_window_is_refused():
    with pytest.raises(UserError, match="5 frames; this method needs at least 8"):
        novel_view.windows(5, 8)


def test_a_synthesized_clip_has_every_frame_once_and_in_order(monkeypatch):
    clip = {key: wire_batch(0, [True] * 3)[key] for key in ("source", "target")}
    clip = {key: value.reshape(1, -1, *value.shape[2:])[:, :8] for key, value in clip.items()}

    def read(start):
        return {key: value[:, start : start + T] for key, value in clip.items()}

    monkeypatch.setattr(novel_view, "SHOWN_BASELINES", ("copy_source",))
    inputs = novel_view.NovelViewInputs(read, frames=8, window=T, times=np.arange(8) / 25, name="")
    made = novel_view.synthesize(Toy(), {"params": {}}, inputs)
    assert list(made.videos) == ["source", "copy_source", "first", "second", "truth"]
    assert made.steps[-1] == "second"
    np.testing.assert_array_equal(made.videos["truth"], clip["target"][0])
    np.testing.assert_array_equal(made.videos["first"], quantised(clip["source"][0], 0.1))


@pytest.mark.parametrize(
    ("views", "name"),
    [(("cam1", "cam2"), "1->2"), (("cam01", "cam04"), "1->4"), (("front", "cam2"), "front->cam2")],
)
def test_pairs_of_numbered_views_are_named_by_their_numbers(views, name):
    assert method_evaluation.pair_name(*views) == name


def test_the_batch_of_the_toys_is_a_batch_of_the_contract():
    spec.check(wire_batch(0, [True]), ("source", "target", "target_mask"))


def rows_of(values):
    return [
        {"name": name, "kind": kind, "pair": "all", "metrics": {"ssim": ssim, "psnr": psnr}}
        for name, kind, ssim, psnr in values
    ]


def test_verdicts_take_the_best_baseline_of_each_metric_by_itself():
    rows = rows_of(
        [
            ("copy", "baseline", 0.9, 20.0),
            ("x0", "baseline", 0.5, 25.0),
            ("layer1", "step", 0.8, 26.0),
            ("layer2", "step", 0.8, 26.5),
        ]
    )
    first, second = score_table.verdicts(rows)
    assert not first["good"] and "SSIM 0.8000 < 0.9000, PSNR 26.00 ≥ 25.00" in first["text"]
    assert second["good"] and second["text"].startswith("layer2 against layer1")


def test_the_table_marks_the_best_of_each_column():
    lines = score_table.text_table(
        rows_of([("copy", "baseline", 0.9, 20.0), ("layer1", "step", 0.8, 26.0)])
    ).splitlines()
    assert lines[1].split() == ["copy", "0.9000*", "20.00"]
    assert lines[2].split() == ["layer1", "0.8000", "26.00*"]


def test_an_oracle_is_neither_the_best_of_a_column_nor_a_rival():
    rows = rows_of(
        [
            ("copy", "baseline", 0.7, 20.0),
            ("oracle: true uv", "baseline", 0.9, 30.0),
            ("layer1", "step", 0.8, 26.0),
        ]
    )
    (verdict,) = score_table.verdicts(rows)
    assert verdict["good"] and "SSIM 0.8000 ≥ 0.7000, PSNR 26.00 ≥ 20.00" in verdict["text"]
    lines = score_table.text_table(rows).splitlines()
    assert lines[2].split()[-2:] == ["0.9000", "30.00"]
    assert lines[3].split() == ["layer1", "0.8000*", "26.00*"]


def test_a_grid_has_a_row_for_each_label_and_repeats_single_frames():
    videos = {"source": np.zeros((1, 4, 6, 3), np.uint8), "made": np.ones((9, 4, 6, 3), np.uint8)}
    picture = drawing.grid(videos, columns=3)
    assert picture.shape == (8, 18, 3)
    assert picture[:4].max() == 0 and picture[4:].min() == 1


class Counting(Toy):
    """Brightens by how many windows came before."""

    def synthesize(self, batch, carry, intermediates=False):
        return {"video": batch["source"] + 0.11 * (1 + carry)}, carry + 1


def overlapping(monkeypatch, **asked):
    """Two windows of one clip that share a frame, and one of another clip, each a batch."""
    made = [
        (wire_batch(seed, [True]), [{**IDS[0][0], "clip": clip, "start": start}])
        for seed, (clip, start) in enumerate([("a", 0), ("a", 2), ("b", 0)])
    ]

    def batches(*args, **options):
        asked.update(options)
        return iter(made)

    monkeypatch.setattr(loader, "evaluation_batches", batches)
    return made, asked


def test_whole_clips_are_synthesized_in_a_row_with_what_the_method_carries(monkeypatch):
    made, asked = overlapping(monkeypatch)
    found = evaluate(Counting(), windows="clips")
    assert (asked["in_a_row"], asked["windows"]) == (True, "all")
    step = [entry for entry in found.scored if entry.kind == "step"]
    for entry, (batch, _), brighter, first in zip(step, made, (0.11, 0.22, 0.11), (0, 1, 0)):
        expected = [
            peak_signal_noise_ratio(truth, source, data_range=255)
            for truth, source in zip(batch["target"][0], quantised(batch["source"][0], brighter))
        ]
        np.testing.assert_allclose(entry.metrics["psnr"], expected[first:], rtol=1e-5)


def test_a_frame_in_two_windows_is_scored_once(monkeypatch):
    overlapping(monkeypatch)
    found = evaluate(windows="all")
    frames = [
        (entry.clip, entry.start + i)
        for entry in found.scored
        if entry.name == "second"
        for i in range(len(entry.metrics["psnr"]))
    ]
    assert frames == [("a", i) for i in range(5)] + [("b", i) for i in range(3)]


def test_the_worst_frames_are_those_of_the_lowest_psnr_of_each_window(batches, tmp_path):
    found = evaluate()
    by_window = [entry for entry in found.scored if entry.name == "second"]
    lowest = sorted(float(entry.metrics["psnr"].min()) for entry in by_window)
    worst = found.gallery.worst
    np.testing.assert_allclose([frame.scores["psnr"] for frame in worst], lowest)
    frame = worst[0]
    batch = batches[{"a": 0, "b": 1}[frame.clip]][0]
    row_number = ["1->2", "2->1"].index(frame.pair)
    place = frame.frame - {"a": 0, "b": 4}[frame.clip]
    np.testing.assert_array_equal(frame.pictures["truth"], batch["target"][row_number, place])
    assert list(frame.pictures) == ["source", "second", "truth"]


def test_flicker_is_the_mean_change_between_frames_outside_the_person(batches, tmp_path):
    failure_gallery.write(tmp_path, evaluate().gallery)
    index = io.read_json(tmp_path / "index.json")
    changes = {"cam1": [], "cam2": []}
    for batch, ids in batches:
        for i in np.flatnonzero(batch["valid"]):
            for t in range(1, T):
                outside = np.maximum(batch["target_mask"][i, t], batch["target_mask"][i, t - 1])
                frames = batch["target"][i, t - 1 : t + 1].astype(float)
                change = np.abs(frames[1] - frames[0]).mean(-1)[outside[..., 0] == 0]
                changes[ids[i]["target_view"]].append(change)
    found = {entry["view"]: entry["truth"] for entry in index["flicker"]}
    for view, values in changes.items():
        np.testing.assert_allclose(found[view], np.concatenate(values).mean(), rtol=1e-5)
    pictures = [entry["picture"] for entry in index["flicker"] + index["worst"]]
    assert len(pictures) == 2 + 3 and all((tmp_path / name).exists() for name in pictures)


def test_an_evaluation_writes_all_its_files(batches, tmp_path):
    method_evaluation.write(tmp_path, evaluate())
    names = {"results.json", "results.csv", "results.md", "results.tex", "pictures"}
    names |= {"clips.json", "clips.csv", "frames.csv"}
    assert {path.name for path in tmp_path.iterdir()} == names


class Same(Toy):
    """Gives the true frames back; its baseline stands still at the first of each window."""

    def synthesize(self, batch, carry, intermediates=False):
        return {"video": batch["target"]}, carry

    def baselines(self, batch):
        return {"still": jnp.broadcast_to(batch["target"][:, :1], batch["target"].shape)}


# Clips of 12 frames, windows of 8, so that the last is moved.
CONFIG = config_lib.load("psrnet:tiny")


def evaluate_same(**options):
    return method_evaluation.evaluate(Same(), {"params": {}}, CONFIG, **options)


@pytest.fixture
def source():
    return loader.open_split(dataset.resolve_path(CONFIG.data), "test")


@pytest.mark.parametrize("windows", ["clips", "central"])
def test_metrics_of_motion_are_of_whole_clips_or_of_each_window(windows, source):
    metrics = ("e_temp", "e_temp_gap", "warping_error", "flicker")
    found = evaluate_same(windows=windows, metrics=metrics)
    (clip,) = source.clips
    frames = range(12) if windows == "clips" else range(2, 10)
    expected = {"e_temp": [], "warping_error": [], "flicker": []}
    for view in clip.views:
        loaded = source.load(clip.name, view, frames)
        streams = ("frames", "flow", "flow_forward", "mask")
        truth, flow, forward, mask = (
            jnp.asarray(loaded.read(stream), jnp.float32)[None] for stream in streams
        )
        truth, mask = truth / 255, mask[..., None] / 255
        trust = temporal.trust(flow, forward)
        expected["e_temp"].append(temporal.temporal_error(truth, flow, trust)[0])
        trust = temporal.trust(forward, flow, one_sided=True)
        expected["warping_error"].append(temporal.warping_error(truth, forward, trust).mean())
        expected["flicker"].append(temporal.flicker(truth, mask).mean())
    (row, *_) = (r for r in found.rows if r["name"] == "second")
    for metric, values in expected.items():
        np.testing.assert_allclose(row["metrics"][metric], np.mean(values), rtol=1e-4)
    (still, *_) = (r for r in found.rows if r["name"] == "still")
    assert row["metrics"]["e_temp_gap"] == 0.0 < still["metrics"]["e_temp_gap"]
    assert list(row["metrics"])[:7] == list(metric_registry.BASIC)
    assert row["metrics"]["psnr"] == 100.0 and row["about"]["frames_scored"] == 2 * len(frames)
    assert len(score_statistics.frame_rows(found.scored)) == 2 * 2 * len(frames)  # two names


def evaluate_stored(
    dataset_folder, monkeypatch, *, devices=1, share=(0, 1), gather=lambda own: [own], **options
):
    """Evaluates 18 pairs of a clip and views, on so many devices, as one process of several."""
    stored = {"data.path": str(dataset_folder), "data.crop": (0, 0), "data.sampling.t": 4}
    monkeypatch.setattr(synthesizer, "devices", lambda work=0: jax.local_devices()[:devices])
    monkeypatch.setattr(cluster, "share", lambda: share)
    monkeypatch.setattr(cluster, "gather", gather)
    config = config_lib.load("psrnet:tiny", stored)
    return method_evaluation.evaluate(
        Counting(), {"params": {}}, config, split="train", samples=3, **options
    )


def test_few_frames_are_warned_of_and_all_windows_are_scored_instead(
    dataset_folder, monkeypatch, caplog
):
    stored = {"data.path": str(dataset_folder), "data.sampling.t": 1, "data.sampling.k": 1}
    config = config_lib.load("psrnet:tiny", stored)  # split test: a clip of 12 frames, three views

    def scored(windows):
        caplog.clear()
        found = method_evaluation.evaluate(Counting(), {"params": {}}, config, windows=windows)
        return found.rows, caplog.text

    rows, said = scored("central")
    assert rows[0]["about"]["frames_scored"] == 6 and "few frames (6 in all, clips: 1" in said
    rows, said = scored("auto")
    assert rows[0]["about"]["frames_scored"] == 6 * 12 and "few frames" not in said
    lines = score_table.text_table(rows).splitlines()
    assert lines[0].split()[-2:] == ["clips", "frames"] and lines[1].split()[-2:] == ["1", "72"]


def places(found):
    return [(s.kind, s.name, s.pair, s.clip, s.start, *s.metrics) for s in found.scored]


def assert_same_evaluation(found, expected):
    assert places(found) == places(expected)
    for one, other in zip(found.rows, expected.rows, strict=True):
        assert (one["name"], one["pair"], one["about"]) == (
            other["name"],
            other["pair"],
            other["about"],
        )
        for metric, value in other["metrics"].items():
            np.testing.assert_allclose(one["metrics"][metric], value, rtol=1e-5, err_msg=metric)
    for one, other in zip(found.samples, expected.samples, strict=True):
        assert (one.clip, one.target_view, one.start) == (
            other.clip,
            other.target_view,
            other.start,
        )
        np.testing.assert_array_equal(one.videos["second"], other.videos["second"])
    worst = [[(f.clip, f.pair, f.frame) for f in each.gallery.worst] for each in (found, expected)]
    assert sorted(worst[0]) == sorted(worst[1])


@pytest.mark.parametrize("windows", [pytest.param("all", marks=pytest.mark.slow), "clips"])
def test_several_devices_give_the_scores_of_one(windows, dataset_folder, monkeypatch):
    options = {"windows": windows, "metrics": ("flicker",)}
    one = evaluate_stored(dataset_folder, monkeypatch, **options)
    assert one.rows[0]["about"]["windows"] == 54
    found = evaluate_stored(dataset_folder, monkeypatch, devices=2, **options)
    assert_same_evaluation(found, one)


def test_the_parts_of_several_processes_make_the_scores_of_one(dataset_folder, monkeypatch):
    options = {"windows": "clips", "metrics": ("flicker",)}
    one = evaluate_stored(dataset_folder, monkeypatch, **options)
    parts = []
    for number in range(4):
        keep = lambda own: [parts.append(copy.deepcopy(own)) or own]  # noqa: E731
        evaluate_stored(dataset_folder, monkeypatch, share=(number, 4), gather=keep, **options)
    assert sum(part.windows for part in parts) == 54 and min(part.windows for part in parts) > 9
    found = evaluate_stored(dataset_folder, monkeypatch, gather=lambda own: parts, **options)
    assert_same_evaluation(found, one)


def test_only_the_first_process_writes(batches, tmp_path, monkeypatch):
    found = evaluate()
    monkeypatch.setattr(cluster, "share", lambda: (1, 2))
    assert method_evaluation.write(tmp_path, found) == tmp_path / "results.json"
    assert list(tmp_path.iterdir()) == []


def test_vfid_is_of_clips_joined_from_windows_and_the_row_says_so(monkeypatch):
    seen = []

    def of_clips(weights, clips):
        seen.append(clips[0])
        return {"features": np.asarray(clips[0], np.float64).mean((0, 1))[:4].ravel()[None]}

    monkeypatch.setattr(clip_features, "weights", lambda name: {"unit": {}})
    monkeypatch.setattr(features, "of_clips", of_clips)
    found = evaluate_same(windows="clips", metrics=("vfid",))
    assert {len(clip) for clip in seen} == {12}  # not 8, the window
    assert row(found.rows, "second")["vfid"] == pytest.approx(0.0, abs=1e-6)
    assert row(found.rows, "still")["vfid"] > 0
    notes = found.rows[0]["about"]["notes"]
    assert "vfid: of 2 clips; whole clips, synthesized in windows of 8 frames and joined" in notes
    with pytest.raises(UserError, match="vfid needs clips of at least 10 frames, these have 8; --"):
        evaluate_same(metrics=("vfid",))


def test_challenging_frames_are_those_farthest_from_all_training_poses(source):
    found = evaluate_same(windows="clips", metrics=("r_psnr", "r_ssim"))
    training = loader.open_split(dataset.resolve_path(CONFIG.data), "train")
    known = [
        training.read(clip.name, view, "joints") for clip in training.clips for view in clip.views
    ]
    (clip,) = source.clips
    places = [(clip.name, view, frame) for view in clip.views for frame in range(12)]
    poses = np.concatenate([source.read(clip.name, view, "joints") for view in clip.views])
    distances = challenging.pose_distances(poses, np.concatenate(known))
    order = np.argsort(-distances, kind="stable")[:10]
    about = found.rows[0]["about"]["challenging_frames"]
    assert [tuple(place) for place in about] == [places[i] for i in order]
    entries = [s for s in found.scored if s.name == "still" and not s.whole]
    values = [
        entry.metrics["psnr"][i]
        for entry in entries
        for i in range(len(entry.metrics["psnr"]))
        if (entry.clip, f"cam{entry.pair[-1]}", entry.start + i) in {places[i] for i in order}
    ]
    assert len(values) == 10
    assert row(found.rows, "still")["r_psnr"] == pytest.approx(np.mean(values), rel=1e-5)
    assert row(found.rows, "second")["r_ssim"] == pytest.approx(1.0, abs=1e-6)


def test_an_unknown_metric_is_refused_with_the_list():
    with pytest.raises(UserError, match="no metric 'fidd'; there are ms_ssim.*e_temp"):
        evaluate_same(metrics=("fidd",))
    with pytest.raises(UserError, match="ms_ssim needs frames of at least 161 .*, these have 32"):
        evaluate_same(metrics=("ms_ssim",))


def test_metrics_of_clips_that_single_frames_do_not_have(source):
    metrics = ("sd_lua", "sd_eq", "interp_psnr[dis]")
    found = evaluate_same(metrics=metrics)
    (clip,) = source.clips
    expected = {metric: [] for metric in metrics}
    for view in clip.views:
        truth = source.load(clip.name, view, range(2, 10)).read("frames")
        still = np.broadcast_to(truth[:1], truth.shape)
        frames = [jnp.asarray(video, jnp.float32) / 255 for video in (still, truth)]
        expected["sd_lua"].append(detail.sd_lua(*frames).mean())
        expected["sd_eq"].append(detail.sd_eq(*frames).mean())
        expected["interp_psnr[dis]"].append(interpolation.interp_psnr(still, truth).mean())
    for metric, values in expected.items():
        value = row(found.rows, "still")[metric]
        np.testing.assert_allclose(value, np.mean(values), rtol=1e-4)


def test_lpips_is_refused_without_its_weights_and_random_when_asked_for(monkeypatch):
    monkeypatch.setattr(registry, "search_path", lambda: ())
    clip_features.weights.cache_clear()
    with pytest.raises(UserError, match="lpips_alex: .*alexnet"):
        evaluate_same(metrics=("lpips_alex",))
    found = evaluate_same(metrics=("rand_lpips_alex",))
    assert row(found.rows, "second")["rand_lpips_alex"] == pytest.approx(0.0, abs=1e-6)
    assert row(found.rows, "still")["rand_lpips_alex"] > 1e-3


def test_face_psnr_is_that_of_the_square_around_the_head(source):
    found = evaluate_same(metrics=("face_psnr",))
    (clip,) = source.clips
    expected = []
    for view in clip.views:
        read = source.load(clip.name, view, range(2, 10)).read
        truth, joints = read("frames").astype(np.float64) / 255, read("joints")
        errors = []
        for frame, (x, y, seen) in zip(truth, joints[:, 0].astype(np.float64), strict=True):
            if not seen:  # the nose; the dataset's people always show it
                continue
            corner = [round((n + 1) * 16 - 0.5 - 3.5) for n in (y, x)]
            top, left = (min(max(n, 0), 24) for n in corner)
            square = np.s_[top : top + 8, left : left + 8]
            errors.append(np.square(frame[square] - truth[0][square]).mean())
        values = [min(100.0, -10 * np.log10(max(error, 1e-10))) for error in errors]
        expected.append(np.mean(values))
    assert row(found.rows, "still")["face_psnr"] == pytest.approx(np.mean(expected), rel=1e-3)
