"""Posterior means and log-variances on disk, and the units in which energies know latents."""

from pathlib import Path

import torch

from ebmvae.core import artifacts
from ebmvae.core.messages import UserError

LATENTS = Path("latents")


def load_latents(split, device="cpu", folder=LATENTS):
    """Means and log-variances, float32 (N, M, d) each, of `split`, and the modalities' names.

    Raises `UserError` for a missing or damaged file, or tensors that are no latents.
    """
    file = Path(folder) / f"{split}.safetensors"
    tensors, about = artifacts.load_tensors(file, device)
    mean, logvar, names = tensors["mean"], tensors["logvar"], about["modalities"]
    if mean.ndim != 3 or logvar.shape != mean.shape or len(names) != mean.shape[1]:
        raise UserError(
            f"{file}: {tuple(mean.shape)} are not latents of {len(names)} modalities; "
            "`dvc repro -f encode` makes them again"
        )
    return mean, logvar, names


def standardisation(mean, logvar) -> dict[str, torch.Tensor]:
    """Moments of the aggregate posterior of latents (N, M, d): shift and scale, (M, d) each.

    The variance of a latent is var(mean) + E[sigma^2].
    """
    return {"shift": mean.mean(0), "scale": (mean.var(0) + logvar.exp().mean(0)).sqrt()}


def standardised(mean, logvar, shift, scale):
    """Posterior means and standard deviations, (N, M, d), in the aggregate posterior's units."""
    return (mean - shift) / scale, torch.exp(0.5 * logvar) / scale
