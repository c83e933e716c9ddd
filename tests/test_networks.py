"""The networks: sizes follow the data, and the energy's gradient is its score."""

import math

import pytest
import torch
from torch import nn

from stages.lib import networks, noising

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
    sizes, x = [], decoder.grid(torch.zeros(1, 6)).unflatten(1, decoder.shape).permute(0, 3, 1, 2)
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


def feature_net(shape):
    return build(networks.FeatureNet, shape, n_classes=7, n_modalities=3, feature_dim=16).eval()


@SHAPES
def test_images_of_the_feature_nets_own_shape_are_left_as_they_are(shape):
    x = torch.rand(2, *shape)
    found = feature_net(shape).fitted(x)
    assert torch.equal(found, x) and found.data_ptr() == x.data_ptr()  # nothing is copied


@pytest.mark.parametrize("size", [(12, 10), (6, 10)])
def test_grey_is_fitted_as_three_equal_channels(size):
    x = torch.rand(2, 1, *size)
    net = feature_net((3, 12, 10))
    found = net.fitted(x)
    assert found.shape == (2, 3, 12, 10)
    assert torch.equal(found[:, 0], found[:, 1]) and torch.equal(found[:, 0], found[:, 2])
    torch.testing.assert_close(found, net.fitted(x.repeat(1, 3, 1, 1)))
    assert torch.equal(found[:, :1], x) == (size == (12, 10))


@pytest.mark.parametrize("size", [(8, 8), (12, 8), (9, 13)])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_enlarging_a_constant_image_leaves_it_constant(size, value):
    found = feature_net((3, 12, 17)).fitted(torch.full((2, 3, *size), value))
    torch.testing.assert_close(found, torch.full((2, 3, 12, 17), value), rtol=0, atol=1e-6)


def test_enlarging_is_linear_between_the_centres_of_pixels():
    """Twice as wide: 0 and 1 become 0, 1/4, 3/4, 1; pixels as points at their centres, the border beyond them."""
    x = torch.tensor([0.0, 1.0]).repeat(8, 4).expand(1, 3, 8, 8)
    expected = torch.tensor([0, 0.25, 0.75, *[0.75, 0.25, 0.25, 0.75] * 3, 1]).expand(1, 3, 8, 16)
    torch.testing.assert_close(feature_net((3, 8, 16)).fitted(x), expected)
    turned = feature_net((3, 16, 8)).fitted(x.transpose(2, 3))
    torch.testing.assert_close(turned, expected.transpose(2, 3))


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 28, 28), (1, 20, 28), (3, 28, 9)], ids=str)
def test_every_head_reads_what_was_fitted(shape):
    """Features and heads of a smaller or grey image are those of the fitted one, and no image sees another."""
    net, x = feature_net((3, 28, 28)), torch.rand(4, *shape)
    assert torch.equal(net.features(x), net.features(net.fitted(x)))
    for part, again in zip(net(x), net(net.fitted(x))):
        assert torch.equal(part, again)
    torch.testing.assert_close(net.features(x)[1:2], net.features(x[1:2]), rtol=1e-4, atol=1e-5)


def test_fitting_no_images_gives_none():
    """A batch of the feature net may hold none of a modality."""
    assert feature_net((3, 12, 10)).fitted(torch.empty(0, 1, 8, 8)).shape == (0, 3, 12, 10)


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


@SHAPES
def test_an_untrained_decoder_is_grey(shape):
    """At z = 0 nothing but the last bias speaks, and pixels lie in [0, 1]: exactly 0.5."""
    decoder = build(networks.Decoder, shape, 6)
    assert torch.equal(decoder(torch.zeros(2, 6)), torch.full((2, *shape), 0.5))


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


# ---- MLPs side by side


def test_side_by_side_is_an_mlp_a_modality():
    """Against M separate nn.Sequential with the same weights."""
    widths, x = [5, 8, 7, 4], randn(3, 6, 5)
    together = build(networks.SideBySide, 3, widths).double()
    shaken(together)
    for m in range(3):
        alone = networks.mlp(1, 1, 2, 1).double()  # SiLU between layers; its weights are replaced
        for layer, weight, bias in zip([l for l in alone if isinstance(l, nn.Linear)], together.weights, together.biases):
            layer.weight.data, layer.bias.data = weight.data[m].T, bias.data[m, 0]
        torch.testing.assert_close(together(x)[m], alone(x[m]), rtol=1e-12, atol=1e-12)


def test_side_by_side_starts_as_he_initialised_with_small_outputs():
    net = build(networks.SideBySide, 4, [50, 100, 100, 30])
    for weight, inputs, factor in zip(net.weights, (50, 100, 100), (1, 1, 0.1)):
        assert weight.std().item() == pytest.approx(factor * (2 / inputs) ** 0.5, rel=0.05)  # 12,000 weights and more
    assert not any(bias.any() for bias in net.biases)


# ---- the noise-conditional energy

M, B, STATES = 3, 5, 4


def shaken(module):
    """Every parameter moved off its start, where biases, prior and outputs are zero or small."""
    for i, weight in enumerate(module.parameters()):
        weight.data += 0.5 * randn(*weight.shape, seed=100 + i)
    return module


