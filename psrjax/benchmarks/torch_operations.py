"""The single operations of `operations` in PyTorch."""

# pyright: reportMissingImports=false
# (PyTorch is an extra.)

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from psrjax.benchmarks import operations, timing
from psrjax.benchmarks.torch_reference import common

_SSIM_SIZE, _SSIM_SIGMA = 11, 1.5
_LAYOUTS = (torch.contiguous_format, torch.channels_last)


def calls(device: torch.device) -> dict[str, Callable[[], Any]]:
    """Returns {name: call}; samplers in the memory format that is faster here."""
    arrays = {
        name: tuple(torch.from_numpy(array).to(device) for array in each)
        for name, each in operations.inputs().items()
    }
    features, grid = arrays["sample"]
    flow = arrays["warp"][1].movedim(-1, 1).contiguous()
    video, truth = (frames.movedim(-1, 1).contiguous() for frames in arrays["ssim"])
    features = features.movedim(-1, 1)
    atlas, coordinates, weights = arrays["texture"]
    atlas, coordinates = atlas.movedim(-1, 1), coordinates.movedim(-2, 1).contiguous()
    where = coordinates, weights.movedim(-1, 1).contiguous()
    return {
        "warp + grad": _faster(features, lambda x: _with_gradient(common.warp, x, flow)),
        "sample": _faster(features, lambda x: lambda: sample(x, grid)),
        "sample + grad": _faster(features, lambda x: _with_gradient(sample, x, grid)),
        "ssim + grad": _similarity(video, truth),
        "texture": _faster(atlas, lambda x: lambda: common.sample_texture(x, *where)),
        "texture + grad": _faster(
            atlas, lambda x: _with_gradient(common.sample_texture, x, *where)
        ),
    }


def sample(features: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Samples bilinearly, zeros outside, corner pixels at -1 and 1."""
    return F.grid_sample(features, grid, padding_mode="zeros", align_corners=True)


def _faster(features: torch.Tensor, make: Callable) -> Callable[[], Any]:
    made = [make(features.clone(memory_format=layout)) for layout in _LAYOUTS]
    return min(made, key=lambda call: timing.measure(call, runs=5).median)


def _with_gradient(function: Callable, *inputs: torch.Tensor) -> Callable:
    inputs = tuple(each.clone().requires_grad_() for each in inputs)

    def call() -> Any:
        loss = function(*inputs).square().mean()
        return loss.detach(), torch.autograd.grad(loss, inputs)

    return call


def _similarity(video: torch.Tensor, truth: torch.Tensor) -> Callable[[], Any]:
    moving = video.clone().requires_grad_()

    def call() -> Any:
        loss = _ssim(moving, truth).mean()
        return loss.detach(), torch.autograd.grad(loss, moving)

    return call


def _ssim(video: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Computes SSIM with separable Gaussian windows, depthwise over a stack of the five maps."""
    channels = video.shape[1]
    offsets = torch.arange(_SSIM_SIZE, device=video.device) - _SSIM_SIZE // 2
    window = torch.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    window = (window / window.sum()).expand(channels, 1, -1)
    maps = torch.cat([video, truth, video * video, truth * truth, video * truth])
    maps = F.conv2d(maps, window[:, :, None], groups=channels)
    maps = F.conv2d(maps, window[..., None], groups=channels)
    mean_x, mean_y, xx, yy, xy = maps.chunk(5)
    structure = 2 * (xy - mean_x * mean_y) + 0.03**2
    luminance = 2 * mean_x * mean_y + 0.01**2
    below = (xx - mean_x**2 + yy - mean_y**2 + 0.03**2) * (mean_x**2 + mean_y**2 + 0.01**2)
    return structure * luminance / below
