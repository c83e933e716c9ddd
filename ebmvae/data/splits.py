"""Memory-mapped PolyMNIST: one uncompressed array per modality and split."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ebmvae.core import artifacts
from ebmvae.core.messages import UserError

POLYMNIST = Path("data/polymnist")
NO_CROPS = ("imported", "own")  # kinds of data whose backgrounds are not known


@dataclass
class Split:
    """One split: `images[m]` uint8 (N, C, H, W), `labels` int64 (N,), `crops` int64 (N, M, 2)."""

    images: dict[str, torch.Tensor]
    labels: torch.Tensor
    crops: torch.Tensor | None  # (y, x) of each crop in its background, where that is known

    @property
    def modalities(self) -> list[str]:
        return list(self.images)

    def __len__(self):
        return len(self.labels)


def load_split(split, device="cpu", modalities=None, folder=POLYMNIST) -> Split:
    """Load `train` or `test`. On CPU the images stay memory-mapped; on CUDA they are resident.

    Raises `UserError` for a missing or damaged file, or arrays that do not fit each other.
    """
    folder = Path(folder)
    about = artifacts.load_json(folder / "provenance.json")
    names = about["modalities"]
    for name in modalities or []:
        if name not in names:
            raise UserError(
                f"{folder}: no modality {name}; there are {', '.join(names)}. "
                f"`python -m tools.modalities {len(names)}` makes dvc.yaml list these"
            )
    folder = folder / split
    labels = _load(folder / "labels.npy")
    n, valid = len(labels), labels.dtype == torch.int64 and labels.ndim == 1 and len(labels)
    if not valid or labels.min() < 0 or labels.max() > 999:
        raise _misfit(folder / "labels.npy", labels, "are not classes from 0 to 999")
    images = {}
    for name in modalities or names:
        array = _load(folder / f"{name}.npy")
        if array.dtype != torch.uint8 or array.ndim != 4 or len(array) != n:
            raise _misfit(folder / f"{name}.npy", array, f"are not the images of {n} labels")
        images[name] = array.to(device)
    if about.get("digits") in NO_CROPS:
        return Split(images, labels.to(device), None)
    crops = _load(folder / "crops.npy")
    if crops.dtype != torch.int64 or crops.shape != (n, len(names), 2) or crops.min() < 0:
        raise _misfit(
            folder / "crops.npy", crops, f"are not the crops of {n} x {len(names)} images"
        )
    return Split(images, labels.to(device), crops.to(device))


def _load(file):
    return torch.from_numpy(artifacts.load_array(file))


def _misfit(file, array, what):
    """The error for an array that is not what its name says."""
    shape = f"{tuple(array.shape)} {array.dtype}"
    return UserError(f"{file}: {shape} {what}; `dvc repro -f polymnist` makes it again")


def to_float(images):
    """uint8 (B, C, H, W) -> float32 in [0, 1], in the memory format that convolutions like best."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def to_uint8(images):
    """float (..., C, H, W) -> uint8, clipped to [0, 1] and rounded: what a PNG of it would hold."""
    return images.clamp(0, 1).mul(255).round_().to(torch.uint8)


def n_classes(labels) -> int:
    """Number of classes: the largest label + 1; 1 is data without labels."""
    return int(labels.max()) + 1


def common_shape(images) -> list[int]:
    """The smallest (C, H, W) that images (N, C, H, W) of every modality fit into."""
    shapes = [x.shape[1:] for x in images.values()]
    return [max(sizes) for sizes in zip(*shapes, strict=True)]
