"""The noise-conditional energy over the latents of all modalities (ours; docs/method.md).

    python -m stages.fit_annealed

First its values alone, by InfoNCE, at a tenth of the cost: no gradient of the energy is in it. Then
values, gradient and denoisers together, given any subset of the modalities.
"""

from pathlib import Path

from ebmvae import command, params
from ebmvae.annealed import losses
from ebmvae.annealed.model import AnnealedEnergy
from ebmvae.core import artifacts, devices, random, training
from ebmvae.data import latents

OUT = Path("models/annealed")


def main():
    command.parser(__doc__).parse_args()
    p = params.load()
    with command.exclusive("fit_annealed"):
        run(p)


def run(p, train=training.train):
    """Fit and write the energy. `train`: what trains, for benchmarks to time."""
    device, fit = devices.setup(p.threads), p.annealed.fit
    mean, logvar, modalities = latents.load_latents("train", device)
    moments = latents.standardisation(mean, logvar)
    mean, std = latents.standardised(mean, logvar, **moments)  # N, M, d
    test = latents.standardised(*latents.load_latents("test", device)[:2], **moments)
    about = dict(
        modalities=len(modalities),
        dim=mean.shape[2],
        hidden=fit.hidden,
        latent_classes=fit.latent_classes,
    )
    with random.seeded("fit_annealed", p.seed):
        model = AnnealedEnergy(**about).to(device)
    rng = random.generator(device, "fit_annealed", p.seed)

    def infonce(index, progress):
        return losses.infonce_loss(model, mean[index], std[index], rng), {}

    def joint(index, progress):
        return losses.joint_loss(model, mean[index], std[index], rng)

    def held_out():
        """The joint loss on test tuples, always with the same noise."""
        noise = random.generator(device, "held out")
        value, _ = losses.joint_loss(model, test[0][:1000], test[1][:1000], noise)
        return {"held_out": float(value.detach())}

    n, values = len(mean), p.model_dump()
    train("fit_annealed infonce", model, infonce, n, settings(p, fit.infonce_steps), rng, values)
    history = train("fit_annealed", model, joint, n, settings(p, fit.steps), rng, values, held_out)
    made = {"modalities": modalities, "fit": devices.describe(device, p.matmul_precision)}
    with artifacts.together():
        artifacts.save_module(OUT / "joint.safetensors", model, about)
        artifacts.save_tensors(OUT / "standardisation.safetensors", moments, made)
        artifacts.save_json(OUT / "history.json", history)


def settings(p, steps):
    """Of both parts of the fit."""
    return training.Settings(
        batch_size=p.annealed.fit.batch_size,
        learning_rate=p.annealed.fit.learning_rate,
        steps=steps,
        lr_schedule="cosine",
        weight_decay=p.annealed.fit.weight_decay,
        precision=p.matmul_precision,
    )


if __name__ == "__main__":
    command.run(main)
