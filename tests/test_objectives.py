"""Every loss against closed forms, or against a plain loop written from its paper with torch.distributions."""

import itertools
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Laplace, MultivariateNormal, Normal, kl_divergence

from stages.lib import networks, noising, objectives, posteriors

M, B, D, K = 5, 3, 2, 31  # modalities, batch, latent dimensions, non-empty subsets of five
SHAPE = 1, 2, 2  # of the images
SCALE = 0.7
NLL = partial(objectives.gaussian_nll, scale=SCALE)


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- likelihoods


def test_gaussian_nll_is_the_density_up_to_its_constant():
    x, recon = randn(B, *SHAPE, seed=1), randn(B, *SHAPE, seed=2)
    constant = Normal(x, SCALE).log_prob(x).flatten(1).sum(1)  # of the peak
    close(objectives.gaussian_nll(x, recon, SCALE), constant - Normal(recon, SCALE).log_prob(x).flatten(1).sum(1))


def test_laplace_nll_is_the_density_up_to_its_constant():
    x, recon = randn(B, *SHAPE, seed=1), randn(B, *SHAPE, seed=2)
    constant = Laplace(x, SCALE).log_prob(x).flatten(1).sum(1)
    close(objectives.laplace_nll(x, recon, SCALE), constant - Laplace(recon, SCALE).log_prob(x).flatten(1).sum(1))


def test_gaussian_nll_at_scale_root_half_is_the_squared_error():
    x, recon = randn(B, *SHAPE, seed=1), randn(B, *SHAPE, seed=2)
    close(objectives.NLL["gaussian"](x, recon, 0.5**0.5), (x - recon).square().sum((1, 2, 3)))


def neighbour_differences(channels, height, width):
    """D of correlated_nll as a matrix: a row for every pair of neighbouring pixels of a channel."""
    number = torch.arange(channels * height * width).view(channels, height, width)
    pairs = [*zip(number[:, :-1].flatten(), number[:, 1:].flatten()), *zip(number[:, :, :-1].flatten(), number[:, :, 1:].flatten())]
    matrix = torch.zeros(len(pairs), channels * height * width, dtype=torch.float64)
    for row, (a, b) in zip(matrix, pairs):
        row[a], row[b] = -1, 1
    return matrix


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 3, 4), (3, 1, 5)], ids=str)
def test_correlated_nll_is_the_density_up_to_its_constant(shape):
    x, recon = randn(B, *shape, seed=1), randn(B, *shape, seed=2)
    d = neighbour_differences(*shape)
    precision = (torch.eye(d.shape[1], dtype=torch.float64) + d.T @ d) / SCALE**2
    density = MultivariateNormal(recon.flatten(1), precision_matrix=precision)
    expected = density.log_prob(recon.flatten(1)) - density.log_prob(x.flatten(1))  # from the peak
    close(objectives.NLL["correlated"](x, recon, SCALE), expected)


def test_correlated_nll_of_an_even_error_is_the_gaussian_one():
    """No two neighbours differ; but for one pixel that is wrong alone each of its neighbours counts as well."""
    x, even = randn(B, 3, 4, 5, seed=1), randn(B, 3, 1, 1, seed=2)
    close(objectives.correlated_nll(x, x + even, SCALE), objectives.gaussian_nll(x, x + even, SCALE))
    alone = torch.zeros_like(x)
    alone[:, 1, 2, 2] = 0.3
    close(objectives.correlated_nll(x, x + alone, SCALE), 5 * objectives.gaussian_nll(x, x + alone, SCALE))


# ---- VAEs: tiny linear encoders and decoders in float64


def images(m=0):
    return randn(B, *SHAPE, seed=10 + m)


def linear(inputs, outputs, seed):
    weight = randn(inputs, outputs, seed=seed) / 2
    return lambda x: x.flatten(1) @ weight


def encoder(m=0):
    net = linear(4, 2 * D, 20 + m)
    return lambda x: net(x).chunk(2, dim=1)


def decoder(m=0):
    net = linear(D, 4, 30 + m)
    return lambda z: net(z).unflatten(1, SHAPE)


