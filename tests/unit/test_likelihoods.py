"""Likelihoods are their densities up to a constant."""

import pytest
import torch
from torch.distributions import Laplace, MultivariateNormal, Normal

from ebmvae.vae.likelihoods import NLL, correlated_nll, gaussian_nll
from tests.unit.reference import B, close, randn

SCALE = 0.7


def pair(*shape):
    return randn(B, *shape, seed=1), randn(B, *shape, seed=2)


@pytest.mark.parametrize("name, density", [("gaussian", Normal), ("laplace", Laplace)])
def test_nll_is_the_density_less_its_peak(name, density):
    x, recon = pair(3, 4, 5)
    expected = density(x, SCALE).log_prob(x) - density(recon, SCALE).log_prob(x)
    close(NLL[name](x, recon, SCALE), expected.flatten(1).sum(1))


def test_gaussian_nll_at_scale_root_half_is_the_squared_error():
    x, recon = pair(3, 4, 5)
    close(gaussian_nll(x, recon, 0.5**0.5), (x - recon).square().sum((1, 2, 3)))


def neighbour_differences(channels, height, width):
    """D of correlated_nll as a matrix: a row for every pair of neighbours in a channel."""
    number = torch.arange(channels * height * width).view(channels, height, width)
    first = torch.cat([number[:, :-1].flatten(), number[:, :, :-1].flatten()])
    second = torch.cat([number[:, 1:].flatten(), number[:, :, 1:].flatten()])
    unit = torch.eye(number.numel(), dtype=torch.float64)
    return unit[second] - unit[first]


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 3, 4), (3, 1, 5)], ids=str)
def test_correlated_nll_is_the_density_less_its_peak(shape):
    x, recon = pair(*shape)
    d = neighbour_differences(*shape)
    precision = (torch.eye(d.shape[1], dtype=torch.float64) + d.T @ d) / SCALE**2
    density = MultivariateNormal(recon.flatten(1), precision_matrix=precision)
    expected = density.log_prob(recon.flatten(1)) - density.log_prob(x.flatten(1))
    close(NLL["correlated"](x, recon, SCALE), expected)


def test_correlated_nll_of_an_even_error_is_the_gaussian_one():
    """No neighbours differ; of one pixel that is wrong alone, each neighbour counts as well."""
    x, even = randn(B, 3, 4, 5, seed=1), randn(B, 3, 1, 1, seed=2)
    close(correlated_nll(x, x + even, SCALE), gaussian_nll(x, x + even, SCALE))
    alone = torch.zeros_like(x)
    alone[:, 1, 2, 2] = 0.3
    close(correlated_nll(x, x + alone, SCALE), 5 * gaussian_nll(x, x + alone, SCALE))
