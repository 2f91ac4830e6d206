"""Conversion is strict, reads both of PyTorch's formats without it, and runs nothing in a file."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.importers import first_order_model
from psrjax.pretrained import torch_files
from psrjax.training import checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINT, CONFIG = GOLDEN / "first_order_model.pth.tar", GOLDEN / "first_order_model.yaml"
ZIP = GOLDEN / "first_order_model.zip.pth"


@pytest.fixture
def saved(monkeypatch):
    """What the file holds; tests change it before it is converted."""
    found = torch_files.load(CHECKPOINT)
    monkeypatch.setattr(torch_files, "load", lambda path: found)
    return found


def test_both_formats_hold_the_same_numbers():
    old, new = torch_files.load(CHECKPOINT)["kp_detector"], torch_files.load(ZIP)
    assert list(old) == list(new) and len(old) > 20
    for name in old:
        np.testing.assert_array_equal(old[name], new[name])


@pytest.mark.parametrize("path", [CHECKPOINT, ZIP])
def test_a_file_that_is_cut_off_is_told(path, tmp_path):
    part = tmp_path / "part.pth"
    part.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match="part.pth: cannot be read as a PyTorch file"):
        torch_files.load(part)


def test_nothing_in_a_file_is_run(tmp_path):
    file = tmp_path / "evil.pth"
    file.write_bytes(pickle.dumps(print))
    with pytest.raises(UserError, match="builtins.print, which is no tensor"):
        torch_files.load(file)


@pytest.mark.slow
def test_a_checkpoint_becomes_a_run(tmp_path):
    first_order_model.convert(CHECKPOINT, CONFIG, tmp_path / "run")
    method, variables, config, stage = checkpoint.restore_for_inference(tmp_path / "run")
    assert (method.points, config.data.crop, stage) == (4, (64, 64), "joint")
    official = torch_files.load(CHECKPOINT)["generator"]["final.weight"]
    kernel = variables["params"]["generator"]["final"]["kernel"]
    np.testing.assert_array_equal(kernel, official.transpose(2, 3, 1, 0))
    with pytest.raises(UserError, match="holds a run already"):
        first_order_model.convert(CHECKPOINT, CONFIG, tmp_path / "run")


def test_what_is_missing_unexpected_or_of_another_size_is_named(saved, tmp_path):
    def convert():
        first_order_model.convert("x.tar", CONFIG, tmp_path / "run")

    weight = saved["kp_detector"].pop("kp.weight")
    with pytest.raises(UserError, match="'kp_detector.kp.weight' is missing"):
        convert()
    saved["kp_detector"]["kp.weight"] = weight[:3]
    with pytest.raises(UserError, match=r"kp.weight' has shape \(3, .* asks for \(4, "):
        convert()
    saved["kp_detector"]["kp.weight"] = weight
    saved["generator"]["third.weight"] = weight
    with pytest.raises(UserError, match="'generator.third.weight' is unexpected"):
        convert()
    del saved["discriminator"]
    with pytest.raises(UserError, match="holds no 'discriminator'"):
        convert()
    assert not (tmp_path / "run").exists()


def test_configs_that_cannot_be_followed_are_told(tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text(CONFIG.read_text().replace("num_channels: 3", "num_channels: 1"))
    with pytest.raises(UserError, match="num_channels=1 is not supported"):
        first_order_model.read_config(file)
    file.write_text("a: [")
    with pytest.raises(UserError, match="cannot be read as a YAML config"):
        first_order_model.read_config(file)
    file.write_text("a: 1")
    with pytest.raises(UserError, match="has no model_params"):
        first_order_model.read_config(file)
