"""Pictures from outside: what is read of a file, and every way that a file can be wrong."""

import io
import struct
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from ebmvae.core.messages import UserError
from ebmvae.sources import pictures
from ebmvae.sources.backgrounds import load_backgrounds
from ebmvae.sources.digits import SIDE
from stages import sample


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


def on_white(pixels, alpha):
    """What is expected: pixels (H, W, 3 or 1) over white, to a rounding."""
    share = alpha[..., None] / 255
    return np.broadcast_to(pixels * share + 255 * (1 - share), (*alpha.shape, 3))


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_an_alpha_channel_lets_through_is_white(tmp_path, mode, suffix):
    n = len(mode) - 1
    pixels = rng().integers(0, 256, (30, 40, n + 1), dtype=np.uint8)
    pixels[:10, :, -1], pixels[10:20, :, -1] = 0, 255
    image, options = Image.fromarray(pixels, mode), {"exact": True, "lossless": True}
    if mode == "LA" and suffix == "webp":
        image = image.convert("RGBA")  # there is no such mode
    image.save(tmp_path / f"a.{suffix}", **(options if suffix == "webp" else {}))
    picture = pictures.open_picture(tmp_path / f"a.{suffix}", "a")
    assert (picture[:10] == 255).all()
    np.testing.assert_array_equal(
        picture[10:20], np.broadcast_to(pixels[10:20, :, :n], (10, 40, 3))
    )
    np.testing.assert_allclose(picture, on_white(pixels[..., :n], pixels[..., n]), atol=1)


def test_black_strokes_on_nothing(tmp_path):
    """Black everywhere, and visible in a few places only: no black picture."""
    pixels = np.zeros((30, 40, 4), np.uint8)
    pixels[5:8, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    picture = pictures.open_picture(tmp_path / "a.png", "a")
    assert (picture[5:8] == 0).all() and (np.delete(picture, range(5, 8), 0) == 255).all()


@pytest.mark.parametrize("alphas", [7, bytes([0, 255, 128])])  # one entry, several, half of one
def test_a_palette_with_transparency(tmp_path, alphas):
    values = rng().integers(0, 8, (30, 40), dtype=np.uint8)
    palette = rng(1).integers(0, 200, (8, 3), dtype=np.uint8)
    image = Image.fromarray(values, "P")
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "a.png", transparency=alphas)
    alpha = np.full(8, 255)
    alpha[7 if alphas == 7 else slice(3)] = 0 if alphas == 7 else list(alphas)
    picture = pictures.open_picture(tmp_path / "a.png", "a")
    np.testing.assert_allclose(picture, on_white(palette[values], alpha[values]), atol=1)


@pytest.mark.parametrize("alphas", [(0, 255), (7, 7), (0, 0), (255, 255)])
def test_the_fourth_byte_of_a_bmp_is_alpha_where_it_varies(tmp_path, alphas):
    """The format calls it unused, and many programs leave it all 0."""
    pixels = rng().integers(0, 256, (31, 41, 4), dtype=np.uint8)
    pixels[:9, :, 3], pixels[9:, :, 3] = alphas
    Image.fromarray(pixels).save(tmp_path / "a.bmp")
    alpha = pixels[..., 3] if alphas == (0, 255) else np.full((31, 41), 255)
    picture = pictures.open_picture(tmp_path / "a.bmp", "a")
    np.testing.assert_array_equal(picture, on_white(pixels[..., :3], alpha))


def test_a_bmp_that_declares_its_alpha(tmp_path):
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    head = struct.pack("<IiiHHIIiiII", 108, 40, 30, 1, 32, 3, 4800, 2835, 2835, 0, 0) + masks
    file = struct.pack("<IHHI", 122 + 4800, 0, 0, 122)
    (tmp_path / "a.bmp").write_bytes(b"BM" + file + head + bytes(4800))
    assert (pictures.open_picture(tmp_path / "a.bmp", "a") == 255).all()


