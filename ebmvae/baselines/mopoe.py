"""MoPoE-VAE (Sutter et al. 2021): a mixture over all subsets of modalities of their products."""

import itertools

import torch

from ebmvae.vae import elbo, experts


def members(modalities):
    """The K = 2^M - 1 non-empty subsets, small ones first: bool (K, M)."""
    sizes = range(1, modalities + 1)
    chosen = [s for size in sizes for s in itertools.combinations(range(modalities), size)]
    return torch.tensor([[m in subset for m in range(modalities)] for subset in chosen])


def draw(modalities, batch, dim, generator):
    """The random numbers of a `loss`: eps, and the subset that an item decodes."""
    device, subsets = generator.device, 2**modalities - 1
    return {
        "eps": torch.randn(batch, dim, generator=generator, device=device),
        "component": torch.randint(subsets, (batch,), generator=generator, device=device),
    }


def loss(xs, mean, logvar, decoders, nll, beta, eps, component):
    """`elbo.mixture_elbo` of all products of experts; mean, logvar (M, B, D), eps (B, D)."""
    inside = members(len(xs)).to(mean.device)
    products = experts.subset_products(mean, logvar, inside)  # K, B, D each
    return elbo.mixture_elbo(xs, *products, decoders, nll, beta, eps, component)


def sample(mean, logvar, eps, seeds):
    """Joint latents (B, D) given k observed experts (k, B, D): of their product.

    That is the component of the mixture that belongs to the observed subset.
    """
    return experts.sample(*experts.product(mean, logvar), eps)
