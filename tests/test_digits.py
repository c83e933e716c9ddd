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

from stages.lib import digits
from stages.lib.runtime import UserError, generator

# ---- embedded


def embedded(seed=0, n_train=3000, n_test=500):
    return digits.embedded(seed, n_train, n_test)[0]


def test_embedded_shapes():
    for split, n in (("train", 3000), ("test", 500)):
        images, labels, writers = embedded()[split]
        assert images.shape == (n, 28, 28) and images.dtype == np.uint8
        assert labels.shape == writers.shape == (n,)
        assert set(labels) == set(range(10))


def test_embedded_splits_share_no_source_digit():
    (_, _, train), (_, _, test) = embedded()["train"], embedded()["test"]
    assert not set(train) & set(test)
    assert len(set(train) | set(test)) == len(load_digits().target)  # and none is left out
    pixels = load_digits().images
    seen = {pixels[i].tobytes() for i in set(train)}
    assert not any(pixels[i].tobytes() in seen for i in set(test))  # nor is one there twice


def test_embedded_labels_are_those_of_the_source():
    for _, labels, writers in embedded().values():
        np.testing.assert_array_equal(labels, load_digits().target[writers])


def test_embedded_is_deterministic_by_seed():
    first, again, other = embedded(0), embedded(0), embedded(1)
    for split in ("train", "test"):
        for a, b in zip(first[split], again[split]):
            np.testing.assert_array_equal(a, b)
        assert (first[split][0] != other[split][0]).any() and (first[split][2] != other[split][2]).any()


def test_embedded_writers_are_enough_for_ten_modalities():
    for _, labels, writers in embedded().values():
        assert min(len(set(writers[labels == c])) for c in range(10)) >= 10


def test_embedded_images_look_like_mnists():
    """Ink in the middle, an empty border, and a share of pixels > 128 like MNIST's 13 %."""
    images, _, _ = embedded()["train"]
    assert 0.06 < (images > 128).mean() < 0.25
    assert (images[:, [0, -1]] > 128).mean() < 0.01 and (images[:, :, [0, -1]] > 128).mean() < 0.01
    assert ((images > 128).sum((1, 2)) > 10).all()


def test_embedded_copies_of_a_source_differ():
    images, _, writers = embedded(n_train=3000)["train"]
    first, second = np.flatnonzero(writers == writers[0])[:2]
    assert (images[first] != images[second]).mean() > 0.05


