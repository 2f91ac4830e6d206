"""The demo counts its stages as a whole, and shows what its method can make."""

import types

import numpy as np
import pytest
from etils import epath

from psrjax import config as config_lib
from psrjax import io
from psrjax.data import loader, sampling
from psrjax.inference import novel_view
from psrjax.reporting import demo
from psrjax.synthetic import dataset
from psrjax.training import writer


def test_progress_counts_all_stages_and_tells_the_time_left_for_all(caplog, monkeypatch):
    now = iter([0.0, 20.0])
    monkeypatch.setattr(writer, "time", types.SimpleNamespace(monotonic=lambda: next(now)))
    config = config_lib.load("psrnet:tiny", {"steps": 100})
    with caplog.at_level("INFO", "absl"):
        count = demo._StageCount(config)
        count.announce(1, "render the people", 600)
        progress = count.training("layer2", 0, 100)
        progress.update(20)
        progress.close()
        count.announce(0, "comparison videos", 6)
    # 80 steps of this stage, 100 of the next, and 5 % of all 300 for scoring and videos
    assert caplog.messages == [
        "stage 1 of 6: render the people, about 10 min left in all",
        "stage 3 of 6: train layer2: step 20 of 100, 1.00 steps/s, 0:03:15 left in all",
        "stage 6 of 6: comparison videos, about 1 min left in all",
    ]


@pytest.mark.parametrize("name", config_lib.names())
def test_clips_are_shown_in_pairs_of_views_that_the_method_knows(name, tmp_path, monkeypatch):
    config = config_lib.load(f"{name}:tiny")
    config = config_lib.stage_config(config, config.stages[-1])
    source = loader.open_split(dataset.resolve_path(config.data), config.data.eval_split)
    known = {
        clip.name: sampling.pairs(clip, sampling.policy(config.data.sampling))
        for clip in source.clips
    }
    asked = []

    def from_scored(method, config, *, clip, views):
        asked.append((clip, views))
        return types.SimpleNamespace(name=clip)

    def write(output, made):
        return output, output.with_suffix(".compare.mp4")

    video = np.zeros((2, 4, 4, 3), np.uint8)
    made = types.SimpleNamespace(videos={"target": video, "made": video})
    monkeypatch.setattr(novel_view, "from_scored", from_scored)
    monkeypatch.setattr(novel_view, "synthesize", lambda *args: made)
    monkeypatch.setattr(novel_view, "write", write)
    folder = epath.Path(tmp_path)
    demo.show_clips(None, None, config, folder)
    assert asked and all(views in known[clip] for clip, views in asked)
    listed = io.read_json(folder / "index.json")
    assert [entry["title"] for entry in listed] == [clip for clip, _ in asked]
    assert all((tmp_path / entry["strip"]).stat().st_size for entry in listed)
