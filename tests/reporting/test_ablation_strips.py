"""Strips show runs of the same data side by side, at the moment and place where they differ."""

from types import SimpleNamespace

import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax.errors import UserError
from psrjax.inference.novel_view import SynthesizedClip
from psrjax.reporting import ablation_strips, report, run_summary

BAR = 24  # pixels of a label, at least


def clip(result, **intermediates):
    length = len(result)
    videos = {"source": np.zeros_like(result), "first": result, "last": result, "truth": result}
    return SynthesizedClip(videos, ("first", "last"), np.arange(length) / 25, intermediates)


@pytest.fixture
def videos():
    """Two videos of 48x30 that differ a little everywhere, and much in frame 3 about (40, 9)."""
    one = np.full((5, 48, 30, 3), 100, np.uint8)
    other = one + np.arange(5, dtype=np.uint8)[:, None, None, None]
    other[3, 34:46, 4:14] = 250
    return one, other


def test_the_moment_and_the_place_are_those_where_results_differ_most(videos):
    moment, rows, columns = ablation_strips.most_different(np.stack(videos))
    assert moment == 3
    assert (rows.stop - rows.start, columns.stop - columns.start) == (16, 10)
    assert rows.start <= 34 and 46 <= rows.stop and (columns.start, columns.stop) == (4, 14)


def test_a_strip_has_a_column_for_each_run_and_rows_of_frames_places_and_steps(videos):
    one, other = videos
    half = np.full((5, 24, 15, 1), 0.5, np.float32)
    made = {
        "one": clip(one, confidence=half, alone=half, still=half[0]),
        "other": clip(other, confidence=half * 2, still=half[0]),
    }
    drawn = ablation_strips.strip("person", made)
    assert drawn.title == "person, frame 3"
    height, width, _ = drawn.picture.shape
    assert width % (4 * 30) == 0
    scale = width // (4 * 30)
    bar = height // 3 - 48 * scale
    assert height % 3 == 0 and bar >= BAR  # frames, places, confidence: "alone" is not of both
    panels = drawn.picture.reshape(3, height // 3, 4, 30 * scale, 3).swapaxes(1, 2)[:, :, bar:]
    shown = {name: panels[0, i, ::scale, ::scale] for i, name in enumerate(("s", "t", "a", "b"))}
    box = np.zeros((48, 30), bool)
    _, rows, columns = ablation_strips.most_different(np.stack(videos))
    box[rows, columns] = True
    box[rows.start + 1 : rows.stop - 1, columns.start + 1 : columns.stop - 1] = False
    for name, frame in (("a", one[3]), ("b", other[3]), ("s", 0 * one[3])):
        np.testing.assert_array_equal(shown[name][~box], frame[~box])
    place = panels[1, 3, ::scale, ::scale]
    assert (place == 250).all(-1).mean() > 0.6 and (panels[1, 2] == 100).all()
    assert (panels[2, 2] == 128).all() and (panels[2, 3] == 255).all()


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs that share their data, one of other data, and one without a checkpoint."""
    chosen = {
        "a": "internet:tiny",
        "b": "internet:tiny,MS-a",
        "c": "mfci:tiny",
        "d": "internet:tiny",
    }
    configs = {name: config_lib.load(variant) for name, variant in chosen.items()}
    for name, config in configs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config_lib.to_json(config))

    def restore(folder):
        if folder.name == "d":
            raise UserError("no checkpoint")
        return None, {}, configs[folder.name], "joint"

    monkeypatch.setattr(ablation_strips.checkpoint, "restore_for_inference", restore)
    return [tmp_path / name for name in "abcd"]


def test_runs_of_the_same_data_stand_side_by_side_in_the_page(runs, tmp_path, monkeypatch):
    length = 6
    frames = np.random.default_rng(0).integers(0, 255, (length, 64, 64, 3), np.uint8)
    made = iter(range(100))

    def synthesize(method, variables, inputs, intermediates):
        number = next(made)
        return clip(np.clip(frames + number, 0, 255).astype(np.uint8))

    stored = SimpleNamespace(clips=[SimpleNamespace(name="clip0", views={"cam1": None})])
    monkeypatch.setattr(ablation_strips, "Source", lambda path, split: stored)

    def resolved(data):
        return {"path": str(data.synthetic)}

    monkeypatch.setattr(ablation_strips.dataset, "resolve_path", resolved)
    monkeypatch.setattr(ablation_strips.novel_view, "from_scored", lambda *_, **__: None)
    monkeypatch.setattr(ablation_strips.novel_view, "synthesize", synthesize)
    page = report.write(*runs, output=tmp_path / "page.html", strips=3)
    assert "Runs side by side" in page.read_text() and (tmp_path / "page.strip1.png").exists()
    assert next(made) == 2  # a and b, of the only clip
    assert ablation_strips.draw(run_summary.open_runs(runs[1:]), clips=1) == []
    assert "Runs side by side" not in report.write(*runs, output=tmp_path / "none.html").read_text()
