"""Pictures from outside: files that are what they claim to be, the published PolyMNIST tree, and a user's own folders."""

import csv
import os
import re
import sys
import warnings

import numpy as np
from tqdm import tqdm

from stages.lib.runtime import UserError

MAX_PIXELS, MAX_BYTES = 50_000_000, 200_000_000  # of one picture and its file; a larger one is surely a mistake
MAX_IMPORT = 2**34  # bytes of all imported images together
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # Pillow's other readers are less well kept, and some start programs
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
LEAST_SIDE = 8  # pixels: the encoder halves the sides three times


def stay_inside(file, folder, what):
    """Raise `UserError` starting with `what` unless `file` is a regular file inside `folder`, links followed."""
    if not file.is_file():
        raise UserError(f"{what} is not a regular file")
    if folder.resolve() not in file.resolve().parents:
        raise UserError(f"{what} is a link out of {folder}; put the picture itself there")


def open_picture(file, what, upright=False):
    """A picture as uint8 (H, W, 3), with `upright` turned as its camera says; raises `UserError` starting with `what` if it is none, too large, animated, or of
    more than 8 bits a channel."""
    from PIL import Image, ImageOps

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
                return np.asarray((ImageOps.exif_transpose(image) if upright else image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, RuntimeError, TypeError, KeyError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{what} can't be read as a picture ({str(error).splitlines()[0]})") from None


def import_tree(folder, p):
    """Read the published PolyMNIST PNG tree: FOLDER/train/m0/17.3.png is index 17 of class 3, modality m0 our m1."""
    splits, size = {}, None
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
            size = size or stack[0].shape
            if stack[0].shape != size or min(size[:2]) < LEAST_SIDE:
                raise UserError(f"polymnist.import_dir: {where} holds images of another size than train/m0's, or smaller than "
                                f"{LEAST_SIDE}x{LEAST_SIDE}")
            images.append(np.ascontiguousarray(np.stack(stack).transpose(0, 3, 1, 2)))
        splits[split] = images, np.array([label for _, label in listed], np.int64), None
    return splits, {"dataset": "polymnist (published images)", "digits": "imported"}


def read_own(folder, p, rng):
    """A user's own tuples: FOLDER/photo/0001.png and FOLDER/sketch/0001.jpg are two modalities of tuple 0001.

    A folder a modality, sorted by name, each with pictures of one size; grey where all of them are. FOLDER/labels.csv, where
    there is one, has the columns name (0001) and label (any text). rng shuffles the tuples; p.n_test of them are the test
    split, p.n_train the training split. Returns splits and provenance as `import_tree`. Raises `UserError` naming the file.
    """
    what = f"polymnist.own_data: {folder}"
    if p.import_dir:
        raise UserError(f"{what} and polymnist.import_dir: {p.import_dir} exclude each other; set one of them to null")
    if not folder.is_dir():
        raise UserError(f"{what} is not a folder; give one with a folder of pictures a modality")
    folders = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    if len(folders) != p.modalities:
        raise UserError(f"{what} holds {len(folders)} folders of pictures, polymnist.modalities is {p.modalities}; "
                        f"`python -m cluster.modalities {len(folders)}` sets it")
    listed = [list_pictures(each) for each in folders]
    names = sorted(listed[0])
    for each, files in zip(folders, listed):
        if odd := sorted(set(files) ^ set(names)):
            raise UserError(f"polymnist.own_data: {each} and {folders[0]} do not hold the same names: {odd[0]} is in one of them only")
    if len(names) < p.n_train + p.n_test:
        raise UserError(f"{what} holds {len(names)} tuples, but polymnist.n_train: {p.n_train} and n_test: {p.n_test} ask for "
                        f"{p.n_train + p.n_test}; lower them")
    labels, classes = read_labels(folder / "labels.csv", names)
    order = rng.permutation(len(names))
    rows = {"test": order[: p.n_test], "train": order[p.n_test : p.n_test + p.n_train]}
    for split, part in rows.items():
        if classes and len(set(labels[part])) < 2:
            raise UserError(f"polymnist.own_data: {folder / 'labels.csv'} gives all {len(part)} tuples of the {split} split one class; "
                            f"give more tuples of the others, raise polymnist.n_{split}, or leave the file out")
    images = {split: [] for split in rows}
    for each, files in zip(folders, listed):
        stack = []
        for k in tqdm(np.concatenate([rows["train"], rows["test"]]), f"read {each.name}", unit="picture", disable=not sys.stderr.isatty()):
            file = files[names[k]]
            stay_inside(file, folder, f"polymnist.own_data: {file}")
            stack.append(open_picture(file, f"polymnist.own_data: {file}", upright=True))
            height, width, _ = stack[-1].shape
            if stack[-1].shape != stack[0].shape or min(height, width) < LEAST_SIDE:
                raise UserError(f"polymnist.own_data: {file} is {width}x{height}, others in {each} are {stack[0].shape[1]}x{stack[0].shape[0]}; "
                                f"a modality has one size, at least {LEAST_SIDE}x{LEAST_SIDE}")
            if stack[0].nbytes * sum(map(len, rows.values())) * len(folders) > MAX_IMPORT:
                raise UserError(f"{what}: its pictures are more than {MAX_IMPORT:,} bytes; make them smaller")
        whole = np.stack(stack).transpose(0, 3, 1, 2)  # N, 3, H, W
        if (whole == whole[:, :1]).all():
            whole = whole[:, :1]  # grey
        for split, part in (("train", whole[: p.n_train]), ("test", whole[p.n_train :])):
            images[split].append(np.ascontiguousarray(part))
    splits = {split: (images[split], labels[rows[split]], None) for split in ("train", "test")}
    return splits, {"dataset": folder.resolve().name if folder.name in ("", "..") else folder.name, "digits": "own",
                    "folders": [each.name for each in folders], "classes": classes}


def list_pictures(folder):
    """{name without suffix: file} of the pictures in `folder`; raises `UserError` for anything else and for a name twice."""
    found = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith("."):
            continue
        if file.suffix.lower() not in SUFFIXES or file.stem in found:
            raise UserError(f"polymnist.own_data: {file} is no picture, or its name is there twice; put only pictures there "
                            f"({', '.join(sorted(SUFFIXES))})")
        found[file.stem] = file
    return found


def read_labels(file, names):
    """Labels int64 (N,) of `names` and the classes they count, sorted; without a file all 0 and no classes."""
    if not os.path.lexists(file):
        return np.zeros(len(names), np.int64), []
    what = f"polymnist.own_data: {file}"
    if not file.is_file():
        raise UserError(f"{what} is not a regular file")
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
        found = {}
        for row in rows:
            label = (row["label"] or "").strip()
            if found.setdefault(row["name"], label) != label:
                raise UserError(f"{what} has two labels for {row['name']!r}")
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise UserError(f"{what} can't be read ({error}); it should have the columns name and label") from None
    missing = [name for name in names if not found.get(name)]
    if missing:
        raise UserError(f"polymnist.own_data: {file} has no label for {missing[0]}")
    classes = sorted({found[name] for name in names})
    if not 2 <= len(classes) <= 1000:
        raise UserError(f"polymnist.own_data: {file} has {len(classes)} classes; 2 to 1000 are wanted, or no file")
    return np.array([classes.index(found[name]) for name in names], np.int64), classes
