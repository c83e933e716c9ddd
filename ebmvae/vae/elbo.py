"""The ELBO of one VAE, and what those of the joint-posterior VAEs share.

Each returns a scalar to minimise, in nats per item, and its parts. Encoders and decoders come as
callables, random numbers as tensors, so that a loss is a pure function.
"""

from ebmvae.vae import experts


def beta_vae(x, encode, decode, eps, beta, nll):
    """beta-VAE (Higgins et al. 2017): -E_q log p(x|z) + beta KL(q(z|x) || N(0, I)).

    x (B, C, H, W), eps (B, d) standard normal; nll as in likelihoods.
    """
    mean, logvar = encode(x)  # B, d
    recon = decode(experts.sample(mean, logvar, eps))  # B, C, H, W
    reconstruction = nll(x, recon).mean()
    divergence = experts.kl_from_prior(mean, logvar).mean()
    return reconstruction + beta * divergence, {"reconstruction": reconstruction, "kl": divergence}


def reconstruction_loss(xs, z, decoders, nll):
    """Sum over modalities of -log p(x_m|z), mean over the batch; xs a list of M (B, C, H, W)."""
    return sum(nll(x, decode(z)) for x, decode in zip(xs, decoders, strict=True)).mean()


def mixture_elbo(xs, mean, logvar, decoders, nll, beta, eps, component):
    """ELBO of a mixture posterior 1/K sum_k q_k; mean, logvar (K, B, D), eps (B, D).

    Item b decodes a sample of component[b], int64 (B,): with components drawn uniformly, an
    unbiased estimate of decoding them all. The KL divergence is averaged over components, an upper
    bound on the mixture's.
    """
    z = experts.sample(*experts.choose(mean, logvar, component), eps)  # B, D
    reconstruction = reconstruction_loss(xs, z, decoders, nll)
    divergence = experts.kl_from_prior(mean, logvar).mean()
    return reconstruction + beta * divergence, {"reconstruction": reconstruction, "kl": divergence}


def kl_weight(progress, warmup, beta):
    """beta, reached linearly over the share `warmup` of training; progress in [0, 1]."""
    return beta * min(1.0, progress / warmup) if warmup else beta
