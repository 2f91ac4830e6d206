"""Draws the report's figures as SVG: bars by views, curves over steps and frames, sensitivity."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.colors
from matplotlib.figure import Figure

from psrjax.evaluation import score_table

Points = Mapping[str, Sequence[tuple[float, float]]]  # {name: [(x, y), …]}


def colors(names: Sequence[str], baselines: set[str]) -> dict[str, str]:
    """Chooses greys for the baselines and ever deeper blues for the steps."""
    greys, blues = iter(_shades("Greys", 3, 7)), iter(_shades("Blues", 5, 10))
    return {name: next(greys if name in baselines else blues) for name in names}


def distinct_colors(names: Sequence[str]) -> dict[str, str]:
    """Chooses a colour for each name; they repeat after ten."""
    return {name: f"C{i % 10}" for i, name in enumerate(names)}


def _shades(name: str, low: int, high: int) -> list[str]:
    colormap = matplotlib.colormaps[name]
    return [matplotlib.colors.to_hex(colormap(i / 10)) for i in range(low, high)] * 8


def bars(metric: str, values: Mapping[str, Mapping[str, float]], palette: Mapping[str, str]) -> str:
    """Draws groups of bars, one group for each pair of views, as Fig. 8 of PSR-Net.

    Args:
      metric: of the values.
      values: {name: {pair: value}}; a name may lack a pair.
      palette: {name: colour}, in the order of the bars.
    """
    pairs = list(dict.fromkeys(pair for of_name in values.values() for pair in of_name))
    heights = [value for of_name in values.values() for value in of_name.values()]
    figure = Figure(figsize=(2.2 + 0.95 * len(pairs), 2.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.84 / len(palette)
    for i, (name, color) in enumerate(palette.items()):
        places = [j for j, pair in enumerate(pairs) if pair in values[name]]
        offsets = [j + (i - (len(palette) - 1) / 2) * width for j in places]
        own = [values[name][pairs[j]] for j in places]
        axes.bar(offsets, own, width, label=name, color=color)
    span = max(heights) - min(heights) or 1.0
    axes.set_ylim(max(0.0, min(heights) - 0.35 * span), max(heights) + 0.08 * span)
    axes.set_xticks(range(len(pairs)), [pair.replace("->", " → ") for pair in pairs])
    unit = score_table.unit(metric)
    axes.set_ylabel(f"{metric} [{unit}]" if unit else metric)
    return _svg(figure, axes)


def curves(points: Points, *, x: str, log: bool = False, dashed: Sequence[str] = ()) -> str:
    """Draws lines over steps or frames.

    Args:
      points: {name: [(x, y), …]}.
      x: the label of the horizontal axis.
      log: a logarithmic axis, where every value is above 0.
      dashed: names drawn in dashes.
    """
    figure = Figure(figsize=(7.4, 2.6), layout="constrained")
    axes = figure.add_subplot()
    for i, (name, line) in enumerate(sorted(points.items())):
        style = {"linestyle": "--" if name in dashed else "-", "linewidth": 1.2}
        axes.plot(*zip(*line), label=name, color=f"C{i % 10}", **style)
    if log and all(value > 0 for line in points.values() for _, value in line):
        axes.set_yscale("log")
    axes.set_xlabel(x)
    return _svg(figure, axes)


def sensitivity(
    metric: str,
    values: Mapping[float, float],
    bounds: Mapping[float, Sequence[float]],
    *,
    x: str,
) -> str:
    """Draws a metric over the values of a parameter, as Fig. 7 of PSR-Net.

    Args:
      metric: of the values.
      values: {value of the parameter: score}.
      bounds: {value of the parameter: (low, high)}, drawn where they are known.
      x: the parameter's name.
    """
    figure = Figure(figsize=(4.6, 2.6), layout="constrained")
    axes = figure.add_subplot()
    places = sorted(values)
    axes.plot(places, [values[place] for place in places], "o-", label=metric, color="C0")
    for place, (low, high) in bounds.items():
        axes.vlines(place, low, high, color="C0", alpha=0.4)
    axes.set_xticks(places)
    axes.set_xlabel(x)
    return _svg(figure, axes)


def _svg(figure: Figure, axes: Any) -> str:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "psrjax"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]
