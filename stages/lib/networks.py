"""The networks: Encoder, Decoder, Classifier, FeatureNet, Energy, Score, Annealed. Sizes come from the data, never from constants."""

import torch
from torch import nn
from torch.nn import functional as F

from stages.lib import noising

CHANNELS = (32, 64, 128)  # 3x3 convolutions of stride 2 (DESIGN, section 4)


def pyramid(size):
    """Height or width after each convolution of stride 2, the input's first: 28 -> [28, 14, 7, 4]."""
    sizes = [size]
    for _ in CHANNELS:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def flat(x):
    """Feature maps (B, C, H, W) -> (B, H*W*C): pixel by pixel, as channels_last has them in memory, so nothing is copied."""
    return x.permute(0, 2, 3, 1).flatten(1)


def initialise(net, last):
    """He initialisation, the last layer's small: PyTorch's default shrinks the signal by half a layer, and a short
    training never makes up for it (docs/experiments.md)."""
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)):
            inputs = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose2d):  # of 3x3 taps at stride 2, 9/4 reach an output pixel
                inputs = layer.weight.shape[0] * layer.weight[0, 0].numel() / 4
            nn.init.normal_(layer.weight, std=0.02 if layer is last else (2 / inputs) ** 0.5)
            nn.init.zeros_(layer.bias)


class Encoder(nn.Module):
    """q(z|x): images (B, C, H, W) -> mean and log-variance, (B, latent_dim) each."""

    def __init__(self, image_shape, latent_dim):
        super().__init__()
        channels, height, width = image_shape
        widths = (channels, *CHANNELS)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(widths, CHANNELS))
        self.out = nn.Linear(CHANNELS[-1] * pyramid(height)[-1] * pyramid(width)[-1], 2 * latent_dim)
        initialise(self, last=self.out)
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        x = 4 * (x - 0.5)  # pixels in [0, 1] -> about unit scale
        for conv in self.convs:
            x = F.silu(conv(x))
        mean, logvar = self.out(flat(x)).chunk(2, dim=1)  # B, d each
        return mean, logvar


class Decoder(nn.Module):
    """Mean of p(x|z): latents (B, latent_dim) -> images (B, C, H, W); the Encoder's mirror."""

    def __init__(self, image_shape, latent_dim):
        super().__init__()
        channels, height, width = image_shape
        heights, widths = pyramid(height)[::-1], pyramid(width)[::-1]
        self.shape = heights[0], widths[0], CHANNELS[-1]
        self.grid = nn.Linear(latent_dim, CHANNELS[-1] * heights[0] * widths[0])
        outputs = (*CHANNELS[-2::-1], channels)
        self.convs = nn.ModuleList(
            # A transposed convolution turns n into 2n - 1; the output padding makes up for even sizes.
            nn.ConvTranspose2d(a, b, 3, 2, 1, output_padding=(heights[i + 1] - 2 * heights[i] + 1,
                                                              widths[i + 1] - 2 * widths[i] + 1))
            for i, (a, b) in enumerate(zip(CHANNELS[::-1], outputs)))
        initialise(self, last=self.convs[-1])
        nn.init.constant_(self.convs[-1].bias, 0.5)  # mid-grey: pixels lie in [0, 1]
        self.to(memory_format=torch.channels_last)

    def forward(self, z):
        x = F.silu(self.grid(z)).unflatten(1, self.shape).permute(0, 3, 1, 2)  # B, 128, 4, 4, in channels_last
        for conv in self.convs[:-1]:
            x = F.silu(conv(x))
        return self.convs[-1](x)  # B, C, H, W


class Trunk(nn.Module):
    """Images (B, C, H, W) -> features (B, width): what the judges and the feature net share.

    The first convolution keeps the full resolution: digits on busy pictures are thin edges (docs/experiments.md).
    """

    def __init__(self, image_shape, width):
        super().__init__()
        channels, height, width_in = image_shape
        widths = (channels, CHANNELS[0] // 2, *CHANNELS)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 1 if i == 0 else 2, 1, bias=False)
                                   for i, (a, b) in enumerate(zip(widths, widths[1:])))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])
        self.out = nn.Linear(CHANNELS[-1] * pyramid(height)[-1] * pyramid(width_in)[-1], width)
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms):
            x = F.relu(norm(conv(x)))
        return self.out(flat(x))


class Classifier(nn.Module):
    """The judge of a modality: images (B, C, H, W) -> class logits (B, n_classes)."""

    def __init__(self, image_shape, n_classes, dropout=0.3):
        super().__init__()
        self.trunk = Trunk(image_shape, 256)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(256, n_classes)

    def forward(self, x):
        return self.head(self.dropout(F.relu(self.trunk(x))))


