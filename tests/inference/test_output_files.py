"""Videos, GIF, WebP and folders hold the frames at their times, and what cannot be written is told
before anything is computed."""

import numpy as np
import pytest
from PIL import Image

from psrjax.data import video
from psrjax.errors import UserError
from psrjax.inference import output_files

TIMES = np.array([0.0, 0.04, 0.12, 0.16, 0.3])
FRAMES = np.stack([np.full((16, 24, 3), 50 * number, np.uint8) for number in range(5)])


def decoded(path):
    """Frames and their durations in ms, by Pillow."""
    with Image.open(path) as picture:
        found = []
        for number in range(picture.n_frames):
            picture.seek(number)
            picture.load()
            found.append((np.asarray(picture.convert("RGB")), picture.info["duration"]))
    return np.stack([frame for frame, _ in found]), [duration for _, duration in found]


@pytest.mark.parametrize(("name", "tick"), [("a.gif", 10), ("a.webp", 1)])
def test_an_animation_has_every_frame_at_its_time(tmp_path, name, tick):
    output_files.write(tmp_path / name, FRAMES, times=TIMES)
    frames, durations = decoded(tmp_path / name)
    assert np.abs(frames.astype(int) - FRAMES).max() <= 3
    np.testing.assert_allclose(durations[:-1], np.diff(TIMES) * 1000, atol=tick)


def test_a_gif_leaves_out_what_no_browser_shows_and_keeps_its_length(tmp_path):
    frames = np.arange(60, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    output_files.write(tmp_path / "a.gif", frames, times=np.arange(60) / 60)
    _, durations = decoded(tmp_path / "a.gif")
    assert min(durations) >= 20 and abs(sum(durations) - 1000) <= 10


def test_a_folder_holds_a_picture_of_each_frame_without_loss(tmp_path):
    for frames in (FRAMES, FRAMES[:3]):  # the second time the folder is replaced
        output_files.write(f"{tmp_path}/pictures/", frames, times=TIMES[: len(frames)])
        found = sorted((tmp_path / "pictures").iterdir())
        assert [path.name for path in found] == [f"{i:06d}.png" for i in range(len(frames))]
        for path, frame in zip(found, frames, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(path)), frame)


def test_nothing_is_left_where_the_frames_break_off(tmp_path):
    def broken():
        yield FRAMES[0]
        raise KeyError

    for name in ("a.gif", "a.webp", "a.mp4", "a/"):
        with pytest.raises(KeyError):
            output_files.write(f"{tmp_path}/{name}", broken(), times=TIMES)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("")
    video.write(tmp_path / "silent.mp4", FRAMES)
    refused = {
        "out.webm": "a .webm cannot be written; end the name in .mp4",
        "file/out.mp4": "a part of the path is a file",
        "full/": "holds notes.txt",
        "file/": "is a file, not a folder",
    }
    for name, message in refused.items():
        with pytest.raises(UserError, match=message):
            output_files.check(f"{tmp_path}/{name}")
    with pytest.raises(UserError, match="a .gif has no sound"):
        output_files.check(tmp_path / "out.gif", audio=str(tmp_path / "silent.mp4"))
    with pytest.raises(UserError, match="without loss"):
        output_files.check(tmp_path / "out.mp4", lossless=True)
    output_files.check(tmp_path / "new/out.mp4", audio=str(tmp_path / "silent.mp4"))
