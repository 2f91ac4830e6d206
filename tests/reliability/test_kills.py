"""What is killed at any moment and started again ends as what was not."""

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import stick_person
from command_line import environment, psrjax

from psrjax.data.source import Source
from psrjax.training import checkpoint

HELPER = Path(__file__).parents[1] / "helpers" / "killed.py"


def killed(folder, what, kills, seed, *arguments):
    """The forks' answer, see tests/helpers/killed.py; prints where the kills fell."""
    command = [sys.executable, HELPER, what, folder, str(kills), str(seed), *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{len(found['kills'])} kills of {found['moments']} moments: {found['kills']}")
    assert len(found["kills"]) == kills
    return found


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_checkpoints_that_are_killed_while_they_are_saved_end_as_undisturbed_ones(kills, tmp_path):
    found = killed(tmp_path, "layer", kills, 3)
    whole = tmp_path / "undisturbed"
    for name in found["folders"]:
        one = tmp_path / name
        np.testing.assert_array_equal(np.load(one / "end.npy"), np.load(whole / "end.npy"))
        assert (one / "numbers.json").read_text() == (whole / "numbers.json").read_text()
        assert checkpoint.saved_steps(one / "stage")[0] == 6


def arrays(stage):
    """{name: array} of a stage's last checkpoint, with the optimizer's."""
    import jax

    step = checkpoint.saved_steps(stage)[0]
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    folder = checkpoint.absolute(stage) / checkpoint.FOLDER / str(step) / "state"
    state = checkpoint._read_arrays(folder, sharding, nets_only=False)
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    is_key = lambda leaf: jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    plain = lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf  # noqa: E731
    return {jax.tree_util.keystr(path): np.asarray(plain(leaf)) for path, leaf in leaves}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["psrnet", "internet", "mfci", "hpt", "d2gnet"])
def test_training_that_is_killed_ends_as_undisturbed_training(method, tmp_path):
    steps = ["--config.steps=4", "--config.checkpoint_steps=1", "--config.log_steps=1"]
    steps += ["--config.evaluate_steps=2", "--workdir=run"]
    found = killed(tmp_path, "command", 8, 0, "train", f"--config={method}:tiny", *steps)
    whole = tmp_path / "undisturbed" / "run"
    for name in found["folders"]:
        run = tmp_path / name / "run"
        for stage in checkpoint.read_run_config(whole).stages:
            expected, got = arrays(whole / stage), arrays(run / stage)
            assert expected.keys() == got.keys()
            for key, array in expected.items():
                np.testing.assert_array_equal(got[key], array, err_msg=f"{stage} {key}")
            lines = [(each / stage / "metrics.jsonl").read_text() for each in (whole, run)]
            assert lines[0] == lines[1]
            for picture in (whole / stage / "samples").glob("*.png"):
                other = run / stage / "samples" / picture.name
                assert other.read_bytes() == picture.read_bytes()
        assert not checkpoint.check(run)


@pytest.mark.slow
def test_preparation_that_is_killed_ends_as_undisturbed_preparation(tmp_path):
    given = []
    for name in ("a", "b", "c"):
        scene = stick_person.make_scene(12, walk=1.0 + len(given))
        given.append(str(stick_person.write_video(tmp_path / f"{name}.mkv", scene)))
        stick_person.write_openpose(tmp_path / "joints" / name, [[one] for one in scene.joints])
    options = (f"--joints={tmp_path}/joints", "--to=data", "--size=64", "--processes=1")
    found = killed(tmp_path / "forks", "command", 5, 1, "prepare", *given, *options)
    whole = tmp_path / "forks" / "undisturbed" / "data"
    for name in found["folders"]:
        made = tmp_path / "forks" / name / "data"
        for split in ("train", "test"):
            one, other = Source(whole, split), Source(made, split)
            assert [clip.name for clip in one.clips] == [clip.name for clip in other.clips]
            for clip in one.clips:
                for view in clip.views:
                    for stream in one.streams:
                        np.testing.assert_array_equal(
                            one.read(clip.name, view, stream), other.read(clip.name, view, stream)
                        )


@pytest.mark.slow
def test_synthesis_that_is_killed_leaves_no_half_video_and_ends_as_undisturbed(tmp_path):
    run = tmp_path / "run"
    trained = psrjax("train", "--config=mfci:tiny", f"--workdir={run}", "--config.steps=1")
    assert trained.returncode == 0, trained.stderr[-2000:]
    options = (f"--run={run}", "--driving=synthetic", "--output=made/out.mp4", "--overwrite")
    found = killed(tmp_path / "forks", "command", 5, 2, "synthesize", *options)
    whole = frames(tmp_path / "forks" / "undisturbed" / "made" / "out.mp4")
    for name in found["folders"]:
        made = tmp_path / "forks" / name / "made"
        np.testing.assert_array_equal(frames(made / "out.mp4"), whole)


def frames(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
