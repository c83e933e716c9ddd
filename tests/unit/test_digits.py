"""Digits: the embedded ones, and MNIST with everything that can be wrong with its files."""

import gzip
import hashlib
import http.client
import os
import socket
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ebmvae.core.messages import UserError
from ebmvae.sources import digits

FILES = [name for name, _ in digits.MNIST.values()]


# ---- embedded


def embedded(seed=0):
    return digits.embedded(seed, 3000, 500)[0]


@pytest.fixture(scope="module")
def made():
    return embedded()


def test_embedded_digits_are_of_their_source(made):
    for split, n in (("train", 3000), ("test", 500)):
        images, labels, writers = made[split]
        assert images.shape == (n, 28, 28) and images.dtype == np.uint8
        np.testing.assert_array_equal(labels, load_digits().target[writers])
        # Enough for ten modalities.
        assert min(len(set(writers[labels == c])) for c in range(10)) >= 10


def test_embedded_splits_share_no_source_digit(made):
    train, test = (set(made[split][2]) for split in ("train", "test"))
    pixels = load_digits().images
    assert not train & test and len(train | test) == len(pixels)
    assert not {pixels[i].tobytes() for i in train} & {pixels[i].tobytes() for i in test}


def test_embedded_digits_follow_the_seed(made):
    again, other = embedded(0), embedded(1)
    for split in ("train", "test"):
        for a, b in zip(made[split], again[split], strict=True):
            np.testing.assert_array_equal(a, b)
        for k in (0, 2):
            assert (made[split][k] != other[split][k]).any()


def test_embedded_digits_look_like_mnists(made):
    """Ink in the middle, an empty border, and a share of pixels > 128 like MNIST's 13 %."""
    images, _, writers = made["train"]
    ink = images > 128
    assert 0.06 < ink.mean() < 0.25 and (ink.sum((1, 2)) > 10).all()
    assert ink[:, [0, -1]].mean() < 0.01 and ink[:, :, [0, -1]].mean() < 0.01
    first, second = np.flatnonzero(writers == writers[0])[:2]  # copies of one source differ
    assert (images[first] != images[second]).mean() > 0.05


# ---- the IDX format, with small files in MNIST's place

SIZES = {"train": 30, "test": 12}


