"""Super SloMo, converted from its published names, is the published network in PyTorch's order."""

import datetime
import functools
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from psrjax.errors import UserError
from psrjax.metrics import interpolation
from psrjax.pretrained import convert, registry, super_slomo, torch_files

FLOW, SYNTHESIS = "state_dictFC", "state_dictAT"


@functools.cache
def published():
    """A checkpoint as the published training writes it, of random weights."""
    rng = np.random.default_rng(0)
    found = {"Detail": "End to end Super SloMo.", "epoch": 1, "timestamp": datetime.datetime.now()}
    sizes = {FLOW: (6, 4), SYNTHESIS: (20, 5)}
    downs = [(32, 64, 5), (64, 128, 3), (128, 256, 3), (256, 512, 3), (512, 512, 3)]
    ups = [(512, 512), (512, 256), (256, 128), (128, 64), (64, 32)]
    for part, (inputs, outputs) in sizes.items():
        layers = {"conv1": (32, inputs, 7), "conv2": (32, 32, 7), "conv3": (outputs, 32, 3)}
        for i, (a, b, k) in enumerate(downs, 1):
            layers |= {f"down{i}.conv1": (b, a, k), f"down{i}.conv2": (b, b, k)}
        for i, (a, b) in enumerate(ups, 1):
            layers |= {f"up{i}.conv1": (b, a, 3), f"up{i}.conv2": (b, 2 * b, 3)}
        found[part] = {}
        for name, (o, i, k) in layers.items():
            std = np.sqrt(2.0 / (i * k * k))
            kernel = rng.normal(0.0, std, (o, i, k, k)).astype(np.float32)
            found[part][f"{name}.weight"] = kernel
            found[part][f"{name}.bias"] = rng.normal(0.0, 0.1, o).astype(np.float32)
    return found


def layer(saved, name, x):
    """A convolution of (c h w) in PyTorch's order, and a leaky ReLU."""
    kernel = saved[f"{name}.weight"]
    side = kernel.shape[-1]
    _, h, w = x.shape
    padded = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2)).astype(np.float32)
    y = saved[f"{name}.bias"][:, None, None] + sum(
        np.einsum("oi,ihw->ohw", kernel[..., i, j], padded[:, i : i + h, j : j + w], optimize=True)
        for i in range(side)
        for j in range(side)
    )
    return np.where(y > 0, y, 0.1 * y)


def unet(saved, x):
    x = layer(saved, "conv2", layer(saved, "conv1", x))
    kept = [x]
    for i in range(1, 6):
        x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
        x = layer(saved, f"down{i}.conv2", layer(saved, f"down{i}.conv1", x))
        kept.append(x)
    kept.pop()
    for i in range(1, 6):
        rows, columns = (np.linspace(0, n - 1, 2 * n) for n in x.shape[1:])
        at = np.stack(np.meshgrid(rows, columns, indexing="ij"))
        x = np.stack([ndimage.map_coordinates(c, at, order=1) for c in x])
        x = layer(saved, f"up{i}.conv1", x)
        x = layer(saved, f"up{i}.conv2", np.concatenate([x, kept.pop()]))
    return layer(saved, "conv3", x)


def warp(image, flow):
    """`grid_sample` with align_corners of (c h w), at 2 (x / W - 1/2): pixel x (W - 1) / W."""
    h, w = image.shape[1:]
    y, x = np.mgrid[:h, :w].astype(np.float64)
    at = np.stack([(y + flow[1]) * (h - 1) / h, (x + flow[0]) * (w - 1) / w])
    return np.stack([ndimage.map_coordinates(c, at, order=1, mode="grid-constant") for c in image])


def between(saved, before, after):
    """The published script at t = 1/2, on frames (h w 3) in [0, 1]."""
    mean = np.array((0.429, 0.431, 0.397))[:, None, None]
    one, two = (frame.transpose(2, 0, 1) - mean for frame in (before, after))
    flow = unet(saved[FLOW], np.concatenate([one, two]).astype(np.float32))
    f01, f10 = flow[:2], flow[2:]
    ft0, ft1 = -0.25 * f01 + 0.25 * f10, 0.25 * f01 - 0.25 * f10
    seen = [one, two, f01, f10, ft1, ft0, warp(two, ft1), warp(one, ft0)]
    found = unet(saved[SYNTHESIS], np.concatenate(seen).astype(np.float32))
    visible = 1 / (1 + np.exp(-found[4]))
    first, second = warp(one, found[:2] + ft0), warp(two, found[2:4] + ft1)
    made = (0.5 * visible * first + 0.5 * (1 - visible) * second) / 0.5
    return (made + mean).transpose(1, 2, 0)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(1).uniform(0, 1, (2, 32, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The weights of a published file, by way of `psrjax convert`."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "SuperSloMo.ckpt").write_bytes(b"published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSRJAX_WEIGHTS", str(folder))
        patch.setattr(convert.torch_files, "load", lambda path: published())
        convert.convert("super-slomo", folder / "SuperSloMo.ckpt", folder)
        return registry.load("super_slomo")


def test_the_frame_between_is_the_published_scripts(weights, frames):
    expected = between(published(), *frames)
    found = super_slomo.halfway(weights, *jnp.asarray(frames)[:, None])[0]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(expected - frames.mean(0)).max() > 0.1  # the flows move something


def test_frames_of_other_sizes_go_on_beyond_their_borders(weights, frames):
    cut = frames[:, :, :40]
    whole = np.pad(cut, ((0, 0), (0, 0), (0, 24), (0, 0)), "edge")
    found, expected = (
        super_slomo.halfway(weights, *jnp.asarray(pair)[:, None]) for pair in (cut, whole)
    )
    np.testing.assert_allclose(found, expected[:, :, :40], atol=1e-5)


def test_interp_psnr_takes_it(weights, frames):
    video = (255 * np.concatenate([frames, frames[:1]])).astype(np.uint8)
    made = super_slomo.halfway(weights, *(jnp.asarray(video[i : i + 1]) / 255 for i in (0, 2)))
    error = np.square(np.clip(np.round(255 * made[0]), 0, 255) - video[1].astype(float)).mean()
    found = interpolation.interp_psnr(
        video, video, lambda *pair: interpolation.learned_halfway(weights, *pair)
    )
    np.testing.assert_allclose(found, [10 * np.log10(255**2 / error)], atol=0.01)


def test_the_date_in_a_checkpoint_is_read(tmp_path):
    saved = {"timestamp": datetime.datetime(2019, 1, 2), "epoch": 3}
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(saved, protocol=2))
    assert torch_files.load(tmp_path / "a.ckpt") == saved


def test_a_checkpoint_of_something_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(convert.torch_files, "load", lambda path: {FLOW: {}})
    (tmp_path / "a.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match="holds no 'state_dictAT'"):
        convert.convert("super-slomo", tmp_path / "a.ckpt", tmp_path)
