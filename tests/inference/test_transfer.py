"""Transfer: every driving frame once, at its time, from any footage; one window in memory."""

import shutil
import tracemalloc

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from psrjax.data import codec, store, video
from psrjax.errors import UserError
from psrjax.inference import (
    footage,
    frame_selection,
    intermediate_results,
    output_files,
    transfer,
)
from psrjax.methods import base
from psrjax.prepare.common import detector

SIZE = (16, 24)


class Method(base.Method):
    """Adds the driving frame, a count of the frames made so far, and half of what came before."""

    gain: float = 1.0
    relative: bool = False
    relative_scale: float = 1.0
    history: int = 0
    background: bool = False
    masks: bool = False

    @property
    def reads(self):
        """Flow is for training only."""
        return ("source", "target", "target_flow")

    @property
    def synthesis_reads(self):
        """What the footage must give."""
        return ("source", "target", *(("background",) if self.background else ()))

    def start(self, batch):
        """Frames made; and the first driving frame's mean."""
        return {"count": jnp.zeros(()), "first": batch["target"][:, self.history].mean()}

    def synthesize(self, batch, carry, intermediates=False):
        """(b t h w 3)"""
        target = batch["target"]
        now = target[:, self.history :]
        before = target[:, : now.shape[1]] if self.history else now
        count = carry["count"] + jnp.arange(now.shape[1])
        behind = batch["background"][:, None] if self.background else 0.0
        made = (now + before) / 2 * self.gain + count[:, None, None, None] / 127.5 + behind
        made = {"video": made}
        if self.masks:
            made["mask"] = jnp.ones_like(now[..., :1]).at[..., : now.shape[-2] // 2, :].set(0.0)
        if intermediates:
            b, t, h, w, _ = now.shape
            shares = jnp.ones((b, t, h // 4, w // 4, 5)) / 5
            made["intermediates"] = {
                "first": jnp.full((b, t, h, w, 1), carry["first"]),
                "shares": shares,
                "attention": jnp.ones((b, t, 2, h, w, 1)),
                "flow": jnp.ones((b, t, h, w, 2)),
                "points": jnp.zeros((b, t, 3, 2)),
                "source_points": jnp.zeros((b, 3, 2)),
                "atlas": jnp.zeros((b, h, w, 3)),
                "number": count[None],
            }
        return made, {**carry, "count": carry["count"] + now.shape[1]}

    def warnings(self, numbers):
        """Of long clips."""
        return ("that is long",) if numbers.get("number", 0.0) > 4.0 else ()

    def poses(self, batch):
        """A triangle whose shape is the frame's brightness."""
        bright = batch["target"].mean((2, 3, 4))
        corners = [(0 * bright, 0 * bright), (1 + 0 * bright, 0 * bright), (bright, 1 + 0 * bright)]
        return jnp.stack([jnp.stack(corner, -1) for corner in corners], -2)


class Clip(footage.Footage):
    """Frames whose brightness is their number; remembers how many are asked for at a time."""

    def __init__(self, count=21, *, brightness=lambda n: 100 + n, joints=None):
        self.name, self.times = "clip", np.arange(count) / 10
        self.asked, self._brightness, self._joints = [], brightness, joints

    def require(self, keys):
        """Joints only where there are some."""
        if self._joints is None and "source_joints" in keys:
            raise UserError("no joints")

    def read(self, keys, frames):
        """Frames are gray with a white corner."""
        self.asked.append(len(frames))
        images = np.stack([np.full((*SIZE, 3), self._brightness(f), np.uint8) for f in frames])
        images[:, 0, 0] = 255
        found = {"source_joints": None if self._joints is None else self._joints[list(frames)]}
        return {key: found.get(key, images) for key in keys}

    def background(self, frames):
        """Black."""
        return np.zeros((len(frames), *SIZE, 3), np.uint8)

    def show_person(self):
        """Everywhere."""
        return [True]


def config(**sampling):
    sampling = {"source": "first", "k": 1, "t": 2, "history": 0, **sampling}
    return ConfigDict(
        {"data": {"sampling": sampling, "crop": SIZE, "path": "", "eval_split": "test"}}
    )


def open_footage(place, **options):
    return footage.open_footage(str(place), config(), **{"size": SIZE, **options})


def drive(tmp_path, clip, method=None, *, settings=None, source=None, **options):
    method, settings = method or Method(), settings or config()
    out = tmp_path / "out.mkv"
    background = options.pop("background", None)
    inputs = transfer.TransferInputs(source or Clip(5), clip, background)
    paths = transfer.write(
        method, {}, settings, inputs, out, options=transfer.TransferOptions(**options)
    )
    assert paths[0] == out
    return video.read(out), paths


@pytest.fixture(autouse=True)
def lossless(monkeypatch):
    """What is written is what was made."""
    write = video.write
    monkeypatch.setattr(
        output_files.video,
        "write",
        lambda path, frames, **o: write(path, frames, **{**o, "lossless": True}),
    )


@pytest.mark.parametrize("window", [1, 4, 8, 21, 30])
def test_every_frame_comes_once_in_order_whatever_the_window(tmp_path, window):
    made, _ = drive(tmp_path, Clip(21), window=window)
    # The frame's own brightness, and the count that the method carries from window to window.
    np.testing.assert_array_equal(made.frames[:, 8, 8, 0], 100 + 2 * np.arange(21))


def test_frames_before_a_window_come_with_it(tmp_path):
    method = Method(history=2)
    whole, _ = drive(tmp_path, Clip(11), method, settings=config(history=2), window=11)
    parts, _ = drive(tmp_path, Clip(11), method, settings=config(history=2), window=3)
    np.testing.assert_array_equal(parts.frames, whole.frames)


def test_times_and_a_part_of_the_driving_clip_are_kept(tmp_path):
    clip = Clip(9)
    clip.times = np.cumsum([0.0, 0.04, 0.1, 0.04, 0.04, 0.3, 0.04, 0.1, 0.02])
    made, paths = drive(tmp_path, clip, frames=(2, 8))
    np.testing.assert_allclose(made.times, clip.times[2:8] - clip.times[2], atol=1e-3)
    assert made.frames[0, 8, 8, 0] == 102 and len(made.frames) == 6
    np.testing.assert_allclose(video.read(paths[1]).times, made.times, atol=1e-3)
    with pytest.raises(UserError, match="clip has frames 0 to 8; 3:12 was asked for"):
        drive(tmp_path, clip, frames=(3, 12))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(tmp_path):
    def peak(count):
        clip = Clip(count, brightness=lambda n: n % 100)
        inputs = transfer.TransferInputs(Clip(1), clip)
        tracemalloc.start()
        transfer.write(Method(gain=0.01), {}, config(), inputs, tmp_path / "out.mkv")
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert max(clip.asked) == 8
        return used

    peak(8)  # compiles
    frames = 1536 * SIZE[0] * SIZE[1] * 3  # bytes: more than peaks differ by between runs
    assert min(peak(1536), peak(1536)) < min(peak(192), peak(192)) + frames / 2


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded, a name for each time and each frame."""
    files, frames = [], []
    decode = video.decode

    def counting(path):
        files.append(path.name)
        for frame in decode(path):
            frames.append(path.name)
            yield frame

    monkeypatch.setattr(video, "decode", counting)
    return files, frames


def test_a_driving_video_is_decoded_once_for_checks_poses_and_windows(
    tmp_path, decoded, monkeypatch
):
    monkeypatch.setattr(detector, "installed", lambda: False)  # it would find nobody
    numbers = np.arange(30, dtype=np.uint8)[:, None, None, None]
    frames = np.broadcast_to(8 * numbers, (30, *SIZE, 3)).copy()
    frames[:, 0, 0] = 255  # something is seen in every frame
    video.write(tmp_path / "driving.mkv", frames)
    clip = open_footage(tmp_path / "driving.mkv")
    made, _ = drive(
        tmp_path, clip, Method(relative=True, masks=True), find_best_frame=True, background=clip
    )
    files, frames = decoded
    assert len(made.frames) == 30
    assert files.count("driving.mkv") == 1 and frames.count("driving.mkv") == 30


@pytest.mark.parametrize("kept", [0, 12])
def test_a_file_is_read_as_it_goes_on_and_keeps_no_more_frames_than_fit(
    tmp_path, monkeypatch, kept
):
    monkeypatch.setattr(footage, "_CACHE_BYTES", kept * SIZE[0] * SIZE[1] * 3)
    frames = np.stack([np.full((32, 48, 3), n, np.uint8) for n in range(40)])
    video.write(tmp_path / "a.mkv", frames)
    clip = open_footage(tmp_path / "a.mkv")
    for start in (0, 8, 16, 4, 30):
        window = list(range(max(0, start - 2), start + 8))
        found = clip.read(("target",), window)["target"]
        np.testing.assert_array_equal(found[:, 0, 0, 0], window)
        assert found.shape[1:3] == SIZE and len(clip._window) <= len(window)
    spread = clip.read(("source",), [39, 0, 20])["source"]
    np.testing.assert_array_equal(spread[:, 3, 3, 1], [39, 0, 20])
    assert clip.audio and clip.frames == 40 and len(clip._cache) == kept
    np.testing.assert_array_equal(clip.background([39, 40, 41])[:, 0, 0, 0], [39, 0, 1])


def test_a_picture_is_footage_of_one_frame(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 48, 3), (1, 2, 3), np.uint8))
    picture = open_footage(tmp_path / "a.png")
    assert picture.frames == 1 and not picture.audio
    np.testing.assert_array_equal(picture.read(("source",), [0])["source"][0, 5, 5], [3, 2, 1])


def test_footage_of_another_shape_is_refused_or_cut(tmp_path):
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 5:35] = 200
    cv2.imwrite(str(tmp_path / "square.png"), image)
    place = str(tmp_path / "square.png")
    with pytest.raises(UserError, match="square.png: 40x40 is of another shape.*24x16.*fit=crop"):
        open_footage(place)
    cut = open_footage(place, fit="crop")
    assert cut.read(("source",), [0])["source"].shape == (1, *SIZE, 3)


@pytest.fixture
def stored(tmp_path):
    """A dataset: clip "some" with a person in its later half, clip "none" without."""

    def view(clip, shown):
        rgb = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 16, 24, 3))
        mask = np.zeros((10, 16, 24), np.uint8)
        mask[5:, 4:8, 4:8] = shown
        joints = np.zeros((10, 26, 3), np.float32)
        joints[5:, :, 2] = shown
        streams = {"frames": rgb.copy(), "mask": mask, "joints": joints, "background": rgb[3]}
        return codec.ClipView(clip=clip, view="cam1", streams=streams, meta={"fps": 25.0})

    views = [view("some", 255), view("none", 0)]
    store.write(tmp_path / "set", {"test": views, "train": views}, meta={})
    return tmp_path / "set"


def test_stored_clips_are_footage(stored):
    clip = open_footage(f"{stored}:some", size=(8, 24))
    found = clip.read(("target", "target_mask", "target_joints"), [5, 6])
    assert found["target"].shape == (2, 8, 24, 3) and found["target_joints"].shape == (2, 26, 3)
    np.testing.assert_allclose(clip.times, np.arange(10) / 25)
    np.testing.assert_array_equal(clip.background([7, 8])[:, 0, 0, 0], [3, 3])
    footage.require_person(clip)
    alone = clip.read(("source_joints",), [5])["source_joints"]
    assert alone.shape == (1, 26, 3)


def test_frames_have_the_size_of_those_that_were_learned_also_where_no_such_split_is_scored(stored):
    data = {"path": str(stored), "crop": (0, 0), "train_split": "train", "eval_split": "other"}
    assert transfer.frame_size({"data": data}) == SIZE


def test_places_that_are_not_there_are_told(stored, tmp_path):
    with pytest.raises(UserError, match="no such video, picture or dataset"):
        open_footage(tmp_path / "nothing.mp4")
    with pytest.raises(UserError, match="no clip 'x'; there are some, none"):
        open_footage(f"{stored}:x")
    with pytest.raises(UserError, match="no view 'y', there are cam1"):
        open_footage(f"{stored}:some:y")
    with pytest.raises(UserError, match="frames are 24x16, the run's 64x64: prepare"):
        open_footage(f"{stored}:some", size=(64, 64))


def test_driving_footage_without_a_person_is_refused(stored, tmp_path):
    nobody = open_footage(f"{stored}:none")
    with pytest.raises(UserError, match="none: no person in any of 8 frames"):
        drive(tmp_path, nobody)
    assert not list(tmp_path.glob("*.mkv"))
    drive(tmp_path, nobody, check_person=False)


def test_a_blank_video_shows_no_person(tmp_path):
    video.write(tmp_path / "blank.mkv", np.full((9, 32, 48, 3), 90, np.uint8))
    blank = open_footage(tmp_path / "blank.mkv")
    with pytest.raises(UserError, match="blank.mkv: no person"):
        footage.require_person(blank)


def test_a_person_is_looked_for_where_mediapipe_is_there(tmp_path, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 255, (20, 32, 48, 3)).astype(np.uint8)
    video.write(tmp_path / "a.mkv", frames)
    clip = open_footage(tmp_path / "a.mkv")
    shows = set()

    class MediaPipe:
        """Knows the frames that show somebody."""

        def detect(self, images):
            """One by one."""
            for image in images:
                number = int(np.flatnonzero((frames == image).all((1, 2, 3)))[0])
                yield detector.Detection(np.full((26, 3), float(number in shows)), image[..., 0])

    monkeypatch.setattr(detector, "installed", lambda: True)
    monkeypatch.setattr(footage.pipeline, "shared_detector", MediaPipe)
    with pytest.raises(UserError, match="a.mkv: no person in any of 8 frames"):
        footage.require_person(clip)
    shows.add(19)
    footage.require_person(clip)
    monkeypatch.setattr(detector, "installed", lambda: False)
    shows.clear()
    footage.require_person(clip)


def test_a_video_is_prepared_for_a_method_that_reads_more(tmp_path, stored, monkeypatch):
    video.write(tmp_path / "a.mkv", np.full((9, 32, 48, 3), 90, np.uint8))
    made = []

    def prepare(clips, directory, options, **_):
        made.append((clips[0].video, options.size))
        shutil.copytree(stored, directory, dirs_exist_ok=True)

    monkeypatch.setenv("PSRJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(footage.dataset_builder, "prepare", prepare)
    place = str(tmp_path / "a.mkv")
    reads = ("target_joints", "target_mask")
    clip = open_footage(place, reads=reads)
    assert made == [(place, SIZE)] and clip.audio == place
    assert clip.read(reads, [6])["target_joints"].shape == (1, 26, 3)
    plain = open_footage(place, reads=("target",))
    assert plain.frames == 9 and len(made) == 1


def test_files_cannot_give_what_must_be_prepared(tmp_path):
    video.write(tmp_path / "a.mkv", np.full((9, 32, 48, 3), 90, np.uint8))
    filmed = open_footage(tmp_path / "a.mkv")
    with pytest.raises(UserError, match="a.mkv: this method also reads 'target_joints'.*prepare"):
        filmed.require(("target", "target_joints"))


def test_keys_of_two_views_are_refused(stored):
    clip = open_footage(f"{stored}:some")
    with pytest.raises(UserError, match="'target_prior', which belongs to two views"):
        clip.require(("target", "target_prior"))


def test_source_frames_are_chosen_by_word_seed_or_number():
    clip = Clip(40)
    choose = frame_selection.source_frames
    assert choose(clip, "first", k=3) == (0, 1, 2)
    assert choose(clip, "even", k=3) == (0, 20, 39)
    assert choose(clip, "7, 9", k=1) == (7, 9)
    assert choose(clip, "random", k=4, seed=1) == choose(clip, "random", k=4, seed=1)
    assert choose(clip, "random", k=4, seed=1) != choose(clip, "random", k=4, seed=2)
    assert choose(Clip(2), "random", k=4) == (0, 1)
    with pytest.raises(UserError, match="has frames 0 to 39"):
        choose(clip, "40", k=1)
    with pytest.raises(UserError, match="--source_frames=x: it is first"):
        choose(clip, "x", k=1)


def test_spread_source_frames_take_in_every_pose():
    rng = np.random.default_rng(0)
    poses = rng.uniform(-1, 1, (4, 26, 2))
    which = np.repeat([0, 1, 2, 3], [30, 5, 3, 2])  # one pose most of the time
    joints = np.concatenate([poses[which], np.ones((40, 26, 1))], -1).astype(np.float32)
    joints[..., :2] += 0.01 * rng.normal(size=(40, 26, 2))
    joints[3, :20] = 0.0  # missing joints are at no place
    chosen = frame_selection.source_frames(Clip(40, joints=joints), "spread", k=4)
    assert sorted(which[list(chosen)]) == [0, 1, 2, 3]


def test_a_better_first_frame_is_found_by_pose(tmp_path):
    clip = Clip(20, brightness=lambda n: 120 + (5 - abs(n - 13)) * 5)
    source = Clip(1, brightness=lambda n: 145)
    method = Method(relative=True)
    found = []
    monkey = Method.start
    Method.start = lambda self, batch: found.append(batch["target"].shape) or monkey(self, batch)
    try:
        made, paths = drive(
            tmp_path, clip, method, source=source, find_best_frame=True, intermediates=True
        )
    finally:
        Method.start = monkey
    panel = video.read(next(p for p in paths if ".intermediates.mkv" in str(p))).frames[0]
    share = ((145 / 127.5 - 1) * (SIZE[0] * SIZE[1] - 1) + 1) / (SIZE[0] * SIZE[1])
    assert abs(int(panel[60, 192 * 3 + 60, 0]) - 255 * share) <= 1  # "first": of frame 13
    with pytest.raises(UserError, match="give --method.relative"):
        drive(tmp_path, clip, source=source, find_best_frame=True)


def test_explanations_are_drawn_and_numbers_averaged_over_every_frame(tmp_path, caplog):
    with caplog.at_level("INFO", "absl"):
        _, paths = drive(tmp_path, Clip(10), intermediates=True)
    assert caplog.messages[-2:] == ["means: number 4.50", "that is long"]  # of 0 to 9, no padding
    assert {path.name for path in paths} == {
        *("out.mkv", "out.compare.mkv", "out.intermediates.mkv", "out.intermediates.png"),
        "out.intermediates.atlas.png",
    }
    shown = video.read(tmp_path / "out.intermediates.mkv")
    assert len(shown.frames) == 10
    panels = 3 + 2 + 1 + 1 + 1  # source, driving, result; two attention maps; map, shares, flow
    assert shown.frames.shape[2] == panels * 192
    strip = cv2.imread(str(tmp_path / "out.intermediates.png"))
    assert strip.shape[0] == 6 * shown.frames.shape[1]


def test_small_pictures_made_once_are_enlarged_pixel_by_pixel():
    atlas = np.linspace(-1, 1, 8 * 12 * 3).reshape(8, 12, 3).astype(np.float32)
    drawn = intermediate_results.still_pictures({"atlas": atlas, "video": np.zeros((2, 4, 4, 3))})
    assert list(drawn) == ["atlas"] and drawn["atlas"].shape == (8 * 32, 12 * 32, 3)
    np.testing.assert_array_equal(drawn["atlas"][::32, ::32], np.round((atlas + 1) * 127.5))


def test_of_many_source_frames_four_are_shown(tmp_path):
    _, paths = drive(tmp_path, Clip(2), source=Clip(30), settings=config(k=20))
    width = video.read(tmp_path / "out.compare.mkv").frames.shape[2]
    panel = 24 * -(-192 // 24)
    assert tmp_path / "out.compare.mkv" in paths and abs(width - 6 * panel) <= 12


def test_a_background_goes_to_the_method_or_behind_its_mask(tmp_path):
    behind = Clip(1)
    made, paths = drive(tmp_path, Clip(4), Method(masks=True), background=behind)
    assert made.frames[0, 8, 2, 0] == 0 and made.frames[0, 8, 20, 0] == 100
    assert (tmp_path / "out.mask.mkv") in paths
    with pytest.raises(UserError, match="neither reads one nor makes a mask"):
        drive(tmp_path, Clip(4), background=behind)
    black = drive(tmp_path, Clip(4), Method(background=True), background=behind)[0]
    assert black.frames[0, 8, 8, 0] == 0  # -1 is added to the frame


class Completing(Method):
    """Shows the mean of the frames that its background is completed from."""

    masks: bool = True

    def start(self, batch):
        """And that mean."""
        return {**super().start(batch), "behind": batch["source"].mean(1)}

    def synthesize(self, batch, carry, intermediates=False):
        """(b t h w 3)"""
        made, carry = super().synthesize(batch, carry, intermediates)
        shown = jnp.broadcast_to(carry["behind"][:, None], made["video"].shape)
        return {**made, "video": shown}, carry

    def replace_background(self, carry, behind):
        """Takes that mean."""
        return {**carry, "behind": behind["behind"]}


@pytest.mark.parametrize(
    ("how", "frames", "left"), [("auto", 9, 21), ("completed", 1, 20), ("as_is", 9, 0)]
)
def test_a_background_is_completed_by_the_methods_own_branch_or_put_behind_as_it_is(
    tmp_path, how, frames, left
):
    """From as many frames as the source has, the only one again; as it is, Clip's is black."""
    behind = Clip(frames, brightness=lambda n: 20 + n)
    made, _ = drive(
        tmp_path,
        Clip(4),
        Completing(),
        settings=config(k=3),
        background=behind,
        background_as=how,
    )
    assert made.frames[0, 8, 2, 0] == left  # where nobody stands
    assert made.frames[0, 8, 20, 0] == (101 if how == "as_is" else left)  # the whole picture
    assert behind.asked == ([] if how == "as_is" else [3])


def test_backgrounds_are_read_for_a_branch_that_completes_them_only(tmp_path):
    def reads(method, place, how):
        return transfer.background_reads(method, place, how)

    assert reads(Completing(), "a.mp4", "auto") == reads(Completing(), "DIR", "auto") == ("source",)
    assert reads(Completing(), "a.PNG", "auto") == reads(Completing(), "a.mp4", "as_is") == ()
    assert reads(Completing(), "a.png", "completed") == ("source",)
    assert reads(Method(), "a.mp4", "auto") == ()
    with pytest.raises(UserError, match="does not complete the background of other footage"):
        options = {"background": Clip(1), "background_as": "completed"}
        drive(tmp_path, Clip(4), Method(masks=True), **options)


def test_an_option_that_the_method_does_not_have_is_told(tmp_path):
    with pytest.raises(UserError, match="'depth' is no option of the method"):
        drive(tmp_path, Clip(4), fields={"depth": 3})


def test_sound_is_that_of_a_file_from_its_start(tmp_path):
    with pytest.raises(UserError, match="--audio: the driving footage must be a video file"):
        drive(tmp_path, Clip(4), audio=True)


def test_nothing_is_left_where_a_transfer_breaks_off(tmp_path):
    clip = Clip(30)
    read = clip.read

    def breaks(keys, frames):
        if 20 in frames:
            raise UserError("the clip is damaged")
        return read(keys, frames)

    clip.read = breaks
    with pytest.raises(UserError, match="damaged"):
        drive(tmp_path, clip)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    inputs = transfer.TransferInputs(Clip(1), Clip(30))
    with pytest.raises(UserError, match="a part of the path is a file"):
        transfer.write(Method(), {}, config(), inputs, tmp_path / "file" / "out.mkv")
