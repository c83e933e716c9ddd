"""Tuples from outside: the published PolyMNIST tree, and a user's own folders of pictures.

Both readers return splits and provenance. A split is images, one uint8 array (n, C, H, W) per
modality; labels int64 (n,); and None, as there are no crops.
"""

import csv
import os
import re

import numpy as np
from tqdm import tqdm

from ebmvae.core.messages import UserError
from ebmvae.sources.pictures import open_picture, stay_inside

MAX_IMPORT = 2**34  # bytes of all images together
MIN_SIDE = 8  # pixels: the encoder halves the sides three times
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


# ---- the published tree


def import_tree(folder, p):
    """Read the published PolyMNIST PNG tree, its first p.n_train and p.n_test tuples.

    FOLDER/train/m0/17.3.png is index 17 of class 3; modality m0 is our m1. p: the section
    polymnist. Raises `UserError` naming the folder or file that does not fit the others.
    """
    splits, shape = {}, None
    for split, n in (("train", p.n_train), ("test", p.n_test)):
        names, images = None, []
        for m in range(p.modalities):
            where = folder / split / f"m{m}"
            what = f"polymnist.import_dir: {where}"
            if not where.is_dir():
                layout = f"{folder}/{{train,test}}/m0 .. m{p.modalities - 1}"
                raise UserError(f"{what} is missing; expected {layout}")
            files = _by_index(where, what)[:n]
            keys = [key for key, _ in files]
            names = names or keys
            if not keys or keys != names:
                raise UserError(f"{what} does not hold the same INDEX.LABEL names as m0")
            paths = [file for _, file in files]
            stack = _read_pictures(paths, folder, "import_dir", len(files) * p.modalities)
            shape = shape or stack.shape[1:]
            if stack.shape[1:] != shape:
                raise UserError(f"{what} holds images of another size than train/m0's")
            images.append(np.ascontiguousarray(stack))
        splits[split] = images, np.array([label for _, label in names], np.int64), None
    return splits, {"dataset": "polymnist (published images)", "digits": "imported"}


def _by_index(where, what):
    """((index, label), file) of the PNGs in the folder `where`, sorted; index 10 follows 9."""
    files = list(where.glob("*.png"))
    odd = [f.name for f in files if not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,3}", f.stem)]
    if odd:
        raise UserError(f"{what}/{odd[0]!r} is not named INDEX.LABEL.png")
    return sorted((tuple(map(int, file.stem.split("."))), file) for file in files)


# ---- a user's own folders


def read_own(folder, p, rng):
    """A user's own tuples: own/photo/0001.png and own/sketch/0001.jpg are tuple 0001.

    There is one folder per modality, sorted by name, with pictures of one size; grey where all of
    them are. labels.csv beside them, where there is one, has the columns name (0001) and label (any
    text). p: the section polymnist; rng, a NumPy generator, shuffles the tuples. The first p.n_test
    are the test split, the next p.n_train the training split. Raises `UserError` naming the file.
    """
    what = f"polymnist.own_data: {folder}"
    if p.import_dir:
        other = f"polymnist.import_dir: {p.import_dir}"
        raise UserError(f"{what} and {other} exclude each other; set one of them to null")
    folders = _modality_folders(folder, p.modalities, what)
    names, listed = _same_names(folders)
    wanted = p.n_train + p.n_test
    if len(names) < wanted:
        raise UserError(
            f"{what} holds {len(names)} tuples, but polymnist.n_train: {p.n_train} and "
            f"n_test: {p.n_test} ask for {wanted}; lower them"
        )
    labels, classes = read_labels(folder / "labels.csv", names)
    order = rng.permutation(len(names))
    rows = {"train": order[p.n_test : wanted], "test": order[: p.n_test]}
    if classes:
        _refuse_single_class(rows, labels, folder)
    images = {"train": [], "test": []}
    for files in listed:
        paths = [files[names[k]] for k in (*rows["train"], *rows["test"])]
        stack = _read_pictures(paths, folder, "own_data", wanted * len(folders))
        if (stack == stack[:, :1]).all():
            stack = stack[:, :1]  # grey
        images["train"].append(np.ascontiguousarray(stack[: p.n_train]))
        images["test"].append(np.ascontiguousarray(stack[p.n_train :]))
    splits = {split: (images[split], labels[rows[split]], None) for split in images}
    return splits, {
        "dataset": (folder.resolve() if folder.name in ("", "..") else folder).name,
        "digits": "own",
        "folders": [modality.name for modality in folders],
        "classes": classes,
    }


