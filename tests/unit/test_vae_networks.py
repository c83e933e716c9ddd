"""Encoder and decoder: sizes follow the data, and an untrained network keeps the signal's scale."""

import itertools

import pytest
import torch
from torch import nn

from ebmvae.core.shapes import flatten_maps, pyramid
from ebmvae.vae.networks import Decoder, Encoder
from tests.unit.reference import build, randn

SHAPES = pytest.mark.parametrize("shape", [(3, 28, 28), (1, 20, 36), (3, 29, 17)], ids=str)


@pytest.mark.parametrize("size, expected", [(28, [28, 14, 7, 4]), (29, [29, 15, 8, 4])])
def test_pyramid_is_what_convolutions_do(size, expected):
    assert pyramid(size) == expected
    conv = nn.Conv1d(1, 1, 3, 2, 1)
    for before, after in itertools.pairwise(expected):
        assert conv(torch.zeros(1, before)).shape[-1] == after


def test_maps_are_flattened_pixel_by_pixel_without_a_copy():
    x = torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    flat = flatten_maps(x)
    assert flat.tolist() == [[x[0, c, i, j] for i in range(3) for j in range(4) for c in range(2)]]
    assert flat.data_ptr() == x.data_ptr()


@SHAPES
def test_decoder_mirrors_the_encoder(shape):
    decoder, sizes = build(Decoder, shape, 6), []
    x = decoder.grid(torch.zeros(1, 6)).unflatten(1, decoder.shape).permute(0, 3, 1, 2)
    for conv in (*decoder.convs, None):
        sizes.append(tuple(x.shape[-2:]))
        x = conv(x) if conv else x
    assert sizes[::-1] == list(zip(pyramid(shape[1]), pyramid(shape[2]), strict=True))


@SHAPES
def test_every_weight_is_used(shape):
    """All weights get a gradient: no layer is forgotten in a forward pass."""
    for net, x in [
        (build(Encoder, shape, 6), torch.rand(4, *shape)),
        (build(Decoder, shape, 6), torch.randn(4, 6)),
    ]:
        out = net(x)
        sum(part.square().sum() for part in (out if isinstance(out, tuple) else [out])).backward()
        assert all(weight.grad.any() for weight in net.parameters())


def test_initial_weights_keep_the_signals_scale():
    """He initialisation with a small last layer: hidden activations near 1, outputs near 0."""
    encoder, decoder = build(Encoder, (3, 28, 28), 16), build(Decoder, (3, 28, 28), 64)
    x = 4 * (torch.rand(16, 3, 28, 28, generator=torch.Generator().manual_seed(0)) - 0.5)
    for conv in encoder.convs:
        x = nn.functional.silu(conv(x))
        assert 0.4 < x.square().mean().sqrt().item() < 1.6
    x = randn(16, 64, dtype=torch.float32)
    x = nn.functional.silu(decoder.grid(x)).unflatten(1, decoder.shape).permute(0, 3, 1, 2)
    for conv in decoder.convs[:-1]:
        x = nn.functional.silu(conv(x))
        assert 0.4 < x.square().mean().sqrt().item() < 1.6
    assert decoder.convs[-1].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert encoder.out.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not encoder.out.bias.any()


@SHAPES
def test_an_untrained_decoder_is_grey(shape):
    """At z = 0 nothing but the last bias counts, and pixels lie in [0, 1]: exactly 0.5."""
    decoded = build(Decoder, shape, 6)(torch.zeros(2, 6))
    assert torch.equal(decoded, torch.full((2, *shape), 0.5))
