"""The noise-conditional energy over the latents of all modalities (docs/method.md)."""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from ebmvae.annealed.noise import EMBEDDING, alpha_sigma, embed_level


class ModalityMLPs(nn.Module):
    """One MLP per modality, all evaluated at once: (B, M, inputs) -> (B, M, outputs).

    With `chosen`, bool (M,), only theirs: (B, C, inputs) -> (B, C, outputs).
    """

    def __init__(self, modalities, widths):
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList(
            torch.randn(modalities, a, b) * (2 / a) ** 0.5 for a, b in pairs
        )
        self.biases = nn.ParameterList(torch.zeros(modalities, 1, b) for _, b in pairs)
        self.weights[-1].data *= 0.1  # outputs near zero at first

    def forward(self, x, chosen=None):
        weights, biases = list(self.weights), list(self.biases)
        if chosen is not None:
            weights = [weight[chosen] for weight in weights]
            biases = [bias[chosen] for bias in biases]
        x = x.transpose(0, 1)  # M, B, inputs: a batch of matrix products
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = F.silu(torch.baddbmm(bias, x, weight))  # M, B, hidden
        return torch.baddbmm(biases[-1], x, weights[-1]).transpose(0, 1)


class AnnealedEnergy(nn.Module):
    """p_t(z) = prod_m p_t(z_m) exp(-E(z, t)): what the modalities are by themselves, and together.

    The energy couples them: E(z, t) = -log sum_k pi_k prod_m r_mk(z_m, t_m), over latent classes k.
    r_mk says how much likelier class k makes z_m; leaving a modality out of the product
    marginalises it. Beside it stands one denoiser per modality, conditional on class probabilities:
    on the prior it gives the score of p_t(z_m), on those given the other modalities that of p_t(z_m
    | others).

    z is (B, M, d); t, (B, M), are noise levels (annealed/noise.py).
    """

    def __init__(self, modalities, dim, hidden, latent_classes):
        super().__init__()
        inputs = dim + EMBEDDING
        self.denoisers = ModalityMLPs(
            modalities, [inputs + latent_classes, hidden, hidden, hidden, dim]
        )
        self.ratios = ModalityMLPs(modalities, [inputs, hidden, hidden, latent_classes])
        self.class_logits = nn.Parameter(torch.zeros(latent_classes))  # of pi

    def v(self, z, t, class_probs, chosen=None):
        """The denoisers' v-prediction, alpha eps - sigma x0, (B, M, d) (Salimans and Ho 2022).

        It is of unit scale at every level. class_probs: (B, M, K), or (K,) for all.
        """
        class_probs = class_probs.expand(*t.shape, -1)
        return self.denoisers(torch.cat([z, embed_level(t), class_probs], -1), chosen)

    def eps(self, z, t, class_probs, chosen=None):
        """The denoisers' estimate of the noise in z; the score of p_t is -eps / sigma."""
        alpha, sigma = (part[..., None] for part in alpha_sigma(t))
        return sigma * z + alpha * self.v(z, t, class_probs, chosen)

    def log_ratios(self, z, t, chosen=None):
        """log r_mk(z_m, t_m), (B, M, K)."""
        return self.ratios(torch.cat([z, embed_level(t)], -1), chosen)

    def prior(self):
        """Prior probabilities pi of the latent classes, (K,)."""
        return self.class_logits.softmax(0)

    def class_probs_given_others(self, z, t):
        """Probabilities of the latent classes given all modalities but one, for each, (B, M, K)."""
        log_r = self.log_ratios(z, t)
        return (self.class_logits + log_r.sum(1, keepdim=True) - log_r).softmax(-1)

    def forward(self, z, t):
        """E(z, t), (B,)."""
        joint = self.class_logits.log_softmax(0) + self.log_ratios(z, t).sum(1)
        return -torch.logsumexp(joint, -1)

    def score(self, z, t, create_graph=False):
        """-grad_z E(z, t), (B, M, d): what the coupling adds to the scores of the modalities."""
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            return -torch.autograd.grad(self(z, t).sum(), z, create_graph=create_graph)[0]
