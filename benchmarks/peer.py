"""Training by another program on our data and networks, timed as benchmarks/timed.py times ours.

    python -m benchmarks.peer moe

Kinds: poe, moe, mopoe, mvtcae by multivae's models and trainer; vae by pythae's, which multivae builds on; loop, the common
way to train a VAE: PNG files, a DataLoader with workers, eager float32. Prints {"rates": [...]} in items a second.
"""

import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.timed import SECONDS, WARM_UP, WINDOWS, Done
from stages.lib import data, networks, params

STEPS = 10**6  # more than is ever run: measuring stops it


class Clock:
    """Told of every finished step, notes when windows end and raises `Done` after the last."""

    def __init__(self):
        self.steps, self.window, self.stamps, self.start = 0, None, [], None

    def tick(self):
        self.steps += 1
        if self.steps == 2:  # the first may set things up
            self.start = time.perf_counter()
        if self.steps == WARM_UP:
            self.window = max(5, round(SECONDS / ((time.perf_counter() - self.start) / (WARM_UP - 2))))
        if self.window and (self.steps - WARM_UP) % self.window == 0:
            self.stamps.append(time.perf_counter())
            if len(self.stamps) > WINDOWS:
                raise Done

    def rates(self, batch_size):
        return [self.window * batch_size / (b - a) for a, b in zip(self.stamps, self.stamps[1:])]


def main():
    kind, p, clock = sys.argv[1], params.load(), Clock()
    torch.manual_seed(0)
    images = data.load_split("train", modalities=["m1"] if kind in ("vae", "loop") else None).images
    try:
        {"vae": with_pythae, "loop": with_a_common_loop}.get(kind, with_multivae)(kind, images, p, clock)
    except Done:
        print(json.dumps({"rates": clock.rates(p.vae.batch_size)}))


def nets(p, images):
    """Encoder and decoder of every modality, behind pythae's base classes."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    dim = p.baseline.latent_dim

    class PeerEncoder(BaseEncoder):
        def __init__(self, shape):
            super().__init__()
            self.latent_dim, self.net = dim, networks.Encoder(shape, dim)

        def forward(self, x):
            mean, logvar = self.net(x)
            return ModelOutput(embedding=mean, log_covariance=logvar)

    class PeerDecoder(BaseDecoder):
        def __init__(self, shape):
            super().__init__()
            self.latent_dim, self.net = dim, networks.Decoder(shape, dim)

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z))

    shapes = {name: tuple(array.shape[1:]) for name, array in images.items()}
    return shapes, {n: PeerEncoder(s) for n, s in shapes.items()}, {n: PeerDecoder(s) for n, s in shapes.items()}


def with_multivae(kind, images, p, clock):
    from multivae import models
    from multivae.data.datasets import MultimodalBaseDataset
    from multivae.trainers import BaseTrainer, BaseTrainerConfig
    from multivae.trainers.base.callbacks import TrainingCallback

    class Watch(TrainingCallback):
        def on_train_step_end(self, training_config, **kwargs):
            clock.tick()

    shapes, encoders, decoders = nets(p, images)
    beta = getattr(p.baseline.beta, kind)
    common = dict(n_modalities=len(shapes), latent_dim=p.baseline.latent_dim, input_dims=shapes, beta=beta,
                  decoders_dist={name: "normal" for name in shapes},
                  decoder_dist_params={name: {"scale": p.vae.scale} for name in shapes})
    model = {
        "poe": lambda: models.MVAE(models.MVAEConfig(**common, warmup=0), encoders, decoders),
        # One sample of each component and normal posteriors, as ours; it decodes all of them.
        "moe": lambda: models.MMVAE(models.MMVAEConfig(**common, K=1, prior_and_posterior_dist="normal", learn_prior=False,
                                                       loss="iwae_looser"), encoders, decoders),
        "mopoe": lambda: models.MoPoE(models.MoPoEConfig(**common), encoders, decoders),
        "mvtcae": lambda: models.MVTCAE(models.MVTCAEConfig(**common, alpha=p.baseline.total_correlation), encoders, decoders),
    }[kind]()
    dataset = MultimodalBaseDataset({name: data.to_float(array) for name, array in images.items()})
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        BaseTrainer(model, dataset, training_config=BaseTrainerConfig(
            output_dir=folder, per_device_train_batch_size=p.vae.batch_size, num_epochs=STEPS, learning_rate=p.vae.learning_rate,
            drop_last=True), callbacks=[Watch()]).train()


def with_pythae(kind, images, p, clock):
    from pythae.data.datasets import BaseDataset
    from pythae.models import BetaVAE, BetaVAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class Watch(TrainingCallback):
        def on_train_step_end(self, training_config, **kwargs):
            clock.tick()

    shapes, encoders, decoders = nets(p, images)
    model = BetaVAE(BetaVAEConfig(input_dim=shapes["m1"], latent_dim=p.baseline.latent_dim, reconstruction_loss="mse", beta=p.vae.beta),
                    encoder=encoders["m1"], decoder=decoders["m1"])
    x = data.to_float(images["m1"])
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        BaseTrainer(model, BaseDataset(x, torch.zeros(len(x))), training_config=BaseTrainerConfig(
            output_dir=folder, per_device_train_batch_size=p.vae.batch_size, num_epochs=STEPS, learning_rate=p.vae.learning_rate),
            callbacks=[Watch()]).train()


def with_a_common_loop(kind, images, p, clock):
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import ToTensor

    class Files(Dataset):
        def __init__(self, folder):
            self.files, self.transform = sorted(Path(folder).glob("*.png")), ToTensor()

        def __len__(self):
            return len(self.files)

        def __getitem__(self, i):
            return self.transform(Image.open(self.files[i]))

    dim, shape = p.baseline.latent_dim, list(images["m1"].shape[1:])
    encoder, decoder = networks.Encoder(shape, dim), networks.Decoder(shape, dim)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=p.vae.learning_rate)
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images["m1"]):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(Path(folder) / f"{i:05}.png")
        while True:
            for x in DataLoader(Files(folder), p.vae.batch_size, shuffle=True, num_workers=2, drop_last=True):
                mean, logvar = encoder(x)
                recon = decoder(mean + torch.exp(0.5 * logvar) * torch.randn_like(mean))
                squared = nn.functional.mse_loss(recon, x, reduction="sum") / len(x)
                loss = squared - p.vae.beta * 0.5 * (1 + logvar - mean.square() - logvar.exp()).sum() / len(x)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                loss.item()
                clock.tick()


if __name__ == "__main__":
    main()
