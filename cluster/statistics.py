"""Feature statistics of real images by shards that different jobs compute, and merged; float64 throughout.

    python -m cluster.statistics m1 --split train --shard 3/8     # the third of eight
    python -m cluster.statistics m1 --split train --merge 8       # count, mean and covariance of all

For images more than one machine should read: features of a shard are never held for longer than a batch, and what jobs hand
over is F + F^2 numbers. Writes results/statistics/SPLIT-m1-3of8.safetensors, and without -3of8 what is merged.
"""

import argparse
import re
from pathlib import Path

import torch

from stages.lib import artifacts, data, features, metrics, params, runtime
from stages.lib.runtime import UserError

OUT = Path("results/statistics")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modality", help="m1, m2, ...")
    parser.add_argument("--split", choices=("train", "test"), default="test")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--shard", metavar="K/N", help="K of 1 to N: its share of the images")
    what.add_argument("--merge", metavar="N", type=int, help="the N shards, all there")
    asked = parser.parse_args()
    name = f"{asked.split}-{asked.modality}"
    if asked.merge is not None:
        if asked.merge < 1:
            raise UserError(f"--merge {asked.merge}: how many shards, 1 or more")
        save(name, *merged([load(f"{name}-{k}of{asked.merge}") for k in range(1, asked.merge + 1)]))
        return
    shard = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", asked.shard)
    k, n = map(int, shard.groups()) if shard else (1, 0)
    if k > n:
        raise UserError(f"--shard {asked.shard}: such as 3/8, the third of eight")
    p = params.load()
    device = runtime.setup(p.threads)
    images = data.load_split(asked.split, device, [asked.modality]).images[asked.modality]
    if n > len(images):
        raise UserError(f"--shard {asked.shard}: there are {len(images)} images, too few for {n} shards")
    save(f"{name}-{k}of{n}", *of_images(images[len(images) * (k - 1) // n : len(images) * k // n], features.extractor(p, device), p))


@torch.no_grad()
def of_images(images, extract, p):
    """Count, mean and covariance of the features of uint8 images (N, C, H, W), a batch at a time."""
    batches = (extract(part).double().cpu().numpy() for part in images.split(p.evaluate.batch_size))
    return merged([(len(found), *metrics.feature_statistics(found)) if len(found) > 1 else (1, found[0], 0.0) for found in batches])


def merged(parts):
    """Count, mean and covariance of all `parts`, which are such triples."""
    return sum(count for count, *_ in parts), *metrics.merge_statistics(parts)


def save(name, count, mean, covariance):
    """Write them as OUT/NAME.safetensors, and say so."""
    tensors = {"mean": torch.as_tensor(mean), "covariance": torch.as_tensor(covariance)}
    artifacts.save_tensors(OUT / f"{name}.safetensors", tensors, {"count": count})
    print(f"{OUT / name}.safetensors: {count} images, {len(mean)} features")


def load(name):
    """What `save` wrote."""
    tensors, about = artifacts.load_tensors(OUT / f"{name}.safetensors")
    return about["count"], tensors["mean"].numpy(), tensors["covariance"].numpy()


if __name__ == "__main__":
    runtime.run(main)
