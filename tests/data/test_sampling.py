"""Windows are what their policy says, and crops, mirrors and colours keep a sample together."""

import colorsys
from types import SimpleNamespace

import numpy as np
import pytest

from psrjax.data import sampling, spec
from psrjax.data.source import Clip, Source, View
from psrjax.errors import UserError

IMAGES = (
    "source",
    "target",
    "target_prior",
    "target_visibility",
    "target_depth",
    "target_mesh_flow",
    "target_flow",
    "target_flow_confidence",
    "target_mask",
    "background",
    "target_mean",
)
EVERYTHING = tuple(key for key in spec.KEYS if key not in ("index", "valid"))


def clip(frames=40, views=("cam1", "cam2", "cam3"), fps=10.0):
    return Clip("walk", {name: View(name, frames, fps, (24, 32), {}, ()) for name in views})


def draws(how, of, count=300):
    rng = np.random.default_rng(0)
    return [sampling.draw(of, "cam1", how, rng) for _ in range(count)]


def consecutive(frames):
    return all(b - a == 1 for a, b in zip(frames, frames[1:]))


def test_same_time_takes_the_same_times_from_two_views_and_every_other_view_as_target():
    windows = draws(sampling.Policy("same_time", k=8, t=8), clip())
    assert all(w.source_frames == w.target_frames for w in windows)
    assert all(consecutive(w.target_frames) and len(w.target_frames) == 8 for w in windows)
    assert {w.source_view for w in windows} == {"cam1"}
    targets = [w.target_view for w in windows]
    assert set(targets) == {"cam2", "cam3"} and 100 < targets.count("cam2") < 200
    assert {w.start for w in windows} == set(range(33))


def test_first_takes_the_clips_first_frames_and_a_window_after_the_gap():
    windows = draws(sampling.Policy("first", k=1, t=2, gap_seconds=2.0), clip())
    assert {w.source_frames for w in windows} == {(0,)}
    assert {w.start for w in windows} == set(range(20, 39))
    assert all(w.source_view == w.target_view for w in windows)


def test_disjoint_takes_distinct_frames_outside_window_and_gap():
    windows = draws(sampling.Policy("disjoint", k=4, t=8, gap_seconds=0.3), clip())
    for window in windows:
        assert len(set(window.source_frames)) == 4
        distances = [abs(s - t) for s in window.source_frames for t in window.target_frames]
        assert min(distances) > 3
    assert len({window.start for window in windows}) > 20


def test_random_takes_the_window_itself_half_of_the_time():
    windows = draws(sampling.Policy("random", k=1, t=1), clip(frames=1000), count=1000)
    itself = sum(w.source_frames == w.target_frames for w in windows)
    assert 440 < itself < 560


def test_history_comes_before_the_window_and_repeats_the_first_frame():
    how = sampling.Policy("random", k=1, t=2, history=2)
    assert sampling.fixed(clip(), ("cam1", "cam1"), 0, how).target_frames == (0, 0, 0, 1)
    assert sampling.fixed(clip(), ("cam1", "cam1"), 9, how).target_frames == (7, 8, 9, 10)


@pytest.mark.parametrize(
    ("how", "sources", "scored"),
    [
        (sampling.Policy("same_time", k=8, t=8), (), range(24)),
        (sampling.Policy("first", k=1, t=2, gap_seconds=2.0), (0,), range(1, 24)),
        (sampling.Policy("random", k=2, t=4), (0, 7), range(8, 24)),
        (sampling.Policy("disjoint", k=4, t=8, gap_seconds=0.3), (0, 2, 5, 7), range(8, 24)),
        (sampling.Policy("disjoint", k=1, t=2, gap_seconds=0.4), (0,), range(1, 24)),
        (sampling.Policy("disjoint", k=2, t=3, k_evaluation=12), range(12), range(12, 24)),
        (sampling.Policy("first", k=1, t=4, held_back=0.25), (0,), range(18, 24)),
        (sampling.Policy("random", k=1, held_back=0.25, k_evaluation=2), (0, 17), range(18, 24)),
    ],
)
def test_a_clips_evaluation_has_one_set_of_sources_and_scores_only_what_comes_after(
    how, sources, scored
):
    of = clip(frames=24, views=("cam1", "cam2") if how.source == "same_time" else ("cam1",))
    windows = sampling.evaluation_windows(SimpleNamespace(clips=[of]), how, "all")
    assert {frame for w in windows for frame in w.target_frames} == set(scored)
    assert all(len(w.target_frames) == how.t for w in windows)
    if how.source == "same_time":
        assert all(w.source_frames == w.target_frames for w in windows)
        assert all(w.source_view != w.target_view for w in windows)
    else:
        assert {w.source_frames for w in windows} == {tuple(sources)}
        assert not set(sources) & set(scored)


