"""INTERnet's networks in PyTorch; pictures and grids as in `torch_reference.internet`."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from psrjax.benchmarks.torch_reference import common
from psrjax.models import motion


def _conv(inputs: int, outputs: int, kernel_size: int, padding: int | None = None) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, outputs, kernel_size, padding=kernel_size // 2 if padding is None else padding
    )


class Unit(nn.Module):
    """Convolution, batch norm, ReLU; upsampling before or downsampling after."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 3, resample: str = "none"):
        super().__init__()
        self.conv = _conv(inputs, outputs, kernel_size)
        self.norm = nn.BatchNorm2d(outputs)
        self.resample = resample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, inputs, h, w) to (n, outputs, …)."""
        if self.resample == "up":
            x = F.interpolate(x, scale_factor=2)
        x = F.relu_(self.norm(self.conv(x)))
        return F.avg_pool2d(x, 2) if self.resample == "down" else x


class Hourglass(nn.Module):
    """The U-Net of both motion networks: width + inputs channels out."""

    def __init__(self, inputs: int, width: int, depth: int, max_channels: int):
        super().__init__()
        sizes = [inputs, *(min(max_channels, width * 2 ** (i + 1)) for i in range(depth))]
        for i in range(depth):
            self.add_module(f"down{i}", Unit(sizes[i], sizes[i + 1], resample="down"))
        before = sizes[-1]
        for i in range(depth):
            after = min(max_channels, width * 2 ** (depth - 1 - i))
            self.add_module(f"up{i}", Unit(before, after, resample="up"))
            before = after + sizes[depth - 1 - i]
        self.depth, self.outputs = depth, before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, inputs, h, w) to (n, outputs, h, w)."""
        scales = [x]
        for i in range(self.depth):
            scales.append(getattr(self, f"down{i}")(scales[-1]))
        x = scales.pop()
        for i in range(self.depth):
            x = torch.cat([getattr(self, f"up{i}")(x), scales.pop()], 1)
        return x


def downsample(image: torch.Tensor, factor: int) -> torch.Tensor:
    """Blurs with a Gaussian and keeps every factor-th pixel."""
    if factor == 1:
        return image
    std = (factor - 1) / 2
    reach = round(4 * std)
    line = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * std**2))
    line = line / line.sum()
    kernel = (line[:, None] * line).expand(image.shape[1], 1, -1, -1)
    return F.conv2d(image, kernel, stride=factor, padding=reach, groups=image.shape[1])


def corner_grid(height: int, width: int) -> torch.Tensor:
    """Makes the coordinates (h, w, 2) of all pixels."""
    x, y = torch.linspace(-1, 1, width), torch.linspace(-1, 1, height)
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1)


def inverse(matrix: torch.Tensor) -> torch.Tensor:
    """Inverts (… 2 2) matrices, with determinants kept away from 0."""
    (a, b), (c, d) = matrix[..., 0, :].unbind(-1), matrix[..., 1, :].unbind(-1)
    value = a * d - b * c
    value = torch.where(value < 0, -1.0, 1.0) * value.abs().clamp(min=1e-4)
    adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    return adjugate / value[..., None, None]


