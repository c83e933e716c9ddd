"""Memory-mapped PolyMNIST and its latents: one uncompressed array a modality and split."""

from dataclasses import dataclass
from pathlib import Path

import torch

from stages.lib import artifacts
from stages.lib.runtime import UserError

POLYMNIST = Path("data/polymnist")
LATENTS = Path("latents")
NO_CROPS = ("imported", "own")  # kinds of data whose backgrounds are not known


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
    about = artifacts.load_json(folder / "provenance.json")
    names = about["modalities"]
    for name in modalities or []:
        if name not in names:
            raise UserError(f"{folder}: no modality {name}; there are {', '.join(names)}")
    load = lambda file: torch.from_numpy(artifacts.load_array(folder / split / file))
    labels = load("labels.npy")
    if labels.dtype != torch.int64 or labels.ndim != 1 or not len(labels) or labels.min() < 0 or labels.max() > 999:
        raise UserError(f"{folder / split}/labels.npy: {tuple(labels.shape)} {labels.dtype} are not classes from 0 to 999; "
                        "`dvc repro -f polymnist` makes them again")
    images = {name: load(f"{name}.npy").to(device) for name in modalities or names}
    for name, array in images.items():
        if array.dtype != torch.uint8 or array.ndim != 4 or len(array) != len(labels):
            raise UserError(f"{folder / split / name}.npy: {tuple(array.shape)} {array.dtype} does not fit "
                            f"{len(labels)} labels; `dvc repro -f polymnist` makes it again")
    crops = None if about.get("digits") in NO_CROPS else load("crops.npy")
    if crops is not None and (crops.dtype != torch.int64 or crops.shape != (len(labels), len(names), 2) or crops.min() < 0):
        raise UserError(f"{folder / split}/crops.npy: {tuple(crops.shape)} {crops.dtype} are not the crops of {len(labels)} "
                        f"tuples of {len(names)}; `dvc repro -f polymnist` makes them again")
    return Split(images, labels.to(device), None if crops is None else crops.to(device))


def to_float(images):
    """uint8 (B, C, H, W) -> float32 in [0, 1], in the memory format that convolutions are fastest in."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def to_uint8(images):
    """float (..., C, H, W) -> uint8 with rounding, clipped to [0, 1] first: what a PNG of it would hold."""
    return images.clamp(0, 1).mul(255).round_().to(torch.uint8)


def n_classes(labels):
    """Number of classes: the largest label + 1; 1 is data without labels."""
    return int(labels.max()) + 1


def common_shape(images):
    """The smallest (C, H, W) that images (N, C, H, W) of every modality fit into, as a list."""
    return [max(sizes) for sizes in zip(*(x.shape[1:] for x in images.values()))]


def load_latents(split, device="cpu", folder=LATENTS):
    """Posterior means and log-variances, float32 (N, M, d) each, of every image of `split`."""
    tensors, about = artifacts.load_tensors(Path(folder) / f"{split}.safetensors", device)
    shape = tensors["mean"].shape
    if len(shape) != 3 or tensors["logvar"].shape != shape or len(about["modalities"]) != shape[1]:
        raise UserError(f"{folder}/{split}.safetensors: {tuple(shape)} are not latents of {len(about['modalities'])} "
                        "modalities; `dvc repro -f encode` makes them again")
    return tensors["mean"], tensors["logvar"], about["modalities"]


def standardisation(mean, logvar):
    """Moments of the aggregate posterior of latents (N, M, d): shift and scale (M, d); var z = var(mean) + E[sigma^2]."""
    return {"shift": mean.mean(0), "scale": (mean.var(0) + logvar.exp().mean(0)).sqrt()}


def standardised(mean, logvar, shift, scale):
    """Posterior means and standard deviations in units of the aggregate posterior's, (N, M, d) each."""
    return (mean - shift) / scale, torch.exp(0.5 * logvar) / scale
