"""The published tree and a user's own folders: where every pixel belongs, and what can be wrong."""

import csv
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ebmvae.core.messages import UserError
from ebmvae.sources import folders
from ebmvae.sources.digits import SIDE


def rng(seed=0):
    return np.random.default_rng(seed)


def save(file, pixels):
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file)


def sizes(n_train, n_test, modalities=3, import_dir=None):
    return SimpleNamespace(
        import_dir=import_dir, modalities=modalities, n_train=n_train, n_test=n_test
    )


def refused(named, key, read, *arguments):
    """`read` refuses in one line, which begins with the parameter and names `named`."""
    with pytest.raises(UserError) as caught:
        read(*arguments)
    message = str(caught.value)
    assert message.startswith(f"polymnist.{key}: ") and "\n" not in message
    assert str(named) in message


@pytest.fixture
def soon():
    """A test that waits for ever fails after ten seconds."""

    def late(*_):
        pytest.fail("still waiting")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def spoil(file, how):
    """Put something else in the place of a picture file."""
    content, elsewhere = file.read_bytes(), file.parents[3] / "elsewhere"
    file.unlink()
    if how == "corrupt":
        file.write_bytes(content[:-40])
    elif how == "larger":
        Image.new("RGB", (SIDE, SIDE + 4)).save(file)
    elif how == "link out":
        elsewhere.write_bytes(content)
        file.symlink_to(elsewhere)
    elif how == "dead link":
        file.symlink_to("nowhere.png")
    elif how == "pipe":
        os.mkfifo(file)
    elif how == "folder":
        file.mkdir()


# ---- the published tree

INDEXED = [(0, 7), (1, 3), (2, 3), (10, 0), (11, 9)]  # 10 comes after 2, not after 1


def pixels_of(split, m, index):
    seed = 1000 * (split == "test") + 100 * m + index
    return rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture
def tree(tmp_path):
    """A small PolyMNIST tree of two modalities, FOLDER/train/m0/0.7.png and so on."""
    for split in ("train", "test"):
        for m in range(2):
            folder = tmp_path / "tree" / split / f"m{m}"
            folder.mkdir(parents=True)
            for index, label in INDEXED:
                save(folder / f"{index}.{label}.png", pixels_of(split, m, index))
    return tmp_path / "tree"


def test_the_tree_is_read_in_order_of_the_index(tree):
    splits, provenance = folders.import_tree(tree, sizes(5, 3, 2))
    assert list(splits) == ["train", "test"] and provenance["digits"] == "imported"
    for split, n in (("train", 5), ("test", 3)):
        images, labels, crops = splits[split]
        assert crops is None and labels.dtype == np.int64
        assert labels.tolist() == [label for _, label in INDEXED[:n]]
        for m in range(2):
            expected = [pixels_of(split, m, index).transpose(2, 0, 1) for index, _ in INDEXED[:n]]
            assert images[m].dtype == np.uint8 and images[m].flags.c_contiguous
            np.testing.assert_array_equal(images[m], expected)


def refused_tree(tree, where):
    refused(tree / where, "import_dir", folders.import_tree, tree, sizes(5, 3, 2))


@pytest.mark.parametrize("missing", ["train", "test/m0", "test/m1"])
def test_a_missing_folder_of_the_tree(tree, missing):
    shutil.rmtree(tree / missing)
    refused_tree(tree, missing)


@pytest.mark.parametrize("change", ["1.4.png", "3.3.png", None])  # label, index, nothing at all
def test_names_of_the_tree_that_do_not_match(tree, change):
    file = tree / "train/m1/1.3.png"
    file.rename(file.with_name(change)) if change else file.unlink()
    refused_tree(tree, "train/m1")


