"""MediaPipe's environment and the pipe to it; a few lines stand in for the model."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from psrjax.data import video
from psrjax.errors import UserError
from psrjax.ops import pose
from psrjax.prepare.common import detector

# Finds "the person" at the brightest pixel: landmark i lies i pixels to the right of it.
FAKE = """
import os
import types
import numpy as np

class Pose:
    def __init__(self, **options):
        assert os.environ.get("MPLBACKEND") in (None, "agg")  # its matplotlib has no other
        assert options["model_complexity"] == 1 and options["enable_segmentation"]
        self.calls = 0

    def process(self, image):
        self.calls += 1
        print("chatter of the library")
        if image.max() == 77:
            raise RuntimeError("the model broke")
        if image.max() < 200:
            return types.SimpleNamespace(pose_landmarks=None, segmentation_mask=None)
        height, width = image.shape[:2]
        y, x = np.unravel_index(image[..., 0].argmax(), (height, width))
        mark = lambda i: types.SimpleNamespace(
            x=(x + i + 0.5) / width, y=(y + 0.5) / height, presence=1.0,
            visibility=0.05 if i == 15 else 0.5 + 0.01 * self.calls)
        marks = types.SimpleNamespace(landmark=[mark(i) for i in range(33)])
        return types.SimpleNamespace(
            pose_landmarks=marks, segmentation_mask=(image[..., 0] / 255.0).astype(np.float32))

    def close(self):
        pass

solutions = types.SimpleNamespace(pose=types.SimpleNamespace(Pose=Pose))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python whose `mediapipe` is the one above."""
    folder = tmp_path_factory.mktemp("fake python")
    (folder / "mediapipe.py").write_text(FAKE)
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def picture(x, y, brightness=255, size=(24, 70)):
    image = np.zeros((*size, 3), np.uint8)
    image[y, x] = brightness
    return image


def test_frames_come_back_as_joints_and_masks_in_order(python):
    with detector.PoseDetector(python) as running:
        frames = [picture(4, 5), picture(9, 7), picture(0, 0, 100), picture(2, 3, size=(31, 65))]
        found = list(running.detect(frames))
    left_hip, nose = 12, 0
    np.testing.assert_allclose(found[0].joints[nose], [4, 5, 0.51], atol=1e-4)
    np.testing.assert_allclose(found[1].joints[left_hip], [9 + 23, 7, 0.52], atol=1e-4)
    assert found[0].mask[5, 4] == 255 and found[0].mask.sum() == 255
    assert not found[2].joints.any() and not found[2].mask.any()
    assert found[3].mask.shape == (31, 65)


def test_a_notebooks_backend_of_matplotlib_is_not_mediapipes(python, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    with detector.PoseDetector(python) as running:
        assert len(list(running.detect([picture(4, 5)]))) == 1


def test_a_joint_that_is_hardly_seen_is_missing(python):
    with detector.PoseDetector(python) as running:
        (found,) = running.detect([picture(4, 5)])
    left_wrist = pose.NAMES.index("left wrist")  # MediaPipe's landmark 15
    assert not found.joints[left_wrist].any()


def test_every_clip_begins_anew(python):
    with detector.PoseDetector(python) as running:
        first, second = (list(running.detect([picture(4, 5)] * 3)) for _ in range(2))
    np.testing.assert_array_equal(first[2].joints, second[2].joints)
    assert first[0].joints[0, 2] != first[1].joints[0, 2]  # within one it goes on


def test_a_failing_model_is_reported_with_its_error_and_the_other_sources(python):
    with detector.PoseDetector(python) as running:
        with pytest.raises(UserError, match="the model broke.*OpenPose"):
            list(running.detect([picture(4, 5), picture(4, 5, 77)]))


def test_a_python_without_mediapipe_is_reported():
    with pytest.raises(UserError, match="No module named 'mediapipe'"):
        detector.PoseDetector(Path(sys.executable))


def test_the_worker_ends_when_its_parent_does(python):
    code = (
        "import os; from psrjax.prepare.common.detector import PoseDetector; "
        f"d = PoseDetector({str(python)!r}); print(d._process.pid, flush=True); os._exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    worker = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            break
        threading.Event().wait(0.1)
    else:
        os.kill(worker, 9)
        raise AssertionError("the worker outlived its parent")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PSRJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(detector.PYTHON_VARIABLE, raising=False)
    return tmp_path / "cache"


def test_the_environment_is_made_once_though_two_ask(cache):
    made = []

    def install(folder, ready):
        made.append(folder)
        threading.Event().wait(0.2)
        ready.parent.mkdir(parents=True)
        ready.write_text("python")

    results = []
    threads = [
        threading.Thread(target=lambda: results.append(detector.environment(install=install)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(set(results)) == 1 and results[0].is_file()


def test_an_environment_that_was_not_finished_is_not_taken_for_whole(cache):
    def broken(folder, ready):
        ready.parent.mkdir(parents=True)
        ready.write_text("half")
        raise KeyboardInterrupt

    def whole(folder, ready):
        assert not folder.exists()
        ready.parent.mkdir(parents=True)
        ready.write_text("whole")

    with pytest.raises(KeyboardInterrupt):
        detector.environment(install=broken)
    assert detector.environment(install=whole).read_text() == "whole"


def test_without_a_python_for_it_the_error_names_the_other_sources(cache, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    monkeypatch.setenv("PATH", str(cache))
    with pytest.raises(UserError, match="3.10 to 3.12; this is 3.14.*MEDIAPIPE_PYTHON.*--joi"):
        detector.environment()


def test_without_a_package_index_the_error_names_the_other_sources(cache, monkeypatch):
    real = subprocess.run

    def run(command, **options):
        if "pip" not in command:
            return real([sys.executable, "-c", ""], **options)
        said = "import sys; sys.exit('ERROR: No matching distribution found for mediapipe')"
        return real([sys.executable, "-c", said], **options)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match="cannot be installed .*No matching.*OpenPose"):
        detector.environment()
    assert not (cache / f"mediapipe-{detector.VERSION}" / "complete").exists()


def test_a_python_of_the_users_own_is_used(cache, monkeypatch, python):
    monkeypatch.setenv(detector.PYTHON_VARIABLE, str(python))
    assert detector.environment() == python
    monkeypatch.setenv(detector.PYTHON_VARIABLE, "/nowhere/python")
    with pytest.raises(UserError, match="/nowhere/python: no Python there"):
        detector.environment()


JUGGLE = Path(__file__).parents[4] / "shared" / "media" / "juggle" / "juggle.mp4"


@pytest.mark.slow
def test_mediapipe_finds_the_juggler_where_he_is():
    """By eye: in the first frames he stands at columns 590 to 870, rows 70 to 690."""
    from psrjax import io

    folder = io.cache_folder() / f"mediapipe-{detector.VERSION}"
    if not (folder / "complete").is_file() or not JUGGLE.is_file():
        pytest.skip("needs MediaPipe's environment in the cache, and ../shared/media")
    frames = [frame.image for frame, _ in zip(video.decode(JUGGLE), range(3))]
    with detector.PoseDetector() as running:
        found = list(running.detect(frames))
    for one in found:
        body = one.joints[list(range(15))]
        assert (body[:, 2] > 0.3).all()
        assert (590 < body[:, 0]).all() and (body[:, 0] < 870).all()
        nose, ankle = one.joints[0], one.joints[14]
        assert 70 < nose[1] < 220 and 500 < ankle[1] < 690
        assert one.mask[int(one.joints[8, 1]), int(one.joints[8, 0])] > 200
        assert 0.02 < (one.mask > 127).mean() < 0.2
