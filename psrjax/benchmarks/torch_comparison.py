"""Compares a method with its PyTorch reference: checks that both are the same, and times both.

Method NAME has a reference if there is `torch_reference/NAME.py` with a class `TorchReference`; its
base class in `torch_reference/common.py` is the interface to write one by. What is not the same is
not timed: parameters of every net, FLOPs of every convolution, each term and gradient norm of one
step, and the video. `tests/benchmarks/test_stage_benchmark.py` has a slow test of all references.
"""

# pyright: reportMissingImports=false
# (PyTorch is an extra.)

import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from psrjax.benchmarks import flops, operations, timing
from psrjax.benchmarks.compiled_stage import BenchmarkOptions, CompiledStage, parameters
from psrjax.errors import UserError
from psrjax.methods.base import Method
from psrjax.runtime import machine
from psrjax.training import step as steps

try:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from psrjax.benchmarks import torch_operations
    from psrjax.benchmarks.torch_reference.common import TorchReference
except ImportError as error:
    raise UserError(
        "--against=torch: PyTorch is not installed; `pip install psrjax[torch]`, or torch alone"
    ) from error

_TOLERANCE = 2e-3  # of float32 results, relative to their size
_LEAST = 1e-6  # logged values under this count as this
_ROUNDING = 1.2e-7  # of a float32
_NUDGES = 4  # ways to round weights and inputs, where the sides differ by more than the tolerance
_ROUNDINGS = 4.0  # allowed difference then, in moves of the reference's own values


def compare(stage: CompiledStage, config: Any, options: BenchmarkOptions) -> dict[str, Any]:
    """Builds the reference with the stage's weights, checks that both are the same, times both.

    Args:
      stage: psrjax's side, compiled.
      config: of the stage.
      options: sizes and pairs.

    Returns:
      Numbers for `text_table.table` and JSON; ratios are psrjax's time by the reference's.

    Raises:
      UserError: for a method, stage or field without a reference; if the two are not the same.
    """
    kind = reference_class(stage.method)
    torch.set_num_threads(machine.cores())
    torch.backends.cudnn.benchmark = True  # cuDNN's fastest algorithm, as XLA takes
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs, as XLA
    references, formats = _fastest_references(kind, stage, config)
    for reference in {each for each in references.values() if not each.is_compiled} or {
        build(kind, stage, config, channels_last=True)
    }:
        checks = check_same(stage, reference, exact=is_exact(stage))
    pairs = _pairs(stage, references, options)
    others = torch_operations.calls(device()) if options.operations else {}
    for name, call in operations.calls().items() if options.operations else ():
        pairs[name] = timing.measure_pairs(call, _timed(others[name]), pairs=options.pairs * 3)
    return {
        "versions": f"PyTorch {torch.__version__}",
        "threads": torch.get_num_threads(),
        "format": formats,
        **checks,
        "pairs": {
            name: {
                "psrjax": found.first.summary(),
                "torch": found.second.summary(),
                "ratio": found.ratios.summary(),
            }
            for name, found in pairs.items()
        },
    }


def reference_class(method: Method) -> type["TorchReference"]:
    """Finds the reference of a method.

    Raises:
      UserError: if there is none, or none for a field's value.
    """
    name = type(method).__module__.split(".")[-1]
    module = f"psrjax.benchmarks.torch_reference.{name}"
    if importlib.util.find_spec(module) is None:
        raise UserError(f"--against=torch: {name} has no PyTorch reference")
    kind = importlib.import_module(module).TorchReference
    supported = {"dtype": ("float32", "bfloat16"), **kind.supported}
    for field, values in supported.items():
        value = getattr(method, field)
        value = np.dtype(value).name if field == "dtype" else value
        if value not in values:
            known = " or ".join(map(str, values))
            raise UserError(
                f"--against=torch: the PyTorch reference has config.method.{field}={known} only, "
                f"not {value}"
            )
    return kind


def device() -> "torch.device":
    """Returns where PyTorch runs: the GPU if JAX runs on one.

    Raises:
      UserError: if PyTorch cannot use it.
    """
    if jax.default_backend() != "gpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(f"--against=torch: PyTorch {torch.__version__} does not see the GPU")
    return torch.device("cuda")


def is_exact(stage: CompiledStage) -> bool:
    """Returns True if both sides compute in float32: not on GPUs, whose products are TF32."""
    return jax.default_backend() == "cpu" and np.dtype(stage.method.dtype) == np.float32


def build(
    kind: type["TorchReference"], stage: CompiledStage, config: Any, *, channels_last: bool
) -> "TorchReference":
    """Makes a reference with the stage's weights, on `device()`."""
    pretrained = {
        name: jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)).to(device()), dict(given))
        for name, given in stage.weights.items()
    }
    with device():
        reference = kind(config, stage.method, pretrained, channels_last=channels_last)
    reference.prepare(stage.method.updates).load(stage.trained)
    return reference


