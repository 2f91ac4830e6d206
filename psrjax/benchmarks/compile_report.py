"""Says what a compiled program needs of a chip, and what to change where it does not fit."""

from collections.abc import Mapping, Sequence
from typing import Any

from psrjax.benchmarks import ahead_of_time, compiled_program, scaling
from psrjax.benchmarks.ahead_of_time import Compiled
from psrjax.benchmarks.chips import Chip
from psrjax.config import RunConfig

_COSTLIEST = 10
_KINDS = ("arguments", "donated", "outputs", "temporaries", "constants")
_GIB = 2**30


def report(config: RunConfig, topology: str, program: str) -> dict[str, Any]:
    """Compiles a program of a stage and returns what it needs; bytes, seconds, one device.

    Args:
      config: of the stage.
      topology: see `ahead_of_time.find_chip`.
      program: "train" or "synthesize".

    Raises:
      UserError: as `ahead_of_time.compile_stage`.
    """
    chip = ahead_of_time.find_chip(topology)
    compiled = ahead_of_time.compile_stage(config, topology, program)
    memory = compiled_program.memory(compiled.buffers)
    read = compiled_program.read(compiled.text)
    found = {
        "method": config.method.name,
        "stage": config.method.stage,
        "dtype": config.method.dtype,
        "program": program,
        "topology": topology,
        "devices": compiled.devices,
        "batch": compiled.batch,
        "sizes": compiled.sizes,
        "memory": memory,
        "memory_available": int(chip.memory),
        "fits": sum(memory.values()) <= chip.memory,
        **costs(read, compiled.model_flops, chip),
        "lower_s": compiled.lower_s,
        "compile_s": compiled.compile_s,
    }
    if program == "train" and config.mesh.fsdp == 1:
        sizes = compiled.sizes
        pixels = compiled.batch // compiled.devices * sizes["h"] * sizes["w"]
        pixels *= sizes["k"] + sizes["t"]
        found["scaling"] = scaling.predict(found, read.collectives, chip, pixels=pixels)
    return found | {"advice": [] if found["fits"] else advice(memory, compiled, config, chip)}


def costs(program: compiled_program.Program, model_flops: float, chip: Chip) -> dict[str, Any]:
    """Returns the program's FLOPs, bytes, least times on the chip, collectives, costly operations.

    Args:
      program: of one device.
      model_flops: what it has to compute, however it is compiled.
      chip: that it runs on.
    """

    def seconds(each: compiled_program.Operation) -> float:
        return max(chip.compute_seconds(each.flops), chip.memory_seconds(each.bytes))

    compute, memory = chip.compute_seconds(program.flops), chip.memory_seconds(program.bytes)
    exchanged: dict[str, dict[str, int]] = {}
    for each in program.collectives:
        total = exchanged.setdefault(each.kind, {"count": 0, "bytes": 0})
        total["count"] += each.times
        total["bytes"] += each.times * each.bytes
    return {
        "model_flops": model_flops,
        "compiled_flops": dict(program.flops),
        "bytes": program.bytes,
        "compute_s": compute,
        "memory_s": memory,
        "highest_mfu": model_flops / chip.peak / max(compute, memory, 1e-12),
        "collectives": exchanged,
        "costliest": [
            {
                "seconds": seconds(each),
                "kind": each.kind,
                "times": each.times,
                "shape": each.shape,
                "flops": sum(each.flops.values()),
                "bytes": each.bytes,
                "place": each.place,
                "path": each.path,
            }
            for each in sorted(program.operations, key=seconds, reverse=True)[:_COSTLIEST]
        ],
    }


