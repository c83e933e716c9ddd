"""MVAE (Wu and Goodman 2018): a product of experts, the prior among them."""

import torch

from ebmvae.vae import experts


def draw(modalities, batch, dim, generator):
    """The random numbers of a `loss`: eps for the joint sample, then one per modality."""
    shape = (modalities + 1, batch, dim)
    return {"eps": torch.randn(shape, generator=generator, device=generator.device)}


def loss(xs, mean, logvar, decoders, nll, beta, eps):
    """The joint ELBO with the prior as an expert, plus the ELBO of every modality alone.

    xs: a list of M (B, C, H, W); mean, logvar (M, B, D); eps (M + 1, B, D). Returns a scalar, in
    nats per tuple, and its parts.
    """
    joint = experts.product(mean, logvar, prior=True)  # B, D each
    z = experts.sample(*joint, eps[0])
    divergence = experts.kl_from_prior(*joint).mean()
    reconstruction, alone = 0, 0
    for m, (x, decode) in enumerate(zip(xs, decoders, strict=True)):
        expert = experts.product(mean[m : m + 1], logvar[m : m + 1], prior=True)
        # 2B, C, H, W: one call of the decoder
        recon = decode(torch.cat([z, experts.sample(*expert, eps[m + 1])]))
        joint_recon, own_recon = recon.chunk(2)
        reconstruction = reconstruction + nll(x, joint_recon).mean()
        alone = alone + nll(x, own_recon).mean() + beta * experts.kl_from_prior(*expert).mean()
    total = reconstruction + beta * divergence + alone
    return total, {"reconstruction": reconstruction, "kl": divergence}


def sample(mean, logvar, eps, seeds):
    """Joint latents (B, D) given k observed experts, mean and logvar (k, B, D); eps (B, D)."""
    return experts.sample(*experts.product(mean, logvar, prior=True), eps)
