"""Every command that writes ends with one line and exit code 2 where the disk is full."""

import subprocess

import pytest
import stick_person
from command_line import psrjax

from psrjax import config as config_lib
from psrjax.synthetic import dataset

pytestmark = pytest.mark.slow
TINY = "--config=psrnet:tiny,layer1"
# DISK is the full disk, RUN a trained run, DATA its dataset, CLIP a video with JOINTS.
COMMANDS = """
train CONFIG --workdir=DISK/run --config.steps=1
evaluate --workdir=RUN --output=DISK/scores
synthesize --run=RUN --output=DISK/made.mp4
synthesize --run=RUN --output=DISK/made.mkv
synthesize --run=RUN --output=DISK/made.gif
synthesize --run=RUN --output=DISK/made.webp
synthesize --run=RUN --output=DISK/made/
export RUN DISK/run.safetensors
report RUN --output=DISK/report.html
camera --data=DATA --split=train --between=cam1,cam2 --output=DISK/camera.json
prepare CLIP --joints=JOINTS --to=DISK/data --size=64 --processes=1
data show DATA --to=DISK/show
bench CONFIG --stage=layer1 --runs=1 --pairs=1 --json=DISK/bench.json
reproduce psrnet-table3 --scale=tiny --workdir=DISK/table
demo --method=psrnet --workdir=DISK/demo
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Gives {word of `COMMANDS`: what it stands for}; skips where no disk can be made."""
    root = tmp_path_factory.mktemp("full")
    disk = root / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "full", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        run = root / "run"
        trained = psrjax("train", TINY, f"--workdir={run}", "--config.steps=1")
        assert trained.returncode == 0, trained.stderr[-2000:]
        scene = stick_person.make_scene(12, walk=1.0)
        clip = stick_person.write_video(root / "clip.mkv", scene)
        stick_person.write_openpose(root / "joints" / "clip", [[one] for one in scene.joints])
        with pytest.raises(OSError), open(disk / "rubbish", "wb", buffering=0) as file:
            while file.write(bytes(512)):
                pass
        data = dataset.resolve_path(config_lib.load("psrnet:tiny").data)["path"]
        words = {"DISK": disk, "RUN": run, "DATA": data, "CLIP": clip, "JOINTS": root / "joints"}
        yield {word: str(place) for word, place in words.items()} | {"CONFIG": TINY}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("command", COMMANDS.strip().splitlines())
def test_a_full_disk_is_told_in_one_line(command, places):
    for word, place in places.items():
        command = command.replace(word, place)
    done = psrjax(*command.split())
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert places["DISK"] in last and "the disk is full: make room, or write elsewhere" in last
