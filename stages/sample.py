"""Pictures of a target modality, given pictures of others: the fitted model at work. No DVC stage.

    python -m stages.sample --observed m1=photo.png --observed m4=b.png --target m3 -n 16 -o out.png

Nothing observed is unconditional generation. In Python: `load`, `generate` and `energy` below.
"""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ebmvae import command, params
from ebmvae.core import artifacts, devices
from ebmvae.core.messages import UserError
from ebmvae.core.random import seed_of
from ebmvae.data import splits
from ebmvae.evaluation import fitted, grid
from ebmvae.evaluation.subsets import subset_name
from ebmvae.methods import ENERGIES
from ebmvae.reporting import figures
from ebmvae.sources import pictures
from ebmvae.vae.networks import Decoder, Encoder

Networks = dict[str, tuple[Encoder, Decoder]]  # by modality
Images = dict[str, torch.Tensor]  # by modality


def main():
    args = parser().parse_args()
    p = params.load()
    device = devices.setup(p.threads)
    model, vaes = load(args.method, p, device)
    if args.n < 1:
        raise UserError(f"-n {args.n}: at least 1 picture")
    if args.target not in vaes:
        raise UserError(f"--target {args.target}: no such modality; there are {', '.join(vaes)}")
    observed = read_observed(args.observed, args.target, list(vaes))
    images = generate(model, vaes, observed, args.n, args.seed)[args.target]
    save_tiles(args.out, images)
    given = subset_name(tuple(sorted(observed)))
    print(f"{args.out}: {args.n} pictures of {args.target} given {given}")


def parser():
    options = command.parser(__doc__)
    add = options.add_argument
    add("--observed", action="append", default=[], metavar="NAME=FILE", help="may be repeated")
    add("--target", required=True, help="the modality to generate: m1, m2, ...")
    add("-n", type=int, default=16, help="pictures to generate (16)")
    add("-o", "--out", type=Path, default=Path("out.png"), help="a PNG of them all (out.png)")
    add("--method", choices=ENERGIES, default="eb_mvae_annealed")
    add("--seed", type=int, default=0)
    return options


def read_observed(texts, target, names) -> Images:
    """NAME=FILE texts as {modality: uint8 (C, H, W)}.

    Raises `UserError` naming the one that is wrong.
    """
    observed = {}
    for text in texts:
        name, _, file = text.partition("=")
        if not file or name not in names or name == target or name in observed:
            others = ", ".join(n for n in names if n != target)
            raise UserError(f"--observed {text}: NAME=FILE, each NAME once, of {others}")
        _, about = artifacts.load_tensors(f"models/vae/{name}/encoder.safetensors")
        observed[name] = read_picture(file, about["image_shape"], f"--observed {text}")
    return observed


def load(method: str, p, device: torch.device) -> tuple[fitted.FittedEnergy, Networks]:
    """The fitted joint energy and {modality: (encoder, decoder)} of the run in this folder.

    method: one of methods.ENERGIES; p: params.load(). Raises `UserError` where something is missing
    or damaged.
    """
    names = artifacts.load_json(splits.POLYMNIST / "provenance.json")["modalities"]
    vaes = {}
    for name in names:
        folder = Path("models/vae") / name
        encoder = artifacts.load_module(folder / "encoder.safetensors", Encoder, device)
        decoder = artifacts.load_module(folder / "decoder.safetensors", Decoder, device)
        vaes[name] = encoder, decoder
    return fitted.load(method, p, names, device), vaes


@torch.no_grad()
def encode(model: fitted.FittedEnergy, vaes: Networks, images: Images):
    """Standardised posterior means and deviations (n, M, d) of images, uint8 (n, C, H, W) each.

    Where a modality is absent they are 0, and nothing should read them.
    """
    shift = model.standardisation["shift"]  # M, d
    n = len(next(iter(images.values()))) if images else 1
    mean, logvar = torch.zeros(2, n, *shift.shape, device=shift.device)
    for name, x in images.items():
        m = model.names.index(name)
        mean[:, m], logvar[:, m] = vaes[name][0](splits.to_float(x.to(shift.device)))
    return fitted.posterior(model, mean, logvar)


def generate(
    model: fitted.FittedEnergy, vaes: Networks, observed: Images, n: int, seed: int = 0
) -> Images:
    """n samples of every modality given one picture each of some: uint8 (n, C, H, W) each.

    observed: uint8 (C, H, W) each, of which a posterior sample per row is held fixed (eq. 2 of the
    paper); empty is unconditional. The observed come back as their reconstructions.
    """
    mean, std = encode(model, vaes, {name: x[None] for name, x in observed.items()})
    seeds = {
        what: [seed_of("sample", seed, what, i) for i in range(n)] for what in ("observed", "free")
    }
    mean, std = mean.expand(n, -1, -1), std.expand(n, -1, -1)
    held = fitted.posterior_samples(mean, std, seeds["observed"])
    z = fitted.sample(model, held, tuple(observed), seeds["free"])
    if len(grid.converged(z, "sample")) < n:
        raise UserError(
            "sample: some samples diverged; try a smaller ebm.step_size or annealed.guidance_scale"
        )
    with torch.no_grad():
        decoded = {name: vaes[name][1](z[:, m]) for m, name in enumerate(model.names)}
    return {name: splits.to_uint8(x).cpu() for name, x in decoded.items()}


def energy(model: fitted.FittedEnergy, vaes: Networks, images: Images, seed: int = 0):
    """E (n,) of tuples of all modalities, uint8 (n, C, H, W) each, each at one posterior sample.

    Lower: they belong together.
    """
    mean, std = encode(model, vaes, images)
    seeds = [seed_of("energy", seed, i) for i in range(len(mean))]
    return fitted.energy(model, fitted.posterior_samples(mean, std, seeds))


def read_picture(file, shape, what):
    """A picture file as uint8 (C, H, W).

    Raises `UserError` starting with `what` unless it is one of that shape.
    """
    channels, height, width = shape
    picture = torch.from_numpy(pictures.open_picture(Path(file), what).copy()).permute(2, 0, 1)
    if picture.shape[1:] != (height, width):
        size = f"{picture.shape[2]}x{picture.shape[1]}"
        raise UserError(
            f"{what} is {size}, but this modality is {width}x{height}; crop or resize it"
        )
    if channels == 1:
        return picture.float().mean(0, keepdim=True).round().to(torch.uint8)
    return picture.contiguous()


def save_tiles(path, images):
    """Write uint8 (n, C, H, W) as one PNG, about as many rows as columns."""
    n, *shape = images.shape
    columns = int(np.ceil(n**0.5))
    rows = -(-n // columns)
    padded = np.full((rows * columns, *shape), 255, np.uint8)
    padded[:n] = images.numpy()
    buffer = io.BytesIO()
    Image.fromarray(figures.tile(padded.reshape(rows, columns, *shape))).save(buffer, format="PNG")
    artifacts.write(path, buffer.getvalue(), checksum=False)


if __name__ == "__main__":
    command.run(main)
