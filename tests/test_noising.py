"""Noise levels: variance preserving, clean at one end, and every level told from every other."""

import math

import torch

from stages.lib import noising

LEVELS = torch.linspace(0, 1, 1001, dtype=torch.float64)
INNER = LEVELS[2:-2]  # 0.002 to 0.998, where the embedding is not clamped


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_variance_is_preserved():
    alpha, sigma = noising.signal_and_noise(LEVELS)
    close(alpha.square() + sigma.square(), torch.ones_like(LEVELS))


def test_level_0_is_clean_bit_for_bit_and_level_1_is_noise():
    """At level 0 an observed modality must come back as it is: alpha is 1 and sigma 0, not nearly so."""
    alpha, sigma = noising.signal_and_noise(torch.tensor([0.0, 1.0]))
    assert alpha[0] == 1 and sigma[0] == 0
    assert abs(alpha[1]) < 1e-7 and sigma[1] == 1


def test_the_middle_level_is_half_signal_half_noise():
    alpha, sigma = noising.signal_and_noise(torch.tensor([0.5, 1 / 3], dtype=torch.float64))
    close(alpha, torch.tensor([0.5**0.5, 0.75**0.5], dtype=torch.float64))
    close(sigma, torch.tensor([0.5**0.5, 0.5], dtype=torch.float64))


def test_noise_grows_with_the_level():
    alpha, sigma = noising.signal_and_noise(LEVELS)
    assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()


def test_noised_mixes_each_with_its_own_level():
    """What stands at level 0 comes back bit for bit; the rest by a loop."""
    rng = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(3, 4, 2, generator=rng, dtype=torch.float64) for _ in range(2))
    t = torch.rand(3, 4, generator=rng, dtype=torch.float64)
    t[1, 2] = 0
    found = noising.noised(clean, t, noise)
    assert torch.equal(found[1, 2], clean[1, 2])
    for m in range(3):
        for b in range(4):
            angle = math.pi * float(t[m, b]) / 2
            close(found[m, b], math.cos(angle) * clean[m, b] + math.sin(angle) * noise[m, b])


def test_embedding_is_waves_of_the_log_of_the_noise_to_signal_ratio():
    """Against a loop over levels and frequencies: sigma / alpha is the tangent of pi t / 2."""
    half = noising.EMBEDDING // 2
    frequencies = [0.2 + (3 - 0.2) * i / (half - 1) for i in range(half)]
    for t in (0.002, 0.1, 0.5, 0.7, 0.998):
        phases = [f * math.log(math.tan(math.pi * t / 2)) for f in frequencies]
        expected = torch.tensor([*map(math.cos, phases), *map(math.sin, phases)], dtype=torch.float64)
        torch.testing.assert_close(noising.embed(torch.tensor(t, dtype=torch.float64)), expected, rtol=0, atol=1e-6)


def test_embedding_of_the_middle_is_phase_0():
    expected = torch.tensor([1.0] * 8 + [0.0] * 8)
    torch.testing.assert_close(noising.embed(torch.tensor([[0.5]])), expected[None, None], rtol=0, atol=1e-6)


def test_embedding_mirrored_at_the_middle_is_its_conjugate():
    """The ratio of noise to signal is inverted: its logarithm changes sign."""
    cos, sin = noising.embed(INNER).chunk(2, -1)
    mirrored_cos, mirrored_sin = noising.embed(1 - INNER).chunk(2, -1)
    close(mirrored_cos, cos)
    close(mirrored_sin, -sin)


def test_embedding_tells_every_level_from_every_other():
    """The slowest wave stays within a quarter turn either way: its sine alone rises with the level."""
    slowest = noising.embed(INNER)[:, noising.EMBEDDING // 2]
    assert (slowest.diff() > 0).all()


def test_embedding_is_finite_at_the_ends():
    """At 0 and 1 the logarithm is infinite: there the embedding is that of the nearest level it can tell."""
    for dtype in (torch.float32, torch.float64):
        ends = noising.embed(torch.tensor([0, 1], dtype=dtype))
        assert torch.equal(ends, noising.embed(torch.tensor([0.002, 0.998], dtype=dtype)))
        assert torch.isfinite(ends).all()
