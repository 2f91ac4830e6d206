"""Draws the scenes of the synthetic dataset: their floors, walls, light and furniture."""

import numpy as np

from psrjax.synthetic.scenes import Box, Patch, Scene

_WALLS = (
    *((0.78, 0.76, 0.70), (0.58, 0.68, 0.72), (0.80, 0.66, 0.56), (0.62, 0.70, 0.58)),
    *((0.74, 0.72, 0.80), (0.86, 0.80, 0.62), (0.48, 0.54, 0.62), (0.70, 0.52, 0.50)),
    *((0.55, 0.62, 0.52), (0.82, 0.78, 0.78)),
)
_FLOORS = (
    *((0.62, 0.44, 0.28), (0.50, 0.50, 0.52), (0.45, 0.30, 0.20), (0.66, 0.62, 0.55)),
    *((0.30, 0.34, 0.42), (0.72, 0.56, 0.38), (0.40, 0.36, 0.34), (0.55, 0.38, 0.34)),
)
_ACCENTS = (
    *((0.72, 0.22, 0.20), (0.20, 0.42, 0.60), (0.90, 0.72, 0.25), (0.22, 0.50, 0.34)),
    *((0.55, 0.30, 0.55), (0.92, 0.90, 0.86), (0.16, 0.18, 0.24), (0.85, 0.50, 0.28)),
)
_WOODS = ((0.52, 0.35, 0.21), (0.36, 0.23, 0.14), (0.74, 0.58, 0.40), (0.90, 0.88, 0.84))


def make_scene(number: int, seed: int) -> Scene:
    """Draws scene `number` (0, 1, …) of the dataset with that seed."""
    generator = np.random.default_rng((seed, 7001, number))
    back, side = generator.uniform(2.0, 2.5), generator.uniform(2.3, 2.7)
    warm = generator.uniform(-1, 1)
    left_lamp = generator.choice((-1.0, 1.0))
    tint = np.array([1 + 0.10 * warm, 1.0, 1 - 0.12 * warm])
    patches, boxes = _furnish(number, back, side, generator)
    return Scene(
        name=f"scene{number}",
        back=back,
        side=side,
        light=np.array(
            [generator.uniform(1.2, 2.2), left_lamp * generator.uniform(0.8, 1.8), 2.65]
        ),
        key=generator.uniform(0.62, 0.85) * tint,
        ambient=generator.uniform(0.40, 0.52) * (2 - tint) * 0.98,
        floor=_floor(number, generator),
        wall=_wall(number, generator),
        patches=tuple(patches),
        boxes=tuple(boxes),
    )


def _grain(x: np.ndarray, y: np.ndarray, seed: float) -> np.ndarray:
    """Returns smooth irregular values about 0, some centimetres fine."""
    total = np.sin(9.1 * x + 1.3 * seed) * np.sin(7.7 * y + 2.1 * seed)
    total += 0.7 * np.sin(23.0 * x + 11.0 * y + seed) + 0.5 * np.sin(41.0 * y - 17.0 * x + 3 * seed)
    return total / 2.2


def _scatter(index: np.ndarray, seed: float) -> np.ndarray:
    """Returns a value 0..1 for each integer, without pattern."""
    return (np.sin(index * 12.9898 + seed * 78.233) * 43758.5453) % 1.0


def _floor(number: int, generator: np.random.Generator):
    kind = ("boards", "carpet", "tiles", "planks", "concrete", "herring")[number % 6]
    base = np.array(_FLOORS[number % len(_FLOORS)])
    seed = generator.uniform(0, 9)
    rug = generator.uniform() < 0.45
    rug_color = np.array(_ACCENTS[int(generator.integers(len(_ACCENTS)))])

    def texture(x, y):
        if kind in ("boards", "planks"):
            width = 0.17 if kind == "boards" else 0.24
            across, along = (y, x) if kind == "boards" else (x, y)
            row = np.floor(across / width)
            piece = np.floor(along / 1.1 + _scatter(row, seed))
            tone = 0.86 + 0.28 * _scatter(row * 7 + piece, seed + 1)
            tone *= 1 + 0.05 * np.sin(90 * across + 3 * np.sin(2.2 * along + row))
            tone *= 1 - 0.35 * ((across / width) % 1.0 < 0.06)
        elif kind == "tiles":
            i, j = np.floor(x / 0.42), np.floor(y / 0.42)
            joint = ((x / 0.42) % 1.0 < 0.04) | ((y / 0.42) % 1.0 < 0.04)
            tone = np.where((i + j) % 2 == 0, 1.12, 0.72) * (1 - 0.25 * joint)
            tone *= 0.97 + 0.06 * _scatter(i * 13 + j, seed)
        elif kind == "herring":
            u, v = (x + y) / 0.30, (x - y) / 0.30
            tone = np.where((np.floor(u) + np.floor(v)) % 2 == 0, 1.1, 0.84)
            tone *= 1 + 0.06 * np.sin(20 * np.where(np.floor(u) % 2 == 0, u, v))
        else:
            tone = 1 + (0.05 if kind == "carpet" else 0.10) * _grain(1.3 * x, 1.3 * y, seed)
            fine = np.sin(160 * x + 5 * np.sin(30 * y)) * np.sin(150 * y + 5 * np.sin(33 * x))
            tone = tone * (1 + 0.06 * fine)
        color = base * tone[:, None]
        if rug:
            radius = np.hypot(x + 0.1, y)
            rings = np.where((radius / 0.22).astype(int) % 2 == 0, 1.0, 0.72)[:, None] * rug_color
            color = np.where((radius < 1.15)[:, None], rings, color)
        return color

    return texture