def test_the_tree_says_how_many_names_are_missing_and_where(tree):
    for index, label in INDEXED[1:4]:
        (tree / f"test/m1/{index}.{label}.png").unlink()
    with pytest.raises(UserError, match="test/m1 lacks 3 of 5 .*1.3, 2.3, 10.0"):
        folders.import_tree(tree, sizes(5, 5, 2))
    save(tree / "train/m1/3.3.png", pixels_of("train", 1, 3))
    with pytest.raises(UserError, match="train/m1 has, unlike m0, 1 of 5 .*3.3"):
        folders.import_tree(tree, sizes(5, 5, 2))


def test_two_files_of_one_index(tree):
    save(tree / "train/m1/01.3.png", pixels_of("train", 1, 1))
    with pytest.raises(UserError, match="train/m1: '01.3.png' and '1.3.png'"):
        folders.import_tree(tree, sizes(5, 3, 2))


def test_what_a_mac_leaves_in_the_tree(tree):
    (tree / "__MACOSX/train/m0").mkdir(parents=True)
    (tree / "train/m0/._1.3.png").write_bytes(b"no picture")
    (tree / "train/m0/.DS_Store").write_bytes(b"no picture")
    assert len(folders.import_tree(tree, sizes(5, 3, 2))[0]["train"][1]) == 5


def test_the_tree_on_white_and_upright(tree):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((SIDE, SIDE, 4), np.uint8)
    pixels[0, 0] = 9, 9, 9, 255
    Image.fromarray(pixels).save(tree / "train/m0/0.7.png", exif=exif)
    image = folders.import_tree(tree, sizes(5, 3, 2))[0]["train"][0][0][0]
    assert (image[:, 0, -1] == 9).all() and image.min() == 9 and (image == 255).mean() > 0.99


def test_an_empty_folder_of_the_tree(tree):
    for file in tree.glob("train/*/*"):
        file.unlink()
    refused_tree(tree, "train/m0")


ODD = ["x.png", "12.png", "1.2.3.png", "1.5x.png", ".png", "1.3\n.png", "-1.3.png"]
ODD += ["9999999999.3.png", "1.3333.png", "\u0661.3.png"]


@pytest.mark.parametrize("name", ODD)
def test_names_of_the_tree_without_index_and_label(tree, name):
    for file in list(tree.glob("train/*/1.3.png")):
        file.rename(file.with_name(name))
    refused_tree(tree, "train/m0/")


@pytest.mark.parametrize("how", ["corrupt", "larger", "link out", "pipe"])
def test_what_is_no_picture_in_the_tree(tree, soon, how):
    spoil(tree / "test/m1/1.3.png", how)
    refused_tree(tree, "test/m1/1.3.png")


def test_modalities_of_the_tree_have_one_size(tree):
    for file in (tree / "test/m1").iterdir():
        spoil(file, "larger")
    refused_tree(tree, "test/m1")


def test_a_folder_of_the_tree_that_is_a_link_out(tree):
    (tree / "train/m0").rename(tree.parent / "elsewhere")
    (tree / "train/m0").symlink_to(tree.parent / "elsewhere")
    refused_tree(tree, "train/m0/0.7.png")


def test_a_tree_that_is_more_than_fits(tree, monkeypatch):
    whole = 5 * 2 * 3 * SIDE * SIDE  # bytes of the training split
    monkeypatch.setattr(folders, "MAX_IMPORT", whole)
    folders.import_tree(tree, sizes(5, 3, 2))
    monkeypatch.setattr(folders, "MAX_IMPORT", whole - 1)
    refused_tree(tree, "")


# ---- a user's own folders: what is read

SHAPES = {"a": (12, 10, 1), "b": (8, 9, 3), "c": (16, 24, 3)}  # height, width, channels by folder
SUFFIX = {"a": "png", "b": "bmp", "c": "tiff"}
NAMES = ["0001", "10", "2", "x", "Ä b.c"]  # in the order of text
CLASS = {"0001": "dog", "10": "cat", "2": "dog", "Ä b.c": "ant", "x": "cat"}


def picture(folder, name):
    """uint8 (H, W, C), different for every folder and name; grey for `a`."""
    seed = [ord(folder), NAMES.index(name)]
    return rng(seed).integers(0, 256, SHAPES[folder], dtype=np.uint8)


