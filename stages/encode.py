"""Posterior means and log-variances of every train and test image, all modalities -> latents/.

python -m stages.encode
"""

import torch
from tqdm import tqdm

from ebmvae import command, params
from ebmvae.core import artifacts, devices
from ebmvae.data import splits
from ebmvae.data.latents import LATENTS
from ebmvae.vae.networks import Encoder


def main():
    command.parser(__doc__).parse_args()
    p = params.load()
    with command.exclusive("encode"):
        device = devices.setup(p.threads)
        with artifacts.together():
            for split in ("train", "test"):
                encode(split, device)


def encode(split, device):
    """Write latents/SPLIT.safetensors: mean and logvar, (N, M, d) each."""
    images = splits.load_split(split, device).images
    means, logvars = [], []
    for modality, array in images.items():
        file = f"models/vae/{modality}/encoder.safetensors"
        encoder = artifacts.load_module(file, Encoder, device)
        bar = tqdm(array.split(1000), f"encode {split} {modality}", unit="batch", disable=None)
        with torch.no_grad():
            parts = [encoder(splits.to_float(x)) for x in bar]
        means.append(torch.cat([mean for mean, _ in parts]))
        logvars.append(torch.cat([logvar for _, logvar in parts]))
    tensors = {"mean": torch.stack(means, 1), "logvar": torch.stack(logvars, 1)}  # N, M, d
    about = {"modalities": list(images)}
    artifacts.save_tensors(LATENTS / f"{split}.safetensors", tensors, about)
    n, modalities, _ = tensors["mean"].shape
    print(f"encode: {split}, {n} tuples of {modalities} modalities", flush=True)


if __name__ == "__main__":
    command.run(main)
