"""The ELBO of one VAE, and that of a mixture posterior, by plain loops."""

import torch

from ebmvae.vae import elbo, experts
from tests.unit import reference as ref
from tests.unit.reference import B, D


def test_beta_vae():
    x, eps = ref.images(), ref.randn(B, D, seed=3)
    value, parts = elbo.beta_vae(x, ref.encode, ref.decoder(), eps, ref.BETA, ref.NLL)
    mean, logvar = (part[None] for part in ref.encode(x))
    posteriors = [ref.product(mean, logvar, [0], b) for b in range(B)]
    ref.close(parts["reconstruction"], ref.reconstruction([x], [ref.decoder()], posteriors, eps))
    ref.close(parts["kl"], sum(ref.kl(q) for q in posteriors) / B)
    ref.close(value, parts["reconstruction"] + ref.BETA * parts["kl"])


def test_mixture_elbo_averaged_over_components_is_the_stratified_elbo():
    """A component drawn at random is an unbiased estimate of decoding a sample of every one."""
    xs, mean, logvar, decoders = ref.tuples()
    k = len(mean)
    eps = ref.randn(k, B, D, seed=3)  # each component has its own
    args = xs, mean, logvar, decoders, ref.NLL, ref.BETA
    one = [elbo.mixture_elbo(*args, eps[i], torch.full((B,), i))[0] for i in range(k)]
    z = experts.sample(mean, logvar, eps).flatten(0, 1)  # k*B, D: all components at once
    expected = elbo.reconstruction_loss([x.repeat(k, 1, 1, 1) for x in xs], z, decoders, ref.NLL)
    expected = expected + ref.BETA * experts.kl_from_prior(mean, logvar).mean()
    ref.close(torch.stack(one).mean(), expected)


def test_kl_weight_rises_linearly_and_stays():
    assert [elbo.kl_weight(p, 0.2, 0.5) for p in (0, 0.1, 0.2, 0.9)] == [0, 0.25, 0.5, 0.5]
    assert elbo.kl_weight(0, 0, 0.5) == 0.5  # no warm-up