@pytest.fixture
def own(tmp_path):
    """A folder of three modalities and five tuples, as it should be, without labels."""
    for folder in SHAPES:
        (tmp_path / "own" / folder).mkdir(parents=True)
        for name in NAMES:
            save(file_of(tmp_path / "own", folder, name), picture(folder, name))
    return tmp_path / "own"


def file_of(own, folder, name):
    return own / folder / f"{name}.{SUFFIX[folder]}"


def write_labels(own, rows=None, header=("name", "label"), encoding="utf-8"):
    with open(own / "labels.csv", "w", newline="", encoding=encoding) as opened:
        csv.writer(opened).writerows([header, *(rows or CLASS.items())])
    return own


def read(own, n_train=3, n_test=2, seed=0):
    return folders.read_own(own, sizes(n_train, n_test), rng(seed))


def names_of(splits):
    """{split: names of its tuples in order}, by their pictures of modality b."""
    known = {picture("b", name).transpose(2, 0, 1).tobytes(): name for name in NAMES}
    return {
        split: [known[image.tobytes()] for image in images[1]]
        for split, (images, _, _) in splits.items()
    }


def shapes_of(splits):
    return [image.shape[1:] for image in splits["train"][0]]


def test_every_pixel_of_every_tuple_is_where_it_belongs(own):
    splits, _ = read(own)
    names = names_of(splits)
    assert list(splits) == ["train", "test"] and [len(names[split]) for split in splits] == [3, 2]
    assert sorted(names["train"] + names["test"]) == NAMES  # every one once
    for split, (images, _, crops) in splits.items():
        assert crops is None
        for folder, array in zip(SHAPES, images, strict=True):
            assert array.dtype == np.uint8 and array.flags.c_contiguous
            expected = [picture(folder, name).transpose(2, 0, 1) for name in names[split]]
            np.testing.assert_array_equal(array, expected)  # the same tuple in the same row


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_train", [1, 2, 3])
def test_the_split_follows_the_generator_alone(own, seed, n_train):
    """The test split is the same with fewer training tuples, and shares none with them."""
    shuffled = [NAMES[k] for k in rng(seed).permutation(5)]
    names = names_of(read(own, n_train, 2, seed)[0])
    assert (names["test"], names["train"]) == (shuffled[:2], shuffled[2 : 2 + n_train])


@pytest.mark.parametrize("given", [".", "../own"])
def test_provenance_has_the_names_however_the_folder_was_given(own, monkeypatch, given):
    write_labels(own)
    monkeypatch.chdir(own)
    _, about = folders.read_own(Path(given), sizes(3, 2), rng())
    classes = ["ant", "cat", "dog"]
    expected = {"dataset": "own", "digits": "own", "folders": ["a", "b", "c"], "classes": classes}
    assert about == expected


def test_modalities_come_by_the_name_of_their_folder(own):
    (own / "c").rename(own / "0")
    splits, about = read(own)
    assert about["folders"] == ["0", "a", "b"]
    assert shapes_of(splits) == [(3, 16, 24), (1, 12, 10), (3, 8, 9)]


LEFT_FOLDERS = [".git", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "$Recycle.Bin", "lost+found"]
LEFT_FOLDERS += ["System Volume Information", "#recycle", ".Trash-1000", "RECYCLER"]
LEFT_FILES = [".DS_Store", "._2.png", "Thumbs.db", "desktop.ini", "Desktop.ini", "ehthumbs.db"]
LEFT_FILES += ["Icon\r", ".directory", "THUMBS.DB"]


def test_what_systems_leave_is_left_alone(own):
    (own / "readme.txt").write_text("beside the folders anything may lie")
    before, about = read(own)
    for folder in (own, own / "a", own / "c"):
        for name in LEFT_FOLDERS:
            (folder / name).mkdir()
            save(folder / name / "2.png", picture("c", "2"))
        for name in LEFT_FILES:
            (folder / name).write_text("no picture")
    after, now = read(own)
    assert about["folders"] == now["folders"] == ["a", "b", "c"]
    assert names_of(after) == names_of(before)


