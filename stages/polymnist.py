"""Digits + backgrounds -> data/polymnist/: tuples of M modalities that share a digit and nothing else.

    python -m stages.polymnist

A modality is a digit (another writer of the same class in every modality) thresholded at > 128 and laid over a random
crop of that modality's background picture; the colours are inverted where the digit is (paper, section 4; Sutter et
al. 2021). Digits come from MNIST, or from scikit-learn's handwritten digits where MNIST can't be had.
"""

import argparse
import hashlib
import re
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages.lib import artifacts, digits, params, runtime
from stages.lib.runtime import UserError, relative

OUT = Path("data/polymnist")
# Pictures inside the packages scikit-image and scikit-learn: no download. Busy ones for m1 and m5, as in the paper.
BUILTIN = ["skimage/data/astronaut.png", "sklearn/datasets/images/flower.jpg", "skimage/data/rocket.jpg",
           "skimage/data/coffee.png", "skimage/data/motorcycle_left.png",
           "sklearn/datasets/images/china.jpg", "skimage/data/chelsea.png", "skimage/data/hubble_deep_field.jpg",
           "skimage/data/ihc.png", "skimage/data/motorcycle_right.png"]
SIDE = 28
MAX_PIXELS, MAX_BYTES = 50_000_000, 200_000_000  # of one picture and its file; a larger one is surely a mistake
MAX_IMPORT = 2**34  # bytes of all imported images together
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # Pillow's other readers are less well kept, and some start programs


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    p = params.load().polymnist
    runtime.begin("polymnist")
    if p.import_dir:
        splits, provenance = import_tree(Path(p.import_dir), p)
    else:
        backgrounds, sources = load_backgrounds(p.backgrounds, p.modalities)
        digit_sets, origin = digits.load(p.digits, p.seed)
        splits = {}
        for split, n in (("train", p.n_train), ("test", p.n_test)):
            print(f"polymnist: {n} {split} tuples of {p.modalities} modalities, digits {origin['dataset']}", flush=True)
            splits[split] = make_tuples(*digit_sets[split], backgrounds, n, np.random.default_rng(
                runtime.seed_of("polymnist", p.seed, split)))
        provenance = {**origin, "backgrounds": sources}
    names = [f"m{i + 1}" for i in range(p.modalities)]
    provenance = {**provenance, "modalities": names, "seed": p.seed,
                  **{f"n_{split}": len(labels) for split, (_, labels, _) in splits.items()},
                  "sha256": {}}
    for split, (images, labels, crops) in splits.items():
        for name, array in zip(names, tqdm(images, f"polymnist {split}", unit="file", disable=not sys.stderr.isatty())):
            artifacts.save_array(OUT / split / f"{name}.npy", array)
            provenance["sha256"][f"{split}/{name}"] = hashlib.sha256(array).hexdigest()
        artifacts.save_array(OUT / split / "labels.npy", labels)
        if crops is not None:
            artifacts.save_array(OUT / split / "crops.npy", crops)
    artifacts.save_json(OUT / "provenance.json", provenance)
    print(f"polymnist: {provenance['dataset']}, written to {OUT}/")


def make_tuples(images, labels, writers, backgrounds, n, rng):
    """n tuples from digit images (K, 28, 28) uint8 with labels (K,) and writers (K,).

    Returns images: M arrays uint8 (n, 3, 28, 28); labels int64 (n,); crops int64 (n, M, 2), the (y, x) of each crop.
    """
    modalities = len(backgrounds)
    order = np.resize(rng.permutation(len(labels)), n)  # classes as frequent as among the digits
    tuple_labels = labels[order].astype(np.int64)
    source = np.empty((n, modalities), np.int64)
    for c in np.unique(tuple_labels):
        rows, pool = np.flatnonzero(tuple_labels == c), np.flatnonzero(labels == c)
        if len(np.unique(writers[pool])) < modalities:
            raise UserError(f"polymnist: digit {c} has fewer than {modalities} writers")
        pick = np.stack([np.resize(rng.permutation(pool), len(rows)) for _ in range(modalities)], 1)
        while len(again := np.flatnonzero([len(set(w)) < modalities for w in writers[pick].tolist()])):
            pick[again] = rng.choice(pool, (len(again), modalities))  # a writer twice in a tuple: draw it anew
        source[rows] = pick
    crops, out = np.empty((n, modalities, 2), np.int64), []
    for m, background in enumerate(backgrounds):
        height, width, _ = background.shape
        y, x = rng.integers(height - SIDE + 1, size=n), rng.integers(width - SIDE + 1, size=n)
        crops[:, m] = np.stack([y, x], 1)
        windows = np.lib.stride_tricks.sliding_window_view(background, (SIDE, SIDE), (0, 1))  # y, x, 3, 28, 28
        crop = windows[y, x]  # n, 3, 28, 28
        ink = images[source[:, m]][:, None] > 128  # n, 1, 28, 28
        out.append(np.ascontiguousarray(np.where(ink, 255 - crop, crop)))
    return out, tuple_labels, crops


