"""Writes scores.npz: what torchmetrics and pytorch-msssim give for a random and a natural pair.

Run it in an environment of its own that has torch 2.13, torchmetrics 1.9.0, pytorch-msssim 1.0.0,
numpy and pillow:

    python tests/golden/scores.py

natural.png is a part of scikit-image's public-domain picture of an astronaut.
"""

from pathlib import Path

import numpy as np
from PIL import Image

FILE = Path(__file__).with_name("scores.npz")


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{name: (made, true)}, pictures (h w 3) in levels of 8 bits as [0, 1]."""
    random = np.random.default_rng(0)
    natural = np.asarray(Image.open(FILE.with_name("natural.png"))).astype(np.float64)
    noise = random.integers(0, 256, (163, 178, 3)).astype(np.float64)
    found = {}
    for name, true in (("natural", natural), ("random", noise), ("odd", natural[:173, :181])):
        blurred = (true + np.roll(true, 1, 0) + np.roll(true, 1, 1)) / 3
        made = np.clip(blurred + random.normal(0, 8, true.shape), 0, 255).round()
        found[name] = tuple((x / 255).astype(np.float32) for x in (made, true))
    return found


if __name__ == "__main__":
    import pytorch_msssim
    import torch
    from torchmetrics import image

    out = {}
    for name, pair in pairs().items():
        made, true = (torch.from_numpy(x).movedim(-1, 0)[None] for x in pair)
        out[f"{name}_psnr"] = image.PeakSignalNoiseRatio(data_range=1.0)(made, true)
        out[f"{name}_ssim"] = pytorch_msssim.ssim(made, true, data_range=1.0)
        out[f"{name}_ms_ssim"] = pytorch_msssim.ms_ssim(made, true, data_range=1.0)
        # torchmetrics also scores windows that reflect the border: what is inside is compared.
        whole = image.StructuralSimilarityIndexMeasure(data_range=1.0, return_full_image=True)
        out[f"{name}_ssim_map"] = whole(made, true)[1][..., 5:-5, 5:-5].mean()
    np.savez(FILE, **{key: np.float64(value) for key, value in out.items()})
    print({key: float(value) for key, value in out.items()})
