"""MMVAE: a mixture of experts."""

import torch

from ebmvae.baselines import moe
from ebmvae.core import random
from ebmvae.vae import elbo
from tests.unit import reference as ref
from tests.unit.reference import B, D, M


def test_loss_decodes_the_chosen_expert_and_averages_all_divergences():
    ref.check_mixture(moe.loss, [[m] for m in range(M)], torch.tensor([4, 0, 2]))


def test_one_modality_is_the_beta_vae():
    x, eps, first = ref.images(), ref.randn(B, D, seed=3), torch.zeros(B, dtype=torch.int64)
    mean, logvar = (part[None] for part in ref.encode(x))
    value, _ = moe.loss([x], mean, logvar, [ref.decoder()], ref.NLL, ref.BETA, eps, first)
    ref.close(value, elbo.beta_vae(x, ref.encode, ref.decoder(), eps, ref.BETA, ref.NLL)[0])


def test_components_are_drawn_uniformly():
    component = moe.draw(M, 50_000, 1, random.generator("cpu", "test"))["component"]
    counts = torch.bincount(component, minlength=M)
    assert len(counts) == M and (counts - 10_000).abs().max() < 5 * 8000**0.5  # binomial


def test_samples_are_of_one_expert_chosen_by_the_seed():
    _, mean, logvar, _ = ref.tuples()
    eps, seeds = ref.randn(B, D, seed=3), [7, 4, 2**62]
    z = moe.sample(mean[:3], logvar[:3], eps, seeds)
    for b, m in enumerate([1, 1, 2**62 % 3]):
        ref.close(z[b], mean[m, b] + (0.5 * logvar[m, b]).exp() * eps[b])
