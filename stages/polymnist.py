"""Digits + backgrounds -> data/polymnist/: tuples of M modalities that share a digit and nothing else.

    python -m stages.polymnist

A modality is a digit (another writer of the same class in every modality) thresholded at > 128 and laid over a random
crop of that modality's background picture; the colours are inverted where the digit is (paper, section 4; Sutter et
al. 2021). Digits come from MNIST, or from scikit-learn's handwritten digits where MNIST can't be had.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import yaml
from tqdm import tqdm

from stages.lib import artifacts, digits, params, pictures, runtime
from stages.lib.runtime import UserError, relative

OUT = Path("data/polymnist")
# Pictures inside the packages scikit-image and scikit-learn: no download. Busy ones for m1 and m5, as in the paper.
BUILTIN = ["skimage/data/astronaut.png", "sklearn/datasets/images/flower.jpg", "skimage/data/rocket.jpg",
           "skimage/data/coffee.png", "skimage/data/motorcycle_left.png",
           "sklearn/datasets/images/china.jpg", "skimage/data/chelsea.png", "skimage/data/hubble_deep_field.jpg",
           "skimage/data/ihc.png", "skimage/data/motorcycle_right.png"]
SIDE = 28


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    p = params.load().polymnist
    runtime.begin("polymnist")
    same_modalities(p.modalities)
    if p.own_data:
        splits, provenance = pictures.read_own(Path(p.own_data), p, np.random.default_rng(runtime.seed_of("own data", p.seed)))
    elif p.import_dir:
        splits, provenance = pictures.import_tree(Path(p.import_dir), p)
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
    with artifacts.together():
        for split, (images, labels, crops) in splits.items():
            for name, array in zip(names, tqdm(images, f"polymnist {split}", unit="file", disable=not sys.stderr.isatty())):
                artifacts.save_array(OUT / split / f"{name}.npy", array)
                provenance["sha256"][f"{split}/{name}"] = hashlib.sha256(array).hexdigest()
            artifacts.save_array(OUT / split / "labels.npy", labels)
            if crops is not None:
                artifacts.save_array(OUT / split / "crops.npy", crops)
        artifacts.save_json(OUT / "provenance.json", provenance)
    print(f"polymnist: {provenance['dataset']}, written to {OUT}/")


def same_modalities(m, file=Path("dvc.yaml")):
    """Raise `UserError` unless dvc.yaml, where there is one, lists as many modalities as polymnist.modalities says."""
    if file.exists():
        listed = yaml.safe_load(file.read_text())["stages"]["train_vae"]["matrix"]["modality"]
        if len(listed) != m:
            raise UserError(f"polymnist.modalities = {m}, but {file} has stages for {len(listed)}; `python -m cluster.modalities {m}` sets both")


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
    found, sources = [], []
    for file in files[:modalities]:
        what = f"polymnist.backgrounds: {relative(file) if choice != 'builtin' else file.name}"
        if choice != "builtin":
            pictures.stay_inside(file, Path(choice), what)
        picture = pictures.open_picture(file, what)
        if min(picture.shape[:2]) < SIDE:
            raise UserError(f"polymnist.backgrounds: {relative(file)} is {picture.shape[1]}x{picture.shape[0]}, "
                            f"smaller than {SIDE}x{SIDE}")
        found.append(picture)
        sources.append({"file": file.name, "sha256": hashlib.sha256(picture.tobytes()).hexdigest()})
    return found, sources


if __name__ == "__main__":
    runtime.run(main)
