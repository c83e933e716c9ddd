"""Gaussian experts: product, mixture, mixture of products, and their KL divergences.

An expert is N(mean, diag exp(logvar)). Experts of M modalities come stacked: mean and logvar of
shape (M, B, D).
"""

import torch


def sample(mean, logvar, eps):
    """Reparameterised sample: mean + sigma * eps, all of one shape."""
    return mean + torch.exp(0.5 * logvar) * eps


def product(mean, logvar, prior=False):
    """Product of Gaussian experts over the first dimension (Hinton 2002): precisions add.

    mean, logvar (M, B, D) -> (B, D) each. With `prior`, N(0, I) is one more expert (MVAE, Wu and
    Goodman 2018). Computed relative to the sharpest expert, so that extreme variances neither
    overflow nor vanish.
    """
    if prior:
        mean = torch.cat([mean, torch.zeros_like(mean[:1])])
        logvar = torch.cat([logvar, torch.zeros_like(logvar[:1])])
    weight = torch.softmax(-logvar, dim=0)  # M, B, D
    return (weight * mean).sum(0), -torch.logsumexp(-logvar, dim=0)


def subset_products(mean, logvar, members):
    """Product of the experts of each of K subsets at once.

    mean, logvar (M, B, D); members bool (K, M), no empty row -> (K, B, D) each.
    """
    # Precisions relative to the sharpest neither overflow nor, but for absurd ones, vanish.
    sharpest = logvar.detach().amin(0)  # B, D
    precision = torch.exp(sharpest - logvar)  # M, B, D in (0, 1]
    inside = members.to(mean)
    total = torch.tensordot(inside, precision, 1).clamp_min(torch.finfo(mean.dtype).tiny)  # K, B, D
    return torch.tensordot(inside, precision * mean, 1) / total, sharpest - total.log()


def choose(mean, logvar, component):
    """The expert component[b] (int64, (B,)) of each item: (K, B, D) -> (B, D) each.

    A mixture is sampled this way.
    """
    index = component.view(1, -1, 1).expand(1, -1, mean.shape[2])  # 1, B, D
    return mean.gather(0, index)[0], logvar.gather(0, index)[0]


def kl_from_prior(mean, logvar):
    """KL(N(mean, exp logvar) || N(0, I)) in nats, summed over the last dimension."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1)


def kl(mean_p, logvar_p, mean_q, logvar_q):
    """KL(p || q) of two diagonal Gaussians in nats, summed over the last dimension."""
    ratio = logvar_p - logvar_q
    distance = (mean_p - mean_q).square() * torch.exp(-logvar_q)
    return 0.5 * (ratio.exp() + distance - 1 - ratio).sum(-1)
