"""MVTCAE: a product of experts, trained by total correlation."""

import pytest
import torch

from ebmvae.baselines import mvtcae
from ebmvae.vae import elbo, experts
from tests.unit import reference as ref
from tests.unit.reference import B, D, M


@pytest.mark.parametrize("alpha", [0.0, 5 / 6, 1.0])
def test_loss_is_eq_10(alpha):
    named = {} if alpha == 5 / 6 else {"alpha": alpha}  # as published
    xs, mean, logvar, decoders = ref.tuples()
    eps = ref.randn(B, D, seed=3)
    value, parts = mvtcae.loss(xs, mean, logvar, decoders, ref.NLL, ref.BETA, eps, **named)
    joint = [ref.product(mean, logvar, range(M), b) for b in range(B)]
    ref.close(parts["reconstruction"], ref.reconstruction(xs, decoders, joint, eps))
    ref.close(parts["kl"], sum(ref.kl(q) for q in joint) / B)
    alone = [[ref.product(mean, logvar, [m], b) for m in range(M)] for b in range(B)]
    bottleneck = sum(ref.kl(q, p) for q, row in zip(joint, alone, strict=True) for p in row) / B
    expected = (M - alpha) / M * parts["reconstruction"]
    ref.close(value, expected + ref.BETA * ((1 - alpha) * parts["kl"] + alpha / M * bottleneck))


def test_without_total_correlation_it_is_the_joint_elbo():
    """alpha = 0: a mixture of one component, the product of all experts."""
    xs, mean, logvar, decoders = ref.tuples()
    eps, first = ref.randn(B, D, seed=3), torch.zeros(B, dtype=torch.int64)
    joint = [part[None] for part in experts.product(mean, logvar)]
    expected, _ = elbo.mixture_elbo(xs, *joint, decoders, ref.NLL, ref.BETA, eps, first)
    value, _ = mvtcae.loss(xs, mean, logvar, decoders, ref.NLL, ref.BETA, eps, alpha=0.0)
    ref.close(value, expected)


def test_samples_are_of_the_product_of_the_observed():
    ref.check_product(mvtcae.sample)
