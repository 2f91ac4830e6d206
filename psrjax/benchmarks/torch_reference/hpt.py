"""HPT's first stage in PyTorch; the correlation is the published code's dense matrix product.

Pictures are (n, c, h, w) in [-1, 1]; joints are the contract's.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from psrjax.benchmarks.torch_reference import common
from psrjax.ops import pose, pose_label

_LAYOUT = pose.layout("coco18")


class SpectralConv(nn.Conv2d):
    """A convolution divided by its largest singular value, one power iteration in each step."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, **options: Any):
        super().__init__(inputs, outputs, kernel_size, **options)
        self.register_buffer("left", torch.full((outputs,), outputs**-0.5))
        columns = inputs * kernel_size * kernel_size
        self.register_buffer("right", torch.full((columns,), columns**-0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, inputs, h, w) to (n, outputs, …)."""
        matrix = self.weight.flatten(1)
        if self.training:
            with torch.no_grad():
                self.right.copy_(F.normalize(matrix.T @ self.left, dim=0, eps=1e-6))
                self.left.copy_(F.normalize(matrix @ self.right, dim=0, eps=1e-6))
        # Copies: the buffers change again before the backward pass.
        size = torch.dot(self.left.clone(), (matrix @ self.right.clone()).float())
        return self._conv_forward(x, self.weight / size, self.bias)


class Spade(nn.Module):
    """Positional norm, modulated by two convolutions of the condition."""

    def __init__(self, width: int, condition: int, hidden: int):
        super().__init__()
        self.shared = common.reflect_conv(condition, hidden)
        self.maps = common.reflect_conv(hidden, 2 * width)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Keeps the shape (n, c, h, w)."""
        condition = F.interpolate(condition, x.shape[-2:])
        gamma, beta = self.maps(F.relu_(self.shared(condition))).chunk(2, 1)
        variance, mean = torch.var_mean(x, 1, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-5) * (1 + gamma) + beta


class SpadeResidual(nn.Module):
    """Twice SPADE - leaky ReLU - spectral convolution, added to the input."""

    def __init__(self, inputs: int, width: int, condition: int, hidden: int):
        super().__init__()
        middle = min(inputs, width)
        reflect = {"padding": 1, "padding_mode": "reflect"}
        self.spade0, self.spade1 = (Spade(w, condition, hidden) for w in (inputs, middle))
        self.conv0 = SpectralConv(inputs, middle, 3, **reflect)
        self.conv1 = SpectralConv(middle, width, 3, **reflect)
        self.skips = inputs != width
        if self.skips:
            self.spade_skip = Spade(inputs, condition, hidden)
            self.skip = SpectralConv(inputs, width, 1, bias=False)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Maps (n, inputs, h, w) to (n, width, h, w)."""
        y = self.conv0(F.leaky_relu_(self.spade0(x, condition), common.LEAK))
        y = self.conv1(F.leaky_relu_(self.spade1(y, condition), common.LEAK))
        return (self.skip(self.spade_skip(x, condition)) if self.skips else x) + y


class Adaptor(nn.Module):
    """Maps one domain to the shared space; features have length 1."""

    def __init__(self, inputs: int, method: Any):
        super().__init__()
        widths = [inputs, *(factor * method.width for factor in (1, 2, 4, 8, 8))]
        for i, stride in enumerate((1, 2, 1, method.num_downsamples, 1)):
            conv = SpectralConv(widths[i], widths[i + 1], 3, stride=stride, padding=1, bias=False)
            self.add_module(f"conv{i}", conv)
        before = widths[-1]
        for i, factor in enumerate((8, 8, 4)):
            width = factor * method.width
            self.add_module(f"block{i}", SpadeResidual(before, width, inputs, method.hidden))
            before = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, inputs, h, w) to (n, 4 width, y, x)."""
        condition = x
        for i in range(5):
            x = getattr(self, f"conv{i}")(F.leaky_relu_(x, common.LEAK) if i else x)
            x = F.instance_norm(x)
        for i in range(3):
            x = getattr(self, f"block{i}")(x, condition)
        return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-12)


class Residual(nn.Module):
    """Twice convolution - instance norm, one slope for both PReLUs."""

    def __init__(self, width: int):
        super().__init__()
        self.conv0, self.conv1 = (common.reflect_conv(width, width) for _ in range(2))
        self.slope = nn.Parameter(torch.tensor(0.25))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        slope = self.slope.reshape(1)
        y = F.prelu(F.instance_norm(self.conv0(x)), slope)
        return F.prelu(x + F.instance_norm(self.conv1(y)), slope)


