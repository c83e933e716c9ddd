"""Pictures of a target modality, given pictures of others: the fitted model at work. No stage of the DAG.

    python -m stages.sample --observed m1=photo.png --observed m4=other.png --target m3 -n 16 -o out.png

Nothing observed is unconditional generation. In Python: `load`, `generate` and `energy` below.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stages.lib import artifacts, data, evaluation, joint, networks, params, pictures, posteriors, runtime
from stages.lib.runtime import UserError


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observed", action="append", default=[], metavar="NAME=FILE", help="a picture of a modality; may be repeated")
    parser.add_argument("--target", required=True, help="the modality to generate: m1, m2, ...")
    parser.add_argument("-n", type=int, default=16, help="pictures to generate (16)")
    parser.add_argument("-o", "--out", type=Path, default=Path("out.png"), help="a PNG of them all (out.png)")
    parser.add_argument("--method", choices=joint.FOLDER, default="eb_mvae_annealed")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    p = params.load()
    device = runtime.setup(p.threads)
    fitted, vaes = load(asked.method, p, device)
    if asked.n < 1:
        raise UserError(f"-n {asked.n}: at least 1 picture")
    if asked.target not in vaes:
        raise UserError(f"--target {asked.target}: no such modality; there are {', '.join(vaes)}")
    observed = {}
    for text in asked.observed:
        name, _, file = text.partition("=")
        if not file or name not in vaes or name == asked.target or name in observed:
            raise UserError(f"--observed {text}: NAME=FILE is wanted, NAME each once one of {', '.join(n for n in vaes if n != asked.target)}")
        _, about = artifacts.load_tensors(f"models/vae/{name}/encoder.safetensors")
        observed[name] = read_picture(file, about["image_shape"], f"--observed {text}")
    images = generate(fitted, vaes, observed, asked.n, asked.seed)[asked.target]
    save_tiles(asked.out, images)
    print(f"{asked.out}: {asked.n} pictures of {asked.target} given {posteriors.subset_name(tuple(sorted(observed)))}")


def load(method, p, device):
    """The fitted joint energy (joint.Joint) and {modality: (encoder, decoder)} of the run that lies in this folder.

    method: eb_mvae or eb_mvae_annealed; p: params.load(). Raises `UserError` where something is missing or damaged.
    """
    names = artifacts.load_json(data.POLYMNIST / "provenance.json")["modalities"]
    part = lambda name, kind, build: artifacts.load_module(f"models/vae/{name}/{kind}.safetensors", build, device)
    vaes = {name: (part(name, "encoder", networks.Encoder), part(name, "decoder", networks.Decoder)) for name in names}
    return joint.load(method, p, names, device), vaes


@torch.no_grad()
def encode(fitted, vaes, images):
    """Standardised posterior means and deviations (n, M, d) of `images`, {modality: uint8 (n, C, H, W)}.

    Where a modality is absent they are 0, and nothing should read them.
    """
    found = {name: vaes[name][0](data.to_float(x.to(fitted.device))) for name, x in images.items()}
    shape = (len(next(iter(images.values()))) if images else 1, *fitted.standard["shift"].shape)
    mean, logvar = torch.zeros(2, *shape, device=fitted.device)
    for name, (m, v) in found.items():
        mean[:, fitted.names.index(name)], logvar[:, fitted.names.index(name)] = m, v
    return joint.posterior(fitted, mean, logvar)


def generate(fitted, vaes, observed, n, seed=0):
    """n samples of every modality given one picture each of some: {modality: uint8 (n, C, H, W)}.

    observed: {modality: uint8 (C, H, W)}, of which a posterior sample a row is held fixed (eq. 2 of the paper); empty is
    unconditional. The observed come back as their reconstructions.
    """
    mean, std = encode(fitted, vaes, {name: x[None] for name, x in observed.items()})
    keys = [[runtime.seed_of("sample", seed, what, i) for i in range(n)] for what in ("observed", "free")]
    held = joint.posterior_samples(mean.expand(n, -1, -1), std.expand(n, -1, -1), keys[0])
    z = joint.sample(fitted, held, tuple(observed), keys[1])
    if len(evaluation.converged(z, "sample")) < n:
        raise UserError("sample: some samples diverged; try a smaller ebm.step_size or annealed.guidance")
    with torch.no_grad():
        return {name: data.to_uint8(vaes[name][1](z[:, m])).cpu() for m, name in enumerate(fitted.names)}


def energy(fitted, vaes, images, seed=0):
    """E (n,) of tuples of all modalities, {modality: uint8 (n, C, H, W)}, each at one posterior sample: lower, they match."""
    mean, std = encode(fitted, vaes, images)
    return joint.energy(fitted, joint.posterior_samples(mean, std, [runtime.seed_of("energy", seed, i) for i in range(len(mean))]))


def read_picture(file, shape, what):
    """A picture file as uint8 (C, H, W); raises `UserError` starting with `what` unless it is one of that shape."""
    channels, height, width = shape
    found = torch.from_numpy(pictures.open_picture(Path(file), what).copy()).permute(2, 0, 1)  # 3, H, W
    if found.shape[1:] != (height, width):
        raise UserError(f"{what} is {found.shape[2]}x{found.shape[1]}, but this modality is {width}x{height}; crop or resize it")
    return found.float().mean(0, keepdim=True).round().to(torch.uint8) if channels == 1 else found.contiguous()


def save_tiles(path, images):
    """Write uint8 (n, C, H, W) as one PNG, about as many rows as columns, two white pixels between them."""
    n, channels, height, width = images.shape
    columns = int(np.ceil(n**0.5))
    rows = -(-n // columns)
    padded = torch.full((rows * columns, channels, height + 2, width + 2), 255, dtype=torch.uint8)
    padded[:n, :, :height, :width] = images
    tiled = padded.view(rows, columns, channels, height + 2, width + 2).permute(0, 3, 1, 4, 2).reshape(
        rows * (height + 2), columns * (width + 2), channels)[:-2, :-2]
    buffer = io.BytesIO()
    Image.fromarray(tiled.squeeze(2).numpy()).save(buffer, format="PNG")
    artifacts.write(path, buffer.getvalue(), checksum=False)


if __name__ == "__main__":
    runtime.run(main)
