"""A user's own folders of pictures: every pixel where it belongs, and every way such a folder can be wrong."""

import csv
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from stages import polymnist
from stages.lib import pictures
from stages.lib.runtime import UserError

SHAPES = {"a": (12, 10, 1), "b": (8, 9, 3), "c": (16, 24, 3)}  # height, width, channels by folder
SUFFIX = {"a": "png", "b": "bmp", "c": "tiff"}
NAMES = ["0001", "10", "2", "x", "Ä b.c"]  # in the order of text
CLASS = {"0001": "dog", "10": "cat", "2": "dog", "Ä b.c": "ant", "x": "cat"}
SIZES = SimpleNamespace(import_dir=None, modalities=3, n_train=3, n_test=2)


def rng(seed=0):
    return np.random.default_rng(seed)


def picture(folder, name):
    """uint8 (H, W, C) of its own, grey for `a`."""
    return rng([ord(folder), NAMES.index(name)]).integers(0, 256, SHAPES[folder], dtype=np.uint8)


def save(file, pixels):
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file)


@pytest.fixture
def own(tmp_path):
    """A folder of three modalities and five tuples, as it should be, without labels."""
    where = tmp_path / "own"
    for folder in SHAPES:
        (where / folder).mkdir(parents=True)
        for name in NAMES:
            save(where / folder / f"{name}.{SUFFIX[folder]}", picture(folder, name))
    return where


def write_labels(own, rows=None, header=("name", "label"), encoding="utf-8"):
    with open(own / "labels.csv", "w", newline="", encoding=encoding) as opened:
        csv.writer(opened).writerows([header, *(rows if rows is not None else CLASS.items())])
    return own


def file_of(own, folder, name):
    return own / folder / f"{name}.{SUFFIX[folder]}"


def read(own, p=SIZES, seed=0):
    return pictures.read_own(own, p, rng(seed))


def names_of(splits):
    """{split: names of its tuples in order}, by their pictures of modality b; asserts that each is one of them."""
    known = {picture("b", name).transpose(2, 0, 1).tobytes(): name for name in NAMES}
    return {split: [known[image.tobytes()] for image in images[1]] for split, (images, _, _) in splits.items()}


def refusal(own, p=SIZES):
    """The one line with which `own` is refused, that says which parameter it is about."""
    with pytest.raises(UserError) as caught:
        read(own, p)
    message = str(caught.value)
    assert message.startswith("polymnist.own_data: ") and "\n" not in message
    return message


# ---- what is read


def test_every_pixel_of_every_tuple_is_where_it_belongs(own):
    splits, _ = read(own)
    found = names_of(splits)
    assert list(splits) == ["train", "test"] and [len(found[split]) for split in splits] == [3, 2]
    assert sorted(found["train"] + found["test"]) == NAMES  # each once
    for split, (images, _, crops) in splits.items():
        assert crops is None and len(images) == 3
        for folder, array in zip(SHAPES, images):
            height, width, channels = SHAPES[folder]
            assert (array.shape, array.dtype) == ((len(found[split]), channels, height, width), np.uint8)
            assert array.flags.c_contiguous
            for image, name in zip(array, found[split]):  # the same tuple in the same row of every modality
                np.testing.assert_array_equal(image.transpose(1, 2, 0), picture(folder, name))


def test_the_split_follows_the_generator_alone(own):
    orders = [names_of(read(own, seed=seed)[0]) for seed in range(8)]
    assert orders == [names_of(read(own, seed=seed)[0]) for seed in range(8)]
    assert len({str(order) for order in orders}) > 4  # other seeds, other splits
    for seed, order in enumerate(orders):
        shuffled = [NAMES[k] for k in rng(seed).permutation(5)]
        assert (order["test"], order["train"]) == (shuffled[:2], shuffled[2:])


def test_the_test_split_does_not_change_with_the_number_of_training_tuples(own):
    fewer = SimpleNamespace(import_dir=None, modalities=3, n_train=1, n_test=2)
    assert names_of(read(own, fewer)[0])["test"] == names_of(read(own)[0])["test"]
    assert names_of(read(own, fewer)[0])["train"] == names_of(read(own)[0])["train"][:1]