class Correspondence(nn.Module):
    """Both adaptors, the shared layers, and the warp by the dense correlation."""

    def __init__(self, label: int, method: Any):
        super().__init__()
        self.method = method
        self.pose_adaptor, self.picture_adaptor = Adaptor(label, method), Adaptor(3, method)
        for i in range(method.match_blocks):
            self.add_module(f"shared_{i}", Residual(4 * method.width))
        self.pose_projection, self.picture_projection = (
            nn.Conv2d(4 * method.width, 4 * method.width, 1) for _ in range(2)
        )

    def descriptors(self, features: torch.Tensor, projection: nn.Module) -> torch.Tensor:
        """Returns (n, d, positions), of length 1."""
        for i in range(self.method.match_blocks):
            features = getattr(self, f"shared_{i}")(features)
        kernel_size = self.method.match_kernel_size
        x = F.unfold(projection(features), kernel_size, padding=kernel_size // 2)
        x = x - x.mean(1, keepdim=True)
        return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-12)

    def encode(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encodes an exemplar to keys and values."""
        keys = self.descriptors(self.picture_adaptor(picture), self.picture_projection)
        side = 2**self.method.num_downsamples
        if self.method.warp == "patch":
            return {"keys": keys, "values": F.unfold(picture, side, stride=side)}
        return {"keys": keys, "values": F.avg_pool2d(picture, side).flatten(2)}

    def warp(self, queries: torch.Tensor, exemplar: Mapping, size: tuple[int, int]) -> torch.Tensor:
        """Warps the exemplar to the coarse picture."""
        scores = queries.transpose(1, 2) @ exemplar["keys"]
        rises = self.method.sharpness_steps > 0  # and this is its first step
        sharpness = self.method.sharpness_start if rises else self.method.sharpness
        weights = (scores * sharpness).softmax(-1)
        values = exemplar["values"] @ weights.transpose(1, 2)
        side = 2**self.method.num_downsamples
        if self.method.warp == "patch":
            return F.fold(values, size, side, stride=side)
        small = values.unflatten(2, (size[0] // side, size[1] // side))
        return F.interpolate(small, scale_factor=side)


class SelfAttention(nn.Module):
    """SAGAN's self-attention."""

    def __init__(self, width: int):
        super().__init__()
        narrow, half = max(width // 8, 1), max(width // 2, 1)
        self.query, self.key = (SpectralConv(width, narrow, 1, bias=False) for _ in range(2))
        self.value = SpectralConv(width, half, 1, bias=False)
        self.out = SpectralConv(half, width, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        query = self.query(x).flatten(2)
        key, value = (F.max_pool2d(net(x), 2).flatten(2) for net in (self.key, self.value))
        weights = (query.transpose(1, 2) @ key).softmax(-1)
        seen = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[-2:])
        return x + self.gamma * self.out(seen)


class MotionGenerator(nn.Module):
    """The coarse-to-fine generator."""

    def __init__(self, condition: int, method: Any):
        super().__init__()
        self.levels, self.attend = method.levels, method.attend
        before = self._channels(method, 0)
        self.seed = nn.Conv2d(condition, before, 3, padding=1)
        self.names: list[list[str]] = []
        for level in range(self.levels + 1):
            if self.attend and level == self.levels - 1:
                self.attention = SelfAttention(before)
            self.names.append([f"block{level}{part}" for part in ("ab" if level == 1 else "a")])
            for name in self.names[-1]:
                width = self._channels(method, level)
                self.add_module(name, SpadeResidual(before, width, condition, method.hidden))
                before = width
        self.picture = nn.Conv2d(before, 3, 3, padding=1)

    def _channels(self, method: Any, level: int) -> int:
        return method.generator_width * 2 ** min(4, self.levels - level)

    def forward(self, condition: torch.Tensor) -> torch.Tensor:
        """Maps (n, c, h, w) to (n, 3, h, w)."""
        x = self.seed(condition[..., :: 2**self.levels, :: 2**self.levels])
        for level, names in enumerate(self.names):
            x = F.interpolate(x, scale_factor=2) if level else x
            if self.attend and level == self.levels - 1:
                x = self.attention(x)
            for name in names:
                x = getattr(self, name)(x, condition)
        return self.picture(F.leaky_relu_(x, common.LEAK)).tanh()


class Discriminator(nn.Module):
    """CoCosNet's discriminator at several sizes."""

    def __init__(self, inputs: int, method: Any):
        super().__init__()
        self.scales, self.depth = method.discriminator_scales, method.discriminator_layers
        self.attend = method.attend
        widths = [method.discriminator_width * min(2**i, 8) for i in range(self.depth)]
        for scale in range(self.scales):
            self.add_module(f"scale{scale}_conv0", nn.Conv2d(inputs, widths[0], 4, 2, 1))
            for i in range(1, self.depth):
                stride = 1 if i == self.depth - 1 else 2
                conv = SpectralConv(
                    widths[i - 1], widths[i], 4, stride=stride, padding=1, bias=False
                )
                self.add_module(f"scale{scale}_conv{i}", conv)
            if self.attend:
                self.add_module(f"scale{scale}_attention", SelfAttention(widths[-2]))
            self.add_module(f"scale{scale}_logits", nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Returns the logits of each size."""
        found = []
        for scale in range(self.scales):
            x = F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False) if scale else x
            y = x
            for i in range(self.depth):
                if i == self.depth - 1 and self.attend:
                    y = getattr(self, f"scale{scale}_attention")(y)
                y = getattr(self, f"scale{scale}_conv{i}")(y)
                y = F.leaky_relu_(F.instance_norm(y) if i else y, common.LEAK)
            found.append(getattr(self, f"scale{scale}_logits")(y))
        return found


def draw(joints: torch.Tensor, height: int, width: int, figure: str = "coco18") -> torch.Tensor:
    """Draws a disc for each joint of (n, 26, 3), then the stick figure: "hpt21" (n, 21, h, w)."""
    drawn = pose_label.FIGURES[figure]
    joints = joints[:, list(drawn.layout.view)]
    there = joints[..., 2] > 0
    x = ((joints[..., 0] + 1) * width - 1) / 2
    y = ((joints[..., 1] + 1) * height - 1) / 2
    radius = max(pose_label.RADIUS * height / 256, 0.75)
    columns, rows = torch.arange(width), torch.arange(height)[:, None]
    away = (columns - x[..., None, None]) ** 2 + (rows - y[..., None, None]) ** 2
    discs = ((away <= radius**2) & there[..., None, None]).float()
    colors, limb_colors = (torch.tensor(c) / 255 for c in (drawn.colors, drawn.limb_colors))
    sticks = torch.zeros(len(joints), 3, height, width)
    for joint, color in enumerate(colors):
        sticks = torch.where(discs[:, joint, None] > 0, color[:, None, None], sticks)
    start, end = torch.tensor(drawn.layout.limbs).T
    ends = torch.stack([x, y], -1)
    middle, along = (ends[:, start] + ends[:, end]) / 2, (ends[:, end] - ends[:, start]) / 2
    half = (along.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    along = along / half
    right, down = (columns - middle[..., :1, None], rows - middle[..., 1:, None])
    (ax, ay), half = along[..., None, None].unbind(2), half[..., None]
    forward = (right * ax + down * ay) / half.clamp(min=radius)
    aside = (right * ay - down * ax) / radius
    limbs = (forward**2 + aside**2 <= 1) & (there[:, start] & there[:, end])[..., None, None]
    for limb in range(limbs.shape[1]):
        mixed = 0.4 * sticks + 0.6 * limb_colors[limb][:, None, None]
        sticks = torch.where(limbs[:, limb, None], mixed, sticks)
    return torch.cat([discs, sticks], 1)


class TorchReference(common.TorchReference):
    """The stage `transfer` without VGG-19's terms."""

    supported = {
        "stage": ("transfer",),
        "pose_label": ("hpt21",),
        "gan": ("bce",),
        "perceptual": ("off",),
    }

    def __init__(self, config: Any, method: Any, pretrained: Mapping, *, channels_last: bool):
        super().__init__(config, method, pretrained, channels_last=channels_last)
        self.pose_channels = pose_label.KINDS[method.pose_label]  # the octaves are behind them
        label = self.pose_channels + 4 * method.octaves
        self.align = Correspondence(self.pose_channels, method)
        self.generator = MotionGenerator(label + 3, method)
        self.discriminator = Discriminator(label + 3, method)

    def load(self, variables: Mapping[str, Mapping]) -> None:
        """As the base class; kernel axes are ordered otherwise than in the singular vectors."""
        super().load(variables)
        for module in self.modules():
            if isinstance(module, SpectralConv):
                outer = (*module.kernel_size, module.in_channels)
                module.right.copy_(module.right.reshape(outer).movedim(-1, 0).flatten())

    def _labels(self, joints: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        label = draw(joints.flatten(0, 1), *frames.shape[2:4])
        if self.method.octaves:
            where = pose_label.places(*frames.shape[2:4], octaves=self.method.octaves)
            where = torch.as_tensor(where).movedim(-1, 0).expand(len(label), -1, -1, -1)
            label = torch.cat([label, where], 1)
        return label.contiguous(memory_format=self.memory_format)

    def loss(
        self, update: str, batch: common.Batch, shared: common.Batch
    ) -> tuple[common.Terms, common.Decoded]:
        """Eq. 10, 11 and 14, and the discriminator's loss."""
        if update == "discriminator":
            real, fake = (
                self.discriminator(torch.cat([shared["label"], shared[name]], 1))
                for name in ("truth", "picture")
            )
            terms = [
                0.5 * (F.softplus(-r).mean() + F.softplus(f).mean())
                for r, f in zip(real, fake, strict=True)
            ]
            return {"adversarial": sum(terms) / len(terms)}, {}
        label = self._labels(batch["target_joints"], batch["target"])
        truth = self.pictures(batch["target"])
        t = batch["target"].shape[1]
        exemplar = self.pictures(batch["source"][:, 0]).repeat_interleave(t, 0)
        features = self.align.pose_adaptor(label[:, : self.pose_channels])
        queries = self.align.descriptors(features, self.align.pose_projection)
        coarse = self.align.warp(queries, self.align.encode(exemplar), truth.shape[-2:])
        picture = self.generator(torch.cat([coarse, label], 1))
        aligned = truth if self.method.align_to == "real" else picture.detach()
        itself = (exemplar == truth).flatten(1).all(1).float()
        apart = (coarse - truth).abs().mean((1, 2, 3))
        spectral = [m for m in self.discriminator.modules() if isinstance(m, SpectralConv)]
        before = [(m.left.clone(), m.right.clone()) for m in spectral]
        logits = self.discriminator(torch.cat([label, picture], 1))
        for module, (left, right) in zip(spectral, before, strict=True):
            # The generator's update keeps only its own nets' singular vectors.
            module.left.copy_(left)
            module.right.copy_(right)
        terms = {
            "adversarial": sum(F.softplus(-x).mean() for x in logits) / len(logits),
            "reconstruction": (picture - truth).abs().mean(),
            "align": (features - self.align.picture_adaptor(aligned)).abs().mean(),
            "warp": apart.mean(),
            "warp_self": (itself * apart).sum() / itself.sum().clamp(min=1),
        }
        return terms, {"label": label, "picture": picture, "truth": truth}

    def start(self, batch: common.Batch) -> dict[str, torch.Tensor]:
        """Generates the exemplar with the nearest pose once more, at its own pose."""
        ours = batch["source_joints"][:, :, list(_LAYOUT.view)]
        wanted = batch["target_joints"][:, :1, list(_LAYOUT.view)]
        both = (ours[..., 2] > 0) & (wanted[..., 2] > 0)
        squares = (ours[..., :2] - wanted[..., :2]).square().sum(-1)
        away = (squares * both).sum(-1) / both.sum(-1).clamp(min=1)
        chosen = torch.where(both.any(-1), away.sqrt(), 2.0).argmin(1)
        rows = torch.arange(len(chosen))
        picture = self.pictures(batch["source"][rows, chosen])
        label = self._labels(batch["source_joints"][rows, chosen][:, None], batch["source"])
        return self.align.encode(self._generate(label, self.align.encode(picture)))

    def _generate(self, label: torch.Tensor, exemplar: Mapping) -> torch.Tensor:
        features = self.align.pose_adaptor(label[:, : self.pose_channels])
        queries = self.align.descriptors(features, self.align.pose_projection)
        coarse = self.align.warp(queries, exemplar, label.shape[-2:])
        return self.generator(torch.cat([coarse, label], 1))

    def synthesize(self, batch: common.Batch, carry: Any) -> torch.Tensor:
        """Generates every frame at its pose."""
        b, t = batch["target_joints"].shape[:2]
        exemplar = {name: value.repeat_interleave(t, 0) for name, value in carry.items()}
        made = self._generate(self._labels(batch["target_joints"], batch["source"]), exemplar)
        return made.movedim(1, -1).unflatten(0, (b, t))
