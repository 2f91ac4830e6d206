"""Pose labels: joints drawn as the images that a pose-conditioned network reads.

Joints are the contract's 26, x and y in [-1, 1], confidence 0 where missing; the labels show their
COCO-18, stick figures their BODY_25 too. Sizes in pixels are those of an image 256 high, and grow
with it.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from psrjax.errors import UserError
from psrjax.ops import geometry, pose

KINDS = {"hpt21": 21, "ccn20": 20}  # channels of each label
RADIUS = 4.0  # of discs, and half the width of sticks
_LAYOUT = pose.layout("coco18")
_VIEW = np.asarray(_LAYOUT.view)
_LIMBS = np.asarray(_LAYOUT.limbs)
COLORS = (  # OpenPose's, by joint; a limb has the colour of its number
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0)),
    *((0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255)),
    *((0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
_BODY_25_COLORS = (  # OpenPose's, by joint; a limb has the colour of its second joint
    *((255, 0, 85), (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0)),
    *((170, 255, 0), (85, 255, 0), (0, 255, 0), (255, 0, 0), (0, 255, 85), (0, 255, 170)),
    *((0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (255, 0, 170), (170, 0, 255)),
    *((255, 0, 255), (85, 0, 255), *3 * ((0, 0, 255),), *3 * ((0, 255, 255),)),
)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A stick figure: its joints as a layout of the 26, and the colours of these and of its limbs.

    Of plain layouts only: each joint is one of the 26.
    """

    layout: pose.Layout
    colors: tuple[tuple[int, int, int], ...]
    limb_colors: tuple[tuple[int, int, int], ...]


_BODY_25 = pose.layout("body25")
FIGURES = {
    "coco18": Figure(_LAYOUT, COLORS, COLORS),
    "body25": Figure(
        _BODY_25, _BODY_25_COLORS, tuple(_BODY_25_COLORS[end] for _, end in _BODY_25.limbs)
    ),
}


def draw(
    joints: Float[Array, "b 26 3"], *, height: int, width: int, kind: str = "hpt21"
) -> Float[Array, "b h w c"]:
    """Draws the label of each pose.

    "hpt21": a binary disc for each of 18 joints and the stick figure in colour (Wang et al., III.A,
    which names both). "ccn20": the stick figure and a distance map for each of 17 limbs, as
    CoCosNet has them.

    Args:
      joints: see the module.
      height: of the label, pixels.
      width: likewise.
      kind: which label.

    Returns:
      21 or 20 channels in [0, 1].

    Raises:
      UserError: for another kind.
    """
    if kind not in KINDS:
        raise UserError(f"config.method.pose_label: no {kind!r}; there are {', '.join(KINDS)}")
    sticks = stick_figure(joints, height=height, width=width)
    if kind == "hpt21":
        return jnp.concatenate([discs(joints, height=height, width=width), sticks], -1)
    return jnp.concatenate([sticks, limb_distances(joints, height=height, width=width)], -1)


def places(height: int, width: int, *, octaves: int) -> Float[np.ndarray, "h w c"]:
    """Encodes each pixel's position: sines and cosines, 4 `octaves` channels in [-1, 1].

    The longest have a period of twice the frame, each next one half of that (Mildenhall et al.
    2020, 5.1).
    """
    axes = [np.linspace(-1.0, 1.0, size, dtype=np.float32) for size in (height, width)]
    waves = [
        wave(np.pi * 2.0 ** (octave - 1) * along)
        for along in np.meshgrid(*axes, indexing="ij")
        for octave in range(octaves)
        for wave in (np.sin, np.cos)
    ]
    return np.stack(waves, -1) if waves else np.zeros((height, width, 0), np.float32)


def discs(joints: Float[Array, "b 26 3"], *, height: int, width: int) -> Float[Array, "b h w 18"]:
    """Draws 1 within `RADIUS` of each joint, else 0; nothing for a missing joint."""
    return _discs(*_points(joints, height, width), height, width)


