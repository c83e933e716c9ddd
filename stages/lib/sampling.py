"""Sampling of what is not observed, by Langevin steps or annealed: pure functions of (score, z, noise)."""

import torch

from stages.lib import noising

FIRST, LAST = 0.98, 0.02  # noise levels of annealed sampling, from nearly all noise to nearly none


def langevin(score, z, free, noise, step_size, noise_scale=1.0, watch=None):
    """Eq. 3 on the free coordinates: z <- z + (lambda^2 / 2) S(z) + noise_scale * lambda * N(0, I).

    score: (B, D) -> (B, D), the gradient of the log density; z (B, D) start; free bool (D,): coordinates to move, the
    others stay exactly as they are; noise (steps, B, D) or any iterable of (B, D); step_size is lambda. Returns (B, D).
    noise_scale below 1 samples at a lower temperature than the paper's eq. 3. watch(step, z) sees each state on the way.
    """
    for step, xi in enumerate(noise):
        if watch:
            watch(step, z)
        moved = z + 0.5 * step_size**2 * score(z) + noise_scale * step_size * xi
        z = torch.where(free, moved, z)
    if watch:
        watch(step + 1, z)
    return z


def sample_noise(shape, seeds):
    """One generator a sample, so that results do not depend on the batch: normal (len(seeds), *shape) on the CPU."""
    out = torch.empty(len(seeds), *shape)
    for row, seed in zip(out, seeds):
        row.normal_(generator=torch.Generator().manual_seed(seed))
    return out


def conditional(score, observed, free, seeds, steps, step_size, noise_scale=1.0, watch=None):
    """Eq. 2: hold the observed latents, start the free ones at N(0, I), run `steps` Langevin steps on them.

    observed (B, D) standardised latents, of which the free coordinates (bool (D,)) are ignored; seeds: B integers.
    Returns (B, D). With every coordinate free this is unconditional generation.
    """
    noise = sample_noise((steps + 1, observed.shape[1]), seeds).to(observed.device).transpose(0, 1)  # steps + 1, B, D
    start = torch.where(free, noise[0], observed)
    return langevin(score, start, free, noise[1:], step_size, noise_scale, watch)


def annealed(estimate, observed, free, seeds, steps, watch=None):
    """Ancestral sampling (Ho et al. 2020) of the free modalities down the noise levels, given the observed ones.

    estimate: z (B, M, d), t (B, M) -> noise in z (B, M, d), called `steps` times; observed (B, M, d), of which the free
    modalities (bool (M,)) are ignored; seeds: B integers. Observed modalities stand at level 0 throughout. The last call
    denoises: returns (B, M, d) with clean latents where free. watch(step, z) sees each state on the way.
    """
    noise = sample_noise((steps, *observed.shape[1:]), seeds).to(observed.device).transpose(0, 1)  # steps, B, M, d
    levels = torch.linspace(FIRST, LAST, steps, device=observed.device)
    moving = free[:, None]  # M, 1
    z = torch.where(moving, noise[0], observed)
    for i, level in enumerate(levels):
        if watch:
            watch(i, z)
        t = torch.where(free, level, 0.0).expand(len(z), -1)  # B, M
        eps = estimate(z, t)
        alpha, sigma = noising.signal_and_noise(level)
        clean = (z - sigma * eps) / alpha
        if i + 1 < steps:
            alpha_next, sigma_next = noising.signal_and_noise(levels[i + 1])
            fresh = sigma_next / sigma * (1 - (alpha / alpha_next) ** 2).sqrt()  # the share of noise drawn anew
            kept = (sigma_next**2 - fresh**2).sqrt()
            z = torch.where(moving, alpha_next * clean + kept * eps + fresh * noise[i + 1], observed)
    z = torch.where(moving, clean, observed)
    if watch:
        watch(steps, z)
    return z
