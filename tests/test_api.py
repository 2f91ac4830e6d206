"""`import psrjax` offers what docs/api.md says, is quick, and gives frames as they come."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import psrjax
from psrjax import config as config_lib
from psrjax.api import preparation
from psrjax.data import video
from psrjax.methods import base

SIZE = (24, 32)
CALLS = []


class Method(base.Method):
    """Shows the prior where there is one, else the driving frame with the source's brightness."""

    gain: float = 1.0
    views: bool = False

    @property
    def reads(self):
        return ("source", "target", *(("target_prior",) if self.views else ()))

    def start(self, batch):
        return batch["source"][:, :1].mean((2, 3), keepdims=True)

    def synthesize(self, batch, carry, intermediates=False):
        made = batch["target_prior"] if self.views else 0 * batch["target"] + carry
        return {"video": made * self.gain}, jnp.asarray(carry)

    def baselines(self, batch):
        return {}


@pytest.fixture
def model(dataset_folder, monkeypatch, tmp_path):
    """A model without weights, on a small stored dataset."""
    monkeypatch.setenv("PSRJAX_CACHE", str(tmp_path / "cache"))
    config = config_lib.load(
        "psrnet:tiny", {"data.path": str(dataset_folder), "data.sampling.t": 4}
    )
    return psrjax.Model(Method(), {}, config, "layer1")


def test_the_import_is_quick_for_it_imports_no_jax():
    code = (
        "import sys, psrjax; dir(psrjax); print(sorted({'jax', 'numpy', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_whatever_was_imported_before():
    import psrjax.prepare.common.detector  # gives psrjax the room `prepare`

    for name in psrjax._HOMES:
        assert callable(getattr(psrjax, name)) and name in dir(psrjax)
    with pytest.raises(psrjax.UserError, match="no such file"):
        psrjax.prepare("nowhere.mp4", "data", preset="hpt:demo")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = psrjax.nothing


def test_a_transfer_takes_files_arrays_and_pictures_and_gives_frames(model, tmp_path):
    driving = np.random.default_rng(0).integers(0, 255, (11, *SIZE, 3), np.uint8)
    person = np.full((*SIZE, 3), 200, np.uint8)
    Image.fromarray(person).save(tmp_path / "me.png")
    video.write(tmp_path / "dance.mkv", driving, lossless=True, fps=10)
    options = psrjax.TransferOptions(check_person=False)
    for source in (person, Image.fromarray(person), tmp_path / "me.png"):
        made = model.transfer(source, tmp_path / "dance.mkv", options=options)
        assert len(made) == 11 and made.fps == pytest.approx(10, rel=1e-3)
        np.testing.assert_allclose(made.frames, 200, atol=1)
    assert len(made.comparison) == 11 and made.comparison.frames.shape[2] >= 3 * SIZE[1]
    found = video.read(made.save(tmp_path / "out.mkv", lossless=True))
    np.testing.assert_array_equal(found.frames, made.frames)


def test_frames_of_a_transfer_come_before_the_last_is_made(model, monkeypatch):
    from psrjax.inference import footage

    read = footage.VideoFootage.read
    asked = []

    def noted(self, keys, frames):
        asked.append(max(frames))
        return read(self, keys, frames)

    monkeypatch.setattr(footage.VideoFootage, "read", noted)
    driving = np.random.default_rng(0).integers(0, 255, (40, *SIZE, 3), np.uint8)
    options = psrjax.TransferOptions(check_person=False, window=8)
    made = model.transfer(driving[0], driving, options=options)
    next(iter(made))
    assert max(asked) < 16
    assert len(made.frames) == 40


def test_a_novel_view_of_a_clip_and_its_comparison(model):
    made = dataclasses.replace(model, method=Method(views=True)).novel_view(
        source_view="cam1", target_view="cam2", frames=(0, 10)
    )
    assert made.frames.shape == (10, *SIZE, 3)
    np.testing.assert_array_equal(made.frames, 10)  # the stored prior from cam1
    assert made.comparison.frames.shape[2] >= 3 * SIZE[1]  # source, result, truth


def test_a_refinement_starts_from_the_estimate_that_is_given(model):
    estimate = np.random.default_rng(0).integers(0, 255, (10, *SIZE, 3), np.uint8)
    refining = dataclasses.replace(model, method=Method(views=True))
    views = {"source_view": "cam1", "target_view": "cam2"}
    made = refining.refine(psrjax.Video(estimate), frames=(0, 10), **views)
    np.testing.assert_array_equal(made.frames, estimate)
    with pytest.raises(psrjax.UserError, match="10 frames; d, cam1 → cam2 has 12"):
        refining.refine(estimate, **views)
    with pytest.raises(psrjax.UserError, match="starts from no estimate"):
        model.refine(estimate, frames=(0, 10))


def test_a_run_is_trained_loaded_and_has_other_fields(toy, tmp_path):
    psrjax.train(
        toy.get_config("plain,first"), tmp_path / "run", {"steps": 2, "checkpoint_steps": 2}
    )
    model = psrjax.load(tmp_path / "run", fields={"noise": 0.5})
    assert model.stage == "first" and model.method.noise == 0.5 and model.config.steps == 2
    with pytest.raises(psrjax.UserError, match="'depth' is no option"):
        psrjax.load(tmp_path / "run", fields={"depth": 3})


@pytest.mark.parametrize(
    ("preset", "needs"),
    [
        ("hpt:demo", preparation.Needs((48, 48), body=False, views=False, one_person=True)),
        ("d2gnet:demo", preparation.Needs((64, 48), body=True, views=False, one_person=True)),
        ("mfci:demo", preparation.Needs((48, 48), body=False, views=False, one_person=False)),
        ("psrnet", preparation.Needs((128, 128), body=False, views=True, one_person=False)),
    ],
)
def test_a_preset_says_what_it_needs_of_its_data(preset, needs):
    assert preparation.needs_of(preset) == needs


def test_the_log_shows_our_lines_and_the_warnings_of_others():
    code = """
import orbax.checkpoint, psrjax
from absl import logging
psrjax.show_log()
psrjax.show_log()
exec(compile("logging.info('ours')", psrjax.__file__, "exec"))
loud = "logging.info('theirs'); logging.error('loud')"
exec(compile(loud, orbax.checkpoint.__file__, "exec"))
logging.warning("warned")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.split("] ")[1] for line in done.stderr.splitlines()] == ["ours", "warned"]


def test_a_preset_of_several_views_is_not_prepared_of_a_video():
    with pytest.raises(psrjax.UserError, match="psrnet:demo learns from calibrated views"):
        psrjax.prepare("me.mp4", "data", preset="psrnet:demo")


@pytest.mark.slow
def test_the_page_of_the_interface_runs_from_top_to_bottom(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs/api.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert blocks[0].count("psrjax.") == 3  # the five lines, which need two videos of one's own
    (tmp_path / "page.py").write_text(
        "\n".join(["import psrjax", *blocks[1:], "print(frames.shape)"])
    )
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # one device, as most people have
    command = [sys.executable, "page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith(", 32, 32, 3)\n")  # the last line
    assert (tmp_path / "runs/tiny/results.json").is_file()
