"""What every joint-posterior VAE has in common."""

import importlib

import pytest
import torch

from ebmvae.core import random
from ebmvae.methods import BASELINES, METHODS
from tests.unit import reference as ref
from tests.unit.reference import B, D, M


@pytest.fixture(params=BASELINES)
def baseline(request):
    return importlib.import_module(METHODS[request.param].module)


def test_a_loss_takes_what_its_draw_gives_and_reaches_every_expert(baseline):
    """The same generator gives the same loss; every mean and variance gets a gradient."""
    xs, mean, logvar, decoders = ref.tuples()
    experts = [part.detach().requires_grad_() for part in (mean, logvar)]

    def loss(key):
        draws = baseline.draw(M, B, D, random.generator("cpu", key))
        return baseline.loss(xs, *experts, decoders, ref.NLL, ref.BETA, **draws)[0]

    assert torch.equal(loss("a"), loss("a")) and not torch.equal(loss("a"), loss("b"))
    assert all(gradient.all() for gradient in torch.autograd.grad(loss("a"), experts))


def test_samples_do_not_depend_on_the_batch(baseline):
    _, mean, logvar, _ = ref.tuples()
    eps, seeds = ref.randn(B, D, seed=3), [5, 2**62, 0]
    alone = [
        baseline.sample(mean[:, b : b + 1], logvar[:, b : b + 1], eps[b : b + 1], [seeds[b]])
        for b in range(B)
    ]
    ref.close(torch.cat(alone), baseline.sample(mean, logvar, eps, seeds), 1e-12)
