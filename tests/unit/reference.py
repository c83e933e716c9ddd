"""Shared by unit tests: random tensors, small networks, and losses by plain loops.

The loops take one item and one modality at a time, with torch.distributions.
"""

from functools import partial

import torch
from torch.distributions import Normal, kl_divergence

from ebmvae.annealed.model import AnnealedEnergy
from ebmvae.core import random
from ebmvae.vae import likelihoods

M, B, D, K = 5, 3, 2, 4  # modalities, batch, latent dimensions, latent classes
SHAPE = 1, 2, 2  # of the images
SCALE, BETA = 0.7, 0.3
NLL = partial(likelihoods.gaussian_nll, scale=SCALE)


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(make, *args, **named):
    """A network with weights that do not depend on what ran before."""
    with random.seeded("unit tests"):
        return make(*args, **named)


# ---- VAEs: linear encoders and decoders in float64


def linear(inputs, outputs, seed):
    weight = randn(inputs, outputs, seed=seed) / 2
    return lambda x: x.flatten(1) @ weight


def images(m=0):
    return randn(B, *SHAPE, seed=10 + m)


def encode(x, m=0):
    return linear(4, 2 * D, 20 + m)(x).chunk(2, dim=1)


def decoder(m=0):
    net = linear(D, 4, 30 + m)
    return lambda z: net(z).unflatten(1, SHAPE)


def tuples():
    """xs, mean, logvar, decoders of M modalities."""
    xs = [images(m) for m in range(M)]
    mean, logvar = zip(*(encode(x, m) for m, x in enumerate(xs)), strict=True)
    return xs, torch.stack(mean), torch.stack(logvar), [decoder(m) for m in range(M)]


def product(mean, logvar, subset, b, prior=False):
    """The product of the experts of item b, by adding precisions."""
    precisions = [1 / logvar[m, b].exp() for m in subset]
    total = sum(precisions) + prior
    weighted = sum(mean[m, b] * p for m, p in zip(subset, precisions, strict=True))
    return Normal(weighted / total, total**-0.5)


def kl(q, p=None):
    return kl_divergence(q, p or Normal(torch.zeros(D, dtype=torch.float64), 1.0)).sum()


def nll(x, decode, q, eps):
    """-log p(x|z) of one item, z drawn from q by eps."""
    return ((x - decode((q.mean + q.stddev * eps)[None])[0]) ** 2).sum() / (2 * SCALE**2)


def reconstruction(xs, decoders, posteriors, eps):
    """Of all modalities from one posterior per item: mean over items."""
    pairs = list(zip(xs, decoders, strict=True))
    return (
        sum(nll(x[b], decode, posteriors[b], eps[b]) for x, decode in pairs for b in range(B)) / B
    )


def check_mixture(loss, subsets, component):
    """Item b decodes component[b]; the KL divergence is averaged over all `subsets`."""
    xs, mean, logvar, decoders = tuples()
    eps = randn(B, D, seed=3)
    value, parts = loss(xs, mean, logvar, decoders, NLL, BETA, eps, component)
    experts = [[product(mean, logvar, subset, b) for subset in subsets] for b in range(B)]
    chosen = [experts[b][component[b]] for b in range(B)]
    divergence = sum(kl(q) for row in experts for q in row) / len(subsets) / B
    close(parts["reconstruction"], reconstruction(xs, decoders, chosen, eps))
    close(parts["kl"], divergence)
    close(value, parts["reconstruction"] + BETA * divergence)


def check_product(sample, prior=False):
    """Samples given the modalities 0 and 3 are of the product of their experts."""
    _, mean, logvar, _ = tuples()
    eps = randn(B, D, seed=3)
    z = sample(mean[[0, 3]], logvar[[0, 3]], eps, range(B))
    for b in range(B):
        q = product(mean, logvar, [0, 3], b, prior)
        close(z[b], q.mean + q.stddev * eps[b])


# ---- the noise-conditional energy


def shaken(module):
    """Every parameter moved off its start, where biases, class logits and outputs are small."""
    for i, weight in enumerate(module.parameters()):
        weight.data += 0.5 * randn(*weight.shape, seed=100 + i)
    return module


def annealed(modalities=M):
    """A small model in float64; latents, levels (some observed) and noise of B tuples."""
    model = shaken(build(AnnealedEnergy, modalities, D, hidden=6, latent_classes=K).double())
    t = torch.rand(B, modalities, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t[0, 0] = t[1, 2] = t[:2, -1] = 0
    return model, randn(B, modalities, D, seed=2), t, randn(B, modalities, D, seed=3)
