"""The synthetic dataset: streams exact by its joints and cameras; deterministic; cached."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from psrjax.data import codec, store
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.synthetic import actions, characters, clip_rendering, dataset
from psrjax.vision import body

SMALL = {"size": (40, 32), "scenes": 2, "people_train": 1, "people_test": 1, "frames": 3}


@pytest.fixture(scope="module")
def config():
    return dataset.make_config(SMALL | {"streams": dataset.STREAMS, "fps": 10.0})


@pytest.fixture(scope="module")
def spec(config):
    return dataset.clip_specs(config)["train"][0]  # a walk


@pytest.fixture(scope="module")
def views(config, spec):
    return {record.view: record for record in dataset.render_clip(config, spec)}


def posed(config, spec):
    who = dataset.make_person(config.seed, spec.person)
    return body.pose(who.model, dataset.joints_of(config, spec)), who.model.faces


def project(camera, points):
    """Pinhole projection written out: pixels, (0, 0) being the centre of the first."""
    seen = points @ camera.rotation.T + camera.translation
    return seen[..., :2] / seen[..., 2:] @ camera.matrix[:2, :2].T + camera.matrix[:2, 2]


def surface_points(view, vertices, faces):
    """Where each body pixel's ray meets the plane of its face: rows, columns, shares (n, 3)."""
    camera, face = view.camera, view.streams["face"]
    for time in range(len(vertices)):
        rows, columns = np.nonzero(face[time] >= 0)
        corners = vertices[time][faces[face[time][rows, columns]]]
        pixel = np.stack([columns, rows, np.ones(len(rows))], -1)
        rays = np.linalg.solve(camera.matrix, pixel.T).T @ camera.rotation
        system = np.concatenate([corners, rays[:, None]], 1).swapaxes(1, 2)
        # corners @ shares + s * ray = centre, with the shares summing to one.
        full = np.concatenate([system, np.tile([[1.0, 1, 1, 0]], (len(rows), 1, 1))], 1)
        centre = -camera.rotation.T @ camera.translation
        answer = np.linalg.solve(full, np.append(centre, 1)[None, :, None].repeat(len(rows), 0))
        yield time, rows, columns, corners, answer[:, :3, 0]


def test_a_clip_is_the_same_whenever_and_wherever_it_is_rendered(config, spec, views):
    dataset.render_clip(config, dataset.clip_specs(config)["test"][0])
    for record in dataset.render_clip(config, spec):
        for name, values in record.streams.items():
            np.testing.assert_equal(values, views[record.view].streams[name], err_msg=name)


def test_the_stored_dataset_does_not_depend_on_the_number_of_processes(tmp_path):
    config = dataset.make_config(SMALL | {"clips_per_person": 2})
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, processes in zip(folders, (1, 2)):
        dataset.write(config, folder, processes=processes)
    one, two = (store.read_manifest(folder) for folder in folders)
    assert one == two
    for split, files in one["files"].items():
        for file in files:
            assert (folders[0] / file["name"]).read_bytes() == (
                folders[1] / file["name"]
            ).read_bytes(), split


def test_another_seed_is_another_dataset(config, spec, views):
    other = dataclasses.replace(config, seed=1)
    there = dataset.render_clip(other, dataset.clip_specs(other)["train"][0])[0]
    assert (there.streams["frames"] != views["cam1"].streams["frames"]).mean() > 0.5
    assert (there.streams["background"] != views["cam1"].streams["background"]).mean() > 0.5


def test_people_differ_between_splits_and_rooms_are_shared():
    specs = dataset.clip_specs(dataset.make_config({}))
    people = {split: {task.person for task in tasks} for split, tasks in specs.items()}
    scenes = {split: {task.scene for task in tasks} for split, tasks in specs.items()}
    assert not people["train"] & people["test"]
    assert scenes["train"] == scenes["test"] and len(scenes["train"]) >= 8
    assert {task.action for task in specs["train"]} == set(actions.ACTIONS)
    sides = {np.sign(task.facing) for task in specs["train"]}
    assert sides == {-1.0, 1.0}  # the performer faces one side camera or the other


