"""Picture files from outside: each is opened only as what it claims to be."""

import warnings

import numpy as np

from ebmvae.core.messages import UserError

MAX_PIXELS = 50_000_000  # of one picture; a larger one is surely a mistake
MAX_BYTES = 200_000_000  # of one file
# Pillow's other readers are less well kept, and some start programs.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")


def stay_inside(file, folder, what):
    """Raise `UserError` unless `file` is a regular file inside `folder`, links followed.

    what: how the error begins, with the parameter and the file.
    """
    if not file.is_file():
        raise UserError(f"{what} is not a regular file")
    if folder.resolve() not in file.resolve().parents:
        raise UserError(f"{what} is a link out of {folder}; put the picture itself there")


def open_picture(file, what, upright=False):
    """A picture as uint8 (H, W, 3); with `upright` turned as its camera says.

    Raises `UserError` starting with `what` if it is none, too large, animated, or of more than
    8 bits per channel.
    """
    from PIL import Image, ImageOps

    bomb = Image.DecompressionBombError, Image.DecompressionBombWarning
    # What Pillow's readers raise for damaged files.
    damage = OSError, ValueError, SyntaxError, RuntimeError, TypeError, KeyError, *bomb
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if file.stat().st_size > MAX_BYTES:
                raise UserError(f"{what} is larger than {MAX_BYTES:,} bytes")
            with Image.open(file, formats=FORMATS) as image:
                _refuse_unfit(image, what)
                image = ImageOps.exif_transpose(image) if upright else image
                return np.asarray(image.convert("RGB"))
    except damage as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{what} can't be read as a picture ({reason})") from None


def _refuse_unfit(image, what):
    """Raise `UserError` for an opened picture that is too large, animated or too deep."""
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width}x{image.height}"
        raise UserError(f"{what} has {size} pixels; {MAX_PIXELS:,} are the most")
    if getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{what} holds {image.n_frames} frames; give one picture")
    # Pillow would clip grey values of more than 8 bits, and take the upper 8 bits of colours.
    if image.mode.startswith(("I", "F")) or any(";16" in str(tile) for tile in image.tile):
        raise UserError(f"{what} has more than 8 bits per channel; convert it to 8")
