"""Training by another program on our data and networks, timed as benchmarks/timed.py times ours.

    python -m benchmarks.peer moe

Kinds: poe, moe, mopoe, mvtcae by multivae's models and trainer; vae by pythae's, which multivae
builds on; loop, the common way to train a VAE: PNG files, a DataLoader with workers, eager float32.
Prints {"rates": [...]} in items a second.
"""

import itertools
import json
import logging
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.timed import SECONDS, WARM_UP, WINDOWS, Done
from ebmvae import command, params
from ebmvae.data import splits
from ebmvae.methods import BASELINES
from ebmvae.vae.networks import Decoder, Encoder

STEPS = 10**6  # more than is ever run: measuring stops it


class Clock:
    """Called after every step; notes when windows end and raises `Done` after the last."""

    def __init__(self):
        self.steps, self.window, self.stamps, self.start = 0, None, [], None

    def tick(self):
        self.steps += 1
        if self.steps == 2:  # the first may set things up
            self.start = time.perf_counter()
        if self.steps == WARM_UP:
            step = (time.perf_counter() - self.start) / (WARM_UP - 2)
            self.window = max(5, round(SECONDS / step))
        if self.window and (self.steps - WARM_UP) % self.window == 0:
            self.stamps.append(time.perf_counter())
            if len(self.stamps) > WINDOWS:
                raise Done

    def rates(self, batch_size):
        return [self.window * batch_size / (b - a) for a, b in itertools.pairwise(self.stamps)]


def main():
    trainers = {"vae": with_pythae, "loop": with_a_common_loop}
    parser = command.parser(__doc__)
    parser.add_argument("kind", choices=[*trainers, *BASELINES])
    kind, p, clock = parser.parse_args().kind, params.load(), Clock()
    torch.manual_seed(0)
    images = splits.load_split("train", modalities=["m1"] if kind in trainers else None).images
    try:
        if kind in trainers:
            trainers[kind](images["m1"], p, clock)
        else:
            with_multivae(kind, images, p, clock)
    except Done:
        print(json.dumps({"rates": clock.rates(p.vae.batch_size)}))


def networks(p, images):
    """Shapes, encoders and decoders of every modality, behind pythae's base classes."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    dim = p.baseline.latent_dim

    class PeerEncoder(BaseEncoder):
        def __init__(self, shape):
            super().__init__()
            self.latent_dim, self.net = dim, Encoder(shape, dim)

        def forward(self, x):
            mean, logvar = self.net(x)
            return ModelOutput(embedding=mean, log_covariance=logvar)

    class PeerDecoder(BaseDecoder):
        def __init__(self, shape):
            super().__init__()
            self.latent_dim, self.net = dim, Decoder(shape, dim)

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z))

    shapes = {name: tuple(array.shape[1:]) for name, array in images.items()}
    encoders = {name: PeerEncoder(shape) for name, shape in shapes.items()}
    decoders = {name: PeerDecoder(shape) for name, shape in shapes.items()}
    return shapes, encoders, decoders


def ticking(base, clock):
    """A callback of a trainer, of its class `base`, that ticks the clock after every step."""

    class Callback(base):
        def on_train_step_end(self, training_config, **kwargs):
            clock.tick()

    return Callback()


def multivae_model(kind, images, p):
    """The model of multivae that is our baseline `kind`, over our networks."""
    from multivae import models

    shapes, encoders, decoders = networks(p, images)
    common = dict(
        n_modalities=len(shapes),
        latent_dim=p.baseline.latent_dim,
        input_dims=shapes,
        beta=getattr(p.baseline.beta, kind),
        decoders_dist={name: "normal" for name in shapes},
        decoder_dist_params={name: {"scale": p.vae.scale} for name in shapes},
    )
    # One sample of each component and normal posteriors, as ours; it decodes all of them.
    mixture = dict(K=1, prior_and_posterior_dist="normal", learn_prior=False, loss="iwae_looser")
    model, config, options = {
        "poe": (models.MVAE, models.MVAEConfig, dict(warmup=0)),
        "moe": (models.MMVAE, models.MMVAEConfig, mixture),
        "mopoe": (models.MoPoE, models.MoPoEConfig, {}),
        "mvtcae": (models.MVTCAE, models.MVTCAEConfig, dict(alpha=5 / 6)),  # as ours
    }[kind]
    return model(config(**common, **options), encoders, decoders)


def with_multivae(kind, images, p, clock):
    from multivae.data.datasets import MultimodalBaseDataset
    from multivae.trainers import BaseTrainer, BaseTrainerConfig
    from multivae.trainers.base.callbacks import TrainingCallback

    x = {name: splits.to_float(array) for name, array in images.items()}
    model = multivae_model(kind, images, p)
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=p.vae.batch_size,
            num_epochs=STEPS,
            learning_rate=p.vae.learning_rate,
            drop_last=True,
        )
        callbacks = [ticking(TrainingCallback, clock)]
        data = MultimodalBaseDataset(x)
        BaseTrainer(model, data, training_config=config, callbacks=callbacks).train()


def with_pythae(images, p, clock):
    from pythae.data.datasets import BaseDataset
    from pythae.models import BetaVAE, BetaVAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    shapes, encoders, decoders = networks(p, {"m1": images})
    about = BetaVAEConfig(
        input_dim=shapes["m1"],
        latent_dim=p.baseline.latent_dim,
        reconstruction_loss="mse",
        beta=p.vae.beta,
    )
    model = BetaVAE(about, encoder=encoders["m1"], decoder=decoders["m1"])
    x = splits.to_float(images)
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=p.vae.batch_size,
            num_epochs=STEPS,
            learning_rate=p.vae.learning_rate,
        )
        callbacks = [ticking(TrainingCallback, clock)]
        data = BaseDataset(x, torch.zeros(len(x)))
        BaseTrainer(model, data, training_config=config, callbacks=callbacks).train()


def with_a_common_loop(images, p, clock):
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

    dim, shape = p.baseline.latent_dim, list(images.shape[1:])
    encoder, decoder = Encoder(shape, dim), Decoder(shape, dim)
    weights = [*encoder.parameters(), *decoder.parameters()]
    optimiser = torch.optim.Adam(weights, lr=p.vae.learning_rate)
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images):
            file = Path(folder) / f"{i:05}.png"
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
        options = dict(shuffle=True, num_workers=2, drop_last=True)
        while True:
            for x in DataLoader(Files(folder), p.vae.batch_size, **options):
                mean, logvar = encoder(x)
                recon = decoder(mean + torch.exp(0.5 * logvar) * torch.randn_like(mean))
                squared = nn.functional.mse_loss(recon, x, reduction="sum") / len(x)
                divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum() / len(x)
                loss = squared + p.vae.beta * divergence
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                loss.item()
                clock.tick()


if __name__ == "__main__":
    command.run(main)
