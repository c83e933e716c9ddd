"""The making of tuples: what every pixel must be, and every way a folder of pictures can be wrong."""

import io
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from stages import polymnist
from stages.lib import pictures
from stages.lib.runtime import UserError

SIDE, M, N, CLASSES = polymnist.SIDE, 3, 60, 4


def rng(seed=0):
    return np.random.default_rng(seed)


def digit_set(per_class=10):
    """images (K, 28, 28) of random grey values, labels (K,), writers (K,): each picture is by a writer of its own."""
    labels = np.repeat(np.arange(CLASSES), per_class)
    images = rng(1).integers(0, 256, (len(labels), SIDE, SIDE), dtype=np.uint8)
    images[:, 0, :4] = 128, 129, 0, 255  # 128 is no ink, 129 is
    return images, labels, np.arange(len(labels))


def backgrounds():
    """One larger than a crop, one wide, and one with room for a single crop."""
    return [rng(2 + m).integers(0, 256, (*size, 3), dtype=np.uint8) for m, size in enumerate([(40, 50), (28, 90), (28, 28)])]


def tuples(seed=0, n=N, digits=None, pictures=None):
    return polymnist.make_tuples(*(digits or digit_set()), pictures or backgrounds(), n, rng(seed))


def crop_of(background, position):
    y, x = position
    return background[y : y + SIDE, x : x + SIDE].transpose(2, 0, 1)


def sources(images, crops):
    """Index (N, M) of the digit that was laid over each crop, found by its ink; asserts that there is exactly one."""
    ink_of_digits, found = digit_set()[0] > 128, np.empty((len(crops), M), int)
    for m, background in enumerate(backgrounds()):
        for i in range(len(crops)):
            ink = (images[m][i] != crop_of(background, crops[i, m]))[0]  # a value and its inverse are never equal
            matches = np.flatnonzero((ink_of_digits == ink).all((1, 2)))
            assert len(matches) == 1
            found[i, m] = matches[0]
    return found


