"""Test tuples, one pass over images, and the numbers of a cell."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebmvae.core import artifacts
from ebmvae.core.messages import UserError
from ebmvae.data import splits
from ebmvae.evaluation import grid, metrics
from ebmvae.evaluation.classifiers import Classifier, FeatureNet
from stages import references

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def parameters(seed=0, n_samples=10, tuples="test"):
    return SimpleNamespace(
        seed=seed,
        evaluate=SimpleNamespace(tuples=tuples, n_samples=n_samples, batch_size=4),
        fid=SimpleNamespace(inception_weights="none"),
    )


def zeros(n):
    return torch.zeros(n, dtype=torch.int64)


# ---- which tuples


def test_tuples_are_distinct_and_the_same_for_all_seeds():
    def run(seed, n):
        return grid.test_tuples(parameters(seed, n), 50, CPU).tolist()

    assert len(set(run(0, 10))) == 10 and set(run(0, 10)) <= set(range(50))
    assert run(0, 10) == run(1, 10) != list(range(10))
    assert run(0, 10) == run(0, 20)[:10]  # more samples keep the first ones
    assert sorted(run(0, 100)) == list(range(50))


@pytest.mark.parametrize("n, n_test, expected", [(10, 110, 10), (110, 210, 100), (110, 500, 110)])
def test_tuples_to_tune_on_are_others(n, n_test, expected):
    """As many as are reported, or what is left."""
    reported = grid.test_tuples(parameters(0, n), n_test, CPU).tolist()
    chosen = grid.test_tuples(parameters(0, n, "validation"), n_test, CPU).tolist()
    assert chosen == grid.test_tuples(parameters(1, n, "validation"), n_test, CPU).tolist()
    assert len(chosen) == expected and len({*chosen, *reported}) == expected + n
    with pytest.raises(UserError, match="evaluate.tuples: .* of the 109 test tuples"):
        grid.test_tuples(parameters(0, n, "validation"), 109, CPU)


def test_figure_rows_are_five_of_each_class_repeated_where_scarce():
    labels = torch.tensor([2, 0, 2, 0, 2, 2, 2, 2, 0, 7])
    expected = [1, 3, 8, 1, 3, 0, 2, 4, 5, 6, 9, 9, 9, 9, 9]
    assert grid.figure_rows(labels).tolist() == expected
    assert grid.figure_rows(zeros(30)).tolist() == list(range(25))  # without labels
    assert grid.figure_rows(zeros(10)).tolist() == [*range(10), *range(10), *range(5)]


def test_page_rows_are_the_first_tuple_of_each_of_the_first_classes():
    labels = torch.tensor([7, 3, 3, 0, 7, 9, 1, 0, 8])
    assert grid.page_rows(labels).tolist() == [3, 6, 1, 0, 8]  # digits 0, 1, 3, 7, 8
    assert grid.page_rows(zeros(4)).tolist() == [0, 1, 2, 3]  # without labels
    assert grid.page_rows(zeros(40)).tolist() == [0, 1, 2, 3, 4]


# ---- one pass over images


def corner(images):
    return images[:, :1, 0, 0].float()


@pytest.mark.parametrize("labelled", [True, False])
def test_every_image_is_decoded_once_and_seen_as_a_png_would_hold_it(labelled):
    """Image i holds i, the classifier reads i mod 10, the feature is i: all come back in order."""
    decoded, seen = [], []

    def images_of(rows):
        decoded.extend(rows.tolist())
        return rows.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)

    def classifier(x):
        seen.append(x)
        return torch.nn.functional.one_hot((x[:, 0, 0, 0] * 255).round().long() % 10, 10)

    ruler = grid.Ruler({}, corner, "fid", batch_size=50)
    parts = grid.look_at(images_of, 256, classifier if labelled else None, ruler)
    images, predicted, extracted = parts
    assert decoded == list(range(256))
    assert images.shape == (256, 3, 2, 2) and images[:, 0, 0, 0].tolist() == list(range(256))
    assert extracted.dtype == np.float64 and extracted[:, 0].tolist() == list(range(256))
    if labelled:
        assert predicted.tolist() == [i % 10 for i in range(256)]
        assert torch.equal(torch.cat(seen), splits.to_float(images))
    else:
        assert predicted is None


class OnAppleGPU:
    """Features on a device without float64."""

    def __init__(self, features):
        self.features = features

    def cpu(self):
        return self.features

    def double(self):
        raise TypeError("the MPS framework doesn't support float64")


def test_features_become_float64_on_the_cpu():
    ruler = grid.Ruler({}, lambda images: OnAppleGPU(corner(images)), "fid", batch_size=3)
    images = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1)
    _, _, extracted = grid.look_at(images.__getitem__, 8, None, ruler)
    for features in (extracted, references.features_of(images, ruler)):
        assert features.dtype == np.float64 and features[:, 0].tolist() == list(range(8))


def test_nothing_else_of_what_runs_on_a_device_wants_float64():
    for file in [*ROOT.glob("ebmvae/**/*.py"), *ROOT.glob("stages/*.py")]:
        text = file.read_text()
        assert not re.search(r"(?<!\.cpu\(\))\.double\(\)|torch\.(float64|double)\b", text), file


# ---- the numbers of a cell

FEATURES = np.array([[0.0], [2.0], [10.0], [14.0]])  # mean 6.5, variance 131/3
REFERENCE = np.array([5.5]), np.array([[4.0]])
DISTANCE = pytest.approx(1 + (math.sqrt(131 / 3) - 2) ** 2)
PREDICTED, LABELS = np.array([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    "predicted, labels, coherence, diversity",
    [
        (PREDICTED, LABELS, 0.75, 5),
        (PREDICTED, None, None, 112 / 3),  # nothing observed: grouped by what was read
        (None, None, None, 131 / 3),  # data without labels
        (None, zeros(4), None, 131 / 3),
    ],
)
def test_measure(predicted, labels, coherence, diversity):
    row = grid.measure(predicted, labels, FEATURES, REFERENCE, "fid")
    expected = {"coherence": coherence, "fid": DISTANCE, "n_samples": 4}
    assert row == {**expected, "diversity": pytest.approx(diversity)}


@pytest.mark.parametrize("size, warned", [(3, False), (4, True)])
def test_measure_warns_of_a_singular_covariance(size, warned):
    extracted = np.random.default_rng(0).normal(size=(4, size))
    row = grid.measure(PREDICTED, LABELS, extracted, (np.zeros(size), np.eye(size)), "fid")
    assert ("warning" in row) == warned


def test_measure_of_the_reference_itself():
    extracted, labels = np.random.default_rng(0).normal(size=(50, 4)), torch.arange(50) % 10
    reference = metrics.feature_statistics(extracted)
    row = grid.measure(labels.numpy(), labels, extracted, reference, "fid")
    assert row["coherence"] == 1.0 and row["fid"] == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e5])
def test_what_diverged_is_left_out_with_a_warning(bad, capsys):
    z = torch.zeros(10, 3, 4)
    assert grid.converged(z, "x").tolist() == list(range(10)) and capsys.readouterr().err == ""
    z[3, 1, 2] = z[7, 0, 0] = bad
    assert grid.converged(z, "x").tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert "WARNING: x, 2 of 10 samples diverged" in capsys.readouterr().err
    z[:6] = bad
    with pytest.raises(UserError, match="^x, 7 of 10 samples diverged; nothing was written"):
        grid.converged(z, "x")


# ---- what is read from files


def test_classifiers_and_reference_statistics_are_read_by_modality(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape = dict(image_shape=[3, 8, 8], n_classes=10)
    about = dict(**shape, n_modalities=2, feature_dim=4)
    artifacts.save_module("models/classifiers/features.safetensors", FeatureNet(**about), about)
    images = {"m1": None, "m2": None}
    unlabelled = grid.load_ruler(parameters(), splits.Split(images, zeros(5), None), CPU)
    assert unlabelled.classifiers == images  # no file is looked for
    split = splits.Split(images, torch.tensor([0, 1]), None)
    with pytest.raises(UserError, match="models/classifiers/m1.safetensors"):
        grid.load_ruler(parameters(), split, CPU)
    saved = {name: Classifier(**shape) for name in images}
    for name, classifier in saved.items():
        artifacts.save_module(f"models/classifiers/{name}.safetensors", classifier, shape)
    ruler = grid.load_ruler(parameters(), split, CPU)
    assert (ruler.distance, ruler.batch_size) == ("frechet_polymnist", 4)
    for name in saved:
        assert torch.equal(ruler.classifiers[name].head.weight, saved[name].head.weight)
    keys = [f"{kind}/{name}" for kind in ("real", "vae") for name in images]
    parts = [f"{key}/{part}" for key in keys for part in grid.STATISTICS]
    tensors = {part: torch.tensor([float(i)]).double() for i, part in enumerate(parts)}
    artifacts.save_tensors("results/references/statistics.safetensors", tensors)
    statistics = grid.reference_statistics("m2")
    assert statistics == {"real": (3.0, 4.0, 5.0), "vae": (9.0, 10.0, 11.0)}
    assert statistics["real"][0].dtype == np.float64
