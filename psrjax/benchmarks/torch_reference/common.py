"""The base class of the PyTorch references, and the layers and samplers that several of them use.

The reference of method NAME is `NAME.TorchReference` beside this file. It uses what makes PyTorch
fast: fused optimizers, no gradients for nets of other updates, in-place activations, both memory
formats; on request `torch.compile`, and bfloat16 by autocast.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from psrjax.data import spec

Batch = Mapping[str, torch.Tensor]
Decoded = dict[str, torch.Tensor]
Terms = dict[str, torch.Tensor]

LEAK = 0.2  # slope of every leaky ReLU

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


class TorchReference(nn.Module):
    """One stage of a method: its nets as children, the updates of its step, and its synthesis.

    A subclass writes `supported`, `__init__` (which ends by making the nets), `loss`, `start` and
    `synthesize`; `draw` where the loss is random. `prepare` is called after `__init__`. The
    children bear the names of the top level of the parameter tree; inside, modules carry the names
    of the JAX tree, so weights are copied by name. It runs on the device that it was made on.

    Attributes:
      supported: {field of the method: the values that the reference has}; another value is refused
        before anything is built. A field that is not named may have any value.
      channels_last: the memory format that `pictures` and `volume` give; else channels first.
      config: of the stage; weights and optimizers are read.
      method: the JAX method; its fields are read.
      is_compiled: by `compile`.
      pretrained: {network: {unit: {array: tensor}}}, as the JAX step is given them; kernels
        (kernel_size i o) as they come. They are no children: nothing here trains them.
    """

    supported: ClassVar[Mapping[str, tuple]] = {}

    def __init__(self, config: Any, method: Any, pretrained: Mapping, *, channels_last: bool):
        super().__init__()
        self.config, self.method = config, method
        self.pretrained = pretrained
        self.channels_last = channels_last
        self.updates: dict[str, tuple[str, ...]] = {}
        self.is_compiled = False

    @property
    def memory_format(self) -> torch.memory_format:
        """The format of (n, c, h, w) tensors."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.parameters()).device

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Makes new tensors on the device; products are bfloat16 where the method's are."""
        low = np.dtype(self.method.dtype).name == "bfloat16"
        # The context of a device costs every operation a microsecond or two: none on the CPU.
        here = self.device if self.device.type != "cpu" else contextlib.nullcontext()
        with here, torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            yield

    def compile(self) -> "TorchReference":
        """Compiles the losses and the synthesis from now on; the first call of each takes long."""
        for name in ("loss", "start", "synthesize"):
            setattr(self, name, torch.compile(getattr(self, name)))
        self.is_compiled = True
        return self

    def loss(self, update: str, batch: Batch, shared: Batch) -> tuple[Terms, Decoded]:
        """Computes one update's raw terms, and what it makes for later updates (then detached).

        As `psrjax.methods.base.Method.loss`: the step weighs the terms by `config.weights`; a term
        of weight 0 may be left out. `batch` is what `decode` gives.
        """
        raise NotImplementedError

    def start(self, batch: Batch) -> Any:
        """Computes the carry, what synthesis needs once for a source; by default nothing."""
        del batch

    def synthesize(self, batch: Batch, carry: Any) -> torch.Tensor:
        """Makes the video of a window, (b t h w 3) in [-1, 1], with the running statistics."""
        raise NotImplementedError

    def draw(self, method: Any, variables: Mapping, rngs: Mapping, batch: Mapping) -> None:
        """Keeps the random numbers that the JAX step draws, for the check that both are the same.

        By default none. A reference whose loss is random computes them by `method.apply(variables,
        …, rngs=rngs, method=…)` (the same stream, from the same module, in the same order), and
        draws fresh ones of its own while nothing is kept.

        Args:
          method: the JAX method.
          variables: of the state before the step.
          rngs: of the first update's loss.
          batch: the wire batch.
        """

    def prepare(self, updates: Mapping[str, tuple[str, ...]]) -> "TorchReference":
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
        """Lists the parameters that an update trains."""
        return [p for net in self.updates[update] for p in getattr(self, net).parameters()]

    def freeze(self) -> None:
        """Fixes the nets that no update trains: no gradients, running statistics."""
        trained = {net for nets in self.updates.values() for net in nets}
        for name, net in self.named_children():
            if name not in trained:
                net.requires_grad_(False).eval()

    def set_training(self, training: bool) -> None:
        """Uses batch statistics (True) or running ones; frozen nets always use running ones."""
        self.train(training)
        self.freeze()

    def decode(self, wire: Mapping[str, np.ndarray]) -> Decoded:
        """Decodes a wire batch as `psrjax.data.spec.decode` does: floats, axes of the contract."""
        wire = self.place(wire)
        return {name: _decode(array, name) for name, array in wire.items()}

    def place(self, wire: Mapping[str, Any]) -> Decoded:
        """Brings a wire batch to the device; what is there already is not copied."""
        return {name: torch.as_tensor(array, device=self.device) for name, array in wire.items()}

    def pictures(self, frames: torch.Tensor) -> torch.Tensor:
        """Turns (… h w c) into (n, c, h, w), in the memory format."""
        frames = frames.reshape(-1, *frames.shape[-3:]).movedim(-1, 1)
        return frames.contiguous(memory_format=self.memory_format)

    def volume(self, video: torch.Tensor) -> torch.Tensor:
        """Turns (b t h w c) into (b, c, t, h, w), in the memory format."""
        kind = torch.channels_last_3d if self.channels_last else torch.contiguous_format
        return video.movedim(-1, 1).contiguous(memory_format=kind)

    @torch.no_grad()
    def forward(self, wire: Mapping[str, np.ndarray]) -> torch.Tensor:
        """Runs `start` and `synthesize` on a wire batch; after `set_training(False)`."""
        with self.running():
            batch = self.decode(wire)
            return self.synthesize(batch, self.start(batch))

    @torch.no_grad()
    def begin(self, wire: Mapping[str, np.ndarray]) -> Any:
        """Runs `start` on a wire batch."""
        with self.running():
            return self.start(self.decode(wire))

    @torch.no_grad()
    def go_on(self, wire: Mapping[str, np.ndarray], carry: Any) -> torch.Tensor:
        """Runs `synthesize` on a wire batch, with the carry of `begin`."""
        with self.running():
            return self.synthesize(self.decode(wire), carry)

    def step(self, wire: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Makes one training step, the updates in order; returns {"update/term": raw value}."""
        # Read at the end: the device has not to wait for the host between the updates.
        return {name: value.item() for name, value in self.given_step(wire).items()}

    def given_step(self, wire: Mapping[str, np.ndarray]) -> Decoded:
        """Gives the device a training step; returns {"update/term": raw value, there}."""
        with self.running():
            batch = self.decode(wire)
        shared, log = {}, {}
        for update, nets in self.updates.items():
            for name, net in self.named_children():
                net.requires_grad_(name in nets)
            with self.running():
                terms, made = self.loss(update, batch, shared)
            weights = self.config.weights[update]
            terms = {name: value for name, value in terms.items() if weights[name]}
            self.optimizers[update].zero_grad(set_to_none=True)
            sum(weights[name] * value for name, value in terms.items()).backward()
            self.optimizers[update].step()
            shared |= {name: value.detach() for name, value in made.items()}
            log |= {f"{update}/{name}": value.detach() for name, value in terms.items()}
        return log

    def gradient_norms(self) -> dict[str, float]:
        """Returns {"update/grad_norm": value} of the last step."""
        norms = {}
        for update in self.updates:
            grads = [p.grad.norm() for p in self.parameters_of(update) if p.grad is not None]
            norms[f"{update}/grad_norm"] = float(torch.stack(grads).norm())
        return norms

    @torch.no_grad()
    def load(self, variables: Mapping[str, Mapping]) -> None:
        """Copies parameters and statistics of the JAX state here, and clears the optimizers.

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
        """Lists {path of the layer, as in the JAX tree: module}."""
        return {
            name.replace(".", "/"): module
            for name, module in self.named_modules()
            if isinstance(module, _CONVS | _TRANSPOSED)
        }


def _optimizer(config: Any, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Makes `psrjax.training.optimizer`'s rule at its first rate: schedules take no time."""
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
        return array.float() / torch.tensor([1.0, 255.0, 255.0], device=array.device)
    if coding == spec.LABEL:
        return array.int()
    return array.float() if coding == spec.FLOAT else array


class NormFirstResidual(nn.Module):
    """Twice norm - ReLU - 3x3 convolution, added to the input."""

    def __init__(self, norm: Callable[[int], nn.Module], width: int):
        super().__init__()
        self.norm1, self.norm2 = norm(width), norm(width)
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        y = self.conv1(F.relu_(self.norm1(x)))
        return x + self.conv2(F.relu_(self.norm2(y)))


def least_squares(real: list[torch.Tensor], fake: list[torch.Tensor]) -> torch.Tensor:
    """Sums the least-squares losses of discriminators, from their logits."""
    pairs = zip(real, fake, strict=True)
    return sum(0.5 * ((r - 1).square().mean() + f.square().mean()) for r, f in pairs)


def reflect_conv(inputs: int, outputs: int, kernel_size: int = 3) -> nn.Conv2d:
    """Makes a convolution with reflect padding, same size out as in."""
    return nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, padding_mode="reflect")


def warp(images: torch.Tensor, flow: torch.Tensor, padding: str = "zeros") -> torch.Tensor:
    """Samples images (n, c, h, w) at p + flow(p); flow is (n, 2, h, w) in pixels."""
    h, w = images.shape[-2:]
    columns, rows = (torch.arange(n, device=flow.device) for n in (w, h))
    x = (2 * (columns + flow[:, 0]) + 1) / w - 1
    y = (2 * (rows[:, None] + flow[:, 1]) + 1) / h - 1
    grid = torch.stack([x, y], dim=-1)
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def sample_texture(
    atlas: torch.Tensor, coordinates: torch.Tensor, parts: torch.Tensor
) -> torch.Tensor:
    """Samples a texture of body parts (D2G-Net, Eq. 1).

    Args:
      atlas: (p, c, s, s).
      coordinates: (n, p, h, w, 2) in [-1, 1].
      parts: (n, p, h, w), the weight of each part at each pixel.

    Returns:
      (n, c, h, w).
    """
    # Unbound, because each index alone would have a gradient of the whole atlas.
    total = 0
    for texture, places, share in zip(atlas.unbind(), coordinates.unbind(1), parts.unbind(1)):
        texture = texture.expand(len(share), -1, -1, -1)
        picked = F.grid_sample(texture, places, padding_mode="zeros", align_corners=True)
        total = total + picked * share[:, None]
    return total
