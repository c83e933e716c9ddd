"""Which features the Frechet distance is measured in, Inception's by a small TorchScript stand-in for its weights."""

import hashlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from stages.lib import artifacts, features, networks
from stages.lib.runtime import UserError

CPU = torch.device("cpu")

# Inception's weights are published as TorchScript, which PyTorch wants to be rid of.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")


def parameters(weights, sha256="0" * 64):
    return SimpleNamespace(fid=SimpleNamespace(inception_weights=str(weights), sha256=sha256))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def weights(tmp_path):
    """A TorchScript file like Inception's: `layers` maps (B, 3, 299, 299) to 2048 features.

    Here those are the mean colours of the left and the right half, and their multiples: see `colours_to_features`.
    """
    linear = nn.Linear(6, 2048, bias=False)
    linear.weight.data = colours_to_features(torch.eye(6)).T.contiguous()
    layers = nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), linear)
    torch.jit.script(nn.ModuleDict({"layers": layers})).save(str(tmp_path / "some-name.pt"))
    return tmp_path / "some-name.pt"


def colours_to_features(colours):
    """Red left, red right, green left, ... (B, 6) -> (B, 2048): once, then twice, three times, ..."""
    return torch.cat([(k + 1) * colours for k in range(342)], 1)[:, :2048]


def extract_with(weights):
    return features.extractor(parameters(weights, digest(weights)), CPU)


def refusal(p):
    with pytest.raises(UserError) as caught:
        features.extractor(p, CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def noise(*shape):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


# ---- Inception


def test_inception_sees_each_colour_scaled_to_one(weights):
    """A plain picture stays plain under any resize; 0..255 becomes (x - 128) / 128; red, green, blue in this order."""
    colours = torch.tensor([[0, 128, 255], [64, 192, 1]], dtype=torch.uint8)
    with torch.no_grad():
        found = extract_with(weights)(colours[:, :, None, None].expand(2, 3, 28, 28))
    assert found.shape == (2, 2048) and found.dtype == torch.float32
    expected = colours_to_features((colours.float().repeat_interleave(2, 1) - 128) / 128)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_inception_sees_clean_fids_resize(weights):
    """Random pixels, upright: the halves of clean-fid's own resize of a height x width x 3 array."""
    from cleanfid.resize import build_resizer

    images, resize = noise(3, 3, 20, 36), build_resizer("clean")
    with torch.no_grad():
        found = extract_with(weights)(images)
    large = np.stack([resize(image.permute(1, 2, 0).numpy()) for image in images])
    assert large.shape == (3, 299, 299, 3)
    halves = np.stack([large[:, :, :150].mean((1, 2)), large[:, :, 149:].mean((1, 2))], 2)  # B, colour, half
    expected = colours_to_features(torch.as_tensor((halves - 128) / 128).float().flatten(1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_inception_sees_grey_as_three_equal_colours(weights):
    grey, extract = noise(3, 1, 20, 36), extract_with(weights)
    with torch.no_grad():
        assert torch.equal(extract(grey), extract(grey.repeat(1, 3, 1, 1)))


def test_inception_does_not_mix_images(weights):
    images, extract = noise(3, 3, 28, 28), extract_with(weights)
    with torch.no_grad():
        torch.testing.assert_close(extract(images)[1:2], extract(images[1:2]))


def test_inception_needs_no_file_after_it_is_loaded(weights):
    extract = extract_with(weights)
    weights.unlink()
    assert torch.isfinite(extract(noise(1, 3, 28, 28))).all()


def test_inception_by_a_relative_path(weights, monkeypatch):
    monkeypatch.chdir(weights.parent)
    extract = features.extractor(parameters(weights.name, digest(weights)), CPU)
    assert extract(noise(1, 3, 28, 28)).shape == (1, 2048)


def test_a_wrong_digest_is_refused_before_loading(weights, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("loaded before the digest was checked"))
    message = refusal(parameters(weights, "f" * 64))
    assert str(weights) in message and digest(weights)[:12] in message and "f" * 12 in message
    assert "nothing was loaded" in message


def test_a_changed_byte_is_refused(weights):
    known, content = digest(weights), bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert "nothing was loaded" in refusal(parameters(weights, known))


def test_a_missing_file_is_named(tmp_path):
    message = refusal(parameters(tmp_path / "none.pt"))
    assert message.startswith("fid.inception_weights: ") and f"{tmp_path}/none.pt" in message


def test_a_folder_is_named(tmp_path):
    assert f"{tmp_path} can't be read" in refusal(parameters(tmp_path))


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    import cleanfid.downloads_helper

    monkeypatch.chdir(tmp_path)

    def no_route(folder):
        raise OSError("no route to host")

    monkeypatch.setattr(cleanfid.downloads_helper, "check_download_inception", no_route)
    message = refusal(parameters("download"))
    assert message.startswith("fid.inception_weights: download failed (no route to host)") and "none" in message


def test_a_download_is_checked_used_and_kept(weights, tmp_path, monkeypatch):
    import cleanfid.downloads_helper

    monkeypatch.chdir(tmp_path)
    calls = []

    def fetch(folder):
        calls.append(folder)
        return shutil.copy(weights, folder)

    monkeypatch.setattr(cleanfid.downloads_helper, "check_download_inception", fetch)
    assert "nothing was loaded" in refusal(parameters("download"))
    extract = features.extractor(parameters("download", digest(weights)), CPU)
    assert extract(noise(1, 3, 28, 28)).shape == (1, 2048)
    assert len(calls) == 1 and [f.name for f in (tmp_path / "data/raw").iterdir()] == ["inception-2015-12-05.pt"]


# ---- the project's own feature net


def test_feature_net(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape = dict(image_shape=[3, 28, 28], n_classes=10, n_modalities=5, feature_dim=16)
    net = networks.FeatureNet(**shape)
    artifacts.save_module("models/judge/features.safetensors", net, shape)
    images = noise(4, 3, 28, 28)
    found = features.extractor(parameters("none"), CPU)(images)
    assert found.shape == (4, 16) and found.dtype == torch.float32
    assert torch.equal(found, net.eval().features(images.float() / 255))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 28), (1, 8, 9)], ids=str)
def test_feature_net_of_other_shapes(tmp_path, monkeypatch, shape):
    """Modalities of several shapes have one net: it sees grey as colour and smaller images enlarged."""
    monkeypatch.chdir(tmp_path)
    about = dict(image_shape=[3, 28, 28], n_classes=1, n_modalities=3, feature_dim=16)
    net = networks.FeatureNet(**about)
    artifacts.save_module("models/judge/features.safetensors", net, about)
    images = noise(4, *shape)
    found = features.extractor(parameters("none"), CPU)(images)
    assert found.shape == (4, 16)
    large = nn.functional.interpolate((images.float() / 255).repeat(1, 3 // shape[0], 1, 1), (28, 28), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, net.eval().features(large), rtol=1e-4, atol=1e-5)


def test_a_missing_feature_net_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(parameters("none")).startswith("models/judge/features.safetensors")


# ---- the name


@pytest.mark.parametrize("weights, name", [("none", "frechet_polymnist"), ("download", "fid"), ("some/file.pt", "fid")])
def test_only_inceptions_features_are_called_fid(weights, name):
    assert features.distance_name(parameters(weights)) == name