def _fastest_references(
    kind: type["TorchReference"], stage: CompiledStage, config: Any
) -> tuple[dict[str, "TorchReference"], str]:
    """Finds what is fastest: {"step", "synthesis": reference}, and a line about all.

    Both memory formats; on GPUs also the step's faster one with `torch.compile`.
    """
    found: dict[str, list[tuple]] = {"step": [], "synthesis": []}
    failed = ""
    for channels_last in (False, True):
        reference = build(kind, stage, config, channels_last=channels_last)
        name = "channels last" if channels_last else "channels first"
        _try(found, name, reference, stage)
    if device().type != "cpu":
        _, name, best = min(found["step"], key=lambda each: each[0])
        reference = build(kind, stage, config, channels_last=best.channels_last).compile()
        try:
            _try(found, f"{name}, compiled", reference, stage)
        except Exception as error:  # whatever the compiler raises, the others are still there
            failed = f"; torch.compile failed: {(str(error).splitlines() or [repr(error)])[0]}"
    said, chosen = [], {}
    for program, timed in found.items():
        (fast, name, reference), *rest = sorted(timed, key=lambda each: each[0])
        others = "".join(f"; {other} {slow * 1e3:.0f} ms" for slow, other, _ in rest)
        said.append(f"{program} {name} ({fast * 1e3:.0f} ms{others})")
        chosen[program] = reference
    return chosen, ", ".join(said) + failed


def _try(
    found: dict[str, list[tuple]], name: str, reference: "TorchReference", stage: CompiledStage
) -> None:
    """Times both programs of a reference, and adds (seconds, name, reference) to `found`."""
    timed = {}
    for program, call, batch in (
        ("step", reference.step, stage.batch),
        ("synthesis", reference, stage.window),
    ):
        reference.set_training(program == "step")
        placed = reference.place(_wire(batch))
        timed[program] = timing.measure(_timed(functools.partial(call, placed)), runs=3)
    for program, each in timed.items():
        found[program].append((min(each.seconds), name, reference))


def _timed(call: Callable[[], Any]) -> Callable[[], Any]:
    """Returns a call that ends when the GPU has."""
    if device().type == "cpu":
        return call

    def waiting() -> None:
        call()
        torch.cuda.synchronize()

    return waiting


def _wire(batch: Mapping) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in batch.items()}


def check_same(
    stage: CompiledStage, reference: "TorchReference", *, exact: bool = True
) -> dict[str, Any]:
    """Checks parameters, FLOPs, one step's losses and gradients, and the video.

    Args:
      stage: psrjax's side.
      reference: PyTorch's.
      exact: both compute in float32. Else losses, gradients and video are compared, but may differ.

    Raises:
      UserError: if they differ.
    """
    wire, window = _wire(stage.batch), _wire(stage.window)
    ours, theirs = parameters(stage), _parameters(reference)
    if ours != theirs:
        raise UserError(f"--against=torch: parameters differ: {ours} here, {theirs} in PyTorch")
    reference.load(stage.trained)
    reference.set_training(False)
    layers = _forward_flops(reference, window)
    if layers != stage.forward_flops:
        odd = sorted(set(layers.items()) ^ set(stage.forward_flops.items()))[0]
        raise UserError(f"--against=torch: FLOPs per layer differ, first at {odd}")
    before, rngs = jax.tree.map(np.array, stage.trained), steps.first_streams(stage.state)

    def step(nudge: int) -> dict[str, float]:
        _load(reference, before, nudge)
        reference.set_training(True)
        with device():
            reference.draw(stage.method, before, rngs, stage.batch)
        return reference.step(_nudged(wire, nudge)) | reference.gradient_norms()

    mine = {name: float(value) for name, value in stage.step().items()}
    log = _compare(mine, step, floor=_LEAST, exact=exact)
    after = stage.trained  # with the step's statistics, so that the video is not flat

    def video(nudge: int) -> dict[str, np.ndarray]:
        _load(reference, after, nudge)
        reference.set_training(False)
        return {"video": reference(_nudged(window, nudge)).float().cpu().numpy()}

    made = np.asarray(stage.synthesize(), np.float32)
    seen = _compare({"video": made}, video, floor=1.0, exact=exact)
    if log.wrong or seen.wrong:
        raise UserError(f"--against=torch: results differ: {'; '.join(log.wrong + seen.wrong)}")
    reference.load(after)
    reference.set_training(True)
    with FlopCounterMode(display=False) as counter:
        reference.step(wire)
    return {
        "parameters": sum(_parameters(reference).values()),
        "step_gflop": stage.flops["step"] / 1e9,
        "torch_step_gflop": _convolution_flops(counter) / 1e9,
        "output_difference": seen.difference,
        "log_difference": log.difference,
        "ill_conditioned": log.ill_conditioned | seen.ill_conditioned,
    }


def _convolution_flops(counter: FlopCounterMode) -> int:
    """Returns the FLOPs of convolutions, which is what psrjax counts of its own step."""
    counts = counter.get_flop_counts()["Global"]
    return sum(flops for operation, flops in counts.items() if "convolution" in str(operation))


