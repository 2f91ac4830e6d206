"""The benchmark against PyTorch: the same network and step, checked to be the same, in one run."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from psrjax.errors import UserError
from psrjax.training import benchmark, machine
from psrjax.training import benchmark_flops as flops
from psrjax.training import benchmark_timing as timing

try:
    import torch
    import torch.nn.functional as F
    from torch.utils.flop_counter import FlopCounterMode

    from psrjax.training import peer_torch
except ImportError as error:
    raise UserError(
        "--against=torch: PyTorch is not installed; `pip install psrjax[peer]`, or torch alone"
    ) from error

_TOLERANCE = 2e-3  # of float32 results, relative to their size
_SSIM_SIZE, _SSIM_SIGMA = 11, 1.5


def compare(subject: benchmark.Subject, config: Any, options: benchmark.Options) -> dict[str, Any]:
    """Builds the peer from the subject's weights, checks that both compute the same, times both.

    Args:
      subject: psrjax's side, compiled.
      config: of the stage.
      options: sizes and pairs.

    Returns:
      Numbers for `benchmark.table` and JSON; ratios are psrjax's time by the peer's.

    Raises:
      UserError: for a method, stage or field that the peer has not; if the two are not the same.
    """
    _check_supported(config)
    torch.set_num_threads(machine.cores())
    wire = {name: np.array(array) for name, array in subject.batch.items()}
    peer, memory_format = _faster_peer(subject, config, wire)
    checks = _check_same(subject, peer, wire)
    pairs = {
        "forward": _forward_pairs(subject, peer, wire, options),
        "step": _step_pairs(subject, peer, wire, options),
    }
    peers = _operations()
    for name, call in benchmark.operations().items():
        pairs[f"{name} + grad"] = timing.measure_pairs(call, peers[name], pairs=options.pairs * 3)
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


def _check_supported(config: Any) -> None:
    wanted = {
        "stage": ("layer1", "layer2"),
        "decoder": ("separate_heads",),
        "encoder": ("concat_videos",),
        "recon_regions": ("bvo",),
        "warp_scope": ("mesh",),
        "perceptual": ("off",),
        "prior": ("texture",),
        "norm": ("batch",),
        "video_critic": (True,),
        "alpha": (0.5,),
        "zeta": (0.1,),
        "blocks": (6,),
        "critic_width": (64,),
        "critic_layers": (3,),
        "video_width": (64,),
        "video_depth": (4,),
        "dtype": ("float32",),
    }
    if config.method.name != "psrnet":
        raise UserError(f"--against=torch: there is no peer of {config.method.name}; use psrnet")
    for name, values in wanted.items():
        if config.method[name] not in values:
            known = " or ".join(map(str, values))
            raise UserError(
                f"--against=torch: the peer has config.method.{name}={known} only, not "
                f"{config.method[name]}"
            )


def _faster_peer(
    subject: benchmark.Subject, config: Any, wire: Mapping
) -> tuple["peer_torch.Peer", str]:
    """The peer with the subject's weights, in the memory format that trains faster here."""
    found = []
    for channels_last in (False, True):
        peer = peer_torch.Peer(
            int(config.method.stage.removeprefix("layer")),
            config.method.width,
            rate=config.optimizer.generator.learning_rate,
            channels_last=channels_last,
        )
        peer.load(subject.state.variables)
        peer.set_training(True)
        seconds = min(timing.measure(lambda peer=peer: peer.step(wire), runs=3).seconds)
        found.append((seconds, "channels last" if channels_last else "channels first", peer))
    (fast, name, peer), (slow, other, _) = sorted(found, key=lambda each: each[0])
    return peer, f"{name} (step {fast * 1e3:.0f} ms; {other} {slow * 1e3:.0f} ms)"


