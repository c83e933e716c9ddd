"""Langevin sampling: the exact law of the chain, what stays fixed, independence of the batch."""

from types import SimpleNamespace

import pytest
import torch

from ebmvae.core.random import normal_per_sample
from ebmvae.ebm import langevin
from tests.unit.reference import randn

FREE = torch.tensor([True, False, True])
ONE = torch.tensor([True])


def coupled(z):
    """Every modality follows its neighbour. Rounding is the same in every batch."""
    return z.roll(1, 1) - 2 * z


def gaussian(s):
    return lambda z: -z / s**2


def sample(score, observed, free, seeds, steps=20, step_size=0.7, noise_scale=1.0, callback=None):
    options = dict(langevin_steps=steps, step_size=step_size, noise_scale=noise_scale)
    model, options = SimpleNamespace(score=score), SimpleNamespace(**options)
    return langevin.sample(model, observed, free, seeds, options, callback)


def observed_latents():
    return randn(6, 3, 2, seed=1, dtype=torch.float32)


# ---- the law of the chain on N(0, s^2): z' = a z + lambda xi, a = 1 - eta/s^2, eta = lambda^2/2


def impulse_responses(s, step_size, steps, noise_scale=1.0):
    """The weight of every xi_t in the chain's last state: tuple t gets noise 1 at step t only."""
    noise = torch.eye(steps, dtype=torch.float64).view(steps, steps, 1, 1)  # steps, B, M, d
    start = torch.zeros(steps, 1, 1, dtype=torch.float64)
    return langevin.langevin(gaussian(s), start, ONE, noise, step_size, noise_scale).flatten()


@pytest.mark.parametrize("s, step_size", [(1.0, 0.45), (2.0, 1.5), (1.0, 1.9)])
def test_stationary_variance_on_a_gaussian(s, step_size):
    """The chain is linear: its variance is the sum of its squared weights, s^2 / (1 - eta/2s^2)."""
    eta = step_size**2 / 2
    variance = impulse_responses(s, step_size, steps=600).square().sum().item()
    assert variance == pytest.approx(s**2 / (1 - eta / (2 * s**2)), rel=1e-10)


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_transient_on_a_gaussian(steps):
    """After T steps the variance is (1 - a^2T) of the stationary one, the start's weight a^T."""
    s, step_size = 0.8, 0.5
    eta = step_size**2 / 2
    a = 1 - eta / s**2
    weights = impulse_responses(s, step_size, steps)
    powers = a ** torch.arange(steps - 1, -1, -1, dtype=torch.float64)
    torch.testing.assert_close(weights, step_size * powers)
    stationary = s**2 / (1 - eta / (2 * s**2))
    expected = stationary * (1 - a ** (2 * steps))
    assert weights.square().sum().item() == pytest.approx(expected, rel=1e-12)
    start, noise = torch.full((1, 1, 1), 3.0).double(), torch.zeros(steps, 1, 1, 1)
    end = langevin.langevin(gaussian(s), start, ONE, noise, step_size)
    assert end.item() == pytest.approx(3 * a**steps, rel=1e-12)


def test_a_sample_has_the_stationary_variance():
    """The whole sampler: n variances of normal values have standard error v sqrt(2/n)."""
    s, n, dim = 0.7, 500, 40
    z = sample(gaussian(s), torch.zeros(n, 1, dim), ONE, range(n), steps=60, step_size=0.6)
    expected = s**2 / (1 - 0.6**2 / (4 * s**2))
    assert abs(z.square().mean().item() - expected) < 4 * expected * (2 / (n * dim)) ** 0.5
    assert abs(z.mean().item()) < 4 * (expected / (n * dim)) ** 0.5


def test_noise_scale_is_the_root_of_the_temperature():
    """The variance is proportional to the temperature, noise_scale^2; at 0, gradient descent."""
    cold, warm = impulse_responses(1.0, 0.5, 50, 0.1), impulse_responses(1.0, 0.5, 50)
    torch.testing.assert_close(cold, 0.1 * warm, rtol=1e-12, atol=0)
    expected = z = randn(4, 3, 2, seed=1)
    for _ in range(10):
        expected = expected + 0.5 * 0.6**2 * coupled(expected)
    free, noise = torch.ones(3, dtype=torch.bool), randn(10, 4, 3, 2, seed=2)
    end = langevin.langevin(coupled, z, free, noise, 0.6, noise_scale=0.0)
    torch.testing.assert_close(end, expected)


# ---- what is observed


def test_observed_modalities_stay_bit_for_bit_even_where_the_score_is_nan():
    z, noise = observed_latents(), randn(20, 6, 3, 2, seed=2, dtype=torch.float32)
    end = langevin.langevin(coupled, z, FREE, noise, 0.7)
    assert torch.equal(end[:, ~FREE], z[:, ~FREE]) and (end[:, FREE] != z[:, FREE]).all()

    def broken(z):
        return torch.where(FREE[:, None], -z, float("nan"))

    end = langevin.langevin(broken, z, FREE, noise, 0.7)
    assert torch.equal(end[:, ~FREE], z[:, ~FREE]) and torch.isfinite(end).all()


def test_a_sample_uses_what_is_observed_and_nothing_else_of_its_input():
    observed = observed_latents()
    before, end = observed.clone(), sample(coupled, observed, FREE, range(6))
    assert torch.equal(observed, before)
    assert torch.equal(end[:, ~FREE], observed[:, ~FREE])
    assert (sample(coupled, observed + 1, FREE, range(6))[:, FREE] != end[:, FREE]).all()
    spoilt = torch.where(FREE[:, None], float("nan"), observed)
    assert torch.equal(sample(coupled, spoilt, FREE, range(6)), end)


@pytest.mark.parametrize("steps", [0, 20])
def test_a_sample_is_langevin_with_fresh_noise_after_the_start(steps):
    """No steps change nothing: what is free starts at the first noise. A callback sees it all."""
    observed, states = observed_latents(), []
    start, *noise = normal_per_sample((steps + 1, 3, 2), range(6)).unbind(1)
    start = torch.where(FREE[:, None], start, observed)
    expected = langevin.langevin(coupled, start, FREE, noise, 0.7, 0.5)
    args = coupled, observed, FREE, range(6), steps, 0.7, 0.5
    end = sample(*args, lambda *state: states.append(state))
    assert torch.equal(end, expected)
    assert [step for step, _ in states] == list(range(steps + 1))
    assert torch.equal(states[0][1], start) and torch.equal(states[-1][1], end)


def test_a_posterior_is_widened_as_the_energy_was_fitted():
    options = SimpleNamespace(fit=SimpleNamespace(posterior_scale=3.0))
    assert torch.equal(langevin.widen(torch.tensor([1.0, 2.0]), options), torch.tensor([3.0, 6.0]))


# ---- one generator per sample


@pytest.mark.parametrize("dim", [1, 5, 40])  # torch draws 16 normals and more in another way
@pytest.mark.parametrize("batch_size", [1, 3])
def test_samples_do_not_depend_on_the_batch(dim, batch_size):
    observed, seeds = randn(7, 3, dim, seed=1).float(), [11, 5, 2**62, 0, 7, 8, 9]
    parts = [
        sample(coupled, observed[i : i + batch_size], FREE, seeds[i : i + batch_size])
        for i in range(0, 7, batch_size)
    ]
    assert torch.equal(torch.cat(parts), sample(coupled, observed, FREE, seeds))
