"""The benchmark against PyTorch: the same network and step, checked to be the same, in one run.

Method NAME takes part if there is a `benchmarks/torch_reference/NAME.py` with a class `Peer`. To
write one, subclass `torch_reference.common.Peer` (its docstring is the interface; the files beside
it are examples):

  - its children are the method's nets (of this stage), named as the top level of the parameters;
    inside, modules carry the names of the JAX tree, so weights are copied by name: `Conv` is
    `nn.Conv2d`/`nn.Conv3d`, `ConvTranspose` likewise, norms are PyTorch's, biases where JAX has
    them. Wider translations (spectral vectors, say) go into an override of `load`;
  - `supported` names the fields of `config.method` that it fixes, and their values;
  - `loss(update, batch, shared)` gives the raw terms under the method's names, `start` and
    `synthesize` the video; `decode` gives arrays with the contract's axes, and `pictures` and
    `volume` update them channels first;
  - random losses: `draw` keeps JAX's random numbers for the check.

`compare` then makes both, copies the weights, and refuses to time what is not the same: parameters
of every net, FLOPs of every convolution, each term and gradient norm of one step, and the video.
`tests/training/test_benchmark.py` has one slow test over all peers; add your method's small config.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from psrjax.benchmarks import flops, operations, timing
from psrjax.benchmarks.subject import Options, Subject, parameters
from psrjax.errors import UserError
from psrjax.runtime import machine
from psrjax.training import step as steps

try:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from psrjax.benchmarks import torch_operations
    from psrjax.benchmarks.torch_reference import common as peers
except ImportError as error:
    raise UserError(
        "--against=torch: PyTorch is not installed; `pip install psrjax[peer]`, or torch alone"
    ) from error

_TOLERANCE = 2e-3  # of float32 results, relative to their size
_LEAST = 1e-6  # logged values under this count as this
_ROUNDING = 1.2e-7  # of a float32
_NUDGES = 4  # ways to round weights and inputs, where the sides differ by more than the tolerance
_ROUNDINGS = 4.0  # times as far as the peer's own values move, may the sides be apart then


def compare(subject: Subject, config: Any, options: Options) -> dict[str, Any]:
    """Builds the peer from the subject's weights, checks that both compute the same, times both.

    Args:
      subject: psrjax's side, compiled.
      config: of the stage.
      options: sizes and pairs.

    Returns:
      Numbers for `benchmark_table.table` and JSON; ratios are psrjax's time by the peer's.

    Raises:
      UserError: for a method, stage or field that the peer has not; if the two are not the same.
    """
    kind = peer_class(config)
    torch.set_num_threads(machine.cores())
    peers, memory_format = _faster_peers(kind, subject, config)
    for peer in set(peers.values()):
        checks = check_same(subject, peer)
    pairs = _pairs(subject, peers, options)
    others = torch_operations.calls()
    for name, call in operations.calls().items():
        pairs[name] = timing.measure_pairs(call, others[name], pairs=options.pairs * 3)
    return {
        "versions": f"PyTorch {torch.__version__}",
        "threads": torch.get_num_threads(),
        "format": memory_format,
        **checks,
        "pairs": {
            name: {
                "psrjax": found.first.summary(),
                "peer": found.second.summary(),
                "ratio": found.ratios.summary(),
            }
            for name, found in pairs.items()
        },
    }


def peer_class(config: Any) -> type["peers.Peer"]:
    """The peer of the config's method, if it has one for these fields."""
    name = config.method.name
    module = f"psrjax.benchmarks.torch_reference.{name}"
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"--against=torch: there is no peer of {name} (no torch_reference/{name}.py)"
        )
    kind = importlib.import_module(module).Peer
    for field, values in kind.supported.items():
        if config.method[field] not in values:
            known = " or ".join(map(str, values))
            raise UserError(
                f"--against=torch: the peer has config.method.{field}={known} only, not "
                f"{config.method[field]}"
            )
    return kind


