"""A video gives its frames as they come, shows and saves itself; arrays are footage too."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from psrjax import Video
from psrjax.data import video
from psrjax.errors import UserError
from psrjax.inference import synthesized_video
from psrjax.inference.footage import VideoFootage

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 16, 24, 3), np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test."""
    monkeypatch.setenv("PSRJAX_CACHE", str(tmp_path / "cache"))


def test_frames_come_one_by_one_and_are_made_once():
    made = []

    def frames():
        for frame in FRAMES:
            made.append(frame)
            yield frame

    shown = Video(frames(), times=np.arange(5) / 10)
    first, other = iter(shown), iter(shown)
    next(first), next(first), next(other)
    assert len(made) == 2 and len(shown) == 5 and shown.fps == pytest.approx(10)
    np.testing.assert_array_equal(shown.frames, FRAMES)
    np.testing.assert_array_equal(list(first), FRAMES[2:])
    assert len(made) == 5


def test_a_notebook_shows_a_video_that_plays(tmp_path):
    page = Video(FRAMES, fps=10)._repr_html_()
    content = re.search(r'src="data:video/mp4;base64,([^"]+)"', page)[1]
    (tmp_path / "shown.mp4").write_bytes(base64.b64decode(content))
    assert len(video.read(tmp_path / "shown.mp4").frames) == 5


def test_a_video_saves_itself_with_its_times(tmp_path):
    times = np.array([0.0, 0.1, 0.15, 0.4, 0.5])
    path = Video(FRAMES, times=times).save(tmp_path / "a.mkv", lossless=True)
    found = video.read(path)
    np.testing.assert_array_equal(found.frames, FRAMES)
    np.testing.assert_allclose(found.times, times, atol=2e-3)


def test_arrays_pictures_and_videos_are_footage_as_files_are(tmp_path):
    pictures = [Image.fromarray(frame) for frame in FRAMES]
    for given in (FRAMES, list(FRAMES), pictures, Video(FRAMES)):
        place = synthesized_video.as_place(given)
        opened = VideoFootage(Path(place), (16, 24), "exact")
        np.testing.assert_array_equal(opened.read(("target",), range(5))["target"], FRAMES)
        np.testing.assert_allclose(opened.times, np.arange(5) / 25, atol=1e-3)
    for given in (FRAMES[0], pictures[0]):
        place = synthesized_video.as_place(given)
        np.testing.assert_array_equal(np.asarray(Image.open(place)), FRAMES[0])
    assert synthesized_video.as_place(tmp_path / "a.mp4") == str(tmp_path / "a.mp4")
    assert len(list((tmp_path / "cache/given").iterdir())) == 2  # the same frames, the same file


def test_what_is_no_footage_is_told():
    for given in (3, np.zeros((4, 4)), FRAMES.astype(float), []):
        with pytest.raises(UserError, match="uint8"):
            synthesized_video.as_place(given)
