"""The joint energy: its gradient is its score. The free field: its energy is a line integral."""

import pytest
import torch
from torch import nn

from ebmvae.ebm.energy import Energy, ScoreField, build
from tests.unit import reference
from tests.unit.reference import close, randn

M, D = 2, 3


def energy():
    return reference.build(Energy, M * D, hidden=8, layers=2).double()


def linear_field(symmetric):
    """A `ScoreField` whose S(z) = A z + b, with A and b."""
    model = reference.build(ScoreField, M * D, hidden=8, layers=1).double()
    a, b = randn(M * D, M * D, seed=1), randn(M * D, seed=2)
    a = (a + a.T) / 2 if symmetric else a
    model.net = nn.Linear(M * D, M * D).double()
    model.net.weight.data, model.net.bias.data = a + torch.eye(M * D), b.clone()  # S = net(z) - z
    return model, a, b


def test_score_is_minus_the_gradient():
    """Against jacrev of every tuple alone: tuples don't see one another."""
    model, z = energy(), randn(5, M, D)
    alone = torch.func.jacrev(lambda point: model(point[None])[0])
    close(model.score(z), -torch.stack([alone(point) for point in z]), 1e-12)


def test_energy_without_its_network_is_a_standard_normal():
    model, z = energy(), randn(5, M, D)
    for weight in model.net[-1].parameters():
        weight.data.zero_()
    close(model(z), 0.5 * z.square().sum((1, 2)))
    close(model.score(z), -z)


def test_energy_grows_far_away_in_every_direction():
    """p(z) can be normalised: the quadratic term outgrows the network."""
    direction = nn.functional.normalize(randn(100, M * D)).view(100, M, D)
    assert (energy()(1000 * direction) > 4e5).all()


def test_score_needs_no_gradients_around_it():
    model, z = energy().requires_grad_(False), randn(5, M, D)
    expected = model.score(z)
    with torch.no_grad():
        assert torch.equal(model.score(z), expected)
    assert not expected.requires_grad and not z.requires_grad


@pytest.mark.parametrize("name, kind", [("energy", Energy), ("score", ScoreField)])
def test_a_model_is_built_by_its_name_and_its_score_can_be_trained_through(name, kind):
    model = reference.build(build, name, M * D, hidden=8, layers=3).double()
    assert isinstance(model, kind)
    model.score(randn(5, M, D), create_graph=True).square().sum().backward()
    weights = dict(model.named_parameters())
    assert len(weights) == 2 * 4  # three hidden layers and the output
    untrained = [key for key, weight in weights.items() if weight.grad is None]
    assert untrained == (["net.6.bias"] if name == "energy" else [])  # a constant of the energy


@pytest.mark.parametrize("symmetric", [True, False])
def test_energy_of_a_linear_field(symmetric):
    """S = A z + b: E(z) - E(0) = -(1/2 z'Az + b'z).

    The antisymmetric part of A does no work along a straight line from 0. Without it, -grad E = S.
    """
    model, a, b = linear_field(symmetric)
    z = randn(5, M, D).requires_grad_()
    flat = z.flatten(1)
    close(model.score(z), (flat @ a.T + b).view_as(z))
    close(model(z), -(0.5 * (flat @ a * flat).sum(1) + flat @ b), 1e-12)
    gradient = torch.autograd.grad(model(z).sum(), z)[0]
    assert torch.allclose(-gradient, model.score(z), rtol=1e-12, atol=1e-12) == symmetric
    assert not model(torch.zeros(1, M, D, dtype=torch.float64)).any()
