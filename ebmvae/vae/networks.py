"""Encoder and decoder. Sizes come from the data, never from constants."""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from ebmvae.core.shapes import flatten_maps, pyramid

CHANNELS = (32, 64, 128)  # 3x3 convolutions of stride 2


def initialise(net, last):
    """He initialisation, the last layer's small.

    PyTorch's default halves the signal in every layer, and a short training never makes up for it
    (docs/notebook/round-1.md).
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            inputs = layer.weight[0].numel()
            if isinstance(
                layer, nn.ConvTranspose2d
            ):  # of 3x3 taps at stride 2, 9/4 reach an output pixel
                inputs = layer.weight.shape[0] * layer.weight[0, 0].numel() / 4
            nn.init.normal_(layer.weight, std=0.02 if layer is last else (2 / inputs) ** 0.5)
            nn.init.zeros_(layer.bias)


class Encoder(nn.Module):
    """q(z|x): images (B, C, H, W) -> mean and log-variance, (B, latent_dim) each."""

    def __init__(self, image_shape, latent_dim):
        super().__init__()
        channels, height, width = image_shape
        widths = (channels, *CHANNELS)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))
        self.out = nn.Linear(
            CHANNELS[-1] * pyramid(height)[-1] * pyramid(width)[-1], 2 * latent_dim
        )
        initialise(self, last=self.out)
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        x = 4 * (x - 0.5)  # pixels in [0, 1] -> about unit scale
        for conv in self.convs:
            x = F.silu(conv(x))
        mean, logvar = self.out(flatten_maps(x)).chunk(2, dim=1)  # B, d each
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
            # A transposed convolution turns n into 2n - 1; the padding makes up for even sizes.
            nn.ConvTranspose2d(
                a,
                b,
                3,
                2,
                1,
                output_padding=(
                    heights[i + 1] - 2 * heights[i] + 1,
                    widths[i + 1] - 2 * widths[i] + 1,
                ),
            )
            for i, (a, b) in enumerate(zip(CHANNELS[::-1], outputs, strict=True))
        )
        initialise(self, last=self.convs[-1])
        nn.init.constant_(self.convs[-1].bias, 0.5)  # mid-grey: pixels lie in [0, 1]
        self.to(memory_format=torch.channels_last)

    def forward(self, z):
        x = F.silu(self.grid(z)).unflatten(1, self.shape).permute(0, 3, 1, 2)  # B, 128, 4, 4
        for conv in self.convs[:-1]:
            x = F.silu(conv(x))
        return self.convs[-1](x)  # B, C, H, W