def setting():
    """xs, mean, logvar, decoders of M modalities."""
    xs = [images(m) for m in range(M)]
    experts = [encoder(m)(x) for m, x in enumerate(xs)]
    mean, logvar = (torch.stack(part) for part in zip(*experts))
    return xs, mean, logvar, [decoder(m) for m in range(M)]


def members():
    return torch.tensor([[m in s for m in range(M)] for s in posteriors.subsets(range(M))])


def reference_product(mean, logvar, subset, b, prior=False):
    """The product of the experts of item b as a torch Normal, by adding precisions."""
    means = [mean[m, b] for m in subset] + ([torch.zeros(D, dtype=torch.float64)] if prior else [])
    precisions = [1 / logvar[m, b].exp() for m in subset] + ([torch.ones(D, dtype=torch.float64)] if prior else [])
    precision = sum(precisions)
    return Normal(sum(m * p for m, p in zip(means, precisions)) / precision, precision**-0.5)


def reference_kl(q, p=None):
    return kl_divergence(q, p or Normal(torch.zeros(D, dtype=torch.float64), 1.0)).sum()


def reference_nll(x, decode, z):
    return ((x - decode(z[None])[0]) ** 2).sum() / (2 * SCALE**2)


def at(q, noise):
    return q.mean + q.stddev * noise


def test_beta_vae():
    x, encode, decode, noise, beta = images(), encoder(), decoder(), randn(B, D, seed=3), 0.3
    value, parts = objectives.beta_vae(x, encode, decode, noise, beta, NLL)
    reconstruction, divergence = 0, 0
    for b in range(B):
        mean, logvar = (part[0] for part in encode(x[b : b + 1]))
        q = Normal(mean, (logvar / 2).exp())
        reconstruction += reference_nll(x[b], decode, at(q, noise[b])) / B
        divergence += reference_kl(q) / B
    close(parts["reconstruction"], reconstruction)
    close(parts["kl"], divergence)
    close(value, reconstruction + beta * divergence)


def test_poe_is_the_joint_elbo_and_each_modality_alone():
    xs, mean, logvar, decoders = setting()
    noise, beta = randn(M + 1, B, D, seed=3), 0.3
    value, parts = objectives.poe(xs, mean, logvar, decoders, noise, beta, NLL)
    expected = 0
    for b in range(B):
        joint = reference_product(mean, logvar, range(M), b, prior=True)
        expected += sum(reference_nll(xs[m][b], decoders[m], at(joint, noise[0, b])) for m in range(M)) / B
        expected += beta * reference_kl(joint) / B
        for m in range(M):
            alone = reference_product(mean, logvar, [m], b, prior=True)
            expected += reference_nll(xs[m][b], decoders[m], at(alone, noise[m + 1, b])) / B
            expected += beta * reference_kl(alone) / B
    close(value, expected)
    joint = [reference_product(mean, logvar, range(M), b, prior=True) for b in range(B)]
    close(parts["kl"], sum(reference_kl(q) for q in joint) / B)
    close(parts["reconstruction"], sum(reference_nll(xs[m][b], decoders[m], at(joint[b], noise[0, b]))
                                       for m in range(M) for b in range(B)) / B)


def test_moe_decodes_the_chosen_expert_and_averages_all_divergences():
    xs, mean, logvar, decoders = setting()
    noise, component, beta = randn(B, D, seed=3), torch.tensor([4, 0, 2]), 0.3
    value, parts = objectives.moe(xs, mean, logvar, decoders, noise, component, beta, NLL)
    reconstruction, divergence = 0, 0
    for b in range(B):
        q = [reference_product(mean, logvar, [m], b) for m in range(M)]
        z = at(q[component[b]], noise[b])
        reconstruction += sum(reference_nll(xs[m][b], decoders[m], z) for m in range(M)) / B
        divergence += sum(reference_kl(expert) for expert in q) / M / B
    close(parts["reconstruction"], reconstruction)
    close(parts["kl"], divergence)
    close(value, reconstruction + beta * divergence)