class FeatureNet(nn.Module):
    """Features of the offline Frechet distance: they must hold digit, modality and the background crop's position."""

    def __init__(self, image_shape, n_classes, n_modalities, feature_dim):
        super().__init__()
        self.trunk = Trunk(image_shape, feature_dim)
        self.digit = nn.Linear(feature_dim, n_classes)
        self.modality = nn.Linear(feature_dim, n_modalities)
        self.position = nn.Sequential(nn.Linear(feature_dim, 256), nn.ReLU(), nn.Linear(256, 2 * n_modalities))

        self.image_shape = tuple(image_shape)

    def fitted(self, x):
        """Images (B, C, H, W) of a modality -> of the shape this net reads: grey as colour, smaller ones enlarged."""
        channels, *size = self.image_shape
        x = x.expand(-1, channels, -1, -1)
        return x if list(x.shape[2:]) == size else F.interpolate(x, size, mode="bilinear", align_corners=False)

    def features(self, x):
        """Images (B, C, H, W) -> features (B, feature_dim), those that every head reads."""
        return F.relu(self.trunk(self.fitted(x)))

    def forward(self, x):
        h = self.features(x)
        return self.digit(h), self.modality(h), self.position(h).unflatten(1, (-1, 2))  # (y, x) for each modality


def mlp(inputs, hidden, layers, outputs):
    """`layers` hidden layers with SiLU; smooth, since its gradient is what is trained."""
    widths = [inputs] + [hidden] * layers
    blocks = [part for a, b in zip(widths, widths[1:]) for part in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*blocks, nn.Linear(hidden, outputs))


class Energy(nn.Module):
    """E(z): latents of all modalities (B, M*d) -> energy (B,); p(z) is proportional to exp(-E(z)) (paper, section 3).

    The quadratic term keeps p(z) normalisable far from the data, where the MLP grows only linearly.
    """

    def __init__(self, dim, hidden, layers):
        super().__init__()
        self.net = mlp(dim, hidden, layers, 1)

    def forward(self, z):
        return 0.5 * z.square().sum(1) + self.net(z).squeeze(1)

    def score(self, z, create_graph=False):
        """S(z) = -grad E(z), shape (B, M*d); with `create_graph` it can be trained through."""
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            return -torch.autograd.grad(self(z).sum(), z, create_graph=create_graph)[0]


class Score(nn.Module):
    """A free vector field S(z) (B, M*d) -> (B, M*d), as the paper also trains; it need not be a gradient."""

    NODES = 8  # of the quadrature in `forward`

    def __init__(self, dim, hidden, layers):
        super().__init__()
        self.net = mlp(dim, hidden, layers, dim)

    def score(self, z, create_graph=False):
        return self.net(z) - z

    def forward(self, z):
        """E(z) - E(0) along the straight line, -int_0^1 S(tz).z dt by the midpoint rule; exact for a linear gradient field."""
        t = (torch.arange(self.NODES, device=z.device) + 0.5) / self.NODES
        points = t[:, None, None] * z  # nodes, B, D
        return -(self.score(points.flatten(0, 1)).view_as(points) * z).sum(2).mean(0)


def joint(model, dim, hidden, layers):
    """The joint model by its name in params.yaml: `energy` or `score`."""
    return {"energy": Energy, "score": Score}[model](dim, hidden, layers)


class SideBySide(nn.Module):
    """An MLP a modality, all evaluated at once: (M, B, inputs) -> (M, B, outputs).

    With `chosen`, bool (M,), only theirs: (C, B, inputs) -> (C, B, outputs).
    """

    def __init__(self, modalities, widths):
        super().__init__()
        pairs = list(zip(widths, widths[1:]))
        self.weights = nn.ParameterList(torch.randn(modalities, a, b) * (2 / a) ** 0.5 for a, b in pairs)
        self.biases = nn.ParameterList(torch.zeros(modalities, 1, b) for _, b in pairs)
        self.weights[-1].data *= 0.1  # outputs near zero at first

    def forward(self, x, chosen=None):
        pick = lambda part: part if chosen is None else part[chosen]
        for weight, bias in zip(self.weights[:-1], self.biases):
            x = F.silu(torch.baddbmm(pick(bias), x, pick(weight)))  # M, B, hidden
        return torch.baddbmm(pick(self.biases[-1]), x, pick(self.weights[-1]))


