"""INTERnet's animation: absolute and relative motion, best frames, through the first-order model's
converted checkpoint; what it refuses."""

from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.data import video
from psrjax.errors import UserError
from psrjax.importers import first_order_model
from psrjax.inference import transfer
from psrjax.training import checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the public project's modules with random weights (64x64, 4 key points)."""
    folder = tmp_path_factory.mktemp("converted") / "run"
    first_order_model.convert(
        GOLDEN / "first_order_model.pth.tar", GOLDEN / "first_order_model.yaml", folder
    )
    method, variables, config, _ = checkpoint.restore_for_inference(folder)
    heatmap = variables["params"]["keypoints"]["heatmap"]
    heatmap["kernel"] = heatmap["kernel"] * 40  # points that stand somewhere, and move
    return method, variables, config


@pytest.fixture(autouse=True)
def lossless(monkeypatch):
    """What is read back is what was made."""
    write = video.write

    def write_lossless(*frames, **options):
        return write(*frames, **{**options, "lossless": True})

    monkeypatch.setattr(video, "write", write_lossless)


def scene(number):
    """A blob before stripes, at another place for each number."""
    y, x = np.mgrid[:64, :64]
    blob = np.exp(-((x - 16 - 7 * number) ** 2 + (y - 40 + 5 * number) ** 2) / 80.0)
    stripes = 60 + 40 * np.sin(x / 3.0)
    return np.stack([stripes + 150 * blob, stripes, 200 - 100 * blob], -1).clip(0, 255).astype("u1")


def animate(run, tmp_path, source, driven, **options):
    method, variables, config = run
    picture, clip, out = (str(tmp_path / name) for name in ("s.png", "d.mkv", "out.mkv"))
    cv2.imwrite(picture, source[..., ::-1])
    video.write(clip, np.stack(driven), fps=10)
    reads = method.synthesis_reads
    inputs = transfer.open_inputs(config, source=picture, driving=clip, reads=reads)
    options = transfer.TransferOptions(**{"check_person": False, "window": 1, **options})
    transfer.write(method, variables, config, inputs, out, options=options)
    return video.read(out).frames.astype(int)


RELATIVE = {"fields": {"relative": True}}


def test_relative_motion_begins_with_the_source_as_it_is(run, tmp_path):
    source = scene(0)
    (still,) = animate(run, tmp_path, source, [source])
    moved = animate(run, tmp_path, source, [scene(2), scene(4), scene(2)], **RELATIVE)
    assert np.abs(moved[0] - still).max() <= 3 and np.abs(moved[2] - still).max() <= 3
    assert np.abs(moved[1] - still).max() > 5
    absolute = animate(run, tmp_path, source, [scene(2), scene(4), scene(2)])
    assert np.abs(absolute[0] - still).max() > 5


def test_with_the_best_frame_the_source_stands_where_the_poses_meet(run, tmp_path):
    source = scene(1)
    (still,) = animate(run, tmp_path, source, [source])
    driven = [scene(4), scene(3), scene(1), scene(5)]
    found = animate(run, tmp_path, source, driven, find_best_frame=True, **RELATIVE)
    apart = np.abs(found - still).mean((1, 2, 3))
    assert apart.argmin() == 2 and np.abs(found[2] - still).max() <= 3
    first = animate(run, tmp_path, source, driven, **RELATIVE)
    assert np.abs(first - still).mean((1, 2, 3)).argmin() == 0


def test_adapted_movements_are_those_of_the_scale(run, tmp_path):
    driven = [scene(2), scene(4)]
    scaled = animate(run, tmp_path, scene(0), driven, adapt_scale=True, **RELATIVE)
    plain = animate(run, tmp_path, scene(0), driven, **RELATIVE)
    assert np.abs(scaled[0] - plain[0]).max() <= 3  # nothing has moved yet
    assert np.abs(scaled[1] - plain[1]).max() > 0


def test_windows_do_not_show(run, tmp_path):
    driven = [scene(number) for number in range(5)]
    whole = animate(run, tmp_path, scene(0), driven, window=5)
    parts = animate(run, tmp_path, scene(0), driven, window=2)
    assert np.abs(whole - parts).max() <= 1


def test_the_motion_is_drawn(run, tmp_path):
    animate(run, tmp_path, scene(0), [scene(1), scene(2)], intermediates=True)
    shown = video.read(tmp_path / "out.intermediates.mkv").frames
    labels = ("source", "driving", "result", "confidence", "flow", "weights")
    assert shown.shape[0] == 2 and shown.shape[2] == len(labels) * 192


def test_the_optical_flow_is_drawn_with_its_occlusions_where_it_is_known(run):
    method, variables, _ = run
    frames = np.stack([scene(1), scene(1), scene(2)])[None].astype(np.float32) / 127.5 - 1.0
    forward = np.zeros((1, 3, 64, 64, 2), np.float32)
    forward[:, 1:, 20:40, 20:40] = (3.0, 0.0)  # with nothing that comes back: not to be trusted
    batch = {"source": jnp.asarray(frames[:, :1]), "target": jnp.asarray(frames)}
    flows = {"target_flow_forward": jnp.asarray(forward), "target_flow": jnp.zeros_like(forward)}

    @jax.jit
    def intermediates(batch):
        carry = method.apply(variables, batch, method="start")
        made, _ = method.apply(variables, batch, carry, True, method="synthesize")
        return made["intermediates"]

    assert not intermediates(batch).keys() & {"optical_flow", "occlusion"}
    found = intermediates(batch | flows)
    trusted = np.ones((64, 64))
    trusted[19:41, 19:41] = 0.0  # a pixel further: the motion's boundary
    trusted[[19, 19, 40, 40], [19, 40, 19, 40]] = 1.0  # less its corners
    for number in range(3):  # the first frame shows what is known of the second
        np.testing.assert_array_equal(found["occlusion"][0, number, ..., 0], trusted)
        np.testing.assert_array_equal(found["optical_flow"][0, number], forward[0, 1])


def test_a_source_of_another_shape_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"s.png: 64x40 is of another shape than the run's 64x64"):
        animate(run, tmp_path, scene(0)[:40], [scene(1)])
