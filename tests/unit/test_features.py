"""Features of the Fréchet distance; a small TorchScript file stands in for Inception's weights."""

import hashlib
import shutil
from types import SimpleNamespace

import cleanfid.downloads_helper
import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from torch import nn

from ebmvae.core import artifacts
from ebmvae.core.messages import UserError
from ebmvae.evaluation import features
from ebmvae.evaluation.classifiers import FeatureNet

# Inception's weights are published as TorchScript, which PyTorch wants to be rid of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning"
)


def extractor(weights, sha256="0" * 64):
    fid = SimpleNamespace(inception_weights=str(weights), sha256=sha256)
    return features.extractor(SimpleNamespace(fid=fid), torch.device("cpu"))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file like Inception's: the mean colours of the left and the right half, and multiples."""
    monkeypatch.chdir(tmp_path)
    linear = nn.Linear(6, 2048, bias=False)
    linear.weight.data = multiples(torch.eye(6)).T.contiguous()
    layers = nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), linear)
    torch.jit.script(nn.ModuleDict({"layers": layers})).save("some-name.pt")
    return tmp_path / "some-name.pt"


def multiples(colours):
    """Red left, red right, green left, ... (B, 6) -> (B, 2048): once, then twice, ..."""
    return torch.cat([(k + 1) * colours for k in range(342)], 1)[:, :2048]


def noise(*shape):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


# ---- Inception


@torch.no_grad()
def test_inception_sees_each_colour_scaled_to_one(weights):
    """A plain picture stays plain under any resize; 0..255 becomes (x - 128) / 128."""
    colours = torch.tensor([[0, 128, 255], [64, 192, 1]], dtype=torch.uint8)
    extracted = extractor(weights, digest(weights))(colours[:, :, None, None].expand(2, 3, 28, 28))
    expected = multiples((colours.float().repeat_interleave(2, 1) - 128) / 128)
    torch.testing.assert_close(extracted, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_inception_sees_clean_fids_resize_of_each_image(weights):
    """The halves of clean-fid's own resize of a height x width x 3 array."""
    images, resize = noise(3, 3, 20, 36), build_resizer("clean")
    extract = extractor("some-name.pt", digest(weights))
    weights.unlink()  # it is in memory
    large = np.stack([resize(image.permute(1, 2, 0).numpy()) for image in images])
    left, right = large[:, :, :150].mean((1, 2)), large[:, :, 149:].mean((1, 2))
    colours = torch.as_tensor((np.stack([left, right], 2) - 128) / 128).float().flatten(1)
    extracted = extract(images)
    torch.testing.assert_close(extracted, multiples(colours), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(extract(images[1:2]), extracted[1:2])
    grey = images[:, :1]
    assert torch.equal(extract(grey), extract(grey.repeat(1, 3, 1, 1)))


def test_a_changed_byte_is_refused_before_loading(weights, monkeypatch):
    known, content = digest(weights), bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UserError, match=f"some-name.pt is {digest(weights)[:12]}.*{known[:12]}"):
        extractor(weights, known)


@pytest.mark.parametrize("path", ["none.pt", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, path):
    with pytest.raises(UserError, match="^fid.inception_weights: .* can't be read"):
        extractor(tmp_path / path)


def test_a_download_is_checked_used_and_kept(weights, monkeypatch):
    calls = []

    def no_route(folder):
        raise OSError("no route")

    def fetch(folder):
        calls.append(folder)
        return shutil.copy(weights, folder)

    monkeypatch.setattr(cleanfid.downloads_helper, "check_download_inception", no_route)
    with pytest.raises(UserError, match=r"download failed \(no route\).*`none`"):
        extractor("download")
    monkeypatch.setattr(cleanfid.downloads_helper, "check_download_inception", fetch)
    with pytest.raises(UserError, match="nothing was loaded"):
        extractor("download")
    assert extractor("download", digest(weights))(noise(1, 3, 28, 28)).shape == (1, 2048)
    kept = [file.name for file in (weights.parent / "data/raw").iterdir()]
    assert len(calls) == 1 and kept == ["inception-2015-12-05.pt"]


# ---- the project's own feature net


def test_the_feature_net_sees_grey_as_colour_and_smaller_images_enlarged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="models/classifiers/features.safetensors"):
        extractor("none")
    about = dict(image_shape=[3, 28, 28], n_classes=1, n_modalities=3, feature_dim=16)
    net = FeatureNet(**about)
    artifacts.save_module("models/classifiers/features.safetensors", net, about)
    extract = extractor("none")
    for channels, *size in ((3, 28, 28), (1, 28, 28), (3, 20, 28), (1, 8, 9)):
        images = noise(4, channels, *size)
        x = (images.float() / 255).repeat(1, 3 // channels, 1, 1)
        large = nn.functional.interpolate(x, (28, 28), mode="bilinear", align_corners=False)
        expected = net.eval().features(large)
        torch.testing.assert_close(extract(images), expected, rtol=1e-4, atol=1e-5)


def test_only_inceptions_features_are_called_fid():
    def name(weights):
        fid = SimpleNamespace(inception_weights=weights)
        return features.distance_name(SimpleNamespace(fid=fid))

    assert [*map(name, ("none", "download", "a.pt"))] == ["frechet_polymnist", "fid", "fid"]
