"""Background pictures: those inside scikit-image and scikit-learn, or a folder."""

import hashlib
import importlib.util
from pathlib import Path

from ebmvae import paths
from ebmvae.core.messages import UserError, relative
from ebmvae.sources.digits import SIDE
from ebmvae.sources.names import listed
from ebmvae.sources.pictures import open_picture, stay_inside

# No download. Busy ones for m1 and m5, as in the paper.
BUILTIN = [
    "skimage/data/astronaut.png",
    "sklearn/datasets/images/flower.jpg",
    "skimage/data/rocket.jpg",
    "skimage/data/coffee.png",
    "skimage/data/motorcycle_left.png",
    "sklearn/datasets/images/china.jpg",
    "skimage/data/chelsea.png",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/ihc.png",
    "skimage/data/motorcycle_right.png",
]


def load_backgrounds(choice, modalities):
    """The first M pictures of `choice`, which is `builtin` or a folder, sorted by name.

    Returns pictures uint8 (H, W, 3) and their names with SHA-256. Raises `UserError` where there
    are too few, or one can't be read or is smaller than a crop.
    """
    builtin = choice == "builtin"
    files = [_inside_package(name) for name in BUILTIN] if builtin else _listed(choice, modalities)
    if len(files) < modalities:
        raise UserError(
            f"polymnist.backgrounds: {choice} holds {len(files)} pictures, {modalities} are needed"
        )
    pictures, sources = [], []
    for file in files[:modalities]:
        what = f"polymnist.backgrounds: {file.name if builtin else relative(file)}"
        if not builtin:
            stay_inside(file, paths.locate(choice), what)
        picture = open_picture(file, what)
        height, width, _ = picture.shape
        if min(height, width) < SIDE:
            raise UserError(f"{what} is {width}x{height}, smaller than {SIDE}x{SIDE}")
        pictures.append(picture)
        sources.append({"file": file.name, "sha256": hashlib.sha256(picture.tobytes()).hexdigest()})
    return pictures, sources


def _inside_package(name):
    """The file `name`, PACKAGE/REST, of an installed package, which is not imported."""
    package = importlib.util.find_spec(name.split("/")[0])
    return Path(package.origin).parent.parent / name


def _listed(choice, modalities):
    """The files in the folder `choice` but what systems leave there, sorted by name."""
    folder = paths.locate(choice)
    if not folder.is_dir():
        raise UserError(
            f"polymnist.backgrounds: {choice} is not a folder; "
            f"give one with {modalities} pictures, or `builtin`"
        )
    return [file for file in listed(folder) if file.is_file()]