def _check_same(subject: benchmark.Subject, peer: "peer_torch.Peer", wire: Mapping) -> dict:
    """Parameters, FLOPs, one step's losses and gradients, and the video; raises if they differ."""
    ours, theirs = benchmark.parameters(subject), _parameters(peer)
    if ours != theirs:
        raise UserError(f"--against=torch: parameters differ: {ours} here, {theirs} in PyTorch")
    peer.load(subject.state.variables)
    peer.set_training(False)
    layers = _forward_flops(peer, wire)
    if layers != subject.forward_flops:
        raise UserError("--against=torch: FLOPs per layer differ")
    peer.set_training(True)
    log = peer.step(wire) | peer.gradient_norms()
    mine = {name: float(value) for name, value in subject.step().items()}
    log_difference = max(abs(mine[name] - log[name]) / abs(log[name]) for name in log)
    peer.load(subject.state.variables)  # the step's statistics, so that the video is not flat
    peer.set_training(False)
    ours, theirs = np.asarray(subject.forward()), peer(wire).movedim(1, -1).numpy()
    output_difference = float(np.abs(ours - theirs).max())
    if not (log_difference < _TOLERANCE and output_difference < _TOLERANCE):
        raise UserError(
            f"--against=torch: results differ, by {output_difference:.1e} in the video and "
            f"{log_difference:.1e} in the step: {mine} here, {log} in PyTorch"
        )
    peer.set_training(True)
    with FlopCounterMode(display=False) as counter:
        peer.step(wire)
    return {
        "parameters": sum(_parameters(peer).values()),
        "step_gflop": subject.step_flops / 1e9,
        "peer_step_gflop": counter.get_total_flops() / 1e9,
        "output_difference": output_difference,
        "log_difference": log_difference,
    }


def _parameters(peer: "peer_torch.Peer") -> dict[str, int]:
    names = {name: f"critic{peer.layer}" if name == "critic" else name for name in peer._modules}
    return {
        names[name]: sum(parameter.numel() for parameter in net.parameters())
        for name, net in peer.named_children()
    }


def _forward_flops(peer: "peer_torch.Peer", wire: Mapping) -> dict[str, int]:
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


def _forward_pairs(subject, peer, wire, options) -> timing.Pairs:
    peer.set_training(False)
    return timing.measure_pairs(subject.forward, lambda: peer(wire), pairs=options.pairs)


def _step_pairs(subject, peer, wire, options) -> timing.Pairs:
    peer.set_training(True)
    return timing.measure_pairs(subject.step, lambda: peer.step(wire), pairs=options.pairs)


def _operations() -> dict[str, Callable[[], Any]]:
    """{name: call} of the single operations of `benchmark.operations`, as PyTorch does them."""
    inputs = benchmark.operation_inputs()
    features, flow, video, truth = (
        torch.from_numpy(array).movedim(-1, 1).contiguous()
        for array in (*inputs["warp"], *inputs["ssim"])
    )

    def warp(features: torch.Tensor) -> Callable[[], Any]:
        features, moving = features.requires_grad_(), flow.clone().requires_grad_()

        def call() -> Any:
            loss = peer_torch.warp(features, moving).square().mean()
            return loss.detach(), torch.autograd.grad(loss, (features, moving))

        return call

    def ssim() -> Any:
        loss = _ssim(moving_video, truth).mean()
        return loss.detach(), torch.autograd.grad(loss, moving_video)

    moving_video = video.clone().requires_grad_()
    layouts = {
        layout: warp(features.clone(memory_format=layout))
        for layout in (torch.contiguous_format, torch.channels_last)
    }
    times = {key: timing.measure(call, runs=5).median for key, call in layouts.items()}
    return {"warp": layouts[min(times, key=times.get)], "ssim": ssim}


def _ssim(video: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """SSIM with separable Gaussian windows, depthwise over one stack of the five maps."""
    channels = video.shape[1]
    offsets = torch.arange(_SSIM_SIZE) - _SSIM_SIZE // 2
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


def values() -> dict[str, tuple[float, float]]:
    """{operation: (psrjax's value, PyTorch's)}: that both sides compute the same."""
    peers = _operations()
    return {
        name: (float(jax.device_get(call()[0])), float(peers[name]()[0]))
        for name, call in benchmark.operations().items()
    }
