"""Digits and backgrounds -> data/polymnist/: tuples of M modalities that share a digit only.

    python -m stages.polymnist

A modality is a digit over a random crop of that modality's background picture, with the colours
inverted where the digit is (paper, section 4; Sutter et al. 2021). Every modality has another
writer of the same class. Digits come from MNIST, or from scikit-learn's where MNIST can't be had.
"""

import hashlib
import re
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ebmvae import command, params, paths
from ebmvae.core import artifacts
from ebmvae.core.messages import UserError, say
from ebmvae.core.random import seed_of
from ebmvae.sources import digits
from ebmvae.sources.backgrounds import load_backgrounds
from ebmvae.sources.folders import import_tree, read_own
from ebmvae.sources.tuples import make_tuples

OUT = Path("data/polymnist")


def main():
    command.parser(__doc__).parse_args()
    p = params.load().polymnist
    with command.exclusive("polymnist"):
        if p.own_data:
            rng = np.random.default_rng(seed_of("own data", p.seed))
            splits, provenance = read_own(paths.locate(p.own_data), p, rng)
        elif p.import_dir:
            splits, provenance = import_tree(paths.locate(p.import_dir), p)
        else:
            splits, provenance = make_polymnist(p)
        names = [f"m{i + 1}" for i in range(p.modalities)]
        provenance |= {"modalities": names, "seed": p.seed}
        provenance |= {f"n_{split}": len(labels) for split, (_, labels, _) in splits.items()}
        write(splits, names, provenance)
        if (p.digits, provenance["digits"]) == ("auto", "embedded"):
            settle_digits()
    print(f"polymnist: {provenance['dataset']}, written to {OUT}/")


def make_polymnist(p):
    """{"train": (images, labels, crops), "test": ...} as `make_tuples` has them, and provenance."""
    backgrounds, sources = load_backgrounds(p.backgrounds, p.modalities)
    digit_sets, origin = digits.load(p.digits, p.seed)
    splits = {}
    for split, n in (("train", p.n_train), ("test", p.n_test)):
        size = f"{n} {split} tuples of {p.modalities} modalities"
        print(f"polymnist: {size}, digits {origin['dataset']}", flush=True)
        rng = np.random.default_rng(seed_of("polymnist", p.seed, split))
        splits[split] = make_tuples(*digit_sets[split], backgrounds, n, rng)
    return splits, {**origin, "backgrounds": sources}


def settle_digits():
    """Set polymnist.digits in params.yaml from auto to embedded, which is what it came to.

    DVC reads the parameters after a stage. So nothing in its run cache, which copies and machines
    share, says `auto` and holds the embedded digits. Raises `UserError` for an unknown layout.
    """
    file = Path("params.yaml")
    text, count = re.subn(rb"(?m)^( +digits: *)auto\b( {4})?", rb"\1embedded", file.read_bytes())
    if count != 1:
        raise UserError("polymnist.digits: MNIST can't be had; set it to embedded in params.yaml")
    artifacts.write(file, text, checksum=False)
    say("WARNING: params.yaml now has polymnist.digits: embedded, as a record of what was used.")


def write(splits, names, provenance):
    """Write all files of data/polymnist/, or none. `provenance` gets the SHA-256 of the pixels."""
    provenance["sha256"] = {}
    with artifacts.together():
        for split, (images, labels, crops) in splits.items():
            arrays = dict(zip(names, images, strict=True))
            bar = tqdm(arrays.items(), f"polymnist {split}", unit="file", disable=None)
            for name, array in bar:
                artifacts.save_array(OUT / split / f"{name}.npy", array)
                provenance["sha256"][f"{split}/{name}"] = hashlib.sha256(array).hexdigest()
            artifacts.save_array(OUT / split / "labels.npy", labels)
            if crops is not None:
                artifacts.save_array(OUT / split / "crops.npy", crops)
        artifacts.save_json(OUT / "provenance.json", provenance)


if __name__ == "__main__":
    command.run(main)
