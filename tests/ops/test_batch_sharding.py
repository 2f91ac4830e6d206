"""Operations on a batch that is cut over eight devices: each device reads and writes its own rows.

What XLA compiled is read: a gather that indexes the whole batch shows as an all-gather, and its
memory and traffic then grow with the number of devices.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax.losses import contextual
from psrjax.nn import attention
from psrjax.ops import correlation, face_box, geometry, limb, pose_label, texture
from psrjax.training import sharding

DEVICES = 8
MOVED = re.compile(r"\b(all-gather|all-to-all|collective-permute|ragged-all-to-all)(?:-start)?\(")


def values(*shape, low=-1.0, high=1.0):
    return np.random.default_rng(len(shape)).uniform(low, high, shape).astype(np.float32)


def b(*shape, **options):
    """Values with the batch in front, two rows for each device."""
    return values(2 * DEVICES, *shape, **options)


def crop_and_paste(image, joints):
    corner, _ = face_box.locate(joints, height=16, width=16, size=4)
    return face_box.paste(image, corner, 2.0 * face_box.crop(image, corner, size=4))


def still_texture(frames, iuv):
    return jax.vmap(functools.partial(texture.static_texture, size=4))(frames, iuv)


def iuv():
    return np.concatenate([np.floor(b(2, 8, 8, 1, low=0.0, high=24.9)), b(2, 8, 8, 2, low=0.0)], -1)


OPERATIONS = {
    "warp": (geometry.warp, b(8, 8, 3), 3.0 * b(8, 8, 2)),
    **{
        f"grid_sample, {padding}": (
            functools.partial(geometry.grid_sample, padding=padding),
            b(8, 8, 3),
            b(2, 4, 4, 2),
        )
        for padding in geometry.PADDINGS
    },
    "grid_sample of points": (geometry.grid_sample, b(8, 8, 3), b(5, 2)),
    "sample_parts": (geometry.sample_parts, b(3, 8, 8, 4), 8.0 * b(2, 8, 8, 3, 2)),
    "warp_limbs": (limb.warp_limbs, b(3, 8, 8, 3), b(2, 3, 2, 3)),
    "sample_texture": (texture.sample_texture, values(3, 4, 4, 6), b(8, 8, 3, 2), b(8, 8, 3)),
    "static_texture": (still_texture, b(2, 8, 8, 3), iuv()),
    "softmax_match": (
        functools.partial(correlation.softmax_warp, chunk=8),
        b(16, 4),
        b(16, 4),
        b(16, 3),
    ),
    "attend": (functools.partial(attention.attend, chunk=8), b(16, 4), b(16, 4), b(16, 3)),
    "contextual": (
        functools.partial(contextual.contextual_loss, chunk=8),
        b(4, 4, 3),
        b(4, 4, 3),
    ),
    "take_nearest": (pose_label.take_nearest, b(3, 8, 8, 3), b(3, 26, 3), b(2, 26, 3)),
    "face_box": (crop_and_paste, b(16, 16, 3), b(26, 3)),
}


def gradients(operation):
    """Returns the function (inputs) -> (values, gradients of the mean square in all inputs)."""

    def loss(*inputs):
        out = operation(*inputs)
        return jnp.square(out).mean(), out

    return lambda *inputs: jax.value_and_grad(loss, range(len(inputs)), has_aux=True)(*inputs)


def compiled(operation, inputs):
    """Returns the program of values and gradients over the devices, as text."""
    mesh = sharding.make_mesh(config_lib.MeshSection())
    rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    where = tuple(rows if len(x) == 2 * DEVICES else whole for x in inputs)
    out = rows if jax.eval_shape(operation, *inputs).ndim else whole
    step = jax.jit(gradients(operation), in_shardings=where, out_shardings=((whole, out), where))
    return str(step.lower(*inputs).compile().as_text())


@pytest.mark.skipif(jax.device_count() != DEVICES, reason="eight fake CPU devices are wanted")
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_row_of_the_batch_leaves_its_device(name):
    operation, *inputs = OPERATIONS[name]
    program = compiled(operation, inputs)
    assert f"num_partitions={DEVICES}" in program
    assert MOVED.findall(program) == []
