"""Tuples of PolyMNIST: what every pixel must be. And the stage that writes them."""

import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from ebmvae import params
from ebmvae.core import artifacts
from ebmvae.core.messages import UserError
from ebmvae.core.random import seed_of
from ebmvae.sources import folders
from ebmvae.sources.digits import SIDE
from ebmvae.sources.tuples import make_tuples
from stages import polymnist
from tests.project import ROOT

M, N, CLASSES = 3, 60, 4


def rng(seed=0):
    return np.random.default_rng(seed)


def digit_set():
    """40 images of random grey values, labels, and writers: each picture is by its own writer."""
    labels = np.repeat(np.arange(CLASSES), 10)
    images = rng(1).integers(0, 256, (len(labels), SIDE, SIDE), dtype=np.uint8)
    images[:, 0, :4] = 128, 129, 0, 255  # 128 is no ink, 129 is
    return images, labels, np.arange(len(labels))


def backgrounds():
    """One larger than a crop, one wide, and one with room for a single crop."""
    sizes = [(40, 50), (28, 90), (28, 28)]
    return [rng(2 + m).integers(0, 256, (*size, 3), dtype=np.uint8) for m, size in enumerate(sizes)]


def tuples(seed=0, n=N, writers=None, pictures=None):
    images, labels, own = digit_set()
    digits = images, labels, own if writers is None else writers
    return make_tuples(*digits, pictures or backgrounds(), n, rng(seed))


def crop_of(background, position):
    y, x = position
    return background[y : y + SIDE, x : x + SIDE].transpose(2, 0, 1)


def sources(images, crops):
    """Index (N, M) of the digit over each crop, known by its ink; there must be exactly one."""
    ink_of_digits, source = digit_set()[0] > 128, np.empty((len(crops), M), int)
    for m, background in enumerate(backgrounds()):
        for i in range(len(crops)):
            # A value and its inverse are never equal.
            ink = (images[m][i] != crop_of(background, crops[i, m]))[0]
            (source[i, m],) = np.flatnonzero((ink_of_digits == ink).all((1, 2)))
    return source


# ---- tuples


def test_every_pixel_is_the_crop_or_its_inverse_where_the_digit_is():
    images, labels, crops = tuples()
    assert [(array.shape, array.dtype) for array in images] == [((N, 3, SIDE, SIDE), np.uint8)] * M
    assert all(array.flags.c_contiguous for array in images)
    assert labels.dtype == crops.dtype == np.int64
    digits, source = digit_set()[0], sources(images, crops)
    for m, background in enumerate(backgrounds()):
        for i in range(N):
            crop = crop_of(background, crops[i, m])
            ink = digits[source[i, m]] > 128  # the same in all three colours
            np.testing.assert_array_equal(images[m][i], np.where(ink, 255 - crop, crop))


def test_all_digits_of_a_tuple_have_its_class():
    images, labels, crops = tuples()
    classes = digit_set()[1][sources(images, crops)]
    np.testing.assert_array_equal(classes, np.repeat(labels[:, None], M, 1))


@pytest.mark.parametrize("n_writers", [40, 4, M])
def test_writers_differ_within_a_tuple(n_writers):
    """With few writers of many digits, another digit of one writer does not count as another."""
    writers = np.arange(40) % n_writers
    images, _, crops = tuples(writers=writers)
    assert all(len(set(row)) == M for row in writers[sources(images, crops)].tolist())


def test_too_few_writers_are_refused():
    labels = digit_set()[1]
    with pytest.raises(UserError, match="digit 2 "):
        tuples(writers=np.where(labels == 2, 0, np.arange(40)))


def test_classes_are_as_frequent_as_among_the_digits():
    _, labels, _ = tuples(n=80)  # twice the 40 digits
    np.testing.assert_array_equal(np.bincount(labels), [20] * CLASSES)


def test_crops_reach_every_position_and_no_further():
    picture = rng(5).integers(0, 256, (SIDE + 1, SIDE + 2, 3), dtype=np.uint8)
    _, _, crops = tuples(n=400, pictures=[picture] * M)
    for m in range(M):
        assert set(map(tuple, crops[:, m].tolist())) == {(y, x) for y in range(2) for x in range(3)}
    assert (crops[:, 0] != crops[:, 1]).any()  # each modality has its own


def test_tuples_follow_the_seed():
    first, again, other = tuples(0), tuples(0), tuples(1)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[1] != other[1]).any() and (first[2] != other[2]).any()


# ---- the stage


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["polymnist"])
    return tmp_path