def test_all_windows_cover_the_clip_and_central_is_one_for_each_ordered_pair(dataset_folder):
    source = Source(dataset_folder, "test")
    how = sampling.Policy("same_time", k=5, t=5)
    central = sampling.evaluation_windows(source, how)
    assert [(w.source_view[-1], w.target_view[-1]) for w in central] == [
        ("1", "2"), ("1", "3"), ("2", "1"), ("2", "3"), ("3", "1"), ("3", "2"),
    ]  # fmt: skip
    assert {w.start for w in central} == {3}
    every = sampling.evaluation_windows(source, how, "all")
    assert [w.start for w in every[:3]] == [0, 5, 7]
    assert {frame for w in every for frame in w.target_frames} == set(range(12))


def test_clips_that_cannot_be_sampled_are_named():
    with pytest.raises(UserError, match="'walk' has 7 frames, too few"):
        sampling.starts(clip(frames=7), sampling.Policy("same_time", k=8, t=8))
    disjoint = sampling.Policy("disjoint", k=4, t=8)
    with pytest.raises(UserError, match="'walk' has 11 frames, too few"):
        sampling.starts(clip(frames=11), disjoint)
    with pytest.raises(UserError, match="'walk' has 11 frames, too few"):
        sampling.evaluation_windows(SimpleNamespace(clips=[clip(frames=11)]), disjoint)
    with pytest.raises(UserError, match="'walk' has one view"):
        sampling.pairs(clip(views=("cam1",)), sampling.Policy("same_time", t=8))


def test_options_that_do_not_exist_are_refused_with_the_list():
    with pytest.raises(UserError, match="sampling.gap: there is only source, k, t, gap_seconds"):
        sampling.policy({"source": "first", "gap": 2.0})
    with pytest.raises(UserError, match="'last' is none of same_time"):
        sampling.policy({"source": "last"})


def sample(dataset_folder, reads=EVERYTHING):
    source = Source(dataset_folder, "train")
    how = sampling.Policy("same_time", k=4, t=4)
    window = sampling.fixed(source.clip("a"), ("cam1", "cam3"), 5, how)
    return sampling.assemble(source, window, reads)


def test_a_sample_satisfies_the_contract_and_comes_from_the_right_view_and_frames(dataset_folder):
    found = sample(dataset_folder)
    batch = {key: value[None] for key, value in found.items()}
    assert spec.check(batch, EVERYTHING) == {"b": 1, "k": 4, "t": 4, "h": 24, "w": 32}
    assert found["source"][:, 0, 0].tolist() == [[1, 5, 0], [1, 6, 0], [1, 7, 0], [1, 8, 0]]
    assert found["target"][:, 0, 9].tolist() == [[3, 5, 9], [3, 6, 9], [3, 7, 9], [3, 8, 9]]
    assert found["background"][0, 9].tolist() == [3, 0, 9]
    assert (found["target_visibility"] == 1).all()  # what cam3 stores of source cam1
    assert (found["target_mean"][..., 0] == 3).all()


def test_flows_and_confidence_are_zero_at_a_windows_first_frame_only(dataset_folder):
    found = sample(dataset_folder)
    for key in ("flow", "flow_forward", "flow_confidence", "mesh_flow"):
        assert not found[f"target_{key}"][0].any()
        assert found[f"target_{key}"][1:].any(axis=(1, 2, 3)).all()


def test_a_stream_that_a_method_reads_and_the_data_set_lacks_is_named(tmp_path, make_view):
    from psrjax.data import store

    view = make_view("a", "cam1")
    store.write(
        tmp_path / "set",
        {"train": [type(view)("a", "cam1", {"frames": view.streams["frames"]}, view.meta)]},
    )
    source = Source(tmp_path / "set", "train")
    with pytest.raises(UserError, match="'visibility'.*'target_visibility'.*psrjax prepare"):
        sampling.require(source, ("source", "target_visibility"))


def test_a_crop_is_one_place_for_all_images_and_the_joints_move_along(dataset_folder):
    whole = sample(dataset_folder)
    for place in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.3, 0.9)):
        found = sampling.crop(whole, (16, 20), place)
        left = int(found["target"][0, 0, 0, 2])  # frames hold their column
        top = round(8 * place[0])
        for key in IMAGES:
            expected = whole[key][..., top : top + 16, left : left + 20, :]
            np.testing.assert_array_equal(found[key], expected, err_msg=key)
        column = ((found["target_joints"][..., 0] + 1) * 20 - 1) / 2 + left
        row = ((found["target_joints"][..., 1] + 1) * 16 - 1) / 2 + top
        seen = np.arange(26) != 3
        expected = np.broadcast_to(np.arange(26), column.shape)
        np.testing.assert_allclose(column[:, seen], expected[:, seen], atol=1e-4)
        np.testing.assert_allclose(row[:, seen], 5, atol=1e-4)
        assert not found["target_joints"][:, 3].any()


def test_evaluation_crops_the_centre_and_size_zero_changes_nothing(dataset_folder):
    whole = sample(dataset_folder)
    centre = sampling.augment(whole, sampling.Augmentation(crop=(16, 20), flip=1.0, jitter=0.5))
    np.testing.assert_array_equal(centre["target"], whole["target"][:, 4:20, 6:26])
    same = sampling.augment(whole, sampling.Augmentation())
    for key, value in whole.items():
        np.testing.assert_allclose(same[key], value, atol=1e-6)


