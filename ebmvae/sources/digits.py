"""Handwritten digits with their writers: MNIST, or scikit-learn's 1,797 digits, varied."""

import gzip
import hashlib
import http.client
import os
import socket
import tempfile
import zlib
from pathlib import Path

import numpy as np

from ebmvae import paths
from ebmvae.core.messages import UserError, relative, say
from ebmvae.core.random import generator

SIDE = 28  # pixels, of a digit and of all that is made from it
# SHA-256 of the decompressed IDX files, whatever gzip wrote around them.
MNIST = {
    ("train", "images"): (
        "train-images-idx3-ubyte",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    ("train", "labels"): (
        "train-labels-idx1-ubyte",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    ("test", "images"): (
        "t10k-images-idx3-ubyte",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    ("test", "labels"): (
        "t10k-labels-idx1-ubyte",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
IDX_UINT8 = b"\0\0\x08"  # how an IDX file of bytes begins
LARGEST = 2**26  # bytes; the training images have 47 million
LAYOUTS = ("raw", "MNIST", "MNIST/raw", "*idx?-ubyte*")  # torchvision's folders, and Kaggle's
TIMEOUT = 10  # seconds to wait for a mirror


class NotFound(UserError):
    """MNIST is nowhere: `auto` then takes the embedded digits. A damaged file is another matter."""


def load(choice, seed):
    """Digits for `choice` auto, mnist or embedded.

    Returns {"train": (images uint8 (K, 28, 28), labels (K,), writers (K,)), "test": ...} and a dict
    of provenance. Raises `UserError` where MNIST was asked for and can't be had, or is damaged; in
    the copy of `dvc exp run --temp` `auto` asks for it too, as the project has the run cache of it.
    """
    if choice == "embedded":
        return embedded(seed)
    try:
        return mnist()
    except NotFound as error:
        if choice == "mnist":
            raise
        if copied_from := paths.project():
            raise UserError(
                f"polymnist.digits: MNIST can't be had ({error}); an experiment in a copy of "
                f"{copied_from} takes no other digits: add `-S polymnist.digits=embedded`, "
                "or give it MNIST"
            ) from None
        say(f"WARNING: MNIST can't be had ({error}).")
    say(
        "WARNING: using scikit-learn's 1,797 embedded digits instead; "
        "figures and numbers will say so."
    )
    say("WARNING: once MNIST is at hand: `MNIST_DIR=FOLDER make mnist`.")
    return embedded(seed)


# ---- MNIST


def mnist():
    """MNIST from MNIST_DIR, else data/raw, else torchvision's mirrors; returns as `load`.

    Raises `NotFound` with what was tried, and `UserError` if MNIST_DIR is set and holds no MNIST.
    """
    if given := os.environ.get("MNIST_DIR"):
        try:
            return read_mnist(*paths.places(given))
        except NotFound as error:
            raise UserError(f"MNIST_DIR={given}: {error}; correct it, or unset it") from None
    try:
        return read_mnist(*paths.places("data/raw"))
    except NotFound as error:
        tried = error
    with tempfile.TemporaryDirectory() as temporary:
        try:
            download(Path(temporary))
        except NotFound as error:
            raise NotFound(f"{tried}; {error}; set MNIST_DIR to a folder with MNIST") from None
        return read_mnist(Path(temporary))


def read_mnist(*folders):
    """The four IDX files in `folders` or in LAYOUTS of them, gzipped or raw; returns as `load`.

    They are known by the SHA-256 of their content, under any name. Raises `NotFound` with what is
    missing where, and `UserError` for a file with MNIST's name and other content.
    """
    contents, damaged = {}, {}
    keys = {digest: key for key, (_, digest) in MNIST.items()}
    for file in (file for folder in folders for file in _candidates(folder)):
        if len(contents) == len(MNIST):
            break
        content, problem = _read(file)
        digest = hashlib.sha256(content).hexdigest()
        if digest in keys:
            contents[keys[digest]] = content
        if (key := _key_of(file.name)) and keys.get(digest) != key:
            other = (
                f"SHA-256 of the content is {digest[:12]}..., MNIST's is {MNIST[key][1][:12]}..."
            )
            damaged[key] = f"{relative(file)}: {problem or other}; fetch MNIST anew"
    if missing := [key for key in MNIST if key not in contents]:
        for key in filter(damaged.get, missing):
            raise UserError(damaged[key])
        raise NotFound(_missing(missing, folders))
    sets = {}
    for split in ("train", "test"):
        images, labels = (_array(contents[split, kind]) for kind in ("images", "labels"))
        sets[split] = images, labels, np.arange(len(labels))
    hashes = {name: digest for name, digest in MNIST.values()}
    return sets, {"dataset": "PolyMNIST (MNIST digits)", "digits": "mnist", "digit_files": hashes}


def _candidates(folder):
    """Files that may be MNIST's, in `folder` and its LAYOUTS, raw ones first."""
    try:
        places = [folder, *(place for layout in LAYOUTS for place in sorted(folder.glob(layout)))]
        files = [file for place in places if place.is_dir() for file in sorted(place.iterdir())]
        return sorted(filter(Path.is_file, files), key=_is_zipped)
    except OSError as error:
        raise UserError(f"{relative(folder)}: can't be read ({error.strerror})") from None


def _is_zipped(file):
    return file.suffix.lower() == ".gz"


def _key_of(name):
    """The key in MNIST of a file's name, which may have dots or .gz; None for any other name."""
    plain = name.lower().removesuffix(".gz").replace(".", "-")
    return next((key for key, (known, _) in MNIST.items() if plain == known), None)


def _read(file):
    """The content of an IDX file, unzipped, and None; or b"" and why there is none."""
    try:
        with open(file, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(file) if zipped else open(file, "rb") as opened:
            if (start := opened.read(3)) != IDX_UINT8:
                return b"", "is no IDX file of bytes"
            return start + opened.read(LARGEST), None
    except (OSError, EOFError, zlib.error) as error:
        return b"", f"can't be read ({error})"


def _array(content):
    """The array in an IDX file."""
    header = 4 + 4 * content[3]  # magic, then one 32-bit size per dimension
    shape = np.frombuffer(content[4:header], ">i4")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _missing(keys, folders):
    """What is said of files of MNIST that none of `folders` has."""
    where = " and ".join(relative(folder) for folder in folders)
    if not any(folder.is_dir() for folder in folders):
        where += ": not a folder; it"
    first, *others = [MNIST[key][0] for key in keys]
    names = ", ".join([f"{first} or {first}.gz", *others])
    inside = ", ".join(LAYOUTS)
    return f"{where} holds no {names}, nor their content under other names or in {inside}"


def download(folder):
    """Fetch the IDX files from torchvision's mirrors into `folder`.

    Raises `NotFound` where none answers.
    """
    from torchvision.datasets import MNIST as TorchvisionMNIST

    limit = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        TorchvisionMNIST(folder, download=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise NotFound(f"no mirror answered ({reason})") from None
    finally:
        socket.setdefaulttimeout(limit)
    for file in (folder / "MNIST" / "raw").iterdir():
        file.rename(folder / file.name)


# ---- the embedded digits


def embedded(seed, n_train=60000, n_test=10000):
    """scikit-learn's digits (8x8), enlarged to 28x28 and varied; returns as `load`.

    The splits share no source digit. A source digit counts as a writer.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images / bunch.images.max(), bunch.target
    order = np.random.default_rng(seed).permutation(len(labels))
    cut = len(labels) // 5
    sets = {}
    for split, part, n in (("train", order[cut:], n_train), ("test", order[:cut], n_test)):
        source = np.resize(part, n)
        varied = vary(images[source], generator("cpu", "embedded", seed, split))
        sets[split] = varied, labels[source], source
    return sets, {
        "dataset": "PolyMNIST with embedded digits (scikit-learn)",
        "digits": "embedded",
        "digit_files": {"sklearn.load_digits": hashlib.sha256(images.tobytes()).hexdigest()},
    }


def vary(images, rng):
    """Enlarge (K, 8, 8) in [0, 1] to uint8 (K, 28, 28), every image in its own way.

    rng, a torch generator, draws a small affine and elastic transform per image.
    """
    import torch
    import torch.nn.functional as F

    out = []
    for part in torch.from_numpy(images).float().split(5000):
        large = F.interpolate(part[:, None], size=20, mode="bicubic")
        large = F.pad(large, (4, 4, 4, 4))  # k, 1, 28, 28
        grid = F.affine_grid(_small_affine(len(part), rng), large.shape, align_corners=False)
        wobble = torch.randn(len(part), 2, 5, 5, generator=rng) * 0.045
        wobble = F.interpolate(wobble, size=SIDE, mode="bicubic", align_corners=True)
        grid = grid + wobble.permute(0, 2, 3, 1)  # k, 28, 28, 2
        varied = F.grid_sample(large, grid, mode="bilinear", align_corners=False)[:, 0]
        out.append((varied.clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.cat(out).numpy()


def _small_affine(k, rng):
    """k random matrices (k, 2, 3): a little rotation, shear, scaling and translation."""
    import torch

    def uniform(low, high):
        return torch.rand(k, generator=rng) * (high - low) + low

    angle, shear = uniform(-0.2, 0.2), uniform(-0.2, 0.2)
    scale_x, scale_y = uniform(0.9, 1.15), uniform(0.9, 1.15)
    shift_x, shift_y = uniform(-0.12, 0.12), uniform(-0.12, 0.12)
    cos, sin = angle.cos(), angle.sin()
    first = torch.stack([scale_x * cos, scale_y * (shear * cos - sin), shift_x], 1)
    second = torch.stack([scale_x * sin, scale_y * (shear * sin + cos), shift_y], 1)
    return torch.stack([first, second], 1)
