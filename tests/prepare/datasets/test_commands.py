"""`psrjax prepare --dataset` as people type it, and the trainings that what it makes is for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import ntu_fixture
import numpy as np
import person_clips
import pytest

from psrjax.data import store

CONFIGS = Path(__file__).parents[3] / "configs"


def psrjax(*arguments):
    """Runs the command in a process of its own, on one CPU device."""
    start = "from psrjax.cli.main import main; main()"
    command = [sys.executable, "-c", start, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_folder_becomes_a_data_set_and_what_is_left_out_is_told(tmp_path):
    raw, target = tmp_path / "raw videos", tmp_path / "sét"
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), np.uint8)
    for split in ("train", "test"):
        person_clips.write_pictures(raw / split / f"{split}_1", frames)
    (raw / "train" / "cut.mp4").write_bytes(b"\0" * 50)
    done = psrjax(
        "prepare", "--dataset", "dance_fashion", raw, "--to", target, "--size=32", "--processes=1"
    )
    assert done.returncode == 2
    assert f"2 clips of dance_fashion in {target}" in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"1 clips left out: .*cut\.mp4", last) and "Traceback" not in done.stderr
    assert set(store.read_manifest(target)["splits"]) == {"train", "test"}
    refused = psrjax("prepare", "--dataset=iper", raw, "--to", tmp_path / "x", "--holdout=0.5")
    assert refused.returncode == 2
    assert re.search("--holdout is not a flag for a published data ?set", refused.stderr)


SHORT = ("--config.steps=4", "--config.checkpoint_steps=4", "--config.log_steps=2")


def prepared(name, folder, size="64"):
    """Makes the dataset `s` of the folder's `raw`."""
    flags = (f"--dataset={name}", f"--size={size}")
    done = psrjax("prepare", *flags, folder / "raw", "--to", folder / "s")
    assert done.returncode == 0, done.stderr[-2000:]


def trained(config, data, workdir, *more):
    done = psrjax(
        "train", f"--config={CONFIGS / config}", f"--config.data.path={data}",
        f"--workdir={workdir}", *more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_psrnet_trains_on_ntu(tmp_path):
    ntu_fixture.write(tmp_path / "raw")
    prepared("ntu_rgbd", tmp_path, size="56,96")  # multiples of 4, as PSR-Net takes them
    trained("psrnet.py:tiny", tmp_path / "s", tmp_path / "run", *SHORT)
    assert (tmp_path / "run").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dance_fashion", "video_folder"])
def test_internet_trains_on_fashion_and_on_a_folder(tmp_path, name):
    for person in range(3):
        made = person_clips.clip(frames=20, person=person)
        if name == "dance_fashion":
            split = "test" if person == 2 else "train"
            person_clips.write_pictures(tmp_path / "raw" / split / f"p{person}", made["frames"])
        else:
            person_clips.write_mp4(tmp_path / "raw" / f"p{person}.mp4", made["frames"])
            person_clips.write_openpose(tmp_path / "raw", f"p{person}", made["joints"])
    prepared(name, tmp_path)
    gap = "--config.data.sampling.gap_seconds=0.2"
    trained("internet.py:tiny", tmp_path / "s", tmp_path / "run", gap, *SHORT)


@pytest.mark.slow
def test_mfci_trains_on_iper(tmp_path):
    person_clips.write_iper(tmp_path / "raw", frames=20)
    prepared("iper", tmp_path)
    trained("mfci.py:tiny", tmp_path / "s", tmp_path / "run", *SHORT)


@pytest.mark.slow
def test_hpt_trains_on_a_single_person(tmp_path):
    person_clips.write_person(tmp_path / "raw", frames=40)
    prepared("single_person", tmp_path)
    trained("hpt.py:tiny", tmp_path / "s", tmp_path / "run", *SHORT)
