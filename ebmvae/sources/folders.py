"""Tuples from outside: the published PolyMNIST tree, and a user's own folders of pictures.

Both readers return splits and provenance. A split is images, one uint8 array (n, C, H, W) per
modality; labels int64 (n,); and None, as there are no crops.
"""

import csv
import os
import re
from collections import Counter

import numpy as np
from tqdm import tqdm

from ebmvae.core.messages import UserError
from ebmvae.sources.names import examples, listed, normal, unique
from ebmvae.sources.pictures import open_picture, stay_inside

MAX_IMPORT = 2**34  # bytes of all images together
MIN_SIDE = 8  # pixels: the encoder halves the sides three times
SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".mpo", ".bmp", ".tif", ".tiff", ".webp"}


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
            files = _by_index(where, what)
            names = names or list(files)
            _refuse_other_names(list(files), names, n, what)
            paths = list(files.values())[:n]
            stack = _read_pictures(paths, folder, "import_dir", len(paths) * p.modalities)
            shape = shape or stack.shape[1:]
            if stack.shape[1:] != shape:
                raise UserError(f"{what} holds images of another size than train/m0's")
            images.append(np.ascontiguousarray(stack))
        splits[split] = images, np.array([label for _, label in names[:n]], np.int64), None
    return splits, {"dataset": "polymnist (published images)", "digits": "imported"}


def _by_index(where, what):
    """{(index, label): file} of the PNGs in the folder `where`, sorted; index 10 follows 9."""
    files = [f for f in sorted(where.glob("*.png")) if not f.name.startswith("._")]  # of a Mac
    odd = [f.name for f in files if not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,3}", f.stem)]
    if odd:
        raise UserError(f"{what}/{odd[0]!r} is not named INDEX.LABEL.png")
    keys = [tuple(map(int, file.stem.split("."))) for file in files]
    return dict(sorted(unique(zip(keys, files, strict=True), what).items()))


def _refuse_other_names(keys, names, n, what):
    """Raise `UserError` unless the first n of `keys` and of `names` are the same.

    Both are all (index, label) of a folder, sorted; `names` are those of m0.
    """
    if not keys:
        raise UserError(f"{what} holds no INDEX.LABEL.png")
    for some, others, verb in ((names, keys, "lacks"), (keys, names, "has, unlike m0,")):
        some, others = some[:n], set(others)
        if odd := [f"{index}.{label}" for index, label in some if (index, label) not in others]:
            raise UserError(
                f"{what} {verb} {len(odd)} of {len(some)} ({examples(odd)}). The folders of a "
                f"split hold the same names: add the missing pictures, or remove those names"
            )


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
    names, by_folder = _same_names(list(folders.values()))
    wanted = p.n_train + p.n_test
    if len(names) < wanted:
        raise UserError(
            f"{what} holds {len(names)} tuples, but polymnist.n_train: {p.n_train} and "
            f"n_test: {p.n_test} ask for {wanted}; lower them"
        )
    labels_file = _labels_file(folder, what)
    labels, classes = read_labels(labels_file, names)
    order = rng.permutation(len(names))
    rows = {"train": order[p.n_test : wanted], "test": order[: p.n_test]}
    if classes:
        _refuse_single_class(rows, labels, labels_file)
    images = {"train": [], "test": []}
    for files in by_folder:
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
        "folders": list(folders),
        "classes": classes,
    }


def _modality_folders(folder, modalities, what):
    """{name: folder} of the folders inside `folder`, sorted by name: one folder per modality."""
    if not folder.is_dir():
        raise UserError(f"{what} is not a folder; give one that holds one folder per modality")
    named = ((normal(f.name), f) for f in listed(folder) if f.is_dir())
    folders = unique(named, what)
    n = len(folders)
    if n != modalities:
        some = f" ({', '.join(folders)})" if n else ""
        remedy = f"; `python -m tools.modalities {n}` sets it" if 2 <= n <= 10 else ""
        raise UserError(
            f"{what} holds {n} folders{some}, polymnist.modalities is {modalities}{remedy}; "
            f"a folder of other things has to go elsewhere"
        )
    return folders


