"""Eq. 1 in its three forms on a quadratic energy, S(z) = -(P z - c), c = P m: exact answers.

The sample crosses a few posterior means with all sign vectors as noise (mean 0, covariance I
exactly), so that they hold exactly on the sample; `sliced` crosses it with all sign vectors once
more, as probes.
"""

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from ebmvae.ebm import energy, score_matching
from tests.unit.reference import build, close, randn

M, D = 2, 2
DIM = M * D
SIGNS = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=DIM)), dtype=torch.float64)
SIGNS = SIGNS.view(-1, M, D)  # 16, M, D
FORMS = pytest.mark.parametrize("form", ["exact", "sliced", "denoising"])


def crossed(a, b):
    """Every row of a with every row of b."""
    return a.repeat_interleave(len(b), 0), b.repeat(len(a), 1, 1)


def posterior_sample():
    """z, mean, std (N, M, D)."""
    mean, noise = crossed((randn(7, DIM, seed=5) @ randn(DIM, DIM, seed=6)).view(7, M, D), SIGNS)
    std, _ = crossed(randn(7, M, D, seed=7).abs() + 0.3, SIGNS)
    return mean + std * noise, mean, std


def moments():
    """The sample's mean (DIM,) and its covariance (DIM, DIM), divided by N."""
    z = posterior_sample()[0].flatten(1)
    return z.mean(0), (z - z.mean(0)).T @ (z - z.mean(0)) / len(z)


def eq1(form, score):
    z, mean, std = posterior_sample()
    if form == "exact":
        return score_matching.exact(score, z)
    if form == "sliced":
        return score_matching.sliced(score, *crossed(z, SIGNS))
    return score_matching.denoising(score, z, mean, std)


def split(parameters):
    """P (DIM, DIM) and c (DIM,)."""
    return parameters[: DIM * DIM].view(DIM, DIM), parameters[DIM * DIM :]


def quadratic(parameters):
    precision, c = split(parameters)
    return lambda z: (c - z.flatten(1) @ precision.T).view_as(z)


@FORMS
def test_quadratic_energy_has_the_empirical_moments_as_minimiser(form):
    """Eq. 1 is quadratic in (P, c): one Newton step from anywhere lands on P = S^-1, m = the mean.

    Its value there is -1/2 tr S^-1.
    """
    mean, covariance = moments()
    inverse = torch.linalg.inv(covariance)

    def loss(parameters):
        return eq1(form, quadratic(parameters))

    start = randn(DIM * DIM + DIM, seed=8)
    hessian = torch.autograd.functional.hessian(loss, start)
    gradient = torch.autograd.functional.jacobian(loss, start)
    assert torch.linalg.eigvalsh(hessian).min() > 1e-3  # strictly convex: one minimiser
    minimiser = start - torch.linalg.solve(hessian, gradient)
    precision, c = split(minimiser)
    close(precision, inverse, 1e-9)
    close(torch.linalg.solve(precision, c), mean, 1e-9)
    close(loss(minimiser), -0.5 * inverse.trace(), 1e-9)


@FORMS
def test_value_on_a_quadratic_energy(form):
    """-tr P + 1/2 tr P S P' + 1/2 |P (mean - m)|^2, at any P and m; P need not be symmetric."""
    mean, covariance = moments()
    parameters = randn(DIM * DIM + DIM, seed=9)
    precision, c = split(parameters)
    expected = -precision.trace() + 0.5 * (precision @ covariance @ precision.T).trace()
    expected = expected + 0.5 * (precision @ mean - c).square().sum()
    close(eq1(form, quadratic(parameters)), expected)


def test_one_rademacher_probe_is_exact_for_a_diagonal_jacobian():
    z, _, _ = posterior_sample()

    def diagonal(z):
        return -(z**3) + torch.sin(z)

    for seed in range(3):
        rng = torch.Generator().manual_seed(seed)
        probe = torch.randint(2, z.shape, generator=rng).double() * 2 - 1
        close(score_matching.sliced(diagonal, z, probe), score_matching.exact(diagonal, z))
    full, ones = quadratic(randn(DIM * DIM + DIM, seed=9)), torch.ones_like(z)
    assert abs(score_matching.sliced(full, z, ones) - score_matching.exact(full, z)) > 0.1


@pytest.mark.parametrize("model", ["energy", "score"])
def test_all_probes_average_to_the_exact_trace(model):
    """Also for networks: the same value and the same gradient of every weight."""
    net, z = build(energy.build, model, DIM, hidden=6, layers=2).double(), randn(4, M, D)
    score, weights = partial(net.score, create_graph=True), list(net.parameters())
    exact = score_matching.exact(score, z)
    sliced = score_matching.sliced(score, *crossed(z, SIGNS))
    close(sliced, exact)
    named = dict(allow_unused=True, materialize_grads=True)  # no score depends on an energy's bias
    gradients = (torch.autograd.grad(value, weights, **named) for value in (sliced, exact))
    for a, b in zip(*gradients, strict=True):
        close(a, b)


def test_denoising_is_the_squared_distance_to_the_posterior_score_up_to_a_constant():
    """1/2 |S + (z - mean)/std^2|^2 less the square of its target, which has no parameter."""
    z, mean, std = posterior_sample()
    target = (z - mean) / std**2

    def score(z):
        return torch.tanh(z.flatten(1) @ randn(DIM, DIM, seed=1)).view_as(z)

    expected = 0.5 * ((score(z) + target).square() - target.square()).sum((1, 2))
    close(score_matching.denoising(score, z, mean, std), expected.mean())


@pytest.mark.parametrize("power", [1, 2, 5])
def test_denoising_has_the_expectation_of_exact(power):
    """S(z) = z^k in one dimension under N(0.7, 1.3^2): both expectations are the same number.

    By Gauss-Hermite quadrature, which is exact for polynomials.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    mean, std = torch.tensor([[[0.7]]]).double(), torch.tensor([[[1.3]]]).double()
    points = mean + std * torch.as_tensor(nodes).view(20, 1, 1, 1)

    def score(z):
        return z**power

    exact = torch.stack([score_matching.exact(score, z) for z in points])
    denoising = torch.stack([score_matching.denoising(score, z, mean, std) for z in points])
    weights = torch.as_tensor(weights / weights.sum())
    close(weights @ denoising, weights @ exact)
