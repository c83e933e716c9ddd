"""Langevin and annealed sampling: the exact law of the chain, what stays fixed, and independence of the batch."""

import pytest
import torch

from stages.lib import noising, sampling

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


# ---- annealed: the law of the chain. With the exact noise in data N(0, s^2), eps = sigma z / (alpha^2 s^2 + sigma^2), it
# is linear: its end is the sum of its noise, weighted by its impulse responses

SOME = torch.tensor([True, False, True])


@pytest.fixture
def double():
    """Levels in float64: at the first one all but a thousandth of z cancels."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def levels(steps):
    """alpha and sigma of every step, as floats."""
    return list(zip(*(part.tolist() for part in noising.signal_and_noise(
        torch.linspace(sampling.FIRST, sampling.LAST, steps)))))


def exact_noise(s):
    """The noise in z expected under data N(0, s^2); at s = 0 all of z is noise."""

    def estimate(z, t):
        alpha, sigma = (part[..., None] for part in noising.signal_and_noise(t))
        return sigma * z / (alpha**2 * s**2 + sigma**2)

    return estimate


def annealed_weights(monkeypatch, s, steps):
    """Item i gets noise 1 at draw i only: its latent at every step, and its end, are the weights of that draw.

    Returns steps + 1 tensors (steps,).
    """
    impulses = torch.eye(steps, dtype=torch.float64)[:, :, None, None]  # B = steps, steps, M = 1, d = 1
    monkeypatch.setattr(sampling, "sample_noise", lambda shape, seeds: impulses)
    seen, exact = [], exact_noise(s)
    start = torch.zeros(steps, 1, 1, dtype=torch.float64)
    end = sampling.annealed(lambda z, t: seen.append(z) or exact(z, t), start, everything(1), range(steps), steps)
    return [z.flatten() for z in (*seen, end)]


@pytest.mark.parametrize("steps", [2, 3, 12, 40])
@pytest.mark.parametrize("s", [0.3, 1.0, 2.0])
def test_annealed_variance_on_a_gaussian(monkeypatch, double, s, steps):
    """Against Ho et al. (2020), eq. 7: the mean and variance of q(z_next | z, clean), with the clean latent expected."""
    weights, variance = annealed_weights(monkeypatch, s, steps), 1.0
    level = levels(steps)
    for i, (alpha, sigma) in enumerate(level):
        assert weights[i].square().sum().item() == pytest.approx(variance, rel=1e-9)
        clean = alpha * s**2 / (alpha**2 * s**2 + sigma**2)  # E[x | z] = clean z
        if i + 1 < steps:
            alpha_next, sigma_next = level[i + 1]
            step = alpha / alpha_next  # sqrt of Ho's 1 - beta; alpha_next is their sqrt of alpha-bar, one step before
            beta = 1 - step**2
            mean = alpha_next * beta / sigma**2 * clean + step * sigma_next**2 / sigma**2
            variance = mean**2 * variance + sigma_next**2 / sigma**2 * beta
    assert weights[-1].square().sum().item() == pytest.approx(clean**2 * variance, rel=1e-9)


def test_annealed_keeps_the_variance_of_every_level_for_data_in_one_point(monkeypatch, double):
    """s = 0: z is noise alone, of variance sigma^2 at every level (from the second on: the first starts with 1)."""
    weights = annealed_weights(monkeypatch, 0.0, 12)
    _, first = levels(12)[0]
    for weight, (_, sigma) in zip(weights[1:], levels(12)[1:]):
        start, fresh = weight[0] * first, weight[1:]  # the start's noise as if it had been of variance sigma^2
        assert (start**2 + fresh.square().sum()).item() == pytest.approx(sigma**2, rel=1e-9)


@pytest.mark.parametrize("s", [0.5, 1.0, 2.0])
def test_annealed_with_many_steps_ends_at_the_variance_of_the_denoised(monkeypatch, double, s):
    """In the limit z has variance alpha^2 s^2 + sigma^2 at the last level, so its expected clean latent a little under s^2."""
    found = annealed_weights(monkeypatch, s, 1000)[-1].square().sum().item()
    alpha, sigma = levels(1000)[-1]
    assert found == pytest.approx(alpha**2 * s**4 / (alpha**2 * s**2 + sigma**2), rel=0.02)


def test_annealed_finds_data_in_one_point():
    """The noise about a point is known exactly, and the last call takes all of it away."""
    point = randn(3, 2, seed=1)

    def estimate(z, t):
        alpha, sigma = (part[..., None] for part in noising.signal_and_noise(t))
        return (z - alpha * point) / sigma

    found = sampling.annealed(estimate, torch.zeros(6, 3, 2), everything(3), range(6), 10)
    torch.testing.assert_close(found, point.expand(6, 3, 2), rtol=0, atol=1e-5)


# ---- annealed: what is observed, what is asked


def pulled(z, t):
    """Every modality's noise depends on all others' latents and levels, one item at a time."""
    return torch.sin(z + z.roll(1, 1)) * (0.5 + t[..., None])


def test_annealed_keeps_what_is_observed_bit_for_bit_and_uses_it():
    observed = randn(6, 3, 2, seed=1)
    run = lambda observed: sampling.annealed(pulled, observed, SOME, range(6), 12)
    found = run(observed)
    assert torch.equal(found[:, ~SOME], observed[:, ~SOME])
    assert (run(observed + 1)[:, SOME] != found[:, SOME]).all()


def test_annealed_keeps_what_is_observed_where_the_estimate_is_nan():
    observed = randn(6, 3, 2, seed=1)
    broken = lambda z, t: torch.where(SOME[:, None], z, float("nan"))
    found = sampling.annealed(broken, observed, SOME, range(6), 12)
    assert torch.equal(found[:, ~SOME], observed[:, ~SOME])
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("free", [SOME, everything(3)], ids=["some", "all"])
def test_annealed_ignores_the_free_modalities_of_observed(free):
    observed = randn(6, 3, 2, seed=1)
    spoilt = torch.where(free[:, None], float("nan"), observed)
    run = lambda observed: sampling.annealed(pulled, observed, free, range(6), 12)
    assert torch.equal(run(spoilt), run(observed))


def test_annealed_given_everything_changes_nothing():
    observed = randn(6, 3, 2, seed=1)
    assert torch.equal(sampling.annealed(pulled, observed, ~everything(3), range(6), 4), observed)


@pytest.mark.parametrize("steps", [2, 5, 40])
def test_annealed_asks_once_a_level(steps):
    """What it asks: `steps` falling levels, the same for all that is free; 0 and the latents themselves where observed."""
    observed, asked = randn(6, 3, 2, seed=1), []
    sampling.annealed(lambda z, t: asked.append((z, t)) or pulled(z, t), observed, SOME, range(6), steps)
    assert len(asked) == steps
    for (z, t), level in zip(asked, torch.linspace(sampling.FIRST, sampling.LAST, steps)):
        assert torch.equal(t, torch.where(SOME, level, 0.0).expand(6, 3))
        assert torch.equal(z[:, ~SOME], observed[:, ~SOME])
    assert torch.equal(asked[0][0][:, SOME], sampling.sample_noise((steps, 3, 2), range(6))[:, 0][:, SOME])


def test_annealed_leaves_its_input_alone():
    observed = randn(6, 3, 2, seed=1)
    before = observed.clone()
    sampling.annealed(pulled, observed, SOME, range(6), 3)
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


@pytest.mark.parametrize("batch_size", [1, 3])
def test_annealed_results_do_not_depend_on_the_batch(batch_size):
    observed, seeds = randn(7, 3, 2, seed=1), [11, 5, 2**62, 0, 7, 8, 9]
    run = lambda observed, seeds: sampling.annealed(lambda z, t: (z - z.roll(1, 1)) * t[..., None], observed, SOME, seeds, 9)
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
