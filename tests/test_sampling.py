"""Langevin sampling: the exact law of the discrete chain, what stays fixed, and independence of the batch."""

import pytest
import torch

from stages.lib import sampling

MIXED = torch.tensor([True, False, True, False, False])


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def elementwise(z):
    return -z + torch.sin(z)


def coupled(z):
    """Every coordinate is pulled by all others: what is observed reaches what is free."""
    return z.mean(1, keepdim=True) - z


def gaussian(s):
    return lambda z: -z / s**2


def everything(dim):
    return torch.ones(dim, dtype=torch.bool)


# ---- the law of the chain on N(0, s^2): z' = a z + lambda xi, a = 1 - eta/s^2, eta = lambda^2/2


def impulse_responses(s, step_size, steps):
    """Item t starts at 0 and gets noise 1 at step t only: its end is the weight of xi_t in the chain's last state."""
    noise = torch.eye(steps, dtype=torch.float64)[:, :, None]  # steps, B = steps, D = 1
    start = torch.zeros(steps, 1, dtype=torch.float64)
    return sampling.langevin(gaussian(s), start, everything(1), noise, step_size)[:, 0]


@pytest.mark.parametrize("s, step_size", [(1.0, 0.45), (0.5, 0.3), (2.0, 1.5), (1.0, 1.9)])
def test_stationary_variance_on_a_gaussian(s, step_size):
    """The chain is linear, so its variance is the sum of the squared weights of its noise: s^2 / (1 - eta / 2s^2)."""
    eta = step_size**2 / 2
    weights = impulse_responses(s, step_size, steps=600)
    assert weights.square().sum().item() == pytest.approx(s**2 / (1 - eta / (2 * s**2)), rel=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_transient_on_a_gaussian(steps):
    """After T steps the variance is (1 - a^2T) of the stationary one, the start's weight a^T."""
    s, step_size = 0.8, 0.5
    eta = step_size**2 / 2
    a = 1 - eta / s**2
    weights = impulse_responses(s, step_size, steps)
    torch.testing.assert_close(weights, step_size * a ** torch.arange(steps - 1, -1, -1, dtype=torch.float64))
    stationary = s**2 / (1 - eta / (2 * s**2))
    assert weights.square().sum().item() == pytest.approx(stationary * (1 - a ** (2 * steps)), rel=1e-12)
    start = torch.full((1, 1), 3.0, dtype=torch.float64)
    end = sampling.langevin(gaussian(s), start, everything(1), torch.zeros(steps, 1, 1), step_size)
    assert end.item() == pytest.approx(3 * a**steps, rel=1e-12)


def test_conditional_has_the_stationary_variance():
    """The whole sampler with its own noise: n variances of normal values have standard error v sqrt(2/n)."""
    s, step_size, n, dim = 0.7, 0.6, 500, 40
    z = sampling.conditional(gaussian(s), torch.zeros(n, dim), everything(dim), range(n), 60, step_size)
    expected = s**2 / (1 - step_size**2 / (4 * s**2))
    assert abs(z.square().mean().item() - expected) < 4 * expected * (2 / (n * dim)) ** 0.5
    assert abs(z.mean().item()) < 4 * (expected / (n * dim)) ** 0.5


def test_noise_scale_is_the_root_of_the_temperature():
    """On a quadratic energy the variance is proportional to the temperature, noise_scale^2."""
    noise = torch.eye(50, dtype=torch.float64)[:, :, None]
    run = lambda scale: sampling.langevin(gaussian(1.0), torch.zeros(50, 1), everything(1), noise, 0.5, scale)
    torch.testing.assert_close(run(0.1), 0.1 * run(1.0), rtol=1e-12, atol=0)


def test_noise_scale_zero_is_gradient_descent():
    z, score = randn(4, 5, seed=1), coupled
    found = sampling.langevin(score, z, everything(5), randn(10, 4, 5, seed=2), 0.6, noise_scale=0.0)
    expected = z
    for _ in range(10):
        expected = expected + 0.5 * 0.6**2 * score(expected)
    torch.testing.assert_close(found, expected)


def test_no_steps_change_nothing():
    z = randn(4, 5)
    assert torch.equal(sampling.langevin(elementwise, z, everything(5), torch.empty(0, 4, 5), 0.5), z)


# ---- what is observed


def test_observed_coordinates_stay_bit_for_bit():
    z = randn(6, 5, seed=1)
    found = sampling.langevin(coupled, z, MIXED, randn(20, 6, 5, seed=2), 0.7)
    assert torch.equal(found[:, ~MIXED], z[:, ~MIXED])
    assert (found[:, MIXED] != z[:, MIXED]).all()


def test_observed_coordinates_stay_where_the_score_is_nan():
    broken = lambda z: torch.where(MIXED, -z, float("nan"))
    z = randn(6, 5, seed=1)
    found = sampling.langevin(broken, z, MIXED, randn(20, 6, 5, seed=2), 0.7)
    assert torch.equal(found[:, ~MIXED], z[:, ~MIXED])
    assert torch.isfinite(found).all()


def test_conditional_keeps_what_is_observed_and_uses_it():
    observed = randn(6, 5, seed=1)
    run = lambda observed: sampling.conditional(coupled, observed, MIXED, range(6), 20, 0.7)
    found = run(observed)
    assert torch.equal(found[:, ~MIXED], observed[:, ~MIXED])
    assert (run(observed + 1)[:, MIXED] != found[:, MIXED]).all()


def test_conditional_ignores_the_free_coordinates_of_observed():
    observed = randn(6, 5, seed=1)
    spoilt = torch.where(MIXED, float("nan"), observed)
    run = lambda observed: sampling.conditional(coupled, observed, MIXED, range(6), 20, 0.7)
    assert torch.equal(run(spoilt), run(observed))


def test_conditional_starts_the_free_coordinates_at_the_first_noise():
    observed = randn(6, 5, seed=1)
    found = sampling.conditional(coupled, observed, MIXED, range(6), 0, 0.7)
    noise = sampling.sample_noise((1, 5), range(6))[:, 0]
    assert torch.equal(found, torch.where(MIXED, noise, observed))


def test_conditional_is_langevin_with_fresh_noise_after_the_start():
    observed, seeds = randn(6, 5, seed=1), range(6)
    start, *noise = sampling.sample_noise((21, 5), seeds).unbind(1)
    expected = sampling.langevin(coupled, torch.where(MIXED, start, observed), MIXED, noise, 0.7, 0.5)
    assert torch.equal(sampling.conditional(coupled, observed, MIXED, seeds, 20, 0.7, 0.5), expected)


def test_conditional_leaves_its_input_alone():
    observed = randn(6, 5, seed=1)
    before = observed.clone()
    sampling.conditional(coupled, observed, MIXED, range(6), 3, 0.7)
    assert torch.equal(observed, before)


# ---- one generator a sample


@pytest.mark.parametrize("dim", [1, 5, 40])  # torch draws 16 and more normals another way than fewer
@pytest.mark.parametrize("batch_size", [1, 3])
def test_results_do_not_depend_on_the_batch(dim, batch_size):
    observed, seeds = randn(7, dim, seed=1), [11, 5, 2**62, 0, 7, 8, 9]
    free = torch.arange(dim) % 2 == 0
    run = lambda observed, seeds: sampling.conditional(elementwise, observed, free, seeds, 15, 0.45, 0.5)
    parts = [run(observed[i : i + batch_size], seeds[i : i + batch_size]) for i in range(0, 7, batch_size)]
    assert torch.equal(torch.cat(parts), run(observed, seeds))


def test_noise_follows_its_seed():
    noise = sampling.sample_noise((3, 4), [1, 2, 1])
    assert noise.shape == (3, 3, 4)
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])


def test_noise_is_standard_normal():
    noise = sampling.sample_noise((100,), range(400))
    n = noise.numel()
    assert abs(noise.mean().item()) < 4 / n**0.5
    assert abs(noise.var().item() - 1) < 4 * (2 / n) ** 0.5


def test_noise_leaves_the_global_generator_alone():
    state = torch.random.get_rng_state()
    sampling.sample_noise((3,), [1, 2])
    assert torch.equal(torch.random.get_rng_state(), state)