def _wall(number: int, generator: np.random.Generator):
    kind = ("paint", "panels", "paper", "brick", "two_tone", "paint", "slats", "paper")[number % 8]
    base = np.array(_WALLS[number % len(_WALLS)])
    other = np.array(_WALLS[(number + 3) % len(_WALLS)])
    seed, period = generator.uniform(0, 9), generator.uniform(0.22, 0.34)

    def texture(along, up):
        tone = 1 + 0.025 * _grain(0.5 * along, 0.5 * up, seed)
        color = np.broadcast_to(base, (len(along), 3))
        if kind == "panels":
            low = up < 1.0
            groove = (np.abs((along / 0.16) % 1.0 - 0.5) < 0.06) & low
            color = np.where(low[:, None], 0.25 * other + 0.62, base)
            tone = tone * (1 - 0.18 * groove) * np.where(np.abs(up - 1.0) < 0.025, 0.82, 1.0)
        elif kind == "paper":
            stripe = (along / period) % 1.0 < 0.5
            motif = np.hypot((along / period) % 1.0 - 0.5, (up / period) % 1.0 - 0.5) < 0.17
            color = np.where(stripe[:, None], base, 0.88 * base + 0.06)
            color = np.where(motif[:, None], 0.45 * base + 0.4 * other, color)
        elif kind == "brick":
            row = np.floor(up / 0.11)
            shifted = along / 0.26 + 0.5 * (row % 2)
            joint = ((up / 0.11) % 1.0 < 0.13) | (shifted % 1.0 < 0.06)
            tone = tone * (0.82 + 0.3 * _scatter(row * 31 + np.floor(shifted), seed))
            color = np.where(joint[:, None], 0.68, (0.60, 0.36, 0.28))
        elif kind == "two_tone":
            color = np.where((up < 1.25)[:, None], 0.75 * other, base)
            tone = tone * np.where(np.abs(up - 1.25) < 0.02, 1.25, 1.0)
        elif kind == "slats":
            edge = (along / 0.14) % 1.0
            color = np.broadcast_to(0.4 * base + 0.6 * np.array(_WOODS[2]), (len(along), 3))
            tone = tone * np.where(edge < 0.10, 0.62, 0.95 + 0.08 * edge)
        return color * tone[:, None]

    return texture


def _furnish(number: int, back: float, side: float, generator: np.random.Generator):
    """Draws patches on the walls and boxes before them; none stands in the middle."""

    def pick(choices):
        return np.array(choices[int(generator.integers(len(choices)))])

    patches, boxes = [], []
    slots = {"back": (-side + 0.15, side - 0.15), "left": (-back + 0.1, 1.5)}
    slots["right"] = slots["left"]
    for wall, (start, end) in slots.items():
        place = start + generator.uniform(0.0, 0.35)
        kinds = list(
            generator.permutation(("window", "poster", "door", "shelf", "poster", "clock"))
        )
        while place < end - 0.6 and kinds:
            kind = kinds.pop()
            width = {"window": 1.15, "door": 0.92, "shelf": 1.05, "clock": 0.40}.get(kind, 0.65)
            width *= generator.uniform(0.9, 1.15)
            if place + width > end:
                break
            patches.append(_patch(kind, wall, place, width, pick, generator))
            place += width + generator.uniform(0.2, 0.55)
    for wall in generator.permutation(("back", "left", "right")):
        boxes += _furniture(str(wall), back, side, pick, generator)
    return patches, boxes