def _same_names(folders):
    """The names of all tuples, sorted, and what `list_pictures` gives for each folder.

    Raises `UserError` that says which folders lack how many names.
    """
    files = [list_pictures(folder) for folder in folders]
    names = sorted(set().union(*files))
    holders = Counter(name for present in files for name in present)
    # Of three folders or more, a name in one alone is too many there, not missing elsewhere.
    strays = {name for name, n in holders.items() if n == 1 and len(folders) > 2}
    odd = []
    for folder, present in zip(folders, files, strict=True):
        missing = [name for name in names if name not in present and name not in strays]
        for verb, some in (("lacks", missing), ("alone has", sorted(strays & present.keys()))):
            if some:
                odd.append(f"{folder} {verb} {len(some)} of {len(names)} ({examples(some)})")
    if odd:
        raise UserError(
            f"polymnist.own_data: names of pictures differ between folders: {'; '.join(odd)}. "
            f"Add the missing pictures, or remove those names from the other folders"
        )
    return names, files


def list_pictures(folder):
    """{name without suffix: file} of the pictures in `folder`, what systems leave left out.

    Raises `UserError` for anything else there, and for a name that is there twice.
    """
    files = listed(folder)
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            raise UserError(
                f"polymnist.own_data: {file} is no picture by its suffix; "
                f"put only pictures there ({', '.join(sorted(SUFFIXES))})"
            )
    return unique(((normal(file.stem), file) for file in files), f"polymnist.own_data: {folder}")


def _labels_file(folder, what):
    """The file labels.csv in `folder`, Labels.CSV too; there may be none."""
    files = [file for file in listed(folder) if file.name.lower() == "labels.csv"]
    key = "labels.csv"
    return unique(((key, file) for file in files), what).get(key, folder / key)


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
    known, label_by_name = set(names), {}
    for text, label in _label_rows(file, what):
        name = _meant(text, known)
        if label_by_name.setdefault(name, label) != label:
            raise UserError(f"{what} has two labels for {name!r}")
    if missing := [name for name in names if not label_by_name.get(name)]:
        others = [name for name in label_by_name if name not in known]
        hint = f"; no picture has the names {examples(others)} that it holds" if others else ""
        raise UserError(
            f"{what} has no label for {examples(missing)}: {len(missing)} of {len(names)} names "
            f"of pictures; give each a row NAME,LABEL{hint}"
        )
    classes = sorted({label_by_name[name] for name in names})
    if not 2 <= len(classes) <= 1000:
        raise UserError(f"{what} has {len(classes)} classes; 2 to 1000 are wanted, or no file")
    return np.array([classes.index(label_by_name[name]) for name in names], np.int64), classes


def _label_rows(file, what):
    """(name, label) of every row of labels.csv; case and blanks of its header don't matter."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.reader(opened, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{what} can't be read ({error}); it should be UTF-8 text with the columns name, label"
        ) from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return []
    header = [cell.strip().casefold() for cell in rows[0]]
    if [header.count(column) for column in ("name", "label")] != [1, 1]:
        raise UserError(
            f"{what} can't be read: its first line is {', '.join(rows[0])[:80]!r}; it should "
            f"hold the columns name and label once each, with a comma between them"
        )
    name, label = header.index("name"), header.index("label")
    padded = ([*row, *[""] * len(header)] for row in rows[1:])
    return [(row[name], normal(row[label].strip())) for row in padded]


def _meant(text, names):
    """Which of `names`, a set, a cell of labels.csv means: the name itself, or with a suffix."""
    text = normal(text)
    stripped = text.strip()
    stem, suffix = os.path.splitext(stripped)
    known = [name for name in (text, stripped) if name in names]
    if not known and suffix.lower() in SUFFIXES:
        return stem.strip()
    return known[0] if known else stripped


def _refuse_single_class(rows, labels, file):
    """Raise `UserError` where a split has one class only, which is the sign of no labels."""
    for split, part in rows.items():
        if len(set(labels[part])) < 2:
            raise UserError(
                f"polymnist.own_data: {file} gives all {len(part)} tuples of the {split} split "
                f"one class; give more tuples of the others, "
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
