"""The noise-conditional energy over all modalities' latents, trained with randomly observed modalities (ours).

    python -m stages.fit_annealed

Energy: what couples the modalities, fitted to its values by contrast and to its gradient by score matching, at all noise
levels, given any subset. Base: a denoiser a modality, told what the others say (networks.Annealed, docs/experiments.md).
"""

import argparse
from pathlib import Path

import torch

from stages.lib import artifacts, data, networks, noising, objectives, params, runtime, training

OUT = Path("models/annealed")
UNTOLD = 0.2  # share of modalities whose denoiser is told nothing of the others
FAINTEST = 0.005  # noise levels go from here to as near to 1
CLEAN = 0.5  # share of modalities that contrast sees clean; the others at any level,
ALIKE = 0.5  # in this share of tuples at the same one, as sampling has it
PRESENT = 0.75  # share of modalities that are shown to contrast
NOTHING_OBSERVED = 8  # one tuple in so many is generated from nothing


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    p = params.load()
    runtime.begin("fit_annealed")
    fit = p.annealed.fit
    device = runtime.setup(p.threads)
    mean, logvar, modalities = data.load_latents("train", device)
    standard = data.standardisation(mean, logvar)
    mean, std = (part.transpose(0, 1).contiguous() for part in data.standardised(mean, logvar, **standard))  # M, N, d
    test = [part.transpose(0, 1).contiguous()
            for part in data.standardised(*data.load_latents("test", device)[:2], **standard)]
    about = dict(modalities=len(modalities), dim=mean.shape[2], hidden=fit.hidden, states=fit.states)
    with runtime.seeded("fit_annealed", p.seed):
        model = networks.Annealed(**about).to(device)
    rng = runtime.generator(device, "fit_annealed", p.seed)

    def contrast(mean, std, rng):
        """Of posterior samples of M modalities, latents (M, B, d), half of them noised, some not shown."""
        count, size = mean.shape[:2]
        uniform = lambda *shape: torch.rand(shape, generator=rng, device=device)
        normal = lambda: torch.randn(mean.shape, generator=rng, device=device)
        levels = torch.where(uniform(size) < ALIKE, uniform(size), uniform(count, size))
        t = torch.where(uniform(count, size) < CLEAN, 0.0, levels)
        ratios = model.log_ratios(noising.noised(mean + std * normal(), t, normal()), t)
        return objectives.contrast(ratios, model.prior, uniform(count, size) < PRESENT)

    def objective(mean, std, rng):
        """Latents of M modalities, (M, B, d): what is observed is a posterior sample, what is generated a mean."""
        count, size = mean.shape[:2]
        uniform = lambda *shape: torch.rand(shape, generator=rng, device=device)
        normal = lambda: torch.randn(mean.shape, generator=rng, device=device)
        sample = mean + std * normal()
        observed = uniform(count, size) < uniform(size)  # every number of observed modalities is as frequent
        observed[:, : size // NOTHING_OBSERVED] = False
        t = torch.where(observed, 0.0, FAINTEST + (1 - 2 * FAINTEST) * uniform(size))
        eps = normal()
        z = noising.noised(torch.where(observed[..., None], sample, mean), t, eps)
        parts = {"score": objectives.pull_matching(model, z, t, eps)}
        with torch.no_grad():
            said = torch.where(uniform(count, size, 1) < UNTOLD, model.untold(), model.rest(z, t))  # M, B, K
        # Its own levels: what is observed of this tuple is denoised too, told what the others say.
        t = FAINTEST + (1 - 2 * FAINTEST) * uniform(count, size)
        parts["base"] = objectives.told_denoising(model, mean, t, normal(), said)
        parts["contrast"] = contrast(mean, std, rng)
        return sum(parts.values()), parts

    def held_out():
        """The same objective on test tuples, always with the same noise."""
        value, _ = objective(*(part[:, :1000] for part in test), runtime.generator(device, "held out"))
        return {"held_out": float(value.detach())}

    def train(name, steps, loss, after_epoch=None):
        return training.train(
            name, model, lambda index, progress: loss(mean[:, index], std[:, index], rng), mean.shape[1],
            batch_size=fit.batch_size, epochs=None, steps=steps, learning_rate=fit.learning_rate,
            weight_decay=fit.weight_decay, lr_schedule="cosine", generator=rng, after_epoch=after_epoch,
            precision=p.matmul_precision)

    # Who belongs together is learnt first, and at a tenth of the cost: no gradient of the energy is in it.
    train("fit_annealed, contrast", fit.contrast_steps, lambda *batch: (contrast(*batch), {}))
    history = train("fit_annealed", fit.steps, objective, held_out)
    with artifacts.together():
        artifacts.save_module(OUT / "joint.safetensors", model, about)
        artifacts.save_tensors(OUT / "standardisation.safetensors", standard, {"modalities": modalities})
        artifacts.save_json(OUT / "history.json", history)


if __name__ == "__main__":
    runtime.run(main)