def test_mopoe_decodes_the_chosen_product_and_averages_31_divergences():
    xs, mean, logvar, decoders = setting()
    noise, component, beta = randn(B, D, seed=3), torch.tensor([30, 0, 17]), 0.3
    value, parts = objectives.mopoe(xs, mean, logvar, decoders, noise, component, members(), beta, NLL)
    subsets = [s for size in range(1, M + 1) for s in itertools.combinations(range(M), size)]
    assert len(subsets) == K
    reconstruction, divergence = 0, 0
    for b in range(B):
        q = [reference_product(mean, logvar, subset, b) for subset in subsets]
        z = at(q[component[b]], noise[b])
        reconstruction += sum(reference_nll(xs[m][b], decoders[m], z) for m in range(M)) / B
        divergence += sum(reference_kl(expert) for expert in q) / K / B
    close(parts["reconstruction"], reconstruction)
    close(parts["kl"], divergence)
    close(value, reconstruction + beta * divergence)


def test_mixture_elbo_averaged_over_components_is_the_stratified_elbo():
    """A component drawn at random is an unbiased estimate of decoding a sample of every component."""
    xs, mean, logvar, decoders = setting()
    q_mean, q_logvar = posteriors.subset_products(mean, logvar, members())
    noise, beta = randn(K, B, D, seed=3), 0.3  # each component has its own noise
    one = [objectives.mixture_elbo(xs, q_mean, q_logvar, decoders, noise[k], torch.full((B,), k), beta, NLL)[0]
           for k in range(K)]
    z = posteriors.sample(q_mean, q_logvar, noise)  # K, B, D: all components at once
    reconstruction = sum(NLL(x.repeat(K, 1, 1, 1), decode(z.flatten(0, 1))).mean() for x, decode in zip(xs, decoders))
    divergence = posteriors.kl_from_prior(q_mean, q_logvar).mean()
    close(torch.stack(one).mean(), reconstruction + beta * divergence)


@pytest.mark.parametrize("alpha", [0.0, 5 / 6, 1.0])
def test_mvtcae(alpha):
    xs, mean, logvar, decoders = setting()
    noise, beta = randn(B, D, seed=3), 0.3
    value, parts = objectives.mvtcae(xs, mean, logvar, decoders, noise, beta, alpha, NLL)
    reconstruction, divergence, bottleneck = 0, 0, 0
    for b in range(B):
        joint = reference_product(mean, logvar, range(M), b)
        reconstruction += sum(reference_nll(xs[m][b], decoders[m], at(joint, noise[b])) for m in range(M)) / B
        divergence += reference_kl(joint) / B
        bottleneck += sum(reference_kl(joint, reference_product(mean, logvar, [m], b)) for m in range(M)) / B
    close(parts["reconstruction"], reconstruction)
    close(parts["kl"], divergence)
    close(value, (M - alpha) / M * reconstruction + beta * ((1 - alpha) * divergence + alpha / M * bottleneck))


def test_mvtcae_without_total_correlation_is_the_joint_elbo():
    """alpha = 0: the one component of a mixture that is the product of all experts."""
    xs, mean, logvar, decoders = setting()
    noise, beta = randn(B, D, seed=3), 0.3
    joint = [part[None] for part in posteriors.product(mean, logvar)]
    expected, _ = objectives.mixture_elbo(xs, *joint, decoders, noise, torch.zeros(B, dtype=torch.int64), beta, NLL)
    value, _ = objectives.mvtcae(xs, mean, logvar, decoders, noise, beta, 0.0, NLL)
    close(value, expected)


def test_one_modality_makes_all_mixtures_the_beta_vae():
    x, encode, decode, noise, beta = images(), encoder(), decoder(), randn(B, D, seed=3), 0.3
    mean, logvar = (part[None] for part in encode(x))
    first, alone = torch.zeros(B, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    expected, _ = objectives.beta_vae(x, encode, decode, noise, beta, NLL)
    close(objectives.moe([x], mean, logvar, [decode], noise, first, beta, NLL)[0], expected)
    close(objectives.mopoe([x], mean, logvar, [decode], noise, first, alone, beta, NLL)[0], expected)
    close(objectives.mvtcae([x], mean, logvar, [decode], noise, beta, 0.0, NLL)[0], expected)


# ---- score matching on a quadratic energy: S(z) = -(P z - c), c = P m
# The sample crosses a few posterior means with all sign vectors as noise (mean 0, covariance I exactly), so that the
# answers hold exactly on the sample; sliced crosses it once more with all sign vectors as probes.

DIM = 3
SIGNS = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=DIM)), dtype=torch.float64)  # 8, DIM


