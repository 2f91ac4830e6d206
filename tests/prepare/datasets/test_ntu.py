"""NTU RGB+D: its files read as they are, and a body that lies where the pictures show one."""

import json
import shutil
from pathlib import Path

import ntu_fixture
import numpy as np
import pytest

from psrjax.data import sampling
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.methods.psrnet import Method
from psrjax.ops import pose
from psrjax.prepare.common import kinect_body, kinect_skeleton, lifting
from psrjax.prepare.datasets import adapter, build, ntu_files, ntu_rgbd
from psrjax.vision import body
from psrjax.vision.backgrounds import overlap

TRAIN_1, TRAIN_2 = "S001P001R001A001", "S001P001R001A002"
TEST_1, TEST_2 = "S001P003R001A001", "S001P003R001A002"
OPTIONS = adapter.DatasetOptions(size=(108, 192))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("ntu")
    return root, ntu_fixture.write(root)


@pytest.fixture(scope="module")
def clips(folder):
    """{clip: {view: ClipView}} of a plain clip with ghosts, and a mirrored one with depth."""
    root, _ = folder
    options = adapter.complete_options(ntu_rgbd.ADAPTER, OPTIONS)
    tasks = {task.name: task for task in adapter.find_tasks(ntu_rgbd.ADAPTER, root, options).tasks}
    return {
        name: {view.view: view for _, view in ntu_rgbd.views(tasks[name], options)}
        for name in (TRAIN_1, TEST_2)
    }


def truth_of(folder, clip, what, view):
    truth = folder[1][clip]
    values = truth[what][view]
    return values[:, :, ::-1] if truth["mirrored"] else values


def test_names_say_who_did_what_and_people_make_the_splits(folder):
    sample = ntu_files.parse_name("S013C002P037R001A049_rgb.avi")
    assert (sample.setup, sample.camera, sample.person, sample.action) == (13, 2, 37, 49)
    assert sample.clip == "S013P037R001A049" and sample.stem == "S013C002P037R001A049"
    with pytest.raises(ValueError, match="IMG_001.avi"):
        ntu_files.parse_name("IMG_001.avi")
    found = ntu_rgbd.find(folder[0], OPTIONS)
    splits = {task.name: task.split for task in found.tasks}
    assert splits == {TRAIN_1: "train", TRAIN_2: "train", TEST_1: "test", TEST_2: "test"}
    assert len(ntu_files.TRAIN_PEOPLE) == 20
    assert "1 videos in the list of missing skeletons" in found.notes
    assert "1 videos of two people (A050 and above)" in found.notes


def test_gtnets_list_decides_where_it_is_there(folder, tmp_path):
    stems = [f"S001C00{c}P003R001A001" for c in (1, 2, 3)]
    for stem in stems:
        (tmp_path / f"{stem}_rgb.avi").write_bytes(b"x")
        (tmp_path / f"{stem}.skeleton").write_bytes(b"x")
    cameras = {f"cam{c}": {f"/data/{stem}_rgb.avi": 90} for c, stem in enumerate(stems, 1)}
    (tmp_path / "ntu_nvs.json").write_text(json.dumps({"train": cameras, "test": {}}))
    (task,) = ntu_rgbd.find(tmp_path, OPTIONS).tasks
    assert (task.name, task.split) == (TEST_1, "train")
    (tmp_path / "ntu_nvs.json").write_text("{")
    with pytest.raises(UserError, match="ntu_nvs.json: not GTNet's list"):
        ntu_rgbd.find(tmp_path, OPTIONS)


def test_a_clip_without_its_third_camera_is_left_out_and_counted(tmp_path):
    for stem in ("S001C001P001R001A001", "S001C002P001R001A001"):
        (tmp_path / f"{stem}_rgb.avi").write_bytes(b"x")
        (tmp_path / f"{stem}.skeleton").write_bytes(b"x")
    with pytest.raises(UserError, match="no clip of ntu_rgbd.*1 clips lack one of the three"):
        adapter.find_tasks(ntu_rgbd.ADAPTER, tmp_path, OPTIONS)


def test_the_skeleton_is_the_persons_and_not_the_chairs(folder):
    path = folder[0] / "nturgb+d_skeletons" / "S001C001P001R001A001.skeleton"
    skeleton = kinect_skeleton.read_skeleton(path)
    assert skeleton.points.shape == (ntu_fixture.FRAMES, 25, 3)
    assert (skeleton.state[3] == 0).all() and (skeleton.state[[0, 1, 2, 4]] == 2).all()
    truth = folder[1][TRAIN_1]
    camera = truth["cameras"]["cam1"]
    seen = truth["joints"] @ camera.rotation.T + camera.translation - ntu_fixture.SHIFT
    expected = pose.convert_points(seen, "ntu25") * (1, -1, 1)
    kept = [0, 1, 2, 4]
    np.testing.assert_allclose(skeleton.points[kept], expected[kept], atol=1e-5)


