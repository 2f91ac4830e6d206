"""Formats the benchmark's result as text."""

from collections.abc import Mapping
from typing import Any

PROGRAMS = ("forward", "start", "animate", "step")


def table(result: Mapping[str, Any]) -> str:
    """Formats the result as lines of text."""
    sizes, method = result["sizes"], result["method"]
    width = f", width {method['width']}" if "width" in method else ""
    lines = [
        f"{result['machine']}; load {result['load_average']:.1f}",
        f"{result['versions']}; commit {result['commit'] or 'unknown'}",
        f"{method['name']} {method['stage']}{width}, {sizes['b']} × {sizes['t']} frames of "
        f"{sizes['h']}x{sizes['w']}{_trained_on(result)}, {method['dtype']}",
    ]
    if "data" in result:
        lines += ["", *_data(result["data"])]
    if "step" in result:
        lines += ["", *_stage(result)]
    if "against" in result:
        lines += ["", *_against(result["against"])]
    return "\n".join(lines)


def _stage(result: Mapping[str, Any]) -> list[str]:
    peak = result["matrix_peak_flops_per_s"]
    lines = [
        "parameters " + ", ".join(f"{net} {n:,}" for net, n in result["parameters"].items()),
        f"matrix-product peak, same run: {peak / 1e9:.0f} GFLOP/s",
        "",
        f"{'':14}{'median':>10} {'quartiles':>17} {'per s':>8} {'clips/s':>8} {'GFLOP':>8} "
        f"{'GFLOP/s':>8} {'of peak':>8} {'compile':>8}",
    ]
    for name in (name for name in PROGRAMS if name in result):
        row = result[name]
        lines.append(
            f"{name:14}{_milliseconds(row)} {row['per_s']:8.3f} {row['clips_per_s']:8.3f} "
            f"{row['flops'] / 1e9:8.1f} {row['flops_per_s'] / 1e9:8.1f} "
            f"{row['fraction_of_peak']:8.1%} {row['compile_s']:6.1f} s"
        )
    for name in (name for name in PROGRAMS if "roofline" in result.get(name, {})):
        row, found = result[name], result[name]["roofline"]
        lines.append(
            f"{name:14}{found['fraction_of_roofline']:.1%} of the roofline: at least "
            f"{found['at_least_s'] * 1e3:.3g} ms by {found['limit']}; MFU {found['mfu']:.1%}; "
            f"{found['memory_gib']:.2f} GiB ({found['chip']})"
        )
    for name, row in result.get("operations", {}).items():
        lines.append(f"{name:14}{_milliseconds(row)}")
    for name in (name for name in PROGRAMS if "s_per_frame" in result.get(name, {})):
        frame = result[name]["s_per_frame"]
        lines.append(f"synthesis     {frame * 1e3:.1f} ms a frame, {1 / frame:.1f} frames/s")
    device = result["peak_device_memory_gib"]
    on_device = f", {device:.2f} GiB on the device" if device else ""
    return [*lines, f"peak memory   {result['peak_memory_gib']:.2f} GiB{on_device}"]


def _data(rates: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{name:14}{rates[name]:.1f} frames/s"
        for name in ("decoded", "prepared", "loaded")
        if name in rates
    ]
    each = rates.get("clips_per_core")
    per_core = f", {each:.1f} for each second of a core" if each else ""
    return [
        *lines,
        f"loader        {rates['clips']:.1f} clips/s on {rates['cores']} cores{per_core}; set of "
        f"{rates['bytes'] / 2**20:.0f} MiB, peak memory {rates['peak_memory_gib']:.2f} GiB",
    ]


def _trained_on(result: Mapping[str, Any]) -> str:
    """Describes the frames of a training step, where they are not those of the window."""
    sizes = result["training_sizes"]
    same = all(sizes[axis] == result["sizes"][axis] for axis in "kt")
    return "" if same else f" (trained on {sizes['k']} + {sizes['t']})"


def _milliseconds(row: Mapping[str, float]) -> str:
    quartiles = f"{row['quartile_low_s'] * 1e3:.1f}..{row['quartile_high_s'] * 1e3:.1f}"
    return f"{row['median_s'] * 1e3:7.1f} ms {quartiles:>17}"


def _against(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"against {found['versions']}, {found['threads']} threads",
        found["format"],
        f"same parameters ({found['parameters']:,}), same FLOPs per layer; step "
        f"{found['step_gflop']:.1f} GFLOP by formula, {found['torch_step_gflop']:.1f} by PyTorch's "
        "counter",
        f"outputs differ by {found['output_difference']:.1e} at most, the step's logged values by "
        f"{found['log_difference']:.1e} of their size",
        *(
            f"ill-conditioned: {name} differs by {difference:.1e}, PyTorch's from itself by "
            f"{move:.1e} with weights rounded otherwise"
            for name, (difference, move) in found["ill_conditioned"].items()
        ),
        f"{'':14}{'psrjax':>10} {'PyTorch':>10} {'ratio':>7} {'quartiles':>14} {'pairs':>6}",
    ]
    for name, row in found["pairs"].items():
        ratio = row["ratio"]
        quartiles = f"{ratio['quartile_low_s']:.2f}..{ratio['quartile_high_s']:.2f}"
        ours, theirs = row["psrjax"]["median_s"] * 1e3, row["torch"]["median_s"] * 1e3
        lines.append(
            f"{name:14}{ours:7.1f} ms {theirs:7.1f} ms {ratio['median_s']:7.2f} "
            f"{quartiles:>14} {ratio['runs']:6d}"
        )
    return lines
