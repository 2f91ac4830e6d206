"""A gallery shows clips that move, what failed, and what made each run."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from psrjax import config as config_lib
from psrjax.errors import UserError
from psrjax.inference.novel_view import SynthesizedClip
from psrjax.reporting import gallery
from psrjax.runtime import run_record


@pytest.fixture
def run(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    (folder / "pictures").mkdir(parents=True)
    config = config_lib.load("psrnet:tiny")
    (folder / "config.json").write_text(config_lib.to_json(config))
    (folder / "results.json").write_text(json.dumps([]))
    Image.new("RGB", (12, 4)).save(folder / "pictures" / "worst00.png")
    worst = {"clip": "walk", "pair": "a->b", "frame": 7, "scores": {"psnr": 12.34}}
    worst |= {"labels": ["source", "layer3", "truth"], "picture": "worst00.png"}
    (folder / "pictures" / "index.json").write_text(json.dumps({"worst": [worst], "flicker": []}))
    frames = np.random.default_rng(0).integers(0, 256, (60, 16, 8, 3)).astype(np.uint8)
    videos = {"source": frames, "layer1": frames, "layer3": frames, "truth": frames}
    made = SynthesizedClip(videos, ("layer1", "layer3"), np.arange(60) / 25, {})
    restored = lambda folder: (None, None, config, "layer3")  # noqa: E731
    monkeypatch.setattr(gallery.checkpoint, "restore_for_inference", restored)
    inputs = [SimpleNamespace(name=f"clip {i}") for i in range(3)]
    monkeypatch.setattr(gallery, "_inputs", lambda method, config, count: inputs[:count])
    monkeypatch.setattr(gallery.novel_view, "synthesize", lambda *given: made)
    return folder


def test_a_gallery_has_clips_that_move_the_worst_frames_and_the_command(run, tmp_path):
    with run_record.RunRecord(
        gallery.epath.Path(run), "psrjax train --config=mine --workdir=/home/me/runs/mine"
    ).part("train"):
        pass
    page = gallery.write(run, output=tmp_path / "out" / "page.md", clips=2)
    text = page.read_text()
    links = re.findall(r"!\[(.*?)\]\((.*?)\)", text)
    assert [label for label, _ in links] == 2 * ["source, result, truth"] + [
        "source, layer3, truth"
    ]
    for _, link in links[:2]:
        with Image.open(tmp_path / "out" / link) as image:
            assert image.n_frames == 48 and image.width > 2 * image.height / 2
    assert (tmp_path / "out" / links[2][1]).exists()
    assert "walk, a->b, frame 7: 12.3 dB" in text
    assert "clip 1, 8x16 pixels" in text and "layer1 12, layer2 12, layer3 12" in text
    assert "```bash\npsrjax train --config=mine --workdir=mine\n```" in text


def test_a_page_keeps_its_sections_of_other_runs_and_renews_those_of_the_given(run, tmp_path):
    page = tmp_path / "page.md"
    other = "## another: hpt\n\nWords of mine.\n\n### With a part\n\n```bash\n# a comment\n```\n"
    page.write_text(f"# My title\n\nBefore.\n\n## mine: psrnet\n\nOld words.\n\n{other}")
    gallery.write(run, output=page, clips=1)
    once = page.read_text()
    assert once.startswith("# My title\n\nBefore.\n\n## mine: psrnet\n\n![source, result, truth]")
    assert once.endswith("\n\n" + other) and "Old words" not in once
    gallery.write(run, output=page, clips=1)
    assert page.read_text() == once


def test_a_run_that_is_new_to_a_page_comes_first(run, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# My title\n\n## another: hpt\n\nWords of mine.\n")
    gallery.write(run, output=page, clips=1)
    text = page.read_text()
    assert text.startswith("# My title\n\n## mine: psrnet\n")
    assert text.endswith("\n\n## another: hpt\n\nWords of mine.\n")


def test_a_record_counts_the_time_of_all_calls_and_none_of_a_mistake(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(run_record.time, "monotonic", lambda: now[0])
    folder = gallery.epath.Path(tmp_path)

    def call(seconds, error=None):
        with run_record.RunRecord(folder, "psrjax train").part("train"):
            now[0] += seconds
            if error:
                raise error

    with pytest.raises(UserError):
        call(5, UserError("no such field"))
    assert not (tmp_path / run_record.FILE).exists()
    with pytest.raises(KeyboardInterrupt):
        call(10, KeyboardInterrupt())
    cut = json.loads((tmp_path / run_record.FILE).read_text())
    assert cut["parts"] == [{"name": "train", "seconds": 10.0, "done": False}]
    call(20)
    call(60)  # of a training that was made longer
    whole = json.loads((tmp_path / run_record.FILE).read_text())
    assert whole["parts"] == [{"name": "train", "seconds": 90.0, "done": True}]
    assert whole["command"] == "psrjax train" and whole["machine"]
