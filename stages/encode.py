"""Posterior means and log-variances of every train and test image, all modalities -> latents/.

    python -m stages.encode
"""

import argparse
import sys

import torch
from tqdm import tqdm

from stages.lib import artifacts, data, networks, params, runtime


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    p = params.load()
    runtime.begin("encode")
    device = runtime.setup(p.threads)
    with artifacts.together():
        for split in ("train", "test"):
            images = data.load_split(split, device).images
            means, logvars = [], []
            for modality, array in images.items():
                encoder = artifacts.load_module(f"models/vae/{modality}/encoder.safetensors", networks.Encoder, device)
                with torch.no_grad():
                    bar = tqdm(array.split(1000), f"encode {split} {modality}", unit="batch", disable=not sys.stderr.isatty())
                    parts = [encoder(data.to_float(x)) for x in bar]
                means.append(torch.cat([mean for mean, _ in parts]))
                logvars.append(torch.cat([logvar for _, logvar in parts]))
            artifacts.save_tensors(data.LATENTS / f"{split}.safetensors",
                                   {"mean": torch.stack(means, 1), "logvar": torch.stack(logvars, 1)},  # N, M, d
                                   {"modalities": list(images)})
            print(f"encode: {split}, {len(array)} tuples of {len(images)} modalities", flush=True)


if __name__ == "__main__":
    runtime.run(main)
