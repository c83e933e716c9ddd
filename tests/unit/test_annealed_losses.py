"""Losses of the noise-conditional energy by plain loops; what each trains; their optima."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from ebmvae.annealed import losses
from ebmvae.annealed.noise import add_noise, alpha_sigma
from ebmvae.core.random import generator
from tests.unit.reference import B, D, K, M, annealed, close, randn


def reached(model, value):
    """Names of the parameters that `value` depends on."""
    names, weights = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(value, weights, allow_unused=True)
    return {n for n, g in zip(names, gradients, strict=True) if g is not None and g.any()}


def names(model, part):
    return {name for name, _ in model.named_parameters() if name.startswith(part)}


# ---- the denoisers


def noised():
    """model, x0, t above 0, eps, and class probabilities given the others."""
    model, x0, t, eps = annealed()
    t = t.clamp_min(0.1)
    return model, x0, t, eps, model.class_probs_given_others(x0, t).detach()


def test_denoising_weighs_the_errors_of_noise_and_signal():
    """(alpha (eps_hat - eps) - sigma (x0_hat - x0))^2, of the two estimates that v stands for.

    By plain loops.
    """
    model, x0, t, eps, probs = noised()
    z, total = add_noise(x0, t, eps), 0
    eps_hat = model.eps(z, t, probs)
    for b, m in itertools.product(range(B), range(M)):
        alpha, sigma = alpha_sigma(t[b, m])
        x0_hat = (z[b, m] - sigma * eps_hat[b, m]) / alpha
        error = alpha * (eps_hat[b, m] - eps[b, m]) - sigma * (x0_hat - x0[b, m])
        total += error.square().sum()
    close(losses.denoising(model, x0, t, eps, probs), total / (B * M * D))


def test_denoising_trains_the_denoisers_only_and_its_least_value_is_zero():
    model, x0, t, eps, probs = noised()
    value = losses.denoising(model, x0, t, eps, probs)
    assert reached(model, value) == names(model, "denoisers")
    alpha, sigma = alpha_sigma(t[..., None])
    perfect = SimpleNamespace(v=lambda *args: alpha * eps - sigma * x0)
    assert losses.denoising(perfect, x0, t, eps, probs) == 0


# ---- the energy's gradient


def stub(eps, score):
    """A model with these answers."""
    answers = dict(prior=lambda: None, eps=lambda *args: eps, score=lambda *args, **named: score)
    return SimpleNamespace(**answers)


def test_score_matching():
    """By plain loops: errors of what is free, a sum per tuple, of the unconditional denoiser."""
    model, x0, t, eps = annealed()
    z, free, total = add_noise(x0, t, eps), 0, 0
    unconditional, score, (_, sigma) = (
        model.eps(z, t, model.prior()),
        model.score(z, t),
        alpha_sigma(t),
    )
    for b, m in itertools.product(range(B), range(M)):
        if t[b, m] > 0:
            free += 1
            error = unconditional[b, m] - sigma[b, m] * score[b, m] - eps[b, m]
            total += 0.5 * error.square().sum()
    assert 0 < free < B * M
    value = losses.score_matching(model, z, t, eps)
    close(value, total / B)
    assert reached(model, value) == names(model, "ratios") | {"class_logits"}
    assert losses.score_matching(model, z, torch.zeros_like(t), eps) == 0  # all observed


def test_the_energy_is_to_mend_what_the_unconditional_denoiser_gets_wrong():
    """One that is off by sigma q, with a score of q: no error."""
    _, x0, t, eps = annealed()
    t, q = t.clamp_min(0.1), randn(B, M, D, seed=4)
    wrong = eps + alpha_sigma(t)[1][..., None] * q
    assert losses.score_matching(stub(wrong, q), x0, t, eps) < 1e-28
    assert losses.score_matching(stub(wrong, 0 * q), x0, t, eps) > 0.01


def test_score_matching_ignores_what_is_observed():
    _, x0, t, eps = annealed()
    answers = [randn(B, M, D, seed=seed) for seed in (5, 6)]
    spoilt = [torch.where(t[..., None] == 0, 1e3, part) for part in answers]
    value = losses.score_matching(stub(*answers), x0, t, eps)
    assert losses.score_matching(stub(*spoilt), x0, t, eps) == value


# ---- InfoNCE


def ratios():
    """log_ratios (B, M, K), class_logits (K,), present (B, M): in all, some, one or none."""
    present = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 1, 0, 0], [1, 1, 1, 0, 0]]).bool()
    return 3 * randn(B, M, K, seed=1), randn(K, seed=2), present


def test_infonce():
    """By plain loops over modalities, contexts, candidates and latent classes."""
    log_ratios, class_logits, present = ratios()
    log_pi, expected = class_logits - class_logits.exp().sum().log(), 0
    for m in range(M):
        logits = torch.zeros(B, B, dtype=torch.float64)  # others of tuple i, modality m of tuple j
        for i, j in itertools.product(range(B), range(B)):
            shown = [n for n in range(M) if n != m and present[i, n]]
            others = sum((log_ratios[i, n] for n in shown), torch.zeros(K, dtype=torch.float64))
            logits[i, j] = (log_pi + others + log_ratios[j, m]).exp().sum().log()
        for i in range(B):
            which_candidate = logits[i, i] - logits[i].exp().sum().log()
            which_others = logits[i, i] - logits[:, i].exp().sum().log()
            expected -= 0.5 * (which_candidate + which_others) / B / M
    close(losses.infonce(log_ratios, class_logits, present), expected)


def test_infonce_of_ratios_that_know_nothing_is_a_guess():
    log_ratios, class_logits, present = ratios()
    value = losses.infonce(0 * log_ratios, class_logits, present)
    assert value.item() == pytest.approx(math.log(B), rel=1e-12)


def test_infonce_where_nothing_is_present_guesses_the_others():
    """All others look alike: a guess. Of the candidates the likeliest is chosen."""
    log_ratios, class_logits, present = ratios()
    evidence = (log_ratios + class_logits.log_softmax(0)).logsumexp(2)  # B, M
    expected = 0.5 * (math.log(B) - evidence.log_softmax(0).mean())
    close(losses.infonce(log_ratios, class_logits, torch.zeros_like(present)), expected)


def test_infonce_of_ratios_that_name_the_tuple_is_zero():
    """Tuple b is of class b for sure: r is B there and about 0 elsewhere."""
    named = torch.where(torch.eye(B, dtype=torch.bool), math.log(B), -60.0).double()
    present = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 1], [1, 1, 0, 0]]).bool()  # all have others
    log_ratios = named[:, None].expand(B, 4, B)
    assert 0 <= losses.infonce(log_ratios, torch.zeros(B).double(), present) < 1e-15


def test_infonce_ignores_what_all_tuples_share():
    """A constant per modality cancels, even one whose exponential overflows."""
    log_ratios, class_logits, present = ratios()
    present = torch.ones_like(present)  # otherwise the constant tells how much is present
    shift = torch.tensor([1e4, -1e4, 3.0, 0.0, -2e4], dtype=torch.float64)[:, None]
    expected = losses.infonce(log_ratios, class_logits, present)
    close(losses.infonce(log_ratios + shift, class_logits, present), expected, 1e-9)


def test_infonce_has_gradients_by_finite_differences():
    """The subtracted maxima are no part of the value, so none of its gradient."""
    log_ratios, class_logits, present = ratios()
    inputs = log_ratios.requires_grad_(), class_logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda *args: losses.infonce(*args, present), inputs)


def test_infonce_is_least_at_the_ratio_of_the_joint_density_to_the_marginals():
    """Two modalities with three values: expected over all batches of two, its gradient is 0."""
    class_logits = randn(2, seed=3).requires_grad_()
    given_class = randn(2, 3, 2, seed=4).softmax(1)  # p(z_m | k): m, value, k
    pi = class_logits.detach().softmax(0)
    joint = torch.einsum("ik,jk,k->ij", *given_class, pi).flatten()  # p(z_1, z_2), 9
    table = (given_class / (given_class @ pi)[..., None]).log().requires_grad_()
    values = torch.cartesian_prod(torch.arange(3), torch.arange(3))  # 9, 2

    def expected_loss(table):
        total = 0
        for batch in itertools.product(range(9), repeat=2):
            log_ratios = table[torch.arange(2), values[list(batch)]]  # 2, M, K
            present = torch.ones(2, 2, dtype=torch.bool)
            total += joint[list(batch)].prod() * losses.infonce(log_ratios, class_logits, present)
        return total

    value = expected_loss(table)
    for gradient in torch.autograd.grad(value, (table, class_logits)):
        close(gradient, torch.zeros_like(gradient))
    assert expected_loss(table + 0.3 * randn(2, 3, 2, seed=5)) > value


# ---- what they are fitted to

N = 2000


def posteriors():
    """Means and standard deviations of N posteriors over M modalities."""
    return randn(N, M, D, seed=1).float(), torch.full((N, M, D), 100.0)


def recorded(monkeypatch, **named):
    """Arguments that `joint_loss` gives score_matching and denoising: (model, z, t, eps) each."""
    calls = {}

    def record(name):
        return lambda *args: calls.update({name: args}) or torch.tensor(1.0)

    for name in ("score_matching", "denoising", "infonce_loss"):
        monkeypatch.setattr(losses, name, record(name))
    model = annealed()[0].float()
    total, parts = losses.joint_loss(model, *posteriors(), generator("cpu", 1), **named)
    assert total == 3 and list(parts) == ["score", "denoising", "infonce"]
    return model, calls["score_matching"], calls["denoising"]


def test_joint_loss_observes_posterior_samples_and_generates_posterior_means(monkeypatch):
    _, (_, z, t, eps), (_, x0, levels, *_) = recorded(monkeypatch)
    mean, _ = posteriors()
    free, expected = t > 0, add_noise(mean, t, eps)
    assert torch.equal(z[free], expected[free])
    drawn = (z - mean)[~free] / 100.0
    assert abs(drawn.std() - 1) < 0.05 and abs((drawn * eps[~free]).mean()) < 0.05
    assert torch.equal(x0, mean)
    level = t.amax(1, keepdim=True)  # one per tuple
    assert torch.equal(t, torch.where(free, level, 0.0))
    for part in (t[free], levels):
        assert 0.005 <= part.min() < 0.01 and 0.99 < part.max() <= 0.995
    assert len(levels.unique()) > 0.95 * N * M  # every denoiser has its own


def test_every_number_of_observed_modalities_is_as_frequent(monkeypatch):
    _, (_, _, t, _), _ = recorded(monkeypatch, nothing_observed_share=0.25)
    assert (t[: N // 4] > 0).all()
    counts = torch.bincount((t[N // 4 :] == 0).sum(1), minlength=M + 1)
    expected = 0.75 * N / (M + 1)
    assert (counts - expected).abs().max() < 5 * expected**0.5


def test_a_share_of_the_denoisers_is_conditional_on_nothing(monkeypatch):
    model, (_, z, t, _), (*_, probs) = recorded(monkeypatch, unconditional_share=0.25)
    prior, given_others = model.prior(), model.class_probs_given_others(z, t)
    unconditional = (probs == prior).all(2)
    assert abs(unconditional.float().mean() - 0.25) < 5 * (0.25 * 0.75 / N / M) ** 0.5
    assert torch.equal(probs[~unconditional], given_others[~unconditional])
    assert not probs.requires_grad


def test_infonce_loss_noises_and_shows_its_shares(monkeypatch):
    model, seen = annealed()[0].float(), {}
    ratios_of = model.log_ratios
    model.log_ratios = lambda z, t: seen.update(z=z, t=t) or ratios_of(z, t)
    monkeypatch.setattr(losses, "infonce", lambda *args: seen.update(present=args[2]))
    mean, std = posteriors()
    losses.infonce_loss(model, mean, std, generator("cpu", 1), 0.4, 0.3, 0.75)
    shares = {"clean": 0.4, "present": 0.75}
    for name, part in (("clean", seen["t"] == 0), ("present", seen["present"])):
        assert abs(part.float().mean() - shares[name]) < 5 * (0.25 / N / M) ** 0.5
    clean = seen["t"] == 0
    assert abs(((seen["z"] - mean)[clean] / 100.0).std() - 1) < 0.05  # samples, not means
    noised = [row[row > 0] for row in seen["t"]]
    same = torch.tensor([bool((row == row[0]).all()) for row in noised if len(row) > 1])
    assert abs(same.float().mean() - 0.3) < 5 * (0.25 / len(same)) ** 0.5


def test_the_same_generator_gives_the_same_joint_loss():
    model, batch = annealed()[0].float(), [part[:50] for part in posteriors()]
    first, again, other = (losses.joint_loss(model, *batch, generator("cpu", k))[0] for k in "aab")
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert reached(model, first) == names(model, "")
