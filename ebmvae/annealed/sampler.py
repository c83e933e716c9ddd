"""Sampling of what is not observed, down the noise levels: pure functions."""

from collections.abc import Callable, Sequence

import torch

from ebmvae.annealed.model import AnnealedEnergy
from ebmvae.annealed.noise import alpha_sigma
from ebmvae.core.random import normal_per_sample

load = AnnealedEnergy  # the network of a fitted energy, from its constructor arguments


def ancestral(eps_of, observed, free, seeds, steps, first=0.98, last=0.02, callback=None):
    """Ancestral sampling (Ho et al. 2020) of the free modalities, given the observed ones.

    eps_of: z (B, M, d), t (B, M) -> noise in z (B, M, d), called `steps` times at levels from
    `first` to `last`; observed (B, M, d), ignored where `free` (bool (M,)); seeds: B integers.
    Observed modalities stand at level 0 throughout. The last call denoises: returns (B, M, d),
    clean where free. callback(step, z) sees every state.
    """
    shape = (steps, *observed.shape[1:])
    noise = normal_per_sample(shape, seeds).to(observed.device).transpose(0, 1)  # steps, B, M, d
    levels = torch.linspace(first, last, steps, device=observed.device)
    moving = free[:, None]  # M, 1
    z = torch.where(moving, noise[0], observed)
    for i, level in enumerate(levels):
        if callback:
            callback(i, z)
        eps = eps_of(z, torch.where(free, level, 0.0).expand(len(z), -1))
        alpha, sigma = alpha_sigma(level)
        x0 = (z - sigma * eps) / alpha
        if i + 1 < steps:
            alpha_next, sigma_next = alpha_sigma(levels[i + 1])
            # The share of noise that is drawn anew, and the one that is kept.
            fresh = sigma_next / sigma * (1 - (alpha / alpha_next) ** 2).sqrt()
            kept = (sigma_next**2 - fresh**2).sqrt()
            z = alpha_next * x0 + kept * eps + fresh * noise[i + 1]
            z = torch.where(moving, z, observed)
    z = torch.where(moving, x0, observed)
    if callback:
        callback(steps, z)
    return z


def guided_eps(model, z, t, guidance_scale=0.0):
    """Noise in z under p_t, (B, M, d), each modality given the others: the plain reference.

    The conditional denoiser's estimate, less guidance_scale * sigma * (-grad E).
    """
    _, sigma = alpha_sigma(t)
    with torch.no_grad():
        conditional = model.eps(z, t, model.class_probs_given_others(z, t))
    return conditional - guidance_scale * sigma[..., None] * model.score(z, t)


def eps_given(model, observed, free, guidance_scale=0.0, guidance_below=1.0, class_power=1.0):
    """`guided_eps` of the free modalities alone, the others of `observed` (B, M, d) at level 0.

    Returns a function of z, t of the free ones, (B, F, d) and (B, F), for half the work: what is
    observed is looked at once, and nothing is computed that sampling would throw away.
    guidance_below: the level up to which the energy guides (Kynkaanniemi et al. 2024).
    class_power: how often the observed count in the class probabilities; 1 is p_t as fitted, more
    draws the likeliest class more often than its probability says.
    """
    with torch.no_grad():
        clean = observed[:, ~free]
        log_r = model.log_ratios(clean, clean.new_zeros(clean.shape[:2]), ~free)
        class_logits = model.class_logits + class_power * log_r.sum(1)  # B, K

    def eps_of(z, t):
        _, sigma = alpha_sigma(t)
        guided = guidance_scale > 0 and bool((t <= guidance_below).all())
        with torch.set_grad_enabled(guided):
            z = z.detach().requires_grad_(guided)
            log_r = model.log_ratios(z, t, free)  # B, F, K
            joint = class_logits + log_r.sum(1)  # B, K
            score = torch.autograd.grad(torch.logsumexp(joint, -1).sum(), z)[0] if guided else 0
        with torch.no_grad():
            given_others = (joint[:, None] - log_r).softmax(-1)
            conditional = model.eps(z, t, given_others, free)
        return conditional - guidance_scale * sigma[..., None] * score

    return eps_of


def sample(
    model: AnnealedEnergy,
    observed: torch.Tensor,
    free: torch.Tensor,
    seeds: Sequence[int],
    options,
    callback: Callable[[int, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Draw the free modalities (bool (M,)) given the others of `observed` (B, M, d), standardised.

    seeds: B integers; options: the section `annealed` of params.yaml. Returns (B, M, d).
    """
    n_observed = max(1, int((~free).sum()))
    free_eps = eps_given(
        model,
        observed,
        free,
        options.guidance_scale,
        options.guidance_below,
        1 + options.class_guidance / n_observed,
    )

    def eps_of(z, t):
        eps = torch.zeros_like(z)  # B, M, d
        eps[:, free] = free_eps(z[:, free], t[:, free])
        return eps

    return ancestral(eps_of, observed, free, seeds, options.steps, callback=callback)


@torch.no_grad()
def energy(model, z):
    """E (B,) of standardised latents (B, M, d) at level 0: lower where they go together."""
    return model(z, z.new_zeros(z.shape[:2]))


def widen(std, options):
    """Standard deviations of the posteriors to condition on: as they are."""
    return std


def steps(options):
    """How many steps `sample` takes."""
    return options.steps