def load_backgrounds(choice, modalities):
    """The first M background pictures, uint8 (H, W, 3), and their names with SHA-256; `builtin` or a folder."""
    from PIL import Image

    if choice == "builtin":
        import importlib.util

        root = lambda package: Path(importlib.util.find_spec(package).origin).parent.parent
        files = [root(name.split("/")[0]) / name for name in BUILTIN]
    else:
        folder = Path(choice)
        if not folder.is_dir():
            raise UserError(f"polymnist.backgrounds: {choice} is not a folder; give one with {modalities} pictures, "
                            "or `builtin`")
        files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    if len(files) < modalities:
        raise UserError(f"polymnist.backgrounds: {choice} holds {len(files)} pictures, {modalities} are needed")
    pictures, sources = [], []
    for file in files[:modalities]:
        what = f"polymnist.backgrounds: {relative(file) if choice != 'builtin' else file.name}"
        if choice != "builtin":
            stay_inside(file, Path(choice), what)
        picture = open_picture(file, what)
        if min(picture.shape[:2]) < SIDE:
            raise UserError(f"polymnist.backgrounds: {relative(file)} is {picture.shape[1]}x{picture.shape[0]}, "
                            f"smaller than {SIDE}x{SIDE}")
        pictures.append(picture)
        sources.append({"file": file.name, "sha256": hashlib.sha256(picture.tobytes()).hexdigest()})
    return pictures, sources


def stay_inside(file, folder, what):
    """Raise `UserError` starting with `what` unless `file` is a regular file inside `folder`, links followed."""
    if not file.is_file():
        raise UserError(f"{what} is not a regular file")
    if folder.resolve() not in file.resolve().parents:
        raise UserError(f"{what} is a link out of {folder}; put the picture itself there")


def open_picture(file, what):
    """A picture as uint8 (H, W, 3); raises `UserError` starting with `what` if it is none, too large, animated, or of
    more than 8 bits a channel."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if file.stat().st_size > MAX_BYTES:
                raise UserError(f"{what} is larger than {MAX_BYTES:,} bytes")
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(f"{what} has {image.width}x{image.height} pixels; {MAX_PIXELS:,} are the most")
                if getattr(image, "n_frames", 1) > 1:
                    raise UserError(f"{what} holds {image.n_frames} frames; give one picture")
                # Pillow would clip grey values of more than 8 bits, and take the upper 8 bits of colours.
                if image.mode.startswith(("I", "F")) or any(";16" in str(tile) for tile in image.tile):
                    raise UserError(f"{what} has more than 8 bits a channel; convert it to 8")
                return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, RuntimeError, TypeError, KeyError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{what} can't be read as a picture ({str(error).splitlines()[0]})") from None


def import_tree(folder, p):
    """Read the published PolyMNIST PNG tree: FOLDER/train/m0/17.3.png is index 17 of class 3, modality m0 our m1."""
    splits = {}
    for split, n in (("train", p.n_train), ("test", p.n_test)):
        listed, images = None, []
        for m in range(p.modalities):
            where = folder / split / f"m{m}"
            if not where.is_dir():
                raise UserError(f"polymnist.import_dir: {where} is missing; "
                                f"expected {folder}/{{train,test}}/m0 .. m{p.modalities - 1}")
            files = list(where.glob("*.png"))
            odd = [f.name for f in files if not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,3}", f.stem)]
            if odd:
                raise UserError(f"polymnist.import_dir: {where}/{odd[0]!r} is not named INDEX.LABEL.png")
            files = sorted((tuple(map(int, f.stem.split("."))), f) for f in files)
            names = [key for key, _ in files][:n]
            listed = listed or names
            if not names or names != listed:
                raise UserError(f"polymnist.import_dir: {where} does not hold the same INDEX.LABEL names as m0")
            stack = []
            for _, file in files[:n]:
                stay_inside(file, folder, f"polymnist.import_dir: {file}")
                stack.append(open_picture(file, f"polymnist.import_dir: {file}"))
                if stack[-1].shape != stack[0].shape:  # at once: one small image may be followed by thousands of large ones
                    raise UserError(f"polymnist.import_dir: {where} holds images of several sizes")
                if stack[0].nbytes * len(names) * p.modalities > MAX_IMPORT:
                    raise UserError(f"polymnist.import_dir: {len(names)} images of {stack[0].shape[1]}x{stack[0].shape[0]} in "
                                    f"{p.modalities} modalities are more than {MAX_IMPORT:,} bytes; make them smaller")
            if images and stack[0].shape[:2] != images[0].shape[2:]:
                raise UserError(f"polymnist.import_dir: {where} holds images of another size than m0's")
            images.append(np.ascontiguousarray(np.stack(stack).transpose(0, 3, 1, 2)))
        splits[split] = images, np.array([label for _, label in listed], np.int64), None
    return splits, {"dataset": "polymnist (published images)", "digits": "imported"}


if __name__ == "__main__":
    runtime.run(main)