class KeypointDetector(nn.Module):
    """Detects key points and their Jacobians."""

    def __init__(self, method: Any):
        super().__init__()
        self.hourglass = Hourglass(3, method.points_width, method.depth, method.max_channels)
        options = {"kernel_size": 7, "padding": method.points_padding}
        self.heatmap = _conv(self.hourglass.outputs, method.points, **options)
        if method.jacobians == "each":
            self.jacobian = _conv(self.hourglass.outputs, 4 * method.points, **options)
        self.points, self.factor = method.points, method.factor
        self.temperature = method.temperature

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns {"value": (n, j, 2), "jacobian": (n, j, 2, 2), "heat": (n, j, h, w)}."""
        x = self.hourglass(downsample(image, self.factor))
        logits = self.heatmap(x)
        n, j, h, w = logits.shape
        weights = (logits.reshape(n, j, -1) / self.temperature).softmax(-1)
        value = weights @ corner_grid(h, w).reshape(-1, 2)
        found = {"value": value, "heat": weights.reshape(n, j, h, w)}
        if not hasattr(self, "jacobian"):
            return found | {"jacobian": torch.eye(2).expand(n, j, 2, 2)}
        matrix = self.jacobian(x).reshape(n, j, 4, h * w)
        mean = (weights[:, :, None] * matrix).sum(-1)
        return found | {"jacobian": mean.reshape(n, j, 2, 2)}


class DenseMotion(nn.Module):
    """Predicts the deformation and the confidence of driving frames, a row of points for each."""

    def __init__(self, method: Any):
        super().__init__()
        count = method.points + 1
        self.hourglass = Hourglass(
            4 * count, method.motion_width, method.depth, method.max_channels
        )
        self.weights = _conv(self.hourglass.outputs, count, 7)
        self.confidence = _conv(self.hourglass.outputs, 1, 7)
        self.factor, self.variance = method.factor, method.variance
        self.locality = method.locality

    def forward(
        self, source: torch.Tensor, source_points: Mapping, driving_points: Mapping
    ) -> dict[str, torch.Tensor]:
        """Returns {"deformation": (n, h, w, 2), "confidence": (n, 1, h, w)} of n driving frames.

        The source and its points have one row for each driving frame, or one for all.
        """
        small = downsample(source, self.factor)
        h, w = small.shape[-2:]
        n, j = driving_points["value"].shape[:2]
        grid = corner_grid(h, w)
        linear = source_points["jacobian"] @ inverse(driving_points["jacobian"])
        offset = grid - driving_points["value"][:, :, None, None]
        moved = (linear[:, :, None, None] @ offset[..., None]).squeeze(-1)
        moved = moved + source_points["value"][:, :, None, None]
        motions = torch.cat([grid.expand(n, 1, h, w, 2), moved], 1)
        rows = small[:, None].expand(-1, j + 1, -1, -1, -1).expand(n, -1, -1, -1, -1)
        seen = F.grid_sample(rows.flatten(0, 1), motions.flatten(0, 1), align_corners=True)
        seen = seen.reshape(n, j + 1, 3, h, w)
        change = self._maps(driving_points, grid, self.variance)
        change = change - self._maps(source_points, grid, self.variance)
        change = F.pad(change, (0, 0, 0, 0, 1, 0))
        x = self.hourglass(torch.cat([change[:, :, None], seen], 2).flatten(1, 2))
        logits = self.weights(x)
        if self.locality:
            near = self.locality * self._maps(driving_points, grid, motion.NEAR) + motion.FAR
            logits = logits + F.pad(near.log(), (0, 0, 0, 0, 1, 0))
        weights = logits.softmax(1)
        deformation = (weights[..., None] * motions).sum(1)
        return {"deformation": deformation, "confidence": self.confidence(x).sigmoid()}

    def _maps(self, points: Mapping, grid: torch.Tensor, variance: float) -> torch.Tensor:
        distance = (grid - points["value"][:, :, None, None]).square().sum(-1)
        return torch.exp(-distance / (2 * variance))


def pyramid(field: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """Returns (n, c, h, w) and `levels` upsamplings, each twice the size, corners aligned."""
    fields = [field]
    for _ in range(levels):
        size = [2 * side for side in fields[-1].shape[-2:]]
        fields.append(F.interpolate(fields[-1], size, mode="bilinear", align_corners=True))
    return fields


class MotionGenerator(nn.Module):
    """The generator; "ms" warps features of every scale, "ss4x" the smallest alone."""

    def __init__(self, method: Any):
        super().__init__()
        self.levels, self.blocks = method.levels, method.blocks
        self.every = method.generator_kind == "ms"
        widths = [
            min(method.generator_max_channels, method.width * 2**i) for i in range(self.levels + 1)
        ]
        self.first = Unit(3, widths[0], 7)
        for i in range(self.levels):
            self.add_module(f"down{i}", Unit(widths[i], widths[i + 1], resample="down"))
            wide, width = widths[self.levels - i], widths[self.levels - 1 - i]
            self.add_module(f"up{i}", Unit(wide, width, resample="up"))
            if self.every:
                self.add_module(f"fuse{i}", Unit(2 * width, width))
                self.add_module(f"refine{i}", common.NormFirstResidual(nn.BatchNorm2d, width))
        for i in range(self.blocks):
            self.add_module(f"block{i}", common.NormFirstResidual(nn.BatchNorm2d, widths[-1]))
        self.final = _conv(widths[0], 3, 7)

    def encode(self, source: torch.Tensor) -> list[torch.Tensor]:
        """Encodes the source to features, finest first; "ss4x" keeps the smallest only."""
        features = [self.first(source)]
        for i in range(self.levels):
            features.append(getattr(self, f"down{i}")(features[-1]))
        return features if self.every else features[-1:]

    def decode(self, features: list[torch.Tensor], moved: Mapping) -> torch.Tensor:
        """Makes (n, 3, h, w) in [0, 1]; features have a row for each frame, or one for all."""
        levels = len(features) - 1
        fields = pyramid(moved["deformation"].movedim(-1, 1), levels)
        gates = pyramid(moved["confidence"], levels)
        warped = []
        for feature, field, gate in zip(reversed(features), fields, gates, strict=True):
            rows = feature.expand(len(field), -1, -1, -1)
            moving = F.grid_sample(rows, field.movedim(1, -1), align_corners=True)
            warped.append(gate * moving)
        x = warped[0]
        for i in range(self.blocks):
            x = getattr(self, f"block{i}")(x)
        for i in range(self.levels):
            x = getattr(self, f"up{i}")(x)
            if self.every:
                x = getattr(self, f"fuse{i}")(torch.cat([x, warped[i + 1]], 1))
                x = getattr(self, f"refine{i}")(x)
        return self.final(x).sigmoid()


class PatchDiscriminator(nn.Module):
    """pix2pixHD's discriminator of one size: padding 2, instance norm without parameters."""

    def __init__(self, inputs: int, width: int, strided: int):
        super().__init__()
        widths = [inputs, *(width * min(2**i, 8) for i in range(strided + 1)), 1]
        for i in range(strided + 2):
            plain = i in (0, strided + 1)
            stride = 2 if i < strided else 1
            conv = nn.Conv2d(widths[i], widths[i + 1], 4, stride, padding=2, bias=plain)
            self.add_module(f"conv{i}", conv)
        self.strided = strided

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        """Returns {"logits", "features"}."""
        features = []
        for i in range(self.strided + 1):
            x = getattr(self, f"conv{i}")(x)
            x = F.leaky_relu_(F.instance_norm(x) if i else x, common.LEAK)
            features.append(x)
        return {"logits": getattr(self, f"conv{self.strided + 1}")(x), "features": features}


class MultiScaleDiscriminator(nn.Module):
    """Patch discriminators at several sizes, each half the one before."""

    def __init__(self, inputs: int, scales: int, width: int, strided: int):
        super().__init__()
        for i in range(scales):
            self.add_module(f"scale{i}", PatchDiscriminator(inputs, width, strided))
        self.scales = scales

    def logits(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Returns the logits of each discriminator."""
        return [judged["logits"] for judged in self(x)]

    def forward(self, x: torch.Tensor) -> list[dict[str, Any]]:
        """Returns the output of each discriminator, the full size first."""
        judged = []
        for i in range(self.scales):
            x = F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False) if i else x
            judged.append(getattr(self, f"scale{i}")(x))
        return judged
