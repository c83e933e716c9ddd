"""Every loss, side by side, named as in its paper. Each returns a scalar to minimise, per item, and its parts.

Encoders and decoders come as callables; noise and choices come in as tensors, so that a loss is a pure function.
"""

import math

import torch
from torch.nn import functional as F

from stages.lib import noising, posteriors

# ---- likelihoods: negative log p(x|z) in nats per item, x and recon (B, C, H, W) -> (B,)


def gaussian_nll(x, recon, scale):
    """N(recon, scale^2 I); constants without parameters are left out."""
    return (x - recon).square().flatten(1).sum(1) / (2 * scale**2)


def laplace_nll(x, recon, scale):
    """Laplace(recon, scale); constants without parameters are left out."""
    return (x - recon).abs().flatten(1).sum(1) / scale


def correlated_nll(x, recon, scale):
    """N(recon, scale^2 (I + D'D)^-1), D the differences of neighbouring pixels: an error along an edge, as where a stroke
    ends, costs more than the same error spread out. Constants without parameters are left out."""
    error = x - recon
    edges = error.diff(dim=2).square().flatten(1).sum(1) + error.diff(dim=3).square().flatten(1).sum(1)
    return (error.square().flatten(1).sum(1) + edges) / (2 * scale**2)


NLL = {"gaussian": gaussian_nll, "laplace": laplace_nll, "correlated": correlated_nll}

# ---- unimodal


def beta_vae(x, encode, decode, noise, beta, nll):
    """beta-VAE (Higgins et al. 2017): -E_q log p(x|z) + beta KL(q(z|x) || N(0, I))."""
    mean, logvar = encode(x)  # B, d
    recon = decode(posteriors.sample(mean, logvar, noise))  # B, C, H, W
    reconstruction = nll(x, recon).mean()
    divergence = posteriors.kl_from_prior(mean, logvar).mean()
    return reconstruction + beta * divergence, {"reconstruction": reconstruction, "kl": divergence}


# ---- joint-posterior baselines: xs a list of M (B, C, H, W), mean and logvar (M, B, D), noise (B, D)


def reconstruct(xs, z, decoders, nll):
    """Sum over modalities of -log p(x_m|z), mean over the batch."""
    return sum(nll(x, decode(z)) for x, decode in zip(xs, decoders)).mean()


def poe(xs, mean, logvar, decoders, noise, beta, nll):
    """MVAE (Wu and Goodman 2018): the joint ELBO with the prior as an expert, plus each modality's own ELBO.

    noise (M + 1, B, D): the joint sample's, then one a modality.
    """
    joint = posteriors.product(mean, logvar, prior=True)  # B, D each
    z = posteriors.sample(*joint, noise[0])
    divergence = posteriors.kl_from_prior(*joint).mean()
    reconstruction, alone = 0, 0
    for m, (x, decode) in enumerate(zip(xs, decoders)):
        expert = posteriors.product(mean[m : m + 1], logvar[m : m + 1], prior=True)
        recon = decode(torch.cat([z, posteriors.sample(*expert, noise[m + 1])]))  # 2B, C, H, W: one decoder call
        of_joint, of_expert = recon.chunk(2)
        reconstruction = reconstruction + nll(x, of_joint).mean()
        alone = alone + nll(x, of_expert).mean() + beta * posteriors.kl_from_prior(*expert).mean()
    return reconstruction + beta * divergence + alone, {"reconstruction": reconstruction, "kl": divergence}


def mixture_elbo(xs, mean, logvar, decoders, noise, component, beta, nll):
    """ELBO of a mixture posterior 1/K sum_k q_k, (K, B, D): KL averaged over components, an upper bound on the true one.

    Item b decodes a sample of component[b]: with components drawn uniformly, an unbiased estimate of decoding them all.
    """
    z = posteriors.sample(*posteriors.choose(mean, logvar, component), noise)  # B, D
    reconstruction = reconstruct(xs, z, decoders, nll)
    divergence = posteriors.kl_from_prior(mean, logvar).mean()
    return reconstruction + beta * divergence, {"reconstruction": reconstruction, "kl": divergence}


def moe(xs, mean, logvar, decoders, noise, component, beta, nll):
    """MMVAE (Shi et al. 2019) in ELBO form, as the paper's comparison runs it: importance weighting would give this one
    baseline K decodings an image and a tighter bound than all others."""
    return mixture_elbo(xs, mean, logvar, decoders, noise, component, beta, nll)


def mopoe(xs, mean, logvar, decoders, noise, component, members, beta, nll):
    """MoPoE-VAE (Sutter et al. 2021): mixture over all non-empty subsets of their products; members bool (K, M)."""
    return mixture_elbo(xs, *posteriors.subset_products(mean, logvar, members), decoders, noise, component, beta, nll)


