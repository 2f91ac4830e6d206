"""Predicts how a training step scales over devices, from its program compiled for a few.

A model on paper: nothing overlaps but the loading of data, and every device keeps its share of the
batch. The numbers of links and hosts stand in `psrjax.benchmarks.chips`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from psrjax.benchmarks.chips import Chip
from psrjax.benchmarks.compiled_program import Collective

DEVICES = (1, 8, 64, 256)
# Frames that a core decodes and prepares, in pixels/s: 26 clips of 4 + 8 frames of 256x256, see
# docs/performance.md.
_LOADED = 26 * 12 * 256 * 256


def predict(
    costs: Mapping[str, Any],
    collectives: Sequence[Collective],
    chip: Chip,
    *,
    pixels: int,
    devices: Sequence[int] = DEVICES,
) -> list[dict[str, Any]]:
    """Returns a row for each number of devices: the step's parts in seconds, and what they make.

    Args:
      costs: as `compile_report.costs` returns them.
      collectives: of the program; each is taken to span all devices.
      chip: that it runs on.
      pixels: that a device reads in a step, of all frames.
      devices: the numbers of them.
    """
    rows = []
    for count in devices:
        parts = {
            "compute": costs["compute_s"],
            "memory": costs["memory_s"],
            "collectives": sum(
                each.times * collective_seconds(each.kind, each.bytes, count, chip)
                for each in collectives
            ),
            "input": min(count, chip.per_host) * pixels / (chip.host_cores * _LOADED),
        }
        on_chip = max(parts["compute"], parts["memory"])
        step = max(on_chip + parts["collectives"], parts["input"])
        rows.append(
            {
                "devices": count,
                **{f"{name}_s": value for name, value in parts.items()},
                "step_s": step,
                "limit": max(parts, key=lambda name: parts[name]),
                "mfu": costs["model_flops"] / chip.peak / step if step else 0.0,
                "efficiency": rows[0]["step_s"] / step if rows and step else 1.0,
            }
        )
    return rows


def collective_seconds(kind: str, size: int, devices: int, chip: Chip) -> float:
    """Returns the least time of a collective of so many bytes over rings, latency included."""
    if devices == 1:
        return 0.0
    rounds = 2 if kind == "all-reduce" else 1  # scatter the sums, then gather them
    if kind == "collective-permute":
        return size / chip.link + chip.latency
    if chip.platform == "gpu":
        inside = min(devices, chip.per_host)
        hosts = devices / inside
        # In its host first; then every device exchanges its share with those of other hosts.
        seconds = rounds * size * (inside - 1) / inside / chip.link + chip.latency
        if hosts > 1:
            seconds += rounds * size / inside * (hosts - 1) / hosts / chip.network
            seconds += math.log2(hosts) * chip.latency
        return seconds
    side = max(round(devices ** (1 / chip.axes)), 2)
    # An axis that does not go round has no second way between its ends.
    bandwidth = chip.link * chip.axes * (1.0 if side >= chip.ring else 0.5)
    hops = chip.axes * (side // 2 if side >= chip.ring else side - 1)
    return rounds * (size * (devices - 1) / devices / bandwidth + hops * chip.latency)
