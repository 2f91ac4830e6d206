"""A terminated run leaves no process behind, and resumes."""

import re
import signal
import subprocess
import sys
import time

import pytest
import stick_person

from psrjax.data import inspection


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process_and_goes_on(how, tmp_path):
    long = stick_person.make_scene(60, walk=0.5)
    for number in range(4):
        stick_person.write_video(tmp_path / f"v{number}.mkv", long)
        stick_person.write_openpose(tmp_path / f"v{number}", [[one] for one in long.joints])
    command = [sys.executable, "-c", "from psrjax.cli.main import main; main()", "prepare"]
    command += [str(tmp_path / f"v{n}.mkv") for n in range(4)]
    command += ["--joints", str(tmp_path), "--to", str(tmp_path / "set"), "--size=32"]
    run = subprocess.Popen([*command, "--processes=2"], stderr=subprocess.DEVNULL)
    while not list((tmp_path / "set.work").glob("*/prepare.json")):
        assert run.poll() is None
        time.sleep(0.1)
    run.send_signal(how)
    run.wait(60)
    assert not (tmp_path / "set").exists()
    left = len(list((tmp_path / "set.work").glob("*/prepare.json")))
    assert 0 < left < 4
    time.sleep(3)
    if how != signal.SIGKILL:
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        assert str(tmp_path) not in listed
    done = subprocess.run([*command, "--processes=1"], capture_output=True, text=True, check=True)
    new = int(re.search(r"4 clips in .*, (\d) of them new", done.stdout)[1])
    assert new <= 4 - left and inspection.check(tmp_path / "set") == []