def test_no_tuple_is_in_both_splits_where_some_are_left_out(own):
    p = SimpleNamespace(import_dir=None, modalities=3, n_train=2, n_test=2)
    for seed in range(10):
        found = names_of(read(own, p, seed)[0])
        assert len({*found["train"], *found["test"]}) == 4


def test_what_was_read_is_told(own):
    _, about = read(write_labels(own))
    assert about == {"dataset": "own", "digits": "own", "folders": ["a", "b", "c"], "classes": ["ant", "cat", "dog"]}


@pytest.mark.parametrize("given", [".", "./", "../own"])
def test_the_data_set_is_called_as_the_folder_is_however_it_was_given(own, monkeypatch, given):
    monkeypatch.chdir(own)
    assert pictures.read_own(Path(given), SIZES, rng())[1]["dataset"] == "own"


def test_modalities_come_by_the_name_of_their_folder(own):
    (own / "c").rename(own / "0")
    splits, about = read(own)
    assert about["folders"] == ["0", "a", "b"]
    assert [image.shape[1:] for image in splits["train"][0]] == [(3, 16, 24), (1, 12, 10), (3, 8, 9)]


def test_hidden_files_and_folders_are_left_alone(own):
    (own / ".git").mkdir()
    (own / "readme.txt").write_text("beside the folders anything may lie")
    (own / "a" / ".DS_Store").write_text("no picture")
    assert read(own)[1]["folders"] == ["a", "b", "c"]