def _patch(kind: str, wall: str, place: float, width: float, pick, generator) -> Patch:
    first, second, third = pick(_ACCENTS), pick(_ACCENTS), pick(_ACCENTS)
    wood, glow = pick(_WOODS), 0.0
    if kind == "door":
        low, height, texture = 0.0, 2.05, _door(width, wood)
    elif kind == "window":
        land = pick(((0.40, 0.52, 0.32), (0.55, 0.55, 0.50)))
        low, height, glow = 0.95, 1.2, 0.45
        texture = _window(width, height, np.array([0.72, 0.84, 0.95]), land)
    elif kind == "shelf":
        low, height = generator.uniform(1.0, 1.3), 0.9
        texture = _books(width, height, wood, generator.uniform(0, 9))
    elif kind == "clock":
        low, height, texture = 1.75, width, _disc(width, first)
    else:
        low, height = generator.uniform(1.05, 1.4), 0.85
        texture = _poster(width, height, first, second, third, int(generator.integers(4)))
    return Patch(wall, place, place + width, low, low + height, texture, glow)


def _framed(color, x, y, width, height, frame, border=0.05):
    edge = (x < border) | (y < border) | (x > width - border) | (y > height - border)
    return np.where(edge[:, None], frame, color)


def _door(width: float, wood: np.ndarray):
    def texture(x, y):
        panel = (np.abs(x / width - 0.5) < 0.32) & (
            (np.abs(y - 0.55) < 0.35) | (np.abs(y - 1.5) < 0.4)
        )
        color = wood * np.where(panel, 0.84, 1.0)[:, None]
        knob = np.hypot(x - 0.12, y - 1.0) < 0.035
        color = np.where(knob[:, None], (0.85, 0.75, 0.35), color)
        return _framed(color, x, y, width, 9.0, 0.55 * wood, 0.06)

    return texture


def _window(width: float, height: float, sky: np.ndarray, land: np.ndarray):
    def texture(x, y):
        hills = 0.34 * height + 0.06 * np.sin(7 * x) + 0.03 * np.sin(17 * x)
        color = np.where((y < hills)[:, None], land, sky - 0.12 * (1 - y / height)[:, None])
        bars = (np.abs(x - width / 2) < 0.03) | (np.abs(y - 0.62 * height) < 0.025)
        color = np.where(bars[:, None], 0.93, color)
        return _framed(color, x, y, width, height, (0.94, 0.93, 0.90), 0.07)

    return texture


def _books(width: float, height: float, wood: np.ndarray, seed: float):
    palette = np.array(_ACCENTS)

    def texture(x, y):
        row = np.floor(y / 0.30)
        book = np.floor(x / 0.065 + _scatter(row, seed))
        tall = (y / 0.30) % 1.0 < 0.62 + 0.28 * _scatter(book + 40 * row, seed)
        spine = palette[(8 * _scatter(book * 3 + 17 * row, seed + 1)).astype(int) % len(palette)]
        color = np.where(tall[:, None], spine * 0.85, 0.35 * wood)
        board = (y / 0.30) % 1.0 < 0.10
        color = np.where(board[:, None], wood, color)
        return _framed(color, x, y, width, height, wood, 0.04)

    return texture


def _disc(width: float, rim: np.ndarray):
    def texture(x, y):
        u, v = x - width / 2, y - width / 2
        radius = np.hypot(u, v) / (width / 2)
        hand = (np.abs(u) < 0.012) & (v > 0) & (v < 0.13) | (np.abs(v) < 0.012) & (
            np.abs(u - 0.04) < 0.05
        )
        color = np.where((radius < 0.82)[:, None], (0.95, 0.95, 0.92), rim)
        color = np.where(hand[:, None], 0.1, color)
        return np.where((radius < 1)[:, None], color, 0.72)

    return texture


def _poster(width, height, first, second, third, kind: int):
    def texture(x, y):
        u, v = x / width, y / height
        if kind == 0:
            shape = np.hypot((u - 0.5) * width, (v - 0.6) * height) < 0.2
            color = np.where((v < 0.3)[:, None], second, first)
        elif kind == 1:
            shape = np.abs(u - 0.5) < 0.5 * (0.8 - v)
            color = np.where((v > 0.82)[:, None], second, first)
        elif kind == 2:
            shape = (np.floor(4 * u) + np.floor(5 * v)) % 2 == 0
            color = np.where((u + v > 1.0)[:, None], second, first)
        else:
            shape = np.sin(9 * u + 6 * v) > 0.45
            color = np.where((np.sin(5 * v) > 0.3)[:, None], second, first)
        color = np.where(shape[:, None], third, color)
        return _framed(color, x, y, width, height, (0.12, 0.11, 0.10), 0.035)

    return texture


