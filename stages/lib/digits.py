"""Handwritten digits with their writers: MNIST where it can be had, else scikit-learn's 1,797 digits, varied."""

import gzip
import hashlib
import http.client
import os
import socket
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

from stages.lib.runtime import UserError, generator, relative

# SHA-256 of the decompressed IDX files, whatever gzip wrote around them.
MNIST = {
    ("train", "images"): ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    ("train", "labels"): ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    ("test", "images"): ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    ("test", "labels"): ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
TIMEOUT = 10  # seconds to wait for a mirror


class NotFound(UserError):
    """MNIST is nowhere: `auto` falls back to the embedded digits; a damaged file is another matter."""


def load(choice, seed):
    """Digits for `choice` auto, mnist or embedded.

    Returns ({"train": (images uint8 (K, 28, 28), labels (K,), writers (K,)), "test": ...}, provenance dict).
    Raises `UserError` where MNIST was asked for and can't be had, or a file of it is damaged.
    """
    if choice == "embedded":
        return embedded(seed)
    try:
        return mnist()
    except NotFound as error:
        if choice == "mnist":
            raise
        print(f"WARNING: MNIST can't be had ({error}).\n"
              "WARNING: using scikit-learn's 1,797 embedded digits instead; figures and numbers will say so.\n"
              "WARNING: once MNIST is at hand: `MNIST_DIR=FOLDER make mnist`.", file=sys.stderr, flush=True)
        return embedded(seed)


def mnist():
    """MNIST from MNIST_DIR, else data/raw, else torchvision's mirrors; `NotFound` tells what was tried."""
    tried = []
    for folder in filter(None, (os.environ.get("MNIST_DIR"), "data/raw")):
        try:
            return read_mnist(Path(folder))
        except NotFound as error:
            tried.append(str(error))
    with tempfile.TemporaryDirectory() as temporary:
        try:
            download(Path(temporary))
        except NotFound as error:
            raise NotFound("; ".join([*tried, str(error)]) + "; set MNIST_DIR to a folder with MNIST") from None
        return read_mnist(Path(temporary))


def read_mnist(folder):
    """The four IDX files of `folder`, gzipped or raw, each checked by the SHA-256 of its content."""
    arrays, hashes = {}, {}
    for key, (name, expected) in MNIST.items():
        file = next((f for f in (folder / name, folder / f"{name}.gz") if f.is_file()), None)
        if file is None:
            raise NotFound(f"{relative(folder)} holds no {name} or {name}.gz")
        try:
            content = file.read_bytes()
            content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{relative(file)}: can't be read ({error}); fetch MNIST anew") from None
        hashes[name] = hashlib.sha256(content).hexdigest()
        if hashes[name] != expected:
            raise UserError(f"{relative(file)}: SHA-256 of the content is {hashes[name][:12]}..., "
                            f"MNIST's is {expected[:12]}...; fetch MNIST anew")
        header = 4 + 4 * content[3]  # magic, then one 32-bit size a dimension
        shape = np.frombuffer(content[4:header], ">i4")
        arrays[key] = np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    sets = {split: (arrays[split, "images"], arrays[split, "labels"], np.arange(len(arrays[split, "labels"])))
            for split in ("train", "test")}
    return sets, {"dataset": "PolyMNIST (MNIST digits)", "digits": "mnist", "digit_files": hashes}


def download(folder):
    """Fetch the IDX files from torchvision's mirrors into `folder`; raises `NotFound` without internet."""
    from torchvision.datasets import MNIST as TorchvisionMNIST

    limit = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        TorchvisionMNIST(folder, download=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise NotFound(f"no mirror answered ({str(error).splitlines()[0].rstrip(':')})") from None
    finally:
        socket.setdefaulttimeout(limit)
    for file in (folder / "MNIST" / "raw").iterdir():
        file.rename(folder / file.name)


def embedded(seed, n_train=60000, n_test=10000):
    """scikit-learn's digits (8x8), enlarged to 28x28 and varied; train and test share no source digit."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images / bunch.images.max(), bunch.target
    order = np.random.default_rng(seed).permutation(len(labels))
    cut = len(labels) // 5
    sets = {}
    for split, part, n in (("train", order[cut:], n_train), ("test", order[:cut], n_test)):
        source = np.resize(part, n)
        sets[split] = vary(images[source], generator("cpu", "embedded", seed, split)), labels[source], source
    return sets, {"dataset": "PolyMNIST with embedded digits (scikit-learn)", "digits": "embedded",
                  "digit_files": {"sklearn.load_digits": hashlib.sha256(images.tobytes()).hexdigest()}}


def vary(images, rng):
    """Enlarge (K, 8, 8) in [0, 1] to uint8 (K, 28, 28), each with its own small affine and elastic transform."""
    import torch
    import torch.nn.functional as F

    out = []
    for part in torch.from_numpy(images).float().split(5000):
        k = len(part)
        large = F.pad(F.interpolate(part[:, None], size=20, mode="bicubic"), (4, 4, 4, 4))  # k, 1, 28, 28
        uniform = lambda low, high: torch.rand(k, generator=rng) * (high - low) + low
        angle, shear = uniform(-0.2, 0.2), uniform(-0.2, 0.2)
        scale_x, scale_y = uniform(0.9, 1.15), uniform(0.9, 1.15)
        cos, sin = angle.cos(), angle.sin()
        affine = torch.stack([
            torch.stack([scale_x * cos, scale_y * (shear * cos - sin), uniform(-0.12, 0.12)], 1),
            torch.stack([scale_x * sin, scale_y * (shear * sin + cos), uniform(-0.12, 0.12)], 1)], 1)  # k, 2, 3
        grid = F.affine_grid(affine, large.shape, align_corners=False)  # k, 28, 28, 2
        wobble = torch.randn(k, 2, 5, 5, generator=rng) * 0.045
        grid = grid + F.interpolate(wobble, size=28, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        varied = F.grid_sample(large, grid, mode="bilinear", align_corners=False)[:, 0]
        out.append((varied.clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.cat(out).numpy()