def run(**changes):
    """Run the stage with small sizes and `changes` of its parameters; returns these."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["polymnist"].update({"n_train": 120, "n_test": 100, "modalities": 3, **changes})
    with open("params.yaml", "w") as file:
        yaml.safe_dump(values, file)
    polymnist.main()
    return params.load().polymnist


def test_the_stage_writes_the_tuples(folder, monkeypatch):
    digits = {"train": digit_set(), "test": digit_set()}
    about = {"dataset": "D", "digits": "d"}
    monkeypatch.setattr(polymnist.digits, "load", lambda choice, seed: (digits, about))
    run(seed=7)
    pictures, _ = polymnist.load_backgrounds("builtin", 3)
    for split, n in (("train", 120), ("test", 100)):
        images, labels, crops = make_tuples(
            *digit_set(), pictures, n, rng(seed_of("polymnist", 7, split))
        )
        expected = {"m1": images[0], "m2": images[1], "m3": images[2]}
        for name, array in {**expected, "labels": labels, "crops": crops}.items():
            written = artifacts.load_array(f"data/polymnist/{split}/{name}.npy")
            np.testing.assert_array_equal(written, array)
    provenance = artifacts.load_json("data/polymnist/provenance.json")
    keys = ("dataset", "digits", "modalities", "seed", "n_train", "n_test")
    assert [provenance[key] for key in keys] == ["D", "d", ["m1", "m2", "m3"], 7, 120, 100]


def test_the_stage_writes_own_pictures_or_nothing(folder):
    for m, name in enumerate("abc"):
        (folder / "own" / name).mkdir(parents=True)
        for k in range(220):
            pixels = rng([m, k]).integers(0, 256, (8 + m, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "own" / name / f"{k:03d}.png")
    rows = "".join(f"{k:03d},{'even' if k % 2 == 0 else 'odd'}\n" for k in range(220))
    (folder / "own/labels.csv").write_text(f"name,label\n{rows}")
    p = run(own_data="own", seed=7)
    splits, about = folders.read_own(folder / "own", p, rng(seed_of("own data", 7)))
    provenance = artifacts.load_json("data/polymnist/provenance.json")
    assert {key: provenance[key] for key in about} == about
    assert provenance["classes"] == ["even", "odd"]
    for split, (images, labels, _) in splits.items():
        written = folder / "data/polymnist" / split
        for m, array in enumerate(images):
            np.testing.assert_array_equal(artifacts.load_array(written / f"m{m + 1}.npy"), array)
        np.testing.assert_array_equal(artifacts.load_array(written / "labels.npy"), labels)
        assert not (written / "crops.npy").exists()
    before = files_in(folder / "data")
    (folder / "own/c/199.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="own/c/199.png"):
        run(own_data="own", seed=7)
    assert files_in(folder / "data") == before


@pytest.mark.parametrize("choice, settled", [("auto", "embedded"), ("embedded", "embedded")])
def test_auto_that_fell_back_is_recorded_in_the_parameters(folder, monkeypatch, choice, settled):
    without_mnist(monkeypatch)
    assert run(digits=choice).digits == settled
    assert artifacts.load_json("data/polymnist/provenance.json")["digits"] == "embedded"


def test_nothing_is_recorded_where_mnist_is_at_hand_or_the_stage_fails(folder, monkeypatch):
    mnist = {"train": digit_set(), "test": digit_set()}, {"dataset": "D", "digits": "mnist"}
    monkeypatch.setattr(polymnist.digits, "mnist", lambda: mnist)
    assert run(digits="auto").digits == "auto"
    without_mnist(monkeypatch)
    (folder / "data/polymnist/train").rename(folder / "kept")
    (folder / "data/polymnist/train").write_bytes(b"in the way")
    with pytest.raises(UserError, match="data/polymnist/train"):
        run(digits="auto")
    assert params.load().polymnist.digits == "auto"


def without_mnist(monkeypatch):
    def nowhere():
        raise polymnist.digits.NotFound("no mirror answered")

    few = {"train": digit_set(), "test": digit_set()}, {"dataset": "E", "digits": "embedded"}
    monkeypatch.setattr(polymnist.digits, "mnist", nowhere)
    monkeypatch.setattr(polymnist.digits, "embedded", lambda seed: few)


@pytest.mark.parametrize(
    "before, after",
    [
        (b"p:\n  digits: auto        # auto | x\n", b"p:\n  digits: embedded    # auto | x\n"),
        (b"p:\r\n    digits: auto\r\n", b"p:\r\n    digits: embedded\r\n"),
        (b"# \xc3\xab\np:\n  digits: auto", b"# \xc3\xab\np:\n  digits: embedded"),
    ],
)
def test_the_record_changes_one_word(folder, before, after):
    (folder / "params.yaml").write_bytes(before)
    polymnist.settle_digits()
    assert (folder / "params.yaml").read_bytes() == after


@pytest.mark.parametrize("text", ["p: {digits: auto}\n", "  digits: auto\n  digits: auto\n", ""])
def test_a_record_that_has_no_place_is_an_error(folder, text):
    (folder / "params.yaml").write_text(text)
    with pytest.raises(UserError, match="polymnist.digits"):
        polymnist.settle_digits()
    assert (folder / "params.yaml").read_text() == text


def files_in(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