def _furniture(wall: str, back: float, side: float, pick, generator) -> list[Box]:
    """Draws a sofa, a cabinet, a table or a plant along one wall."""
    kind = ("sofa", "cabinet", "table", "plant", "cabinet")[int(generator.integers(5))]
    wood, cloth = pick(_WOODS), pick(_ACCENTS) * 0.8 + 0.08
    reach = side - 0.4 if wall == "back" else back - 0.3
    middle = generator.uniform(-reach + 0.7, reach - 0.7) if wall == "back" else -reach + 0.8

    def box(start, end, near, far, low, high, texture):
        """Places a box at `start..end` along the wall from the middle, `near..far` out from it."""
        if wall == "back":
            return Box(
                (-back + near, middle + start, low), (-back + far, middle + end, high), texture
            )
        sides = (-side + near, -side + far) if wall == "right" else (side - far, side - near)
        return Box((middle + start, sides[0], low), (middle + end, sides[1], high), texture)

    if kind == "sofa":
        soft = _cushions(cloth)
        return [
            box(-0.85, 0.85, 0.02, 0.62, 0.10, 0.42, soft),
            box(-0.85, 0.85, 0.02, 0.20, 0.42, 0.82, soft),
            box(-0.85, -0.68, 0.02, 0.62, 0.42, 0.60, soft),
            box(0.68, 0.85, 0.02, 0.62, 0.42, 0.60, soft),
        ]
    if kind == "cabinet":
        height = generator.uniform(0.7, 1.5)
        lamp_shade = _flat(pick(_ACCENTS) * 0.5 + 0.5)
        return [
            box(-0.5, 0.5, 0.02, 0.42, 0.05, height, _drawers(wood)),
            box(-0.12, 0.12, 0.10, 0.34, height + 0.16, height + 0.42, lamp_shade),
            box(-0.025, 0.025, 0.19, 0.24, height, height + 0.16, _flat(0.3 * wood)),
        ]
    if kind == "table":
        top = box(-0.7, 0.7, 0.05, 0.60, 0.70, 0.75, _flat(wood))
        feet = [
            box(start, start + 0.06, near, near + 0.06, 0.0, 0.70, _flat(0.7 * wood))
            for start in (-0.66, 0.60)
            for near in (0.08, 0.50)
        ]
        screen = box(-0.32, 0.32, 0.16, 0.20, 0.85, 1.24, _flat(np.array([0.10, 0.12, 0.15])))
        return [top, *feet, screen, box(-0.04, 0.04, 0.16, 0.22, 0.75, 0.86, _flat(wood * 0.4))]
    leaves = _leaves(np.array([0.22, 0.44, 0.20]))
    return [
        box(-0.17, 0.17, 0.10, 0.44, 0.0, 0.36, _flat(pick(_ACCENTS) * 0.6 + 0.2)),
        box(-0.30, 0.26, 0.04, 0.50, 0.42, 0.80, leaves),
        box(-0.20, 0.32, 0.08, 0.48, 0.80, 1.12, leaves),
        box(-0.12, 0.16, 0.14, 0.40, 1.12, 1.36, leaves),
    ]


def _flat(color: np.ndarray):
    def texture(x, y):
        return np.clip(color, 0.02, 0.98) * (1 + 0.03 * np.sin(40 * x + 3 * np.sin(9 * y)))[:, None]

    return texture


def _cushions(color: np.ndarray):
    def texture(x, y):
        seam = np.abs((x / 0.57) % 1.0 - 0.5) > 0.47
        weave = 1 + 0.05 * np.sin(70 * x) * np.sin(70 * y)
        return color * (weave * (1 - 0.3 * seam))[:, None]

    return texture


def _drawers(wood: np.ndarray):
    def texture(x, y):
        gap = ((y / 0.32) % 1.0 < 0.05) | (np.abs((x / 0.5) % 1.0 - 0.02) < 0.02)
        handle = (np.abs((y / 0.32) % 1.0 - 0.7) < 0.05) & (np.abs((x / 0.5) % 1.0 - 0.5) < 0.14)
        color = wood * (1 + 0.05 * np.sin(50 * y + 2 * np.sin(6 * x)))[:, None]
        color = np.where(gap[:, None], 0.45 * wood, color)
        return np.where(handle[:, None], (0.75, 0.72, 0.65), color)

    return texture


def _leaves(green: np.ndarray):
    def texture(x, y):
        blade = np.sin(38 * x + 5 * np.sin(21 * y)) * np.sin(33 * y + 4 * np.sin(27 * x))
        return green * (0.85 + 0.55 * blade)[:, None]

    return texture
