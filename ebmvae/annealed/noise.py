"""Noised latents z = alpha x0 + sigma eps, alpha = cos(pi t / 2), sigma = sin(pi t / 2).

Level t = 0 is clean, t = 1 is noise. Every modality of a tuple has a level of its own: 0 where it
is observed, a common one where it is being generated.
"""

import math

import torch

EMBEDDING = 16  # numbers that tell a network its level


def alpha_sigma(t):
    """alpha and sigma at levels t in [0, 1], of t's shape; alpha^2 + sigma^2 = 1."""
    return torch.cos(t * math.pi / 2), torch.sin(t * math.pi / 2)


def add_noise(x0, t, eps):
    """Latents (..., d) at levels t (...): alpha x0 + sigma eps."""
    alpha, sigma = (part[..., None] for part in alpha_sigma(t))
    return alpha * x0 + sigma * eps


def embed_level(t):
    """Levels t (...) -> (..., EMBEDDING): waves of log(sigma / alpha), which tells levels apart."""
    alpha, sigma = alpha_sigma(t.clamp(0.002, 0.998))
    frequencies = torch.linspace(0.2, 3, EMBEDDING // 2, device=t.device)
    phase = torch.log(sigma / alpha)[..., None] * frequencies
    return torch.cat([phase.cos(), phase.sin()], -1)
