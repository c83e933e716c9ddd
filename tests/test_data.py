"""What is read of the data: types, shapes and ranges, each wrong one named."""

import numpy as np
import pytest
import torch

from stages.lib import artifacts, data
from stages.lib.runtime import UserError

N, NAMES = 6, ["m1", "m2"]


@pytest.fixture
def folder(tmp_path):
    """A data set of N tuples of two modalities."""
    artifacts.save_json(tmp_path / "provenance.json", {"modalities": NAMES})
    for split in ("train", "test"):
        for name in NAMES:
            artifacts.save_array(tmp_path / split / f"{name}.npy", np.full((N, 3, 8, 8), 255, np.uint8))
        artifacts.save_array(tmp_path / split / "labels.npy", np.arange(N))
        artifacts.save_array(tmp_path / split / "crops.npy", np.ones((N, 2, 2), np.int64))
    return tmp_path


def refusal(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_split(folder):
    split = data.load_split("test", folder=folder)
    assert split.modalities == NAMES and len(split) == N and data.n_classes(split.labels) == N
    assert split.crops.shape == (N, 2, 2) and split.images["m1"].dtype == torch.uint8
    assert data.load_split("train", modalities=["m2"], folder=folder).modalities == ["m2"]


@pytest.mark.parametrize("digits", ["imported", "own"])
def test_a_split_without_crops(folder, digits):
    """Images from outside have none; a file left from another run is not theirs."""
    artifacts.save_json(folder / "provenance.json", {"modalities": NAMES, "digits": digits})
    assert data.load_split("train", folder=folder).crops is None


def test_crops_that_are_gone(folder):
    (folder / "train" / "crops.npy").unlink()
    assert "train/crops.npy: missing" in refusal(data.load_split, "train", folder=folder)


def test_an_unknown_modality(folder):
    assert refusal(data.load_split, "train", modalities=["m7"], folder=folder).endswith("no modality m7; there are m1, m2")


@pytest.mark.parametrize("array", [np.zeros((N, 3, 8, 8), np.float32), np.zeros((N, 3, 8), np.uint8), np.zeros((N + 1, 3, 8, 8), np.uint8)])
def test_images_that_do_not_fit(folder, array):
    artifacts.save_array(folder / "train" / "m2.npy", array)
    assert f"train/m2.npy: {array.shape}".replace(",)", ")")[:20] in refusal(data.load_split, "train", folder=folder)


@pytest.mark.parametrize("labels", [np.zeros(N, np.float64), np.zeros((N, 1), np.int64), np.full(N, -1), np.full(N, 1000), np.zeros(0, np.int64)])
def test_labels_that_are_none(folder, labels):
    artifacts.save_array(folder / "train" / "labels.npy", labels)
    assert "train/labels.npy: " in refusal(data.load_split, "train", folder=folder)


@pytest.mark.parametrize("crops", [np.zeros((N, 2, 2), np.int32), np.zeros((N, 3, 2), np.int64), np.full((N, 2, 2), -1)])
def test_crops_that_are_none(folder, crops):
    artifacts.save_array(folder / "train" / "crops.npy", crops)
    assert "train/crops.npy: " in refusal(data.load_split, "train", folder=folder)


def test_to_float_is_exact_and_in_the_memory_format_of_convolutions():
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    x = data.to_float(images)
    assert torch.equal(x, images / 255) and x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(data.to_uint8(x), images)


def test_latents(tmp_path):
    mean, logvar = torch.zeros(N, 2, 4), torch.ones(N, 2, 4)
    artifacts.save_tensors(tmp_path / "test.safetensors", {"mean": mean, "logvar": logvar}, {"modalities": NAMES})
    found = data.load_latents("test", folder=tmp_path)
    assert torch.equal(found[0], mean) and torch.equal(found[1], logvar) and found[2] == NAMES


@pytest.mark.parametrize("mean, logvar", [((N, 2, 4), (N, 2, 5)), ((N, 8), (N, 8)), ((N, 3, 4), (N, 3, 4))])
def test_latents_that_do_not_fit(tmp_path, mean, logvar):
    artifacts.save_tensors(tmp_path / "test.safetensors", {"mean": torch.zeros(mean), "logvar": torch.zeros(logvar)}, {"modalities": NAMES})
    assert "test.safetensors: " in refusal(data.load_latents, "test", folder=tmp_path)


@pytest.mark.parametrize("shapes, expected", [
    ([(3, 28, 28)] * 5, [3, 28, 28]), ([(1, 32, 20), (1, 20, 32)], [1, 32, 32]), ([(1, 40, 8), (3, 24, 36), (3, 8, 8)], [3, 40, 36])])
def test_the_common_shape_is_the_smallest_that_all_fit_into(shapes, expected):
    assert data.common_shape({f"m{i}": torch.zeros(2, *shape) for i, shape in enumerate(shapes)}) == expected
