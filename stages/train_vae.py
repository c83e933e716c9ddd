"""One unimodal beta-VAE, q(z|x) = N(mean, diag), trained alone on its own ELBO (paper, section 3).

    python -m stages.train_vae m1
    torchrun --nproc-per-node 2 -m stages.train_vae m1      # by several processes together
"""

import argparse
from functools import partial
from pathlib import Path

import torch

from stages.lib import artifacts, data, networks, objectives, parallel, params, posteriors, runtime, training

OUT = Path("models/vae")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modality", help="m1, m2, ...")
    modality = parser.parse_args().modality
    p = params.load()
    runtime.begin("train_vae", modality, several=True)
    device = runtime.setup(p.threads)
    train, test = (data.load_split(split, device, [modality]) for split in ("train", "test"))
    images, test_images = train.images[modality], test.images[modality]
    labelled = data.n_classes(train.labels) > 1
    judge = artifacts.load_module(f"models/judge/{modality}.safetensors", networks.Classifier, device) if labelled else None

    shape = dict(image_shape=list(images.shape[1:]), latent_dim=p.vae.latent_dim)
    with runtime.seeded("train_vae", p.seed, modality):
        encoder, decoder = networks.Encoder(**shape).to(device), networks.Decoder(**shape).to(device)
    nll = partial(objectives.NLL[p.vae.likelihood], scale=p.vae.scale)
    rng = runtime.generator(device, "train_vae", p.seed, modality)

    def loss(index, progress):
        noise = torch.randn(len(index), p.vae.latent_dim, generator=rng, device=device)
        mine = parallel.share(len(index))
        x, noise = data.to_float(images[index[mine]]), noise[mine]  # B, C, H, W; B, d
        beta = objectives.kl_weight(progress, p.vae.warmup, p.vae.beta)
        return objectives.beta_vae(x, encoder, decoder, noise, beta, nll)

    @torch.no_grad()
    def held_out():
        """ELBO in nats (up to the likelihood's constant), and how often the judge reads the digit off reconstructions of posterior samples."""
        x, labels = data.to_float(test_images[:1000]), test.labels[:1000]
        mean, logvar = encoder(x)
        noise = torch.randn(mean.shape, generator=runtime.generator(device, "held out", modality), device=device)
        recon = decoder(posteriors.sample(mean, logvar, noise))
        elbo = -(nll(x, recon) + posteriors.kl_from_prior(mean, logvar)).mean()
        read = {"digit_accuracy": float((judge(recon.clamp(0, 1)).argmax(1) == labels).float().mean())} if judge else {}
        return {"elbo": float(elbo), **read}

    history = training.train(
        f"train_vae {modality}", torch.nn.ModuleList([encoder, decoder]), loss, len(images),
        batch_size=p.vae.batch_size, epochs=p.vae.epochs, learning_rate=p.vae.learning_rate,
        lr_schedule=p.vae.lr_schedule, generator=rng, after_epoch=held_out)
    if runtime.RANK > 0:
        return
    with artifacts.together():
        artifacts.save_module(OUT / modality / "encoder.safetensors", encoder, shape)
        artifacts.save_module(OUT / modality / "decoder.safetensors", decoder, shape)
        artifacts.save_json(OUT / modality / "history.json", history)


if __name__ == "__main__":
    runtime.run(main)
