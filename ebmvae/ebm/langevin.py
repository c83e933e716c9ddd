"""Langevin sampling of what is not observed (paper, eq. 2 and 3): pure functions."""

from collections.abc import Callable, Iterable, Sequence

import torch

from ebmvae.core.random import normal_per_sample
from ebmvae.ebm.energy import build

load = build  # the network of a fitted joint energy, from its constructor arguments


def langevin(
    score: Callable[[torch.Tensor], torch.Tensor],
    z: torch.Tensor,
    free: torch.Tensor,
    noise: Iterable[torch.Tensor],
    step_size: float,
    noise_scale: float = 1.0,
    callback: Callable[[int, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Eq. 3 on the free modalities: z <- z + (lambda^2 / 2) S(z) + noise_scale * lambda * N(0, I).

    score: (B, M, d) -> (B, M, d), the gradient of the log density; z (B, M, d) start; free bool
    (M,): modalities that move, the others stay exactly as they are; noise: an iterable of (B, M,
    d), one per step; step_size: lambda. noise_scale below 1 samples at a lower temperature than eq.
    3. callback(step, z) sees every state. Returns (B, M, d).
    """
    moving = free[:, None]  # M, 1
    step = -1
    for step, xi in enumerate(noise):
        if callback:
            callback(step, z)
        moved = z + 0.5 * step_size**2 * score(z) + noise_scale * step_size * xi
        z = torch.where(moving, moved, z)
    if callback:
        callback(step + 1, z)
    return z


def sample(
    model: torch.nn.Module,
    observed: torch.Tensor,
    free: torch.Tensor,
    seeds: Sequence[int],
    options,
    callback: Callable[[int, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Eq. 2: hold the observed latents, start the free ones at N(0, I), run Langevin steps on them.

    observed (B, M, d): standardised latents, ignored where `free` (bool (M,)); seeds: B integers;
    options: the section `ebm` of params.yaml. Returns (B, M, d). All free: unconditional
    generation.
    """
    shape = (options.langevin_steps + 1, *observed.shape[1:])
    noise = (
        normal_per_sample(shape, seeds).to(observed.device).transpose(0, 1)
    )  # steps + 1, B, M, d
    start = torch.where(free[:, None], noise[0], observed)
    return langevin(
        model.score, start, free, noise[1:], options.step_size, options.noise_scale, callback
    )


@torch.no_grad()
def energy(model, z):
    """E (B,) of standardised latents (B, M, d): lower where the modalities belong together."""
    return model(z)


def widen(std, options):
    """Standard deviations of the posteriors to condition on: as wide as those it was fitted to."""
    return std * options.fit.posterior_scale


def steps(options):
    """How many steps `sample` takes."""
    return options.langevin_steps