class _Comparison(NamedTuple):
    """The differences of two sides' values.

    Attributes:
      difference: the largest, relative to the values' size, of the well-conditioned ones.
      ill_conditioned: {value: (difference, how far the reference's moves)}, relative, of those that
        rounding alone moves by more than the tolerance.
      wrong: a description of each value that differs by more than rounding explains.
    """

    difference: float
    ill_conditioned: dict[str, tuple[float, float]]
    wrong: list[str]


def _compare(
    ours: Mapping[str, Any],
    theirs: Callable[[int], Mapping[str, Any]],
    *,
    floor: float,
    exact: bool = True,
) -> _Comparison:
    """Compares values with the reference's, allowing for what rounding does to them.

    A fresh network's gradient may be so steep that its norm in double precision moves by percents
    when weights move by 1e-7 of their size; a pixel at a limb's edge may fall in or out as its
    joint is rounded. No two programs agree on such values; they may differ as much as the
    reference's own do then.

    Args:
      ours: by name.
      theirs: the reference's, with weights and inputs as they are (0) or nudged by rounding,
        differently for each number.
      floor: the size of smaller values.
      exact: False: values may differ as they like.
    """
    unmoved = theirs(0)

    def gaps(found: Mapping[str, Any]) -> dict[str, float]:
        return {
            name: float(np.abs(found[name] - value).max() / max(np.abs(value).max(), floor))
            for name, value in unmoved.items()
        }

    differences = gaps(ours)
    if not exact:
        return _Comparison(max(differences.values()), {}, [])
    odd = [name for name, gap in differences.items() if not gap < _TOLERANCE]
    nudged = [gaps(theirs(nudge)) for nudge in range(1, 1 + _NUDGES)] if odd else []
    moves = {name: max(gap[name] for gap in nudged) for name in odd}
    allowed = {name: _TOLERANCE + _ROUNDINGS * move for name, move in moves.items()}
    wrong = [name for name in odd if not differences[name] < allowed[name]]
    return _Comparison(
        difference=max((gap for name, gap in differences.items() if name not in odd), default=0.0),
        ill_conditioned={name: (differences[name], moves[name]) for name in odd},
        wrong=[
            f"{name} by {differences[name]:.1e} of its size, where rounding moves it by "
            f"{moves[name]:.1e}"
            for name in wrong
        ],
    )


def _load(reference: "TorchReference", variables: Mapping, nudge: int) -> None:
    """Loads the weights, as they are or each moved by about a rounding of float32."""
    reference.load(variables)
    if not nudge:
        return
    draw = torch.Generator().manual_seed(nudge)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(1 + _ROUNDING * torch.randn(parameter.shape, generator=draw))


def _nudged(wire: Mapping[str, np.ndarray], nudge: int) -> dict[str, np.ndarray]:
    """Returns a batch as it is (0), or with floats moved by about a rounding of float32."""
    draw = np.random.default_rng(nudge)
    return {
        name: (array * (1 + _ROUNDING * draw.standard_normal(array.shape))).astype(np.float32)
        if nudge and array.dtype.kind == "f"
        else array
        for name, array in wire.items()
    }


def _parameters(reference: "TorchReference") -> dict[str, int]:
    return {
        name: sum(parameter.numel() for parameter in net.parameters())
        for name, net in reference.named_children()
    }


def _forward_flops(reference: "TorchReference", wire: Mapping) -> dict[str, int]:
    found: dict[str, int] = {}

    def hook(path: str) -> Callable:
        def count(module: Any, inputs: tuple, output: Any) -> None:
            found[path] = found.get(path, 0) + flops.convolution_flops(
                module.weight.numel(),
                samples=output.shape[0],
                inputs=inputs[0].shape[2:],
                outputs=output.shape[2:],
            )

        return count

    handles = [
        module.register_forward_hook(hook(path))
        for path, module in reference.convolutions().items()
    ]
    reference(wire)
    for handle in handles:
        handle.remove()
    return found


def _pairs(
    stage: CompiledStage, references: Mapping[str, "TorchReference"], options: BenchmarkOptions
) -> dict[str, timing.Pairs]:
    """Times synthesis and the training step, interleaved with the reference's."""
    maker, learner = references["synthesis"], references["step"]
    wire, window = learner.place(_wire(stage.batch)), maker.place(_wire(stage.window))
    maker.set_training(False)
    carry = maker.begin(window)
    synthesis = {
        "forward": lambda: maker(window),
        "start": lambda: maker.begin(window),
        "animate": lambda: maker.go_on(window, carry),
    }
    pairs = {
        name: timing.measure_pairs(call, _timed(synthesis[name]), pairs=options.pairs)
        for name, call in stage.calls.items()
        if name in synthesis
    }
    learner.set_training(True)
    theirs = _timed(lambda: learner.step(wire))
    step = timing.measure_pairs(stage.step, theirs, pairs=options.pairs)
    return {**pairs, "step": step}


def values() -> dict[str, tuple[float, float]]:
    """Computes {operation: (psrjax's value, PyTorch's)}, to check that they are the same."""
    others = torch_operations.calls(device())
    return {
        name: (float(jax.device_get(call()[0])), float(others[name]()[0]))
        for name, call in operations.calls().items()
        if name.endswith("grad")
    }
