"""Files: round trips, bytes, damage of any kind, and writes that fail."""

import hashlib
import resource

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from ebmvae.core import artifacts
from ebmvae.core.messages import UserError

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1, 2]), "c": torch.tensor(True)}
SAVE = {  # by kind of file: how to write a small one
    "json": lambda file: artifacts.save_json(file, {"a": [1, 2.5, None, True], "é": {"b": "x\ny"}}),
    "array": lambda file: artifacts.save_array(file, np.arange(12, dtype=np.uint8).reshape(3, 4)),
    "tensors": lambda file: artifacts.save_tensors(file, TENSORS, {"dim": 3}),
}
LOAD = {kind: getattr(artifacts, f"load_{kind}") for kind in SAVE}
KINDS = pytest.mark.parametrize("kind", LOAD)


def linear(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs))


def assert_refused(file, call, *arguments):
    """`call` raises a `UserError` of one line, which names `file`."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True], "é": {"b": "x\ny"}}, [], 0.1, None])
def test_json_round_trip(tmp_path, value):
    artifacts.save_json(tmp_path / "x", value)
    assert artifacts.load_json(tmp_path / "x") == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.arange(24).reshape(4, 6).T / 7,
        np.arange(10)[::2],
        np.zeros((0, 3)),
    ],
)
def test_array_round_trip_and_changes_never_reach_the_file(tmp_path, array):
    artifacts.save_array(tmp_path / "x", array)
    for loaded in (artifacts.load_array(tmp_path / "x"), np.load(tmp_path / "x")):
        assert loaded.dtype == array.dtype
        np.testing.assert_array_equal(loaded, array)
        loaded[:] = 1
    np.testing.assert_array_equal(artifacts.load_array(tmp_path / "x"), array)


def test_tensors_round_trip_also_transposed_and_part_of_a_graph(tmp_path):
    base = torch.arange(12.0).view(3, 4).requires_grad_()
    tensors = {**TENSORS, "turned": base.T, "twice": 2 * base}
    artifacts.save_tensors(tmp_path / "x", tensors, {"modalities": ["m1"]})
    loaded, about = artifacts.load_tensors(tmp_path / "x")
    assert about == {"modalities": ["m1"]} and loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)


def test_module_round_trip(tmp_path):
    module, x = linear(3, 2), torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    module(x)  # moves the buffers of the batch norm
    artifacts.save_module(tmp_path / "x", module, dict(inputs=3, outputs=2))
    loaded = artifacts.load_module(tmp_path / "x", linear, torch.device("cpu"))
    assert torch.equal(loaded(x), module.eval()(x))
    assert not any(part.training for part in loaded.modules())
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_save_makes_folders_replaces_and_notes_the_sha256(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "verified", {})
    monkeypatch.chdir(tmp_path)
    digest = hashlib.sha256(b"2\n").hexdigest()
    for value in (1, 2):
        artifacts.save_json("a/b/x", value)
    assert contents(tmp_path / "a/b") == {"x": b"2\n", "x.sha256": f"{digest}\n".encode()}
    assert artifacts.load_json(tmp_path / "a/b/x") == 2
    assert artifacts.verified == {"a/b/x": digest}  # what checkpoints know of the files read
    artifacts.save_json("y", 3, checksum=False)
    assert contents(tmp_path) == {"y": b"3\n"} and artifacts.load_json("y", checksum=False) == 3


def test_bytes_do_not_depend_on_order_or_layout(tmp_path):
    artifacts.save_tensors(tmp_path / "one", TENSORS, {"b": 1, "a": {"d": 2, "c": [3]}})
    for _ in range(20):
        turned = {"a": {"c": [3], "d": 2}, "b": 1}  # the order of a dict is no content
        artifacts.save_tensors(tmp_path / "two", dict(reversed(TENSORS.items())), turned)
        assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()
    array = np.arange(24).reshape(4, 6)
    artifacts.save_array(tmp_path / "one", array)
    artifacts.save_array(tmp_path / "two", np.asfortranarray(array))
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()


@KINDS
def test_a_flip_of_any_byte_and_any_other_length_are_refused(tmp_path, kind):
    file = tmp_path / "x"
    SAVE[kind](file)
    whole = file.read_bytes()
    damaged = [
        whole[:i] + bytes([byte ^ 1 << i % 8]) + whole[i + 1 :] for i, byte in enumerate(whole)
    ]
    for content in [*damaged, *(whole[:i] for i in range(len(whole))), whole + b"\n"]:
        file.write_bytes(content)
        assert_refused(file, LOAD[kind], file)
    file.write_bytes(whole)
    for checksum in (b"", b"0" * 64, b"\xff\xfe"):
        (tmp_path / "x.sha256").write_bytes(checksum)
        assert_refused(file, LOAD[kind], file)


@KINDS
def test_a_missing_file_and_a_folder_in_its_place_are_named(tmp_path, kind):
    for missing in ("x", "x.sha256"):
        SAVE[kind](tmp_path / "x")
        (tmp_path / missing).unlink()
        assert_refused(tmp_path / missing, LOAD[kind], tmp_path / "x")
    SAVE[kind](tmp_path / "x")
    (tmp_path / "x").unlink()
    (tmp_path / "x").mkdir()
    assert_refused(tmp_path / "x", LOAD[kind], tmp_path / "x")


@pytest.mark.parametrize(
    "kind, contents",
    [
        ("tensors", [b"", b"hello", b"\xff" * 100, save({"a": torch.ones(1)}, {"format": "pt"})]),
        ("array", [b"", b"hello", b"\x93NUMPY\x01\x00", b"PK\x03\x04" + bytes(100)]),
        ("json", [b'{"loss": NaN}', b"[Infinity]", b"{", b"", b"[" * 100_000]),
    ],
)
def test_a_right_checksum_of_other_content(tmp_path, kind, contents):
    for content in contents:
        artifacts.write(tmp_path / "x", content)
        assert_refused(tmp_path / "x", LOAD[kind], tmp_path / "x")


@pytest.mark.parametrize("about", [dict(inputs=4, outputs=2), dict(inputs=3, outputs=2, dropout=1)])
def test_weights_or_arguments_of_another_network(tmp_path, about):
    artifacts.save_module(tmp_path / "x", linear(3, 2), about)
    assert_refused(tmp_path / "x", artifacts.load_module, tmp_path / "x", linear, "cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_neither_loaded_nor_written(tmp_path, value):
    tensors = {"mean": torch.tensor([0.0, value]), "n": torch.tensor([1])}
    artifacts.save_tensors(tmp_path / "x", tensors)
    assert_refused(tmp_path / "x", artifacts.load_tensors, tmp_path / "x")
    with pytest.raises(ValueError):
        artifacts.save_json(tmp_path / "y", {"a": [value]})
    with pytest.raises(ValueError):
        artifacts.save_array(tmp_path / "z", np.array([{}]))  # pickles neither
    assert contents(tmp_path).keys() == {"x", "x.sha256"}


@KINDS
def test_a_file_or_a_folder_in_the_way(tmp_path, kind):
    (tmp_path / "file").write_text("old")
    assert_refused(tmp_path / "file" / "x", SAVE[kind], tmp_path / "file" / "x")
    (tmp_path / "x").mkdir()
    assert_refused(tmp_path / "x", SAVE[kind], tmp_path / "x")
    assert contents(tmp_path) == {"file": b"old"} and contents(tmp_path / "x") == {}


def test_a_file_that_may_not_grow_leaves_the_old_one(tmp_path):
    """The system refuses in the middle of the write, as a full disk does."""
    artifacts.save_json(tmp_path / "x", "old")
    before, limits = contents(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        assert_refused(tmp_path / "x", artifacts.write, tmp_path / "x", bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "call, number, after",
    [("fsync", 1, "old"), ("fsync", 2, "old"), ("replace", 1, "old"), ("fsync", 3, "new")],
    ids=["file", "checksum", "rename", "folder"],
)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_ends_half_way_leaves_a_whole_file(
    tmp_path, monkeypatch, call, number, after, error
):
    artifacts.save_json(tmp_path / "x", "old")
    real, calls = getattr(artifacts.os, call), []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise error
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises((UserError, KeyboardInterrupt)):
        patch.setattr(artifacts.os, call, failing)
        artifacts.save_json(tmp_path / "x", "new")
    assert artifacts.load_json(tmp_path / "x") == after
    assert contents(tmp_path).keys() == {"x", "x.sha256"}  # no temporary file


def test_together_is_all_or_none(tmp_path):
    for name in ("a", "b"):
        artifacts.save_json(tmp_path / name, "old")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="a/b: "), artifacts.together():
        artifacts.save_json(tmp_path / "a", "new")
        artifacts.save_json(tmp_path / "folder" / "c", "new")
        assert artifacts.load_json(tmp_path / "a") == "old"  # not before all are written
        artifacts.save_json(tmp_path / "a" / "b", "new")  # a file is no folder
    assert contents(tmp_path) == before and contents(tmp_path / "folder") == {}
    artifacts.save_json(tmp_path / "a", "alone")  # a write after a failed unit
    assert artifacts.load_json(tmp_path / "a") == "alone"
    with artifacts.together():
        for name in ("a", "b"):
            artifacts.save_json(tmp_path / name, "new")
    assert [artifacts.load_json(tmp_path / name) for name in ("a", "b")] == ["new", "new"]
    assert contents(tmp_path).keys() == before.keys()