def build(
    kind: type["peers.Peer"], subject: Subject, config: Any, *, channels_last: bool
) -> "peers.Peer":
    """A peer with the subject's weights."""
    pretrained = {
        name: jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), dict(weights))
        for name, weights in subject.weights.items()
    }
    peer = kind(config, pretrained, channels_last=channels_last).prepare(subject.method.updates)
    peer.load(subject.trained)
    return peer


def _faster_peers(
    kind: type["peers.Peer"], subject: Subject, config: Any
) -> tuple[dict[str, "peers.Peer"], str]:
    """{"step", "synthesis"}: peers in the memory format that is faster at it; which they are."""
    wire, window = _wire(subject.batch), _wire(subject.window)
    found: dict[str, list[tuple]] = {"step": [], "synthesis": []}
    for channels_last in (False, True):
        peer = build(kind, subject, config, channels_last=channels_last)
        name = "channels last" if channels_last else "channels first"
        for program, call in (("step", peer.step), ("synthesis", peer)):
            peer.set_training(program == "step")
            argument = wire if program == "step" else window
            timed = timing.measure(functools.partial(call, argument), runs=3)
            found[program].append((min(timed.seconds), name, peer))
    said, chosen = [], {}
    for program, timed in found.items():
        (fast, name, peer), (slow, other, _) = sorted(timed, key=lambda each: each[0])
        said.append(f"{program} {name} ({fast * 1e3:.0f} ms; {other} {slow * 1e3:.0f} ms)")
        chosen[program] = peer
    return chosen, ", ".join(said)


def _wire(batch: Mapping) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in batch.items()}


def check_same(subject: Subject, peer: "peers.Peer") -> dict[str, Any]:
    """Parameters, FLOPs, one step's losses and gradients, and the video.

    Raises:
      UserError: if they differ.
    """
    wire, window = _wire(subject.batch), _wire(subject.window)
    ours, theirs = parameters(subject), _parameters(peer)
    if ours != theirs:
        raise UserError(f"--against=torch: parameters differ: {ours} here, {theirs} in PyTorch")
    peer.load(subject.trained)
    peer.set_training(False)
    layers = _forward_flops(peer, window)
    if layers != subject.forward_flops:
        odd = sorted(set(layers.items()) ^ set(subject.forward_flops.items()))[0]
        raise UserError(f"--against=torch: FLOPs per layer differ, first at {odd}")
    before, rngs = jax.tree.map(np.array, subject.trained), steps.first_streams(subject.state)

    def step(nudge: int) -> dict[str, float]:
        _load(peer, before, nudge)
        peer.set_training(True)
        peer.draw(subject.method, before, rngs, subject.batch)
        return peer.step(_nudged(wire, nudge)) | peer.gradient_norms()

    mine = {name: float(value) for name, value in subject.step().items()}
    log = _compare(mine, step, floor=_LEAST)
    after = subject.trained  # with the step's statistics, so that the video is not flat

    def video(nudge: int) -> dict[str, np.ndarray]:
        _load(peer, after, nudge)
        peer.set_training(False)
        return {"video": peer(_nudged(window, nudge)).numpy()}

    seen = _compare({"video": np.asarray(subject.synthesize())}, video, floor=1.0)
    if log.wrong or seen.wrong:
        raise UserError(f"--against=torch: results differ: {'; '.join(log.wrong + seen.wrong)}")
    peer.load(after)
    peer.set_training(True)
    with FlopCounterMode(display=False) as counter:
        peer.step(wire)
    return {
        "parameters": sum(_parameters(peer).values()),
        "step_gflop": subject.flops["step"] / 1e9,
        "peer_step_gflop": counter.get_total_flops() / 1e9,
        "output_difference": seen.difference,
        "log_difference": log.difference,
        "ill_conditioned": log.ill_conditioned | seen.ill_conditioned,
    }