def test_a_crop_larger_than_the_frames_is_refused(dataset_folder):
    message = "config.data.crop or train_crop: 64x64 is more than the stored 24x32"
    with pytest.raises(UserError, match=message):
        sampling.crop(sample(dataset_folder), (64, 64), (0, 0))


MIRRORABLE = tuple(key for key in EVERYTHING if "iuv" not in key and "label" not in key)


def test_a_mirror_moves_images_flow_and_joints_together(dataset_folder):
    whole = sample(dataset_folder, MIRRORABLE)
    found = sampling.flip(whole)
    np.testing.assert_array_equal(found["source"], whole["source"][:, :, ::-1])
    for key in ("target_flow", "target_flow_forward", "target_mesh_flow"):
        np.testing.assert_array_equal(found[key], whole[key][:, :, ::-1] * np.array([-1, 1]))
    right_wrist, left_wrist = 4, 7
    before, after = whole["target_joints"], found["target_joints"]
    np.testing.assert_allclose(after[:, left_wrist, 0], -before[:, right_wrist, 0])
    np.testing.assert_allclose(after[:, left_wrist, 1:], before[:, right_wrist, 1:])
    assert not after[:, 6].any()  # joint 3 was missing; it is the mirror image of 6
    twice = sampling.flip(found)
    for key, value in whole.items():
        np.testing.assert_array_equal(twice[key], value, err_msg=key)


def test_maps_that_know_left_from_right_cannot_be_mirrored(dataset_folder):
    with pytest.raises(UserError, match="'target_iuv' cannot be mirrored"):
        sampling.flip(sample(dataset_folder, ("target", "target_iuv")))


def test_colours_change_alike_in_the_whole_sample_and_maps_do_not(dataset_folder):
    whole = sample(dataset_folder)
    rng = np.random.default_rng(3)
    found = sampling.augment(whole, sampling.Augmentation(jitter=0.4), rng)
    same_pixel = [(whole[key], found[key]) for key in ("source", "target", "target_prior")]
    mapping = {}
    for before, after in same_pixel:
        for a, b in zip(before.reshape(-1, 3).tolist(), after.reshape(-1, 3).tolist()):
            assert mapping.setdefault(tuple(a), b) == b
    assert any(list(a) != b for a, b in mapping.items())
    for key in ("target_mask", "target_visibility", "target_depth", "target_iuv", "target_flow"):
        np.testing.assert_array_equal(found[key], whole[key])


def test_hue_turns_as_colorsys_has_it_alike_in_the_whole_sample(dataset_folder):
    whole = sample(dataset_folder)
    found = sampling.turn_hue(whole, -0.1)
    for key in ("source", "target", "target_prior"):
        before, after = (side[key].reshape(-1, 3)[::7] for side in (whole, found))
        for one, other in zip(before / 255.0, after):
            hue, saturation, value = colorsys.rgb_to_hsv(*one)
            expected = colorsys.hsv_to_rgb((hue - 0.1) % 1.0, saturation, value)
            assert np.abs(np.multiply(expected, 255.0) - other).max() <= 1.0
    for key in ("target_mask", "target_depth", "target_iuv", "target_flow"):
        np.testing.assert_array_equal(found[key], whole[key])
    drawn = sampling.augment(whole, sampling.Augmentation(hue=0.1), np.random.default_rng(0))
    assert (drawn["source"] != whole["source"]).any()
    still = sampling.augment(whole, sampling.Augmentation(hue=0.1))
    np.testing.assert_array_equal(still["source"], whole["source"])


def test_colour_factors_do_what_their_names_say():
    gray = np.full((1, 2, 2, 3), 100, np.uint8)
    red = np.full((1, 2, 2, 3), (200, 50, 50), np.uint8)
    changed = sampling.recolor({"target": gray, "source": red}, np.array([1.0, 1.0, 0.0]))
    assert (changed["target"] == 100).all()  # gray has no saturation to lose
    assert np.ptp(changed["source"]) == 0
    assert (sampling.recolor({"target": gray}, np.array([1.2, 1.0, 1.0]))["target"] == 120).all()
    assert (sampling.recolor({"target": gray}, np.array([1.0, 2.0, 1.0]))["target"] < 100).all()


def test_frames_held_back_are_never_trained_on_and_are_what_is_evaluated():
    how = sampling.Policy("random", k=2, t=3, held_back=0.25, k_evaluation=5)
    seen = {f for w in draws(how, clip(20)) for f in (*w.source_frames, *w.target_frames)}
    assert seen == set(range(15))
    windows = sampling.evaluation_windows(SimpleNamespace(clips=[clip(20, ("c",))]), how, "all")
    assert {frame for window in windows for frame in window.target_frames} == set(range(15, 20))
    assert all(len(w.source_frames) == 5 and max(w.source_frames) < 15 for w in windows)
    with pytest.raises(UserError, match="10% of them held back, too few"):
        short = SimpleNamespace(clips=[clip(20)])
        sampling.evaluation_windows(short, sampling.Policy("random", t=3, held_back=0.1))
