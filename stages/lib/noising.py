"""Noised latents z = alpha x + sigma eps, with alpha = cos(pi t / 2) and sigma = sin(pi t / 2): t = 0 clean, t = 1 noise.

Every modality of a tuple has a level t of its own: 0 where it is observed, a common one where it is being generated.
"""

import math

import torch

EMBEDDING = 16  # numbers that tell a network its level


def signal_and_noise(t):
    """alpha and sigma at levels t in [0, 1], each of t's shape; alpha^2 + sigma^2 = 1 (variance preserving)."""
    return torch.cos(t * math.pi / 2), torch.sin(t * math.pi / 2)


def noised(clean, t, noise):
    """Latents (..., d) at levels t (...): alpha x + sigma eps."""
    alpha, sigma = (part[..., None] for part in signal_and_noise(t))
    return alpha * clean + sigma * noise


def embed(t):
    """Levels t (...) -> (..., EMBEDDING): waves of log(sigma / alpha), which is what a network must tell apart."""
    alpha, sigma = signal_and_noise(t.clamp(0.002, 0.998))
    phase = torch.log(sigma / alpha)[..., None] * torch.linspace(0.2, 3, EMBEDDING // 2, device=t.device)
    return torch.cat([phase.cos(), phase.sin()], -1)
