"""A fitted joint energy at work: latents of what is observed in, of every modality out.

Latents are (n, M, d), modalities in the order of `names`, in the VAEs' units; standardised ones are
in units of the aggregate posterior, as the energies know them.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from ebmvae.core import artifacts
from ebmvae.core.random import normal_per_sample
from ebmvae.data import latents
from ebmvae.methods import METHODS


@dataclass
class FittedEnergy:
    """What `load` returns."""

    names: list[str]  # of the modalities
    model: torch.nn.Module
    method: ModuleType  # with its sample, energy and widen
    standardisation: dict[str, torch.Tensor]  # shift and scale (M, d) of the aggregate posterior
    options: object  # the method's section of params.yaml
    fit: dict  # device and precision that it was fitted in


def load(method: str, p, names, device: torch.device) -> FittedEnergy:
    """The energy that `dvc repro` fitted; method: one of methods.ENERGIES, p: all parameters.

    Raises `UserError` where it is missing or damaged.
    """
    entry = METHODS[method]
    module, folder = importlib.import_module(entry.module), Path(entry.models)
    model = artifacts.load_module(folder / "joint.safetensors", module.load, device)
    moments, about = artifacts.load_tensors(folder / "standardisation.safetensors", device)
    return FittedEnergy(list(names), model, module, moments, getattr(p, entry.params), about["fit"])


def posterior(fitted: FittedEnergy, mean, logvar):
    """Standardised means and standard deviations (n, M, d) of the posteriors to condition on.

    As wide as those that the energy was fitted to.
    """
    mean, std = latents.standardised(mean, logvar, **fitted.standardisation)
    return mean, fitted.method.widen(std, fitted.options)


def posterior_samples(mean: torch.Tensor, std: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """One posterior sample per row, standardised (n, M, d); seeds: n integers."""
    return mean + std * normal_per_sample(mean.shape[1:], seeds).to(mean.device)


def sample(
    fitted: FittedEnergy,
    observed: torch.Tensor,
    subset: Sequence[str],
    seeds: Sequence[int],
    batch_size: int = 500,
    callback: Callable[[int, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Latents (n, M, d): those of the modalities in `subset` as in `observed`, the others drawn.

    observed: standardised posterior samples (n, M, d), read where the modality's name is in
    `subset`; seeds: n integers, one generator per row. callback(step, z) sees the latents of a
    batch before and after every step.
    """

    def unstandardised(z):
        return z * fitted.standardisation["scale"] + fitted.standardisation["shift"]

    def seen(step, z):
        callback(step, unstandardised(z))

    free = torch.tensor([name not in subset for name in fitted.names], device=observed.device)
    parts = []
    for i, part in enumerate(observed.split(batch_size)):
        part_seeds = seeds[i * batch_size : (i + 1) * batch_size]
        args = (fitted.model, part, free, part_seeds, fitted.options)
        parts.append(fitted.method.sample(*args, callback=seen if callback else None))
    return unstandardised(torch.cat(parts))


def energy(fitted: FittedEnergy, z: torch.Tensor) -> torch.Tensor:
    """E (n,) of standardised latents (n, M, d): lower where the modalities belong together."""
    return fitted.method.energy(fitted.model, z)