@pytest.mark.parametrize("suffix, kind", [("PNG", "PNG"), ("Bmp", "BMP"), ("webp", "WEBP"), ("tif", "TIFF"), ("jpg", "PNG")])
def test_suffixes_of_any_case_and_of_several_kinds_within_a_modality(own, suffix, kind):
    """Nothing is lost: what a file is, is read from the file."""
    for name in NAMES[:2]:
        file_of(own, "b", name).unlink()
        Image.fromarray(picture("b", name)).save(own / "b" / f"{name}.{suffix}", kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert sorted(sum(names_of(read(own)[0]).values(), [])) == NAMES


def test_jpegs_are_read(own):
    for name in NAMES:
        file_of(own, "c", name).unlink()
        Image.fromarray(picture("c", name)).save(own / "c" / f"{name}.jpeg")
    found = names_of(read(own)[0])
    for split, (images, _, _) in read(own)[0].items():
        for image, name in zip(images[2], found[split]):
            with Image.open(own / "c" / f"{name}.jpeg") as opened:
                np.testing.assert_array_equal(image.transpose(1, 2, 0), np.asarray(opened))


# ---- grey and colour


def test_grey_is_what_has_three_equal_channels_in_every_picture(own):
    for name in NAMES:
        save(file_of(own, "b", name), np.repeat(picture("b", name)[..., :1], 3, 2))  # saved as colour
    for images, _, _ in read(own)[0].values():
        assert [image.shape[1] for image in images] == [1, 1, 3]


@pytest.mark.parametrize("name", NAMES)
def test_one_coloured_pixel_in_one_picture_makes_a_modality_coloured(own, name):
    pixels = np.repeat(picture("a", name), 3, 2)
    pixels[11, 9, 2] ^= 1
    save(file_of(own, "a", name), pixels)
    for images, _, _ in read(own)[0].values():
        assert images[0].shape[1:] == (3, 12, 10)


def test_both_splits_are_coloured_where_one_picture_is(own):
    p = SimpleNamespace(import_dir=None, modalities=3, n_train=4, n_test=1)
    left, test = (names_of(read(own, p)[0])[split] for split in ("train", "test"))
    red = np.zeros((12, 10, 3), np.uint8)
    red[..., 0] = 200
    save(file_of(own, "a", test[0]), red)
    splits, _ = read(own, p)
    assert splits["train"][0][0].shape == (4, 3, 12, 10) and splits["test"][0][0].shape == (1, 3, 12, 10)
    for image, name in zip(splits["train"][0][0], left):
        np.testing.assert_array_equal(image, np.repeat(picture("a", name).transpose(2, 0, 1), 3, 0))


# ---- labels


def test_labels_are_the_place_among_the_sorted_classes(own):
    splits, about = read(write_labels(own))
    assert about["classes"] == ["ant", "cat", "dog"]
    for split, names in names_of(splits).items():
        labels = splits[split][1]
        assert labels.dtype == np.int64 and labels.tolist() == [about["classes"].index(CLASS[name]) for name in names]


def test_without_a_file_all_labels_are_0_and_there_are_no_classes(own):
    splits, about = read(own)
    assert about["classes"] == []
    for split, n in (("train", 3), ("test", 2)):
        assert splits[split][1].dtype == np.int64 and splits[split][1].tolist() == [0] * n


def test_the_file_may_hold_more_and_in_any_order(own):
    rows = [("cat", "other", "x"), *((label, 1, name) for name, label in reversed(CLASS.items())), ("fish", "", "not there")]
    splits, about = read(write_labels(own, rows, ("label", "number", "name")))
    assert about["classes"] == ["ant", "cat", "dog"]  # of what is there
    for split, names in names_of(splits).items():
        assert splits[split][1].tolist() == [about["classes"].index(CLASS[name]) for name in names]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # the latter as spreadsheets write it
def test_labels_with_and_without_a_byte_order_mark(own, encoding):
    assert read(write_labels(own, encoding=encoding))[1]["classes"] == ["ant", "cat", "dog"]


def test_labels_are_stripped_and_may_be_any_text(own):
    rows = [(name, f"  {label}, é \t") for name, label in CLASS.items()]
    assert read(write_labels(own, rows))[1]["classes"] == ["ant, é", "cat, é", "dog, é"]


def test_labels_follow_their_pictures_whatever_the_seed(own):
    classes = dict(zip(NAMES, "edcba"))
    write_labels(own, classes.items())
    for seed in range(10):
        splits, about = read(own, seed=seed)
        assert {name: about["classes"][k] for split, names in names_of(splits).items() for name, k in zip(names, splits[split][1])} == classes


# ---- what can be wrong: the folders


def test_own_data_and_an_imported_tree_exclude_each_other(own):
    message = refusal(own, SimpleNamespace(**{**vars(SIZES), "import_dir": "tree"}))
    assert "polymnist.import_dir: tree exclude each other" in message


def test_pictures_of_a_camera_held_upright(own):
    """EXIF orientation 6: the sensor's rows are the picture's columns, right to left."""
    before, _ = read(own)
    for file in list((own / "c").iterdir()):
        with Image.open(file) as image:
            sensor = image.convert("RGB").rotate(90, expand=True)
        file.unlink()
        exif = Image.Exif()
        exif[0x0112] = 6
        sensor.save(file.with_suffix(".png"), exif=exif)
    assert names_of(read(own)[0])["train"] == names_of(before)["train"]
    for turned, plain in zip(read(own)[0]["train"][0], before["train"][0]):
        assert np.array_equal(turned, plain)


def test_a_missing_folder(own):
    message = refusal(own / "none")
    assert f"{own}/none is not a folder" in message and "a folder of pictures a modality" in message


def test_a_file_in_place_of_the_folder(own):
    (own / "file").write_text("x")
    assert f"{own}/file is not a folder" in refusal(own / "file")


@pytest.mark.parametrize("m", [2, 4])
def test_another_number_of_folders(own, m):
    message = refusal(own, SimpleNamespace(import_dir=None, modalities=m, n_train=3, n_test=2))
    assert f"{own} holds 3 folders" in message and f"polymnist.modalities is {m}" in message and "`python -m cluster.modalities 3` sets it" in message


@pytest.mark.parametrize("folder", ["a", "b", "c"])
def test_a_picture_that_one_folder_lacks(own, folder):
    file_of(own, folder, "2").unlink()
    message = refusal(own)
    assert f"{own}/{'b' if folder == 'a' else folder} and {own}/a do not hold the same names: 2 is in one" in message


def test_a_picture_that_one_folder_has_more(own):
    save(own / "c" / "one more.png", picture("c", "x"))
    message = refusal(own)
    assert f"{own}/c and" in message and "one more is in one of them only" in message


@pytest.mark.parametrize("name", ["notes.txt", "Thumbs.db", "2.gif", "7", "2.png.part"])
def test_what_is_no_picture_by_its_suffix(own, name):
    (own / "b" / name).write_bytes(file_of(own, "b", "2").read_bytes())
    message = refusal(own)
    assert f"{own}/b/{name} is no picture" in message and "put only pictures there" in message and ".png" in message


def test_a_folder_among_the_pictures(own):
    (own / "b" / "more").mkdir()
    assert f"{own}/b/more is no picture" in refusal(own)


@pytest.mark.parametrize("suffix", ["png", "BMP", "jpg"])
def test_two_pictures_of_one_name(own, suffix):
    (own / "b" / f"2.{suffix}").write_bytes(file_of(own, "b", "2").read_bytes())
    message = refusal(own)
    assert "its name is there twice" in message and f"{own}/b/2." in message


@pytest.mark.parametrize("train, test", [(4, 2), (3, 3), (100, 100)])
def test_too_few_tuples(own, train, test):
    message = refusal(own, SimpleNamespace(import_dir=None, modalities=3, n_train=train, n_test=test))
    assert f"{own} holds 5 tuples, but polymnist.n_train: {train} and n_test: {test} ask for {train + test}; lower them" in message


def test_empty_folders(own):
    for file in own.glob("*/*"):
        file.unlink()
    assert f"{own} holds 0 tuples" in refusal(own)


def test_a_line_break_in_a_name(own):
    (own / "b" / "2\nerror: x.txt").write_text("x")
    assert "is no picture" in refusal(own)
    (own / "b" / "2\nerror: x.txt").rename(own / "b" / "2\nx.bmp")
    assert "do not hold the same names" in refusal(own)


# ---- what can be wrong: the pictures


@pytest.mark.parametrize("folder", ["a", "b", "c"])
@pytest.mark.parametrize("by", [(1, 0), (0, 1), (-1, 0), (0, -1)])
def test_several_sizes_in_one_folder(own, folder, by):
    height, width, _ = SHAPES[folder]
    Image.new("RGB", (width + by[1], height + by[0])).save(file_of(own, folder, "2"))
    message = refusal(own)
    # Which of the two sizes is found first depends on the shuffling; both are told, and a file of this folder.
    assert f"{width}x{height}" in message and f"{width + by[1]}x{height + by[0]}" in message
    assert f"{own}/{folder}/" in message and "a modality has one size" in message


def test_sides_turned_around_are_another_size(own):
    Image.new("RGB", (12, 10)).save(file_of(own, "a", "2"))
    message = refusal(own)
    assert "10x12" in message and "12x10" in message


@pytest.mark.parametrize("height, width", [(7, 20), (20, 7), (1, 1)])
def test_too_small_pictures(own, height, width):
    for name in NAMES:
        Image.new("RGB", (width, height)).save(file_of(own, "c", name))
    message = refusal(own)
    assert f"{own}/c/" in message and f"is {width}x{height}" in message and "at least 8x8" in message


def test_the_smallest_pictures_are_enough(own):
    for name in NAMES:
        save(file_of(own, "c", name), picture("c", name)[:8, :8])
    assert read(own)[0]["train"][0][2].shape == (3, 3, 8, 8)


@pytest.mark.parametrize("content", [b"", b"just text\n", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_a_broken_picture(own, content):
    file_of(own, "b", "10").write_bytes(content)
    assert f"{file_of(own, 'b', '10')} can't be read as a picture" in refusal(own)


def test_a_truncated_picture(own):
    file = file_of(own, "a", "x")
    file.write_bytes(file.read_bytes()[:-40])
    assert f"{file} can't be read as a picture" in refusal(own)


def test_more_than_8_bits_a_channel(own):
    file = file_of(own, "a", "x")
    Image.fromarray(np.full((12, 10), 3000, np.uint16)).save(file)
    message = refusal(own)
    assert f"{file} has more than 8 bits a channel" in message and "convert it to 8" in message


def test_an_animated_picture(own):
    file = file_of(own, "a", "x")
    frames = [Image.fromarray(picture("a", name)[..., 0]) for name in NAMES[:2]]
    frames[0].save(file, save_all=True, append_images=frames[1:])
    assert f"{file} holds 2 frames; give one picture" in refusal(own)


def test_a_link_out_of_the_folder(own):
    file = file_of(own, "b", "10")
    file.rename(own.parent / "elsewhere.bmp")
    file.symlink_to(own.parent / "elsewhere.bmp")
    message = refusal(own)
    assert f"{file} is a link out of {own}; put the picture itself there" in message
    file.unlink()
    file.symlink_to(file_of(own, "b", "2").name)  # inside it may point anywhere
    read(own)


def test_a_folder_that_is_a_link_out(own):
    (own / "c").rename(own.parent / "elsewhere")
    (own / "c").symlink_to(own.parent / "elsewhere")
    message = refusal(own)
    assert f"{own}/c/" in message and "is a link out of" in message


def test_the_whole_folder_may_be_a_link(own, tmp_path):
    (tmp_path / "link").symlink_to(own)
    assert sorted(sum(names_of(read(tmp_path / "link")[0]).values(), [])) == NAMES


def test_a_dead_link(own):
    file = file_of(own, "b", "10")
    file.unlink()
    file.symlink_to("nowhere.bmp")
    assert f"{file} is not a regular file" in refusal(own)


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


def test_a_pipe_is_not_waited_for(own, soon):
    file = file_of(own, "b", "10")
    file.unlink()
    os.mkfifo(file)
    assert f"{file} is not a regular file" in refusal(own)


def test_a_folder_called_like_a_picture(own):
    file = file_of(own, "b", "10")
    file.unlink()
    file.mkdir()
    assert f"{file} is not a regular file" in refusal(own)


def test_more_than_fits(own, monkeypatch):
    whole = 5 * 3 * 3 * 16 * 24  # bytes: as if all modalities were as large as c
    monkeypatch.setattr(pictures, "MAX_IMPORT", whole)
    read(own)
    monkeypatch.setattr(pictures, "MAX_IMPORT", whole - 1)
    message = refusal(own)
    assert f"{own}: its pictures are more than {whole - 1:,} bytes; make them smaller" in message


# ---- what can be wrong: the labels


def refused_labels(own):
    message = refusal(own)
    assert f"{own}/labels.csv" in message
    return message


@pytest.mark.parametrize("header", [("name", "class"), ("file", "label"), ("Name", "Label"), ("name;label",), ("0001", "dog")])
def test_labels_without_the_columns(own, header):
    message = refused_labels(write_labels(own, [(*row, "")[: max(2, len(header))] for row in CLASS.items()], header))
    assert "it should have the columns name and label" in message


@pytest.mark.parametrize("content", ["", "\n\n", "name,label\n"])
def test_labels_of_nothing(own, content):
    (own / "labels.csv").write_text(content)
    assert "has no label for 0001" in refused_labels(own)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_label(own, name):
    assert f"has no label for {name}" in refused_labels(write_labels(own, [row for row in CLASS.items() if row[0] != name]))


@pytest.mark.parametrize("label", ["", "   "])
def test_an_empty_label(own, label):
    assert "has no label for 2" in refused_labels(write_labels(own, {**CLASS, "2": label}.items()))


def test_a_row_without_a_label(own):
    write_labels(own, [row if row[0] != "2" else ("2",) for row in CLASS.items()])
    assert "has no label for 2" in refused_labels(own)


def test_two_labels_for_one_name(own):
    message = refused_labels(write_labels(own, [*CLASS.items(), ("2", "ant")]))
    assert "2" in message.split("labels.csv")[1]


def test_the_same_label_twice_does_no_harm(own):
    assert read(write_labels(own, [*CLASS.items(), ("2", "dog")]))[1]["classes"] == ["ant", "cat", "dog"]


def test_one_class_only(own):
    message = refused_labels(write_labels(own, dict.fromkeys(NAMES, "dog").items()))
    assert "has 1 classes; 2 to 1000 are wanted, or no file" in message


@pytest.mark.parametrize("seed", range(5))
def test_a_split_that_holds_one_class_only(own, seed):
    """One tuple of its class: whichever split it is in, the other has one class, which is the sign of data without labels."""
    write_labels(own, {**dict.fromkeys(NAMES, "dog"), "2": "cat"}.items())
    with pytest.raises(UserError, match="polymnist.own_data: .*labels.csv"):
        read(own, seed=seed)


def test_1000_classes_and_more(tmp_path):
    file = tmp_path / "labels.csv"
    write_labels(tmp_path, [(str(k), f"class {k:04d}") for k in range(1001)])
    labels, classes = pictures.read_labels(file, [str(k) for k in range(1000)])
    assert labels.tolist() == list(range(1000)) and len(classes) == 1000
    with pytest.raises(UserError, match="1001 classes; 2 to 1000 are wanted"):
        pictures.read_labels(file, [str(k) for k in range(1001)])


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_labels_that_are_not_utf_8(own, encoding):
    message = refused_labels(write_labels(own, {**CLASS, "2": "Köter"}.items(), encoding=encoding))
    assert "can't be read" in message and "name and label" in message


def test_labels_that_are_no_text(own):
    (own / "labels.csv").write_bytes(rng().integers(0, 256, 5000, dtype=np.uint8).tobytes())
    assert "can't be read" in refused_labels(own)


def test_a_field_without_end(own):
    (own / "labels.csv").write_text('name,label\n0001,"' + "x" * 200_000)
    assert "can't be read" in refused_labels(own)


def test_labels_that_may_not_be_read(own, monkeypatch):
    write_labels(own)

    def forbidden(file, *arguments, **named):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(pictures, "open", forbidden, raising=False)
    assert "Permission denied" in refused_labels(own)


def test_a_pipe_in_place_of_the_labels_is_not_waited_for(own, soon):
    os.mkfifo(own / "labels.csv")
    refused_labels(own)


def test_a_dead_link_in_place_of_the_labels_is_not_taken_for_no_labels(own):
    (own / "labels.csv").symlink_to("nowhere.csv")
    refused_labels(own)


# ---- the stage


def test_the_stage_writes_what_was_read(own, tmp_path, monkeypatch):
    """stages.polymnist in a folder of its own: arrays by modality, labels, no crops, provenance; nothing where it was refused."""
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load((Path(__file__).parent.parent / "params.yaml").read_text())
    values["polymnist"].update(modalities=3, n_train=100, n_test=100, own_data=str(own), seed=7)
    for folder in SHAPES:
        for file in (own / folder).iterdir():
            file.unlink()
        for k in range(200):
            save(own / folder / f"{k:03d}.png", rng([ord(folder), k]).integers(0, 256, SHAPES[folder], dtype=np.uint8))
    write_labels(own, [(f"{k:03d}", "even" if k % 2 == 0 else "odd") for k in range(200)])
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr("sys.argv", ["polymnist"])
    monkeypatch.setattr(polymnist.runtime, "begin", lambda *_: None)  # its lock would outlast the test
    polymnist.main()
    splits, about = pictures.read_own(own, SimpleNamespace(import_dir=None, modalities=3, n_train=100, n_test=100),
                                      rng(polymnist.runtime.seed_of("own data", 7)))
    told = polymnist.artifacts.load_json("data/polymnist/provenance.json")
    assert {key: told[key] for key in about} == about and told["classes"] == ["even", "odd"]
    assert (told["modalities"], told["n_train"], told["n_test"], told["seed"]) == (["m1", "m2", "m3"], 100, 100, 7)
    for split, (images, labels, _) in splits.items():
        for name, array in zip(told["modalities"], images):
            np.testing.assert_array_equal(polymnist.artifacts.load_array(f"data/polymnist/{split}/{name}.npy"), array)
        np.testing.assert_array_equal(polymnist.artifacts.load_array(f"data/polymnist/{split}/labels.npy"), labels)
        assert not (tmp_path / f"data/polymnist/{split}/crops.npy").exists()
    before = {file: file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file()}
    (own / "c" / "199.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="199.png can't be read as a picture"):
        polymnist.main()
    assert {file: file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file()} == before