# ---- names in several Unicode forms

COMPOSED, APART = "Zo\u00eb", "Zoe\u0308"  # one letter with its dots; the dots apart


def rename(own, folder, name):
    """Picture 2 of `folder` becomes `name`."""
    file = file_of(own, folder, "2")
    file.rename(file.with_name(f"{name}{file.suffix}"))


@pytest.mark.parametrize("forms", [(COMPOSED, APART, APART), (APART, COMPOSED, COMPOSED)])
def test_a_name_composed_in_one_folder_and_not_in_another(own, forms):
    before, _ = read(own)
    for folder, name in zip(SHAPES, forms, strict=True):
        rename(own, folder, name)
    labels = {**CLASS, "\u00c4 b.c": "ant", APART: "dog"}
    after, _ = read(write_labels(own, labels.items()))
    assert sorted(sum(names_of(after).values(), [])) == sorted(sum(names_of(before).values(), []))


def test_two_files_that_become_one_name(own):
    for name in (COMPOSED, APART):
        save(own / "b" / f"{name}.bmp", picture("b", "2"))
    for name in (COMPOSED, APART):
        refused_own(own, repr(f"{name}.bmp"))


def test_one_class_in_two_forms(own):
    rows = dict(CLASS, x=APART, **{"10": COMPOSED})
    assert read(write_labels(own, rows.items()))[1]["classes"] == [COMPOSED, "ant", "dog"]


@pytest.mark.parametrize("name", ["\u00c4", "A\u0308"])
def test_the_order_of_folders_is_the_same_in_both_forms(own, name):
    (own / "a").rename(own / name)  # after b and c, though an A alone comes before
    assert read(own)[1]["folders"] == ["b", "c", "\u00c4"]


def test_two_folders_that_become_one_name(own):
    (own / "a").rename(own / COMPOSED)
    (own / "b").rename(own / APART)
    refused_own(own, f"{COMPOSED!r}")


@pytest.mark.parametrize("suffix, kind", [("Bmp", "BMP"), ("webp", "WEBP"), ("jpg", "PNG")])
def test_suffixes_of_any_case_and_of_several_kinds_within_a_modality(own, suffix, kind):
    """What a file is, is read from the file."""
    options = {"lossless": True} if kind == "WEBP" else {}
    for name in NAMES[:2]:
        file_of(own, "b", name).unlink()
        Image.fromarray(picture("b", name)).save(own / "b" / f"{name}.{suffix}", kind, **options)
    names = names_of(read(own)[0])
    assert sorted(names["train"] + names["test"]) == NAMES


def test_pictures_are_turned_as_the_camera_says(own):
    before, _ = read(own)
    for file in list((own / "c").iterdir()):
        with Image.open(file) as image:
            sensor = image.rotate(90, expand=True)
        file.unlink()
        exif = Image.Exif()
        exif[0x0112] = 6
        sensor.save(file.with_suffix(".png"), exif=exif)
    for turned, plain in zip(read(own)[0]["train"][0], before["train"][0], strict=True):
        np.testing.assert_array_equal(turned, plain)


def test_grey_is_what_has_three_equal_channels_in_every_picture(own):
    for name in NAMES:  # saved as colour
        save(file_of(own, "b", name), np.repeat(picture("b", name)[..., :1], 3, 2))
    assert shapes_of(read(own)[0]) == [(1, 12, 10), (1, 8, 9), (3, 16, 24)]


@pytest.mark.parametrize("name", NAMES)  # in the training split or in the test split
def test_one_coloured_pixel_makes_both_splits_coloured(own, name):
    pixels = np.repeat(picture("a", name), 3, 2)
    pixels[11, 9, 2] ^= 1
    save(file_of(own, "a", name), pixels)
    splits, _ = read(own)
    for split, names in names_of(splits).items():
        for image, other in zip(splits[split][0][0], names, strict=True):
            expected = pixels if other == name else np.repeat(picture("a", other), 3, 2)
            np.testing.assert_array_equal(image, expected.transpose(2, 0, 1))


