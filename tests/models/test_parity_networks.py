"""PSR-Net's networks make what PyTorch makes of the same weights (tests/golden/networks.npz)."""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.models import volumetric
from psrjax.nn.discriminators import patch
from psrjax.pretrained import i3d

SCRIPT = Path(__file__).parents[1] / "golden" / "networks.py"
module_spec = importlib.util.spec_from_file_location("golden_networks", SCRIPT)
golden = importlib.util.module_from_spec(module_spec)
module_spec.loader.exec_module(golden)


@pytest.fixture(scope="module")
def expected():
    with np.load(golden.FILE) as file:
        return {key: file[key] for key in file.files}


def seeded(name, shape):
    return jnp.asarray(golden.seeded(name, shape))


def with_seeded_weights(net, name, x):
    """The net's variables, every leaf made from its name: its path below params or batch_stats."""
    variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, True), x)

    def make(path, leaf):
        return seeded("/".join((name, *(key.key for key in path[1:]))), leaf.shape)

    return jax.tree_util.tree_map_with_path(make, variables)


def run(net, name, x, train=True):
    variables = with_seeded_weights(net, name, x)
    apply = functools.partial(net.apply, mutable=["batch_stats"])
    return jax.jit(lambda v, x: apply(v, x, train)[0])(variables, x)


def close(got, want, tolerance=2e-4):
    np.testing.assert_allclose(got, want, atol=tolerance * max(1.0, np.abs(want).max()))


ENCODER, DECODER = volumetric.Encoder(4, 2), volumetric.Decoder(4)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_encoder_and_decoder(mode, expected):
    clip = seeded("clip", (1, 8, 16, 16, 3))
    latent = run(ENCODER, "encoder", clip, mode == "train")
    close(latent, expected[f"latent_{mode}"])
    video = run(DECODER, "decoder", jnp.asarray(expected[f"latent_{mode}"]), mode == "train")
    close(video["head"], expected[f"video_{mode}"])


def test_gradient_of_the_whole_generator(expected):
    clip = seeded("clip", (1, 8, 16, 16, 3))
    nets = {"encoder": ENCODER, "decoder": DECODER}
    inputs = {"encoder": clip, "decoder": jnp.asarray(expected["latent_train"])}
    weights = {name: with_seeded_weights(net, name, inputs[name]) for name, net in nets.items()}

    def total(clip, weights):
        x = clip
        for name, net in nets.items():
            x, _ = net.apply(weights[name], x, True, mutable=["batch_stats"])
        return jnp.sin(x["head"]).sum()

    close(jax.jit(jax.grad(total))(clip, weights), expected["clip_gradient"], 2e-3)


def test_frame_discriminator(expected):
    made = run(patch.PatchDiscriminator(4), "patch", seeded("frames", (2, 32, 32, 6)))
    close(made["logits"], expected["patch_logits"])


def test_video_discriminator(expected):
    made = run(patch.VideoDiscriminator(4), "video", seeded("movie", (2, 9, 64, 64, 3)))
    close(made["logits"], expected["video_logits"])


def test_i3d(expected):
    weights = {
        unit: {part: golden.seeded(f"i3d/{unit}/{part}", shape) for part, shape in parts.items()}
        for unit, parts in i3d.shapes().items()
    }
    video = jnp.tanh(seeded("small", (1, 8, 32, 32, 3)))
    for name, tap in jax.jit(i3d.features)(weights, video).items():
        close(tap[..., ::7], expected[f"i3d_{name}"])