def test_people_to_validate_on_are_others_and_change_nothing_else(tmp_path, monkeypatch):
    plain = dataset.clip_specs(dataset.make_config(SMALL))
    more = dataset.clip_specs(dataset.make_config({**SMALL, "people_validation": 2}))
    assert list(more) == ["train", "test", "validation"]
    assert {name: more[name] for name in plain} == plain
    assert {spec.person for spec in more["validation"]} == {2, 3}
    monkeypatch.setattr(dataset, "write", lambda config, directory, **_: None)
    monkeypatch.setenv("PSRJAX_CACHE", str(tmp_path))
    without = dataset.SyntheticConfig(people_validation=0)
    with_some = dataset.SyntheticConfig(people_validation=1)
    assert dataset.ensure_rendered(without) != dataset.ensure_rendered(with_some)


def test_the_three_cameras_stand_at_ntu_s_angles(views):
    centres = {view: record.camera.centre for view, record in views.items()}
    angles = [np.degrees(np.arctan2(y, x)) for x, y, _ in centres.values()]
    np.testing.assert_allclose(np.diff(angles), 45, atol=1e-6)
    assert abs(angles[1]) < 5
    assert len({round(z, 9) for _, _, z in centres.values()}) == 1


def test_joints_lie_on_the_person(config, spec, views):
    joints = dataset.joints_of(config, spec)
    for record in views.values():
        mask = record.streams["mask"] > 0
        expected = project(record.camera, joints)
        stored = record.streams["joints"]
        height, width = config.size
        pixels = ((stored[..., :2] + 1) * (width, height) - 1) / 2
        np.testing.assert_allclose(pixels, expected, atol=1e-3)
        assert set(np.unique(stored[..., 2])) <= {0.5, 1.0}
        for time in range(config.frames):
            near = binary_dilation(mask[time], iterations=1)
            column, row = np.round(pixels[time]).astype(int).T
            assert near[row, column].all()
        np.testing.assert_allclose(record.streams["joints_3d"], joints, atol=1e-6)


def test_depth_is_the_distance_of_the_surface_that_a_pixel_sees(config, spec, views):
    vertices, faces = posed(config, spec)
    for record in views.values():
        depth = record.streams["depth"].astype(float)
        assert ((depth > 0) == (record.streams["face"] >= 0)).all() and depth.max() < 1
        camera = record.camera
        for time, rows, columns, corners, shares in surface_points(record, vertices, faces):
            points = np.einsum("nc,nci->ni", shares, corners)
            metres = (points @ camera.rotation.T + camera.translation)[:, 2]
            near, far = record.meta["near"], record.meta["far"]
            stored = depth[time][rows, columns]
            np.testing.assert_allclose(stored, (far - metres) / (far - near), atol=1e-3)


def test_flow_leads_each_surface_point_to_where_it_was(config, spec, views):
    vertices, faces = posed(config, spec)
    for record in views.values():
        flow = record.streams["mesh_flow"].astype(float)
        face = record.streams["face"]
        assert (flow[0] == 0).all() and (flow[face < 0] == 0).all()
        assert np.abs(flow).max() > 1  # it is a walk
        np.testing.assert_array_equal(record.streams["flow"], record.streams["mesh_flow"])
        for time, rows, columns, _, shares in surface_points(record, vertices, faces):
            if time == 0:
                continue
            corners = vertices[time - 1][faces[face[time][rows, columns]]]
            was = project(record.camera, np.einsum("nc,nci->ni", shares, corners))
            there = np.stack([columns, rows], -1) + flow[time][rows, columns]
            np.testing.assert_allclose(there, was, atol=0.02)


