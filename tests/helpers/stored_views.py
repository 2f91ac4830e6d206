"""A small stored dataset: three views of some clips, every stream, with recognisable values."""

import numpy as np
import pytest

from psrjax.data import codec, store

VIEWS = ("cam1", "cam2", "cam3")
HEIGHT, WIDTH = 24, 32


def make_view(clip, view, frames=12, **changes):
    """A view whose pixels hold (number of the view, frame, column): any mix-up shows."""
    number = VIEWS.index(view) + 1
    time = np.arange(frames, dtype=np.uint8)[:, None, None]
    column = np.broadcast_to(np.arange(WIDTH, dtype=np.uint8), (frames, HEIGHT, WIDTH))
    rgb = np.stack([np.full_like(column, number), np.broadcast_to(time, column.shape), column], -1)
    gray = rgb[..., 1]
    flow = (rgb[..., 1:] + 0.5).astype(np.float16)
    joints = np.zeros((frames, 26, 3), np.float32)
    joints[..., 0] = (2.0 * np.arange(26) + 1) / WIDTH - 1  # joint j is at column j, row 5
    joints[..., 1] = (2.0 * 5 + 1) / HEIGHT - 1
    joints[..., 2] = 1.0
    joints[:, 3] = 0.0  # missing
    others = [other for other in VIEWS if other != view]
    sources = {other: VIEWS.index(other) + 1 for other in others}
    streams = {
        "frames": rgb,
        "mask": gray * 10,
        "iuv": rgb,
        "depth": (gray / 100).astype(np.float16),
        "flow": flow,
        "flow_forward": -flow,
        "flow_confidence": gray + 1,
        "mesh_flow": flow + 1,
        "mesh_label": rgb,
        "joints": joints,
        "joints_3d": joints * 2,
        "face": np.full((frames, HEIGHT, WIDTH), 70000, np.int32) - column.astype(np.int32),
        "background": rgb[0],
        "prior": {other: rgb * 0 + np.uint8(10 * n) for other, n in sources.items()},
        "visibility": {other: np.full_like(gray, n % 3) for other, n in sources.items()},
    }
    changes = {"meta": {"fps": 25.0, "person": clip}, **changes}
    return codec.ClipView(clip=clip, view=view, streams=streams, **changes)


@pytest.fixture(scope="session", name="make_view")
def make_view_fixture():
    return make_view


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory):
    """The folder of a dataset: train with clips a, b, c and test with d, three views each."""
    directory = tmp_path_factory.mktemp("data") / "set"

    def views(clips):
        return (make_view(clip, view) for clip in clips for view in VIEWS)

    store.write(directory, {"train": views("abc"), "test": views("d")}, meta={"near": 1.0})
    return directory