def refusal(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- tuples


def test_shapes_and_types():
    images, labels, crops = tuples()
    assert [(array.shape, array.dtype) for array in images] == [((N, 3, SIDE, SIDE), np.uint8)] * M
    assert (labels.shape, labels.dtype) == ((N,), np.int64)
    assert (crops.shape, crops.dtype) == ((N, M, 2), np.int64)
    assert all(array.flags.c_contiguous for array in images)


def test_every_pixel_is_the_crop_or_its_inverse_where_the_digit_is():
    images, _, crops = tuples()
    digits, source = digit_set()[0], sources(*tuples()[::2])
    for m, background in enumerate(backgrounds()):
        for i in range(N):
            crop = crop_of(background, crops[i, m])
            ink = np.broadcast_to(digits[source[i, m]] > 128, crop.shape)  # the same in all three colours
            np.testing.assert_array_equal(images[m][i][~ink], crop[~ink])
            np.testing.assert_array_equal(images[m][i][ink], 255 - crop[ink])


def test_all_digits_of_a_tuple_have_its_class():
    images, labels, crops = tuples()
    np.testing.assert_array_equal(digit_set()[1][sources(images, crops)], np.repeat(labels[:, None], M, 1))


def test_writers_differ_within_a_tuple():
    images, _, crops = tuples()
    writers = digit_set()[2][sources(images, crops)]
    assert all(len(set(row)) == M for row in writers.tolist())


def test_writers_differ_where_they_wrote_many_digits():
    """Four writers of ten digits each, and three modalities: other digits of one writer don't count as another."""
    images, labels, _ = digit_set()
    writers = np.arange(40) % 4
    found, _, crops = tuples(digits=(images, labels, writers))
    assert all(len(set(row)) == M for row in writers[sources(found, crops)].tolist())


def test_as_many_writers_as_modalities_are_enough():
    images, labels, _ = digit_set()
    writers = np.arange(40) % M
    found, _, crops = tuples(digits=(images, labels, writers))
    assert all(sorted(row) == [0, 1, 2] for row in writers[sources(found, crops)].tolist())


def test_too_few_writers_are_refused():
    images, labels, _ = digit_set()
    writers = np.where(labels == 2, 0, np.arange(40))
    assert "digit 2 has fewer than 3 writers" in refusal(tuples, 0, N, (images, labels, writers))


def test_classes_are_as_frequent_as_among_the_digits():
    _, labels, _ = tuples(n=80)  # twice the 40 digits
    np.testing.assert_array_equal(np.bincount(labels), [20] * CLASSES)


def test_crops_reach_every_position_and_no_further():
    picture = rng(5).integers(0, 256, (SIDE + 1, SIDE + 2, 3), dtype=np.uint8)
    _, _, crops = tuples(n=400, pictures=[picture] * M)
    for m in range(M):
        assert set(map(tuple, crops[:, m].tolist())) == {(y, x) for y in range(2) for x in range(3)}
    assert (crops[:, 0] != crops[:, 1]).any()  # each modality has its own


def test_deterministic_by_seed():
    (images, labels, crops), again, other = tuples(0), tuples(0), tuples(1)
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(labels, again[1])
    np.testing.assert_array_equal(crops, again[2])
    assert (labels != other[1]).any() and (crops != other[2]).any()


def test_the_inputs_are_left_alone():
    digits, pictures = digit_set(), backgrounds()
    tuples(digits=digits, pictures=pictures)
    for array, before in zip((*digits, *pictures), (*digit_set(), *backgrounds())):
        np.testing.assert_array_equal(array, before)


# ---- backgrounds


def save_picture(file, height=30, width=40, mode="RGB"):
    """A random picture, saved without loss; returns it as uint8 (height, width, 3)."""
    picture = Image.fromarray(rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)
    picture.save(file)
    return np.asarray(picture.convert("RGB"))


def refused_folder(folder, modalities=2):
    return refusal(polymnist.load_backgrounds, str(folder), modalities)


def test_backgrounds_come_by_name(tmp_path):
    expected = {name: save_picture(tmp_path / name, 30 + i, 40) for i, name in enumerate(["c.png", "a.png", "b.bmp"])}
    (tmp_path / ".hidden").write_text("no picture")
    (tmp_path / "folder").mkdir()
    pictures, sources = polymnist.load_backgrounds(str(tmp_path), 3)
    assert [source["file"] for source in sources] == ["a.png", "b.bmp", "c.png"]
    for picture, source in zip(pictures, sources):
        np.testing.assert_array_equal(picture, expected[source["file"]])
    assert len({source["sha256"] for source in sources}) == 3
    assert len(polymnist.load_backgrounds(str(tmp_path), 2)[0]) == 2  # the first two


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_backgrounds_of_any_mode_become_colour(tmp_path, mode):
    expected = save_picture(tmp_path / "a.png", mode=mode)
    picture = polymnist.load_backgrounds(str(tmp_path), 1)[0][0]
    assert (picture.shape, picture.dtype) == ((30, 40, 3), np.uint8)
    np.testing.assert_array_equal(picture, expected)


def test_builtin_backgrounds_are_there():
    pictures, sources = polymnist.load_backgrounds("builtin", 10)
    assert len({source["sha256"] for source in sources}) == 10
    assert all(picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 for picture in pictures)
    assert all(min(picture.shape[:2]) >= 4 * SIDE for picture in pictures)


def test_missing_folder(tmp_path):
    assert f"{tmp_path}/none is not a folder" in refused_folder(tmp_path / "none")


def test_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    assert f"{tmp_path}/file is not a folder" in refused_folder(tmp_path / "file")


def test_too_few_pictures(tmp_path):
    assert f"{tmp_path} holds 0 pictures, 2 are needed" in refused_folder(tmp_path)
    save_picture(tmp_path / "a.png")
    assert f"{tmp_path} holds 1 pictures, 2 are needed" in refused_folder(tmp_path)


@pytest.mark.parametrize("height, width", [(27, 40), (40, 27), (1, 1)])
def test_too_small_a_picture(tmp_path, height, width):
    save_picture(tmp_path / "a.png", 28, 28)
    save_picture(tmp_path / "b.png", height, width)
    assert f"{tmp_path}/b.png is {width}x{height}, smaller than 28x28" in refused_folder(tmp_path)


def test_too_large_a_picture(tmp_path, monkeypatch):
    save_picture(tmp_path / "a.png")
    save_picture(tmp_path / "b.png", 50, 50)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 30 * 40)
    assert f"{tmp_path}/b.png has 50x50 pixels" in refused_folder(tmp_path)


@pytest.mark.parametrize("limit", [100, 1000])  # Pillow warns above its own limit, and refuses above twice of it
def test_a_decompression_bomb(tmp_path, monkeypatch, limit):
    save_picture(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert f"{tmp_path}/a.png can't be read as a picture" in refused_folder(tmp_path, 1)


@pytest.mark.parametrize("content", [b"", b"just text\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", bytes(1000)])
def test_no_picture(tmp_path, content):
    save_picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(content)
    assert f"{tmp_path}/b.png can't be read as a picture" in refused_folder(tmp_path)


DAMAGED = pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])


