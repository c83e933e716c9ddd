"""Likelihoods: -log p(x|z) in nats per item, x and recon (B, C, H, W) -> (B,).

Constants without parameters are left out. A new one is a function here and an entry of NLL.
"""


def gaussian_nll(x, recon, scale):
    """N(recon, scale^2 I); at scale sqrt(1/2) the summed squared error."""
    return (x - recon).square().flatten(1).sum(1) / (2 * scale**2)


def laplace_nll(x, recon, scale):
    """Laplace(recon, scale)."""
    return (x - recon).abs().flatten(1).sum(1) / scale


def correlated_nll(x, recon, scale):
    """N(recon, scale^2 (I + D'D)^-1), D the differences of neighbouring pixels.

    An error along an edge, as where a stroke ends, costs more than the same error spread out.
    """
    error = x - recon
    across = error.diff(dim=2).square().flatten(1).sum(1)
    edges = across + error.diff(dim=3).square().flatten(1).sum(1)
    return (error.square().flatten(1).sum(1) + edges) / (2 * scale**2)


NLL = {"gaussian": gaussian_nll, "laplace": laplace_nll, "correlated": correlated_nll}
