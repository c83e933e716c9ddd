"""One joint-posterior VAE: poe (MVAE), moe (MMVAE), mopoe (MoPoE-VAE) or mvtcae (MVTCAE).

    python -m stages.train_baseline mopoe

The unimodal VAEs' networks, likelihood, optimiser, epochs and data; one latent shared by all
modalities. What differs between them is ebmvae/baselines/METHOD.py.
"""

import importlib
from functools import partial
from pathlib import Path

import torch

from ebmvae import command, params
from ebmvae.core import artifacts, devices, random, training
from ebmvae.data import splits
from ebmvae.methods import BASELINES, METHODS
from ebmvae.vae import elbo
from ebmvae.vae.likelihoods import NLL
from ebmvae.vae.networks import Decoder, Encoder


def main():
    parser = command.parser(__doc__)
    parser.add_argument("method", choices=BASELINES)
    method = parser.parse_args().method
    p = params.load()
    with command.exclusive("train_baseline", method):
        run(method, p)


def run(method, p, train=training.train):
    """Train and write one baseline. `train`: what trains, for benchmarks to time."""
    device = devices.setup(p.threads)
    data, test = (splits.load_split(split, device) for split in ("train", "test"))
    encoders, decoders = build(method, data, p)
    beta = getattr(p.baseline.beta, method)
    rng = random.generator(device, "train_baseline", p.seed, method)

    def loss(index, progress):
        weight = elbo.kl_weight(progress, p.vae.warmup, beta)
        return objective(method, data, index, encoders, decoders, weight, rng, p)

    @torch.no_grad()
    def held_out():
        """The loss on test tuples, always with the same noise."""
        index = torch.arange(min(1000, len(test)), device=device)
        noise = random.generator(device, "held out")
        value, _ = objective(method, test, index, encoders, decoders, beta, noise, p)
        return {"held_out": float(value)}

    settings = training.Settings(
        batch_size=p.vae.batch_size,
        learning_rate=p.vae.learning_rate,
        epochs=p.vae.epochs,
        lr_schedule=p.vae.lr_schedule,
    )
    model = torch.nn.ModuleList([*encoders.values(), *decoders.values()])
    name = f"train_baseline {method}"
    history = train(name, model, loss, len(data), settings, rng, p.model_dump(), held_out)
    folder = Path(METHODS[method].models)
    with artifacts.together():
        for name in data.modalities:
            about = shape_of(data, name, p)
            artifacts.save_module(folder / name / "encoder.safetensors", encoders[name], about)
            artifacts.save_module(folder / name / "decoder.safetensors", decoders[name], about)
        artifacts.save_json(folder / "history.json", history)


def shape_of(split, name, p):
    """Constructor arguments of a modality's networks."""
    return dict(image_shape=list(split.images[name].shape[1:]), latent_dim=p.baseline.latent_dim)


def build(method, split, p):
    """New encoders and decoders, {modality: network} each."""
    encoders, decoders = {}, {}
    for name in split.modalities:
        shape = shape_of(split, name, p)
        with random.seeded("train_baseline", p.seed, method, name):
            encoders[name] = Encoder(**shape).to(split.labels.device)
            decoders[name] = Decoder(**shape).to(split.labels.device)
    return encoders, decoders


def objective(method, split, index, encoders, decoders, beta, generator, p):
    """The method's loss over the tuples `index` (B,), and its parts."""
    module = importlib.import_module(METHODS[method].module)
    xs = [splits.to_float(split.images[name][index]) for name in split.modalities]  # B, C, H, W
    experts = [encode(x) for encode, x in zip(encoders.values(), xs, strict=True)]
    mean, logvar = (torch.stack(part) for part in zip(*experts, strict=True))  # M, B, D
    draws = module.draw(len(xs), len(index), p.baseline.latent_dim, generator)
    nll = partial(NLL[p.vae.likelihood], scale=p.vae.scale)
    return module.loss(xs, mean, logvar, list(decoders.values()), nll, beta, **draws)


if __name__ == "__main__":
    command.run(main)
