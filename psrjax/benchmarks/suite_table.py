"""Formats the results of the suite as one text."""

from collections.abc import Iterator, Mapping
from typing import Any

from psrjax.benchmarks.text_table import PROGRAMS


def table(found: Mapping[str, Any]) -> str:
    """Formats what `suite.run` returns: the device, the tests, all stages, PyTorch, what failed."""
    results = {name: part["result"] for name, part in found["parts"].items() if "result" in part}
    stages = {name: result for name, result in results.items() if "step" in result}
    compared = {name: result for name, result in stages.items() if "against" in result}
    lines = [
        *_device(results.get("devices", {})),
        *_tests(results.get("tests", {})),
        *_stages(stages),
        *_compared(compared),
        *(
            f"FAILED  {name}: {part['error']}"
            for name, part in found["parts"].items()
            if part["status"] == "failed"
        ),
        *(f"LEFT    {name}: the same command goes on with it" for name in found["left"]),
    ]
    return "\n".join(lines)


def _device(facts: Mapping[str, Any]) -> Iterator[str]:
    if not facts:
        return
    yield f"{facts['machine']}; {', '.join(facts['devices'])}; {facts['driver']}".rstrip("; ")
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    yield f"{facts['versions']}; {packages}; commit {facts['commit'] or 'unknown'}"
    yield (
        f"measured: {facts['matrix_peak_flops_per_s'] / 1e12:.3g} TFLOP/s of a bfloat16 product, "
        f"{facts['copy_bytes_per_s'] / 1e9:.4g} GB/s of a copy"
    )


def _tests(counts: Mapping[str, Any]) -> Iterator[str]:
    if not counts:
        return
    names = ("passed", "failed", "error", "skipped")
    yield "tests   " + ", ".join(f"{counts[name]} {name}" for name in names)
    yield from (f"        {name}" for name in counts["failures"])
    yield from (f"        {reason}" for reason in counts["reasons"])


def _stages(stages: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not stages:
        return
    yield ""
    yield (
        f"{'':34}{'ms':>9} {'quartiles':>17} {'MFU':>6} {'of roofline':>14} {'GiB':>6} "
        f"{'clips/s':>8} {'compiled':>9}"
    )
    for result in stages.values():
        yield _about(result)
        for program in (program for program in PROGRAMS if program in result):
            row = result[program]
            bound = row["roofline"]
            quartiles = f"{row['quartile_low_s'] * 1e3:.4g}..{row['quartile_high_s'] * 1e3:.4g}"
            roofline = f"{bound['fraction_of_roofline']:.0%} {bound['limit']}"
            yield (
                f"  {program:32}{row['median_s'] * 1e3:9.4g} {quartiles:>17} {bound['mfu']:6.1%} "
                f"{roofline:>14} {bound['memory_gib']:6.2f} {row['clips_per_s']:8.4g} "
                f"{row['compile_s']:7.1f} s"
            )


def _compared(compared: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not compared:
        return
    yield ""
    yield f"{'':34}{'psrjax':>9} {'PyTorch':>9} {'ratio':>6} {'quartiles':>12} {'pairs':>6}"
    for result in compared.values():
        against = result["against"]
        yield f"{_about(result)}; {against['versions']}"
        yield f"  {against['format']}"
        yield (
            f"  logged values differ by {against['log_difference']:.1e} of their size at most, "
            f"the video by {against['output_difference']:.1e}"
        )
        for program, row in against["pairs"].items():
            ours, theirs = row["psrjax"]["median_s"] * 1e3, row["torch"]["median_s"] * 1e3
            ratio = row["ratio"]
            quartiles = f"{ratio['quartile_low_s']:.2f}..{ratio['quartile_high_s']:.2f}"
            yield (
                f"  {program:32}{ours:9.4g} {theirs:9.4g} {ratio['median_s']:6.2f} "
                f"{quartiles:>12} {ratio['runs']:6d}"
            )


def _about(result: Mapping[str, Any]) -> str:
    method, sizes = result["method"], result["training_sizes"]
    perceptual = "" if method.get("perceptual", "off") != "off" else ", no perceptual term"
    return (
        f"{method['name']} {method['stage']}, {method['dtype']}, batch {sizes['b']} of "
        f"{sizes['k']} + {sizes['t']} frames, {sizes['h']}x{sizes['w']}{perceptual}"
    )
