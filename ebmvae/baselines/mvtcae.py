"""MVTCAE (Hwang et al. 2021): a product of experts, trained by total correlation."""

import torch

from ebmvae.vae import elbo, experts


def draw(modalities, batch, dim, generator):
    """The random numbers of a `loss`: eps."""
    return {"eps": torch.randn(batch, dim, generator=generator, device=generator.device)}


def loss(xs, mean, logvar, decoders, nll, beta, eps, alpha=5 / 6):
    """Eq. 10 of the paper, total correlation weighted by alpha in [0, 1], as published 5/6.

    (M - alpha)/M reconstruction
    + beta [(1 - alpha) KL(q(z|x) || p) + alpha/M sum_m KL(q(z|x) || q(z|x_m))].
    xs: a list of M (B, C, H, W); mean, logvar (M, B, D); eps (B, D).
    """
    joint_mean, joint_logvar = experts.product(mean, logvar)
    modalities = len(xs)
    z = experts.sample(joint_mean, joint_logvar, eps)
    reconstruction = elbo.reconstruction_loss(xs, z, decoders, nll)
    divergence = experts.kl_from_prior(joint_mean, joint_logvar).mean()
    bottleneck = experts.kl(joint_mean, joint_logvar, mean, logvar).mean(1).sum()  # over B, then M
    total = (modalities - alpha) / modalities * reconstruction
    total = total + beta * ((1 - alpha) * divergence + alpha / modalities * bottleneck)
    return total, {"reconstruction": reconstruction, "kl": divergence}


def sample(mean, logvar, eps, seeds):
    """Joint latents (B, D) given k observed experts, mean and logvar (k, B, D); eps (B, D)."""
    return experts.sample(*experts.product(mean, logvar), eps)
