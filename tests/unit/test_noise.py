"""Noise levels: variance preserving, clean at one end, every level told from every other."""

import math

import torch

from ebmvae.annealed.noise import EMBEDDING, add_noise, alpha_sigma, embed_level
from tests.unit.reference import close, randn

LEVELS = torch.linspace(0, 1, 1001, dtype=torch.float64)


def test_variance_is_preserved_and_noise_grows_with_the_level():
    alpha, sigma = alpha_sigma(LEVELS)
    close(alpha.square() + sigma.square(), torch.ones_like(LEVELS), 1e-12)
    assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()
    close(alpha[500], sigma[500], 1e-12)  # half signal, half noise


def test_level_0_is_clean_bit_for_bit_and_level_1_is_noise():
    """An observed modality must come back as it is: alpha is 1 and sigma 0, not nearly so."""
    alpha, sigma = alpha_sigma(torch.tensor([0.0, 1.0]))
    assert alpha[0] == 1 and sigma[0] == 0
    assert abs(alpha[1]) < 1e-7 and sigma[1] == 1


def test_noise_is_added_at_the_level_of_every_modality():
    """What is at level 0 comes back bit for bit; the rest by a loop."""
    x0, eps, t = randn(4, 3, 2), randn(4, 3, 2, seed=1), randn(4, 3, seed=2).sigmoid()
    t[1, 2] = 0
    z = add_noise(x0, t, eps)
    assert torch.equal(z[1, 2], x0[1, 2])
    for b in range(4):
        for m in range(3):
            angle = math.pi * float(t[b, m]) / 2
            close(z[b, m], math.cos(angle) * x0[b, m] + math.sin(angle) * eps[b, m], 1e-12)


def test_embedding_is_waves_of_the_log_of_the_noise_to_signal_ratio():
    """Against a loop over levels and frequencies: sigma / alpha is the tangent of pi t / 2."""
    half = EMBEDDING // 2
    frequencies = [0.2 + (3 - 0.2) * i / (half - 1) for i in range(half)]
    for t in (0.002, 0.1, 0.5, 0.7, 0.998):
        phases = [f * math.log(math.tan(math.pi * t / 2)) for f in frequencies]
        expected = torch.tensor([*map(math.cos, phases), *map(math.sin, phases)]).double()
        close(embed_level(torch.tensor(t).double()), expected, 1e-6)


def test_embedding_tells_every_level_from_every_other_and_is_finite():
    """The slowest wave stays within a quarter turn either way: its sine rises with the level.

    At 0 and 1 the logarithm is infinite: the nearest level that can be told stands in.
    """
    inner = LEVELS[2:-2]  # 0.002 to 0.998
    assert (embed_level(inner)[:, EMBEDDING // 2].diff() > 0).all()
    ends = embed_level(torch.tensor([0.0, 1.0]))
    assert torch.equal(ends, embed_level(torch.tensor([0.002, 0.998])))
    assert torch.isfinite(ends).all()
