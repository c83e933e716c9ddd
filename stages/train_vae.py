"""One unimodal beta-VAE, q(z|x) = N(mean, diag), trained alone on its own ELBO (paper, section 3).

python -m stages.train_vae m1
"""

from functools import partial
from pathlib import Path

import torch

from ebmvae import command, params
from ebmvae.core import artifacts, devices, random, training
from ebmvae.data import splits
from ebmvae.evaluation.classifiers import Classifier
from ebmvae.vae import elbo, experts
from ebmvae.vae.likelihoods import NLL
from ebmvae.vae.networks import Decoder, Encoder

OUT = Path("models/vae")


def main():
    parser = command.parser(__doc__)
    parser.add_argument("modality", help="m1, m2, ...")
    modality = parser.parse_args().modality
    p = params.load()
    with command.exclusive("train_vae", modality):
        run(modality, p)


def run(modality, p, train=training.train):
    """Train and write the VAE of one modality. `train`: what trains, for benchmarks to time."""
    device = devices.setup(p.threads)
    images = splits.load_split("train", device, [modality]).images[modality]
    test = splits.load_split("test", device, [modality])
    shape = dict(image_shape=list(images.shape[1:]), latent_dim=p.vae.latent_dim)
    with random.seeded("train_vae", p.seed, modality):
        encoder, decoder = Encoder(**shape).to(device), Decoder(**shape).to(device)
    nll = partial(NLL[p.vae.likelihood], scale=p.vae.scale)
    rng = random.generator(device, "train_vae", p.seed, modality)

    def loss(index, progress):
        eps = torch.randn(len(index), p.vae.latent_dim, generator=rng, device=device)  # B, d
        x = splits.to_float(images[index])  # B, C, H, W
        beta = elbo.kl_weight(progress, p.vae.warmup, p.vae.beta)
        return elbo.beta_vae(x, encoder, decoder, eps, beta, nll)

    history = train(
        f"train_vae {modality}",
        torch.nn.ModuleList([encoder, decoder]),
        loss,
        len(images),
        training.Settings(
            batch_size=p.vae.batch_size,
            learning_rate=p.vae.learning_rate,
            epochs=p.vae.epochs,
            lr_schedule=p.vae.lr_schedule,
        ),
        rng,
        p.model_dump(),
        after_epoch=held_out(modality, test, encoder, decoder, nll),
    )
    with artifacts.together():
        artifacts.save_module(OUT / modality / "encoder.safetensors", encoder, shape)
        artifacts.save_module(OUT / modality / "decoder.safetensors", decoder, shape)
        artifacts.save_json(OUT / modality / "history.json", history)


def held_out(modality, test, encoder, decoder, nll, n=1000):
    """A function that measures the VAE on n test images, always with the same noise.

    It returns the ELBO in nats, up to the likelihood's constant, and how often the classifier reads
    the digit off reconstructions of posterior samples, where there are labels.
    """
    x, labels, device = test.images[modality][:n], test.labels[:n], test.labels.device
    file, classifier = f"models/classifiers/{modality}.safetensors", None
    if splits.n_classes(test.labels) > 1:
        classifier = artifacts.load_module(file, Classifier, device)

    @torch.no_grad()
    def measure():
        images = splits.to_float(x)
        mean, logvar = encoder(images)
        rng = random.generator(device, "held out", modality)
        eps = torch.randn(mean.shape, generator=rng, device=device)
        recon = decoder(experts.sample(mean, logvar, eps))
        value = -(nll(images, recon) + experts.kl_from_prior(mean, logvar)).mean()
        if classifier is None:
            return {"elbo": float(value)}
        right = classifier(recon.clamp(0, 1)).argmax(1) == labels
        return {"elbo": float(value), "digit_accuracy": float(right.float().mean())}

    return measure


if __name__ == "__main__":
    command.run(main)