class _Comparison(NamedTuple):
    """How two sides' values differ.

    Attributes:
      difference: the largest, relative to the values' size, of the well-conditioned ones.
      ill_conditioned: {value: (difference, how far the peer's own moves)}, relative, of those that
        rounding alone moves by more than the tolerance.
      wrong: a description of each value that differs by more than rounding explains.
    """

    difference: float
    ill_conditioned: dict[str, tuple[float, float]]
    wrong: list[str]


def _compare(
    ours: Mapping[str, Any], theirs: Callable[[int], Mapping[str, Any]], *, floor: float
) -> _Comparison:
    """Compares values with the peer's, allowing for what rounding does to them.

    A fresh network's gradient may be so steep that its norm in double precision moves by percents
    when weights move by 1e-7 of their size; a pixel at a limb's edge may fall in or out as its
    joint is rounded. No two programs agree on such values; they are held to what the peer's own do
    then.

    Args:
      ours: by name.
      theirs: the peer's, with weights and inputs as they are (0) or nudged by rounding, another
        way for each number.
      floor: the size of smaller values.
    """
    exact = theirs(0)

    def gaps(found: Mapping[str, Any]) -> dict[str, float]:
        return {
            name: float(np.abs(found[name] - value).max() / max(np.abs(value).max(), floor))
            for name, value in exact.items()
        }

    differences = gaps(ours)
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


def _load(peer: "peers.Peer", variables: Mapping, nudge: int) -> None:
    """The subject's weights, as they are or each moved by about a rounding of float32."""
    peer.load(variables)
    if not nudge:
        return
    draw = torch.Generator().manual_seed(nudge)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.mul_(1 + _ROUNDING * torch.randn(parameter.shape, generator=draw))


def _nudged(wire: Mapping[str, np.ndarray], nudge: int) -> dict[str, np.ndarray]:
    """A batch as it is (0), or its floats, of any width, moved by about a rounding of float32."""
    draw = np.random.default_rng(nudge)
    return {
        name: (array * (1 + _ROUNDING * draw.standard_normal(array.shape))).astype(np.float32)
        if nudge and array.dtype.kind == "f"
        else array
        for name, array in wire.items()
    }


def _parameters(peer: "peers.Peer") -> dict[str, int]:
    return {
        name: sum(parameter.numel() for parameter in net.parameters())
        for name, net in peer.named_children()
    }


def _forward_flops(peer: "peers.Peer", wire: Mapping) -> dict[str, int]:
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
        module.register_forward_hook(hook(path)) for path, module in peer.convolutions().items()
    ]
    peer(wire)
    for handle in handles:
        handle.remove()
    return found


def _pairs(
    subject: Subject, peers: Mapping[str, "peers.Peer"], options: Options
) -> dict[str, timing.Pairs]:
    """Synthesis and the training step, each in turn with the peer's."""
    wire, window = _wire(subject.batch), _wire(subject.window)
    maker, learner = peers["synthesis"], peers["step"]
    maker.set_training(False)
    carry = maker.begin(window)
    synthesis = {
        "forward": lambda: maker(window),
        "start": lambda: maker.begin(window),
        "animate": lambda: maker.go_on(window, carry),
    }
    pairs = {
        name: timing.measure_pairs(call, synthesis[name], pairs=options.pairs)
        for name, call in subject.calls.items()
        if name in synthesis
    }
    learner.set_training(True)
    step = timing.measure_pairs(subject.step, lambda: learner.step(wire), pairs=options.pairs)
    return {**pairs, "step": step}


def values() -> dict[str, tuple[float, float]]:
    """{operation: (psrjax's value, PyTorch's)}: that both sides compute the same."""
    others = torch_operations.calls()
    return {
        name: (float(jax.device_get(call()[0])), float(others[name]()[0]))
        for name, call in operations.calls().items()
        if name.endswith("grad")
    }