class Annealed(nn.Module):
    """A noise-conditional energy over all modalities' latents: p_t(z) = prod_m p_t(z_m) exp(-E(z, t)).

    The energy couples the modalities: E(z, t) = -log sum_k pi_k prod_m r_mk(z_m, t_m), over shared states k, r_mk being how
    much likelier state k makes z_m. A modality that is left out of E is marginalised. `base` is a denoiser a modality, told
    how likely each state is: by the prior it gives the score of p_t(z_m), by what the other modalities say that of
    p_t(z_m | the others). z is (M, B, d), t (M, B); see noising for the levels t.
    """

    def __init__(self, modalities, dim, hidden, states):
        super().__init__()
        inputs = dim + noising.EMBEDDING
        self.base = SideBySide(modalities, [inputs + states, hidden, hidden, hidden, dim])
        self.ratios = SideBySide(modalities, [inputs, hidden, hidden, states])
        self.prior = nn.Parameter(torch.zeros(states))  # logits of pi

    def denoise(self, z, t, states, chosen=None):
        """Estimates of the clean latents and of the noise by `base`, (M, B, d) each, from z = alpha x + sigma eps.

        `states` (M, B, K), or (K,) for all, are the probabilities of the shared states that it is told; `chosen` as in
        SideBySide. The network predicts alpha eps - sigma x (Salimans and Ho 2022), which is of unit scale at every level.
        """
        alpha, sigma = (part[..., None] for part in noising.signal_and_noise(t))
        v = self.base(torch.cat([z, noising.embed(t), states.expand(*t.shape, -1)], -1), chosen)
        return alpha * z - sigma * v, sigma * z + alpha * v

    def log_ratios(self, z, t, chosen=None):
        """log r_mk(z_m, t_m) of every modality and state, (M, B, K); `chosen` as in SideBySide."""
        return self.ratios(torch.cat([z, noising.embed(t)], -1), chosen)

    def untold(self):
        """The prior probabilities of the shared states, (K,): all there is to tell where nothing is known."""
        return self.prior.softmax(0)

    def rest(self, z, t):
        """Probabilities of the shared states given all modalities but each one, (M, B, K)."""
        log_r = self.log_ratios(z, t)
        return (self.prior + log_r.sum(0) - log_r).softmax(-1)

    def forward(self, z, t):
        """E(z, t), (B,)."""
        return -torch.logsumexp(self.prior.log_softmax(0) + self.log_ratios(z, t).sum(0), -1)

    def pull(self, z, t, create_graph=False):
        """-grad_z E(z, t), (M, B, d): where the other modalities pull each one."""
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            return -torch.autograd.grad(self(z, t).sum(), z, create_graph=create_graph)[0]

    def noise(self, z, t, guidance=0.0):
        """Estimate of the noise in z under p_t, (M, B, d), each modality given the others: -sigma times the score.

        It is the denoiser's, told what the others say; `guidance` times the energy's pull comes on top.
        """
        _, sigma = noising.signal_and_noise(t)
        with torch.no_grad():
            _, told = self.denoise(z, t, self.rest(z, t))
        return told - guidance * sigma[..., None] * self.pull(z, t)

    def noise_given(self, observed, free, guidance=0.0, below=1.0, evidence=1.0):
        """`noise` of the free modalities (bool (M,)) alone, the others of `observed` (M, B, d) standing at level 0.

        Returns a function of z and t of the free ones, (F, B, d) and (F, B). The same as `noise` for about half the work:
        what is observed speaks once, and nothing is computed that sampling would throw away. The energy pulls at levels up
        to `below` only (Kynkäänniemi et al. 2024); what the observed say of the states counts `evidence` times: above 1
        the likeliest state is drawn more often than its probability says, 1 is p_t as fitted.
        """
        with torch.no_grad():
            clean = observed[~free]
            said = self.prior + evidence * self.log_ratios(clean, clean.new_zeros(clean.shape[:2]), ~free).sum(0)  # B, K

        def estimate(z, t):
            _, sigma = noising.signal_and_noise(t)
            pulls = guidance > 0 and bool(t.max() <= below)
            with torch.set_grad_enabled(pulls):
                z = z.detach().requires_grad_(pulls)
                log_r = self.log_ratios(z, t, free)  # F, B, K
                states = said + log_r.sum(0)
                pull = torch.autograd.grad(torch.logsumexp(states, -1).sum(), z)[0] if pulls else 0
            with torch.no_grad():
                _, told = self.denoise(z, t, (states - log_r).softmax(-1), free)
            return told - guidance * sigma[..., None] * pull

        return estimate
