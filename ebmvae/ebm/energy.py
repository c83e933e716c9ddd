"""The joint energy E(z) over the latents of all modalities (paper, section 3), and a free field."""

import itertools

import torch
from torch import nn


def mlp(inputs, hidden, layers, outputs):
    """`layers` hidden layers with SiLU; smooth, since its gradient is what is trained."""
    widths = [inputs] + [hidden] * layers
    blocks = [(nn.Linear(a, b), nn.SiLU()) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain(*blocks), nn.Linear(hidden, outputs))


class Energy(nn.Module):
    """E(z): latents of all modalities (B, M, d) -> energy (B,); p(z) is proportional to exp(-E(z)).

    The quadratic term keeps p(z) normalisable far from the data, where the MLP grows only linearly.
    dim is M * d.
    """

    def __init__(self, dim, hidden, layers):
        super().__init__()
        self.net = mlp(dim, hidden, layers, 1)

    def forward(self, z):
        z = z.flatten(1)  # B, M*d
        return 0.5 * z.square().sum(1) + self.net(z).squeeze(1)

    def score(self, z, create_graph=False):
        """S(z) = -grad E(z), shape (B, M, d); with `create_graph` it can be trained through."""
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            return -torch.autograd.grad(self(z).sum(), z, create_graph=create_graph)[0]


class ScoreField(nn.Module):
    """A free vector field S(z), (B, M, d) -> (B, M, d); it need not be a gradient. dim is M * d."""

    def __init__(self, dim, hidden, layers):
        super().__init__()
        self.net = mlp(dim, hidden, layers, dim)

    def score(self, z, create_graph=False):
        """S(z), shape (B, M, d)."""
        return self.net(z.flatten(1)).view_as(z) - z

    def forward(self, z, nodes=8):
        """E(z) - E(0), (B,): minus the integral over t in [0, 1] of S(tz).z, by the midpoint rule.

        Exact for a linear gradient field.
        """
        t = (torch.arange(nodes, device=z.device) + 0.5) / nodes
        points = t.view(-1, *[1] * z.ndim) * z  # nodes, B, M, d
        fields = self.score(points.flatten(0, 1)).view_as(points)
        return -(fields * z).flatten(2).sum(2).mean(0)


MODELS = {"energy": Energy, "score": ScoreField}  # by their names in params.yaml


def build(model, dim, hidden, layers):
    """The joint model by its name in params.yaml: `energy` or `score`."""
    return MODELS[model](dim, hidden, layers)
