"""Which features the Frechet distance is measured in: Inception's where its weights are at hand, else the project's own."""

import hashlib
import http.client
import os
import socket
import tempfile
from pathlib import Path

import torch

from stages.lib import artifacts, data, networks
from stages.lib.runtime import UserError, relative

NAME = {False: "frechet_polymnist", True: "fid"}


def distance_name(p):
    """`fid` with Inception features, `frechet_polymnist` with the feature net: in every file and on every axis."""
    return NAME[p.fid.inception_weights != "none"]


def extractor(p, device):
    """A function from uint8 images (B, C, H, W) to float32 features (B, F) on `device`, by `fid.inception_weights`.

    Raises `UserError` where the Inception file is missing, its SHA-256 is not fid.sha256, or it can't be downloaded.
    """
    choice = p.fid.inception_weights
    if choice == "none":
        net = artifacts.load_module("models/judge/features.safetensors", networks.FeatureNet, device)
        return lambda images: net.features(data.to_float(images))
    if choice == "download":
        return inception(download(Path("data/raw")), p.fid.sha256, device)
    return inception(Path(choice), p.fid.sha256, device)


def download(folder):
    """The Inception weights in `folder`, fetched by clean-fid if they are not there yet."""
    from cleanfid.downloads_helper import check_download_inception

    target = folder / "inception-2015-12-05.pt"
    if not target.exists():
        limit = socket.getdefaulttimeout()
        socket.setdefaulttimeout(30)  # seconds without an answer
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                os.replace(check_download_inception(temporary), target)
        except (OSError, http.client.HTTPException) as error:
            raise UserError("fid.inception_weights: download failed "
                            f"({error}); give a file, or `none` for frechet_polymnist") from None
        finally:
            socket.setdefaulttimeout(limit)
    return target


def inception(path, sha256, device):
    """Clean-fid's Inception features (2048) behind its anti-aliased resize; the digest is checked before loading."""
    try:
        content = Path(path).read_bytes()
        found = hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise UserError(f"fid.inception_weights: {relative(path)} can't be read ({error.strerror})") from None
    if found != sha256:
        raise UserError(f"fid.inception_weights: SHA-256 of {relative(path)} is {found[:12]}..., fid.sha256 says "
                        f"{sha256[:12]}...; nothing was loaded")
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    with tempfile.TemporaryDirectory() as folder:  # clean-fid wants its own file name; and what was checked is what is loaded
        (Path(folder) / "inception-2015-12-05.pt").write_bytes(content)
        net = InceptionV3W(folder, download=False, resize_inside=False).to(device).eval()
    resize = build_resizer("clean")

    def features(images):
        large = [resize(image) for image in images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()]  # 299, 299, 3 each, 0 to 255
        batch = torch.stack([torch.as_tensor(image) for image in large]).permute(0, 3, 1, 2).float()
        return net(batch.to(device))

    return features
