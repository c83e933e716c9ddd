"""Langevin sampling of what is not observed: pure functions of (score, z, noise)."""

import torch


def langevin(score, z, free, noise, step_size, noise_scale=1.0):
    """Eq. 3 on the free coordinates: z <- z + (lambda^2 / 2) S(z) + noise_scale * lambda * N(0, I).

    score: (B, D) -> (B, D), the gradient of the log density; z (B, D) start; free bool (D,): coordinates to move, the
    others stay exactly as they are; noise (steps, B, D) or any iterable of (B, D); step_size is lambda. Returns (B, D).
    noise_scale below 1 samples at a lower temperature than the paper's eq. 3.
    """
    for xi in noise:
        moved = z + 0.5 * step_size**2 * score(z) + noise_scale * step_size * xi
        z = torch.where(free, moved, z)
    return z


def sample_noise(shape, seeds):
    """One generator a sample, so that results do not depend on the batch: normal (len(seeds), *shape) on the CPU."""
    out = torch.empty(len(seeds), *shape)
    for row, seed in zip(out, seeds):
        row.normal_(generator=torch.Generator().manual_seed(seed))
    return out


def conditional(score, observed, free, seeds, steps, step_size, noise_scale=1.0):
    """Eq. 2: hold the observed latents, start the free ones at N(0, I), run `steps` Langevin steps on them.

    observed (B, D) standardised latents, of which the free coordinates (bool (D,)) are ignored; seeds: B integers.
    Returns (B, D). With every coordinate free this is unconditional generation.
    """
    noise = sample_noise((steps + 1, observed.shape[1]), seeds).to(observed.device).transpose(0, 1)  # steps + 1, B, D
    start = torch.where(free, noise[0], observed)
    return langevin(score, start, free, noise[1:], step_size, noise_scale)
