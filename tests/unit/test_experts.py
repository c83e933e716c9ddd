"""Gaussian experts: what a product, a mixture and a KL divergence must be exactly."""

import itertools
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ebmvae.vae import experts
from tests.unit.reference import close, randn


def stack(modalities=3, batch=4, dim=2, seed=0):
    """mean, logvar (M, B, D)."""
    return randn(2, modalities, batch, dim, seed=seed).unbind()


def normal(mean, logvar):
    return Normal(mean, torch.exp(0.5 * logvar))


def same(pair, expected):
    for a, b in zip(pair, expected, strict=True):
        close(a, b, 1e-12)


def test_sample_is_mean_plus_sigma_eps():
    mean, logvar, eps = torch.tensor([1.0, -2.0]), torch.tensor([4.0, 0.25]).log(), torch.ones(2)
    torch.testing.assert_close(experts.sample(mean, logvar, eps), torch.tensor([3.0, -1.5]))


@pytest.mark.parametrize("prior", [False, True])
def test_product_adds_precisions(prior):
    mean, logvar = stack()
    precision = (1 / logvar.exp()).sum(0) + prior
    expected = (mean / logvar.exp()).sum(0) / precision, -precision.log()
    same(experts.product(mean, logvar, prior), expected)


def test_product_is_the_normalised_product_of_the_densities():
    mean, logvar = stack(modalities=2, batch=1, dim=1)
    z = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    densities = normal(mean[0], logvar[0]).log_prob(z) + normal(mean[1], logvar[1]).log_prob(z)
    gap = densities - normal(*experts.product(mean, logvar)).log_prob(z)
    close(gap, gap[:1].expand_as(gap), 1e-12)  # a constant in z


def test_one_expert_is_the_identity():
    mean, logvar = stack(modalities=1)
    alone = experts.product(mean, logvar)
    assert torch.equal(alone[0], mean[0]) and torch.equal(alone[1], logvar[0])


def test_infinite_variance_is_a_missing_modality():
    mean, logvar = stack()
    logvar[1] = float("inf")
    same(experts.product(mean, logvar), experts.product(mean[[0, 2]], logvar[[0, 2]]))


def test_order_is_irrelevant():
    mean, logvar = stack(modalities=4)
    order = [2, 0, 3, 1]
    same(experts.product(mean[order], logvar[order]), experts.product(mean, logvar))


@pytest.mark.parametrize("logvar", [-1e4, -200.0, 200.0, 1e4])
def test_extreme_variances_neither_overflow_nor_vanish(logvar):
    """exp(+-200) is beyond float32: a product by 1 / variance would be NaN."""
    pair = torch.tensor([1.0, 3.0]).view(2, 1, 1), torch.full((2, 1, 1), logvar)
    both = torch.tensor([[True, True]])
    for joint in (experts.product(*pair), experts.subset_products(*pair, both)):
        assert joint[0].item() == 2.0
        assert joint[1].item() == pytest.approx(logvar - math.log(2), rel=1e-6)


def test_a_sharp_expert_beats_a_wide_one_and_gradients_are_finite():
    mean = torch.tensor([1.0, 3.0]).view(2, 1, 1).requires_grad_()
    logvar = torch.tensor([-200.0, 200.0]).view(2, 1, 1).requires_grad_()
    joint = experts.product(mean, logvar)
    assert [part.item() for part in joint] == [1.0, -200.0]
    sum(part.sum() for part in experts.product(mean, logvar, prior=True)).backward()
    assert torch.isfinite(mean.grad).all() and torch.isfinite(logvar.grad).all()


def test_subset_products_are_the_products_of_the_subsets():
    mean, logvar = (part.requires_grad_() for part in stack(5))
    inside = torch.tensor(list(itertools.product([False, True], repeat=5)))[1:]  # 31, 5
    products = experts.subset_products(mean, logvar, inside)
    for k, row in enumerate(inside):
        same([part[k] for part in products], experts.product(mean[row], logvar[row]))
    sum(part.sum() for part in products).backward()
    assert torch.isfinite(mean.grad).all() and torch.isfinite(logvar.grad).all()


# ---- mixture and KL divergences


def test_choose_takes_the_component_of_each_item():
    mean, logvar = stack(modalities=3, batch=5)
    component, items = torch.tensor([2, 0, 1, 1, 2]), torch.arange(5)
    chosen = experts.choose(mean, logvar, component)
    assert torch.equal(chosen[0], mean[component, items])
    assert torch.equal(chosen[1], logvar[component, items])


def test_kl_is_the_closed_form():
    p, q, zeros = stack(seed=1), stack(seed=2), torch.zeros(3, 4, 2, dtype=torch.float64)
    close(experts.kl(*p, *q), kl_divergence(normal(*p), normal(*q)).sum(-1), 1e-12)
    expected = kl_divergence(normal(*p), normal(zeros, zeros)).sum(-1)
    close(experts.kl_from_prior(*p), expected, 1e-12)
    close(experts.kl(*p, zeros, zeros), expected, 1e-12)


def test_kl_is_zero_only_for_equal_gaussians():
    p, q, zeros = stack(seed=1), stack(seed=2), torch.zeros(2, 3)
    assert not experts.kl(*p, *p).any() and not experts.kl_from_prior(zeros, zeros).any()
    assert (experts.kl(*p, *q) > 0).all() and (experts.kl(*q, *p) > 0).all()
    assert not torch.allclose(experts.kl(*p, *q), experts.kl(*q, *p))
