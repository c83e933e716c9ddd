"""MoPoE-VAE: a mixture of the products of all subsets."""

import itertools

import torch

from ebmvae.baselines import mopoe
from ebmvae.core import random
from tests.unit import reference as ref
from tests.unit.reference import M

SUBSETS = [s for size in range(1, M + 1) for s in itertools.combinations(range(M), size)]


def test_members_are_all_subsets_but_the_empty_one_small_ones_first():
    members = mopoe.members(M)
    assert len(SUBSETS) == 31
    assert [tuple(row.nonzero().flatten().tolist()) for row in members] == SUBSETS


def test_loss_decodes_the_chosen_product_and_averages_31_divergences():
    ref.check_mixture(mopoe.loss, SUBSETS, torch.tensor([30, 0, 17]))


def test_subsets_are_drawn_uniformly():
    component = mopoe.draw(3, 70_000, 1, random.generator("cpu", "test"))["component"]
    counts = torch.bincount(component, minlength=7)
    assert len(counts) == 7 and (counts - 10_000).abs().max() < 5 * 8600**0.5  # binomial


def test_samples_are_of_the_product_of_the_observed():
    ref.check_product(mopoe.sample)