def test_forward_flow_undoes_backward_flow_where_the_confidence_is_high(views):
    for record in views.values():
        streams = record.streams
        assert (streams["flow_confidence"][0] == 0).all()
        for time in (1, 2):
            sure = (streams["flow_confidence"][time] > 200) & (streams["face"][time] >= 0)
            assert sure.mean() > 0.02
            rows, columns = np.nonzero(sure)
            back = streams["flow"][time][rows, columns].astype(float)
            place = np.round(np.stack([columns, rows], -1) + back).astype(int)
            forth = streams["flow_forward"][time][place[:, 1], place[:, 0]].astype(float)
            assert np.median(np.linalg.norm(back + forth, axis=-1)) < 0.3
            appeared = (streams["face"][time] < 0) & (streams["face"][time - 1] >= 0)
            assert (streams["flow_confidence"][time][appeared] == 0).all()


def test_masks_parts_and_priors_agree_on_where_the_person_is(views):
    for name, record in views.items():
        streams = record.streams
        on = streams["face"] >= 0
        assert 0.04 < on.mean() < 0.25
        assert (streams["mask"][on] > 0).all() and (streams["mask"][~on] < 255).all()
        assert ((streams["iuv"][..., 0] > 0) == on).all() and streams["iuv"][..., 0].max() <= 24
        assert set(streams["prior"]) == set(streams["visibility"]) == set(views) - {name}
        for source in streams["prior"]:
            assert (streams["prior"][source][~on] == 0).all()
            assert (streams["prior"][source][on].sum(-1) > 0).mean() > 0.99
            seen = streams["visibility"][source]
            assert ((seen > 0) == on).all() and seen.max() <= 2


def test_the_person_takes_two_thirds_of_the_picture_s_height():
    config = dataset.make_config({"size": (48, 48), "frames": 1, "scenes": 3})
    heights = []
    for task in dataset.clip_specs(config)["train"][1:8:3]:
        rows = np.nonzero((dataset.render_clip(config, task)[1].streams["mask"][0] > 127).any(1))[0]
        heights.append(np.ptp(rows) / 48)
    assert all(0.5 < height < 0.85 for height in heights)


def test_the_background_is_the_frame_without_the_person_and_their_shadow(views):
    for record in views.values():
        frames = record.streams["frames"].astype(int)
        off = record.streams["mask"] == 0
        difference = np.abs(frames - record.streams["background"]).max(-1)[off]
        assert np.median(difference) <= 1
        assert (difference > 3).mean() > 0.001  # there is a shadow


def test_clothes_differ_front_and_back():
    model = body.template()
    torso = model.canonical[(np.abs(model.canonical[:, 2] - 1.25) < 0.12)]
    torso = torso[np.abs(torso[:, 1]) < 0.09]
    for seed in range(6):
        who = characters.make_character("p", np.random.default_rng(seed))
        colors = []
        for side, part in ((1, 2), (-1, 1)):
            place = torso * (0, 1, 1) + (0.11 * side, 0, 0)
            colors.append(who.texture(place, np.full(len(place), part)))
        assert np.abs(colors[0] - colors[1]).max() > 0.1, seed


@pytest.mark.parametrize("action", actions.ACTIONS)
def test_actions_are_smooth_keep_bone_lengths_and_stand_on_the_floor(action):
    model, fps = body.template(), 50.0
    for seed in range(3):
        motion = actions.single_action(action, 60, fps, 0.7, np.random.default_rng(seed))
        joints = actions.joints(model, motion, fps)
        assert np.isfinite(joints).all()
        for start, end in ((2, 3), (3, 4), (9, 10), (10, 11), (1, 2), (9, 12), (11, 22), (0, 25)):
            lengths = np.linalg.norm(joints[:, start] - joints[:, end], axis=-1)
            rest = np.linalg.norm(model.joints[start] - model.joints[end])
            np.testing.assert_allclose(lengths, rest, atol=1e-9)
        acceleration = np.abs(np.diff(joints, 2, axis=0)).max() * fps**2
        assert acceleration < 150  # metres/s2; a thrower's hand reaches 100
        feet = joints[:, [19, 21, 22, 24]]
        assert -0.06 < feet[..., 2].min() and feet[..., 2].min(1).max() < 0.06
        slow = np.linalg.norm(np.diff(feet, axis=0), axis=-1).min(1) * fps
        assert np.median(slow) < 0.25  # at any time some part of a foot stays where it is