def crossed(a, b):
    """Every row of a with every row of b."""
    return a.repeat_interleave(len(b), 0), b.repeat(len(a), 1)


def posterior_sample():
    """z, mean, std (N, DIM)."""
    mean, noise = crossed(randn(7, DIM, seed=5) @ randn(DIM, DIM, seed=6), SIGNS)
    std, _ = crossed(randn(7, DIM, seed=7).abs() + 0.3, SIGNS)
    return mean + std * noise, mean, std


def eq1(name, score):
    """Eq. 1 on the sample in one of its three forms."""
    z, mean, std = posterior_sample()
    if name == "exact":
        return objectives.score_matching_exact(score, z)
    if name == "sliced":
        return objectives.score_matching_sliced(score, *crossed(z, SIGNS))
    return objectives.score_matching_denoising(score, z, mean, std)


def quadratic(parameters):
    precision, c = parameters[: DIM * DIM].view(DIM, DIM), parameters[DIM * DIM :]
    return lambda z: c - z @ precision.T


FORMS = pytest.mark.parametrize("name", ["exact", "sliced", "denoising"])


@FORMS
def test_quadratic_energy_has_the_empirical_moments_as_minimiser(name):
    """Eq. 1 is quadratic in (P, c): one Newton step from anywhere lands on P = S^-1, m = the mean; there -1/2 tr S^-1."""
    z, _, _ = posterior_sample()
    centred = z - z.mean(0)
    inverse = torch.linalg.inv(centred.T @ centred / len(z))  # of the empirical covariance, divided by N
    loss = lambda parameters: eq1(name, quadratic(parameters))
    start = randn(DIM * DIM + DIM, seed=8)
    hessian = torch.autograd.functional.hessian(loss, start)
    gradient = torch.autograd.functional.jacobian(loss, start)
    assert torch.linalg.eigvalsh(hessian).min() > 1e-3  # strictly convex: one minimiser
    found = start - torch.linalg.solve(hessian, gradient)
    precision, c = found[: DIM * DIM].view(DIM, DIM), found[DIM * DIM :]
    close(precision, inverse)
    close(torch.linalg.solve(precision, c), z.mean(0))
    close(loss(found), -0.5 * inverse.trace())


@FORMS
def test_value_on_a_quadratic_energy(name):
    """-tr P + 1/2 tr P S P' + 1/2 |P (mean - m)|^2, at any P and m; P need not be symmetric."""
    z, _, _ = posterior_sample()
    parameters = randn(DIM * DIM + DIM, seed=9)
    precision, c = parameters[: DIM * DIM].view(DIM, DIM), parameters[DIM * DIM :]
    centred = z - z.mean(0)
    covariance = centred.T @ centred / len(z)
    expected = -precision.trace() + 0.5 * (precision @ covariance @ precision.T).trace()
    expected = expected + 0.5 * (precision @ z.mean(0) - c).square().sum()
    close(eq1(name, quadratic(parameters)), expected)


def test_one_rademacher_probe_is_exact_for_a_diagonal_jacobian():
    z, _, _ = posterior_sample()
    score = lambda z: -z**3 + torch.sin(z)
    for seed in range(3):
        probe = torch.randint(2, z.shape, generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
        close(objectives.score_matching_sliced(score, z, probe), objectives.score_matching_exact(score, z))


def test_one_rademacher_probe_is_not_exact_for_a_full_jacobian():
    z, _, _ = posterior_sample()
    score = quadratic(randn(DIM * DIM + DIM, seed=9))
    sliced = objectives.score_matching_sliced(score, z, torch.ones_like(z))
    assert not torch.allclose(sliced, objectives.score_matching_exact(score, z))


@pytest.mark.parametrize("model", ["energy", "score"])
def test_all_probes_average_to_the_exact_trace(model):
    """Also for networks: the same value and the same gradient of every weight."""
    score, weights, z = network_score(model)
    exact = objectives.score_matching_exact(score, z)
    sliced = objectives.score_matching_sliced(score, *crossed(z, SIGNS))
    close(sliced, exact)
    for a, b in zip(gradients(sliced, weights), gradients(exact, weights)):
        close(a, b)


def network_score(model):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = networks.joint(model, DIM, hidden=6, layers=2).double()
    return lambda z: net.score(z, create_graph=True), list(net.parameters()), randn(4, DIM, seed=11)


def gradients(value, weights):
    """Zeros for the last bias of an energy, which no score depends on."""
    found = torch.autograd.grad(value, weights, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, weights)]