def png(colour, bits, row, rows, *chunks):
    """A PNG made by hand, of 40 columns: Pillow doesn't write every kind."""

    def chunk(kind, body):
        content = kind + body
        return struct.pack(">I", len(body)) + content + struct.pack(">I", zlib.crc32(content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, rows, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress((b"\0" + row) * rows))
    middle = b"".join(chunk(*pair) for pair in chunks)
    return b"\x89PNG\r\n\x1a\n" + head + middle + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("value", [0, 1])
def test_one_transparent_grey_of_any_depth(tmp_path, bits, value):
    """The tRNS chunk names a value of the file, before it is spread over 0 to 255."""
    values = np.arange(40) % 2  # 0 and 1 in turns
    spread = (values[:, None] >> np.arange(bits)[::-1]) & 1
    row, trns = np.packbits(spread.astype(np.uint8)).tobytes(), (b"tRNS", struct.pack(">H", value))
    (tmp_path / "a.png").write_bytes(png(0, bits, row, 12, trns))
    picture = pictures.open_picture(tmp_path / "a.png", "a")
    opaque = 255 // (2**bits - 1) * (1 - value)
    np.testing.assert_array_equal(picture[0, :, 0], np.where(values == value, 255, opaque))


def test_one_transparent_colour(tmp_path):
    row = bytes([1, 2, 3, 1, 2, 4]) * 20
    trns = b"tRNS", struct.pack(">HHH", 1, 2, 3)
    (tmp_path / "a.png").write_bytes(png(2, 8, row, 12, trns))
    picture = pictures.open_picture(tmp_path / "a.png", "a")
    assert (picture[:, ::2] == 255).all() and (picture[:, 1::2] == (1, 2, 4)).all()


@pytest.mark.parametrize("mode", ["PA", "La", "RGBa"])
def test_modes_that_other_versions_of_pillow_may_open(mode):
    step = {"PA": "P", "La": "LA", "RGBa": "RGBA"}[mode]
    image = Image.new("RGBA", (40, 30), (0, 0, 0, 0)).convert(step).convert(mode)
    if mode == "PA":
        image.putalpha(0)
    assert image.mode == mode
    assert (np.asarray(pictures._on_white(image)) == 255).all()


@pytest.mark.parametrize("mode, suffix", [("RGBA", "png"), ("LA", "png"), ("RGBA", "webp")])
def test_what_is_opaque_keeps_its_values(tmp_path, mode, suffix):
    image = Image.fromarray(save_picture(tmp_path / "a.png")).convert(mode)
    options = {"lossless": True} if suffix == "webp" else {}
    image.save(tmp_path / f"b.{suffix}", **options)
    picture = pictures.open_picture(tmp_path / f"b.{suffix}", "b")
    np.testing.assert_array_equal(picture, np.asarray(image.convert("RGB")))


# ---- turned by the camera

TURNED = {  # what the sensor saw of an upright picture (H, W, 3), by orientation
    1: np.asarray,
    2: np.fliplr,
    3: partial(np.rot90, k=2),
    4: np.flipud,
    5: partial(np.transpose, axes=(1, 0, 2)),
    6: np.rot90,
    7: partial(np.transpose, axes=(1, 0, 2)),  # and turned by half, below
    8: partial(np.rot90, k=3),
}


def exif_block(*entries):
    """EXIF of (tag, type, value), 4 bytes each, as some cameras and programs write them."""
    packed = [struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries]
    body = struct.pack("<H", len(packed)) + b"".join(packed) + bytes(4)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + body


SIX = 274, 3, struct.pack("<HH", 6, 0)
ODD = {
    "ResolutionUnit as a LONG of 70000": (296, 4, struct.pack("<I", 70000)),
    "an offset beyond the end": (282, 5, struct.pack("<I", 2**31)),
    "a type that is none": (271, 99, b"abcd"),
    "a folder of tags that is none": (34665, 4, struct.pack("<I", 2**30)),
    "a text where a number belongs": (40961, 2, b"x\0\0\0"),
}


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", TURNED)
def test_the_camera_held_in_any_way(tmp_path, orientation, suffix):
    upright = save_picture(tmp_path / "a.png")
    sensor, exif = TURNED[orientation](upright), Image.Exif()
    if orientation == 7:
        sensor = np.rot90(sensor, 2)
    exif[274] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    file = tmp_path / f"b.{suffix}"
    Image.fromarray(np.ascontiguousarray(sensor)).save(file, exif=exif, **options)
    np.testing.assert_array_equal(pictures.open_picture(file, "b"), upright)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_tag_beside_the_orientation(tmp_path, kind, suffix):
    file = tmp_path / f"a.{suffix}"
    Image.new("RGB", (40, 30), "red").save(file, exif=exif_block(SIX, ODD[kind]))
    assert pictures.open_picture(file, "a").shape == (40, 30, 3)


@pytest.mark.parametrize("value", [0, 9, 70])
def test_an_orientation_that_is_none(tmp_path, value):
    exif = exif_block((274, 3, struct.pack("<HH", value, 0)))
    for block in (exif, exif[:-20], b"Exif\0\0nothing", b"Exif\0\0II*\0" + b"\xff" * 8):
        Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=block)
        assert pictures.open_picture(tmp_path / "a.jpg", "a").shape == (30, 40, 3)


