"""MMVAE (Shi et al. 2019): a mixture of experts, in ELBO form.

The paper's comparison runs it so: importance weighting would give this one baseline K decodings per
image, and a tighter bound than all others.
"""

import torch

from ebmvae.vae import elbo, experts


def draw(modalities, batch, dim, generator):
    """The random numbers of a `loss`: eps, and the component that an item decodes."""
    device = generator.device
    return {
        "eps": torch.randn(batch, dim, generator=generator, device=device),
        "component": torch.randint(modalities, (batch,), generator=generator, device=device),
    }


def loss(xs, mean, logvar, decoders, nll, beta, eps, component):
    """`elbo.mixture_elbo` of the experts: mean, logvar (M, B, D); eps (B, D), component (B,)."""
    return elbo.mixture_elbo(xs, mean, logvar, decoders, nll, beta, eps, component)


def sample(mean, logvar, eps, seeds):
    """Joint latents (B, D) given k observed experts (k, B, D): of one, chosen by the seed."""
    component = torch.tensor([seed % len(mean) for seed in seeds], device=mean.device)
    return experts.sample(*experts.choose(mean, logvar, component), eps)