def stick_figure(
    joints: Float[Array, "b 26 3"], *, height: int, width: int, figure: str = "coco18"
) -> Float[Array, "b h w 3"]:
    """Draws coloured discs, and over them each limb as an ellipse of opacity 0.6.

    A limb is drawn where both of its ends are there.

    Args:
      joints: see the module.
      height: of the picture, pixels.
      width: likewise.
      figure: which of `FIGURES`, in OpenPose's colours and order: "coco18", or "body25" with feet.
    """
    drawn = FIGURES[figure]
    points, present = _points(joints, height, width, drawn.layout)
    image = jnp.zeros((len(joints), height, width, 3))
    covered = _discs(points, present, height, width)
    for joint, color in enumerate(drawn.colors):
        image = jnp.where(covered[..., joint : joint + 1] > 0, _unit(color), image)
    pixels = _pixels(height, width)[:, :, 0]
    for (start, end), color in zip(drawn.layout.limbs, drawn.limb_colors):
        middle = (points[:, start] + points[:, end])[:, None, None] / 2.0
        along = (points[:, end] - points[:, start]) / 2.0
        half = jnp.sqrt(jnp.square(along).sum(-1) + 1e-6)[:, None, None]
        along = along[:, None, None] / half[..., None]
        offset = pixels - middle
        forward = (offset * along).sum(-1) / jnp.maximum(half, _radius(height))
        aside = (offset[..., 0] * along[..., 1] - offset[..., 1] * along[..., 0]) / _radius(height)
        inside = jnp.square(forward) + jnp.square(aside) <= 1.0
        inside &= (present[:, start] & present[:, end])[:, None, None]
        image = jnp.where(inside[..., None], 0.4 * image + 0.6 * _unit(color), image)
    return image


def limb_distances(
    joints: Float[Array, "b 26 3"], *, height: int, width: int
) -> Float[Array, "b h w 17"]:
    """Returns the L1 distance to each limb: pixels / 3, at most 255, as a fraction of 255.

    1 everywhere for a limb that is not there.
    """
    points, present = _points(joints, height, width)
    start, end = points[:, None, None, _LIMBS[:, 0]], points[:, None, None, _LIMBS[:, 1]]
    pixels, along = _pixels(height, width), end - start
    # |x - x(s)| + |y - y(s)| over the limb is least at an end or where one of the two is 0.
    safe = jnp.where(jnp.abs(along) < 1e-6, 1.0, along)
    crossing = jnp.clip((pixels - start) / safe, 0.0, 1.0)
    places = jnp.stack(
        [jnp.zeros_like(crossing[..., 0]), jnp.ones_like(crossing[..., 0]),
         crossing[..., 0], crossing[..., 1]]
    )  # fmt: skip
    distance = jnp.abs(pixels - start - places[..., None] * along).sum(-1).min(0)
    there = (present[:, _LIMBS[:, 0]] & present[:, _LIMBS[:, 1]])[:, None, None]
    return jnp.where(there, jnp.clip(distance / 3.0, 0.0, 255.0) / 255.0, 1.0)


def distance(
    joints: Float[Array, "*m 26 3"], others: Float[Array, "*n 26 3"]
) -> Float[Array, "..."]:
    """Returns the root mean squared distance of the COCO-18 that both have; 2, the width, for none.

    Broadcasts over the leading axes.
    """
    joints, others = joints[..., _VIEW, :], others[..., _VIEW, :]
    both = (joints[..., 2] > 0) & (others[..., 2] > 0)
    squares = jnp.square(joints[..., :2] - others[..., :2]).sum(-1)
    count = both.sum(-1)
    mean = jnp.where(both, squares, 0.0).sum(-1) / jnp.maximum(count, 1)
    return jnp.where(count > 0, jnp.sqrt(mean), 2.0)


def take_nearest(
    values: Shaped[Array, "b k *n"],
    joints: Float[Array, "b k 26 3"],
    wanted: Float[Array, "b t 26 3"],
) -> Shaped[Array, "b t *n"]:
    """Takes, for each of the t poses, the value (a frame, say) of the nearest of the k poses."""
    nearest = distance(joints[:, None], wanted[:, :, None]).argmin(-1)
    return jax.vmap(lambda mine, places: mine[places])(values, nearest)


def _points(
    joints: Array, height: int, width: int, layout: pose.Layout = _LAYOUT
) -> tuple[Array, Array]:
    """Returns pixel coordinates (b j 2) of a layout's joints, and whether each is there (b j)."""
    joints = joints[:, np.asarray(layout.view)]
    points = geometry.unit_to_pixels(joints[..., :2], height=height, width=width)
    return points, joints[..., 2] > 0


def _discs(points: Array, present: Array, height: int, width: int) -> Float[Array, "b h w j"]:
    away = jnp.square(_pixels(height, width) - points[:, None, None]).sum(-1)
    inside = (away <= _radius(height) ** 2) & present[:, None, None]
    return inside.astype(jnp.float32)


def _unit(color: tuple[int, int, int]) -> Float[np.ndarray, " 3"]:
    return np.asarray(color, np.float32) / 255.0


def _pixels(height: int, width: int) -> np.ndarray:
    """Returns pixel coordinates (h w 1 2)."""
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    return grid.astype(np.float32)[:, :, None]


def _radius(height: int) -> float:
    return max(RADIUS * height / 256.0, 0.75)  # a disc is never less than the pixel it lies in