def annealed():
    """A model with random weights, and z (M, B, d), t (M, B) with some clean modalities."""
    t = torch.rand(M, B, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    t[0, :3] = 0
    return shaken(build(networks.Annealed, M, D, hidden=8, states=STATES).double()), randn(M, B, D, seed=8), t


def without(model, m):
    """The model of the other modalities: modality m's networks are cut out."""
    rest = [i for i in range(M) if i != m]
    small = build(networks.Annealed, M - 1, D, hidden=8, states=STATES).double()
    small.load_state_dict({key: value if key == "prior" else value[rest] for key, value in model.state_dict().items()})
    return small, rest


def test_annealed_energy_is_the_sum_over_states():
    """E = -log sum_k pi_k prod_m r_mk, by plain loops over items, states and modalities."""
    model, z, t = annealed()
    r, prior = model.log_ratios(z, t).exp(), model.prior.exp() / model.prior.exp().sum()
    assert r.shape == (M, B, STATES)
    for b in range(B):
        total = sum(prior[k] * r[0, b, k] * r[1, b, k] * r[2, b, k] for k in range(STATES))
        torch.testing.assert_close(model(z, t)[b], -total.log(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("m", range(M))
def test_annealed_energy_of_a_modality_with_log_ratios_of_0_is_that_of_the_others(m):
    model, z, t = annealed()
    model.ratios.weights[-1].data[m] = 0
    model.ratios.biases[-1].data[m] = 0
    small, rest = without(model, m)
    torch.testing.assert_close(model(z, t), small(z[rest], t[rest]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.pull(z, t)[rest], small.pull(z[rest], t[rest]), rtol=1e-12, atol=1e-12)
    assert not model.pull(z, t)[m].any()  # nobody knows it, so nobody pulls it


def test_annealed_energy_of_ratios_that_know_nothing_is_0():
    model, z, t = annealed()
    for part in (model.ratios.weights[-1], model.ratios.biases[-1]):
        part.data.zero_()
    torch.testing.assert_close(model(z, t), torch.zeros(B, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal(model.noise(z, t, guidance=3.0), model.denoise(z, t, model.untold())[1])  # nobody says anything


def test_annealed_energy_depends_on_every_level():
    model, z, t = annealed()
    for m in range(M):
        other = t.clone()
        other[m] = 1 - t[m].clamp(0.1, 0.45)
        assert (model(z, other) != model(z, t)).all()


def test_pull_is_minus_the_finite_difference():
    model, z, t = annealed()
    pull, h = model.pull(z, t), 1e-6
    for m in range(M):
        for i in range(D):
            step = torch.zeros_like(z)
            step[m, :, i] = h
            slope = (model(z + step, t) - model(z - step, t)) / (2 * h)  # B: items do not see each other
            torch.testing.assert_close(pull[m, :, i], -slope, rtol=1e-6, atol=1e-8)


def test_pull_needs_no_gradients_around_it():
    model, z, t = annealed()
    expected = model.requires_grad_(False).pull(z, t)
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            assert torch.equal(model.pull(z, t), expected)
    assert not expected.requires_grad and not z.requires_grad


def test_pull_can_be_trained_through():
    """It reaches every weight of the energy and none of the base."""
    model, z, t = annealed()
    model.pull(z, t, create_graph=True).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in [model.prior, *model.ratios.parameters()])
    assert all(weight.grad is None for weight in model.base.parameters())


def test_what_the_rest_says_is_the_posterior_of_the_states_without_one():
    """By plain loops: pi_k times the ratios of all other modalities, normalised."""
    model, z, t = annealed()
    r, prior = model.log_ratios(z, t).exp(), model.prior.exp()
    found = model.rest(z, t)
    assert found.shape == (M, B, STATES)
    for m in range(M):
        for b in range(B):
            weights = torch.stack([prior[k] * math.prod(r[n, b, k] for n in range(M) if n != m) for k in range(STATES)])
            torch.testing.assert_close(found[m, b], weights / weights.sum(), rtol=1e-12, atol=1e-12)


def test_untold_is_what_the_rest_says_when_it_knows_nothing():
    model, z, t = annealed()
    for part in (model.ratios.weights[-1], model.ratios.biases[-1]):
        part.data.zero_()
    torch.testing.assert_close(model.rest(z, t), model.untold().expand(M, B, -1), rtol=1e-12, atol=1e-12)


def test_denoise_splits_z_into_signal_and_noise():
    """Its two estimates make up z at every level, and the network's output is alpha eps - sigma x."""
    model, z, t = annealed()
    states = randn(M, B, STATES, seed=10).softmax(2)
    clean, noise = model.denoise(z, t, states)
    alpha, sigma = (part[..., None] for part in noising.signal_and_noise(t))
    torch.testing.assert_close(alpha * clean + sigma * noise, z, rtol=1e-12, atol=1e-12)
    out = model.base(torch.cat([z, noising.embed(t), states], -1))
    torch.testing.assert_close(alpha * noise - sigma * clean, out, rtol=1e-12, atol=1e-12)
    assert torch.equal(clean[t == 0], z[t == 0])  # what is clean is left alone
    assert (model.denoise(z, t, model.untold())[1] != noise).all()  # it hears what it is told


def test_guidance_multiplies_the_energys_pull():
    """0 is the told denoiser alone; what is added is -sigma times the pull, and linear in the guidance."""
    model, z, t = annealed()
    _, sigma = noising.signal_and_noise(t)
    told, pulled = model.denoise(z, t, model.rest(z, t))[1], sigma[..., None] * model.pull(z, t)
    assert torch.equal(model.noise(z, t), told)
    for guidance in (0.0, 1.0, 2.5):
        torch.testing.assert_close(model.noise(z, t, guidance), told - guidance * pulled, rtol=1e-12, atol=1e-12)
    assert not model.noise(z, t).requires_grad


@pytest.mark.parametrize("shown", [[], [1], [0, 1], list(range(M))[:-1]])
@pytest.mark.parametrize("guidance", [0.0, 2.5])
def test_noise_given_is_noise_of_the_free_modalities(shown, guidance):
    model, z, t = annealed()
    free = torch.tensor([m not in shown for m in range(M)])
    t = torch.where(free[:, None], t.clamp_min(0.05), 0.0)
    found = model.noise_given(z, free, guidance)(z[free], t[free])
    torch.testing.assert_close(found, model.noise(z, t, guidance)[free], rtol=1e-10, atol=1e-10)
    assert not found.requires_grad


@pytest.mark.parametrize("shown", [[], [1], [0, 1], list(range(M))[:-1]])
@pytest.mark.parametrize("guidance", [0.0, 2.5])
def test_evidence_is_how_often_the_observed_are_counted(shown, guidance):
    """Plain twin: `noise` of an energy whose observed modalities speak that often."""
    model, z, t = annealed()
    free = torch.tensor([m not in shown for m in range(M)])
    t = torch.where(free[:, None], t.clamp_min(0.05), 0.0)
    once = model.noise_given(z, free, guidance)(z[free], t[free])
    found = model.noise_given(z, free, guidance, evidence=3.0)(z[free], t[free])
    speak = model.log_ratios
    model.log_ratios = lambda z, t: speak(z, t) * torch.where(free, 1.0, 3.0)[:, None, None]
    torch.testing.assert_close(found, model.noise(z, t, guidance)[free], rtol=1e-10, atol=1e-10)
    assert torch.equal(found, once) == (not shown)


def test_the_energy_pulls_below_its_level_only():
    model, z, t = annealed()
    free = torch.tensor([m != 0 for m in range(M)])
    t = torch.where(free[:, None], torch.full_like(t, 0.5), 0.0)
    at = lambda guidance, below: model.noise_given(z, free, guidance, below)(z[free], t[free])
    assert torch.equal(at(2.5, 0.5), at(2.5, 1.0)) and not torch.equal(at(2.5, 0.5), at(0.0, 1.0))
    assert torch.equal(at(2.5, 0.49), at(0.0, 1.0)) and not at(2.5, 0.49).requires_grad


def test_exact_parts_give_the_score_of_the_joint_density():
    """A mixture of STATES Gaussians over all modalities: noise estimate = -sigma grad log p_t(z_1, ..., z_M).

    Both ways: the denoiser told what the others say, and the untold one with the energy's pull.
    """
    model, z, t = annealed()
    t = t.clamp_min(0.05)
    alpha, sigma = (part[..., None] for part in noising.signal_and_noise(t))
    means, log_prior = 2 * randn(M, STATES, D, seed=9), model.prior.log_softmax(0).detach()
    variance = 0.3 * alpha.square() + sigma.square()  # M, B, 1

    def by_state(z):
        """log p_t(z_m | k), (M, B, K)."""
        square = (z[:, :, None] - alpha[:, :, None] * means[:, None]).square() / variance[:, :, None]
        return -0.5 * (square + (2 * torch.pi * variance[:, :, None]).log()).sum(3)

    def alone(z):
        """log p_t(z_m), (M, B)."""
        return (by_state(z) + log_prior).logsumexp(2)

    def together(z):
        return (by_state(z).sum(0) + log_prior).logsumexp(1)

    def denoise(z, t, states):
        """The score of a mixture of the states with the probabilities that it is told."""
        point = z.detach().requires_grad_()
        with torch.enable_grad():
            eps = -sigma * torch.autograd.grad((by_state(point) + states.log()).logsumexp(2).sum(), point)[0]
        return (z - sigma * eps) / alpha, eps

    point = z.clone().requires_grad_()
    expected = -sigma * torch.autograd.grad(together(point).sum(), point)[0]
    model.denoise = denoise
    model.log_ratios = lambda z, t: by_state(z) - alone(z)[..., None]
    torch.testing.assert_close(model(z, t), alone(z).sum(0) - together(z), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.noise(z, t), expected, rtol=1e-10, atol=1e-10)
    pulled = denoise(z, t, model.untold())[1] - sigma * model.pull(z, t)
    torch.testing.assert_close(pulled, expected, rtol=1e-10, atol=1e-10)