@DAMAGED
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_truncated_picture(tmp_path, kind):
    """Either Pillow makes up for the missing end, or the file is named; nothing else is raised."""
    buffer = io.BytesIO()
    Image.fromarray(backgrounds()[0]).save(buffer, kind)
    whole = buffer.getvalue()
    outcomes = [outcome_of(tmp_path / f"b.{kind.lower()}", whole[: len(whole) * k // 20]) for k in range(20)]
    assert outcomes.count("refused") >= 10


@DAMAGED
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_corrupt_picture(tmp_path, kind):
    buffer = io.BytesIO()
    Image.fromarray(backgrounds()[0]).save(buffer, kind)
    generator = rng(0)
    for _ in range(20):
        content = bytearray(buffer.getvalue())
        for place in generator.integers(0, min(400, len(content)), 4):
            content[place] = generator.integers(256)
        outcome_of(tmp_path / f"b.{kind.lower()}", bytes(content))


def outcome_of(file, content):
    """`read` or `refused`; asserts that a refusal is a `UserError` that names the file."""
    file.write_bytes(content)
    try:
        pictures.open_picture(file, f"polymnist.backgrounds: {file}")
        return "read"
    except UserError as error:
        assert str(error).startswith(f"polymnist.backgrounds: {file} ") and "\n" not in str(error)
        return "refused"


def test_an_animated_picture(tmp_path):
    frames = [Image.fromarray(rng(i).integers(0, 256, (30, 40, 3), dtype=np.uint8)) for i in range(2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    save_picture(tmp_path / "b.png")
    assert "a.png holds 2 frames" in refused_folder(tmp_path)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_a_channel(tmp_path, dtype):
    Image.fromarray(np.full((30, 40), 3000, dtype)).save(tmp_path / "a.tiff")
    save_picture(tmp_path / "b.png")
    assert "a.tiff has more than 8 bits a channel" in refused_folder(tmp_path)


@pytest.mark.parametrize("colour, channels", [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_png_of_16_bits_a_channel(tmp_path, colour, channels):
    """Made by hand: Pillow writes none in colour, and reads one as if it had 8 bits."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    rows = zlib.compress((b"\0" + b"\x12\x34" * channels * 40) * 40)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 16, colour, 0, 0, 0))
                                     + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (40, 40)
    save_picture(tmp_path / "b.png")
    assert "a.png has more than 8 bits a channel" in refused_folder(tmp_path)


def test_a_file_of_too_many_bytes(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        save_picture(tmp_path / name)
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    assert "a.png is larger than 100 bytes" in refused_folder(tmp_path)


def test_a_format_of_a_reader_that_is_not_let_in(tmp_path):
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\nshowpage\n")
    save_picture(tmp_path / "b.png")
    assert "a.eps can't be read as a picture" in refused_folder(tmp_path)


def test_a_link_out_of_the_folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    save_picture(tmp_path / "secret.png")
    (folder / "a.png").symlink_to(tmp_path / "secret.png")
    save_picture(folder / "b.png")
    assert "a.png is a link out of" in refused_folder(folder)
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("b.png")  # inside it may point anywhere
    assert len(polymnist.load_backgrounds(str(folder), 2)[0]) == 2


# ---- the published tree

SIZES = SimpleNamespace(modalities=2, n_train=5, n_test=3)
NAMES = [(0, 7), (1, 3), (2, 3), (10, 0), (11, 9)]  # 10 comes after 2, not after 1


def picture_of(split, m, index):
    return rng(1000 * (split == "test") + 100 * m + index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def tree(folder):
    """A small PolyMNIST tree, FOLDER/train/m0/0.7.png and so on."""
    for split in ("train", "test"):
        for m in range(2):
            (folder / split / f"m{m}").mkdir(parents=True)
            for index, label in NAMES:
                Image.fromarray(picture_of(split, m, index)).save(folder / split / f"m{m}" / f"{index}.{label}.png")
    return folder


def refused_tree(folder, p=SIZES):
    message = refusal(pictures.import_tree, folder, p)
    assert message.startswith("polymnist.import_dir: ")
    return message


def test_import_reads_the_tree_in_order_of_the_index(tmp_path):
    splits, provenance = pictures.import_tree(tree(tmp_path), SIZES)
    assert list(splits) == ["train", "test"] and provenance["digits"] == "imported"
    for split, n in (("train", 5), ("test", 3)):
        images, labels, crops = splits[split]
        assert crops is None
        assert labels.dtype == np.int64 and labels.tolist() == [label for _, label in NAMES[:n]]
        for m in range(2):
            assert images[m].shape == (n, 3, SIDE, SIDE) and images[m].dtype == np.uint8
            for i, (index, _) in enumerate(NAMES[:n]):
                np.testing.assert_array_equal(images[m][i].transpose(1, 2, 0), picture_of(split, m, index))


def test_import_of_grey_pictures_gives_three_channels(tmp_path):
    for file in tree(tmp_path).rglob("*.png"):
        Image.open(file).convert("L").save(file)
    images, _, _ = pictures.import_tree(tmp_path, SIZES)[0]["train"]
    assert images[0].shape == (5, 3, SIDE, SIDE)
    np.testing.assert_array_equal(images[0][:, 0], images[0][:, 2])


@pytest.mark.parametrize("missing", ["", "train", "test/m0", "test/m1"])
def test_import_names_the_missing_folder(tmp_path, missing):
    tree(tmp_path / "tree")
    (tmp_path / "tree" / missing).rename(tmp_path / "gone")
    message = refused_tree(tmp_path / "tree")
    assert f"{tmp_path}/tree/{missing}".rstrip("/") in message and "is missing" in message


def test_import_refuses_fewer_modalities_than_asked_for(tmp_path):
    p = SimpleNamespace(modalities=3, n_train=5, n_test=3)
    assert f"{tmp_path}/train/m2 is missing" in refused_tree(tree(tmp_path), p)


@pytest.mark.parametrize("change", ["1.4.png", "3.3.png", None])  # another label, another index, nothing
def test_import_refuses_names_that_do_not_match(tmp_path, change):
    file = tree(tmp_path) / "train" / "m1" / "1.3.png"
    file.rename(file.with_name(change)) if change else file.unlink()
    assert f"{tmp_path}/train/m1 does not hold the same INDEX.LABEL names" in refused_tree(tmp_path)


def test_import_refuses_an_empty_folder(tmp_path):
    for file in (tree(tmp_path) / "train" / "m0").iterdir():
        file.unlink()
    assert f"{tmp_path}/train/m0" in refused_tree(tmp_path)


@pytest.mark.parametrize("name", ["one.3.png", "x.png", "12.png", "1.2.3.png", ".png", "1.5x.png"])
def test_import_refuses_names_without_index_and_label(tmp_path, name):
    for file in list(tree(tmp_path).glob("train/*/1.3.png")):
        file.rename(file.with_name(name))
    message = refused_tree(tmp_path)
    assert f"{tmp_path}/train/m0" in message and "INDEX.LABEL" in message


def test_import_names_a_corrupt_file(tmp_path):
    file = tree(tmp_path) / "test" / "m1" / "1.3.png"
    file.write_bytes(file.read_bytes()[:100])
    assert f"{file} can't be read as a picture" in refused_tree(tmp_path)


def test_import_refuses_several_sizes(tmp_path):
    file = tree(tmp_path) / "test" / "m1" / "1.3.png"
    Image.new("RGB", (SIDE, SIDE + 4)).save(file)
    assert f"{tmp_path}/test/m1 holds images of several sizes" in refused_tree(tmp_path)


def test_import_refuses_modalities_of_several_sizes(tmp_path):
    for file in (tree(tmp_path) / "test" / "m1").iterdir():
        Image.new("RGB", (SIDE, SIDE + 4)).save(file)
    assert f"{tmp_path}/test/m1 holds images of another size than train/m0's" in refused_tree(tmp_path)


def test_import_refuses_a_link_out_of_the_tree(tmp_path):
    file = tree(tmp_path / "tree") / "test" / "m1" / "1.3.png"
    file.rename(tmp_path / "elsewhere.png")
    file.symlink_to(tmp_path / "elsewhere.png")
    assert "tree/test/m1/1.3.png is a link out of" in refused_tree(tmp_path / "tree")


def test_import_refuses_a_folder_that_is_a_link_out_of_the_tree(tmp_path):
    folder = tree(tmp_path / "tree") / "train" / "m0"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert "tree/train/m0/0.7.png is a link out of" in refused_tree(tmp_path / "tree")


def test_import_does_not_wait_for_a_pipe(tmp_path):
    import os

    file = tree(tmp_path) / "train" / "m0" / "1.3.png"
    file.unlink()
    os.mkfifo(file)
    assert "train/m0/1.3.png is not a regular file" in refused_tree(tmp_path)


@pytest.mark.parametrize("name", ["9999999999.3.png", "1.3333.png", "\u0661.3.png", "1.3\n.png", "-1.3.png"])
def test_import_refuses_odd_names(tmp_path, name):
    for file in list(tree(tmp_path).glob("train/*/1.3.png")):
        file.rename(file.with_name(name))
    assert "is not named INDEX.LABEL.png" in refused_tree(tmp_path)


def test_import_refuses_more_than_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_IMPORT", 5 * 2 * 3 * SIDE * SIDE - 1)
    assert f"5 images of {SIDE}x{SIDE} in 2 modalities are more than" in refused_tree(tree(tmp_path))
