"""Every synthesized video says what it is: in the file, and in sight where that is asked for."""

import av
import numpy as np
import pytest
from PIL import Image

import psrjax
from psrjax.inference import novel_view, output_files
from psrjax.inference.marks import Mark
from psrjax.inference.synthesized_video import Video
from psrjax.inference.video_writers import VideoWriters

MARK = Mark.of_run("hpt", "/home/somebody/runs/Märchen", "face")
TIMES = np.arange(4) / 25
FRAMES = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), np.uint8)
SUFFIXES = (*output_files.VIDEOS, *output_files.ANIMATIONS, output_files.FOLDER)


def said(path):
    """What a file says of itself, read by PyAV or by Pillow."""
    if path.is_dir():
        texts = {said(each) for each in path.iterdir()}
        assert len(texts) == 1
        return texts.pop()
    if path.suffix in output_files.VIDEOS:
        with av.open(str(path)) as container:
            return {k.lower(): v for k, v in container.metadata.items()}.get("comment", "")
    with Image.open(path) as picture:
        if path.suffix == ".webp":
            return picture.getexif().get(0x010E, "")
        comment = picture.info.get({".gif": "comment", ".png": "Comment"}[path.suffix], "")
        return comment.decode() if isinstance(comment, bytes) else comment


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_says_that_it_is_synthesized_by_what_and_of_which_run(suffix, tmp_path):
    path = tmp_path / f"video{suffix}"
    output_files.write(path, FRAMES, times=TIMES, mark=MARK)
    told = f"synthesized by psrjax {psrjax.__version__}; method hpt; run Märchen; stage face"
    # EXIF's texts are ASCII
    assert said(path) == (told.replace("ä", "?") if suffix == ".webp" else told)
    assert "somebody" not in said(path)  # nor where the run lies


def test_every_file_of_a_result_says_so(tmp_path):
    clip = novel_view.SynthesizedClip(
        videos={"source": FRAMES, "result": FRAMES},
        steps=("result",),
        times=TIMES,
    )
    made = novel_view.write(tmp_path / "view.mp4", clip, mark=MARK)
    with VideoWriters(tmp_path / "moved.mp4", FRAMES[:1], TIMES, mark=MARK) as writers:
        writers.add(FRAMES, FRAMES, mask=FRAMES[..., :1])
    made += writers.finish()
    assert len(made) == 5 and all(said(path) == MARK.text for path in made)


def test_a_video_of_ones_own_is_not_said_to_be_synthesized(tmp_path):
    own, made = Video(FRAMES), Video(FRAMES, mark=MARK)
    assert said(own.save(tmp_path / "own.mp4")) == ""
    assert said(made.save(tmp_path / "made.mp4")) == MARK.text


@pytest.mark.parametrize("size", [(16, 16), (64, 48), (128, 128), (512, 288), (8, 400)])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_the_visible_mark_can_be_seen_at_the_bottom_right_of_every_frame(size, grey):
    frame = np.full((*size, 3), grey, np.uint8)
    drawn = Mark(visible=True).on(frame)
    changed = (drawn != frame).any(-1)
    rows, columns = np.nonzero(changed)
    assert drawn.shape == frame.shape and (frame == grey).all()
    assert np.abs(drawn.astype(int) - frame).max() > 100
    assert np.ptp(drawn[changed].astype(int)) > 100  # letters and what is behind them
    if min(size) >= 64:
        assert rows.min() > size[0] * 0.7 and changed.mean() < 0.2
    if size[1] >= 128:
        assert columns.min() > size[1] * 0.4
    assert Mark().on(frame) is frame


def test_the_visible_mark_is_in_the_file(tmp_path):
    Video(FRAMES, mark=MARK).save(f"{tmp_path}/plain/")
    Video(FRAMES, mark=MARK).save(f"{tmp_path}/marked/", watermark=True)
    for number, frame in enumerate(FRAMES):
        plain, marked = (
            np.asarray(Image.open(tmp_path / name / f"{number:06d}.png"))
            for name in ("plain", "marked")
        )
        np.testing.assert_array_equal(plain, frame)
        np.testing.assert_array_equal(marked, Mark(visible=True).on(frame))
