"""Ancestral sampling: its exact law on Gaussians, what stays fixed, and guidance."""

from types import SimpleNamespace

import pytest
import torch

from ebmvae.annealed import sampler
from ebmvae.annealed.noise import alpha_sigma
from ebmvae.core.random import normal_per_sample
from tests.unit.reference import B, D, K, annealed, close, randn

M = 3
FREE = torch.tensor([True, False, True])
ALL, ONE = torch.tensor([True] * M), torch.tensor([True])


# ---- the law of the chain. With the exact noise in data N(0, s^2), eps = sigma z / (alpha^2 s^2 +
# sigma^2), it is linear: its end is the sum of its noise, weighted by its impulse responses


@pytest.fixture
def double():
    """Levels in float64: at the first one all but a thousandth of z cancels."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def levels(steps):
    """alpha and sigma of every step, as floats."""
    alpha, sigma = alpha_sigma(torch.linspace(0.98, 0.02, steps))
    return list(zip(alpha.tolist(), sigma.tolist(), strict=True))


def impulse_responses(monkeypatch, s, steps):
    """Tuple i gets noise 1 at draw i only: its latents are the weights of that draw.

    At every step, and at the end: steps + 1 tensors (steps,).
    """
    impulses = torch.eye(steps)[:, :, None, None]  # B = steps, steps, M = 1, d = 1
    monkeypatch.setattr(sampler, "normal_per_sample", lambda shape, seeds: impulses)

    def exact(z, t):
        alpha, sigma = alpha_sigma(t[..., None])
        return sigma * z / (alpha**2 * s**2 + sigma**2)

    states, start = [], torch.zeros(steps, 1, 1)
    args = exact, start, ONE, range(steps), steps
    end = sampler.ancestral(*args, callback=lambda step, z: states.append(z.flatten()))
    assert torch.equal(states[-1], end.flatten())
    return states


@pytest.mark.parametrize("steps", [2, 3, 40])
@pytest.mark.parametrize("s", [0.3, 1.0, 2.0])
def test_variance_on_a_gaussian(monkeypatch, double, s, steps):
    """Ho et al. (2020), eq. 7: mean and variance of q(z_next | z, x0), x0 being expected."""
    weights, variance, level = impulse_responses(monkeypatch, s, steps), 1.0, levels(steps)
    for i, (alpha, sigma) in enumerate(level):
        assert weights[i].square().sum().item() == pytest.approx(variance, rel=1e-9)
        x0 = alpha * s**2 / (alpha**2 * s**2 + sigma**2)  # E[x0 | z] = x0 z
        if i + 1 < steps:
            alpha_next, sigma_next = level[i + 1]
            step = alpha / alpha_next  # sqrt of Ho's 1 - beta
            beta = 1 - step**2
            mean = alpha_next * beta / sigma**2 * x0 + step * sigma_next**2 / sigma**2
            variance = mean**2 * variance + sigma_next**2 / sigma**2 * beta
    assert weights[-1].square().sum().item() == pytest.approx(x0**2 * variance, rel=1e-9)


def test_variance_of_every_level_for_data_in_one_point(monkeypatch, double):
    """s = 0: z is noise alone, of variance sigma^2 at every level but the first, where it is 1."""
    weights, level = impulse_responses(monkeypatch, 0.0, 12), levels(12)
    for weight, (_, sigma) in zip(weights[1:12], level[1:], strict=True):
        start = weight[0] * level[0][1]  # as if its noise had been of variance sigma^2
        assert (start**2 + weight[1:].square().sum()).item() == pytest.approx(sigma**2, rel=1e-9)


@pytest.mark.parametrize("s", [0.5, 2.0])
def test_many_steps_end_at_the_variance_of_the_denoised(monkeypatch, double, s):
    """z has variance alpha^2 s^2 + sigma^2 at the last level, E[x0 | z] a little under s^2."""
    variance = impulse_responses(monkeypatch, s, 1000)[-1].square().sum().item()
    alpha, sigma = levels(1000)[-1]
    assert variance == pytest.approx(alpha**2 * s**4 / (alpha**2 * s**2 + sigma**2), rel=0.02)


def test_data_in_one_point_are_hit():
    """The noise about a point is known exactly, and the last call takes all of it away."""
    point = randn(M, 2, seed=1, dtype=torch.float32)

    def eps_of(z, t):
        alpha, sigma = alpha_sigma(t[..., None])
        return (z - alpha * point) / sigma

    end = sampler.ancestral(eps_of, torch.zeros(6, M, 2), ALL, range(6), 10)
    torch.testing.assert_close(end, point.expand(6, M, 2), rtol=0, atol=1e-5)


# ---- what is observed


def coupled(z, t):
    """Noise that depends on the neighbour and the level. Rounding is the same in every batch."""
    return (z - 0.5 * z.roll(1, 1)) * (0.5 + t[..., None])


def observed_latents(n=6):
    return randn(n, M, 2, seed=1, dtype=torch.float32)


def test_observed_modalities_stay_bit_for_bit_even_where_the_estimate_is_nan():
    observed = observed_latents()

    def broken(z, t):
        return torch.where(FREE[:, None], z, float("nan"))

    for eps_of in (coupled, broken):
        end = sampler.ancestral(eps_of, observed, FREE, range(6), 12)
        assert torch.equal(end[:, ~FREE], observed[:, ~FREE]) and torch.isfinite(end).all()
    assert torch.equal(sampler.ancestral(coupled, observed, ~ALL, range(6), 4), observed)


@pytest.mark.parametrize("free", [FREE, ALL], ids=["some", "all"])
def test_samples_use_what_is_observed_and_nothing_else_of_their_input(free):
    observed = observed_latents()
    before, end = observed.clone(), sampler.ancestral(coupled, observed, free, range(6), 12)
    assert torch.equal(observed, before)
    moved = sampler.ancestral(coupled, observed + 1, free, range(6), 12)[:, free]
    assert (moved != end[:, free]).all() != free.all()
    spoilt = torch.where(free[:, None], float("nan"), observed)
    assert torch.equal(sampler.ancestral(coupled, spoilt, free, range(6), 12), end)


@pytest.mark.parametrize("steps", [2, 40])
def test_the_network_is_called_once_per_level(steps):
    """At falling levels, the same for all that is free; at 0, with the latents, where observed."""
    observed, calls = observed_latents(), []

    def eps_of(z, t):
        calls.append((z, t))
        return coupled(z, t)

    sampler.ancestral(eps_of, observed, FREE, range(6), steps)
    for (z, t), level in zip(calls, torch.linspace(0.98, 0.02, steps), strict=True):
        assert torch.equal(t, torch.where(FREE, level, 0.0).expand(6, M))
        assert torch.equal(z[:, ~FREE], observed[:, ~FREE])
    start = normal_per_sample((steps, M, 2), range(6))[:, 0]
    assert torch.equal(calls[0][0][:, FREE], start[:, FREE])


@pytest.mark.parametrize("size", [1, 3])
def test_samples_do_not_depend_on_the_batch(size):
    observed, seeds = observed_latents(7), [11, 5, 2**62, 0, 7, 8, 9]
    parts = [
        sampler.ancestral(coupled, observed[i : i + size], FREE, seeds[i : i + size], 9)
        for i in range(0, 7, size)
    ]
    assert torch.equal(torch.cat(parts), sampler.ancestral(coupled, observed, FREE, seeds, 9))


# ---- guidance

OBSERVED = pytest.mark.parametrize("observed", [[], [1], [0, 1], [0, 1, 2]], ids=str)


def setting(observed):
    """model, z, t at level 0 where observed, free."""
    model, z, t, _ = annealed(M)
    free = torch.tensor([m not in observed for m in range(M)])
    return model, z, torch.where(free, t.clamp_min(0.05), 0.0), free


def test_guidance_adds_the_energys_gradient():
    """At 0 the conditional denoiser alone; what is added is -sigma times the score, linearly."""
    model, z, t, _ = setting([1])
    conditional = model.eps(z, t, model.class_probs_given_others(z, t))
    gradient = alpha_sigma(t)[1][..., None] * model.score(z, t)
    for scale in (0.0, 1.0, 2.5):
        close(sampler.guided_eps(model, z, t, scale), conditional - scale * gradient, 1e-12)
    assert not sampler.guided_eps(model, z, t, 1.0).requires_grad


def counted(model, weight):
    """The model whose modalities count as often as `weight` (M,) says."""
    ratios_of = model.log_ratios
    model.log_ratios = lambda z, t: ratios_of(z, t) * weight[:, None]
    return model


@OBSERVED
@pytest.mark.parametrize("scale", [0.0, 2.5])
@pytest.mark.parametrize("power", [1.0, 3.0])
def test_eps_given_is_guided_eps_of_the_free_modalities(observed, scale, power):
    """class_power: how often the observed count in the energy and in the class probabilities."""
    model, z, t, free = setting(observed)
    eps = sampler.eps_given(model, z, free, scale, class_power=power)(z[:, free], t[:, free])
    model = counted(model, torch.where(free, 1.0, power)) if power > 1 else model
    close(eps, sampler.guided_eps(model, z, t, scale)[:, free])
    assert not eps.requires_grad


def test_the_energy_guides_below_its_level_only():
    model, z, t, free = setting([0])
    t = torch.full_like(t, 0.5)

    def at(scale, below):
        return sampler.eps_given(model, z, free, scale, below)(z[:, free], t[:, free])

    assert torch.equal(at(2.5, 0.5), at(2.5, 1.0)) and not torch.equal(at(2.5, 0.5), at(0.0, 1.0))
    assert torch.equal(at(2.5, 0.49), at(0.0, 1.0)) and not at(2.5, 0.49).requires_grad


@OBSERVED
def test_a_sample_is_ancestral_with_the_options_of_the_method(observed):
    """Against the plain reference: k observed modalities count 1 + class_guidance / k times."""
    model, z, _, free = setting(observed)
    options = SimpleNamespace(guidance_scale=2.5, guidance_below=0.6, class_guidance=4.0, steps=6)
    drawn = sampler.sample(model, z, free, range(B), options)
    power = 1 + 4.0 / max(1, len(observed))
    model = counted(model, torch.where(free, 1.0, power))

    def by_hand(z, t):
        return sampler.guided_eps(model, z, t, 2.5 if t.max() <= 0.6 else 0.0)

    close(drawn, sampler.ancestral(by_hand, z, free, range(B), 6), 1e-6)
    assert torch.equal(drawn[:, ~free], z[:, ~free])


def test_energy_is_that_of_clean_latents():
    model, z, t, _ = setting([])
    assert torch.equal(sampler.energy(model, z), model(z, torch.zeros_like(t)).detach())
    assert not sampler.energy(model, z).requires_grad


def test_exact_parts_give_the_score_of_the_joint_density():
    """A mixture of K Gaussians over all modalities: eps = -sigma grad log p_t(z_1, ..., z_M).

    Both ways: the conditional denoiser, and the unconditional one with the energy's gradient.
    """
    model, z, t, _ = setting([])
    (alpha, sigma), log_pi = alpha_sigma(t[..., None]), model.class_logits.log_softmax(0).detach()
    means, variance = 2 * randn(M, K, D, seed=9), 0.3 * alpha.square() + sigma.square()  # B, M, 1

    def by_class(z):
        """log p_t(z_m | k), (B, M, K)."""
        square = (z[:, :, None] - alpha[..., None] * means).square() / variance[..., None]
        return -0.5 * (square + (2 * torch.pi * variance[..., None]).log()).sum(3)

    def alone(z):
        """log p_t(z_m), (B, M)."""
        return (by_class(z) + log_pi).logsumexp(2)

    def together(z):
        """log p_t(z), (B,)."""
        return (by_class(z).sum(1) + log_pi).logsumexp(1)

    def minus_sigma_gradient(log_density):
        with torch.enable_grad():
            point = z.clone().requires_grad_()
            return -sigma * torch.autograd.grad(log_density(point).sum(), point)[0]

    def eps(z, t, class_probs):
        """The score of a mixture of the classes with these probabilities."""
        return minus_sigma_gradient(lambda z: (by_class(z) + class_probs.log()).logsumexp(2))

    expected = minus_sigma_gradient(together)
    model.eps = eps
    model.log_ratios = lambda z, t: by_class(z) - alone(z)[..., None]
    close(model(z, t), alone(z).sum(1) - together(z))
    close(sampler.guided_eps(model, z, t), expected)
    close(eps(z, t, model.prior()) - sigma * model.score(z, t), expected)
