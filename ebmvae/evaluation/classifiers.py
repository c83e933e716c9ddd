"""Networks of the ruler: a digit classifier per modality, and the feature net."""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from ebmvae.core.shapes import flatten_maps, pyramid

CHANNELS = (32, 64, 128)  # of the 3x3 convolutions of stride 2


class Trunk(nn.Module):
    """Images (B, C, H, W) -> features (B, width): what the classifiers and the feature net share.

    The first convolution keeps the full resolution: digits on busy pictures are thin edges
    (docs/notebook/round-1.md).
    """

    def __init__(self, image_shape, width):
        super().__init__()
        channels, height, width_in = image_shape
        widths = (channels, CHANNELS[0] // 2, *CHANNELS)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, 1 if i == 0 else 2, 1, bias=False)
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])
        pixels = pyramid(height)[-1] * pyramid(width_in)[-1]
        self.out = nn.Linear(CHANNELS[-1] * pixels, width)
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return self.out(flatten_maps(x))


class Classifier(nn.Module):
    """The classifier of one modality: images (B, C, H, W) -> class logits (B, n_classes)."""

    def __init__(self, image_shape, n_classes, width=256, dropout=0.3):
        super().__init__()
        self.trunk = Trunk(image_shape, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x):
        return self.head(self.dropout(F.relu(self.trunk(x))))


class FeatureNet(nn.Module):
    """Features of the offline Fréchet distance.

    They hold the digit, the modality and the background crop's position.
    """

    def __init__(self, image_shape, n_classes, n_modalities, feature_dim, hidden=256):
        super().__init__()
        self.trunk = Trunk(image_shape, feature_dim)
        self.digit = nn.Linear(feature_dim, n_classes)
        self.modality = nn.Linear(feature_dim, n_modalities)
        self.position = nn.Sequential(
            nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Linear(hidden, 2 * n_modalities)
        )
        self.image_shape = tuple(image_shape)

    def fitted(self, x):
        """Images (B, C, H, W) of one modality -> of the shape this net reads.

        Grey images become coloured, smaller ones are enlarged.
        """
        channels, *size = self.image_shape
        x = x.expand(-1, channels, -1, -1)
        if list(x.shape[2:]) == size:
            return x
        return F.interpolate(x, size, mode="bilinear", align_corners=False)

    def features(self, x):
        """Images (B, C, H, W) -> features (B, feature_dim), those that every head reads."""
        return F.relu(self.trunk(self.fitted(x)))

    def forward(self, x):
        """Digit logits (B, classes), modality logits (B, M), and (y, x) per modality, (B, M, 2)."""
        h = self.features(x)
        return self.digit(h), self.modality(h), self.position(h).unflatten(1, (-1, 2))