@pytest.mark.parametrize("cut", ["", "5", "2\n1\n1 0 1 1 1 1 0 0.1 0.2 2\n25\n0.1 0.2"])
def test_a_skeleton_that_is_cut_off_is_refused_by_name(tmp_path, cut):
    (tmp_path / "S001C001P001R001A001.skeleton").write_text(cut)
    with pytest.raises(UserError, match="S001C001P001R001A001.skeleton: not a whole"):
        kinect_skeleton.read_skeleton(tmp_path / "S001C001P001R001A001.skeleton")
    (tmp_path / "empty.skeleton").write_text("2\n0\n0\n")
    with pytest.raises(UserError, match="empty.skeleton: nobody in any frame"):
        kinect_skeleton.read_skeleton(tmp_path / "empty.skeleton")


@pytest.mark.parametrize("clip", [TRAIN_1, TEST_2])
def test_the_body_lies_where_the_pictures_show_the_person(folder, clips, clip):
    """Also in mirrored pictures, as the Kinect's are; and its depth is the room's."""
    for name, view in clips[clip].items():
        metres = truth_of(folder, clip, "metres", name)
        person = np.isfinite(metres)
        score = np.mean([overlap(f >= 0, p) for f, p in zip(view.streams["face"], person)])
        assert score > 0.8, name
        masks = view.streams["mask"] > 127
        assert np.mean([overlap(m, p) for m, p in zip(masks, person)]) > 0.75, name
        both = person & (view.streams["face"] >= 0)
        found = ntu_rgbd.FAR - (ntu_rgbd.FAR - ntu_rgbd.NEAR) * view.streams["depth"].astype(float)
        assert np.median(np.abs(found - metres)[both]) < 0.05, name


def test_sides_are_those_that_the_pictures_show(folder, clips):
    """In a mirror the actor's left hand is to be seen as a right one: parts say so, too."""
    template = body.template()
    for clip, view in ((TRAIN_1, "cam2"), (TEST_2, "cam2")):
        part = template.face_part[truth_of(folder, clip, "faces", view)]
        part[~np.isfinite(truth_of(folder, clip, "metres", view))] = 0
        if folder[1][clip]["mirrored"]:
            mirror = np.arange(25)
            mirror[3:23] = np.arange(3, 23).reshape(-1, 2)[:, ::-1].ravel()
            mirror[23:] = 24, 23
            part = mirror[part]
        found = clips[clip][view].streams["iuv"][..., 0]
        both = (part > 0) & (found > 0)
        assert (part == found)[both].mean() > 0.7


def test_one_view_tells_another_its_colours(clips):
    """The prior is the target's picture where the source has seen the body."""
    streams = clips[TRAIN_1]["cam2"].streams
    for source in ("cam1", "cam3"):
        seen = streams["visibility"][source] == 1
        seen &= streams["mask"] > 250
        off = streams["prior"][source].astype(int) - streams["frames"]
        bright = streams["frames"][seen].mean()
        assert np.abs(off)[seen].mean() < 0.15 * bright
        assert (np.abs(off).max(-1) < 30)[seen].mean() > 0.6


def test_cameras_stand_in_one_room(folder, clips):
    truth = folder[1][TRAIN_1]["cameras"]
    found = {name: view.camera for name, view in clips[TRAIN_1].items()}
    for one, other in (("cam1", "cam2"), ("cam1", "cam3")):
        turns = [c[one].rotation @ c[other].rotation.T for c in (truth, found)]
        angle = np.arccos((np.trace(turns[0] @ turns[1].T) - 1) / 2)
        assert np.degrees(angle) < 1.5
        apart = [np.linalg.norm(c[one].centre - c[other].centre) for c in (truth, found)]
        np.testing.assert_allclose(apart[1], apart[0], rtol=0.02)


def test_gaps_are_closed_by_motion_and_inferred_joints_count_less():
    times = np.arange(20) / 30.0
    way = np.stack([times, 0.3 * np.sin(3 * times), 3 + 0 * times], -1)[:, None]
    state = np.full((20, 1), 2)
    state[8:11], state[15] = 0, 1
    noisy = way.copy()
    noisy[8:11] = np.nan
    noisy[15] += 0.3
    found = kinect_body.smooth(noisy, state, rate=30.0)
    np.testing.assert_allclose(found[8:11], way[8:11], atol=0.01)
    assert np.abs(found[15] - way[15]).max() < 0.1
    with pytest.raises(UserError, match="joint 1 of the skeleton is missing in every frame"):
        kinect_body.smooth(noisy, np.zeros((20, 1), int), rate=30.0)


def test_the_26_joints_of_the_25_are_those_they_came_from():
    rest = body.template().joints
    points = pose.convert_points(rest[None], "ntu25")
    found = kinect_body.body_joints(points)[0]
    limbs = list(range(1, 15))
    np.testing.assert_allclose(found[limbs], rest[limbs], atol=1e-9)
    head = [0, 15, 16, 17, 18, 25]
    np.testing.assert_allclose(found[head], rest[head], atol=0.05)
    np.testing.assert_allclose(found[19:25], rest[19:25], atol=0.02)


