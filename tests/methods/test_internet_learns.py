"""INTERnet's tiny preset learns, in minutes, to move people it has not seen."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from psrjax.evaluation import method_evaluation, score_table
from psrjax.training import checkpoint

CONFIG = Path(__file__).parents[2] / "configs" / "internet.py"


def whole_clips(samples, label):
    """Returns the frames of every clip (t h w c), its windows one after the other."""
    clips = {}
    for sample in samples:
        clips.setdefault(sample.clip, []).append(sample.videos[label].astype(float))
    return [np.concatenate(windows) for windows in clips.values()]


@pytest.mark.slow
def test_tiny_shows_unseen_people_nearer_to_the_truth_than_a_copy_and_moves_them(tmp_path):
    # Of the person only: after so few steps the still background is worse than a copy has it.
    # In a process of its own, on one device: eight cannot share its batches of four.
    start = "from psrjax.cli.main import main; main()"
    command = ["train", f"--config={CONFIG}:tiny", f"--workdir={tmp_path}"]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", start, *command], env=environment, check=True)
    method, variables, config, _ = checkpoint.restore_for_inference(tmp_path)
    found = method_evaluation.evaluate(method, variables, config, windows="clips", samples=1000)
    rows = {row["name"]: row["metrics"] for row in score_table.overall(found.rows)}
    made, copied = rows["joint"], rows["copy_source"]
    assert made["m_psnr_in"] > copied["m_psnr_in"] + 0.5
    assert made["m_ssim_in"] > copied["m_ssim_in"]
    made, truth = (whole_clips(found.samples, label) for label in ("joint", "truth"))
    for frames, true in zip(made, truth, strict=True):
        others = np.roll(frames, len(frames) // 2, axis=0)  # made of other driving frames
        assert np.mean((frames - true) ** 2) < np.mean((others - true) ** 2)