def test_vary_is_deterministic_and_keeps_black_black():
    images = load_digits().images[:20] / 16
    one, two = (digits.vary(images, generator("cpu", "test")) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not digits.vary(np.zeros((3, 8, 8)), generator("cpu", 0)).any()


def test_embedded_provenance_says_so():
    _, provenance = digits.embedded(0, 100, 100)
    assert provenance["digits"] == "embedded" and "scikit-learn" in provenance["dataset"]


# ---- the IDX format, with small files in MNIST's place

SIZES = {"train": 30, "test": 12}


def idx(array):
    """An IDX file: two zeros, 8 for uint8, the number of dimensions, the sizes, the values."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def small_arrays():
    rng = np.random.default_rng(0)
    return {(split, part): rng.integers(0, 256 if part == "images" else 10, (n, 28, 28) if part == "images" else n,
                                        dtype=np.uint8) for split, n in SIZES.items() for part in ("images", "labels")}


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
    packed = file.with_name(file.name + ".gz")
    packed.write_bytes(gzip.compress(file.read_bytes(), **options))
    file.unlink()
    return packed


def assert_small_arrays(sets):
    for split, n in SIZES.items():
        images, labels, writers = sets[split]
        np.testing.assert_array_equal(images, small_arrays()[split, "images"])
        np.testing.assert_array_equal(labels, small_arrays()[split, "labels"])
        assert len(set(writers)) == n


def refusal(folder):
    """The one-line `UserError` that reading the folder raises, which is not `NotFound`."""
    with pytest.raises(UserError) as caught:
        digits.read_mnist(folder)
    assert not isinstance(caught.value, digits.NotFound) and "\n" not in str(caught.value)
    return str(caught.value)


def test_read_raw(small_mnist):
    sets, provenance = digits.read_mnist(small_mnist)
    assert_small_arrays(sets)
    assert provenance["digits"] == "mnist"
    assert provenance["digit_files"] == {name: digest for name, digest in digits.MNIST.values()}


@pytest.mark.parametrize("options", [dict(compresslevel=1, mtime=0), dict(compresslevel=9, mtime=1e9)])
def test_read_gzipped_whatever_the_header(small_mnist, options):
    for name, _ in digits.MNIST.values():
        zip_up(small_mnist / name, **options)
    assert_small_arrays(digits.read_mnist(small_mnist)[0])


def test_read_a_mixture_of_raw_and_gzipped(small_mnist):
    zip_up(small_mnist / "train-images-idx3-ubyte")
    assert_small_arrays(digits.read_mnist(small_mnist)[0])


def test_read_gzipped_under_a_raw_name(small_mnist):
    file = small_mnist / "train-images-idx3-ubyte"
    zip_up(file).rename(file)
    assert_small_arrays(digits.read_mnist(small_mnist)[0])


@pytest.mark.parametrize("name", [name for name, _ in digits.MNIST.values()])
def test_a_missing_file_is_not_found(small_mnist, name):
    (small_mnist / name).unlink()
    with pytest.raises(digits.NotFound, match=f"{small_mnist} holds no {name} or {name}.gz"):
        digits.read_mnist(small_mnist)


def test_a_missing_folder_is_not_found(tmp_path):
    with pytest.raises(digits.NotFound, match=f"{tmp_path}/none holds no"):
        digits.read_mnist(tmp_path / "none")


@pytest.mark.parametrize("name", [name for name, _ in digits.MNIST.values()])
def test_a_changed_byte_is_refused(small_mnist, name):
    content = bytearray((small_mnist / name).read_bytes())
    content[-1] ^= 1
    (small_mnist / name).write_bytes(content)
    assert refusal(small_mnist).startswith(f"{small_mnist}/{name}: SHA-256 of the content is ")


@pytest.mark.parametrize("content", [b"", b"x", b"\0\0\x08\x03", b"<html>404</html>"])
def test_wrong_content_is_refused(small_mnist, content):
    (small_mnist / "train-images-idx3-ubyte").write_bytes(content)
    assert refusal(small_mnist).startswith(f"{small_mnist}/train-images-idx3-ubyte: SHA-256")


def test_files_in_each_others_place_are_refused(small_mnist):
    train, test = small_mnist / "train-labels-idx1-ubyte", small_mnist / "t10k-labels-idx1-ubyte"
    test.write_bytes(train.read_bytes())
    assert refusal(small_mnist).startswith(f"{test}: SHA-256")


def test_any_truncation_of_a_gzip_is_refused(small_mnist):
    packed = zip_up(small_mnist / "t10k-labels-idx1-ubyte")
    whole = packed.read_bytes()
    for length in range(len(whole)):
        packed.write_bytes(whole[:length])
        assert refusal(small_mnist).startswith(f"{packed}: ")


def test_any_damage_to_a_gzip_is_refused_or_harmless(small_mnist):
    """A flip in the header may change nothing but the time stamp; the digits are then read all the same."""
    packed = zip_up(small_mnist / "t10k-labels-idx1-ubyte")
    whole, refused = packed.read_bytes(), 0
    for i in range(len(whole)):
        packed.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        try:
            assert_small_arrays(digits.read_mnist(small_mnist)[0])
        except UserError as error:
            assert str(error).startswith(f"{packed}: ") and not isinstance(error, digits.NotFound)
            refused += 1
    assert refused > len(whole) / 2


# ---- the choice


def test_mnist_dir_is_used(small_mnist, monkeypatch):
    monkeypatch.setenv("MNIST_DIR", str(small_mnist))
    for choice in ("auto", "mnist"):
        assert_small_arrays(digits.load(choice, 0)[0])


def nothing_found(monkeypatch, folder):
    """MNIST is nowhere, and no test asks the internet."""
    monkeypatch.delenv("MNIST_DIR", raising=False)
    monkeypatch.chdir(folder)

    def no_mirror(folder):
        raise digits.NotFound("no mirror answered")

    monkeypatch.setattr(digits, "download", no_mirror)
    monkeypatch.setattr(digits, "embedded", lambda seed: ("embedded", seed))


def test_auto_falls_back_to_the_embedded_digits_and_says_so(tmp_path, monkeypatch, capsys):
    nothing_found(monkeypatch, tmp_path)
    assert digits.load("auto", 3) == ("embedded", 3)
    warning = capsys.readouterr().err
    assert "WARNING" in warning and "no mirror answered" in warning and "embedded" in warning


def test_mnist_does_not_fall_back(tmp_path, monkeypatch):
    nothing_found(monkeypatch, tmp_path)
    with pytest.raises(digits.NotFound):
        digits.load("mnist", 0)


def test_embedded_does_not_look_for_mnist(tmp_path, monkeypatch, capsys):
    nothing_found(monkeypatch, tmp_path)
    assert digits.load("embedded", 3) == ("embedded", 3)
    assert capsys.readouterr().err == ""


def test_auto_does_not_fall_back_from_a_damaged_file(small_mnist, monkeypatch):
    monkeypatch.setenv("MNIST_DIR", str(small_mnist))
    (small_mnist / "train-images-idx3-ubyte").write_bytes(b"damaged")
    with pytest.raises(UserError, match="SHA-256"):
        digits.load("auto", 0)


def test_data_raw_is_used_without_mnist_dir(small_mnist, monkeypatch):
    nothing_found(monkeypatch, small_mnist)
    (small_mnist / "data").mkdir()
    raw = small_mnist / "data" / "raw"
    raw.mkdir()
    for name, _ in digits.MNIST.values():
        (small_mnist / name).rename(raw / name)
    assert_small_arrays(digits.load("auto", 0)[0])


# ---- the download, with a mirror that fails or not: no test asks the internet


def mirror(monkeypatch, serve):
    """Put `serve(root)` in the place of torchvision's MNIST, whose constructor downloads."""
    import torchvision

    def constructor(root, download):
        assert download and socket.getdefaulttimeout() == digits.TIMEOUT
        serve(root)

    monkeypatch.setattr(torchvision.datasets, "MNIST", constructor)


@pytest.mark.parametrize("error", [
    RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nmirror 1\nmirror 2"), TimeoutError("timed out"),
    urllib.error.URLError("no route to host"), http.client.BadStatusLine("<html>")], ids=repr)
def test_a_failed_download_is_not_found(tmp_path, monkeypatch, error):
    def serve(root):
        raise error

    mirror(monkeypatch, serve)
    with pytest.raises(digits.NotFound, match=r"^no mirror answered \(.+\)$") as caught:
        digits.download(tmp_path)
    assert "\n" not in str(caught.value)
    assert socket.getdefaulttimeout() is None


def test_a_download_leaves_the_files_in_its_folder(tmp_path, monkeypatch):
    def serve(root):
        (root / "MNIST" / "raw").mkdir(parents=True)
        (root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(b"labels")

    mirror(monkeypatch, serve)
    digits.download(tmp_path)
    assert (tmp_path / "t10k-labels-idx1-ubyte").read_bytes() == b"labels"


# ---- the real files


@pytest.fixture
def real_mnist():
    folder = os.environ.get("MNIST_DIR")
    if not folder:
        pytest.skip("MNIST_DIR is not set: no real MNIST files to read")
    return Path(folder).resolve()


def content_of(folder, name):
    raw = folder / name
    return raw.read_bytes() if raw.is_file() else gzip.decompress((folder / f"{name}.gz").read_bytes())


def test_real_mnist(real_mnist):
    sets, provenance = digits.read_mnist(real_mnist)
    assert provenance["digits"] == "mnist"
    for split, n, fives in (("train", 60000, 5421), ("test", 10000, 892)):
        images, labels, writers = sets[split]
        assert images.shape == (n, 28, 28) and images.dtype == np.uint8
        assert (labels == 5).sum() == fives and set(labels) == set(range(10))
        assert len(set(writers)) == n
    assert sets["train"][1][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert sets["test"][1][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_real_mnist_raw_and_zipped_anew(real_mnist, tmp_path):
    """Two files raw, the others with another gzip header, give the same arrays."""
    for i, (name, _) in enumerate(digits.MNIST.values()):
        content = content_of(real_mnist, name)
        if i < 2:
            (tmp_path / name).write_bytes(content)
        else:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content, 1, mtime=12345))
    expected, found = digits.read_mnist(real_mnist)[0], digits.read_mnist(tmp_path)[0]
    for split in ("train", "test"):
        for a, b in zip(expected[split], found[split]):
            np.testing.assert_array_equal(a, b)
