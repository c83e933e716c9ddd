"""The networks: sizes follow the data, and the energy's gradient is its score."""

import pytest
import torch
from torch import nn

from stages.lib import networks

SHAPES = pytest.mark.parametrize("shape", [(3, 28, 28), (3, 32, 32), (1, 20, 36), (3, 29, 17)], ids=str)
D = 4


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(make, *arguments, **named):
    """A network with weights that do not depend on what ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*arguments, **named)


def energy():
    return build(networks.Energy, D, hidden=8, layers=2).double()


def linear_field(symmetric):
    """A `Score` whose S(z) = A z + b, with A and b."""
    model = build(networks.Score, D, hidden=8, layers=1).double()
    model.net = nn.Linear(D, D).double()
    a, b = randn(D, D, seed=1), randn(D, seed=2)
    a = (a + a.T) / 2 if symmetric else a
    model.net.weight.data, model.net.bias.data = a + torch.eye(D), b.clone()  # score = net(z) - z
    return model, a, b


# ---- sizes


@pytest.mark.parametrize("size, expected", [
    (28, [28, 14, 7, 4]), (32, [32, 16, 8, 4]), (20, [20, 10, 5, 3]), (36, [36, 18, 9, 5]), (29, [29, 15, 8, 4])])
def test_pyramid(size, expected):
    assert networks.pyramid(size) == expected
    conv = nn.Conv1d(1, 1, 3, 2, 1)
    for before, after in zip(expected, expected[1:]):
        assert conv(torch.zeros(1, before)).shape[-1] == after


@SHAPES
def test_encoder_gives_mean_and_logvar(shape):
    mean, logvar = build(networks.Encoder, shape, 6)(torch.rand(2, *shape))
    assert mean.shape == logvar.shape == (2, 6)
    assert not torch.equal(mean, logvar)


@SHAPES
def test_decoder_mirrors_the_encoder(shape):
    decoder = build(networks.Decoder, shape, 6)
    assert decoder(torch.zeros(2, 6)).shape == (2, *shape)
    sizes, x = [], decoder.grid(decoder.hidden(torch.zeros(1, 6))).unflatten(1, decoder.shape)
    for conv in decoder.convs:
        sizes.append(tuple(x.shape[-2:]))
        x = conv(x)
    sizes.append(tuple(x.shape[-2:]))
    assert sizes == list(zip(networks.pyramid(shape[1]), networks.pyramid(shape[2])))[::-1]


@SHAPES
def test_classifier_gives_logits(shape):
    assert build(networks.Classifier, shape, 7)(torch.rand(2, *shape)).shape == (2, 7)


@SHAPES
def test_feature_net_gives_digit_modality_and_position(shape):
    net = build(networks.FeatureNet, shape, n_classes=7, n_modalities=3, feature_dim=16)
    digit, modality, position = net(torch.rand(2, *shape))
    assert (digit.shape, modality.shape, position.shape) == ((2, 7), (2, 3), (2, 3, 2))
    features = net.features(torch.rand(2, *shape))
    assert features.shape == (2, 16) and (features >= 0).all()


@SHAPES
def test_every_weight_is_used(shape):
    """All weights get a gradient: no layer is forgotten in a forward pass."""
    x = torch.rand(4, *shape)
    nets = [build(networks.Encoder, shape, 6), build(networks.Decoder, shape, 6), build(networks.Classifier, shape, 7),
            build(networks.FeatureNet, shape, 7, 3, 16)]
    for net, given in zip(nets, [x, randn(4, 6, dtype=torch.float32), x, x]):
        out = net(given)
        sum(part.square().sum() for part in (out if isinstance(out, tuple) else [out])).backward()
        assert all(weight.grad is not None and weight.grad.any() for weight in net.parameters())


def test_an_evaluated_classifier_judges_each_image_alone():
    """Neither dropout nor the rest of the batch changes a judgement."""
    judge, x = build(networks.Classifier, (3, 28, 28), 10).eval(), torch.rand(4, 3, 28, 28)
    torch.testing.assert_close(judge(x)[1:2], judge(x[1:2]), rtol=1e-4, atol=1e-5)
    assert torch.equal(judge(x), judge(x))


def test_initial_weights_keep_the_signals_scale():
    """He initialisation with a small last layer: hidden activations near unit scale, outputs near zero."""
    encoder = build(networks.Encoder, (3, 28, 28), 16)
    x, scales = 4 * (torch.rand(16, 3, 28, 28, generator=torch.Generator().manual_seed(0)) - 0.5), []
    for conv in encoder.convs:
        x = nn.functional.silu(conv(x))
        scales.append(x.square().mean().sqrt().item())
    assert all(0.4 < scale < 1.6 for scale in scales)
    assert encoder.out.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not encoder.out.bias.any()


# ---- the energy


def test_energy_is_one_number_a_row():
    z = randn(5, D)
    assert energy()(z).shape == (5,)
    torch.testing.assert_close(energy()(z)[2:3], energy()(z[2:3]))


def test_energy_score_is_minus_the_gradient():
    """Against jacrev of every item alone."""
    model, z = energy(), randn(5, D)
    gradient = torch.stack([torch.func.jacrev(lambda point: model(point[None])[0])(point) for point in z])
    torch.testing.assert_close(model.score(z), -gradient, rtol=1e-12, atol=1e-12)


def test_energy_score_is_minus_the_finite_difference():
    model, z, h = energy(), randn(5, D), 1e-6
    for i, e in enumerate(h * torch.eye(D, dtype=torch.float64)):
        slope = (model(z + e) - model(z - e)) / (2 * h)
        torch.testing.assert_close(model.score(z)[:, i], -slope, rtol=1e-7, atol=1e-7)


def test_energy_without_its_network_is_a_standard_normal():
    model, z = energy(), randn(5, D)
    for weight in model.net[-1].parameters():
        weight.data.zero_()
    torch.testing.assert_close(model(z), 0.5 * z.square().sum(1))
    torch.testing.assert_close(model.score(z), -z)


def test_energy_grows_far_away_in_every_direction():
    """p(z) can be normalised: the quadratic term outgrows the network."""
    model, direction = energy(), nn.functional.normalize(randn(100, D))
    assert (model(1000 * direction) > 4e5).all()


def test_score_needs_no_gradients_around_it():
    model, z = energy().requires_grad_(False), randn(5, D)
    expected = model.score(z)
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            assert torch.equal(model.score(z), expected)
    assert not expected.requires_grad and not z.requires_grad


@pytest.mark.parametrize("name", ["energy", "score"])
def test_score_can_be_trained_through(name):
    model = build(networks.joint, name, D, hidden=8, layers=2).double()
    model.score(randn(5, D), create_graph=True).square().sum().backward()
    without = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == (["net.4.bias"] if name == "energy" else [])  # a constant of the energy has no gradient


# ---- the free vector field


def test_score_energy_of_a_linear_gradient_field():
    """S = A z + b with symmetric A: E(z) - E(0) = -(1/2 z'Az + b'z)."""
    model, a, b = linear_field(symmetric=True)
    z = randn(5, D)
    torch.testing.assert_close(model.score(z), z @ a.T + b)
    torch.testing.assert_close(model(z), -(0.5 * (z @ a * z).sum(1) + z @ b), rtol=1e-12, atol=1e-12)


def test_score_energy_of_a_linear_gradient_field_has_the_score_as_gradient():
    model, _, _ = linear_field(symmetric=True)
    z = randn(5, D).requires_grad_()
    gradient = torch.autograd.grad(model(z).sum(), z)[0]
    torch.testing.assert_close(-gradient, model.score(z), rtol=1e-12, atol=1e-12)


def test_score_energy_ignores_rotation():
    """The antisymmetric part of a linear field does no work along a straight line from 0."""
    model, a, b = linear_field(symmetric=False)
    z, symmetric = randn(5, D), (a + a.T) / 2
    torch.testing.assert_close(model(z), -(0.5 * (z @ symmetric * z).sum(1) + z @ b), rtol=1e-12, atol=1e-12)


def test_score_energy_is_zero_at_zero():
    assert not build(networks.Score, D, hidden=8, layers=2)(torch.zeros(3, D)).any()


# ---- by name


def test_joint_is_chosen_by_its_name():
    for name, kind in (("energy", networks.Energy), ("score", networks.Score)):
        model = networks.joint(name, D, hidden=8, layers=3)
        assert isinstance(model, kind)
        assert sum(isinstance(layer, nn.Linear) for layer in model.net) == 4  # three hidden ones and the output
        assert model.score(torch.zeros(2, D)).shape == (2, D) and model(torch.zeros(2, D)).shape == (2,)
