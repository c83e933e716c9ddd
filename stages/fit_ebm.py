"""The joint energy over the latents of all modalities, fitted by score matching (paper, eq. 1).

python -m stages.fit_ebm
"""

from functools import partial
from pathlib import Path

import torch

from ebmvae import command, params
from ebmvae.core import artifacts, devices, random, training
from ebmvae.data import latents
from ebmvae.ebm import energy, score_matching

OUT = Path("models/ebm")


def main():
    command.parser(__doc__).parse_args()
    p = params.load()
    with command.exclusive("fit_ebm"):
        run(p)


def run(p, train=training.train):
    """Fit and write the energy. `train`: what trains, for benchmarks to time."""
    device, fit = devices.setup(p.threads), p.ebm.fit
    mean, logvar, modalities = latents.load_latents("train", device)
    moments = latents.standardisation(mean, logvar)
    mean, std = posteriors(mean, logvar, moments, fit)  # N, M, d
    test = posteriors(*latents.load_latents("test", device)[:2], moments, fit)
    dim = mean[0].numel()
    about = dict(model=fit.model, dim=dim, hidden=fit.hidden, layers=fit.layers)
    with random.seeded("fit_ebm", p.seed):
        model = energy.build(**about).to(device)
    rng = random.generator(device, "fit_ebm", p.seed)

    def loss(index, progress):
        return objective(model, fit.objective, mean[index], std[index], rng), {}

    def held_out():
        """The same objective on test tuples, always with the same noise."""
        n = 100 if fit.objective == "exact" else 1000  # the exact trace takes much memory
        noise = random.generator(device, "held out")
        value = objective(model, fit.objective, test[0][:n], test[1][:n], noise)
        return {"held_out": float(value.detach())}

    settings = training.Settings(
        batch_size=fit.batch_size,
        learning_rate=fit.learning_rate,
        steps=fit.steps,
        lr_schedule="cosine",
        precision=p.matmul_precision,
    )
    history = train("fit_ebm", model, loss, len(mean), settings, rng, p.model_dump(), held_out)
    made = {"modalities": modalities, "fit": devices.describe(device, p.matmul_precision)}
    with artifacts.together():
        artifacts.save_module(OUT / "joint.safetensors", model, about)
        artifacts.save_tensors(OUT / "standardisation.safetensors", moments, made)
        artifacts.save_json(OUT / "history.json", history)


def posteriors(mean, logvar, moments, fit):
    """Standardised means and widened standard deviations of posteriors, (N, M, d) each."""
    mean, std = latents.standardised(mean, logvar, **moments)
    return mean, fit.posterior_scale * std


def objective(model, kind, mean, std, generator):
    """Eq. 1 on samples of the posteriors N(mean, std^2), (B, M, d), by the objective `kind`."""
    device, score = generator.device, partial(model.score, create_graph=True)
    z = mean + std * torch.randn(mean.shape, generator=generator, device=device)
    if kind == "denoising":
        return score_matching.denoising(score, z, mean, std)
    if kind == "sliced":
        signs = torch.randint(2, z.shape, generator=generator, device=device)
        return score_matching.sliced(score, z, signs * 2.0 - 1)
    return score_matching.exact(score, z)


if __name__ == "__main__":
    command.run(main)