def test_the_whole_folder_may_be_a_link_and_links_inside_may_point_inside(own, tmp_path):
    (tmp_path / "link").symlink_to(own)
    file = file_of(own, "c", "10")
    file.unlink()
    file.symlink_to(file_of(own, "c", "2").name)
    names = names_of(read(tmp_path / "link")[0])
    assert sorted(names["train"] + names["test"]) == NAMES


# ---- labels


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_the_place_among_the_sorted_classes(own, seed):
    splits, about = read(write_labels(own), seed=seed)
    assert about["classes"] == ["ant", "cat", "dog"]
    for split, names in names_of(splits).items():
        labels = splits[split][1]
        assert labels.dtype == np.int64
        assert [about["classes"][k] for k in labels] == [CLASS[name] for name in names]


def test_without_a_file_all_labels_are_0_and_there_are_no_classes(own):
    splits, about = read(own)
    assert about["classes"] == []
    for split, n in (("train", 3), ("test", 2)):
        assert splits[split][1].dtype == np.int64 and splits[split][1].tolist() == [0] * n


def test_the_file_may_hold_more_and_in_any_order(own):
    rows = [(f" {label} \t", 1, name) for name, label in reversed(CLASS.items())]
    rows += [("cat", "other", "x"), ("fish", "", "not there")]
    # As spreadsheets write it.
    write_labels(own, rows, ("label", "number", "name"), encoding="utf-8-sig")
    splits, about = read(own)
    assert about["classes"] == ["ant", "cat", "dog"]  # of what is there
    for split, names in names_of(splits).items():
        assert [about["classes"][k] for k in splits[split][1]] == [CLASS[name] for name in names]


HEADERS = [("name", " label"), ("Name", "LABEL"), ("\tname ", "label  "), ("NAME", " Label")]
WAYS = {  # to write a name
    "as it is": "{}",
    "suffix": "{}.png",
    "another suffix": "{}.JPEG",
    "blanks": "  {} ",
    "suffix and blanks": " {}.tif\t",
}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_labels_as_people_write_them(own, header, way, encoding):
    expected, _ = read(write_labels(own))
    rows = [(WAYS[way].format(name), f" {label} ") for name, label in CLASS.items()]
    splits, about = read(write_labels(own, rows, header, encoding))
    assert about["classes"] == ["ant", "cat", "dog"]
    for split, (_, labels, _) in splits.items():
        np.testing.assert_array_equal(labels, expected[split][1])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_labels_in_quotes_with_blanks_and_empty_lines(own, end):
    lines = ['"name", "label"', "", *(f'"{name}" , "{label}"' for name, label in CLASS.items())]
    (own / "labels.csv").write_bytes(end.join([*lines, ",", "", " , "]).encode())
    assert read(own)[1]["classes"] == ["ant", "cat", "dog"]


def test_a_name_that_looks_like_one_with_a_suffix(own):
    rows = {"x": "cat", "x.png": "ant"}
    file = write_labels(own, rows.items()) / "labels.csv"
    labels, classes = folders.read_labels(file, ["x", "x.png"])
    assert [classes[k] for k in labels] == ["cat", "ant"]


def test_the_case_of_the_file_of_labels(own):
    (write_labels(own) / "labels.csv").rename(own / "Labels.CSV")
    assert read(own)[1]["classes"] == ["ant", "cat", "dog"]
    write_labels(own)
    refused_own(own, "'Labels.CSV' and 'labels.csv'")


# ---- what can be wrong


def refused_own(own, named, p=None):
    refused(named, "own_data", folders.read_own, own, p or sizes(3, 2), rng())


PARAMETERS = [
    (sizes(3, 2, import_dir="tree"), "polymnist.import_dir: tree"),
    (sizes(3, 2, modalities=2), "`python -m tools.modalities 3`"),
    (sizes(3, 2, modalities=4), "`python -m tools.modalities 3`"),
    (sizes(4, 2), "polymnist.n_train: 4"),
    (sizes(3, 3), "n_test: 3"),
]