def idx(array):
    """An IDX file: two zeros, 8 for uint8, the number of dimensions, the sizes, the values."""
    sizes = np.array(array.shape, ">i4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def small_arrays():
    rng, arrays = np.random.default_rng(0), {}
    for split, n in SIZES.items():
        arrays[split, "images"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[split, "labels"] = rng.integers(0, 10, n, dtype=np.uint8)
    return arrays


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder with four small raw IDX files, which count as MNIST by their digests."""
    known = {}
    for key, array in small_arrays().items():
        name = digits.MNIST[key][0]
        (tmp_path / name).write_bytes(idx(array))
        known[key] = name, hashlib.sha256(idx(array)).hexdigest()
    monkeypatch.setattr(digits, "MNIST", known)
    return tmp_path


def zip_up(file, **options):
    """Replace a raw file by its .gz."""
    packed = file.with_name(f"{file.name}.gz")
    packed.write_bytes(gzip.compress(file.read_bytes(), **options))
    file.unlink()
    return packed


def assert_small_arrays(sets):
    for split, n in SIZES.items():
        images, labels, writers = sets[split]
        np.testing.assert_array_equal(images, small_arrays()[split, "images"])
        np.testing.assert_array_equal(labels, small_arrays()[split, "labels"])
        assert len(set(writers)) == n


def refused(folder, file):
    """Reading the folder raises a one-line `UserError` that names `file` and is no `NotFound`."""
    with pytest.raises(UserError) as caught:
        digits.read_mnist(folder)
    message = str(caught.value)
    assert not isinstance(caught.value, digits.NotFound)
    assert message.startswith(f"{file}: ") and "\n" not in message


@pytest.mark.parametrize("packed", [[], FILES[:1], FILES])
def test_files_are_raw_or_gzipped(small_mnist, packed):
    for i, name in enumerate(packed):
        zip_up(small_mnist / name, compresslevel=1 + i, mtime=1e9 * (i % 2))
    sets, provenance = digits.read_mnist(small_mnist)
    assert_small_arrays(sets)
    assert provenance["digits"] == "mnist"
    assert provenance["digit_files"] == dict(digits.MNIST.values())


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_not_found(small_mnist, name):
    (small_mnist / name).unlink()
    with pytest.raises(digits.NotFound, match=f"{small_mnist} holds no {name} or {name}.gz"):
        digits.read_mnist(small_mnist)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_refused(small_mnist, name):
    content = bytearray((small_mnist / name).read_bytes())
    content[-1] ^= 1
    (small_mnist / name).write_bytes(content)
    refused(small_mnist, small_mnist / name)


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03", idx(small_arrays()["train", "labels"])])
def test_other_content_is_refused_even_that_of_another_file(small_mnist, content):
    (small_mnist / FILES[3]).write_bytes(content)
    refused(small_mnist, small_mnist / FILES[3])


def test_any_truncation_of_a_gzip_is_refused(small_mnist):
    packed = zip_up(small_mnist / FILES[3])
    whole = packed.read_bytes()
    for length in range(len(whole)):
        packed.write_bytes(whole[:length])
        refused(small_mnist, packed)


def test_any_damage_to_a_gzip_is_refused_or_harmless(small_mnist):
    """A flip in the header may change nothing but the time stamp."""
    packed = zip_up(small_mnist / FILES[3])
    whole, refusals = packed.read_bytes(), 0
    for i in range(len(whole)):
        packed.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        try:
            assert_small_arrays(digits.read_mnist(small_mnist)[0])
        except UserError as error:
            assert str(error).startswith(f"{packed}: ") and not isinstance(error, digits.NotFound)
            refusals += 1
    assert refusals > len(whole) / 2


# ---- files under other names and in other folders: their content tells what they are

LABELS = "t10k-labels-idx1-ubyte"


def move(file, target):
    """Move a file of `small_mnist` to `target`, relative to its folder; into its name as well."""
    moving = file.rename(file.with_name("moving"))
    (file.parent / target).parent.mkdir(parents=True, exist_ok=True)
    return moving.rename(file.parent / target)


@pytest.mark.parametrize(
    "layout",
    [
        "MNIST/raw/{name}",  # torchvision's root
        "raw/{name}",  # and the folder in it
        "MNIST/{name}",
        "{dotted}",
        "MNIST/raw/{dotted}",
        "{name}/{name}",  # Kaggle's archive
        "{name} (1)",  # what a browser makes of a second download
        "{short}.bin",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_known_by_content_under_any_name(small_mnist, layout, packed):
    for name in FILES:
        dotted, short = name.replace("-idx", ".idx"), name[:7]
        target = layout.format(name=name, dotted=dotted, short=short)
        file = move(small_mnist / name, target)
        if packed:
            zip_up(file)
    sets, provenance = digits.read_mnist(small_mnist)
    assert_small_arrays(sets)
    assert provenance["digit_files"] == dict(digits.MNIST.values())


def test_swapped_names_and_a_zipped_file_without_gz_do_not_matter(small_mnist):
    first, second = small_mnist / FILES[0], small_mnist / FILES[1]
    images, labels = first.read_bytes(), second.read_bytes()
    first.write_bytes(labels)
    second.write_bytes(gzip.compress(images))
    assert_small_arrays(digits.read_mnist(small_mnist)[0])


def test_other_files_beside_do_not_matter(small_mnist):
    """Pictures, a damaged second copy, a folder and a dead link with MNIST's names."""
    for name, content in (
        ("a.png", b"\x89PNG"),
        ("b.gz", b"\x1f\x8b"),
        (f"{LABELS}.gz", b"\x1f\x8b"),
    ):
        (small_mnist / name).write_bytes(content)
    (small_mnist / f"{FILES[0]}.gz").mkdir()
    (small_mnist / "train-labels.idx1-ubyte").symlink_to("nowhere")
    assert_small_arrays(digits.read_mnist(small_mnist)[0])


@pytest.mark.parametrize("name", ["t10k-labels.idx1-ubyte", f"MNIST/raw/{LABELS}"])
@pytest.mark.parametrize("content", [b"<html>", idx(small_arrays()["test", "labels"])[:-1]])
def test_damage_is_named_in_other_layouts_too(small_mnist, name, content):
    file = move(small_mnist / LABELS, name)
    file.write_bytes(content)
    refused(small_mnist, file)


# ---- the choice


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """MNIST is nowhere, and no test asks the internet."""

    def no_mirror(folder):
        raise digits.NotFound("no mirror answered")

    monkeypatch.delenv("MNIST_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digits, "download", no_mirror)
    monkeypatch.setattr(digits, "embedded", lambda seed: ("embedded", seed))


@pytest.mark.parametrize("choice", ["auto", "mnist"])
def test_mnist_dir_is_used(small_mnist, nowhere, monkeypatch, choice):
    monkeypatch.setenv("MNIST_DIR", str(small_mnist))
    assert_small_arrays(digits.load(choice, 0)[0])


def test_data_raw_is_used_without_mnist_dir(small_mnist, nowhere):
    (small_mnist / "data/raw").mkdir(parents=True)
    for name in FILES:
        (small_mnist / name).rename(small_mnist / "data/raw" / name)
    assert_small_arrays(digits.load("auto", 0)[0])


def test_auto_falls_back_to_the_embedded_digits_and_says_so(nowhere, capsys):
    assert digits.load("auto", 3) == ("embedded", 3)
    warning = capsys.readouterr().err
    assert "WARNING" in warning and "no mirror answered" in warning and "embedded" in warning


def test_mnist_does_not_fall_back(nowhere):
    with pytest.raises(digits.NotFound, match="MNIST_DIR"):
        digits.load("mnist", 0)


def test_auto_does_not_fall_back_from_a_damaged_file(small_mnist, nowhere, monkeypatch):
    monkeypatch.setenv("MNIST_DIR", str(small_mnist))
    (small_mnist / FILES[0]).write_bytes(b"damaged")
    with pytest.raises(UserError, match=FILES[0]):
        digits.load("auto", 0)


@pytest.mark.parametrize("choice", ["auto", "mnist"])
@pytest.mark.parametrize("given", ["mistyped", "empty", "pictures", "file"])
def test_mnist_dir_without_mnist_stops_and_tells_what_was_looked_for(
    tmp_path, nowhere, monkeypatch, choice, given
):
    for folder in ("empty", "pictures"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pictures/train-images.png").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MNIST_DIR", given)
    with pytest.raises(UserError) as caught:
        digits.load(choice, 0)
    assert not isinstance(caught.value, digits.NotFound)
    for word in (f"MNIST_DIR={given}", "MNIST/raw", *FILES):
        assert word in str(caught.value)


def test_an_empty_mnist_dir_is_none(nowhere, monkeypatch):
    monkeypatch.setenv("MNIST_DIR", "")
    assert digits.load("auto", 3) == ("embedded", 3)


# ---- in the copy that `dvc exp run --temp` makes


@pytest.fixture
def copied(nowhere, tmp_path, monkeypatch):
    """The current folder is a copy of the project in `tmp_path`."""
    copy = tmp_path / ".dvc/tmp/exps/standalone/tmp1"
    (copy / ".dvc").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(copy)
    return copy


@pytest.mark.parametrize("given", [None, "data/raw", "kept"])
def test_a_copy_takes_mnist_from_its_project(small_mnist, copied, monkeypatch, given):
    for name in FILES:
        move(small_mnist / name, f"{given or 'data/raw'}/{name}")
    (copied / "kept").mkdir()  # there too, without MNIST
    if given:
        monkeypatch.setenv("MNIST_DIR", given)
    assert_small_arrays(digits.load("auto", 0)[0])


def test_a_copy_does_not_fall_back(copied, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} .*polymnist.digits=embedded"):
        digits.load("auto", 0)
    assert digits.load("embedded", 3) == ("embedded", 3)


def test_an_experiment_in_the_project_itself_falls_back(nowhere, tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_EXP_NAME", "bold-ring")
    assert digits.load("auto", 3) == ("embedded", 3)


# ---- the download, with a mirror that fails or not: no test asks the internet


def mirror(monkeypatch, serve):
    """Put `serve(root)` in the place of torchvision's MNIST, whose constructor downloads."""
    import torchvision

    def constructor(root, download):
        assert download and socket.getdefaulttimeout() == digits.TIMEOUT
        serve(root)

    monkeypatch.setattr(torchvision.datasets, "MNIST", constructor)


FAILURES = [
    RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nmirror 1\nmirror 2"),
    TimeoutError("timed out"),
    urllib.error.URLError("no route to host"),
    http.client.BadStatusLine("<html>"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_failed_download_is_not_found(tmp_path, monkeypatch, error):
    def serve(root):
        raise error

    mirror(monkeypatch, serve)
    with pytest.raises(digits.NotFound) as caught:
        digits.download(tmp_path)
    assert "\n" not in str(caught.value)
    assert socket.getdefaulttimeout() is None


def test_a_download_leaves_the_files_in_its_folder(tmp_path, monkeypatch):
    def serve(root):
        (root / "MNIST" / "raw").mkdir(parents=True)
        (root / "MNIST" / "raw" / FILES[3]).write_bytes(b"labels")

    mirror(monkeypatch, serve)
    digits.download(tmp_path)
    assert (tmp_path / FILES[3]).read_bytes() == b"labels"


# ---- the real files


def test_real_mnist():
    folder = os.environ.get("MNIST_DIR")
    if not folder:
        pytest.skip("MNIST_DIR is not set: no real MNIST files to read")
    sets, _ = digits.read_mnist(Path(folder).resolve())
    for split, n, fives in (("train", 60000, 5421), ("test", 10000, 892)):
        images, labels, writers = sets[split]
        assert images.shape == (n, 28, 28) and images.dtype == np.uint8
        assert (labels == 5).sum() == fives and set(labels) == set(range(10))
        assert len(set(writers)) == n
    assert sets["train"][1][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert sets["test"][1][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