def mvtcae(xs, mean, logvar, decoders, noise, beta, alpha, nll):
    """MVTCAE (Hwang et al. 2021, eq. 10): total correlation weighted by alpha in [0, 1].

    (M - alpha)/M reconstruction + beta [(1 - alpha) KL(q(z|x) || p) + alpha/M sum_m KL(q(z|x) || q(z|x_m))].
    """
    joint_mean, joint_logvar = posteriors.product(mean, logvar)
    modalities = len(xs)
    reconstruction = reconstruct(xs, posteriors.sample(joint_mean, joint_logvar, noise), decoders, nll)
    divergence = posteriors.kl_from_prior(joint_mean, joint_logvar).mean()
    bottleneck = posteriors.kl(joint_mean, joint_logvar, mean, logvar).mean(1).sum()  # over B, then M
    loss = (modalities - alpha) / modalities * reconstruction
    loss = loss + beta * ((1 - alpha) * divergence + alpha / modalities * bottleneck)
    return loss, {"reconstruction": reconstruction, "kl": divergence}


# ---- score matching: eq. 1, three ways to the same optimum. score: (B, D) -> (B, D)


def score_matching_exact(score, z):
    """Eq. 1: E [tr grad S(z) + 1/2 |S(z)|^2] (Hyvarinen 2005), with D backward passes; for small D and as a reference."""
    one = lambda point: score(point[None])[0]
    jacobian = torch.func.vmap(torch.func.jacrev(one))(z)  # B, D, D
    return (jacobian.diagonal(dim1=1, dim2=2).sum(1) + 0.5 * score(z).square().sum(1)).mean()


def score_matching_sliced(score, z, probe):
    """Eq. 1 with Hutchinson's trace v' grad S v; probe (B, D) of +-1, exact where grad S is diagonal."""
    z = z.detach().requires_grad_()
    s = score(z)
    product = torch.autograd.grad((s * probe).sum(), z, create_graph=True)[0]  # B, D: v' grad S
    return ((product * probe).sum(1) + 0.5 * s.square().sum(1)).mean()


def score_matching_denoising(score, z, mean, std):
    """Eq. 1 up to a constant, q(z|x) = N(mean, std^2) being the kernel: 1/2 E |S(z) + (z - mean)/std^2|^2.

    Less the parameter-free square of the target, so that its values compare with those of the other two (Vincent 2011).
    """
    s = score(z)
    return (0.5 * s.square() + s * (z - mean) / std.square()).sum(1).mean()


# ---- the noise-conditional energy (networks.Annealed)


def told_denoising(model, clean, t, noise, states):
    """Denoising score matching of each modality's denoiser, told `states` (M, B, K): mean squared error of what it predicts.

    clean, noise (M, B, d), t (M, B).
    """
    alpha, sigma = (part[..., None] for part in noising.signal_and_noise(t))
    estimate, guess = model.denoise(noising.noised(clean, t, noise), t, states)
    return (alpha * (guess - noise) - sigma * (estimate - clean)).square().mean()


def pull_matching(model, z, t, noise):
    """Denoising score matching of the energy's gradient at levels t (M, B), 0 where a modality is observed.

    z, noise (M, B, d). The squared error of the noise estimate, the untold denoiser's (a constant here) less sigma times the
    pull, summed over free coordinates, per tuple.
    """
    _, sigma = noising.signal_and_noise(t)
    with torch.no_grad():
        _, alone = model.denoise(z, t, model.untold())
    error = alone - sigma[..., None] * model.pull(z, t, create_graph=True) - noise
    return 0.5 * (error.square() * (t > 0)[..., None]).sum() / z.shape[1]


def contrast(log_ratios, prior, present):
    """InfoNCE (van den Oord et al. 2018) between each modality and the rest: which of the batch's z_m belongs to this rest?

    log_ratios (M, B, K), prior (K,) logits; present bool (M, B): what a rest shows. Both ways round, mean over m, in nats.
    Its minimiser is E up to constants: exp(-E) is the ratio of the joint density to the product of the marginals.
    """
    belongs = torch.arange(log_ratios.shape[1], device=log_ratios.device)
    shown = log_ratios * present[..., None]
    total, loss = shown.sum(0) + prior.log_softmax(0), 0
    for own, of_rest in zip(log_ratios, shown):
        rest = total - of_rest  # B, K
        top, own_top = rest.amax(1, keepdim=True), own.amax(1, keepdim=True)
        product = torch.exp(rest - top) @ torch.exp(own - own_top).T  # B, B: sum over the states
        logits = product.clamp_min(1e-30).log() + top + own_top.T
        loss = loss + 0.5 * (F.cross_entropy(logits, belongs) + F.cross_entropy(logits.T, belongs))
    return loss / len(log_ratios)


def kl_weight(progress, warmup, beta):
    """beta reached linearly over the share `warmup` of training; progress in [0, 1]."""
    return beta * min(1.0, progress / warmup) if warmup else beta


def cosine(progress, warmup=0.05):
    """Factor of the learning rate: a linear rise over the share `warmup` of training, then half a cosine down to 0."""
    return min(1.0, progress / warmup) * 0.5 * (1 + math.cos(math.pi * progress))
