"""A fitted joint energy at work: units, what is held, and what a sample depends on."""

from types import SimpleNamespace

import pytest
import torch

from ebmvae.annealed import sampler
from ebmvae.annealed.model import AnnealedEnergy
from ebmvae.core import artifacts, random
from ebmvae.core.messages import UserError
from ebmvae.ebm import energy, langevin
from ebmvae.evaluation import fitted
from ebmvae.methods import ENERGIES, METHODS

NAMES, N, D = ["m1", "m2", "m3"], 12, 2
SEEDS = list(range(100, 100 + N))
BOTH = pytest.mark.parametrize("method", ENERGIES)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def options(method, **changes):
    scale = SimpleNamespace(posterior_scale=3.0)
    values = {
        "eb_mvae": dict(langevin_steps=8, step_size=0.5, noise_scale=1.0, fit=scale),
        "eb_mvae_annealed": dict(
            steps=8, guidance_scale=2.5, guidance_below=0.6, class_guidance=4.0
        ),
    }
    return SimpleNamespace(**{**values[method], **changes})


def arguments(method):
    if method == "eb_mvae":
        return dict(model="energy", dim=len(NAMES) * D, hidden=8, layers=1)
    return dict(modalities=len(NAMES), dim=D, hidden=8, latent_classes=4)


def build(method):
    with random.seeded("test", method):
        model = {"eb_mvae": energy.build, "eb_mvae_annealed": AnnealedEnergy}[method](
            **arguments(method)
        )
        for weight in model.parameters():
            weight.data += 0.3 * torch.randn_like(weight)
    return model.requires_grad_(False)


def moments():
    shape = len(NAMES), D
    return {"shift": randn(*shape, seed=3), "scale": randn(*shape, seed=4).abs() + 0.5}


def fitted_energy(method, model=None, **changes):
    module = {"eb_mvae": langevin, "eb_mvae_annealed": sampler}[method]
    model = model or build(method)
    return fitted.FittedEnergy(NAMES, model, module, moments(), options(method, **changes), {})


def observed(seed=1):
    """Standardised posterior samples of all test tuples."""
    return randn(N, len(NAMES), D, seed=seed)


def in_vae_units(z):
    return z * moments()["scale"] + moments()["shift"]


# ---- units


@pytest.mark.parametrize("method, scale", [*zip(ENERGIES, (3, 1), strict=True)])
def test_only_the_papers_energy_is_conditioned_on_widened_posteriors(method, scale):
    whole = fitted_energy(method)
    mean, logvar = randn(N, len(NAMES), D, seed=1), randn(N, len(NAMES), D, seed=2)
    samples = fitted.posterior_samples(*fitted.posterior(whole, mean, logvar), SEEDS)
    eps = random.normal_per_sample(mean.shape[1:], SEEDS)
    expected = mean + scale * torch.exp(0.5 * logvar) * eps
    torch.testing.assert_close(in_vae_units(samples), expected, rtol=1e-4, atol=1e-5)


# ---- samples


@BOTH
@pytest.mark.parametrize("subset", [("m1",), ("m3",), ("m1", "m3")])
def test_what_is_observed_is_held(method, subset):
    z = fitted.sample(fitted_energy(method), observed(), subset, SEEDS)
    for m, name in enumerate(NAMES):
        kept = torch.isclose(z[:, m], in_vae_units(observed())[:, m], rtol=1e-4, atol=1e-5)
        assert kept.all() if name in subset else not kept.any()


@BOTH
def test_what_is_not_observed_is_not_seen(method):
    whole = fitted_energy(method)
    unconditional = fitted.sample(whole, observed(), (), SEEDS)
    assert torch.equal(fitted.sample(whole, observed(2), (), SEEDS), unconditional)
    other = observed()
    other[:, 1:] += 1
    given = fitted.sample(whole, observed(), ("m1",), SEEDS)
    assert torch.equal(fitted.sample(whole, other, ("m1",), SEEDS), given)
    assert not torch.isclose(given[:, 1:], unconditional[:, 1:]).any()


@BOTH
def test_samples_do_not_depend_on_the_batch(method):
    whole = fitted_energy(method)
    parts = [fitted.sample(whole, observed(), ("m2",), SEEDS, size) for size in (1, 5, 100)]
    torch.testing.assert_close(parts[0], parts[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts[1], parts[2], rtol=1e-4, atol=1e-5)


def test_langevin_samples_in_standardised_units():
    """The lowest energy is at 0, the shift in the VAEs' units: without noise the chain ends there.

    The step is long enough for one to lead from the start to 0.
    """
    changes = dict(langevin_steps=2, step_size=2**0.5, noise_scale=0.0)
    whole = fitted_energy("eb_mvae", SimpleNamespace(score=torch.neg), **changes)
    z = fitted.sample(whole, observed(), (), SEEDS)
    torch.testing.assert_close(z, moments()["shift"].expand_as(z), rtol=0, atol=1e-6)


# ---- files


@BOTH
def test_load_reads_the_methods_files(tmp_path, monkeypatch, method):
    monkeypatch.chdir(tmp_path)
    entry, p = METHODS[method], SimpleNamespace(ebm="ebm", annealed="annealed")
    with pytest.raises(UserError, match=f"{entry.models}/joint.safetensors"):
        fitted.load(method, p, NAMES, torch.device("cpu"))
    model = build(method)
    artifacts.save_module(f"{entry.models}/joint.safetensors", model, arguments(method))
    about = {"fit": {"device": "x"}}
    artifacts.save_tensors(f"{entry.models}/standardisation.safetensors", moments(), about)
    whole = fitted.load(method, p, NAMES, torch.device("cpu"))
    assert (whole.names, whole.options, whole.fit) == (NAMES, entry.params, {"device": "x"})
    assert torch.equal(whole.standardisation["scale"], moments()["scale"])
    expected = fitted_energy(method, model).method.energy(model, observed())
    assert torch.equal(fitted.energy(whole, observed()), expected)