def test_exact_is_the_finite_difference_divergence():
    score, _, z = network_score("score")
    step = 1e-5 * torch.eye(DIM, dtype=torch.float64)
    trace = sum((score(z + e) - score(z - e))[:, i] / 2e-5 for i, e in enumerate(step))
    close(objectives.score_matching_exact(score, z), (trace + 0.5 * score(z).square().sum(1)).mean(), 1e-7)


def test_denoising_is_the_squared_distance_to_the_posterior_score_up_to_a_constant():
    """1/2 |S + (z - mean)/std^2|^2 less the square of its target, which holds no parameter."""
    z, mean, std = posterior_sample()
    target = (z - mean) / std**2
    for seed in range(3):
        score = lambda z: torch.tanh(z @ randn(DIM, DIM, seed=seed))
        expected = 0.5 * (score(z) + target).square().sum(1) - 0.5 * target.square().sum(1)
        close(objectives.score_matching_denoising(score, z, mean, std), expected.mean())


@pytest.mark.parametrize("power", [1, 2, 3, 5])
def test_denoising_has_the_expectation_of_exact(power):
    """Two score functions differ by as much in either form: here both expectations are the same number.

    S(z) = z^k in one dimension under N(0.7, 1.3^2), by Gauss-Hermite quadrature, which is exact for polynomials.
    """
    import numpy as np

    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    weights = torch.as_tensor(weights / weights.sum())
    mean, std = torch.full((20, 1), 0.7, dtype=torch.float64), torch.full((20, 1), 1.3, dtype=torch.float64)
    z = mean + std * torch.as_tensor(nodes)[:, None]
    score = lambda z: z**power
    each = lambda loss, *tensors: torch.stack([loss(score, *(t[i : i + 1] for t in tensors)) for i in range(20)])
    exact, denoising = each(objectives.score_matching_exact, z), each(objectives.score_matching_denoising, z, mean, std)
    close(weights @ denoising, weights @ exact)


# ---- the noise-conditional energy

STATES = 4


