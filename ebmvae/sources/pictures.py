"""Picture files from outside: one reader for all, which opens each only as what it claims to be."""

import contextlib
import warnings

import numpy as np

from ebmvae.core.messages import UserError

MAX_PIXELS = 50_000_000  # of one picture; a larger one is surely a mistake
MAX_BYTES = 200_000_000  # of one file
# Pillow's other readers are less well kept, and some start programs.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
ORIENTATION = 274  # the EXIF tag; its values 2 to 8 ask for Pillow's transpositions below
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
# Pillow spreads grey of 2 and 4 bits over 0 to 255, but not the grey that a PNG calls transparent.
GREY_STEP = {"L;2": 85, "L;4": 17}


def stay_inside(file, folder, what):
    """Raise `UserError` unless `file` is a regular file inside `folder`, links followed.

    what: how the error begins, with the parameter and the file.
    """
    if not file.is_file():
        raise UserError(f"{what} is not a regular file")
    if folder.resolve() not in file.resolve().parents:
        raise UserError(f"{what} is a link out of {folder}; put the picture itself there")


def open_picture(file, what):
    """A picture as uint8 (H, W, 3), upright by its EXIF orientation, what is transparent on white.

    Of several pictures in a JPEG (MPO) it is the first. Raises `UserError` starting with `what` if
    it is none, too large, animated, of several pages, or of more than 8 bits per channel.
    """
    from PIL import Image

    with _one_line(what):
        n_bytes = file.stat().st_size
    if n_bytes > MAX_BYTES:
        raise UserError(f"{what} is larger than {MAX_BYTES:,} bytes")
    with contextlib.ExitStack() as stack:
        with _one_line(what):
            image = stack.enter_context(Image.open(file, formats=FORMATS))
            frames = getattr(image, "n_frames", 1)
        _refuse_unfit(image, frames, what)
        image = _loaded(image, file, what)
        turn = TURNS.get(_orientation(image))
        with _one_line(what):
            image = _on_white(image)
            image = image.transpose(Image.Transpose[turn]) if turn else image
            return np.asarray(image)


@contextlib.contextmanager
def _one_line(what):
    """Turn whatever Pillow raises into a `UserError`. Nothing but calls of Pillow belongs inside.

    What damaged files make it raise has no bounds: struct.error, AssertionError, zlib.error ...
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd tags, without the file's name
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{what} can't be read as a picture ({reason})") from None


def _refuse_unfit(image, frames, what):
    """Raise `UserError` for an opened picture that is too large, animated or too deep."""
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width}x{image.height}"
        raise UserError(f"{what} has {size} pixels; {MAX_PIXELS:,} are the most")
    # Cameras add a preview, a depth map or the other eye's view to a JPEG: an MPO file.
    if frames > 1 and image.format != "MPO":
        raise UserError(f"{what} holds {frames} frames; give one picture")
    # Pillow would clip grey values of more than 8 bits, and take the upper 8 bits of colours.
    if image.mode.startswith(("I", "F")) or any(";16" in str(tile) for tile in image.tile):
        raise UserError(f"{what} has more than 8 bits per channel; convert it to 8")


def _loaded(image, file, what):
    """`image` with its pixels, and with what Pillow leaves out of its transparency.

    A BMP of 32 bits has a fourth byte that the format calls unused. Many programs write alpha
    there; it is alpha where it varies.
    """
    from PIL import Image

    coded = image.tile[0].args if image.tile else None  # the layout, which `load` forgets
    offset = image.tile[0].offset if image.tile else 0
    with _one_line(what):
        image.load()
    if coded in GREY_STEP and isinstance(image.info.get("transparency"), int):
        image.info["transparency"] *= GREY_STEP[coded]
    if image.format == "BMP" and coded and coded[0] == "BGRX":
        with _one_line(what):
            rows = file.read_bytes()[offset:]
            whole = Image.frombytes("RGBA", image.size, rows, "raw", "BGRA", *coded[1:])
            low, high = whole.getextrema()[3]
        return whole if low < high else image
    return image


def _orientation(image):
    """The EXIF orientation of a loaded picture; 1, upright, where its tags can't be read.

    `ImageOps.exif_transpose` writes all the tags anew, and fails for one that it can't write.
    Pillow turns a TIFF itself while loading it, and forgets the tag.
    """
    try:
        with _one_line("EXIF"):
            value = image.getexif().get(ORIENTATION, 1)
    except UserError:  # as any viewer would show it
        return 1
    return value if isinstance(value, int) else 1


def _on_white(image):
    """A loaded picture as RGB, laid on white where any kind of transparency lets it through."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # Pillow knows no shorter way
        image = image.convert("LA")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
