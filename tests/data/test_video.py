"""Videos keep their times, sound and upright picture; what is no video is named."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from psrjax.data import video
from psrjax.errors import UserError
from psrjax.prepare.multiview import camera_videos

UNEVEN = np.cumsum([0.0, 0.05, 0.033, 0.05, 0.033, 0.1, 0.05, 0.033, 0.05, 0.033])


@pytest.fixture(scope="module")
def frames():
    y, x = np.mgrid[:48, :64]
    shades = [np.stack([x * 3 + 4 * t, y * 4, x * 0 + 20 * t], -1) for t in range(10)]
    return (np.array(shades) % 256).astype(np.uint8)


def sound(path, seconds, codec="aac"):
    """Writes a file with a tone and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=16000)
        stream.layout = "mono"
        for start in range(0, int(seconds * 16000), 1024):
            tone = np.sin(np.arange(start, start + 1024) / 10).astype(np.float32)[None] / 4
            samples = (tone * 32767).astype(np.int16) if codec != "aac" else tone
            layout = "s16" if codec != "aac" else "fltp"
            frame = av.AudioFrame.from_ndarray(samples, format=layout, layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def duration(path, kind):
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        ends = [
            float((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in container.demux(stream)
            if packet.pts is not None
        ]
    return max(ends)


def test_lossless_is_bit_for_bit_also_at_odd_sizes(tmp_path, frames):
    odd = frames[:, :47, :61]
    video.write(tmp_path / "a.mkv", odd, fps=30000 / 1001, lossless=True)
    found = video.read(tmp_path / "a.mkv")
    np.testing.assert_array_equal(found.frames, odd)
    np.testing.assert_allclose(found.times, np.arange(10) * 1001 / 30000, atol=1e-3)


def test_h264_is_close_small_and_playable_everywhere(tmp_path, frames):
    video.write(tmp_path / "a.mp4", frames, fps=25, comment="made by a test")
    found = video.read(tmp_path / "a.mp4")
    assert found.frames.shape == frames.shape and found.fps == pytest.approx(25)
    assert np.abs(found.frames.astype(int) - frames).mean() < 6
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert container.metadata["comment"] == "made by a test"
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads


def test_an_odd_size_is_padded_by_its_own_edge(tmp_path, frames):
    video.write(tmp_path / "a.mp4", frames[:, :47, :61])
    found = video.read(tmp_path / "a.mp4").frames
    assert found.shape == (10, 48, 62, 3)
    np.testing.assert_allclose(
        found[:, -1].astype(int), found[:, -2].astype(int), atol=40
    )  # no black line


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_uneven_times_come_back(tmp_path, frames, name):
    video.write(tmp_path / name, frames, times=UNEVEN + 7.0, lossless=name == "a.mkv")
    np.testing.assert_allclose(video.read(tmp_path / name).times, UNEVEN, atol=1.1e-3)


def numbered(path, codec, *, times, clock=30, bframes=2):
    """Writes 24 frames in which a bar shows the number, with B-frames, at times / clock."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, clock)
        stream.codec_context.max_b_frames = bframes
        stream.options = {"b_adapt": "0"} if codec == "libx264" else {}
        for number, time in enumerate(times):
            image = np.full((64, 96, 3), 40, np.uint8)
            image[:, 4 * number : 4 * number + 4] = 220
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = int(time), Fraction(1, clock)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def shown_numbers(frames):
    return frames[..., 1].mean(1).reshape(len(frames), 24, 4).mean(2).argmax(1)


EVEN = np.arange(24)
VARIABLE = np.cumsum([0, 33, 66, 20, 33] + [33, 66, 20, 33] * 5)[:24]  # milliseconds


@pytest.mark.parametrize(
    ("name", "codec", "times", "clock"),
    [
        ("ntu.avi", "libx264", EVEN, 30),  # its stamps are 1, 3, 4, 2, 6, 7, 5, …
        ("asp.avi", "mpeg4", EVEN, 30),
        ("asp.mp4", "mpeg4", EVEN, 30),
        ("ts.ts", "libx264", EVEN, 30),
        ("variable.mp4", "libx264", VARIABLE, 1000),
        ("variable.mkv", "libx264", VARIABLE, 1000),
        ("early.mkv", "libx264", EVEN * 40 - 100, 1000),  # begins before 0
    ],
)
def test_frames_and_times_are_in_order_whatever_the_container_says(
    tmp_path, name, codec, times, clock
):
    numbered(tmp_path / name, codec, times=times, clock=clock)
    found = video.read(tmp_path / name)
    np.testing.assert_array_equal(shown_numbers(found.frames), EVEN)
    np.testing.assert_allclose(found.times, (times - times[0]) / clock, atol=2e-3)
    with av.open(str(tmp_path / name)) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert (name == "ntu.avi") == (sorted(stamps) != stamps)  # what this test is about


def test_late_b_frames_are_given_the_streams_rate_from_before_their_first(tmp_path):
    """B-frames may begin far behind the first frames: a stamp already given stays right."""

    class Stamped:
        def __init__(self, number, stamp):
            self.number, self.pts, self.time = number, stamp, stamp / 30

    stamps = [*range(1, 41), 41, 43, 44, 42, 46, 47, 45]
    frames = [Stamped(*pair) for pair in enumerate(stamps)]
    found = [(frame.number, time) for frame, time in video._timed(frames, 1 / 30)]
    assert [number for number, _ in found] == list(range(47))
    np.testing.assert_allclose([time for _, time in found], np.arange(1, 48) / 30)


def test_an_edit_list_cuts_as_players_do(tmp_path):
    path = tmp_path / "a.mp4"
    numbered(path, "libx264", times=EVEN)
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12  # one entry: its length in 1/1000 s, its first time
    first = struct.unpack(">I", data[entry + 4 : entry + 8])[0]
    with av.open(str(path)) as container:
        frame = int(1 / 30 / container.streams.video[0].time_base)
    data[entry : entry + 8] = struct.pack(">II", 400, first + 5 * frame)
    path.write_bytes(data)
    found = video.read(path)
    np.testing.assert_array_equal(shown_numbers(found.frames), np.arange(5, 17))
    np.testing.assert_allclose(found.times, np.arange(12) / 30, atol=1e-6)
    assert camera_videos.probe(path) == camera_videos.VideoInfo((64, 96), 30.0, 12)


def test_a_phones_rotation_is_applied(tmp_path, frames):
    path = tmp_path / "a.mp4"
    video.write(path, frames)
    upright = video.read(path).frames
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 2 * 4  # to the matrix, version 0
    one = 1 << 16
    quarter_turn_clockwise = (0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30)
    data[header : header + 36] = struct.pack(">9i", *quarter_turn_clockwise)
    path.write_bytes(data)
    np.testing.assert_array_equal(video.read(path).frames, np.rot90(upright, -1, axes=(1, 2)))


def test_sound_of_another_file_is_copied_as_far_as_the_video_lasts(tmp_path, frames):
    sound(tmp_path / "tone.mp4", 3.0)
    video.write(tmp_path / "a.mp4", frames, fps=10, audio=tmp_path / "tone.mp4")
    assert duration(tmp_path / "a.mp4", "video") == pytest.approx(1.0, abs=0.01)
    assert duration(tmp_path / "a.mp4", "audio") == pytest.approx(1.0, abs=0.15)
    assert len(video.read(tmp_path / "a.mp4").frames) == 10
    video.write(tmp_path / "mute.mp4", frames, fps=10)
    video.write(tmp_path / "b.mp4", frames, fps=10, audio=tmp_path / "mute.mp4")
    assert len(video.read(tmp_path / "b.mp4").frames) == 10


def test_sound_that_an_mp4_cannot_hold_is_said(tmp_path, frames):
    sound(tmp_path / "tone.wav", 1.0, codec="pcm_s16le")
    with pytest.raises(UserError, match="tone.wav: its sound .pcm_s16le. cannot be copied"):
        video.write(tmp_path / "a.mp4", frames, audio=tmp_path / "tone.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["tone.wav"]


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_bytes(b"hello world\n" * 500)
    sound(tmp_path / "tone.mp4", 0.5)
    for name, message in (
        ("nosuch.mp4", "no such video"),
        ("empty.mp4", "empty"),
        ("text.mp4", "not a video"),
        ("tone.mp4", "holds no video, only audio"),
    ):
        with pytest.raises(UserError, match=f"{name}: .*{message}"):
            video.read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.8])
def test_a_cut_off_video_is_named_never_read_as_a_shorter_one(tmp_path, name, kept):
    noise = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3)).astype(np.uint8)
    path = tmp_path / name
    video.write(path, noise, lossless=name == "a.mkv")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UserError, match=name):
        video.read(path)


def test_frames_are_decoded_one_by_one(tmp_path, frames):
    video.write(tmp_path / "a.mp4", frames)
    iterator = video.decode(tmp_path / "a.mp4")
    first, second = next(iterator), next(iterator)
    iterator.close()
    assert (first.time, second.time) == (0.0, pytest.approx(0.04))


def test_a_video_that_fails_half_way_leaves_the_old_one(tmp_path, frames):
    path = tmp_path / "a.mp4"
    video.write(path, frames)
    before = path.read_bytes()

    def broken():
        yield frames[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video.write(path, broken())
    with pytest.raises(UserError, match="frame 1 is uint8"):
        video.write(path, [frames[0], frames[1][:-2]])
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lossless": True}, "ends in .mkv"),
        ({"times": [0.0, 0.1, 0.1]}, "must increase"),
        ({"times": [0.0, 0.1, 0.25]}, "more frames than the 3 times"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, frames, options, message):
    with pytest.raises(UserError, match=message):
        video.write(tmp_path / "a.mp4", frames, **options)
    with pytest.raises(UserError, match="no frame"):
        video.write(tmp_path / "a.mp4", [])
    with pytest.raises(UserError, match="cannot be written as a video"):
        video.write(tmp_path / "a.nosuch", frames)
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_shows_each_video_enlarged_under_its_label(frames):
    small = frames[:, ::2, ::2]
    found = video.beside({"source": small, "x̂0": small[:4], "layer 1": small})
    bar = found.shape[1] - 24 * 6
    assert found.shape == (10, bar + 144, 3 * 192, 3)
    np.testing.assert_array_equal(found[:, bar::6, :192:6], small)
    np.testing.assert_array_equal(found[9, bar::6, 192:384:6], small[3])
    labels = found[0, :bar].reshape(bar, 3, 192, 3).max((0, 2, 3))
    assert (labels > 128).all()
    with pytest.raises(UserError, match="needs videos"):
        video.beside({})