@pytest.mark.parametrize("p, named", PARAMETERS)
def test_parameters_that_do_not_fit_the_folder(own, p, named):
    refused_own(own, named, p)


def test_a_missing_folder(own):
    refused_own(own / "none", f"{own}/none")
    (own / "file").write_text("x")
    refused_own(own / "file", f"{own}/file")


@pytest.mark.parametrize("folder", SHAPES)
def test_a_picture_that_one_folder_lacks(own, folder):
    file_of(own, folder, "2").unlink()
    refused_own(own, f"{own / folder} lacks 1 of 5 (2).")


def test_a_picture_that_one_folder_has_more(own):
    save(own / "c/one more.png", picture("c", "x"))
    refused_own(own, f"{own}/c alone has 1 of 6 (one more).")


def test_pictures_that_several_folders_lack(own):
    """How many, in which folder, and a few of them."""
    for name in NAMES[:4]:
        file_of(own, "b", name).unlink()
    file_of(own, "c", NAMES[4]).unlink()
    refused_own(own, f"{own}/b lacks 4 of 5 (0001, 10, 2, ...); {own}/c lacks 1 of 5 (")
    shutil.rmtree(own / "a")
    two = sizes(3, 2, modalities=2)
    refused_own(own, f"{own}/b lacks 4 of 5 (0001, 10, 2, ...); {own}/c lacks 1 of 5 (", two)


def test_a_folder_without_any_picture(own):
    for file in (own / "b").iterdir():
        file.unlink()
    refused_own(own, f"{own}/b lacks 5 of 5 (0001, ")


def test_folders_that_are_too_many_are_named(own):
    (own / "notes").mkdir()
    refused_own(own, "(a, b, c, notes)")


def test_empty_folders(own):
    for file in own.glob("*/*"):
        file.unlink()
    refused_own(own, f"{own} holds 0 ")


NO_PICTURES = ["notes.txt", "7", "10.png.part", "2.gif", "2.png", "2.BMP", "2\nx.txt", "2\nx.bmp"]


@pytest.mark.parametrize("name", NO_PICTURES)
def test_another_file_or_a_second_one_of_a_name(own, name):
    (own / "b" / name).write_bytes(file_of(own, "b", "2").read_bytes())
    refused_own(own, f"{own}/b")


@pytest.mark.parametrize("folder", ["a", "b", "c"])
@pytest.mark.parametrize("by", [(1, 0), (0, -1)])
def test_several_sizes_in_one_folder(own, folder, by):
    """Which of the two sizes comes first depends on the shuffling; both are named."""
    height, width = np.add(SHAPES[folder][:2], by)
    Image.new("RGB", (width, height)).save(file_of(own, folder, "2"))
    refused_own(own, f"{width}x{height}")
    refused_own(own, f"{width - by[1]}x{height - by[0]}")


@pytest.mark.parametrize("side, fits", [(8, True), (7, False)])
def test_the_smallest_pictures(own, side, fits):
    for name in NAMES:
        save(file_of(own, "c", name), picture("c", name)[:8, :side])
    if fits:
        assert shapes_of(read(own)[0])[2] == (3, 8, 8)
    else:
        refused_own(own, f"is {side}x8")


@pytest.mark.parametrize("how", ["corrupt", "link out", "dead link", "pipe", "folder"])
def test_what_is_no_picture(own, soon, how):
    spoil(file_of(own, "b", "10"), how)
    refused_own(own, file_of(own, "b", "10"))


def test_a_folder_that_is_a_link_out(own):
    (own / "c").rename(own.parent / "elsewhere")
    (own / "c").symlink_to(own.parent / "elsewhere")
    refused_own(own, f"{own}/c/")


