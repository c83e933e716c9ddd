"""Tuples on disk: types, shapes and ranges, the wrong ones named."""

import numpy as np
import pytest
import torch

from ebmvae.core import artifacts
from ebmvae.core.messages import UserError
from ebmvae.data import splits

N, NAMES = 6, ["m1", "m2"]


@pytest.fixture
def folder(tmp_path):
    """A data set of N tuples of two modalities."""
    artifacts.save_json(tmp_path / "provenance.json", {"modalities": NAMES})
    for split in ("train", "test"):
        for name in NAMES:
            images = np.full((N, 3, 8, 8), 255, np.uint8)
            artifacts.save_array(tmp_path / split / f"{name}.npy", images)
        artifacts.save_array(tmp_path / split / "labels.npy", np.arange(N))
        artifacts.save_array(tmp_path / split / "crops.npy", np.ones((N, 2, 2), np.int64))
    return tmp_path


def test_a_split(folder):
    split = splits.load_split("test", folder=folder)
    assert split.modalities == NAMES
    assert len(split) == N == splits.n_classes(split.labels)
    assert split.crops.shape == (N, 2, 2) and split.images["m1"].dtype == torch.uint8
    assert splits.load_split("train", modalities=["m2"], folder=folder).modalities == ["m2"]


@pytest.mark.parametrize("digits", ["imported", "own"])
def test_images_from_outside_have_no_crops(folder, digits):
    """A file left from another run is not theirs."""
    artifacts.save_json(folder / "provenance.json", {"modalities": NAMES, "digits": digits})
    assert splits.load_split("train", folder=folder).crops is None


def test_an_unknown_modality_and_a_missing_file(folder):
    with pytest.raises(UserError, match="m7.* m1, m2"):
        splits.load_split("train", modalities=["m7"], folder=folder)
    (folder / "train" / "crops.npy").unlink()
    with pytest.raises(UserError, match="train/crops.npy: "):
        splits.load_split("train", folder=folder)


@pytest.mark.parametrize(
    "name, array",
    [
        ("m2", np.zeros((N, 3, 8, 8), np.float32)),
        ("m2", np.zeros((N, 3, 8), np.uint8)),
        ("m2", np.zeros((N + 1, 3, 8, 8), np.uint8)),
        ("labels", np.zeros(N, np.float64)),
        ("labels", np.zeros((N, 1), np.int64)),
        ("labels", np.full(N, -1)),
        ("labels", np.full(N, 1000)),
        ("labels", np.zeros(0, np.int64)),
        ("crops", np.zeros((N, 2, 2), np.int32)),
        ("crops", np.zeros((N, 3, 2), np.int64)),
        ("crops", np.full((N, 2, 2), -1)),
    ],
)
def test_arrays_that_do_not_fit(folder, name, array):
    artifacts.save_array(folder / "train" / f"{name}.npy", array)
    with pytest.raises(UserError, match=f"train/{name}.npy: "):
        splits.load_split("train", folder=folder)


def test_to_float_is_exact_in_the_memory_format_of_convolutions_and_to_uint8_its_inverse():
    images = torch.arange(256, dtype=torch.uint8).view(4, 4, 4, 4)
    x = splits.to_float(images)
    assert torch.equal(x, images / 255) and x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(splits.to_uint8(x), images)
    outside = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 2.0])
    assert splits.to_uint8(outside).tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize(
    "shapes, expected",
    [([(3, 28, 28)] * 5, [3, 28, 28]), ([(1, 40, 8), (3, 24, 36), (3, 8, 8)], [3, 40, 36])],
)
def test_the_common_shape_is_the_smallest_that_all_fit_into(shapes, expected):
    images = {f"m{i}": torch.zeros(2, *shape) for i, shape in enumerate(shapes)}
    assert splits.common_shape(images) == expected
