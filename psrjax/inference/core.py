"""The compiled synthesis of one window, which transfer, novel views, evaluation and demo share."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from psrjax.data import spec
from psrjax.methods.base import Method

TRUTH, SOURCE = "truth", "source"  # the labels of the frames that are given, in a comparison


def make_synthesizer(method: Method, *, baselines: bool) -> Callable:
    """The compiled synthesis of one window.

    Returns:
      A function (variables, wire batch, carry) -> {"steps", "baselines", "carry"}, the first two as
      {label: (b t h w 3) uint8}; carry None starts a new clip. A method without named steps has
      one, named after its stage.
    """
    labels: dict[str, list[str]] = {}  # filled by tracing: a compiled dict comes back sorted

    def start(variables: Mapping, batch: Mapping) -> Any:
        return method.apply(variables, spec.decode(batch), method="start")

    def synthesize(variables: Mapping, batch: Mapping, carry: Any) -> tuple[dict, Any]:
        batch = spec.decode(batch)
        made, carry = method.apply(variables, batch, carry, method="synthesize")
        steps = made.get("steps") or {method.stage: made["video"]}
        simple = method.apply(variables, batch, method="baselines") if baselines else {}
        videos = {"steps": steps, "baselines": simple}
        labels.update({kind: list(named) for kind, named in videos.items()})
        return jax.tree.map(spec.encode_colors, videos), carry

    start, synthesize = jax.jit(start), jax.jit(synthesize)

    def run(variables: Mapping, batch: Mapping, carry: Any) -> dict[str, Any]:
        carry = start(variables, batch) if carry is None else carry
        videos, carry = synthesize(variables, batch, carry)
        ordered = {kind: {name: videos[kind][name] for name in labels[kind]} for kind in videos}
        return {**ordered, "carry": carry}

    return run
