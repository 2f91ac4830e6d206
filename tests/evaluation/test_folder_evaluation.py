"""Videos made by any tool are scored frame by frame, and what does not fit is told by name."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from psrjax.data import video
from psrjax.errors import UserError
from psrjax.evaluation import folder_evaluation
from psrjax.metrics import detail, interpolation, temporal

SIZE = 24


def clip(seed, frames):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (frames, SIZE, SIZE, 3), np.uint8)


def write_video(path, frames):
    path.parent.mkdir(exist_ok=True)
    video.write(path, frames, lossless=True)


def write_pictures(folder, frames):
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:04d}.png")


@pytest.fixture
def folders(tmp_path):
    """Two clips, one longer than a chunk; lossless, so that what is scored is what was written."""
    clips = {"walk": clip(0, 19), "wave": clip(1, 3)}
    for name, frames in clips.items():
        write_video(tmp_path / "real" / f"{name}.mkv", frames)
        noisy = np.clip(frames.astype(int) + 20, 0, 255).astype(np.uint8)
        write_pictures(tmp_path / "made" / name, noisy)
        write_video(tmp_path / "copy" / f"{name}.mkv", frames)
    return tmp_path, clips


def evaluate(folder, *fakes, **options):
    return folder_evaluation.evaluate(folder / "real", [folder / f for f in fakes], **options)


def test_every_frame_is_scored_as_scikit_image_scores_it(folders):
    folder, clips = folders
    found = evaluate(folder, "made")
    expected = [
        (
            peak_signal_noise_ratio(truth, made, data_range=255),
            structural_similarity(truth, made, channel_axis=-1, data_range=255),
        )
        for frames in clips.values()
        for truth, made in zip(frames, np.clip(frames.astype(int) + 20, 0, 255).astype(np.uint8))
    ]
    (row,) = found.rows
    assert (row["name"], row["pair"], row["about"]["clips"]) == ("made", "all", 2)
    assert list(row["metrics"]) == ["ssim", "ssim_uniform7", "psnr"]  # no masks, no masked scores
    np.testing.assert_allclose(row["metrics"]["psnr"], np.mean(expected, 0)[0], rtol=1e-5)
    np.testing.assert_allclose(row["metrics"]["ssim_uniform7"], np.mean(expected, 0)[1], atol=2e-5)
    frames = [(s.clip, s.start + i) for s in found.scored for i in range(len(s.metrics["psnr"]))]
    assert frames == [("walk", i) for i in range(19)] + [("wave", i) for i in range(3)]
    assert found.gallery.worst[0].pictures["made"].shape == (SIZE, SIZE, 3)


def test_several_tools_stand_side_by_side_and_a_copy_is_perfect(folders):
    found = evaluate(folders[0], "made", "copy")
    assert [row["name"] for row in found.rows] == ["made", "copy"]
    assert found.rows[1]["metrics"]["psnr"] == 100.0
    assert found.rows[1]["metrics"]["ssim"] == pytest.approx(1.0, abs=1e-6)


def test_masks_give_the_masked_scores(folders):
    folder, clips = folders
    rows = slice(4, 20)
    for name, frames in clips.items():
        mask = np.zeros_like(frames)
        mask[:, rows, 6:18] = 255
        write_pictures(folder / "masks" / name, mask)
    found = evaluate(folder, "made", masks=folder / "masks")
    expected = []
    for frames in clips.values():
        truth = frames[:, rows, 6:18].astype(float)
        made = np.minimum(truth + 20, 255)
        expected += list(10 * np.log10(255**2 / np.mean((truth - made) ** 2, (1, 2, 3))))
    np.testing.assert_allclose(found.rows[0]["metrics"]["m_psnr_in"], np.mean(expected), rtol=1e-5)


def test_a_folder_of_pictures_alone_is_one_clip(tmp_path):
    for name in ("real", "fake"):
        write_pictures(tmp_path / name, clip(3, 2))
    found = folder_evaluation.evaluate(tmp_path / "real", [tmp_path / "fake"])
    assert found.scored[0].clip == "frames" and found.rows[0]["metrics"]["psnr"] == 100.0


def shorten(folder):
    write_video(folder / "copy/walk.mkv", clip(0, 18))


def enlarge(folder):
    write_video(folder / "copy/wave.mkv", clip(1, 3).repeat(2, 1).repeat(2, 2))


def remove(folder):
    (folder / "copy/wave.mkv").unlink()


def add(folder):
    write_video(folder / "copy/throw.mkv", clip(1, 3))


def double(folder):
    write_video(folder / "copy/walk.avi", clip(0, 19))


def damage(folder):
    (folder / "copy/walk.mkv").write_bytes(b"no video")


def empty(folder):
    for path in (folder / "copy").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("mischief", "why"),
    [
        (shorten, "walk.mkv has 18 frames, .*real/walk.mkv 19: cut one, or take --shorter"),
        (enlarge, "copy/wave.mkv is 48x48 pixels, .*real/wave.mkv 24x24: .*--resize"),
        (remove, "copy: holds no clip 'wave'"),
        (add, "real: holds no clip 'throw'"),
        (damage, "copy/walk.mkv: not a video"),
    ],
)
def test_a_bad_pair_is_left_out_of_all_rows_and_said(mischief, why, folders):
    mischief(folders[0])
    found = evaluate(folders[0], "made", "copy")
    bad = {"wave": {remove, enlarge}, "walk": {shorten, damage}}
    kept = {clip for clip, mischiefs in bad.items() if mischief not in mischiefs}
    assert {entry.clip for entry in found.scored if entry.name == "made"} == kept
    assert {entry.clip for entry in found.scored if entry.name == "copy"} == kept
    for row in found.rows:
        (note,) = row["about"]["notes"]
        assert re.search("^left out: .*" + why, note)
    assert found.rows[1]["metrics"]["psnr"] == 100.0


@pytest.mark.parametrize(
    ("mischief", "message"),
    [
        (double, "walk.mkv and walk.avi are of one name"),
        (empty, "copy: holds no video"),
        (lambda folder: (shorten(folder), enlarge(folder)), "nothing to score: .*18.*; .*48x48"),
    ],
)
def test_folders_without_a_good_pair_are_told(mischief, message, folders):
    mischief(folders[0])
    with pytest.raises(UserError, match=message):
        evaluate(folders[0], "copy")


def test_another_size_and_length_are_scored_where_that_is_asked_for(folders):
    shorten(folders[0]), enlarge(folders[0])
    found = evaluate(folders[0], "copy", resize=True, shorter=True)
    assert [len(entry.metrics["psnr"]) for entry in found.scored] == [16, 2, 3]
    assert found.scored[2].metrics["psnr"].min() == 100.0  # each pixel four times: back exactly


def test_what_other_tools_write_is_read(tmp_path):
    """GIF, strips of square frames (also as first-order-model names them), single files."""
    flat = np.repeat(np.uint8([[[[0, 90, 200]]], [[[255, 0, 0]]], [[[20, 30, 40]]]]), SIZE, 1)
    truth = flat.repeat(SIZE, 2)
    write_video(tmp_path / "real" / "walk.mkv", truth)
    (tmp_path / "strips").mkdir()
    Image.fromarray(np.concatenate(truth, 1)).save(tmp_path / "strips" / "walk.mp4.png")
    pictures = [Image.fromarray(frame) for frame in truth]
    pictures[0].save(tmp_path / "any.gif", save_all=True, append_images=pictures[1:], duration=40)
    real, strips = tmp_path / "real", tmp_path / "strips"
    for there in (real, real / "walk.mkv"):
        for made in (strips, strips / "walk.mp4.png", tmp_path / "any.gif"):
            found = folder_evaluation.evaluate(there, [made])
            (entry,) = found.scored
            assert entry.clip == "walk" and len(entry.metrics["psnr"]) == 3
            assert found.rows[0]["metrics"]["psnr"] > 45.0
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="notes.txt: neither a video"):
        folder_evaluation.evaluate(real, [tmp_path / "notes.txt"])
    with pytest.raises(UserError, match="absent: no such folder or file"):
        folder_evaluation.evaluate(real, [tmp_path / "absent"])


def test_two_folders_of_one_name_are_refused(folders):
    with pytest.raises(UserError, match="a second 'copy'"):
        evaluate(folders[0], "copy", "../" + folders[0].name + "/copy")


def test_metrics_of_motion_take_the_flow_of_the_real_videos(folders):
    folder, clips = folders
    found = evaluate(folder, "made", metrics=("e_temp", "warping_error"))
    expected = []
    for frames in clips.values():
        made = np.clip(frames.astype(int) + 20, 0, 255).astype(np.uint8)
        still = np.zeros((SIZE, SIZE, 2), np.float32)
        pairs = [*zip(frames[1:], frames[:-1])]
        back = np.stack([still, *(interpolation.dis_flow(*pair) for pair in pairs)])
        forth = np.stack([still, *(interpolation.dis_flow(*pair[::-1]) for pair in pairs)])
        video, back, forth = (jnp.asarray(x, jnp.float32)[None] for x in (made / 255, back, forth))
        expected.append(temporal.temporal_error(video, back, temporal.trust(back, forth))[0])
    np.testing.assert_allclose(found.rows[0]["metrics"]["e_temp"], np.mean(expected), rtol=1e-4)
    assert found.rows[0]["metrics"]["warping_error"] > 0


def joints_of(clips, shift):
    """(t 26 3) joints that walk, in pixels; a second person is less certain."""
    found = {}
    for name, frames in clips.items():
        places = np.zeros((len(frames), 2, 26, 3), np.float32)
        places[:, 1, :, 0] = np.arange(26) % 7 * 3 + shift
        places[:, 1, :, 1] = np.arange(26) // 7 * 4
        places[:, 1, :, 2] = 0.9
        places[:, 0, :, 2] = 0.2
        found[name] = places
    return found


def test_pose_metrics_are_of_joints_that_are_given(folders):
    folder, clips = folders
    for kind, shift in (("real", 0.0), ("made", 1.5)):
        (folder / f"{kind}_joints").mkdir()
        for name, places in joints_of(clips, shift).items():
            np.save(folder / f"{kind}_joints" / f"{name}.npy", places)
    places = [folder / "real_joints", folder / "made_joints"]
    found = evaluate(folder, "made", metrics=("kp_l2", "pck@0.05", "pck@0.2"), joints=places)
    metrics = found.rows[0]["metrics"]
    assert metrics["kp_l2"] == pytest.approx(1.5)
    assert (metrics["pck@0.05"], metrics["pck@0.2"]) == (0.0, 100.0)  # of 18 pixels
    with pytest.raises(UserError, match="--joints: give one for --real and one for each"):
        evaluate(folder, "made", metrics=("kp_l2",), joints=places[:1])


def test_metrics_of_whole_clips_are_of_all_their_frames(folders):
    folder, clips = folders
    found = evaluate(folder, "made", "copy", metrics=("sd_eq", "interp_psnr[dis]"))
    expected = {"sd_eq": [], "interp_psnr[dis]": []}
    for frames in clips.values():
        made = np.clip(frames.astype(int) + 20, 0, 255).astype(np.uint8)
        unit = [jnp.asarray(video, jnp.float32) / 255 for video in (made, frames)]
        expected["sd_eq"].append(detail.sd_eq(*unit).mean())
        expected["interp_psnr[dis]"].append(interpolation.interp_psnr(made, frames).mean())
    first, second = found.rows
    for metric, values in expected.items():
        np.testing.assert_allclose(first["metrics"][metric], np.mean(values), rtol=1e-4)
    assert second["metrics"]["sd_eq"] == pytest.approx(100.0)
    assert first["about"]["frames_scored"] == 22


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("r_ssim", "r_ssim needs the joints of a dataset: evaluate a run"),
        ("face_psnr", "face_psnr needs the joints of a dataset"),
        ("flicker", "give --masks"),
        ("ms_ssim", "at least 161 pixels a side, these have 24: clip 'walk'"),
        ("fvdd", "no metric 'fvdd'"),
    ],
)
def test_metrics_that_videos_cannot_have_are_refused(metric, message, folders):
    with pytest.raises(UserError, match=message):
        evaluate(folders[0], "made", metrics=(metric,))
