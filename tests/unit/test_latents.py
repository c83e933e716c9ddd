"""Latents on disk: shapes, the moments of the aggregate posterior, and its units."""

import pytest
import torch

from ebmvae.core import artifacts
from ebmvae.core.messages import UserError
from ebmvae.data import latents

N, M, D = 6, 2, 4


def save(folder, mean, logvar):
    tensors = {"mean": mean, "logvar": logvar}
    artifacts.save_tensors(folder / "test.safetensors", tensors, {"modalities": ["m1", "m2"]})


def test_latents_round_trip(tmp_path):
    mean, logvar = torch.zeros(N, M, D), torch.ones(N, M, D)
    save(tmp_path, mean, logvar)
    loaded = latents.load_latents("test", folder=tmp_path)
    assert torch.equal(loaded[0], mean) and torch.equal(loaded[1], logvar)
    assert loaded[2] == ["m1", "m2"]


@pytest.mark.parametrize(
    "mean, logvar", [((N, M, D), (N, M, 5)), ((N, 8), (N, 8)), ((N, 3, D), (N, 3, D))]
)
def test_latents_that_do_not_fit(tmp_path, mean, logvar):
    save(tmp_path, torch.zeros(mean), torch.zeros(logvar))
    with pytest.raises(UserError, match="test.safetensors: "):
        latents.load_latents("test", folder=tmp_path)


def test_standardised_samples_have_mean_0_and_variance_1():
    """Of samples of the posteriors, mean + sigma eps, not of their means."""
    rng = torch.Generator().manual_seed(0)
    shift = torch.tensor([[0.0, 5.0], [-3.0, 1.0]])
    mean = shift + 2 * torch.randn(20_000, M, 2, generator=rng)
    logvar = torch.randn(20_000, M, 2, generator=rng)
    moments = latents.standardisation(mean, logvar)
    scale = (4 + torch.exp(torch.tensor(0.5))).sqrt()  # E exp(N(0, 1)) = exp(1/2)
    torch.testing.assert_close(moments["scale"], scale.expand(M, 2), rtol=0.03, atol=0)
    centre, std = latents.standardised(mean, logvar, **moments)
    z = centre + std * torch.randn(mean.shape, generator=rng)
    torch.testing.assert_close(z.mean(0), torch.zeros(M, 2), rtol=0, atol=0.03)
    torch.testing.assert_close(z.var(0), torch.ones(M, 2), rtol=0, atol=0.06)
    torch.testing.assert_close(centre * moments["scale"] + moments["shift"], mean)
    torch.testing.assert_close(std * moments["scale"], torch.exp(logvar / 2))
