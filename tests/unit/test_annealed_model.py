"""The noise-conditional energy: a sum over latent classes, its gradient, and the denoisers."""

import math

import pytest
import torch
from torch import nn

from ebmvae.annealed.model import AnnealedEnergy, ModalityMLPs
from ebmvae.annealed.noise import add_noise, alpha_sigma, embed_level
from ebmvae.ebm.energy import mlp
from tests.unit.reference import B, D, K, annealed, build, close, randn, shaken

M = 3


@pytest.fixture
def setting():
    """model, z, t; some modalities are clean."""
    return annealed(M)[:3]


def uninformative(model):
    """The model whose ratios are all 1."""
    for part in (model.ratios.weights[-1], model.ratios.biases[-1]):
        part.data.zero_()
    return model


# ---- MLPs of all modalities at once


def test_modality_mlps_are_one_mlp_per_modality():
    """Against M separate nn.Sequential with the same weights."""
    x, together = randn(6, M, 5), shaken(build(ModalityMLPs, M, [5, 8, 7, 4]).double())
    for m in range(M):
        alone = mlp(1, 1, 2, 1).double()  # SiLU between layers; its weights are replaced
        linear = [layer for layer in alone if isinstance(layer, nn.Linear)]
        for layer, weight, bias in zip(linear, together.weights, together.biases, strict=True):
            layer.weight.data, layer.bias.data = weight.data[m].T, bias.data[m, 0]
        close(together(x)[:, m], alone(x[:, m]), 1e-12)
    chosen = torch.tensor([True, False, True])
    close(together(x[:, chosen], chosen), together(x)[:, chosen], 1e-12)


def test_modality_mlps_start_as_he_initialised_with_small_outputs():
    net = build(ModalityMLPs, 4, [50, 100, 100, 30])
    for weight, inputs, factor in zip(net.weights, (50, 100, 100), (1, 1, 0.1), strict=True):
        std = factor * (2 / inputs) ** 0.5
        assert weight.std().item() == pytest.approx(std, rel=0.05)  # of 12,000 weights and more
    assert not any(bias.any() for bias in net.biases)


# ---- the energy


def test_energy_is_the_sum_over_latent_classes(setting):
    """E = -log sum_k pi_k prod_m r_mk, by plain loops over tuples, classes and modalities."""
    model, z, t = setting
    r, pi = model.log_ratios(z, t).exp(), model.class_logits.exp() / model.class_logits.exp().sum()
    close(model.prior(), pi, 1e-12)
    for b in range(B):
        total = sum(pi[k] * math.prod(r[b, m, k] for m in range(M)) for k in range(K))
        close(model(z, t)[b], -total.log(), 1e-12)


@pytest.mark.parametrize("m", range(M))
def test_a_modality_with_log_ratios_of_0_is_marginalised(setting, m):
    """The energy is then that of a model in which its networks are cut out."""
    model, z, t = setting
    model.ratios.weights[-1].data[m] = 0
    model.ratios.biases[-1].data[m] = 0
    rest = [i for i in range(M) if i != m]
    small = AnnealedEnergy(M - 1, D, hidden=6, latent_classes=K).double()
    weights = model.state_dict().items()
    small.load_state_dict({key: v if key == "class_logits" else v[rest] for key, v in weights})
    close(model(z, t), small(z[:, rest], t[:, rest]), 1e-12)
    close(model.score(z, t)[:, rest], small.score(z[:, rest], t[:, rest]), 1e-12)
    assert not model.score(z, t)[:, m].any()


def test_ratios_that_know_nothing_couple_nothing(setting):
    """The energy is 0, and the class probabilities given the others are the prior."""
    model, z, t = setting
    uninformative(model)
    close(model(z, t), torch.zeros(B, dtype=torch.float64), 1e-12)
    assert not model.score(z, t).any()
    close(model.class_probs_given_others(z, t), model.prior().expand(B, M, -1), 1e-12)


def test_energy_depends_on_every_level(setting):
    model, z, t = setting
    for m in range(M):
        other = t.clone()
        other[:, m] = 1 - t[:, m].clamp(0.1, 0.45)
        assert (model(z, other) != model(z, t)).all()


def test_score_is_minus_the_finite_difference(setting):
    model, z, t = setting
    score = model.score(z, t)
    for m in range(M):
        for i in range(D):
            step = torch.zeros_like(z)
            step[:, m, i] = 1e-6
            slope = (model(z + step, t) - model(z - step, t)) / 2e-6  # B: tuples are independent
            torch.testing.assert_close(score[:, m, i], -slope, rtol=1e-6, atol=1e-8)


def test_score_needs_no_gradients_around_it(setting):
    model, z, t = setting
    expected = model.requires_grad_(False).score(z, t)
    with torch.no_grad():
        assert torch.equal(model.score(z, t), expected)
    assert not expected.requires_grad and not z.requires_grad


def test_score_can_be_trained_through(setting):
    """It reaches every weight of the energy and none of the denoisers."""
    model, z, t = setting
    model.score(z, t, create_graph=True).square().sum().backward()
    assert all(weight.grad.any() for weight in [model.class_logits, *model.ratios.parameters()])
    assert all(weight.grad is None for weight in model.denoisers.parameters())


def test_class_probs_given_others_are_the_posterior_without_one(setting):
    """By plain loops: pi_k times the ratios of all other modalities, normalised."""
    model, z, t = setting
    r, pi, probs = model.log_ratios(z, t).exp(), model.prior(), model.class_probs_given_others(z, t)
    for b in range(B):
        for m in range(M):
            others = [math.prod(r[b, n, k] for n in range(M) if n != m) for k in range(K)]
            weights = pi * torch.stack(others)
            close(probs[b, m], weights / weights.sum(), 1e-12)


# ---- the denoisers


def test_eps_is_recovered_from_its_v(setting):
    """v = alpha eps - sigma x0 (Salimans and Ho 2022): at every level the right v gives eps."""
    model, x0, t = setting
    eps, (alpha, sigma) = randn(B, M, D, seed=10), alpha_sigma(t[..., None])
    v = alpha * eps - sigma * x0
    model.v = lambda *args: v
    close(model.eps(add_noise(x0, t, eps), t, model.prior()), eps, 1e-12)


def test_the_denoisers_read_latents_levels_and_class_probabilities(setting):
    """z splits into signal and noise, and their v is what the network puts out."""
    model, z, t = setting
    probs, (alpha, sigma) = randn(B, M, K, seed=10).softmax(2), alpha_sigma(t[..., None])
    v, eps = model.v(z, t, probs), model.eps(z, t, probs)
    close(v, model.denoisers(torch.cat([z, embed_level(t), probs], -1)), 1e-12)
    x0 = (z - sigma * eps) / alpha
    close(alpha * eps - sigma * x0, v, 1e-12)
    assert torch.equal(x0[t == 0], z[t == 0])  # what is clean is left alone
    assert (model.v(z, t, model.prior()) != v).all()
