"""The joint energy over all modalities' latents, fitted by score matching on posterior samples (paper, eq. 1).

    python -m stages.fit_ebm
"""

import argparse
from pathlib import Path

import torch

from stages.lib import artifacts, data, networks, objectives, params, runtime, training

OUT = Path("models/ebm")


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    p = params.load()
    runtime.begin("fit_ebm")
    fit = p.ebm.fit
    device = runtime.setup(p.threads)
    mean, logvar, modalities = data.load_latents("train", device)
    standard = data.standardisation(mean, logvar)

    def standardised(mean, logvar):
        """Posterior means and widened standard deviations in standardised units, (N, M*d) each."""
        mean, std = data.standardised(mean, logvar, **standard)
        return mean.flatten(1), fit.posterior_scale * std.flatten(1)

    mean, std = standardised(mean, logvar)  # N, D
    test_mean, test_std = standardised(*data.load_latents("test", device)[:2])
    about = dict(model=fit.model, dim=mean.shape[1], hidden=fit.hidden, layers=fit.layers)
    with runtime.seeded("fit_ebm", p.seed):
        model = networks.joint(**about).to(device)
    rng = runtime.generator(device, "fit_ebm", p.seed)
    score = lambda z: model.score(z, create_graph=True)

    def objective(mean, std, rng):
        z = mean + std * torch.randn(mean.shape, generator=rng, device=device)  # B, D
        if fit.objective == "denoising":
            return objectives.score_matching_denoising(score, z, mean, std)
        if fit.objective == "sliced":
            probe = torch.randint(2, z.shape, generator=rng, device=device) * 2.0 - 1
            return objectives.score_matching_sliced(score, z, probe)
        return objectives.score_matching_exact(score, z)

    def held_out():
        """The same objective on test tuples, always with the same noise; the exact trace takes much memory: few."""
        n = 100 if fit.objective == "exact" else 1000
        value = objective(test_mean[:n], test_std[:n], runtime.generator(device, "held out"))
        return {"held_out": float(value.detach())}

    history = training.train(
        "fit_ebm", model, lambda index, progress: (objective(mean[index], std[index], rng), {}), len(mean),
        batch_size=fit.batch_size, epochs=None, steps=fit.steps, learning_rate=fit.learning_rate, lr_schedule="cosine",
        generator=rng, after_epoch=held_out, precision=p.matmul_precision)
    with artifacts.together():
        artifacts.save_module(OUT / "joint.safetensors", model, about)
        artifacts.save_tensors(OUT / "standardisation.safetensors", standard, {"modalities": modalities})
        artifacts.save_json(OUT / "history.json", history)


if __name__ == "__main__":
    runtime.run(main)
