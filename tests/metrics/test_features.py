"""The frozen networks, converted from their published names, equal PyTorch's on recorded values."""

import json
import runpy
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.metrics import features
from psrjax.ops import geometry
from psrjax.pretrained import alexnet, convert, i3d, inception, lpips, registry, vgg

SCRIPT = Path(__file__).parents[1] / "golden" / "features.py"
golden = types.SimpleNamespace(**runpy.run_path(str(SCRIPT)))
NAMES = json.loads(golden.NAMES.read_text())
VALUES = np.load(golden.FILE)
KINDS = {"alexnet": "torchvision", "vgg16": "torchvision", "vgg19": "torchvision"}
KINDS |= {"lpips_alex": "lpips", "lpips_vgg": "lpips", "inception": "fid-inception", "i3d": "i3d"}


def weights(name):
    saved = {key: golden.seeded(key, tuple(shape)) for key, shape in NAMES[name].items()}
    found, made = convert.convert_arrays(KINDS[name], saved, where=name)
    assert found == {"i3d": "i3d_whole"}.get(name, name)
    return made


def picture(name):
    return jnp.asarray(golden.picture(name, golden.INPUTS[name]))


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "vgg19"])
def test_torchvisions_networks_equal_pytorch(name):
    if name == "alexnet":
        found = list(alexnet.features(weights(name), picture("frames")).values())
    else:
        layers = vgg.LPIPS_LAYERS if name == "vgg16" else vgg.FIRSTS
        seen = vgg.features(weights(name), picture("frames"), layers)
        found = [seen[layer] for layer in layers]
    for index, tap in enumerate(found):
        expected = VALUES[f"{name}_{index + 1}"]
        np.testing.assert_allclose(tap[:1, ..., ::14], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_equals_the_lpips_package(net):
    backbone, heads = weights(lpips.BACKBONES[net]), weights(f"lpips_{net}")
    found = lpips.distance(backbone, heads, picture("frames"), picture("other"), net=net)
    np.testing.assert_allclose(found, VALUES[f"lpips_{net}"], rtol=1e-4)
    frames = golden.natural()
    found = features.lpips_distance(backbone, heads, frames[:2], frames[3:5], net=net)
    np.testing.assert_allclose(found, VALUES[f"lpips_{net}_natural"], rtol=1e-4)
    same = lpips.distance(backbone, heads, picture("frames"), picture("frames"), net=net)
    assert (np.asarray(same) == 0).all()


def test_inception_equals_pytorch_fid():
    given = 2 * picture("inception") - 1
    found = jax.jit(inception.features)(weights("inception"), given)
    for part, value in found.items():
        np.testing.assert_allclose(
            value, VALUES[f"inception_{part}"], rtol=1e-3, atol=1e-3, err_msg=part
        )


@pytest.mark.parametrize(("name", "size"), [("resized_up", (91, 87)), ("resized_down", (29, 31))])
def test_the_resize_of_fid_and_fvd_equals_pytorchs_without_antialiasing(name, size):
    found = geometry.resize(picture("frames")[:1], height=size[0], width=size[1], antialias=False)
    np.testing.assert_allclose(found, VALUES[name], atol=1e-6)


def test_fid_of_8_bit_frames_sees_what_pytorch_sees():
    found = features.of_frames(weights("inception"), jnp.asarray(golden.natural()[:1]))
    np.testing.assert_allclose(found["features"], VALUES["fid_natural"], rtol=1e-3, atol=1e-3)


def test_fvd_of_8_bit_clips_is_of_what_the_whole_i3d_of_pytorch_sees():
    found = features.of_clips(weights("i3d"), jnp.asarray(golden.natural()[None]))
    for part, value in found.items():
        expected = VALUES[f"fvd_natural_{part}"]
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-3, err_msg=part)


def test_the_top_of_i3d_equals_pytorch():
    tap = jnp.asarray(np.abs(golden.seeded("Mixed_4b", golden.TAP)) * 40)
    found = jax.jit(i3d.classify_features)(weights("i3d"), tap)
    for part, value in found.items():
        np.testing.assert_allclose(value, VALUES[f"i3d_{part}"], rtol=1e-3, atol=1e-3, err_msg=part)


LARGE = ("i3d", "i3d_whole", "inception")  # their random weights take long to compile


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in registry.NETWORKS],
)
def test_every_network_has_seeded_random_weights_of_its_shapes(name):
    found = registry.load(f"{name}:random")
    shapes = {unit: {k: v.shape for k, v in parts.items()} for unit, parts in found.items()}
    assert shapes == registry.shapes(name)
