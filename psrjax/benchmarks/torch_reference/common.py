"""What the PyTorch peers share: `peer_NAME.Peer` is method NAME's network and step in PyTorch.

Peers exist for `psrjax bench --method NAME --against torch` only. A peer subclasses `Peer`: its
children are the method's nets, by the names of the parameter tree, made of the methods that the
class below leaves open. Everything that PyTorch offers to be fast on its own ground is used here:
fused optimizers, nets of other updates without gradients, in-place activations, both memory
formats.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from psrjax.data import spec

Batch = Mapping[str, torch.Tensor]
Decoded = dict[str, torch.Tensor]
Terms = dict[str, torch.Tensor]

_BATCH_NORMS = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_NORMS = _BATCH_NORMS | nn.InstanceNorm2d | nn.InstanceNorm3d | nn.GroupNorm | nn.LayerNorm
_CONVS = nn.Conv2d | nn.Conv3d
_TRANSPOSED = nn.ConvTranspose2d | nn.ConvTranspose3d
# PyTorch's name of an array -> the collection and the name in the JAX tree (a norm's weight: scale)
_NAMES = {
    "weight": ("params", "kernel"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
    "left": ("spectral", "left"),
    "right": ("spectral", "right"),
    "slope": ("params", "slope"),
    "gamma": ("params", "gamma"),
    "atlas": ("params", "atlas"),
    "picture": ("params", "picture"),
}


class Peer(nn.Module):
    """One stage of a method: its nets as children, the updates of its step, and its synthesis.

    To be written by a subclass: `supported`, `__init__` (which ends by making the nets), `loss`,
    `start` and `synthesize`; `draw` where the loss is random. `prepare` is called next.

    Attributes:
      supported: {field of config.method: the values that the peer has}; another value is refused
        before anything is built. A field that is not named may have any value.
      channels_last: the memory format that `pictures` and `volume` give.
      config: of the stage.
      pretrained: {network: {unit: {array: tensor}}}, as the JAX step is given them; kernels
        (kernel_size i o) as they come. They are no children: nothing here trains them.
    """

    supported: ClassVar[Mapping[str, tuple]] = {}

    def __init__(self, config: Any, pretrained: Mapping[str, Any], *, channels_last: bool):
        super().__init__()
        self.config = config
        self.pretrained = pretrained
        self.channels_last = channels_last
        self.updates: dict[str, tuple[str, ...]] = {}

    def loss(self, update: str, batch: Batch, shared: Batch) -> tuple[Terms, Decoded]:
        """One update's raw terms, and what it makes for later updates (handed on detached).

        As `psrjax.methods.base.Method.loss`: the step weighs the terms by `config.weights`; a term
        of weight 0 may be left out. `batch` is what `decode` gives.
        """
        raise NotImplementedError

    def start(self, batch: Batch) -> Any:
        """What synthesis computes once for a source: the carry. Here nothing."""
        del batch

    def synthesize(self, batch: Batch, carry: Any) -> torch.Tensor:
        """The video of a window, (b t h w 3) in [-1, 1], with the kept statistics."""
        raise NotImplementedError

    def draw(self, method: Any, variables: Mapping, rngs: Mapping, batch: Mapping) -> None:
        """Keeps the random numbers that the JAX step draws, for the check that both are the same.

        Here none; a peer whose loss is random computes them by `method.apply(variables, …,
        rngs=rngs, method=…)` (the same stream, from the same module, in the same order), and uses
        fresh ones of its own while nothing is kept.

        Args:
          method: the JAX method.
          variables: of the state before the step.
          rngs: of the first update's loss.
          batch: the wire batch.
        """

    # ------------------------------------------------------------- what every peer has from here

    def prepare(self, updates: Mapping[str, tuple[str, ...]]) -> "Peer":
        """Sets the memory format of the kernels, and makes an optimizer for each update."""
        self.updates = dict(updates)
        if self.channels_last:
            for module in self.modules():
                if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                    module.to(memory_format=torch.channels_last_3d)
                elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    module.to(memory_format=torch.channels_last)
        self.optimizers = {
            update: _optimizer(self.config.optimizer[update], self.parameters_of(update))
            for update in updates
        }
        self.freeze()
        return self

    def parameters_of(self, update: str) -> list[nn.Parameter]:
        """The parameters that an update trains."""
        return [p for net in self.updates[update] for p in getattr(self, net).parameters()]

    def freeze(self) -> None:
        """Nets that no update trains: without gradients, with their kept statistics."""
        trained = {net for nets in self.updates.values() for net in nets}
        for name, net in self.named_children():
            if name not in trained:
                net.requires_grad_(False).eval()

    def set_training(self, training: bool) -> None:
        """Batch statistics (True) or the kept ones; frozen nets always have their own."""
        self.train(training)
        self.freeze()

    def decode(self, wire: Mapping[str, np.ndarray]) -> Decoded:
        """A wire batch as `psrjax.data.spec.decode` gives it: floats, axes as in the contract."""
        return {name: _decode(torch.from_numpy(array), name) for name, array in wire.items()}

    def pictures(self, frames: torch.Tensor) -> torch.Tensor:
        """(… h w c) to (n, c, h, w), in the peer's memory format."""
        frames = frames.reshape(-1, *frames.shape[-3:]).movedim(-1, 1)
        kind = torch.channels_last if self.channels_last else torch.contiguous_format
        return frames.contiguous(memory_format=kind)

    def volume(self, video: torch.Tensor) -> torch.Tensor:
        """(b t h w c) to (b, c, t, h, w), in the peer's memory format."""
        kind = torch.channels_last_3d if self.channels_last else torch.contiguous_format
        return video.movedim(-1, 1).contiguous(memory_format=kind)

    @torch.no_grad()
    def forward(self, wire: Mapping[str, np.ndarray]) -> torch.Tensor:
        """`synthesize` of `start` for a wire batch; after `set_training(False)`."""
        batch = self.decode(wire)
        return self.synthesize(batch, self.start(batch))

    @torch.no_grad()
    def begin(self, wire: Mapping[str, np.ndarray]) -> Any:
        """`start` for a wire batch."""
        return self.start(self.decode(wire))

    @torch.no_grad()
    def go_on(self, wire: Mapping[str, np.ndarray], carry: Any) -> torch.Tensor:
        """`synthesize` for a wire batch, `start` being done."""
        return self.synthesize(self.decode(wire), carry)

    def step(self, wire: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One training step, the updates in order: {"update/term": raw value}."""
        batch, shared, log = self.decode(wire), {}, {}
        for update, nets in self.updates.items():
            for name, net in self.named_children():
                net.requires_grad_(name in nets)
            terms, made = self.loss(update, batch, shared)
            weights = self.config.weights[update]
            terms = {name: value for name, value in terms.items() if weights[name]}
            self.optimizers[update].zero_grad(set_to_none=True)
            sum(weights[name] * value for name, value in terms.items()).backward()
            self.optimizers[update].step()
            shared |= {name: value.detach() for name, value in made.items()}
            log |= {f"{update}/{name}": value.item() for name, value in terms.items()}
        return log

    def gradient_norms(self) -> dict[str, float]:
        """{"update/grad_norm"} of the last step."""
        norms = {}
        for update in self.updates:
            grads = [p.grad.norm() for p in self.parameters_of(update) if p.grad is not None]
            norms[f"{update}/grad_norm"] = float(torch.stack(grads).norm())
        return norms

    @torch.no_grad()
    def load(self, variables: Mapping[str, Mapping]) -> None:
        """Copies parameters and statistics of the JAX state into these nets, and forgets moments.

        Args:
          variables: {"params": …, "batch_stats": …}, nested dicts of arrays.

        Raises:
          KeyError: if the JAX tree has no such name; ValueError if a shape differs.
        """
        modules = dict(self.named_modules())
        for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
            path, _, kind = name.rpartition(".")
            if kind == "num_batches_tracked":
                continue
            collection, leaf = _NAMES[kind]
            module = modules[path]
            if kind == "weight" and isinstance(module, _NORMS):
                leaf = "scale"
            tree = variables[collection]
            for part in path.split("."):
                tree = tree[part]
            array = torch.from_numpy(np.array(tree[leaf]))
            if leaf == "kernel":
                array = array.movedim((-1, -2), (0, 1))
                if isinstance(module, _TRANSPOSED):
                    array = array.transpose(0, 1)
            if array.shape != tensor.shape:
                raise ValueError(f"{name}: {tuple(tensor.shape)} here, {tuple(array.shape)} there")
            tensor.copy_(array)
        for optimizer in self.optimizers.values():
            optimizer.state.clear()

    def convolutions(self) -> dict[str, nn.Module]:
        """{path of the layer, as in the JAX tree: module}."""
        named = self.named_modules()
        return {
            name.replace(".", "/"): module
            for name, module in named
            if isinstance(module, _CONVS | _TRANSPOSED)
        }


def _optimizer(config: Any, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The rule of `psrjax.training.optimizer` at its first rate: schedules take no time."""
    name, rate = config.get("name", "adam"), config.learning_rate
    if name == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=config.get("momentum", 0.0), fused=True)
    options = {"betas": (config.get("b1", 0.9), config.get("b2", 0.999))}
    options["eps"] = config.get("eps", 1e-8)
    if name == "radam":
        return torch.optim.RAdam(parameters, rate, foreach=True, **options)
    return torch.optim.Adam(parameters, rate, fused=True, **options)


def _decode(array: torch.Tensor, name: str) -> torch.Tensor:
    coding = spec.KEYS[name].coding
    if coding == spec.COLORS:
        return array.float() / 127.5 - 1
    if coding == spec.FRACTION:
        return array.float() / 255
    if coding == spec.IUV:
        return array.float() / torch.tensor([1.0, 255.0, 255.0])
    if coding == spec.LABEL:
        return array.int()
    return array.float() if coding == spec.FLOAT else array