def annealed():
    """A small model in float64 with random weights; clean latents, levels (some observed) and noise of M modalities."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = networks.Annealed(M, D, hidden=6, states=STATES).double()
        for weight in model.parameters():
            weight.data += 0.3 * torch.randn_like(weight)
    t = torch.rand(M, B, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t[0, 0] = t[3, 1] = t[4, :2] = 0
    return model, randn(M, B, D, seed=2), t, randn(M, B, D, seed=3)


def told(model):
    """Levels all above 0, and what each denoiser is told, (M, B, K)."""
    _, clean, t, noise = annealed()
    return clean, t.clamp_min(0.1), noise, model.rest(clean, t)


def test_told_denoising():
    """By plain loops: the mean squared error of what the network predicts, alpha eps - sigma x."""
    model, *_ = annealed()
    clean, t, noise, states = told(model)
    alpha, sigma = torch.cos(torch.pi / 2 * t), torch.sin(torch.pi / 2 * t)
    z = alpha[..., None] * clean + sigma[..., None] * noise
    v = model.base(torch.cat([z, noising.embed(t), states], 2))
    squares = sum((v[m, b] - (alpha[m, b] * noise[m, b] - sigma[m, b] * clean[m, b])).square().sum()
                  for m, b in itertools.product(range(M), range(B)))
    close(objectives.told_denoising(model, clean, t, noise, states), squares / (M * B * D))


def test_told_denoising_of_a_perfect_denoiser_is_zero_and_of_another_its_error():
    """An error of q in the clean estimate, and of none in the noise, is one of sigma q in what is predicted."""
    clean, t, noise, states = told(annealed()[0])
    _, sigma = noising.signal_and_noise(t)
    q = randn(M, B, D, seed=4)
    of = lambda error: objectives.told_denoising(
        SimpleNamespace(denoise=lambda z, t, states: (clean + error, noise)), clean, t, noise, states)
    assert of(0) == 0
    close(of(q), (sigma[..., None] * q).square().mean())


def test_told_denoising_trains_the_denoisers_only_and_tells_them():
    model, *_ = annealed()
    clean, t, noise, states = told(model)
    assert reached(model, objectives.told_denoising(model, clean, t, noise, states.detach())) == names(model, "base")
    asked = []
    hears = SimpleNamespace(denoise=lambda z, t, states: asked.append((z, t, states)) or (z, z))
    objectives.told_denoising(hears, clean, t, noise, states)
    (z, level, heard), = asked
    close(z, noising.noised(clean, t, noise))
    assert level is t and heard is states


def reached(model, value):
    """Names of the parameters that `value` depends on."""
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, retain_graph=True)
    return {name for (name, _), g in zip(model.named_parameters(), found) if g is not None and g.any()}


def names(model, part):
    return {name for name, _ in model.named_parameters() if name.startswith(part)}


def stub(alone, pull):
    """A model that answers the same whatever it is asked."""
    return SimpleNamespace(denoise=lambda z, t, states: (None, alone), pull=lambda z, t, create_graph: pull, untold=lambda: None)


def test_pull_matching():
    """By plain loops: errors of free modalities only, a sum a tuple; the denoiser is told nothing but the prior."""
    model, clean, t, noise = annealed()
    z = noising.noised(clean, t, noise)
    alone = model.denoise(z, t, model.untold())[1]
    pull, sigma, total, free = model.pull(z, t), torch.sin(torch.pi / 2 * t), 0, 0
    for m, b in itertools.product(range(M), range(B)):
        if t[m, b] > 0:
            free += 1
            total += 0.5 * (alone[m, b] - sigma[m, b] * pull[m, b] - noise[m, b]).square().sum()
    assert free == M * B - 4
    close(objectives.pull_matching(model, z, t, noise), total / B)


def test_the_pull_is_to_mend_what_the_untold_denoiser_gets_wrong():
    """One off by sigma q, with a pull of q: no error."""
    _, clean, t, noise = annealed()
    t, q = t.clamp_min(0.1), randn(M, B, D, seed=4)  # nothing observed
    sigma = noising.signal_and_noise(t)[1][..., None]
    close(objectives.pull_matching(stub(noise + sigma * q, q), clean, t, noise), torch.zeros((), dtype=torch.float64))
    assert objectives.pull_matching(stub(noise + sigma * q, 0 * q), clean, t, noise) > 0.01


def test_pull_matching_does_not_judge_what_is_observed():
    _, clean, t, noise = annealed()
    answers = [randn(M, B, D, seed=seed) for seed in (5, 6)]
    spoilt = [torch.where(t[..., None] == 0, 1e3, part) for part in answers]
    run = lambda parts: objectives.pull_matching(stub(*parts), clean, t, noise)
    assert run(spoilt) == run(answers)
    assert run([part + 1e-3 for part in answers]) != run(answers)


def test_pull_matching_given_everything_is_zero():
    model, clean, t, noise = annealed()
    assert objectives.pull_matching(model, clean, torch.zeros_like(t), noise) == 0


def test_pull_matching_trains_the_energy_only():
    model, clean, t, noise = annealed()
    score = objectives.pull_matching(model, noising.noised(clean, t, noise), t, noise)
    assert reached(model, score) == names(model, "ratios") | {"prior"}


def ratios_and_present():
    present = torch.tensor([[True, False, True], [False, False, True], [True] * 3, [True, False, False], [False] * 3])
    return 3 * randn(M, B, STATES, seed=1), randn(STATES, seed=2), present


def test_contrast():
    """By plain loops over modalities, rests, candidates and states."""
    log_ratios, prior, present = ratios_and_present()
    log_pi, expected = prior - prior.exp().sum().log(), 0
    for m in range(M):
        logits = torch.zeros(B, B, dtype=torch.float64)  # of the rest of tuple i and modality m of tuple j
        for i, j in itertools.product(range(B), range(B)):
            rest = [sum(log_ratios[n, i, k] for n in range(M) if n != m and present[n, i]) for k in range(STATES)]
            logits[i, j] = sum((log_pi[k] + rest[k] + log_ratios[m, j, k]).exp() for k in range(STATES)).log()
        for i in range(B):
            which_candidate = logits[i, i] - logits[i].exp().sum().log()
            which_rest = logits[i, i] - logits[:, i].exp().sum().log()
            expected -= 0.5 * (which_candidate + which_rest) / B / M
    close(objectives.contrast(log_ratios, prior, present), expected)


def test_contrast_of_ratios_that_know_nothing_is_a_guess():
    _, prior, present = ratios_and_present()
    found = objectives.contrast(torch.zeros(M, B, STATES, dtype=torch.float64), prior, present)
    assert found.item() == pytest.approx(math.log(B), rel=1e-12)


def test_contrast_of_a_rest_that_shows_nothing_guesses_the_rest():
    """All rests are alike: which of them belongs is a guess; which candidate, a choice of the largest evidence."""
    log_ratios, prior, present = ratios_and_present()
    evidence = (log_ratios + prior.log_softmax(0)).logsumexp(2)  # M, B
    expected = 0.5 * (math.log(B) - evidence.log_softmax(1).mean())
    close(objectives.contrast(log_ratios, prior, torch.zeros_like(present)), expected)


def test_contrast_of_ratios_that_name_the_tuple_is_zero():
    """Tuple b is in state b for sure, in every modality, so r is B there and about 0 elsewhere; no rest shows nothing."""
    log_ratios = torch.where(torch.eye(B, dtype=torch.bool), math.log(B), -60.0).double().expand(M, B, B)
    present = torch.tensor([[True] * B, [True, False, True], *[[False, True, False]] * (M - 2)])
    found = objectives.contrast(log_ratios, torch.zeros(B, dtype=torch.float64), present)
    assert 0 <= found < 1e-15


def test_contrast_ignores_what_all_tuples_share():
    """A constant a modality cancels, even one whose exponential overflows."""
    log_ratios, prior, _ = ratios_and_present()
    present = torch.ones(M, B, dtype=torch.bool)  # otherwise the constant tells how much a rest shows
    shift = torch.tensor([1e4, -1e4, 3.0, 0.0, -2e4], dtype=torch.float64)[:, None, None]
    run = lambda log_ratios: objectives.contrast(log_ratios, prior, present)
    close(run(log_ratios + shift), run(log_ratios), 1e-9)


def test_contrast_has_gradients_by_finite_differences():
    """The subtracted maxima are no part of the value, so none of its gradient."""
    log_ratios, prior, present = ratios_and_present()
    inputs = log_ratios.requires_grad_(), prior.requires_grad_()
    assert torch.autograd.gradcheck(lambda *inputs: objectives.contrast(*inputs, present), inputs)


# ---- schedules


def test_kl_weight_rises_linearly_and_stays():
    assert [objectives.kl_weight(p, 0.2, 0.5) for p in (0, 0.1, 0.2, 0.9)] == [0, 0.25, 0.5, 0.5]
    assert objectives.kl_weight(0, 0, 0.5) == 0.5  # no warm-up


def test_cosine_rises_and_goes_down_to_zero():
    assert [objectives.cosine(p) for p in (0, 1)] == [0, 0]
    assert objectives.cosine(0.5) == pytest.approx(0.5)
    assert objectives.cosine(0.25) == pytest.approx(0.5 + 0.5**1.5)


def test_cosine_rises_linearly_to_half_a_cosine():
    """Divided by the half cosine, what is left is the rise: progress / 0.05, and 1 from there on."""
    half = lambda p: 0.5 * (1 + math.cos(math.pi * p))
    shares = [0.005, 0.01, 0.02, 0.04, 0.05, 0.06, 0.3, 0.9]
    assert [objectives.cosine(p) / half(p) for p in shares] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1, 1, 1, 1])
    assert objectives.cosine(0.1, warmup=0.2) == pytest.approx(0.5 * half(0.1))
