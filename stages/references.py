"""What every method is measured against: statistics of real test images, and two upper bounds.

    python -m stages.references

Upper bounds: real images themselves (training against test images), and the unimodal VAEs'
reconstructions.
"""

from pathlib import Path

import torch
from tqdm import tqdm

from ebmvae import command, params
from ebmvae.core import artifacts, devices, random
from ebmvae.data import latents, splits
from ebmvae.evaluation import grid
from ebmvae.vae import experts
from ebmvae.vae.networks import Decoder

OUT = Path("results/references")


def main():
    command.parser(__doc__).parse_args()
    p = params.load()
    with command.exclusive("references"):
        run(p)


def run(p):
    """Measure and write results/references."""
    device = devices.setup(p.threads)
    test, train = (splits.load_split(split, device) for split in ("test", "train"))
    ruler = grid.load_ruler(p, test, device)
    mean, logvar, _ = latents.load_latents("test", device)
    index = grid.test_tuples(p, len(test), device)
    rng = random.generator(device, "references", p.seed)
    eps = torch.randn(mean[index].shape, generator=rng, device=device)
    z = experts.sample(mean[index], logvar[index], eps)  # n, M, d
    rows, statistics, samples = [], {}, {}
    for m, name in enumerate(tqdm(test.modalities, "references", unit="modality", disable=None)):
        file = f"models/vae/{name}/decoder.safetensors"
        decoder = artifacts.load_module(file, Decoder, device)
        real = grid.statistics(features_of(test.images[name], ruler))
        bounds = {  # images of rows, and their labels
            "real": (train.images[name].__getitem__, train.labels[: len(index)]),
            "unimodal_vae": (reconstruction(decoder, z[:, m]), test.labels[index]),
        }
        for method, (images_of, labels) in bounds.items():
            seen = grid.look_at(images_of, len(labels), ruler.classifiers[name], ruler)
            images, classes, extracted = seen
            numbers = grid.measure(classes, labels, extracted, real, ruler.distance)
            rows.append({"method": method, "target": name, **numbers})
            print(f"references: {rows[-1]}", flush=True)
        samples[name] = images[grid.figure_rows(labels)]  # of the VAE, which comes last
        kinds = {"real": real, "vae": grid.statistics(extracted)}
        for kind, parts in kinds.items():
            for part, value in zip(grid.STATISTICS, parts, strict=True):
                statistics[f"{kind}/{name}/{part}"] = torch.as_tensor(value)
    with artifacts.together():
        artifacts.save_tensors(OUT / "statistics.safetensors", statistics)
        for name, images in samples.items():
            artifacts.save_array(OUT / f"reconstructions_{name}.npy", images.cpu().numpy())
        artifacts.save_json(OUT / "results.json", {"rows": rows, **grid.about(p, device)})


def reconstruction(decoder, z):
    """A function from int64 rows to the uint8 images that z (n, d) decodes to."""

    def images_of(rows):
        return splits.to_uint8(decoder(z[rows]))

    return images_of


@torch.no_grad()
def features_of(images, ruler):
    """Features (N, F) float64 of uint8 images (N, C, H, W)."""
    parts = [ruler.extract(part).cpu().double() for part in images.split(ruler.batch_size)]
    return torch.cat(parts).numpy()


if __name__ == "__main__":
    command.run(main)
