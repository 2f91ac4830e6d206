"""INTERnet's tiny preset learns, in minutes, to move people it has not seen."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.evaluation import method_evaluation, score_table
from psrjax.training import checkpoint

CONFIG = Path(__file__).parents[2] / "configs" / "internet.py"


def point_error(method, variables, made, truth):
    """Mean distance between the run's own key points in made and in true frames, in pixels."""

    def points(video):
        frames = jnp.asarray(video, jnp.float32)[None] / 127.5 - 1.0
        found = method.apply(variables, {"target": frames}, method="poses")
        return np.asarray(found) * np.array(video.shape[2:0:-1]) / 2.0

    return np.linalg.norm(points(made) - points(truth), axis=-1).mean()


@pytest.mark.slow
def test_tiny_moves_people_it_has_not_seen_nearer_to_the_truth_than_the_copied_source(tmp_path):
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
    errors = {
        label: np.mean(
            [
                point_error(method, variables, sample.videos[label], sample.videos["truth"])
                for sample in found.samples
            ]
        )
        for label in ("joint", "copy_source")
    }
    assert errors["joint"] < 0.9 * errors["copy_source"]