def test_more_than_fits(own, monkeypatch):
    whole = 5 * 3 * 3 * 16 * 24  # bytes: as if all modalities were as large as c
    monkeypatch.setattr(folders, "MAX_IMPORT", whole)
    read(own)
    monkeypatch.setattr(folders, "MAX_IMPORT", whole - 1)
    refused_own(own, own)


# ---- what can be wrong with labels.csv


def refused_labels(own, what):
    refused_own(own, f"{own}/labels.csv{what}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("label", [None, [], [""], ["   "]])  # no row, a short one, blanks
def test_a_missing_label(own, name, label):
    rows = [row for row in CLASS.items() if row[0] != name]
    rows += [] if label is None else [(name, *label)]
    refused_labels(write_labels(own, rows), f" has no label for {name}")


@pytest.mark.parametrize("again", ["2.png", " 2", "2.JPG "])
def test_two_labels_for_one_name_written_otherwise(own, again):
    refused_labels(write_labels(own, [*CLASS.items(), (again, "ant")]), " has two labels for '2'")


def test_how_many_labels_are_missing(own):
    write_labels(own, [("x", "cat"), ("1", "dog")])
    refused_labels(own, " has no label for 0001, 10, 2, ...: 4 of 5 ")
    refused_own(own, "no picture has the names 1 ")


def test_two_labels_for_one_name(own):
    write_labels(own, [*CLASS.items(), ("2", "dog")])  # the same one twice does no harm
    assert read(own)[1]["classes"] == ["ant", "cat", "dog"]
    refused_labels(write_labels(own, [*CLASS.items(), ("2", "ant")]), " has two labels for '2'")


def test_one_class_only(own):
    refused_labels(write_labels(own, dict.fromkeys(NAMES, "dog").items()), " has 1 classes")


@pytest.mark.parametrize("seed", range(5))
def test_a_split_that_holds_one_class_only(own, seed):
    """One tuple of its class: the split without it has one class, the sign of no labels."""
    write_labels(own, {**dict.fromkeys(NAMES, "dog"), "2": "cat"}.items())
    with pytest.raises(UserError, match="polymnist.own_data: .*labels.csv"):
        read(own, seed=seed)


def test_1000_classes_and_more(tmp_path):
    names = [str(k) for k in range(1001)]
    write_labels(tmp_path, [(name, f"class {name:>04}") for name in names])
    labels, classes = folders.read_labels(tmp_path / "labels.csv", names[:1000])
    assert labels.tolist() == list(range(1000)) and len(classes) == 1000
    with pytest.raises(UserError, match="1001 classes"):
        folders.read_labels(tmp_path / "labels.csv", names)


WRONG = {
    "no header": (b"0001,dog\n2,cat\n", "can't be read"),
    "a column twice": (b"name,label, Label\n0001,dog,cat\n", "can't be read"),
    "zeros that a spreadsheet dropped": (b"name,label\n1,dog\n", "has no label for 0001"),
    "empty": (b"", "has no label for 0001"),
    "other columns": (b"file,label\n0001,dog\n", "can't be read"),
    "semicolons": (b"name;label\n0001;dog\n", "can't be read"),
    "latin-1": ("name,label\n2,K\u00f6ter\n".encode("latin-1"), "can't be read"),
    "utf-16": ("name,label\n2,dog\n".encode("utf-16"), "can't be read"),
    "noise": (rng().integers(0, 256, 5000, dtype=np.uint8).tobytes(), "can't be read"),
    "a field without end": (b'name,label\n0001,"' + b"x" * 200_000, "can't be read"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_labels_of_another_form(own, kind):
    content, what = WRONG[kind]
    (own / "labels.csv").write_bytes(content)
    refused_labels(own, f" {what}")


@pytest.mark.parametrize("how", ["pipe", "dead link"])  # neither waited for nor taken for no labels
def test_something_else_in_the_place_of_the_labels(own, soon, how):
    os.mkfifo(own / "labels.csv") if how == "pipe" else (own / "labels.csv").symlink_to("nowhere")
    refused_labels(own, " is not a regular file")