def test_a_long_clip_turns_all_round_and_comes_in_runs_that_fit_together():
    config = dataset.make_config({"kind": "long", "size": (32, 32), "frames": 500, "seed": 3})
    tasks = dataset.clip_specs(config)["train"]
    assert [task.start for task in tasks] == list(range(0, 500, 64)) and tasks[-1].stop == 500
    joints = dataset.joints_of(config, tasks[0])
    across = joints[:, 5] - joints[:, 2]
    yaw = np.unwrap(np.arctan2(across[:, 1], across[:, 0]))
    assert np.ptp(yaw) > np.pi and len(joints) / config.fps >= 20
    first = dataclasses.replace(tasks[0], start=62, stop=66)
    second = dataclasses.replace(tasks[0], start=64, stop=66)
    whole, part = (dataset.render_clip(config, task)[0] for task in (first, second))
    assert whole.view == "cam1" and part.start == 64 and "prior" not in part.streams
    for name, values in part.streams.items():
        expected = whole.streams[name]
        np.testing.assert_array_equal(values, expected if name == "background" else expected[2:])


def test_many_people_have_clips_of_six_seconds():
    config = dataset.make_config({"kind": "many"})
    assert config.frames / config.fps >= 6 and config.people_train >= 20 and config.cameras == 1


def test_the_dataset_is_rendered_once_and_read_by_the_loader_s_source(tmp_path, monkeypatch):
    monkeypatch.setenv("PSRJAX_CACHE", str(tmp_path))
    settings = SMALL | {"scenes": 1, "clips_per_person": 1}
    directory = dataset.ensure_rendered(settings, processes=1)
    before = (directory / store.MANIFEST).stat().st_mtime_ns
    assert dataset.ensure_rendered(settings) == directory
    assert (directory / store.MANIFEST).stat().st_mtime_ns == before
    assert dataset.ensure_rendered(settings | {"seed": 5}, processes=1) != directory
    source = Source(directory, "test")
    assert source.meta["near"] == clip_rendering.NEAR
    assert set(source.means) == {"cam1", "cam2", "cam3"}
    clip = source.clips[0].name
    assert source.read(clip, "cam2", "prior", source="cam1").shape == (3, 40, 32, 3)


def test_an_interrupted_rendering_leaves_nothing_that_is_taken_for_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("PSRJAX_CACHE", str(tmp_path))
    settings = SMALL | {"scenes": 1, "clips_per_person": 1}
    encode, calls = codec.encode, []

    def failing(view):
        calls.append(view)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(view)

    monkeypatch.setattr(codec, "encode", failing)
    with pytest.raises(KeyboardInterrupt):
        dataset.ensure_rendered(settings, processes=1)
    assert not list(tmp_path.glob("config-*/*"))
    directory = dataset.ensure_rendered(settings, processes=1)
    assert Source(directory, "train").clips


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"colour": 1}, "no setting 'colour'"),
        ({"kind": "short"}, "one of multiview, long, many"),
        ({"frames": 0}, "frames=0"),
        ({"size": (64, 8)}, "16 pixels"),
        ({"streams": ("frames", "sound")}, "streams"),
        ({"cameras": 1}, "two cameras"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        dataset.make_config(settings)


def test_mesh_labels_come_where_they_are_named(views):
    view = views["cam1"].streams
    off = view["face"] < 0
    assert (view["mesh_label"][off] == 128).all()
    assert (view["mesh_label"][~off] != 128).any(-1).mean() > 0.95
    assert "mesh_label" not in dataset.make_config({"kind": "long"}).streams