def test_a_sample_is_given_pictures_as_training_reads_them(tmp_path):
    """`stages.sample`: upright, on white, the first of an MPO."""
    Image.new("RGBA", (40, 30)).save(tmp_path / "a.png", exif=exif_block(SIX))
    picture = sample.read_picture(tmp_path / "a.png", (3, 40, 30), "--observed m1=a.png")
    assert picture.shape == (3, 40, 30) and (picture == 255).all()
    save_mpo(tmp_path / "b.jpg", "white", exif=exif_block(SIX))
    picture = sample.read_picture(tmp_path / "b.jpg", (1, 40, 30), "--observed m1=b.jpg")
    assert picture.shape == (1, 40, 30) and (picture == 255).all()


# ---- what is refused


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


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF"])
def test_several_pictures_in_one_file(tmp_path, kind):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:])
    assert outcome_of(tmp_path / "a") == "refused"


def save_mpo(file, *colours, **options):
    """A JPEG with pictures of `colours` inside, and a small black preview last."""
    frames = [Image.new("RGB", (40, 30), colour) for colour in colours]
    frames.append(Image.new("RGB", (8, 6)))
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:], **options)
    with Image.open(file) as image:
        assert image.format == "MPO" and image.n_frames == len(frames)


@pytest.mark.parametrize("colours", [["white"], ["white", "red"], ["white", "red", "blue"]])
def test_the_first_picture_of_a_jpeg_with_several(tmp_path, colours):
    save_mpo(tmp_path / "a.jpg", *colours)
    picture = pictures.open_picture(tmp_path / "a.jpg", "a")
    assert picture.shape == (30, 40, 3) and (picture == 255).all()
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[:-100])  # what isn't the picture may be torn
    np.testing.assert_array_equal(pictures.open_picture(tmp_path / "a.jpg", "a"), picture)


ERRORS = [struct.error("x"), AssertionError(), IndexError("a\nb"), zlib.error("x"), MemoryError()]
ERRORS += [EOFError(), OverflowError("x"), AttributeError("x"), RecursionError(), UserWarning("x")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("place", ["load", "convert"])
def test_whatever_pillow_raises_names_the_file(tmp_path, monkeypatch, place, error):
    save_picture(tmp_path / "a.png")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(PngImageFile, place, fail)
    assert outcome_of(tmp_path / "a.png") == "refused"


def test_a_mistake_of_ours_is_none_of_pillows(tmp_path, monkeypatch):
    save_picture(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", "many")
    with pytest.raises(TypeError):
        pictures.open_picture(tmp_path / "a.png", "a")


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_per_channel(tmp_path, dtype):
    Image.fromarray(np.full((30, 40), 3000, dtype)).save(tmp_path / "a.tiff")
    assert outcome_of(tmp_path / "a.tiff") == "refused"


@pytest.mark.parametrize("colour, channels", [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_png_of_16_bits_per_channel(tmp_path, colour, channels):
    """Made by hand: Pillow writes none in colour, and reads one as if it had 8 bits."""
    file = tmp_path / "a.png"
    file.write_bytes(png(colour, 16, b"\x12\x34" * channels * 40, 40))
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
    for name in ("._a.png", "Thumbs.db", "Desktop.ini", "ehthumbs.db", "Icon\r"):
        (tmp_path / name).write_text("no picture")
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


def test_a_background_upright_and_on_white(tmp_path):
    Image.new("RGBA", (40, 30)).save(tmp_path / "a.png", exif=exif_block(SIX))
    (picture,), _ = load_backgrounds(str(tmp_path), 1)
    assert picture.shape == (40, 30, 3) and (picture == 255).all()


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
