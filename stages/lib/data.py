"""Memory-mapped PolyMNIST and its latents: one uncompressed array a modality and split."""

from dataclasses import dataclass
from pathlib import Path

import torch

from stages.lib import artifacts
from stages.lib.runtime import UserError

POLYMNIST = Path("data/polymnist")
LATENTS = Path("latents")


@dataclass
class Split:
    """One split: `images[m]` is uint8 (N, C, H, W), `labels` int64 (N,), `crops` int64 (N, M, 2) or None."""

    images: dict
    labels: torch.Tensor
    crops: torch.Tensor | None

    @property
    def modalities(self):
        return list(self.images)

    def __len__(self):
        return len(self.labels)


def load_split(split, device="cpu", modalities=None, folder=POLYMNIST):
    """Load `train` or `test`. On CPU the images stay memory-mapped; on CUDA they are resident as uint8.

    Raises `UserError` for a missing or damaged file, or arrays that do not fit each other.
    """
    folder = Path(folder)
    names = artifacts.load_json(folder / "provenance.json")["modalities"]
    for name in modalities or []:
        if name not in names:
            raise UserError(f"{folder}: no modality {name}; there are {', '.join(names)}")
    load = lambda file: torch.from_numpy(artifacts.load_array(folder / split / file))
    labels = load("labels.npy").long()
    images = {name: load(f"{name}.npy").to(device) for name in modalities or names}
    for name, array in images.items():
        if array.dtype != torch.uint8 or array.ndim != 4 or len(array) != len(labels):
            raise UserError(f"{folder / split / name}.npy: {tuple(array.shape)} {array.dtype} does not fit "
                            f"{len(labels)} labels; `dvc repro -f polymnist` makes it again")
    crops = load("crops.npy").long().to(device) if (folder / split / "crops.npy").exists() else None
    return Split(images, labels.to(device), crops)


def to_float(images):
    """uint8 (..., C, H, W) -> float32 in [0, 1]."""
    return images.float().div_(255)


def to_uint8(images):
    """float (..., C, H, W) -> uint8 with rounding, clipped to [0, 1] first: what a PNG of it would hold."""
    return images.clamp(0, 1).mul(255).round_().to(torch.uint8)


def n_classes(labels):
    """Number of classes: the largest label + 1."""
    return int(labels.max()) + 1


def load_latents(split, device="cpu", folder=LATENTS):
    """Posterior means and log-variances, float32 (N, M, d) each, of every image of `split`."""
    tensors, about = artifacts.load_tensors(Path(folder) / f"{split}.safetensors", device)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{folder}/{split}.safetensors: {name} holds NaN or infinity; `dvc repro -f encode`")
    return tensors["mean"], tensors["logvar"], about["modalities"]


def standardisation(mean, logvar):
    """Moments of the aggregate posterior of latents (N, M, d): shift and scale (M, d); var z = var(mean) + E[sigma^2]."""
    return {"shift": mean.mean(0), "scale": (mean.var(0) + logvar.exp().mean(0)).sqrt()}


def standardised(mean, logvar, shift, scale):
    """Posterior means and standard deviations in units of the aggregate posterior's, (N, M, d) each."""
    return (mean - shift) / scale, torch.exp(0.5 * logvar) / scale
