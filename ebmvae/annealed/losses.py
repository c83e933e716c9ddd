"""Losses of the noise-conditional energy: InfoNCE for its values, score matching for its gradient.

Latents are (B, M, d), levels (B, M). Posterior means and standard deviations are standardised.
"""

import torch
from torch.nn import functional as F

from ebmvae.annealed.noise import add_noise, alpha_sigma


def denoising(model, x0, t, eps, class_probs):
    """Denoising score matching of the denoisers, given `class_probs` (B, M, K).

    The mean squared error of their v-prediction.
    """
    alpha, sigma = (part[..., None] for part in alpha_sigma(t))
    v = model.v(add_noise(x0, t, eps), t, class_probs)
    return (v - (alpha * eps - sigma * x0)).square().mean()


def score_matching(model, z, t, eps):
    """Denoising score matching of the energy's gradient at levels t.

    Levels are 0 where a modality is observed.

    The noise estimate is the unconditional denoiser's, a constant here, less sigma times -grad E.
    Returns its squared error, summed over free coordinates, halved, per tuple.
    """
    _, sigma = alpha_sigma(t)
    with torch.no_grad():
        unconditional = model.eps(z, t, model.prior())
    error = unconditional - sigma[..., None] * model.score(z, t, create_graph=True) - eps
    return 0.5 * (error.square() * (t > 0)[..., None]).sum() / len(z)


def infonce(log_ratios, class_logits, present):
    """InfoNCE (van den Oord et al. 2018): which z_m of the batch belongs to these other modalities?

    log_ratios (B, M, K), class_logits (K,); present bool (B, M): which modalities count among the
    others. Both ways round, mean over m, in nats. Its minimiser is E up to constants: exp(-E) is
    the ratio of the joint density to the product of the marginals.
    """
    partner = torch.arange(len(log_ratios), device=log_ratios.device)
    shown = log_ratios * present[..., None]
    joint = shown.sum(1) + class_logits.log_softmax(0)  # B, K
    total = 0
    for own, own_shown in zip(log_ratios.unbind(1), shown.unbind(1), strict=True):
        others = joint - own_shown  # B, K
        top, own_top = others.amax(1, keepdim=True), own.amax(1, keepdim=True)
        product = torch.exp(others - top) @ torch.exp(own - own_top).T  # B, B: sum over classes
        logits = product.clamp_min(1e-30).log() + top + own_top.T
        total = total + F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)
    return 0.5 * total / log_ratios.shape[1]


def infonce_loss(
    model, mean, std, generator, clean_share=0.5, same_level_share=0.5, present_share=0.75
):
    """`infonce` of posterior samples N(mean, std^2), (B, M, d), some of them noised.

    clean_share: of the modalities, at level 0; the others at any level, in `same_level_share` of
    the tuples at the same one, as sampling has it. present_share: of the modalities, shown.
    """
    batch, modalities, _ = mean.shape
    uniform, normal = _draws(generator)
    levels = torch.where(
        uniform(batch, 1) < same_level_share, uniform(batch, 1), uniform(batch, modalities)
    )
    t = torch.where(uniform(batch, modalities) < clean_share, 0.0, levels)
    z = add_noise(mean + std * normal(mean), t, normal(mean))
    present = uniform(batch, modalities) < present_share
    return infonce(model.log_ratios(z, t), model.class_logits, present)


def joint_loss(
    model,
    mean,
    std,
    generator,
    unconditional_share=0.2,
    nothing_observed_share=0.125,
    min_level=0.005,
):
    """The whole objective on posteriors N(mean, std^2), (B, M, d), and its parts.

    What is observed is a posterior sample, what is generated a posterior mean at a noise level
    from min_level to 1 - min_level. unconditional_share: of the modalities, whose denoiser is
    conditional on nothing. nothing_observed_share: of the tuples, generated from nothing; in the
    others every number of observed modalities is as frequent.
    """
    batch, modalities, _ = mean.shape
    uniform, normal = _draws(generator)
    observed = uniform(batch, modalities) < uniform(batch, 1)
    observed[: int(batch * nothing_observed_share)] = False
    t = torch.where(observed, 0.0, _levels(uniform(batch, 1), min_level))
    eps = normal(mean)
    x0 = torch.where(observed[..., None], mean + std * normal(mean), mean)
    z = add_noise(x0, t, eps)
    parts = {"score": score_matching(model, z, t, eps)}
    with torch.no_grad():
        class_probs = torch.where(
            uniform(batch, modalities, 1) < unconditional_share,
            model.prior(),
            model.class_probs_given_others(z, t),
        )
    # Levels of its own: the observed modalities of this tuple are denoised too.
    t = _levels(uniform(batch, modalities), min_level)
    parts["denoising"] = denoising(model, mean, t, normal(mean), class_probs)
    parts["infonce"] = infonce_loss(model, mean, std, generator)
    return sum(parts.values()), parts


def _levels(uniform, min_level):
    """Noise levels from min_level to 1 - min_level."""
    return min_level + (1 - 2 * min_level) * uniform


def _draws(generator):
    """Two functions: uniform numbers of a shape, and normal ones of the shape of a tensor."""

    def uniform(*shape):
        return torch.rand(shape, generator=generator, device=generator.device)

    def normal(like):
        return torch.randn(like.shape, generator=generator, device=generator.device)

    return uniform, normal