def test_everything_that_psrnet_reads_is_there(folder, tmp_path):
    root, _ = folder
    small = adapter.DatasetOptions(size=(36, 64))
    summary = build.build("ntu_rgbd", root, tmp_path / "set", small, processes=1)
    assert summary["clips"] == 4 and not summary["failed"]
    source = Source(tmp_path / "set", "train")
    method = Method()
    sampling.require(source, (*method.reads, *method.baseline_reads))
    how = sampling.Policy("same_time", k=4, t=4)
    window = sampling.fixed(source.clips[0], ("cam1", "cam3"), 2, how)
    sample = sampling.assemble(source, window, method.reads)
    assert set(np.unique(sample["target_visibility"])) == {0, 1, 2}
    assert sample["target_prior"][sample["target_visibility"][..., 0] == 1].any()
    assert Source(tmp_path / "set", "test").clips[0].name == TEST_1
    assert build.build("ntu_rgbd", root, tmp_path / "set", small, processes=1) == summary


def test_a_damaged_clip_is_told_and_the_others_are_prepared(folder, tmp_path):
    root = tmp_path / "raw"
    shutil.copytree(folder[0], root)
    broken = root / "nturgb+d_rgb" / "S001C002P001R001A002_rgb.avi"
    broken.write_bytes(broken.read_bytes()[:4000])
    for name in ("S001C001P003R001A001_rgb.avi", "S001C001P003R001A002_rgb.avi"):
        (root / "nturgb+d_rgb" / name).unlink()
    options = adapter.DatasetOptions(size=(24, 32))
    summary = build.build("ntu_rgbd", root, tmp_path / "set", options, processes=1)
    assert summary["clips"] == 1
    assert broken.name in summary["failed"][TRAIN_2]
    assert not Path(f"{tmp_path / 'set'}.work").exists()


@pytest.fixture(scope="module")
def smpl_file(tmp_path_factory):
    """A model of SMPL's format and joints with the built-in body's surface: no SMPL is needed."""
    template = body.template()
    rest = lifting.smpl_joints(np.zeros((1, 72)))
    vertices = body.pose(template, rest)[0]
    places = lifting.smpl_rest_joints()
    nearest = np.linalg.norm(vertices[:, None] - places, axis=-1).argmin(1)
    around = np.pad(vertices, ((0, 0), (0, 1)), constant_values=1.0)
    parents = np.array(lifting.PARENTS)
    path = tmp_path_factory.mktemp("smpl") / "SMPL_NEUTRAL.npz"
    np.savez(
        path,
        v_template=vertices,
        shapedirs=np.zeros((len(vertices), 3, 10)),
        posedirs=np.zeros((len(vertices), 3, 207)),
        J_regressor=np.pad(places, ((0, 0), (0, 1)), constant_values=1.0) @ np.linalg.pinv(around),
        weights=np.eye(24)[nearest],
        kintree_table=np.stack([parents, np.arange(24)]),
        f=template.faces,
    )
    return path


@pytest.mark.parametrize("translated", [False, True])
def test_given_smpls_mesh_stands_where_it_says_or_on_the_skeleton(
    folder, smpl_file, tmp_path, translated
):
    upright = np.zeros((ntu_fixture.FRAMES, 72))
    upright[:, 0] = np.pi  # y down, as in the camera's axes
    content = {"pose": upright, "betas": np.zeros(10)}
    truth = folder[1][TRAIN_2]
    for number, camera in enumerate(truth["cameras"].values(), 1):
        middle = truth["joints"][:, 8] @ camera.rotation.T + camera.translation
        if translated:
            content["trans"] = middle + (0.4, 0, 0)
        np.savez(tmp_path / f"S001C{number:03d}P001R001A002.npz", **content)
    chosen = adapter.DatasetOptions(
        size=(54, 96), smpl=str(smpl_file), smpl_parameters=str(tmp_path)
    )  # fmt: skip
    options = adapter.complete_options(ntu_rgbd.ADAPTER, chosen)
    task = next(t for t in ntu_rgbd.find(folder[0], options).tasks if t.name == TRAIN_2)
    views = [view for _, view in ntu_rgbd.views(task, options)]
    assert {tuple(sorted(view.streams)) for view in views} == {
        tuple(sorted(ntu_rgbd.streams(options)))
    }
    assert "iuv" not in views[0].streams and ntu_rgbd.meta(options)["faces"] == 7652
    for view in views:
        hips = view.streams["joints"][:, 8, 0]  # in [-1, 1]
        columns = np.stack([(f >= 0).nonzero()[1].mean() for f in view.streams["face"]])
        off = ((2 * columns + 1) / 96 - 1) - hips
        expected = 2 * 0.4 * ntu_fixture.FOCAL / 192 / 4.0 if translated else 0.0
        np.testing.assert_allclose(off, expected, atol=0.05)


def test_smpl_without_its_parameters_is_told(folder, smpl_file, tmp_path):
    chosen = adapter.DatasetOptions(
        size=(54, 96), smpl=str(smpl_file), smpl_parameters=str(tmp_path)
    )
    options = adapter.complete_options(ntu_rgbd.ADAPTER, chosen)
    task = ntu_rgbd.find(folder[0], options).tasks[0]
    with pytest.raises(UserError, match="no SMPL parameters of S001C001P001R001A001"):
        list(ntu_rgbd.views(task, options))
