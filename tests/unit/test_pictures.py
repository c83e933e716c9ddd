"""Pictures from outside: what is read of a file, and every way that a file can be wrong."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ebmvae.core.messages import UserError
from ebmvae.sources import pictures
from ebmvae.sources.backgrounds import load_backgrounds
from ebmvae.sources.digits import SIDE


def rng(seed=0):
    return np.random.default_rng(seed)


def save_picture(file, height=30, width=40, mode="RGB"):
    """A random picture, saved without loss; returns it as uint8 (height, width, 3)."""
    pixels = rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).convert(mode)
    picture.save(file)
    return np.asarray(picture.convert("RGB"))


def outcome_of(file):
    """`read` or `refused`; a refusal must be one line that begins with the file."""
    try:
        pictures.open_picture(file, f"key: {file}")
        return "read"
    except UserError as error:
        assert str(error).startswith(f"key: {file} ") and "\n" not in str(error)
        return "refused"


# ---- one picture


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_pictures_of_any_mode_become_colour(tmp_path, mode):
    expected = save_picture(tmp_path / "a.png", mode=mode)
    picture = pictures.open_picture(tmp_path / "a.png", "a")
    assert (picture.shape, picture.dtype) == ((30, 40, 3), np.uint8)
    np.testing.assert_array_equal(picture, expected)


def test_the_camera_held_upright(tmp_path):
    """EXIF orientation 6: the sensor's rows are the picture's columns, right to left."""
    upright = Image.fromarray(save_picture(tmp_path / "a.png"))
    sensor, exif = upright.rotate(90, expand=True), Image.Exif()
    exif[0x0112] = 6
    sensor.save(tmp_path / "a.png", exif=exif)
    for turned, expected in ((True, upright), (False, sensor)):
        picture = pictures.open_picture(tmp_path / "a.png", "a", turned)
        np.testing.assert_array_equal(picture, np.asarray(expected))


@pytest.mark.parametrize("limit, value", [("MAX_PIXELS", 30 * 40 - 1), ("MAX_BYTES", 100)])
def test_too_large_a_picture(tmp_path, monkeypatch, limit, value):
    save_picture(tmp_path / "a.png")
    assert outcome_of(tmp_path / "a.png") == "read"
    monkeypatch.setattr(pictures, limit, value)
    assert outcome_of(tmp_path / "a.png") == "refused"


# Pillow warns above its own limit, and refuses above twice of it.
@pytest.mark.parametrize("limit", [100, 1000])
def test_a_decompression_bomb(tmp_path, monkeypatch, limit):
    save_picture(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert outcome_of(tmp_path / "a.png") == "refused"


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\nshowpage\n"


@pytest.mark.parametrize("content", [b"", b"text\n", b"\x89PNG\r\n\x1a\n", bytes(1000), EPS])
def test_no_picture(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert outcome_of(tmp_path / "a.png") == "refused"


@pytest.mark.parametrize("kind", [*pictures.FORMATS, "GIF", "AVIF"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_damaged_picture(tmp_path, kind):
    """Either Pillow makes up for it, or the file is named; nothing else is raised."""
    buffer, file, dice = io.BytesIO(), tmp_path / "a", rng()
    Image.fromarray(dice.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(buffer, kind)
    whole = buffer.getvalue()
    outcomes = []
    for k in range(20):
        file.write_bytes(whole[: len(whole) * k // 20])
        outcomes.append(outcome_of(file))
    assert outcomes.count("refused") >= 10
    for _ in range(20):
        content = bytearray(whole)
        for place in dice.integers(0, min(400, len(content)), 4):
            content[place] = dice.integers(256)
        file.write_bytes(content)
        outcome_of(file)


def test_an_animated_picture(tmp_path):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert outcome_of(tmp_path / "a.png") == "refused"


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_per_channel(tmp_path, dtype):
    Image.fromarray(np.full((30, 40), 3000, dtype)).save(tmp_path / "a.tiff")
    assert outcome_of(tmp_path / "a.tiff") == "refused"


@pytest.mark.parametrize("colour, channels", [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_png_of_16_bits_per_channel(tmp_path, colour, channels):
    """Made by hand: Pillow writes none in colour, and reads one as if it had 8 bits."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 16, colour, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress((b"\0" + b"\x12\x34" * channels * 40) * 40))
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b""))
    with Image.open(file) as image:
        assert image.size == (40, 40)
    with pytest.raises(UserError, match="a.png has more than 8 bits"):
        pictures.open_picture(file, f"key: {file}")


# ---- backgrounds


def refused_folder(folder, name, modalities=2):
    """The folder is refused by one line that says the parameter and `name`."""
    with pytest.raises(UserError) as caught:
        load_backgrounds(str(folder), modalities)
    assert str(caught.value).startswith("polymnist.backgrounds: ") and name in str(caught.value)


def test_backgrounds_come_by_name(tmp_path):
    names = ["c.png", "a.png", "b.bmp"]
    expected = {name: save_picture(tmp_path / name, 30 + i) for i, name in enumerate(names)}
    (tmp_path / ".hidden").write_text("no picture")
    (tmp_path / "folder").mkdir()
    loaded, sources = load_backgrounds(str(tmp_path), 3)
    assert [source["file"] for source in sources] == ["a.png", "b.bmp", "c.png"]
    for picture, source in zip(loaded, sources, strict=True):
        np.testing.assert_array_equal(picture, expected[source["file"]])
    assert len({source["sha256"] for source in sources}) == 3
    assert len(load_backgrounds(str(tmp_path), 2)[0]) == 2  # the first two


def test_builtin_backgrounds_are_there():
    loaded, sources = load_backgrounds("builtin", 10)
    assert len({source["sha256"] for source in sources}) == 10
    assert all(picture.dtype == np.uint8 and picture.shape[2:] == (3,) for picture in loaded)
    assert all(min(picture.shape[:2]) >= 4 * SIDE for picture in loaded)


def test_no_folder_of_backgrounds(tmp_path):
    refused_folder(tmp_path / "none", f"{tmp_path}/none")
    (tmp_path / "file").write_text("x")
    refused_folder(tmp_path / "file", f"{tmp_path}/file")


def test_too_few_backgrounds(tmp_path):
    refused_folder(tmp_path, f"{tmp_path} holds 0 ")
    save_picture(tmp_path / "a.png")
    refused_folder(tmp_path, f"{tmp_path} holds 1 ")


@pytest.mark.parametrize("height, width", [(27, 40), (40, 27)])
def test_too_small_a_background(tmp_path, height, width):
    save_picture(tmp_path / "a.png", 28, 28)
    save_picture(tmp_path / "b.png", height, width)
    refused_folder(tmp_path, f"b.png is {width}x{height}")


def test_a_background_that_is_no_picture(tmp_path):
    save_picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("text")
    refused_folder(tmp_path, "b.png")


def test_a_background_linked_from_outside(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    save_picture(tmp_path / "secret.png")
    (folder / "a.png").symlink_to(tmp_path / "secret.png")
    save_picture(folder / "b.png")
    refused_folder(folder, "a.png")
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("b.png")  # inside it may point anywhere
    assert len(load_backgrounds(str(folder), 2)[0]) == 2
