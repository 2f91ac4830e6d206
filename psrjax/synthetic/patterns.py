"""Patterns of cloth and prints for the synthetic dataset, as functions of a place in metres."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

KINDS = ("plain", "stripes", "bars", "checks", "dots", "halves", "diagonal")
PRINTS = ("number", "disc", "block", "band", "cross", "stripe", "heart", "pocket", "ring", "arrow")


def random_pattern(
    generator: np.random.Generator, colors: Sequence[tuple], *, plain: float = 0.2
) -> dict[str, Any]:
    """Draws a pattern of two colours with a print in a third; `plain`: how often it is plain."""
    first, second, third = (colors[i] for i in generator.choice(len(colors), 3, replace=False))
    kind = "plain" if generator.uniform() < plain else KINDS[int(generator.integers(1, len(KINDS)))]
    return {
        "kind": kind,
        "first": np.array(first),
        "second": np.array(second),
        "third": np.array(third),
        "period": float(generator.uniform(0.09, 0.16)),
        "share": float(generator.uniform(0.35, 0.6)),
        "print": PRINTS[int(generator.integers(len(PRINTS)))] if generator.uniform() < 0.6 else "",
    }


def pattern(
    look: Mapping[str, Any], place: Float[np.ndarray, "n 2"], printed: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 3"]:
    """Returns colours at `place` (across, up), metres; prints only where `printed` is positive."""
    second = _weave(look, place[:, 0], place[:, 1])[:, None]
    color = np.where(second, look["second"], look["first"])
    if look["print"]:
        shape = _print(look["print"], place[:, 0], place[:, 1] - 1.27) & (printed > 0)
        color = np.where(shape[:, None], look["third"], color)
    return color


def _weave(look: Mapping[str, Any], across: np.ndarray, up: np.ndarray) -> np.ndarray:
    period, share, kind = look["period"], look["share"], look["kind"]
    row, column = (up / period) % 1.0 < share, (across / period + 0.25) % 1.0 < share
    if kind == "stripes":
        return row
    if kind == "bars":
        return column
    if kind == "checks":
        return row ^ column
    if kind == "diagonal":
        return ((up + across) / period) % 1.0 < share
    if kind == "halves":
        return up < 1.20
    if kind == "dots":
        shift = 0.5 * (np.floor(up / period) % 2)
        x, y = (across / period + shift) % 1.0 - 0.5, (up / period) % 1.0 - 0.5
        return x**2 + y**2 < (0.55 * share) ** 2 + 0.02
    return np.zeros(len(up), bool)


def _print(kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the shape of a print; x across, y up, metres from the middle of the chest."""
    radius = np.hypot(x, y)
    if kind == "number":
        stem = (np.abs(x - 0.015) < 0.018) & (np.abs(y) < 0.085)
        foot = (np.abs(x - 0.010) < 0.050) & (np.abs(y + 0.078) < 0.014)
        flag = (np.abs(x + 0.018) < 0.028) & (np.abs(y - 0.060) < 0.014)
        return stem | foot | flag
    if kind == "disc":
        return radius < 0.075
    if kind == "ring":
        return (radius < 0.085) & (radius > 0.048)
    if kind == "block":
        return (np.abs(x) < 0.095) & (np.abs(y) < 0.055)
    if kind == "band":
        return np.abs(y + 0.02) < 0.035
    if kind == "stripe":
        return np.abs(x) < 0.028
    if kind == "cross":
        return ((np.abs(x) < 0.024) | (np.abs(y) < 0.024)) & (radius < 0.10)
    if kind == "pocket":
        return (np.abs(x - 0.075) < 0.034) & (np.abs(y - 0.02) < 0.040)
    if kind == "heart":
        u, v = np.abs(x) / 0.075, (y + 0.015) / 0.075
        return u**2 + (v - 0.75 * np.sqrt(u)) ** 2 < 0.9
    return (np.abs(x) < 0.09 - 0.9 * np.abs(y + 0.01)) | (  # an arrow
        (np.abs(x) < 0.022) & (y < 0.0) & (y > -0.10)
    )
