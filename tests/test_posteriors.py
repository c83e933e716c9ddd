"""Gaussian experts: what a product, a mixture and a KL divergence must be exactly."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from stages.lib import posteriors


def experts(modalities=3, batch=4, dim=2, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(2, modalities, batch, dim, generator=rng, dtype=dtype).unbind()


def membership(modalities):
    return torch.tensor([[m in s for m in range(modalities)] for s in posteriors.subsets(range(modalities))])


def normal(mean, logvar):
    return Normal(mean, torch.exp(0.5 * logvar))


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# ---- subsets


def test_subsets_are_in_order_of_size():
    assert posteriors.subsets("abc") == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")]


@pytest.mark.parametrize("modalities", [1, 2, 5, 7])
def test_subsets_counts(modalities):
    items = range(modalities)
    assert len(set(posteriors.subsets(items))) == 2**modalities - 1
    for size in range(1, modalities + 1):
        of_size = posteriors.subsets(items, size)
        assert len(of_size) == math.comb(modalities, size)
        assert all(len(set(subset)) == size for subset in of_size)


def test_subset_name():
    assert posteriors.subset_name(("m1", "m4")) == "m1+m4"
    assert posteriors.subset_name(("m2",)) == "m2"
    assert posteriors.subset_name(()) == "none"


# ---- sample


def test_sample_is_mean_plus_sigma_noise():
    mean, logvar = torch.tensor([1.0, -2.0]), torch.log(torch.tensor([4.0, 0.25]))
    found = posteriors.sample(mean, logvar, torch.tensor([1.0, -2.0]))
    torch.testing.assert_close(found, torch.tensor([3.0, -3.0]))


# ---- product


@pytest.mark.parametrize("prior", [False, True])
def test_product_adds_precisions(prior):
    mean, logvar = experts()
    precision = (1 / logvar.exp()).sum(0) + (1 if prior else 0)
    found_mean, found_logvar = posteriors.product(mean, logvar, prior)
    close(found_logvar, -precision.log())
    close(found_mean, (mean / logvar.exp()).sum(0) / precision)


def test_product_is_the_normalised_product_of_the_densities():
    mean, logvar = experts(modalities=2, batch=1, dim=1)
    z = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    densities = sum(normal(mean[m], logvar[m]).log_prob(z) for m in range(2))
    gap = densities - normal(*posteriors.product(mean, logvar)).log_prob(z)
    close(gap, gap[:1].expand_as(gap))  # a constant in z


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_expert_is_the_identity(dtype):
    mean, logvar = experts(modalities=1, dtype=dtype)
    found_mean, found_logvar = posteriors.product(mean, logvar)
    assert torch.equal(found_mean, mean[0])
    assert torch.equal(found_logvar, logvar[0])


def test_equal_experts_divide_the_variance():
    mean, logvar = experts(modalities=1)
    found_mean, found_logvar = posteriors.product(mean.repeat(4, 1, 1), logvar.repeat(4, 1, 1))
    close(found_mean, mean[0])
    close(found_logvar, logvar[0] - math.log(4))


def test_infinite_variance_is_a_missing_modality():
    mean, logvar = experts()
    logvar[1] = float("inf")
    for found, expected in zip(posteriors.product(mean, logvar), posteriors.product(mean[[0, 2]], logvar[[0, 2]])):
        close(found, expected)


def test_order_is_irrelevant():
    mean, logvar = experts(modalities=4)
    order = [2, 0, 3, 1]
    for found, expected in zip(posteriors.product(mean[order], logvar[order]), posteriors.product(mean, logvar)):
        close(found, expected)


@pytest.mark.parametrize("logvar", [-1e4, -200.0, 200.0, 1e4])
def test_extreme_variances_neither_overflow_nor_vanish(logvar):
    """exp(+-200) is beyond float32: a product by 1 / variance would be NaN."""
    mean = torch.tensor([1.0, 3.0]).view(2, 1, 1)
    found_mean, found_logvar = posteriors.product(mean, torch.full((2, 1, 1), logvar))
    assert found_mean.item() == 2.0
    assert found_logvar.item() == pytest.approx(logvar - math.log(2), rel=1e-6)


def test_a_sharp_expert_beats_a_wide_one():
    mean, logvar = torch.tensor([1.0, 3.0]).view(2, 1, 1), torch.tensor([-200.0, 200.0]).view(2, 1, 1)
    found_mean, found_logvar = posteriors.product(mean, logvar)
    assert found_mean.item() == 1.0
    assert found_logvar.item() == -200.0


def test_gradients_of_extreme_variances_are_finite():
    mean = torch.tensor([1.0, 3.0]).view(2, 1, 1).requires_grad_()
    logvar = torch.tensor([-200.0, 200.0]).view(2, 1, 1).requires_grad_()
    sum(part.sum() for part in posteriors.product(mean, logvar, prior=True)).backward()
    assert torch.isfinite(mean.grad).all() and torch.isfinite(logvar.grad).all()


# ---- products of subsets


@pytest.mark.parametrize("modalities", [2, 5])
def test_subset_products_are_the_products_of_the_subsets(modalities):
    mean, logvar = experts(modalities)
    found_mean, found_logvar = posteriors.subset_products(mean, logvar, membership(modalities))
    assert found_mean.shape == found_logvar.shape == (2**modalities - 1, 4, 2)
    for k, subset in enumerate(posteriors.subsets(range(modalities))):
        expected_mean, expected_logvar = posteriors.product(mean[list(subset)], logvar[list(subset)])
        close(found_mean[k], expected_mean)
        close(found_logvar[k], expected_logvar)


def test_subset_products_have_finite_gradients():
    mean, logvar = (part.requires_grad_() for part in experts())
    sum(part.sum() for part in posteriors.subset_products(mean, logvar, membership(3))).backward()
    assert torch.isfinite(mean.grad).all() and torch.isfinite(logvar.grad).all()


# ---- mixture


def test_choose_takes_the_component_of_each_item():
    mean, logvar = experts(modalities=3, batch=5)
    component = torch.tensor([2, 0, 1, 1, 2])
    found_mean, found_logvar = posteriors.choose(mean, logvar, component)
    for b, k in enumerate(component):
        assert torch.equal(found_mean[b], mean[k, b])
        assert torch.equal(found_logvar[b], logvar[k, b])


# ---- KL divergences


def test_kl_from_prior_is_the_closed_form():
    mean, logvar = experts()
    expected = kl_divergence(normal(mean, logvar), Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(-1)
    close(posteriors.kl_from_prior(mean, logvar), expected)


def test_kl_is_the_closed_form():
    p, q = experts(seed=1), experts(seed=2)
    close(posteriors.kl(*p, *q), kl_divergence(normal(*p), normal(*q)).sum(-1))


def test_kl_is_zero_only_for_equal_gaussians():
    p, q = experts(seed=1), experts(seed=2)
    assert torch.equal(posteriors.kl(*p, *p), torch.zeros(3, 4, dtype=torch.float64))
    assert (posteriors.kl(*p, *q) > 0).all() and (posteriors.kl(*q, *p) > 0).all()
    assert not torch.allclose(posteriors.kl(*p, *q), posteriors.kl(*q, *p))
    zeros = torch.zeros(2, 3)
    assert torch.equal(posteriors.kl_from_prior(zeros, zeros), torch.zeros(2))


def test_kl_from_prior_is_kl_to_a_standard_normal():
    mean, logvar = experts()
    zeros = torch.zeros_like(mean)
    close(posteriors.kl(mean, logvar, zeros, zeros), posteriors.kl_from_prior(mean, logvar))
