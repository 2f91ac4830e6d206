"""Rows, intervals and files of scores: against naive means, SciPy's bootstrap and a CSV reader."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from psrjax.evaluation import score_export, score_statistics, score_table
from psrjax.evaluation.score_statistics import Scored


def random_scores(clips=12, seed=0, shift=0.0):
    """Clips of differing lengths that differ from one another; one value is missing."""
    rng = np.random.default_rng(seed)
    found = []
    for clip in range(clips):
        for pair in ("1->2", "2->1"):
            frames = rng.integers(2, 6)
            psnr = 20 + shift + clip + rng.normal(size=frames)
            inside = psnr - 3
            if clip == 1:
                inside = np.where(np.arange(frames) == 0, np.nan, inside)
            metrics = {"psnr": psnr, "m_psnr_in": inside}
            found.append(Scored("step", "layer1", pair, f"clip{clip}", 4, metrics))
    return found


def test_rows_are_means_over_frames_and_count_what_has_no_value():
    found = random_scores()
    rows = score_statistics.rows(found, {"split": "test"})
    assert [row["pair"] for row in rows] == ["all", "1->2", "2->1"]
    for row in rows:
        chosen = [s for s in found if row["pair"] in ("all", s.pair)]
        for metric in ("psnr", "m_psnr_in"):
            values = np.concatenate([s.metrics[metric] for s in chosen])
            np.testing.assert_allclose(row["metrics"][metric], np.nanmean(values), rtol=1e-12)
        assert row["about"]["frames_without_person"] == (2 if row["pair"] == "all" else 1)
        assert row["about"]["frames_scored"] == sum(len(s.metrics["psnr"]) for s in chosen)
        assert row["about"]["clips"] == 12 and row["split"] == "test"


def test_intervals_agree_with_scipys_bootstrap_over_clips():
    found = random_scores()
    (row, *_) = score_statistics.rows(found, {})
    sums = score_statistics.clip_sums(found)["psnr"]
    expected = stats.bootstrap(
        (sums[:, 0], sums[:, 1]),
        lambda total, count, axis=-1: total.sum(axis) / count.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    low, high = row["interval"]["psnr"]
    np.testing.assert_allclose([low, high], [expected.low, expected.high], atol=0.25)
    assert low < row["metrics"]["psnr"] < high and high - low > 2  # clips are 20 to 31 dB


def test_a_single_clip_has_no_interval():
    (row, *_) = score_statistics.rows(random_scores(clips=1), {})
    assert row["interval"] == {}


def test_the_same_scores_give_the_same_interval():
    first, second = (score_statistics.rows(random_scores(), {}) for _ in range(2))
    assert first == second


def test_a_difference_between_rows_is_sharper_than_their_intervals():
    mine, other = (
        score_statistics.clip_rows(random_scores(shift=shift, seed=7)) for shift in (0.5, 0.0)
    )
    found = score_statistics.difference(mine, other, "psnr")
    np.testing.assert_allclose(found["difference"], 0.5, rtol=1e-9)
    np.testing.assert_allclose(found["interval"], [0.5, 0.5], rtol=1e-9)  # the clips cancel
    assert found["clips"] == 12
    reverse = score_statistics.difference(other, mine, "psnr")
    np.testing.assert_allclose(reverse["difference"], -0.5, rtol=1e-9)


def test_a_difference_is_taken_over_the_common_clips_only():
    mine = score_statistics.clip_rows(random_scores(clips=3))
    other = [row | {"clip": row["clip"].replace("clip2", "clip9")} for row in mine]
    found = score_statistics.difference(mine, other, "psnr")
    assert found["clips"] == 2 and found["difference"] == 0
    nothing = [row | {"clip": "elsewhere"} for row in mine]
    assert score_statistics.difference(mine, nothing, "psnr")["clips"] == 0


def test_clip_rows_give_the_means_of_all_frames_back():
    found = random_scores()
    by_clip = score_statistics.clip_rows(found)
    assert len(by_clip) == 24
    total = sum(row["metrics"]["m_psnr_in"] * row["frames"]["m_psnr_in"] for row in by_clip)
    count = sum(row["frames"]["m_psnr_in"] for row in by_clip)
    (row, *_) = score_statistics.rows(found, {})
    np.testing.assert_allclose(total / count, row["metrics"]["m_psnr_in"], rtol=1e-12)


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_of_an_evaluation_hold_rows_clips_and_frames(tmp_path):
    found = random_scores()
    rows = score_statistics.rows(found, {"split": "test"})
    score_export.write(tmp_path, rows, found)
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    first = read_csv(tmp_path / "results.csv")[0]
    assert first["pair"] == "all" and first["split"] == "test"
    np.testing.assert_allclose(float(first["psnr"]), rows[0]["metrics"]["psnr"], rtol=1e-5)
    np.testing.assert_allclose(float(first["psnr_low"]), rows[0]["interval"]["psnr"][0], rtol=1e-5)
    frames = read_csv(tmp_path / "frames.csv")
    assert len(frames) == sum(len(s.metrics["psnr"]) for s in found)
    assert frames[0]["frame"] == "4" and frames[1]["frame"] == "5"
    missing = [f for f in frames if f["m_psnr_in"] == ""]
    assert len(missing) == 2 and {f["clip"] for f in missing} == {"clip1"}
    assert len(read_csv(tmp_path / "clips.csv")) == len(
        json.loads((tmp_path / "clips.json").read_text())
    )


def two_rows():
    shared = {"pair": "all", "about": {"clips": 2, "frames_scored": 30}}
    return [
        {"name": name, "kind": kind, "metrics": metrics, "interval": interval, **shared}
        for name, kind, metrics, interval in (
            ("copy_source", "baseline", {"ssim": 0.9, "lpips_alex": 0.3}, {"ssim": [0.8, 0.95]}),
            ("layer1", "step", {"ssim": 0.85, "lpips_alex": 0.1}, {}),
        )
    ]


def test_markdown_has_arrows_intervals_and_the_best_in_bold():
    header, _, first, second = score_export.markdown(two_rows()).splitlines()
    assert header == "| | ssim ↑ | lpips_alex ↓ | clips | frames |"
    assert first == "| *copy_source* | **0.9000** [0.8000, 0.9500] | 0.3000 | 2 | 30 |"
    assert (
        second == "| layer1 | 0.8500 | **0.1000** | 2 | 30 |"
    )  # the smaller distance is the better


def test_latex_rows_are_escaped_and_name_their_columns():
    header, first, second = score_export.latex(two_rows()).splitlines()
    assert header == "% name & ssim & lpips_alex \\\\"
    assert first == r"copy\_source & \textbf{0.9000} & 0.3000 \\"
    assert second == r"layer1 & 0.8500 & \textbf{0.1000} \\"


@pytest.mark.parametrize(
    ("metric", "lower"),
    [("ssim", False), ("m_psnr_zero", False), ("fid", True), ("rand_fvd", True), ("e_temp", True)],
)
def test_distances_are_better_when_they_are_smaller(metric, lower):
    assert score_table.lower_is_better(metric) == lower
    assert score_table.best(metric, [1.0, 2.0]) == (1.0 if lower else 2.0)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        *(("psnr", 21.456, "21.46"), ("ssim", 0.84123, "0.8412"), ("fid", 27.682, "27.68")),
        *(("warping_error", 0.00042, "4.2e-04"), ("lpips_alex", 0.035, "0.0350")),
        *(("e_temp", 0.0, "0.0000"), ("ssim", 0.0042, "0.0042")),
    ],
)
def test_numbers_have_the_places_that_tell_them_apart(metric, value, text):
    assert score_table.format_metric(metric, value) == text
