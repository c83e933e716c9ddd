"""Features of the Fréchet distance: Inception's where its weights are at hand, else our own."""

import hashlib
import http.client
import os
import socket
import tempfile
from pathlib import Path

import torch

from ebmvae import paths
from ebmvae.core import artifacts
from ebmvae.core.messages import UserError, relative
from ebmvae.data.splits import to_float
from ebmvae.evaluation.classifiers import FeatureNet

INCEPTION = "inception-2015-12-05.pt"  # as clean-fid calls it


def distance_name(p):
    """`fid` with Inception features, `frechet_polymnist` with those of the feature net."""
    return "frechet_polymnist" if p.fid.inception_weights == "none" else "fid"


def extractor(p, device):
    """A function from uint8 images (B, C, H, W) to features (B, F), by fid.inception_weights.

    Raises `UserError` where the Inception file is missing, its SHA-256 is not fid.sha256, or it
    can't be downloaded.
    """
    if p.fid.inception_weights == "none":
        net = artifacts.load_module("models/classifiers/features.safetensors", FeatureNet, device)
        return lambda images: net.features(to_float(images))
    return inception(weights(p.fid), device)


def weights(fid):
    """The content of the Inception file, its digest checked; fid: the parameters' section.

    Raises `UserError` as `extractor`. `make repro` asks for it first, as trainings take long.
    """
    choice = fid.inception_weights
    file = download(Path("data/raw")) if choice == "download" else paths.locate(choice)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(
            f"fid.inception_weights: {relative(file)} can't be read ({error.strerror})"
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != fid.sha256:
        raise UserError(
            f"fid.inception_weights: SHA-256 of {relative(file)} is {digest[:12]}..., fid.sha256 "
            f"says {fid.sha256[:12]}...; nothing was loaded"
        )
    return content


def download(folder):
    """The Inception weights in `folder`, fetched by clean-fid if they are not there yet."""
    from cleanfid.downloads_helper import check_download_inception

    target = paths.locate(folder / INCEPTION)
    if target.exists():
        return target
    limit = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # seconds without an answer
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            os.replace(check_download_inception(temporary), target)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"fid.inception_weights: download failed ({error}); give a file, or `none` for "
            "frechet_polymnist"
        ) from None
    finally:
        socket.setdefaulttimeout(limit)
    return target


def inception(content, device):
    """Clean-fid's Inception features (2048) behind its anti-aliased resize.

    content: that of the file of weights, checked.
    """
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    # Under the name that clean-fid wants; and so what was checked is what is loaded.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / INCEPTION).write_bytes(content)
        net = InceptionV3W(folder, download=False, resize_inside=False).to(device).eval()
    resize = build_resizer("clean")

    def features(images):
        coloured = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
        large = [torch.as_tensor(resize(image)) for image in coloured]  # 299, 299, 3; 0 to 255
        return net(torch.stack(large).permute(0, 3, 1, 2).float().to(device))

    return features