def advice(
    memory: Mapping[str, int], compiled: Compiled, config: RunConfig, chip: Chip
) -> list[str]:
    """Returns what to change for a program that does not fit, and by how much, a line each.

    Temporaries are taken to grow with the clips that a device computes at once.
    """
    temporaries = memory.get("temporaries", 0)
    fixed = sum(memory.values()) - temporaries
    free = chip.memory - fixed
    share = compiled.batch // compiled.devices
    micro = share // config.accumulate
    fitting = max(int(free / (temporaries / micro)), 0) if temporaries else micro
    lines = [
        f"temporaries have to fall from {_gib(temporaries)} to {_gib(free)} GiB"
        if free > 0
        else f"the state alone takes {_gib(-free)} GiB more than there is"
    ]

    def outcome(needed: float) -> str:
        return f"about {_gib(needed)} GiB, " + ("enough" if needed <= chip.memory else "too much")

    if fitting:
        clips = fitting * config.accumulate
        needed = fixed + temporaries * fitting / micro
        lines.append(f"--config.batch_per_device={clips}: {outcome(needed)}")
        parts = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= fitting)
        needed = fixed + temporaries * share / parts / micro
        lines.append(f"--config.accumulate={parts}, the batch stays: {outcome(needed)}")
    else:
        lines.append(f"one clip at once on a device: {outcome(fixed + temporaries / micro)}")
    if config.method.dtype == "float32":
        lines.append(f"--config.method.dtype=bfloat16: {outcome(fixed + temporaries / 2)}")
    if config.method.remat == "none":
        lines.append("--config.method.remat=blocks: fewer temporaries, more FLOPs; compile to see")
    cut = compiled.state_bytes.get("cut", 0)
    saved = cut / config.mesh.fsdp - cut / compiled.devices
    if saved > 0:
        needed = fixed + temporaries - saved
        lines.append(
            f"--config.mesh.fsdp={compiled.devices}: the state takes {_gib(saved)} GiB less, "
            f"{outcome(needed)}"
        )
    return lines


def table(found: Mapping[str, Any]) -> str:
    """Formats what `report` returns as lines of text."""
    sizes, memory = found["sizes"], found["memory"]
    flops = ", ".join(f"{n / 1e12:.3g} of {kind}" for kind, n in found["compiled_flops"].items())
    bound = "compute" if found["compute_s"] >= found["memory_s"] else "memory"
    exchanged = (
        f"{kind} {each['count']} with {each['bytes'] / 1e6:.3g} MB"
        for kind, each in found["collectives"].items()
    )
    lines = [
        f"{found['method']} {found['stage']}, {found['program']}, {found['dtype']}, on "
        f"{found['topology']}: {found['devices']} devices, batch {found['batch']} of "
        f"{sizes['k']} + {sizes['t']} frames, {sizes['h']}x{sizes['w']}; of one device:",
        "memory      "
        + ", ".join(f"{kind} {_gib(memory[kind])}" for kind in _KINDS if kind in memory),
        f"            together {_gib(sum(memory.values()))} of {_gib(found['memory_available'])} "
        f"GiB: {'fits' if found['fits'] else 'DOES NOT FIT'}",
        *(f"            {line}" for line in found["advice"]),
        f"TFLOP       {found['model_flops'] / 1e12:.3g}; as compiled {flops or 'none'}",
        f"traffic     {found['bytes'] / 1e9:.3g} GB to and from memory",
        f"at least    {found['compute_s'] * 1e3:.3g} ms by compute, "
        f"{found['memory_s'] * 1e3:.3g} ms by memory: bound by {bound}, "
        f"MFU at most {found['highest_mfu']:.0%}",
        f"collectives {', '.join(exchanged) or 'none'}",
        *_predictions(found.get("scaling", [])),
        f"compiled in {found['lower_s']:.0f} s of tracing and {found['compile_s']:.0f} s of XLA "
        "(no code was generated)",
        "costliest",
    ]
    for each in found["costliest"]:
        times = f" x {each['times']}" if each["times"] > 1 else ""
        lines.append(
            f"{each['seconds'] * 1e3:9.3g} ms {each['kind']} {each['shape'][:40]}{times}, "
            f"{each['bytes'] / 1e6:.3g} MB, {each['flops'] / 1e9:.3g} GFLOP; "
            f"{each['place'] or 'made by XLA:'} {each['path'][-60:]}"
        )
    return "\n".join(lines)


def _predictions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"predicted   {row['devices']} devices: {row['step_s'] * 1e3:.3g} ms a step, "
        f"{row['collectives_s'] * 1e3:.3g} of collectives, data in {row['input_s'] * 1e3:.3g}; "
        f"MFU {row['mfu']:.0%}, efficiency {row['efficiency']:.0%}, limited by {row['limit']}"
        for row in rows
    ]


def _gib(size: float) -> str:
    return f"{size / _GIB:.3g}"
