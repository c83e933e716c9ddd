"""Eq. 1 of the paper: three ways to the same optimum. score: (B, M, d) -> (B, M, d).

Each returns a scalar to minimise, in nats per tuple.
"""

import torch


def exact(score, z):
    """Eq. 1: E [tr grad S(z) + 1/2 |S(z)|^2] (Hyvarinen 2005); z (B, M, d).

    It takes M * d backward passes: for small latents, and as a reference.
    """

    def flat_score(point):  # (M*d,) -> (M*d,)
        return score(point.view(1, *z.shape[1:])).flatten()

    jacobian = torch.func.vmap(torch.func.jacrev(flat_score))(z.flatten(1))  # B, D, D
    trace = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    return (trace + 0.5 * score(z).flatten(1).square().sum(1)).mean()


def sliced(score, z, probe):
    """Eq. 1 with Hutchinson's trace v' grad S v (Song et al. 2019).

    probe: v, (B, M, d) of +-1; exact where grad S is diagonal.
    """
    z = z.detach().requires_grad_()
    s = score(z)
    product = torch.autograd.grad((s * probe).sum(), z, create_graph=True)[0]  # v' grad S
    trace = (product * probe).flatten(1).sum(1)
    return (trace + 0.5 * s.flatten(1).square().sum(1)).mean()


def denoising(score, z, mean, std):
    """Eq. 1 up to a constant, q(z|x) = N(mean, std^2) being the kernel (Vincent 2011).

    1/2 E |S(z) + (z - mean)/std^2|^2, less the square of the target, which has no parameters: so
    its values compare with those of the other two. z, mean, std (B, M, d).
    """
    s = score(z)
    return (0.5 * s.square() + s * (z - mean) / std.square()).flatten(1).sum(1).mean()