def _modality_folders(folder, modalities, what):
    """The folders inside `folder` but hidden ones, sorted by name: one folder per modality."""
    if not folder.is_dir():
        raise UserError(f"{what} is not a folder; give one that holds one folder per modality")
    folders = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    if len(folders) != modalities:
        raise UserError(
            f"{what} holds {len(folders)} folders of pictures, polymnist.modalities is "
            f"{modalities}; `python -m tools.modalities {len(folders)}` sets it"
        )
    return folders


def _same_names(folders):
    """The names of all tuples, sorted, and what `list_pictures` gives for each folder."""
    listed = [list_pictures(folder) for folder in folders]
    names = sorted(listed[0])
    for folder, files in zip(folders, listed, strict=True):
        if odd := sorted(set(files) ^ set(names)):
            raise UserError(
                f"polymnist.own_data: {folder} and {folders[0]} do not hold the same names: "
                f"{odd[0]} is in one of them only"
            )
    return names, listed


def list_pictures(folder):
    """{name without suffix: file} of the pictures in `folder`, hidden files left out.

    Raises `UserError` for anything else there, and for a name that is there twice.
    """
    files = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith("."):
            continue
        if file.suffix.lower() not in SUFFIXES or file.stem in files:
            raise UserError(
                f"polymnist.own_data: {file} is no picture, or its name is there twice; "
                f"put only pictures there ({', '.join(sorted(SUFFIXES))})"
            )
        files[file.stem] = file
    return files


def read_labels(file, names):
    """Labels int64 (N,) of `names`, and the sorted classes that they count.

    Without a file all labels are 0 and there are no classes. Raises `UserError` for a name without
    a label or with two, for a file that can't be read, and for other than 2 to 1000 classes.
    """
    if not os.path.lexists(file):  # a dead link is a file that can't be read
        return np.zeros(len(names), np.int64), []
    what = f"polymnist.own_data: {file}"
    if not file.is_file():
        raise UserError(f"{what} is not a regular file")
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            pairs = [(row["name"], (row["label"] or "").strip()) for row in csv.DictReader(opened)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise UserError(
            f"{what} can't be read ({error}); it should have the columns name and label"
        ) from None
    label_by_name = {}
    for name, label in pairs:
        if label_by_name.setdefault(name, label) != label:
            raise UserError(f"{what} has two labels for {name!r}")
    missing = [name for name in names if not label_by_name.get(name)]
    if missing:
        raise UserError(f"{what} has no label for {missing[0]}")
    classes = sorted({label_by_name[name] for name in names})
    if not 2 <= len(classes) <= 1000:
        raise UserError(f"{what} has {len(classes)} classes; 2 to 1000 are wanted, or no file")
    return np.array([classes.index(label_by_name[name]) for name in names], np.int64), classes


def _refuse_single_class(rows, labels, folder):
    """Raise `UserError` where a split has one class only, which is the sign of no labels."""
    for split, part in rows.items():
        if len(set(labels[part])) < 2:
            raise UserError(
                f"polymnist.own_data: {folder / 'labels.csv'} gives all {len(part)} tuples of the "
                f"{split} split one class; give more tuples of the others, "
                f"raise polymnist.n_{split}, or leave the file out"
            )


# ---- both


def _read_pictures(files, folder, key, n_total):
    """The pictures of one modality as uint8 (N, 3, H, W), not contiguous.

    n_total: how many pictures all modalities have. Sizes are checked as they come: one small
    picture may be followed by thousands of large ones.
    """
    stack = []
    for file in tqdm(files, f"read {files[0].parent.name}", unit="picture", disable=None):
        what = f"polymnist.{key}: {file}"
        stay_inside(file, folder, what)
        picture = open_picture(file, what)
        stack.append(picture)
        (height, width, _), (first_height, first_width, _) = picture.shape, stack[0].shape
        if picture.shape != stack[0].shape or min(height, width) < MIN_SIDE:
            raise UserError(
                f"{what} is {width}x{height}, others in {file.parent} are "
                f"{first_width}x{first_height}; a modality has one size, "
                f"at least {MIN_SIDE}x{MIN_SIDE}"
            )
        if picture.nbytes * n_total > MAX_IMPORT:
            raise UserError(
                f"polymnist.{key}: {folder}: {n_total} pictures of {width}x{height} are more than "
                f"{MAX_IMPORT:,} bytes; make them smaller"
            )
    return np.stack(stack).transpose(0, 3, 1, 2)
