"""Single operations that the benchmark times: warps, samples, textures, SSIM."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from psrjax.metrics import image
from psrjax.ops import geometry, texture

SIZE, CHANNELS = 256, 64
_PARTS, _TEXELS, _TEXTURE_CHANNELS, _SAMPLED = 24, 200, 18, 128  # a texture, a 128x128 frame


def inputs() -> dict[str, tuple[np.ndarray, ...]]:
    """Makes the input of each operation.

    Features and a flow; features and a grid; frames and frames; a texture of body parts,
    coordinates in it, and the parts' weights. The grid is that of a first-order motion, smooth and
    partly outside the image; the flow jitters. The coordinates are smooth in each part, and every
    pixel has some weight in each.
    """
    generator = np.random.default_rng(0)
    features = generator.normal(size=(1, SIZE, SIZE, CHANNELS)).astype(np.float32)
    flow = generator.uniform(-6.0, 6.0, size=(1, SIZE, SIZE, 2)).astype(np.float32)
    frames = generator.uniform(size=(2, 8, SIZE, SIZE, 3)).astype(np.float32)
    x, y = np.meshgrid(*(np.linspace(-1, 1, SIZE),) * 2)
    moved = np.stack([0.9 * x - 0.2 * y + 0.1, 0.15 * x + 1.1 * y + 0.05 * np.sin(4 * x)], -1)
    grid = moved[None].astype(np.float32)
    return {
        "warp": (features, flow),
        "sample": (features, grid),
        "ssim": (frames[0], frames[1]),
        "texture": _texture(generator),
    }


def _texture(generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Makes (p s s c), (b h w p 2) and (b h w p)."""
    atlas = generator.normal(size=(_PARTS, _TEXELS, _TEXELS, _TEXTURE_CHANNELS))
    x, y = np.meshgrid(*(np.linspace(-1, 1, _SAMPLED),) * 2)
    phase = np.arange(_PARTS)
    u = 0.9 * x[..., None] + 0.1 * np.sin(5 * y[..., None] + phase)
    v = 0.8 * y[..., None] + 0.15 * np.cos(4 * x[..., None] + phase)
    weights = generator.dirichlet(np.full(_PARTS + 1, 0.3), (1, _SAMPLED, _SAMPLED))[..., 1:]
    arrays = atlas, np.stack([u, v], -1)[None], weights
    return tuple(array.astype(np.float32) for array in arrays)


def calls() -> dict[str, Callable]:
    """Returns {name: call}; "… + grad" also takes gradients of all inputs, or SSIM's of one."""

    def warped(features: jax.Array, flow: jax.Array) -> jax.Array:
        return jnp.square(geometry.warp(features, flow)).mean()

    def sample(features: jax.Array, grid: jax.Array) -> jax.Array:
        return geometry.grid_sample(features, grid, align_corners=True)

    def sampled(features: jax.Array, grid: jax.Array) -> jax.Array:
        return jnp.square(sample(features, grid)).mean()

    def similarity(video: jax.Array, truth: jax.Array) -> jax.Array:
        return image.ssim(video, truth).mean()

    def textured(atlas: jax.Array, coordinates: jax.Array, weights: jax.Array) -> jax.Array:
        return jnp.square(texture.sample_texture(atlas, coordinates, weights)).mean()

    arrays = jax.device_put(inputs())
    programs = {
        "warp + grad": ("warp", jax.value_and_grad(warped, argnums=(0, 1))),
        "sample": ("sample", sample),
        "sample + grad": ("sample", jax.value_and_grad(sampled, argnums=(0, 1))),
        "ssim + grad": ("ssim", jax.value_and_grad(similarity)),
        "texture": ("texture", texture.sample_texture),
        "texture + grad": ("texture", jax.value_and_grad(textured, argnums=(0, 1, 2))),
    }
    return {
        name: _bound(jax.jit(program), arrays[key]) for name, (key, program) in programs.items()
    }


def _bound(program: Callable, arguments: tuple) -> Callable:
    return lambda: program(*arguments)
